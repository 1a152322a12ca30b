// SPDX-License-Identifier: Apache-2.0

// Command vector measures instructions of the vector engine beside the same in C,
// which it compiles with the system's compiler: both take turns, so that what
// the machine does meanwhile hits both (docs/performance.md).
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/core/systolic"
	"npuemu/core/vec"
	"npuemu/tests/bench/machine"
)

// All instructions work on elements elements, in rows of row where rows matter;
// c/kernels.c has the same numbers.
const (
	elements = 65536
	row      = 1024
	channels = 256
)

// copies is how many instructions are between two looks at the clock, which take
// a loop's and a LOAD's time; C has as many.
const copies = 4

// Places in the scratchpad.
const (
	placeA8    = 0
	placeB8    = placeA8 + elements
	placeOut8  = placeB8 + elements
	placeFixed = placeOut8 + elements // REQUANT's parameters
	placeFloat = placeFixed + channels*isa.ParamSize
	placeTable = placeFloat + channels*isa.ParamSize
	placeX     = 1 << 18
	placeY     = placeX + 4*elements
	placeH     = placeY + 4*elements
	placeNorm  = placeH + 2*elements // ε, γ, β
	spadSize   = 1 << 20
	accSize    = 8 * elements
)

// measurement is a row of the table.
type measurement struct {
	name, kernel, text string
	bar                float64 // 0: none
	program            []isa.Instruction
}

var (
	cc     = flag.String("cc", "cc", "the compiler; it gets -O3 -march=native -ffast-math")
	rounds = flag.Int("rounds", 30, "turns of each")
	loops  = flag.Int("loops", 100, "instructions in a turn")
	dir    = flag.String("dir", "tests/bench/vector", "`directory` of this program")
	only   = flag.String("only", "", "measure those rows alone whose names contain this")
)

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: vector [flags]\n\nExecutes instructions of the vector engine and C kernels in turns and prints a table. Flags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-vector:", err)
		os.Exit(1)
	}
}

