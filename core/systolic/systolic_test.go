// SPDX-License-Identifier: Apache-2.0

package systolic

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func TestCheckDim(t *testing.T) {
	for n, ok := range map[int]bool{0: false, 7: false, 8: true, 12: false, 24: true, 256: true, 264: false, -8: false} {
		if err := CheckDim(n); (err == nil) != ok {
			t.Errorf("CheckDim(%d) = %v, want ok %t", n, err, ok)
		}
	}
	if _, err := New(8, 9, 1); err == nil {
		t.Error("New(8, 9, 1) succeeded")
	}
}

// Products worked out by hand: the anchor for Reference.
func TestReference(t *testing.T) {
	b := func(v ...int8) []byte {
		out := make([]byte, len(v))
		for i := range v {
			out[i] = byte(v[i])
		}
		return out
	}
	tests := []struct {
		name     string
		acc      []int32
		ifmap, w []byte
		wStride  int
		s        Shape
		want     []int32
	}{
		{
			name: "stores", acc: []int32{9, 9, 9, 9, 9, 9}, ifmap: b(1, 2, 3, 4), w: b(1, -1, 99, 10, 5), wStride: 3,
			s:    Shape{K: 2, N: 2, MX: 2, MY: 1, StrideX: 2, AccStride: 3},
			want: []int32{21, 9, 9, 43, 17, 9},
		},
		{
			name: "accumulates", acc: []int32{100}, ifmap: b(-128, -128), w: b(-128, 127), wStride: 1,
			s:    Shape{K: 2, N: 1, MX: 1, MY: 1, Accumulate: true},
			want: []int32{100 + 128},
		},
		{
			name: "wraps", acc: []int32{math.MaxInt32}, ifmap: b(1), w: b(1), wStride: 1,
			s:    Shape{K: 1, N: 1, MX: 1, MY: 1, Accumulate: true},
			want: []int32{math.MinInt32},
		},
		{
			name: "rows overlap in two dimensions", acc: make([]int32, 4), ifmap: b(1, 2, 3, 4, 5, 6), w: b(1, 1), wStride: 1,
			s:    Shape{K: 2, N: 1, MX: 2, MY: 2, StrideX: 1, StrideY: 3, AccStride: 1},
			want: []int32{3, 5, 9, 11},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			Reference(tt.acc, tt.ifmap, tt.w, tt.wStride, tt.s)
			if !slices.Equal(tt.acc, tt.want) {
				t.Errorf("acc = %d, want %d", tt.acc, tt.want)
			}
		})
	}
}

// differ runs one random product on a and on Reference. With extreme, operands
// are only −128 and 127, the magnitudes that strain the packing.
func differ(t *testing.T, rng *rand.Rand, a *Array, extreme bool) {
	t.Helper()
	value := func() byte {
		if extreme {
			return byte(0x7f + rng.IntN(2))
		}
		return byte(rng.Uint32())
	}
	// The tile, embedded in zeroes as large as the array: MATMUL may use more
	// of the array than PRELOAD filled.
	tk, tn := 1+rng.IntN(a.rows), 1+rng.IntN(a.cols)
	stride := tn + rng.IntN(3)
	tile := make([]byte, tk*stride)
	full := make([]byte, a.rows*a.cols)
	for k := range tk {
		for n := range tn {
			v := value()
			tile[k*stride+n], full[k*a.cols+n] = v, v
		}
	}
	s := Shape{
		K: 1 + rng.IntN(a.rows), N: 1 + rng.IntN(a.cols), MX: 1 + rng.IntN(4), MY: 1 + rng.IntN(4),
		StrideX: rng.IntN(20), StrideY: rng.IntN(40), Accumulate: rng.IntN(2) == 0,
	}
	s.AccStride = s.N + rng.IntN(3)
	ifmap := make([]byte, (s.MY-1)*s.StrideY+(s.MX-1)*s.StrideX+s.K)
	for i := range ifmap {
		ifmap[i] = value()
	}
	got := make([]int32, s.MX*s.MY*s.AccStride)
	for i := range got {
		got[i] = int32(rng.Uint32())
	}
	want := slices.Clone(got)
	Reference(want, ifmap, full, a.cols, s)
	a.Preload(tile, stride, tk, tn)
	a.MatMul(got, ifmap, s)
	if !slices.Equal(got, want) {
		t.Errorf("array %d×%d, tile %d×%d, %+v: Array and Reference differ", a.rows, a.cols, tk, tn, s)
	}
}

func TestArrayAgainstReference(t *testing.T) {
	for _, dim := range [][2]int{{8, 8}, {32, 32}, {24, 40}, {256, 8}, {8, 256}, {256, 256}} {
		t.Run(fmt.Sprintf("%dx%d", dim[0], dim[1]), func(t *testing.T) {
			a, err := New(dim[0], dim[1], 1)
			if err != nil {
				t.Fatal(err)
			}
			rng := rand.New(rand.NewPCG(1, 2))
			for i := range 60 { // one array for all: Preload must clear the tile before
				differ(t, rng, a, i%2 == 0)
			}
		})
	}
}

