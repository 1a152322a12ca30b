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

	"npuemu/core/isa"
	"npuemu/internal/outfile"
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
	timeline timelineFlags
	given    argumentFlags
}

func estimateCommand() *cobra.Command {
	var f estimateFlags
	c := &cobra.Command{
		Use:   "estimate PROGRAM|MODEL.npu|LAYERS.csv",
		Short: "Say how many cycles a program or a network takes",
		Long: "estimate runs the timing model of docs/spec/timing.md. A file whose name ends in .csv is a layer table, as SCALE-Sim\n" +
			"reads it (§13.7), and comes out layer by layer; anything else is a program (ELF, image, or .npuasm), or the programs of a compiled model one\n" +
			"after the other, and comes out engine by engine, with the reasons why engines waited.\n\n" +
			"--config takes the file of npuemu serve; only [array] and [timing] matter, and arrays may be larger here. Without it a program's array is\n" +
			"that it was made for, and all else the default (npuemu info --defaults).\n\n" +
			"--sweep KEY=VALUE,VALUE… estimates once for each value, or once for each combination if it is repeated. Keys are rows, cols, dim (both), scratchpad,\n" +
			"accumulators, dataflow, and those of [timing]. A table then has a line for each combination; JSON and CSV have all layers.\n\n" +
			"With --model scalesim cycles are those that SCALE-Sim v3 reports for the array alone, and there is no memory.\n\n" +
			"--arg s0=16 is an argument (§4.9) of a program that takes some; those that are left out are 0.\n\n" +
			timelineHelp,
		Example: "  npuemu estimate examples/layers/resnet50.csv\n" +
			"  npuemu estimate resnet50.csv --config array.toml --format csv > out.csv\n" +
			"  npuemu estimate mobilenetv2.csv --sweep dim=16,32,64,128 --sweep dram_width=16,32\n" +
			"  npuemu estimate resnet50.csv --roofline roofline.svg\n" +
			"  npuemu estimate digits.npu --format json\n" +
			"  npuemu estimate mobilenet.npu --timeline mobilenet.json",
		Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) (err error) {
			defer func() { err = errors.Join(err, f.timeline.end()) }()
			return f.run(c, args[0])
		},
	}
	c.Flags().StringVar(&f.config, "config", "", configUsage)
	c.Flags().StringVar(&f.format, "format", "table", "`form` of the result: table, json or csv")
	c.Flags().StringVar(&f.model, "model", "default", "`model` of layers: default, or scalesim")
	c.Flags().StringVar(&f.dataflow, "dataflow", "ws", "`dataflow` of layers: ws, os or is; a program says it itself")
	c.Flags().StringArrayVar(&f.sweeps, "sweep", nil, "`KEY=VALUE,VALUE…`; may be repeated")
	c.Flags().StringVar(&f.roofline, "roofline", "", "write a roofline plot to this SVG `file`; of layers, and of one configuration")
	c.Flags().UintSliceVar(&f.onBus, "bus", nil, "`bindings` of a program that are memory on the bus; the others are device memory")
	f.timeline.add(c)
	f.given.add(c)
	_ = c.MarkFlagFilename("config", "toml")
	_ = c.MarkFlagFilename("roofline", "svg")
	for flag, values := range map[string][]string{"format": {"table", "json", "csv"}, "model": {"default", "scalesim"}, "dataflow": {"ws", "os", "is"}} {
		_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	return c
}

