// SPDX-License-Identifier: Apache-2.0

package timing

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/core/isa"
	"npuemu/core/num"
	"npuemu/core/systolic"
)

// plain is a card in which nothing but the engines takes time.
func plain(rows, cols int) Config {
	c := config(rows, cols)
	c.Dispatch, c.DRAMLatency, c.Banks, c.BankWidth = 0, 0, 1024, 4096
	return c
}

// program returns text for an 8×8 array with every group.
func program(i ...isa.Instruction) *isa.Program {
	p := &isa.Program{Text: isa.Text(append(i, isa.Halt{})...)}
	p.Descriptor = isa.Descriptor{
		Minor: isa.Minor, Rows: 8, Cols: 8, SpadSize: 1 << 20, AccSize: 1 << 20, Bindings: 4, Features: isa.Features,
	}
	return p
}

func run(t *testing.T, p *isa.Program, c Config) Report {
	t.Helper()
	r, err := Program(context.Background(), p, c, 0)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tok(id uint8) isa.Token { return isa.Token{ID: id, Count: 1} }

// TestTilesAndFormula runs products tile by tile through the event model and
// compares with the closed form: two implementations of §13.3.
func TestTilesAndFormula(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		p := product{m: uint64(r.IntN(40)) + 1, n: uint64(r.IntN(30)) + 1, k: uint64(r.IntN(30)) + 1, groups: 1, passes: 1}
		p.line = p.m
		c := plain(8, 8)
		c.WeightBuffers = r.IntN(2) + 1
		if r.IntN(3) == 0 {
			c.Stream = 8 * (r.IntN(2) + 1)
		}
		var text []isa.Instruction
		for n := uint64(0); n < p.n; n += 8 {
			for k := uint64(0); k < p.k; k += 8 {
				text = append(text,
					isa.Preload{K: uint16(min(8, p.k-k)), N: uint16(min(8, p.n-n)), Stride: 8},
					isa.Matmul{K: uint16(min(8, p.k-k)), N: uint16(min(8, p.n-n)), MX: uint16(p.m), MY: 1, StrideX: 8, AccStride: 32})
			}
		}
		want := p.time(&c, WeightStationary)
		got := run(t, program(text...), c)
		if got.Cycles != want.busy+want.tail || got.MACs != p.m*p.n*p.k {
			t.Fatalf("%+v, %d buffers, stream %d: %d cycles, %d multiply-accumulates; the formula says %d, %d",
				p, c.WeightBuffers, c.Stream, got.Cycles, got.MACs, want.busy+want.tail, p.m*p.n*p.k)
		}
		whole := run(t, program(
			isa.Operands{A: systolic.Int8, B: systolic.Int8, AStride: 32, BStride: 32, AccStride: 128},
			isa.Gemm{M: uint32(p.m), N: uint32(p.n), K: uint32(p.k)}), c)
		if whole.Cycles != got.Cycles || whole.MACs != got.MACs {
			t.Fatalf("%+v: GEMM takes %d cycles, its tiles %d", p, whole.Cycles, got.Cycles)
		}
	}
}

