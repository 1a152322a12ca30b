// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npuemu/compiler/ir"
	"npuemu/compiler/npy"
)

// timeLine is what a file with a time line adds up to.
type timeLine struct {
	end          uint64 // of the last program
	instructions uint64 // of rows of engines
	busy, stalls [4]uint64
	hosts        int
	merged       uint64
	operators    map[string]bool
}

func readTimeLine(t *testing.T, name string) (l timeLine) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		TraceEvents []struct {
			Ph, Name, Cat string
			Tid           int
			TS, Dur       uint64
			Args          struct {
				Memory     uint64 `json:"memory_stall"`
				Scratchpad uint64 `json:"scratchpad_stall"`
			}
		}
		OtherData struct {
			Merged uint64 `json:"merged_instructions"`
		}
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	engine := map[int]int{2: 0, 3: 1, 4: 2, 6: 3} // 5 is PRELOAD's
	l.operators, l.merged = map[string]bool{}, f.OtherData.Merged
	for _, e := range f.TraceEvents {
		k, ok := engine[e.Tid]
		switch {
		case e.Ph == "i":
			l.hosts++
		case e.Ph == "X" && e.Tid == 1:
			l.end = e.TS + e.Dur
		case e.Cat == "operator":
			l.operators[e.Name] = true
		case e.Ph == "X" && e.Cat == "stall":
			l.stalls[k] += e.Dur
		case e.Ph == "X":
			l.instructions++
			if ok {
				l.busy[k] += e.Dur
				l.stalls[k] += e.Args.Memory + e.Args.Scratchpad
			}
		}
	}
	return l
}

// only fails unless the folder has just these files.
func only(t *testing.T, dir string, names ...string) {
	t.Helper()
	l, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range l {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the folder has %v, not %v", got, names)
	}
}

// The time line of estimate is of the numbers that it prints.
func TestEstimateTimeLine(t *testing.T) {
	dir, model, _ := doubledFiles(t)
	compiled := filepath.Join(dir, "doubled.npu")
	if _, _, err := npuemu(t.Context(), "compile", model, "-o", compiled); err != nil {
		t.Fatal(err)
	}
	two := filepath.Join(dir, "two.npu")
	if _, _, err := npuemu(t.Context(), "compile", file(t, "two.npuir", "graph \"two\"\ninput %x: int32[8]\nnode \"a\" npu.element(%x) -> (%a: int32[8]) {op=\"neg\"}\n"+
		"node \"h\" host.cast(%a) -> (%h: float64[8])\nnode \"i\" host.cast(%h) -> (%i: int32[8])\nnode \"b\" npu.element(%i) -> (%y: int32[8]) {op=\"neg\"}\noutput %y\n"), "-o", two); err != nil {
		t.Fatal(err)
	}
	const digits = "../../examples/digits/digits.npuasm"
	for _, tt := range []struct {
		name     string
		args     []string
		programs uint64
		hosts    int
		ops      int
	}{
		{"program", []string{digits}, 1, 0, 0},
		{"program, bus", []string{digits, "--bus", "0,1"}, 1, 0, 0},
		{"model", []string{compiled}, 1, 1, 1},
		{"model of two programs", []string{two}, 2, 2, 2},
	} {
		name := filepath.Join(t.TempDir(), "t.json")
		out, errs, err := npuemu(t.Context(), append([]string{"estimate", "--format", "json", "--timeline", name}, tt.args...)...)
		var results []estimateJSON
		if err != nil || errs != "" || json.Unmarshal([]byte(out), &results) != nil {
			t.Fatalf("%s: %q, %q, %v", tt.name, out, errs, err)
		}
		l, r := readTimeLine(t, name), results[0]
		if l.end != r.Cycles || l.instructions != r.Instructions-tt.programs || l.merged != 0 || l.hosts != tt.hosts || len(l.operators) != tt.ops {
			t.Errorf("%s: %+v, and estimate says %d cycles, %d instructions", tt.name, l, r.Cycles, r.Instructions)
		}
		for k, e := range r.Engines {
			stalls := uint64(0)
			for _, n := range e.Stalls {
				stalls += n
			}
			if l.busy[k] != e.Busy || l.stalls[k] != stalls {
				t.Errorf("%s: engine %s is busy for %d cycles and stalls for %d, and estimate says %d and %d", tt.name, e.Engine, l.busy[k], l.stalls[k], e.Busy, stalls)
			}
		}
		only(t, filepath.Dir(name), "t.json")
	}
}

