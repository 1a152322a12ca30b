// SPDX-License-Identifier: Apache-2.0

package ref

import (
	"math"
	"slices"
	"strings"

	"npuemu/compiler/ir"
)

// Wide reports whether the host can run a node of the device level whose types the device lacks:
// integers in 64 bits, floating point in fp64, rounded to the type of the result.
func Wide(n *ir.Node) bool {
	for _, t := range append(slices.Clone(n.Inputs), n.Outputs...) {
		if t == nil {
			return false
		}
	}
	float := n.Inputs[0].Type.Float()
	switch n.Op {
	case "npu.element":
		op := n.Attrs.Str("op", "")
		if len(n.Inputs) == 1 {
			return float && doubleUnary[op] != nil || !float && wideUnary[op] != nil
		}
		if n.Inputs[1].Type != n.Inputs[0].Type {
			return false
		}
		return float && doubleBinary[op] != nil || !float && wideBinary[op] != nil
	case "npu.cast":
		return true
	case "npu.reduce":
		k := n.Inputs[0].Shape
		return len(k) > 0 && k[len(k)-1] > 0
	case "npu.softmax":
		k := n.Inputs[0].Shape
		return float && n.Outputs[0].Type == n.Inputs[0].Type && len(k) > 0 && k[len(k)-1] > 0
	case "npu.gemm":
		return n.Attrs.Str("rounding", "") == "none" && len(n.Inputs) == 2 && n.Inputs[1].Type.Float() == float && !n.Attrs.Has("zero_a") && !n.Attrs.Has("zeros_b")
	case "npu.clip":
		return float
	}
	return false
}

// checkWide checks what Wide does, and the shapes, of a node of the device level or of the host that has the form of its operation.
func checkWide(n *ir.Node) error {
	as := *n
	as.Op = "npu." + strings.TrimPrefix(strings.TrimPrefix(n.Op, "host."), "npu.")
	x, y := n.Inputs[0], n.Outputs[0]
	if !Wide(&as) {
		return n.Errorf("neither the device nor the host runs it for %v to %v", x.Type, y.Type)
	}
	want, ok := x.Shape, true
	switch as.Op {
	case "npu.element":
		if len(n.Inputs) == 2 {
			want, ok = ir.Broadcast(x.Shape, n.Inputs[1].Shape)
		}
	case "npu.reduce":
		want = append(slices.Clone(x.Shape[:len(x.Shape)-1]), 1)
		ok = x.Type.Float() == y.Type.Float() && slices.Contains([]string{"sum", "max", "min", "mean"}, n.Attrs.Str("kind", ""))
	case "npu.clip":
		ok = x.Type == y.Type && n.Attrs.Has("clip")
	case "npu.gemm":
		a, b := x.Shape, n.Inputs[1].Shape
		if len(a) != 3 || len(b) != 3 {
			return n.Errorf("a and b have 3 axes, not %d and %d", len(a), len(b))
		}
		a, b = slices.Clone(a), slices.Clone(b)
		if n.Attrs.Int("trans_a", 0) != 0 {
			a[1], a[2] = a[2], a[1]
		}
		if n.Attrs.Int("trans_b", 0) != 0 {
			b[1], b[2] = b[2], b[1]
		}
		groups := max(a[0], b[0])
		if min(a[0], b[0]) == 0 {
			groups = 0
		}
		want = []int{groups, a[1], b[2]}
		ok = x.Type.Float() == y.Type.Float() && a[2] == b[1] && (a[0] == b[0] || a[0] == 1 || b[0] == 1)
	}
	if !ok || !slices.Equal(y.Shape, want) {
		return n.Errorf("its inputs and attributes do not go with the output %v%v", y.Type, y.Shape)
	}
	return nil
}

var wideOps = map[string]func(n *ir.Node, in [][]byte) []byte{
	"element": wideElement, "cast": wideCast, "reduce": wideReduce, "gemm": wideGemm, "clip": wideClip, "softmax": wideSoftmax,
}

// Doubles are the elements of a tensor of any type as fp64.
func Doubles(t ir.Type, data []byte, n int) []float64 {
	out := make([]float64, n)
	switch {
	case t == ir.Float64:
		for i := range out {
			out[i] = math.Float64frombits(le.Uint64(data[8*i:]))
		}
	case t.Float():
		for i, v := range Floats(t, data, n) {
			out[i] = float64(v)
		}
	case t == ir.Uint64:
		for i, v := range Ints(t, data, n) {
			out[i] = float64(uint64(v))
		}
	default:
		for i, v := range Ints(t, data, n) {
			out[i] = float64(v)
		}
	}
	return out
}

