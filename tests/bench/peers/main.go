// SPDX-License-Identifier: Apache-2.0

// Command peers measures package gemm, convolutions of the core and whole commands of a card beside oneDNN: both multiply in turns, in
// short bursts, so that what the machine does meanwhile hits both (docs/performance.md).
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"npuemu/core/gemm"
	"npuemu/tests/bench/machine"
)

// kind is what is compared with which of oneDNN's products.
type kind struct {
	name, peer string
	types      string  // in the table
	bar        float64 // 0: none
	typ        gemm.Type
	float      bool
}

var kinds = []kind{
	{name: "s8", peer: "s8", types: "int8 × int8 → int32; s8s8s32", bar: 1.20},
	{name: "u8", peer: "u8", types: "int8 × int8 → int32; u8s8s32", bar: 0.95},
	{name: "f32", peer: "f32", types: "binary32; f32", bar: 0.85, typ: gemm.Float32, float: true},
	{name: "bf16", peer: "bf16", types: "bf16 → binary32; bf16", bar: 4, typ: gemm.BFloat16, float: true},
	{name: "fp16", peer: "bf16", types: "fp16 → binary32; bf16", bar: 4, typ: gemm.Float16, float: true},
	{name: "e4m3", peer: "bf16", types: "fp8 E4M3 → binary32; bf16", bar: 4, typ: gemm.E4M3, float: true},
	{name: "e5m2", peer: "bf16", types: "fp8 E5M2 → binary32; bf16", bar: 4, typ: gemm.E5M2, float: true},
}

var (
	kindNames = flag.String("kinds", "s8,u8,f32,bf16,fp16,e4m3,e5m2,device,conv", "what to compare, `names` with commas; device: whole commands, conv: the convolutions of two networks")
	sizes     = flag.String("sizes", "512,1024,2048,4096", "M = N = K, `numbers` with commas")
	threads   = flag.String("threads", "1,2", "numbers of threads, with commas")
	rounds    = flag.Int("rounds", 20, "times that each product has its turn")
	burst     = flag.Duration("burst", 15*time.Millisecond, "length of a turn; at least one product")
	dir       = flag.String("dir", "tests/bench/peers", "`directory` of this program")
)

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: peers [flags]\n\nMultiplies with oneDNN and with package gemm in turns and prints a table of the best of each.\nThe first run fetches oneDNN (11 MB) into the cache. Flags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-products:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if flag.NArg() > 0 || *rounds < 1 {
		return errors.New("no arguments are expected, and at least one round; see -help")
	}
	p, err := startPeer(ctx, "")
	if err != nil {
		return err
	}
	defer p.stop()
	without := p
	if machine.Has("avx512_bf16") {
		if without, err = startPeer(ctx, "AVX512_CORE_VNNI"); err != nil {
			return err
		}
		defer without.stop()
	}
	version, err := p.ask("version")
	if err != nil {
		return err
	}
	fmt.Printf("%s; oneDNN %s beside %s, tier %s; %d rounds of %v; load %s\n\n", machine.Processor(), version, "core/gemm", tierName(), *rounds, *burst, machine.Load())
	if without != p {
		fmt.Print("The processors have bf16 instructions, which the bar of the narrow types is not of: oneDNN has its turns without them (ONEDNN_MAX_CPU_ISA=AVX512_CORE_VNNI) and, for bf16, with them.\n\n")
	}
	fmt.Println("| what; oneDNN's | threads | size | ours, Gop/s | oneDNN | ratio of the best | median of the rounds' | of the VPDPBUSD or FMA peak | bar | |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	ns, err := numbers(*sizes)
	if err != nil {
		return err
	}
	ts, err := numbers(*threads)
	if err != nil {
		return err
	}
	for _, t := range ts {
		e := gemm.New(t)
		defer e.Close()
		for _, name := range strings.Split(*kindNames, ",") {
			switch name {
			case "device":
				if err := compareDevice(ctx, p, t); err != nil {
					return err
				}
				continue
			case "conv":
				continue
			}
			i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
			if i < 0 {
				return fmt.Errorf("-kinds: %q is not one of them", name)
			}
			for _, n := range ns {
				k, their := kinds[i], p
				if k.peer == "bf16" {
					their = without
				}
				if err := compare(ctx, their, e, k, n, t); err != nil {
					return err
				}
				if k.name == "bf16" && without != p {
					k.types, k.bar = "bf16 → binary32; bf16 by bf16 instructions", 0
					if err := compare(ctx, p, e, k, n, t); err != nil {
						return err
					}
				}
			}
		}
	}
	if slices.Contains(strings.Split(*kindNames, ","), "conv") {
		for _, t := range ts {
			if err := compareNetworks(ctx, p, t); err != nil {
				return err
			}
		}
	}
	fmt.Printf("\nload %s\n", machine.Load())
	return nil
}

