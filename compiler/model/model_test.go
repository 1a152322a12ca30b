// SPDX-License-Identifier: Apache-2.0

package model_test

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/core/isa"
)

// twoPrograms is a model with a node of the host between two programs.
func twoPrograms(t *testing.T) *model.Model {
	t.Helper()
	g, err := ir.Parse("graph \"h\"\ninput %a: int64[4]\nconst %c: int64[1] = \"AQAAAAAAAAA=\"\nnode \"n\" host.Add(%a, %c) -> (%b: int64[4])\noutput %b")
	if err != nil {
		t.Fatal(err)
	}
	program := func() *isa.Program {
		return &isa.Program{
			Descriptor: isa.Descriptor{Minor: 1, Rows: 32, Cols: 32, SpadSize: 64, Bindings: 4},
			Text:       isa.Text(isa.Load{Binding: 2, NX: 32, NY: 1, NZ: 1, Signal: isa.Token{ID: 1, Count: 1}}, isa.Store{Binding: 1, NX: 32, NY: 1, NZ: 1, Wait: isa.Token{ID: 1, Count: 1}}, isa.Halt{}),
		}
	}
	tensor := func(name string, binding int, off uint64) model.Tensor {
		return model.Tensor{Name: name, Type: "int64", Shape: []int{4}, Binding: binding, Offset: off}
	}
	return &model.Model{
		Manifest: model.Manifest{
			Name: "two", Architecture: "1.3", Array: model.Array{Rows: 32, Cols: 32, Scratchpad: 4096, Accumulators: 1024, Groups: []string{"gemm"}},
			Bindings: []model.Binding{{Name: "constants", Size: 8}, {Name: "arena", Size: 64, Write: true}, {Name: "x", Size: 32}, {Name: "y", Size: 32, Write: true}},
			Inputs:   []model.Tensor{tensor("x", 2, 0)}, Outputs: []model.Tensor{tensor("y", 3, 0)},
			Steps: []model.Step{{Program: 0, Host: -1}, {Program: -1, Host: 0, Inputs: []model.Tensor{tensor("a", 1, 0)}, Outputs: []model.Tensor{tensor("b", 1, 32)}}, {Program: 1, Host: -1}},
			Nodes: []model.Node{{Name: "first", Op: "npu.reshape", Program: 0, First: 0, Last: 2, Instructions: []int{1, 1, 0, 0}, Outputs: []model.Tensor{tensor("a", 1, 0)}}},
		},
		Programs:  []*isa.Program{program(), program()},
		Constants: []byte("constant"),
		Hosts:     []*ir.Graph{g},
	}
}

func TestRoundTrip(t *testing.T) {
	want := twoPrograms(t)
	b, err := want.Write()
	if err != nil {
		t.Fatal(err)
	}
	got, err := model.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Manifest, got.Manifest); diff != "" {
		t.Errorf("manifest (-want +got):\n%s", diff)
	}
	if !bytes.Equal(want.Constants, got.Constants) || len(got.Programs) != 2 || !bytes.Equal(want.Programs[1].Image(), got.Programs[1].Image()) {
		t.Error("constants or programs differ")
	}
	if want.Hosts[0].String() != got.Hosts[0].String() {
		t.Errorf("host node\n%s\nwant\n%s", got.Hosts[0], want.Hosts[0])
	}
	again, err := got.Write()
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("what was read is written differently: %v", err)
	}
}

// A model of one program is a program file of §5.3.1 too; of two it is none.
func TestOneProgramIsAProgram(t *testing.T) {
	m := twoPrograms(t)
	b, err := m.Write()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := isa.ReadELF(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "more than one PT_LOAD") {
		t.Errorf("two programs read as one: %v", err)
	}
	m.Steps, m.Programs = m.Steps[:2], m.Programs[:1]
	if b, err = m.Write(); err != nil {
		t.Fatal(err)
	}
	p, err := isa.ReadELF(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p.Image(), m.Programs[0].Image()) {
		t.Error("the program differs")
	}
}

// Sections have names and contents that ELF tools show.
func TestSections(t *testing.T) {
	b, err := twoPrograms(t).Write()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range f.Sections {
		names = append(names, s.Name)
	}
	want := []string{"", ".npu.desc", ".text", ".npu.desc.1", ".text.1", ".note.npu", ".npu.const", ".npu.model", ".npu.hosts", ".npu.sums", ".shstrtab"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("sections (-want +got):\n%s", diff)
	}
	for i, p := range f.Progs[:2] {
		if p.Off%64 != 0 || p.Filesz != isa.DescriptorSize+3*isa.Size {
			t.Errorf("segment %d has %d bytes at %d", i, p.Filesz, p.Off)
		}
	}
}