func putDoubles(t ir.Type, v []float64, saturate bool) []byte {
	if t == ir.Float64 {
		out := make([]byte, 8*len(v))
		for i, x := range v {
			le.PutUint64(out[8*i:], math.Float64bits(x))
		}
		return out
	}
	f := make([]float32, len(v))
	for i, x := range v {
		f[i] = oddRound(t, x)
	}
	return PutFloats(t, f, saturate)
}

// oddRound is x as fp32, for a narrower type rounded to odd, so that the second rounding gives the result of one.
func oddRound(t ir.Type, x float64) float32 {
	f := float32(x)
	if t == ir.Float32 || float64(f) == x || x != x || math.IsInf(float64(f), 0) {
		return f
	}
	if math.Float32bits(f)&1 == 0 {
		to := float32(math.Inf(1))
		if float64(f) > x {
			to = -to
		}
		f = math.Nextafter32(f, to)
	}
	return f
}

var doubleUnary = map[string]func(float64) float64{
	"move": func(x float64) float64 { return x }, "neg": func(x float64) float64 { return -x }, "abs": math.Abs, "sqrt": math.Sqrt,
	"exp": math.Exp, "log": math.Log, "tanh": math.Tanh, "erf": math.Erf, "reciprocal": func(x float64) float64 { return 1 / x },
	"rsqrt":   func(x float64) float64 { return 1 / math.Sqrt(x) },
	"relu":    func(x float64) float64 { return max(x, 0) },
	"sigmoid": func(x float64) float64 { return 1 / (1 + math.Exp(-x)) },
}

func bit64(b bool) float64 { return float64(bit(b)) }

var doubleBinary = map[string]func(x, y float64) float64{
	"add": func(x, y float64) float64 { return x + y }, "sub": func(x, y float64) float64 { return x - y },
	"mul": func(x, y float64) float64 { return x * y }, "div": func(x, y float64) float64 { return x / y },
	"min": func(x, y float64) float64 { return min(x, y) }, "max": func(x, y float64) float64 { return max(x, y) },
	"eq": func(x, y float64) float64 { return bit64(x == y) }, "ne": func(x, y float64) float64 { return bit64(x != y) },
	"lt": func(x, y float64) float64 { return bit64(x < y) }, "le": func(x, y float64) float64 { return bit64(x <= y) },
	"fmod": math.Mod, "pow": math.Pow,
	"mod": func(x, y float64) float64 {
		m := math.Mod(x, y)
		if m != 0 && (m < 0) != (y < 0) {
			return m + y
		}
		return math.Copysign(m, ifZero(m, y))
	},
}

// ifZero is what has the sign of a remainder: the divisor of 0, otherwise itself.
func ifZero(m, y float64) float64 {
	if m == 0 {
		return y
	}
	return m
}

var wideUnary = map[string]func(int64) int64{
	"move": func(x int64) int64 { return x }, "neg": func(x int64) int64 { return -x }, "abs": func(x int64) int64 { return max(x, -x) },
	"relu": func(x int64) int64 { return max(x, 0) },
}

func bitInt(b bool) int64 { return int64(bit(b)) }

