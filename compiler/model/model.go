// SPDX-License-Identifier: Apache-2.0

// Package model is the compiled model, a file that a compiler makes and a runtime runs
// (docs/spec/model.md §14): programs, constants, and a manifest that says what they are.
package model

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"npuemu/compiler/ir"
	"npuemu/core/isa"
)

// Format is the version of the file; a reader refuses another major.
const Format = "1.2"

// Model is a compiled model.
type Model struct {
	Manifest
	Programs  []*isa.Program
	Constants []byte
	Hosts     []*ir.Graph // of each step of the host: its one node, between inputs and outputs
}

// Manifest describes a model (§14.3).
type Manifest struct {
	Format       string    `json:"format"`
	Name         string    `json:"name"`
	Architecture string    `json:"architecture"` // the oldest that has what the programs need
	Array        Array     `json:"array"`
	Bindings     []Binding `json:"bindings"`
	Inputs       []Tensor  `json:"inputs"`
	Outputs      []Tensor  `json:"outputs"`
	Steps        []Step    `json:"steps"`
	Nodes        []Node    `json:"nodes"`
}

// Array is the configuration that the programs are for (§5.1).
type Array struct {
	Rows         int      `json:"rows"`
	Cols         int      `json:"cols"`
	Scratchpad   uint32   `json:"scratchpad"`   // bytes
	Accumulators uint32   `json:"accumulators"` // bytes
	Groups       []string `json:"groups"`       // of instructions (§5.3)
}

// Binding is an entry of the table that each program is launched with (§7.3).
type Binding struct {
	Name  string `json:"name"`
	Size  uint64 `json:"size"` // bytes, at least 1
	Write bool   `json:"write"`
}

// Tensor is an input, an output, or what a node computes.
type Tensor struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Shape   []int  `json:"shape"`
	Quant   *Quant `json:"quant,omitempty"`
	Binding int    `json:"binding"`
	Offset  uint64 `json:"offset"`
}

// Quant says which numbers the integers of a tensor stand for: (q − zero)·scale.
type Quant struct {
	Scales []float32 `json:"scales"`
	Zeros  []int64   `json:"zeros,omitempty"`
	Axis   int       `json:"axis,omitempty"`
}

// Step is a program, or a node of the host. Steps run in order.
type Step struct {
	Program int      `json:"program"`           // index; −1 for a node of the host
	Host    int      `json:"host"`              // index; −1 for a program
	Inputs  []Tensor `json:"inputs,omitempty"`  // of the host's node, in the order of its graph's
	Outputs []Tensor `json:"outputs,omitempty"` // likewise
	Cycles  uint64   `json:"cycles,omitempty"`  // of the program (§13); 0 if nobody estimated them
}

// Node is an operator of the graph and what became of it.
type Node struct {
	Name         string   `json:"name"`
	Op           string   `json:"op"`
	Host         string   `json:"host,omitempty"`   // why it is on the host
	Within       string   `json:"within,omitempty"` // node that it is computed with, and counted there; of the same instructions
	Program      int      `json:"program"`          // −1: on the host
	First        int      `json:"first"`            // instructions [first, last) of the program
	Last         int      `json:"last"`
	Instructions []int    `json:"instructions"` // of the load, store, matrix and vector engine
	MACs         uint64   `json:"macs"`
	Loaded       uint64   `json:"loaded"` // bytes
	Stored       uint64   `json:"stored"` // bytes
	Cycles       uint64   `json:"cycles"` // of the node by itself (§13); 0 if nobody estimated them
	Outputs      []Tensor `json:"outputs,omitempty"`

	// Of the estimate that Cycles is of, and not in the file: bytes of device memory, whole bursts, and what bounds the node.
	Moved uint64 `json:"-"`
	Bound string `json:"-"`
}

// limits of a manifest, so that what a file says cannot make a reader take all memory.
const (
	maxManifest = 64 << 20
	maxBinding  = 1 << 40
	maxRank     = 64
)

