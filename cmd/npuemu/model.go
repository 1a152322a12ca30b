// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"npuemu/attach"
	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/npy"
	"npuemu/compiler/run"
	"npuemu/core/isa"
	"npuemu/core/isa/lint"
	"npuemu/timing"
	"npuemu/vdev"
)

func compileCommand() *cobra.Command {
	var (
		cf    configFlags
		out   string
		dumps []string
		table bool

		asJSON bool
		sizes  modelFlags
	)
	c := &cobra.Command{
		Use:   "compile MODEL [WEIGHTS]",
		Short: "Compile a model into a file that run executes",
		Long: "compile makes a compiled model (docs/spec/model.md) of MODEL for the core that --config describes. Files of models end in\n" +
			strings.Join(compiler.Extensions(), ", ") + ". " + weightsHelp + "\n\n" +
			"An operator that the card does not have stays on the host; the table names it, with the reason. On a terminal the table is printed if\n" +
			"it has up to 24 operators, and else with --table; where the output goes elsewhere, with --table alone. Cycles are those of each operator\n" +
			"by itself, by the timing model (§13) with the configuration's [timing].\n" +
			"--dump-after=PASS prints the graph after a pass on standard error, large constants by their sizes; import is the first, all are all.\n" +
			"--dump-after=PASS=FILE.npuir writes it with all constants, all=DIRECTORY a file for each pass: compile takes these, and goes on behind the pass.\n" +
			"Of the back end, places is where each tensor is, tile which elements each STORE of an operator writes, and schedule\n" +
			"the instructions of each operator, with engines and tokens.",
		Example: "  npuemu compile mobilenet.onnx -o mobilenet.npu\n  npuemu compile net.npuir --config array.toml --table",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) error {
			cfg, err := cf.load()
			if err != nil {
				return err
			}
			begin := time.Now()
			_, m, err := compileModel(c, args, cfg, sizes, dumps)
			if err != nil {
				return err
			}
			took, peak := time.Since(begin), peakMemory()
			if err := dumpStages(c, m, dumps); err != nil {
				return err
			}
			if err := estimateModel(c.Context(), c, m, cfg.Timing); err != nil {
				return err
			}
			b, err := m.Write()
			if err != nil {
				return err
			}
			name := out
			if name == "" {
				name = strings.TrimSuffix(args[0], filepath.Ext(args[0])) + ".npu"
			}
			if err := writeOutput(c, name, b); err != nil {
				return err
			}
			w := c.OutOrStdout()
			if name == "-" {
				w = c.ErrOrStderr()
			}
			if asJSON {
				e := json.NewEncoder(w)
				e.SetIndent("", "  ")
				return e.Encode(compiledSummary{
					Model: m.Name, Operators: compiler.Operators(m), Seconds: took.Seconds(), PeakMemory: peak, Programs: len(m.Programs),
					Constants: len(m.Constants), Memory: m.Memory(), File: len(b),
				})
			}
			if err := showNodes(w, m, table); err != nil {
				return err
			}
			if err := printSummary(w, m, len(b)); err != nil {
				return err
			}
			_, err = fmt.Fprintf(w, "compiled in %.2f s, with %d MiB of memory at most; a run takes %d bytes of the card's\n", took.Seconds(), peak>>20, m.Memory())
			return err
		},
	}
	c.Flags().StringVarP(&out, "output", "o", "", "output `file`, - for standard output (default: MODEL with the extension .npu)")
	c.Flags().StringArrayVar(&dumps, "dump-after", nil, "print the graph after this `pass`, or write it as PASS=FILE; may be repeated")
	c.Flags().BoolVar(&table, "table", false, tableUsage)
	c.Flags().BoolVar(&asJSON, "json", false, "print the summary, with each operator, as JSON")
	sizes.add(c)
	cf.add(c)
	return c
}

// modelFlags are --dim, --shape and --float.
type modelFlags struct {
	dims   map[string]int
	shapes map[string][]int
	float  string
}

