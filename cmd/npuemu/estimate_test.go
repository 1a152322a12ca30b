// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

const resnet50 = "../../examples/layers/resnet50.csv"

// TestEstimateFormats has the same numbers in every format.
func TestEstimateFormats(t *testing.T) {
	ctx := context.Background()
	table, _, err := npuemu(ctx, "estimate", resnet50)
	if err != nil {
		t.Fatal(err)
	}
	asJSON, _, err := npuemu(ctx, "estimate", resnet50, "--format", "json")
	if err != nil {
		t.Fatal(err)
	}
	asCSV, _, err := npuemu(ctx, "estimate", resnet50, "--format", "csv")
	if err != nil {
		t.Fatal(err)
	}
	var results []estimateJSON
	if err := json.Unmarshal([]byte(asJSON), &results); err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(asCSV)).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(table), "\n")
	if len(results) != 1 || len(results[0].Layers) != 54 || len(lines) != 55 || len(rows) != 56 {
		t.Fatalf("%d results with %d layers, %d lines, %d rows", len(results), len(results[0].Layers), len(lines), len(rows))
	}
	var sum uint64
	for i, l := range results[0].Layers {
		sum += l.Cycles
		f := strings.Fields(rows[i+1])
		if want := strconv.FormatUint(l.Cycles, 10); lines[i+1][0] != l.Name || f[0] != l.Name || lines[i+1][1] != want || f[1] != want {
			t.Errorf("layer %d: %+v, %v, %v", i, l, lines[i+1], f)
		}
	}
	if f := strings.Fields(rows[55]); f[0] != "total" || f[1] != strconv.FormatUint(sum, 10) || results[0].Cycles != sum {
		t.Errorf("the sum is %d; %v, %d", sum, f, results[0].Cycles)
	}
}

func TestEstimateScaleSim(t *testing.T) {
	layers := file(t, "l.csv", "Layer,M,N,K,\na,30,40,50,\n")
	config := file(t, "a.toml", "[array]\nrows = 16\ncols = 8\n")
	out, _, err := npuemu(context.Background(), "estimate", layers, "--config", config, "--model", "scalesim", "--dataflow", "os", "--format", "csv")
	if want := "layer,cycles,utilization,macs\na,719,0.6519,60000\n"; err != nil || out != want { // 719: as the tool itself says
		t.Errorf("%q, %v, want %q", out, err, want)
	}
}

func TestEstimateSweep(t *testing.T) {
	config := file(t, "a.toml", "[array]\nrows = 512\n[timing]\nburst = 32\n") // no card, but an array
	out, stderr, err := npuemu(context.Background(), "estimate", resnet50, "--config", config, "--sweep", "dim=16,32", "--sweep", "dataflow=ws,os", "--sweep", "dram_width=64", "--format", "json")
	var results []estimateJSON
	if err != nil || stderr != "" || json.Unmarshal([]byte(out), &results) != nil || len(results) != 4 {
		t.Fatalf("%d results, %q, %v", len(results), stderr, err)
	}
	for i, want := range []string{"dim=16 dataflow=ws dram_width=64", "dim=16 dataflow=os dram_width=64", "dim=32 dataflow=ws dram_width=64", "dim=32 dataflow=os dram_width=64"} {
		if got := strings.Join(results[i].Sweep, " "); got != want {
			t.Errorf("point %d is %q, want %q", i, got, want)
		}
	}
	if a, b := results[0], results[2]; a.Rows != 16 || b.Rows != 32 || b.Cycles >= a.Cycles {
		t.Errorf("%d cycles on 16×16, %d on 32×32", a.Cycles, b.Cycles)
	}
	out, _, err = npuemu(context.Background(), "estimate", resnet50, "--sweep", "rows=16,32,64")
	if err != nil || len(strings.Split(strings.TrimSpace(out), "\n")) != 4 {
		t.Errorf("%q, %v", out, err)
	}
}

