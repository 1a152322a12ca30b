// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"npuemu/compiler"
	"npuemu/compiler/model"
	"npuemu/core/isa"
	"npuemu/internal/outfile"
	"npuemu/timing"
	"npuemu/timing/timeline"
)

// timelineHelp is about --timeline.
const timelineHelp = "--timeline FILE.json writes what each engine did when, by the timing model (§13.10), for ui.perfetto.dev and chrome://tracing, where a microsecond\n" +
	"is a cycle: instructions, stalls and their reasons, operators, bytes per cycle. Of more than --timeline-limit instructions the others come\n" +
	"in blocks of up to 1000."

// runOnBus is for run, which has all bindings in memory that its process shares with the card.
const runOnBus = ^uint64(0)

// timelineFlags are those of commands that write a time line (§13.10). --cp-trace is another thing: what the control processor
// executed.
type timelineFlags struct {
	name  string
	limit uint64

	file *outfile.File
}

func (f *timelineFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.name, "timeline", "", "write a time line of the engines, by the timing model, to this JSON `file`")
	c.Flags().Uint64Var(&f.limit, "timeline-limit", timeline.DefaultLimit, "`instructions` that a time line shows one by one")
	_ = c.MarkFlagFilename("timeline", "json")
}

// begin makes sure that the file can be written, before the work. end is to be called in any case.
func (f *timelineFlags) begin(c *cobra.Command) (err error) {
	switch {
	case f.name == "" && c.Flags().Changed("timeline-limit"):
		return errors.New("--timeline-limit is for --timeline, which is missing")
	case f.name == "":
		return nil
	case f.limit == 0:
		return errors.New("--timeline-limit 0: use 1 or more")
	}
	if f.file, err = outfile.Create(f.name); err != nil {
		return fmt.Errorf("--timeline: %w", err)
	}
	return nil
}

// end takes a file away that was not written.
func (f *timelineFlags) end() error {
	if f.file == nil {
		return nil
	}
	return f.file.Discard()
}

// write has do write the file, if there is to be one, and says on w what is not shown in it.
func (f *timelineFlags) write(w io.Writer, do func(w io.Writer, limit uint64) (merged uint64, err error)) error {
	if f.file == nil {
		return nil
	}
	merged, err := do(f.file, f.limit)
	if err == nil {
		err = f.file.Commit()
	}
	if err != nil {
		return fmt.Errorf("--timeline: %w", err)
	}
	if merged > 0 {
		fmt.Fprintf(w, "%s: %d instructions are not shown one by one, but in blocks: --timeline-limit is %d\n", f.name, merged, f.limit)
	}
	return nil
}

// loadedPrograms are those of a file, of a compiled model in the order of its steps.
type loadedPrograms struct {
	list  []*isa.Program
	model *model.Model // if it is one
}

// loadPrograms reads a program, or a compiled model that has one at least.
func loadPrograms(c *cobra.Command, name string) (l loadedPrograms, err error) {
	b, err := readInput(c, name)
	if err != nil {
		return l, err
	}
	if !isCompiled(b) {
		p, err := parseProgram(name, b)
		return loadedPrograms{list: []*isa.Program{p}}, err
	}
	m, err := model.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return l, fmt.Errorf("%s: %w", name, err)
	}
	return modelPrograms(name, m)
}

// modelPrograms are those of m, which a file of that name is or was made of, in the order of its steps.
func modelPrograms(name string, m *model.Model) (loadedPrograms, error) {
	l := loadedPrograms{model: m}
	for _, s := range m.Steps {
		if s.Program >= 0 {
			l.list = append(l.list, m.Programs[s.Program])
		}
	}
	if len(l.list) == 0 {
		return l, fmt.Errorf("%s: a compiled model of 0 programs: the host does all that it computes", name)
	}
	return l, nil
}

// timeLine writes that of l, which was read from a file of that name.
func (l *loadedPrograms) timeLine(ctx context.Context, name string, p timing.Params, onBus uint64) func(io.Writer, uint64) (uint64, error) {
	if l.model != nil {
		return modelTimeLine(ctx, l.model, p, onBus)
	}
	return func(w io.Writer, limit uint64) (uint64, error) {
		return programTimeLine(ctx, filepath.Base(name), l.list[0], p, onBus)(w, limit)
	}
}

// modelTimeLine writes that of m.
func modelTimeLine(ctx context.Context, m *model.Model, p timing.Params, onBus uint64) func(io.Writer, uint64) (uint64, error) {
	return func(w io.Writer, limit uint64) (uint64, error) {
		_, merged, err := compiler.TimeLine{OnBus: onBus, Limit: limit}.Write(ctx, w, m, p)
		return merged, err
	}
}

// programTimeLine writes that of a program in a file of that name, on its own array.
func programTimeLine(ctx context.Context, name string, program *isa.Program, p timing.Params, onBus uint64) func(io.Writer, uint64) (uint64, error) {
	return func(w io.Writer, limit uint64) (uint64, error) {
		c := timing.Config{Rows: int(program.Rows), Cols: int(program.Cols), Scratchpad: int64(program.SpadSize), Accumulators: int64(program.AccSize), Params: p}
		t := timeline.New(w, name, c, limit)
		if _, err := t.Program(ctx, timeline.Program{Name: name, Program: program, OnBus: onBus}); err != nil {
			return 0, err
		}
		return t.Merged(), t.Close()
	}
}
