// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCheckControl(t *testing.T) {
	loop := Loop{Reg: 1, Count: 5, Step: 1}
	byRegister := Loop{ByRegister: true, Reg: 1, CountReg: 2}
	scalar := Scalar{Op: Add, RD: 1, RA: 2, RB: 3}
	immediate := Scalar{Immediate: true, Op: Add, RD: 1, RA: 2, Imm: 3}
	with := With{Terms: [4]Term{{8, 1, 4}, {12, 2, -4}}, Condition: IfZero, Reg: 3}
	for _, tt := range []struct {
		name string
		in   Instruction
		rule Rule // 0: no violation
		info uint64
	}{
		{"LOOP", loop, 0, 0},
		{"LOOP by register", byRegister, 0, 0},
		{"LOOP reg", edit(loop, func(i *Loop) { i.Reg = 16 }), BadOperand, 4},
		{"LOOP count_reg", edit(byRegister, func(i *Loop) { i.CountReg = 16 }), BadOperand, 5},
		{"LOOP count_reg without by_register", edit(loop, func(i *Loop) { i.CountReg = 1 }), BadOperand, 5},
		{"LOOP count", edit(loop, func(i *Loop) { i.Count = 0 }), BadOperand, 8},
		{"LOOP count with by_register", edit(byRegister, func(i *Loop) { i.Count = 1 }), BadOperand, 8},
		{"END", End{}, 0, 0},
		{"SCALAR", scalar, 0, 0},
		{"SCALAR immediate", immediate, 0, 0},
		{"SCALAR op", edit(scalar, func(i *Scalar) { i.Op = 15 }), BadOperand, 4},
		{"SCALAR rd", edit(scalar, func(i *Scalar) { i.RD = 16 }), BadOperand, 5},
		{"SCALAR ra", edit(scalar, func(i *Scalar) { i.RA = 16 }), BadOperand, 6},
		{"SCALAR ra of move", edit(scalar, func(i *Scalar) { i.Op = Move }), BadOperand, 6},
		{"SCALAR rb", edit(scalar, func(i *Scalar) { i.RB = 16 }), BadOperand, 7},
		{"SCALAR rb with immediate", edit(immediate, func(i *Scalar) { i.RB = 1 }), BadOperand, 7},
		{"SCALAR imm without immediate", edit(scalar, func(i *Scalar) { i.Imm = 1 }), BadOperand, 8},
		{"WITH", with, 0, 0},
		{"WITH nothing", With{}, 0, 0},
		{"WITH register", edit(with, func(i *With) { i.Terms[1].Reg = 16 }), BadOperand, 11},
		{"WITH register without field", edit(with, func(i *With) { i.Terms[2].Reg = 1 }), BadOperand, 16},
		{"WITH factor without field", edit(with, func(i *With) { i.Terms[3].Times = 1 }), BadOperand, 22},
		{"WITH a gap", edit(with, func(i *With) { i.Terms[0] = Term{} }), BadOperand, 10},
		{"WITH condition", edit(with, func(i *With) { i.Condition = 3 }), BadOperand, 28},
		{"WITH condition_reg", edit(with, func(i *With) { i.Reg = 16 }), BadOperand, 29},
		{"WITH condition_reg without condition", edit(with, func(i *With) { i.Condition = Always }), BadOperand, 29},
		{"STAMP", Stamp{Binding: 1}, 0, 0},
		{"STAMP binding", Stamp{Binding: 2}, BindingIndex, 2},
	} {
		v := tt.in.Check(testLimits)
		if tt.rule == 0 && v != nil || tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info) {
			t.Errorf("%s: Check = %+v, want %v with info %d", tt.name, v, tt.rule, tt.info)
		}
	}
}

