// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"npuemu/core/num"
)

// threads that results must not depend on.
var threadCounts = []int{1, 2, 3, 7}

// each runs f for every tier of this machine and every number of threads: an engine's own, and those of others that join it.
func each(t *testing.T, f func(t *testing.T, e *Engine)) {
	for _, tier := range tiers() {
		for _, n := range threadCounts {
			t.Run(fmt.Sprintf("%s/%d", tier.name, n), func(t *testing.T) {
				e := newEngine(tier, n)
				defer e.Close()
				e.grain = 1 // split small products too
				f(t, e)
			})
			if n == 1 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d join", tier.name, n), func(t *testing.T) {
				e := newEngine(tier, 1)
				e.grain = 1
				e.Share(n)
				var over atomic.Bool
				var helpers sync.WaitGroup
				defer helpers.Wait()
				defer over.Store(true)
				for range n - 1 {
					helpers.Add(1)
					go func() {
						defer helpers.Done()
						own := newEngine(tier, 1)
						for !over.Load() {
							if !own.Join(e) {
								runtime.Gosched()
							}
						}
					}()
				}
				f(t, e)
			})
		}
	}
}

// guarded is a slice of n elements in the middle of a larger one.
type guarded[T comparable] struct {
	all  []T
	fill T
	from int
}

func guard[T comparable](n int, fill T) (guarded[T], []T) {
	const margin = 64
	g := guarded[T]{make([]T, n+2*margin), fill, margin}
	for i := range g.all {
		g.all[i] = fill
	}
	return g, g.all[margin : margin+n : margin+n]
}

// intact reports whether nothing around the slice was written.
func (g guarded[T]) intact() bool {
	for i := range g.from {
		if g.all[i] != g.fill || g.all[len(g.all)-1-i] != g.fill {
			return false
		}
	}
	return true
}

// intCase is one integer product and what plain loops make of it.
type intCase struct {
	m, n, k          int
	w                []byte
	wStride          int
	int4, transposed bool
	p                Int8
	want             []int32
	description      string
}

// value draws an int8: any, or one of the two extremes.
func value(rng *rand.Rand, extreme bool) byte {
	if extreme {
		return byte(0x7f + rng.IntN(2))
	}
	return byte(rng.Uint32())
}

func newIntCase(rng *rand.Rand, m, n, k int) *intCase {
	extreme := rng.IntN(3) == 0
	c := &intCase{m: m, n: n, k: k, wStride: n + rng.IntN(3), int4: rng.IntN(4) == 0, transposed: rng.IntN(4) == 0}
	c.w = make([]byte, k*c.wStride)
	for i := range c.w {
		c.w[i] = value(rng, extreme)
	}
	c.w = c.w[:(k-1)*c.wStride+n]
	c.p = Int8{M: m, AStride: k + rng.IntN(4), CStride: n + rng.IntN(5), Accumulate: rng.IntN(2) == 0}
	if rng.IntN(4) == 0 {
		c.p.AStride = rng.IntN(k + 1) // rows overlap
	}
	c.p.A = make([]byte, (m-1)*c.p.AStride+k)
	for i := range c.p.A {
		c.p.A[i] = value(rng, extreme)
	}
	if rng.IntN(3) == 0 {
		c.p.ZeroA = int32(int8(rng.Uint32()))
	}
	if c.p.Unsigned = rng.IntN(3) == 0; c.p.Unsigned {
		c.p.ZeroA &= 0xff
	}
	switch rng.IntN(4) {
	case 0:
		c.p.ZeroB = []int32{int32(int8(rng.Uint32()))}
	case 1:
		c.p.ZeroB = make([]int32, n)
		for i := range c.p.ZeroB {
			c.p.ZeroB[i] = int32(int8(rng.Uint32()))
		}
	}
	c.p.C = make([]int32, (m-1)*c.p.CStride+n)
	for i := range c.p.C {
		c.p.C[i] = int32(rng.Uint32())
	}
	c.want = slices.Clone(c.p.C)
	c.description = fmt.Sprintf("%d×%d×%d, A stride %d, C stride %d, accumulate %t, zero %d %d, int4 %t, extreme %t",
		m, n, k, c.p.AStride, c.p.CStride, c.p.Accumulate, c.p.ZeroA, c.p.ZeroB, c.int4, extreme)
	for i := range m {
		for j := range n {
			var sum int32
			if c.p.Accumulate {
				sum = c.want[i*c.p.CStride+j]
			}
			var zero int32
			if len(c.p.ZeroB) > 0 {
				zero = c.p.ZeroB[j%len(c.p.ZeroB)]
			}
			for l := range k {
				a := int32(int8(c.p.A[i*c.p.AStride+l]))
				if c.p.Unsigned {
					a &= 0xff
				}
				sum += (a - c.p.ZeroA) * (c.weight(l, j) - zero)
			}
			c.want[i*c.p.CStride+j] = sum
		}
	}
	return c
}

