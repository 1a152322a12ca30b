// SPDX-License-Identifier: Apache-2.0

package vec

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

var allTypes = []Type{Int8, Int16, Int32, Uint8, FP32, BF16, FP16, E4M3, E5M2}

var edgeFloats = []uint32{
	0, 1 << 31, 1, 1<<31 | 1, 0x7fffff, 0x800000, 0x80800000, 0x3f800000, 0xbf800000, 0x40000000, 0x40c00000, 0xc0400000,
	0x7f7fffff, 0xff7fffff, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00001, 0x7f800001, 0xffbfffff,
	0x4effffff, 0x4f000000, 0xcf000000, 0xcf000001, 0x3f200000, 0x41200000, 0x43000000, 0xc3000000,
}

// randomWord is an int32 or the encoding of an fp32.
func randomWord(rng *rand.Rand, float bool) uint32 {
	switch {
	case !float:
		return uint32(randomInt(rng))
	case rng.IntN(4) == 0:
		return edgeFloats[rng.IntN(len(edgeFloats))]
	case rng.IntN(2) == 0:
		return rng.Uint32()
	}
	return rng.Uint32()&0x80ffffff | uint32(100+rng.IntN(40))<<23
}

func fill(x []uint32, f func() uint32) []uint32 {
	for i := range x {
		x[i] = f()
	}
	return x
}

// same compares words with those of the plain tier, and the one behind them with what it was.
func same(t *testing.T, what string, got, want []uint32) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: element %d of %d is %#x, want %#x", what, i, len(want)-1, got[i], want[i])
		}
	}
}

// fast runs f for all tiers but the plain one.
func fast(t *testing.T, f func(t *testing.T, u, plain *Unit)) {
	for _, tier := range tiers() {
		if tier.name != "go" {
			t.Run(tier.name, func(t *testing.T) { f(t, &Unit{tier: tier}, &Unit{tier: plain()}) })
		}
	}
}

// All values of narrow types become the words that package num makes of them, at every length.
func TestLoad(t *testing.T) {
	fast(t, func(t *testing.T, u, plain *Unit) {
		for _, typ := range allTypes {
			size := typ.Size()
			values := make([]byte, 4<<16)
			for i := range 1 << 16 {
				switch size {
				case 1:
					values[i] = byte(i)
				case 2:
					binary.LittleEndian.PutUint16(values[2*i:], uint16(i))
				default:
					binary.LittleEndian.PutUint32(values[4*i:], uint32(i)*65521)
				}
			}
			for n := 0; n < 70; n++ {
				from, got, want := values[n*size:][:n*size], make([]uint32, n+1), make([]uint32, n+1)
				u.Load(got[:n], from, typ)
				plain.Load(want[:n], from, typ)
				same(t, fmt.Sprintf("type %d", typ), got, want)
			}
			n := 1 << 16
			got, want := make([]uint32, n), make([]uint32, n)
			u.Load(got, values, typ)
			plain.Load(want, values, typ)
			same(t, fmt.Sprintf("type %d", typ), got, want)
		}
	})
}

// put converts words, and stores them.
func put(u *Unit, to []byte, from []uint32, float bool, t Type, saturate bool) {
	if float {
		u.Compute(Move, true, false, from, from, nil)
	}
	u.Convert(from, float, t)
	u.Store(to, from, t, saturate)
}

// Numbers near every value of 16 bits, and int32, become elements of all types.
func TestStore(t *testing.T) {
	var floats []uint32
	for hi := range uint32(1 << 16) {
		for _, lo := range []uint32{0, 1, 0x7fff, 0x8000, 0x8001, 0x1000, 0x3000, 0xefff} {
			floats = append(floats, hi<<16|lo)
		}
	}
	rng := rand.New(rand.NewPCG(5, 6))
	ints := fill(make([]uint32, 1<<17), func() uint32 { return uint32(randomInt(rng)) })
	fast(t, func(t *testing.T, u, plain *Unit) {
		for _, typ := range allTypes {
			for _, saturate := range []bool{true, false} {
				for _, from := range [][]uint32{ints, floats} {
					float, size := len(from) == len(floats), typ.Size()
					check := func(from []uint32) {
						got, want := make([]byte, len(from)*size+1), make([]byte, len(from)*size+1)
						put(u, got, slices.Clone(from), float, typ, saturate)
						put(plain, want, slices.Clone(from), float, typ, saturate)
						for i := range want {
							if got[i] != want[i] {
								t.Fatalf("%#x, float %t, to type %d, saturate %t: % x, want % x (element %d of %d)",
									from[min(i/size, len(from)-1)], float, typ, saturate, got[i/size*size:][:1], want[i/size*size:][:1], i/size, len(from))
							}
						}
					}
					check(from)
					for n := 0; n < 70; n++ {
						check(from[77*n:][:n])
					}
				}
			}
		}
	})
}

