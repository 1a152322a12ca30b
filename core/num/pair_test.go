// SPDX-License-Identifier: Apache-2.0

package num

import (
	"crypto/sha256"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
)

// The rows of the last table of §6.18, and zero points and clamps.
func TestPair(t *testing.T) {
	half := Scale{1 << 30, 31}
	two := Pair{Left: 20, X: half, Y: half, Out: Scale{1 << 30, 50}, Twice: true, Lo: -128, Hi: 127}
	one := two
	one.Twice = false
	product := Pair{X: half, Y: half, Out: half, Twice: true, Lo: -128, Hi: 127}
	float := Pair{Float: true, A: 0.5, B: 0.5, Lo: -128, Hi: 127}
	term := Pair{Float: true, A: 0.5, C: 1, Lo: -128, Hi: 127}
	zeros := two
	zeros.XZero, zeros.YZero, zeros.Zero, zeros.Lo, zeros.Hi = 10, -10, 5, 0, 9
	for _, tt := range []struct {
		name      string
		got, want int32
	}{
		{"3 + 4", two.Add(3, 4), 4},
		{"-3 + -4", two.Add(-3, -4), -4},
		{"-3 + -4, one rounding", one.Add(-3, -4), -3},
		{"3 - 4", two.Sub(3, 4), -1},
		{"5 · -3", product.Mul(5, -3), -7},
		{"5 + 2 in fp32", float.Add(5, 2), 4},
		{"5 · -3 in fp32", term.Mul(5, -3), -6},
		{"5 - 3 in fp32", float.Sub(5, -2), 4},
		{"zero points", zeros.Add(13, -6), 9},
		{"clamped to hi", zeros.Add(20, 0), 9},
		{"clamped to lo", zeros.Sub(0, 20), 0},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, tt.got, tt.want)
		}
	}
}

// multiplier is a scale as TFLite writes it: 2³⁰ ≤ q < 2³¹, rounded to nearest
// with ties away from 0 (§6.18).
func multiplier(real float64) Scale {
	fraction, exp := math.Frexp(real)
	q := int64(math.Round(fraction * (1 << 31)))
	if q == 1<<31 {
		q, exp = q/2, exp+1
	}
	return Scale{int32(q), uint8(31 - exp)}
}

// pairOf is the arithmetic of an operator of LiteRT or ONNX Runtime, by the table
// of §6.18.
func pairOf(t *testing.T, judge, op, typ string, scale [3]float32, zero [3]int32) Pair {
	t.Helper()
	p := Pair{Lo: map[string]int32{"int8": -128, "uint8": 0, "int16": -32768}[typ], Hi: map[string]int32{"int8": 127, "uint8": 255, "int16": 32767}[typ]}
	x, y, z := float64(scale[0]), float64(scale[1]), float64(scale[2])
	switch judge + " " + op {
	case "litert add", "litert sub":
		p.Twice, p.Left = true, 20
		if typ == "int16" {
			p.Left = 15
		}
		most := 2 * max(x, y)
		p.X, p.Y, p.Out = multiplier(x/most), multiplier(y/most), multiplier(most/(float64(int32(1)<<p.Left)*z))
		p.XZero, p.YZero, p.Zero = zero[0], zero[1], zero[2]
	case "litert mul":
		p.Twice, p.Out = true, multiplier(float64(Mul32(scale[0], scale[1])/scale[2]))
		p.XZero, p.YZero, p.Zero = zero[0], zero[1], zero[2]
	case "onnxruntime add":
		p.Float, p.A, p.B = true, scale[0]/scale[2], scale[1]/scale[2]
		p.C = float32(zero[2]) - FMA32(p.A, float32(zero[0]), Mul32(p.B, float32(zero[1])))
	case "onnxruntime mul":
		p.Float, p.A, p.C = true, Mul32(scale[0], scale[1])/scale[2], float32(zero[2])
		p.XZero, p.YZero = zero[0], zero[1]
	default:
		t.Fatalf("operator %s of %s is not known", op, judge)
	}
	return p
}

// TestPairJudges: sums, differences and products are what LiteRT and ONNX Runtime
// make of them, as pairs.txt has it.
func TestPairJudges(t *testing.T) {
	text, err := os.ReadFile("testdata/pairs.txt")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for line := range strings.Lines(string(text)) {
		var judge, op, typ, digest string
		var bits [3]uint32
		var zero [3]int32
		if _, err := fmt.Sscan(line, &judge, &op, &typ); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(line[len(judge)+len(op)+len(typ)+3:], "%x %d %x %d %x %d %s", &bits[0], &zero[0], &bits[1], &zero[1], &bits[2], &zero[2], &digest); err != nil {
			t.Fatal(err)
		}
		seen[judge+" "+op+" "+typ]++
		p := pairOf(t, judge, op, typ, [3]float32{FromBits(bits[0]), FromBits(bits[1]), FromBits(bits[2])}, zero)
		var z []byte
		for n := range uint32(1 << 16) {
			x, y := int32(n>>8)+p.Lo, int32(n&255)+p.Lo
			if typ == "int16" {
				x, y = int32(int16(n*40503)), int32(int16(n*30011%65521))
			}
			v := map[string]func(x, y int32) int32{"add": p.Add, "sub": p.Sub, "mul": p.Mul}[op](x, y)
			z = append(z, byte(v))
			if typ == "int16" {
				z = append(z, byte(v>>8))
			}
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(z)); got != digest {
			t.Errorf("%s: %s", strings.TrimSpace(line[:len(line)-len(digest)-1]), got)
		}
	}
	if len(seen) != 13 {
		t.Errorf("operators %v, want 13", seen)
	}
}