// TypeOf is the type of t; the model was validated.
func (t *Tensor) TypeOf() ir.Type {
	typ, _ := ir.ParseType(t.Type)
	return typ
}

// Bytes is the size of t; the model was validated.
func (t *Tensor) Bytes() int { return t.TypeOf().Bytes(ir.Elements(t.Shape)) }

// Zeros is as many elements as t has that stand for 0.
func (t *Tensor) Zeros() []byte {
	b := make([]byte, t.Bytes())
	if q := t.Quant; q != nil && len(q.Zeros) == 1 && t.TypeOf().Bits() == 8 {
		for i := range b {
			b[i] = byte(q.Zeros[0])
		}
	}
	return b
}

// Variables says of each input that is a variable which output has its next value (§14.3).
func (m *Model) Variables() map[int]int {
	v := map[int]int{}
	for i, in := range m.Inputs {
		for k, out := range m.Outputs {
			if out.Name == in.Name+":next" && out.Type == in.Type && slices.Equal(out.Shape, in.Shape) {
				v[i] = k
			}
		}
	}
	return v
}

// check looks at t, in a model with these bindings.
func (t *Tensor) check(b []Binding) error {
	typ, ok := ir.ParseType(t.Type)
	switch {
	case !ok:
		return fmt.Errorf("tensor %q has type %q, which is none", t.Name, t.Type)
	case len(t.Shape) > maxRank:
		return fmt.Errorf("tensor %q has %d axes; the most is %d", t.Name, len(t.Shape), maxRank)
	case typ.Bytes(ir.Elements(t.Shape)) < 0:
		return fmt.Errorf("tensor %q is too large: %v", t.Name, t.Shape)
	case t.Binding < 0 || t.Binding >= len(b):
		return fmt.Errorf("tensor %q is in binding %d of %d", t.Name, t.Binding, len(b))
	}
	size := uint64(typ.Bytes(ir.Elements(t.Shape)))
	if have := b[t.Binding].Size; t.Offset > have || size > have-t.Offset {
		return fmt.Errorf("tensor %q of %d bytes at %d passes the end of binding %d, %d", t.Name, size, t.Offset, t.Binding, have)
	}
	if q := t.Quant; q != nil {
		if len(q.Scales) == 0 || len(q.Zeros) > 0 && len(q.Zeros) != len(q.Scales) {
			return fmt.Errorf("tensor %q has %d scales and %d zero points", t.Name, len(q.Scales), len(q.Zeros))
		}
		for _, s := range q.Scales {
			if !(s > 0) || math.IsInf(float64(s), 0) {
				return fmt.Errorf("tensor %q has a scale that is not finite and above 0", t.Name)
			}
		}
	}
	return nil
}

