// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/core/isa"
	"npuemu/core/systolic"
	"npuemu/timing"
)

// event is one of a time line.
type event struct {
	Ph   string
	Pid  int
	Tid  int
	TS   uint64
	Dur  uint64
	Name string
	Cat  string
	Args map[string]any
}

func (e *event) number(key string) uint64 {
	n, _ := e.Args[key].(float64)
	return uint64(n)
}

// file is a time line.
type file struct {
	TraceEvents []event
	OtherData   map[string]any
}

func parse(t *testing.T, b []byte) file {
	t.Helper()
	var f file
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	type strict struct {
		TraceEvents []json.RawMessage `json:"traceEvents"`
		OtherData   map[string]any    `json:"otherData"`
	}
	var s strict
	if err := d.Decode(&s); err != nil {
		t.Fatalf("%v in:\n%.2000s", err, b)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		t.Errorf("something is behind the JSON: %v", err)
	}
	f.OtherData = s.OtherData
	for _, raw := range s.TraceEvents {
		var e event
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatalf("%v in %s", err, raw)
		}
		f.TraceEvents = append(f.TraceEvents, e)
	}
	return f
}

func config() timing.Config {
	return timing.Config{Rows: 8, Cols: 8, Scratchpad: 1 << 20, Accumulators: 1 << 20, Params: timing.DefaultParams()}
}

func tok(id uint8) isa.Token { return isa.Token{ID: id, Count: 1} }

// tiles is a program of n tiles that are loaded, multiplied, scaled and stored, each while its neighbours are.
func tiles(n uint32) *isa.Program {
	p := &isa.Program{Text: isa.Text(
		isa.Load{NX: 64, NY: 1, NZ: 1, Signal: tok(3)},
		isa.Sync{Engine: isa.ClassMatrix, Wait: tok(3)},
		isa.Sync{Engine: isa.ClassStore, Signal: isa.Token{ID: 0, Count: 2}}, // two halves
		isa.Loop{Count: n, Step: 1},
		isa.Load{Binding: 1, NX: 3200, NY: 1, NZ: 1, Wait: tok(0), Signal: tok(1)},
		isa.Preload{K: 8, N: 8, Stride: 8, Wait: tok(1)},
		isa.Matmul{K: 8, N: 8, MX: 200, MY: 1, StrideX: 8, AccStride: 32, Signal: tok(2)},
		isa.Requant{N: 8, AccStride: 32, MX: 20, MY: 1, OutStrideX: 8, Hi: 1, Wait: tok(2), Signal: tok(4)},
		isa.Store{Binding: 2, NX: 64, NY: 1, NZ: 1, Wait: tok(4), Signal: tok(0)},
		isa.End{},
		isa.Operands{A: systolic.Int8, B: systolic.Int8, AStride: 8, BStride: 8, AccStride: 32},
		isa.Gemm{M: 20, N: 8, K: 8},
		isa.Halt{})}
	p.Descriptor = isa.Descriptor{Minor: isa.Minor, Rows: 8, Cols: 8, SpadSize: 1 << 20, AccSize: 1 << 20, Bindings: 4, Features: isa.Features}
	return p
}

// parts are the operators of tiles.
var parts = []Operator{{"loop", "conv", 0, 10}, {"last", "gemm", 10, 12}}

func write(t *testing.T, limit uint64, programs ...Program) ([]byte, []timing.Report) {
	t.Helper()
	var b bytes.Buffer
	w := New(&b, "test", config(), limit)
	var reports []timing.Report
	for _, p := range programs {
		r, err := w.Program(context.Background(), p)
		if err != nil {
			t.Fatal(err)
		}
		reports = append(reports, r)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), reports
}

