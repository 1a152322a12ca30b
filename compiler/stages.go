// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"fmt"
	"io"
	"strings"

	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/core/isa"
)

// Stages are what the back end decides, as DumpStage takes their names.
func Stages() []string { return []string{"places", "tile", "schedule"} }

// DumpStage writes what the back end decided for m: "places" is where each tensor is, "tile" what each STORE of an operator
// writes of its results, and "schedule" the instructions of each operator with their engines and tokens. It is read from
// the compiled model itself, and so is what a card executes.
func DumpStage(w io.Writer, m *model.Model, stage string) error {
	var b strings.Builder
	switch stage {
	case "places":
		dumpPlaces(&b, m)
	case "tile":
		dumpTiles(&b, m)
	case "schedule":
		dumpSchedule(&b, m)
	default:
		return fmt.Errorf("stage %q: there are %s", stage, strings.Join(Stages(), ", "))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func dumpPlaces(b *strings.Builder, m *model.Model) {
	for i, d := range m.Bindings {
		access := "read"
		if d.Write {
			access = "written"
		}
		fmt.Fprintf(b, "binding %d %q: %d bytes, %s\n", i, d.Name, d.Size, access)
	}
	place := func(what string, t *model.Tensor) {
		fmt.Fprintf(b, "%s %q: %s%v: %d bytes at %#x of binding %d\n", what, t.Name, t.Type, t.Shape, bytesOf(t), t.Offset, t.Binding)
	}
	for i := range m.Inputs {
		place("input", &m.Inputs[i])
	}
	for i := range m.Nodes {
		n := &m.Nodes[i]
		what := fmt.Sprintf("node %q (%s):", n.Name, n.Op)
		for k := range n.Outputs {
			place(what, &n.Outputs[k])
		}
		if len(n.Outputs) == 0 {
			fmt.Fprintf(b, "%s in local memory alone\n", what)
		}
	}
	for i := range m.Outputs {
		place("output", &m.Outputs[i])
	}
}

// bytesOf is the size of t.
func bytesOf(t *model.Tensor) int {
	typ, _ := ir.ParseType(t.Type)
	return typ.Bytes(ir.Elements(t.Shape))
}

// eachGroup calls f for the operators that have instructions of their own, with those that are computed with them.
func eachGroup(m *model.Model, f func(main *model.Node, with []*model.Node)) {
	for i := range m.Nodes {
		n := &m.Nodes[i]
		if n.Host != "" || n.Within != "" || n.First == n.Last {
			continue
		}
		with := []*model.Node{n}
		for k := range m.Nodes {
			if m.Nodes[k].Within == n.Name {
				with = append(with, &m.Nodes[k])
			}
		}
		f(n, with)
	}
}

// header is the line of a group in a dump.
func header(n *model.Node, with []*model.Node) string {
	s := fmt.Sprintf("node %q (%s)", n.Name, n.Op)
	for _, o := range with[1:] {
		s += fmt.Sprintf(" + %q (%s)", o.Name, o.Op)
	}
	return fmt.Sprintf("%s: program %d, instructions %d to %d\n", s, n.Program, n.First, n.Last-1)
}

func dumpTiles(b *strings.Builder, m *model.Model) {
	eachGroup(m, func(n *model.Node, with []*model.Node) {
		b.WriteString(header(n, with))
		p, tiles := m.Programs[n.Program], 0
		for i := n.First; i < n.Last; i++ {
			inst, v := isa.Decode((*isa.Word)(p.Text[i*isa.Size:]))
			st, ok := inst.(isa.Store)
			if v != nil || !ok {
				continue
			}
			fmt.Fprintf(b, "  tile %d: %s, by instruction %d from %#x\n", tiles, stored(m, st, with), i, st.Local)
			tiles++
		}
		if tiles == 0 {
			b.WriteString("  its result stays in local memory\n")
		}
	})
}

// stored says what st writes of the results of nodes: elements, by the indexes of the first and the last one.
func stored(m *model.Model, st isa.Store, nodes []*model.Node) string {
	r := isa.Load(st).Memory()
	rows := fmt.Sprintf("%d rows of %d bytes", r.Outer*r.Inner, r.Bytes)
	end := r.Base + (r.Outer-1)*r.OuterStride + (r.Inner-1)*r.InnerStride + r.Bytes
	for _, n := range nodes {
		for k := range n.Outputs {
			t := &n.Outputs[k]
			typ, _ := ir.ParseType(t.Type)
			size := uint64(max(typ.Bits()/8, 1))
			if t.Binding == int(st.Binding) && r.Base >= t.Offset && end <= t.Offset+uint64(bytesOf(t)) {
				return fmt.Sprintf("%q %v to %v, %s", t.Name, index(int((r.Base-t.Offset)/size), t.Shape), index(int((end-1-t.Offset)/size), t.Shape), rows)
			}
		}
	}
	return fmt.Sprintf("%q from %#x to %#x, %s", m.Bindings[st.Binding].Name, r.Base, end-1, rows)
}

// engineNames are those of the classes of instructions (§5.1).
var engineNames = map[isa.Class]string{isa.ClassControl: "control", isa.ClassLoad: "load", isa.ClassStore: "store", isa.ClassMatrix: "matrix", isa.ClassVector: "vector"}

func dumpSchedule(b *strings.Builder, m *model.Model) {
	begins := map[[2]int]string{}
	eachGroup(m, func(n *model.Node, with []*model.Node) { begins[[2]int{n.Program, n.First}] = header(n, with) })
	for at, s := range m.Steps {
		if s.Program < 0 {
			fmt.Fprintf(b, "step %d: node %q on the host\n", at, m.Hosts[s.Host].Name)
			continue
		}
		fmt.Fprintf(b, "step %d: program %d\n", at, s.Program)
		p := m.Programs[s.Program]
		_, text, _ := strings.Cut(isa.Disassemble(p), "\n\n") // behind the directives
		i := 0
		for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
			if strings.HasSuffix(line, ":") { // a label
				continue
			}
			b.WriteString(begins[[2]int{s.Program, i}])
			fmt.Fprintf(b, "  %6d %-7s %s\n", i, engineNames[isa.Opcode(p.Text[i*isa.Size]).Class()], line)
			i++
		}
	}
}
