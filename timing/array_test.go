// SPDX-License-Identifier: Apache-2.0

package timing

import (
	"encoding/csv"
	"os"
	"strconv"
	"testing"
)

func config(rows, cols int) Config {
	return Config{Rows: rows, Cols: cols, Scratchpad: 256 << 10, Accumulators: 128 << 10, Params: DefaultParams()}
}

// TestScaleSim compares with integers that the tool itself reported
// (tests/bench/scalesim says how they were measured).
func TestScaleSim(t *testing.T) {
	f, err := os.Open("testdata/scalesim.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if len(rows) != 290 {
		t.Fatalf("%d lines, want 290", len(rows))
	}
	for i, r := range rows[1:] {
		n := func(col int) uint64 {
			v, err := strconv.ParseUint(r[col], 10, 64)
			if err != nil {
				t.Fatalf("line %d: %v", i+2, err)
			}
			return v
		}
		l := Layer{InW: 1, KernelH: 1, KernelW: 1, StepY: 1, StepX: 1, Groups: 1}
		if r[1] == "gemm" {
			l.InH, l.Filters, l.Channels = n(9), n(10), n(11)
		} else {
			l.InH, l.InW, l.KernelH, l.KernelW, l.Channels, l.Filters, l.StepY, l.StepX = n(2), n(3), n(4), n(5), n(6), n(7), n(8), n(8)
		}
		c := config(int(n(13)), int(n(14)))
		if c.Dataflow, err = ParseDataflow(r[12]); err != nil {
			t.Fatal(err)
		}
		if got, want := ScaleSim(l, c), n(15); got != want {
			t.Errorf("line %d, %s %s on %s×%s: %d cycles, the tool says %d", i+2, r[0], r[12], r[13], r[14], got, want)
		}
	}
}

// TestProductTime has cycles counted by hand from §13.3.
func TestProductTime(t *testing.T) {
	for _, tt := range []struct {
		name    string
		p       product
		d       Dataflow
		buffers int
		stream  int
		want    span
	}{
		{"one tile", product{m: 10, n: 8, k: 8, groups: 1, passes: 1}, WeightStationary, 2, 0, span{8 + 10, 14}},
		{"one tile, one buffer", product{m: 10, n: 8, k: 8, groups: 1, passes: 1}, WeightStationary, 1, 0, span{8 + 10, 14}},
		{"way in hidden", product{m: 100, n: 8, k: 16, groups: 1, passes: 1}, WeightStationary, 2, 0, span{8 + 100 + 100, 14}},
		{"way in not hidden", product{m: 3, n: 8, k: 24, groups: 1, passes: 1}, WeightStationary, 2, 0, span{8 + 8 + 8 + 3, 14}},
		{"one buffer hides nothing", product{m: 3, n: 8, k: 24, groups: 1, passes: 1}, WeightStationary, 1, 0, span{3*(8+3+14) - 14, 14}},
		{"edge tiles cost what full ones do", product{m: 100, n: 9, k: 9, groups: 1, passes: 1}, WeightStationary, 2, 0, span{8 + 4*100, 14}},
		{"wide elements", product{m: 100, n: 8, k: 8, groups: 1, passes: 2}, WeightStationary, 2, 0, span{16 + 200, 14}},
		{"groups", product{m: 100, n: 1, k: 9, groups: 32, passes: 1}, WeightStationary, 2, 0, span{8 + 64*100, 14}},
		{"results stay", product{m: 16, n: 8, k: 100, groups: 1, passes: 1}, OutputStationary, 2, 0, span{200, 14}},
		{"results' way out not hidden", product{m: 16, n: 8, k: 3, groups: 1, passes: 1}, OutputStationary, 2, 0, span{8 + 3, 14}},
		{"inputs stay", product{m: 9, n: 100, k: 8, groups: 1, passes: 1}, InputStationary, 2, 0, span{8 + 200, 14}},
		{"pieces of 8", product{m: 20, n: 8, k: 8, line: 20, groups: 1, passes: 1}, WeightStationary, 2, 8, span{8 + 24, 14}},
		{"pieces of lines", product{m: 20, n: 8, k: 8, line: 10, groups: 1, passes: 1}, WeightStationary, 2, 8, span{8 + 32, 14}},
	} {
		c := config(8, 8)
		c.WeightBuffers, c.Stream = tt.buffers, tt.stream
		if got := tt.p.time(&c, tt.d); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestValidate(t *testing.T) {
	if err := config(32, 32).Validate(); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(*Config){
		"rows":           func(c *Config) { c.Rows = 0 },
		"cols":           func(c *Config) { c.Cols = maxDim + 1 },
		"scratchpad":     func(c *Config) { c.Scratchpad = 0 },
		"accumulators":   func(c *Config) { c.Accumulators = -1 },
		"dataflow":       func(c *Config) { c.Dataflow = 3 },
		"weight_buffers": func(c *Config) { c.WeightBuffers = 3 },
		"burst":          func(c *Config) { c.Burst = 0 },
		"dram_width":     func(c *Config) { c.DRAMWidth = 0 },
		"clock":          func(c *Config) { c.Clock = 0 },
	} {
		c := config(32, 32)
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s: accepted %+v", name, c)
		}
	}
	if _, err := ParseDataflow("rs"); err == nil {
		t.Error("dataflow rs accepted")
	}
}