func (c *intCase) weight(k, n int) int32 {
	if !c.int4 {
		return int32(int8(c.w[k*c.wStride+n]))
	}
	nibble := int32(c.w[k*c.wStride+n/2]>>(n%2*4)) & 15
	return nibble - nibble&8*2
}

func (c *intCase) check(t *testing.T, e *Engine, w *Weights) {
	t.Helper()
	switch {
	case c.int4:
		e.PackInt4(w, c.w, c.wStride, c.k, c.n)
	case c.transposed:
		e.PackInt8Transposed(w, transpose(c.w, 1, c.wStride, c.k, c.n), c.k, c.k, c.n, 0)
	default:
		e.PackInt8(w, c.w, c.wStride, c.k, c.n)
	}
	p := c.p
	g, out := guard(len(p.C), int32(0x5a5a5a5a))
	copy(out, p.C)
	p.C = out
	s := newSeen(c.m, c.n)
	p.Done = s.done
	e.MulInt8(w, p)
	s.check(t, c.want, c.p.CStride)
	if !p.Accumulate {
		s := newSeen(c.m, c.n)
		alone := p
		alone.C, alone.Done = nil, s.done
		e.MulInt8(w, alone)
		s.check(t, c.want, c.p.CStride)
	}
	if !g.intact() {
		t.Errorf("%s: wrote around C", c.description)
	}
	if !slices.Equal(out, c.want) { // also between the rows
		t.Errorf("%s: differs at %d of %d", c.description, mismatch(out, c.want), len(out))
	}
}

// transpose returns the n rows of k elements that k rows of n are, stride bytes apart.
func transpose(b []byte, size, stride, k, n int) []byte {
	var t []byte
	for j := range n {
		for i := range k {
			t = append(t, b[i*stride+j*size:][:size]...)
		}
	}
	return t
}

func mismatch[T comparable](a, b []T) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return -1
}

// randomCases is how many random products a test makes.
func randomCases() int {
	if testing.Short() {
		return 12
	}
	return 60
}

func intCases() []*intCase {
	rng := rand.New(rand.NewPCG(1, 2))
	var cases []*intCase
	for _, s := range [][3]int{{1, 1, 1}, {14, 32, 4}, {15, 33, 5}, {28, 64, 1024}, {29, 65, 1027}, {1, 200, 2100}, {600, 1, 3}, {520, 40, 70}, {7, 31, 1025}, {15, 600, 9}} {
		cases = append(cases, newIntCase(rng, s[0], s[1], s[2]))
	}
	for range randomCases() {
		cases = append(cases, newIntCase(rng, 1+rng.IntN(70), 1+rng.IntN(100), 1+rng.IntN(300)))
	}
	return cases
}

func TestMulInt8(t *testing.T) {
	cases := intCases()
	each(t, func(t *testing.T, e *Engine) {
		var w Weights // one for all: packing must leave nothing of what was packed before
		for _, c := range cases {
			c.check(t, e, &w)
		}
	})
}

// Sums beyond 2³¹ wrap, whatever the order and the tier: 300,000 · 2¹⁴ is more than a word holds.
func TestMulInt8Wraps(t *testing.T) {
	const m, n, k = 3, 5, 300_000
	a, b := make([]byte, m*k), make([]byte, k*n)
	for _, v := range [][2]int8{{-128, -128}, {127, -128}, {-128, 127}} {
		for i := range a {
			a[i] = byte(v[0])
		}
		for i := range b {
			b[i] = byte(v[1])
		}
		want := int32(int64(v[0]) * int64(v[1]) * k)
		each(t, func(t *testing.T, e *Engine) {
			var w Weights
			e.PackInt8(&w, b, n, k, n)
			c := make([]int32, m*n)
			e.MulInt8(&w, Int8{A: a, AStride: k, M: m, C: c, CStride: n})
			for i := range c {
				if c[i] != want {
					t.Fatalf("%d × %d summed %d times: %d, want %d", v[0], v[1], k, c[i], want)
				}
			}
		})
	}
}

