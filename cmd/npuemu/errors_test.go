// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"npuemu/compiler"
	"npuemu/core/isa"
)

// onnxMessage is a message of ONNX under construction.
type onnxMessage []byte

func (m onnxMessage) num(n protowire.Number, v uint64) onnxMessage {
	return protowire.AppendVarint(protowire.AppendTag(m, n, protowire.VarintType), v)
}

func (m onnxMessage) bytes(n protowire.Number, b []byte) onnxMessage {
	return protowire.AppendBytes(protowire.AppendTag(m, n, protowire.BytesType), b)
}

func (m onnxMessage) str(n protowire.Number, s string) onnxMessage { return m.bytes(n, []byte(s)) }

// onnxAdd is a model of one node of that operator, which reads an initializer.
func onnxAdd(domain, op string) []byte {
	value := func(name string) onnxMessage {
		shape := onnxMessage{}.bytes(1, onnxMessage{}.num(1, 256))
		return onnxMessage{}.str(1, name).bytes(2, onnxMessage{}.bytes(1, onnxMessage{}.num(1, 1).bytes(2, shape)))
	}
	node := onnxMessage{}.str(1, "x").str(1, "w").str(2, "sums").str(3, "first").str(4, op).str(7, domain)
	w := onnxMessage{}.num(1, 256).num(2, 1).str(8, "w").bytes(9, bytes.Repeat([]byte{0xaa}, 1024))
	g := onnxMessage{}.bytes(1, node).str(2, "net").bytes(5, w).bytes(11, value("x")).bytes(12, value("sums"))
	return onnxMessage{}.num(1, 8).bytes(7, g).bytes(8, onnxMessage{}.num(2, 17))
}

