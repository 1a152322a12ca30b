// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"context"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/core/isa"
	"npuemu/timing"
)

// overlapCases are products of many tiles. Constants are given by their bytes, all 0.
var overlapCases = []struct {
	name   string
	stages string // that have two buffers
	target emit.Target
	text   string
}{
	{"convolution", "input sums results", emit.Target{Rows: 32, Cols: 32, SpadSize: 256 << 10, AccSize: 64 << 10, Minor: isa.Minor, Features: isa.Features}, `input %x: int8[1, 64, 56, 64]
		const %w: int8[64, 3, 3, 64] = 36864
		const %b: int32[64] = 256
		node "c" npu.conv(%x, %w, %b) -> (%y: int8[1, 64, 56, 64]) {strides=[1, 1], pads=[1, 1, 1, 1], groups=1, rounding="fp32", scales=floats[0.0002]}
		output %y`},
	{"product of int8", "input sums results", large, `input %x: int8[1, 4096, 256]
		const %w: int8[1, 256, 64] = 16384
		node "c" npu.gemm(%x, %w) -> (%y: int8[1, 4096, 64]) {rounding="fp32", scales=floats[0.0002]}
		output %y`},
	{"product of fp32", "input", large, `input %x: float32[1, 512, 256]
		input %w: float32[1, 256, 256]
		node "c" npu.gemm(%x, %w) -> (%y: float32[1, 512, 256]) {rounding="none"}
		output %y`},
	{"elements", "input results", large, `input %x: float32[1, 200, 1024]
		node "a" npu.element(%x) -> (%y: float32[1, 200, 1024]) {op="exp"}
		output %y`},
	{"elements computed together", "input", large, `input %x: int8[1, 800, 1024]
		node "a" npu.dequantize(%x) -> (%a: float32[1, 800, 1024]) {scales=floats[0.02], zeros=[3], chain=1}
		node "b" npu.element(%a) -> (%b: float32[1, 800, 1024]) {op="sigmoid", chain=1}
		node "c" npu.quantize(%b) -> (%y: int8[1, 800, 1024]) {scales=floats[0.01], zeros=[1], lo=-128, hi=127, chain=1}
		output %y`},
	{"rows", "input results", large, `input %x: float32[400, 512]
		node "a" npu.softmax(%x) -> (%y: float32[400, 512]) {}
		output %y`},
}

func overlapProgram(t *testing.T, i int) *isa.Program {
	t.Helper()
	var text strings.Builder
	for line := range strings.Lines(overlapCases[i].text) {
		if head, size, ok := strings.Cut(line, "] = "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(size))
			if err != nil {
				t.Fatal(err)
			}
			line = fmt.Sprintf("%s] = %q\n", head, base64.StdEncoding.EncodeToString(make([]byte, n)))
		}
		text.WriteString(line)
	}
	g, err := ir.Parse(text.String())
	if err != nil {
		t.Fatal(err)
	}
	p, err := New(g, overlapCases[i].target, Compact)
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Segments) != 1 || p.Segments[0].Program == nil {
		t.Fatalf("segments %+v", p.Segments)
	}
	return p.Segments[0].Program
}

// instruction is one of a program, with what has surely finished before it begins, whatever engine is how fast.
type instruction struct {
	word   isa.Word
	inst   isa.Instruction
	engine int
	before map[int]bool // indexes
	reads  []isa.Access
	writes []isa.Access
}

// order follows the tokens of p, as package emit numbers them: of two engines each has one, and the first wait is for the first signal.
func order(t *testing.T, p *isa.Program) (l []instruction) {
	t.Helper()
	knows := map[isa.Class]map[int]bool{}
	signals := map[byte][]map[int]bool{}
	l = make([]instruction, len(p.Text)/isa.Size)
	limits := p.Limits()
	setup := limits.Setup
	for i := range l {
		w := isa.Word(p.Text[i*isa.Size:])
		inst, v := isa.Decode(&w)
		if v != nil {
			t.Fatalf("instruction %d: %v", i, v)
		}
		class := isa.Opcode(w[0]).Class()
		if s, ok := inst.(isa.Sync); ok {
			class = s.Engine
		}
		k := knows[class]
		if k == nil {
			k = map[int]bool{}
			knows[class] = k
		}
		if token := w[2] & 15; w[2]>>4 > 0 {
			if len(signals[token]) == 0 {
				t.Fatalf("instruction %d waits for a signal that comes behind it", i)
			}
			maps.Copy(k, signals[token][0])
			signals[token] = signals[token][1:]
		}
		l[i] = instruction{word: w, inst: inst, engine: int(class) - 1, before: maps.Clone(k)}
		setup.Follow(&w)
		for _, a := range isa.Accesses(nil, &w, &setup) {
			if a.Write {
				l[i].writes = append(l[i].writes, a)
			} else {
				l[i].reads = append(l[i].reads, a)
			}
		}
		k[i] = true
		if token := w[3] & 15; w[3]>>4 > 0 {
			signals[token] = append(signals[token], maps.Clone(k))
		}
	}
	return l
}