var wideBinary = map[string]func(x, y int64) int64{
	"add": func(x, y int64) int64 { return x + y }, "sub": func(x, y int64) int64 { return x - y }, "mul": func(x, y int64) int64 { return x * y },
	"min": func(x, y int64) int64 { return min(x, y) }, "max": func(x, y int64) int64 { return max(x, y) },
	"eq": func(x, y int64) int64 { return bitInt(x == y) }, "ne": func(x, y int64) int64 { return bitInt(x != y) },
	"lt": func(x, y int64) int64 { return bitInt(x < y) }, "le": func(x, y int64) int64 { return bitInt(x <= y) },
	"and": func(x, y int64) int64 { return x & y }, "or": func(x, y int64) int64 { return x | y }, "xor": func(x, y int64) int64 { return x ^ y },
	"shl": func(x, y int64) int64 { return x << uint64(y) }, "shr": func(x, y int64) int64 { return x >> uint64(y) }, "shr_logical": func(x, y int64) int64 { return int64(uint64(x) >> uint64(y)) },
	// A division by 0 gives 0; ONNX leaves it open.
	"div": func(x, y int64) int64 {
		if y == 0 {
			return 0
		}
		return x / y
	},
	"fmod": func(x, y int64) int64 {
		if y == 0 {
			return 0
		}
		return x % y
	},
	// Of an exponent below 0 the result is 1, −1 or 0, as a division that drops the fraction gives it.
	"pow": func(x, y int64) int64 {
		switch {
		case y < 0 && x == -1:
			y = y & 1
		case y < 0 && x != 1:
			return 0
		}
		p := int64(1)
		for ; y > 0; y >>= 1 {
			if y&1 != 0 {
				p *= x
			}
			x *= x
		}
		return p
	},
	"mod": func(x, y int64) int64 {
		if y == 0 {
			return 0
		}
		if m := x % y; m != 0 && (m < 0) != (y < 0) {
			return m + y
		} else {
			return m
		}
	},
}

// unsigned are the operations that differ from wideBinary's for numbers of 64 bits without a sign.
var unsigned = map[string]func(x, y uint64) uint64{
	"min": func(x, y uint64) uint64 { return min(x, y) }, "max": func(x, y uint64) uint64 { return max(x, y) },
	"lt": func(x, y uint64) uint64 { return uint64(bit(x < y)) }, "le": func(x, y uint64) uint64 { return uint64(bit(x <= y)) },
	"shr": func(x, y uint64) uint64 { return x >> y },
	"div": func(x, y uint64) uint64 {
		if y == 0 {
			return 0
		}
		return x / y
	},
	"mod": remainder, "fmod": remainder,
}

func remainder(x, y uint64) uint64 {
	if y == 0 {
		return 0
	}
	return x % y
}

// wide is the operation of two integers of type t.
func wide(t ir.Type, op string) func(x, y int64) int64 {
	if f := unsigned[op]; t == ir.Uint64 && f != nil {
		return func(x, y int64) int64 { return int64(f(uint64(x), uint64(y))) }
	}
	return wideBinary[op]
}

func wideElement(n *ir.Node, in [][]byte) []byte {
	x, out, op := n.Inputs[0], n.Outputs[0], n.Attrs.Str("op", "")
	count := out.Elements()
	if x.Type.Float() {
		v, res := Doubles(x.Type, in[0], x.Elements()), make([]float64, count)
		if len(n.Inputs) == 1 {
			for i := range res {
				res[i] = doubleUnary[op](v[i])
			}
		} else {
			w := Doubles(x.Type, in[1], n.Inputs[1].Elements())
			pairs(x, n.Inputs[1], out, func(i, a, b int) { res[i] = doubleBinary[op](v[a], w[b]) })
		}
		if out.Type.Float() {
			return putDoubles(out.Type, res, true)
		}
		ints := make([]int64, count)
		for i, r := range res {
			ints[i] = int64(r)
		}
		return PutInts(out.Type, ints)
	}
	v, res := Ints(x.Type, in[0], x.Elements()), make([]int64, count)
	if len(n.Inputs) == 1 {
		for i := range res {
			res[i] = wideUnary[op](v[i])
		}
	} else {
		w, f := Ints(x.Type, in[1], n.Inputs[1].Elements()), wide(x.Type, op)
		pairs(x, n.Inputs[1], out, func(i, a, b int) { res[i] = f(v[a], w[b]) })
	}
	return PutInts(out.Type, res)
}

func wideCast(n *ir.Node, in [][]byte) []byte {
	x, y := n.Inputs[0], n.Outputs[0]
	count := x.Elements()
	saturate := n.Attrs.Int("saturate", 1) != 0
	if y.Type.Float() {
		return putDoubles(y.Type, Doubles(x.Type, in[0], count), saturate)
	}
	lo, hi := y.Type.Range()
	v := make([]int64, count)
	if x.Type.Float() {
		for i, f := range Doubles(x.Type, in[0], count) {
			if n.Attrs.Int("trunc", 0) == 0 {
				f = math.RoundToEven(f)
			}
			switch {
			case f != f:
			case !saturate && math.Abs(f) < 1<<62:
				v[i] = int64(f)
			case f <= float64(lo):
				v[i] = lo
			case f >= float64(hi):
				v[i] = hi
			default:
				v[i] = int64(f)
			}
		}
		return PutInts(y.Type, v)
	}
	v = Ints(x.Type, in[0], count)
	if saturate {
		for i := range v {
			v[i] = min(max(v[i], lo), hi)
		}
	}
	return PutInts(y.Type, v)
}

