// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/npy"
	"npuemu/compiler/ref"
	"npuemu/compiler/run"
)

// steps is how far an output of a model may be from ONNX Runtime's, in steps of its quantization. It leaves some
// convolutions in fp32 and sums with another arithmetic (docs/compiler.md), and one step moves what is behind it.
var steps = map[string]float64{"small": 0, "resnet18": 4, "resnet50": 4, "mobilenetv2": 6}

// compileTime is what a compilation may take, on two cores (issue 6).
const compileTime = 5 * time.Second

// TestModels compiles and runs the models of NPUEMU_MODELS, which models.py made, on a card in this process,
// and compares them with what ONNX Runtime computed, and their times.
func TestModels(t *testing.T) {
	dir := os.Getenv("NPUEMU_MODELS")
	if dir == "" {
		t.Skip("NPUEMU_MODELS is not set; make bench-models sets it")
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.onnx"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no models in %s: %v", dir, err)
	}
	c := newCard(t)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".onnx")
		t.Run(name, func(t *testing.T) { c.model(t, strings.TrimSuffix(file, ".onnx"), steps[name]) })
	}
}

func (c *Card) model(t *testing.T, base string, most float64) {
	read := func(suffix string) []float32 {
		b, err := os.ReadFile(base + suffix)
		if err != nil {
			t.Fatal(err)
		}
		shape, data, err := npy.Read(b, ir.Float32)
		if err != nil {
			t.Fatal(err)
		}
		return ref.Floats(ir.Float32, data, ir.Elements(shape))
	}
	x, want := read(".x.npy"), read(".y.npy")
	begin := time.Now()
	g, err := compiler.Load(base+".onnx", nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := compiler.Build(g, c.target)
	if err != nil {
		t.Fatal(err)
	}
	compiled := time.Since(begin)
	s, err := run.Load(c, m)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	var times []time.Duration
	var got []float32
	var r run.Report
	for range 5 {
		begin := time.Now()
		out, report, err := s.Run(t.Context(), [][]byte{ref.PutFloats(ir.Float32, x, false)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		times, r = append(times, time.Since(begin)), report
		got = ref.Floats(ir.Float32, out[0], len(want))
	}
	slices.Sort(times)
	step := quantum(want)
	equal, worst := 0, 0.0
	for i := range want {
		if got[i] == want[i] {
			equal++
		}
		worst = max(worst, math.Abs(float64(got[i]-want[i]))/step)
	}
	var host []string
	for _, n := range m.Nodes {
		if n.Host != "" {
			host = append(host, n.Name)
		}
	}
	var theirs struct {
		Milliseconds float64
		Onnxruntime  string
	}
	if b, err := os.ReadFile(base + ".json"); err != nil {
		t.Error(err)
	} else if err := json.Unmarshal(b, &theirs); err != nil {
		t.Error(err)
	}
	ms := times[len(times)/2].Seconds() * 1000
	t.Logf("compiled in %v; %d operators on the card, on the host %v; %d instructions, %d multiply-accumulates counted by the card", compiled.Round(time.Millisecond), len(m.Nodes)-len(host), host, r.Counters.Instructions, r.Counters.MACs)
	t.Logf("%.1f ms, ONNX Runtime %s %.1f ms: %.2f times; %d of %d outputs equal, the furthest %.0f steps of %g", ms, theirs.Onnxruntime, theirs.Milliseconds, ms/theirs.Milliseconds, equal, len(want), worst, step)
	if len(host) > 0 {
		t.Errorf("on the host: %v", host)
	}
	if worst > most+0.01 {
		t.Errorf("an output is %.1f steps from ONNX Runtime's, more than %g", worst, most)
	}
	if compiled > compileTime {
		t.Errorf("compiled in %v, more than %v", compiled, compileTime)
	}
}

// quantum is the smallest difference of two numbers of v: the step of a quantized output.
func quantum(v []float32) float64 {
	s := slices.Clone(v)
	slices.Sort(s)
	least := math.Inf(1)
	for i := range s[1:] {
		if d := float64(s[i+1] - s[i]); d > 1e-6 {
			least = min(least, d)
		}
	}
	return least
}
