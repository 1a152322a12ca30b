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
	"strings"
	"sync"

	"npuemu/attach"
	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/run"
	"npuemu/internal/outfile"
	"npuemu/timing"
	"npuemu/timing/timeline"
	"npuemu/vdev"
)

// objects are what C has handles of.
var objects handles

// loaded is a model on a device.
type loaded struct {
	d *device
	m *model.Model // never changes

	session  *run.Session // nil: to be loaded again; guarded by d.turn
	unloaded bool         // guarded by d.turn

	report     sync.Once
	reportJSON []byte
	reportErr  error
}

// source is what npuemu_load is told.
type source struct {
	compiler.Source
	options string // JSON
}

// read returns the compiled model that s is, or compiles it for cfg.
func (s *source) read(cfg vdev.Config, note func(done, total int)) (*model.Model, error) {
	if s.options != "" {
		var o struct {
			Dims   map[string]int   `json:"dims"`
			Shapes map[string][]int `json:"shapes"`
			Float  string           `json:"float"`
		}
		d := json.NewDecoder(strings.NewReader(s.options))
		d.DisallowUnknownFields()
		if err := d.Decode(&o); err != nil {
			return nil, failure{statusArgument, fmt.Errorf(`options: %w; they are JSON, as {"dims": {"batch": 4}, "shapes": {"x": [1, 3]}, "float": "bf16"}`, err)}
		}
		s.Dims, s.Shapes, s.Float = o.Dims, o.Shapes, o.Float
		if s.Float != "" && !slices.Contains(compiler.Floats(), s.Float) {
			return nil, failure{statusArgument, fmt.Errorf("options: products of %q: there are %s", s.Float, strings.Join(compiler.Floats(), ", "))}
		}
	}
	for name, shape := range s.Shapes {
		if slices.ContainsFunc(shape, func(n int) bool { return n < 0 }) {
			return nil, failure{statusArgument, fmt.Errorf("options: shape %v of %q: sizes are 0 or more", shape, name)}
		}
	}
	for name, n := range s.Dims {
		if n < 0 {
			return nil, failure{statusArgument, fmt.Errorf("options: dimension %q is %d: sizes are 0 or more", name, n)}
		}
	}
	if s.Data == nil && s.Path == "" {
		return nil, failure{statusArgument, errors.New("a model is needed: a path, or data and their format")}
	}
	if s.Data != nil && s.Format == "" && s.Path == "" {
		return nil, failure{statusArgument, errors.New("what is the format of the data: onnx, tflite, caffe, npuir or npu?")}
	}
	if s.Format == "npu" || s.Format == "" && strings.EqualFold(filepath.Ext(s.Path), ".npu") {
		return s.compiled()
	}
	passes := 0
	g, err := s.Load(func(string, *ir.Graph) { passes++; note(passes, 0) })
	if err != nil {
		return nil, refused(err)
	}
	for name := range s.Shapes {
		if !slices.ContainsFunc(g.Inputs, func(t *ir.Tensor) bool { return t.Name == name }) {
			return nil, failure{statusArgument, fmt.Errorf("options: the model has no input %q to give a shape", name)}
		}
	}
	m, err := compiler.Build(g, attach.Target(cfg))
	if err != nil {
		return nil, refused(err)
	}
	return m, nil
}

// compiled reads a compiled model.
func (s *source) compiled() (*model.Model, error) {
	if len(s.Dims)+len(s.Shapes) > 0 || s.Float != "" {
		return nil, failure{statusArgument, errors.New("options: a compiled model has its shapes and types")}
	}
	b, err := s.Data, error(nil)
	if b == nil {
		if b, err = os.ReadFile(s.Path); err != nil {
			return nil, refused(err)
		}
	}
	m, err := model.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil && s.Path != "" {
		err = fmt.Errorf("%s: %w", s.Path, err)
	}
	return m, refused(err)
}

// refused is the error of a model, or of its file.
func refused(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return fails(statusFile, err)
	}
	return fails(statusModel, err)
}