// What the sequencer refuses before anything runs.
func TestScan(t *testing.T) {
	loop, sync := Loop{Count: 1}, Sync{Engine: ClassLoad}
	nest := func(n int) []Instruction {
		var list []Instruction
		for range n {
			list = append(list, loop)
		}
		for range n {
			list = append(list, End{})
		}
		return append(list, Halt{})
	}
	for _, tt := range []struct {
		name string
		text []Instruction
		rule Rule // 0: no violation
		info uint64
		at   int // of the violation, or of HALT
	}{
		{"loops beside each other", []Instruction{loop, End{}, loop, sync, End{}, Halt{}}, 0, 0, 5},
		{"deepest nest", nest(8), 0, 0, 16},
		{"too deep", nest(9), BadControl, 2, 8},
		{"END without LOOP", []Instruction{sync, End{}, Halt{}}, BadControl, 1, 1},
		{"END too many", []Instruction{loop, End{}, End{}, Halt{}}, BadControl, 1, 2},
		{"HALT in a loop", []Instruction{loop, Halt{}, End{}, Halt{}}, BadControl, 3, 1},
		{"WITH before HALT", []Instruction{With{}, Halt{}}, BadControl, 4, 0},
		{"WITH before LOOP", []Instruction{sync, With{}, loop, End{}, Halt{}}, BadControl, 4, 1},
		{"WITH before END", []Instruction{loop, With{}, End{}, Halt{}}, BadControl, 4, 1},
		{"WITH before SCALAR", []Instruction{With{}, With{}, Scalar{}, Halt{}}, BadControl, 4, 1},
		{"two WITHs", []Instruction{With{}, With{}, sync, Halt{}}, 0, 0, 3},
		{"WITH of a field", []Instruction{With{Terms: [4]Term{{Field: 8}}}, Fill{}, Halt{}}, 0, 0, 2},
		{"WITH of the opcode's byte", []Instruction{With{Terms: [4]Term{{Field: 1}}}, Fill{}, Halt{}}, BadOperand, 4, 0},
		{"WITH of a field's middle", []Instruction{With{Terms: [4]Term{{Field: 10}}}, Fill{}, Halt{}}, BadOperand, 4, 0},
		{"WITH of a byte", []Instruction{With{Terms: [4]Term{{Field: 8}, {Field: 4}}}, Fill{}, Halt{}}, BadOperand, 10, 0},
		{"WITH of a signed field", []Instruction{With{Terms: [4]Term{{Field: 6}}}, Operands{}, Halt{}}, BadOperand, 4, 0},
		{"WITH of SYNC", []Instruction{With{Condition: IfZero}, With{Terms: [4]Term{{Field: 8}}}, sync, Halt{}}, BadOperand, 4, 1},
		{"LOOP operand", []Instruction{sync, Loop{}, End{}, Halt{}}, BadOperand, 8, 1},
		{"SCALAR operand", []Instruction{Scalar{Op: 99}, Halt{}}, BadOperand, 4, 0},
		{"WITH operand", []Instruction{With{Reg: 1}, sync, Halt{}}, BadOperand, 29, 0},
		{"operands of engines are not looked at", []Instruction{Fill{}, Halt{}}, 0, 0, 1},
		{"behind HALT", []Instruction{Halt{}, End{}}, 0, 0, 0},
		{"no HALT", []Instruction{sync}, 0, 0, -1},
		{"no END and no HALT", []Instruction{loop}, 0, 0, -1},
	} {
		halt, v, at := Scan(Text(tt.text...), Features)
		switch {
		case tt.rule == 0 && (v != nil || halt != tt.at):
			t.Errorf("%s: HALT at %d, %v; want %d", tt.name, halt, v, tt.at)
		case tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info || at != tt.at):
			t.Errorf("%s: %v of instruction %d, want %v with info %d of instruction %d", tt.name, v, at, tt.rule, tt.info, tt.at)
		}
	}
}

// passed is an instruction as an engine gets it.
type passed struct {
	Index int
	Word  Word
}

// interpreter executes structured control in the obvious way: a tree of loops
// by recursion. It shares nothing with Walker but the encodings.
type interpreter struct {
	text []Instruction
	regs [Registers]int32
	out  []passed
}