// A model that contradicts itself is neither written nor read.
func TestBadModels(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(m *model.Model)
	}{
		{"no binding", "0 bindings", func(m *model.Model) { m.Bindings = nil }},
		{"empty binding", "binding 1 has 0 bytes", func(m *model.Model) { m.Bindings[1].Size = 0 }},
		{"constants too large", "binding 0 has 2 bytes", func(m *model.Model) { m.Bindings[0].Size = 2 }},
		{"program that is not there", "names program 2 of 2", func(m *model.Model) { m.Steps[0].Program = 2 }},
		{"step that is nothing", "names program -1", func(m *model.Model) { m.Steps[0].Program = -1 }},
		{"host node that is not there", "host node 7", func(m *model.Model) { m.Steps[1].Host = 7 }},
		{"host node with other tensors", "int64[4] in the graph", func(m *model.Model) { m.Steps[1].Inputs[0].Shape = []int{2, 2} }},
		{"host node without output", "1 outputs; its step 1 and 0", func(m *model.Model) { m.Steps[1].Outputs = nil }},
		{"host node whose output is another tensor", "outputs of its graph are not those of the node", func(m *model.Model) { m.Hosts[0].Outputs[0] = m.Hosts[0].Inputs[0] }},
		{"host node with an output that its graph lacks", "outputs of its graph are not those of the node", func(m *model.Model) {
			n := m.Hosts[0].Nodes[0]
			n.Outputs = append(n.Outputs, &ir.Tensor{Name: "more", Type: ir.Int8})
		}},
		{"tensor outside", "passes the end of binding 1", func(m *model.Model) { m.Steps[1].Outputs[0].Offset = 33 }},
		{"offset that overflows", "passes the end", func(m *model.Model) { m.Nodes[0].Outputs[0].Offset = 1<<64 - 8 }},
		{"type that is none", `type "int65"`, func(m *model.Model) { m.Inputs[0].Type = "int65" }},
		{"dimension below 0", "too large", func(m *model.Model) { m.Inputs[0].Shape = []int{-1} }},
		{"large shape", "too large", func(m *model.Model) { m.Outputs[0].Shape = []int{1 << 40, 1 << 40} }},
		{"binding that is not there", "in binding 9", func(m *model.Model) { m.Outputs[0].Binding = 9 }},
		{"instructions that are not there", "instructions 0 to 99", func(m *model.Model) { m.Nodes[0].Last = 99 }},
		{"bindings of the program", "program 0 has 5 bindings", func(m *model.Model) { m.Programs[0].Bindings = 5 }},
		{"no steps", "no step runs program 0 of 2", func(m *model.Model) { m.Steps = nil }},
		{"no steps and nothing to run", `there are no steps, so nothing computes output "y"`, func(m *model.Model) { m.Steps, m.Programs, m.Hosts, m.Nodes = nil, nil, nil, nil }},
		{"program without a step", "no step runs program 1 of 2", func(m *model.Model) { m.Steps = m.Steps[:2] }},
		{"host node without a step", "no step runs host node 0 of 1", func(m *model.Model) { m.Steps = []model.Step{m.Steps[0], m.Steps[2]} }},
		{"output that is only read", `output "y" is in binding 3, which is not written`, func(m *model.Model) { m.Bindings[3].Write = false }},
		{"arena larger than what is in it", `binding 1, "arena", has 1099511627776 bytes, and what the manifest has in it ends at 64`, func(m *model.Model) { m.Bindings[1].Size = 1 << 40 }},
		{"input larger than it is", `binding 2, "x", has 65 bytes`, func(m *model.Model) { m.Bindings[2].Size = 65 }},
		{"scale of 0", "scale that is not finite", func(m *model.Model) { m.Inputs[0].Quant = &model.Quant{Scales: []float32{0}} }},
		{"zero points", "1 scales and 2 zero points", func(m *model.Model) {
			m.Inputs[0].Quant = &model.Quant{Scales: []float32{1}, Zeros: []int64{1, 2}}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := twoPrograms(t)
			tt.change(m)
			if _, err := m.Write(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want one that says %q", err, tt.want)
			}
		})
	}
}

