// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"npuemu/attach"
	"npuemu/compiler"
	"npuemu/compiler/model"
	"npuemu/compiler/run"
	"npuemu/core/isa"
	"npuemu/core/isa/lint"
	"npuemu/umd"
	"npuemu/vdev"
)

func runCommand() *cobra.Command {
	var (
		cf      configFlags
		o       runOptions
		ins     []string
		outs    []string
		given   argumentFlags
		level   string
		mode    string
		timeout time.Duration
	)
	c := &cobra.Command{
		Use:   "run PROGRAM|MODEL [WEIGHTS]",
		Short: "Run a program or a model on a card, without a virtual machine",
		Long: "A MODEL is a compiled one, or a file that compile takes, which is then compiled for the card's configuration. --input FILE gives its\n" +
			"inputs in order, or NAME=FILE: .npy, or images; variables (§14.3) without one begin as 0. Without any --input they are made up: pseudo-random,\n" +
			"the same each time. --output takes files for the outputs, as .npy, likewise. The\n" +
			"summary says what the card counted, and names every operator that was not executed there; --table and --json have all operators, with engine,\n" +
			"cycles by itself by the timing model (§13, the configuration's [timing]), bytes, utilization, intensity, and what bounds it (§13.11). They also have what the card itself counted of each program: cycles,\n" +
			"and what its engines did and waited for (§13.8.4). That takes a card in time mode timed or paced: --time, or npuemu serve --time. " + weightsHelp + "\n\n" + imageHelp + "\n" +
			"With a PROGRAM run boots a card, runs one program on it and prints what the card counted. PROGRAM is an ELF program or an image (§5.3),\n" +
			"or, if its name ends in .npuasm, assembler text. The card is in this process, or with --device vfio-user:PATH\n" +
			"the one that npuemu serve presents there; either way a user-mode driver drives its registers, queues and firmware.\n\n" +
			"Bindings (§7.3) are numbered from 0. --in N=FILE binds a file's bytes for reading; FILE:OFFSET:SIZE takes a part of it.\n" +
			"--out N=FILE:SIZE binds SIZE zero bytes for writing and stores them in FILE, - for standard output, after success only. A number given to\n" +
			"both is bound for both: it starts with the file's bytes. --repeat runs the program again on the same bindings.\n" +
			"--arg s0=16 is an argument (§4.9) of a program that takes some; those that are left out are 0.\n\n" +
			"A program is first gone through as npuemu lint does, with these bindings and, in this process, this card: about a microsecond for\n" +
			"each instruction that it passes; --no-lint leaves it out. What that finds is told on standard error, and the program runs all the\n" +
			"same. A program that fails is told with the instruction, its line, the rule of §5.7 and a remedy. The summary has the findings of\n" +
			"the linter and those of a card in this process, such as hazards (§5.5), in --json as lint, findings and error. The exit status is\n" +
			"0, 1 if something failed, and with --strict 3 if all ran and there is a finding.\n\n" +
			timelineHelp + " Bindings are memory on the bus, as run has them, with the card's cycles in time mode timed;\n" +
			"estimate --timeline takes them to be device memory, as the cycles of --table are.\n\n" +
			"With --gdb the control processor waits, in its boot ROM, for GDB to attach and continue (docs/debugging.md).",
		Example: "  npuemu run digits.npuasm --in 0=weights.bin:64:4120 --in 1=images.bin:64:64 --out 2=record.bin:3904\n" +
			"  npuemu run model.onnx --input image.npy --output class.npy\n" +
			"  npuemu run lenet.prototxt lenet.caffemodel --input digit.png --output class.npy\n" +
			"  npuemu run resnet18.onnx --input cat.jpg --resize --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225\n" +
			"  npuemu run model.onnx --input image.npy --timeline model.json\n" +
			"  npuemu run prog.npu --in 0=x.bin --out 1=-:256 --device vfio-user:/tmp/npu.sock --json",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) (err error) {
			log, err := newLog(c.ErrOrStderr(), level)
			if err != nil {
				return err
			}
			if o.cfg, err = cf.load(); err != nil {
				return err
			}
			o.cfg.Log = log
			if mode != "" {
				if o.device != attach.InProcess {
					return errors.New("--time is for a card in this process: give it to npuemu serve")
				}
				if o.cfg.Time, err = vdev.ParseTime(mode); err != nil {
					return fmt.Errorf("--time %w", err)
				}
			}
			if err := o.memory.check(o.device); err != nil {
				return err
			}
			if o.repeat < 1 {
				return fmt.Errorf("--repeat %d: use 1 or more", o.repeat)
			}
			if err := o.images.check(o.inputs); err != nil {
				return err
			}
			if err := o.debug.check(1); err != nil {
				return err
			}
			if len(o.debug.gdb)+len(o.debug.trace) > 0 && o.device != attach.InProcess {
				return errors.New("--gdb and --cp-trace are for a card in this process: give them to npuemu serve")
			}
			if len(o.debug.gdb) > 0 && !c.Flags().Changed("timeout") {
				timeout = unhurried
			}
			if err := o.timeline.begin(c); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, o.timeline.end()) }()
			var m *model.Model
			m, o.below, err = loadModel(c, args, o.cfg, o.sizes)
			if err != nil {
				return err
			}
			if m != nil {
				if len(ins)+len(outs)+len(given.list) > 0 {
					return errors.New("--in, --out and --arg are for programs: a model takes --input and --output")
				}
				ctx, cancel := context.WithTimeoutCause(c.Context(), timeout, fmt.Errorf("no result within --timeout %v", timeout))
				defer cancel()
				return o.runModel(ctx, c, m)
			}
			if len(o.inputs)+len(o.outputs) > 0 {
				return fmt.Errorf("--input and --output are for models, which %s is none of: a program takes --in and --out", args[0])
			}
			o.name = filepath.Base(args[0])
			if o.program, err = loadProgram(c, args[0]); err != nil {
				return err
			}
			if o.program.Args, err = given.of(o.program); err != nil {
				return err
			}
			if o.bindings, err = parseBindings(c, ins, outs); err != nil {
				return err
			}
			if n := len(o.bindings); n != int(o.program.Bindings) {
				return fmt.Errorf("%s uses %d bindings, and --in and --out give %d: give each one of 0 to %d", args[0], o.program.Bindings, n, int(o.program.Bindings)-1)
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), timeout, fmt.Errorf("no result within --timeout %v", timeout))
			defer cancel()
			return o.run(ctx, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	c.Flags().StringArrayVar(&ins, "in", nil, "`N=FILE[:OFFSET:SIZE]` bound for reading; may be repeated")
	c.Flags().StringArrayVar(&outs, "out", nil, "`N=FILE:SIZE` bound for writing; may be repeated")
	c.Flags().StringArrayVar(&o.inputs, "input", nil, "`[NAME=]FILE` with an input of a model; may be repeated")
	c.Flags().StringArrayVar(&o.outputs, "output", nil, "`[NAME=]FILE` for an output of a model; may be repeated")
	c.Flags().BoolVar(&o.table, "table", false, tableUsage)
	c.Flags().StringVar(&o.device, "device", attach.InProcess, "`card` to use: in-process, vfio-user:PATH, or for models /dev/accel/accelN")
	c.Flags().BoolVar(&o.strict, "strict", false, "exit with status 3 if linter or card have findings")
	c.Flags().BoolVar(&o.noLint, "no-lint", false, "do not lint the program before it runs")
	c.Flags().IntVar(&o.repeat, "repeat", 1, "`times` to run it; variables of a model keep their values")
	c.Flags().BoolVar(&o.json, "json", false, "print the summary as JSON")
	c.Flags().StringVar(&mode, "time", "", "time `mode` of a card in this process: fast, timed, or paced[:FACTOR] (docs/spec/timing.md §13.8); overrides [time]")
	c.Flags().StringVar(&level, "log", "warn", logUsage)
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "give up after this `duration`")
	o.memory.add(c)
	o.sizes.add(c)
	o.images.add(c)
	cf.add(c)
	given.add(c)
	o.debug.add(c)
	o.timeline.add(c)
	return c
}

