// SPDX-License-Identifier: Apache-2.0

// Command scalesim compares package timing with SCALE-Sim v3 itself: the cycles
// of each layer of a table, and how long the two take for it (docs/performance.md).
package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"npuemu/timing"
)

const golden = "timing/testdata/scalesim.csv"

var (
	dir    = flag.String("dir", "tests/bench/scalesim", "`directory` of this program")
	table  = flag.String("table", golden, "`file` with layers, dataflows and arrays")
	every  = flag.Int("every", 1, "take every `N`th line; all of them take SCALE-Sim five minutes")
	update = flag.Bool("update", false, "write what SCALE-Sim says into the table")
)

func main() {
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: scalesim [flags]\n\nRuns layers through SCALE-Sim v3 and through package timing, and compares cycles and speed.\nThe first run installs SCALE-Sim into the cache (500 MB with what it needs). Flags:")
		flag.PrintDefaults()
	}
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "scalesim:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if *every < 1 || *update && *every != 1 {
		return errors.New("-every is at least 1, and 1 with -update")
	}
	setup := exec.CommandContext(ctx, filepath.Join(*dir, "setup.sh"))
	setup.Stderr = os.Stderr
	python, err := setup.Output()
	if err != nil {
		return fmt.Errorf("setup.sh: %w; it needs python3 with venv, and PyPI", err)
	}
	var errs bytes.Buffer
	tool := exec.CommandContext(ctx, strings.TrimSpace(string(python)), "-W", "ignore", filepath.Join(*dir, "measure.py"), *table, strconv.Itoa(*every))
	tool.Stderr = &errs
	out, err := tool.Output()
	if err != nil {
		return fmt.Errorf("measure.py: %w\n%s", err, errs.String())
	}
	var theirs float64
	last := strings.TrimSpace(errs.String())
	if _, err := fmt.Sscanf(last[strings.LastIndex(last, "\n")+1:], "seconds %f", &theirs); err != nil {
		return fmt.Errorf("measure.py ended with %q: %w", last, err)
	}
	lines, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err != nil {
		return err
	}
	differ, compatible, full, err := compare(lines[1:])
	if err != nil {
		return err
	}
	n := len(lines) - 1
	fmt.Printf("| layers | equal | SCALE-Sim, processor time | as SCALE-Sim counts | ratio | default model | ratio | bar |\n|---|---|---|---|---|---|---|---|\n")
	fmt.Printf("| %d | %d | %.1f s | %v | %.2g× | %v | **%.2g×** | ≥ 10⁴× |\n", n, n-differ, theirs, compatible, theirs/compatible.Seconds(), full, theirs/full.Seconds())
	if *update {
		return os.WriteFile(*table, out, 0o644)
	}
	if differ > 0 {
		return fmt.Errorf("%d of %d layers differ", differ, n)
	}
	return nil
}

// compare returns how many layers differ, and how long both of our models take
// for all of them: the median of 101 times.
func compare(lines [][]string) (differ int, compatible, full time.Duration, err error) {
	layers, configs := make([]timing.Layer, len(lines)), make([]timing.Config, len(lines))
	for i, r := range lines {
		if layers[i], configs[i], err = parse(r); err != nil {
			return 0, 0, 0, fmt.Errorf("%s: %w", r[0], err)
		}
		if got := timing.ScaleSim(layers[i], configs[i]); strconv.FormatUint(got, 10) != r[15] {
			fmt.Printf("%s %s on %s×%s: %d cycles, SCALE-Sim says %s\n", r[0], r[12], r[13], r[14], got, r[15])
			differ++
		}
	}
	median := func(f func(timing.Layer, timing.Config)) time.Duration {
		times := make([]time.Duration, 101)
		for k := range times {
			began := time.Now()
			for i := range layers {
				f(layers[i], configs[i])
			}
			times[k] = time.Since(began)
		}
		slices.Sort(times)
		return times[len(times)/2]
	}
	compatible = median(func(l timing.Layer, c timing.Config) { timing.ScaleSim(l, c) })
	full = median(func(l timing.Layer, c timing.Config) { timing.Layers([]timing.Layer{l}, c) })
	return differ, compatible, full, nil
}

func parse(r []string) (timing.Layer, timing.Config, error) {
	var n [16]uint64
	var err error
	for i, cell := range r {
		if i != 0 && i != 1 && i != 12 && cell != "" {
			if n[i], err = strconv.ParseUint(cell, 10, 64); err != nil {
				return timing.Layer{}, timing.Config{}, err
			}
		}
	}
	l := timing.Layer{InH: n[2], InW: n[3], KernelH: n[4], KernelW: n[5], Channels: n[6], Filters: n[7], StepY: n[8], StepX: n[8], Groups: 1}
	if r[1] == "gemm" {
		l = timing.Layer{InH: n[9], InW: 1, KernelH: 1, KernelW: 1, Filters: n[10], Channels: n[11], StepY: 1, StepX: 1, Groups: 1}
	}
	c := timing.Config{Rows: int(n[13]), Cols: int(n[14]), Scratchpad: 256 << 10, Accumulators: 128 << 10, Params: timing.DefaultParams()}
	c.Dataflow, err = timing.ParseDataflow(r[12])
	return l, c, err
}
