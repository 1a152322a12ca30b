// SPDX-License-Identifier: Apache-2.0

// Command driver is make bench-driver: what a program in a guest gets of the card through the driver (latency of an empty
// command, commands a second on 1, 8 and 64 queues, recovery from a hang), and on the host what the device MMU costs
// an access and how fast the control processor is. It prints the tables of docs/performance.md, all of one run.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"npuemu/firmware"
	"npuemu/tests/bench/machine"
	"npuemu/tests/card"
	"npuemu/tests/guest"
)

type options struct {
	npuemu, tree, kernel         string
	boots, samples, jobs, rounds int
	hangs, count                 int
}

func main() {
	var o options
	flag.StringVar(&o.npuemu, "npuemu", "bin/npuemu", "the npuemu `binary`")
	flag.StringVar(&o.tree, "tree", ".", "top of the source `directory`")
	flag.StringVar(&o.kernel, "kernel", "", "guest kernel, such as 6.12 (default: the newest)")
	flag.IntVar(&o.boots, "boots", 3, "guests, one after the other; 0 leaves them out")
	flag.IntVar(&o.samples, "samples", 500, "samples of each latency in a guest")
	flag.IntVar(&o.jobs, "jobs", 2000, "jobs of each rate")
	flag.IntVar(&o.rounds, "rounds", 3, "rounds of the rates in a guest")
	flag.IntVar(&o.hangs, "hangs", 5, "hangs in a guest")
	flag.IntVar(&o.count, "count", 5, "runs of the benchmarks on the host; 0 leaves them out")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-driver: FAILED:", err)
		os.Exit(1)
	}
}

// report is what the guest program jobbench prints.
type report struct{ Samples, Rates map[string][]float64 }

func run(ctx context.Context, o options, w io.Writer) error {
	about(w)
	if o.boots > 0 {
		if err := guests(ctx, o, w); err != nil {
			return err
		}
	}
	if o.count > 0 {
		return host(ctx, o, w)
	}
	return nil
}

// about names what everything runs on.
func about(w io.Writer) {
	release, _ := os.ReadFile("/proc/sys/kernel/osrelease") // only printed
	fmt.Fprintf(w, "%s; Linux %s, %s; load %s\n\n", machine.Processor(), bytes.TrimSpace(release), runtime.Version(), machine.Load())
}

