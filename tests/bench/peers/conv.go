// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"npuemu/core"
	"npuemu/core/isa"
)

// layer is a convolution of a network, and how often it has it. Images and windows are square, padding is half a window.
type layer struct {
	in, cin, cout, kernel, step, count int
	depthwise                          bool
}

// networks are their convolutions for one image of 224×224.
var networks = []struct {
	name   string
	layers []layer
}{
	{"ResNet-50", []layer{
		{224, 3, 64, 7, 2, 1, false},
		{56, 64, 64, 1, 1, 1, false}, {56, 64, 64, 3, 1, 3, false}, {56, 64, 256, 1, 1, 4, false}, {56, 256, 64, 1, 1, 2, false},
		{56, 256, 128, 1, 1, 1, false}, {56, 128, 128, 3, 2, 1, false}, {28, 128, 128, 3, 1, 3, false}, {28, 128, 512, 1, 1, 4, false},
		{28, 512, 128, 1, 1, 3, false}, {56, 256, 512, 1, 2, 1, false},
		{28, 512, 256, 1, 1, 1, false}, {28, 256, 256, 3, 2, 1, false}, {14, 256, 256, 3, 1, 5, false}, {14, 256, 1024, 1, 1, 6, false},
		{14, 1024, 256, 1, 1, 5, false}, {28, 512, 1024, 1, 2, 1, false},
		{14, 1024, 512, 1, 1, 1, false}, {14, 512, 512, 3, 2, 1, false}, {7, 512, 512, 3, 1, 2, false}, {7, 512, 2048, 1, 1, 3, false},
		{7, 2048, 512, 1, 1, 2, false}, {14, 1024, 2048, 1, 2, 1, false},
	}},
	{"MobileNetV2", []layer{
		{224, 3, 32, 3, 2, 1, false}, {112, 32, 32, 3, 1, 1, true}, {112, 32, 16, 1, 1, 1, false},
		{112, 16, 96, 1, 1, 1, false}, {112, 96, 96, 3, 2, 1, true}, {56, 96, 24, 1, 1, 1, false},
		{56, 24, 144, 1, 1, 2, false}, {56, 144, 144, 3, 1, 1, true}, {56, 144, 24, 1, 1, 1, false}, {56, 144, 144, 3, 2, 1, true}, {28, 144, 32, 1, 1, 1, false},
		{28, 32, 192, 1, 1, 3, false}, {28, 192, 192, 3, 1, 2, true}, {28, 192, 32, 1, 1, 2, false}, {28, 192, 192, 3, 2, 1, true}, {14, 192, 64, 1, 1, 1, false},
		{14, 64, 384, 1, 1, 4, false}, {14, 384, 384, 3, 1, 4, true}, {14, 384, 64, 1, 1, 3, false}, {14, 384, 96, 1, 1, 1, false},
		{14, 96, 576, 1, 1, 3, false}, {14, 576, 576, 3, 1, 2, true}, {14, 576, 96, 1, 1, 2, false}, {14, 576, 576, 3, 2, 1, true}, {7, 576, 160, 1, 1, 1, false},
		{7, 160, 960, 1, 1, 3, false}, {7, 960, 960, 3, 1, 3, true}, {7, 960, 160, 1, 1, 2, false}, {7, 960, 320, 1, 1, 1, false}, {7, 320, 1280, 1, 1, 1, false},
	}},
}

func (l layer) out() int { return (l.in+2*(l.kernel/2)-l.kernel)/l.step + 1 }

func (l layer) groups() int {
	if l.depthwise {
		return l.cin
	}
	return 1
}

func (l layer) ops() float64 {
	return 2 * float64(l.out()*l.out()*l.cout) * float64(l.kernel*l.kernel*l.cin/l.groups())
}

func (l layer) String() string {
	what := fmt.Sprintf("%d×%d", l.kernel, l.kernel)
	if l.depthwise {
		what += " depthwise"
	}
	return fmt.Sprintf("%s/%d, %d → %d, %d²", what, l.step, l.cin, l.cout, l.out())
}