func (f *modelFlags) add(c *cobra.Command) {
	f.dims, f.shapes = map[string]int{}, map[string][]int{}
	c.Flags().Func("dim", "`NAME=SIZE` of a symbolic dimension of an ONNX model; may be repeated", func(s string) error {
		name, size, ok := strings.Cut(s, "=")
		n, err := strconv.Atoi(size)
		if !ok || err != nil || n < 1 {
			return errors.New("give a name and a size of 1 or more, as --dim batch=4")
		}
		f.dims[name] = n
		return nil
	})
	c.Flags().Func("shape", "`NAME=SIZE,...` of an input of an ONNX or TensorFlow Lite model; may be repeated", func(s string) error {
		bad := errors.New("give a name and sizes of 1 or more, as --shape x=1,3,224,224")
		at := strings.LastIndex(s, "=")
		if at < 0 {
			return bad
		}
		shape := []int{}
		for size := range strings.SplitSeq(s[at+1:], ",") {
			n, err := strconv.Atoi(size)
			if err != nil || n < 1 {
				return bad
			}
			shape = append(shape, n)
		}
		f.shapes[s[:at]] = shape
		return nil
	})
	c.Flags().StringVar(&f.float, "float", "", "what products of fp32 are made of: fp32, bf16 or fp16: the `type` to which their operands are rounded (docs/compiler.md)")
}

// weightsHelp is about the second file that compile, run and verify take.
const weightsHelp = "WEIGHTS is\nthe .caffemodel of a .prototxt, if it is not the one of its name."

// tableUsage is about --table of compile and run.
const tableUsage = "print what became of each operator of a model, however many there are; on a terminal up to 24 are printed without it"

// compileModel reads a model, with its weights if there is a second file, and compiles it.
func compileModel(c *cobra.Command, files []string, cfg vdev.Config, sizes modelFlags, dumps []string) (*ir.Graph, *model.Model, error) {
	g, err := loadGraph(c, files, sizes, dumps)
	if err != nil {
		return nil, nil, err
	}
	b := newBar(c.ErrOrStderr(), "")
	defer b.done()
	m, err := compiler.BuildWatched(g, attach.Target(cfg), b.at)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", files[0], err)
	}
	return g, m, nil
}

// estimateModel is compiler.Estimate, and shows how far it is.
func estimateModel(ctx context.Context, c *cobra.Command, m *model.Model, p timing.Params) error {
	b := newBar(c.ErrOrStderr(), "")
	defer b.done()
	return compiler.EstimateWatched(ctx, m, p, b.at)
}

// modelSource is a model, with its weights if there is a second file.
func modelSource(files []string, sizes modelFlags) compiler.Source {
	return compiler.Source{Path: files[0], WeightsPath: strings.Join(files[1:], ""), Dims: sizes.dims, Shapes: sizes.shapes, Float: sizes.float}
}

