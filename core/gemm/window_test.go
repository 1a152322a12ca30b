// SPDX-License-Identifier: Apache-2.0

package gemm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// randomWindow is a window with its image, whose elements have size bytes.
func randomWindow(rng *rand.Rand, size int) (w *Window, image []byte) {
	d := func(n int) int { return 1 + rng.IntN(n) }
	w = &Window{
		InH: d(9), InW: d(9), Offset: rng.IntN(3) * size, Channels: d(70), OutH: d(7), OutW: d(7), KernelH: d(4), KernelW: d(4),
		StepY: d(3), StepX: d(3), DilationY: d(3), DilationX: d(3), PadTop: rng.IntN(4), PadLeft: rng.IntN(4),
	}
	w.Pixel = w.Offset + w.Channels*size + rng.IntN(3)
	if rng.IntN(2) == 0 { // pixels without gaps
		w.Offset, w.Pixel, w.DilationX = 0, w.Channels*size, 1
	}
	w.Line = w.InW*w.Pixel + rng.IntN(3)
	image = make([]byte, (w.InH-1)*w.Line+(w.InW-1)*w.Pixel+w.Offset+w.Channels*size)
	for i := range image {
		image[i] = byte(rng.Uint32())
	}
	return w, image
}

// matrix writes out the rows that w stands for, from its description.
func (w *Window) matrix(image []byte, size int, pad byte) []byte {
	var m []byte
	for oy := range w.OutH {
		for ox := range w.OutW {
			for ky := range w.KernelH {
				for kx := range w.KernelW {
					y, x := oy*w.StepY+ky*w.DilationY-w.PadTop, ox*w.StepX+kx*w.DilationX-w.PadLeft
					pixel := slices.Repeat([]byte{pad}, w.Channels*size)
					if y >= 0 && y < w.InH && x >= 0 && x < w.InW {
						pixel = image[y*w.Line+x*w.Pixel+w.Offset:][:w.Channels*size]
					}
					m = append(m, pixel...)
				}
			}
		}
	}
	return m
}

func TestWindow(t *testing.T) {
	each(t, func(t *testing.T, e *Engine) {
		rng := rand.New(rand.NewPCG(7, 8))
		var w Weights
		for i := range randomCases() {
			typ := append(floatTypes, typeInt8)[i%6]
			size := typ.Size()
			window, image := randomWindow(rng, size)
			m, k, n := window.OutH*window.OutW, window.depth(), 1+rng.IntN(40)
			what := fmt.Sprintf("type %d, %+v, %d columns", typ, *window, n)
			if typ == typeInt8 {
				weights := floatBytes(rng, E5M2, k*n, true)
				unsigned := rng.IntN(2) == 0
				zero := int32(int8(rng.Uint32()))
				if unsigned {
					zero &= 0xff
				}
				matrix := window.matrix(image, 1, byte(zero))
				got, want := make([]int32, m*n), make([]int32, m*n)
				e.PackInt8(&w, weights, n, k, n)
				e.MulInt8(&w, Int8{A: matrix, Unsigned: unsigned, AStride: k, M: m, C: want, CStride: n, ZeroA: zero, ZeroB: []int32{5}})
				if rng.IntN(2) == 0 {
					e.PackInt8Lines(&w, weights, n, k, n, window.Run(1))
				} else {
					e.PackInt8Transposed(&w, transpose(weights, 1, n, k, n), k, k, n, window.Run(1))
				}
				e.MulInt8(&w, Int8{A: image, Unsigned: unsigned, M: m, Window: window, C: got, CStride: n, ZeroA: zero, ZeroB: []int32{5}})
				seen := newSeen(m, n)
				e.MulInt8(&w, Int8{A: image, Unsigned: unsigned, M: m, Window: window, Done: seen.done, ZeroA: zero, ZeroB: []int32{5}})
				seen.check(t, want, n)
				if !slices.Equal(got, want) {
					t.Errorf("%s: differs from the product of the matrix", what)
				}
				continue
			}
			e.PackFloat(&w, Float32, floatBytes(rng, Float32, k*n, false), 4*n, k, n)
			matrix := window.matrix(image, size, 0)
			got, want := make([]float32, m*n), make([]float32, m*n)
			e.MulFloat(&w, Float{Type: typ, A: image, M: m, Window: window, C: got, CStride: n})
			e.MulFloat(&w, Float{Type: typ, A: matrix, AStride: k * size, M: m, C: want, CStride: n})
			if !slices.Equal(bitsOf(got), bitsOf(want)) {
				t.Errorf("%s: differs from the product of the matrix", what)
			}
		}
	})
}

