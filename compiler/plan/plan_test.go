// SPDX-License-Identifier: Apache-2.0

package plan_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/compiler/plan"
	"npuemu/compiler/ref"
	"npuemu/core"
	"npuemu/core/isa"
)

// memory is the bindings of a program; Addr of a binding is its number.
type memory [][]byte

func (m memory) Load(b core.Binding, off uint64, p []byte) error {
	copy(p, m[b.Addr][off:])
	return nil
}

func (m memory) Store(b core.Binding, off uint64, p []byte) error {
	copy(m[b.Addr][off:], p)
	return nil
}

// execute runs the programs of p on a core, and returns the outputs.
func execute(t *testing.T, p *plan.Plan, inputs [][]byte) [][]byte {
	t.Helper()
	return executeAll(t, p, inputs)[plan.FirstIO+len(inputs):]
}

// executeAll is execute; it returns all bindings.
func executeAll(t *testing.T, p *plan.Plan, inputs [][]byte) memory {
	t.Helper()
	c, err := core.New(core.Config{
		Rows: p.Target.Rows, Cols: p.Target.Cols, SpadSize: int(p.Target.SpadSize), AccSize: int(p.Target.AccSize),
		ISAMinor: isa.Minor, Features: isa.Features,
	})
	if err != nil {
		t.Fatal(err)
	}
	mem := memory{append([]byte{}, p.Constants...), make([]byte, p.ArenaSize)}
	for _, b := range inputs {
		mem = append(mem, append([]byte{}, b...))
	}
	for _, o := range p.Graph.Outputs {
		mem = append(mem, bytes.Repeat([]byte{0xa5}, o.Bytes()))
	}
	var table []core.Binding
	for i, b := range mem {
		write := i == plan.Arena || i >= plan.FirstIO+len(inputs)
		table = append(table, core.Binding{Addr: uint64(i), Size: uint64(max(len(b), 1)), Read: true, Write: write})
	}
	for _, s := range p.Segments {
		if s.Program == nil {
			t.Fatalf("node %q is on the host: %s", p.Graph.Nodes[s.Node].Name, p.Nodes[s.Node].Host)
		}
		if _, err := c.Run(t.Context(), s.Program.Image(), table, mem); err != nil {
			t.Fatalf("%v\n%s", err, window(isa.Disassemble(s.Program), err))
		}
	}
	return mem
}

func window(text string, err error) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[:min(len(lines), 60)], "\n") + "\n" + err.Error()
}

// Small has a scratchpad in which nothing fits at once.
var targets = map[string]emit.Target{
	"default": {Rows: 32, Cols: 32, SpadSize: 256 << 10, AccSize: 128 << 10, Minor: isa.Minor, Features: isa.Features},
	"small":   {Rows: 8, Cols: 16, SpadSize: 12 << 10, AccSize: 4 << 10, Minor: isa.Minor, Features: isa.Features},
	"older":   {Rows: 16, Cols: 16, SpadSize: 64 << 10, AccSize: 32 << 10, Minor: 2, Features: isa.Features &^ (isa.FeatureAddq | isa.FeaturePool)},
}

// random fills a tensor: integers with all their values, floating point with numbers around 0 and,
// with special, infinities and NaN.
func random(r *rand.Rand, t *ir.Tensor) []byte {
	n := t.Elements()
	if t.Type == ir.Bool {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.IntN(2))
		}
		return b
	}
	if t.Type.Float() {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64() * 4)
		}
		return ref.PutFloats(t.Type, v, true)
	}
	b := make([]byte, t.Bytes()+8)
	for i := 0; i+8 <= len(b); i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	return b[:t.Bytes()]
}

// check compiles the graph of text, gives it random inputs and compares with the reference, to
// the bit. A constant that is written as "random" is.
func check(t *testing.T, text string) { t.Helper(); checkBut(t, text, "") }