// opsOf are the operations that have a function for the kind of operands.
func opsOf(float bool) (ops []Op) {
	for op := range Op(numOps) {
		func() {
			defer func() { _ = recover() }()
			compute(op, float, 0, 0, 0)
			ops = append(ops, op)
		}()
	}
	return ops
}

// All operations, at every length, with one y and with many, in place and not.
func TestCompute(t *testing.T) {
	fast(t, func(t *testing.T, u, plain *Unit) {
		rng := rand.New(rand.NewPCG(7, 8))
		for _, float := range []bool{false, true} {
			ops := opsOf(float)
			if len(ops) < 24 {
				t.Fatalf("only %d operations", len(ops))
			}
			for _, op := range ops {
				for n := 0; n < 100; n++ {
					word := func() uint32 { return randomWord(rng, float) }
					x, y := fill(make([]uint32, n+1), word), fill(make([]uint32, n+1), word)
					if op >= Shl && op <= ShrRound {
						for i := range y {
							if rng.IntN(4) > 0 {
								y[i] = rng.Uint32N(36)
							}
						}
					}
					condition := n%3 == 0
					z := fill(make([]uint32, n+1), func() uint32 { return []uint32{0, 1, 1 << 31, 0x7fc00000, 1<<31 | 1}[rng.IntN(5)] })
					ys := y[:n]
					if n%2 == 0 {
						ys = y[:1]
					}
					want := slices.Clone(z)
					plain.Compute(op, float, condition, want[:n], x[:n], ys)
					got := z
					if n%5 == 0 && op != Select {
						got = append(x[:n:n], z[n]) // in place, with the same guard
						x = slices.Clone(got)
						got = got[:n+1]
						u.Compute(op, float, condition, got[:n], got[:n], ys)
					} else {
						u.Compute(op, float, condition, got[:n], x[:n], ys)
					}
					for i := range want {
						if got[i] != want[i] {
							t.Fatalf("op %d, float %t, element %d of %d: x %#x, y %#x, was %#x: %#x, want %#x",
								op, float, i, n, x[i], y[min(i, len(ys)-1)], z[i], got[i], want[i])
						}
					}
				}
			}
		}
	})
}

// Functions of one operand over all exponents.
func TestFunctions(t *testing.T) {
	n := 1 << 18
	if testing.Short() {
		n = 1 << 14
	}
	x := make([]uint32, 0, n+len(edgeFloats))
	for i := range n {
		step := 1 << 32 / n
		x = append(x, uint32(i*step+i*7919%step))
	}
	x = append(x, edgeFloats...)
	want := map[Op][]uint32{}
	for _, op := range opsOf(true) {
		want[op] = make([]uint32, len(x))
		(&Unit{tier: plain()}).Compute(op, true, false, want[op], x, x)
	}
	fast(t, func(t *testing.T, u, _ *Unit) {
		for op, want := range want {
			if u.unaryFloat[op] == nil {
				continue
			}
			got := make([]uint32, len(x))
			u.Compute(op, true, false, got, x, nil)
			for i := range want {
				if got[i] != want[i] {
					t.Fatalf("op %d of %#x (%g): %#x, want %#x", op, x[i], math.Float32frombits(x[i]), got[i], want[i])
				}
			}
		}
	})
}

// Operations on bytes against those on words.
func TestBytes(t *testing.T) {
	fast(t, func(t *testing.T, u, plain *Unit) {
		rng := rand.New(rand.NewPCG(9, 10))
		known := 0
		for _, typ := range []Type{Int8, Uint8, Int16} {
			for op := range Op(numOps) {
				if !u.Native(op, typ) {
					continue
				}
				known++
				size := typ.Size()
				check := func(x, y []byte, one bool) {
					n := len(x) / size
					xs, ys := make([]uint32, n), make([]uint32, len(y)/size)
					plain.Load(xs, x, typ)
					plain.Load(ys, y, typ)
					want := make([]byte, len(x)+1)
					plain.Compute(op, false, false, xs, xs, ys)
					plain.Store(want, xs, typ, true)
					got := make([]byte, len(x)+1)
					u.Bytes(op, typ, got[:len(x)], x, y)
					if !bytes.Equal(got, want) {
						t.Fatalf("op %d, type %d, %d elements, one %t:\n% x, want\n% x", op, typ, n, one, got, want)
					}
				}
				for n := 1; n < 600; n++ {
					x, y := make([]byte, n*size), make([]byte, n*size)
					for i := range x {
						x[i], y[i] = byte(rng.Uint32()), byte(rng.Uint32())
					}
					if op == ReLU {
						check(x, nil, false)
						continue
					}
					check(x, y, false)
					check(x, y[:size], true)
				}
				if size == 1 && op != ReLU { // all pairs
					var all, y [256]byte
					for v := range 256 {
						for i := range all {
							all[i], y[i] = byte(i), byte(v)
						}
						check(all[:], y[:], false)
					}
				}
			}
		}
		if known != 14 {
			t.Errorf("%d operations on bytes, want 14", known)
		}
	})
}