func TestReset(t *testing.T) {
	a, err := New(8, 8, 1)
	if err != nil {
		t.Fatal(err)
	}
	a.Preload([]byte{1, 2, 3}, 0, 1, 3)
	a.Reset()
	acc := []int32{1, 2, 3}
	a.MatMul(acc, []byte{1}, Shape{K: 1, N: 3, MX: 1, MY: 1})
	if want := []int32{0, 0, 0}; !slices.Equal(acc, want) {
		t.Errorf("acc = %d, want %d", acc, want)
	}
}

func FuzzArray(f *testing.F) {
	f.Add(uint64(1), uint8(0), uint8(0), true)
	f.Add(uint64(2), uint8(3), uint8(31), false)
	f.Fuzz(func(t *testing.T, seed uint64, rows, cols uint8, extreme bool) {
		a, err := New((int(rows)%32+1)*DimStep, (int(cols)%32+1)*DimStep, 1)
		if err != nil {
			t.Fatal(err)
		}
		differ(t, rand.New(rand.NewPCG(seed, 0)), a, extreme)
	})
}

func BenchmarkMatMul(b *testing.B) {
	const rows = 64
	for _, dim := range []int{8, 32, 256} {
		a, err := New(dim, dim, 1)
		if err != nil {
			b.Fatal(err)
		}
		s := Shape{K: dim, N: dim, MX: rows, MY: 1, StrideX: dim, AccStride: dim, Accumulate: true}
		ifmap, acc, w := make([]byte, rows*dim), make([]int32, rows*dim), make([]byte, dim*dim)
		macs := float64(rows * dim * dim)
		b.Run(fmt.Sprintf("array/%d", dim), func(b *testing.B) {
			for b.Loop() {
				a.MatMul(acc, ifmap, s)
			}
			b.ReportMetric(macs*float64(b.N)/b.Elapsed().Seconds(), "MAC/s")
		})
		b.Run(fmt.Sprintf("reference/%d", dim), func(b *testing.B) {
			for b.Loop() {
				Reference(acc, ifmap, w, dim, s)
			}
			b.ReportMetric(macs*float64(b.N)/b.Elapsed().Seconds(), "MAC/s")
		})
	}
}

// randomProduct is a product that Array.Do must compute as Product.Do does.
func randomProduct(rng *rand.Rand) (p *Product, a, b []byte) {
	d := func(n int) int { return 1 + rng.IntN(n) }
	types := [][2]Type{{Int8, Int8}, {Int8, Int4}, {Int16, Int8}, {Int16, Int4}, {Uint8, Int8}, {Uint8, Uint8}, {Int8, Uint8}, {Uint8, Int4}, {Int16, Uint8}, {FP32, FP32}, {BF16, BF16}, {FP16, E4M3}, {E5M2, FP32}}[rng.IntN(13)]
	p = &Product{
		A: Operand{Type: types[0]}, B: Operand{Type: types[1], Transposed: rng.IntN(2) == 0},
		InH: d(8), InW: d(8), OutH: d(6), OutW: d(6), Groups: d(3), KernelH: d(3), KernelW: d(3),
		StepY: d(2), StepX: d(2), DilationY: d(2), DilationX: d(2), PadTop: rng.IntN(3), PadLeft: rng.IntN(3), Accumulate: rng.IntN(2) == 0,
	}
	p.Cin, p.Cout = p.Groups*d(40), p.Groups*d(20)
	switch rng.IntN(4) {
	case 0, 1: // GEMM
		p.InH, p.OutH, p.Groups, p.KernelH, p.KernelW, p.StepY, p.StepX, p.PadTop, p.PadLeft = 1, 1, 1, 1, 1, 1, 1, 0, 0
		p.InW = d(60)
		p.OutW, p.A.Transposed = p.InW, rng.IntN(2) == 0
	case 2: // depthwise
		p.Cin = d(150)
		p.Groups, p.Cout = p.Cin, p.Cin
	}
	if !types[0].Float() {
		p.A.Zero, p.B.Zero = int32(int8(rng.Uint32())), int32(rng.IntN(2)*rng.IntN(100))
		switch types[0] {
		case Uint8:
			p.A.Zero &= 0xff
		case Int16:
			p.A.Zero = int32(int16(rng.Uint32()))
		}
		if rng.IntN(2) == 0 {
			p.BZeros = randomBytes(rng, p.Cout)
		}
	}
	pixels, row := p.InW, p.Cin
	if p.A.Transposed {
		pixels, row = row, pixels
	}
	p.A.Stride = int(types[0].Bytes(uint64(row))) + rng.IntN(3)*int(types[0].Bytes(1))
	p.Line = pixels*p.A.Stride + rng.IntN(2)*int(types[0].Bytes(1))
	rows, row := p.depth(), p.Cout
	if p.B.Transposed {
		rows, row = row, rows
	}
	p.B.Stride = int(types[1].Bytes(uint64(row))) + rng.IntN(3)*int(types[1].Bytes(1))
	p.AccStride = p.Cout + rng.IntN(3)
	return p, randomBytes(rng, p.InH*p.Line), randomBytes(rng, rows*p.B.Stride)
}

