// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"npuemu/core/isa"
	"npuemu/timing"
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
		out, _, err := npuemu(context.Background(), "estimate", "../../examples/digits/digits.npuasm", "--engines", "--format", format)
		if err != nil || !strings.Contains(out, "matrix") || !strings.Contains(out, strconv.FormatUint(r.Engines[2].Busy, 10)) {
			t.Errorf("%s: %q, %v", format, out, err)
		}
	}
}

// estimated returns what estimate --format json says.
func estimated(t *testing.T, args ...string) []estimateJSON {
	t.Helper()
	out, _, err := npuemu(t.Context(), append([]string{"estimate", "--format", "json"}, args...)...)
	var results []estimateJSON
	if err != nil || json.Unmarshal([]byte(out), &results) != nil {
		t.Fatalf("%q: %q, %v", args, out, err)
	}
	return results
}

// addUp has the rows of programs be what the programs are.
func addUp(t *testing.T, r *estimateJSON) {
	t.Helper()
	var macs, bytes uint64
	var share float64
	for _, l := range r.Layers {
		macs, bytes, share = macs+l.MACs, bytes+l.Read+l.Written, share+l.Share
		if l.Host != "" {
			if l.Cycles+l.MACs+l.Read+l.Written != 0 || l.Bound != "" {
				t.Errorf("the host takes cycles: %+v", l)
			}
			continue
		}
		if l.Cycles == 0 || l.Cycles > r.Cycles || l.Utilization > 1 || l.Share <= 0 || l.Bound == "" || l.Engines == "" {
			t.Errorf("of %d cycles: %+v", r.Cycles, l)
		}
		if n := l.Read + l.Written; n > 0 && l.Intensity != float64(l.MACs)/float64(n) {
			t.Errorf("intensity of %+v", l)
		}
	}
	if macs != r.MACs || bytes != r.DRAM+r.Bus || share < 0.9 || share > 1.000001 || len(r.Engines) != 4 {
		t.Errorf("layers have %d multiply-accumulates, %d bytes and %.3f of the cycles: %+v", macs, bytes, share, *r)
	}
	if r.Launches < 1 || r.LaunchCycles < 300+2*100 { // fetch and retire, and the latencies of program and bindings
		t.Errorf("%d launches take %d cycles besides", r.Launches, r.LaunchCycles)
	}
}

const (
	lenet  = "../../examples/lenet/lenet.prototxt"
	digits = "../../examples/digits/digits.npuasm"
)