// What is wrong with files that have no sums, too, is found, and said.
func TestBadFiles(t *testing.T) {
	whole, err := twoPrograms(t).WriteAs("1.1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := model.Read(bytes.NewReader(whole), int64(len(whole))); err != nil {
		t.Fatalf("a file of format 1.1: %v", err)
	}
	replace := func(from, to string) []byte { return bytes.Replace(bytes.Clone(whole), []byte(from), []byte(to), 1) }
	for _, tt := range []struct {
		name, want string
		b          []byte
	}{
		{"empty", "read ELF: EOF; the file is cut, damaged or no compiled model: compile the model again", nil},
		{"another machine", "machine 0x4e51", append(append(bytes.Clone(whole[:18]), 0x51), whole[19:]...)},
		{"a newer format", `has format "2.0"`, replace(`"format": "1.1"`, `"format": "2.0"`)},
		{"no JSON", "manifest", replace(`"format":`, `"format";`)},
		{"no manifest", "no section .npu.model", replace(".npu.model", ".npu.modal")},
		{"a text that was changed", "text_crc32", replace("\x10\x00\x00\x11", "\x10\x00\x00\x12")},
		{"host node without end", "section .npu.hosts: host node 0", replace("host.Add(", "host.Add[")},
		{"sums that are not there", "format 1.2 and no section .npu.sums", replace(`"format": "1.1"`, `"format": "1.2"`)},
		{"a newer minor", "format 1.10 and no section .npu.sums", replace(`"format": "1.1",`, `"format":"1.10",`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := model.Read(bytes.NewReader(tt.b), int64(len(tt.b)))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want one that says %q", err, tt.want)
			}
			if err != nil && !strings.Contains(err.Error(), "compile the model again") {
				t.Errorf("%v: what to do?", err)
			}
		})
	}
	for n := range whole {
		if _, err := model.Read(bytes.NewReader(whole[:n]), int64(n)); err == nil {
			t.Fatalf("the first %d of %d bytes are read as a model", n, len(whole))
		}
	}
}

// A file with a bit that is another is refused, whichever byte has it, and so is one with a byte more. What is said names the section.
func TestDamage(t *testing.T) {
	whole, err := twoPrograms(t).Write()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.NewFile(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	in := func(at int) string {
		for _, s := range f.Sections[1:] {
			if o := uint64(at); o >= s.Offset && o-s.Offset < s.FileSize {
				return s.Name
			}
		}
		return ""
	}
	seen := map[string]bool{}
	for at := range whole {
		name := in(at)
		seen[name] = true
		b := bytes.Clone(whole)
		b[at] ^= 1 << (at % 8)
		_, err := model.Read(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			t.Fatalf("a bit of byte %d, in section %q, is another, and the file is read", at, name)
		}
		if s := err.Error(); !strings.Contains(s, "compile the model again") || !strings.Contains(s, "§") && !strings.Contains(s, "read ELF") {
			t.Fatalf("byte %d, in section %q: %v: what to do?", at, name, err)
		}
		if name != "" && name != ".shstrtab" && name != ".npu.sums" && !strings.Contains(err.Error(), "section "+name+" does not have the SHA-256") {
			t.Fatalf("byte %d, in section %q: %v", at, name, err)
		}
	}
	for _, name := range []string{"", ".npu.desc", ".text.1", ".note.npu", ".npu.const", ".npu.model", ".npu.hosts", ".npu.sums", ".shstrtab"} {
		if !seen[name] {
			t.Errorf("no byte was of %q", name)
		}
	}
	for _, more := range [][]byte{{0}, {1, 2, 3}} {
		b := append(bytes.Clone(whole), more...)
		if _, err := model.Read(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), "headers, or bytes between sections") {
			t.Errorf("% x behind the file: %v", more, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	m := twoPrograms(&testing.T{})
	for _, format := range []string{model.Format, "1.1"} { // with sums, which stop most of what is changed, and without
		b, err := m.WriteAs(format)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := model.Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		if _, err := m.Write(); err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
	})
}

func TestNoModel(t *testing.T) {
	p := &isa.Program{Descriptor: isa.Descriptor{Rows: 32, Cols: 32}, Text: isa.Text(isa.Halt{})}
	name := filepath.Join(t.TempDir(), "p.npu")
	if err := os.WriteFile(name, p.ELF(), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := model.Read(f, int64(len(p.ELF()))); !errors.Is(err, model.ErrNoModel) {
		t.Errorf("the error is %v, want ErrNoModel", err)
	}
}
