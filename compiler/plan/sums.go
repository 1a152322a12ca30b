// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"math"
	"slices"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/core/isa"
	"npuemu/core/num"
)

// sum is operations that one ADDQ (§5.6.33) computes: the sum, difference or product of two dequantized tensors of 8 bits,
// activations of it, and its quantization. That the bits are the same was tried for all 65536 pairs of operands.
type sum struct {
	nodes []*ir.Node
	one   *ir.Node // what takes their place: npu.qadd or npu.qmul in fp32 (§6.18)
}

// findSums finds those of g by their last node, the quantization. Nobody else reads what is between.
func findSums(g *ir.Graph, target emit.Target) map[*ir.Node]*sum {
	found := map[*ir.Node]*sum{}
	if target.Features&isa.FeatureAddq == 0 {
		return found
	}
	producer, uses := g.Producers(), g.Uses()
	for _, n := range g.Nodes {
		if n.Op == "npu.quantize" {
			if s := matchSum(n, producer, uses, g.Outputs); s != nil {
				found[n] = s
			}
		}
	}
	return found
}

// matchSum is the sum that last ends, or nil.
func matchSum(last *ir.Node, producer map[*ir.Tensor]*ir.Node, uses map[*ir.Tensor][]*ir.Node, outputs []*ir.Tensor) *sum {
	p := pairing{to: last}
	s := &sum{nodes: []*ir.Node{last}}
	if !p.quantized(last, last.Outputs[0]) {
		return nil
	}
	from := func(t *ir.Tensor) *ir.Node {
		n := producer[t]
		if n == nil || t.Type != ir.Float32 || slices.Contains(outputs, t) || slices.ContainsFunc(uses[t], func(u *ir.Node) bool { return !slices.Contains(s.nodes, u) }) {
			return nil
		}
		s.nodes = append(s.nodes, n)
		return n
	}
	n := from(last.Inputs[0])
	for n != nil && (n.Op == "npu.element" && n.Attrs.Str("op", "") == "relu" || n.Op == "npu.clip") {
		p.acts = append(p.acts, n)
		n = from(n.Inputs[0])
	}
	if n == nil || n.Op != "npu.element" {
		return nil
	}
	p.op = n.Attrs.Str("op", "")
	if p.op != "add" && p.op != "sub" && p.op != "mul" {
		return nil
	}
	if p.x = from(n.Inputs[0]); p.x == nil {
		return nil
	}
	if p.y = p.x; n.Inputs[1] != n.Inputs[0] {
		if p.y = from(n.Inputs[1]); p.y == nil {
			return nil
		}
	}
	if p.x.Op != "npu.dequantize" || p.y.Op != "npu.dequantize" || !p.quantized(p.x, p.x.Inputs[0]) || !p.quantized(p.y, p.y.Inputs[0]) {
		return nil
	}
	pair, ok := p.find()
	if !ok {
		return nil
	}
	s.one = &ir.Node{Name: last.Name, Op: "npu.qadd", Inputs: []*ir.Tensor{p.x.Inputs[0], p.y.Inputs[0]}, Outputs: last.Outputs, Attrs: ir.Attrs{
		"rounding": "fp32", "scales": []float32{pair.A, pair.B, pair.C}, "zeros": []int64{int64(pair.XZero), int64(pair.YZero), int64(pair.Zero)},
		"lo": int64(pair.Lo), "hi": int64(pair.Hi),
	}}
	switch p.op {
	case "sub":
		s.one.Attrs["sub"] = int64(1)
	case "mul":
		s.one.Op = "npu.qmul"
	}
	return s
}

// pairing is the function of two bytes that a sum is.
type pairing struct {
	x, y, to *ir.Node   // dequantizations and the quantization
	op       string     // add, sub or mul
	acts     []*ir.Node // behind it, the last one first
}

// quantized reports whether t, which n reads or makes, has 8 bits, the type of the result, and one scale.
func (p *pairing) quantized(n *ir.Node, t *ir.Tensor) bool {
	return (t.Type == ir.Int8 || t.Type == ir.Uint8) && t.Type == p.to.Outputs[0].Type && len(n.Attrs.Floats("scales")) == 1 && len(n.Attrs.Ints("zeros")) == 1
}

// The numbers that are tried: factors up to mostUlps numbers of fp32 from the nearest to the quotients of the scales, terms of
// up to mostTerms times termStep in either direction.
const (
	mostUlps  = 4
	mostTerms = 8
	termStep  = 1.0 / (1 << 19)
)