func TestProgram(t *testing.T) {
	load := func(nx uint32, wait, signal isa.Token) isa.Load {
		return isa.Load{NX: nx, NY: 1, NZ: 1, Wait: wait, Signal: signal}
	}
	store := func(nx uint32, wait, signal isa.Token) isa.Store {
		return isa.Store(isa.Load{Binding: 1, NX: nx, NY: 1, NZ: 1, Wait: wait, Signal: signal})
	}
	var none isa.Token
	slow := func(c *Config) { c.DRAMLatency = 100 }
	for _, tt := range []struct {
		name   string
		change func(*Config)
		text   []isa.Instruction
		cycles uint64
		stalls map[Cause]uint64 // of all engines
	}{
		{"nothing", nil, nil, 1, nil},
		{"a load", nil, []isa.Instruction{load(3200, none, none)}, 100, nil},
		{"a burst at least", nil, []isa.Instruction{load(1, none, none)}, 2, nil},
		{"latency", slow, []isa.Instruction{load(3200, none, none)}, 200, nil},
		{"latency overlaps", slow, []isa.Instruction{load(3200, none, none), load(3200, none, none)}, 300, nil},
		{"rows with gaps", nil, []isa.Instruction{isa.Load{NX: 32, NY: 10, NZ: 1, StrideY: 64, LocalStride: 32}}, 20, nil},
		{"rows without gaps", nil, []isa.Instruction{isa.Load{NX: 32, NY: 10, NZ: 1, StrideY: 32, LocalStride: 32}}, 10, nil},
		{"store waits for load", slow, []isa.Instruction{load(3200, none, tok(1)), store(3200, tok(1), none)}, 400, map[Cause]uint64{OnLoad: 200}},
		{
			"load and store share memory", nil,
			[]isa.Instruction{load(3200, none, none), store(3200, none, none)},
			200, map[Cause]uint64{OnMemory: 200},
		},
		{"dispatch", func(c *Config) { c.Dispatch = 10 }, []isa.Instruction{isa.Sync{Engine: isa.ClassLoad}, isa.Sync{Engine: isa.ClassLoad}, load(3200, none, none)}, 120, map[Cause]uint64{OnDispatch: 20}},
		{
			"scratchpad is shared", func(c *Config) { c.Banks, c.BankWidth = 1, 4 },
			[]isa.Instruction{load(3200, none, none)},
			800, map[Cause]uint64{OnScratchpad: 700},
		},
		{
			"sync signals after what is before it", slow,
			[]isa.Instruction{load(3200, none, none), isa.Sync{Engine: isa.ClassLoad, Signal: tok(2)}, store(3200, tok(2), none)},
			400, map[Cause]uint64{OnLoad: 200},
		},
		{
			"weights in time", nil,
			[]isa.Instruction{isa.Preload{K: 8, N: 8, Stride: 8}, isa.Matmul{K: 8, N: 8, MX: 20, MY: 1, StrideX: 8, AccStride: 32}},
			8 + 20 + 14, map[Cause]uint64{OnWeights: 8},
		},
		{
			"PRELOAD signals no earlier than the MATMUL before it", nil,
			[]isa.Instruction{
				isa.Matmul{K: 8, N: 8, MX: 100, MY: 1, StrideX: 8, AccStride: 32}, isa.Preload{K: 8, N: 8, Stride: 8, Signal: tok(3)},
				store(3200, tok(3), none),
			},
			114 + 100, map[Cause]uint64{OnMatrix: 114},
		},
		{
			"vector engine", nil,
			[]isa.Instruction{isa.Fill{NX: 320, NY: 10, Stride: 320}, isa.Element{Op: isa.ElemExp, Type: systolic.FP32, OutType: systolic.FP32, M: 10, N: 80, XStride: 320, OutStride: 320}},
			10*10 + 10*10*8 + vectorTail, nil,
		},
		{
			"images", nil,
			[]isa.Instruction{
				isa.Image{InH: 4, InW: 4, OutH: 2, OutW: 2, XLine: 64, OutLine: 32, XPixel: 16, OutPixel: 16},
				isa.Pool{N: 16, Out: 512, KernelH: 2, KernelW: 2, StepY: 2, StepX: 2, DilationY: 1, DilationX: 1},
				isa.Resize{N: 16, Out: 512, Mode: isa.ResizeLinear, MulY: 0x40000000, MulX: 0x40000000},
				isa.Resize{N: 16, Out: 512, MulY: 0x40000000, MulX: 0x40000000},
			},
			4*2*4 + 4*2*4 + 4*2 + vectorTail, nil,
		},
		{
			"quantized tensors", nil,
			[]isa.Instruction{
				isa.Scales{XShift: 1, YShift: 1, SShift: 1}, isa.Addq{Y: 512, Out: 1024, M: 4, N: 16, XStride: 16, YStride: 16, OutStride: 16},
				isa.Addq{Op: isa.AddqMul, Y: 512, Out: 1024, M: 4, N: 16, XStride: 16, YStride: 16, OutStride: 16},
			},
			4*2*3 + 4*2*2 + vectorTail, nil,
		},
		{
			"wide elements take more passes", nil,
			[]isa.Instruction{
				isa.Operands{A: systolic.FP32, B: systolic.BF16, AStride: 32, BStride: 16, AccStride: 32},
				isa.Gemm{M: 20, N: 8, K: 8},
			},
			4*8 + 4*20 + 14, nil,
		},
		{
			"two halves of a buffer", nil,
			[]isa.Instruction{ // loads of the second and third tile hide behind products
				load(3200, none, tok(1)), load(3200, none, tok(1)), load(3200, tok(2), tok(1)),
				isa.Operands{AStride: 8, BStride: 8, AccStride: 32},
				isa.Gemm{M: 200, N: 8, K: 8, Wait: tok(1), Signal: tok(2)},
				isa.Gemm{M: 200, N: 8, K: 8, Wait: tok(1), Signal: tok(2)},
				isa.Gemm{M: 200, N: 8, K: 8, Wait: tok(1), Signal: tok(2)},
			},
			100 + 3*208 + 14, map[Cause]uint64{OnLoad: 100, OnMatrix: 122},
		},
	} {
		c := plain(8, 8)
		if tt.change != nil {
			tt.change(&c)
		}
		r := run(t, program(tt.text...), c)
		stalls := map[Cause]uint64{}
		for _, e := range r.Engines {
			for cause, n := range e.Stalls {
				if n > 0 {
					stalls[Cause(cause)] += n
				}
			}
			if e.Busy > r.Cycles {
				t.Errorf("%s: an engine is busy for %d of %d cycles", tt.name, e.Busy, r.Cycles)
			}
		}
		if tt.stalls == nil {
			tt.stalls = map[Cause]uint64{}
		}
		if diff := cmp.Diff(tt.stalls, stalls); r.Cycles != tt.cycles || diff != "" {
			t.Errorf("%s: %d cycles, want %d; stalls (-want +got):\n%s", tt.name, r.Cycles, tt.cycles, diff)
		}
	}
}

