// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"npuemu/attach"
	"npuemu/compiler"
	"npuemu/compiler/model"
	"npuemu/timing"
	"npuemu/vdev"
)

// message is a protobuf message under construction.
type message []byte

func (m message) num(n protowire.Number, v int) message {
	return protowire.AppendVarint(protowire.AppendTag(m, n, protowire.VarintType), uint64(v))
}

func (m message) bytes(n protowire.Number, b []byte) message {
	return protowire.AppendBytes(protowire.AppendTag(m, n, protowire.BytesType), b)
}

func (m message) str(n protowire.Number, s string) message { return m.bytes(n, []byte(s)) }

// The types of ONNX tensors.
const (
	onnxFloat = 1
	onnxInt8  = 3
	onnxInt32 = 6
)

// net is an ONNX model under construction, in int8 between QuantizeLinear and DequantizeLinear: what ONNX Runtime's quantization of
// vision.py's networks looks like, with weights, biases and scales from a seed.
type net struct {
	graph message
	rng   *rand.Rand
	n     int
	steps map[string]quantized // of what step returned
}

// quantized is a scale, and the tensors of scale and zero point.
type quantized struct {
	step        float64
	scale, zero string
}

func (b *net) name(what string) string {
	b.n++
	return fmt.Sprintf("%s_%d", what, b.n)
}

func (b *net) constant(what string, kind int, raw []byte, dims ...int) string {
	name, t := b.name(what), message{}
	for _, d := range dims {
		t = t.num(1, d)
	}
	b.graph = b.graph.bytes(5, t.num(2, kind).str(8, name).bytes(9, raw))
	return name
}

func (b *net) floats(v ...float64) string {
	var raw []byte
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(x)))
	}
	if len(v) == 1 {
		return b.constant("scale", onnxFloat, raw)
	}
	return b.constant("scales", onnxFloat, raw, len(v))
}

// weights are n pseudo-random bytes.
func (b *net) weights(n int) []byte {
	raw := make([]byte, (n+7)&^7)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(raw[i:], b.rng.Uint64())
	}
	return raw[:n]
}

// op adds a node with one output.
func (b *net) op(kind string, attrs map[string][]int, in ...string) string {
	out, m := b.name(kind), message{}
	for _, i := range in {
		m = m.str(1, i)
	}
	m = m.str(2, out).str(3, out).str(4, kind)
	for _, name := range []string{"axis", "group", "kernel_shape", "pads", "strides", "transB"} {
		v, ok := attrs[name]
		switch {
		case !ok:
		case name == "axis" || name == "group" || name == "transB":
			m = m.bytes(5, message{}.str(1, name).num(3, v[0]).num(20, 2))
		default:
			a := message{}.str(1, name).num(20, 7)
			for _, x := range v {
				a = a.num(8, x)
			}
			m = m.bytes(5, a)
		}
	}
	b.graph = b.graph.bytes(1, m)
	return out
}

// step is x in int8 and back, with a scale of its own. Behind a Relu the zero point is the least integer, which is all that ONNX Runtime
// leaves of it.
func (b *net) step(x string, relu bool) string {
	step, zero := float64(float32(0.02+0.02*b.rng.Float64())), int8(b.rng.IntN(9))
	if relu {
		zero = -128
	}
	return b.same(x, quantized{step, b.floats(step), b.constant("zero", onnxInt8, []byte{byte(zero)})})
}

// same is x in int8 and back, with scale and zero point that there are.
func (b *net) same(x string, q quantized) string {
	y := b.op("DequantizeLinear", nil, b.op("QuantizeLinear", nil, x, q.scale, q.zero), q.scale, q.zero)
	b.steps[y] = q
	return y
}

