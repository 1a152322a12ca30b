// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/systolic"
)

// pooled is POOL of §5.6.23 for one channel of one window, in wide arithmetic.
func pooled(op isa.PoolOp, float bool, x []float64) float64 {
	n := len(x)
	switch {
	case op == isa.PoolSum || op == isa.PoolAverage:
		if float {
			sum := sum32(n, func(s float32, i int) float32 { return float32(float64(s) + x[i]) })
			if op == isa.PoolSum {
				return float64(sum)
			}
			return float64(float32(float64(sum) / float64(n)))
		}
		sum := int64(0)
		for _, v := range x {
			sum += int64(v)
		}
		v := float64(int32(sum))
		if op == isa.PoolSum || n == 0 {
			return v
		}
		return math.Round(v/float64(n)) + 0 // ties away from 0; few enough bits to be exact here; an integer has no −0
	case float:
		v := math.Inf(-1)
		if op == isa.PoolMin {
			v = math.Inf(1)
		}
		for _, w := range x {
			v, _ = element32(map[isa.PoolOp]isa.ElementOp{isa.PoolMax: isa.ElemMax, isa.PoolMin: isa.ElemMin}[op], true, v, w)
		}
		return v
	}
	v := float64(math.MinInt32)
	if op == isa.PoolMin {
		v = math.MaxInt32
	}
	for _, w := range x {
		if op == isa.PoolMax {
			v = max(v, w)
		} else {
			v = min(v, w)
		}
	}
	return v
}

// randomImage returns an IMAGE whose pixels have up to n elements.
func randomImage(rng *rand.Rand, n int) isa.Image {
	small := func(n int) uint16 { return uint16(1 + rng.IntN(n)) }
	i := isa.Image{
		XAcc: rng.IntN(4) == 0, OutAcc: rng.IntN(4) == 0, NoSaturate: rng.IntN(2) == 0,
		Type: vectorTypes[rng.IntN(9)], OutType: vectorTypes[rng.IntN(9)], InH: small(6), InW: small(6), OutH: small(5), OutW: small(5),
		XTop: uint16(rng.IntN(3)), OutTop: uint16(rng.IntN(3)),
	}
	if i.XAcc {
		i.Type = []systolic.Type{systolic.Int32, systolic.FP32}[rng.IntN(2)]
	}
	if i.OutAcc {
		i.OutType = []systolic.Type{systolic.Int32, systolic.FP32}[rng.IntN(2)]
	}
	if !i.Type.Float() {
		i.Zero = int16(rng.IntN(100))
	}
	i.XPixel, i.OutPixel = uint16(4*(n+rng.IntN(3))), uint16(4*(n+rng.IntN(3)))
	i.XLine, i.OutLine = uint32(i.XPixel)*uint32(i.InW)+4*rng.Uint32N(4), uint32(i.OutPixel)*uint32(i.OutW)+4*rng.Uint32N(4)
	return i
}

// pixel reads channel k of pixel (y, x).
func (m *model) pixel(i *isa.Image, base uint32, y, x, k int) float64 {
	return m.operand(i.XAcc, i.Type, int(base)+y*int(i.XLine)+x*int(i.XPixel), 0, 0, k)
}

// setPixel stores v as channel k of pixel (y, x).
func (m *model) setPixel(i *isa.Image, base uint32, y, x, k int, v float64, float bool) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], storeElement(v, float, i.OutType, !i.NoSaturate))
	local, size := m.spad, int(i.OutType.Bytes(1))
	if i.OutAcc {
		local = m.acc
	}
	copy(local[int(base)+y*int(i.OutLine)+x*int(i.OutPixel)+size*k:], b[:size])
}

// againstModel runs two instructions on random memory and compares all of it
// with what the model makes.
func againstModel(t *testing.T, rng *rand.Rand, im isa.Image, in isa.Instruction, apply func(m *model)) {
	t.Helper()
	spad, acc := tameBytes(rng, newConfig.SpadSize), tameBytes(rng, newConfig.AccSize)
	if im.Type == systolic.Int32 && rng.IntN(2) == 0 { // averages that fit fp64 with room
		for k := 3; k < len(spad); k += 4 {
			spad[k], acc[k%len(acc)] = 0, 0
		}
	}
	m := &model{spad: bytes.Clone(spad), acc: bytes.Clone(acc)}
	apply(m)
	bufs := [][]byte{spad, acc, make([]byte, newConfig.SpadSize), make([]byte, newConfig.AccSize)}
	text := isa.Text(
		isa.Load{Binding: 0, NX: uint32(newConfig.SpadSize), NY: 1, NZ: 1}, isa.Load{Binding: 1, NX: uint32(newConfig.AccSize), NY: 1, NZ: 1, Acc: true},
		im, in,
		isa.Store{Binding: 2, NX: uint32(newConfig.SpadSize), NY: 1, NZ: 1}, isa.Store{Binding: 3, NX: uint32(newConfig.AccSize), NY: 1, NZ: 1, Acc: true},
	)
	tokensBetween(text)
	mem := &memory{t: t, bufs: bufs}
	if _, err := newCore(t, newConfig).Run(t.Context(), newProgram(4, append(text, isa.Text(isa.Halt{})...)).Image(), mem.bind(), mem); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(bufs[2], m.spad) || !bytes.Equal(bufs[3], m.acc) {
		a, b := im.Encode(), in.Encode()
		t.Fatalf("local memory differs after\n%v\n%v", &a, &b)
	}
}

