// SPDX-License-Identifier: Apache-2.0

package run_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/run"
	"npuemu/core/isa"
)

// card is one that counts, and whose programs do what copied does.
type card struct {
	array    model.Array
	room     int // bytes that Alloc has
	counters run.Counters
	perRun   run.Counters
	fail     error
	launches int
	untimed  string
}

type memory []byte

func (m memory) Bytes() []byte { return m }

func (c *card) Hardware() (run.Hardware, error) {
	return run.Hardware{Array: c.array, Architecture: "1.2"}, nil
}

func (c *card) Alloc(size int) (run.Memory, error) {
	if size > c.room {
		return nil, fmt.Errorf("%d bytes are not left", size)
	}
	c.room -= size
	return make(memory, size), nil
}

func (c *card) Free(m run.Memory) error { c.room += len(m.Bytes()); return nil }

// Launch copies the model's input to the arena, or the arena to its output.
func (c *card) Launch(_ context.Context, _ run.Memory, bindings []run.Binding) (run.Launch, error) {
	if c.fail != nil {
		return run.Launch{}, c.fail
	}
	if c.launches++; c.launches%2 == 1 {
		copy(bindings[1].Bytes(), bindings[2].Bytes())
	} else {
		copy(bindings[3].Bytes(), bindings[1].Bytes()[32:])
	}
	c.counters.Programs += c.perRun.Programs
	c.counters.Instructions += c.perRun.Instructions
	c.counters.MACs += c.perRun.MACs
	return run.Launch{Cycles: uint64(c.launches), Untimed: c.untimed}, nil
}

func (c *card) Counters(context.Context) (run.Counters, error) { return c.counters, nil }

// at is an error of a launch at an instruction.
type at int

func (at) Error() string { return "the card says no" }

func (a at) Instruction() (int, bool) { return int(a), true }

// negated is a model that loads int64[4], negates it on the host, and stores it.
func negated(t *testing.T) (*model.Model, *card) {
	t.Helper()
	g, err := ir.Parse("graph \"h\"\ninput %a: int64[4]\nnode \"n\" host.element(%a) -> (%b: int64[4]) {op=\"neg\"}\noutput %b")
	if err != nil {
		t.Fatal(err)
	}
	program := &isa.Program{
		Descriptor: isa.Descriptor{Minor: 1, Rows: 32, Cols: 32, SpadSize: 64, AccSize: 32, Bindings: 4},
		Text:       isa.Text(isa.Load{Binding: 2, NX: 32, NY: 1, NZ: 1}, isa.Halt{}),
	}
	tensor := func(name string, binding int, off uint64) model.Tensor {
		return model.Tensor{Name: name, Type: "int64", Shape: []int{4}, Binding: binding, Offset: off}
	}
	m := &model.Model{
		Manifest: model.Manifest{
			Format: model.Format, Name: "negated", Architecture: "1.3", Array: model.Array{Rows: 32, Cols: 32, Scratchpad: 64, Accumulators: 32, Groups: []string{"gemm"}},
			Bindings: []model.Binding{{Name: "constants", Size: 8}, {Name: "arena", Size: 64, Write: true}, {Name: "x", Size: 32}, {Name: "y", Size: 32, Write: true}},
			Inputs:   []model.Tensor{tensor("x", 2, 0)}, Outputs: []model.Tensor{tensor("y", 3, 0)},
			Steps: []model.Step{{Program: 0, Host: -1}, {Program: -1, Host: 0, Inputs: []model.Tensor{tensor("a", 1, 0)}, Outputs: []model.Tensor{tensor("b", 1, 32)}}, {Program: 1, Host: -1}},
			Nodes: []model.Node{{Name: "first", Op: "npu.conv", Program: 0, First: 0, Last: 1, Instructions: []int{1, 0, 0, 0}, MACs: 10}},
		},
		Programs:  []*isa.Program{program, program},
		Constants: []byte("constant"),
		Hosts:     []*ir.Graph{g},
	}
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	return m, &card{
		array: model.Array{Rows: 32, Cols: 32, Scratchpad: 64, Accumulators: 32, Groups: []string{"gemm"}}, room: 1 << 16,
		perRun: run.Counters{Programs: 1, Instructions: 2, MACs: 5},
	}
}

var one = bytes.Repeat([]byte{1, 0, 0, 0, 0, 0, 0, 0}, 4)

// Steps run in order on the card and on the host, as often as wanted, and what is told of them is counted.
func TestRun(t *testing.T) {
	m, c := negated(t)
	s, err := run.Load(c, m)
	if err != nil {
		t.Fatal(err)
	}
	c.untimed = "nobody counts"
	for i := range uint64(2) {
		var steps []int
		out, r, err := s.Run(t.Context(), [][]byte{one}, func(i int) { steps = append(steps, i) })
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(out[0], bytes.Repeat([]byte{0xff}, 32)) {
			t.Errorf("the output is % x, not -1 four times", out[0])
		}
		if fmt.Sprint(steps) != "[0 1 2]" || len(r.Steps) != 3 || r.Programs != 2 || r.Counters != (run.Counters{Programs: 2, Instructions: 4, MACs: 10}) {
			t.Errorf("steps %v, report %+v", steps, r)
		}
		if diff := cmp.Diff([]run.Launch{{Program: 0, Cycles: 2*i + 1, Untimed: c.untimed}, {Program: 1, Cycles: 2*i + 2, Untimed: c.untimed}}, r.Launches); diff != "" || r.Untimed != c.untimed {
			t.Errorf("untimed %q, launches (-want +got):\n%s", r.Untimed, diff)
		}
	}
}

