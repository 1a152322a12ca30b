// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"math"

	"npuemu/compiler/ir"
)

// rule says what a model's operator is at the device level: it makes nodes and gives the outputs, one for each of
// the node's. Inputs have known types and shapes. What the device has no type for is made all the
// same; Partition gives it to the host.
type rule func(b *builder, n *ir.Node) []*ir.Tensor

func one(t *ir.Tensor) []*ir.Tensor { return []*ir.Tensor{t} }

// unary is a rule of an operator that is one ELEMENT.
func unary(op string) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor { return one(b.op1(op, n.Inputs[0])) }
}

// steps is a rule of an operator with one input that is made of several. Of narrower types than fp32 they are
// computed there, so that the operator rounds once.
func steps(f func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x := n.Inputs[0]
		if !x.Type.Float() || x.Type.Bits() >= 32 {
			return one(f(b, n, x))
		}
		y := f(b, n, b.cast(x, ir.Float32))
		if y.Type == ir.Float32 {
			y = b.cast(y, x.Type)
		}
		return one(y)
	}
}

// binary is a rule of an operator that is one ELEMENT of two operands.
func binary(op string) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x, y := n.Inputs[0], n.Inputs[1]
		if x.Type != y.Type {
			b.fail(fixTypes, y, "the operands are %s and %s", x.Type, y.Type)
		}
		return one(b.op2(op, x, y))
	}
}

// swapped is binary with the operands exchanged: x > y is y < x.
func swapped(op string) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor { return one(b.op2(op, n.Inputs[1], n.Inputs[0])) }
}

// variadic folds any number of operands with a binary operation.
func variadic(op string, mean bool) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		x := n.Inputs[0]
		for _, y := range n.Inputs[1:] {
			x = b.op2(op, x, y)
		}
		if mean {
			x = b.scalar2("div", x, float32(len(n.Inputs)))
		} else if len(n.Inputs) == 1 {
			x = b.op1("move", x)
		}
		return one(x)
	}
}

// round32 rounds to the nearest integer, ties to even. Numbers from 2²³ on are integers, and may not fit int32.
func (b *builder) round(x *ir.Tensor) *ir.Tensor {
	r := b.cast(b.cast(x, ir.Int32), x.Type)
	return b.choose(b.scalar2("lt", b.op1("abs", x), 1<<23), r, x)
}

func (b *builder) floor(x *ir.Tensor) *ir.Tensor {
	r := b.round(x)
	return b.op2("sub", r, b.cast(b.op2("lt", x, r), x.Type))
}

func (b *builder) not(x *ir.Tensor) *ir.Tensor { return b.op2("eq", x, b.ints(ir.Bool, nil, 0)) }

// softplus is log(1 + eˣ) without overflow.
func (b *builder) softplus(x *ir.Tensor) *ir.Tensor {
	e := b.op1("exp", b.op1("neg", b.op1("abs", x)))
	return b.op2("add", b.op1("relu", x), b.op1("log", b.scalar2("add", e, 1)))
}

// negative is f of the numbers below 0 and x of the others, plus scale.
func (b *builder) negative(x, below *ir.Tensor) *ir.Tensor {
	return b.choose(b.scalar2("lt", x, 0), below, x)
}

// expm1 is α·(eˣᐟᵝ − 1) of the numbers below 0, of which alone it is used.
func (b *builder) expm1(x *ir.Tensor, alpha, beta float32) *ir.Tensor {
	v := b.scalar2("min", x, 0)
	if beta != 1 {
		v = b.scalar2("div", v, beta)
	}
	return b.scalar2("mul", b.scalar2("sub", b.op1("exp", v), 1), alpha)
}

// power is x to the y; float32 and narrower.
func (b *builder) power(x, y *ir.Tensor) *ir.Tensor {
	if y.Const() && y.Elements() == 1 && len(y.Shape) <= len(x.Shape) {
		switch numbers(y)[0] {
		case 0.5:
			return b.op1("sqrt", x)
		case 1:
			return b.op1("move", x)
		case 2:
			return b.op2("mul", x, x)
		case 3:
			return b.op2("mul", x, b.op2("mul", x, x))
		case -1:
			return b.op1("reciprocal", x)
		}
	}
	y = b.cast(y, x.Type)
	p := b.op1("exp", b.op2("mul", y, b.op1("log", b.op1("abs", x))))
	whole := b.op2("eq", b.round(y), y)
	half := b.scalar2("mul", y, 0.5)
	odd := b.op2("ne", b.round(half), half)
	signed := b.choose(b.op2("and", whole, odd), b.op1("neg", p), p)
	nan := b.like(x, float32(math.NaN()))
	p = b.choose(b.scalar2("lt", x, 0), b.choose(whole, signed, nan), p)
	return b.choose(b.scalar2("eq", y, 0), b.like(x, 1), p)
}

