// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/plan"
	"npuemu/compiler/ref"
	"npuemu/core/isa"
)

// network is graphs whose tensors fit the default core's scratchpad; but is a core that lacks an instruction of them.
var network = []struct{ name, stays, but, text string }{
	{"residual block", "a b d p", "", `input %x: int8[1, 14, 14, 64]; const %w1: int8[64, 1, 1, 64] = random; const %w2: int8[64, 3, 3, 64] = random; const %w3: int8[64, 1, 1, 64] = random
		const %bias1: int32[64] = random; const %bias2: int32[64] = random; const %bias3: int32[64] = random
		node "a" npu.conv(%x, %w1, %bias1) -> (%a: int8[1, 14, 14, 64]) {` + conv1 + `}
		node "b" npu.conv(%a, %w2, %bias2) -> (%b: int8[1, 14, 14, 64]) {` + conv3 + `}
		node "c" npu.conv(%b, %w3, %bias3) -> (%c: int8[1, 14, 14, 64]) {` + conv1 + `, chain=1}
		node "d" npu.qadd(%c, %a) -> (%d: int8[1, 14, 14, 64]) {rounding="two", left_shift=20, zeros=[3, -5, 7], multipliers=[1073741824, 1518500250, 1200000000], shifts=[31, 32, 49], lo=-128, hi=127, chain=1}
		node "p" npu.pool(%d) -> (%p: int8[1, 7, 7, 64]) {kind="max", kernel=[2, 2], strides=[2, 2], pads=[0, 0, 0, 0]}
		node "q" npu.conv(%p, %w1, %bias1) -> (%q: int8[1, 7, 7, 64]) {` + conv1 + `}
		output %q`},
	{"depthwise, strides, several images", "a b", "", `input %x: int8[2, 15, 13, 24]; const %w1: int8[72, 1, 1, 24] = random; const %w2: int8[72, 3, 3, 1] = random; const %w3: int8[40, 1, 1, 72] = random
		node "a" npu.conv(%x, %w1) -> (%a: int8[2, 15, 13, 72]) {` + conv1 + `}
		node "b" npu.conv(%a, %w2) -> (%b: int8[2, 8, 7, 72]) {strides=[2, 2], pads=[1, 1, 1, 1], groups=72, rounding="fp32", zero_y=3, lo=-100, hi=120, scales=floats[0.001], zero_x=-7}
		node "c" npu.conv(%b, %w3) -> (%c: int8[2, 8, 7, 40]) {` + conv1 + `}
		output %c`},
	{"elements, a reshape and a product", "a b c", "", `input %x: uint8[1, 40, 60]; const %w: int8[1, 60, 50] = random
		node "a" npu.clip(%x) -> (%a: uint8[1, 40, 60]) {lo=20, hi=200}
		node "b" npu.reshape(%a) -> (%b: uint8[1, 10, 240]) {}
		node "c" npu.reshape(%b) -> (%c: uint8[1, 40, 60]) {}
		node "d" npu.gemm(%c, %w) -> (%d: uint8[1, 40, 50]) {rounding="fp32", scales=floats[0.0004], zero_a=100, zero_y=130, lo=0, hi=255}
		output %d`},
	{"fp32", "b", "", `input %x: float32[1, 40, 60]; const %w: float32[1, 60, 50] = random; const %g: float32[50] = random
		node "a" npu.gemm(%x, %w) -> (%a: float32[1, 40, 50]) {rounding="none"}
		node "b" npu.rmsnorm(%a, %g) -> (%b: float32[1, 40, 50]) {epsilon=float 1e-6}
		node "c" npu.element(%b, %a) -> (%c: float32[1, 40, 50]) {op="mul"}
		output %c`},
	{"a resized image", "a b", "older", `input %x: int8[1, 7, 9, 64]; const %w1: int8[64, 1, 1, 64] = random; const %w3: int8[64, 3, 3, 64] = random
		node "a" npu.conv(%x, %w1) -> (%a: int8[1, 7, 9, 64]) {` + conv1 + `}
		node "b" npu.resize(%a) -> (%b: int8[1, 14, 18, 64]) {mode="floor", div=floats[2, 2]}
		node "c" npu.conv(%b, %w3) -> (%c: int8[1, 14, 18, 64]) {` + conv3 + `}
		output %c`},
	// What moves elements has its operands in memory.
	{"a transpose", "", "", `input %x: int8[1, 40, 60]
		node "a" npu.clip(%x) -> (%a: int8[1, 40, 60]) {lo=-20, hi=20}
		node "b" npu.transpose(%a) -> (%b: int8[1, 60, 40]) {perm=[0, 2, 1]}
		node "c" npu.reduce(%b) -> (%c: int8[1, 60, 1]) {kind="max"}
		output %c`},
}

const (
	conv1 = `strides=[1, 1], pads=[0, 0, 0, 0], groups=1, rounding="fp32", zero_y=3, lo=-100, hi=120, scales=floats[0.0004], zero_x=-7`
	conv3 = `strides=[1, 1], pads=[1, 1, 1, 1], groups=1, rounding="fp32", zero_y=3, lo=-100, hi=120, scales=floats[0.0002], zero_x=-7`
)