// TestEveryInstruction: each instruction of the matrix and the vector engine has a cost
// of its own, but for those that only say how others work.
func TestEveryInstruction(t *testing.T) {
	c := config(8, 8)
	s := isa.Setup{Window: isa.Window{Groups: 1}}
	free := map[isa.Opcode]bool{
		isa.OpOperands: true, isa.OpWindow: true, isa.OpImage: true, isa.OpShape: true, isa.OpBlocks: true, isa.OpSparse: true, isa.OpScales: true,
		isa.OpSyncMatrix: true, isa.OpSyncVector: true,
	}
	seen := 0
	for op := isa.Opcode(isa.ClassMatrix) << 4; op < 0x60; op++ {
		i, v := isa.Decode(&isa.Word{byte(op)})
		if v != nil {
			continue
		}
		seen++
		if k := c.engine(i, &s, 0); (k.unit == unitLoad) != free[op] {
			t.Errorf("opcode %#x (%T): unit %d", op, i, k.unit)
		}
	}
	if seen < 20 {
		t.Errorf("%d instructions", seen)
	}
}

func TestBus(t *testing.T) {
	c := plain(8, 8)
	c.BusLatency = 500
	p := program(isa.Load{Binding: 2, NX: 1600, NY: 1, NZ: 1}, isa.Store{Binding: 0, NX: 64, NY: 1, NZ: 1})
	r, err := Program(context.Background(), p, c, 1<<2)
	if err != nil || r.Cycles != 600 || r.Bus != 1600 || r.DRAM != 64 || r.Loaded != 1600 || r.Stored != 64 {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestStamps(t *testing.T) {
	c := plain(8, 8)
	p := program(
		isa.Stamp{ID: 1},
		isa.Load{NX: 3200, NY: 1, NZ: 1, Signal: tok(1)},
		isa.Stamp{ID: 2, Offset: 16, Wait: tok(1)},
		isa.Loop{Count: 3, Step: 1}, isa.Fill{NX: 320, NY: 10, Stride: 320, Signal: tok(2)}, isa.Stamp{ID: 3, Wait: tok(2)}, isa.End{})
	r := run(t, p, c)
	if len(r.Stamps) != 5 || r.Stamps[0] != 0 || r.Stamps[1] != 102 {
		t.Fatalf("times %v", r.Stamps)
	}
	for i := 1; i < len(r.Stamps); i++ {
		if r.Stamps[i] < r.Stamps[i-1] {
			t.Errorf("times %v go back", r.Stamps)
		}
	}
	if r.Instructions != 1+1+1+6+1 || r.Engines[1].Instructions != 5 {
		t.Errorf("%d instructions, %d stores", r.Instructions, r.Engines[1].Instructions)
	}
}

func TestProgramErrors(t *testing.T) {
	noHalt := program()
	noHalt.Text = isa.Text(isa.Sync{Engine: isa.ClassLoad})
	far := program(isa.Load{NX: 1 << 21, NY: 1, NZ: 1})
	for _, tt := range []struct {
		name, want string
		p          *isa.Program
	}{
		{"no halt", "NO_HALT", noHalt},
		{"deadlock", "instruction 0 waits for token 5 for ever (DEADLOCK, §5.7)", program(isa.Sync{Engine: isa.ClassLoad, Wait: tok(5)})},
		{"bounds", "instruction 0: ", far},
		{"binding", "binding", program(isa.Load{Binding: 9, NX: 1, NY: 1, NZ: 1})},
		{"loop", "instruction 0: ", program(isa.End{})},
	} {
		if _, err := Program(context.Background(), tt.p, config(8, 8), 0); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Program(ctx, program(isa.Load{NX: 1, NY: 1, NZ: 1}), config(8, 8), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context ended: %v", err)
	}
}

// TestBursts counts one by one.
func TestBursts(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		offset, row := uint64(r.IntN(200)), uint64(r.IntN(300)+1)
		strideY, strideZ := uint64(r.IntN(400)), uint64(r.IntN(400))
		ny, nz, burst := uint64(r.IntN(100)+1), uint64(r.IntN(100)+1), uint64(r.IntN(70)+1)
		var want uint64
		for z := range nz {
			for y := range ny {
				at := offset + z*strideZ + y*strideY
				want += (at+row-1)/burst - at/burst + 1
			}
		}
		if got := bursts(offset, row, strideY, strideZ, ny, nz, burst); got != want {
			t.Fatalf("offset %d, row %d, strides %d %d, %d×%d, burst %d: %d, want %d", offset, row, strideY, strideZ, ny, nz, burst, got, want)
		}
	}
}

// FuzzProgram has no program that stops the model, or makes a part of the card
// faster than it is.
func FuzzProgram(f *testing.F) {
	f.Add(program(isa.Load{NX: 3200, NY: 1, NZ: 1, Signal: tok(1)}, isa.Store{Binding: 1, NX: 64, NY: 1, NZ: 1, Wait: tok(1)}).Text)
	f.Add(program(isa.Loop{Count: 3, Step: 1}, isa.Preload{K: 8, N: 8, Stride: 8}, isa.Matmul{K: 8, N: 8, MX: 20, MY: 1, StrideX: 8, AccStride: 32}, isa.End{}).Text)
	f.Fuzz(func(t *testing.T, text []byte) {
		p := program()
		p.Text = text[:len(text)/isa.Size*isa.Size]
		r, err := Program(context.Background(), p, config(8, 8), 0)
		if err != nil {
			return
		}
		if u := r.Utilization(config(8, 8)); u > 1 || r.DRAM > r.Cycles*32 {
			t.Errorf("utilization %v, %d bytes in %d cycles", u, r.DRAM, r.Cycles)
		}
		if r.Instructions < 1<<12 {
			observe(t, p, config(8, 8), 0)
		}
	})
}

func BenchmarkProgram(b *testing.B) {
	p := program(isa.Loop{Count: 1000, Step: 1},
		isa.Load{NX: 3200, NY: 1, NZ: 1, Signal: tok(1)}, isa.Preload{K: 8, N: 8, Stride: 8, Wait: tok(1)},
		isa.Matmul{K: 8, N: 8, MX: 200, MY: 1, StrideX: 8, AccStride: 32, Signal: tok(2)},
		isa.Requant{N: 8, AccStride: 32, MX: 20, MY: 1, OutStrideX: 8, Hi: 1, Wait: tok(2), Signal: tok(3)},
		isa.Store{Binding: 1, NX: 64, NY: 1, NZ: 1, Wait: tok(3)}, isa.End{})
	c := config(8, 8)
	for b.Loop() {
		if _, err := Program(context.Background(), p, c, 0); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/5000, "ns/instruction")
}

// patience is a context that has ended when it is asked for the nth time.
type patience struct {
	context.Context
	n int
}

func (p *patience) Err() error {
	if p.n--; p.n <= 0 {
		return context.Canceled
	}
	return nil
}

// The end of the context is seen among instructions that take no time at all, too.
func TestInterrupted(t *testing.T) {
	p := program(isa.Loop{Count: 1 << 17}, isa.Sync{Engine: isa.ClassLoad}, isa.End{})
	if _, err := Program(&patience{context.Background(), 10}, p, plain(8, 8), 0); !errors.Is(err, context.Canceled) {
		t.Errorf("Program: %v, want context.Canceled", err)
	}
}

// TestSparseAndBlocks has what SPARSE and BLOCKS cost (§13.4.5): k is 64, in tiles of 8 rows.
func TestSparseAndBlocks(t *testing.T) {
	dense := isa.Operands{A: systolic.Int8, B: systolic.Int8, AStride: 64, BStride: 64, AccStride: 64}
	sparse := isa.Sparse{On: true, Indices: 4096, IndexStride: 16}
	os := dense
	os.OutputStationary = true
	int4 := dense
	int4.B = systolic.Int4
	mx := isa.Operands{A: systolic.E4M3, B: systolic.E4M3, AStride: 64, BStride: 64, AccStride: 64, TransposeB: true}
	wide := mx
	wide.A, wide.AStride = systolic.FP32, 256
	blocks := func(a, b num.MX) isa.Blocks {
		i := isa.Blocks{A: a, B: b, BScales: 5120, BScaleStride: 2}
		if a != num.NotMX {
			i.AScales, i.AScaleStride = 4096, 2
		}
		return i
	}
	window := isa.Window{KernelH: 2, KernelW: 2, StepY: 1, StepX: 1, DilationY: 1, DilationX: 1, Groups: 1}
	gemm := isa.Gemm{M: 20, N: 16, K: 64, A: 8192, B: 16384}
	conv := isa.Conv{InH: 3, InW: 5, Cin: 16, OutH: 2, OutW: 4, Cout: 16, A: 8192, B: 16384, Line: 5 * 64}
	for _, tt := range []struct {
		name    string
		text    []isa.Instruction
		cycles  uint64 // without the skew, 14
		scratch uint64
	}{
		{"dense", []isa.Instruction{dense, gemm}, 8 + 16*20, 2*20*64 + 64*16},
		{"sparse", []isa.Instruction{dense, sparse, gemm}, 8 + 8*20, 2*20*64 + 32*16 + 16*8},
		{"sparse no longer", []isa.Instruction{dense, sparse, isa.Sparse{}, gemm}, 8 + 16*20, 2*20*64 + 64*16},
		{"output-stationary", []isa.Instruction{os, gemm}, 6 * 64, 2*20*64 + 3*64*16},
		{"output-stationary, sparse", []isa.Instruction{os, sparse, gemm}, 6 * 32, 2*20*64 + 3*(32*16+16*8)},
		{"convolution", []isa.Instruction{dense, window, conv}, 8 + 16*8, 2*8*64 + 64*16},
		{"convolution, sparse", []isa.Instruction{dense, window, sparse, conv}, 8 + 8*8, 2*8*64 + 32*16 + 16*8},
		{"int4", []isa.Instruction{int4, gemm}, 8 + 16*20, 2*20*64 + 64*8},
		{"int4, sparse", []isa.Instruction{int4, sparse, gemm}, 8 + 8*20, 2*20*64 + 32*8 + 16*8},
		{"8 bits", []isa.Instruction{mx, gemm}, 8 + 16*20, 2*20*64 + 64*16},
		{"MXFP8", []isa.Instruction{mx, blocks(num.MXE4M3, num.MXE5M2), gemm}, 8 + 16*20, 2*20*(64+2) + 16*(64+2)},
		{"MXFP6 and MXFP4", []isa.Instruction{mx, blocks(num.MXE3M2, num.MXE2M1), gemm}, 8 + 16*20, 2*20*(48+2) + 16*(32+2)},
		{"fp32 and MXFP4", []isa.Instruction{wide, blocks(num.NotMX, num.MXE2M1), gemm}, 4 * (8 + 16*20), 2*20*256 + 16*(32+2)},
	} {
		c := plain(8, 8)
		p := program(tt.text...)
		r := run(t, p, c)
		macs := uint64(20 * 16 * 64)
		if strings.Contains(tt.name, "convolution") {
			macs = 8 * 16 * 64
		}
		if r.Cycles != tt.cycles+14 || r.MACs != macs {
			t.Errorf("%s: %d cycles and %d multiply-accumulates, want %d and %d", tt.name, r.Cycles, r.MACs, tt.cycles+14, macs)
		}
		// With a byte in a cycle the scratchpad is all that counts; rounding of speeds is below a part in a thousand.
		c.Banks, c.BankWidth = 1, 1
		if got := run(t, p, c).Cycles - 14; got < tt.scratch || got > tt.scratch+tt.scratch/1000+1 {
			t.Errorf("%s: %d cycles with a byte of the scratchpad in each, want %d", tt.name, got, tt.scratch)
		}
	}
}