// A run ends between steps: those of the host do not look at the context.
func TestCancel(t *testing.T) {
	m, c := negated(t)
	s, err := run.Load(c, m)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	out, _, err := s.Run(ctx, [][]byte{one}, func(i int) {
		if i == 1 {
			cancel(enough)
		}
	})
	if !errors.Is(err, enough) || !strings.Contains(err.Error(), "step 3 of 3") || out != nil || c.launches != 1 {
		t.Errorf("%v after %d launches", err, c.launches)
	}
}

// A session gives all of the card's memory back, also one that does not come about.
func TestClose(t *testing.T) {
	m, c := negated(t)
	room := c.room
	s, err := run.Load(c, m)
	if err != nil || c.room == room {
		t.Fatalf("Load: %v, and took %d bytes", err, room-c.room)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil || c.room != room {
		t.Errorf("Close twice: %v; %d of %d bytes are back", err, c.room, room)
	}
	m.Bindings[1].Size = 1 << 40
	if _, err := run.Load(c, m); err == nil || c.room != room {
		t.Errorf("Load without room: %v; %d of %d bytes are back", err, c.room, room)
	}
}

// What a card or a model lacks is said before anything is launched; what a card did not compute is no result.
func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		change     func(m *model.Model, c *card)
		in         [][]byte
	}{
		{"another array", "for an array of 32 × 32, the card has 16 × 32", func(_ *model.Model, c *card) { c.array.Rows = 16 }, nil},
		{"less scratchpad", "64 bytes of scratchpad, the card has 63", func(_ *model.Model, c *card) { c.array.Scratchpad = 63 }, nil},
		{"fewer accumulators", "32 bytes of accumulators, the card has 31", func(_ *model.Model, c *card) { c.array.Accumulators = 31 }, nil},
		{"fewer groups", "compiled for architecture 1.3, the card is 1.2: it lacks group gemm (§5.3, §14.5); run it on a card of architecture 1.3 or later that has them", func(_ *model.Model, c *card) { c.array.Groups = nil }, nil},
		{"fewer groups, and others", "for an array of 32 × 32, the card has 8 × 32; for architecture 1.3, the card is 1.2: it lacks groups pool, addq (§5.3, §14.5); run it on a card of architecture 1.3 or later that has them, or compile it for this one (--arch 1.2", func(m *model.Model, c *card) {
			c.array.Rows, m.Array.Groups = 8, []string{"gemm", "pool", "addq"}
		}, nil},
		{"no room for programs", "program 0 of 2: ", func(_ *model.Model, c *card) { c.room = 10 }, nil},
		{"no room for a binding", "arena, binding 1 of 1099511627776 bytes: 1099511627776 bytes are not left; the model takes 1099511628104 bytes of memory in all", func(m *model.Model, _ *card) { m.Bindings[1].Size = 1 << 40 }, nil},
		{"a node that the host lacks", `node "n" (host.odd): neither the device nor the host runs it`, func(m *model.Model, _ *card) { m.Hosts[0].Nodes[0].Op = "host.odd" }, nil},
		{"a node whose attribute is none", `node "n" (host.element): attribute op is missing`, func(m *model.Model, _ *card) { m.Hosts[0].Nodes[0].Attrs = nil }, nil},
		{"no input", "0 inputs for a model of 1", nil, [][]byte{}},
		{"a short input", `input "x" has 31 bytes; int64[4] has 32`, nil, [][]byte{one[:31]}},
		{"a failed launch", "program 1 of 2: the card says no", func(_ *model.Model, c *card) { c.fail = errors.New("the card says no") }, nil},
		{"a failed instruction", `(instruction 0, of node "first", npu.conv)`, func(_ *model.Model, c *card) { c.fail = at(0) }, nil},
		{"an instruction of no node", "program 1 of 2: the card says no", func(_ *model.Model, c *card) { c.fail = at(1) }, nil},
		{"programs that did not run", "counted 0 programs, 4 instructions and 10 multiply-accumulates; the model is 2, 4 and 10", func(_ *model.Model, c *card) { c.perRun.Programs = 0 }, nil},
		{"half of a program", "2 programs, 2 instructions", func(_ *model.Model, c *card) { c.perRun.Instructions = 1 }, nil},
		{"products that were not computed", "and 0 multiply-accumulates", func(_ *model.Model, c *card) { c.perRun.MACs = 0 }, nil},
	} {
		m, c := negated(t)
		if tt.change != nil {
			tt.change(m, c)
		}
		if tt.in == nil {
			tt.in = [][]byte{one}
		}
		s, err := run.Load(c, m)
		var out [][]byte
		if err == nil {
			out, _, err = s.Run(t.Context(), tt.in, nil)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) || out != nil {
			t.Errorf("%s: %v, want %q and no output", tt.name, err, tt.want)
		}
	}
}