// run executes instructions from i to the END or HALT that ends them, and
// returns its index.
func (p *interpreter) run(i int, execute bool) int {
	var withs []With
	for ; ; i++ {
		switch in := p.text[i].(type) {
		case Halt, End:
			return i
		case Loop:
			n := int64(in.Count)
			if in.ByRegister {
				n = int64(p.regs[in.CountReg])
			}
			if n <= 0 || !execute {
				i = p.run(i+1, false)
				continue
			}
			p.regs[in.Reg] = in.Start
			to := 0
			for k := range n {
				if k > 0 {
					p.regs[in.Reg] += in.Step
				}
				to = p.run(i+1, true)
			}
			i = to
		case Scalar:
			if execute {
				p.scalar(in)
			}
		case With:
			withs = append(withs, in)
		default:
			w, runs := in.Encode(), execute
			for _, with := range withs {
				runs = runs && (with.Condition != IfNotZero || p.regs[with.Reg] != 0) && (with.Condition != IfZero || p.regs[with.Reg] == 0)
				for _, t := range with.Terms {
					if t.Field != 0 {
						add(&w, int(t.Field), int64(p.regs[t.Reg])*int64(t.Times))
					}
				}
			}
			if runs {
				p.out = append(p.out, passed{i, w})
			}
			withs = nil
		}
	}
}

// add adds v to the field at off, whose width the tables of §5.6 give.
func add(w *Word, off int, v int64) {
	switch {
	case (w[0] == 0x10 || w[0] == 0x20) && off == 12:
		v += int64(w.uint32(12)) | int64(w[5])<<32
		w[5] = byte(v >> 32)
		w.put32(12, uint32(v))
	case (w[0] == 0x10 || w[0] == 0x20) && (off == 6 || off == 28 || off == 30):
		w.put16(off, w.uint16(off)+uint16(v))
	default:
		w.put32(off, w.uint32(off)+uint32(v))
	}
}

func (p *interpreter) scalar(i Scalar) {
	x, y := int64(p.regs[i.RA]), int64(i.Imm)
	if !i.Immediate {
		y = int64(p.regs[i.RB])
	}
	truth := map[bool]int64{true: 1}
	p.regs[i.RD] = int32([]int64{
		y, x + y, x - y, x * y, min(x, y), max(x, y), x & y, x | y, x ^ y, x << (y & 31), x >> (y & 31),
		truth[x == y], truth[x != y], truth[x < y], truth[x <= y],
	}[i.Op])
}

// randomControl returns a program of nested loops and conditions.
func randomControl(rng *rand.Rand) []Instruction {
	reg := func() uint8 { return uint8(rng.IntN(6)) }
	var text []Instruction
	var block func(depth, n int)
	block = func(depth, n int) {
		for range n {
			switch k := rng.IntN(8); {
			case k == 0 && depth < MaxNest:
				l := Loop{Reg: reg(), Count: 1 + rng.Uint32N(4), Start: int32(rng.IntN(9) - 4), Step: int32(rng.IntN(9) - 4)}
				if rng.IntN(3) == 0 {
					c := reg()
					text = append(text, Scalar{Immediate: true, Op: Min, RD: c, RA: c, Imm: 3})
					l.ByRegister, l.CountReg, l.Count = true, c, 0
				}
				text = append(text, l)
				block(depth+1, 1+rng.IntN(4))
				text = append(text, End{})
			case k < 3:
				s := Scalar{Op: ScalarOp(rng.IntN(15)), RD: reg(), RA: reg()}
				if rng.IntN(2) == 0 {
					s.Immediate, s.Imm = true, int32(rng.Uint32())>>rng.IntN(32)
				} else {
					s.RB = reg()
				}
				if s.Op == Move {
					s.RA = 0
				}
				text = append(text, s)
			default:
				fields := []uint8{8, 12, 16, 20}
				var in Instruction = Fill{NX: 1, NY: 1}
				if rng.IntN(2) == 0 {
					in, fields = Load{NX: 1, NY: 1, NZ: 1}, []uint8{6, 8, 12, 16, 20, 24, 28, 30}
				}
				for range rng.IntN(3) {
					var w With
					for n := range rng.IntN(5) {
						w.Terms[n] = Term{fields[rng.IntN(len(fields))], reg(), int32(rng.Uint32()) >> rng.IntN(32)}
					}
					if w.Condition = Condition(rng.IntN(3)); w.Condition != Always {
						w.Reg = reg()
					}
					text = append(text, w)
				}
				text = append(text, in)
			}
		}
	}
	block(0, 12)
	return append(text, Halt{})
}