// floatCase is one product of floats and what chains of fma make of it.
type floatCase struct {
	m, n, k     int
	wType       Type
	w           []byte
	wStride     int
	p           Float
	want        []uint32
	transposed  bool
	description string
}

var floatTypes = []Type{Float32, BFloat16, Float16, E4M3, E5M2}

// floatBytes draws n elements of type t: tame ones of all types, or with wild any bits at all.
func floatBytes(rng *rand.Rand, t Type, n int, wild bool) []byte {
	b := make([]byte, n*t.Size())
	for i := range n {
		switch {
		case wild && t == Float32 && rng.IntN(2) == 0:
			// Mostly exponents that meet: subnormals, cancellation.
			binary.LittleEndian.PutUint32(b[4*i:], rng.Uint32()&0x8fff_ffff|uint32(rng.IntN(2))*0x3000_0000)
		case wild:
			for j := range t.Size() {
				b[i*t.Size()+j] = byte(rng.Uint32())
			}
		case t == Float32:
			binary.LittleEndian.PutUint32(b[4*i:], math.Float32bits(float32(rng.NormFloat64())))
		case t == BFloat16:
			binary.LittleEndian.PutUint16(b[2*i:], uint16(math.Float32bits(float32(rng.NormFloat64()))>>16))
		case t == Float16:
			binary.LittleEndian.PutUint16(b[2*i:], uint16(rng.Uint32()&0x8fff|0x3000))
		case t == E4M3:
			b[i] = byte(rng.Uint32())&0x9f | 0x20
		default:
			b[i] = byte(rng.Uint32())&0x8f | 0x30
		}
	}
	return b
}

func newFloatCase(rng *rand.Rand, m, n, k int) *floatCase {
	wild := rng.IntN(3) == 0
	c := &floatCase{m: m, n: n, k: k, wType: floatTypes[rng.IntN(len(floatTypes))], transposed: rng.IntN(3) == 0}
	c.wStride = n*c.wType.Size() + rng.IntN(3)
	c.p = Float{Type: floatTypes[rng.IntN(len(floatTypes))], M: m, CStride: n + rng.IntN(5), Accumulate: rng.IntN(2) == 0}
	size := c.p.Type.Size()
	c.p.AStride = k*size + rng.IntN(3)
	for i := range k {
		row := append(floatBytes(rng, c.wType, n, wild && i%7 == 0), make([]byte, c.wStride-n*c.wType.Size())...)
		c.w = append(c.w, row...)
	}
	for i := range m {
		row := append(floatBytes(rng, c.p.Type, k, wild && i%3 == 0), make([]byte, c.p.AStride-k*size)...)
		c.p.A = append(c.p.A, row...)
	}
	c.p.C = make([]float32, (m-1)*c.p.CStride+n)
	for i := range c.p.C {
		c.p.C[i] = float32(rng.NormFloat64())
		if wild && i%5 == 0 {
			c.p.C[i] = math.Float32frombits(rng.Uint32())
		}
	}
	c.want = bitsOf(c.p.C)
	c.description = fmt.Sprintf("%d×%d×%d of types %d, %d, C stride %d, accumulate %t, wild %t", m, n, k, c.p.Type, c.wType, c.p.CStride, c.p.Accumulate, wild)
	row := make([]float32, k)
	col := make([]float32, k)
	for j := range n {
		for l := range k {
			widenGo(col[l:l+1], &c.w[l*c.wStride+j*c.wType.Size()], c.wType)
		}
		for i := range m {
			widenGo(row, &c.p.A[i*c.p.AStride], c.p.Type)
			var sum float32
			if c.p.Accumulate {
				sum = c.p.C[i*c.p.CStride+j]
			}
			for l := range k {
				sum = num.FMA32(row[l], col[l], sum)
			}
			c.want[i*c.p.CStride+j] = math.Float32bits(sum)
			if sum != sum {
				c.want[i*c.p.CStride+j] = 0x7fc00000
			}
		}
	}
	return c
}

func bitsOf(f []float32) []uint32 {
	b := make([]uint32, len(f))
	for i := range f {
		b[i] = math.Float32bits(f[i])
	}
	return b
}

