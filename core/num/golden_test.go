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