// What is wrong with a file, or with what a card needs, is said with the place in the file or model, the rule, and what to do, once.
func TestErrorsSayWhatToDo(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	cut := func(b []byte, at string) []byte { // in the middle of what follows
		i := bytes.Index(b, []byte(at))
		if i < 0 {
			t.Fatalf("%q is not there", at)
		}
		return b[:i+len(at)/2]
	}
	net, weights := "../../examples/lenet/lenet.prototxt", "../../examples/lenet/lenet.caffemodel"
	_, model, _ := doubledFiles(t)
	if _, _, err := npuemu(t.Context(), "compile", model, "-o", filepath.Join(dir, "whole.npu")); err != nil {
		t.Fatal(err)
	}
	whole := read(filepath.Join(dir, "whole.npu"))
	flip := func(b []byte, at string) []byte {
		b = bytes.Clone(b)
		b[bytes.Index(b, []byte(at))] ^= 4
		return b
	}
	halt := string(isa.Text(isa.Halt{}))
	program := (&isa.Program{Descriptor: isa.Descriptor{Rows: 32, Cols: 32}, Text: isa.Text(isa.Halt{})}).ELF()
	conv := write("conv.onnx", onnxAdd("", "Add"))
	tfl := read("../../compiler/tflite/testdata/relu/model.tflite")
	zero := bytes.Index(tfl, []byte{1, 0, 0, 0, 0xe2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) // a vector of -30 alone
	if zero < 0 {
		t.Fatal("no zero point of -30")
	}
	outside := bytes.Clone(tfl)
	copy(outside[zero+4:], []byte{0, 2, 0, 0, 0, 0, 0, 0})

	for _, tt := range []struct {
		name string
		args []string
		want []string
	}{
		{"prototxt, cut behind a value", []string{"compile", write("end.prototxt", read(net)[:bytes.Index(read(net), []byte(`  type: "Pooling"`))]), weights}, []string{`end.prototxt: node "pool1": the prototxt is not valid: line `, "it ends before its last } or value; the file is cut: fetch it again"}},
		{"prototxt, cut", []string{"compile", write("cut.prototxt", cut(read(net), `"conv2"
  type: "Convolution"`)), weights}, []string{`cut.prototxt: node "conv2"`, "line 28: ", "it is the last line: the file is cut, fetch it again, or correct the line"}},
		{"prototxt, a line", []string{"compile", write("line.prototxt", bytes.Replace(read(net), []byte("pool: MAX"), []byte("pool: MOST"), 1)), weights}, []string{`node "pool1"`, "line ", "MOST", "correct that line, or fetch the file again"}},
		{"caffemodel, cut", []string{"compile", net, write("cut.caffemodel", read(weights)[:20000])}, []string{`node "conv2": the caffemodel is not valid: it ends in the layer's weights`, "bytes are there; the file is cut, damaged or for another program: fetch it again"}},
		{"caffemodel, of another program", []string{"compile", net, write("odd.caffemodel", []byte("hello, world"))}, []string{"the caffemodel is not valid", "of 12 bytes; the file is cut, damaged or for another program: fetch it again"}},
		{"a compiled model's text", []string{"run", write("text.npu", flip(whole, halt))}, []string{"section .text does not have the SHA-256 that .npu.sums has (§14.6): the file is damaged: compile the model again"}},
		{"a compiled model's manifest", []string{"run", write("manifest.npu", flip(whole, `"scratchpad"`))}, []string{"section .npu.model does not have the SHA-256 that .npu.sums has (§14.6): the file is damaged: compile the model again"}},
		{"a program's text", []string{"run", write("program.npu", flip(program, halt))}, []string{"text_crc32", "the file is damaged, or no program: assemble it, or compile the model, again"}},
		{
			"text without all of a constant",
			[]string{"compile", write("c.npuir", []byte("graph \"g\"\ninput %x: int8[2]\nconst %c: int8[2] = \"AQ=\"\nnode \"n\" npu.element(%x, %c) -> (%y: int8[2]) {op=\"add\"}\noutput %y\n"))},
			[]string{`c.npuir: ir: line 3: tensor "c": the constant is no base64`, "write it again, --dump-after=PASS=FILE.npuir"},
		},
		{"no socket", []string{"run", model, "--device", "vfio-user:" + filepath.Join(dir, "none.sock")}, []string{"no such file", "no card is served there: start npuemu serve --socket " + filepath.Join(dir, "none.sock")}},
		{"no driver", []string{"run", model, "--device", "/dev/accel/accel99"}, []string{"/dev/accel/accel99: no such file", "load npu.ko (driver/README.md)"}},
		{"no directory for dumps", []string{"compile", model, "--dump-after=all=" + filepath.Join(dir, "none")}, []string{"import.npuir: no such file", "make the directory first: mkdir -p " + filepath.Join(dir, "none")}},
		{
			"ONNX, cut in an initializer",
			[]string{"compile", write("w.onnx", cut(onnxAdd("", "Add"), strings.Repeat("\xaa", 1024)))},
			[]string{`w.onnx: net: tensor "w": not a valid ONNX file: the file ends in raw_data of tensor: 512 of 1024 bytes are there`, "fetch or export it again"},
		},
		{"ONNX, cut in a node", []string{"compile", write("n.onnx", cut(onnxAdd("", "Add"), "first"))}, []string{`node "fi": tensor "sums": not a valid ONNX file: the file ends in the name of node`, "fetch or export it again"}},
		{"ONNX, an operator", []string{"compile", write("op.onnx", onnxAdd("", "Odd"))}, []string{`net: node "first" (Odd): tensor "x": the operator is not supported; replace it by others (docs/operators.md), or cut the model before it`}},
		{"ONNX, a domain", []string{"compile", write("domain.onnx", onnxAdd("org.odd", "Odd"))}, []string{`net: node "first" (org.odd.Odd): tensor "sums": operators of the domain "org.odd" are not supported; replace the node, or cut the model before it`}},
		{"TensorFlow Lite, a zero point", []string{"compile", write("zero.tflite", outside)}, []string{`main: tensor "`, "zero point 512 is outside int8, -128 to 127; quantize the model again"}},
		{"a model to lint", []string{"lint", conv}, []string{"a model, and this takes a program: compile it first: npuemu compile " + conv}},
		{"a card that is too old", []string{"run", model, "--arch", "1.2"}, []string{"compile for architecture 1.3 or later"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := npuemu(t.Context(), tt.args...)
			if err == nil {
				t.Fatal("there is no error")
			}
			for _, want := range tt.want {
				if n := strings.Count(err.Error(), want); n != 1 {
					t.Errorf("%q is there %d times, want 1: %v", want, n, err)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than a line: %v", err)
			}
		})
	}
	if !compiler.IsModel(conv) {
		t.Error("conv.onnx is no model")
	}
}
