// SPDX-License-Identifier: Apache-2.0

package num

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"math"
	"os"
	"strings"
	"testing"
)

// grid are the operands of testdata/golden.py, in its order; every 8th of them is
// enough for what does not convert to a narrower type.
const gridHigh, gridLen, fewLen = 1 << 19, 6 << 19, 6 << 16

func grid(i int) float32 {
	low := [...]uint32{0x0000, 0x0001, 0x0fff, 0x1000, 0x1001, 0x1fff}
	return math.Float32frombits(uint32(i%gridHigh)<<13 | low[i/gridHigh])
}

// digest hashes n values of size bytes each, little-endian.
func digest(n, size int, value func(i int) uint32) string {
	h := sha256.New()
	buf := make([]byte, 0, 1<<16)
	for i := range n {
		v := value(i)
		for range size {
			buf = append(buf, byte(v))
			v >>= 8
		}
		if len(buf) > 1<<16-8 {
			buf = write(h, buf)
		}
	}
	write(h, buf)
	return hex.EncodeToString(h.Sum(nil))
}

func write(h hash.Hash, b []byte) []byte {
	h.Write(b) // a hash never fails
	return b[:0]
}

// goldens has a row for every line of testdata/golden.txt.
var goldens = map[string]func() string{
	"bf16-fp32": func() string { return widened(1<<16, func(v uint32) float32 { return BF16(v).Float32() }) },
	"fp16-fp32": func() string { return widened(1<<16, func(v uint32) float32 { return FP16(v).Float32() }) },
	"e4m3-fp32": func() string { return widened(1<<8, func(v uint32) float32 { return E4M3(v).Float32() }) },
	"e5m2-fp32": func() string { return widened(1<<8, func(v uint32) float32 { return E5M2(v).Float32() }) },

	"fp32-bf16":              func() string { return unary(2, func(x float32) uint32 { return uint32(ToBF16(x)) }) },
	"fp32-fp16":              func() string { return unary(2, func(x float32) uint32 { return uint32(ToFP16(x)) }) },
	"fp32-e4m3":              func() string { return unary(1, func(x float32) uint32 { return uint32(ToE4M3(x)) }) },
	"fp32-e5m2":              func() string { return unary(1, func(x float32) uint32 { return uint32(ToE5M2(x)) }) },
	"fp32-e4m3-saturating":   func() string { return unary(1, func(x float32) uint32 { return uint32(ToE4M3Sat(x)) }) },
	"fp32-e5m2-saturating":   func() string { return unary(1, func(x float32) uint32 { return uint32(ToE5M2Sat(x)) }) },
	"fp32-int32":             func() string { return unary(4, func(x float32) uint32 { return uint32(ToInt32(x)) }) },
	"fp32-int32-toward-zero": func() string { return unary(4, func(x float32) uint32 { return uint32(TruncInt32(x)) }) },
	"fp32-int16":             func() string { return unary(2, func(x float32) uint32 { return uint32(Sat16(ToInt32(x))) }) },
	"fp32-int8":              func() string { return unary(1, func(x float32) uint32 { return uint32(Sat8(ToInt32(x))) }) },
	"fp32-uint8":             func() string { return unary(1, func(x float32) uint32 { return uint32(SatU8(ToInt32(x))) }) },
	"fp32-int4":              func() string { return unary(1, func(x float32) uint32 { return uint32(Sat4(ToInt32(x))) }) },
	"int32-fp32": func() string {
		return few(func(x float32) float32 { return FromInt32(int32(math.Float32bits(x))) })
	},
	"int4-int8": func() string {
		return digest(512, 1, func(i int) uint32 {
			first, second := UnpackInt4(byte(i / 2))
			return uint32([]int8{first, second}[i%2])
		})
	},

	"fp32-add":  func() string { return binary(Add32) },
	"fp32-sub":  func() string { return binary(Sub32) },
	"fp32-mul":  func() string { return binary(Mul32) },
	"fp32-div":  func() string { return binary(Div32) },
	"fp32-sqrt": func() string { return few(Sqrt32) },

	"exp":          func() string { return strided(Exp) },
	"log":          func() string { return strided(Log) },
	"tanh":         func() string { return strided(Tanh) },
	"sigmoid":      func() string { return strided(Sigmoid) },
	"silu":         func() string { return strided(SiLU) },
	"gelu-tanh":    func() string { return strided(GELUTanh) },
	"gelu":         func() string { return strided(GELU) },
	"erf":          func() string { return strided(Erf) },
	"reciprocal":   func() string { return strided(Reciprocal) },
	"rsqrt":        func() string { return strided(Rsqrt) },
	"hard-sigmoid": func() string { return strided(HardSigmoid) },
	"hard-swish":   func() string { return strided(HardSwish) },

	"sum": func() string {
		return rows(func(x []float32) []float32 { return []float32{Sum(x)} })
	},
	"softmax": func() string {
		return rows(func(x []float32) []float32 { Softmax(x, x); return x })
	},
	"layer-norm": func() string {
		gain, bias := noise(100, 1000), noise(101, 1000)
		return rows(func(x []float32) []float32 { LayerNorm(x, x, gain, bias, 1e-5); return x })
	},
	"rms-norm": func() string {
		gain := noise(100, 1000)
		return rows(func(x []float32) []float32 { RMSNorm(x, x, gain, 1e-5); return x })
	},

	"one-rounding":  func() string { return scaled(func(x int32, s Scale) int32 { return int32(s.Multiply(x)) }) },
	"two-roundings": func() string { return scaled(func(x int32, s Scale) int32 { return s.MultiplyTwice(x) }) },
	"fp32-scale": func() string {
		return byReal(1, func(x int32, s float32) uint32 { return uint32(Place(int64(MultiplyFloat(x, s)), -3, -128, 127)) })
	},
	"quantize": func() string {
		return byReal(2, func(x int32, s float32) uint32 { return uint32(Quantize(FromInt32(x), s+1e6, 7, -32768, 32767)) })
	},
	"dequantize": func() string {
		return byReal(4, func(x int32, s float32) uint32 { return math.Float32bits(Dequantize(x>>9, 0, s)) })
	},

	"mx-e4m3": func() string { return scaledElements(MXE4M3) },
	"mx-e5m2": func() string { return scaledElements(MXE5M2) },
	"mx-e3m2": func() string { return scaledElements(MXE3M2) },
	"mx-e2m3": func() string { return scaledElements(MXE2M3) },
	"mx-e2m1": func() string { return scaledElements(MXE2M1) },
	"mx-int8": func() string { return scaledElements(MXInt8) },
}

