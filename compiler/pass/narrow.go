// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"slices"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// narrow makes products of fp32 products of typ, bf16 or fp16: their operands are rounded to it (§6.6), constants here and others by
// a cast in front of the product; sums, bias, activation and result stay fp32, and so does what is no product. With fp32 it does nothing.
func narrow(g *ir.Graph, typ ir.Type) error {
	if typ == ir.Float32 {
		return nil
	}
	known := map[*ir.Tensor]*ir.Tensor{}
	var nodes []*ir.Node
	for _, n := range g.Nodes {
		if (n.Op == "npu.conv" || n.Op == "npu.gemm") && n.Inputs[0].Type == ir.Float32 && n.Inputs[1].Type == ir.Float32 {
			n.Inputs = slices.Clone(n.Inputs)
			for i, t := range n.Inputs[:2] {
				to := known[t]
				if to == nil {
					to = &ir.Tensor{Name: t.Name + ":" + typ.String(), Type: typ, Shape: slices.Clone(t.Shape)}
					known[t] = to
					if t.Const() {
						to.Data = ref.PutFloats(typ, ref.Floats(t.Type, t.Data, t.Elements()), true)
					} else {
						nodes = append(nodes, &ir.Node{Name: n.Name + "/" + typ.String(), Op: "npu.cast", Inputs: []*ir.Tensor{t}, Outputs: []*ir.Tensor{to}, Attrs: ir.Attrs{}, Origin: n.Root()})
					}
				}
				n.Inputs[i] = to
			}
		}
		nodes = append(nodes, n)
	}
	g.Nodes = nodes
	uniqueNames(g)
	return nil
}