// unhurried is the time limit of what a person with a debugger does.
const unhurried = 10_000 * time.Hour

// runOptions is what run is told.
type runOptions struct {
	debug    debugFlags
	timeline timelineFlags
	cfg      vdev.Config
	program  *isa.Program
	name     string // of the program's file
	bindings []runBinding
	device   string
	memory   memoryFlag
	repeat   int
	json     bool
	strict   bool // findings are an error
	noLint   bool

	inputs, outputs []string       // of a model
	below           map[string]int // what its inputs look up
	sizes           modelFlags
	images          imageFlags
	table           bool
}

// runBinding is a binding and where it comes from and goes to.
type runBinding struct {
	given, read, write bool
	content            []byte // at the start; as long as the binding
	out                string // file for what is there at the end
}

func loadProgram(c *cobra.Command, name string) (*isa.Program, error) {
	b, err := readInput(c, name)
	if err != nil {
		return nil, err
	}
	return parseProgram(name, b)
}

// parseProgram reads b, the content of the file of that name.
func parseProgram(name string, b []byte) (p *isa.Program, err error) {
	switch {
	case filepath.Ext(name) == ".npuasm":
		if p, err = isa.AssembleFiles(name, b, os.ReadFile); err != nil {
			return nil, fmt.Errorf("%s does not assemble:\n%w", name, err)
		}
		return p, nil
	case bytes.HasPrefix(b, []byte("\x7fELF")):
		if p, err = isa.ReadELF(bytes.NewReader(b)); err != nil {
			if m, merr := model.Read(bytes.NewReader(b), int64(len(b))); merr == nil && len(m.Programs) != 1 {
				err = fmt.Errorf("a compiled model of %d programs, and this takes one program (§14.2): compile --table says what became of each operator", len(m.Programs))
			}
		}
	case compiler.IsModel(name):
		return nil, fmt.Errorf("%s: a model, and this takes a program: compile it first: npuemu compile %s", name, name)
	default:
		p, err = isa.ParseImage(b)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: the file is damaged, or no program: assemble it, or compile the model, again", name, err)
	}
	return p, nil
}