// sine is sin x: x is reduced to a quarter turn, of which Taylor's series is good to 10⁻⁷.
func (b *builder) sine(x *ir.Tensor, quarter float32) *ir.Tensor {
	k := b.round(b.scalar2("mul", x, 2/math.Pi))
	r := b.op2("sub", x, b.scalar2("mul", k, 1.5703125)) // π/2 in three parts: products with small k are exact
	r = b.op2("sub", r, b.scalar2("mul", k, 4.837512969970703125e-4))
	r = b.op2("sub", r, b.scalar2("mul", k, 7.549789948768648e-8))
	s := b.op2("mul", r, r)
	poly := func(c ...float32) *ir.Tensor {
		p := b.scalar2("mul", s, c[0])
		for _, v := range c[1:] {
			p = b.scalar2("add", p, v)
			if v != c[len(c)-1] {
				p = b.op2("mul", p, s)
			}
		}
		return p
	}
	sin := b.op2("mul", r, poly(-1.9515296e-4, 8.3321609e-3, -1.6666655e-1, 1))
	cos := poly(2.4433157e-5, -1.3887316e-3, 4.1666646e-2, -0.5, 1)
	k = b.scalar2("add", k, quarter)
	q := b.op2("and", b.cast(k, ir.Int32), b.ints(ir.Int32, nil, 3))
	v := b.choose(b.op2("ne", b.op2("and", q, b.ints(ir.Int32, nil, 1)), b.ints(ir.Int32, nil, 0)), cos, sin)
	return b.choose(b.op2("lt", b.ints(ir.Int32, nil, 1), q), b.op1("neg", v), v)
}

// arctan is atan x by its argument's halving and a series.
func (b *builder) arctan(x *ir.Tensor) *ir.Tensor {
	a := b.op1("abs", x)
	big := b.op2("lt", b.like(x, 1), a)
	t := b.choose(big, b.op1("reciprocal", a), a) // 0 … 1
	// atan t = 2 atan(t / (1 + √(1 + t²))), twice: 0 … 0.2
	for range 2 {
		root := b.op1("sqrt", b.scalar2("add", b.op2("mul", t, t), 1))
		t = b.op2("div", t, b.scalar2("add", root, 1))
	}
	s := b.op2("mul", t, t)
	p := b.scalar2("mul", s, 1.0/9)
	for _, c := range []float32{-1.0 / 7, 1.0 / 5, -1.0 / 3} {
		p = b.op2("mul", b.scalar2("add", p, c), s)
	}
	v := b.scalar2("mul", b.op2("mul", t, b.scalar2("add", p, 1)), 4)
	v = b.choose(big, b.op2("sub", b.like(x, math.Pi/2), v), v)
	return b.choose(b.scalar2("lt", x, 0), b.op1("neg", v), v)
}

// logPlus is log(x + √(x² + c)), of which inverse hyperbolic functions are made.
func (b *builder) logPlus(x *ir.Tensor, c float32) *ir.Tensor {
	return b.op1("log", b.op2("add", x, b.op1("sqrt", b.scalar2("add", b.op2("mul", x, x), c))))
}

// arcsin is atan(x / √(1 − x²)), of which 1 gives atan ∞.
func (b *builder) arcsin(x *ir.Tensor) *ir.Tensor {
	c := b.op1("sqrt", b.op2("sub", b.like(x, 1), b.op2("mul", x, x)))
	return b.arctan(b.op2("div", x, c))
}

func ruleClip(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	lo, hi := n.Input(1), n.Input(2)
	if x.Type.Float() && (lo == nil || lo.Const()) && (hi == nil || hi.Const()) {
		l, h := -inf, inf
		if v := b.constFloats(1); len(v) == 1 {
			l = v[0]
		}
		if v := b.constFloats(2); len(v) == 1 {
			h = v[0]
		}
		if l <= h {
			return one(b.clip(x, l, h))
		}
	}
	out := x
	if lo != nil {
		out = b.op2("max", out, b.cast(lo, x.Type))
	}
	if hi != nil {
		out = b.op2("min", out, b.cast(hi, x.Type))
	}
	if out == x {
		out = b.op1("move", x)
	}
	return one(out)
}

