// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/npy"
	"npuemu/compiler/run"
)

// doubled computes 2·x, and x in 64 bits, which stays on the host.
const doubled = `graph "doubled"
input %x: int8[2, 3]
node "sum" npu.element(%x, %x) -> (%y: int8[2, 3]) {op="add"}
node "wide" npu.cast(%x) -> (%z: int64[2, 3])
output %y
output %z
`

// doubledFiles writes the model and an input, and returns the folder, for files that are to come.
func doubledFiles(t *testing.T) (dir, model, x string) {
	t.Helper()
	dir = t.TempDir()
	model, x = filepath.Join(dir, "doubled.npuir"), filepath.Join(dir, "x.npy")
	b, err := npy.Write(ir.Int8, []int{2, 3}, []byte{1, 2, 3, 60, 70, 0x80})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{model: []byte(doubled), x: b} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir, model, x
}

// What --dump-after writes into a file compiles to what the model does.
func TestDumpFiles(t *testing.T) {
	dir, model, _ := doubledFiles(t)
	const text = "graph \"exp\"\ninput %x: float32[2]\nnode \"n\" Exp(%x) -> (%y: invalid[])\noutput %y\n"
	if err := os.WriteFile(model, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := npuemu(t.Context(), "compile", model, "--dump-after=all="+dir, "--dump-after=lower="+filepath.Join(dir, "one.npuir")); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join(dir, "doubled.npu"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"import", "lower", "chains", "one"} {
		if _, _, err := npuemu(t.Context(), "compile", filepath.Join(dir, name+".npuir")); err != nil {
			t.Error(err)
			continue
		}
		if b, err := os.ReadFile(filepath.Join(dir, name+".npu")); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%s: %v, or the file is another", name, err)
		}
	}
	_, dumped, err := npuemu(t.Context(), "compile", model, "--dump-after=tile", "--dump-after=places", "--dump-after=schedule="+filepath.Join(dir, "schedule"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# after tile\nnode \"n\"", "tile 0: \"y\" [0] to [1]", "# after places\nbinding 0"} {
		if !strings.Contains(dumped, want) {
			t.Errorf("the dump lacks %q:\n%s", want, dumped)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "schedule")); err != nil || !bytes.Contains(b, []byte("step 0: program 0")) {
		t.Errorf("%v: the schedule is %q", err, b)
	}
	if _, _, err := npuemu(t.Context(), "compile", model, "--dump-after=import=/no/such/x.npuir"); err == nil || !strings.Contains(err.Error(), "--dump-after: ") {
		t.Errorf("a folder that is not there: %v", err)
	}
}

// A model is compiled and run, and run says what the card did and what the host did.
func TestModel(t *testing.T) {
	dir, model, x := doubledFiles(t)
	compiled, y := filepath.Join(dir, "doubled.npu"), filepath.Join(dir, "y.npy")
	out, _, err := npuemu(t.Context(), "compile", model, "--table")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"element", "sum", "host: tensor \"z\": the vector engine does not compute with int64; cast it", "wide", "1 operators on the device, 1 on the host"} {
		if !strings.Contains(out, want) {
			t.Errorf("compile does not say %q:\n%s", want, out)
		}
	}
	for _, file := range []string{model, compiled} {
		out, _, err := npuemu(t.Context(), "run", file, "--input", "x="+x, "--output", y, "--json", "--repeat", "2")
		if err != nil {
			t.Fatal(err)
		}
		var s modelSummary
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatal(err)
		}
		if o := s.Operators; len(o) != 2 || !o[0].Device || o[0].Engine != "vector" || o[0].Cycles == 0 || o[0].Bytes != 18 || o[1].Device || o[1].Engine != "host" {
			t.Errorf("%s: the operators are %+v", file, o)
		}
		if s.OnDevice != 1 || len(s.OnHost) != 1 || s.OnHost[0].Node != "wide" || s.Counters.Programs != 1 || s.Counters.Instructions == 0 || s.Counters.BytesWritten != 6 {
			t.Errorf("%s: the summary is %+v", file, s)
		}
		b, err := os.ReadFile(y)
		if err != nil {
			t.Fatal(err)
		}
		if _, got, err := npy.Read(b, ir.Int8); err != nil || !bytes.Equal(got, []byte{2, 4, 6, 120, 127, 0x80}) {
			t.Errorf("%s: the result is % d, %v", file, got, err)
		}
	}
	slow := filepath.Join(dir, "slow.toml")
	if err := os.WriteFile(slow, []byte("[timing]\ndram_latency = 5000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var c [2]compiledSummary
	for i, args := range [][]string{{"compile", model, "--json"}, {"compile", model, "--json", "--config", slow}} {
		out, _, err := npuemu(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(out), &c[i]); err != nil {
			t.Fatal(err)
		}
	}
	if c[0].PeakMemory < 1<<20 || c[0].Seconds <= 0 || c[0].Memory == 0 || c[0].Operators[0].Cycles < 10 || c[1].Operators[0].Cycles < c[0].Operators[0].Cycles+4000 {
		t.Errorf("compile says %+v, and with slow memory %+v", c[0], c[1])
	}
	if out, _, err = npuemu(t.Context(), "verify", model, "--input", x); err != nil || !strings.Contains(out, "all 2 tensors of 2 nodes, are equal to the reference's, to the bit; 1 nodes are on the host") {
		t.Errorf("verify says %q, %v", out, err)
	}
	if out, _, err = npuemu(t.Context(), "disasm", compiled); err != nil || !strings.Contains(out, "element") {
		t.Errorf("disasm of a model with one program: %q, %v", out, err)
	}
}

// A run has the cycles that the card counted, of each program what its engines did; or says why it has none.
func TestModelCycles(t *testing.T) {
	_, model, x := doubledFiles(t)
	for _, tt := range []struct {
		args    []string
		untimed string
	}{
		{[]string{"--time", "timed"}, ""},
		{nil, run.FastMode},
		{[]string{"--time", "timed", "--arch", "1.3"}, run.NoTiming},
	} {
		out, _, err := npuemu(t.Context(), append([]string{"run", model, "--input", x, "--json"}, tt.args...)...)
		if err != nil {
			t.Fatal(err)
		}
		var s modelSummary
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatal(err)
		}
		if s.Untimed != tt.untimed || len(s.Launches) != 1 || s.Counters.Cycles != s.Launches[0].Cycles || (s.Counters.Cycles == 0) != (tt.untimed != "") {
			t.Fatalf("%q: the summary is %+v", tt.args, s)
		}
		if p := s.Launches[0].Profile; tt.untimed == "" && (!p.Timed || p.Cycles == 0 || p.Engines[3].Engine != "vector" || p.Engines[3].Instructions != 1 || p.Engines[3].Busy == 0) {
			t.Errorf("%q: the profile is %+v", tt.args, p)
		}
		out, _, err = npuemu(t.Context(), append([]string{"run", model, "--input", x, "--table"}, tt.args...)...)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"no cycles: " + tt.untimed}
		if tt.untimed == "" {
			want = []string{fmt.Sprintf("%d cycles (§13.8)", s.Counters.Cycles), "stalls: load"}
		}
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%q: run does not say %q:\n%s", tt.args, w, out)
			}
		}
	}
	for args, want := range map[string]string{"--time=slow": "use fast, timed, or paced", "--time=timed --device=vfio-user:/nowhere": "npuemu serve"} {
		if _, _, err := npuemu(t.Context(), append([]string{"run", model, "--input", x}, strings.Fields(args)...)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

// A variable begins as what stands for 0, or as its file says, and keeps its value from run to run.
func TestVariable(t *testing.T) {
	dir := t.TempDir()
	model, sum, start := filepath.Join(dir, "sum.npuir"), filepath.Join(dir, "sum.npy"), filepath.Join(dir, "start.npy")
	text := "graph \"sum\"\ninput %s: int8[2] quant(floats[0.5], [3], 0)\nconst %one: int8[] = \"AQ==\"\nnode \"n\" npu.element(%s, %one) -> (%\"s:next\": int8[2]) {op=\"add\"}\noutput %\"s:next\"\n"
	b, err := npy.Write(ir.Int8, []int{2}, []byte{10, 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(model, []byte(text), 0o600), os.WriteFile(start, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want []byte
	}{
		{nil, []byte{4, 4}},
		{[]string{"--repeat", "5"}, []byte{8, 8}},
		{[]string{"--repeat", "5", "--input", "s=" + start}, []byte{15, 25}},
	} {
		if _, _, err := npuemu(t.Context(), append([]string{"run", model, "--output", sum}, tt.args...)...); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(sum)
		if err != nil {
			t.Fatal(err)
		}
		if _, got, err := npy.Read(b, ir.Int8); err != nil || !bytes.Equal(got, tt.want) {
			t.Errorf("%v: the variable is % d, %v, not % d", tt.args, got, err, tt.want)
		}
	}
}

// A model without --input runs on numbers that are made up, the same each time, and says so; verify takes the same. Indexes are
// those of rows that there are.
func TestMadeUp(t *testing.T) {
	dir := t.TempDir()
	model, y := filepath.Join(dir, "rows.npuir"), filepath.Join(dir, "y.npy")
	text := "graph \"rows\"\ninput %x: float32[4, 2]\ninput %i: int64[64]\nnode \"n\" npu.gather(%x, %i) -> (%y: float32[64, 2]) {axis=0}\n" +
		"node \"m\" npu.reshape(%i) -> (%j: int64[8, 8])\noutput %y\noutput %j\n"
	if err := os.WriteFile(model, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var first string
	for range 2 {
		out, _, err := npuemu(t.Context(), "run", model, "--output", "j="+y)
		if err != nil || !strings.Contains(out, "made up, for there is no --input") || !strings.Contains(out, "1 need no instruction") {
			t.Fatalf("%v\n%s", err, out)
		}
		b, err := os.ReadFile(y)
		if err != nil {
			t.Fatal(err)
		}
		_, j, err := npy.Read(b, ir.Int64)
		if err != nil {
			t.Fatal(err)
		}
		seen := [4]int{}
		for at := 0; at < len(j); at += 8 {
			n := binary.LittleEndian.Uint64(j[at:])
			if n > 3 {
				t.Fatalf("index %d of 4 rows", n)
			}
			seen[n]++
		}
		if seen[0]*seen[1]*seen[2]*seen[3] == 0 {
			t.Errorf("indexes %v times", seen)
		}
		if first == "" {
			first = string(b)
		} else if first != string(b) {
			t.Error("other numbers the second time")
		}
	}
	out, _, err := npuemu(t.Context(), "verify", model)
	if err != nil || !strings.Contains(out, "the outputs, and all 2 tensors of 2 nodes, are equal to the reference's, to the bit; 0 nodes are on the host") {
		t.Errorf("%v\n%s", err, out)
	}
}

// What is wrong with a model, its files or the card is said, and no output is written.
func TestBadModels(t *testing.T) {
	dir, model, x := doubledFiles(t)
	y := filepath.Join(dir, "y.npy")
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	if _, _, err := npuemu(t.Context(), "compile", model); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none.npu")
	if _, _, err := npuemu(t.Context(), "compile", write("none.npuir", "graph \"g\"\ninput %x: int8[2]\nnode \"wide\" npu.cast(%x) -> (%y: int64[2])\noutput %y\n")); err != nil {
		t.Fatal(err)
	}
	compiled := filepath.Join(dir, "doubled.npu")
	whole, err := os.ReadFile(compiled)
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := npy.Write(ir.Int8, []int{3, 2}, make([]byte, 6))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no such model", []string{"compile", filepath.Join(dir, "no.npuir")}, "no such file"},
		{"another kind of file", []string{"compile", x}, "says of no model what it is; there are"},
		{"no graph", []string{"compile", write("bad.npuir", "graph \"g\"\nnode")}, "line 2"},
		{"graph that breaks a rule", []string{"compile", write("rule.npuir", strings.Replace(doubled, "int64[2, 3]", "int64[6]", 1))}, `node "wide" (npu.cast)`},
		{"no ONNX", []string{"compile", write("bad.onnx", "hello")}, "onnx"},
		{"no such weights", []string{"compile", write("net.prototxt", "name: \"n\""), "/does/not/exist.caffemodel"}, "/does/not/exist.caffemodel: no such file"},
		{"weights of another format", []string{"verify", write("net.onnx", ""), "x.caffemodel"}, "belongs to a .prototxt only"},
		{"no weights", []string{"compile", write("net.prototxt", "name: \"n\"")}, "the weights are in the file of that name with the extension .caffemodel"},
		{"no such pass", []string{"compile", model, "--dump-after", "nonsense"}, "there is no such pass; there are all, import"},
		{"an old card", []string{"compile", model, "--arch", "1.2"}, "architecture 1.3 or later"},
		{"one of two inputs", []string{"run", write("pair.npuir", "graph \"g\"\ninput %x: int8[2, 3]\ninput %w: int8[2, 3]\nnode \"n\" npu.element(%x, %w) -> (%y: int8[2, 3]) {op=\"add\"}\noutput %y\n"), "--input", x, "--output", y}, `--input is missing for tensor "w"`},
		{"two inputs", []string{"run", model, "--input", x, "--input", x, "--output", y}, "the model has 1: x: int8[2 3]"},
		{"input of another name", []string{"run", model, "--input", "z=" + x, "--output", y}, `the model has no tensor "z": x: int8[2 3]`},
		{"output of another name", []string{"run", model, "--input", x, "--output", "q=y.npy"}, `the model has no tensor "q": y: int8[2 3], z: int64[2 3]`},
		{"an input twice", []string{"run", model, "--input", "x=" + x, "--input", "x=" + x, "--output", y}, `tensor "x" has a file already`},
		{"a compiled model where a model is wanted", []string{"verify", compiled}, "give the file that it was made of"},
		{"too large to make up", []string{"verify", write("large.npuir", "graph \"g\"\ninput %x: int8[2000000000]\nnode \"n\" npu.reshape(%x) -> (%y: int8[2, 1000000000])\noutput %y\n")}, "give files with --input"},
		{"a model without programs for lint", []string{"lint", none}, "a compiled model of 0 programs"},
		{"a model without programs for estimate", []string{"estimate", none}, "a compiled model of 0 programs"},
		{"an operator that nobody has", []string{"compile", write("odd.npuir", strings.Replace(doubled, "npu.cast", "host.odd", 1))}, `node "wide" (host.odd): neither the device nor the host runs it; replace the node`},
		{"a debugger elsewhere", []string{"run", compiled, "--input", x, "--device", "vfio-user:/none", "--gdb", ":1"}, "--gdb and --cp-trace are for a card in this process"},
		{"input of another shape", []string{"run", model, "--input", write("wrong.npy", string(wrong)), "--output", y}, "shape [3 2]"},
		{"input that is none", []string{"run", model, "--input", model, "--output", y}, "does not begin as a .npy file"},
		{"too many outputs", []string{"run", model, "--input", x, "--output", y, "--output", y, "--output", y}, "the model has 2"},
		{"bindings of a model", []string{"run", compiled, "--in", "0=" + x}, "a model takes --input and --output"},
		{"inputs of a program", []string{"run", write("p.npuasm", ".isa 1.0\nhalt\n"), "--input", x}, "a program takes --in and --out"},
		{"half a file", []string{"run", write("half.npu", string(whole[:len(whole)/2])), "--input", x}, "half.npu"},
		{"a card of another array", []string{"run", compiled, "--input", x, "--output", y, "--config", write("c.toml", "[array]\nrows = 8\ncols = 16\n")}, `"doubled" is compiled for an array of 32 × 32, the card has 8 × 16`},
		{"a card that is too old", []string{"run", compiled, "--input", x, "--output", y, "--arch", "1.2"}, "compiled for architecture 1.3, the card is 1.2: it lacks groups gemm, float, vector, reduce (§5.3, §14.5); run it on a card of architecture 1.3 or later"},
		{"no kernel driver", []string{"run", compiled, "--input", x, "--output", y, "--device", "/dev/accel/none"}, "/dev/accel/none"},
		{"no memory", []string{"run", model, "--input", x, "--output", y, "--memory", "0"}, "--memory 0: use 1 to 1048576 MiB"},
		{"memory of a kernel driver", []string{"verify", model, "--memory", "64", "--device", "/dev/accel/none"}, "--memory is for cards that this process drives"},
		{"less memory than the model takes", []string{"run", write("two.npuir", "graph \"g\"\ninput %x: int8[2, 3]\nnode \"n\" npu.expand(%x) -> (%y: int8[700000, 2, 3])\noutput %y\n"), "--input", x, "--output", y, "--memory", "4"}, "give more with --memory; the model takes 42"},
		{"less memory to make up", []string{"verify", write("mid.npuir", "graph \"g\"\ninput %x: int8[2000000]\nnode \"n\" npu.reshape(%x) -> (%y: int8[2, 1000000])\noutput %y\n"), "--memory", "1"}, "the card has 1048576: give files with --input, or more with --memory"},
		{"no size", []string{"compile", model, "--dim", "batch"}, "give a name and a size of 1 or more, as --dim batch=4"},
		{"no shape", []string{"verify", model, "--shape", "x=1,0"}, "give a name and sizes of 1 or more, as --shape x=1,3,224,224"},
		{"a size for text", []string{"run", model, "--dim", "batch=2"}, "dimensions are for ONNX, and shapes for ONNX and TensorFlow Lite"},
		{"products of no type", []string{"compile", model, "--float", "fp8"}, `products of "fp8": there are bf16, fp16, fp32`},
		{"products of the device level", []string{"verify", model, "--float", "bf16"}, "it is of the device level"},
		{"products of a compiled model", []string{"run", compiled, "--input", x, "--output", y, "--float", "bf16"}, "give them to npuemu compile"},
		{"no folder for the second result", []string{"run", model, "--input", x, "--output", y, "--output", filepath.Join(dir, "no", "z.npy")}, "no such file"},
		{"no folder for the result", []string{"run", model, "--input", x, "--output", filepath.Join(dir, "no", "y.npy")}, "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := npuemu(t.Context(), tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want one that says %q", err, tt.want)
			}
			if _, err := os.Stat(y); err == nil {
				t.Error("there is an output")
			}
		})
	}
}
