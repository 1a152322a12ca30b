// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"npuemu/compiler"
	"npuemu/compiler/model"
	"npuemu/core/isa"
	"npuemu/internal/outfile"
	"npuemu/mmio/npureg"
	"npuemu/timing"
	"npuemu/vdev"
)

// maxPoints bounds a sweep: 10,000 networks take some ten seconds.
const maxPoints = 10000

// estimateFlags are what estimate is told.
type estimateFlags struct {
	config   string
	format   string
	model    string
	dataflow string
	roofline string
	sweeps   []string
	onBus    []uint
	engines  bool
	sizes    modelFlags
	timeline timelineFlags
}

func estimateCommand() *cobra.Command {
	var f estimateFlags
	c := &cobra.Command{
		Use:   "estimate LAYERS.csv|MODEL [WEIGHTS]|MODEL.npu|PROGRAM",
		Short: "Say how many cycles a program or a network takes",
		Long: "estimate runs the timing model of docs/spec/timing.md, and says of each layer its cycles, the array's utilization, bytes, multiply-accumulates for each\n" +
			"byte, and what bounds it. A layer is\n\n" +
			"  of a table, LAYERS.csv as SCALE-Sim reads it (§13.7): a line, by itself (§13.5);\n" +
			"  of a MODEL, a file that compile takes (" + strings.Join(compiler.Extensions(), ", ") + "), which is compiled for each configuration: an operator in its program, with the others around\n" +
			"    it (§13.11); it has a share of the cycles as well, and the sum of the cycles is more than the total where operators overlap. " + weightsHelp + "\n" +
			"  of a compiled one, MODEL.npu: the same, on the array that it was made for;\n" +
			"  of another PROGRAM (ELF, image, or .npuasm): what is behind a label, or without labels the instructions around a run of products.\n\n" +
			"Programs and models come out engine by engine as well, with the reasons why engines waited; with --engines only so.\n\n" +
			"--config takes the file of npuemu serve; only [array] and [timing] matter, and arrays may be larger for tables. Without it a program's array is\n" +
			"that it was made for, and all else the default (npuemu info --defaults).\n\n" +
			"--sweep KEY=VALUE,VALUE… estimates once for each value, or once for each combination if it is repeated. Keys are rows, cols, dim (both), scratchpad,\n" +
			"accumulators, dataflow, and those of [timing]; programs and compiled models, which have an array of their own, take the latter alone, and a MODEL\n" +
			"all but the dataflow. A table then has a line for each combination; JSON and CSV have all layers.\n\n" +
			"With --model scalesim cycles are those that SCALE-Sim v3 reports for the array alone, and there is no memory.\n\n" +
			timelineHelp,
		Example: "  npuemu estimate examples/layers/resnet50.csv\n" +
			"  npuemu estimate resnet50.csv --config array.toml --format csv > out.csv\n" +
			"  npuemu estimate mobilenetv2.csv --sweep dim=16,32,64,128 --sweep dram_width=16,32\n" +
			"  npuemu estimate mobilenet.onnx --sweep dim=16,32,64\n" +
			"  npuemu estimate lenet.npu --roofline roofline.svg\n" +
			"  npuemu estimate digits.npuasm --sweep dram_width=16,32,64 --format json\n" +
			"  npuemu estimate mobilenet.npu --timeline mobilenet.json",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) (err error) {
			defer func() { err = errors.Join(err, f.timeline.end()) }()
			return f.run(c, args)
		},
	}
	c.Flags().StringVar(&f.config, "config", "", configUsage)
	c.Flags().StringVar(&f.format, "format", "table", "`form` of the result: table, json or csv")
	c.Flags().StringVar(&f.model, "model", "default", "`model` of layers: default, or scalesim")
	c.Flags().StringVar(&f.dataflow, "dataflow", "ws", "`dataflow` of layers: ws, os or is; a program says it itself")
	c.Flags().StringArrayVar(&f.sweeps, "sweep", nil, "`KEY=VALUE,VALUE…`; may be repeated")
	c.Flags().StringVar(&f.roofline, "roofline", "", "write a roofline plot of the layers to this SVG `file`; of one configuration")
	c.Flags().BoolVar(&f.engines, "engines", false, "print the engines of a program or model, and no layers; of JSON and CSV, too")
	c.Flags().UintSliceVar(&f.onBus, "bus", nil, "`bindings` of a program that are memory on the bus; the others are device memory")
	f.sizes.add(c)
	f.timeline.add(c)
	_ = c.MarkFlagFilename("config", "toml")
	_ = c.MarkFlagFilename("roofline", "svg")
	for flag, values := range map[string][]string{"format": {"table", "json", "csv"}, "model": {"default", "scalesim"}, "dataflow": {"ws", "os", "is"}} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return c
}

