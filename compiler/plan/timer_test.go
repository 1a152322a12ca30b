// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"testing"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/core/isa"
	"npuemu/timing"
)

// Of several ways the one that takes the fewest cycles is generated, behind what was there; local memory is what it has handed out.
func TestCheapest(t *testing.T) {
	target := emit.Target{Rows: 32, Cols: 32, SpadSize: 64 << 10, AccSize: 32 << 10, Minor: isa.Minor, Features: isa.Features}
	parts := []int{64, 1, 8} // LOADs that bring the same bytes
	for _, tt := range []struct {
		name  string
		parts []int
		want  int
	}{{"the second", parts, 1}, {"the only one", parts[:1], 64}, {"the first of equals", []int{4, 4}, 4}} {
		t.Run(tt.name, func(t *testing.T) {
			c := code{b: emit.NewList(target), timer: newTimer(&ir.Graph{}, target)}
			c.load(c.local(64), Place{}, 64)
			if err := c.cheapest(len(tt.parts), func(i int, way *code) error {
				n := 8192 / tt.parts[i]
				for k := range tt.parts[i] {
					way.load(way.local(n), Place{Offset: uint64(k * n)}, n)
				}
				way.local(64 * i)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if n := c.b.Entries() - 1; n != tt.want || c.spad != 64+8192+64*min(tt.want&1, len(tt.parts)-1) {
				t.Errorf("%d instructions and %d bytes of scratchpad, want %d instructions", n, c.spad, tt.want)
			}
		})
	}
	// What a card's sequencer costs decides between eight small loads and one that brings more.
	sizes := [][]int{{1024, 1024, 1024, 1024, 1024, 1024, 1024, 1024}, {14 << 10}}
	slow := timing.DefaultParams()
	slow.Dispatch = 1000
	for _, tt := range []struct {
		params timing.Params
		want   int
	}{{timing.Params{}, 8}, {timing.DefaultParams(), 8}, {slow, 1}} {
		target.Timing = tt.params
		c := code{b: emit.NewList(target), timer: newTimer(&ir.Graph{}, target)}
		if err := c.cheapest(len(sizes), func(i int, way *code) error {
			at := 0
			for _, n := range sizes[i] {
				way.load(way.local(n), Place{Offset: uint64(at)}, n)
				at += n
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if n := c.b.Entries(); n != tt.want {
			t.Errorf("dispatch of %d cycles: %d instructions, want %d", tt.params.Dispatch, n, tt.want)
		}
	}
	broken := errors.New("broken")
	c := code{b: emit.NewList(target), timer: newTimer(&ir.Graph{}, target)}
	if err := c.cheapest(2, func(i int, _ *code) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("the error is %v, want the way's", err)
	}
}
