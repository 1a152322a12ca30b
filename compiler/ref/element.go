// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"math"

	"npuemu/compiler/ir"
	"npuemu/core/num"
)

func bit(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

var unaryFloat = map[string]func(float32) float32{
	"move": num.Canon, "neg": func(x float32) float32 { return num.Canon(-x) },
	"abs":   func(x float32) float32 { return num.Canon(math.Float32frombits(math.Float32bits(x) &^ (1 << 31))) },
	"relu":  func(x float32) float32 { return num.Max32(x, 0) },
	"relu6": func(x float32) float32 { return num.Min32(num.Max32(x, 0), 6) },
	"sqrt":  num.Sqrt32, "exp": num.Exp, "log": num.Log, "tanh": num.Tanh, "sigmoid": num.Sigmoid, "silu": num.SiLU,
	"gelu": num.GELU, "gelu_tanh": num.GELUTanh, "erf": num.Erf, "reciprocal": num.Reciprocal, "rsqrt": num.Rsqrt,
	"hardsigmoid": num.HardSigmoid, "hardswish": num.HardSwish,
}

var unaryInt = map[string]func(int32) int32{
	"move": func(x int32) int32 { return x }, "neg": func(x int32) int32 { return -x },
	"abs":  func(x int32) int32 { return max(x, -x)*bit(x != math.MinInt32) + x*bit(x == math.MinInt32) },
	"relu": func(x int32) int32 { return max(x, 0) },
}

var binaryFloat = map[string]func(x, y float32) float32{
	"add": num.Add32, "sub": num.Sub32, "mul": num.Mul32, "div": num.Div32, "min": num.Min32, "max": num.Max32,
	"eq": func(x, y float32) float32 { return float32(bit(x == y)) },
	"ne": func(x, y float32) float32 { return float32(bit(x != y)) },
	"lt": func(x, y float32) float32 { return float32(bit(x < y)) },
	"le": func(x, y float32) float32 { return float32(bit(x <= y)) },
}

var binaryInt = map[string]func(x, y int32) int32{
	"add": func(x, y int32) int32 { return x + y }, "sub": func(x, y int32) int32 { return x - y },
	"mul": func(x, y int32) int32 { return x * y }, "min": func(x, y int32) int32 { return min(x, y) },
	"max": func(x, y int32) int32 { return max(x, y) }, "eq": func(x, y int32) int32 { return bit(x == y) },
	"ne": func(x, y int32) int32 { return bit(x != y) }, "lt": func(x, y int32) int32 { return bit(x < y) },
	"le": func(x, y int32) int32 { return bit(x <= y) }, "and": func(x, y int32) int32 { return x & y },
	"or": func(x, y int32) int32 { return x | y }, "xor": func(x, y int32) int32 { return x ^ y },
	"shl":         func(x, y int32) int32 { return num.ShiftLeft(x, uint32(y)) },
	"shr":         func(x, y int32) int32 { return num.ShiftRight(x, uint32(y)) },
	"shr_logical": func(x, y int32) int32 { return num.ShiftRightLogical(x, uint32(y)) },
	"shr_round":   func(x, y int32) int32 { return num.ShiftRightRound(x, uint32(y)) },
	"mulhigh":     num.MulHigh, "add_sat": num.AddSat, "sub_sat": num.SubSat,
}

// pairs calls f with the positions of x and y for each element of the broadcast result.
func pairs(x, y, out *ir.Tensor, f func(i, xi, yi int)) {
	xi := make([]int, out.Elements())
	walk(out.Shape, broadcast(x.Shape, out.Shape), 0, func(i, at int) { xi[i] = at })
	walk(out.Shape, broadcast(y.Shape, out.Shape), 0, func(i, at int) { f(i, xi[i], at) })
}

func element(n *ir.Node, in [][]byte) []byte {
	x, out, op := n.Inputs[0], n.Outputs[0], n.Attrs.Str("op", "")
	saturate := n.Attrs.Int("wrap", 0) == 0
	count := out.Elements()
	if x.Type.Float() {
		v, res := Floats(x.Type, in[0], x.Elements()), make([]float32, count)
		if len(n.Inputs) == 1 {
			f := unaryFloat[op]
			for i := range res {
				res[i] = f(v[i])
			}
		} else {
			w, f := Floats(x.Type, in[1], n.Inputs[1].Elements()), binaryFloat[op]
			pairs(x, n.Inputs[1], out, func(i, a, b int) { res[i] = f(v[a], w[b]) })
		}
		return putResult(out.Type, nil, res, saturate)
	}
	v, res := Ints(x.Type, in[0], x.Elements()), make([]int64, count)
	if len(n.Inputs) == 1 {
		f := unaryInt[op]
		for i := range res {
			res[i] = int64(f(int32(v[i])))
		}
	} else {
		w, f := Ints(x.Type, in[1], n.Inputs[1].Elements()), binaryInt[op]
		pairs(x, n.Inputs[1], out, func(i, a, b int) { res[i] = int64(f(int32(v[a]), int32(w[b]))) })
	}
	return putResult(out.Type, res, nil, saturate)
}

func cast(n *ir.Node, in [][]byte) []byte {
	x, y := n.Inputs[0], n.Outputs[0]
	saturate := n.Attrs.Int("saturate", 1) != 0
	count := x.Elements()
	if !x.Type.Float() {
		v := Ints(x.Type, in[0], count)
		for i := range v {
			v[i] = int64(int32(v[i]))
		}
		return putResult(y.Type, v, nil, saturate)
	}
	f := Floats(x.Type, in[0], count)
	if y.Type.Float() || n.Attrs.Int("trunc", 0) == 0 {
		return putResult(y.Type, nil, f, saturate)
	}
	v := make([]int64, count)
	for i := range v {
		v[i] = int64(num.TruncInt32(f[i]))
	}
	return putResult(y.Type, v, nil, saturate)
}

func clip(n *ir.Node, in [][]byte) []byte {
	x := n.Inputs[0]
	if x.Type.Float() {
		f, c := Floats(x.Type, in[0], x.Elements()), n.Attrs.Floats("clip")
		for i := range f {
			f[i] = num.Min32(num.Max32(f[i], c[0]), c[1])
		}
		return PutFloats(x.Type, f, true)
	}
	lo, hi := bounds(n)
	v := Ints(x.Type, in[0], x.Elements())
	for i := range v {
		v[i] = min(max(v[i], lo), hi)
	}
	return PutInts(x.Type, v)
}

// bounds are lo and hi, or the range of the output's type.
func bounds(n *ir.Node) (lo, hi int64) {
	lo, hi = n.Outputs[0].Type.Range()
	return int64(n.Attrs.Int("lo", int(lo))), int64(n.Attrs.Int("hi", int(hi)))
}

func quantize(n *ir.Node, in [][]byte) []byte {
	x, y := n.Inputs[0], n.Outputs[0]
	f, out := Floats(x.Type, in[0], x.Elements()), make([]int64, x.Elements())
	lo, hi := bounds(n)
	perAxis(n, x, func(i int, scale float32, zero int) {
		out[i] = int64(num.Quantize(f[i], scale, int32(zero), int32(lo), int32(hi)))
	})
	return PutInts(y.Type, out)
}

func dequantize(n *ir.Node, in [][]byte) []byte {
	x, y := n.Inputs[0], n.Outputs[0]
	v, out := Ints(x.Type, in[0], x.Elements()), make([]float32, x.Elements())
	perAxis(n, x, func(i int, scale float32, zero int) { out[i] = num.Dequantize(int32(v[i]), int32(zero), scale) })
	return PutFloats(y.Type, out, true)
}

// perAxis calls f for each element with its scale and zero point.
func perAxis(n *ir.Node, x *ir.Tensor, f func(i int, scale float32, zero int)) {
	scales, zeros := n.Attrs.Floats("scales"), n.Attrs.Ints("zeros")
	s := make([]int, len(x.Shape))
	if len(scales) > 1 {
		s[n.Attrs.Int("axis", 0)] = 1
	}
	walk(x.Shape, s, 0, func(i, at int) { f(i, scales[at], zeros[at]) })
}

func table(n *ir.Node, in [][]byte) []byte {
	out := make([]byte, len(in[0]))
	for i, b := range in[0] {
		out[i] = in[1][b]
	}
	return out
}

// scaler is the requantization of a node's accumulators, or of a value of npu.requantize.
func scaler(n *ir.Node) func(acc int32, channel int) int64 {
	scales, m, s := n.Attrs.Floats("scales"), n.Attrs.Ints("multipliers"), n.Attrs.Ints("shifts")
	zero := int32(n.Attrs.Int("zero_y", 0))
	rounding := n.Attrs.Str("rounding", "")
	if rounding == "none" {
		return func(acc int32, _ int) int64 { return int64(acc) }
	}
	lo, hi := bounds(n)
	many := len(scales) > 1 || len(m) > 1
	return func(acc int32, c int) int64 {
		if !many {
			c = 0
		}
		var r int64
		if rounding == "fp32" {
			r = int64(num.MultiplyFloat(acc, scales[c]))
		} else {
			r = scaled(acc, m[c], s[c], rounding)
		}
		return int64(num.Place(r, zero, int32(lo), int32(hi)))
	}
}

func scaled(v int32, multiplier, shift int, rounding string) int64 {
	s := num.Scale{Multiplier: int32(multiplier), Shift: uint8(shift)}
	if rounding == "one" {
		return s.Multiply(v)
	}
	return int64(s.MultiplyTwice(v))
}

func requantize(n *ir.Node, in [][]byte) []byte {
	x := n.Inputs[0]
	v, f := Ints(x.Type, in[0], x.Elements()), scaler(n)
	zero := int32(n.Attrs.Int("zero_x", 0))
	channels := 1
	if k := len(x.Shape); k > 0 {
		channels = x.Shape[k-1]
	}
	for i := range v {
		v[i] = f(int32(v[i])-zero, i%channels)
	}
	return PutInts(n.Outputs[0].Type, v)
}

func qadd(n *ir.Node, in [][]byte) []byte {
	x, y, out := n.Inputs[0], n.Inputs[1], n.Outputs[0]
	v, w, res := Ints(x.Type, in[0], x.Elements()), Ints(y.Type, in[1], y.Elements()), make([]int64, out.Elements())
	m, s, z := n.Attrs.Ints("multipliers"), n.Attrs.Ints("shifts"), n.Attrs.Ints("zeros")
	shift, rounding, sub := uint32(n.Attrs.Int("left_shift", 0)), n.Attrs.Str("rounding", ""), n.Attrs.Int("sub", 0) != 0
	lo, hi := bounds(n)
	if rounding == "fp32" {
		f := n.Attrs.Floats("scales")
		q := num.Pair{Float: true, A: f[0], B: f[1], C: f[2], XZero: int32(z[0]), YZero: int32(z[1]), Zero: int32(z[2]), Lo: int32(lo), Hi: int32(hi)}
		op := q.Add
		if sub {
			op = q.Sub
		}
		pairs(x, y, out, func(i, a, b int) { res[i] = int64(op(int32(v[a]), int32(w[b]))) })
		return PutInts(out.Type, res)
	}
	pairs(x, y, out, func(i, a, b int) {
		p := int32(scaled(num.ShiftLeft(int32(v[a])-int32(z[0]), shift), m[0], s[0], rounding))
		q := int32(scaled(num.ShiftLeft(int32(w[b])-int32(z[1]), shift), m[1], s[1], rounding))
		if sub {
			q = -q
		}
		res[i] = int64(num.Place(scaled(p+q, m[2], s[2], rounding), int32(z[2]), int32(lo), int32(hi)))
	})
	return PutInts(out.Type, res)
}

func qmul(n *ir.Node, in [][]byte) []byte {
	x, y, out := n.Inputs[0], n.Inputs[1], n.Outputs[0]
	v, w, res := Ints(x.Type, in[0], x.Elements()), Ints(y.Type, in[1], y.Elements()), make([]int64, out.Elements())
	m, s, z := n.Attrs.Ints("multipliers"), n.Attrs.Ints("shifts"), n.Attrs.Ints("zeros")
	rounding := n.Attrs.Str("rounding", "")
	lo, hi := bounds(n)
	pairs(x, y, out, func(i, a, b int) {
		p := (int32(v[a]) - int32(z[0])) * (int32(w[b]) - int32(z[1]))
		res[i] = int64(num.Place(scaled(p, m[0], s[0], rounding), int32(z[2]), int32(lo), int32(hi)))
	})
	return PutInts(out.Type, res)
}
