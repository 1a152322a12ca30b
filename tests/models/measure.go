// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/npy"
	"npuemu/compiler/ref"
	"npuemu/compiler/run"
	harness "npuemu/tests/compiler"
	"npuemu/timing"
)

// figures are what is the same on every machine.
type figures struct {
	Device                int      // operators
	Hosts                 []string // operators on the host, with the reason
	MACs                  uint64
	Cycles                uint64 // of the programs, one after the other (§13)
	Loaded, Stored        uint64 // bytes
	Constants, Activation uint64 // bytes of device memory
}

// result is what was found out about a network.
type result struct {
	network
	figures
	agreement    string
	compile, cpu float64       // seconds and processor seconds of the compiler, medians
	memory       int64         // peak resident set of the compiler, bytes
	ours, theirs time.Duration // medians; theirs is 0 where the framework cannot run the model
	ratio        float64       // median of the turns'
	turns        int
}

// describe takes figures from a model whose cycles were estimated.
func describe(m *model.Model) figures {
	f := figures{Constants: uint64(len(m.Constants)), Activation: m.Bindings[1].Size}
	for _, n := range m.Nodes {
		if n.Host != "" {
			f.Hosts = append(f.Hosts, fmt.Sprintf("%s: %s", compiler.Operator(n.Op), n.Host))
		} else {
			f.Device++
		}
		f.MACs += n.MACs
		f.Loaded += n.Loaded
		f.Stored += n.Stored
	}
	for _, s := range m.Steps {
		f.Cycles += s.Cycles
	}
	return f
}

// description is what generate.py says of a model.
type description struct {
	Float   *int // samples for which the framework finds the same class before quantization
	Labels  []int
	Prompts []int64
	Step    float64 // of the output's quantization; 0 for floating point
	Runs    bool    // in the framework
}

func measure(ctx context.Context, card *harness.Card, f *framework, python, npuemu, dir string, n network, rounds int) (r *result, err error) {
	base := filepath.Join(dir, n.name)
	var d description
	b, err := os.ReadFile(base + ".json")
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return nil, err
	}
	r = &result{network: n}
	progress("%s: compile …", n.title)
	m, err := r.compiled(ctx, python, npuemu, base)
	if err != nil {
		return nil, err
	}
	r.figures = describe(m)
	s, err := run.Load(card, m)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	progress("%s: compare …", n.title)
	var first [][]byte
	if d.Prompts != nil {
		first, err = r.decode(ctx, s, m, base, d)
	} else {
		first, err = r.compare(ctx, s, m, base, d)
	}
	if err != nil {
		return nil, err
	}
	progress("%s: time …", n.title)
	return r, r.race(ctx, s, first, f, d.Runs, rounds)
}

// compiled compiles the model as a user does, three times, and reads the last file.
func (r *result) compiled(ctx context.Context, python, npuemu, base string) (*model.Model, error) {
	name := base + ".npu"
	defer os.Remove(name) //nolint:errcheck // it is made again
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, python, "-I", "-S", sources+"/compile.py", npuemu, "compile", base+".onnx", "-o", name)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("npuemu compile: %w\n%s", err, &stderr)
	}
	var times, cpu []float64
	for line := range strings.Lines(string(out)) {
		var seconds, busy float64
		var memory int64
		if _, err := fmt.Sscan(line, &seconds, &busy, &memory); err != nil {
			return nil, fmt.Errorf("compile.py: %q: %w", line, err)
		}
		times, cpu = append(times, seconds), append(cpu, busy)
		r.memory = max(r.memory, memory<<10)
	}
	r.compile, r.cpu = median(times), median(cpu)
	if best := slices.Min(cpu); best > compileTime {
		return nil, fmt.Errorf("npuemu compile: %.1f s of processor time at best; the most is %d s", best, compileTime)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	return model.Read(bytes.NewReader(b), int64(len(b)))
}

// compileTime is how many seconds a compilation may take. They are seconds of processor time, which
// a busy machine hardly changes; an idle one takes no longer than that.
const compileTime = 5

