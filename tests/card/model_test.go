// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"maps"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"npuemu/attach"
	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/npy"
	"npuemu/compiler/run"
	"npuemu/tests/guest"
	"npuemu/vdev"
)

// network has products, pooling, a normalization, and a node that stays on the host.
const network = `
graph "network"
input %x: int8[1, 12, 12, 4]
const %w: int8[8, 3, 3, 4] = "WEIGHTS"
node "conv" npu.conv(%x, %w) -> (%a: int8[1, 12, 12, 8]) {strides=[1, 1], pads=[1, 1, 1, 1], groups=1, rounding="fp32", scales=floats[0.001], zero_y=-3, lo=-3, hi=127, zero_x=5}
node "pool" npu.pool(%a) -> (%b: int8[1, 6, 6, 8]) {kind="max", kernel=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0]}
node "dequantize" npu.dequantize(%b) -> (%c: float32[1, 6, 6, 8]) {scales=floats[0.1], zeros=[-3]}
node "softmax" npu.softmax(%c) -> (%y: float32[1, 6, 6, 8])
node "wide" npu.cast(%b) -> (%z: int64[1, 6, 6, 8])
output %y
output %z
`

// modelFile is a model that the command compiles, and what it is run with.
type modelFile struct {
	name    string
	sources []string // none: network
	inputs  []string // of the command; none: made
	outputs int
	hosts   int
}

// Relative to this package's directory.
var modelFiles = []modelFile{
	{name: "network", outputs: 2, hosts: 1},
	{name: "keywords", sources: []string{"../models/testdata/keywords.onnx"}, outputs: 1},
	{name: "digits", sources: []string{"../models/testdata/digits.onnx"}, outputs: 1},
	{name: "lenet", sources: []string{"../../examples/lenet/lenet.prototxt", "../../examples/lenet/lenet.caffemodel"}, inputs: []string{"../../examples/lenet/7.png"}, outputs: 1},
	{name: "vision", sources: []string{"../../compiler/tflite/testdata/net/model.tflite"}, outputs: 1},
}

// TestModel runs compiled models in a guest through the kernel driver, and here with the user-mode driver: the same
// file, the same results, the same counters and cycles, of each operator and program. One is compiled in the guest too.
func TestModel(t *testing.T) {
	e := guest.Require(t)
	dir := t.TempDir()
	program := filepath.Join(dir, "npuemu")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "npuemu/cmd/npuemu")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	files := map[string]string{"/npuemu": program, "/keywords.onnx": modelFiles[1].sources[0]}
	want := make(map[string]summary)
	script := "load\n"
	for _, m := range modelFiles {
		file := filepath.Join(dir, m.name+".npu")
		inputs := m.compile(t, program, file)
		args := []string{"run", "/" + m.name + ".npu"}
		files["/"+m.name+".npu"] = file
		for i, in := range inputs {
			name := "/" + m.name + strconv.Itoa(i) + filepath.Ext(in)
			files[name] = in
			args = append(args, "--input", name)
		}
		here := make([]string, len(args))
		for i, a := range args {
			here[i] = cmp.Or(files[a], a)
		}
		for i := range m.outputs {
			name := m.output(i)
			args, here = append(args, "--output", "$RESULT/"+name), append(here, "--output", filepath.Join(dir, name))
		}
		text, err := exec.CommandContext(t.Context(), program, append(here, "--json", "--time", "timed")...).Output()
		if err != nil {
			t.Fatalf("%s: %v\n%s", m.name, err, text)
		}
		want[m.name] = counted(t, text, m.hosts)
		script += "/npuemu " + strings.Join(args, " ") + " --device /dev/accel/accel0 --json >$RESULT/" + m.name + ".json || die " + m.name + "\n"
	}
	script += `/npuemu run /keywords.onnx --input /keywords0.npy --output $RESULT/compiled.npy --device /dev/accel/accel0 || die compiled
/npuemu run /network.npu --input /network0.npy --device /dev/accel/accel7 2>$RESULT/missing && die "a card that is not there"
rmmod npu || die rmmod
`
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			card := vdev.DefaultConfig()
			card.Time.Mode = vdev.TimeTimed
			res, d := bootWith(t, e, card, k, script, func(c *guest.Config) { maps.Copy(c.Files, files) })
			for _, m := range modelFiles {
				for i := range m.outputs {
					if b := read(t, filepath.Join(dir, m.output(i))); !bytes.Equal(b, res.Files[m.output(i)]) {
						t.Errorf("%s: output %d differs between guest and user-mode driver", m.name, i)
					}
				}
				if diff := gocmp.Diff(want[m.name], counted(t, res.Files[m.name+".json"], m.hosts)); diff != "" {
					t.Errorf("%s: the card counted (-here +in the guest):\n%s", m.name, diff)
				}
			}
			if !bytes.Equal(res.Files["compiled.npy"], res.Files["keywords-0.npy"]) {
				t.Error("a model that the guest compiles has other results")
			}
			if !bytes.Contains(res.Files["missing"], []byte("accel7")) {
				t.Errorf("a card that is not there: %s", res.Files["missing"])
			}
			for _, f := range d.Findings() {
				t.Errorf("finding %+v", f)
			}
		})
	}
}

