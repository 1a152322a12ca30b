// SPDX-License-Identifier: Apache-2.0

// Package run executes compiled models (docs/spec/model.md §14.5) on a card, whoever drives it:
// programs there, the nodes that the model names as the host's here. What the card counted is
// compared with what the programs are: a result that the card did not compute is an error.
package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/ref"
	"npuemu/core/isa"
)

// Memory is what a Card reaches.
type Memory interface {
	Bytes() []byte // as long as was asked for, for as long as the Card is open
}

// Binding is an entry of the table that a program is launched with (§7.3).
type Binding struct {
	Memory
	Write bool
}

// Counters are the card's own (§4.7).
type Counters struct {
	Programs     uint64 `json:"programs"`
	Errors       uint64 `json:"errors"`
	Instructions uint64 `json:"instructions"`
	MACs         uint64 `json:"macs"`
	BytesRead    uint64 `json:"dma_bytes_read"`
	BytesWritten uint64 `json:"dma_bytes_written"`
	Cycles       uint64 `json:"cycles"` // model time of commands (§13.8); 0 if the card has none, or does not say
}

// Since returns what was counted since before.
func (c Counters) Since(before Counters) Counters {
	return Counters{
		Programs: c.Programs - before.Programs, Errors: c.Errors - before.Errors, Instructions: c.Instructions - before.Instructions,
		MACs: c.MACs - before.MACs, BytesRead: c.BytesRead - before.BytesRead, BytesWritten: c.BytesWritten - before.BytesWritten,
		Cycles: c.Cycles - before.Cycles,
	}
}

// Hardware is what a card is.
type Hardware struct {
	model.Array
	Architecture string // as 1.5
}

// Card is a card and its driver.
type Card interface {
	Hardware() (Hardware, error)    // what the card's registers say
	Alloc(size int) (Memory, error) // all zero
	Free(Memory) error              // nobody uses it any more
	// Launch runs a program and says what it took; whose number it is in the model is the caller's business.
	Launch(ctx context.Context, program Memory, bindings []Binding) (Launch, error)
	Counters(ctx context.Context) (Counters, error)
}

// Session is a model in a card's memory. It is for one goroutine at a time, as the card is.
type Session struct {
	card     Card
	model    *model.Model
	programs []Memory
	bindings []Binding
}