// product is a Conv, or a Gemm, with weights for each channel.
func (b *net) product(kind, x string, attrs map[string][]int, dims ...int) string {
	n := 1
	for _, d := range dims {
		n *= d
	}
	scales, sums := make([]float64, dims[0]), make([]float64, dims[0])
	for i := range scales {
		scales[i] = 1e-4 + 1e-4*b.rng.Float64()
		sums[i] = float64(float32(scales[i])) * b.steps[x].step
	}
	first := map[string][]int{"axis": {0}}
	w := b.op("DequantizeLinear", first, b.constant("weights", onnxInt8, b.weights(n), dims...), b.floats(scales...), b.constant("zeros", onnxInt8, make([]byte, dims[0]), dims[0]))
	bias := make([]byte, 0, 4*dims[0])
	for range dims[0] {
		bias = binary.LittleEndian.AppendUint32(bias, uint32(int32(b.rng.IntN(2000)-1000)))
	}
	c := b.op("DequantizeLinear", first, b.constant("bias", onnxInt32, bias, dims[0]), b.floats(sums...), b.constant("zeros", onnxInt32, make([]byte, 4*dims[0]), dims[0]))
	return b.op(kind, attrs, x, w, c)
}

func (b *net) conv(x string, cin, cout, k, stride int, relu bool) string {
	y := b.product("Conv", x, map[string][]int{"kernel_shape": {k, k}, "strides": {stride, stride}, "pads": {k / 2, k / 2, k / 2, k / 2}, "group": {1}}, cout, cin, k, k)
	return b.step(y, relu)
}

func value(name string, dims ...int) message {
	shape := message{}
	for _, d := range dims {
		shape = shape.bytes(1, message{}.num(1, d))
	}
	return message{}.str(1, name).bytes(2, message{}.bytes(1, message{}.num(1, onnxFloat).bytes(2, shape)))
}

// resnet50 is the ONNX file of ResNet-50 in int8, for an image of 224 × 224, of the shapes of vision.py.
func resnet50() []byte {
	b := &net{rng: rand.New(rand.NewPCG(50, 1)), steps: map[string]quantized{}}
	y := b.conv(b.step("x", false), 3, 64, 7, 2, true)
	y, cin := b.same(b.op("MaxPool", map[string][]int{"kernel_shape": {3, 3}, "strides": {2, 2}, "pads": {1, 1, 1, 1}}, y), b.steps[y]), 64
	for i, count := range []int{3, 4, 6, 3} {
		c := 64 << i
		for j := range count {
			s := 1
			if i > 0 && j == 0 {
				s = 2
			}
			z := b.conv(b.conv(b.conv(y, cin, c, 1, 1, true), c, c, 3, s, true), c, 4*c, 1, 1, false)
			if j == 0 {
				y = b.conv(y, cin, 4*c, 1, s, false)
			}
			y, cin = b.step(b.op("Add", nil, y, z), true), 4*c
		}
	}
	y = b.step(b.op("GlobalAveragePool", nil, y), false)
	y = b.same(b.op("Flatten", nil, y), b.steps[y])
	y = b.step(b.product("Gemm", y, map[string][]int{"transB": {1}}, 1000, cin), false)
	g := b.graph.str(2, "resnet50").bytes(11, value("x", 1, 3, 224, 224)).bytes(12, value(y, 1, 1000))
	return message{}.num(1, 10).bytes(8, message{}.num(2, 20)).bytes(7, g)
}

// compileFile is npuemu compile: it compiles the model in a file for the default core, estimates its cycles, and writes it.
func compileFile(ctx context.Context, path string) (*model.Model, error) {
	g, err := compiler.Load(path, nil)
	if err != nil {
		return nil, err
	}
	m, err := compiler.Build(g, attach.Target(vdev.DefaultConfig()))
	if err != nil {
		return nil, err
	}
	if err := compiler.Estimate(ctx, m, timing.DefaultParams()); err != nil {
		return nil, err
	}
	b, err := m.Write()
	if err != nil {
		return nil, err
	}
	return m, os.WriteFile(strings.TrimSuffix(path, ".onnx")+".npu", b, 0o600)
}

// compiledAlone is the variable that makes the test program compile a file and nothing else.
const compiledAlone = "NPUEMU_TEST_COMPILE"