func ruleCast(to func(n *ir.Node) (ir.Type, bool)) rule {
	return func(b *builder, n *ir.Node) []*ir.Tensor {
		typ, ok := to(n)
		if !ok {
			b.fail(replaceNode, nil, "element type %d of ONNX is not supported", n.Attrs.Int("to", 0))
		}
		return one(b.convert(n.Inputs[0], typ, n.Attrs.Int("saturate", 1) != 0))
	}
}

// convert is ONNX's Cast: what is not 0 becomes true, fractions are dropped, integers wrap.
func (b *builder) convert(x *ir.Tensor, typ ir.Type, saturate bool) *ir.Tensor {
	switch {
	case x.Type == typ:
		return b.reshapeCopy(x)
	case typ == ir.Bool:
		return b.op2("ne", x, b.like(x, 0))
	case x.Type == ir.Bool && typ.Bits() == 8 && !typ.Float():
		return b.emit("npu.bitcast", typ, x.Shape, nil, x)
	case (x.Type == ir.Int64 || x.Type == ir.Uint64) && typ.Integer() && typ.Bits() <= 32:
		return b.convert(b.half(x, 0), typ, saturate)
	case x.Type == ir.Int64 && !x.Const() && (typ == ir.Float32 || typ == ir.Float16):
		return b.cast(b.rounded(x), typ) // what fp16 has is exact in fp32
	case typ == ir.Int64 && x.Type.Computes() && !x.Type.Float():
		return b.toInt64(b.cast(x, ir.Int32))
	}
	switch {
	case x.Const():
	case x.Type == ir.Uint16:
		return b.convert(b.from16(x), typ, saturate)
	case typ == ir.Uint16 && x.Type.Computes():
		if x.Type.Float() {
			whole := b.emit("npu.cast", ir.Int32, x.Shape, ir.Attrs{"trunc": int64(1)}, x)
			return b.to16(b.emit("npu.clip", ir.Int32, x.Shape, ir.Attrs{"lo": int64(0), "hi": int64(math.MaxUint16)}, whole))
		}
		return b.to16(b.cast(x, ir.Int32))
	}
	attrs := ir.Attrs{}
	if typ.Float() {
		if !saturate {
			attrs["saturate"] = int64(0)
		}
	} else {
		attrs["trunc"] = int64(1)
		if !x.Type.Float() || typ.Bits() < 8 { // as numpy's types of 4 bits do
			attrs["saturate"] = int64(0)
		}
	}
	return b.emit("npu.cast", typ, x.Shape, attrs, x)
}

// reshapeCopy is x as a tensor of its own.
func (b *builder) reshapeCopy(x *ir.Tensor) *ir.Tensor {
	return b.emit("npu.reshape", x.Type, x.Shape, nil, x)
}

func ruleGelu(b *builder, n *ir.Node) []*ir.Tensor {
	if n.Attrs.Str("approximate", "none") == "tanh" {
		return one(b.op1("gelu_tanh", n.Inputs[0]))
	}
	return one(b.op1("gelu", n.Inputs[0]))
}

func ruleHardSigmoid(b *builder, n *ir.Node) []*ir.Tensor {
	x := b.scalar2("mul", n.Inputs[0], n.Attrs.Float("alpha", 0.2))
	return one(b.clip(b.scalar2("add", x, n.Attrs.Float("beta", 0.5)), 0, 1))
}

func ruleDiv(b *builder, n *ir.Node) []*ir.Tensor {
	x, y := n.Inputs[0], n.Inputs[1]
	if x.Type.Float() || x.Type.Bits() > 16 {
		return one(b.op2("div", x, y))
	}
	// Integers of 16 bits: the quotient in fp32 is off by less than its distance to the next integer.
	q := b.op2("div", b.cast(x, ir.Float32), b.cast(y, ir.Float32))
	if x.Type == ir.Uint16 {
		return one(b.to16(b.emit("npu.cast", ir.Int32, q.Shape, ir.Attrs{"trunc": int64(1)}, q)))
	}
	return one(b.emit("npu.cast", x.Type, q.Shape, ir.Attrs{"trunc": int64(1), "saturate": int64(0)}, b.emit("npu.cast", ir.Int32, q.Shape, ir.Attrs{"trunc": int64(1)}, q)))
}

