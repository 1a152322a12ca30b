// SPDX-License-Identifier: Apache-2.0

// Package compiler makes compiled models of graphs: it plans them for a core and writes
// down what became of each node (docs/compiler.md).
package compiler

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/plan"
	"npuemu/compiler/ref"
	"npuemu/core/isa"
)

// groups are the names of the instruction groups (§5.3), as the assembler has them.
var groups = []struct {
	bit  uint64
	name string
}{
	{isa.FeatureGEMM, "gemm"}, {isa.FeatureFloat, "float"}, {isa.FeatureControl, "control"}, {isa.FeatureVector, "vector"}, {isa.FeatureReduce, "reduce"},
	{isa.FeaturePool, "pool"}, {isa.FeatureGather, "gather"}, {isa.FeatureAddq, "addq"},
}

// basic are the groups that every program names, of those that the core has.
const basic = isa.FeatureGEMM | isa.FeatureFloat | isa.FeatureVector | isa.FeatureReduce

// useful are those that the back end uses, where the core has them. What needs another one is the host's.
const useful = basic | isa.FeaturePool | isa.FeatureGather | isa.FeatureAddq

// Build compiles g, whose nodes are of the device level or of the host (package ir), for target. The
// error is an *ir.Error.
func Build(g *ir.Graph, target emit.Target) (*model.Model, error) {
	return BuildWatched(g, target, nil)
}

// Progress is told how far a work is, and what comes next.
type Progress = plan.Progress

// BuildWatched is Build, and tells progress of it, unless that is nil.
func BuildWatched(g *ir.Graph, target emit.Target, progress Progress) (*model.Model, error) {
	return build(g, target, plan.Compact, progress)
}

func build(g *ir.Graph, target emit.Target, mode plan.Mode, progress Progress) (*model.Model, error) {
	if target.Features&basic == 0 {
		return nil, &ir.Error{Graph: g.Name, Rule: "the core has none of the instruction groups gemm, float, vector and reduce (§5.3)", Remedy: "compile for architecture 1.3 or later, with one of them"}
	}
	target.Features &= useful // no program asks for more than it may use
	if err := g.Verify(); err != nil {
		return nil, err
	}
	for _, t := range slices.Concat(g.Inputs, g.Outputs) {
		if t.Quant == nil {
			continue
		}
		for _, s := range t.Quant.Scales {
			if !(s > 0) || math.IsInf(float64(s), 0) {
				return nil, &ir.Error{Graph: g.Name, Tensor: t.Name, Rule: fmt.Sprintf("scale %v is not finite and above 0 (§14.3)", s), Remedy: "quantize the model again"}
			}
		}
	}
	p, err := plan.Watched(g, target, mode, progress)
	if err != nil {
		return nil, g.InModel(err)
	}
	for i, n := range g.Nodes {
		if p.Nodes[i].Host == "" {
			continue
		}
		if err := ref.Check(n); err != nil {
			var e *ir.Error
			if errors.As(err, &e) {
				e.Graph, e.Remedy = g.Name, "replace the node, or cut the model before it"
			}
			return nil, n.InModel(err)
		}
	}
	return pack(p), nil
}

