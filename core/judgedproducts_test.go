// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/systolic"
	"npuemu/tests/tiers"
)

// judgedProduct is a row of testdata/products.json.
type judgedProduct struct {
	Judge, Kind, Op, A, B      string
	Seed                       uint64
	Out                        [3]int // lines, pixels, channels
	In                         [3]int
	Kernel, Steps, Dilations   [2]int
	Pads                       [2]int // top, left
	Groups, M, N, K, Gap, Lift int
	Accumulate, Stationary     bool
	AZero                      int16  `json:"a_zero"`
	BZero                      int16  `json:"b_zero"`
	PerChannel                 bool   `json:"per_channel"`
	TransposeA                 bool   `json:"transpose_a"`
	TransposeB                 bool   `json:"transpose_b"`
	OutType                    string `json:"out_type"`
	Zero                       int16
	Scales                     []uint32

	SHA256              string // of integers
	First               []int64
	Every               int // of floating point
	Y                   string
	Tolerance, Relative float64
}

// seeded are the bytes that products.py makes of the same seed: SplitMix64.
func seeded(seed uint64, n int) []byte {
	b := make([]byte, 0, n+7)
	for state := seed << 32; len(b) < n; {
		state += 0x9e3779b97f4a7c15
		z := (state ^ state>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		b = binary.LittleEndian.AppendUint64(b, z^z>>31)
	}
	return b[:n]
}

// encodings has the places of exponents and the lowest of those that seededRows makes.
var encodings = map[string]struct {
	t          systolic.Type
	place, low int // place 0: integers
}{
	"int4": {systolic.Int4, 0, 0}, "int8": {systolic.Int8, 0, 0}, "uint8": {systolic.Uint8, 0, 0}, "int16": {systolic.Int16, 0, 0}, "int32": {systolic.Int32, 0, 0},
	"fp32": {systolic.FP32, 23, 120}, "bf16": {systolic.BF16, 7, 120}, "fp16": {systolic.FP16, 10, 8}, "e4m3": {systolic.E4M3, 3, 0}, "e5m2": {systolic.E5M2, 2, 8},
}

// seededRows are n rows of m elements with gap elements (of int4: bytes) behind each, and their stride. What is seeded as
// floating point has eight exponents in a row.
func seededRows(kind string, seed uint64, n, m, gap, lift int) (b []byte, stride int) {
	e := encodings[kind]
	size := int(e.t.Bytes(1))
	if stride = int(e.t.Bytes(uint64(m))) + gap*size; kind == "int4" {
		stride = (m+1)/2 + gap
	}
	b = seeded(seed, n*stride)
	if e.place == 0 {
		return b, stride
	}
	for at := 0; at < len(b); at += size {
		var v uint32
		for i := range size {
			v |= uint32(b[at+i]) << (8 * i)
		}
		keep := uint32(1)<<(8*size-1) | (1<<e.place - 1)
		v = v&keep | (v>>e.place&7+uint32(e.low+lift))<<e.place
		for i := range size {
			b[at+i] = byte(v >> (8 * i))
		}
	}
	return b, stride
}

// Where a row's parts are in the scratchpad; products.py keeps them smaller.
const (
	judgedA      = 0
	judgedB      = 64 << 10
	judgedParams = 128 << 10 // zero points of columns, or the table of QUANTIZE or NORM
	judgedSums   = 136 << 10 // on their way to the accumulators
	judgedOut    = 192 << 10
	judgedSize   = 256 << 10
)

// program returns what makes the row's result at judgedOut of the scratchpad, or in the accumulators, of the bytes spad.
func (j *judgedProduct) program(spad []byte) (text []isa.Instruction, acc bool) {
	a, b, out := encodings[j.A], encodings[j.B], encodings[j.OutType]
	narrow := isa.Quantize{
		XAcc: true, OutType: out.t, Out: judgedOut, M: uint32(j.M), N: uint16(j.N), XStride: uint16(4 * j.N), OutStride: uint16(out.t.Bytes(uint64(j.N))),
	}
	switch j.Kind {
	case "norm":
		x, stride := seededRows(j.A, 4*j.Seed, j.M, j.N, 0, j.Lift)
		copy(spad[judgedA:], x)
		i := isa.Norm{
			Op: map[string]isa.NormOp{"softmax": isa.Softmax, "layer": isa.LayerNorm, "rms": isa.RMSNorm}[j.Op], Type: a.t, OutType: out.t,
			Out: judgedOut, M: uint32(j.M), N: uint16(j.N), XStride: uint16(stride), OutStride: narrow.OutStride,
		}
		if i.Op != isa.Softmax {
			i.Params = judgedParams
			binary.LittleEndian.PutUint32(spad[judgedParams:], math.Float32bits(1e-5))
			gain, _ := seededRows("fp32", 4*j.Seed+1, 1, j.N, 0, 0)
			bias, _ := seededRows("fp32", 4*j.Seed+2, 1, j.N, 0, 0)
			copy(spad[judgedParams+4:], append(gain, bias...))
		}
		return []isa.Instruction{i}, false
	case "pool":
		x, pixel := seededRows(j.A, 4*j.Seed, j.In[0]*j.In[1], j.N, 0, 0)
		copy(spad[judgedA:], x)
		return []isa.Instruction{
			isa.Image{
				Type: a.t, OutType: out.t, InH: uint16(j.In[0]), InW: uint16(j.In[1]), OutH: uint16(j.Out[0]), OutW: uint16(j.Out[1]),
				XLine: uint32(j.In[1] * pixel), OutLine: uint32(j.Out[1] * pixel), XPixel: uint16(pixel), OutPixel: uint16(pixel),
			},
			isa.Pool{
				Op: map[string]isa.PoolOp{"max": isa.PoolMax, "average": isa.PoolAverage}[j.Op], N: uint16(j.N), Out: judgedOut,
				KernelH: uint16(j.Kernel[0]), KernelW: uint16(j.Kernel[1]), StepY: uint8(j.Steps[0]), StepX: uint8(j.Steps[1]), DilationY: 1, DilationX: 1,
				PadTop: uint16(j.Pads[0]), PadLeft: uint16(j.Pads[1]),
			},
		}, false
	}

	rows, columns := j.M, j.K
	if j.TransposeA {
		rows, columns = columns, rows
	}
	if j.Kind == "conv" {
		rows, columns = j.In[0]*j.In[1], j.In[2]
	}
	x, aStride := seededRows(j.A, 4*j.Seed, rows, columns, j.Gap, 0)
	rows, columns = j.K, j.N
	if j.TransposeB {
		rows, columns = columns, rows
	}
	w, bStride := seededRows(j.B, 4*j.Seed+1, rows, columns, j.Gap, 0)
	copy(spad[judgedA:], x)
	copy(spad[judgedB:], w)
	o := isa.Operands{
		PerChannel: j.PerChannel, TransposeA: j.TransposeA, TransposeB: j.TransposeB, OutputStationary: j.Stationary, A: a.t, B: b.t,
		AZero: j.AZero, BZero: j.BZero, AStride: uint32(aStride), BStride: uint32(bStride), AccStride: uint32(4 * j.N),
	}
	if j.PerChannel {
		o.BZero, o.BZeros = 0, judgedParams
		copy(spad[judgedParams:], seeded(4*j.Seed+3, j.N))
	}
	text = append(text, o)
	if j.Kind == "conv" {
		text = append(
			text,
			isa.Window{
				KernelH: uint8(j.Kernel[0]), KernelW: uint8(j.Kernel[1]), StepY: uint8(j.Steps[0]), StepX: uint8(j.Steps[1]),
				DilationY: uint8(j.Dilations[0]), DilationX: uint8(j.Dilations[1]), Groups: uint16(j.Groups), PadTop: uint16(j.Pads[0]), PadLeft: uint16(j.Pads[1]),
			},
			isa.Conv{
				Accumulate: j.Accumulate, InH: uint16(j.In[0]), InW: uint16(j.In[1]), OutH: uint16(j.Out[0]), OutW: uint16(j.Out[1]),
				Cin: uint16(j.In[2]), Cout: uint16(j.N), A: judgedA, B: judgedB, Line: uint32(j.In[1] * aStride),
			},
		)
	} else {
		text = append(text, isa.Gemm{Accumulate: j.Accumulate, M: uint32(j.M), N: uint32(j.N), K: uint32(j.K), A: judgedA, B: judgedB})
	}
	switch narrow.Type = systolic.Int32; {
	case len(j.Scales) > 0:
		narrow.Op, narrow.Params, narrow.PerChannel = isa.RequantScaled, judgedParams, len(j.Scales) > 1
		for i, s := range j.Scales {
			binary.LittleEndian.PutUint32(spad[judgedParams+8*i:], s)
			binary.LittleEndian.PutUint16(spad[judgedParams+8*i+6:], uint16(j.Zero))
		}
		return append(text, narrow), false
	case a.t.Float() && out.t != systolic.FP32:
		narrow.Op, narrow.Type = isa.ConvertNear, systolic.FP32
		return append(text, narrow), false
	}
	return text, true
}

// run returns the row's result.
func (j *judgedProduct) run(t *testing.T, c *core.Core) []byte {
	t.Helper()
	spad := make([]byte, judgedSize)
	text, inAcc := j.program(spad)
	size := int(encodings[j.OutType].t.Bytes(uint64(j.M * j.N)))
	load := []isa.Instruction{isa.Load{NX: judgedSize, NY: 1, NZ: 1}}
	if j.Accumulate {
		kind := "int32"
		if encodings[j.A].t.Float() {
			kind = "fp32"
		}
		sums, _ := seededRows(kind, 4*j.Seed+2, j.M, j.N, 0, 0)
		copy(spad[judgedSums:], sums)
		load = append(load, isa.Load{Acc: true, Offset: judgedSums, NX: uint32(len(sums)), NY: 1, NZ: 1})
	}
	store := isa.Store{Binding: 1, Local: judgedOut, NX: uint32(size), NY: 1, NZ: 1}
	if inAcc {
		store.Acc, store.Local = true, 0
	}
	raw := isa.Text(append(append(load, text...), store)...)
	tokensBetween(raw)
	m := &memory{t: t, bufs: [][]byte{spad, make([]byte, size)}}
	p := program(judgedConfig, 2, append(raw, isa.Text(isa.Halt{})...))
	p.Minor, p.Features = isa.Minor, isa.Features
	if _, err := c.Run(t.Context(), p.Image(), m.bind(), m); err != nil {
		t.Fatal(err)
	}
	return m.bufs[1]
}

var judgedConfig = core.Config{Rows: 16, Cols: 24, SpadSize: judgedSize, AccSize: 64 << 10, ISAMinor: isa.Minor, Features: isa.Features, Threads: 3}

// TestProductJudges compares GEMM, CONV, and what often follows them, with what numpy, ml_dtypes and ONNX Runtime made of the
// same operands (testdata/README.md): integers to the bit, floating point within a tolerance.
func TestProductJudges(t *testing.T) {
	b, err := os.ReadFile("testdata/products.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []judgedProduct
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	tiers.Check(t)
	c := newCore(t, judgedConfig)
	kinds := map[string]int{}
	for n, j := range rows {
		kinds[j.Kind]++
		t.Run(fmt.Sprintf("%d/%s/%s/%s", n, j.Kind, j.A, j.B+j.Op), func(t *testing.T) {
			out := j.run(t, c)
			kind := encodings[j.OutType].t
			if j.SHA256 != "" {
				if sum := sha256.Sum256(out); hex.EncodeToString(sum[:]) == j.SHA256 {
					return
				}
				var got []int32
				for i := range j.First {
					got = append(got, kind.Integer(out, i))
				}
				t.Fatalf("begins with %d, by %s with %d\n%+v", got, j.Judge, j.First, j)
			}
			want, err := hex.DecodeString(j.Y)
			if err != nil {
				t.Fatal(err)
			}
			if len(want) < 4*min(24, j.M*j.N) {
				t.Fatalf("%d bytes of results", len(want))
			}
			for i := range len(want) / 4 {
				y := float64(math.Float32frombits(binary.LittleEndian.Uint32(want[4*i:])))
				got := float64(kind.Real(out, i*j.Every))
				if d := math.Abs(got - y); !(d <= j.Tolerance+j.Relative*math.Abs(y)) {
					t.Fatalf("element %d is %g, by %s %g, %g away\n%+v", i*j.Every, got, j.Judge, y, d, j)
				}
			}
		})
	}
	for kind, want := range map[string]int{"gemm": 95, "conv": 100, "norm": 42, "pool": 16} {
		if kinds[kind] != want {
			t.Errorf("%d rows of %s, want %d", kinds[kind], kind, want)
		}
	}
}

// TestJudgesTiers is what is compared with judges, without the best instructions that the processor has.
func TestJudgesTiers(t *testing.T) {
	tiers.Again(t, "^Test(ProductJudges|Judges|ProductsAgainstModel)$")
}