func measurements() []measurement {
	acc := func(op isa.ElementOp, i isa.Element) isa.Instruction {
		i.Op, i.M, i.N = op, elements/row, row
		size := func(t systolic.Type) uint16 { return uint16(t.Bytes(row)) }
		i.XStride, i.OutStride = size(i.Type), size(i.OutType)
		if !op.Unary() && !i.One {
			i.YStride = i.XStride
		}
		return i
	}
	requant := isa.Requant{
		N: channels, AccStride: 4 * channels, Out: placeOut8, Params: placeFixed, MX: elements / channels, MY: 1,
		OutStrideX: channels, PerChannel: true, Lo: -128, Hi: 127, ZeroPoint: 3,
	}
	rounding := func(r isa.Rounding, params uint32) isa.Instruction {
		i := requant
		i.Rounding, i.Params = r, params
		return i
	}
	fp := isa.Element{Type: systolic.FP32, OutType: systolic.FP32, X: placeX, Y: placeY, Out: placeY}
	unary := func(op isa.ElementOp) isa.Instruction {
		i := fp
		i.Y = 0
		return acc(op, i)
	}
	norm := func(op isa.NormOp, params uint32) isa.Instruction {
		return isa.Norm{
			Op: op, Type: systolic.FP32, OutType: systolic.FP32, X: placeX, Out: placeY, Params: params,
			M: elements / row, N: row, XStride: 4 * row, OutStride: 4 * row,
		}
	}
	i8 := isa.Element{Type: systolic.Int8, OutType: systolic.Int8, X: placeA8, Y: placeB8, Out: placeOut8}
	inPlace := isa.Element{Type: systolic.Int8, OutType: systolic.Int8, X: placeA8, Out: placeA8}
	addq := isa.Addq{Type: systolic.Int8, X: placeA8, Y: placeB8, Out: placeOut8, M: elements / row, N: row, XStride: row, YStride: row, OutStride: row}
	return []measurement{
		{"REQUANT, one rounding, a scale for each channel", "requant_fixed", "intrinsics", 1.5, []isa.Instruction{rounding(isa.OneRounding, placeFixed)}},
		{"REQUANT, two roundings", "requant_fixed", "one rounding", 1.5, []isa.Instruction{rounding(isa.TwoRoundings, placeFixed)}},
		{"REQUANT, fp32 scale", "requant_float", "loop", 1.5, []isa.Instruction{rounding(isa.FloatScale, placeFloat)}},
		{"ELEMENT relu, int8 in place", "relu", "loop", 1.5, []isa.Instruction{acc(isa.ElemReLU, inPlace)}},
		{"TABLE", "lookup", "loop", 1.5, []isa.Instruction{isa.Table{X: placeA8, Table: placeTable, Out: placeOut8, M: 1, N: elements - 1}}},
		{"residual add of one scale: ELEMENT add, int8", "residual", "loop", 1.5, []isa.Instruction{acc(isa.ElemAdd, i8)}},
		{"residual add of two scales: ADDQ in fp32", "residual_rescaled", "intrinsics, int32", 1.5, []isa.Instruction{
			isa.Scales{Rounding: isa.FloatScale, Lo: -128, Hi: 127, XScale: math.Float32bits(0.7), YScale: math.Float32bits(0.6)}, addq,
		}},
		{"residual add of two scales: ADDQ with two roundings, three times", "residual_rescaled", "one rounding, twice", 1.5, []isa.Instruction{
			isa.Scales{
				Rounding: isa.TwoRoundings, Left: 20, Lo: -128, Hi: 127, XScale: 1 << 30, XShift: 31, YScale: 1840700270, YShift: 32, Scale: 1503238553, SShift: 50,
			}, addq,
		}},
		{"the same, neither scale being a half", "residual_rescaled", "one rounding, twice", 0, []isa.Instruction{
			isa.Scales{
				Rounding: isa.TwoRoundings, Left: 20, Lo: -128, Hi: 127, XScale: 1503238553, XShift: 32, YScale: 1840700270, YShift: 32, Scale: 1503238553, SShift: 50,
			}, addq,
		}},
		{"NORM softmax, fp32", "softmax", "loops", 1.5, []isa.Instruction{norm(isa.Softmax, 0)}},
		{"NORM layer, fp32", "layer_norm", "loops", 1.5, []isa.Instruction{norm(isa.LayerNorm, placeNorm)}},
		{"NORM rms, fp32", "rms_norm", "loops", 0, []isa.Instruction{norm(isa.RMSNorm, placeNorm)}},
		{"ELEMENT exp, fp32", "exp", "loop", 0, []isa.Instruction{unary(isa.ElemExp)}},
		{"ELEMENT sigmoid, fp32", "sigmoid", "loop", 0, []isa.Instruction{unary(isa.ElemSigmoid)}},
		{"ELEMENT add, fp32", "add", "loop", 0, []isa.Instruction{acc(isa.ElemAdd, fp)}},
		{"ELEMENT move, fp32 to int8", "quantize", "loop", 0, []isa.Instruction{acc(isa.ElemMove, isa.Element{Type: systolic.FP32, OutType: systolic.Int8, X: placeX, Out: placeOut8})}},
		{"ELEMENT move, bf16 to fp32", "widen", "loop", 0, []isa.Instruction{acc(isa.ElemMove, isa.Element{Type: systolic.BF16, OutType: systolic.FP32, X: placeH, Out: placeY})}},
		{"REDUCE sum, fp32", "sum", "loop", 0, []isa.Instruction{isa.Reduce{
			Type: systolic.FP32, OutType: systolic.FP32, X: placeX, Out: placeY, M: elements / row, N: row, XStride: 4 * row, OutStride: 4,
		}}},
		{"LOAD of accumulators, without gaps", "copy", "memcpy", 0, []isa.Instruction{isa.Load{Binding: 1, NX: 4 * elements, NY: 1, NZ: 1, Acc: true}}},
	}
}