// parseBindings returns the bindings that --in and --out describe, without gaps.
func parseBindings(c *cobra.Command, ins, outs []string) ([]runBinding, error) {
	var l []runBinding
	at := func(flag, arg string) (b *runBinding, rest string, err error) {
		num, rest, found := strings.Cut(arg, "=")
		n, nerr := strconv.Atoi(num)
		if !found || nerr != nil || n < 0 || n >= isa.MaxBindings {
			return nil, "", fmt.Errorf("%s %q: begin with the binding, 0 to %d, and =", flag, arg, isa.MaxBindings-1)
		}
		for len(l) <= n {
			l = append(l, runBinding{})
		}
		l[n].given = true
		return &l[n], rest, nil
	}
	for _, arg := range ins {
		b, name, err := at("--in", arg)
		if err != nil {
			return nil, err
		}
		if b.read {
			return nil, fmt.Errorf("--in %q: the binding is given twice", arg)
		}
		b.read = true
		if b.content, err = readPart(c, name); err != nil {
			return nil, fmt.Errorf("--in %q: %w", arg, err)
		}
	}
	for _, arg := range outs {
		b, rest, err := at("--out", arg)
		if err != nil {
			return nil, err
		}
		if b.write {
			return nil, fmt.Errorf("--out %q: the binding is given twice", arg)
		}
		b.write = true
		i := strings.LastIndexByte(rest, ':')
		size, serr := strconv.ParseUint(rest[i+1:], 0, 32)
		if i < 1 || serr != nil || size == 0 {
			return nil, fmt.Errorf("--out %q: name a file and its size, as 2=result.bin:3904", arg)
		}
		b.out = rest[:i]
		if b.read && uint64(len(b.content)) != size {
			return nil, fmt.Errorf("--out %q: --in has %d bytes for this binding; give the same size", arg, len(b.content))
		}
		if !b.read {
			b.content = make([]byte, size)
		}
	}
	for i := range l {
		if !l[i].given {
			return nil, fmt.Errorf("binding %d is missing: bindings are numbered without gaps", i)
		}
	}
	return l, nil
}