func (f *estimateFlags) run(c *cobra.Command, args []string) error {
	name := args[0]
	if !slices.Contains([]string{"table", "json", "csv"}, f.format) {
		return fmt.Errorf("--format %q: use table, json or csv", f.format)
	}
	if f.model != "default" && f.model != "scalesim" {
		return fmt.Errorf("--model %q: use default or scalesim", f.model)
	}
	cfg := configFlags{file: f.config}
	card, err := cfg.read()
	if err != nil {
		return err
	}
	base := timing.Config{
		Rows: card.Array.Rows, Cols: card.Array.Cols, Scratchpad: card.Array.Scratchpad, Accumulators: card.Array.Accumulators,
		Params: card.Timing,
	}
	if base.Dataflow, err = timing.ParseDataflow(f.dataflow); err != nil {
		return fmt.Errorf("--dataflow %q: use ws, os or is", f.dataflow)
	}
	if len(args) > 1 && !compiler.IsModel(name) {
		return fmt.Errorf("%s: a second file, %s, is for the weights of a .prototxt only", name, args[1])
	}
	if sizes := &f.sizes; !compiler.IsModel(name) && (len(sizes.dims)+len(sizes.shapes) > 0 || sizes.float != "") {
		return fmt.Errorf("%s: --dim, --shape and --float are for models that are compiled now", name)
	}
	var subject subject
	var programs loadedPrograms
	table := filepath.Ext(name) == ".csv"
	if !table && (f.model != "default" || c.Flags().Changed("dataflow")) {
		return fmt.Errorf("--model and --dataflow are for layer tables, whose names end in .csv; %s says itself what it does", name)
	}
	switch {
	case table:
		if len(f.onBus) > 0 || f.engines {
			return errors.New("--bus and --engines are for programs and models: layers of a table lie in device memory, and have no instructions")
		}
		if f.timeline.name != "" {
			return errors.New("--timeline is for programs and compiled models: a layer table has no instructions")
		}
		if subject, err = f.layers(c, name); err != nil {
			return err
		}
	case compiler.IsModel(name):
		if err := f.keys(name, []string{"dataflow"}, "the compiler says it itself"); err != nil {
			return err
		}
		subject = f.source(c, args, card, &programs)
	default:
		if programs, err = loadPrograms(c, name); err != nil {
			return err
		}
		p := programs.list[0]
		if err := f.keys(name, []string{"rows", "cols", "dim", "scratchpad", "accumulators", "dataflow"}, programs.own()); err != nil {
			return err
		}
		if f.config == "" {
			base.Rows, base.Cols = int(p.Rows), int(p.Cols)
		}
		if subject, err = f.program(c, name, &programs); err != nil {
			return err
		}
	}
	points, err := sweep(base, f.sweeps)
	if err != nil {
		return err
	}
	if f.roofline != "" && len(points) > 1 {
		return errors.New("--roofline is of one configuration: leave --sweep out")
	}
	if f.timeline.name != "" && len(points) > 1 {
		return errors.New("--timeline is of one configuration: leave --sweep out")
	}
	if err := f.timeline.begin(c); err != nil {
		return err
	}
	results, err := estimateAll(c, points, subject)
	if err != nil {
		return err
	}
	if f.roofline != "" {
		if err := outfile.Write(f.roofline, roofline(name, results[0])); err != nil {
			return err
		}
	}
	if err := f.timeline.write(c.ErrOrStderr(), programs.timeLine(c.Context(), name, points[0].config.Params, f.mask())); err != nil {
		return err
	}
	if f.engines {
		for i := range results {
			results[i].layers = nil
		}
	}
	return printEstimates(c.OutOrStdout(), f.format, results)
}