func run(ctx context.Context) error {
	if flag.NArg() > 0 || *rounds < 1 || *loops < 1 {
		return errors.New("no arguments are expected, and at least one round and loop; see -help")
	}
	p, err := startPeer(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	fmt.Printf("%s; core, tier %s, beside C; %d elements, %d rounds of %d; load %s\n\n", machine.Processor(), vec.New().Tier(), elements, *rounds, *loops, machine.Load())
	fmt.Println("| what | in C | ours, Gelem/s | C, Gelem/s | our time in C's, the best | median of the rounds' | bar | |")
	fmt.Println("|---|---|---|---|---|---|---|---|")
	d, err := newDevice()
	if err != nil {
		return err
	}
	for _, m := range measurements() {
		if strings.Contains(m.name, *only) {
			if err := compare(ctx, p, d, m); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
	}
	fmt.Printf("\nload %s\n", machine.Load())
	return nil
}

// compare measures one row of the table and prints it.
func compare(ctx context.Context, p *peer, d *device, m measurement) error {
	image := d.image(m.program)
	our, their := math.Inf(1), math.Inf(1)
	var ratios []float64
	for range *rounds {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		them, err := p.measure(m.kernel, *loops)
		if err != nil {
			return err
		}
		least, err := d.run(ctx, image)
		if err != nil {
			return err
		}
		us := least.Seconds() / copies
		our, their = min(our, us), min(their, them)
		ratios = append(ratios, us/them)
	}
	slices.Sort(ratios)
	verdict, bar := "", "–"
	if m.bar > 0 {
		bar, verdict = fmt.Sprintf("≤ %.1f×", m.bar), "met"
		if our/their > m.bar {
			verdict = "**missed**"
		}
	}
	fmt.Printf("| %s | %s | %.2f | %.2f | **%.2f×** | %.2f× | %s | %s |\n",
		m.name, m.text, elements/our/1e9, elements/their/1e9, our/their, ratios[len(ratios)/2], bar, verdict)
	return nil
}

// device is a core with the contents of its memories.
type device struct {
	core     *core.Core
	cfg      core.Config
	contents [2][]byte // of the scratchpad and the accumulators, as bindings

	mark  time.Time // of the last mark
	least time.Duration
}

func newDevice() (*device, error) {
	cfg := core.Config{Rows: 16, Cols: 16, SpadSize: spadSize, AccSize: accSize, ISAMinor: isa.Minor, Features: isa.Features}
	c, err := core.New(cfg)
	if err != nil {
		return nil, err
	}
	d := &device{core: c, cfg: cfg, contents: [2][]byte{make([]byte, spadSize), make([]byte, accSize)}}
	rng := rand.New(rand.NewPCG(1, 2))
	spad := d.contents[0]
	word := func(at int, v uint32) { binary.LittleEndian.PutUint32(spad[at:], v) }
	for i := range elements {
		spad[placeA8+i], spad[placeB8+i] = byte(rng.Uint32()), byte(rng.Uint32())
		word(placeX+4*i, math.Float32bits(float32(rng.IntN(20001)-10000)/1000))
		binary.LittleEndian.PutUint16(spad[placeH+2*i:], uint16(0x3f80+rng.IntN(128)))
		binary.LittleEndian.PutUint32(d.contents[1][4*i:], uint32(rng.IntN(200000)-100000))
	}
	for i := range channels {
		word(placeFixed+8*i, 1<<30|rng.Uint32N(1<<24))
		spad[placeFixed+8*i+4] = 41
		word(placeFloat+8*i, math.Float32bits(1/float32(1000+i)))
		spad[placeTable+i] = byte(rng.Uint32())
	}
	word(placeNorm, math.Float32bits(1e-5))
	for i := range row {
		word(placeNorm+4+4*i, math.Float32bits(1+float32(i)*1e-4))
		word(placeNorm+4+4*row+4*i, math.Float32bits(float32(i)*1e-3))
	}
	return d, nil
}

// image is a program that executes in so many times as -loops says, with a mark
// between: a LOAD of one byte, at which Load looks at the clock.
func (d *device) image(in []isa.Instruction) []byte {
	text := []isa.Instruction{
		isa.Load{Binding: 0, NX: spadSize, NY: 1, NZ: 1, Signal: isa.Token{ID: 0, Count: 1}},
		isa.Load{Binding: 1, NX: accSize, NY: 1, NZ: 1, Acc: true, Signal: isa.Token{ID: 0, Count: 1}},
		isa.Sync{Engine: isa.ClassVector, Wait: isa.Token{ID: 0, Count: 2}, Signal: isa.Token{ID: 1, Count: 1}},
		isa.Sync{Engine: isa.ClassLoad, Wait: isa.Token{ID: 1, Count: 1}},
	}
	text = append(text, isa.Loop{Count: uint32(*loops) + 1}, isa.Load{Local: spadSize - 1, NX: 1, NY: 1, NZ: 1})
	for range copies {
		text = append(text, in...)
	}
	text = append(text, isa.End{})
	p := isa.Program{
		Descriptor: isa.Descriptor{
			Minor: isa.Minor, Features: isa.Features, Rows: uint16(d.cfg.Rows), Cols: uint16(d.cfg.Cols),
			SpadSize: spadSize, AccSize: accSize, Bindings: 2,
		},
		Text: isa.Text(append(text, isa.Halt{})...),
	}
	return p.Image()
}

// run returns the shortest time between two marks.
func (d *device) run(ctx context.Context, image []byte) (time.Duration, error) {
	bindings := make([]core.Binding, len(d.contents))
	for i, b := range d.contents {
		bindings[i] = core.Binding{Addr: uint64(i), Size: uint64(len(b)), Read: true}
	}
	d.mark, d.least = time.Time{}, math.MaxInt64
	_, err := d.core.Run(ctx, image, bindings, d)
	return d.least, err
}

// Load implements core.Memory.
func (d *device) Load(b core.Binding, off uint64, p []byte) error {
	copy(p, d.contents[b.Addr][off:])
	if len(p) == 1 {
		now := time.Now()
		if !d.mark.IsZero() {
			d.least = min(d.least, now.Sub(d.mark))
		}
		d.mark = now
	}
	return nil
}

// Store implements core.Memory.
func (d *device) Store(core.Binding, uint64, []byte) error { return errors.New("nothing is stored") }

// peer is the program in C.
type peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	dir string
}

func startPeer(ctx context.Context) (*peer, error) {
	temp, err := os.MkdirTemp("", "bench-vector")
	if err != nil {
		return nil, err
	}
	p := &peer{dir: temp}
	exe := filepath.Join(temp, "kernels")
	build := exec.CommandContext(ctx, *cc, "-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-o", exe, filepath.Join(*dir, "c/kernels.c"), "-lm")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		p.stop()
		return nil, fmt.Errorf("%s: %w", build, err)
	}
	p.cmd = exec.CommandContext(ctx, exe)
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		p.stop()
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		p.stop()
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		p.in = nil
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *peer) stop() {
	if p.in != nil {
		_ = p.in.Close() // the end of its input ends it
		_ = p.cmd.Wait() // its answers have been read
	}
	_ = os.RemoveAll(p.dir) // a temporary directory
}

// measure returns the seconds of the fastest of repeat runs.
func (p *peer) measure(kernel string, repeat int) (float64, error) {
	if _, err := fmt.Fprintln(p.in, kernel, repeat); err != nil {
		return 0, err
	}
	answer, err := p.out.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("the program in C: %w", err)
	}
	seconds, err := strconv.ParseFloat(strings.TrimSpace(answer), 64)
	if err == nil && seconds < 0 {
		err = fmt.Errorf("the program in C does not know %q", kernel)
	}
	return seconds, err
}