// Depthwise against loops over channels, rows of the result apart.
func TestDepthwise(t *testing.T) {
	each(t, func(t *testing.T, e *Engine) {
		rng := rand.New(rand.NewPCG(11, 12))
		for range randomCases() {
			window, image := randomWindow(rng, 1)
			window.Channels *= 1 + rng.IntN(4)
			window.Pixel += window.Channels
			window.Line = window.InW * window.Pixel
			image = slices.Repeat(image, 1+window.InH*window.Line/len(image))
			n := window.Channels
			p := Depthwise{Window: window, Image: image, Unsigned: rng.IntN(3) == 0, ZeroA: int32(int8(rng.Uint32())), WStride: n + rng.IntN(3), CStride: n + rng.IntN(3), Accumulate: rng.IntN(2) == 0}
			if p.Unsigned {
				p.ZeroA = int32(uint8(p.ZeroA))
			}
			p.W = floatBytes(rng, E5M2, window.KernelH*window.KernelW*p.WStride, true)
			switch rng.IntN(4) {
			case 0:
				p.ZeroB = []int32{int32(int8(rng.Uint32()))}
			case 1:
				for range n {
					p.ZeroB = append(p.ZeroB, int32(int8(rng.Uint32())))
				}
			}
			seen := newSeen(window.OutH*window.OutW, n)
			p.Done = seen.done
			m := window.OutH * window.OutW
			g, c := guard((m-1)*p.CStride+n, int32(7))
			p.C = c
			want := slices.Clone(c)
			matrix := window.matrix(image, 1, byte(p.ZeroA))
			for r := range m {
				for i := range n {
					to := &want[r*p.CStride+i]
					if !p.Accumulate {
						*to = 0
					}
					for k := range window.KernelH * window.KernelW {
						a, w := int32(int8(matrix[r*window.depth()+k*n+i])), int32(int8(p.W[k*p.WStride+i]))
						if p.Unsigned {
							a &= 0xff
						}
						if len(p.ZeroB) > 0 {
							w -= p.ZeroB[i%len(p.ZeroB)]
						}
						*to += (a - p.ZeroA) * w
					}
				}
			}
			e.Depthwise(p)
			if !g.intact() || !slices.Equal(c, want) {
				t.Errorf("%+v: differs, or wrote around C (intact: %t)", *window, g.intact())
			}
			seen.check(t, want, p.CStride)
			if !p.Accumulate {
				seen := newSeen(m, n)
				p.C, p.Done = nil, seen.done
				e.Depthwise(p)
				seen.check(t, want, p.CStride)
			}
		}
	})
}

func TestWindowRefuses(t *testing.T) {
	e := New(1)
	defer e.Close()
	var w Weights
	good := Window{InH: 2, InW: 2, Line: 2, Pixel: 1, Channels: 1, OutH: 2, OutW: 2, KernelH: 1, KernelW: 2, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1}
	e.PackInt8(&w, make([]byte, 2), 1, 2, 1)
	mul := func(window Window, size, m int) {
		e.MulInt8(&w, Int8{A: make([]byte, size), M: m, Window: &window, C: make([]int32, m), CStride: 1})
	}
	mul(good, 4, 4)
	for name, change := range map[string]func(w *Window, size, m *int){
		"image too short":  func(_ *Window, size, _ *int) { *size = 3 },
		"rows":             func(_ *Window, _, m *int) { *m = 5 },
		"depth":            func(w *Window, _, _ *int) { w.KernelH = 2 },
		"no pixel":         func(w *Window, _, _ *int) { w.InW = 0 },
		"negative padding": func(w *Window, _, _ *int) { w.PadTop = -1 },
		"line":             func(w *Window, _, _ *int) { w.Line = 1 << 62 },
		"offset":           func(w *Window, _, _ *int) { w.Offset = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			defer func() {
				if recover() == nil {
					t.Error("did not panic")
				}
			}()
			bad, size, m := good, 4, 4
			change(&bad, &size, &m)
			mul(bad, size, m)
		})
	}
}

// A product that is stopped returns, and asks again and again until it is.
func TestStop(t *testing.T) {
	each(t, func(t *testing.T, e *Engine) {
		const m, n, k = 30, 4, 3000
		var w Weights
		e.PackInt8(&w, make([]byte, n*k), n, k, n)
		asked := make(chan struct{}, 1000)
		stop := func() bool {
			asked <- struct{}{}
			return len(asked) > 1
		}
		e.MulInt8(&w, Int8{A: make([]byte, m*k), AStride: k, M: m, C: make([]int32, m*n), CStride: n, Stop: stop})
		if got, most := len(asked), 2+e.most(); got < 2 || got > most {
			t.Errorf("asked %d times, want 2 to %d", got, most)
		}
	})
}

// seen counts how often Done was told of each element.
type seen struct {
	mu    sync.Mutex
	n     int
	times []int
	sums  []int32
}

func newSeen(m, n int) *seen { return &seen{n: n, times: make([]int, m*n), sums: make([]int32, m*n)} }

func (s *seen) done(row, rows, column, columns int, c []int32, stride int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range rows {
		for i := range columns {
			s.times[(row+r)*s.n+column+i]++
			s.sums[(row+r)*s.n+column+i] = c[r*stride+i]
		}
	}
}

// check compares what Done was given with rows of want, stride apart.
func (s *seen) check(t *testing.T, want []int32, stride int) {
	t.Helper()
	for i, v := range s.sums {
		if w := want[i/s.n*stride+i%s.n]; v != w {
			t.Errorf("Done was given %d for row %d, column %d, want %d", v, i/s.n, i%s.n, w)
			return
		}
	}
	for i, n := range s.times {
		if n != 1 {
			t.Errorf("Done was told %d times of row %d, column %d", n, i/s.n, i%s.n)
			return
		}
	}
}