func wideClip(n *ir.Node, in [][]byte) []byte {
	x, c := n.Inputs[0], n.Attrs.Floats("clip")
	v := Doubles(x.Type, in[0], x.Elements())
	for i := range v {
		v[i] = min(max(v[i], float64(c[0])), float64(c[1]))
	}
	return putDoubles(x.Type, v, true)
}

func wideSoftmax(n *ir.Node, in [][]byte) []byte {
	x := n.Inputs[0]
	size := x.Shape[len(x.Shape)-1]
	v := Doubles(x.Type, in[0], x.Elements())
	for i := 0; i < len(v); i += size {
		row := v[i : i+size]
		top, sum := slices.Max(row), 0.0
		for k := range row {
			row[k] = math.Exp(row[k] - top)
			sum += row[k]
		}
		for k := range row {
			row[k] /= sum
		}
	}
	return putDoubles(x.Type, v, true)
}

func wideReduce(n *ir.Node, in [][]byte) []byte {
	x, y, kind := n.Inputs[0], n.Outputs[0], n.Attrs.Str("kind", "")
	size := x.Shape[len(x.Shape)-1]
	if x.Type.Float() {
		v, out := Doubles(x.Type, in[0], x.Elements()), make([]float64, y.Elements())
		for i := range out {
			row := v[i*size : (i+1)*size]
			out[i] = row[0]
			for _, e := range row[1:] {
				switch kind {
				case "max":
					out[i] = max(out[i], e)
				case "min":
					out[i] = min(out[i], e)
				default:
					out[i] += e
				}
			}
			if kind == "mean" {
				out[i] /= float64(size)
			}
		}
		return putDoubles(y.Type, out, true)
	}
	v, out := Ints(x.Type, in[0], x.Elements()), make([]int64, y.Elements())
	for i := range out {
		row := v[i*size : (i+1)*size]
		switch kind {
		case "max", "min":
			out[i] = row[0]
			for _, e := range row[1:] {
				out[i] = wide(x.Type, kind)(out[i], e)
			}
		default:
			for _, e := range row {
				out[i] += e
			}
			if kind == "mean" {
				out[i] /= int64(size)
			}
		}
	}
	return PutInts(y.Type, out)
}

func wideGemm(n *ir.Node, in [][]byte) []byte {
	a, b, y := n.Inputs[0], n.Inputs[1], n.Outputs[0]
	m, cols := y.Shape[1], y.Shape[2]
	k, ak, am := a.Shape[2], 1, a.Shape[2]
	if n.Attrs.Int("trans_a", 0) != 0 {
		k, ak, am = a.Shape[1], a.Shape[2], 1
	}
	bk, bn := b.Shape[2], 1
	if n.Attrs.Int("trans_b", 0) != 0 {
		bk, bn = 1, b.Shape[2]
	}
	each := func(i int, f func(pa, pb int)) {
		c, r := i%cols, i/cols
		pa, pb := r%m*am, c*bn
		if a.Shape[0] > 1 {
			pa += r / m * a.Shape[1] * a.Shape[2]
		}
		if b.Shape[0] > 1 {
			pb += r / m * b.Shape[1] * b.Shape[2]
		}
		for range k {
			f(pa, pb)
			pa, pb = pa+ak, pb+bk
		}
	}
	if a.Type.Float() {
		v, w, out := Doubles(a.Type, in[0], a.Elements()), Doubles(b.Type, in[1], b.Elements()), make([]float64, y.Elements())
		for i := range out {
			each(i, func(pa, pb int) { out[i] += v[pa] * w[pb] })
		}
		return putDoubles(y.Type, out, true)
	}
	v, w, out := Ints(a.Type, in[0], a.Elements()), Ints(b.Type, in[1], b.Elements()), make([]int64, y.Elements())
	for i := range out {
		each(i, func(pa, pb int) { out[i] += v[pa] * w[pb] })
	}
	return PutInts(y.Type, out)
}