// Walkers of one engine and of all against the interpreter.
func TestWalker(t *testing.T) {
	rng := rand.New(rand.NewPCG(91, 92))
	loads, longest, counted := 0, 0, 0
	for range 150 {
		text := randomControl(rng)
		encoded := Text(text...)
		halt, v, _ := Scan(encoded, Features)
		if v != nil || halt != len(text)-1 {
			t.Fatalf("HALT at %d of %d, %v", halt, len(text), v)
		}
		p := interpreter{text: text}
		p.run(0, true)
		for _, class := range []Class{ClassControl, ClassLoad, ClassVector} {
			w := NewWalker(encoded, halt, [Arguments]int32{})
			var got, want []passed
			number := uint64(0)
			for w.Next(class) {
				if w.Number() <= number {
					t.Fatalf("instruction %d is number %d behind %d", w.Index(), w.Number(), number)
				}
				number = w.Number()
				got = append(got, passed{w.Index(), *w.Word()})
			}
			if v, _ := w.Over(); v != nil {
				t.Fatal(v)
			}
			if n, known := length(encoded, halt); known && class == ClassControl && n != w.passed {
				t.Fatalf("length is %d, %d were passed", n, w.passed)
			} else if known {
				counted++
			}
			for _, i := range p.out {
				if class == ClassControl || Opcode(i.Word[0]).Class() == class {
					want = append(want, i)
				}
			}
			if class == ClassLoad {
				loads += len(got)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("class %d (-want +got):\n%s", class, diff)
			}
			longest = max(longest, len(got))
		}
	}
	if loads < 500 || longest < 60 || counted < 30 {
		t.Errorf("%d loads, at most %d instructions: too little to see mistakes", loads, longest)
	}
}

// Random programs with loops, conditions and terms print as text that is them.
func TestRoundTripControl(t *testing.T) {
	rng := rand.New(rand.NewPCG(93, 94))
	good := 0
	for range 300 {
		p := testProgram()
		p.Minor, p.Features, p.SpadSize = Minor, Features, 1<<31
		p.Text = Text(randomControl(rng)...)
		if v, _ := p.Check(); v == nil {
			good++
			roundTrip(t, p)
		}
	}
	if good < 20 {
		t.Errorf("only %d programs broke no rule", good)
	}
}

// The budget counts what is passed, executed or not.
func TestBudget(t *testing.T) {
	const budget = 1000
	never := []Instruction{Loop{ByRegister: true, CountReg: 1}, Fill{}, Fill{}, End{}}
	for _, tt := range []struct {
		name string
		text []Instruction
		at   int // −1: within the budget
	}{
		{"exactly", []Instruction{Loop{Count: (budget - 1) / 3}, Sync{Engine: 1}, Sync{Engine: 1}, End{}, Halt{}}, -1},
		{"one more", []Instruction{Sync{Engine: 1}, Loop{Count: (budget - 1) / 3}, Sync{Engine: 1}, Sync{Engine: 1}, End{}, Halt{}}, 4},
		{"nested", []Instruction{Loop{Count: 1 << 20}, Loop{Count: 1 << 20}, Loop{Count: 1 << 20}, End{}, End{}, End{}, Halt{}}, 3},
		{"nothing is executed", append(append([]Instruction{Loop{Count: budget / 5}}, never...), End{}, Halt{}), 5},
		{"in a loop that is passed at the end", append([]Instruction{Loop{Count: 332}, Sync{Engine: 1}, Sync{Engine: 1}, End{}}, append(never, Halt{})...), 7},
		{"largest count", []Instruction{Loop{Count: 1<<32 - 1}, End{}, Halt{}}, 1},
	} {
		w := NewWalker(Text(tt.text...), len(tt.text)-1, [Arguments]int32{})
		w.budget = budget
		for w.Next(ClassLoad) {
			continue
		}
		v, at := w.Over()
		if tt.at < 0 && v != nil || tt.at >= 0 && (v == nil || v.Rule != OverBudget || v.Info != Budget || at != tt.at) {
			t.Errorf("%s: %v of instruction %d, want BUDGET of %d", tt.name, v, at, tt.at)
		}
	}
	// What is too long is known to be so, however long it is.
	for _, text := range [][]Instruction{
		{Loop{Count: Budget}, End{}, Halt{}},
		{Loop{Count: 1<<32 - 1}, Loop{Count: 1<<32 - 1}, Loop{Count: 1<<32 - 1}, Loop{Count: 1<<32 - 1}, End{}, End{}, End{}, End{}, Halt{}},
	} {
		if n, known := length(Text(text...), len(text)-1); !known || n <= Budget {
			t.Errorf("length %d, %t; want above %d", n, known, Budget)
		}
	}
}