// find returns ADDQ's parameters with which every pair of operands gives what the nodes give. Both round the same
// number to an integer, one with one error of fp32 more than the other; they differ next to ties, of which there are few
// among 65536 pairs, and whether there is a factor that decides all of them alike is tried.
func (p *pairing) find() (pair num.Pair, ok bool) {
	lo, _ := p.to.Outputs[0].Type.Range()
	one := func(n *ir.Node) (float32, int32) { return n.Attrs.Floats("scales")[0], int32(n.Attrs.Ints("zeros")[0]) }
	sx, zx := one(p.x)
	sy, zy := one(p.y)
	sz, zz := one(p.to)
	want := make([]int32, 1<<16)
	combine := map[string]func(x, y float32) float32{"add": num.Add32, "sub": num.Sub32, "mul": num.Mul32}[p.op]
	end := p.end()
	least, most := int32(math.MaxInt32), int32(math.MinInt32)
	for i := range want {
		x, y := int32(lo)+int32(i>>8), int32(lo)+int32(i&255)
		want[i] = end(combine(num.Dequantize(x, zx, sx), num.Dequantize(y, zy, sy)))
		least, most = min(least, want[i]), max(most, want[i])
	}
	a, b := float64(sx)/float64(sz), float64(sy)/float64(sz)
	if p.op == "mul" {
		a, b = a*float64(sy), 0
	}
	pair = num.Pair{XZero: zx, YZero: zy, Zero: zz, Lo: least, Hi: most, Float: true}
	if math.IsInf(float64(float32(a)), 0) || math.IsInf(float64(float32(b)), 0) {
		return pair, false
	}
	right := func(i int) bool {
		x, y := int32(lo)+int32(i>>8), int32(lo)+int32(i&255)
		switch p.op {
		case "sub":
			return pair.Sub(x, y) == want[i]
		case "mul":
			return pair.Mul(x, y) == want[i]
		}
		return pair.Add(x, y) == want[i]
	}
	// Those that were wrong once are the first to be tried, the last one before all others.
	var hard []int
	try := func() bool {
		for k, i := range hard {
			if !right(i) {
				copy(hard[1:k+1], hard[:k])
				hard[0] = i
				return false
			}
		}
		for i := range want {
			if !right(i) {
				hard = slices.Insert(hard, 0, i)
				return false
			}
		}
		return true
	}
	ys := mostUlps
	if p.op == "mul" {
		ys = 0
	}
	for far := range 2*mostUlps + mostTerms + 1 {
		for i := -min(far, mostUlps); i <= min(far, mostUlps); i++ {
			for j := -min(far-abs(i), ys); j <= min(far-abs(i), ys); j++ {
				k := far - abs(i) - abs(j)
				if k > mostTerms || len(hard) > mostHard {
					continue
				}
				pair.A, pair.B = near(a, i), near(b, j)
				for _, pair.C = range []float32{float32(k) * termStep, float32(-k) * termStep}[:min(k+1, 2)] {
					if pair.A >= 0 && pair.B >= 0 && try() {
						return pair, true
					}
				}
			}
		}
	}
	return pair, false
}

// mostHard is how many pairs may be wrong for some of the numbers that were tried: of more, no numbers are right for all.
const mostHard = 64

// near is the number of fp32 that is n above the nearest to v.
func near(v float64, n int) float32 {
	if v == 0 {
		return 0
	}
	return math.Float32frombits(uint32(int32(math.Float32bits(float32(v))) + int32(n)))
}

func abs(n int) int { return max(n, -n) }

// end is what becomes of a sum: the activations and the quantization.
func (p *pairing) end() func(v float32) int32 {
	lo, hi := p.to.Outputs[0].Type.Range()
	a := p.to.Attrs
	scale, zero, least, most := a.Floats("scales")[0], int32(a.Ints("zeros")[0]), int32(a.Int("lo", int(lo))), int32(a.Int("hi", int(hi)))
	var clips [][2]float32
	for _, n := range slices.Backward(p.acts) {
		c := [2]float32{0, float32(math.Inf(1))}
		if n.Op == "npu.clip" {
			c = [2]float32(n.Attrs.Floats("clip"))
		}
		clips = append(clips, c)
	}
	return func(v float32) int32 {
		for _, c := range clips {
			v = num.Min32(num.Max32(v, c[0]), c[1])
		}
		return num.Quantize(v, scale, zero, least, most)
	}
}

// joined are nodes of a chain with its sums as one node each.
func (m *memory) joined(nodes []*ir.Node) []*ir.Node {
	out := slices.Clone(nodes)
	for _, n := range nodes {
		s := m.sums[n]
		if s == nil || slices.ContainsFunc(s.nodes, func(k *ir.Node) bool { return !slices.Contains(nodes, k) }) {
			continue
		}
		out[slices.Index(out, n)] = s.one
		out = slices.DeleteFunc(out, func(k *ir.Node) bool { return slices.Contains(s.nodes, k) })
	}
	return out
}