// samples are the elements of BASE.TENSOR.npy, one sample after the other.
func samples(base string, t *model.Tensor) ([]byte, error) {
	b, err := os.ReadFile(base + "." + t.Name + ".npy")
	if err != nil {
		return nil, err
	}
	_, data, err := npy.Read(b, t.TypeOf())
	if err == nil && len(data)%t.Bytes() != 0 {
		err = fmt.Errorf("%d bytes are no samples of %d", len(data), t.Bytes())
	}
	return data, err
}

// numbers are elements as float64.
func numbers(t *model.Tensor, data []byte) []float64 {
	n := ir.Elements(t.Shape)
	v := make([]float64, n)
	switch t.TypeOf() {
	case ir.Int32:
		for i := range v {
			v[i] = float64(int32(binary.LittleEndian.Uint32(data[4*i:])))
		}
	default:
		for i, x := range ref.Floats(t.TypeOf(), data, n) {
			v[i] = float64(x)
		}
	}
	return v
}

// distance collects how far results are from others.
type distance struct {
	equal, count  int
	furthest, top float64 // the largest difference, and the largest result
}

func (d *distance) add(got, want []float64) {
	for i := range want {
		d.count++
		if got[i] == want[i] {
			d.equal++
		}
		// NaN is as far as it gets.
		if diff := math.Abs(got[i] - want[i]); !(diff <= d.furthest) {
			d.furthest = diff
			if math.IsNaN(diff) {
				d.furthest = math.Inf(1)
			}
		}
		d.top = max(d.top, math.Abs(want[i]))
	}
}

// compare runs all samples and compares the model's output with the framework's. first is the first sample's inputs.
func (r *result) compare(ctx context.Context, s *run.Session, m *model.Model, base string, d description) (first [][]byte, err error) {
	out := &m.Outputs[0]
	want, err := samples(base, out)
	if err != nil {
		return nil, err
	}
	var inputs [][]byte
	for i := range m.Inputs {
		data, err := samples(base, &m.Inputs[i])
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, data)
		first = append(first, data[:m.Inputs[i].Bytes()])
	}
	count := len(want) / out.Bytes()
	var far distance
	var right, theirs, same int
	classes := map[int]bool{}
	for k := range count {
		in := make([][]byte, len(inputs))
		for i := range in {
			size := m.Inputs[i].Bytes()
			in[i] = inputs[i][k*size:][:size]
		}
		o, _, err := s.Run(ctx, in, nil)
		if err != nil {
			return nil, err
		}
		got, want := numbers(out, o[0]), numbers(out, want[k*out.Bytes():][:out.Bytes()])
		far.add(got, want)
		g, w := largest(got), largest(want)
		classes[w] = true
		same += one(g == w)
		if d.Labels != nil {
			right += one(g == d.Labels[k])
			theirs += one(w == d.Labels[k])
		}
	}
	switch {
	case d.Labels != nil:
		r.agreement = fmt.Sprintf("%d of %d right, framework %d; ", right, count, theirs)
		if right < theirs {
			return nil, fmt.Errorf("%d of %d right, less than the framework's %d", right, count, theirs)
		}
	case d.Float != nil:
		r.agreement = fmt.Sprintf("same class for %d of %d inputs (%d classes occur; the framework's fp32 finds %d of them); ", same, count, len(classes), *d.Float)
	}
	return first, r.judge(&far, d.Step)
}

// judge says how far results are, and whether that is too far. step is that of a quantized output, or 0.
func (r *result) judge(far *distance, step float64) error {
	off, unit := far.furthest, "of the accumulators' 1"
	switch {
	case far.equal == far.count:
		r.agreement += fmt.Sprintf("all %d outputs equal", far.count)
		return nil
	case step > 0:
		off /= step
		unit = "steps"
		r.agreement += fmt.Sprintf("%.2f %% of %d outputs equal, the furthest %.0f of 256 steps off", 100*float64(far.equal)/float64(far.count), far.count, off)
	case r.most > 0:
		off /= far.top
		unit = "of the largest"
		r.agreement += fmt.Sprintf("%d outputs differ by at most %.1e of the largest", far.count, off)
	}
	if !(off <= r.most*1.001) {
		return fmt.Errorf("an output is %.3g %s from the framework's; the most is %.3g", off, unit, r.most)
	}
	return nil
}