// keys refuses to sweep what name, which is no layer table, does not leave open.
func (f *estimateFlags) keys(name string, own []string, why string) error {
	for _, s := range f.sweeps {
		if key, _, _ := strings.Cut(s, "="); slices.Contains(own, key) {
			return fmt.Errorf("--sweep %s: %s cannot be estimated so: %s", key, name, why)
		}
	}
	return nil
}

// own says what the programs are made for, and what to do about it.
func (l *loadedPrograms) own() string {
	p := l.list[0]
	if l.model != nil {
		return fmt.Sprintf("it is compiled for an array of %d×%d and its local memories; give estimate the file that it was made of (%s), which it compiles for each configuration", p.Rows, p.Cols, strings.Join(compiler.Extensions(), ", "))
	}
	return fmt.Sprintf("a program runs on its own array only, here %d×%d, and says its dataflow itself", p.Rows, p.Cols)
}

// subject estimates something on one configuration.
type subject func(timing.Config) (estimate, error)

// estimate is what the model says of one configuration.
type estimate struct {
	label  []string // of a sweep, key=value
	config timing.Config

	layers  []layer
	compute bool           // only the array is modelled
	program *timing.Report // of a program, or of several one after the other; nil for a table

	launches     int    // of programs
	launchCycles uint64 // of their commands, besides the programs' (§13.8.2)
}

// layer is a row of an estimate: a layer of a table, an operator, or a part of a program.
type layer struct {
	name          string
	operator      string // of a model
	engines       string // of programs: those that compute, or else those that move
	host          string // why the host has it, and nothing else
	cycles, macs  uint64
	array         uint64 // cycles in which the array works
	read, written uint64
	tiles         uint64 // of a table
	share         float64
	bound         timing.Bound
}

func (l *layer) intensity() float64 {
	if l.read+l.written == 0 {
		return 0
	}
	return float64(l.macs) / float64(l.read+l.written)
}

// partLayer is a row with what the model says of a part of a program.
func partLayer(name, operator string, r *timing.PartReport) layer {
	l := layer{name: name, operator: operator, cycles: r.Cycles, macs: r.MACs, array: r.Array, read: r.Read, written: r.Written, share: r.Share, bound: r.Bound}
	switch {
	case r.Array > 0 && r.Vector > 0:
		l.engines = "matrix, vector"
	case r.Array > 0:
		l.engines = "matrix"
	case r.Vector > 0:
		l.engines = "vector"
	case r.Read+r.Written > 0:
		l.engines = "load, store"
	default:
		l.engines = "none"
	}
	return l
}

func (f *estimateFlags) layers(c *cobra.Command, name string) (subject, error) {
	text, err := readInput(c, name)
	if err != nil {
		return nil, err
	}
	layers, err := timing.ReadLayers(name, text)
	if err != nil {
		return nil, err
	}
	return func(cfg timing.Config) (estimate, error) {
		e := estimate{config: cfg, compute: f.model == "scalesim"}
		if e.compute {
			for _, l := range layers {
				e.layers = append(e.layers, layer{name: l.Name, cycles: timing.ScaleSim(l, cfg), macs: l.MACs()})
			}
			return e, nil
		}
		for _, l := range timing.Layers(layers, cfg) {
			e.layers = append(e.layers, layer{
				name: l.Name, cycles: l.Cycles, macs: l.MACs(), array: l.Compute, read: l.Read, written: l.Written, tiles: l.Tiles, bound: l.Bound,
			})
		}
		return e, nil
	}, nil
}

// mask has a bit for each of --bus, which are below 64 by now.
func (f *estimateFlags) mask() (onBus uint64) {
	for _, b := range f.onBus {
		onBus |= 1 << b
	}
	return onBus
}

