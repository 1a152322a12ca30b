// SPDX-License-Identifier: Apache-2.0

package timing

import (
	"cmp"
	"encoding/csv"
	"flag"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables of TestRTL into docs/spec/timing.md")

const (
	specPage = "../docs/spec/timing.md"
	rtlCSV   = "testdata/gemmini_rtl.csv"
)

// rtlLayer is a layer that somebody ran on Gemmini's RTL (§13.9.2), and the local
// memory that the searched tilings of its network were allowed.
type rtlLayer struct {
	network string
	Layer
	scratchpad, accumulators int64
	library                  uint64 // cycles with the library's tiling, the median of three runs
	fastest                  uint64 // of all six runs
}

// shape is kernel, output, channels, filters, stride.
func (l *rtlLayer) shape() string {
	s := fmt.Sprintf("%d×%d, %d×%d, %d→%d", l.KernelH, l.KernelW, l.outH(), l.outW(), l.Channels, l.Filters)
	if l.StepY > 1 {
		s += fmt.Sprintf(" /%d", l.StepY)
	}
	return s
}

func readRTL(t *testing.T) []rtlLayer {
	t.Helper()
	f, err := os.Open(rtlCSV)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var layers []rtlLayer
	for _, row := range rows[1:] {
		var v [16]uint64
		for i, text := range row[1:] {
			if v[i+1], err = strconv.ParseUint(text, 10, 32); err != nil || v[i+1] == 0 {
				t.Fatalf("%s: %q in %q", rtlCSV, text, row)
			}
		}
		kh, kw, oh, ow, step := v[1], v[2], v[3], v[4], v[7]
		l := rtlLayer{
			network: row[0],
			Layer: Layer{
				InH: (oh-1)*step + kh, InW: (ow-1)*step + kw, KernelH: kh, KernelW: kw,
				Channels: v[5], Filters: v[6], StepY: step, StepX: step, Groups: 1,
			},
			scratchpad: int64(v[8]), accumulators: int64(v[9]), //nolint:gosec // 32 bits
			fastest: slices.Min(v[10:]),
		}
		slices.Sort(v[10:13])
		l.library = v[11]
		layers = append(layers, l)
	}
	return layers
}

// gemmini is the machine of §13.9.2 as its sources describe it, with the local
// memory that the library cuts layers for.
func gemmini() Config {
	c := config(16, 16)
	c.Scratchpad, c.Accumulators, c.DRAMWidth = 256<<10, 64<<10, 8
	return c
}

// roomy is gemmini with the local memory that the searched tilings of l's network
// had: two tiles of the largest of them.
func (l *rtlLayer) roomy(c Config) Config {
	c.Scratchpad, c.Accumulators = 2*l.scratchpad, 2*l.accumulators
	return c
}

func (l *rtlLayer) estimate(c Config) uint64 { return Layers([]Layer{l.Layer}, c)[0].Cycles }

func percent(model, measured uint64) float64 { return 100 * (float64(model)/float64(measured) - 1) }

// errorsOf is what the tables say of many errors in percent.
type errorsOf []float64

func (e errorsOf) cells() string {
	abs := make([]float64, len(e))
	var sum, sumAbs float64
	near := 0
	for i, x := range e {
		abs[i] = math.Abs(x)
		sum += x
		sumAbs += abs[i]
		if abs[i] <= 10 {
			near++
		}
	}
	slices.Sort(abs)
	n := len(e)
	median := (abs[(n-1)/2] + abs[n/2]) / 2
	worst := slices.MaxFunc(e, func(a, b float64) int { return cmp.Compare(math.Abs(a), math.Abs(b)) })
	return fmt.Sprintf("%.0f %% | %.0f %% | %s | %s | %d of %d", median, sumAbs/float64(n), signed(sum/float64(n)), signed(worst), near, n)
}

// signed has the minus sign of the other tables, and none for zero.
func signed(x float64) string {
	if math.Abs(x) < 0.5 {
		return "0 %"
	}
	return strings.Replace(fmt.Sprintf("%+.0f %%", x), "-", "−", 1)
}

// grouped writes n with commas.
func grouped(n uint64) string {
	s := strconv.FormatUint(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// rtlSummary is the table of errors over many layers.
func rtlSummary(layers []rtlLayer) string {
	var b strings.Builder
	b.WriteString("| Layers | RTL's figure | median size | mean size | mean | worst | within 10 % |\n|---|---|---|---|---|---|---|\n")
	line := func(name, figure string, of func(*rtlLayer) (model, measured uint64), network string) {
		var e errorsOf
		for i := range layers {
			if network == "" || layers[i].network == network {
				e = append(e, percent(of(&layers[i])))
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", name, figure, e.cells())
	}
	fastest := func(c Config) func(*rtlLayer) (uint64, uint64) {
		return func(l *rtlLayer) (uint64, uint64) { return l.estimate(l.roomy(c)), l.fastest }
	}
	library := func(c Config) func(*rtlLayer) (uint64, uint64) {
		return func(l *rtlLayer) (uint64, uint64) { return l.estimate(c), l.library }
	}
	for _, n := range []string{"ResNet-50", "BERT", "RetinaNet", "UNet"} {
		line(n, "fastest", fastest(gemmini()), n)
	}
	line("all", "**fastest**", fastest(gemmini()), "")
	wide, pieces := gemmini(), gemmini()
	wide.DRAMWidth, pieces.Stream = 16, 16
	line("all, dram_width 16", "fastest", fastest(wide), "")
	line("all, stream 16", "fastest", fastest(pieces), "")
	line("ResNet-50", "library", library(gemmini()), "ResNet-50")
	line("all", "library", library(gemmini()), "")
	return b.String()
}

// rtlTable has a line for each layer.
func rtlTable(layers []rtlLayer) string {
	var b strings.Builder
	b.WriteString("| Network | Kernel, output, channels | RTL, fastest | Model | Error | RTL, library | Model | Error |\n|---|---|---|---|---|---|---|---|\n")
	for i := range layers {
		l := &layers[i]
		roomy, small := l.estimate(l.roomy(gemmini())), l.estimate(gemmini())
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", l.network, l.shape(),
			grouped(l.fastest), grouped(roomy), signed(percent(roomy, l.fastest)),
			grouped(l.library), grouped(small), signed(percent(small, l.library)))
	}
	return b.String()
}

// rtlNetwork is ResNet-50 as a whole: each of its layers, with the figures of the
// layer of that shape.
func rtlNetwork(t *testing.T, layers []rtlLayer) string {
	t.Helper()
	var fastest, library, roomy, small uint64
	for _, want := range network(t, "resnet50.csv") {
		i := slices.IndexFunc(layers, func(l rtlLayer) bool {
			return l.network == "ResNet-50" && l.KernelH == want.KernelH && l.Channels == want.Channels && l.Filters == want.Filters &&
				l.outH() == want.outH() && l.StepY == want.StepY
		})
		if i < 0 {
			t.Fatalf("%s is not in %s", want.Name, rtlCSV)
		}
		l := &layers[i]
		fastest += l.fastest
		library += l.library
		roomy += l.estimate(l.roomy(gemmini()))
		small += l.estimate(gemmini())
	}
	return fmt.Sprintf("| ResNet-50, an image: its 54 layers added up | RTL | Model | Error |\n|---|---|---|---|\n| fastest | %s | %s | %s |\n| library | %s | %s | %s |\n",
		grouped(fastest), grouped(roomy), signed(percent(roomy, fastest)), grouped(library), grouped(small), signed(percent(small, library)))
}

// TestRTL holds the tables of §13.9.2 to the model: it computes the model's columns
// and every error again from the RTL's figures.
func TestRTL(t *testing.T) {
	layers := readRTL(t)
	if len(layers) != 74 {
		t.Fatalf("%d layers, want 74", len(layers))
	}
	text, err := os.ReadFile(specPage)
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	for name, want := range map[string]string{
		"rtl summary": rtlSummary(layers), "rtl network": rtlNetwork(t, layers), "rtl layers": rtlTable(layers),
	} {
		begin := "<!-- " + name + " -->\n"
		head, rest, found := strings.Cut(page, begin)
		got, tail, ended := strings.Cut(rest, "<!-- end -->")
		if !found || !ended {
			t.Fatalf("%s has no table %q", specPage, name)
		}
		if got == want {
			continue
		}
		if !*update {
			t.Errorf("table %q of %s is not what the model says; go test ./timing -run TestRTL -update writes it\n%s", name, specPage, want)
			continue
		}
		page = head + begin + want + "<!-- end -->" + tail
	}
	if *update {
		if err := os.WriteFile(specPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