// compileInBackground is read, until ctx ends; then it goes on for nobody.
func (s *source) compileInBackground(ctx context.Context, cfg vdev.Config, note func(done, total int)) (*model.Model, error) {
	var m *model.Model
	done := make(chan error, 1)
	go func() {
		done <- wait(nil, nil, func(func(int, int)) (err error) {
			m, err = s.read(cfg, note)
			return err
		})
	}()
	select {
	case err := <-done:
		return m, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// compile returns the content of a file that run executes.
func compile(ctx context.Context, config string, s source, note func(done, total int)) ([]byte, error) {
	cfg, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	m, err := s.compileInBackground(ctx, cfg, note)
	if err != nil {
		return nil, err
	}
	if err := compiler.Estimate(ctx, m, cfg.Timing); err != nil {
		return nil, fails(statusModel, err)
	}
	b, err := m.Write()
	return b, fails(statusModel, err)
}

// load puts a model on a card.
func (d *device) load(ctx context.Context, s source, note func(done, total int)) (uint64, error) {
	m, err := s.compileInBackground(ctx, d.options.Config, note)
	if err != nil {
		return 0, err
	}
	l := &loaded{d: d, m: m}
	handle, refusal := uint64(0), error(nil)
	err = d.use(ctx, func() error {
		if l.session, refusal = run.Load(d.card, m); refusal == nil {
			handle = objects.add(l)
			d.models[l] = handle
		}
		return nil
	})
	return handle, errors.Join(err, fails(statusModel, refusal))
}

// unload takes a model from its card.
func (l *loaded) unload() error {
	d := l.d
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	if !objects.remove(d.models[l]) {
		return failure{statusHandle, errors.New("the model is closed")}
	}
	delete(d.models, l)
	l.unloaded = true
	if l.session == nil {
		return nil
	}
	return fails(statusDevice, l.session.Close())
}

// buffer is a tensor's elements in memory of the caller.
type buffer struct {
	data []byte  // nil: not given
	typ  ir.Type // Invalid: not to be compared
}

// fit compares buffers with tensors.
func fit(kind string, tensors []model.Tensor, given []buffer) error {
	if len(given) != len(tensors) {
		return failure{statusBuffer, fmt.Errorf("%d %ss are given, the model has %d: %s", len(given), kind, len(tensors), names(tensors))}
	}
	for i, b := range given {
		t := &tensors[i]
		if b.typ != ir.Invalid && b.typ != t.TypeOf() {
			return failure{statusBuffer, fmt.Errorf("%s %d, %q, is given as %s; it is %s%v: convert it", kind, i, t.Name, b.typ, t.Type, t.Shape)}
		}
		if b.data == nil && kind == "output" {
			continue
		}
		if len(b.data) != t.Bytes() {
			return failure{statusBuffer, fmt.Errorf("%s %d, %q, has %d bytes; %s%v has %d", kind, i, t.Name, len(b.data), t.Type, t.Shape, t.Bytes())}
		}
	}
	return nil
}

func names(tensors []model.Tensor) string {
	var l []string
	for _, t := range tensors {
		l = append(l, fmt.Sprintf("%s: %s%v", t.Name, t.Type, t.Shape))
	}
	return strings.Join(l, ", ")
}

// run runs the model and copies its outputs.
func (l *loaded) run(ctx context.Context, inputs, outputs []buffer, note func(done, total int)) (r run.Report, err error) {
	if err := fit("input", l.m.Inputs, inputs); err != nil {
		return r, err
	}
	if len(outputs) > 0 {
		if err := fit("output", l.m.Outputs, outputs); err != nil {
			return r, err
		}
	}
	in := make([][]byte, len(inputs))
	for i, b := range inputs {
		in[i] = b.data
	}
	err = l.d.use(ctx, func() error {
		if l.unloaded {
			return failure{statusHandle, errors.New("the model was unloaded meanwhile")}
		}
		if l.session == nil {
			if l.session, err = run.Load(l.d.card, l.m); err != nil {
				return fails(statusDevice, err)
			}
		}
		out, report, err := l.session.Run(ctx, in, func(i int) { note(i, len(l.m.Steps)) })
		if err != nil {
			return fails(statusDevice, err)
		}
		for i, b := range outputs {
			copy(b.data, out[i])
		}
		r = report
		return nil
	})
	return r, err
}

// launches is what npuemu_run says of the programs of a run.
func launches(r run.Report) ([]byte, error) {
	b, err := json.Marshal(struct {
		Launches []run.Launch `json:"launches"`
		Untimed  string       `json:"untimed,omitempty"`
	}{r.Launches, r.Untimed})
	return b, fails(statusInternal, err)
}

// hosts is how many operators run on the host.
func (l *loaded) hosts() int {
	n := 0
	for i := range l.m.Nodes {
		if l.m.Nodes[i].Host != "" {
			n++
		}
	}
	return n
}

// described is what npuemu_report says.
type described struct {
	Name         string                    `json:"name"`
	Architecture string                    `json:"architecture"`
	Array        model.Array               `json:"array"`
	Inputs       []description             `json:"inputs"`
	Outputs      []description             `json:"outputs"`
	Programs     int                       `json:"programs"`
	Constants    int                       `json:"constant_bytes"`
	Activations  uint64                    `json:"activation_bytes"`
	Memory       uint64                    `json:"card_memory_bytes"`
	Cycles       uint64                    `json:"cycles"` // of all programs
	Operators    []compiler.OperatorReport `json:"operators"`
}

type description struct {
	Name  string       `json:"name"`
	Type  string       `json:"dtype"`
	Shape []int        `json:"shape"`
	Quant *model.Quant `json:"quant,omitempty"`
}

// describe is what npuemu_report returns.
func (l *loaded) describe() ([]byte, error) {
	l.report.Do(func() { l.reportJSON, l.reportErr = describe(l.m, l.d.options.Config.Timing) })
	return l.reportJSON, l.reportErr
}

func describe(m *model.Model, p timing.Params) ([]byte, error) {
	c := *m // the original is in use
	c.Steps, c.Nodes = slices.Clone(m.Steps), slices.Clone(m.Nodes)
	if err := compiler.Estimate(context.Background(), &c, p); err != nil {
		return nil, fails(statusModel, err)
	}
	r := described{
		Name: c.Name, Architecture: c.Architecture, Array: c.Array, Programs: len(c.Programs), Constants: len(c.Constants), Memory: c.Memory(),
		Inputs: describeTensors(c.Inputs), Outputs: describeTensors(c.Outputs), Operators: compiler.Operators(&c),
	}
	if len(c.Bindings) > 1 {
		r.Activations = c.Bindings[1].Size
	}
	for _, s := range c.Steps {
		r.Cycles += s.Cycles
	}
	b, err := json.Marshal(r)
	return b, fails(statusInternal, err)
}

// timeLine writes a file, and returns how many instructions it does not show one by one.
func (l *loaded) timeLine(ctx context.Context, path string, t compiler.TimeLine) (merged uint64, err error) {
	if t.Limit == 0 {
		t.Limit = timeline.DefaultLimit
	}
	if n := len(l.m.Bindings); n < 64 && t.OnBus>>n != 0 {
		return 0, failure{statusArgument, fmt.Errorf("on_bus is %#x, and the model has %d bindings, a bit each", t.OnBus, n)}
	}
	f, err := outfile.Create(path)
	if err != nil {
		return 0, failure{statusFile, fmt.Errorf("time line: %w", err)}
	}
	if _, merged, err = t.Write(ctx, fileWriter{f}, l.m, l.d.options.Config.Timing); err == nil {
		err = fails(statusFile, f.Commit())
	}
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	if err != nil {
		return 0, errors.Join(fails(statusModel, fmt.Errorf("time line: %w", err)), f.Discard())
	}
	return merged, nil
}

// fileWriter gives what fails the status of files.
type fileWriter struct{ w io.Writer }

func (f fileWriter) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	return n, fails(statusFile, err)
}

func describeTensors(l []model.Tensor) []description {
	d := []description{}
	for _, t := range l {
		d = append(d, description{t.Name, t.Type, t.Shape, t.Quant})
	}
	return d
}