// loadGraph reads a model, with its weights if there is a second file, and prints it after the passes that dumps names.
func loadGraph(c *cobra.Command, files []string, sizes modelFlags, dumps []string) (*ir.Graph, error) {
	seen := map[string]bool{}
	var passes []string
	var failed error
	b, all := &bar{}, compiler.Passes()
	if len(dumps) == 0 { // which are printed between
		b = newBar(c.ErrOrStderr(), "")
	}
	defer b.done()
	b.at(0, len(all), "pass "+all[0])
	g, err := modelSource(files, sizes).Load(func(pass string, g *ir.Graph) {
		if passes = append(passes, pass); len(passes) < len(all) {
			b.at(len(passes), len(all), "pass "+all[len(passes)])
		}
		for _, d := range dumps {
			name, file, _ := strings.Cut(d, "=")
			if name != pass && name != "all" || failed != nil {
				continue
			}
			seen[d] = true
			if file != "" && name == "all" {
				file = filepath.Join(file, pass+".npuir")
			}
			if file == "" {
				fmt.Fprintf(c.ErrOrStderr(), "# after %s\n%s", pass, g)
			} else {
				failed = dumpFile(c, file, g)
			}
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	passes = append(passes, compiler.Stages()...)
	for _, d := range dumps {
		if name, _, _ := strings.Cut(d, "="); !seen[d] && !slices.Contains(compiler.Stages(), name) {
			return nil, fmt.Errorf("--dump-after=%s: there is no such pass; there are all, %s", d, strings.Join(passes, ", "))
		}
	}
	return g, nil
}

// dumpStages writes what the back end decided, as far as dumps names it.
func dumpStages(c *cobra.Command, m *model.Model, dumps []string) error {
	for _, d := range dumps {
		name, file, _ := strings.Cut(d, "=")
		if !slices.Contains(compiler.Stages(), name) {
			continue
		}
		var b bytes.Buffer
		fmt.Fprintf(&b, "# after %s\n", name)
		if err := compiler.DumpStage(&b, m, name); err != nil {
			return err
		}
		if file == "" {
			if _, err := c.ErrOrStderr().Write(b.Bytes()); err != nil {
				return err
			}
		} else if err := writeOutput(c, file, b.Bytes()); err != nil {
			return dumpFailed(file, err)
		}
	}
	return nil
}

// dumpFile writes g with all its constants.
func dumpFile(c *cobra.Command, name string, g *ir.Graph) error {
	var b bytes.Buffer
	if err := g.Print(&b, false); err != nil {
		return err
	}
	if err := writeOutput(c, name, b.Bytes()); err != nil {
		return dumpFailed(name, err)
	}
	return nil
}

// dumpFailed is what --dump-after says of a file that cannot be written.
func dumpFailed(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("--dump-after: %w: make the directory first: mkdir -p %s", err, filepath.Dir(name))
	}
	return fmt.Errorf("--dump-after: %w", err)
}

// isCompiled reports whether b is a compiled model.
func isCompiled(b []byte) bool {
	if !bytes.HasPrefix(b, []byte("\x7fELF")) {
		return false
	}
	_, err := model.Read(bytes.NewReader(b), int64(len(b)))
	return !errors.Is(err, model.ErrNoModel)
}

// loadModel returns the compiled model in the file of that name, or made of it, and then what its inputs look up (indexes);
// nil if the file is neither.
func loadModel(c *cobra.Command, files []string, cfg vdev.Config, sizes modelFlags) (*model.Model, map[string]int, error) {
	name := files[0]
	if compiler.IsModel(name) {
		g, m, err := compileModel(c, files, cfg, sizes, nil)
		if err != nil {
			return nil, nil, err
		}
		return m, indexes(g), nil
	}
	if len(files) > 1 {
		return nil, nil, fmt.Errorf("%s: a second file, %s, is for the weights of a .prototxt only", name, files[1])
	}
	if len(sizes.dims)+len(sizes.shapes) > 0 || sizes.float != "" {
		return nil, nil, fmt.Errorf("%s: --dim, --shape and --float are for models that are compiled now: give them to npuemu compile", name)
	}
	if name == "-" || filepath.Ext(name) == ".npuasm" {
		return nil, nil, nil
	}
	b, err := os.ReadFile(name)
	if err != nil || !isCompiled(b) {
		return nil, nil, nil // loadProgram says what is wrong with it
	}
	m, err := model.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil, nil
}

// modelSummary is what run prints of a model.
type modelSummary struct {
	Device  string  `json:"device"`
	Model   string  `json:"model"`
	Runs    int     `json:"runs"`
	Seconds float64 `json:"seconds"` // of all runs, boot not included
	placed
	MadeUp   bool            `json:"inputs_made_up"`
	Programs int             `json:"programs_per_run"`
	DeviceS  float64         `json:"device_seconds"`
	HostS    float64         `json:"host_seconds"`
	Counters run.Counters    `json:"counters"` // of the card, a run
	Launches []run.Launch    `json:"launches"` // of the last run
	Untimed  string          `json:"untimed,omitempty"`
	Outputs  []outputSummary `json:"outputs"` // of the last run
	cardFindings
	Error *runError `json:"error,omitempty"`

	Operators []compiler.OperatorReport `json:"operators"`
}

// compiledSummary is what compile prints as JSON.
type compiledSummary struct {
	Model      string                    `json:"model"`
	Operators  []compiler.OperatorReport `json:"operators"`
	Seconds    float64                   `json:"seconds"`
	PeakMemory uint64                    `json:"peak_memory_bytes"` // of this process
	Programs   int                       `json:"programs"`
	Constants  int                       `json:"constant_bytes"`
	Memory     uint64                    `json:"card_memory_bytes"`
	File       int                       `json:"file_bytes"`
}

// peakMemory is the most memory that this process had so far, in bytes; 0 if the system does not say.
func peakMemory() uint64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return uint64(u.Maxrss) << 10
}

// placed is where the operators of a model are.
type placed struct {
	OnDevice int        `json:"operators_on_device"`
	Idle     int        `json:"operators_without_instructions"` // other names for the same memory
	OnHost   []hostNode `json:"operators_on_host"`
}

func places(m *model.Model) placed {
	p := placed{OnHost: []hostNode{}}
	for _, o := range compiler.Operators(m) {
		switch {
		case !o.Device:
			p.OnHost = append(p.OnHost, hostNode{o.Name, o.Op, o.Reason})
		case o.Engine == "none":
			p.Idle++
		default:
			p.OnDevice++
		}
	}
	return p
}

func (p placed) String() string {
	s := fmt.Sprintf("%d operators on the device, %d on the host", p.OnDevice, len(p.OnHost))
	if p.Idle > 0 {
		s += fmt.Sprintf(", %d need no instruction", p.Idle)
	}
	return s
}

// print names the operators of the host, a line each, behind indent.
func (p placed) print(w io.Writer, indent string) {
	for _, h := range p.OnHost {
		fmt.Fprintf(w, "%son the host: %s %s: %s\n", indent, h.Operator, h.Node, h.Reason)
	}
}

type hostNode struct {
	Node     string `json:"node"`
	Operator string `json:"operator"`
	Reason   string `json:"reason"`
}

// runModel runs m and stores its outputs.
func (o *runOptions) runModel(ctx context.Context, c *cobra.Command, m *model.Model) (err error) {
	if err := estimateModel(ctx, c, m, o.cfg.Timing); err != nil {
		return err
	}
	variables := m.Variables()
	var inputs [][]byte
	made := len(o.inputs) == 0 && len(m.Inputs) > len(variables)
	if made {
		inputs, err = madeUp(m.Inputs, o.below, variables, int(o.memory.bytes()))
	} else {
		inputs, err = readTensors(m.Inputs, variables, o.inputs, o.images)
	}
	if err != nil {
		return err
	}
	names, err := matchFiles("--output", m.Outputs, o.outputs, func(int) bool { return true })
	if err != nil {
		return err
	}
	card, err := attach.Open(ctx, o.device, o.options())
	if err != nil {
		return fmt.Errorf("--device: %w", err)
	}
	defer func() { err = errors.Join(err, card.Close()) }()
	session, err := run.Load(card, m)
	if err != nil {
		return err
	}
	s := modelSummary{Device: o.device, Model: m.Name, Runs: o.repeat, placed: places(m), MadeUp: made, Operators: compiler.Operators(m)}
	bar := newBar(c.ErrOrStderr(), "")
	defer bar.done()
	bar.follow(executed(card))
	each, done := instructions(m), 0 // of a run, and of all so far
	begin := time.Now()
	var outputs [][]byte
	for i := range o.repeat {
		if i > 0 {
			for in, out := range variables {
				inputs[in] = bytes.Clone(outputs[out])
			}
		}
		var r run.Report
		if outputs, r, err = session.Run(ctx, inputs, func(step int) {
			bar.at(done, each*o.repeat, "instructions, "+stepName(m, step))
			if p := m.Steps[step].Program; p >= 0 {
				done += len(m.Programs[p].Text) / isa.Size
			}
		}); err != nil {
			bar.done()
			return o.modelFailed(c, m, &s, i, err, card.Device)
		}
		s.DeviceS += r.Device.Seconds()
		s.HostS += r.Host.Seconds()
		s.Counters, s.Programs, s.Launches, s.Untimed = r.Counters, r.Programs, r.Launches, r.Untimed
	}
	s.Seconds = time.Since(begin).Seconds()
	bar.done()
	w := c.OutOrStdout()
	var files []output
	for i, name := range names {
		t := &m.Outputs[i]
		s.Outputs = append(s.Outputs, summarize(t, outputs[i], name))
		if name == "" {
			continue
		}
		b, err := npy.Write(t.TypeOf(), t.Shape, outputs[i])
		if err != nil {
			return fmt.Errorf("output %q: %w", t.Name, err)
		}
		if files = append(files, output{name, b}); name == "-" {
			w = c.ErrOrStderr()
		}
	}
	if err := writeAll(c.OutOrStdout(), files); err != nil {
		return err
	}
	if err := o.timeline.write(c.ErrOrStderr(), modelTimeLine(ctx, m, o.cfg.Timing, runOnBus)); err != nil {
		return err
	}
	s.cardFindings = findingsOf(card.Device)
	if o.json {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if err := e.Encode(s); err != nil {
			return err
		}
		return o.strictly(m.Name, 0, &s.cardFindings)
	}
	if err := showNodes(w, m, o.table); err != nil {
		return err
	}
	if o.table {
		if err := printLaunches(w, s.Launches); err != nil {
			return err
		}
	}
	if err := s.print(w); err != nil {
		return err
	}
	return o.strictly(m.Name, 0, &s.cardFindings)
}

// modelFailed explains err, with which m ended after so many runs.
func (o *runOptions) modelFailed(c *cobra.Command, m *model.Model, s *modelSummary, runs int, err error, d *vdev.Device) error {
	var p *run.ProgramError
	if !errors.As(err, &p) {
		return fmt.Errorf("%s: %w", o.device, err)
	}
	var l lint.Options
	for _, b := range m.Bindings {
		l.Bindings = append(l.Bindings, lint.Binding{Size: b.Size, Read: true, Write: b.Write})
	}
	s.Error, err = o.failed(err, fmt.Sprintf("%s, program %d", m.Name, p.Program+1), m.Programs[p.Program], l)
	if s.Error == nil || !o.json {
		return err
	}
	s.Runs, s.cardFindings = runs, findingsOf(d)
	e := json.NewEncoder(c.OutOrStdout())
	e.SetIndent("", "  ")
	return errors.Join(err, e.Encode(s))
}

// executed is what counts the instructions of a card in this process while it executes them, nil for others.
func executed(card *attach.Card) func() uint64 {
	if card.Device == nil {
		return nil
	}
	return card.Device.Executed
}

// instructions is how many the card executes of m.
func instructions(m *model.Model) (n int) {
	for _, s := range m.Steps {
		if s.Program >= 0 {
			n += len(m.Programs[s.Program].Text) / isa.Size
		}
	}
	return n
}

func stepName(m *model.Model, i int) string {
	if s := m.Steps[i]; s.Host >= 0 {
		return m.Hosts[s.Host].Nodes[0].Name + " (host)"
	}
	return fmt.Sprintf("program %d", m.Steps[i].Program)
}

func (s *modelSummary) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(t, "device\t%s\n", s.Device)
	fmt.Fprintf(t, "model\t%s\n", s.Model)
	fmt.Fprintf(t, "runs\t%d in %.6f s: device %.6f s, host %.6f s\n", s.Runs, s.Seconds, s.DeviceS, s.HostS)
	fmt.Fprintf(t, "operators\t%s\n", s.placed)
	s.placed.print(t, "\t")
	if s.MadeUp {
		fmt.Fprintf(t, "inputs\tmade up, for there is no --input: pseudo-random, the same each time\n")
	}
	c := s.Counters
	fmt.Fprintf(t, "the card counted\t%d programs (%d with errors), %d instructions, %d multiply-accumulates a run\n", c.Programs, c.Errors, c.Instructions, c.MACs)
	fmt.Fprintf(t, "\t%d bytes read and %d written by DMA\n", c.BytesRead, c.BytesWritten)
	if len(s.Launches) > 0 {
		fmt.Fprintf(t, "\t%s\n", cycles(c.Cycles, s.Untimed))
	}
	for _, o := range s.Outputs {
		fmt.Fprintf(t, "output\t%s\n", o)
	}
	s.cardFindings.print(t)
	return t.Flush()
}