// part is FILE or FILE:OFFSET:SIZE, then with a size above 0.
type part struct {
	name      string
	off, size uint64
}

func parsePart(arg string) (part, error) {
	words := strings.Split(arg, ":")
	n := len(words)
	if n < 3 {
		return part{name: arg}, nil
	}
	off, oerr := strconv.ParseUint(words[n-2], 0, 64)
	size, serr := strconv.ParseUint(words[n-1], 0, 64)
	if oerr != nil || serr != nil || size == 0 {
		return part{}, errors.New("offset and size are numbers, and the size is not 0")
	}
	return part{strings.Join(words[:n-2], ":"), off, size}, nil
}

// within reports what is wrong with p in a file of so many bytes.
func (p part) within(bytes uint64) error {
	if p.off > bytes || p.size > bytes-p.off {
		return fmt.Errorf("%s has %d bytes; %d at %d are not there", p.name, bytes, p.size, p.off)
	}
	return nil
}

// readPart reads FILE or FILE:OFFSET:SIZE.
func readPart(c *cobra.Command, arg string) ([]byte, error) {
	p, err := parsePart(arg)
	if err != nil {
		return nil, err
	}
	b, err := readInput(c, p.name)
	if err == nil {
		err = p.within(uint64(len(b)))
	}
	switch {
	case err != nil:
		return nil, err
	case p.size > 0:
		return b[p.off:][:p.size], nil
	case len(b) == 0:
		return nil, fmt.Errorf("%s is empty; a binding has at least one byte", p.name)
	}
	return b, nil
}

// runSummary is what run prints: the card's word for what ran there.
type runSummary struct {
	Device       string       `json:"device"`
	Runs         int          `json:"runs"`
	Instructions uint32       `json:"instructions_per_run"`
	MACs         uint64       `json:"macs_per_run"`
	Seconds      float64      `json:"seconds"` // of all runs, boot not included
	Launch       run.Launch   `json:"launch"`  // the last
	Untimed      string       `json:"untimed,omitempty"`
	Counters     umd.Counters `json:"counters"`
	Lint         *runLint     `json:"lint,omitempty"`
	cardFindings
	Error *runError `json:"error,omitempty"`
}

// runLint is what the linter says before a program runs.
type runLint struct {
	lint.Report
	Seconds float64 `json:"seconds"`
}

// findings is how many there are.
func (l *runLint) findings() int {
	if l == nil {
		return 0
	}
	return len(l.Findings)
}

// cardFindings are what a card in this process noted.
type cardFindings struct {
	Findings []vdev.Finding `json:"findings"`
	Where    string         `json:"findings_at,omitempty"` // of another card
}

func findingsOf(d *vdev.Device) cardFindings {
	if d == nil {
		return cardFindings{nil, "the card's own process: npuemu serve logs them, npuemu ctl status prints them"}
	}
	return cardFindings{append([]vdev.Finding{}, d.Findings()...), ""}
}

// print writes lines of a table.
func (f *cardFindings) print(t io.Writer) {
	switch {
	case f.Where != "":
		fmt.Fprintf(t, "findings\tin %s\n", f.Where)
	case len(f.Findings) == 0:
		fmt.Fprintf(t, "findings\tnone\n")
	}
	for _, x := range f.Findings {
		fmt.Fprintf(t, "finding\t%s, %d times: %s; the last: %s\n", x.ID, x.Count, x.Rule, x.Last)
	}
}