// ruleMod is x − y·floor(x / y), or with fmod the quotient's fraction dropped: exact in fp32 for integers of up
// to 16 bits alone. A rounded quotient of other numbers can be off by 1, and the result by y.
func ruleMod(b *builder, n *ir.Node) []*ir.Tensor {
	x, y := n.Inputs[0], n.Inputs[1]
	fmod := n.Attrs.Int("fmod", 0) != 0
	wide := func(t *ir.Tensor) *ir.Tensor { return b.cast(t, ir.Float32) }
	if x.Type.Float() || x.Type.Bits() > 16 {
		op := "mod"
		if fmod {
			op = "fmod"
		}
		return one(b.op2(op, x, y)) // no ELEMENT: it goes to the host
	}
	fx, fy := wide(x), wide(y)
	q := b.op2("div", fx, fy)
	var whole *ir.Tensor
	if fmod {
		whole = b.cast(b.emit("npu.cast", ir.Int32, q.Shape, ir.Attrs{"trunc": int64(1)}, q), ir.Float32)
	} else {
		whole = b.floor(q)
	}
	return one(b.convert(b.op2("sub", fx, b.op2("mul", whole, fy)), x.Type, true))
}

// rulePow: of integers the squares and cubes of constants are products, others the host's.
func rulePow(b *builder, n *ir.Node) []*ir.Tensor {
	x, y := n.Inputs[0], n.Inputs[1]
	if x.Type.Float() {
		return one(b.power(x, y))
	}
	if y.Const() && y.Elements() == 1 && len(y.Shape) <= len(x.Shape) {
		switch numbers(y)[0] {
		case 1:
			return one(b.reshapeCopy(x))
		case 2:
			return one(b.op2("mul", x, x))
		case 3:
			return one(b.op2("mul", x, b.op2("mul", x, x)))
		}
	}
	typ := x.Type
	if y.Type.Float() {
		x, y = b.cast(x, ir.Float64), b.cast(y, ir.Float64)
	} else {
		y = b.convert(y, typ, true)
	}
	return one(b.convert(b.op2("pow", x, y), typ, true))
}

func ruleWhere(b *builder, n *ir.Node) []*ir.Tensor {
	return one(b.choose(n.Inputs[0], n.Inputs[1], n.Inputs[2]))
}

func ruleBitShift(b *builder, n *ir.Node) []*ir.Tensor {
	if n.Attrs.Str("direction", "") == "LEFT" {
		return one(b.op2("shl", n.Inputs[0], n.Inputs[1]))
	}
	if n.Inputs[0].Type.Signed() {
		return one(b.op2("shr", n.Inputs[0], n.Inputs[1]))
	}
	return one(b.op2("shr_logical", n.Inputs[0], n.Inputs[1]))
}

func ruleIsInf(b *builder, n *ir.Node) []*ir.Tensor {
	x := n.Inputs[0]
	up, down := n.Attrs.Int("detect_positive", 1) != 0, n.Attrs.Int("detect_negative", 1) != 0
	switch {
	case up && down:
		return one(b.scalar2("eq", b.op1("abs", x), inf))
	case up:
		return one(b.scalar2("eq", x, inf))
	case down:
		return one(b.scalar2("eq", x, -inf))
	}
	return one(b.scalar2("lt", b.op1("abs", x), -1))
}

