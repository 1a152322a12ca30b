// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/core/isa"
)

// checkAllocation fails if lives overlap in time and memory, are not aligned, or leave total; it returns the lower bound of
// any allocation: the most that lives at one time.
func checkAllocation(t *testing.T, lives []*live, total int) (least int) {
	t.Helper()
	for i, v := range lives {
		if v.at < 0 || v.at+v.size > total || v.at%align != 0 {
			t.Fatalf("%d bytes at %#x of %#x, on a boundary of %d", v.size, v.at, total, align)
		}
		for _, o := range lives[:i] {
			if v.first <= o.last && o.first <= v.last && v.at < o.at+o.size && o.at < v.at+v.size {
				t.Fatalf("groups %d to %d have %d bytes at %#x, and groups %d to %d %d bytes at %#x", v.first, v.last, v.size, v.at, o.first, o.last, o.size, o.at)
			}
		}
		n := 0 // the most is reached where one begins
		for _, o := range lives {
			if o.first <= v.first && v.first <= o.last {
				n += o.size
			}
		}
		least = max(least, n)
	}
	return least
}

// Of random lives no two overlap, and all take little more memory than those that live at one time: a quarter more at the worst of
// these, 1 % on average.
func TestAllocate(t *testing.T) {
	worst, sum := 0.0, 0.0
	const seeds = 400
	for seed := range uint64(seeds) {
		r := rand.New(rand.NewPCG(seed, 7))
		n, groups, longest := 1+r.IntN(120), 1+r.IntN(60), 1+r.IntN(12)
		var lives []*live
		for range n {
			first := r.IntN(groups)
			lives = append(lives, &live{size: up(r.IntN(1 << r.IntN(18))), first: first, last: first + r.IntN(longest)})
		}
		total := allocate(lives)
		least := checkAllocation(t, lives, total)
		if least == 0 {
			sum++
			continue
		}
		ratio := float64(total) / float64(least)
		worst, sum = max(worst, ratio), sum+ratio
		if again := allocate(lives); again != total || checkAllocation(t, lives, again) != least {
			t.Errorf("seed %d: %d bytes, and %d the second time", seed, total, again)
		}
	}
	t.Logf("%.3f of what lives at one time at the worst, %.3f on average", worst, sum/seeds)
	if worst > 1.25 || sum/seeds > 1.01 {
		t.Errorf("%.3f of what lives at one time at the worst, %.3f on average", worst, sum/seeds)
	}
}

// The memory of what has been read for the last time is used again.
func TestAllocateAgain(t *testing.T) {
	chain := func(n int, size func(i int) int) (l []*live) {
		for i := range n {
			l = append(l, &live{size: up(size(i)), first: i, last: i + 1})
		}
		return l
	}
	same := func(int) int { return 1000 }
	for _, tt := range []struct {
		name  string
		lives []*live
		want  int
	}{
		{"nothing", nil, 0},
		{"one", chain(1, same), 1024},
		{"a chain of equals takes two", chain(500, same), 2048},
		{"a chain that shrinks takes the first two", chain(100, func(i int) int { return 64 * (100 - i) }), 64*100 + 64*99},
		{"a residual takes a third", append(chain(50, same), &live{size: 1024, first: 0, last: 60}), 3072},
		{"what is empty takes nothing", append(chain(9, same), &live{first: 3, last: 4}), 2048},
		{"what lives in one group only", []*live{{size: 128, first: 0}, {size: 64, first: 1, last: 1}, {size: 64, first: 1, last: 1}}, 128},
		{"all at once", []*live{{size: 64, last: 9}, {size: 128, last: 9}, {size: 192, last: 9}}, 384},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := allocate(tt.lives); got != tt.want {
				t.Errorf("%d bytes, want %d", got, tt.want)
			}
			checkAllocation(t, tt.lives, tt.want)
		})
	}
}

// A model's arena: tensors that do not stay in the scratchpad, each read by the next operation, have the memory of two; where all
// are to be seen in the end, each has its own.
func TestArena(t *testing.T) {
	target := emit.Target{Rows: 8, Cols: 16, SpadSize: 12 << 10, AccSize: 4 << 10, Minor: isa.Minor, Features: isa.Features}
	const n, size = 12, 30<<10 + 5 // no whole granules
	var b strings.Builder
	fmt.Fprintf(&b, "graph \"g\"\ninput %%x0: int8[%d]\n", size)
	for i := range n {
		fmt.Fprintf(&b, "node \"n%d\" npu.element(%%x%d) -> (%%x%d: int8[%d]) {op=\"neg\"}\n", i, i, i+1, size)
	}
	fmt.Fprintf(&b, "output %%x%d\n", n)
	g, err := ir.Parse(b.String())
	if err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[Mode]int{Compact: 2 * up(size), Keep: (n - 1) * up(size), Apart: (n - 1) * up(size)} {
		p, err := New(g, target, mode)
		if err != nil {
			t.Fatal(err)
		}
		if p.ArenaSize != want {
			t.Errorf("mode %d: an arena of %d bytes, want %d", mode, p.ArenaSize, want)
		}
	}
}
