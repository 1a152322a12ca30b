// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/run"
	"npuemu/core/isa"
	"npuemu/vdev"
)

// faulty is a card that goes wrong: before and after are called around each launch.
type faulty struct {
	*Card
	before, after func(program []byte, bindings []run.Binding)
}

func (f faulty) Launch(ctx context.Context, program run.Memory, bindings []run.Binding) (run.Launch, error) {
	if f.before != nil {
		f.before(program.Bytes(), bindings)
	}
	l, err := f.Card.Launch(ctx, program, bindings)
	if f.after != nil {
		f.after(program.Bytes(), bindings)
	}
	return l, err
}

// verified is x + c, relu of it, and 2 times that.
const verified = `graph "verified"
input %x: int32[2, 4]
const %c: int32[4] = "AQAAAAIAAAADAAAABAAAAA=="
node "sum" npu.element(%x, %c) -> (%s: int32[2, 4]) {op="add"}
node "relu" npu.element(%s) -> (%r: int32[2, 4]) {op="relu"}
node "twice" npu.element(%r, %r) -> (%y: int32[2, 4]) {op="add"}
output %y
`

// newCard is a card that ends with the test.
func newCard(t *testing.T) *Card {
	t.Helper()
	c, err := NewCard(t.Context(), vdev.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// A wrong constant, and a bit that is wrong in the result of one node, are found, and so are the node, the first
// element and the STORE that wrote it. A card without fault has no difference.
func TestVerifyFinds(t *testing.T) {
	c := newCard(t)
	x := make([]byte, 32)
	for i := range 8 {
		x[4*i] = byte(i)
	}
	for _, tt := range []struct {
		name          string
		before, after func(program []byte, bindings []run.Binding)
		want          string // node, tensor, element, what is there and what should be; how many
	}{
		{name: "no fault"},
		{"a constant", func(_ []byte, b []run.Binding) { b[0].Bytes()[8] ^= 0x40 }, nil, `"sum" "s" [0 2] 45000000 05000000 2 of 8`},
		{"the last element of the last node", nil, func(_ []byte, b []run.Binding) { b[3].Bytes()[31] ^= 0x80 }, `"twice" "y" [1 3] 16000080 16000000 1 of 8`},
		{"a result in the arena", nil, func(_ []byte, b []run.Binding) {
			if arena := b[1].Bytes(); len(arena) > 4 { // in Build's model all stays in the scratchpad
				arena[4] ^= 1
			}
		}, `"sum" "s" [0 1] 02000000 03000000 1 of 8`},
	} {
		g, err := ir.Parse(verified)
		if err != nil {
			t.Fatal(err)
		}
		v, err := compiler.Verify(t.Context(), faulty{c, tt.before, tt.after}, g, c.target, [][]byte{x}, nil)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if v.Report.Counters.Programs != 1 || v.Tensors != 3 || v.Within != 0 || len(v.Hosts) != 0 {
			t.Errorf("%s: %+v", tt.name, v)
		}
		d := v.Divergence
		if tt.want == "" {
			if d != nil {
				t.Errorf("%s: %v", tt.name, d)
			}
			continue
		}
		if d == nil {
			t.Errorf("%s: nothing is found", tt.name)
			continue
		}
		got := fmt.Sprintf("%q %q %v %x %x %d of %d", d.Node, d.Tensor, d.Index, d.Got, d.Want, d.Differ, d.Of)
		if got != tt.want || d.Program != 0 || d.Instruction < 0 || !strings.HasPrefix(d.Text, "store") || fmt.Sprint(d.Tile) != "[[0 1] [0 3]]" {
			t.Errorf("%s: %s\n%v, want %s", tt.name, got, d, tt.want)
		}
	}
}

// A program that computes something else than its node says is found, at that node: here one that subtracts. Build's model,
// the one with each node by itself, and the one with memory for each tensor are launched one after the other; the second only if there are chains.
func TestVerifyFindsAnInstruction(t *testing.T) {
	c := newCard(t)
	chained := strings.ReplaceAll(verified, "}", ", chain=1}")
	x := make([]byte, 32)
	for _, tt := range []struct {
		name, text string
		wrong      []int // launches, from 1 on
		within     int
		node, say  string
	}{
		{"all", verified, []int{1, 2}, 0, "relu", "of program 0 of the model with memory for each tensor stored its tile, 0:2,0:4: store"},
		{"Build's model", verified, []int{1}, 0, "twice", "of program 0 stored its tile, 0:2,0:4: store"},
		{"all of a chain", chained, []int{1, 2, 3}, 2, "relu", "of program 0 of the model in which each node is computed by itself stored its tile, 0:2,0:4: store"},
		{"the chain", chained, []int{3}, 2, "twice", "computed with it: sum, relu"},
		{"the chain in Build's model", chained, []int{1}, 2, "twice", "of program 0 stored its tile, 0:2,0:4: store"},
	} {
		launch, changed := 0, 0
		wrong := func(image []byte, _ []run.Binding) {
			if launch++; !slices.Contains(tt.wrong, launch) {
				return
			}
			p, err := isa.ParseImage(image)
			if err != nil {
				t.Error(err)
				return
			}
			for at := 0; at < len(p.Text); at += isa.Size {
				inst, _ := isa.Decode((*isa.Word)(p.Text[at:]))
				if e, ok := inst.(isa.Element); ok && e.Op == isa.ElemReLU {
					e.Op = isa.ElemNeg
					p.Text = append(append(append([]byte{}, p.Text[:at]...), isa.Text(e)...), p.Text[at+isa.Size:]...)
					copy(image, p.Image())
					changed++
					return
				}
			}
		}
		g, err := ir.Parse(tt.text)
		if err != nil {
			t.Fatal(err)
		}
		v, err := compiler.Verify(t.Context(), faulty{c, wrong, nil}, g, c.target, [][]byte{x}, nil)
		if err != nil || changed != len(tt.wrong) || v.Within != tt.within || v.Tensors != 3 {
			t.Fatalf("%s: %v; the program was changed %d times; %d of %d tensors are within chains", tt.name, err, changed, v.Within, v.Tensors)
		}
		if d := v.Divergence; d == nil || d.Node != tt.node || d.Differ != 8 || d.Instruction < 0 || !strings.Contains(d.String(), tt.say) {
			t.Errorf("%s: the difference is %v, want all of %s", tt.name, d, tt.node)
		}
	}
}

// The reference takes longer than the card; who has enough of it need not wait for all nodes.
func TestVerifyEnds(t *testing.T) {
	c := newCard(t)
	g, err := ir.Parse(verified)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	nodes := 0
	v, err := compiler.Verify(ctx, c, g, c.target, [][]byte{make([]byte, 32)}, func(done, _ int, _ string) {
		if nodes = done; done == 1 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || v.Divergence != nil || nodes != 1 {
		t.Errorf("%v, %v after %d nodes", v.Divergence, err, nodes)
	}
}
