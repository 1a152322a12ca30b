// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
)

// pageProgram returns the program of docs/spec/isa.md behind the line that begins so.
func pageProgram(t *testing.T, line string) *isa.Program {
	t.Helper()
	page, err := os.ReadFile("../docs/spec/isa.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(page), "\n"+line)
	_, text, begins := strings.Cut(text, "\n\n")
	if !ok || !begins {
		t.Fatalf("the page has no line that begins with %q", line)
	}
	var src strings.Builder
	for l := range strings.Lines(text) {
		code, ok := strings.CutPrefix(l, "    ")
		if !ok && strings.TrimSpace(l) != "" {
			break
		}
		src.WriteString(code)
	}
	p, err := isa.Assemble("isa.md", []byte(src.String()))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// runPage runs p on what its two first bindings hold, and returns n bytes of the third.
func runPage(t *testing.T, p *isa.Program, x, y []byte, n int) []byte {
	t.Helper()
	m := &memory{t: t, bufs: [][]byte{x, y, make([]byte, n)}}
	c := newCore(t, core.Config{Rows: 32, Cols: 32, SpadSize: 256 << 10, AccSize: 4096, ISAMinor: isa.Minor, Features: isa.Features})
	if _, err := c.Run(t.Context(), p.Image(), m.bind(), m); err != nil {
		t.Fatal(err)
	}
	return m.bufs[2]
}

// The programs of §5.8.3 with slopes are x·slope below 0 and x elsewhere, to the bit, of infinities, zeros, subnormals and NaN too.
func TestSlopes(t *testing.T) {
	const rows, n = 32, 64
	rng := rand.New(rand.NewPCG(81, 82))
	special := []uint32{0, 1 << 31, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc12345, 1, 0x80000001, 0x80000003, 0x00800000, 0x80800000, 0xff7fffff, 0x7f7fffff, 0xbf800000}
	for _, tt := range []struct {
		line  string
		slope func(i int) float32
	}{
		{"PReLU of 32 rows", func(i int) float32 {
			return []float32{1, 0.01, 0.5, math.SmallestNonzeroFloat32, 0.25, math.Nextafter32(1, 0), 1 - rng.Float32()}[i%7]
		}},
		{"With any slopes.", func(i int) float32 {
			return []float32{0, 1, -1, 2, float32(math.Inf(1)), -0.25, 1e30, float32(rng.NormFloat64())}[i%8]
		}},
	} {
		var x, slopes []byte
		for i := range n {
			slopes = binary.LittleEndian.AppendUint32(slopes, math.Float32bits(tt.slope(i)))
		}
		for i := range rows * n {
			b := rng.Uint32()
			if k := rng.IntN(3 * len(special)); k < len(special) {
				b = special[k]
			} else if i%2 == 0 {
				b = math.Float32bits(float32(rng.NormFloat64()))
			}
			x = binary.LittleEndian.AppendUint32(x, b)
		}
		y := runPage(t, pageProgram(t, tt.line), x, slopes, len(x))
		for i := range rows * n {
			v := math.Float32frombits(binary.LittleEndian.Uint32(x[4*i:]))
			slope := math.Float32frombits(binary.LittleEndian.Uint32(slopes[4*(i%n):]))
			want := v
			if v < 0 {
				want = v * slope
			}
			bits := math.Float32bits(want)
			if want != want {
				bits = 0x7fc00000
			}
			if got := binary.LittleEndian.Uint32(y[4*i:]); got != bits {
				t.Fatalf("%s of %g with slope %g: %#08x, want %#08x", tt.line, v, slope, got, bits)
			}
		}
	}
}

// The program of §5.8.3 with a table of int16 looks up every operand.
func TestTable16(t *testing.T) {
	p := pageProgram(t, "A table of int16")
	var table []byte
	for i := range 1 << 16 { // any function: here one that has no other value twice
		table = binary.LittleEndian.AppendUint16(table, uint16(i*40503+77))
	}
	for from := 0; from < 1<<16; from += 4096 {
		var x []byte
		for i := range 4096 {
			x = binary.LittleEndian.AppendUint16(x, uint16(from+i))
		}
		y := runPage(t, p, x, table, len(x))
		for i := range 4096 {
			if got, want := binary.LittleEndian.Uint16(y[2*i:]), uint16((from+i)*40503+77); got != want {
				t.Fatalf("of %d: %d, want %d", int16(from+i), int16(got), int16(want))
			}
		}
	}
}