// decode generates tokens, each from the one before it, and compares them, and what they were chosen by, with the framework's.
func (r *result) decode(ctx context.Context, s *run.Session, m *model.Model, base string, d description) (first [][]byte, err error) {
	index := map[string]int{}
	for i, t := range m.Inputs {
		index[t.Name] = i
	}
	at := map[string]int{}
	for i, t := range m.Outputs {
		at[t.Name] = i
	}
	tokens, err := samples(base, &model.Tensor{Name: "tokens", Type: ir.Int64.String()})
	if err != nil {
		return nil, err
	}
	logits := &m.Outputs[at["logits"]]
	want, err := samples(base, logits)
	if err != nil {
		return nil, err
	}
	steps := len(tokens) / 8 / len(d.Prompts)
	var far distance
	same := 0
	for p, prompt := range d.Prompts {
		in := make([][]byte, len(m.Inputs))
		for i := range in {
			in[i] = make([]byte, m.Inputs[i].Bytes())
		}
		binary.LittleEndian.PutUint64(in[index["token"]], uint64(prompt))
		if first == nil {
			first = slices.Clone(in)
		}
		for k := range steps {
			in[index["position"]] = binary.LittleEndian.AppendUint32(nil, uint32(k))
			out, _, err := s.Run(ctx, in, nil)
			if err != nil {
				return nil, err
			}
			next := out[at["next"]]
			same += one(bytes.Equal(next, tokens[(p*steps+k)*8:][:8]))
			far.add(numbers(logits, out[at["logits"]]), numbers(logits, want[(p*steps+k)*logits.Bytes():][:logits.Bytes()]))
			in[index["token"]] = bytes.Clone(next)
			for name, i := range index {
				if o, ok := at["new_"+name]; ok {
					in[i] = bytes.Clone(out[o])
				}
			}
		}
	}
	all := steps * len(d.Prompts)
	r.agreement = fmt.Sprintf("%d of %d tokens equal, %d prompts; ", same, all, len(d.Prompts))
	if same != all {
		return nil, fmt.Errorf("%d of %d tokens are the framework's", same, all)
	}
	return first, r.judge(&far, 0)
}

// race lets the card and the framework run in turns, so that what the machine does meanwhile hits both.
func (r *result) race(ctx context.Context, s *run.Session, in [][]byte, f *framework, runs bool, rounds int) error {
	const (
		enough      = 6 * time.Second
		toolong     = time.Minute
		least, most = 15, 201
	)
	if runs {
		if err := f.load(r.name); err != nil {
			return err
		}
	}
	var ours, theirs []time.Duration
	var ratios []float64
	begin := time.Now()
	more := func(k int) bool {
		if rounds > 0 {
			return k < rounds
		}
		spent := time.Since(begin)
		return k < 5 || k < least && spent < toolong || k < most && spent < enough
	}
	for k := 0; more(k); k++ {
		var a, b time.Duration
		turns := []func() error{
			func() error {
				begin := time.Now()
				_, _, err := s.Run(ctx, in, nil)
				a = time.Since(begin)
				return err
			},
			func() (err error) {
				if runs {
					b, err = f.run()
				}
				return err
			},
		}
		for i := range turns {
			if err := turns[(i+k)%2](); err != nil {
				return err
			}
		}
		ours, theirs = append(ours, a), append(theirs, b)
		ratios = append(ratios, float64(a)/float64(b))
	}
	r.ours, r.theirs, r.ratio, r.turns = median(ours), median(theirs), median(ratios), len(ours)
	return nil
}

// estimated compiles a file in this process, with cycles.
func estimated(ctx context.Context, card *harness.Card, path string) (*model.Model, error) {
	g, err := compiler.Load(path, nil)
	if err != nil {
		return nil, err
	}
	m, err := compiler.Build(g, card.Target())
	if err != nil {
		return nil, err
	}
	return m, compiler.Estimate(ctx, m, timing.DefaultParams())
}

func median[T time.Duration | float64](l []T) T {
	s := slices.Sorted(slices.Values(l))
	return s[len(s)/2]
}

func largest(v []float64) int {
	at := 0
	for i := range v {
		if v[i] > v[at] {
			at = i
		}
	}
	return at
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