// printLaunches prints what the card says of each program's cycles, engine by engine.
func printLaunches(w io.Writer, l []run.Launch) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "program\tcycles\tengine\tinstructions\tbusy\t\tstalls: load\tstore\tmatrix\tvector\tdispatch\tweights\tmemory\tscratchpad")
	timed := false
	for _, l := range l {
		if l.Profile == nil || !l.Profile.Timed {
			continue
		}
		timed = true
		for _, e := range l.Profile.Engines {
			s := e.Stalls
			fmt.Fprintf(t, "%d\t%d\t%s\t%d\t%d\t%.1f %%\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", l.Program, l.Profile.Cycles, e.Engine, e.Instructions, e.Busy,
				100*float64(e.Busy)/float64(max(l.Profile.Cycles, 1)), s.Load, s.Store, s.Matrix, s.Vector, s.Dispatch, s.Weights, s.Memory, s.Scratchpad)
		}
	}
	if !timed {
		return nil
	}
	return t.Flush()
}

// shownNodes is how many operators a terminal shows without being asked.
const shownNodes = 24

// showNodes is printNodes, if that is asked for or w is a terminal and there are not too many.
func showNodes(w io.Writer, m *model.Model, asked bool) error {
	switch {
	case asked || isTerminal(w) && len(m.Nodes) <= shownNodes:
		return printNodes(w, m)
	case isTerminal(w):
		_, err := fmt.Fprintf(w, "%d operators: --table shows what became of each\n", len(m.Nodes))
		return err
	}
	return nil
}