func (c *floatCase) check(t *testing.T, e *Engine, w *Weights) {
	t.Helper()
	if size := c.wType.Size(); c.transposed {
		e.PackFloatTransposed(w, c.wType, transpose(c.w, size, c.wStride, c.k, c.n), c.k*size, c.k, c.n)
	} else {
		e.PackFloat(w, c.wType, c.w, c.wStride, c.k, c.n)
	}
	p := c.p
	g, out := guard(len(p.C), float32(-77))
	copy(out, p.C)
	p.C = out
	e.MulFloat(w, p)
	if !g.intact() {
		t.Errorf("%s: wrote around C", c.description)
	}
	if got := bitsOf(out); !slices.Equal(got, c.want) {
		i := mismatch(got, c.want)
		t.Errorf("%s: at %d of %d %#x, want %#x", c.description, i, len(got), got[i], c.want[i])
	}
}

func TestMulFloat(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	var cases []*floatCase
	for _, s := range [][3]int{{1, 1, 1}, {14, 32, 4}, {15, 33, 5}, {28, 64, 256}, {29, 65, 259}, {1, 200, 600}, {520, 1, 3}, {7, 31, 257}, {15, 600, 9}} {
		cases = append(cases, newFloatCase(rng, s[0], s[1], s[2]))
	}
	for range randomCases() {
		cases = append(cases, newFloatCase(rng, 1+rng.IntN(50), 1+rng.IntN(80), 1+rng.IntN(100)))
	}
	each(t, func(t *testing.T, e *Engine) {
		var w Weights
		for _, c := range cases {
			c.check(t, e, &w)
		}
	})
}

func TestNoAllocation(t *testing.T) {
	const m, n, k = 30, 70, 60
	for _, tier := range tiers() {
		for _, threads := range threadCounts {
			t.Run(fmt.Sprintf("%s/%d", tier.name, threads), func(t *testing.T) {
				e := newEngine(tier, threads)
				defer e.Close()
				e.grain = 1
				var w, f Weights
				b := make([]byte, 4*k*n)
				zero := make([]int32, n)
				p := Int8{A: make([]byte, m*k), AStride: k, M: m, C: make([]int32, m*n), CStride: n, ZeroB: zero}
				q := Float{Type: BFloat16, A: make([]byte, 2*m*k), AStride: 2 * k, M: m, C: make([]float32, m*n), CStride: n}
				if got := testing.AllocsPerRun(20, func() {
					e.PackInt8(&w, b, n, k, n)
					e.MulInt8(&w, p)
					e.PackInt4(&w, b, n, k, n)
					e.MulInt8(&w, p)
					e.PackInt8Transposed(&w, b, k, k, n, 0)
					e.PackFloatTransposed(&f, Float32, b, 4*k, k, n)
					e.PackFloat(&f, Float32, b, 4*n, k, n)
					e.MulFloat(&f, q)
				}); got != 0 {
					t.Errorf("%v allocations", got)
				}
			})
		}
	}
}

// A product that its caller may not share, whose parts are columns, is not divided; one whose parts are rows is.
func TestJoin(t *testing.T) {
	e, own := New(1), New(1)
	e.grain = 1
	e.Share(2)
	const k, n = 64, 512
	var w Weights
	e.PackInt8(&w, make([]byte, k*n), n, k, n)
	for _, row := range []struct {
		m     int
		alone bool
		parts int
	}{{1, false, 2}, {1, true, 1}, {1000, false, 6}, {1000, true, 6}} {
		parts := 0
		e.Alone(row.alone)
		e.MulInt8(&w, Int8{A: make([]byte, row.m*k), AStride: k, M: row.m, C: make([]int32, row.m*n), CStride: n, Done: func(int, int, int, int, []int32, int) { parts = e.parts }})
		if parts != row.parts {
			t.Errorf("%d rows, alone %v: %d parts, want %d", row.m, row.alone, parts, row.parts)
		}
		if own.Join(e) {
			t.Errorf("%d rows: somebody joined a product that had ended", row.m)
		}
	}
}