// run writes one of a program and of a model, and says what is not in it.
func TestRunTimeLine(t *testing.T) {
	dir, model, x := doubledFiles(t)
	name := filepath.Join(dir, "t.json")
	if _, errs, err := npuemu(t.Context(), "run", model, "--input", x, "--timeline", name); err != nil || errs != "" {
		t.Fatalf("%q, %v", errs, err)
	}
	if l := readTimeLine(t, name); l.end == 0 || l.hosts != 1 || !l.operators["sum"] {
		t.Errorf("of the model: %+v", l)
	}
	_, errs, err := npuemu(t.Context(), "run", file(t, "p.npuasm", ".isa 1.0\n.spad 1024\n.bindings 1\nload binding=0 local=0 nx=1\nload binding=0 local=0 nx=1\nhalt\n"), "--in", "0="+model, "--timeline", name, "--timeline-limit", "1")
	if err != nil || !strings.Contains(errs, "t.json: 1 instructions are not shown one by one, but in blocks: --timeline-limit is 1\n") {
		t.Errorf("%q, %v", errs, err)
	}
	if l := readTimeLine(t, name); l.end == 0 || l.merged != 1 {
		t.Errorf("of the program: %+v", l)
	}
	only(t, dir, "doubled.npuir", "t.json", "x.npy")
}

// The time line of run is of the cycles that the card counted in model time, engine by engine.
func TestRunTimeLineIsTheCards(t *testing.T) {
	dir := t.TempDir()
	model := file(t, "g.npuir", "graph \"g\"\ninput %x: float32[1, 48, 64]\nnode \"a\" npu.gemm(%x, %x) -> (%a: float32[1, 48, 48]) {trans_b=1, rounding=\"none\"}\n"+
		"node \"h\" host.cast(%a) -> (%h: float64[1, 48, 48])\nnode \"i\" host.cast(%h) -> (%i: float32[1, 48, 48])\nnode \"b\" npu.element(%i) -> (%y: float32[1, 48, 48]) {op=\"exp\"}\noutput %y\n")
	x, name := filepath.Join(dir, "x.npy"), filepath.Join(dir, "t.json")
	b, err := npy.Write(ir.Float32, []int{1, 48, 64}, make([]byte, 4*48*64))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(x, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, _, err := npuemu(t.Context(), "run", model, "--input", x, "--time", "timed", "--timeline", name, "--json")
	var s modelSummary
	if err != nil || json.Unmarshal([]byte(out), &s) != nil || len(s.Launches) != 2 {
		t.Fatalf("%q, %v", out, err)
	}
	var want timeLine
	for _, l := range s.Launches {
		p := l.Profile
		want.end += p.Cycles
		want.instructions += p.Instructions - 1 // HALT
		for k, e := range p.Engines {
			want.busy[k] += e.Busy
			w := e.Stalls
			want.stalls[k] += w.Load + w.Store + w.Matrix + w.Vector + w.Dispatch + w.Weights + w.Memory + w.Scratchpad
		}
	}
	l := readTimeLine(t, name)
	if l.end != want.end || l.instructions != want.instructions || l.busy != want.busy || l.stalls != want.stalls || l.busy[2] == 0 {
		t.Errorf("the time line is\n%+v, the card counted\n%+v", l, want)
	}
}

// Nothing is left of a time line that was not finished, and errors say which flag is wrong.
func TestTimeLineErrors(t *testing.T) {
	const digits = "../../examples/digits/digits.npuasm"
	dir, model, x := doubledFiles(t)
	name := filepath.Join(dir, "t.json")
	if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	deadlock := file(t, "d.npuasm", ".isa 1.0\n.spad 64\n.bindings 1\nsync.load wait=1\nhalt\n")
	for _, tt := range []struct {
		name, want string
		args       []string
	}{
		{"no folder", "--timeline: create " + dir + "/no/t.json: no such file", []string{"estimate", digits, "--timeline", dir + "/no/t.json"}},
		{"a folder", "--timeline: open " + dir + ": is a directory", []string{"run", model, "--input", x, "--timeline", dir}},
		{"no room", "--timeline: write /dev/full: no space left", []string{"estimate", digits, "--timeline", "/dev/full"}},
		{"deadlock", "DEADLOCK", []string{"estimate", deadlock, "--timeline", name}},
		{"layers", "--timeline is for programs and compiled models", []string{"estimate", resnet50, "--timeline", name}},
		{"sweep", "--timeline is of one configuration", []string{"estimate", digits, "--sweep", "burst=32,64", "--timeline", name}},
		{"limit", "--timeline-limit 0: use 1 or more", []string{"estimate", digits, "--timeline", name, "--timeline-limit", "0"}},
		{"limit alone", "--timeline-limit is for --timeline, which is missing", []string{"run", model, "--input", x, "--timeline-limit", "5"}},
		{"no such input", "no-such.npy: no such file", []string{"run", model, "--input", "no-such.npy", "--timeline", name}},
		{"no model", "no such file", []string{"run", "no-such.npu", "--timeline", name}},
	} {
		if _, _, err := npuemu(t.Context(), tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, []byte("old")) {
		t.Errorf("the old file is %q, %v", b, err)
	}
	only(t, dir, "doubled.npuir", "t.json", "x.npy")
}