// printNodes prints what became of each operator.
func printNodes(w io.Writer, m *model.Model) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "operator\tnode\twhere\tengine\tcycles\tbytes\tinstructions\tload\tstore\tmatrix\tvector\tMAC\tread\twritten\tutilization\tMAC/byte\tbound by")
	for _, o := range compiler.Operators(m) {
		if !o.Device {
			fmt.Fprintf(t, "%s\t%s\thost: %s\n", o.Op, o.Name, o.Reason)
			continue
		}
		if o.Within != "" {
			fmt.Fprintf(t, "%s\t%s\tdevice\t%s\tin %s\n", o.Op, o.Name, o.Engine, o.Within)
			continue
		}
		i, perByte := o.Instructions, "-" // without products, or without bytes of memory
		if o.Intensity > 0 {
			perByte = fmt.Sprintf("%.1f", o.Intensity)
		}
		fmt.Fprintf(t, "%s\t%s\tdevice\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%.1f %%\t%s\t%s\n",
			o.Op, o.Name, o.Engine, o.Cycles, o.Bytes, i[0]+i[1]+i[2]+i[3], i[0], i[1], i[2], i[3], o.MACs, o.Loaded, o.Stored, 100*o.Utilization, perByte, o.Bound)
	}
	return t.Flush()
}

