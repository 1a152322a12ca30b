// SPDX-License-Identifier: Apache-2.0

// Command networks runs quantized networks on a card in this process and in ONNX Runtime, in turns, so that what the
// machine does meanwhile hits both (docs/performance.md). tests/bench/networks/bench makes what it needs.
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/npy"
	"npuemu/compiler/run"
	"npuemu/tests/bench/machine"
	card "npuemu/tests/compiler"
	"npuemu/vdev"
)

var (
	dir     = flag.String("dir", "build/models", "`directory` with the models and the Python environment")
	names   = flag.String("names", "resnet50,mobilenetv2", "models, `names` with commas")
	threads = flag.String("threads", "1,2", "numbers of threads, with commas")
	rounds  = flag.Int("rounds", 15, "times that each side has its turn")
	repeat  = flag.Int("repeat", 3, "images of a turn, of which the fastest counts")
	spad    = flag.Int64("scratchpad", 0, "KiB of the card's scratchpad, 0 for the default")
	acc     = flag.Int64("accumulators", 0, "KiB of its accumulators, 0 for the default")
	script  = flag.String("peer", "tests/bench/networks/peer.py", "the `program` that runs ONNX Runtime")
	alone   = flag.Bool("alone", false, "without ONNX Runtime")
	profile = flag.String("cpuprofile", "", "write a profile of our turns to `file`")
)

// bars are ONNX Runtime's time in ours (issue of the compute core).
var bars = map[string]float64{"resnet50": 1, "mobilenetv2": 0.8}

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: networks [flags]\n\nRuns networks on a card and in ONNX Runtime in turns and prints a table. Flags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := bench(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "bench-networks:", err)
		os.Exit(1)
	}
}

func bench(ctx context.Context) error {
	if flag.NArg() > 0 || *rounds < 1 || *repeat < 1 {
		return errors.New("no arguments are expected, and at least one round of one image; see -help")
	}
	var p *peer
	if !*alone {
		var err error
		if p, err = startPeer(ctx); err != nil {
			return err
		}
		defer p.stop()
	}
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // pprof has no error of it either
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Printf("%s; %d rounds of %d images; load %s\n\n", machine.Processor(), *rounds, *repeat, machine.Load())
	fmt.Println("| network | threads | ours, ms | processor time | ONNX Runtime, ms | processor time | speed of the best | median of the rounds' | bar | |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|")
	for _, name := range strings.Split(*names, ",") {
		for _, t := range strings.Split(*threads, ",") {
			n, err := strconv.Atoi(t)
			if err != nil || n < 1 {
				return fmt.Errorf("-threads: %q is not a list of numbers", *threads)
			}
			if err := compare(ctx, p, name, n); err != nil {
				return fmt.Errorf("%s, %d threads: %w", name, n, err)
			}
		}
	}
	fmt.Printf("\nload %s\n", machine.Load())
	return nil
}

// compare measures a network with so many threads and prints its row.
func compare(ctx context.Context, p *peer, name string, threads int) error {
	cfg := vdev.DefaultConfig()
	cfg.Core.Threads = threads
	if *spad > 0 {
		cfg.Array.Scratchpad = *spad << 10
	}
	if *acc > 0 {
		cfg.Array.Accumulators = *acc << 10
	}
	c, err := card.NewCard(ctx, cfg)
	if err != nil {
		return err
	}
	s, x, err := load1(c, filepath.Join(*dir, name))
	if err != nil {
		return errors.Join(err, c.Close())
	}
	our, their := math.Inf(1), math.Inf(1)
	var ratios, ourCPU, theirCPU []float64
	first := []byte(nil)
	for range *rounds {
		them := math.NaN()
		if p != nil {
			var cpu float64
			if them, cpu, err = p.measure(name, threads); err != nil {
				return errors.Join(err, c.Close())
			}
			theirCPU = append(theirCPU, cpu)
		}
		us, cpu := math.Inf(1), processorTime()
		for range *repeat {
			begin := time.Now()
			out, _, err := s.Run(ctx, [][]byte{x}, nil)
			if err != nil {
				return errors.Join(err, c.Close())
			}
			us = min(us, time.Since(begin).Seconds())
			if first == nil {
				first = bytes.Clone(out[0])
			}
			if !bytes.Equal(first, out[0]) {
				return errors.Join(errors.New("two runs have different results"), c.Close())
			}
		}
		ourCPU = append(ourCPU, (processorTime()-cpu)/float64(*repeat))
		our, their = min(our, us), min(their, them)
		ratios = append(ratios, them/us)
	}
	verdict, bar := "", "–"
	if b, ok := bars[name]; ok && p != nil {
		bar = fmt.Sprintf("≥ %.1f×", b)
		if verdict = "met"; their/our < b {
			verdict = "**missed**"
		}
	}
	fmt.Printf("| %s | %d | %.2f | %.2f | %.2f | %.2f | **%.2f×** | %.2f× | %s | %s |\n",
		name, threads, 1000*our, 1000*median(ourCPU), 1000*their, 1000*median(theirCPU), their/our, median(ratios), bar, verdict)
	return c.Close()
}

// load1 compiles the model of base and returns it in c's memory, and the input of base.
func load1(c *card.Card, base string) (*run.Session, []byte, error) {
	file, err := os.ReadFile(base + ".x.npy")
	if err != nil {
		return nil, nil, err
	}
	_, x, err := npy.Read(file, ir.Float32)
	if err != nil {
		return nil, nil, err
	}
	g, err := compiler.Load(base+".onnx", nil)
	if err != nil {
		return nil, nil, err
	}
	m, err := compiler.Build(g, c.Target())
	if err != nil {
		return nil, nil, err
	}
	s, err := run.Load(c, m)
	return s, x, err
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	return v[len(v)/2]
}

// processorTime is that of this process in seconds.
func processorTime() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return math.NaN()
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// peer is the program that calls ONNX Runtime.
type peer struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startPeer(ctx context.Context) (*peer, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(*dir, "python/bin/python"), *script, *dir)
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
	p := &peer{cmd, in, bufio.NewReader(out)}
	version, err := p.ask("version")
	if err != nil {
		p.stop()
		return nil, err
	}
	fmt.Printf("ONNX Runtime %s; ", version)
	return p, nil
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
	if err != nil {
		return "", fmt.Errorf("peer.py, asked for %q: %w", line, err)
	}
	return strings.TrimSpace(answer), nil
}

// measure returns the seconds of the fastest run of a turn, and the mean processor time of one.
func (p *peer) measure(name string, threads int) (best, cpu float64, err error) {
	answer, err := p.ask(fmt.Sprintf("%s %d %d", name, threads, *repeat))
	if err != nil {
		return 0, 0, err
	}
	if _, err := fmt.Sscan(answer, &best, &cpu); err != nil {
		return 0, 0, fmt.Errorf("peer.py: %q: %w", answer, err)
	}
	return best, cpu, nil
}