// Tables of all bytes, at every length, also in place.
func TestLookup(t *testing.T) {
	each(t, func(t *testing.T, tier *tier) {
		rng := rand.New(rand.NewPCG(11, 12))
		for n := range 1000 {
			var table [256]byte
			x, got := make([]byte, n), make([]byte, n+1)
			for i := range table {
				table[i] = byte(rng.Uint32())
			}
			for i := range x {
				x[i] = byte(i + n)
			}
			z := got[:n]
			if n%3 == 0 {
				copy(z, x)
				(&Unit{tier: tier}).Lookup(z, z, &table)
			} else {
				(&Unit{tier: tier}).Lookup(z, x, &table)
			}
			for i, v := range z {
				if want := table[byte(i+n)]; v != want {
					t.Fatalf("byte %d of %d: %#x, want %#x", i, n, v, want)
				}
			}
			if got[n] != 0 {
				t.Fatalf("%d bytes: the one behind them was written", n)
			}
		}
	})
}

// Reductions and normalizations, of numbers with and without NaN and infinities.
func TestReduce(t *testing.T) {
	fast(t, func(t *testing.T, u, plain *Unit) {
		rng := rand.New(rand.NewPCG(13, 14))
		for n := 1; n < 150; n++ {
			for round := range 12 {
				for _, float := range []bool{false, true} {
					x := fill(make([]uint32, n), func() uint32 { return randomWord(rng, float) })
					if float && round%3 > 0 {
						for i, v := range x {
							if v&0x7fffffff >= 0x7f800000 || round%3 == 1 {
								x[i] = bits(float32(rng.NormFloat64()) * 4)
							}
						}
					}
					if float && round%6 == 4 { // zeros of both signs alone
						fill(x, func() uint32 { return rng.Uint32() & (1 << 31) })
					}
					for op := ReduceSum; op <= ReduceMean; op++ {
						if op == ReduceMean && !float {
							continue
						}
						if got, want := u.Reduce(op, float, x), plain.Reduce(op, float, x); got != want {
							t.Fatalf("reduction %d of %d, float %t: %#x, want %#x", op, n, float, got, want)
						}
					}
					if !float {
						continue
					}
					small := func() uint32 { return bits(float32(rng.NormFloat64())) }
					gain, bias := fill(make([]uint32, n), small), fill(make([]uint32, n), small)
					for name, f := range map[string]func(u *Unit, z []uint32){
						"softmax": func(u *Unit, z []uint32) { u.Softmax(z, x) },
						"layer":   func(u *Unit, z []uint32) { u.LayerNorm(z, x, gain, bias, 1e-5) },
						"rms":     func(u *Unit, z []uint32) { u.RMSNorm(z, x, gain, 1e-6) },
					} {
						got, want := make([]uint32, n+1), make([]uint32, n+1)
						f(u, got[:n])
						f(plain, want[:n])
						same(t, fmt.Sprintf("%s of %#x", name, x), got, want)
					}
				}
			}
		}
	})
}

// Sums and normalizations of several rows are those of each, in place and not.
func TestRows(t *testing.T) {
	each(t, func(t *testing.T, tier *tier) {
		u, plain := &Unit{tier: tier}, &Unit{tier: tiers()[len(tiers())-1]}
		rng := rand.New(rand.NewPCG(31, 32))
		for n := 1; n < 120; n++ {
			for round := range 4 {
				step := n + rng.IntN(3)
				word := func() uint32 { return bits(float32(rng.NormFloat64())) }
				if round == 0 {
					word = func() uint32 { return randomWord(rng, true) }
				}
				x := fill(make([]uint32, Rows*step), word)
				gain, bias := fill(make([]uint32, n), word), fill(make([]uint32, n), word)
				var got, want [Rows]uint32
				u.Sums(&got, x, step, n)
				for i := range want {
					want[i] = plain.Reduce(ReduceSum, true, x[i*step:][:n])
				}
				if got != want {
					t.Fatalf("sums of %d: %#x, want %#x", n, got, want)
				}
				for name, f := range map[string]struct {
					rows func(z, x []uint32)
					row  func(z, x []uint32)
				}{
					"layer": {func(z, x []uint32) { u.LayerNorms(z, x, step, step, n, gain, bias, 1e-5) }, func(z, x []uint32) { plain.LayerNorm(z, x, gain, bias, 1e-5) }},
					"rms":   {func(z, x []uint32) { u.RMSNorms(z, x, step, step, n, gain, 1e-6) }, func(z, x []uint32) { plain.RMSNorm(z, x, gain, 1e-6) }},
				} {
					got := fill(make([]uint32, len(x)), func() uint32 { return 7 })
					from := x
					if round%2 == 0 { // in place
						copy(got, x)
						from = got
					}
					want := append(slices.Clone(got), 0)
					for i := range Rows {
						f.row(want[i*step:][:n], x[i*step:][:n])
					}
					f.rows(got, from)
					same(t, name, got, want[:len(got)])
				}
			}
		}
	})
}