// printSummary prints what a compiled model is.
func printSummary(w io.Writer, m *model.Model, size int) error {
	instructions, macs := 0, uint64(0)
	for _, n := range m.Nodes {
		macs += n.MACs
	}
	for _, p := range m.Programs {
		instructions += len(p.Text) / isa.Size
	}
	cycles := uint64(0)
	for _, s := range m.Steps {
		cycles += s.Cycles
	}
	p := places(m)
	p.print(w, "")
	_, err := fmt.Fprintf(w, "%s: %s; %d programs, %d instructions, %d multiply-accumulates, %d cycles (§13); %d bytes of constants, %d of activations; file of %d bytes\n",
		m.Name, p, len(m.Programs), instructions, macs, cycles, len(m.Constants), m.Bindings[1].Size, size)
	return err
}

// matchFiles returns a file for each tensor: files are in the order of the tensors, or
// NAME=FILE. optional tensors may have none.
func matchFiles(flag string, tensors []model.Tensor, files []string, optional func(i int) bool) ([]string, error) {
	names := make([]string, len(tensors))
	next := 0
	for _, f := range files {
		at := -1
		for i, t := range tensors {
			if rest, ok := strings.CutPrefix(f, t.Name+"="); ok {
				at, f = i, rest
				break
			}
		}
		if name, _, ok := strings.Cut(f, "="); at < 0 && ok && !strings.Contains(name, "/") {
			return nil, fmt.Errorf("%s %s: the model has no tensor %q: %s (a file of that name is ./%s)", flag, f, name, tensorNames(tensors), f)
		}
		if at < 0 {
			for next < len(names) && names[next] != "" {
				next++
			}
			at = next
		}
		if at < len(tensors) && names[at] != "" {
			return nil, fmt.Errorf("%s %s: tensor %q has a file already, %s", flag, f, tensors[at].Name, names[at])
		}
		if at >= len(tensors) {
			return nil, fmt.Errorf("%s %s: the model has %d: %s", flag, f, len(tensors), tensorNames(tensors))
		}
		names[at] = f
	}
	for i, n := range names {
		if n == "" && !optional(i) {
			return nil, fmt.Errorf("%s is missing for tensor %q: %s", flag, tensors[i].Name, tensorNames(tensors))
		}
	}
	return names, nil
}