func guests(ctx context.Context, o options, w io.Writer) error {
	e, err := guest.Setup(ctx, os.Stderr)
	if err != nil {
		return err
	}
	if o.kernel == "" {
		o.kernel = e.Kernels()[0]
	}
	dir, err := os.MkdirTemp("", "npuemu-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ko, _, err := e.BuildModule(ctx, o.kernel, filepath.Join(o.tree, "driver"), filepath.Join(dir, "driver"))
	if err != nil {
		return err
	}
	program, image := filepath.Join(dir, "jobbench"), filepath.Join(dir, "npufw-1.bin")
	if err := e.BuildGo(ctx, program, o.tree, "./tests/guest/programs/jobbench"); err != nil {
		return err
	}
	if err := os.WriteFile(image, firmware.Image(), 0o644); err != nil {
		return err
	}
	sockets, stop, err := card.Serve(o.npuemu, filepath.Join(dir, "log"), "")
	if err != nil {
		return err
	}
	defer func() { _ = stop() }() // again, after an error that says more

	all := report{map[string][]float64{}, map[string][]float64{}}
	var res *guest.Result
	for i := range o.boots {
		fmt.Fprintf(os.Stderr, "bench-driver: guest %d of %d …\n", i+1, o.boots)
		res, err = guest.Boot(ctx, e, guest.Config{
			Kernel: o.kernel, Modules: []string{ko}, Sockets: sockets,
			Files: map[string]string{"/bin/jobbench": program, card.FirmwarePath: image},
			Script: "modprobe npu || exit 1\nfor i in $(seq 50); do [ -e /dev/accel/accel0 ] && break; sleep 0.1; done\nstage measure\n" +
				fmt.Sprintf("jobbench -samples %d -jobs %d -rounds %d -hangs %d >$RESULT/report\n", o.samples, o.jobs, o.rounds, o.hangs),
		})
		if err != nil {
			return err
		}
		if res.Status != 0 {
			return fmt.Errorf("the guest's script ended with status %d:\n%s", res.Status, res.Console)
		}
		var r report
		if err := json.Unmarshal(res.Files["report"], &r); err != nil {
			return fmt.Errorf("jobbench printed %q: %w", res.Files["report"], err)
		}
		for name, v := range r.Samples {
			all.Samples[name] = append(all.Samples[name], v...)
		}
		for name, v := range r.Rates {
			all.Rates[name] = append(all.Rates[name], v...)
		}
	}
	if err := stop(); err != nil {
		return fmt.Errorf("npuemu: %w", err)
	}
	fmt.Fprintf(w, "QEMU %s (%s), Linux %s in the guest, one processor; %d guests\n\n", res.QEMU, res.Accel, res.Kernel, o.boots)
	fmt.Fprintln(w, "| From the submission of one command | samples | least | 10 % | median | 90 % | 99 % |\n|---|---|---|---|---|---|---|")
	for _, row := range [][2]string{
		{"nop-wait", "NOP, until the wait for its syncobj returns, µs"}, {"copy-wait", "COPY of 8 bytes, the same, µs"},
		{"copy-poll", "COPY of 8 bytes, until the program reads the word that it stores, µs"}, {"fence-poll", "NOP, until a poll of its syncobj says so, µs"},
		{"hang", "COPY of hours, from the end of its timeout until its job's end is told, µs"}, {"recovery", "NOP submitted then, until it has succeeded, µs"},
	} {
		v := all.Samples[row[0]]
		if len(v) == 0 {
			return fmt.Errorf("jobbench measured no %s", row[0])
		}
		fmt.Fprintf(w, "| %s | %d | %s | %s | %s | %s | %s |\n", row[1], len(v), short(quantile(v, 0)), short(quantile(v, .1)), short(quantile(v, .5)), short(quantile(v, .9)), short(quantile(v, .99)))
	}
	fmt.Fprintln(w, "\n| NOPs a second, 4 jobs under way on each queue | 1 queue | 8 queues | 64 queues |\n|---|---|---|---|")
	for _, row := range [][2]string{{"single", "jobs of one"}, {"full", "jobs of as many as a job can have"}} {
		fmt.Fprintf(w, "| %s", row[1])
		for _, n := range []string{"1", "8", "64"} {
			v := all.Rates[row[0]+"-"+n]
			if len(v) == 0 {
				return fmt.Errorf("jobbench measured no %s-%s", row[0], n)
			}
			fmt.Fprintf(w, " | %s [%s to %s]", short(quantile(v, .5)), short(quantile(v, 0)), short(quantile(v, 1)))
		}
		fmt.Fprintln(w, " |")
	}
	fmt.Fprintln(w)
	return nil
}

// quantile returns the value below which a part of v lies; 0 is the least, 1 the largest.
func quantile(v []float64, part float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[min(len(v)-1, int(part*float64(len(v))))]
}

// short writes a number with three digits, or all of its whole ones.
func short(v float64) string {
	if v >= 100 || v <= -100 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}

// A line of go test -bench: name, and values with their units.
var benchLine = regexp.MustCompile(`^Benchmark(\S+)\s+\d+\s+(.*)$`)

// bench runs benchmarks of a package and returns their values of one unit by name, without the benchmark's own.
func bench(ctx context.Context, o options, pkg, name, unit string) (map[string][]float64, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^Benchmark"+name+"$", "-cpu", "1", "-count", strconv.Itoa(o.count), "-benchtime", "100ms", pkg)
	cmd.Dir, cmd.Stderr = o.tree, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%v: %w\n%s", cmd.Args, err, out)
	}
	values := map[string][]float64{}
	for line := range strings.Lines(string(out)) {
		m := benchLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			continue
		}
		fields := strings.Fields(m[2])
		for i := 0; i+1 < len(fields); i += 2 {
			if fields[i+1] != unit {
				continue
			}
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
			values[strings.TrimPrefix(m[1], name+"/")] = append(values[strings.TrimPrefix(m[1], name+"/")], v)
		}
	}
	if len(values) == 0 {
		return nil, errors.New("no results of " + strings.Join(cmd.Args, " "))
	}
	return values, nil
}

func host(ctx context.Context, o options, w io.Writer) error {
	fmt.Fprintln(os.Stderr, "bench-driver: device MMU and control processor …")
	view, err := bench(ctx, o, "./dma", "View", "ns/op")
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "| Access through the device MMU, ns, median [least] | untranslated | hit, 2 MiB page | hit, 4 KiB pages | miss, tables in device memory | miss, tables on the bus |\n|---|---|---|---|---|---|")
	for _, size := range []string{"64", "4096", "65536"} {
		fmt.Fprintf(w, "| %s bytes", size)
		for _, how := range []string{"untranslated", "hit 2 MiB", "hit 4 KiB", "miss, tables in device memory", "miss, tables on the bus"} {
			v := view[strings.ReplaceAll(size+" bytes/"+how, " ", "_")]
			if len(v) == 0 {
				return fmt.Errorf("BenchmarkView has no %s bytes, %s", size, how)
			}
			fmt.Fprintf(w, " | %s [%s]", short(quantile(v, .5)), short(quantile(v, 0)))
		}
		fmt.Fprintln(w, " |")
	}
	mips, err := bench(ctx, o, "./firmware/cpu", "MIPS", "MIPS")
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "\n| Control processor | million instructions a second, median [most] |\n|---|---|")
	for _, name := range slices.Sorted(maps.Keys(mips)) {
		fmt.Fprintf(w, "| %s | %s [%s] |\n", name, short(quantile(mips[name], .5)), short(quantile(mips[name], 1)))
	}
	return nil
}