// program computes l again and again, with BIAS and REQUANT for each channel, and stores a stamp each time.
func (l layer) program(times int) (image []byte, cfg core.Config, bytes int) {
	size := l.out()
	align := func(n int) int { return (n + 63) &^ 63 }
	a := 0
	b := align(l.in * l.in * l.cin)
	bias := b + align(l.kernel*l.kernel*l.cin/l.groups()*l.cout)
	params := bias + align(4*l.cout)
	bytes = params + align(8*l.cout)
	out := bytes
	end, acc := out+size*size*l.cout, 4*size*size*l.cout
	text := []isa.Instruction{
		isa.Load{NX: uint32(bytes), NY: 1, NZ: 1},
		isa.Operands{AStride: uint32(l.cin), BStride: uint32(l.cout), AccStride: uint32(4 * l.cout)},
		isa.Window{
			KernelH: uint8(l.kernel), KernelW: uint8(l.kernel), StepY: uint8(l.step), StepX: uint8(l.step), DilationY: 1, DilationX: 1,
			Groups: uint16(l.groups()), PadTop: uint16(l.kernel / 2), PadLeft: uint16(l.kernel / 2),
		},
		isa.Loop{Count: uint32(times)},
		isa.Bias{N: uint16(l.cout), M: uint32(size * size), AccStride: uint16(4 * l.cout), Bias: uint32(bias)},
		isa.Conv{
			Accumulate: true, InH: uint16(l.in), InW: uint16(l.in), OutH: uint16(size), OutW: uint16(size), Cin: uint16(l.cin), Cout: uint16(l.cout),
			A: uint32(a), B: uint32(b), Line: uint32(l.in * l.cin),
		},
		isa.Requant{
			N: uint16(l.cout), AccStride: uint16(4 * l.cout), Out: uint32(out), Params: uint32(params), PerChannel: true,
			MX: uint16(size), MY: uint16(size), OutStrideX: uint16(l.cout), OutStrideY: uint16(size * l.cout), Lo: -128, Hi: 127, Rounding: isa.FloatScale,
		},
		isa.Stamp{Binding: 1},
		isa.End{},
	}
	cfg = core.Config{Rows: 32, Cols: 32, SpadSize: end, AccSize: acc, ISAMinor: isa.Minor, Features: isa.Features}
	return program(text, end, acc, 2), cfg, bytes
}

// stamps is a memory that notes how long it takes from one store to the next.
type stamps struct {
	in    []byte
	last  time.Time
	least time.Duration
}

func (s *stamps) Load(_ core.Binding, off uint64, p []byte) error {
	copy(p, s.in[off:])
	return nil
}

func (s *stamps) Store(core.Binding, uint64, []byte) error {
	now := time.Now()
	if !s.last.IsZero() {
		s.least = min(s.least, now.Sub(s.last))
	}
	s.last = now
	return nil
}

// compareNetworks measures convolutions with bias and requantization beside oneDNN's and prints a row for each, and for
// each network the geometric mean over its convolutions.
func compareNetworks(ctx context.Context, p *peer, threads int) error {
	const bar = 1.0
	fmt.Printf("\n| convolution, int8 with bias and scales of channels → int8; s8s8s8 | times | threads | ours, µs | oneDNN, µs | ours, Gop/s | ratio of the best | median of the rounds' |\n|---|---|---|---|---|---|---|---|\n")
	for _, network := range networks {
		logs, count, us, them := 0.0, 0, 0.0, 0.0
		for _, l := range network.layers {
			our, their, median, err := compareLayer(ctx, p, l, threads)
			if err != nil {
				return err
			}
			fmt.Printf("| %v | %d | %d | %.1f | %.1f | %.0f | **%.2f×** | %.2f× |\n", l, l.count, threads, our*1e6, their*1e6, l.ops()/our/1e9, their/our, median)
			logs += float64(l.count) * math.Log(their/our)
			count += l.count
			us, them = us+float64(l.count)*our, them+float64(l.count)*their
		}
		mean := math.Exp(logs / float64(count))
		fmt.Printf("| %s, %d convolutions: geometric mean | | %d | %.0f in all | %.0f in all | | **%.2f×** (≥ %.2f×: %s); of the sums %.2f× | |\n",
			network.name, count, threads, us*1e6, them*1e6, mean, bar, verdict(mean, bar), them/us)
	}
	return nil
}

// compareLayer returns the best times of both in seconds, and the median over the rounds of the ratios.
func compareLayer(ctx context.Context, p *peer, l layer, threads int) (our, their, median float64, err error) {
	times := max(3, repeats(l.ops()))
	image, cfg, bytes := l.program(times)
	cfg.Threads = threads
	c, err := core.New(cfg)
	if err != nil {
		return 0, 0, 0, err
	}
	defer c.Close()
	m := &stamps{in: make([]byte, bytes)}
	for i := range m.in {
		m.in[i] = byte(0x30 + i%13)
	}
	at := (l.in*l.in*l.cin + 63) &^ 63
	at += (l.kernel*l.kernel*l.cin/l.groups()*l.cout + 63) &^ 63
	at += (4*l.cout + 63) &^ 63
	for i := range l.cout {
		binary.LittleEndian.PutUint64(m.in[at+8*i:], uint64(math.Float32bits(1.0/4096))) // scales of fp32, as the peer's
	}
	bindings := []core.Binding{{Size: uint64(bytes), Read: true}, {Size: isa.StampSize, Write: true}}
	our, their = math.Inf(1), math.Inf(1)
	var ratios []float64
	for range max(3, *rounds/2) {
		answer, err := p.ask(fmt.Sprintf("conv %d %d %d %d %d %d %d %d", l.in, l.cin, l.cout, l.kernel, l.step, l.groups(), threads, times))
		if err != nil {
			return 0, 0, 0, err
		}
		them, err := strconv.ParseFloat(answer, 64)
		if err != nil {
			return 0, 0, 0, err
		}
		m.last, m.least = time.Time{}, time.Hour
		if _, err := c.Run(ctx, image, bindings, m); err != nil {
			return 0, 0, 0, err
		}
		us := m.least.Seconds()
		our, their = min(our, us), min(their, them)
		ratios = append(ratios, them/us)
	}
	slices.Sort(ratios)
	return our, their, ratios[len(ratios)/2], nil
}