// Validate checks that a runtime can believe what m says (§14.4).
func (m *Model) Validate() error {
	if m.Format == "" || major(m.Format) != major(Format) {
		return fmt.Errorf("model: the file has format %q; this program reads %s (§14.1)", m.Format, Format)
	}
	if len(m.Bindings) == 0 || len(m.Bindings) > isa.MaxBindings {
		return fmt.Errorf("model: %d bindings; there are 1 to %d (§14.3)", len(m.Bindings), isa.MaxBindings)
	}
	for i, b := range m.Bindings {
		if b.Size == 0 || b.Size > maxBinding {
			return fmt.Errorf("model: binding %d has %d bytes; a binding has 1 to 2⁴⁰ (§7.3)", i, b.Size)
		}
	}
	if have := m.Bindings[0].Size; have < uint64(len(m.Constants)) {
		return fmt.Errorf("model: binding 0 has %d bytes for %d of constants (§14.3)", have, len(m.Constants))
	}
	var tensors []Tensor
	tensors = append(append(tensors, m.Inputs...), m.Outputs...)
	for _, s := range m.Steps {
		if (s.Program < 0) == (s.Host < 0) || s.Program >= len(m.Programs) || s.Host >= len(m.Hosts) {
			return fmt.Errorf("model: a step names program %d of %d and host node %d of %d (§14.3)", s.Program, len(m.Programs), s.Host, len(m.Hosts))
		}
		if s.Host >= 0 {
			if err := m.checkHost(s); err != nil {
				return err
			}
		}
		tensors = append(append(tensors, s.Inputs...), s.Outputs...)
	}
	for _, n := range m.Nodes {
		if n.Program >= len(m.Programs) || n.Program >= 0 && (n.First < 0 || n.Last < n.First || n.Last > len(m.Programs[n.Program].Text)/isa.Size) || len(n.Instructions) != 4 {
			return fmt.Errorf("model: node %q names instructions %d to %d of program %d, which are not there (§14.3)", n.Name, n.First, n.Last, n.Program)
		}
		tensors = append(tensors, n.Outputs...)
	}
	for i := range tensors {
		if err := tensors[i].check(m.Bindings); err != nil {
			return fmt.Errorf("model: %w (§14.3)", err)
		}
	}
	for i, p := range m.Programs {
		if int(p.Bindings) != len(m.Bindings) {
			return fmt.Errorf("model: program %d has %d bindings, the model %d (§14.3)", i, p.Bindings, len(m.Bindings))
		}
	}
	if err := m.checkSteps(); err != nil {
		return err
	}
	return m.checkSizes(tensors)
}

// checkSteps looks for what no step runs, and for outputs that nothing computes.
func (m *Model) checkSteps() error {
	programs, hosts := make([]bool, len(m.Programs)), make([]bool, len(m.Hosts))
	for _, s := range m.Steps {
		if s.Program >= 0 {
			programs[s.Program] = true
		} else {
			hosts[s.Host] = true
		}
	}
	if i := slices.Index(programs, false); i >= 0 {
		return fmt.Errorf("model: no step runs program %d of %d (§14.3): the file is not as a compiler writes it", i, len(programs))
	}
	if i := slices.Index(hosts, false); i >= 0 {
		return fmt.Errorf("model: no step runs host node %d of %d (§14.3): the file is not as a compiler writes it", i, len(hosts))
	}
	for i := range m.Outputs {
		t := &m.Outputs[i]
		if len(m.Steps) == 0 && t.Bytes() > 0 {
			return fmt.Errorf("model: there are no steps, so nothing computes output %q (§14.3)", t.Name)
		}
		if !m.Bindings[t.Binding].Write && t.Bytes() > 0 {
			return fmt.Errorf("model: output %q is in binding %d, which is not written (§14.3)", t.Name, t.Binding)
		}
	}
	return nil
}

// checkSizes bounds the memory that a file asks for: bindings have what lies in them, rounded up, and no more.
func (m *Model) checkSizes(tensors []Tensor) error {
	const granule = 64
	need := make([]uint64, len(m.Bindings))
	need[0] = uint64(len(m.Constants))
	for i := range tensors {
		t := &tensors[i]
		need[t.Binding] = max(need[t.Binding], t.Offset+uint64(t.Bytes()))
	}
	for i, b := range m.Bindings {
		if most := (max(need[i], 1) + granule - 1) &^ (granule - 1); b.Size > most {
			return fmt.Errorf("model: binding %d, %q, has %d bytes, and what the manifest has in it ends at %d (§14.3)", i, b.Name, b.Size, need[i])
		}
	}
	return nil
}

// Memory is how many bytes of memory a runtime needs: those of programs and bindings.
func (m *Model) Memory() uint64 {
	n := uint64(0)
	for _, p := range m.Programs {
		n += uint64(isa.DescriptorSize + len(p.Text))
	}
	for _, b := range m.Bindings {
		n += b.Size
	}
	return n
}