func imageLimits(im isa.Image) isa.Limits {
	return isa.Limits{SpadSize: uint32(newConfig.SpadSize), AccSize: uint32(newConfig.AccSize), Setup: isa.Setup{Image: im}}
}

func TestPoolAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(161, 162))
	seen, lines := map[isa.PoolOp]int{}, 0
	for range 1500 {
		n := 1 + rng.IntN(6)
		im := randomImage(rng, n)
		dense := rng.IntN(3) == 0
		if dense {
			if rng.IntN(2) == 0 {
				im.XAcc, im.OutAcc, im.Type = false, false, []systolic.Type{systolic.Int8, systolic.Uint8}[rng.IntN(2)]
				im.OutType = im.Type
			}
			im.XPixel = uint16(im.Type.Bytes(uint64(n)))
		}
		i := isa.Pool{
			Op: isa.PoolOp(rng.IntN(4)), N: uint16(n), X: 4 * rng.Uint32N(100), Out: 2048 + 4*rng.Uint32N(100),
			KernelH: uint16(1 + rng.IntN(6)), KernelW: uint16(1 + rng.IntN(6)), StepY: uint8(1 + rng.IntN(3)), StepX: uint8(1 + rng.IntN(3)),
			DilationY: uint8(1 + rng.IntN(2)), DilationX: uint8(1 + rng.IntN(2)), PadTop: uint16(rng.IntN(3)), PadLeft: uint16(rng.IntN(3)),
		}
		if i.CountPad = i.Op >= isa.PoolSum && rng.IntN(2) == 0; i.CountPad {
			i.PadBottom, i.PadRight = uint16(rng.IntN(3)), uint16(rng.IntN(3))
		}
		if im.Check(imageLimits(im)) != nil || i.Check(imageLimits(im)) != nil {
			continue
		}
		seen[i.Op]++
		if dense && i.Op <= isa.PoolMin && im.Type == im.OutType && !im.XAcc && !im.OutAcc && !im.Type.Float() && im.Type != systolic.Int32 && im.InW > 1 {
			lines++
		}
		againstModel(t, rng, im, i, func(m *model) {
			type result struct {
				y, x, k int
				v       float64
			}
			var results []result
			for oy := range int(im.OutH) {
				for ox := range int(im.OutW) {
					for k := range n {
						var x []float64
						for ky := range int(i.KernelH) {
							for kx := range int(i.KernelW) {
								iy, ix := oy*int(i.StepY)+ky*int(i.DilationY)-int(i.PadTop), ox*int(i.StepX)+kx*int(i.DilationX)-int(i.PadLeft)
								switch {
								case iy >= 0 && ix >= 0 && iy < int(im.InH) && ix < int(im.InW):
									x = append(x, m.pixel(&im, i.X, iy, ix, k))
								case i.CountPad && iy < int(im.InH+i.PadBottom) && ix < int(im.InW+i.PadRight):
									x = append(x, float64(im.Zero))
								}
							}
						}
						results = append(results, result{oy, ox, k, pooled(i.Op, im.Type.Float(), x)})
					}
				}
			}
			for _, r := range results {
				m.setPixel(&im, i.Out, r.y, r.x, r.k, r.v, im.Type.Float())
			}
		})
	}
	if lines < 50 {
		t.Errorf("only %d maxima of dense lines", lines)
	}
	for op := range isa.PoolAverage + 1 {
		if seen[op] < 100 {
			t.Errorf("operation %d: only %d instructions", op, seen[op])
		}
	}
}

// coordinate is §6.15.1, in steps that round once.
func coordinate(i *isa.Resize, index int, mul, div uint32) float32 {
	s := float32(index)
	if i.Half {
		s = float32(float64(s) + 0.5)
	}
	if mul != 0 {
		s = float32(float64(s) * float64(math.Float32frombits(mul)))
	}
	if div != 0 {
		s = float32(float64(s) / float64(math.Float32frombits(div)))
	}
	if i.Center {
		s = float32(float64(s) - 0.5)
	}
	return s
}

func TestResizeAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(171, 172))
	scale := func() uint32 {
		switch rng.IntN(5) {
		case 0:
			return 0
		case 1:
			return math.Float32bits(float32(1+rng.IntN(8)) / 2)
		}
		return math.Float32bits(float32(math.Exp(rng.NormFloat64())))
	}
	seen := map[isa.ResizeMode]int{}
	for range 1800 {
		n := 1 + rng.IntN(6)
		im := randomImage(rng, n)
		i := isa.Resize{
			Half: rng.IntN(2) == 0, Center: rng.IntN(2) == 0, Mode: isa.ResizeMode(rng.IntN(6)), N: uint16(n),
			X: 4 * rng.Uint32N(100), Out: 2048 + 4*rng.Uint32N(100), MulY: scale(), DivY: scale(), MulX: scale(), DivX: scale(),
		}
		if i.Mode == isa.ResizeFixed {
			i.MulY, i.MulX, i.DivY, i.DivX = 1+rng.Uint32N(3000), 1+rng.Uint32N(3000), 0, 0
		}
		if im.Check(imageLimits(im)) != nil || i.Check(imageLimits(im)) != nil {
			continue
		}
		seen[i.Mode]++
		// The elements that line or pixel index is made of, and the weight of the second.
		axis := func(index, first, count int, mul, div uint32) (lo, hi int, f float64) {
			clamp := func(v float64) int { return int(min(max(v, float64(first)), float64(first+count-1))) }
			if i.Mode == isa.ResizeFixed {
				c := float64(index) * float64(mul)
				if i.Half {
					c += math.Floor(float64(mul) / 2)
				}
				if i.Center {
					c -= 512
				}
				return clamp(math.Floor(c / 1024)), clamp(math.Ceil(c / 1024)), c - 1024*math.Floor(c/1024)
			}
			s := float64(coordinate(&i, index, mul, div))
			down, up := math.Floor(s), math.Ceil(s)
			nearest := map[isa.ResizeMode]float64{isa.ResizeFloor: down, isa.ResizeCeil: up, isa.ResizeRoundDown: down, isa.ResizeRoundUp: down}
			if v, ok := nearest[i.Mode]; ok {
				if d := s - down; i.Mode == isa.ResizeRoundDown && d > 0.5 || i.Mode == isa.ResizeRoundUp && d >= 0.5 {
					v = up
				}
				return clamp(v), clamp(v), 0
			}
			return clamp(down), clamp(up), float64(float32(s - down))
		}
		againstModel(t, rng, im, i, func(m *model) {
			source := &model{spad: bytes.Clone(m.spad), acc: bytes.Clone(m.acc)}
			for oy := range int(im.OutH) {
				y0, y1, fy := axis(oy+int(im.OutTop), int(im.XTop), int(im.InH), i.MulY, i.DivY)
				for ox := range int(im.OutW) {
					x0, x1, fx := axis(ox, 0, int(im.InW), i.MulX, i.DivX)
					for k := range n {
						at := func(y, x int) float64 { return source.pixel(&im, i.X, y-int(im.XTop), x, k) }
						v, float := at(y0, x0), im.Type.Float()
						switch i.Mode {
						case isa.ResizeLinear:
							lerp := func(a, b float64, f float64) float64 {
								return float64(fma32(float32(f), float32(float64(float32(b))-float64(float32(a))), float32(a)))
							}
							upper, lower := float64(float32(at(y0, x0))), float64(float32(at(y1, x0)))
							if x0 != x1 {
								upper, lower = lerp(upper, at(y0, x1), fx), lerp(lower, at(y1, x1), fx)
							}
							if v, float = upper, true; y0 != y1 {
								v = lerp(upper, lower, fy)
							}
						case isa.ResizeFixed:
							sum := int64(at(y0, x0))*int64(1024-fx)*int64(1024-fy) + int64(at(y0, x1))*int64(fx)*int64(1024-fy) +
								int64(at(y1, x0))*int64(1024-fx)*int64(fy) + int64(at(y1, x1))*int64(fx)*int64(fy)
							if sum < 0 {
								v = float64((sum - 1<<19) / (1 << 20))
							} else {
								v = float64((sum + 1<<19) / (1 << 20))
							}
						}
						m.setPixel(&im, i.Out, oy, ox, k, v, float)
					}
				}
			}
		})
	}
	for mode := range isa.ResizeFixed + 1 {
		if seen[mode] < 60 {
			t.Errorf("mode %d: only %d instructions", mode, seen[mode])
		}
	}
}