// compare measures products of n×n×n and prints their row.
func compare(ctx context.Context, p *peer, e *gemm.Engine, k kind, n, threads int) error {
	multiply := product(e, k, n)
	ops := 2 * float64(n) * float64(n) * float64(n)
	var our, their, top float64
	var ratios []float64
	// Products that take seconds get fewer turns.
	for range max(min(3, *rounds), int(float64(*rounds)/(1+ops/20e9))) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		reach, err := p.measure("peak", 512, threads, 2)
		if err != nil {
			return err
		}
		them, err := p.measure(k.peer, n, threads, repeats(ops))
		if err != nil {
			return err
		}
		us := 0.0
		for range repeats(ops) {
			from := time.Now()
			multiply()
			us = max(us, ops/time.Since(from).Seconds()/1e9)
		}
		our, their, top = max(our, us), max(their, them), max(top, reach)
		ratios = append(ratios, us/them)
	}
	slices.Sort(ratios)
	if k.float {
		top /= 4 // as many lanes, one multiplication in each instead of four
	}
	bar, met := "–", ""
	if k.bar > 0 {
		bar, met = fmt.Sprintf("≥ %.2f×", k.bar), verdict(our/their, k.bar)
	}
	fmt.Printf("| %s | %d | %d³ | %.0f | %.0f | **%.2f×** | %.2f× | %.0f %% of %.0f | %s | %s |\n",
		k.types, threads, n, our, their, our/their, ratios[len(ratios)/2], 100*our/top, top, bar, met)
	return nil
}

// verdict says whether a ratio reaches its bar.
func verdict(ratio, bar float64) string {
	if ratio < bar {
		return "**missed**"
	}
	return "met"
}

// repeats is how many products of ops operations make a burst, at 200 Gop/s.
func repeats(ops float64) int { return max(1, int(burst.Seconds()*200e9/ops)) }

// product returns a function that multiplies n×n by n×n, the weights packed before.
func product(e *gemm.Engine, k kind, n int) func() {
	w := new(gemm.Weights)
	size := 1
	if k.float {
		size = k.typ.Size()
	}
	a, b := make([]byte, n*n*size), make([]byte, n*n*size)
	for i := range a { // small normal numbers of every type; c/onednn.c takes the same
		a[i], b[i] = byte(0x30+i%13), byte(0x30+i%13)
	}
	if !k.float {
		e.PackInt8(w, b, n, n, n)
		p := gemm.Int8{A: a, AStride: n, M: n, C: make([]int32, n*n), CStride: n}
		return func() { e.MulInt8(w, p) }
	}
	e.PackFloat(w, k.typ, b, n*size, n, n)
	p := gemm.Float{Type: k.typ, A: a, AStride: n * size, M: n, C: make([]float32, n*n), CStride: n}
	return func() { e.MulFloat(w, p) }
}

func tierName() string {
	e := gemm.New(1)
	defer e.Close()
	return e.Tier()
}

func numbers(list string) ([]int, error) {
	var n []int
	for _, s := range strings.Split(list, ",") {
		i, err := strconv.Atoi(s)
		if err != nil || i < 1 {
			return nil, fmt.Errorf("%q is not a list of numbers", list)
		}
		n = append(n, i)
	}
	return n, nil
}

// peer is the program that calls oneDNN.
type peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startPeer starts oneDNN's program, with no instructions beyond isa if that is not empty.
func startPeer(ctx context.Context, isa string) (*peer, error) {
	setup := exec.CommandContext(ctx, *dir+"/c/setup.sh")
	setup.Stderr = os.Stderr
	line, err := setup.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", setup.Path, err)
	}
	command := strings.Fields(string(line))
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	// Threads of OpenMP that spin would take our turns from us.
	cmd.Env = append(os.Environ(), "OMP_WAIT_POLICY=passive", "OMP_DYNAMIC=false")
	if isa != "" {
		cmd.Env = append(cmd.Env, "ONEDNN_MAX_CPU_ISA="+isa)
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &peer{cmd, in, bufio.NewReader(out)}, nil
}

func (p *peer) stop() {
	_ = p.in.Close() // the end of its input ends it
	_ = p.cmd.Wait() // its answers have been read
}

// ask sends a line and returns the answer.
func (p *peer) ask(line string) (string, error) {
	if _, err := fmt.Fprintln(p.in, line); err != nil {
		return "", err
	}
	answer, err := p.out.ReadString('\n')
	if err != nil || strings.HasPrefix(answer, "error") {
		return "", fmt.Errorf("oneDNN's program: %s %w", strings.TrimSpace(answer), err)
	}
	return strings.TrimSpace(answer), nil
}

// measure returns the Gop/s of the fastest of repeat products of n×n×n.
func (p *peer) measure(kind string, n, threads, repeat int) (float64, error) {
	answer, err := p.ask(fmt.Sprintf("%s %d %d %d %d %d", kind, n, n, n, threads, repeat))
	if err != nil {
		return 0, err
	}
	seconds, err := strconv.ParseFloat(answer, 64)
	if err != nil {
		return 0, err
	}
	return 2 * float64(n) * float64(n) * float64(n) / seconds / 1e9, nil
}