// pack writes a plan down as a model.
func pack(p *plan.Plan) *model.Model {
	g := p.Graph
	m := &model.Model{Constants: p.Constants}
	features := p.Target.Features & basic
	for _, s := range p.Segments {
		if s.Program != nil {
			features |= s.Program.Features
		}
	}
	m.Name, m.Architecture = g.Name, "1.3"
	if features&(isa.FeaturePool|isa.FeatureGather) != 0 {
		m.Architecture = "1.4"
	}
	if features&isa.FeatureAddq != 0 {
		m.Architecture = "1.5"
	}
	m.Array = model.Array{Rows: p.Target.Rows, Cols: p.Target.Cols, Scratchpad: p.Target.SpadSize, Accumulators: p.Target.AccSize}
	for _, g := range groups {
		if features&g.bit != 0 {
			m.Array.Groups = append(m.Array.Groups, g.name)
		}
	}
	m.Bindings = []model.Binding{
		{Name: "constants", Size: uint64(max(len(p.Constants), 1))},
		{Name: "arena", Size: uint64(max(p.ArenaSize, 1)), Write: true},
	}
	at := func(t *ir.Tensor) model.Tensor {
		place, ok := p.Places[t]
		if !ok { // of a host node alone
			place = plan.Place{}
		}
		return tensor(t, int(place.Binding), place.Offset)
	}
	for i, t := range g.Inputs {
		m.Inputs = append(m.Inputs, tensor(t, plan.FirstIO+i, 0))
		m.Bindings = append(m.Bindings, model.Binding{Name: t.Name, Size: uint64(max(t.Bytes(), 1))})
	}
	for i, t := range g.Outputs {
		m.Outputs = append(m.Outputs, tensor(t, plan.FirstIO+len(g.Inputs)+i, 0))
		m.Bindings = append(m.Bindings, model.Binding{Name: t.Name, Size: uint64(max(t.Bytes(), 1)), Write: true})
	}
	for i, n := range g.Nodes {
		c := &p.Nodes[i].Counts
		d := model.Node{
			Name: n.Name, Op: n.Op, Host: p.Nodes[i].Host, Program: -1, Instructions: c.ByEngine[:], MACs: c.MACs, Loaded: c.Loaded, Stored: c.Stored,
		}
		if w := p.Nodes[i].Within; w != i {
			d.Within = g.Nodes[w].Name
		}
		for _, t := range n.Outputs {
			if t != nil && !p.Inside[t] && !p.Stays[t] {
				d.Outputs = append(d.Outputs, at(t))
			}
		}
		m.Nodes = append(m.Nodes, d)
	}
	for _, s := range p.Segments {
		if s.Program == nil {
			host := hostGraph(g.Nodes[s.Node])
			step := model.Step{Program: -1, Host: len(m.Hosts)}
			for _, t := range host.Inputs {
				step.Inputs = append(step.Inputs, at(t))
			}
			for _, t := range host.Outputs {
				step.Outputs = append(step.Outputs, at(t))
			}
			m.Hosts, m.Steps = append(m.Hosts, host), append(m.Steps, step)
			continue
		}
		for _, r := range s.Ranges {
			for i := range m.Nodes {
				if n := &m.Nodes[i]; p.Nodes[i].Within == r.Tag && n.Host == "" {
					n.Program, n.First, n.Last = len(m.Programs), r.First, r.Last
				}
			}
		}
		m.Steps = append(m.Steps, model.Step{Program: len(m.Programs), Host: -1})
		m.Programs = append(m.Programs, s.Program)
	}
	return m
}

func tensor(t *ir.Tensor, binding int, offset uint64) model.Tensor {
	d := model.Tensor{Name: t.Name, Type: t.Type.String(), Shape: append([]int{}, t.Shape...), Binding: binding, Offset: offset}
	if q := t.Quant; q != nil {
		d.Quant = &model.Quant{Scales: q.Scales, Zeros: q.Zeros, Axis: q.Axis}
	}
	return d
}

// hostGraph is n alone: its inputs, but for constants, are those of the graph.
func hostGraph(n *ir.Node) *ir.Graph {
	g := &ir.Graph{Name: n.Name, Nodes: []*ir.Node{n}}
	seen := map[*ir.Tensor]bool{}
	for _, t := range n.Inputs {
		if t != nil && !t.Const() && !seen[t] {
			seen[t] = true
			g.Inputs = append(g.Inputs, t)
		}
	}
	for _, t := range n.Outputs {
		if t != nil {
			g.Outputs = append(g.Outputs, t)
		}
	}
	return g
}

// Operator is the name of a node's operator without its level: "conv" of npu.conv.
func Operator(op string) string {
	_, name, found := strings.Cut(op, ".")
	if !found {
		return op
	}
	return name
}