// checkBut is check without a core that lacks an instruction: there the graph is on the host.
func checkBut(t *testing.T, text, without string) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, uint64(len(text))))
	g, err := ir.Parse(fill(t, r, text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if err := g.Verify(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var inputs [][]byte
	for _, in := range g.Inputs {
		inputs = append(inputs, random(r, in))
		for _, n := range g.Nodes {
			if n.Op == "npu.gather" && n.Inputs[1] == in { // indexes of rows that there are, half of them from the end
				rows, v := int64(n.Inputs[0].Shape[n.Attrs.Int("axis", 0)]), ref.Ints(in.Type, inputs[len(inputs)-1], in.Elements())
				for i := range v {
					v[i] %= rows
				}
				inputs[len(inputs)-1] = ref.PutInts(in.Type, v)
			}
		}
	}
	want, err := ref.Run(g, inputs, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, target := range targets {
		p, err := plan.New(g, target, plan.Compact)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if name == without {
			var h string
			for _, n := range p.Nodes {
				h += n.Host
			}
			if !strings.Contains(h, "compile for architecture 1.") {
				t.Errorf("%s: on the host: %q", name, h)
			}
			continue
		}
		got := execute(t, p, inputs)
		for i := range want {
			if !bytes.Equal(want[i], got[i]) {
				o := g.Outputs[i]
				t.Errorf("%s: output %v differs%s\n%s", name, o, diff(o, want[i], got[i]), text)
			}
		}
	}
}

func diff(t *ir.Tensor, want, got []byte) string {
	s := max(t.Type.Bits()/8, 1)
	var b strings.Builder
	for i, n := 0, 0; i < len(want) && n < 5; i += s {
		if !bytes.Equal(want[i:i+s], got[i:i+s]) {
			fmt.Fprintf(&b, "\n  element %d of %d: want % x, got % x", i/s, len(want)/s, want[i:i+s], got[i:i+s])
			n++
		}
	}
	return b.String()
}

// fill gives constants that are written "= random" their content.
func fill(t *testing.T, r *rand.Rand, text string) string {
	t.Helper()
	var out []string
	for _, line := range strings.Split(text, "\n") {
		if def, ok := strings.CutSuffix(strings.TrimSpace(line), " = random"); ok {
			g, err := ir.Parse(strings.Replace(def, "const ", "input ", 1))
			if err != nil {
				t.Fatalf("%v\n%s", err, line)
			}
			c := g.Inputs[0]
			c.Data = random(r, c)
			if strings.Contains(c.Name, "bias") && c.Type == ir.Int32 {
				for i := range c.Elements() {
					binary.LittleEndian.PutUint32(c.Data[4*i:], uint32(int32(r.IntN(20000)-10000)))
				}
			}
			var b strings.Builder
			h := &ir.Graph{Nodes: []*ir.Node{{Name: "n", Op: "o", Inputs: []*ir.Tensor{c}}}}
			_ = h.Print(&b, false)
			line = strings.Split(b.String(), "\n")[1]
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func list(n int, f func(i int) any) string {
	var s []string
	for i := range n {
		s = append(s, fmt.Sprint(f(i)))
	}
	return strings.Join(s, ", ")
}

func TestConv(t *testing.T) {
	type row struct {
		name, x, w, y  string
		n, h, wd, cin  int
		cout, kh, kw   int
		attrs, quant   string
		stride, groups int
		pad            int
	}
	fp32 := func(n int) string {
		return `rounding="fp32", zero_y=3, lo=-128, hi=127, scales=floats[` + list(n, func(i int) any { return 0.0005 * float64(i+1) / float64(n) }) + `]`
	}
	two := `rounding="two", zero_y=-5, lo=-5, hi=120, multipliers=[1518500250], shifts=[42]`
	for _, tt := range []row{
		{name: "3x3", x: "int8", w: "int8", y: "int8", n: 1, h: 14, wd: 14, cin: 8, cout: 24, kh: 3, kw: 3, stride: 1, groups: 1, pad: 1, quant: fp32(24), attrs: "zero_x=4"},
		{name: "3x3 stride 2, batch", x: "int8", w: "int8", y: "int8", n: 2, h: 15, wd: 17, cin: 3, cout: 16, kh: 3, kw: 3, stride: 2, groups: 1, pad: 1, quant: two, attrs: "zero_x=-128"},
		{name: "1x1", x: "int8", w: "int8", y: "int8", n: 1, h: 20, wd: 20, cin: 33, cout: 70, kh: 1, kw: 1, stride: 1, groups: 1, quant: fp32(70), attrs: "zero_x=0"},
		{name: "1x1 of a long sum", x: "int8", w: "int8", y: "int8", n: 1, h: 2, wd: 2, cin: 3000, cout: 20, kh: 1, kw: 1, stride: 1, groups: 1, quant: two, attrs: "zero_x=1"},
		{name: "3x3 of many channels", x: "int8", w: "int8", y: "int8", n: 1, h: 5, wd: 5, cin: 512, cout: 20, kh: 3, kw: 3, stride: 1, groups: 1, pad: 1, quant: two, attrs: "zero_x=1"},
		{name: "depthwise", x: "int8", w: "int8", y: "int8", n: 1, h: 30, wd: 30, cin: 40, cout: 40, kh: 3, kw: 3, stride: 1, groups: 40, pad: 1, quant: fp32(40), attrs: "zero_x=-3"},
		{name: "groups", x: "int8", w: "int8", y: "int8", n: 1, h: 9, wd: 9, cin: 12, cout: 18, kh: 3, kw: 3, stride: 1, groups: 3, pad: 1, quant: fp32(18), attrs: "zero_x=-3"},
		{name: "uint8", x: "uint8", w: "uint8", y: "uint8", n: 1, h: 9, wd: 9, cin: 12, cout: 18, kh: 3, kw: 3, stride: 1, groups: 1, pad: 1, quant: `rounding="fp32", zero_y=130, lo=0, hi=255, scales=floats[0.0004]`, attrs: "zero_x=100, zeros_w=[" + list(18, func(i int) any { return 120 + i }) + "]"},
		{name: "int32", x: "int8", w: "int8", y: "int32", n: 1, h: 9, wd: 9, cin: 12, cout: 18, kh: 2, kw: 3, stride: 1, groups: 1, pad: 0, quant: `rounding="none"`, attrs: "zero_x=7"},
		{name: "fp32", x: "float32", w: "float32", y: "float32", n: 1, h: 9, wd: 9, cin: 12, cout: 18, kh: 3, kw: 3, stride: 1, groups: 1, pad: 1, quant: `rounding="none"`, attrs: `act="relu", clip=floats[0, 6]`},
		{name: "bf16", x: "bfloat16", w: "bfloat16", y: "bfloat16", n: 1, h: 9, wd: 9, cin: 12, cout: 18, kh: 3, kw: 3, stride: 2, groups: 1, pad: 1, quant: `rounding="none"`, attrs: `act="sigmoid"`},
		{name: "wide line", x: "int8", w: "int8", y: "int8", n: 1, h: 3, wd: 700, cin: 16, cout: 8, kh: 1, kw: 5, stride: 1, groups: 1, pad: 2, quant: two, attrs: "zero_x=1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			oh, ow := (tt.h+2*tt.pad-tt.kh)/tt.stride+1, (tt.wd+2*tt.pad-tt.kw)/tt.stride+1
			bias := "int32"
			if strings.Contains(tt.x, "float") {
				bias = "float32"
			}
			check(t, fmt.Sprintf(`
				input %%x: %s[%d, %d, %d, %d]
				const %%w: %s[%d, %d, %d, %d] = random
				const %%bias: %s[%d] = random
				node "c" npu.conv(%%x, %%w, %%bias) -> (%%y: %s[%d, %d, %d, %d]) {strides=[%d, %d], pads=[%d, %d, %d, %d], groups=%d, %s, %s}
				output %%y`, tt.x, tt.n, tt.h, tt.wd, tt.cin, tt.w, tt.cout, tt.kh, tt.kw, tt.cin/tt.groups, bias, tt.cout,
				tt.y, tt.n, oh, ow, tt.cout, tt.stride, tt.stride, tt.pad, tt.pad, tt.pad, tt.pad, tt.groups, tt.quant, tt.attrs))
		})
	}
}

func TestGemm(t *testing.T) {
	for _, tt := range []struct{ name, a, b, y, attrs string }{
		{"fp32", "float32[1, 50, 70]", "float32[1, 70, 90]", "float32[1, 50, 90]", `rounding="none"`},
		{"fp32 of long rows", "float32[1, 5, 3000]", "float32[1, 3000, 30]", "float32[1, 5, 30]", `rounding="none"`},
		{"batches", "float32[4, 9, 17]", "float32[4, 17, 5]", "float32[4, 9, 5]", `rounding="none"`},
		{"batches of a", "float16[4, 9, 17]", "float16[1, 5, 17]", "float32[4, 9, 5]", `rounding="none", trans_b=1`},
		{"batches of b", "bfloat16[1, 9, 17]", "bfloat16[4, 17, 5]", "bfloat16[4, 9, 5]", `rounding="none"`},
		{"int8", "int8[2, 67, 300]", "int8[1, 300, 40]", "int8[2, 67, 40]", `rounding="fp32", scales=floats[0.0003], zero_y=1, lo=-128, hi=127, zero_a=3`},
		{"a prime of rows", "int8[1, 131101, 3]", "int8[1, 5, 3]", "int8[1, 131101, 5]", `rounding="one", multipliers=[1518500250], shifts=[38], lo=-100, hi=100, trans_b=1`},
		{"int16", "int16[1, 6, 30]", "int8[1, 30, 4]", "int32[1, 6, 4]", `rounding="none", zeros_b=[1, 2, 3, -4]`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, fmt.Sprintf(`
				input %%a: %s
				input %%b: %s
				node "g" npu.gemm(%%a, %%b) -> (%%y: %s) {%s}
				output %%y`, tt.a, tt.b, tt.y, tt.attrs))
		})
	}
}

// What takes an instruction that older cores lack.
func TestNewOperations(t *testing.T) {
	for _, tt := range []struct{ name, text string }{
		{"average of many", `input %x: int8[1, 60, 60, 3]; node "n" npu.pool(%x) -> (%z: int8[1, 1, 1, 3]) {kind="avg", kernel=[60, 60], strides=[1, 1], pads=[0, 0, 0, 0]}; output %z`},
		{"average of int16, padding counts", `input %x: int16[2, 9, 9, 30]; node "n" npu.pool(%x) -> (%z: int16[2, 4, 4, 30]) {kind="avg", kernel=[6, 6], strides=[2, 2], pads=[2, 1, 1, 2], count_pad=1, lo=-9000, hi=20000}; output %z`},
		{"nearest, doubled", `input %x: int8[2, 13, 11, 40]; node "n" npu.resize(%x) -> (%z: int8[2, 26, 22, 40]) {mode="floor", div=floats[2, 2]}; output %z`},
		{"nearest, half pixels, smaller", `input %x: float16[1, 40, 31, 17]; node "n" npu.resize(%x) -> (%z: float16[1, 9, 12, 17]) {mode="round_down", half=1, center=1, div=floats[0.225, 0.387]}; output %z`},
		{"nearest above", `input %x: int32[1, 5, 7, 3]; node "n" npu.resize(%x) -> (%z: int32[1, 12, 3, 3]) {mode="ceil", mul=floats[0.4166667, 2.3333333]}; output %z`},
		{"nearest, corners, one pixel", `input %x: bool[1, 5, 1, 3]; node "n" npu.resize(%x) -> (%z: bool[1, 9, 4, 3]) {mode="round_up", mul=floats[0.5, 0]}; output %z`},
		{"linear, corners", `input %x: float32[1, 14, 15, 70]; node "n" npu.resize(%x) -> (%z: float32[1, 28, 31, 70]) {mode="linear", mul=floats[13, 14], div=floats[27, 30]}; output %z`},
		{"linear, half pixels, bf16", `input %x: bfloat16[2, 9, 30, 20]; node "n" npu.resize(%x) -> (%z: bfloat16[2, 31, 7, 20]) {mode="linear", half=1, center=1, div=floats[3.4444444, 0.23333333]}; output %z`},
		{"linear of uint8", `input %x: uint8[1, 9, 30, 3]; node "n" npu.resize(%x) -> (%z: uint8[1, 18, 45, 3]) {mode="linear", half=1, center=1, div=floats[2, 1.5]}; output %z`},
		{"fixed", `input %x: int8[1, 9, 13, 24]; node "n" npu.resize(%x) -> (%z: int8[1, 20, 30, 24]) {mode="fixed", half=1, center=1, steps=[461, 444]}; output %z`},
		{"fixed, int16, smaller", `input %x: int16[1, 33, 40, 5]; node "n" npu.resize(%x) -> (%z: int16[1, 4, 9, 5]) {mode="fixed", steps=[10923, 4992]}; output %z`},
		{"qadd, one rounding", `input %x: int8[90, 70]; input %y: int8[90, 70]; node "n" npu.qadd(%x, %y) -> (%z: int8[90, 70]) {rounding="one", left_shift=20, zeros=[3, -5, 7], multipliers=[1073741824, 1518500250, 1200000000], shifts=[31, 32, 49], lo=-128, hi=127}; output %z`},
		{"qsub of int16", `input %x: int16[90, 7]; input %y: int16[]; node "n" npu.qadd(%x, %y) -> (%z: int16[90, 7]) {sub=1, rounding="two", left_shift=15, zeros=[0, 0, 0], multipliers=[1073741824, 1518500250, 1200000000], shifts=[31, 32, 44], lo=-3000, hi=32767}; output %z`},
		{"qmul of int16", `input %x: int16[90, 7]; input %y: int16[7]; node "n" npu.qmul(%x, %y) -> (%z: int16[90, 7]) {rounding="two", zeros=[0, 0, 0], multipliers=[1073741824], shifts=[45], lo=-32768, hi=32767}; output %z`},
		{"qadd, fp32", `input %x: uint8[1000]; input %y: uint8[1000]; node "n" npu.qadd(%x, %y) -> (%z: uint8[1000]) {rounding="fp32", scales=floats[0.51, 0.3, -17.25], zeros=[0, 0, 0], lo=3, hi=255}; output %z`},
		{"qsub, fp32, twice", `input %x: int8[9, 1000]; input %y: int8[1]; node "n" npu.qadd(%x, %y) -> (%a: int8[9, 1000]) {sub=1, rounding="fp32", scales=floats[0.51, 0.3, 1], zeros=[1, 2, 3], lo=-128, hi=127, chain=1}; node "m" npu.qadd(%a, %x) -> (%z: int8[9, 1000]) {rounding="fp32", scales=floats[1, 0.3, 1], zeros=[0, 0, 0], lo=-128, hi=127, chain=1}; output %z`},
	} {
		t.Run(tt.name, func(t *testing.T) { checkBut(t, strings.ReplaceAll(tt.text, "; ", "\n"), "older") })
	}
}

func TestOperations(t *testing.T) {
	for _, tt := range []struct{ name, text string }{
		{"add", `input %x: float32[3, 50, 7]; input %y: float32[3, 50, 7]; node "n" npu.element(%x, %y) -> (%z: float32[3, 50, 7]) {op="add"}; output %z`},
		{"add, broadcast", `input %x: float32[3, 50, 7]; input %y: float32[50, 1]; node "n" npu.element(%x, %y) -> (%z: float32[3, 50, 7]) {op="add"}; output %z`},
		{"sub, scalar first", `input %x: float32[]; input %y: float32[50, 100]; node "n" npu.element(%x, %y) -> (%z: float32[50, 100]) {op="sub"}; output %z`},
		{"mul, row", `input %x: float16[400, 33]; input %y: float16[33]; node "n" npu.element(%x, %y) -> (%z: float16[400, 33]) {op="mul"}; output %z`},
		{"both broadcast", `input %x: int32[5, 1, 3]; input %y: int32[4, 1]; node "n" npu.element(%x, %y) -> (%z: int32[5, 4, 3]) {op="max"}; output %z`},
		{"x + x", `input %x: int8[1]; node "n" npu.element(%x, %x) -> (%z: int8[1]) {op="add"}; output %z`},
		{"compare", `input %x: float32[1000]; input %y: float32[1000]; node "n" npu.element(%x, %y) -> (%z: bool[1000]) {op="lt"}; output %z`},
		{"scalar", `input %x: float32[]; node "n" npu.element(%x) -> (%z: float32[]) {op="exp"}; output %z`},
		{"many", `input %x: int8[200000]; node "n" npu.element(%x) -> (%z: int32[200000]) {op="neg"}; output %z`},
		{"nothing", `input %x: float32[0, 3]; node "n" npu.element(%x) -> (%z: float32[0, 3]) {op="neg"}; output %z`},
		{"wrap", `input %x: int32[333]; node "n" npu.element(%x) -> (%z: int8[333]) {op="neg", wrap=1}; output %z`},
		{"clip", `input %x: float16[1000]; node "n" npu.clip(%x) -> (%z: float16[1000]) {clip=floats[-1, 2.5]}; output %z`},
		{"clip int8", `input %x: int8[1000]; node "n" npu.clip(%x) -> (%z: int8[1000]) {lo=-3, hi=100}; output %z`},
		{"cast", `input %x: float32[1000]; node "n" npu.cast(%x) -> (%z: int8[1000]) {}; output %z`},
		{"cast, toward zero", `input %x: float32[5000]; node "n" npu.cast(%x) -> (%z: int8[5000]) {trunc=1, saturate=0}; output %z`},
		{"cast, toward zero, of fp16", `input %x: float16[5000]; node "n" npu.cast(%x) -> (%z: int32[5000]) {trunc=1}; output %z`},
		{"select", `input %c: bool[7, 1]; input %x: float32[7, 9]; input %y: float32[9]; node "n" npu.select(%c, %x, %y) -> (%z: float32[7, 9]); output %z`},
		{"select of int64", `input %c: bool[7, 1]; input %x: int64[7, 9]; input %y: int64[9]; node "n" npu.select(%c, %x, %y) -> (%z: int64[7, 9]); output %z`},
		{"select of fp16", `input %c: bool[700]; input %x: float16[700]; input %y: float16[700]; node "n" npu.select(%c, %x, %y) -> (%z: float16[700]); output %z`},
		{"table", `input %x: int8[70000]; const %t: int8[256] = random; node "n" npu.table(%x, %t) -> (%z: int8[70000]); output %z`},
		{"quantize", `input %x: float32[700]; node "n" npu.quantize(%x) -> (%z: int8[700]) {scales=floats[0.03], zeros=[3], lo=-128, hi=127}; output %z`},
		{"quantize uint8, clamped", `input %x: float32[700]; node "n" npu.quantize(%x) -> (%z: uint8[700]) {scales=floats[0.03], zeros=[128], lo=10, hi=200}; output %z`},
		{"quantize by axis", `input %x: float16[5, 3, 20]; node "n" npu.quantize(%x) -> (%z: int16[5, 3, 20]) {scales=floats[0.03, 0.001, 0.5], zeros=[3, 1, -5], axis=1, lo=-32768, hi=32767}; output %z`},
		{"dequantize", `input %x: uint8[70000]; node "n" npu.dequantize(%x) -> (%z: float32[70000]) {scales=floats[0.03], zeros=[130]}; output %z`},
		{"dequantize by axis", `input %x: int8[70, 30]; node "n" npu.dequantize(%x) -> (%z: float16[70, 30]) {scales=floats[` + list(30, func(i int) any { return 0.01 * float64(i+1) }) + `], zeros=[` + list(30, func(i int) any { return i }) + `], axis=1}; output %z`},
		{"requantize", `input %x: int8[7000]; node "n" npu.requantize(%x) -> (%z: int8[7000]) {rounding="two", multipliers=[1518500250], shifts=[31], zero_x=3, zero_y=-7, lo=-128, hi=127}; output %z`},
		{"requantize, channels, uint8", `input %x: int32[700, 3]; node "n" npu.requantize(%x) -> (%z: uint8[700, 3]) {rounding="fp32", scales=floats[1e-7, 2e-8, 3e-8], zero_y=128, lo=3, hi=250}; output %z`},
		{"requantize to int16", `input %x: int32[700, 3]; node "n" npu.requantize(%x) -> (%z: int16[700, 3]) {rounding="fp32", scales=floats[1e-5, 2e-5, 3e-5], zero_y=128}; output %z`},
		{"qadd", `input %x: int8[90, 70]; input %y: int8[90, 70]; node "n" npu.qadd(%x, %y) -> (%z: int8[90, 70]) {rounding="two", left_shift=20, zeros=[3, -5, 7], multipliers=[1073741824, 1518500250, 1200000000], shifts=[31, 32, 49], lo=-128, hi=127}; output %z`},
		{"qsub, uint8", `input %x: uint8[90, 70]; input %y: uint8[1, 70]; node "n" npu.qadd(%x, %y) -> (%z: uint8[90, 70]) {sub=1, rounding="two", left_shift=20, zeros=[3, 5, 127], multipliers=[1073741824, 1518500250, 1200000000], shifts=[31, 34, 49], lo=0, hi=255}; output %z`},
		{"qmul", `input %x: int8[90, 70]; input %y: int8[1, 70]; node "n" npu.qmul(%x, %y) -> (%z: int8[90, 70]) {rounding="two", zeros=[3, -5, 7], multipliers=[1073741824], shifts=[37], lo=-128, hi=127}; output %z`},
		{"max pool", `input %x: int8[2, 13, 13, 20]; node "n" npu.pool(%x) -> (%z: int8[2, 7, 7, 20]) {kind="max", kernel=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]}; output %z`},
		{"max pool, fp32", `input %x: float32[1, 13, 11, 200]; node "n" npu.pool(%x) -> (%z: float32[1, 12, 5, 200]) {kind="max", kernel=[2, 3], strides=[1, 2], pads=[0, 0, 0, 0]}; output %z`},
		{"max pool, dilated", `input %x: uint8[1, 9, 9, 2]; node "n" npu.pool(%x) -> (%z: uint8[1, 7, 7, 2]) {kind="max", kernel=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1], dilations=[2, 2]}; output %z`},
		{"average", `input %x: int8[1, 13, 13, 20]; node "n" npu.pool(%x) -> (%z: int8[1, 7, 7, 20]) {kind="avg", kernel=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]}; output %z`},
		{"average, padding counts", `input %x: uint8[1, 13, 13, 20]; node "n" npu.pool(%x) -> (%z: uint8[1, 7, 7, 20]) {kind="avg", kernel=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_pad=1, lo=10, hi=140}; output %z`},
		{"average of all", `input %x: int8[1, 7, 7, 300]; node "n" npu.pool(%x) -> (%z: int8[1, 1, 1, 300]) {kind="avg", kernel=[7, 7], strides=[1, 1], pads=[0, 0, 0, 0]}; output %z`},
		{"average, fp32", `input %x: float32[1, 7, 7, 30]; node "n" npu.pool(%x) -> (%z: float32[1, 4, 4, 30]) {kind="avg", kernel=[5, 5], strides=[2, 2], pads=[2, 2, 2, 2]}; output %z`},
		{"average, fp16, padding counts", `input %x: float16[1, 7, 7, 30]; node "n" npu.pool(%x) -> (%z: float16[1, 4, 4, 30]) {kind="avg", kernel=[5, 5], strides=[2, 2], pads=[2, 2, 2, 2], count_pad=1}; output %z`},
		{"sum", `input %x: float32[70, 333]; node "n" npu.reduce(%x) -> (%z: float32[70, 1]) {kind="sum"}; output %z`},
		{"mean", `input %x: bfloat16[70, 33]; node "n" npu.reduce(%x) -> (%z: bfloat16[70, 1]) {kind="mean"}; output %z`},
		{"max", `input %x: int8[70, 3]; node "n" npu.reduce(%x) -> (%z: int8[70, 1]) {kind="max"}; output %z`},
		{"softmax", `input %x: float32[12, 100]; node "n" npu.softmax(%x) -> (%z: float32[12, 100]); output %z`},
		{"layernorm", `input %x: float32[12, 100]; const %g: float32[100] = random; const %b: float32[100] = random; node "n" npu.layernorm(%x, %g, %b) -> (%z: float32[12, 100]) {epsilon=float 1e-5}; output %z`},
		{"rmsnorm", `input %x: float16[12, 100]; const %g: float32[100] = random; node "n" npu.rmsnorm(%x, %g) -> (%z: float16[12, 100]) {epsilon=float 1e-5}; output %z`},
		{"transpose", `input %x: float32[5, 6, 7]; node "n" npu.transpose(%x) -> (%z: float32[7, 5, 6]) {perm=[2, 0, 1]}; output %z`},
		{"transpose 4", `input %x: int8[2, 30, 4, 50]; node "n" npu.transpose(%x) -> (%z: int8[50, 4, 30, 2]) {perm=[3, 2, 1, 0]}; output %z`},
		{"transpose of images", `input %x: int8[2, 40, 31, 33]; node "n" npu.transpose(%x) -> (%z: int8[2, 31, 33, 40]) {perm=[0, 2, 3, 1]}; output %z`},
		{"transpose back, 16 bits", `input %x: float16[1, 31, 33, 40]; node "n" npu.transpose(%x) -> (%z: float16[1, 40, 31, 33]) {perm=[0, 3, 1, 2]}; output %z`},
		{"transpose of six axes", `input %x: int64[2, 3, 4, 5, 6, 7]; node "n" npu.transpose(%x) -> (%z: int64[7, 5, 3, 6, 4, 2]) {perm=[5, 3, 1, 4, 2, 0]}; output %z`},
		{"transpose of long rows", `input %x: int8[3, 70001]; node "n" npu.transpose(%x) -> (%z: int8[70001, 3]) {perm=[1, 0]}; output %z`},
		{"reshape", `input %x: int8[2, 30]; node "n" npu.reshape(%x) -> (%z: int8[60]); output %z`},
		{"reshape between", `input %x: int8[2, 30]; node "m" npu.element(%x) -> (%a: int8[2, 30]) {op="neg"}; node "n" npu.reshape(%a) -> (%b: int8[60]); node "o" npu.element(%b) -> (%z: int8[60]) {op="abs"}; output %z`},
		{"concat", `input %x: int8[2, 3, 4]; input %y: int8[2, 5, 4]; node "n" npu.concat(%x, %y, %x) -> (%z: int8[2, 11, 4]) {axis=1}; output %z`},
		{"slice", `input %x: int16[20, 30]; node "n" npu.slice(%x) -> (%z: int16[5, 10]) {starts=[2, 29], steps=[3, -2]}; output %z`},
		{"pad", `input %x: float32[3, 4]; node "n" npu.pad(%x) -> (%z: float32[6, 9]) {pads=[1, 2, 2, 3], value=float 1.5}; output %z`},
		{"pad int64", `input %x: int64[3, 40]; node "n" npu.pad(%x) -> (%z: int64[3, 50]) {pads=[0, 10, 0, 0], zero=-3}; output %z`},
		{"gather", `input %x: float32[3, 10, 4]; const %i: int64[4] = "CQAAAAAAAAAAAAAAAAAAAP//////////AwAAAAAAAAA="; node "n" npu.gather(%x, %i) -> (%z: float32[3, 4, 4]) {axis=1}; output %z`},
		{"gather of neighbours", `input %x: int16[3, 10, 40]; const %i: int32[7] = "BQAAAAYAAAAHAAAA/v////////8AAAAAAAAAAA=="; node "n" npu.gather(%x, %i) -> (%z: int16[3, 7, 40]) {axis=1}; output %z`},
		{"gather, computed", `input %x: float32[30, 5]; input %s: uint8[9]; node "c" npu.cast(%s) -> (%i: int32[9]); const %k: int32[] = "HQAAAA=="; node "m" npu.element(%i, %k) -> (%j: int32[9]) {op="and"}; node "n" npu.gather(%x, %j) -> (%z: float32[9, 5]) {axis=0}; output %z`},
		{"gather, int64", `input %x: int8[3, 40, 7]; input %i: int64[6, 2]; node "n" npu.gather(%x, %i) -> (%z: int8[3, 6, 2, 7]) {axis=1}; output %z`},
		{"gather of a large table", `input %x: float16[3000, 100]; input %s: uint8[200]; node "c" npu.cast(%s) -> (%i: int32[200]); const %k: int32[] = "DAAAAA=="; const %o: int32[] = "yAAAAA=="; node "m" npu.element(%i, %k) -> (%j: int32[200]) {op="mul"}; node "l" npu.element(%j, %o) -> (%q: int32[200]) {op="sub"}; node "n" npu.gather(%x, %q) -> (%z: float16[200, 100]) {axis=0}; output %z`},
		{"gather of long rows", `input %x: float32[20, 3000]; input %i: int32[3]; node "n" npu.gather(%x, %i) -> (%z: float32[3, 3000]) {axis=0}; output %z`},
		{"gather of many", `input %x: int64[700]; input %s: uint8[5000]; node "c" npu.cast(%s) -> (%i: int32[5000]); node "n" npu.gather(%x, %i) -> (%z: int64[5000]) {axis=0}; output %z`},
		{"expand", `input %x: int64[3, 1]; node "n" npu.expand(%x) -> (%z: int64[2, 3, 5]); output %z`},
		{"two outputs of one", `input %x: int8[9]; node "n" npu.element(%x) -> (%z: int8[9]) {op="neg"}; output %z; output %z; output %x`},
	} {
		t.Run(tt.name, func(t *testing.T) { check(t, strings.ReplaceAll(tt.text, "; ", "\n")) })
	}
}

// A model whose program would be too long becomes several, with the same results; a node that is too long by itself is named.
func TestLongPrograms(t *testing.T) {
	var b strings.Builder
	b.WriteString("graph \"g\"\ninput %x0: int8[60, 50]\n")
	for i := range 6 {
		fmt.Fprintf(&b, "node \"n%d\" npu.slice(%%x%d) -> (%%x%d: int8[60, 50]) {starts=[59, 49], steps=[-1, -1]}\n", i, i, i+1)
	}
	b.WriteString("output %x6\noutput %x6\n")
	g, err := ir.Parse(b.String())
	if err != nil {
		t.Fatal(err)
	}
	in := random(rand.New(rand.NewPCG(1, 2)), g.Inputs[0])
	one, err := plan.New(g, targets["default"], plan.Compact)
	if err != nil {
		t.Fatal(err)
	}
	n := len(one.Segments[0].Program.Text) / isa.Size
	several, err := plan.NewShort(g, targets["default"], plan.Compact, n/2)
	if err != nil {
		t.Fatal(err)
	}
	if len(one.Segments) != 1 || len(several.Segments) < 2 {
		t.Errorf("%d programs, and %d of up to %d instructions", len(one.Segments), len(several.Segments), n/2)
	}
	for _, s := range several.Segments {
		if k := len(s.Program.Text) / isa.Size; k > n/2 {
			t.Errorf("a program of %d instructions, more than %d", k, n/2)
		}
	}
	for i, out := range execute(t, several, [][]byte{in}) {
		if !bytes.Equal(out, in) {
			t.Errorf("output %d differs", i)
		}
	}
	if _, err = plan.NewShort(g, targets["default"], plan.Compact, 1000); err == nil || !strings.Contains(err.Error(), `node "n0" (npu.slice): `) || !strings.Contains(err.Error(), "a program has up to 1000 (§5.3); split it") {
		t.Errorf("a node of more than 1000 instructions: %v", err)
	}
}