// compare adds up what a time line has, and compares it with the reports of its programs.
func compare(t *testing.T, f file, reports []timing.Report) {
	t.Helper()
	var want timing.Report
	for i := range reports {
		want.Add(&reports[i])
	}
	want.Stamps = nil
	got := timing.Report{Cycles: 0, Instructions: uint64(len(reports))} // HALT of each
	names := map[int]string{}
	until := map[int]uint64{}
	engine := map[int]int{rowLoad: 0, rowStore: 1, rowMatrix: 2, rowWeights: 2, rowVector: 3}
	type sample struct{ at, rate float64 }
	last, moved := map[int]sample{}, map[int]float64{}
	for i := range f.TraceEvents {
		e := &f.TraceEvents[i]
		switch e.Ph {
		case "M":
			if e.Name == "thread_name" {
				names[e.Tid], _ = e.Args["name"].(string)
			}
			continue
		case "C":
			s := last[e.Tid]
			rate, ok := e.Args["bytes/cycle"].(float64)
			if !ok || float64(e.TS) < s.at {
				t.Errorf("%+v goes back, or counts nothing", e)
			}
			moved[e.Tid] += s.rate * (float64(e.TS) - s.at)
			last[e.Tid] = sample{float64(e.TS), rate}
			continue
		case "X":
		default:
			t.Errorf("event %+v", e)
			continue
		}
		if e.TS < until[e.Tid] {
			t.Errorf("row %q is in use until %d: %+v", names[e.Tid], until[e.Tid], e)
		}
		until[e.Tid] = e.TS + e.Dur
		k, ok := engine[e.Tid]
		if e.Tid == rowProgram {
			got.Cycles = max(got.Cycles, e.TS+e.Dur)
		}
		if !ok {
			continue
		}
		g := &got.Engines[k]
		if e.Cat == "stall" {
			for c := range timing.Causes {
				if e.Name == "wait: "+c.String() {
					g.Stalls[c] += e.Dur
				}
			}
			continue
		}
		n := uint64(1)
		if e.Cat == "merged" {
			n = e.number("instructions")
			g.Busy += e.number("busy_" + rowNames[engineRows[k]])
			for c := range timing.Causes {
				g.Stalls[c] += e.number("stall_" + c.String())
			}
			got.DRAM += e.number("memory_bytes")
		} else {
			if e.Tid != rowWeights {
				g.Busy += e.Dur
			}
			g.Stalls[timing.OnMemory] += e.number("memory_stall")
			g.Stalls[timing.OnScratchpad] += e.number("scratchpad_stall")
			got.DRAM += e.number("dram_bytes")
			got.Bus += e.number("bus_bytes")
		}
		g.Instructions += n
		got.Instructions += n
		got.MACs += e.number("macs")
		if e.Tid == rowLoad {
			got.Loaded += e.number("bytes")
		} else {
			got.Stored += e.number("bytes")
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the reports and what the time line adds up to (-want +got):\n%s", diff)
	}
	for r := rowProgram; r < rowCount; r++ {
		if names[r] != rowNames[r] {
			t.Errorf("row %d is called %q", r, names[r])
		}
	}
	// The counters' areas are what was moved.
	if sum := moved[rowLoad] + moved[rowStore]; math.Abs(sum-float64(want.DRAM)) > 0.001*float64(want.Cycles) || last[rowLoad].rate != 0 {
		t.Errorf("counters add up to %.0f bytes of %d", sum, want.DRAM)
	}
	if int(until[rowProgram]) != int(want.Cycles) || f.OtherData["cycles"] != float64(want.Cycles) || f.OtherData["unit"] != "1 µs is 1 cycle" {
		t.Errorf("the time line ends at %d of %d cycles, and says %v", until[rowProgram], want.Cycles, f.OtherData)
	}
	if s, m := f.OtherData["shown_instructions"].(float64), f.OtherData["merged_instructions"].(float64); uint64(s+m) != want.Instructions-uint64(len(reports)) {
		t.Errorf("%v of %d instructions are shown, and %v are not", s, want.Instructions, m)
	}
}

// Whatever is shown one by one, a time line adds up to the report, is the same twice, and says what it leaves out.
func TestTimeLine(t *testing.T) {
	p := Program{Name: "p", Program: tiles(600), Operators: parts}
	other := Program{Name: "without operators", Program: tiles(3)}
	for _, limit := range []uint64{0, 1, 2, 5, 1000, 100_000} {
		b, reports := write(t, limit, p, other, p)
		again, _ := write(t, limit, p, other, p)
		if !bytes.Equal(b, again) {
			t.Errorf("limit %d: two time lines differ", limit)
		}
		f := parse(t, b)
		compare(t, f, reports)
		all := reports[0].Instructions*2 + reports[1].Instructions - 3
		if m := f.OtherData["merged_instructions"].(float64); uint64(m) != all-min(limit, all) {
			t.Errorf("limit %d: %v of %d instructions are merged", limit, m, all)
		}
		merged := uint64(0)
		for i := range f.TraceEvents {
			e := &f.TraceEvents[i]
			if e.Tid == rowProgram && e.Ph == "X" {
				merged += e.number("merged_instructions")
			}
			if e.Cat != "merged" {
				continue
			}
			if n := e.number("instructions"); n > blockSize || e.Name != fmt.Sprintf("%d instructions", n) || e.TS < reports[0].Cycles && e.Args["operator"] == nil {
				t.Errorf("limit %d: %+v", limit, e)
			}
		}
		if uint64(f.OtherData["merged_instructions"].(float64)) != merged {
			t.Errorf("limit %d: programs say that %d instructions are merged", limit, merged)
		}
		if limit == 0 && len(f.TraceEvents) > 200 {
			t.Errorf("%d events of merged instructions", len(f.TraceEvents))
		}
		if t.Failed() {
			return
		}
	}
}

// Operators last from their first instruction to the end of their last one, in lanes where they overlap.
func TestOperators(t *testing.T) {
	b, reports := write(t, DefaultLimit, Program{Name: "p", Program: tiles(5), Operators: parts, Tensor: func(index int, binding uint8, offset uint64) string {
		return fmt.Sprintf("tensor %d of %d at %d", binding, index, offset)
	}})
	f := parse(t, b)
	var got []event
	tensors, named := map[string]int{}, 0
	for _, e := range f.TraceEvents {
		if e.Cat == "operator" {
			got = append(got, e)
		}
		if s, ok := e.Args["tensor"].(string); ok {
			tensors[s]++
		}
		if e.Args["operator"] == "loop" {
			named++
		}
	}
	if len(got) != 2 || got[0].Name != "loop" || got[0].Args["operator"] != "conv" || got[1].Name != "last" || got[0].number("macs")+got[1].number("macs") != reports[0].MACs {
		t.Fatalf("%+v", got)
	}
	if got[0].TS != 0 || got[0].number("instructions") != 3+5*5 || named != 3+5*5 || got[0].number("busy_load") != reports[0].Engines[0].Busy ||
		got[0].Tid == got[1].Tid || got[1].TS >= got[0].Dur { // the product does not wait for the last STORE
		t.Errorf("%+v", got)
	}
	if end := max(got[0].TS+got[0].Dur, got[1].TS+got[1].Dur); end != reports[0].Cycles {
		t.Errorf("the last operator ends at %d of %d", end, reports[0].Cycles)
	}
	if diff := cmp.Diff(map[string]int{"tensor 0 of 0 at 0": 1, "tensor 1 of 4 at 0": 5, "tensor 2 of 8 at 0": 5}, tensors); diff != "" {
		t.Errorf("tensors (-want +got):\n%s", diff)
	}
}

// Names are whatever a model has.
func TestNames(t *testing.T) {
	for _, name := range []string{"", `a"b\c`, "\x00\n\x7f", "\xff\xfe", "\u2028é漢", strings.Repeat("long", 1000)} {
		var b bytes.Buffer
		w := New(&b, name, config(), 1)
		w.Host(name, name, name)
		ops := []Operator{{name, name, 0, 10}}
		if _, err := w.Program(context.Background(), Program{Name: name, Program: tiles(1), Operators: ops, Tensor: func(int, uint8, uint64) string { return name }}); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, e := range parse(t, b.Bytes()).TraceEvents {
			if e.Name == strings.ToValidUTF8(name, "\ufffd") || name == "\xff\xfe" && e.Name == "\ufffd\ufffd" {
				found++
			}
		}
		if found < 2 {
			t.Errorf("%q is the name of %d events", name, found)
		}
	}
}

// full takes n bytes.
type full struct{ n int }

var errFull = errors.New("full")

func (f *full) Write(p []byte) (int, error) {
	if len(p) > f.n {
		return f.n, errFull
	}
	f.n -= len(p)
	return len(p), nil
}

func TestErrors(t *testing.T) {
	for _, room := range []int{0, 1 << 16, 1 << 17} {
		w := New(&full{room}, "test", config(), DefaultLimit)
		_, err := w.Program(context.Background(), Program{Name: "p", Program: tiles(300)})
		if closed := w.Close(); !errors.Is(closed, errFull) || err != nil && !errors.Is(err, errFull) {
			t.Errorf("room for %d bytes: %v, then %v", room, err, closed)
		}
	}
	// The model stops when nobody takes what it says: a program of 16 million instructions would take seconds.
	w := New(&full{1 << 16}, "test", config(), DefaultLimit)
	long := tiles(2_000_000)
	if _, err := w.Program(context.Background(), Program{Name: "p", Program: long}); !errors.Is(err, errFull) {
		t.Errorf("a long program: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	w = New(io.Discard, "test", config(), DefaultLimit)
	if _, err := w.Program(ctx, Program{Name: "p", Program: long}); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context ended: %v", err)
	}
	if err := w.Close(); !errors.Is(err, context.Canceled) {
		t.Errorf("a time line of half a program: %v", err)
	}
	if _, err := w.Program(context.Background(), Program{Name: "p", Program: tiles(1)}); !errors.Is(err, context.Canceled) {
		t.Errorf("another program: %v", err)
	}
}

func BenchmarkWriter(b *testing.B) {
	p := Program{Name: "p", Program: tiles(10_000), Operators: parts}
	n := &count{}
	for b.Loop() {
		w := New(n, "test", config(), DefaultLimit)
		if _, err := w.Program(context.Background(), p); err != nil {
			b.Fatal(err)
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/50_000, "ns/instruction")
	b.ReportMetric(float64(n.n)/float64(b.N)/50_000, "B/instruction")
}

type count struct{ n int }

func (c *count) Write(p []byte) (int, error) { c.n += len(p); return len(p), nil }
