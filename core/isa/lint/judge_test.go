// SPDX-License-Identifier: Apache-2.0

package lint_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"npuemu/core/isa"
	"npuemu/core/isa/lint"
)

// state is how far engines are, and the counters.
type state struct {
	at     [4]int
	tokens [3]int
}

// judge looks at every order in which engines can execute text, one instruction
// at a time. It returns the pairs that can be executed at the same time although
// they touch the same cell, one of them writing, and whether an order ends with
// engines that wait.
func judge(text []isa.Instruction) (pairs map[string]bool, deadlock bool) {
	var engine [4][]int
	words := make([]isa.Word, len(text))
	for n, i := range text {
		words[n] = i.Encode()
		engine[words[n][0]>>4-1] = append(engine[words[n][0]>>4-1], n)
	}
	cell := func(n int) (at uint32, write, some bool) {
		switch i := text[n].(type) {
		case isa.Load:
			return i.Local, true, true
		case isa.Store:
			return i.Local, false, true
		case isa.Preload:
			return i.Weights, false, true
		case isa.Fill:
			return i.Local, true, true
		}
		return 0, false, false
	}
	pairs = map[string]bool{}
	seen := map[state]bool{}
	var visit func(s state)
	visit = func(s state) {
		if seen[s] {
			return
		}
		seen[s] = true
		var ready []int
		waiting := false
		for e := range engine {
			if s.at[e] == len(engine[e]) {
				continue
			}
			n := engine[e][s.at[e]]
			if w := words[n][2]; s.tokens[w&15] < int(w>>4) {
				waiting = true
				continue
			}
			ready = append(ready, n)
		}
		deadlock = deadlock || waiting && len(ready) == 0
		for k, x := range ready {
			for _, y := range ready[:k] {
				wx, wy := words[x][2], words[y][2]
				if wx&15 == wy&15 && s.tokens[wx&15] < int(wx>>4)+int(wy>>4) {
					continue // one of them only
				}
				ax, writeX, someX := cell(x)
				ay, writeY, someY := cell(y)
				if someX && someY && ax == ay && (writeX || writeY) {
					pairs[fmt.Sprint(min(x, y), max(x, y))] = true
				}
			}
			next := s
			next.at[words[x][0]>>4-1]++
			next.tokens[words[x][2]&15] -= int(words[x][2] >> 4)
			next.tokens[words[x][3]&15] += int(words[x][3] >> 4)
			visit(next)
		}
	}
	visit(state{})
	return pairs, deadlock
}

// enginesOf returns the engines of pairs. Of the accesses of an engine to the same
// bytes the last is enough: what is ordered behind it is ordered behind them all.
func enginesOf(text []isa.Instruction, pairs map[string]bool) map[string]bool {
	set := map[string]bool{}
	for pair := range pairs {
		var x, y int
		if _, err := fmt.Sscan(pair, &x, &y); err != nil {
			panic(err)
		}
		a, b := text[x].Encode(), text[y].Encode()
		set[fmt.Sprint(min(a[0], b[0]), max(a[0], b[0]))] = true
	}
	return set
}

func subset(a, b map[string]bool) bool {
	for k := range a {
		if !b[k] {
			return false
		}
	}
	return true
}

// All orders of many small programs agree with what the linter says of them:
// it finds all hazards and deadlocks, and none that is not there.
func TestAllOrders(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 5))
	count := map[string]int{}
	for range 4000 {
		token := func() isa.Token {
			if rng.IntN(2) == 0 {
				return isa.Token{}
			}
			return isa.Token{ID: uint8(rng.IntN(3)), Count: uint8(1 + rng.IntN(5)/4)}
		}
		var text []isa.Instruction
		for range 3 + rng.IntN(9) {
			at, wait, signal := uint32(rng.IntN(2)), token(), token()
			switch rng.IntN(4) {
			case 0:
				text = append(text, isa.Load{Local: at, NX: 1, NY: 1, NZ: 1, Offset: uint64(len(text)), Wait: wait, Signal: signal})
			case 1:
				text = append(text, isa.Store{Binding: 1, Local: at, NX: 1, NY: 1, NZ: 1, Wait: wait, Signal: signal})
			case 2:
				text = append(text, isa.Preload{Weights: at, K: 1, N: 1, Wait: wait, Signal: signal})
			default:
				text = append(text, isa.Fill{Local: at, NX: 1, NY: 1, Wait: wait, Signal: signal})
			}
		}
		p := &isa.Program{
			Descriptor: isa.Descriptor{Rows: 32, Cols: 32, SpadSize: 4, AccSize: 4, Bindings: 2},
			Text:       append(isa.Text(text...), isa.Text(isa.Halt{})...),
		}
		got := map[string]bool{}
		rules := map[string]bool{}
		for _, f := range lint.Check(p).Findings {
			rules[f.Rule] = true
			if f.Rule == "HAZARD" {
				got[fmt.Sprint(min(f.At.Index, f.Other.Index), max(f.At.Index, f.Other.Index))] = true
			}
		}
		want, deadlock := judge(text)
		if rules["TOKEN_RACE"] { // then what it goes on with is one of several programs
			count["race"]++
			for pair := range got {
				if !want[pair] {
					t.Errorf("hazard of %s is none in\n%s", pair, isa.Disassemble(p))
				}
			}
			continue
		}
		for rule := range rules {
			count[rule]++
		}
		if len(rules) == 0 {
			count["nothing"]++
		}
		if deadlock != rules["DEADLOCK"] || !maps.Equal(enginesOf(text, got), enginesOf(text, want)) || !subset(got, want) {
			t.Fatalf("hazards %v, deadlock %v, want %v, %v in\n%s", slices.Sorted(maps.Keys(got)), rules["DEADLOCK"],
				slices.Sorted(maps.Keys(want)), deadlock, isa.Disassemble(p))
		}
	}
	for _, rule := range strings.Fields("race HAZARD DEADLOCK TOKEN_UNUSED nothing") {
		if count[rule] < 5 {
			t.Errorf("only %d programs with %s", count[rule], rule)
		}
	}
}