// strictly is an error if --strict asks for one: name had so many findings of the linter, and those of the card.
func (o *runOptions) strictly(name string, linted int, f *cardFindings) error {
	if !o.strict || linted+len(f.Findings) == 0 {
		return nil
	}
	return findingsError{fmt.Errorf("%s: %d findings of the linter, %d kinds of the card (--strict)", name, linted, len(f.Findings))}
}

// runError is how a program failed (§5.7).
type runError struct {
	Status string        `json:"status"`
	Result uint32        `json:"result"`
	Info   uint64        `json:"info"`
	What   *lint.Finding `json:"what,omitempty"` // none if the status is not a program's
}

// lintFirst lints the program for its bindings and, in this process, its card, and tells of what it finds.
func (o *runOptions) lintFirst(ctx context.Context, errw io.Writer) (*runLint, error) {
	if o.noLint {
		return nil, nil
	}
	l := o.lintOptions()
	if o.device == attach.InProcess {
		l.Card = lintCard(o.cfg)
	}
	begin := time.Now()
	done := make(chan lint.Report, 1)
	p := *o.program
	if p.Open() {
		p.Args = new([isa.Arguments]int32) // the launch has none
	}
	go func() { done <- lint.CheckFor(&p, l) }()
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("lint (--no-lint leaves it out): %w", context.Cause(ctx))
	case r := <-done:
		for _, f := range r.Findings {
			if _, err := io.WriteString(errw, "lint: "+findingText(o.name, "", f)); err != nil {
				return nil, err
			}
		}
		return &runLint{r, time.Since(begin).Seconds()}, nil
	}
}

// lintOptions are the program's bindings.
func (o *runOptions) lintOptions() lint.Options {
	var l lint.Options
	for _, b := range o.bindings {
		l.Bindings = append(l.Bindings, lint.Binding{Size: uint64(len(b.content)), Read: b.read, Write: b.write})
	}
	return l
}

// failed explains the error of a launch of p, the program of that name, with what l knows of its bindings, if it is a completion.
func (o *runOptions) failed(err error, name string, p *isa.Program, l lint.Options) (*runError, error) {
	var e runError
	var ok bool
	if e.Status, e.Result, e.Info, ok = attach.Completion(err); !ok {
		return nil, fmt.Errorf("%s: %w", o.device, err)
	}
	f, ok := lint.Explain(p, l, lint.Completion{Status: e.Status, Result: e.Result, Info: e.Info})
	if !ok {
		return &e, fmt.Errorf("%s: %w", o.device, err)
	}
	e.What = &f
	return &e, fmt.Errorf("%s: %w\n%s", o.device, err, strings.TrimSuffix(findingText(name, "", f), "\n"))
}