// TestEstimateModel has a row for each operator of a model, compiled before or now, the same in every format.
func TestEstimateModel(t *testing.T) {
	compiled := filepath.Join(t.TempDir(), "lenet.npu")
	if _, _, err := npuemu(t.Context(), "compile", lenet, "-o", compiled); err != nil {
		t.Fatal(err)
	}
	r := estimated(t, compiled)[0]
	addUp(t, &r)
	var names []string
	for _, l := range r.Layers {
		names = append(names, l.Operator+" "+l.Name)
	}
	if got := strings.Join(names, ", "); got != "conv conv1/2, pool pool1/1, conv conv2/2, pool pool2/1, transpose pool2/2, gemm relu1, gemm ip2/2/2" {
		t.Errorf("operators are %s", got)
	}
	// 20 outputs of 24×24 pixels, from 5×5 of one channel; and 50 of 8×8 from 5×5 of 20.
	if a, b := r.Layers[0].MACs, r.Layers[2].MACs; a != 24*24*20*25 || b != 8*8*50*25*20 || r.Layers[0].Bound != "array" || r.Layers[1].Engines != "vector" || r.Layers[2].Engines != "matrix, vector" {
		t.Errorf("%+v", r.Layers)
	}
	if now := estimated(t, lenet)[0]; now.Cycles != r.Cycles || len(now.Layers) != len(r.Layers) || now.Layers[5] != r.Layers[5] {
		t.Errorf("compiled now it takes %d cycles in %d operators, want %d in %d", now.Cycles, len(now.Layers), r.Cycles, len(r.Layers))
	}
	far := estimated(t, lenet, "--bus", "0,1,2,3")[0]
	if addUp(t, &far); far.DRAM != 0 || far.Cycles <= r.Cycles {
		t.Errorf("on the bus: %+v", far)
	}
	table, _, err := npuemu(t.Context(), "estimate", compiled)
	if err != nil {
		t.Fatal(err)
	}
	text, _, err := npuemu(t.Context(), "estimate", compiled, "--format", "csv")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(lines) != len(r.Layers)+1 || strings.Join(lines[0], ",") != "layer,cycles,utilization,macs,array_cycles,read,written,intensity,bound,operator,engines,share,host" {
		t.Fatalf("%v, %v", lines, err)
	}
	rows := strings.Split(table, "\n")
	for i, l := range r.Layers {
		f := strings.Fields(rows[i+1])
		if cycles := strconv.FormatUint(l.Cycles, 10); lines[i+1][0] != l.Name || lines[i+1][1] != cycles || lines[i+1][8] != l.Bound || f[0] != l.Name || f[1] != l.Operator || !strings.Contains(rows[i+1], " "+cycles+" ") {
			t.Errorf("%+v, %v, %v", l, lines[i+1], f)
		}
	}
	if f := strings.Fields(rows[len(r.Layers)+1]); f[0] != "total" || f[1] != strconv.FormatUint(r.Cycles, 10) {
		t.Errorf("total is %v, want %d", f, r.Cycles)
	}
	if !strings.Contains(table, "\n  ENGINE  INSTRUCTIONS") || !strings.Contains(table, strconv.FormatUint(r.LaunchCycles, 10)+" cycles  besides") {
		t.Errorf("%s: engines or launches are missing", table)
	}
}

// TestCompileTable has utilization, intensity and bound of each operator by itself.
func TestCompileTable(t *testing.T) {
	out, _, err := npuemu(t.Context(), "compile", lenet, "-o", filepath.Join(t.TempDir(), "lenet.npu"), "--json")
	var s compiledSummary
	if err != nil || json.Unmarshal([]byte(out), &s) != nil {
		t.Fatalf("%q, %v", out, err)
	}
	first := 0.0
	for _, o := range s.Operators {
		if o.Within != "" || o.Engine == "none" {
			continue
		}
		if want := float64(o.MACs) / float64(o.Cycles*32*32); o.Utilization != want || o.Utilization > 1 || o.Bound == "" || (o.Intensity > 0) != (o.MACs > 0) || o.Intensity > float64(o.MACs)/float64(o.Bytes) {
			t.Errorf("%+v, want utilization %v", o, want) // whole bursts are no less than the bytes
		}
		if o.Name == "conv1/2" {
			first = o.Utilization
		}
	}
	if first < 0.01 {
		t.Errorf("conv1/2 uses %.2f %% of the array", 100*first)
	}
	out, _, err = npuemu(t.Context(), "compile", lenet, "-o", filepath.Join(t.TempDir(), "lenet.npu"), "--table")
	if err != nil || !strings.Contains(out, "utilization  MAC/byte  bound by") {
		t.Errorf("%s, %v", out, err)
	}
}

// TestEstimateHost names what the host executes, with the reason, wherever layers are.
func TestEstimateHost(t *testing.T) {
	name := file(t, "host.npuir", doubled)
	r := estimated(t, name)[0]
	addUp(t, &r)
	if len(r.Layers) != 2 || r.Layers[0].Bound != "latency" || !strings.Contains(r.Layers[1].Host, "int64") {
		t.Errorf("%+v", r.Layers)
	}
	for _, format := range []string{"table", "csv"} {
		out, _, err := npuemu(t.Context(), "estimate", name, "--format", format)
		if err != nil || !strings.Contains(out, "wide") || !strings.Contains(out, "does not compute with int64") {
			t.Errorf("%s: %q, %v", format, out, err)
		}
	}
}

