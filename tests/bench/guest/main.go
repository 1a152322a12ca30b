// SPDX-License-Identifier: Apache-2.0

// Command guest is make bench-guest: it times register accesses inside a guest, to QEMU's own edu device and to two
// cards of ours in one QEMU: one whose device memory QEMU maps, as by default, and one without that window. The
// guest's program goes round all kinds of access, so that the machine's noise meets all alike.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"npuemu/mmio/npureg"
	"npuemu/tests/bench/machine"
	"npuemu/tests/card"
	"npuemu/tests/guest"
)

type options struct {
	npuemu, tree         string
	boots, rounds, count int
}

func main() {
	var o options
	flag.StringVar(&o.npuemu, "npuemu", "bin/npuemu", "the npuemu `binary`")
	flag.StringVar(&o.tree, "tree", ".", "top of the source `directory`")
	flag.IntVar(&o.boots, "boots", 3, "guests, one after the other")
	flag.IntVar(&o.rounds, "rounds", 50, "rounds in each guest")
	flag.IntVar(&o.count, "count", 2000, "accesses of each kind in a round")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-guest: FAILED:", err)
		os.Exit(1)
	}
}

// access is a kind of access. The offset is that of a register that reads and writes without effect.
type access struct {
	name, label string
	function    string // edu, npu0 or npu1
	bar         int
	off         int
	write       bool
}

// EDU's first two registers: identification, and one that stores what is written, inverted.
const eduID, eduLiveness = 0x00, 0x04

var accesses = []access{
	{"edu-read", "QEMU's `edu`, read", "edu", 0, eduID, false},
	{"edu-write", "QEMU's `edu`, write", "edu", 0, eduLiveness, true},
	{"reg-read", "register (BAR0), read", "npu0", 0, npureg.ImageAddrLo, false},
	{"reg-write", "register, write, window mapped: waited for", "npu0", 0, npureg.ImageAddrLo, true},
	{"posted-write", "register, write, window off: posted", "npu1", 0, npureg.ImageAddrLo, true},
	{"mem-read", "device memory (BAR2), mapped, read", "npu0", 2, 0, false},
	{"mem-write", "device memory, mapped, write", "npu0", 2, 0, true},
	{"mem-read-off", "device memory, window off, read", "npu1", 2, 0, false},
}

// script finds the functions by their identities, the cards by their order on the bus.
func script(o options) string {
	args := ""
	for _, a := range accesses {
		op := "read"
		if a.write {
			op = "write"
		}
		args += fmt.Sprintf(" %s $%s/resource%d %#x %s", a.name, a.function, a.bar, a.off, op)
	}
	return `
set -e
for d in /sys/bus/pci/devices/*; do
	case $(cat $d/vendor):$(cat $d/device) in
	0x1234:0x11e8) edu=$d ;;
	0x1af4:0x10f0) npu0=${npu0-$d}; npu1=$d ;;
	esac
done
[ $npu0 != $npu1 ]
for d in $edu $npu0 $npu1; do echo 1 >$d/enable; done
stage measure
` + fmt.Sprintf("mmiobench %d %d%s >$RESULT/ns\n", o.rounds, o.count, args)
}

// times are what one guest measured, in ns: medians and minima; drained for writes only.
type times struct{ median, min, drained, drainedMin float64 }

func run(ctx context.Context, o options) error {
	e, err := guest.Setup(ctx, os.Stderr)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "npuemu-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "mmiobench")
	if err := e.BuildProgram(ctx, program, []string{filepath.Join(o.tree, "tests/guest/programs/mmiobench.c")}); err != nil {
		return err
	}
	sockets, stop, err := card.Serve(o.npuemu, filepath.Join(dir, "log"), "", "[memory]\nwindow = false\n")
	if err != nil {
		return err
	}
	defer func() { _ = stop() }() // again, after an error that says more

	all := map[string][]times{}
	var res *guest.Result
	for i := range o.boots {
		fmt.Fprintf(os.Stderr, "bench-guest: guest %d of %d …\n", i+1, o.boots)
		res, err = guest.Boot(ctx, e, guest.Config{
			Files:     map[string]string{"/bin/mmiobench": program},
			ExtraArgs: []string{"-device", "edu,addr=0x10"},
			Sockets:   sockets,
			Script:    script(o),
		})
		if err != nil {
			return err
		}
		if res.Status != 0 {
			return fmt.Errorf("the guest's script ended with status %d:\n%s", res.Status, res.Console)
		}
		if err := parse(string(res.Files["ns"]), all); err != nil {
			return err
		}
	}
	if err := stop(); err != nil {
		return fmt.Errorf("npuemu: %w", err)
	}
	print(os.Stdout, o, res, all)
	return nil
}

// parse adds what mmiobench printed to all.
func parse(text string, all map[string][]times) error {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	if len(lines) != len(accesses) {
		return fmt.Errorf("mmiobench printed %d lines, want %d: %q", len(lines), len(accesses), text)
	}
	for i, line := range lines {
		var name string
		var t times
		fields := []any{&name, &t.median, &t.min}
		if accesses[i].write {
			fields = append(fields, &t.drained, &t.drainedMin)
		}
		if _, err := fmt.Sscan(line, fields...); err != nil || name != accesses[i].name {
			return fmt.Errorf("mmiobench printed %q where %s was expected: %w", line, accesses[i].name, err)
		}
		all[name] = append(all[name], t)
	}
	return nil
}

// print writes the table: medians of the guests' medians, minima of their minima.
func print(w io.Writer, o options, res *guest.Result, all map[string][]times) {
	median := func(name string, field func(times) float64) float64 {
		var v []float64
		for _, t := range all[name] {
			v = append(v, field(t))
		}
		slices.Sort(v)
		return v[len(v)/2] / 1000
	}
	least := func(name string, field func(times) float64) float64 {
		v := field(all[name][0])
		for _, t := range all[name] {
			v = min(v, field(t))
		}
		return v / 1000
	}
	fmt.Fprintf(w, "%s; QEMU %s (%s), Linux %s in the guest; %d guests, %d rounds of %d accesses each; load %s\n\n",
		machine.Processor(), res.QEMU, res.Accel, res.Kernel, o.boots, o.rounds, o.count, machine.Load())
	fmt.Fprintln(w, "| access of 4 bytes | µs, median [least] | until it is in the device | 100k take | against `edu` |")
	fmt.Fprintln(w, "|---|---|---|---|---|")
	for _, a := range accesses {
		base := "edu-read"
		issue := median(a.name, func(t times) float64 { return t.median })
		drained := "–"
		total := issue
		if a.write {
			base = "edu-write"
			total = median(a.name, func(t times) float64 { return t.drained })
			drained = fmt.Sprintf("%.3f [%.3f]", total, least(a.name, func(t times) float64 { return t.drainedMin }))
		}
		ratio := total / median(base, func(t times) float64 {
			if a.write {
				return t.drained
			}
			return t.median
		})
		fmt.Fprintf(w, "| %s | %.3f [%.3f] | %s | %.4f s | %.2f× |\n", a.label,
			issue, least(a.name, func(t times) float64 { return t.min }), drained, total/10, ratio)
	}
}