// bindings reports whether p has all bindings of --bus.
func (f *estimateFlags) bindings(name string, p *isa.Program) error {
	for _, b := range f.onBus {
		if b >= uint(p.Bindings) { // those of a model have the same
			return fmt.Errorf("--bus %d: %s has %d bindings, counted from 0", b, name, p.Bindings)
		}
	}
	return nil
}

func (f *estimateFlags) program(c *cobra.Command, name string, programs *loadedPrograms) (subject, error) {
	if err := f.bindings(name, programs.list[0]); err != nil {
		return nil, err
	}
	return func(cfg timing.Config) (estimate, error) {
		for _, p := range programs.list {
			if cfg.Rows != int(p.Rows) || cfg.Cols != int(p.Cols) {
				return estimate{}, fmt.Errorf("%s is for an array of %d×%d, and the configuration has %d×%d: %s", name, p.Rows, p.Cols, cfg.Rows, cfg.Cols, programs.own())
			}
			if cfg.Scratchpad < int64(p.SpadSize) || cfg.Accumulators < int64(p.AccSize) {
				return estimate{}, fmt.Errorf("%s needs %d bytes of scratchpad and %d of accumulators, and the configuration has %d and %d", name, p.SpadSize, p.AccSize, cfg.Scratchpad, cfg.Accumulators)
			}
		}
		if programs.model != nil {
			return f.estimateModel(c, name, programs.model, cfg)
		}
		p := programs.list[0]
		names, parts := programParts(p)
		r, reports, err := timing.Parts(c.Context(), p, cfg, f.mask(), parts)
		if err != nil {
			return estimate{}, fmt.Errorf("%s: %w", name, err)
		}
		e := estimate{config: cfg, program: &r}
		for i := range reports {
			if reports[i].Instructions > 0 {
				e.layers = append(e.layers, partLayer(names[i], "", &reports[i]))
			}
		}
		e.launch(p)
		return e, nil
	}, nil
}

// estimateModel is the estimate of a compiled model.
func (f *estimateFlags) estimateModel(c *cobra.Command, name string, m *model.Model, cfg timing.Config) (estimate, error) {
	sum, layers, err := compiler.Layers(c.Context(), m, cfg.Params, f.mask())
	if err != nil {
		return estimate{}, fmt.Errorf("%s: %w", name, err)
	}
	e := estimate{config: cfg, program: &sum}
	for i := range layers {
		l := &layers[i]
		if l.Host != "" {
			e.layers = append(e.layers, layer{name: l.Name, operator: l.Op, host: l.Host})
			continue
		}
		e.layers = append(e.layers, partLayer(l.Name, l.Op, &l.PartReport))
	}
	for _, s := range m.Steps {
		if s.Program >= 0 {
			e.launch(m.Programs[s.Program])
		}
	}
	return e, nil
}

// launch counts the command that launches p, with everything in device memory.
func (e *estimate) launch(p *isa.Program) {
	e.launches++
	e.launchCycles += e.config.Launch(isa.DescriptorSize+uint64(len(p.Text)), npureg.BindingSize*uint64(p.Bindings), false)
}

// source estimates a model that is compiled for each configuration. The first one is left in programs.
func (f *estimateFlags) source(c *cobra.Command, args []string, card vdev.Config, programs *loadedPrograms) subject {
	return func(cfg timing.Config) (estimate, error) {
		card.Array.Rows, card.Array.Cols, card.Array.Scratchpad, card.Array.Accumulators = cfg.Rows, cfg.Cols, cfg.Scratchpad, cfg.Accumulators
		card.Timing = cfg.Params
		if err := card.Validate(); err != nil {
			return estimate{}, fmt.Errorf("%s is compiled for a card: %w", args[0], err)
		}
		_, m, err := compileModel(c, args, card, f.sizes, nil)
		if err != nil {
			return estimate{}, err
		}
		l, err := modelPrograms(args[0], m)
		if err != nil {
			return estimate{}, err
		}
		if err := f.bindings(args[0], l.list[0]); err != nil {
			return estimate{}, err
		}
		if programs.model == nil {
			*programs = l
		}
		return f.estimateModel(c, args[0], m, cfg)
	}
}

