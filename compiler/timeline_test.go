// SPDX-License-Identifier: Apache-2.0

package compiler_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/attach"
	"npuemu/compiler"
	"npuemu/compiler/model"
	"npuemu/timing"
	"npuemu/vdev"
)

// between is a graph with an operator of the host between two programs, and a copy of an input to an output.
const between = `graph "between"
input %x: int32[4, 64]
input %w: float32[1, 64, 32]
input %v: float32[1, 16, 64]
node "sum" npu.element(%x, %x) -> (%a: int32[4, 64]) {op="add"}
node "wide" host.cast(%a) -> (%b: int64[4, 64])
node "narrow" host.cast(%b) -> (%c: int32[4, 64])
node "less" npu.element(%c, %a) -> (%y: int32[4, 64]) {op="sub"}
node "product" npu.gemm(%v, %w) -> (%p: float32[1, 16, 32]) {rounding="none"}
output %y
output %p
`

// build compiles a model.
func build(t *testing.T, s compiler.Source) *model.Model {
	t.Helper()
	g, err := s.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	m, err := compiler.Build(g, attach.Target(vdev.DefaultConfig()))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// sums are what a time line says of an operator.
type sums struct{ MACs, Loaded, Stored uint64 }

// A time line names what the model knows, and agrees with what the compiler counted.
func TestTimeLine(t *testing.T) {
	for _, tt := range []struct {
		name    string
		source  compiler.Source
		hosts   string
		tensors string // that are moved, of the arena, at least
	}{
		{"net", compiler.Source{Path: "tflite/testdata/net/model.tflite"}, "", ""},
		{"between", compiler.Source{Format: "npuir", Data: []byte(between)}, "wide narrow", "a c v w x y"},
	} {
		m := build(t, tt.source)
		p := timing.DefaultParams()
		if err := compiler.Estimate(t.Context(), m, p); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		steps := 0
		cycles, merged, err := compiler.TimeLine{Limit: 1 << 20, Progress: func(done, total int) {
			if done != steps || total != len(m.Steps) {
				t.Errorf("%s: progress %d of %d before step %d", tt.name, done, total, steps)
			}
			steps++
		}}.Write(t.Context(), &out, m, p)
		if err != nil || merged != 0 || steps != len(m.Steps) {
			t.Fatalf("%s: %v, %d instructions are merged, %d steps", tt.name, err, merged, steps)
		}
		want := uint64(0)
		for _, s := range m.Steps {
			want += s.Cycles
		}
		var f struct {
			TraceEvents []struct {
				Ph   string
				Tid  int
				TS   uint64
				Dur  uint64
				Name string
				Cat  string
				Args struct {
					Operator, Tensor, Name string
					MACs, Bytes            uint64
				}
			}
		}
		if err := json.Unmarshal(out.Bytes(), &f); err != nil {
			t.Fatal(err)
		}
		rows, end := map[int]string{}, uint64(0)
		got, planned := map[string]sums{}, map[string]sums{}
		tensors, hosts, stored := map[string]bool{}, "", map[string]map[string]bool{}
		for _, e := range f.TraceEvents {
			row := rows[e.Tid]
			switch {
			case e.Ph == "M":
				rows[e.Tid] = e.Args.Name
			case e.Ph == "i":
				hosts += e.Name[len("host: "):] + " "
			case e.Ph == "X" && row == "programs":
				end = e.TS + e.Dur
			case e.Ph == "X" && e.Cat == "" && e.Args.Operator != "":
				s := got[e.Args.Operator]
				s.MACs += e.Args.MACs
				if row == "load" {
					s.Loaded += e.Args.Bytes
				} else {
					s.Stored += e.Args.Bytes
				}
				got[e.Args.Operator] = s
				if e.Args.Tensor != "" {
					tensors[e.Args.Tensor] = true
					if row == "store" {
						if stored[e.Args.Operator] == nil {
							stored[e.Args.Operator] = map[string]bool{}
						}
						stored[e.Args.Operator][e.Args.Tensor] = true
					}
				} else if e.Args.Bytes > 0 {
					t.Errorf("%s: %+v moves nothing that has a name", tt.name, e)
				}
			}
		}
		if cycles != want || end != want || strings.TrimSpace(hosts) != tt.hosts {
			t.Errorf("%s: %d cycles, and the last program ends at %d of %d; hosts %q", tt.name, cycles, end, want, hosts)
		}
		for _, n := range m.Nodes {
			if n.Program >= 0 && n.First < n.Last && n.Within == "" {
				planned[n.Name] = sums{n.MACs, n.Loaded, n.Stored}
			}
			if n.Host != "" || n.Within != "" || n.First == n.Last {
				continue
			}
			for name := range stored[n.Name] {
				own := false
				for _, o := range m.Nodes {
					if o.Name == n.Name || o.Within == n.Name {
						for _, t := range o.Outputs {
							own = own || t.Name == name || slices.ContainsFunc(m.Outputs, func(out model.Tensor) bool { // of another shape
								return out.Name == name && out.Binding == t.Binding && out.Offset == t.Offset
							})
						}
					}
				}
				if !own {
					t.Errorf("%s: %s stores to %q, which it does not make", tt.name, n.Name, name)
				}
			}
		}
		if diff := cmp.Diff(planned, got); diff != "" || len(got) == 0 {
			t.Errorf("%s: operators of the compiler and of the time line (-compiler +time line):\n%s", tt.name, diff)
		}
		for _, name := range strings.Fields(tt.tensors) {
			if !tensors[name] {
				t.Errorf("%s: tensor %q is not among those that are moved: %v", tt.name, name, tensors)
			}
		}
	}
}

func TestTimeLineErrors(t *testing.T) {
	m := build(t, compiler.Source{Format: "npuir", Data: []byte(between)})
	p := timing.DefaultParams()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := (compiler.TimeLine{Limit: 1}).Write(ctx, &bytes.Buffer{}, m, p); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context ended: %v", err)
	}
	p.Burst = 0
	if _, _, err := (compiler.TimeLine{Limit: 1}).Write(t.Context(), &bytes.Buffer{}, m, p); err == nil || !strings.Contains(err.Error(), "burst") {
		t.Errorf("bursts of 0 bytes: %v", err)
	}
}