// Load puts m into memory that the card reaches, until Close. A model for another configuration is refused.
func Load(card Card, m *model.Model) (*Session, error) {
	have, err := card.Hardware()
	if err != nil {
		return nil, fmt.Errorf("run: %w", err)
	}
	if err := fits(m, have); err != nil {
		return nil, err
	}
	for _, g := range m.Hosts {
		if err := ref.Check(g.Nodes[0]); err != nil {
			return nil, fmt.Errorf("run: model %q: %w", m.Name, err)
		}
	}
	s := &Session{card: card, model: m}
	if err := s.place(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// place fills memory of the card.
func (s *Session) place() error {
	for i, p := range s.model.Programs {
		b, err := put(s.card, p.Image())
		if err != nil {
			return fmt.Errorf("run: program %d of %d: %w; the model takes %d bytes of memory in all", i, len(s.model.Programs), err, s.model.Memory())
		}
		s.programs = append(s.programs, b)
	}
	for i, b := range s.model.Bindings {
		mem, err := s.card.Alloc(int(b.Size))
		if err != nil {
			return fmt.Errorf("run: %s, binding %d of %d bytes: %w; the model takes %d bytes of memory in all", b.Name, i, b.Size, err, s.model.Memory())
		}
		s.bindings = append(s.bindings, Binding{mem, b.Write})
	}
	copy(s.bindings[0].Bytes(), s.model.Constants)
	return nil
}

// Close takes the model out of the card's memory. Closing twice is allowed.
func (s *Session) Close() error {
	var errs []error
	for _, p := range s.programs {
		errs = append(errs, s.card.Free(p))
	}
	for _, b := range s.bindings {
		errs = append(errs, s.card.Free(b.Memory))
	}
	s.programs, s.bindings = nil, nil
	return errors.Join(errs...)
}

func put(card Card, b []byte) (Memory, error) {
	m, err := card.Alloc(len(b))
	if err == nil {
		copy(m.Bytes(), b)
	}
	return m, err
}

// Report is what happened in a run.
type Report struct {
	Counters Counters        `json:"counters"` // of the card, in this run
	Programs int             `json:"programs"`
	Device   time.Duration   `json:"device_ns"` // launches, from submission to completion
	Host     time.Duration   `json:"host_ns"`
	Steps    []time.Duration `json:"steps_ns"`
	Launches []Launch        `json:"launches"`          // in their order
	Untimed  string          `json:"untimed,omitempty"` // why there are no cycles
}

// Bytes is the content of t, a tensor of the model.
func (s *Session) Bytes(t *model.Tensor) []byte {
	return s.bindings[t.Binding].Bytes()[t.Offset:][:t.Bytes()]
}

// Run executes the model once. inputs has the data of each input, in order; what is returned is the
// card's memory, until the next Run. step, if not nil, is called before each step.
func (s *Session) Run(ctx context.Context, inputs [][]byte, step func(i int)) (outputs [][]byte, r Report, err error) {
	m := s.model
	if len(inputs) != len(m.Inputs) {
		return nil, r, fmt.Errorf("run: %d inputs for a model of %d", len(inputs), len(m.Inputs))
	}
	for i := range m.Inputs {
		t := &m.Inputs[i]
		if len(inputs[i]) != t.Bytes() {
			return nil, r, fmt.Errorf("run: input %q has %d bytes; %s%v has %d", t.Name, len(inputs[i]), t.Type, t.Shape, t.Bytes())
		}
		copy(s.Bytes(t), inputs[i])
	}
	before, err := s.card.Counters(ctx)
	if err != nil {
		return nil, r, fmt.Errorf("run: counters: %w", err)
	}
	r.Launches = make([]Launch, 0, len(m.Programs))
	for i, st := range m.Steps {
		if err := context.Cause(ctx); err != nil {
			return nil, r, fmt.Errorf("run: step %d of %d: %w", i+1, len(m.Steps), err)
		}
		if step != nil {
			step(i)
		}
		begin := time.Now()
		if st.Program >= 0 {
			l, err := s.card.Launch(ctx, s.programs[st.Program], s.bindings)
			if err != nil {
				return nil, r, fmt.Errorf("run: program %d of %d: %w%s", st.Program+1, len(m.Programs), err, s.blame(st.Program, err))
			}
			if err := context.Cause(ctx); err != nil { // the result is there, and too late
				return nil, r, fmt.Errorf("run: program %d of %d: %w", st.Program+1, len(m.Programs), err)
			}
			l.Program = st.Program
			r.Launches, r.Untimed = append(r.Launches, l), l.Untimed
		} else if err := s.host(st); err != nil {
			return nil, r, fmt.Errorf("run: on the host: %w", err)
		}
		d := time.Since(begin)
		r.Steps = append(r.Steps, d)
		if st.Program >= 0 {
			r.Device += d
		} else {
			r.Host += d
		}
	}
	after, err := s.card.Counters(ctx)
	if err != nil {
		return nil, r, fmt.Errorf("run: counters: %w", err)
	}
	r.Counters, r.Programs = after.Since(before), len(m.Programs)
	if err := s.proof(r.Counters); err != nil {
		return nil, r, err
	}
	for i := range m.Outputs {
		outputs = append(outputs, s.Bytes(&m.Outputs[i]))
	}
	return outputs, r, nil
}

// blamer is an error that names an instruction of a program (§5.7).
type blamer interface{ Instruction() (index int, ok bool) }

// blame names the node of the instruction in err.
func (s *Session) blame(program int, err error) string {
	var b blamer
	if !errors.As(err, &b) {
		return ""
	}
	if index, ok := b.Instruction(); ok {
		for _, n := range s.model.Nodes {
			if n.Program == program && index >= n.First && index < n.Last {
				return fmt.Sprintf(" (instruction %d, of node %q, %s)", index, n.Name, n.Op)
			}
		}
	}
	return ""
}

// proof compares what the card counted with what its programs do: no result comes from
// elsewhere.
func (s *Session) proof(c Counters) error {
	var want Counters
	for _, st := range s.model.Steps {
		if st.Program >= 0 {
			want.Programs++
			want.Instructions += uint64(len(s.model.Programs[st.Program].Text) / isa.Size)
		}
	}
	for _, n := range s.model.Nodes {
		want.MACs += n.MACs
	}
	if c.Programs != want.Programs || c.Instructions != want.Instructions || c.MACs != want.MACs {
		return fmt.Errorf("run: the card counted %d programs, %d instructions and %d multiply-accumulates; the model is %d, %d and %d: somebody else uses the card, or it did not run all of it",
			c.Programs, c.Instructions, c.MACs, want.Programs, want.Instructions, want.MACs)
	}
	return nil
}

// host runs a node here.
func (s *Session) host(st model.Step) error {
	g := s.model.Hosts[st.Host]
	n := g.Nodes[0]
	at := map[*ir.Tensor][]byte{}
	for i, t := range g.Inputs {
		at[t] = s.Bytes(&st.Inputs[i])
	}
	in := make([][]byte, len(n.Inputs))
	for i, t := range n.Inputs {
		switch {
		case t == nil:
		case t.Const():
			in[i] = t.Data
		default:
			in[i] = at[t]
		}
	}
	out, err := ref.Eval(n, in)
	if err != nil {
		return err
	}
	for i := range n.Outputs { // which are those of the graph
		copy(s.Bytes(&st.Outputs[i]), out[i])
	}
	return nil
}
