// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"npuemu/tests/bench/machine"
	"npuemu/timing"
	"npuemu/vdev"
)

// cells are the columns of figures in the first table.
func (f *figures) cells() []string {
	array := vdev.DefaultConfig().Array
	cycles := max(f.Cycles, 1)
	return []string{
		fmt.Sprint(f.Device),
		host(f.Hosts),
		fmt.Sprint(f.MACs),
		fmt.Sprint(f.Cycles),
		fmt.Sprintf("%.4g", float64(f.Cycles)/1e3/float64(timing.DefaultParams().Clock)),
		fmt.Sprintf("%.1f", 100*float64(f.MACs)/float64(cycles)/float64(array.Rows*array.Cols)),
		fmt.Sprintf("%.3g", float64(f.Loaded+f.Stored)/(1<<20)),
		fmt.Sprintf("%.3g", float64(f.Constants+f.Activation)/(1<<20)),
	}
}

// host names the operators of the host, each once.
func host(l []string) string {
	if len(l) == 0 {
		return "0"
	}
	var names []string
	for _, h := range l {
		name, _, _ := strings.Cut(h, ":")
		names = append(names, name)
	}
	slices.Sort(names)
	return fmt.Sprintf("%d: %s", len(l), strings.Join(slices.Compact(names), ", "))
}

// tables are the two tables of the page, and what is on the host.
func tables(results []*result) string {
	var b, hosts strings.Builder
	b.WriteString("| Model | Operators on the device | on the host | MACs | Cycles | Time, ms | Array in use, % | Traffic, MiB | Memory, MiB | Results beside the framework's |\n|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.title, strings.Join(r.cells(), " | "), r.agreement)
		for _, h := range slices.Compact(slices.Sorted(slices.Values(r.Hosts))) {
			fmt.Fprintf(&hosts, "- %s: %s\n", r.title, h)
		}
	}
	if hosts.Len() > 0 {
		fmt.Fprintf(&b, "\nOn the host, and why:\n\n%s", hosts.String())
	}
	b.WriteString("\n| Model | npuemu, ms | Framework, ms | npuemu / framework | Turns | Compile time, s | of processors, s | Compiler's peak memory, MB |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		theirs, ratio := "cannot run it", ""
		if r.theirs > 0 {
			theirs, ratio = milliseconds(r.theirs), fmt.Sprintf("%.2f", r.ratio)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %d | %.2f | %.2f | %.0f |\n", r.title, milliseconds(r.ours), theirs, ratio, r.turns, r.compile, r.cpu, float64(r.memory)/1e6)
	}
	return b.String()
}

// milliseconds are d with three digits, or more above 1000.
func milliseconds(d time.Duration) string {
	ms := 1e3 * d.Seconds()
	if ms >= 100 {
		return fmt.Sprintf("%.0f", ms)
	}
	return fmt.Sprintf("%.3g", ms)
}

// document is docs/models.md.
func document(results []*result, version, load string) string {
	array := vdev.DefaultConfig().Array
	first, second, _ := strings.Cut(tables(results), "\n| Model | npuemu")
	var what strings.Builder
	for _, r := range results {
		fmt.Fprintf(&what, "| %s | %s |\n", r.title, r.what)
	}
	return fmt.Sprintf(`# Models

Written by `+"`make models`"+`; do not edit. Whole networks, compiled by `+"`npuemu compile`"+`, on a card in process, beside ONNX Runtime %s. The models
are made when the command runs, by `+"`tests/models`"+`; integer models by ONNX Runtime's own quantizer: int8, a scale for each channel of the weights, QuantizeLinear and
DequantizeLinear around each operator. The int8 model of digits is made of integers that are in the tree.

| Model | Source |
|---|---|
%s
## What ran where, and how right

The same on every machine, but for the framework's own arithmetic. A run fails unless the card's counters say that it executed each instruction and each multiply-accumulate
of the programs; an operator that is not among them is named, with the reason.

%s
| Column | Meaning |
|---|---|
| Operators | nodes of the compiled graph, after fusion: those that the card executes, and those of the host |
| Cycles, Time | of the timing model ([spec/timing.md](spec/timing.md)) for the default core, an array of %d × %d, scratchpad of %d KiB and accumulators of %d KiB at %d MHz; operators of the host are not in it |
| Array in use | MACs per cycle, as part of what the array has; it has %d for int8 and fewer for wider types (§13) |
| Traffic, Memory | bytes between the core and device memory; constants and activations that a run needs there |
| Results | every sample, compared with what ONNX Runtime computes of it with all its optimizations; a step is the output's scale |

Of trained networks the results say how many held-out images are right. Weights from a seed have no accuracy: for how many inputs both find the same of 1000 (12) classes, and for how many
the framework itself does before it quantizes, which says how much a last digit decides in such a network. ONNX Runtime leaves some operators between QuantizeLinear and DequantizeLinear in
fp32 ([compiler.md](compiler.md), "Beside ONNX Runtime"); of the networks that are quantized to operators of integers ("operators") it leaves none, and those are equal. `+"`make models`"+` fails where a result is further off than `+"`tests/models/main.go`"+` allows, or a token differs.

## Time

On %s, %s. Card and framework run the first sample in turns, in the same minutes, with %d threads each; the framework in a process of its own, by its own clock. Times are medians, the
ratio is the median of the turns' ratios. Whatever else the machine does makes times longer, and makes two threads that wait for each other slower than one: its load was %s when the command began (below 1: idle). Best look at the ratio,
and run `+"`make models`"+` yourself. Compile time is that of `+"`npuemu compile`"+`, from start to exit, cycles estimated and file written: the
median of three, also of processor time, which may not be above 5 s; memory is the largest resident set. What a network of ResNet-50's shapes
takes is tested without the framework, too: `+"`go test ./tests/models -run ResNet -bench ResNet`"+`.

| Model | npuemu%s`, version, what.String(), first, array.Rows, array.Cols, array.Scratchpad>>10, array.Accumulators>>10, timing.DefaultParams().Clock, array.Rows*array.Cols,
		machine.Processor(), runtime.Version(), runtime.GOMAXPROCS(0), load, second)
}