// checkHost compares the tensors of a step with those of its graph.
func (m *Model) checkHost(s Step) error {
	g := m.Hosts[s.Host]
	if len(g.Nodes) != 1 || len(s.Inputs) != len(g.Inputs) || len(s.Outputs) != len(g.Outputs) {
		return fmt.Errorf("model: host node %d has %d nodes, %d inputs and %d outputs; its step %d and %d (§14.3)",
			s.Host, len(g.Nodes), len(g.Inputs), len(g.Outputs), len(s.Inputs), len(s.Outputs))
	}
	if n := g.Nodes[0]; !slices.Equal(g.Outputs, n.Outputs) {
		return fmt.Errorf("model: host node %q: the outputs of its graph are not those of the node (§14.3)", n.Name)
	}
	for i, t := range slices.Concat(g.Inputs, g.Outputs) {
		u := slices.Concat(s.Inputs, s.Outputs)[i]
		if t.Type.String() != u.Type || !slices.Equal(t.Shape, u.Shape) && len(t.Shape)+len(u.Shape) > 0 {
			return fmt.Errorf("model: host node %q: tensor %q is %s%v in the graph and %s%v in its step (§14.3)", g.Nodes[0].Name, t.Name, t.Type, t.Shape, u.Type, u.Shape)
		}
	}
	return nil
}

func major(v string) string {
	m, _, _ := strings.Cut(v, ".")
	return m
}

// hasSums reports whether files of that format have sums (§14.6).
func hasSums(format string) bool { return format != "1" && format != "1.0" && format != "1.1" }

// Write returns the file.
func (m *Model) Write() ([]byte, error) {
	return m.write(Format)
}

// write returns the file in that format.
func (m *Model) write(format string) ([]byte, error) {
	m.Format = format
	if err := m.Validate(); err != nil {
		return nil, err
	}
	manifest, err := json.MarshalIndent(&m.Manifest, "", " ")
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	var hosts []byte
	for _, g := range m.Hosts {
		text, err := printed(g)
		if err != nil {
			return nil, err
		}
		hosts = append(append(hosts, text...), 0)
	}
	return writeELF(m.Programs, m.Constants, append(manifest, '\n'), hosts, hasSums(format)), nil
}

// Read reads a file and validates it.
func Read(r io.ReaderAt, size int64) (*Model, error) {
	f, err := readELF(r, size)
	if err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	m := &Model{Constants: f.constants}
	if err := json.Unmarshal(f.manifest, &m.Manifest); err != nil {
		return nil, fmt.Errorf("model: section %s: manifest: %w (§14.3)%s", secManifest, err, again)
	}
	if major(m.Format) != major(Format) {
		return nil, fmt.Errorf("model: the file has format %q; this program reads %s (§14.1)%s", m.Format, Format, again)
	}
	if hasSums(m.Format) && !f.summed {
		return nil, fmt.Errorf("model: the file has format %s and no section %s (§14.6)%s", m.Format, secSums, again)
	}
	for _, image := range f.images {
		p, err := isa.ParseImage(image)
		if err != nil {
			return nil, fmt.Errorf("model: program %d: %w%s", len(m.Programs), err, again)
		}
		m.Programs = append(m.Programs, p)
	}
	for _, text := range f.hosts {
		g, err := ir.Parse(text)
		if err == nil {
			err = g.Verify()
		}
		if err != nil {
			return nil, fmt.Errorf("model: section %s: host node %d: %w%s", secHosts, len(m.Hosts), err, again)
		}
		m.Hosts = append(m.Hosts, g)
	}
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("%w%s", err, again)
	}
	return m, nil
}

// again is what to do about a file that cannot be read.
const again = ": the file is damaged, or by another compiler: compile the model again"

// ErrNoModel is that a file is an ELF file without a model in it: a single program, perhaps.
var ErrNoModel = errors.New("the file has no section .npu.model: it is no compiled model, or damaged (§14.2): compile the model again")
