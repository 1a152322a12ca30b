// SPDX-License-Identifier: Apache-2.0

package num

import "math"

// Lanes is how many partial sums a reduction has (§6.11).
const Lanes = 16

// Sum is the sum of x in the order of §6.11, +0 if x is empty.
func Sum(x []float32) float32 {
	var s [Lanes]float32
	for i, v := range x {
		s[i%Lanes] = Add32(s[i%Lanes], v)
	}
	return combine(s)
}

// SumSquares is the sum of (x − c)² in the order of §6.11.
func SumSquares(x []float32, c float32) float32 {
	var s [Lanes]float32
	for i, v := range x {
		d := Sub32(v, c)
		s[i%Lanes] = FMA32(d, d, s[i%Lanes])
	}
	return combine(s)
}

func combine(s [Lanes]float32) float32 {
	for n := Lanes / 2; n > 0; n /= 2 {
		for j := range n {
			s[j] = Add32(s[j], s[j+n])
		}
	}
	return s[0]
}

// Max is the largest of x, NaN if one is; −∞ if x is empty (§6.11).
func Max(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		m = Max32(m, v)
	}
	return m
}

// Min is the smallest of x, NaN if one is; +∞ if x is empty (§6.11).
func Min(x []float32) float32 {
	m := float32(math.Inf(1))
	for _, v := range x {
		m = Min32(m, v)
	}
	return m
}

// Mean is Sum(x) divided by the number of elements, of which there is at least one (§6.11).
func Mean(x []float32) float32 { return Div32(Sum(x), FromInt32(int32(len(x)))) }

// Softmax sets y to the softmax of x (§6.14.1); they have the same length, at
// least 1, and may be the same slice.
func Softmax(y, x []float32) {
	m := Max(x)
	for i, v := range x {
		y[i] = Exp(Sub32(v, m))
	}
	r := Div32(1, Sum(y))
	for i := range y {
		y[i] = Mul32(y[i], r)
	}
}

// LayerNorm sets y to x with mean 0 and variance 1, times gain plus bias
// (§6.14.2). All have the same length, at least 1; y may be x.
func LayerNorm(y, x, gain, bias []float32, epsilon float32) {
	mean := Mean(x)
	variance := Div32(SumSquares(x, mean), FromInt32(int32(len(x))))
	r := Rsqrt(Add32(variance, epsilon))
	for i, v := range x {
		y[i] = FMA32(Mul32(Sub32(v, mean), r), gain[i], bias[i])
	}
}

// RMSNorm sets y to x with mean square 1, times gain (§6.14.3). All have the
// same length, at least 1; y may be x.
func RMSNorm(y, x, gain []float32, epsilon float32) {
	r := Rsqrt(Add32(Div32(SumSquares(x, 0), FromInt32(int32(len(x)))), epsilon))
	for i, v := range x {
		y[i] = Mul32(Mul32(v, r), gain[i])
	}
}