// randomBytes are tame as floats of any type, one in a hundred aside.
func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())&0x8f | 0x30
		if rng.IntN(100) == 0 {
			b[i] = byte(rng.Uint32())
		}
	}
	return b
}

func TestArrayDo(t *testing.T) {
	array, err := New(8, 8, 1)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(9, 10))
	for range 800 {
		p, a, b := randomProduct(rng)
		got := make([]int32, (p.OutH*p.OutW-1)*p.AccStride+p.Cout)
		for i := range got {
			got[i] = int32(rng.Uint32())
		}
		want := slices.Clone(got)
		p.Do(new(Workspace), want, a, b, nil)
		array.Do(p, got, a, b, Options{})
		if !slices.Equal(got, want) {
			t.Errorf("%+v: Array and Product differ", *p)
		}
	}
}

// TestTransposedDot: one product of one channel in each row is no depthwise convolution, whatever the stride of its only row.
func TestTransposedDot(t *testing.T) {
	array, err := New(8, 8, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, stride := range []int{0, 1, 2, 4, 1<<31 - 1} {
		p := &Product{
			A: Operand{Stride: stride, Transposed: true}, B: Operand{Stride: 1}, InH: 1, InW: 4, OutH: 1, OutW: 4,
			Cin: 1, Cout: 1, Groups: 1, KernelH: 1, KernelW: 1, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, AccStride: 1,
		}
		got := make([]int32, 4)
		array.Do(p, got, []byte{1, 2, 3, 4}, []byte{5}, Options{})
		if want := []int32{5, 10, 15, 20}; !slices.Equal(got, want) {
			t.Errorf("stride %d: %v, want %v", stride, got, want)
		}
	}
}

// TestNarrowWeightsTakeLittle: a column of weights is packed like many, which a guest must not make gigabytes of.
func TestNarrowWeightsTakeLittle(t *testing.T) {
	array, err := New(8, 8, 1)
	if err != nil {
		t.Fatal(err)
	}
	const k = 16 << 20
	in := make([]byte, k)
	in[k-1] = 3
	p := &Product{
		A: Operand{Stride: k}, B: Operand{Stride: 1}, InH: 1, InW: 1, OutH: 1, OutW: 1,
		Cin: k, Cout: 1, Groups: 1, KernelH: 1, KernelW: 1, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, AccStride: 1,
	}
	got := make([]int32, 1)
	array.Do(p, got, in, in, Options{})
	if got[0] != 9 {
		t.Errorf("%d, want 9", got[0])
	}
	if n := array.engine.PackedBytes(false, k, 1); n > mostPacked && array.kept[0].K != 0 {
		t.Errorf("weights were packed into %d bytes, want at most %d", n, mostPacked)
	}
}

func BenchmarkDo(b *testing.B) {
	array, err := New(8, 8, 1)
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range []struct {
		name                              string
		size, cin, cout, kernel, step, in int
	}{
		{"gemm 1024", 0, 1024, 1024, 1, 1, 0},
		{"conv1 7x7", 112, 3, 64, 7, 2, 224},
		{"conv2 3x3", 56, 64, 64, 3, 1, 56},
		{"conv2 1x1", 56, 64, 256, 1, 1, 56},
		{"conv4 3x3", 14, 256, 256, 3, 1, 14},
		{"conv5 3x3", 7, 512, 512, 3, 1, 7},
		{"depthwise 32", 112, 32, 32, 3, 1, 112},
		{"depthwise 384", 14, 384, 384, 3, 1, 14},
	} {
		p := &Product{
			InH: s.in, InW: s.in, OutH: s.size, OutW: s.size, Cin: s.cin, Cout: s.cout, Groups: 1, KernelH: s.kernel, KernelW: s.kernel,
			StepY: s.step, StepX: s.step, DilationY: 1, DilationX: 1, PadTop: s.kernel / 2, PadLeft: s.kernel / 2, AccStride: s.cout,
		}
		if strings.HasPrefix(s.name, "depthwise") {
			p.Groups = s.cin
		}
		if s.size == 0 {
			p.InH, p.OutH, p.InW, p.OutW = 1, 1, 1024, 1024
		}
		p.A.Stride, p.B.Stride, p.Line = s.cin, s.cout, p.InW*s.cin
		in, w, acc := make([]byte, p.InH*p.Line), make([]byte, p.depth()*s.cout), make([]int32, p.OutH*p.OutW*s.cout)
		do := func(name string, f func()) {
			b.Run(name+"/"+s.name, func(b *testing.B) {
				for b.Loop() {
					f()
				}
				b.ReportMetric(float64(p.MACs())*float64(b.N)/b.Elapsed().Seconds(), "MAC/s")
			})
		}
		do("array", func() { array.Do(p, acc, in, w, Options{}) })
		if s.size == 14 {
			do("plain", func() { p.Do(new(Workspace), acc, in, w, nil) })
		}
	}
}