func (m modelFile) output(i int) string { return m.name + "-" + strconv.Itoa(i) + ".npy" }

// compile writes the compiled model to file, and returns the files of its inputs.
func (m modelFile) compile(t *testing.T, program, file string) []string {
	t.Helper()
	if m.sources == nil {
		compileNetwork(t, file)
	} else if out, err := exec.CommandContext(t.Context(), program, append(append([]string{"compile"}, m.sources...), "-o", file)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", m.name, err, out)
	}
	if m.inputs != nil {
		return m.inputs
	}
	b := read(t, file)
	c, err := model.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	inputs := make([]string, len(c.Inputs))
	for i, in := range c.Inputs {
		data := make([]byte, in.Bytes())
		for j := range data {
			data[j] = byte(j * j)
		}
		if in.TypeOf() == ir.Float32 {
			for j := range len(data) / 4 {
				binary.LittleEndian.PutUint32(data[4*j:], math.Float32bits(float32(j*j%509)/256-1))
			}
		}
		b, err := npy.Write(in.TypeOf(), in.Shape, data)
		if err != nil {
			t.Fatal(err)
		}
		inputs[i] = filepath.Join(filepath.Dir(file), m.name+strconv.Itoa(i)+".npy")
		if err := os.WriteFile(inputs[i], b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return inputs
}

// compileNetwork compiles the text above, whose last node the device does not have.
func compileNetwork(t *testing.T, file string) {
	t.Helper()
	g, err := ir.Parse(string(bytes.ReplaceAll([]byte(network), []byte(`"WEIGHTS"`), weights(8*3*3*4))))
	if err != nil {
		t.Fatal(err)
	}
	m, err := compiler.Build(g, attach.Target(vdev.DefaultConfig()))
	if err != nil {
		t.Fatal(err)
	}
	if last := m.Nodes[len(m.Nodes)-1]; last.Host == "" {
		t.Errorf("node %q is not on the host", last.Name)
	}
	b, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// weights is base64 text of n bytes, quoted.
func weights(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(37 * i)
	}
	q, _ := json.Marshal(b) // a slice of bytes does not fail
	return q
}

// summary is what a run says of the card.
type summary struct {
	Counters  run.Counters
	Launches  []run.Launch
	Operators []compiler.OperatorReport
	OnHost    []any `json:"operators_on_host"`
	Untimed   string
}

func counted(t *testing.T, text []byte, hosts int) (s summary) {
	t.Helper()
	if err := json.Unmarshal(text, &s); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if len(s.OnHost) != hosts || s.Counters.MACs == 0 || s.Untimed != "" || len(s.Launches) == 0 {
		t.Errorf("the summary says %s", text)
	}
	cycles := uint64(0)
	for i, l := range s.Launches {
		if cycles += l.Cycles; l.Profile == nil || !l.Profile.Timed || l.Profile.Cycles == 0 || l.Profile.Cycles >= l.Cycles {
			t.Fatalf("program %d: %+v", i, l)
		}
		l.Profile.Began = 0 // the driver may have used the card before
	}
	if cycles == 0 || cycles != s.Counters.Cycles {
		t.Errorf("programs take %d cycles, the card counted %d", cycles, s.Counters.Cycles)
	}
	return s
}
