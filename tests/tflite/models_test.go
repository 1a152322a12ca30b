// SPDX-License-Identifier: Apache-2.0

// Package tflite runs models of public test suites on a card and compares them with what the LiteRT interpreter computed;
// make test-tflite gets both.
package tflite

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"npuemu/attach"
	cc "npuemu/compiler"
	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/tests/compiler"
	"npuemu/timing"
	"npuemu/vdev"
)

var update = flag.Bool("update", false, "write docs/tflite.md")

// leastModels is how many models have to be equal with nothing on the host (issue 6).
const leastModels = 12

// result is what became of a model.
type result struct {
	name, operators string
	runs, equal     int
	device          int
	hosts           []string
	outputs         int
	cycles          uint64
	err             error
}

func (r *result) pass() bool { return r.err == nil && r.equal == r.runs && len(r.hosts) == 0 }

// TestModels runs each model of NPUEMU_TFLITE_CASES as often as golden.py did, one run after the other: every output is LiteRT's to
// the bit, and variables go from run to run.
func TestModels(t *testing.T) {
	dir := os.Getenv("NPUEMU_TFLITE_CASES")
	if dir == "" {
		t.Skip("NPUEMU_TFLITE_CASES is not set; make test-tflite makes the cases and sets it")
	}
	cfg := vdev.DefaultConfig()
	card, err := compiler.NewCard(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := card.Close(); err != nil {
			t.Error(err)
		}
	}()
	target := attach.Target(cfg)
	var results []result
	passed := 0
	for _, name := range models(t) {
		r := result{name: name}
		r.err = r.run(t, card, target, cfg.Timing, filepath.Join(dir, strings.TrimSuffix(path.Base(name), ".tflite")))
		if r.pass() {
			passed++
		} else {
			t.Errorf("%s: %d of %d runs equal, on the host %v, %v", name, r.equal, r.runs, r.hosts, r.err)
		}
		results = append(results, r)
	}
	if passed < leastModels {
		t.Errorf("%d models are equal with nothing on the host, want %d", passed, leastModels)
	}
	const page = "../../docs/tflite.md"
	text := pageOf(results)
	if *update {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if have, err := os.ReadFile(page); err != nil || string(have) != text {
		t.Errorf("docs/tflite.md is not what the models give (%v); make test-tflite writes it", err)
	}
}

// models are the paths of models.txt.
func models(t *testing.T) []string {
	f, err := os.Open("models.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out []string
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) == 2 && w[0] != "commit" {
			out = append(out, w[1])
		}
	}
	return out
}

func (r *result) run(t *testing.T, card *compiler.Card, target emit.Target, params timing.Params, dir string) error {
	count := map[string]int{}
	g, err := cc.Load(filepath.Join(dir, "model.tflite"), func(pass string, g *ir.Graph) {
		if pass == "import" {
			for _, n := range g.Nodes {
				count[strings.TrimPrefix(n.Op, "tfl.")]++
			}
		}
	})
	if err != nil {
		return err
	}
	var ops []string
	for op, n := range count {
		if n > 1 {
			op = fmt.Sprintf("%s × %d", op, n)
		}
		ops = append(ops, op)
	}
	slices.Sort(ops)
	r.operators = strings.Join(ops, ", ")
	m, err := cc.Build(g, target)
	if err != nil {
		return err
	}
	if err := cc.Estimate(t.Context(), m, params); err != nil {
		return err
	}
	for _, s := range m.Steps {
		r.cycles += s.Cycles
	}
	var state [][]byte // of the variables, which are the last inputs and outputs
	for i := range m.Inputs {
		if _, ok := m.Variables()[i]; ok {
			state = append(state, m.Inputs[i].Zeros())
		}
	}
	for ; ; r.runs++ {
		var in [][]byte
		for i := range len(g.Inputs) - len(state) {
			b, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d.input.%d", r.runs, i)))
			if os.IsNotExist(err) {
				break
			} else if err != nil {
				return err
			}
			in = append(in, b)
		}
		if len(in) == 0 {
			break
		}
		out, hosts, err := card.Execute(t.Context(), g, append(in, state...))
		if err != nil {
			return err
		}
		r.hosts = nil
		for _, h := range hosts {
			r.hosts = append(r.hosts, h.Op)
		}
		r.device = len(m.Nodes) - len(hosts)
		r.outputs = len(out) - len(state)
		same := true
		for i, o := range out[:r.outputs] {
			want, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d.output.%d", r.runs, i)))
			if err != nil {
				return err
			}
			if !bytes.Equal(o, want) {
				same = false
				t.Logf("%s, run %d: %s", r.name, r.runs, difference(o, want))
			}
		}
		if same {
			r.equal++
		}
		state = out[r.outputs:]
	}
	if r.runs == 0 {
		return fmt.Errorf("no inputs in %s", dir)
	}
	return nil
}

// difference says where a differs from b.
func difference(a, b []byte) string {
	if len(a) != len(b) {
		return fmt.Sprintf("%d bytes, not %d", len(a), len(b))
	}
	n, first := 0, -1
	for i := range a {
		if a[i] != b[i] {
			if n++; first < 0 {
				first = i
			}
		}
	}
	return fmt.Sprintf("%d of %d bytes differ, byte %d is %d, not %d", n, len(a), first, int8(a[first]), int8(b[first]))
}