func TestImageErrors(t *testing.T) {
	im := isa.Image{InH: 4, InW: 4, OutH: 2, OutW: 2, XLine: 128, XPixel: 32, OutLine: 64, OutPixel: 32}
	pool := isa.Pool{N: 32, Out: 4096, KernelH: 2, KernelW: 2, StepY: 2, StepX: 2, DilationY: 1, DilationX: 1}
	resize := isa.Resize{N: 32, Out: 4096, MulY: math.Float32bits(2), MulX: math.Float32bits(2)}
	wide := edit(im, func(i *isa.Image) { i.XPixel, i.XLine = 64, 256 })
	runFaultRows(t, []faultRow{
		{"no error", isa.Features, 0, []isa.Instruction{im, pool, resize}, 0, 0, 0},
		{"feature not named", isa.FeatureReduce, 0, []isa.Instruction{im}, core.StatusIllegalInstruction, 0, 0x47},
		{"feature not named, pool", isa.FeatureReduce, 0, []isa.Instruction{pool}, core.StatusIllegalInstruction, 0, 0x48},
		{"feature not named, resize", isa.FeatureReduce, 0, []isa.Instruction{resize}, core.StatusIllegalInstruction, 0, 0x49},
		{"image", isa.Features, 0, []isa.Instruction{isa.Image{}}, core.StatusBadOperand, 0, 8},
		{"pool", isa.Features, 0, []isa.Instruction{im, isa.Pool{Op: 4}}, core.StatusBadOperand, 1, 4},
		{"resize", isa.Features, 0, []isa.Instruction{im, isa.Resize{Mode: 6}}, core.StatusBadOperand, 1, 4},
		{"stride", isa.Features, 0, []isa.Instruction{im, edit(pool, func(i *isa.Pool) { i.N = 33 })}, core.StatusBadSetup, 1, 64 + 16},
		{"a refused IMAGE changes nothing", isa.Features, 0, []isa.Instruction{im, isa.Image{Type: 99}, pool}, core.StatusBadOperand, 1, 4},
		{"the image at the start is one pixel", isa.Features, 0, []isa.Instruction{pool}, 0, 0, 0},
		{"bounds", isa.Features, 0, []isa.Instruction{im, edit(pool, func(i *isa.Pool) { i.X = 8192 - 100 })}, core.StatusLocalBounds, 1, 8192},
		{"overlap", isa.Features, 0, []isa.Instruction{im, edit(resize, func(i *isa.Resize) { i.Out = 511 })}, core.StatusOverlap, 1, 511},
		{"poisoned x", isa.Features, 448, []isa.Instruction{im, pool}, core.StatusPoison, 1, 448},
		{"poison between pixels", isa.Features, 64, []isa.Instruction{edit(wide, func(i *isa.Image) { i.XPixel, i.XLine = 128, 512 }), pool}, 0, 0, 0},
		{"poisoned resize", isa.Features, 64, []isa.Instruction{im, resize}, core.StatusPoison, 1, 64},
		{"poisoned result", isa.Features, 4096, []isa.Instruction{im, pool}, 0, 0, 0},
	})
	float := edit(im, func(i *isa.Image) {
		i.Type, i.OutType, i.XPixel, i.XLine, i.OutPixel, i.OutLine = 8, 8, 128, 512, 128, 256
	})
	mean := edit(pool, func(i *isa.Pool) { i.Op = isa.PoolAverage })
	image := newProgram(0, isa.Text(im, pool, resize, float, mean, isa.Halt{})).Image()
	c := newCore(t, newConfig)
	if n := allocsPerRun(10, func() {
		if _, err := c.Run(t.Context(), image, nil, nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations in a run, want 0", n)
	}
}

func edit[T any](v T, f func(*T)) T {
	f(&v)
	return v
}

// Padding is counted, not added pixel by pixel for each channel, which nothing would interrupt for seconds.
func TestPoolPadding(t *testing.T) {
	const n, lines, pixels, zero = 1024, 64, 65535, -128
	text := isa.Text(
		isa.Image{OutAcc: true, OutType: systolic.Int32, Zero: zero, InH: 1, InW: 1, OutH: 1, OutW: 1},
		isa.Pool{
			CountPad: true, Op: isa.PoolSum, N: n, KernelH: lines, KernelW: pixels, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1,
			PadTop: 65535, PadLeft: 65535,
		},
		isa.Store{NX: 4 * n, NY: 1, NZ: 1, Acc: true},
	)
	tokensBetween(text)
	text = append(text, isa.Text(isa.Halt{})...)
	mem := &memory{t: t, bufs: [][]byte{make([]byte, 4*n)}}
	if _, err := newCore(t, newConfig).Run(t.Context(), newProgram(1, text).Image(), mem.bind(), mem); err != nil {
		t.Fatal(err)
	}
	for k := range n {
		if v := int32(binary.LittleEndian.Uint32(mem.bufs[0][4*k:])); v != lines*pixels*zero {
			t.Fatalf("channel %d is %d, want %d", k, v, lines*pixels*zero)
		}
	}
}