func tensorNames(l []model.Tensor) string {
	var s []string
	for _, t := range l {
		s = append(s, fmt.Sprintf("%s: %s%v", t.Name, t.Type, t.Shape))
	}
	return strings.Join(s, ", ")
}

// imageFlags are --mean, --std and --resize.
type imageFlags struct {
	mean, std []float32
	resize    bool
}

func (f *imageFlags) add(c *cobra.Command) {
	c.Flags().Float32SliceVar(&f.mean, "mean", nil, "`number`, or R,G,B, that is subtracted from the pixels of --input images, which are from 0 to 1")
	c.Flags().Float32SliceVar(&f.std, "std", nil, "`number`, or R,G,B, by which they are divided then")
	c.Flags().BoolVar(&f.resize, "resize", false, "scale --input images to the input's size, by a linear filter")
}

func (f *imageFlags) options() npy.ImageOptions {
	return npy.ImageOptions{Mean: f.mean, Std: f.std, Resize: f.resize}
}

// check refuses them where no input is an image.
func (f *imageFlags) check(inputs []string) error {
	if !f.options().Given() {
		return nil
	}
	if !slices.ContainsFunc(inputs, isImage) {
		return errors.New("--mean, --std and --resize are for images: give one with --input, a .png or .jpg")
	}
	return f.options().Check()
}

// isImage reports whether a file's name is that of an image.
func isImage(name string) bool {
	return slices.Contains([]string{".png", ".jpg", ".jpeg"}, strings.ToLower(filepath.Ext(name)))
}

// imageHelp is about images as inputs of models.
const imageHelp = "An image, .png or .jpg, is for an input of shape [1, C, H, W] or [1, H, W, C] with one channel (grey) or three, of its size, or with --resize of any.\n" +
	"A pixel is a number from 0 to 1; --mean and --std (one number, or one for each channel) make (pixel - mean) / std of it. Floating-point inputs get that number,\n" +
	"quantized ones what stands for it by their scale and zero point, integers without a scale the pixel itself, 0 to 255, int8 128 less (docs/compiler.md).\n"

// readTensors reads the files of inputs. Variables may have none: they stand for 0 then.
func readTensors(tensors []model.Tensor, variables map[int]int, files []string, images imageFlags) ([][]byte, error) {
	names, err := matchFiles("--input", tensors, files, func(i int) bool { _, ok := variables[i]; return ok })
	if err != nil {
		return nil, err
	}
	var data [][]byte
	for i, name := range names {
		t := &tensors[i]
		if name == "" {
			data = append(data, t.Zeros())
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var elements []byte
		if isImage(name) {
			if elements, err = npy.Image(b, t.TypeOf(), t.Shape, (*ir.Quant)(t.Quant), images.options()); err != nil {
				err = fmt.Errorf("tensor %q: %w", t.Name, err)
			}
		} else {
			var shape []int
			shape, elements, err = npy.Read(b, t.TypeOf())
			if err == nil && fmt.Sprint(shape) != fmt.Sprint(t.Shape) {
				err = fmt.Errorf("the array has shape %v, tensor %q %v", shape, t.Name, t.Shape)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		data = append(data, elements)
	}
	return data, nil
}