// What fits stays in the scratchpad: it is neither stored nor loaded again, on this core and on one in which nothing fits the
// results are those of the reference, and with all tensors kept they are in memory too.
func TestStays(t *testing.T) {
	for _, tt := range network {
		t.Run(tt.name, func(t *testing.T) {
			text := fill(t, rand.New(rand.NewPCG(1, 2)), strings.ReplaceAll(tt.text, "; ", "\n"))
			checkBut(t, text, tt.but)
			g, err := ir.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			p, err := plan.New(g, targets["default"], plan.Compact)
			if err != nil {
				t.Fatal(err)
			}
			var names []string
			bytesOut := 0
			for _, n := range g.Nodes {
				y := n.Outputs[0]
				if p.Stays[y] {
					names = append(names, n.Name)
					if _, ok := p.Places[y]; ok {
						t.Errorf("%s has a place in memory and stays in the scratchpad", n.Name)
					}
				}
			}
			if got := strings.Join(names, " "); got != tt.stays {
				t.Errorf("in the scratchpad stay %q, want %q", got, tt.stays)
			}
			var stored uint64
			for _, n := range p.Nodes {
				stored += n.Counts.Stored
			}
			for _, o := range g.Outputs {
				bytesOut += o.Bytes()
			}
			if want := uint64(bytesOut); tt.stays != "" && tt.name != "fp32" && stored != want {
				t.Errorf("%d bytes are stored, want the %d of the output", stored, want)
			}
			// All tensors are to be seen: the same stay, and are stored besides.
			kept, err := plan.New(g, targets["default"], plan.Keep)
			if err != nil {
				t.Fatal(err)
			}
			in := make([][]byte, len(g.Inputs))
			for i, x := range g.Inputs {
				in[i] = random(rand.New(rand.NewPCG(3, 4)), x)
			}
			mem := executeAll(t, kept, in)
			if _, err := ref.Run(g, in, func(n *ir.Node, out [][]byte) error {
				y := n.Outputs[0]
				if at := kept.Places[y]; !kept.Inside[y] && !bytes.Equal(mem[at.Binding][at.Offset:][:y.Bytes()], out[0]) {
					t.Errorf("all tensors kept: %s is not in memory as the reference has it", n.Name)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A program's end is the end of what is in the scratchpad, be it for its length or for a node of the host.
func TestStaysWithinPrograms(t *testing.T) {
	text := fill(t, rand.New(rand.NewPCG(1, 2)), strings.ReplaceAll(network[0].text, "; ", "\n"))
	g, err := ir.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	in := random(rand.New(rand.NewPCG(1, 2)), g.Inputs[0])
	want, err := ref.Run(g, [][]byte{in}, nil)
	if err != nil {
		t.Fatal(err)
	}
	one, err := plan.New(g, targets["default"], plan.Compact)
	if err != nil {
		t.Fatal(err)
	}
	n := len(one.Segments[0].Program.Text) / isa.Size
	several := 0
	for most := n; most > n/3; most -= max(n/10, 1) {
		p, err := plan.NewShort(g, targets["default"], plan.Compact, most)
		if err != nil {
			break // an operation by itself is longer
		}
		several = max(several, len(p.Segments))
		if got := execute(t, p, [][]byte{in}); !bytes.Equal(got[0], want[0]) {
			t.Fatalf("%d programs of up to %d instructions: result differs%s", len(p.Segments), most, diff(g.Outputs[0], want[0], got[0]))
		}
	}
	if several < 2 {
		t.Errorf("%d programs at the most", several)
	}
	host, err := ir.Parse(strings.Replace(text, `npu.conv(%a, %w2, %bias2)`, `host.conv(%a, %w2, %bias2)`, 1))
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.New(host, targets["default"], plan.Compact)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, n := range host.Nodes {
		if p.Stays[n.Outputs[0]] {
			names = append(names, n.Name)
		}
	}
	if got := strings.Join(names, " "); got != "d p" {
		t.Errorf("in the scratchpad stay %q, want what is made and read behind the host's node: d p", got)
	}
}

// With few tiles the vector engine begins the sums of one before it waits for those of the one before.
func TestSumsBeginAhead(t *testing.T) {
	text := fill(t, rand.New(rand.NewPCG(1, 2)), `input %x: int8[1, 56, 56, 64]
		const %w: int8[64, 1, 1, 64] = random
		const %bias: int32[64] = random
		node "a" npu.conv(%x, %w, %bias) -> (%a: int8[1, 56, 56, 64]) {`+conv1+`}
		output %a`)
	check(t, text)
	g, err := ir.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.New(g, targets["default"], plan.Compact)
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, l := range strings.Split(isa.Disassemble(p.Segments[0].Program), "\n") {
		if f := strings.Fields(l); len(f) > 0 && (f[0] == "bias" || f[0] == "requant") {
			order = append(order, f[0])
		}
	}
	if len(order) < 6 || strings.Join(order[:4], " ") != "bias bias requant bias" || strings.Join(order[len(order)-2:], " ") != "requant requant" {
		t.Errorf("the vector engine executes %v", order)
	}
}

// TRANSPOSE has the longest dimension last: an image of few channels does not take a cycle for each pixel.
func TestTurnedImage(t *testing.T) {
	const text = `input %x: int8[1, 3, 40, 50]
		node "a" npu.transpose(%x) -> (%a: int8[1, 40, 50, 3]) {perm=[0, 2, 3, 1]}
		output %a`
	check(t, text)
	g, err := ir.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	p, err := plan.New(g, targets["default"], plan.Compact)
	if err != nil {
		t.Fatal(err)
	}
	prog := p.Segments[0].Program
	for i := 0; i < len(prog.Text); i += isa.Size {
		if w := isa.Word(prog.Text[i:]); isa.Opcode(w[0]) == isa.OpShape {
			if n := isa.DecodeShape(&w).N; n != [isa.Dims]uint16{1, 1, 3, 2000} && n != [isa.Dims]uint16{1, 3, 40, 50} {
				t.Errorf("SHAPE of %v, want the channels before the pixels", n)
			}
			return
		}
	}
	t.Error("there is no SHAPE in the program")
}