func (f *estimateFlags) run(c *cobra.Command, name string) error {
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
	var subject subject
	var programs loadedPrograms
	if filepath.Ext(name) == ".csv" {
		if len(f.onBus) > 0 {
			return errors.New("--bus is for programs: layers lie in device memory")
		}
		if len(f.given.list) > 0 {
			return errors.New("--arg is for programs: a layer table has none")
		}
		if f.timeline.name != "" {
			return errors.New("--timeline is for programs and compiled models: a layer table has no instructions")
		}
		if subject, err = f.layers(c, name); err != nil {
			return err
		}
	} else {
		if f.model != "default" || f.roofline != "" || c.Flags().Changed("dataflow") {
			return fmt.Errorf("--model, --dataflow and --roofline are for layer tables, whose names end in .csv; %s is taken for a program", name)
		}
		if programs, err = loadPrograms(c, name); err != nil {
			return err
		}
		for _, p := range programs.list {
			if p.Args, err = f.given.of(p); err != nil {
				return err
			}
		}
		if f.config == "" {
			base.Rows, base.Cols = int(programs.list[0].Rows), int(programs.list[0].Cols)
		}
		if subject, err = f.program(c, name, programs.list); err != nil {
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
	return printEstimates(c.OutOrStdout(), f.format, results)
}

// subject estimates something on one configuration.
type subject func(timing.Config) (estimate, error)

// estimate is what the model says of one configuration.
type estimate struct {
	label  []string // of a sweep, key=value
	config timing.Config

	layers  []timing.LayerEstimate // of a table
	compute bool                   // only the array is modelled
	program *timing.Report         // of a program, or of several one after the other
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
		if !e.compute {
			e.layers = timing.Layers(layers, cfg)
			return e, nil
		}
		for _, l := range layers {
			e.layers = append(e.layers, timing.LayerEstimate{Layer: l, Cycles: timing.ScaleSim(l, cfg)})
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

func (f *estimateFlags) program(c *cobra.Command, name string, programs []*isa.Program) (subject, error) {
	for _, b := range f.onBus {
		if p := programs[0]; b >= uint(p.Bindings) { // those of a model have the same
			return nil, fmt.Errorf("--bus %d: %s has %d bindings, counted from 0", b, name, p.Bindings)
		}
	}
	one := func(p *isa.Program, cfg timing.Config) (timing.Report, error) {
		if cfg.Rows != int(p.Rows) || cfg.Cols != int(p.Cols) {
			return timing.Report{}, fmt.Errorf("%s is for an array of %d×%d, and the configuration has %d×%d: a program runs on its own array only", name, p.Rows, p.Cols, cfg.Rows, cfg.Cols)
		}
		if cfg.Scratchpad < int64(p.SpadSize) || cfg.Accumulators < int64(p.AccSize) {
			return timing.Report{}, fmt.Errorf("%s needs %d bytes of scratchpad and %d of accumulators, and the configuration has %d and %d", name, p.SpadSize, p.AccSize, cfg.Scratchpad, cfg.Accumulators)
		}
		r, err := timing.Program(c.Context(), p, cfg, f.mask())
		if err != nil {
			return timing.Report{}, fmt.Errorf("%s: %w", name, err)
		}
		return r, nil
	}
	return func(cfg timing.Config) (estimate, error) {
		var sum timing.Report
		for _, p := range programs {
			r, err := one(p, cfg)
			if err != nil {
				return estimate{}, err
			}
			sum.Add(&r)
		}
		return estimate{config: cfg, program: &sum}, nil
	}, nil
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

// total is the sum of an estimate's layers.
func (e *estimate) total() timing.LayerEstimate {
	t := timing.LayerEstimate{Layer: timing.Layer{Name: "total"}}
	for _, l := range e.layers {
		t.Cycles += l.Cycles
		t.Compute += l.Compute
		t.Read += l.Read
		t.Written += l.Written
		t.Tiles += l.Tiles
	}
	return t
}

func (e *estimate) macs() (n uint64) {
	for _, l := range e.layers {
		n += l.MACs()
	}
	return n
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
	if e.program != nil {
		printProgram(t, e)
	} else {
		printLayers(t, e)
	}
	return t.Flush()
}

func printLayers(t io.Writer, e *estimate) {
	if e.compute {
		fmt.Fprintln(t, "LAYER\tCYCLES\tMS\tUTILIZATION\tMACS\t")
	} else {
		fmt.Fprintln(t, "LAYER\tCYCLES\tMS\tUTILIZATION\tMACS\tREAD\tWRITTEN\tMACS/BYTE\tBOUND BY\t")
	}
	total := e.total()
	line := func(l *timing.LayerEstimate, macs uint64, bound string) {
		fmt.Fprintf(t, "%s\t%d\t%.3f\t%.1f %%\t%d\t", l.Name, l.Cycles, ms(l.Cycles, e.config), 100*utilization(macs, l.Cycles, e.config), macs)
		if !e.compute {
			fmt.Fprintf(t, "%d\t%d\t%.1f\t%s\t", l.Read, l.Written, float64(macs)/float64(l.Read+l.Written), bound)
		}
		fmt.Fprintln(t)
	}
	for i := range e.layers {
		line(&e.layers[i], e.layers[i].MACs(), e.layers[i].Bound.String())
	}
	line(&total, e.macs(), "")
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
}

func printSweep(t io.Writer, results []estimate) {
	for _, l := range results[0].label {
		key, _, _ := strings.Cut(l, "=")
		fmt.Fprintf(t, "%s\t", strings.ToUpper(key))
	}
	fmt.Fprintln(t, "CYCLES\tMS\tUTILIZATION\tMEMORY BYTES\t")
	for i := range results {
		e := &results[i]
		for _, l := range e.label {
			_, value, _ := strings.Cut(l, "=")
			fmt.Fprintf(t, "%s\t", value)
		}
		cycles, macs, bytes := e.sums()
		fmt.Fprintf(t, "%d\t%.3f\t%.1f %%\t%d\t\n", cycles, ms(cycles, e.config), 100*utilization(macs, cycles, e.config), bytes)
	}
}

// sums are what layers and programs both have.
func (e *estimate) sums() (cycles, macs, bytes uint64) {
	if r := e.program; r != nil {
		return r.Cycles, r.MACs, r.DRAM + r.Bus
	}
	t := e.total()
	return t.Cycles, e.macs(), t.Read + t.Written
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
		if r := e.program; r != nil {
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
			line := append(slices.Clone(label), l.Name, n(l.Cycles), fmt.Sprintf("%.4f", utilization(l.MACs(), l.Cycles, e.config)), n(l.MACs()))
			if !e.compute {
				line = append(line, n(l.Compute), n(l.Read), n(l.Written), fmt.Sprintf("%.2f", l.Intensity()), l.Bound.String())
			}
			lines = append(lines, line)
		}
	}
	switch {
	case results[0].program != nil:
		head = append(head, "engine", "cycles", "instructions", "busy")
		for cause := range timing.Causes {
			head = append(head, "stall_"+cause.String())
		}
	case results[0].compute:
		head = append(head, "layer", "cycles", "utilization", "macs")
	default:
		head = append(head, "layer", "cycles", "utilization", "macs", "array_cycles", "read", "written", "intensity", "bound")
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
		return j
	}
	j.Dataflow = e.config.Dataflow.String()
	for i := range e.layers {
		l := &e.layers[i]
		row := layerJSON{Name: l.Name, Cycles: l.Cycles, MACs: l.MACs(), Utilization: utilization(l.MACs(), l.Cycles, e.config)}
		if !e.compute {
			row.Array, row.Read, row.Written, row.Tiles, row.Intensity, row.Bound = l.Compute, l.Read, l.Written, l.Tiles, l.Intensity(), l.Bound.String()
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