// meet reports whether two accesses have a byte in common, as far as from the first to the last one.
func meet(a, b isa.Access) bool {
	end := func(r isa.Rows) uint64 {
		return r.Base + (r.Outer-1)*r.OuterStride + (r.Inner-1)*r.InnerStride + r.Bytes
	}
	return a.Space == b.Space && a.Binding == b.Binding && a.Rows.Base < end(b.Rows) && b.Rows.Base < end(a.Rows)
}

func anyMeet(a, b []isa.Access) bool {
	for _, x := range a {
		for _, y := range b {
			if meet(x, y) {
				return true
			}
		}
	}
	return false
}

// The engines, as in timing.Report.
const (
	loadEngine = iota
	storeEngine
	matrixEngine
	vectorEngine
)

// stages are what passes from one engine to another through buffers.
var stages = []struct {
	name     string
	from, to int
	space    isa.Space
}{
	{"input", loadEngine, matrixEngine, isa.Scratchpad},
	{"sums", matrixEngine, vectorEngine, isa.Accumulators},
	{"results", vectorEngine, storeEngine, isa.Scratchpad},
}

// TestTwoBuffers: what is made for a tile has another address than what was made for the one before, and does not wait until that has
// been used; it waits for the tile before that, which had its buffer. What uses it waits for it.
func TestTwoBuffers(t *testing.T) {
	for i, c := range overlapCases {
		t.Run(c.name, func(t *testing.T) {
			all := order(t, overlapProgram(t, i))
			for _, s := range stages {
				if !strings.Contains(c.stages, s.name) {
					continue
				}
				// A tile is what follows each other at one address; first is where it begins, used who reads it first.
				type tile struct{ first, used int }
				var tiles []tile
				var base uint64
				for k, in := range all {
					if in.engine != s.from || s.name == "input" && !slices.ContainsFunc(in.reads, func(a isa.Access) bool { return a.Space == isa.Memory && a.Binding == FirstIO }) {
						continue
					}
					for _, a := range in.writes {
						if a.Space == s.space && (len(tiles) == 0 || a.Rows.Base != base) {
							tiles, base = append(tiles, tile{first: k}), a.Rows.Base
						}
					}
				}
				for n := range tiles {
					for k := tiles[n].first + 1; k < len(all) && tiles[n].used == 0; k++ {
						if (all[k].engine == s.to || s.name == "input" && all[k].engine == vectorEngine) && anyMeet(all[tiles[n].first].writes, all[k].reads) {
							tiles[n].used = k
						}
					}
					if u := tiles[n].used; u > 0 && !all[u].before[tiles[n].first] {
						t.Errorf("%s: instruction %d may begin before %d, whose result it uses, has finished", s.name, u, tiles[n].first)
					}
				}
				ahead, waits := 0, 0
				for n := 1; n < len(tiles); n++ {
					if !anyMeet(all[tiles[n].first].writes, all[tiles[n-1].first].writes) && !all[tiles[n].first].before[tiles[n-1].used] {
						ahead++
					}
					if n > 1 && all[tiles[n].first].before[tiles[n-2].used] {
						waits++
					}
				}
				if len(tiles) < 5 || ahead < len(tiles)-1 || waits < len(tiles)-2 {
					t.Errorf("%s: %d tiles, of which %d begin before the one in front has been used, and %d wait for the one before that", s.name, len(tiles), ahead, waits)
				}
			}
		})
	}
}

// TestEnginesOverlap: by the timing model engines work at the same time, and a program takes little longer than the one that has the
// most to do.
func TestEnginesOverlap(t *testing.T) {
	for i, c := range overlapCases {
		t.Run(c.name, func(t *testing.T) {
			prog := overlapProgram(t, i)
			config := newTimer(&ir.Graph{}, c.target).config
			type span struct{ from, to uint64 }
			var busy [4][]span
			r, err := timing.Observe(context.Background(), prog, config, 0, func(s timing.Span) error {
				if !s.Stall && !s.Placing {
					busy[s.Engine] = append(busy[s.Engine], span{s.Start, s.End})
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			both := func(a, b []span) (n uint64) {
				for _, x := range a {
					for _, y := range b {
						if lo, hi := max(x.from, y.from), min(x.to, y.to); lo < hi {
							n += hi - lo
						}
					}
				}
				return n
			}
			sum, most, busiest := uint64(0), uint64(0), 0
			for e, n := range r.Engines {
				if sum += n.Busy; n.Busy > most {
					most, busiest = n.Busy, e
				}
			}
			if r.Cycles > most*11/10 || sum < r.Cycles*6/5 {
				t.Errorf("%d cycles; the engines have %d to do, one of them %d", r.Cycles, sum, most)
			}
			for e, n := range r.Engines {
				if e == busiest || n.Busy == 0 {
					continue
				}
				if with := both(busy[e], busy[busiest]); with < n.Busy*17/20 {
					t.Errorf("engine %d is busy for %d cycles, and for %d of them while engine %d is, which has the most to do", e, n.Busy, with, busiest)
				}
			}
		})
	}
}