// scaledElements are the elements of an MX format times all scales.
func scaledElements(f MX) string {
	n := 1 << f.Bits()
	return digest(256*n, 4, func(i int) uint32 { return math.Float32bits(MXValue(uint8(i/n), f.Element(uint8(i%n)))) })
}

// strided takes every 16411th encoding.
func strided(f func(float32) float32) string {
	const step = 16411
	return digest((1<<32-1)/step+1, 4, func(i int) uint32 {
		return math.Float32bits(f(math.Float32frombits(uint32(i * step))))
	})
}

// integers are the operands that golden.py makes of the same seed.
func integers(seed, n int) []int32 {
	list := make([]int32, n)
	for i := range list {
		list[i] = int32(uint64(i+seed<<20) * 0x9e3779b97f4a7c15 >> 32)
	}
	return list
}

func noise(seed, n int) []float32 {
	list := make([]float32, n)
	for i, v := range integers(seed, n) {
		list[i] = float32(v) * 0x1p-28
	}
	return list
}

// rows applies f to rows of several lengths.
func rows(f func([]float32) []float32) string {
	var all []float32
	for seed, n := range []int{1, 2, 7, 16, 17, 64, 100, 1000} {
		all = append(all, f(noise(seed, n))...)
	}
	return digest(len(all), 4, func(i int) uint32 { return math.Float32bits(all[i]) })
}

func scaled(f func(int32, Scale) int32) string {
	const n = 50000
	x, q, s := integers(200, n), integers(201, n), integers(202, n)
	return digest(n, 4, func(i int) uint32 {
		return uint32(f(x[i], Scale{q[i] & math.MaxInt32, uint8(s[i]&0xffff%62 + 1)}))
	})
}

func byReal(size int, f func(int32, float32) uint32) string {
	const n = 50000
	x, s := integers(200, n), noise(203, n)
	return digest(n, size, func(i int) uint32 { return f(x[i], Mul32(Mul32(s[i], s[i]), 1e-4)) })
}

func widened(n int, f func(uint32) float32) string {
	return digest(n, 4, func(i int) uint32 { return math.Float32bits(f(uint32(i))) })
}

func unary(size int, f func(float32) uint32) string {
	return digest(gridLen, size, func(i int) uint32 { return f(grid(i)) })
}

func few(f func(x float32) float32) string {
	return digest(fewLen, 4, func(i int) uint32 { return math.Float32bits(f(grid(8 * i))) })
}

// binary takes each operand with the 1009th before it.
func binary(f func(x, y float32) float32) string {
	return digest(fewLen, 4, func(i int) uint32 {
		return math.Float32bits(f(grid(8*i), grid(8*((i+fewLen-1009)%fewLen))))
	})
}

// TestGolden compares with what numpy and ml_dtypes give (testdata/README.md).
func TestGolden(t *testing.T) {
	f, err := os.Open("testdata/golden.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := 0
	for s := bufio.NewScanner(f); s.Scan(); seen++ {
		name, want, _ := strings.Cut(s.Text(), " ")
		got := goldens[name]
		if got == nil {
			t.Errorf("golden.txt has %q, which nothing computes", name)
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := got(); got != want {
				t.Errorf("SHA-256 %s, want %s", got, want)
			}
		})
	}
	if seen != len(goldens) {
		t.Errorf("golden.txt has %d lines, want %d", seen, len(goldens))
	}
}