func TestEstimateProgram(t *testing.T) {
	out, _, err := npuemu(context.Background(), "estimate", "../../examples/digits/digits.npuasm", "--format", "json")
	var results []estimateJSON
	if err != nil || json.Unmarshal([]byte(out), &results) != nil {
		t.Fatalf("%q, %v", out, err)
	}
	r := results[0]
	if r.Cycles == 0 || r.MACs != 25600 || len(r.Engines) != 4 || r.Engines[2].Engine != "matrix" || r.Engines[2].Busy == 0 || r.DRAM == 0 || r.Bus != 0 {
		t.Errorf("%+v", r)
	}
	far, _, err := npuemu(context.Background(), "estimate", "../../examples/digits/digits.npuasm", "--bus", "0,1", "--format", "json")
	if err != nil || json.Unmarshal([]byte(far), &results) != nil || results[0].Cycles <= r.Cycles || results[0].Bus == 0 {
		t.Errorf("%q, %v", far, err)
	}
	for _, format := range []string{"table", "csv"} {
		out, _, err := npuemu(context.Background(), "estimate", "../../examples/digits/digits.npuasm", "--format", format)
		if err != nil || !strings.Contains(out, "matrix") || !strings.Contains(out, strconv.FormatUint(r.Engines[2].Busy, 10)) {
			t.Errorf("%s: %q, %v", format, out, err)
		}
	}
}

// TestRoofline has the plot be XML with a mark for each layer, whatever their names are.
func TestRoofline(t *testing.T) {
	layers := file(t, "l<&.csv", "Layer,M,N,K,\n<script>&\"',30,40,50,\nb,1,1,1,\n")
	svg := filepath.Join(t.TempDir(), "r.svg")
	if _, _, err := npuemu(context.Background(), "estimate", layers, "--roofline", svg); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(svg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	marks := 0
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "title" {
			marks++
		}
	}
	if marks != 2 {
		t.Errorf("%d marks, want 2", marks)
	}
}

func TestEstimateMistakes(t *testing.T) {
	layers := file(t, "l.csv", "Layer,M,N,K,\na,30,x,50,\n")
	good := file(t, "g.csv", "Layer,M,N,K,\na,30,4,50,\n")
	wide := file(t, "w.toml", "[array]\nrows = 64\n")
	little := file(t, "s.toml", "[array]\nscratchpad = 1024\n")
	hang := file(t, "h.npuasm", ".isa 1.0\nsync.load wait=1\nhalt\n")
	digits := "../../examples/digits/digits.npuasm"
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"bad layer", []string{layers}, `:2:6: N is "x"; use a whole number from 1 to 1048576`},
		{"no file", []string{"/nonexistent.csv"}, "no such file"},
		{"format", []string{good, "--format", "xml"}, `--format "xml": use table, json or csv`},
		{"model", []string{good, "--model", "rtl"}, `--model "rtl": use default or scalesim`},
		{"dataflow", []string{good, "--dataflow", "rs"}, `--dataflow "rs": use ws, os or is`},
		{"sweep without values", []string{good, "--sweep", "rows"}, `--sweep "rows": write KEY=VALUE,VALUE`},
		{"sweep of nothing", []string{good, "--sweep", "rows=16,"}, `--sweep rows=16,: "" is not a whole number`},
		{"sweep of an unknown key", []string{good, "--sweep", "colour=1"}, `"colour" is not known: use one of rows, cols, dim, scratchpad, accumulators, dataflow, clock,`},
		{"sweep twice", []string{good, "--sweep", "rows=16", "--sweep", "rows=32"}, "--sweep rows is given twice"},
		{"sweep too far", []string{good, "--sweep", "rows=99999999"}, "configuration rows=99999999: timing: rows is 99999999: use 1 to 16384"},
		{"sweep of a dataflow", []string{good, "--sweep", "dataflow=rs"}, `dataflow "rs": use ws, os or is`},
		{"too many points", []string{good, "--sweep", "rows=" + strings.Repeat("8,", maxPoints) + "8"}, "more than 10000 combinations"},
		{"roofline of a sweep", []string{good, "--sweep", "rows=8,16", "--roofline", "/tmp/x.svg"}, "--roofline is of one configuration"},
		{"roofline of a program", []string{digits, "--roofline", "/tmp/x.svg"}, "are for layer tables, whose names end in .csv"},
		{"bus of layers", []string{good, "--bus", "1"}, "--bus is for programs"},
		{"binding", []string{digits, "--bus", "70"}, "--bus 70: "},
		{"array of another size", []string{digits, "--config", wide}, "is for an array of 32×32, and the configuration has 64×32"},
		{"little memory", []string{digits, "--config", little}, "bytes of scratchpad"},
		{"configuration", []string{good, "--config", file(t, "c.toml", "[timing]\nbursts = 3\n")}, "bursts"},
		{"parameter", []string{good, "--config", file(t, "d.toml", "[timing]\nburst = 0\n")}, "timing.burst is 0: use 1 to 4096"},
		{"deadlock", []string{hang}, "instruction 0 waits for token 1 for ever (DEADLOCK, §5.7)"},
	} {
		if _, _, err := npuemu(context.Background(), append([]string{"estimate"}, tt.args...)...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
