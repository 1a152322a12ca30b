// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"cmp"
	"slices"
	"testing"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

var (
	large = emit.Target{Rows: 32, Cols: 32, SpadSize: 256 << 10, AccSize: 128 << 10, Minor: isa.Minor, Features: isa.Features}
	small = emit.Target{Rows: 8, Cols: 16, SpadSize: 12 << 10, AccSize: 4 << 10, Minor: isa.Minor, Features: isa.Features}
)

// tilingCases are products that have to be cut: int8 with a bias and scales for each channel, k × k with a padding that keeps the size.
var tilingCases = []struct {
	name            string
	target          emit.Target
	size, cin, cout int
	k, stride       int
	groups          int
}{
	{"3 × 3", large, 56, 64, 64, 3, 1, 1},
	{"3 × 3 of many channels", large, 7, 512, 512, 3, 1, 1},
	{"3 × 3, stride 2", large, 56, 128, 128, 3, 2, 1},
	{"1 × 1", large, 56, 64, 256, 1, 1, 1},
	{"1 × 1 of many channels", large, 7, 2048, 512, 1, 1, 1},
	{"depthwise", large, 112, 96, 96, 3, 1, 96},
	{"small, 3 × 3", small, 20, 24, 40, 3, 1, 1},
	{"small, 1 × 1", small, 16, 96, 64, 1, 1, 1},
	{"small, depthwise", small, 24, 32, 32, 3, 1, 32},
}

// tilingCase is one of tilingCases: emit has not been called.
func tilingCase(i int) *product {
	c := tilingCases[i]
	out := ceil(c.size, c.stride)
	constants := 0
	place := func(n int) Place { constants += up(n); return Place{Constants, uint64(constants - up(n))} }
	bias, params := place(4*c.cout), place(isa.ParamSize*c.cout)
	return &product{
		in: Place{Binding: FirstIO}, out: Place{Binding: FirstIO + 1}, weights: place(c.cout * c.k * c.k * c.cin / c.groups), bias: &bias,
		n: 1, h: c.size, w: c.size, cin: c.cin, oh: out, ow: out, cout: c.cout,
		kh: c.k, kw: c.k, sy: c.stride, sx: c.stride, dy: 1, dx: 1, groups: c.groups, top: c.k / 2, left: c.k / 2,
		a: systolic.Int8, b: systolic.Int8, rows: c.target.Rows, cols: c.target.Cols,
		finish: finish{out: systolic.Int8, params: &params, perChannel: true, lo: -128, hi: 127, rounding: isa.FloatScale},
	}
}

// caseTimer times programs of tilingCases.
func caseTimer(target emit.Target) *timer {
	x := &ir.Tensor{Name: "x", Type: ir.Int8, Shape: []int{1}}
	return newTimer(&ir.Graph{Inputs: []*ir.Tensor{x}, Outputs: []*ir.Tensor{x}}, target)
}

// cut is p in tiles of t.
func cut(t *testing.T, p *product, tl tiling, target emit.Target) *emit.List {
	t.Helper()
	e := &productCode{product: p, tiling: tl, code: &code{b: emit.NewList(target), timer: caseTimer(target)}}
	if err := e.run(); err != nil {
		t.Fatal(err)
	}
	return e.code.b
}

// grid is many tilings of p that fit, whatever choose thinks of them.
func grid(p *product, spad, acc int) (l []tiling) {
	cg, ng := p.cin/p.groups, p.cout/p.groups
	for gt := p.groups; gt > 0; gt /= 2 {
		for _, ct := range []int{gt * ng, gt * ng / 2, gt * ng / 4, gt * ng / 8, 48, 32, 16} {
			if ct < 1 || ct > gt*ng || gt > 1 && ct < gt*ng {
				continue
			}
			for _, kt := range []int{cg, up(cg / 2), up(cg / 4)} {
				if kt > cg || kt < cg && p.groups > 1 {
					continue
				}
				for _, tw := range []int{p.ow, ceil(p.ow, 2), ceil(p.ow, 4)} {
					for _, th := range []int{1, 2, 4, 8, ceil(p.oh, 4), ceil(p.oh, 3), ceil(p.oh, 2), p.oh} {
						t := tiling{gt: gt, ct: ct, kt: kt, tw: tw, th: min(th, p.oh)}
						if p.measure(&t, spad, acc) {
							l = append(l, t)
						}
					}
				}
			}
		}
	}
	return l
}