func elementRules() map[string]rule {
	r := map[string]rule{
		"Add": binary("add"), "Sub": binary("sub"), "Mul": binary("mul"), "Div": ruleDiv, "Mod": ruleMod, "Equal": binary("eq"), "Less": binary("lt"),
		"LessOrEqual": binary("le"), "Greater": swapped("lt"), "GreaterOrEqual": swapped("le"), "And": binary("and"), "Or": binary("or"),
		"Xor": binary("xor"), "BitwiseAnd": binary("and"), "BitwiseOr": binary("or"), "BitwiseXor": binary("xor"), "BitShift": ruleBitShift,
		"Max": variadic("max", false), "Min": variadic("min", false), "Sum": variadic("add", false), "Mean": variadic("add", true),
		"Relu": unary("relu"), "Sigmoid": unary("sigmoid"), "Tanh": unary("tanh"), "Exp": unary("exp"), "Log": unary("log"), "Sqrt": unary("sqrt"),
		"Neg": unary("neg"), "Abs": unary("abs"), "Erf": unary("erf"), "Reciprocal": unary("reciprocal"), "HardSwish": unary("hardswish"),
		"Gelu": ruleGelu, "HardSigmoid": ruleHardSigmoid, "Clip": ruleClip, "Where": ruleWhere, "IsInf": ruleIsInf,
		"Pow":      rulePow,
		"Cast":     ruleCast(castTo),
		"CastLike": ruleCast(func(n *ir.Node) (ir.Type, bool) { return n.Inputs[1].Type, true }),
	}
	for name, f := range map[string]func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor{
		"Not":        func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.not(x) },
		"BitwiseNot": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.op2("xor", x, b.ints(x.Type, nil, -1)) },
		"Round":      func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.round(x) },
		"Floor":      func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.floor(x) },
		"Ceil":       func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.op1("neg", b.floor(b.op1("neg", x))) },
		"IsNaN":      func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.op2("ne", x, x) },
		"Softplus":   func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.softplus(x) },
		"Mish": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor {
			return b.op2("mul", x, b.op1("tanh", b.softplus(x)))
		},
		"Softsign": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor {
			return b.op2("div", x, b.scalar2("add", b.op1("abs", x), 1))
		},
		"Sign": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor {
			zero := b.like(x, 0)
			return b.op2("sub", b.cast(b.op2("lt", zero, x), x.Type), b.cast(b.op2("lt", x, zero), x.Type))
		},
		"LeakyRelu": func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor {
			return b.negative(x, b.scalar2("mul", x, n.Attrs.Float("alpha", 0.01)))
		},
		"Elu": func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor {
			return b.negative(x, b.expm1(x, n.Attrs.Float("alpha", 1), 1))
		},
		"Celu": func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor {
			a := n.Attrs.Float("alpha", 1)
			return b.negative(x, b.expm1(x, a, a))
		},
		"Selu": func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor {
			v := b.negative(x, b.expm1(x, n.Attrs.Float("alpha", 1.67326319217681884765625), 1))
			return b.scalar2("mul", v, n.Attrs.Float("gamma", 1.05070102214813232421875))
		},
		"ThresholdedRelu": func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor {
			return b.choose(b.op2("lt", b.like(x, n.Attrs.Float("alpha", 1)), x), x, b.like(x, 0))
		},
		"Shrink": func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor {
			l, bias := n.Attrs.Float("lambd", 0.5), n.Attrs.Float("bias", 0)
			v := b.choose(b.op2("lt", b.like(x, l), x), b.scalar2("sub", x, bias), b.like(x, 0))
			return b.choose(b.scalar2("lt", x, -l), b.scalar2("add", x, bias), v)
		},
		"Swish": func(b *builder, n *ir.Node, x *ir.Tensor) *ir.Tensor {
			alpha := n.Attrs.Float("alpha", 1)
			if alpha == 1 {
				return b.op1("silu", x)
			}
			return b.op2("mul", x, b.op1("sigmoid", b.scalar2("mul", x, alpha)))
		},
		"Sin": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.sine(x, 0) },
		"Cos": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.sine(x, 1) },
		"Tan": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.op2("div", b.sine(x, 0), b.sine(x, 1)) },
		"Sinh": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor {
			return b.scalar2("mul", b.op2("sub", b.op1("exp", x), b.op1("exp", b.op1("neg", x))), 0.5)
		},
		"Cosh": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor {
			return b.scalar2("mul", b.op2("add", b.op1("exp", x), b.op1("exp", b.op1("neg", x))), 0.5)
		},
		"Atan": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.arctan(x) },
		"Asin": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.arcsin(x) },
		"Acos": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor {
			return b.op2("sub", b.like(x, math.Pi/2), b.arcsin(x))
		},
		"Acosh": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor { return b.logPlus(x, -1) },
		"Asinh": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor {
			v := b.logPlus(b.op1("abs", x), 1)
			return b.choose(b.scalar2("lt", x, 0), b.op1("neg", v), v)
		},
		"Atanh": func(b *builder, _ *ir.Node, x *ir.Tensor) *ir.Tensor {
			q := b.op2("div", b.scalar2("add", x, 1), b.op2("sub", b.like(x, 1), x))
			return b.scalar2("mul", b.op1("log", q), 0.5)
		},
	} {
		r[name] = steps(f)
	}
	r["PRelu"] = func(b *builder, n *ir.Node) []*ir.Tensor {
		return one(b.negative(n.Inputs[0], b.op2("mul", n.Inputs[0], n.Inputs[1])))
	}
	return r
}

// castTo is the attribute to of Cast, a code of ONNX.
func castTo(n *ir.Node) (ir.Type, bool) {
	t, ok := elementTypes[n.Attrs.Int("to", 0)]
	return t, ok
}

var elementTypes = map[int]ir.Type{
	1: ir.Float32, 2: ir.Uint8, 3: ir.Int8, 4: ir.Uint16, 5: ir.Int16, 6: ir.Int32, 7: ir.Int64, 9: ir.Bool, 10: ir.Float16,
	11: ir.Float64, 12: ir.Uint32, 13: ir.Uint64, 16: ir.BFloat16, 17: ir.Float8E4M3, 19: ir.Float8E5M2, 21: ir.Uint4, 22: ir.Int4,
}