// point is a configuration of a sweep.
type point struct {
	label  []string
	config timing.Config
}

// sweep returns all combinations of the values that the flags give, in their order.
func sweep(base timing.Config, flags []string) ([]point, error) {
	points := []point{{config: base}}
	var keys []string
	for _, flag := range flags {
		key, list, found := strings.Cut(flag, "=")
		if !found || list == "" {
			return nil, fmt.Errorf("--sweep %q: write KEY=VALUE,VALUE", flag)
		}
		if slices.Contains(keys, key) {
			return nil, fmt.Errorf("--sweep %s is given twice: give all its values at once", key)
		}
		keys = append(keys, key)
		var next []point
		for _, p := range points {
			for _, v := range strings.Split(list, ",") {
				q := point{slices.Concat(p.label, []string{key + "=" + v}), p.config}
				if err := set(&q.config, key, v); err != nil {
					return nil, fmt.Errorf("--sweep %s: %w", flag, err)
				}
				if next = append(next, q); len(next) > maxPoints {
					return nil, fmt.Errorf("--sweep: more than %d combinations; give fewer values", maxPoints)
				}
			}
		}
		points = next
	}
	for _, p := range points {
		if err := p.config.Validate(); err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(append([]string{"configuration"}, p.label...), " "), err)
		}
	}
	return points, nil
}