// Check follows loops: what the last iteration breaks, and setups that come
// round.
func TestProgramCheck(t *testing.T) {
	for _, tt := range []struct {
		name string
		text []Instruction
		rule Rule
		info uint64
		at   int
	}{
		{"all iterations inside", []Instruction{Loop{Count: 4, Step: 1}, With{Terms: [4]Term{{8, 0, 1024}}}, Fill{NX: 1024, NY: 1}, End{}, Halt{}}, 0, 0, 0},
		{"the last is outside", []Instruction{Loop{Count: 5, Step: 1}, With{Terms: [4]Term{{8, 0, 1024}}}, Fill{NX: 1024, NY: 1}, End{}, Halt{}}, LocalBounds, 4096, 2},
		{"a condition rules it out", []Instruction{With{Condition: IfNotZero, Reg: 1}, Fill{NX: 5000, NY: 1}, Halt{}}, 0, 0, 0},
		{"a count that becomes 0", []Instruction{Loop{Count: 3, Start: 2, Step: -1}, With{Terms: [4]Term{{12, 0, 1}}}, Fill{NY: 1}, End{}, Halt{}}, BadOperand, 12, 2},
		{"the second setup", []Instruction{Loop{Count: 2}, Gemm{M: 1, N: 1, K: 2}, Operands{}, End{}, Halt{}}, BadSetup, 20, 1},
		{"structure first", []Instruction{Fill{}, End{}, Halt{}}, BadControl, 1, 1},
	} {
		p := testProgram()
		p.Minor, p.Features, p.Text = 1, FeaturesOf(1), Text(tt.text...)
		v, at := p.Check()
		if tt.rule == 0 && v != nil || tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info || at != tt.at) {
			t.Errorf("%s: %v of instruction %d, want %v with info %d of %d", tt.name, v, at, tt.rule, tt.info, tt.at)
		}
	}
}

