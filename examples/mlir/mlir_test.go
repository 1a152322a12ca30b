// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/isa/lint"
	cards "npuemu/tests/compiler"
	"npuemu/vdev"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata, with NPUEMU_MLIR=1 also what MLIR's tools print")

// sizes of linear.mlir.
const (
	m, k, n = 96, 256, 64
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// golden compares text with a file of testdata, or writes it.
func golden(t *testing.T, name, text string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(read(t, name)), text); diff != "" {
		t.Errorf("%s (-want +got; go test -update rewrites it):\n%s", name, diff)
	}
}

// translate runs the command on what the tools printed.
func translate(t testing.TB, generic string, args ...string) string {
	t.Helper()
	var out strings.Builder
	if err := run(args, bytes.NewReader(read(t, filepath.Join("testdata", generic))), &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// operands of linear.mlir, and what it computes from them by the definitions of linalg and tosa.
func linear() (in [][]byte, y []byte) {
	r := rand.New(rand.NewPCG(6, 1))
	x, w := make([]byte, m*k), make([]byte, k*n)
	for i := range x {
		x[i] = byte(r.Uint32())
	}
	for i := range w {
		w[i] = byte(r.Uint32())
	}
	y = make([]byte, m*n)
	var bias, scales, shifts []byte
	starts, q, s := make([]int32, n), make([]int64, n), make([]int, n)
	for j := range n {
		starts[j], q[j], s[j] = int32(r.IntN(20001)-10000), 1<<30+r.Int64N(1<<30), 38+r.IntN(4)
		bias = binary.LittleEndian.AppendUint32(bias, uint32(starts[j]))
		scales = binary.LittleEndian.AppendUint32(scales, uint32(q[j]))
		shifts = append(shifts, byte(s[j]))
	}
	for i := range m {
		for j := range n {
			sum := int64(starts[j])
			for l := range k {
				sum += int64(int8(x[i*k+l])) * int64(int8(w[l*n+j]))
			}
			y[i*n+j] = byte(min(max((sum*q[j]+1<<(s[j]-1))>>s[j], 0), 127))
		}
	}
	return [][]byte{x, w, bias, scales, shifts}, y
}

// buffers are the host's side of the bindings: Addr is an index into it.
type buffers [][]byte

func (b buffers) at(binding core.Binding, off uint64, size int) ([]byte, error) {
	if buf := b[binding.Addr]; off <= uint64(len(buf)) && uint64(size) <= uint64(len(buf))-off {
		return buf[off:][:size], nil
	}
	return nil, errors.New("outside of the buffer")
}

func (b buffers) Load(binding core.Binding, off uint64, p []byte) error {
	from, err := b.at(binding, off, len(p))
	copy(p, from)
	return err
}

func (b buffers) Store(binding core.Binding, off uint64, p []byte) error {
	to, err := b.at(binding, off, len(p))
	copy(to, p)
	return err
}

// TestLinear runs linear.mlir in the tiles that the tools made of it.
func TestLinear(t *testing.T) {
	text := translate(t, "linear.generic", "-tiles", "-function", "linear")
	golden(t, "linear.npuasm", text)
	runLinear(t, text, 32)
}

// runLinear assembles linear.mlir in square tiles, has lint look at it, and runs it on a core whose array has their size.
func runLinear(t *testing.T, text string, size int) {
	t.Helper()
	program, err := isa.Assemble("linear.npuasm", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if r := lint.Check(program); len(r.Findings) > 0 || r.Undecided > 0 {
		t.Errorf("lint: %+v, %d undecided", r.Findings, r.Undecided)
	}
	c, err := core.New(core.Config{Rows: size, Cols: size, SpadSize: int(program.SpadSize), AccSize: int(program.AccSize)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	in, want := linear()
	y := bytes.Repeat([]byte{0xa5}, len(want))
	memory := buffers(append(in, y))
	var bindings []core.Binding
	for i, b := range memory {
		bindings = append(bindings, core.Binding{Addr: uint64(i), Size: uint64(len(b)), Read: i < len(in), Write: i == len(in)})
	}
	stats, err := c.Run(t.Context(), program.Image(), bindings, memory)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, y); diff != "" {
		t.Errorf("y (-want +got):\n%s", diff)
	}
	// All of the work, and no byte stored or loaded in vain: x is read for each tile of columns, w, biases and scales for each of rows.
	loaded := uint64(n/size*m*k + m/size*(k*n+9*n))
	if want := [3]uint64{m * k * n, loaded, m * n}; [3]uint64{stats.MACs, stats.BytesLoaded, stats.BytesStored} != want {
		t.Errorf("%d multiply-accumulates, %d bytes loaded, %d stored; want %v", stats.MACs, stats.BytesLoaded, stats.BytesStored, want)
	}
}

// digits are the images of examples/digits and their golden sums and bytes of the last layer.
func digits(t testing.TB) (images, want [][]byte) {
	const header, image, record, from, to = 64, 64, 3904, 3840, 3890
	x, y := read(t, "../digits/images.bin")[header:], read(t, "../digits/golden.bin")[header:]
	for len(y) >= record {
		images, want = append(images, x[:image]), append(want, y[from:to])
		x, y = x[image:], y[record:]
	}
	if len(images) != 364 {
		t.Fatalf("%d images", len(images))
	}
	return images, want
}

// TestDigits compiles digits.mlir through the compiler's graph and runs it on a card.
func TestDigits(t *testing.T) {
	text := translate(t, "digits.generic", "-graph", "-function", "digits")
	golden(t, "digits.npuir", text)
	g, err := ir.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	card, err := cards.NewCard(t.Context(), vdev.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := card.Close(); err != nil {
			t.Error(err)
		}
	}()
	images, want := digits(t)
	for i := 0; i < len(images); i += 7 { // the judge takes all of them
		out, hosts, err := card.Execute(t.Context(), g, [][]byte{images[i]})
		if err != nil {
			t.Fatal(err)
		}
		if len(hosts) > 0 {
			t.Fatalf("on the host: %+v", hosts)
		}
		if diff := cmp.Diff(want[i], bytes.Join(out, nil)); diff != "" {
			t.Fatalf("image %d: sums and bytes of layer 3 (-want +got):\n%s", i, diff)
		}
	}
}

// TestTools has stock MLIR tools print again what testdata holds, and execute both functions on this machine's processor.
func TestTools(t *testing.T) {
	if os.Getenv("NPUEMU_MLIR") == "" {
		t.Skip("NPUEMU_MLIR is not set; make test-mlir sets it")
	}
	lower := func(args ...string) string {
		t.Helper()
		var errs strings.Builder
		cmd := exec.CommandContext(t.Context(), "./lower", args...)
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("lower %q: %v\n%s", args, err, errs.String())
		}
		return string(out)
	}
	golden(t, "linear.generic", lower("tiles", "linear.mlir"))
	golden(t, "digits.generic", lower("graph", "digits.mlir"))

	// The same layer on another core: what changes is the schedule.
	schedule := filepath.Join(t.TempDir(), "tiles.mlir")
	smaller := strings.ReplaceAll(string(read(t, "tiles.mlir")), "[32, 32]", "[16, 16]")
	smaller = strings.ReplaceAll(smaller, "[0, 0, 32]", "[0, 0, 16]")
	if err := os.WriteFile(schedule, []byte(smaller), 0o666); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := run([]string{"-tiles", "-function", "linear", "-array", "16x16"}, strings.NewReader(lower("tiles", "linear.mlir", schedule)), &out); err != nil {
		t.Fatal(err)
	}
	runLinear(t, out.String(), 16)

	// execute appends a main to a file and returns the numbers that it prints.
	execute := func(file, body string) []int32 {
		t.Helper()
		text := string(read(t, file)) + "func.func private @printMemrefI32(tensor<*xi32>)\nfunc.func @main() {\n" + body + "  return\n}\n"
		name := filepath.Join(t.TempDir(), filepath.Base(file))
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		var list []int32
		for block := range strings.SplitSeq(lower("cpu", name), "data =") {
			for word := range strings.FieldsFuncSeq(strings.Split(block, "Unranked")[0], func(r rune) bool { return strings.ContainsRune("[], \n", r) }) {
				v, err := strconv.ParseInt(word, 10, 32)
				if err != nil {
					t.Fatalf("%q is no number that a tensor has", word)
				}
				list = append(list, int32(v))
			}
		}
		return list
	}
	in, want := linear()
	got := execute("linear.mlir", fmt.Sprintf(`
  %%x = arith.constant dense<"0x%X"> : tensor<96x256xi8>
  %%w = arith.constant dense<"0x%X"> : tensor<256x64xi8>
  %%b = arith.constant dense<"0x%X"> : tensor<64xi32>
  %%q = arith.constant dense<"0x%X"> : tensor<64xi32>
  %%s = arith.constant dense<"0x%X"> : tensor<64xi8>
  %%y = tensor.empty() : tensor<96x64xi8>
  %%r = call @linear(%%x, %%w, %%b, %%q, %%s, %%y) : (tensor<96x256xi8>, tensor<256x64xi8>, tensor<64xi32>, tensor<64xi32>, tensor<64xi8>, tensor<96x64xi8>) -> tensor<96x64xi8>
  %%wide = arith.extsi %%r : tensor<96x64xi8> to tensor<96x64xi32>
  %%any = tensor.cast %%wide : tensor<96x64xi32> to tensor<*xi32>
  call @printMemrefI32(%%any) : (tensor<*xi32>) -> ()
`, in[0], in[1], in[2], in[3], in[4]))
	var wide []int32
	for _, b := range want {
		wide = append(wide, int32(int8(b)))
	}
	if diff := cmp.Diff(wide, got); diff != "" {
		t.Errorf("linear.mlir on the processor (-want +got):\n%s", diff)
	}

	images, records := digits(t)
	got = execute("digits.mlir", fmt.Sprintf(`
  %%images = arith.constant dense<"0x%X"> : tensor<364x8x8x1xi8>
  %%0 = arith.constant 0 : index
  %%1 = arith.constant 1 : index
  %%364 = arith.constant 364 : index
  %%sums = tensor.empty() : tensor<364x10xi32>
  %%bytes = tensor.empty() : tensor<364x10xi8>
  %%all, %%both = scf.for %%i = %%0 to %%364 step %%1 iter_args(%%s = %%sums, %%b = %%bytes) -> (tensor<364x10xi32>, tensor<364x10xi8>) {
    %%image = tensor.extract_slice %%images[%%i, 0, 0, 0] [1, 8, 8, 1] [1, 1, 1, 1] : tensor<364x8x8x1xi8> to tensor<1x8x8x1xi8>
    %%r:2 = func.call @digits(%%image) : (tensor<1x8x8x1xi8>) -> (tensor<1x10xi32>, tensor<1x10xi8>)
    %%s2 = tensor.insert_slice %%r#0 into %%s[%%i, 0] [1, 10] [1, 1] : tensor<1x10xi32> into tensor<364x10xi32>
    %%b2 = tensor.insert_slice %%r#1 into %%b[%%i, 0] [1, 10] [1, 1] : tensor<1x10xi8> into tensor<364x10xi8>
    scf.yield %%s2, %%b2 : tensor<364x10xi32>, tensor<364x10xi8>
  }
  %%wide = arith.extsi %%both : tensor<364x10xi8> to tensor<364x10xi32>
  %%any = tensor.cast %%all : tensor<364x10xi32> to tensor<*xi32>
  %%any2 = tensor.cast %%wide : tensor<364x10xi32> to tensor<*xi32>
  call @printMemrefI32(%%any) : (tensor<*xi32>) -> ()
  call @printMemrefI32(%%any2) : (tensor<*xi32>) -> ()
`, bytes.Join(images, nil)))
	var sums, small []int32
	for _, r := range records {
		for i := range 10 {
			sums = append(sums, int32(binary.LittleEndian.Uint32(r[4*i:])))
			small = append(small, int32(int8(r[40+i])))
		}
	}
	if diff := cmp.Diff(append(sums, small...), got); diff != "" {
		t.Errorf("digits.mlir on the processor (-want +got):\n%s", diff)
	}
}