// How much more what choose finds may cost than the best of a grid, as it is estimated and as it is timed. It tries as many lines as
// fit and half of them: between them there can be fewer for which there are two buffers (docs/limits.md).
const (
	nearEstimate = 1.3
	nearTime     = 1.15
)

// TestChoose: the tilings that choose returns are in order, the best first; none of many others has a much lower cost; each fits, with
// the buffers that it was measured with, and computes every product once.
func TestChoose(t *testing.T) {
	for i, c := range tilingCases {
		t.Run(c.name, func(t *testing.T) {
			p := tilingCase(i)
			spad, acc := int(c.target.SpadSize), int(c.target.AccSize)
			best, err := p.choose(spad, acc)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.IsSortedFunc(best, func(a, b tiling) int { return cmp.Compare(a.cost, b.cost) }) || len(best) > mostTilings {
				t.Errorf("%d tilings, up to %d, the best first: %+v", len(best), mostTilings, best)
			}
			all := grid(p, spad, acc)
			if len(all) < 5 {
				t.Fatalf("only %d others", len(all))
			}
			for _, o := range all {
				if o.cost < best[0].cost/nearEstimate {
					t.Errorf("%+v costs less than %+v", o, best[0])
					break
				}
			}
			want := emit.Counts{}
			for k, b := range best {
				again := tiling{gt: b.gt, ct: b.ct, kt: b.kt, th: b.th, tw: b.tw}
				if !p.measure(&again, spad, acc) || again != b {
					t.Errorf("measured again, %+v is %+v", b, again)
				}
				if n, m := b.na*b.aBytes+b.nw*b.wBytes+b.no*b.oBytes, b.nacc*b.accBytes; n > spad || m > acc {
					t.Errorf("%d of %d bytes of scratchpad and %d of %d of accumulators: %+v", n, spad, m, acc, b)
				}
				builder := emit.New(c.target, FirstIO+2, FirstIO+1)
				builder.Append(cut(t, p, b, c.target))
				got := builder.Counts()
				if _, _, err := builder.Program(); err != nil {
					t.Fatalf("%+v: %v", b, err)
				}
				if n := uint32(b.na*b.aBytes + b.nw*b.wBytes + b.no*b.oBytes); got.SpadUsed > n || got.AccUsed > uint32(b.nacc*b.accBytes) {
					t.Errorf("the program has %d and %d bytes of local memory, it was measured with %d and %d", got.SpadUsed, got.AccUsed, n, b.nacc*b.accBytes)
				}
				if k == 0 {
					want = got
				}
				if n := uint64(p.oh * p.ow * p.cout * p.kh * p.kw * p.cin / p.groups); got.MACs != n || got.Stored != want.Stored || got.Stored != uint64(p.oh*p.ow*p.cout) {
					t.Errorf("%d products and %d bytes stored, want %d and %d", got.MACs, got.Stored, n, p.oh*p.ow*p.cout)
				}
			}
		})
	}
}

// TestChosen: what emit generates takes the fewest cycles of all that choose returns, by the timing model, and not much more than
// the best of many others.
func TestChosen(t *testing.T) {
	for i, c := range tilingCases {
		t.Run(c.name, func(t *testing.T) {
			p := tilingCase(i)
			timer := caseTimer(c.target)
			whole := &code{b: emit.NewList(c.target), timer: timer}
			if err := p.emit(whole); err != nil {
				t.Fatal(err)
			}
			got := timer.cost(whole.b)
			spad, acc := int(c.target.SpadSize), int(c.target.AccSize)
			best, err := p.choose(spad, acc) // of p as emit has made it
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range best {
				if cost := timer.cost(cut(t, p, b, c.target)); cost < 0 || cost < got {
					t.Errorf("%+v takes %.0f, and what was taken %.0f", b, cost, got)
				}
			}
			least, by := got, tiling{}
			for _, o := range grid(p, spad, acc) {
				if o.tiles > 400 {
					continue
				}
				if cost := timer.cost(cut(t, p, o, c.target)); cost >= 0 && cost < least {
					least, by = cost, o
				}
			}
			if got > nearTime*least {
				t.Errorf("it takes %.0f, and %+v %.0f", got, by, least)
			}
		})
	}
}