func TestMain(m *testing.M) {
	path := os.Getenv(compiledAlone)
	if path == "" {
		os.Exit(m.Run())
	}
	if _, err := compileFile(context.Background(), path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// alone compiles a file in a process of its own, and returns its processor time and the most memory that it had.
func alone(tb testing.TB, path string) (cpu time.Duration, memory int64) {
	tb.Helper()
	exe, err := os.Executable()
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.CommandContext(tb.Context(), exe)
	cmd.Env = append(os.Environ(), compiledAlone+"="+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("%v\n%s", err, out)
	}
	u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		tb.Skip("the system does not say what a process used")
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), u.Maxrss << 10
}

// statedMemory is what the page says of the compiler's memory for a model, in bytes.
func statedMemory(tb testing.TB, title string) float64 {
	tb.Helper()
	b, err := os.ReadFile(pagePath)
	if err != nil {
		tb.Fatal(err)
	}
	_, times, _ := strings.Cut(string(b), "\n## Time\n")
	_, rest, _ := strings.Cut(times, "\n| "+title+" | ")
	line, _, _ := strings.Cut(rest, " |\n")
	n, err := strconv.ParseFloat(line[strings.LastIndex(line, " ")+1:], 64)
	if err != nil {
		tb.Fatalf("%s has no memory of %s: %v; make models writes it", page, title, err)
	}
	return n * 1e6
}

func resnetFile(tb testing.TB) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "resnet50.onnx")
	if err := os.WriteFile(path, resnet50(), 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

// TestResNet50: a network of ResNet-50's shapes is compiled whole for the card, with the page's products and memory, in less than
// compileTime of processor time, a fifth of which it takes, and in twice the memory that the page states at the most: how much there is
// between collections depends on what else the machine does.
func TestResNet50(t *testing.T) {
	path := resnetFile(t)
	m, err := compileFile(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	f := describe(m)
	_, got, _ := row(t, "ResNet-50")
	cells := strings.Split(got, " | ")
	macs, err := strconv.ParseUint(cells[2], 10, 64)
	if err != nil {
		t.Fatalf("the page has %q products: %v", cells[2], err)
	}
	stated, err := strconv.ParseFloat(cells[7], 64)
	if err != nil {
		t.Fatalf("the page has %q MiB: %v", cells[7], err)
	}
	if len(f.Hosts) > 0 || f.MACs != macs || fmt.Sprint(f.Device) != cells[0] {
		t.Errorf("%d operators on the device, %v on the host, %d products; the page has %s and %d", f.Device, f.Hosts, f.MACs, cells[0], macs)
	}
	if n := float64(f.Constants+f.Activation) / (1 << 20); n < 0.95*stated || n > 1.05*stated {
		t.Errorf("constants and activations take %.1f MiB, the page has %g", n, stated)
	}
	if info, _ := debug.ReadBuildInfo(); info != nil && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		t.Skip("the race detector takes time and memory of its own")
	}
	cpu, memory := alone(t, path)
	t.Logf("%.2f s of processor time, %d MB", cpu.Seconds(), memory/1e6)
	if cpu > compileTime*time.Second {
		t.Errorf("%.2f s of processor time; the most is %d s", cpu.Seconds(), compileTime)
	}
	if stated := statedMemory(t, "ResNet-50"); float64(memory) > 2*stated {
		t.Errorf("%d MB of memory; the page states %.0f", memory/1e6, stated/1e6)
	}
}

// BenchmarkCompileResNet50 is compilations in processes of their own, which write no table: processor seconds, and the largest resident set.
func BenchmarkCompileResNet50(b *testing.B) {
	path := resnetFile(b)
	var cpu time.Duration
	var memory int64
	for b.Loop() {
		c, m := alone(b, path)
		cpu, memory = cpu+c, max(memory, m)
	}
	b.ReportMetric(cpu.Seconds()/float64(b.N), "cpu-s/op")
	b.ReportMetric(float64(memory)/1e6, "peak-MB")
}