// TestEstimateModelSweep compiles a model for each array, and takes a compiled one as it is.
func TestEstimateModelSweep(t *testing.T) {
	list := estimated(t, lenet, "--sweep", "dim=16,32", "--sweep", "dram_width=8,32")
	if len(list) != 4 {
		t.Fatalf("%d results", len(list))
	}
	for i := range list {
		r := &list[i]
		addUp(t, r)
		if want := []int{16, 16, 32, 32}[i]; r.Rows != want || r.Cols != want {
			t.Errorf("%v: %d×%d", r.Sweep, r.Rows, r.Cols)
		}
	}
	if list[0].Cycles <= list[1].Cycles || list[1].Cycles <= list[3].Cycles || list[3].Cycles != estimated(t, lenet)[0].Cycles {
		t.Errorf("%d cycles, with more memory %d, and a larger array too %d", list[0].Cycles, list[1].Cycles, list[3].Cycles)
	}
	compiled := filepath.Join(t.TempDir(), "lenet.npu")
	if _, _, err := npuemu(t.Context(), "compile", lenet, "-o", compiled); err != nil {
		t.Fatal(err)
	}
	clocks := estimated(t, compiled, "--sweep", "clock=500,1000", "--sweep", "dram_latency=100,200")
	if len(clocks) != 4 || clocks[0].Cycles != clocks[2].Cycles || clocks[0].Milliseconds != 2*clocks[2].Milliseconds || clocks[1].Cycles <= clocks[0].Cycles {
		t.Errorf("%+v", clocks)
	}
	for _, key := range []string{"rows", "cols", "dim", "scratchpad", "accumulators", "dataflow"} {
		_, _, err := npuemu(t.Context(), "estimate", compiled, "--sweep", key+"=16")
		if err == nil || !strings.Contains(err.Error(), "it is compiled for an array of 32×32") || !strings.Contains(err.Error(), "give estimate the file that it was made of") {
			t.Errorf("%s: %v", key, err)
		}
	}
	widths := estimated(t, digits, "--sweep", "dram_width=1,32")
	for i := range widths {
		addUp(t, &widths[i])
	}
	if len(widths) != 2 || widths[0].Cycles <= widths[1].Cycles {
		t.Errorf("%+v", widths)
	}
}

// TestEstimateParts cuts a program at its labels, or around its products.
func TestEstimateParts(t *testing.T) {
	const unlabelled = ".isa 1.0\n.array 32, 32\n.bindings 2\n.spad 4096\n.acc 4096\n" +
		"load binding=0 local=0 nx=64\n%spreload weights=0 k=8 n=8 stride=8\nmatmul ifmap=0 acc=0 mx=4 k=8 n=8 stride_x=8 acc_stride=32\n" +
		"fill local=1024 nx=8\n%sstore binding=1 local=1024 nx=8\nload binding=0 local=0 nx=64\npreload weights=0 k=8 n=8 stride=8\nmatmul ifmap=0 acc=0 mx=4 k=8 n=8 stride_x=8 acc_stride=32\nhalt\n"
	for _, tt := range []struct{ first, second, want string }{
		{"", "", "matmul 2: 5, matmul 7: 3"},
		{"tile:\n", "out:\nsame:\n", "tile: 3, out, same: 4, before them: 1"},
	} {
		p, err := isa.Assemble("p.npuasm", []byte(fmt.Sprintf(unlabelled, tt.first, tt.second)))
		if err != nil {
			t.Fatal(err)
		}
		names, parts := programParts(p)
		_, reports, err := timing.Parts(t.Context(), p, timing.Config{Rows: 32, Cols: 32, Scratchpad: 1 << 20, Accumulators: 1 << 20, Params: timing.DefaultParams()}, 0, parts)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for i, r := range reports {
			if r.Instructions > 0 {
				got = append(got, fmt.Sprintf("%s: %d", names[i], r.Instructions))
			}
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("parts are %s, want %s", s, tt.want)
		}
	}
}

