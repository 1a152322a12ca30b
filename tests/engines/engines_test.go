// SPDX-License-Identifier: Apache-2.0

package engines

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/tests/engines/ref"
	"npuemu/tests/tiers"
)

var (
	timeFlag    = flag.Duration("time", 10*time.Second, "how long TestDifferential runs; 0: until it is stopped")
	seedFlag    = flag.Uint64("seed", 0, "run the program of this seed, and those that follow")
	saveFlag    = flag.String("save", "", "directory for failing programs (default: a temporary one)")
	programFlag = flag.String("program", "", "TestReplay: an assembler file of TestDifferential; -seed is that of its first line")
)

// numerics is the page that the reference takes its tables from.
func numerics(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("../../docs/spec/numerics.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// threads are those of the device's engines. With several, instructions are executed side by side.
var threads = []int{1, 2, 3, 7}

// judge runs programs on both engines.
type judge struct {
	cores [][]*core.Core // of each shape
	ref   []*ref.Machine
}

func reference(s shape, numerics string) *ref.Machine {
	return ref.New(ref.Config{Rows: s.core.Rows, Cols: s.core.Cols, Spad: s.core.SpadSize, Acc: s.core.AccSize, Features: features}, numerics)
}

func newJudge(t testing.TB) *judge {
	t.Helper()
	j := &judge{}
	for _, s := range shapes {
		j.ref = append(j.ref, reference(s, numerics(t)))
		var cores []*core.Core
		for _, n := range threads {
			cfg := s.core
			cfg.Threads = n
			c, err := core.New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			cores = append(cores, c)
		}
		j.cores = append(j.cores, cores)
	}
	return j
}

// buffers is the memory of the core's bindings; a binding's address is its index.
type buffers struct {
	bytes [3][]byte
	seed  uint64
}

// Place implements core.PlacedMemory: all in one piece, each in its own, or nowhere.
func (b *buffers) Place(at core.Binding) (uint64, bool) {
	return b.seed % 4 / 2 * at.Addr, b.seed%4 != 3
}

func (b *buffers) Load(at core.Binding, off uint64, p []byte) error {
	copy(p, b.bytes[at.Addr>>32][off:])
	return nil
}

func (b *buffers) Store(at core.Binding, off uint64, p []byte) error {
	copy(b.bytes[at.Addr>>32][off:], p)
	return nil
}

// access is what bindings permit.
var access = [3]struct{ read, write bool }{{true, false}, {true, true}, {false, true}}

// compare runs p, with the memory of seed, on both, and tells of the first
// difference, or "". It also returns the reference's status. A program that runs to its end comes a third time with other
// bytes: the device has taken down then what it does.
func (j *judge) compare(t testing.TB, p *isa.Program, seed uint64) (string, ref.Status) {
	image, at := p.Image(), shapeOf(p)
	run := func(seed uint64) (start, model [3][]byte, want ref.Result) {
		start = shapes[at].memory(seed)
		model = cloned(start)
		var refs []ref.Binding
		for n, a := range access {
			refs = append(refs, ref.Binding{Data: model[n], Read: a.read, Write: a.write})
		}
		return start, model, j.ref[at].Run(image, refs)
	}
	start, model, want := run(seed)
	status := want.Status
	for round := range 3 {
		if round == 2 {
			seed += 4 // the same places
			start, model, want = run(seed)
		}
		if d := j.against(t, at, image, buffers{start, seed}, model, want); d != "" {
			return fmt.Sprintf("run %d: %s", round+1, d), status
		}
		if status != 0 {
			break
		}
	}
	return "", status
}

func cloned(b [3][]byte) (c [3][]byte) {
	for n := range b {
		c[n] = bytes.Clone(b[n])
	}
	return c
}

// against runs image, for the shape of index at, on the device, with start as its memory, and tells of the first difference to
// want and model.
func (j *judge) against(t testing.TB, at int, image []byte, start buffers, model [3][]byte, want ref.Result) string {
	var counted core.Stats
	var hazards []core.Hazard
	var unused []core.Unused
	for n, c := range j.cores[at] {
		device := buffers{cloned(start.bytes), start.seed}
		var bindings []core.Binding
		for n, a := range access {
			bindings = append(bindings, core.Binding{Addr: uint64(n) << 32, Size: uint64(len(device.bytes[n])), Read: a.read, Write: a.write})
		}
		stats, err := c.Run(t.Context(), image, bindings, &device)
		got := ref.Result{}
		var f *core.Fault
		if errors.As(err, &f) {
			got = ref.Result{Status: ref.Status(f.Status), Instr: f.Instr, Info: f.Info}
		} else if err != nil {
			t.Fatal(err)
		}
		if got != want {
			return fmt.Sprintf("the device completes with %+v, the reference with %+v", got, want)
		}
		if n == 0 {
			counted, hazards, unused = stats, slices.Clone(c.Hazards()), slices.Clone(c.Unused())
		}
		if stats != counted || !slices.Equal(c.Hazards(), hazards) || !slices.Equal(c.Unused(), unused) {
			return fmt.Sprintf("several threads count %+v and find %v %v, one %+v and %v %v", stats, c.Hazards(), c.Unused(), counted, hazards, unused)
		}
		for n, got := range device.bytes {
			if bytes.Equal(got, model[n]) {
				continue
			}
			for i, b := range got {
				if b != model[n][i] {
					return fmt.Sprintf("byte %#x of binding %d is %#02x, the reference has %#02x", i, n, b, model[n][i])
				}
			}
		}
	}
	return ""
}

// shrink takes away what a difference does not need: tokens, instructions, bits.
func (j *judge) shrink(t testing.TB, p *isa.Program, seed uint64) *isa.Program {
	var words []isa.Word
	for off := 0; off < len(p.Text); off += isa.Size {
		words = append(words, isa.Word(p.Text[off:]))
	}
	with := func(words []isa.Word) *isa.Program {
		q := *p
		q.Text = nil
		for _, w := range words {
			q.Text = append(q.Text, w[:]...)
		}
		return &q
	}
	differs := func(words []isa.Word) bool {
		if len(words) == 0 {
			return false
		}
		d, _ := j.compare(t, with(words), seed)
		return d != ""
	}
	deadline := time.Now().Add(time.Minute)
	try := func(q []isa.Word) bool {
		if time.Now().After(deadline) || !differs(q) {
			return false
		}
		words = q
		return true
	}
	plain := slices.Clone(words)
	for i := range plain {
		if plain[i][0]>>4 != 0 {
			plain[i][2], plain[i][3] = 0, 0
		}
	}
	try(plain)
	for changed := true; changed; {
		changed = false
		for size := max(1, len(words)/2); size > 0; size /= 2 {
			for at := 0; at+size <= len(words); {
				if !try(slices.Delete(slices.Clone(words), at, at+size)) {
					at++
				} else {
					changed = true
				}
			}
		}
		for i := range words { // a loop's two ends
			for n := i + 1; n < len(words) && words[i][0] == byte(isa.OpLoop); n++ {
				if words[n][0] == byte(isa.OpEnd) && try(slices.Delete(slices.Delete(slices.Clone(words), n, n+1), i, i+1)) {
					changed = true
					break
				}
			}
			if i >= len(words) {
				break
			}
		}
	}
	for i := range words {
		for b := 1; b < isa.Size; b++ {
			for _, v := range []byte{0, 1, words[i][b] / 2, words[i][b] &^ 1} {
				if q := slices.Clone(words); v < q[i][b] {
					q[i][b] = v
					try(q)
				}
			}
		}
	}
	return with(words)
}

// save writes p as an assembler file.
func save(t testing.TB, dir string, p *isa.Program, seed uint64, what string) string {
	t.Helper()
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "npuemu-engines"); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(dir, fmt.Sprintf("seed-%d.npuasm", seed))
	text := fmt.Sprintf("; %s\n; go test ./tests/engines -run TestReplay -seed %d -program FILE\n%s", what, seed, isa.Disassemble(p))
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestDifferential: random programs do the same on the device and on the reference.
func TestDifferential(t *testing.T) {
	limit := *timeFlag
	if testing.Short() && limit > 3*time.Second {
		limit = 3 * time.Second
	}
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64() >> 1
	}
	first := seed
	tiers.Check(t)
	j := newJudge(t)
	statuses, opcodes := map[ref.Status]int{}, map[byte]int{}
	start, told := time.Now(), time.Now()
	for ; limit == 0 || time.Since(start) < limit; seed++ {
		p := generate(seed)
		what, status := j.compare(t, p, seed)
		if what != "" {
			t.Logf("seed %d: %s", seed, what)
			p = j.shrink(t, p, seed)
			what, _ = j.compare(t, p, seed)
			t.Fatalf("seed %d: %s\n%s\n%s", seed, what, save(t, *saveFlag, p, seed, what), isa.Disassemble(p))
		}
		statuses[status]++
		if status == ref.Success {
			for off := 0; off < len(p.Text); off += isa.Size {
				opcodes[p.Text[off]]++
			}
		}
		if time.Since(told) > time.Minute {
			told = time.Now()
			fmt.Printf("%d programs from seed %d on, %d without an error\n", seed-first+1, first, statuses[ref.Success])
		}
	}
	n := int(seed - first)
	t.Logf("%d programs from seed %d on; by status %v", n, first, statuses)
	if n < 500 {
		return // the machine is slow
	}
	if statuses[ref.Success] < n/2 || len(statuses) < 5 {
		t.Errorf("%d of %d programs run to their end, statuses %v: the generator is not what it was", statuses[ref.Success], n, statuses)
	}
	for _, op := range []isa.Opcode{
		isa.OpLoop, isa.OpEnd, isa.OpScalar, isa.OpWith, isa.OpLoad, isa.OpStore, isa.OpStamp, isa.OpPreload, isa.OpMatmul, isa.OpOperands, isa.OpWindow,
		isa.OpGemm, isa.OpConv, isa.OpFill, isa.OpBias, isa.OpRequant, isa.OpElement, isa.OpTable, isa.OpReduce, isa.OpNorm,
		isa.OpScales, isa.OpAddq, isa.OpImage, isa.OpPool, isa.OpResize, isa.OpShape, isa.OpTranspose, isa.OpGather, isa.OpScatter, isa.OpQuantize,
		isa.OpBlocks, isa.OpSparse,
	} {
		if opcodes[byte(op)] == 0 {
			t.Errorf("no program that runs to its end has opcode %#x", byte(op))
		}
	}
}

// TestTiers is TestDifferential without the best instructions that the processor has.
func TestTiers(t *testing.T) {
	limit := 4 * time.Second
	if testing.Short() {
		limit = 2 * time.Second
	}
	tiers.Again(t, "^TestDifferential$", "-time="+limit.String())
}

// TestReplay runs a program that TestDifferential saved.
func TestReplay(t *testing.T) {
	if *programFlag == "" {
		t.Skip("only with -program FILE, which TestDifferential saved")
	}
	text, err := os.ReadFile(*programFlag)
	if err != nil {
		t.Fatal(err)
	}
	p, err := isa.Assemble(*programFlag, text)
	if err != nil {
		t.Fatal(err)
	}
	if what, status := newJudge(t).compare(t, p, *seedFlag); what != "" {
		t.Errorf("%s", what)
	} else {
		t.Logf("no difference, status %#x", status)
	}
}

// A difference is found and becomes a program of few instructions.
func TestShrink(t *testing.T) {
	j := newJudge(t)
	for i, s := range shapes {
		j.ref[i] = reference(s, strings.Replace(numerics(t), "0x1.fffffcp-2", "0x1.ffff00p-2", 1)) // one coefficient of exp
	}
	for seed := uint64(1); seed < 20000; seed++ {
		p := generate(seed)
		if what, _ := j.compare(t, p, seed); what == "" {
			continue
		}
		small := j.shrink(t, p, seed)
		if n := len(small.Text) / isa.Size; n > 5 {
			t.Errorf("%d instructions are left of %d:\n%s", n, len(p.Text)/isa.Size, isa.Disassemble(small))
		}
		name := save(t, t.TempDir(), small, seed, "test")
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if q, err := isa.Assemble(name, text); err != nil || !bytes.Equal(q.Text, small.Text) {
			t.Errorf("what was saved is another program: %v\n%s", err, text)
		}
		return
	}
	t.Error("no program of 20000 shows a wrong coefficient")
}
