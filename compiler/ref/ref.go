// SPDX-License-Identifier: Apache-2.0

// Package ref is the compiler's CPU reference: it runs a graph node by node, in plain loops. At the
// device level it gives the bits that docs/spec/numerics.md defines, by core/num. For constant
// folding and for the host it computes with types that the device lacks, too.
package ref

import (
	"fmt"
	"strings"

	"npuemu/compiler/ir"
)

var device = map[string]func(n *ir.Node, in [][]byte) []byte{
	"npu.conv": conv, "npu.gemm": gemm, "npu.requantize": requantize, "npu.quantize": quantize, "npu.dequantize": dequantize,
	"npu.cast": cast, "npu.element": element, "npu.clip": clip, "npu.select": selected, "npu.table": table, "npu.qadd": qadd,
	"npu.qmul": qmul, "npu.pool": pool, "npu.resize": resize, "npu.reduce": reduce, "npu.softmax": norm, "npu.layernorm": norm, "npu.rmsnorm": norm,
	"npu.transpose": transpose, "npu.concat": concat, "npu.slice": slice, "npu.pad": pad, "npu.gather": gather, "npu.expand": expand,
	"npu.bitcast": func(_ *ir.Node, in [][]byte) []byte { return in[0] },
	"npu.reshape": func(_ *ir.Node, in [][]byte) []byte { return in[0] },
}

// Eval runs one node on the data of its inputs, which has the size that their types and shapes say
// and is nil for an input that is left out; the outputs' types and shapes are known. Outputs may
// share memory with inputs. A node of the device level follows ir's rules (Verify); one that breaks them by
// its types alone (Wide), and one of the host, which has the same name behind "host.", is computed
// in 64 bits. The error is Check's, or that of an index that is of no row.
func Eval(n *ir.Node, in [][]byte) ([][]byte, error) {
	f, err := function(n)
	if err != nil {
		return nil, err
	}
	if n.Outputs[0].Elements() == 0 {
		return [][]byte{{}}, nil
	}
	if n.Op == "npu.gather" {
		if err := checkIndexes(n, in); err != nil {
			return nil, err
		}
	}
	return [][]byte{f(n, in)}, nil
}

// Check reports why Eval cannot run the node: an operation that is neither the device's nor the host's, or shapes and
// attributes that are not the operation's.
func Check(n *ir.Node) error {
	_, err := function(n)
	return err
}

// function is what computes n, whose rules it checks.
func function(n *ir.Node) (func(n *ir.Node, in [][]byte) []byte, error) {
	if n.Device() && n.Check() == nil {
		return device[n.Op], nil
	}
	f := wideOps[strings.TrimPrefix(strings.TrimPrefix(n.Op, "host."), "npu.")]
	if f == nil || !n.Device() && !n.Host() {
		return nil, n.Errorf("neither the device nor the host runs it")
	}
	if err := n.CheckForm(); err != nil {
		return nil, err
	}
	return f, checkWide(n)
}

// Run runs the graph, which Verify accepts. inputs is the data of each of its inputs, in order.
// observe, if not nil, is called after each node with the data of its outputs, which it must not change; it may put other data in its
// place, with which the run goes on. Its error ends the run.
func Run(g *ir.Graph, inputs [][]byte, observe func(n *ir.Node, out [][]byte) error) ([][]byte, error) {
	if len(inputs) != len(g.Inputs) {
		return nil, fmt.Errorf("ref: %d inputs for the %d of the graph", len(inputs), len(g.Inputs))
	}
	data := map[*ir.Tensor][]byte{}
	for i, t := range g.Inputs {
		if len(inputs[i]) != t.Bytes() {
			return nil, &ir.Error{Graph: g.Name, Tensor: t.Name, Rule: fmt.Sprintf("the input has %d bytes, %s%v needs %d", len(inputs[i]), t.Type, t.Shape, t.Bytes())}
		}
		data[t] = inputs[i]
	}
	left := map[*ir.Tensor]int{} // nodes that still read it
	for t, nodes := range g.Uses() {
		left[t] = len(nodes)
	}
	for _, t := range g.Outputs {
		left[t]++
	}
	value := func(t *ir.Tensor) []byte {
		if t.Const() {
			return t.Data
		}
		return data[t]
	}
	for _, n := range g.Nodes {
		in := make([][]byte, len(n.Inputs))
		for i, t := range n.Inputs {
			if t != nil {
				in[i] = value(t)
			}
		}
		out, err := Eval(n, in)
		if err != nil {
			return nil, err
		}
		for i, t := range n.Outputs {
			if t == nil {
				continue
			}
			if len(out[i]) != t.Bytes() {
				return nil, n.Errorf("ref: BUG: output %d has %d bytes, not the %d of %s%v", i, len(out[i]), t.Bytes(), t.Type, t.Shape)
			}
		}
		if observe != nil {
			if err := observe(n, out); err != nil {
				return nil, err
			}
		}
		for i, t := range n.Outputs {
			if t != nil {
				data[t] = out[i]
			}
		}
		for t := range unique(n.Inputs) {
			if left[t]--; left[t] == 0 {
				delete(data, t)
			}
		}
	}
	outputs := make([][]byte, len(g.Outputs))
	for i, t := range g.Outputs {
		outputs[i] = value(t)
	}
	return outputs, nil
}

func unique(ts []*ir.Tensor) map[*ir.Tensor]bool {
	m := map[*ir.Tensor]bool{}
	for _, t := range ts {
		if t != nil {
			m[t] = true
		}
	}
	return m
}
