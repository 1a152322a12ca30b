// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
)

// transposed does what i says to a copy of spad, byte by byte.
func transposed(spad []byte, s isa.Shape, i isa.Transpose) []byte {
	want := bytes.Clone(spad)
	n := s.N
	for i0 := range int(n[0]) {
		for i1 := range int(n[1]) {
			for i2 := range int(n[2]) {
				for i3 := range int(n[3]) {
					from, to := int(i.X), int(i.Out)
					for d, k := range [4]int{i0, i1, i2, i3} {
						from, to = from+k*int(i.XStride[d]), to+k*int(s.OutStride[d])
					}
					copy(want[to:][:i.Size], spad[from:][:i.Size])
				}
			}
		}
	}
	return want
}

// Random TRANSPOSEs, most of which store some bytes more than once.
func TestTranspose(t *testing.T) {
	rng := rand.New(rand.NewPCG(181, 182))
	ran := 0
	for range 1000 {
		var s isa.Shape
		i := isa.Transpose{Size: uint16(1 + rng.IntN(9)), X: rng.Uint32N(4096), Out: rng.Uint32N(8192)}
		for d := range isa.Dims {
			s.N[d], s.OutStride[d], i.XStride[d] = uint16(1+rng.IntN(5)), rng.Uint32N(200), rng.Uint32N(100)
		}
		if rng.IntN(3) == 0 { // no gaps
			s.OutStride[3], i.XStride[3] = uint32(i.Size), uint32(i.Size)
		}
		l := isa.Limits{SpadSize: uint32(newConfig.SpadSize), Setup: isa.Setup{Shape: s}}
		if i.Check(l) != nil {
			continue
		}
		ran++
		spad := randomBytes(rng, newConfig.SpadSize)
		if !bytes.Equal(runText(t, spad, s, i), transposed(spad, s, i)) {
			a, b := s.Encode(), i.Encode()
			t.Fatalf("scratchpad differs after\n%v\n%v", &a, &b)
		}
	}
	if ran < 200 {
		t.Errorf("only %d instructions", ran)
	}
}

// TRANSPOSEs of a compiler: dense tensors whose dimensions change places, with some bytes behind rows perhaps, and all sizes of
// elements.
func TestTransposeDense(t *testing.T) {
	rng := rand.New(rand.NewPCG(183, 184))
	long, ran := 0, 0
	for ran < 1200 {
		size := [...]int{1, 1, 1, 2, 3, 4, 8, 12}[rng.IntN(8)]
		i := isa.Transpose{Size: uint16(size), X: rng.Uint32N(20), Out: 4096 + rng.Uint32N(20)}
		s := isa.Shape{N: [isa.Dims]uint16{1, 1, 1, 1}}
		bytes4k := 4000 / size
		for d := range isa.Dims {
			n := 1
			switch rng.IntN(3) {
			case 0:
				n = 1 + rng.IntN(min(bytes4k, 20))
			case 1:
				n = 1 + rng.IntN(bytes4k)
			}
			n = max(1, min(n, bytes4k))
			s.N[d] = uint16(n)
			bytes4k /= n
		}
		place := func(strides *[isa.Dims]uint32, repeats bool) {
			step := size
			for _, d := range rng.Perm(isa.Dims) {
				if strides[d] = uint32(step); repeats && rng.IntN(10) == 0 {
					strides[d] = 0
					continue
				}
				if step *= int(s.N[d]); rng.IntN(4) == 0 {
					step += rng.IntN(3)
				}
			}
		}
		place(&s.OutStride, false)
		place(&i.XStride, true)
		l := isa.Limits{SpadSize: uint32(newConfig.SpadSize), Setup: isa.Setup{Shape: s}}
		if i.Check(l) != nil {
			continue
		}
		ran++
		for _, n := range s.N {
			if n > 512 { // more than a block
				long++
			}
		}
		spad := randomBytes(rng, newConfig.SpadSize)
		if !bytes.Equal(runText(t, spad, s, i), transposed(spad, s, i)) {
			a, b := s.Encode(), i.Encode()
			t.Fatalf("scratchpad differs after\n%v\n%v", &a, &b)
		}
	}
	if long < 50 {
		t.Errorf("only %d long dimensions", long)
	}
}

// A granule that is poisoned is clean again when TRANSPOSE has stored all of it, and not before.
func TestTransposePoisonedResult(t *testing.T) {
	shape := isa.Shape{N: [4]uint16{1, 1, 8, 8}, OutStride: [4]uint32{0, 0, 8, 1}}
	transpose := isa.Transpose{Size: 1, Out: 4096, XStride: [4]uint32{0, 0, 1, 8}}
	again := edit(transpose, func(i *isa.Transpose) { i.X, i.Out = 4096, 0 })
	seven := edit(shape, func(i *isa.Shape) { i.N[3] = 7 })
	gaps := edit(shape, func(i *isa.Shape) { i.OutStride[2] = 9 })
	runFaultRows(t, []faultRow{
		{"all of it", isa.Features, 4096, []isa.Instruction{shape, transpose, again}, 0, 0, 0},
		{"but for a column", isa.Features, 4096, []isa.Instruction{seven, transpose, again}, core.StatusPoison, 2, 4096},
		{"but for gaps", isa.Features, 4096, []isa.Instruction{gaps, transpose, again}, core.StatusPoison, 2, 4096},
	})
}

func BenchmarkTranspose(b *testing.B) {
	const h, w = 112, 112
	for _, bb := range []struct {
		name          string
		size, h, w, c int
		back          bool
	}{
		{"planes to pixels of 3 bytes", 1, h, w, 3, false},
		{"pixels of 3 bytes to planes", 1, h, w, 3, true},
		{"planes to pixels of 64 bytes", 1, 28, 28, 64, false},
		{"planes to pixels of 16 words", 4, 28, 28, 16, false},
		{"planes to pixels of 32 halves", 2, 28, 28, 32, false},
	} {
		b.Run(bb.name, func(b *testing.B) {
			cfg := newConfig
			cfg.SpadSize = 1 << 20
			n, total := bb.h*bb.w, bb.h*bb.w*bb.c*bb.size
			s := isa.Shape{N: [4]uint16{1, 1, uint16(bb.c), uint16(n)}, OutStride: [4]uint32{0, 0, uint32(bb.size), uint32(bb.c * bb.size)}}
			i := isa.Transpose{Size: uint16(bb.size), Out: 1 << 19, XStride: [4]uint32{0, 0, uint32(n * bb.size), uint32(bb.size)}}
			if bb.back {
				s.OutStride, i.XStride = i.XStride, s.OutStride
			}
			p := newProgram(0, isa.Text(s, i, isa.Halt{}))
			p.SpadSize = uint32(cfg.SpadSize)
			image, c := p.Image(), newCore(b, cfg)
			b.SetBytes(int64(total))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.Run(b.Context(), image, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