// TestOpen: of a program with arguments that are not known Check looks at what is so whatever they are, and at nothing else; with
// arguments it goes through it as the sequencer does.
func TestOpen(t *testing.T) {
	args := func(a ...int32) *[Arguments]int32 {
		var all [Arguments]int32
		copy(all[:], a)
		return &all
	}
	rows := Loop{ByRegister: true, CountReg: 0, Reg: 5, Step: 1}
	at := With{Terms: [4]Term{{8, 5, 1024}}}
	fill, wrong := Fill{NX: 1024, NY: 1}, Fill{NX: 5000, NY: 1}
	loop := []Instruction{rows, at, fill, End{}, Halt{}}
	operands, gemm := Operands{AStride: 1, BStride: 1, AccStride: 4}, Gemm{M: 2, N: 1, K: 1}
	for _, tt := range []struct {
		name string
		text []Instruction
		args *[Arguments]int32
		rule Rule
		info uint64
		at   int
	}{
		{"as many as fit", loop, args(4), 0, 0, 0},
		{"one more", loop, args(5), LocalBounds, 4096, 2},
		{"below 0", loop, args(-1), 0, 0, 0},
		{"too many", loop, args(1 << 23), OverBudget, Budget, 2},
		{"not known", loop, nil, 0, 0, 0},
		{"s3 is one", []Instruction{With{Condition: IfNotZero, Reg: 3}, wrong, Halt{}}, args(0, 0, 0, 1), LocalBounds, 4096, 1},
		{"s4 is none", []Instruction{With{Condition: IfNotZero, Reg: 4}, wrong, Halt{}}, args(1, 1, 1, 1), 0, 0, 0},
		{"not known, in a loop of a register", []Instruction{rows, Loop{Count: 1}, wrong, End{}, End{}, Halt{}}, nil, 0, 0, 0},
		{"not known, behind one", []Instruction{rows, Loop{Count: 1}, End{}, End{}, wrong, Halt{}}, nil, LocalBounds, 4096, 4},
		{"not known, in a loop of a number", []Instruction{Loop{Count: 2}, wrong, End{}, Halt{}}, nil, LocalBounds, 4096, 1},
		{"not known, behind WITH", []Instruction{at, wrong, fill, Halt{}}, nil, 0, 0, 0},
		{"not known, behind that", []Instruction{at, wrong, wrong, Halt{}}, nil, LocalBounds, 4096, 2},
		{"not known, setup", []Instruction{gemm, Halt{}}, nil, BadSetup, 16, 0},
		{"not known, setup of a condition", []Instruction{With{Condition: IfZero, Reg: 1}, operands, gemm, Halt{}}, nil, 0, 0, 0},
		{"not known, two setups", []Instruction{operands, gemm, Operands{}, gemm, Halt{}}, nil, BadSetup, 16, 3},
		{"not known, structure", []Instruction{rows, Halt{}}, nil, BadControl, 3, 1},
		{"not known, too many all the same", []Instruction{Loop{Count: 1 << 24}, fill, End{}, Halt{}}, nil, OverBudget, Budget, 2},
	} {
		p := testProgram()
		p.Minor, p.Features, p.Text, p.Args = Minor, Features, Text(tt.text...), tt.args
		v, at := p.Check()
		if tt.rule == 0 && v != nil || tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info || tt.rule != OverBudget && at != tt.at) {
			t.Errorf("%s: %v of instruction %d, want %v with info %d of %d", tt.name, v, at, tt.rule, tt.info, tt.at)
		}
		p.Features = FeaturesOf(3)
		p.Minor = 3
		if p.Open() || p.Registers() != [Arguments]int32{} {
			t.Errorf("%s: a program of ISA 1.3 begins with %v", tt.name, p.Registers())
		}
	}
}

// TestGroupsOf: what an instruction needs is what CheckFormat and Check ask for.
func TestGroupsOf(t *testing.T) {
	for _, tt := range []struct {
		i    Instruction
		need uint64
	}{
		{Sync{Engine: ClassLoad}, 0}, {Requant{}, 0}, {Requant{Rounding: TwoRoundings}, FeatureVector}, {Operands{}, FeatureGEMM},
		{Operands{A: 9, B: 9}, FeatureGEMM | FeatureFloat}, {Operands{B: 10}, FeatureGEMM | FeatureFloat}, {Operands{A: 3}, FeatureGEMM},
		{Reduce{Op: ReduceMean}, FeatureReduce}, {Reduce{Op: ReduceArgMin}, FeatureReduce | FeatureGather}, {Reduce{Op: 9}, FeatureReduce},
		{Stamp{}, FeatureControl}, {Blocks{}, FeatureMX}, {Sparse{}, FeatureSparse}, {Addq{}, FeatureAddq},
	} {
		w := tt.i.Encode()
		if got := GroupsOf(&w); got != tt.need {
			t.Errorf("%v needs %v, want %v", &w, GroupNames(got), GroupNames(tt.need))
		}
	}
	w := Word{0xee}
	if got := GroupsOf(&w); got != 0 {
		t.Errorf("an opcode that does not exist needs %#x", got)
	}
	text := Text(Sync{Engine: ClassLoad}, Norm{}, Halt{}, Addq{})
	if at, missing := Lacking(text, 0); at != 1 || missing != FeatureReduce {
		t.Errorf("instruction %d lacks %#x", at, missing)
	}
	if at, missing := Lacking(text, FeatureReduce); at != 0 || missing != 0 {
		t.Errorf("behind HALT instruction %d lacks %#x", at, missing)
	}
}