// set changes one key of c.
func set(c *timing.Config, key, value string) (err error) {
	if key == "dataflow" {
		c.Dataflow, err = timing.ParseDataflow(value)
		return err
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt32 {
		return fmt.Errorf("%q is not a whole number up to %d", value, math.MaxInt32)
	}
	switch key {
	case "rows":
		c.Rows = int(n)
	case "cols":
		c.Cols = int(n)
	case "dim":
		c.Rows, c.Cols = int(n), int(n)
	case "scratchpad":
		c.Scratchpad = n
	case "accumulators":
		c.Accumulators = n
	default: // the parameters have names in configuration files
		d := toml.NewDecoder(strings.NewReader(strconv.Quote(key) + " = " + strconv.FormatInt(n, 10))).DisallowUnknownFields()
		if err := d.Decode(&c.Params); err != nil {
			var known bytes.Buffer
			if err := toml.NewEncoder(&known).Encode(c.Params); err != nil {
				return err
			}
			keys := []string{"rows", "cols", "dim", "scratchpad", "accumulators", "dataflow"}
			for _, line := range strings.Split(strings.TrimSpace(known.String()), "\n") {
				name, _, _ := strings.Cut(line, " ")
				keys = append(keys, name)
			}
			return fmt.Errorf("%q is not known: use one of %s", key, strings.Join(keys, ", "))
		}
	}
	return nil
}

// estimateAll estimates s at each point, with a progress bar if someone watches.
func estimateAll(c *cobra.Command, points []point, s subject) ([]estimate, error) {
	results := make([]estimate, 0, len(points))
	bar := newBar(c.ErrOrStderr(), "")
	defer bar.done()
	for i, p := range points {
		if err := c.Context().Err(); err != nil {
			return nil, err
		}
		e, err := s(p.config)
		if err != nil {
			return nil, err
		}
		e.label = p.label
		results = append(results, e)
		bar.at(i+1, len(points), strings.Join(p.label, " "))
	}
	return results, nil
}

// ms returns cycles as milliseconds of c's clock.
func ms(cycles uint64, c timing.Config) float64 { return float64(cycles) / (1e3 * float64(c.Clock)) }

// total is the sum of an estimate's layers, of programs with the cycles and the bytes that they take together.
func (e *estimate) total() (t layer) {
	t.name = "total"
	for i := range e.layers {
		l := &e.layers[i]
		t.cycles += l.cycles
		t.macs += l.macs
		t.array += l.array
		t.read += l.read
		t.written += l.written
		t.tiles += l.tiles
		t.share += l.share
	}
	if r := e.program; r != nil {
		t.cycles, t.macs = r.Cycles, r.MACs
	}
	return t
}

// utilization is that of the array over cycles.
func utilization(macs, cycles uint64, c timing.Config) float64 {
	return float64(macs) / (float64(max(cycles, 1)) * float64(c.Rows) * float64(c.Cols))
}

func printEstimates(w io.Writer, format string, results []estimate) error {
	switch format {
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		list := make([]estimateJSON, len(results))
		for i := range results {
			list[i] = results[i].json()
		}
		return e.Encode(list)
	case "csv":
		return printCSV(w, results)
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	if len(results) > 1 {
		printSweep(t, results)
		return t.Flush()
	}
	e := &results[0]
	if len(e.layers) > 0 {
		printLayers(t, e)
	}
	if e.program != nil {
		if len(e.layers) > 0 {
			if err := t.Flush(); err != nil {
				return err
			}
			fmt.Fprintln(w)
		}
		printProgram(t, e)
	}
	return t.Flush()
}

func printLayers(t io.Writer, e *estimate) {
	operators := slices.ContainsFunc(e.layers, func(l layer) bool { return l.operator != "" })
	fmt.Fprint(t, "LAYER\t")
	if operators {
		fmt.Fprint(t, "OPERATOR\t")
	}
	if e.program != nil {
		fmt.Fprint(t, "ENGINES\t")
	}
	fmt.Fprint(t, "CYCLES\tMS\tUTILIZATION\tMACS\t")
	if !e.compute {
		fmt.Fprint(t, "READ\tWRITTEN\tMACS/BYTE\tBOUND BY\t")
	}
	if e.program != nil {
		fmt.Fprint(t, "SHARE\t")
	}
	fmt.Fprintln(t)
	total := e.total()
	line := func(l *layer, bound string) {
		fmt.Fprintf(t, "%s\t", l.name)
		if operators {
			fmt.Fprintf(t, "%s\t", l.operator)
		}
		if l.host != "" {
			fmt.Fprint(t, "host\t\t\t\t\t\t\t\t\t\t\n")
			return
		}
		if e.program != nil {
			fmt.Fprintf(t, "%s\t", l.engines)
		}
		fmt.Fprintf(t, "%d\t%.3f\t%.1f %%\t%d\t", l.cycles, ms(l.cycles, e.config), 100*utilization(l.macs, l.cycles, e.config), l.macs)
		if !e.compute {
			perByte := "-" // nothing moves
			if l.read+l.written > 0 {
				perByte = fmt.Sprintf("%.1f", l.intensity())
			}
			fmt.Fprintf(t, "%d\t%d\t%s\t%s\t", l.read, l.written, perByte, bound)
		}
		if e.program != nil {
			fmt.Fprintf(t, "%.1f %%\t", 100*l.share/float64(max(total.cycles, 1)))
		}
		fmt.Fprintln(t)
	}
	for i := range e.layers {
		line(&e.layers[i], e.layers[i].bound.String())
	}
	line(&total, "")
	for i := range e.layers {
		if l := &e.layers[i]; l.host != "" {
			fmt.Fprintf(t, "\non the host: %s %s: %s", l.operator, l.name, l.host)
		}
	}
}

// engineNames are those of §5.1, in the order of timing.Report.
var engineNames = [...]string{"load", "store", "matrix", "vector"}

func printProgram(t io.Writer, e *estimate) {
	r := e.program
	fmt.Fprint(t, "ENGINE\tINSTRUCTIONS\tBUSY\tOF ALL\t")
	for cause := range timing.Causes {
		fmt.Fprintf(t, "%s\t", strings.ToUpper(cause.String()))
	}
	fmt.Fprintln(t)
	for i, g := range r.Engines {
		fmt.Fprintf(t, "%s\t%d\t%d\t%.1f %%\t", engineNames[i], g.Instructions, g.Busy, 100*float64(g.Busy)/float64(r.Cycles))
		for _, n := range g.Stalls {
			fmt.Fprintf(t, "%d\t", n)
		}
		fmt.Fprintln(t)
	}
	fmt.Fprintf(t, "\ncycles\t%d\t%.3f ms\t\ninstructions\t%d\t\t\nMACs\t%d\t%.1f %%\tof the array\t\n", r.Cycles, ms(r.Cycles, e.config), r.Instructions, r.MACs, 100*r.Utilization(e.config))
	fmt.Fprintf(t, "loaded\t%d\tbytes\t\nstored\t%d\tbytes\t\ndevice memory\t%d\tbytes\t\nbus\t%d\tbytes\t\n", r.Loaded, r.Stored, r.DRAM, r.Bus)
	fmt.Fprintf(t, "launches\t%d\t%d cycles\tbesides, of commands (§13.8.2)\t\n", e.launches, e.launchCycles)
}

func printSweep(t io.Writer, results []estimate) {
	for _, l := range results[0].label {
		key, _, _ := strings.Cut(l, "=")
		fmt.Fprintf(t, "%s\t", strings.ToUpper(key))
	}
	fmt.Fprintln(t, "CYCLES\tMS\tUTILIZATION\tMEMORY BYTES\tMACS/BYTE\t")
	for i := range results {
		e := &results[i]
		for _, l := range e.label {
			_, value, _ := strings.Cut(l, "=")
			fmt.Fprintf(t, "%s\t", value)
		}
		cycles, macs, bytes := e.sums()
		fmt.Fprintf(t, "%d\t%.3f\t%.1f %%\t%d\t%.1f\t\n", cycles, ms(cycles, e.config), 100*utilization(macs, cycles, e.config), bytes, float64(macs)/float64(max(bytes, 1)))
	}
}

// sums are what layers and programs both have.
func (e *estimate) sums() (cycles, macs, bytes uint64) {
	if r := e.program; r != nil {
		return r.Cycles, r.MACs, r.DRAM + r.Bus
	}
	t := e.total()
	return t.cycles, t.macs, t.read + t.written
}

func printCSV(w io.Writer, results []estimate) error {
	c := csv.NewWriter(w)
	var head []string
	for _, l := range results[0].label {
		key, _, _ := strings.Cut(l, "=")
		head = append(head, key)
	}
	n := func(v uint64) string { return strconv.FormatUint(v, 10) }
	var lines [][]string
	for i := range results {
		e := &results[i]
		var label []string
		for _, l := range e.label {
			_, value, _ := strings.Cut(l, "=")
			label = append(label, value)
		}
		if r := e.program; r != nil && len(e.layers) == 0 {
			for k, g := range r.Engines {
				line := append(slices.Clone(label), engineNames[k], n(r.Cycles), n(g.Instructions), n(g.Busy))
				for _, s := range g.Stalls {
					line = append(line, n(s))
				}
				lines = append(lines, line)
			}
			continue
		}
		for k := range e.layers {
			l := &e.layers[k]
			line := append(slices.Clone(label), l.name, n(l.cycles), fmt.Sprintf("%.4f", utilization(l.macs, l.cycles, e.config)), n(l.macs))
			bound := l.bound.String()
			if l.host != "" {
				bound = ""
			}
			if !e.compute {
				line = append(line, n(l.array), n(l.read), n(l.written), fmt.Sprintf("%.2f", l.intensity()), bound)
			}
			if r := e.program; r != nil {
				line = append(line, l.operator, l.engines, fmt.Sprintf("%.4f", l.share/float64(max(r.Cycles, 1))), l.host)
			}
			lines = append(lines, line)
		}
	}
	switch {
	case results[0].program != nil && len(results[0].layers) == 0:
		head = append(head, "engine", "cycles", "instructions", "busy")
		for cause := range timing.Causes {
			head = append(head, "stall_"+cause.String())
		}
	case results[0].compute:
		head = append(head, "layer", "cycles", "utilization", "macs")
	default:
		head = append(head, "layer", "cycles", "utilization", "macs", "array_cycles", "read", "written", "intensity", "bound")
		if results[0].program != nil {
			head = append(head, "operator", "engines", "share", "host")
		}
	}
	if err := c.Write(head); err != nil {
		return err
	}
	return c.WriteAll(lines)
}

// estimateJSON is an estimate as JSON has it. Zero fields are those of the
// other kind.
type estimateJSON struct {
	Sweep        []string     `json:"sweep,omitempty"`
	Rows         int          `json:"rows"`
	Cols         int          `json:"cols"`
	Dataflow     string       `json:"dataflow,omitempty"`
	Cycles       uint64       `json:"cycles"`
	Milliseconds float64      `json:"ms"`
	MACs         uint64       `json:"macs"`
	Utilization  float64      `json:"utilization"`
	Layers       []layerJSON  `json:"layers,omitempty"`
	Engines      []engineJSON `json:"engines,omitempty"`
	Instructions uint64       `json:"instructions,omitempty"`
	Loaded       uint64       `json:"loaded,omitempty"`
	Stored       uint64       `json:"stored,omitempty"`
	DRAM         uint64       `json:"dram_bytes,omitempty"`
	Bus          uint64       `json:"bus_bytes,omitempty"`
	Launches     int          `json:"launches,omitempty"`
	LaunchCycles uint64       `json:"launch_cycles,omitempty"`
}

type layerJSON struct {
	Name        string  `json:"name"`
	Cycles      uint64  `json:"cycles"`
	MACs        uint64  `json:"macs"`
	Utilization float64 `json:"utilization"`
	Array       uint64  `json:"array_cycles,omitempty"`
	Read        uint64  `json:"read,omitempty"`
	Written     uint64  `json:"written,omitempty"`
	Tiles       uint64  `json:"tiles,omitempty"`
	Intensity   float64 `json:"intensity,omitempty"`
	Bound       string  `json:"bound,omitempty"`

	// Of models and programs:
	Operator string  `json:"operator,omitempty"`
	Engines  string  `json:"engines,omitempty"`
	Share    float64 `json:"share,omitempty"`
	Host     string  `json:"host,omitempty"`
}

type engineJSON struct {
	Engine       string            `json:"engine"`
	Instructions uint64            `json:"instructions"`
	Busy         uint64            `json:"busy"`
	Stalls       map[string]uint64 `json:"stalls"`
}

func (e *estimate) json() estimateJSON {
	cycles, macs, _ := e.sums()
	j := estimateJSON{
		Sweep: e.label, Rows: e.config.Rows, Cols: e.config.Cols,
		Cycles: cycles, Milliseconds: ms(cycles, e.config), MACs: macs, Utilization: utilization(macs, cycles, e.config),
	}
	if r := e.program; r != nil {
		j.Instructions, j.Loaded, j.Stored, j.DRAM, j.Bus = r.Instructions, r.Loaded, r.Stored, r.DRAM, r.Bus
		for i, g := range r.Engines {
			stalls := map[string]uint64{}
			for cause, n := range g.Stalls {
				stalls[timing.Cause(cause).String()] = n
			}
			j.Engines = append(j.Engines, engineJSON{engineNames[i], g.Instructions, g.Busy, stalls})
		}
		j.Launches, j.LaunchCycles = e.launches, e.launchCycles
	} else {
		j.Dataflow = e.config.Dataflow.String()
	}
	for i := range e.layers {
		l := &e.layers[i]
		row := layerJSON{Name: l.name, Operator: l.operator, Host: l.host}
		if l.host == "" {
			row.Cycles, row.MACs, row.Utilization = l.cycles, l.macs, utilization(l.macs, l.cycles, e.config)
			row.Engines, row.Share = l.engines, l.share/float64(max(cycles, 1))
			if !e.compute {
				row.Array, row.Read, row.Written, row.Tiles, row.Intensity, row.Bound = l.array, l.read, l.written, l.tiles, l.intensity(), l.bound.String()
			}
		}
		j.Layers = append(j.Layers, row)
	}
	return j
}

// read is load for a command that takes configurations which no card has.
func (f *configFlags) read() (vdev.Config, error) {
	if f.file == "" {
		return vdev.DefaultConfig(), nil
	}
	b, err := os.ReadFile(f.file)
	if err != nil {
		return vdev.Config{}, fmt.Errorf("configuration: %w", err)
	}
	cfg, err := vdev.DecodeConfig(b)
	if err != nil {
		return cfg, fmt.Errorf("%s: %w", f.file, err)
	}
	return cfg, nil
}