func TestRefuses(t *testing.T) {
	e := New(1)
	defer e.Close()
	var w, f, other Weights
	e.PackInt8(&w, make([]byte, 12), 3, 4, 3)
	e.PackFloat(&f, Float32, make([]byte, 48), 12, 4, 3)
	e2 := New(1)
	defer e2.Close()
	e2.PackInt8(&other, make([]byte, 12), 3, 4, 3)
	a, c, x := make([]byte, 8), make([]int32, 6), make([]float32, 6)
	for name, call := range map[string]func(){
		"no rows":            func() { e.MulInt8(&w, Int8{A: a, AStride: 4, M: 0, C: c, CStride: 3}) },
		"A too short":        func() { e.MulInt8(&w, Int8{A: a[:7], AStride: 4, M: 2, C: c, CStride: 3}) },
		"A stride":           func() { e.MulInt8(&w, Int8{A: a, AStride: math.MaxInt, M: 2, C: c, CStride: 3}) },
		"A stride negative":  func() { e.MulInt8(&w, Int8{A: a, AStride: -1, M: 2, C: c, CStride: 3}) },
		"C too short":        func() { e.MulInt8(&w, Int8{A: a, AStride: 4, M: 2, C: c[:5], CStride: 3}) },
		"rows of C overlap":  func() { e.MulInt8(&w, Int8{A: a, AStride: 4, M: 2, C: c, CStride: 2}) },
		"zero points":        func() { e.MulInt8(&w, Int8{A: a, AStride: 4, M: 2, C: c, CStride: 3, ZeroB: make([]int32, 2)}) },
		"float weights":      func() { e.MulInt8(&f, Int8{A: a, AStride: 4, M: 2, C: c, CStride: 3}) },
		"another's weights":  func() { e.MulInt8(&other, Int8{A: a, AStride: 4, M: 2, C: c, CStride: 3}) },
		"empty weights":      func() { e.MulInt8(&Weights{}, Int8{A: a, AStride: 4, M: 2, C: c, CStride: 3}) },
		"int8 weights":       func() { e.MulFloat(&w, Float{A: a, AStride: 4, M: 2, C: x, CStride: 3}) },
		"A of floats":        func() { e.MulFloat(&f, Float{A: a, AStride: 16, M: 2, C: x, CStride: 3}) },
		"weights too short":  func() { e.PackInt8(&w, make([]byte, 11), 3, 4, 3) },
		"int4 too short":     func() { e.PackInt4(&w, make([]byte, 7), 2, 4, 3) },
		"transposed short":   func() { e.PackInt8Transposed(&w, make([]byte, 11), 4, 4, 3, 0) },
		"floats transposed":  func() { e.PackFloatTransposed(&w, E4M3, make([]byte, 11), 4, 4, 3) },
		"floats too short":   func() { e.PackFloat(&w, BFloat16, make([]byte, 23), 6, 4, 3) },
		"weights without K":  func() { e.PackInt8(&w, nil, 3, 0, 3) },
		"weights, no column": func() { e.PackInt8(&w, make([]byte, 12), 3, 4, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("did not panic")
				}
			}()
			call()
		})
	}
}

func FuzzMulInt8(f *testing.F) {
	f.Add(uint64(1), uint8(14), uint8(32), uint16(1024))
	f.Add(uint64(2), uint8(1), uint8(255), uint16(1))
	engines := fuzzEngines(f)
	f.Fuzz(func(t *testing.T, seed uint64, m, n uint8, k uint16) {
		c := newIntCase(rand.New(rand.NewPCG(seed, 0)), 1+int(m), 1+int(n), 1+int(k)%2200)
		for _, e := range engines {
			c.check(t, e, new(Weights))
		}
	})
}

func FuzzMulFloat(f *testing.F) {
	f.Add(uint64(1), uint8(14), uint8(32), uint16(256))
	f.Add(uint64(2), uint8(1), uint8(255), uint16(1))
	engines := fuzzEngines(f)
	f.Fuzz(func(t *testing.T, seed uint64, m, n uint8, k uint16) {
		c := newFloatCase(rand.New(rand.NewPCG(seed, 0)), 1+int(m)%64, 1+int(n)%128, 1+int(k)%600)
		for _, e := range engines {
			c.check(t, e, new(Weights))
		}
	})
}

// fuzzEngines are one engine for each tier and number of threads.
func fuzzEngines(f *testing.F) []*Engine {
	var engines []*Engine
	for _, tier := range tiers() {
		for _, n := range threadCounts {
			e := newEngine(tier, n)
			e.grain = 1
			f.Cleanup(e.Close)
			engines = append(engines, e)
		}
	}
	return engines
}