// marks returns how many layers a plot shows, and its text; it is XML.
func marks(t *testing.T, svg string) (n int, text string) {
	t.Helper()
	f, err := os.Open(svg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for d := xml.NewDecoder(f); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return n, text
		}
		if err != nil {
			t.Fatal(err)
		}
		switch e := token.(type) {
		case xml.StartElement:
			if e.Name.Local == "title" {
				n++
			}
			for _, a := range e.Attr {
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
					t.Errorf("%s=%q", a.Name.Local, a.Value)
				}
			}
		case xml.CharData:
			text += string(e)
		}
	}
}

// TestRoofline has the plot be XML with a mark for each layer that multiplies, whatever their names are.
func TestRoofline(t *testing.T) {
	layers := file(t, "l<&.csv", "Layer,M,N,K,\n<script>&\"',30,40,50,\nb,1,1,1,\n")
	for _, tt := range []struct {
		name  string
		marks int
		text  []string
	}{
		{layers, 2, []string{"<script>&\"'", "on 32×32, ws"}},
		{lenet, 4, []string{"conv1/2", "3 without products are not shown", "bound by latency", "lenet.prototxt on 32×32: 32 bytes/cycle"}},
		{digits, 3, []string{"matmul 9"}},
		{file(t, "stays.npuasm", ".isa 1.0\n.array 32, 32\n.spad 4096\n.acc 4096\npreload weights=0 k=8 n=8 stride=8\nmatmul ifmap=0 acc=0 mx=4 k=8 n=8 stride_x=8 acc_stride=32\nhalt\n"), 1, []string{"no byte of memory"}},
	} {
		svg := filepath.Join(t.TempDir(), "r.svg")
		if _, _, err := npuemu(t.Context(), "estimate", tt.name, "--roofline", svg); err != nil {
			t.Fatal(err)
		}
		n, text := marks(t, svg)
		if n != tt.marks {
			t.Errorf("%s: %d marks, want %d", tt.name, n, tt.marks)
		}
		for _, want := range tt.text {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is missing in %s", tt.name, want, text)
			}
		}
	}
}

func TestEstimateMistakes(t *testing.T) {
	layers := file(t, "l.csv", "Layer,M,N,K,\na,30,x,50,\n")
	good := file(t, "g.csv", "Layer,M,N,K,\na,30,4,50,\n")
	wide := file(t, "w.toml", "[array]\nrows = 64\n")
	little := file(t, "s.toml", "[array]\nscratchpad = 1024\n")
	hang := file(t, "h.npuasm", ".isa 1.0\nsync.load wait=1\nhalt\n")
	source := file(t, "m.npuir", doubled)
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
		{"dataflow of a program", []string{digits, "--dataflow", "os"}, "are for layer tables, whose names end in .csv"},
		{"array of a program", []string{digits, "--sweep", "rows=16"}, "a program runs on its own array only, here 32×32"},
		{"dataflow of a model", []string{source, "--sweep", "dataflow=os"}, "the compiler says it itself"},
		{"array that no card has", []string{source, "--sweep", "dim=512"}, "is compiled for a card: "},
		{"binding of a model", []string{source, "--bus", "70"}, "--bus 70: "},
		{"weights of a program", []string{digits, lenet}, "is for the weights of a .prototxt only"},
		{"size of a program", []string{digits, "--dim", "n=1"}, "--dim, --shape and --float are for models that are compiled now"},
		{"engines of layers", []string{good, "--engines"}, "--bus and --engines are for programs and models"},
		{"bus of layers", []string{good, "--bus", "1"}, "--bus and --engines are for programs"},
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