// run runs the program, stores its results and writes the summary to w, or to errw
// if results go to standard output.
func (o *runOptions) run(ctx context.Context, w, errw io.Writer) (err error) {
	linted, err := o.lintFirst(ctx, errw)
	if err != nil {
		return err
	}
	d, device, stop, err := attach.Boot(ctx, o.device, o.options())
	if err != nil {
		return fmt.Errorf("--device: %w", err)
	}
	defer func() { err = errors.Join(err, stop()) }()
	program, err := d.Put(o.program.Image())
	if err != nil {
		return err
	}
	bindings := make([]umd.Binding, len(o.bindings))
	for i, b := range o.bindings {
		buf, err := d.Put(b.content)
		if err != nil {
			return err
		}
		bindings[i] = umd.Binding{Buffer: buf, Read: b.read, Write: b.write}
	}
	s := runSummary{Device: o.device, Runs: o.repeat, Lint: linted}
	begin := time.Now()
	var args []int32
	if o.program.Args != nil {
		args = o.program.Args[:]
	}
	for n := range o.repeat {
		st, err := d.Launch(ctx, program, bindings, args...)
		if err != nil {
			l := o.lintOptions()
			for i, b := range bindings {
				l.Bindings[i].Addr = b.Addr
			}
			s.Error, err = o.failed(err, o.name, o.program, l)
			if s.Error == nil || !o.json {
				return err
			}
			s.Runs, s.Seconds, s.cardFindings = n, time.Since(begin).Seconds(), findingsOf(device)
			var cerr error
			s.Counters, cerr = d.Counters(ctx)
			return errors.Join(err, cerr, s.encode(o.summaryTo(w, errw)))
		}
		if err := context.Cause(ctx); err != nil { // the result is there, and too late
			return fmt.Errorf("%s: %w", o.device, err)
		}
		s.Instructions, s.MACs = st.Instructions, st.MACs
		if s.Launch, err = attach.Launched(st); err != nil {
			return fmt.Errorf("%s: %w", o.device, err)
		}
		s.Untimed = s.Launch.Untimed
	}
	s.Seconds = time.Since(begin).Seconds()
	if s.Counters, err = d.Counters(ctx); err != nil {
		return err
	}
	s.cardFindings = findingsOf(device)
	var files []output
	for i, b := range o.bindings {
		if b.out != "" {
			files = append(files, output{b.out, bindings[i].Bytes})
		}
	}
	if err := writeAll(w, files); err != nil {
		return err
	}
	w = o.summaryTo(w, errw)
	if err := o.timeline.write(errw, programTimeLine(ctx, o.name, o.program, o.cfg.Timing, runOnBus)); err != nil {
		return err
	}
	if o.json {
		err = s.encode(w)
	} else {
		err = s.print(w)
	}
	if err != nil {
		return err
	}
	return o.strictly(o.name, linted.findings(), &s.cardFindings)
}

// summaryTo is w, or errw if results go to standard output.
func (o *runOptions) summaryTo(w, errw io.Writer) io.Writer {
	for _, b := range o.bindings {
		if b.out == "-" {
			return errw
		}
	}
	return w
}

func (s *runSummary) encode(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(s)
}

func (s *runSummary) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "device\t%s\n", s.Device)
	fmt.Fprintf(t, "runs\t%d in %.6f s\n", s.Runs, s.Seconds)
	fmt.Fprintf(t, "a run\t%d instructions, %d multiply-accumulates\n", s.Instructions, s.MACs)
	fmt.Fprintf(t, "\t%s\n", cycles(s.Launch.Cycles, s.Untimed))
	c := s.Counters
	fmt.Fprintf(t, "the card counted\t%d programs, %d commands (%d with errors), %d instructions, %d multiply-accumulates\n", c.Programs, c.Commands, c.Errors, c.Instructions, c.MACs)
	fmt.Fprintf(t, "\t%d bytes read and %d written by DMA, %d interrupts\n", c.BytesRead, c.BytesWritten, c.Interrupts)
	s.cardFindings.print(t)
	if l := s.Lint; l != nil {
		fmt.Fprintf(t, "lint\t%d findings and %d notes in %d instructions, %.6f s", len(l.Findings), len(l.Notes), l.Passed, l.Seconds)
		if l.Undecided > 0 {
			fmt.Fprintf(t, "; not proven: %d accesses were too many to compare", l.Undecided)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// cycles says what a run took in model time, or why there is none.
func cycles(n uint64, untimed string) string {
	if untimed != "" {
		return "no cycles: " + untimed
	}
	return fmt.Sprintf("%d cycles (§13.8)", n)
}

// options are those of the card that --device names.
func (o *runOptions) options() attach.Options {
	c := attach.Options{Config: o.cfg, Memory: o.memory.bytes()}
	if len(o.debug.gdb) > 0 {
		c.BootTime = unhurried
	}
	c.Prepare = func(d *vdev.Device, start func(func(context.Context))) (func() error, error) {
		closeTrace, err := o.debug.start(o.cfg.Log, 0, d, start)
		if err == nil && len(o.debug.gdb) > 0 {
			d.Debugger().Stop()
			o.cfg.Log.Warn("the control processor waits for GDB", "address", o.debug.gdb[0])
		}
		return closeTrace, err
	}
	return c
}
