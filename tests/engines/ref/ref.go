// SPDX-License-Identifier: Apache-2.0

// Package ref is a second implementation of docs/spec/isa.md §5 and numerics.md §6,
// ISA 1.4, for tests: slow and plain, made from those pages, byte by byte, and
// sharing no code with core. It shows what the device must do where the two differ
// and the page decides which is wrong.
//
// Left out: what needs more than a program and its bindings (poison, memory that
// fails, text longer than it can be held unrolled).
package ref

import (
	"encoding/binary"
	"hash/crc32"
)

// Status is a completion status (§9.1).
type Status byte

// The statuses of programs.
const (
	Success            Status = 0
	BadProgram         Status = 0x40
	ConfigMismatch     Status = 0x41
	IllegalInstruction Status = 0x42
	ReservedField      Status = 0x43
	BadOperand         Status = 0x44
	ArrayShape         Status = 0x45
	LocalBounds        Status = 0x46
	BindingIndex       Status = 0x47
	BindingAccess      Status = 0x48
	BindingBounds      Status = 0x49
	BadParam           Status = 0x4a
	TokenOverflow      Status = 0x4c
	Deadlock           Status = 0x4d
	NoHalt             Status = 0x4e
	BadSetup           Status = 0x60
	BadControl         Status = 0x61
	Budget             Status = 0x62
	Overlap            Status = 0x63
	BadIndex           Status = 0x64
	BadSparsity        Status = 0x65
)

// Features of FEATURES (§5.3).
const (
	gemmGroup    = 1 << 5
	floatGroup   = 1 << 6
	controlGroup = 1 << 7
	vectorGroup  = 1 << 8
	reduceGroup  = 1 << 9
	poolGroup    = 1 << 10
	sparseGroup  = 1 << 11
	mxGroup      = 1 << 12
	gatherGroup  = 1 << 14
	quantGroup   = 1 << 15
	addqGroup    = 1 << 16

	argumentsGroup = 1 << 17
)

// groups are those of ISA 1.minor.
var groups = [...]uint64{0, 0x1f << 5, 0x1f<<5 | 7<<10 | 3<<14, 0x1f<<5 | 7<<10 | 7<<14, 0x1f<<5 | 7<<10 | 15<<14}

// Config is a core.
type Config struct {
	Rows, Cols, Spad, Acc int
	Features              uint64
}

// Binding is memory that a program may use.
type Binding struct {
	Data        []byte
	Read, Write bool
}

// Result is a completion.
type Result struct {
	Status Status
	Instr  uint32
	Info   uint64
}

// Machine is a core. Its numerics come from the text of numerics.md.
type Machine struct {
	cfg    Config
	tables tables

	features  uint64
	spad, acc []byte
	bindings  []Binding
	weights   map[[2]int]int8
	operands  word
	window    word
	image     word
	moved     word // SHAPE
	blocks    word
	sparse    word
	scales    word
	finished  uint64
	start     [16]int32 // registers
}

// word is an instruction.
type word [32]byte

func (w *word) u8(o int) uint64  { return uint64(w[o]) }
func (w *word) u16(o int) uint64 { return uint64(binary.LittleEndian.Uint16(w[o:])) }
func (w *word) u32(o int) uint64 { return uint64(binary.LittleEndian.Uint32(w[o:])) }
func (w *word) i32(o int) int32  { return int32(w.u32(o)) }
func (w *word) i16(o int) int64  { return int64(int16(w.u16(o))) }
func (w *word) has(bit byte) bool {
	return w[1]&bit != 0
}
func (w *word) engine() int    { return min(int(w[0]>>4), 4) - 1 } // vector has two classes
func (w *word) offset() uint64 { return w.u8(5)<<32 | w.u32(12) }

// New returns a core; numerics is the text of numerics.md.
func New(cfg Config, numerics string) *Machine {
	return &Machine{cfg: cfg, tables: readTables(numerics)}
}

// stop is a program error on its way up.
type stop struct {
	Status
	info uint64
}

// fault stops the program if broken is true.
func fault(broken bool, s Status, info uint64) {
	if broken {
		panic(stop{s, info})
	}
}

// Run executes an image (§5.3) and stores to the bindings. args are those of the launch (§4.9), nil if it has none.
func (m *Machine) Run(image []byte, bindings []Binding, args *[4]int32) (r Result) {
	defer func() {
		switch s := recover().(type) {
		case nil:
		case stop:
			r.Status, r.Info = s.Status, s.info
		default:
			panic(s)
		}
	}()
	m.bindings = bindings
	text := m.descriptor(image, args, &r)
	m.weights, m.finished = map[[2]int]int8{}, 0
	m.operands, m.window = word{}, word{4: 1, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1, 10: 1}
	m.image, m.moved = word{8: 1, 10: 1, 12: 1, 14: 1}, word{4: 1, 6: 1, 8: 1, 10: 1}
	m.blocks, m.sparse, m.scales = word{}, word{}, word{28: 1, 29: 1, 30: 1}
	halt := m.scan(text, &r)
	m.sequence(text[:halt], &r)
	r.Instr = 0
	return r
}

// descriptor makes the checks of §5.3 and returns the text.
func (m *Machine) descriptor(b []byte, args *[4]int32, r *Result) []word {
	le := binary.LittleEndian
	d := b[:64]
	fault(string(d[:4]) != "NPUP", BadProgram, 0)
	fault(le.Uint16(d[4:]) != 1, BadProgram, 4)
	fault(int(le.Uint16(d[6:])) >= len(groups), BadProgram, 6)
	fault(le.Uint32(d[8:]) != 64, BadProgram, 8)
	fault(le.Uint32(d[12:]) != 64, BadProgram, 12)
	size := le.Uint32(d[16:])
	fault(size%32 != 0 || size < 32 || size > 16<<20, BadProgram, 16)
	fault(le.Uint16(d[0x26:]) != 0, BadProgram, 0x26)
	for _, v := range d[0x30:] {
		fault(v != 0, BadProgram, 0x30)
	}
	fault(int(le.Uint16(d[0x18:])) != m.cfg.Rows, ConfigMismatch, 0x18)
	fault(int(le.Uint16(d[0x1a:])) != m.cfg.Cols, ConfigMismatch, 0x1a)
	fault(uint64(le.Uint32(d[0x1c:])) > uint64(m.cfg.Spad), ConfigMismatch, 0x1c)
	fault(uint64(le.Uint32(d[0x20:])) > uint64(m.cfg.Acc), ConfigMismatch, 0x20)
	m.features = le.Uint64(d[0x28:])
	known := m.cfg.Features & groups[le.Uint16(d[6:])]
	text := make([]word, size/32)
	for i := range text {
		text[i] = word(b[64+32*i:])
	}
	if m.features&^known != 0 {
		r.Instr = lacking(text, known)
		fault(true, ConfigMismatch, 0x28)
	}
	n := int(le.Uint16(d[0x24:]))
	fault(n > 64 || n > len(m.bindings), BadProgram, 0x24)
	fault(args != nil && m.features&argumentsGroup == 0, BadProgram, 0x28)
	m.start = [16]int32{}
	if args != nil {
		copy(m.start[:], args[:])
	}
	fault(crc32.ChecksumIEEE(b[64:64+size]) != le.Uint32(d[0x14:]), BadProgram, 0x14)
	m.spad, m.acc = make([]byte, le.Uint32(d[0x1c:])), make([]byte, le.Uint32(d[0x20:]))
	return text
}

// lacking is the first instruction, up to HALT, that needs a group which is not among known, or 0 (§5.3).
func lacking(text []word, known uint64) uint32 {
	for n, w := range text {
		need := layouts[w[0]].group
		switch {
		case w[0] == 0x42 && w[31] != 0: // rounding
			need |= vectorGroup
		case w[0] == 0x32 && (w[4] >= 8 && w[4] <= 12 || w[5] >= 8 && w[5] <= 12): // floating-point types
			need |= floatGroup
		case w[0] == 0x45 && (w[4] == 4 || w[4] == 5): // argmax, argmin
			need |= gatherGroup
		}
		if need&^known != 0 {
			return uint32(n)
		}
		if w[0] == 1 {
			break
		}
	}
	return 0
}

// passed is an instruction of an engine, as the sequencer hands it out.
type passed struct {
	word
	index, number uint32
}

// budget is how many instructions a program may pass (§5.6.13).
const budget = 1 << 24

// unroll writes the program out: what each engine executes (§5.6.13).
func (m *Machine) unroll(text []word, r *Result) (list [4][]passed) {
	s := m.start
	type loop struct {
		body int
		left int64
		reg  byte
		step int32
	}
	var loops []loop
	count := uint32(0)
	var withs []word
	pass := func(at int) {
		r.Instr = uint32(at)
		fault(count == budget, Budget, budget)
		count++
	}
	for pc := 0; pc < len(text); pc++ {
		pass(pc)
		w := text[pc]
		switch w[0] {
		case 2:
			n := int64(w.u32(8))
			if w.has(1) {
				n = int64(s[w[5]])
			}
			if n > 0 {
				s[w[4]] = w.i32(12)
				loops = append(loops, loop{pc, n, w[4], w.i32(16)})
				continue
			}
			for depth := 1; depth > 0; {
				pc++
				pass(pc)
				switch text[pc][0] {
				case 2:
					depth++
				case 3:
					depth--
				}
			}
		case 3:
			l := &loops[len(loops)-1]
			if l.left--; l.left == 0 {
				loops = loops[:len(loops)-1]
				continue
			}
			s[l.reg] += l.step
			pc = l.body
		case 4:
			y := w.i32(8)
			if !w.has(1) {
				y = s[w[7]]
			}
			s[w[5]] = scalar(w[4], s[w[6]], y)
		case 5:
			withs = append(withs, w)
		default:
			run := true
			for _, x := range withs {
				if c := x[28]; c == 1 && s[x[29]] == 0 || c == 2 && s[x[29]] != 0 {
					run = false
				}
				for t := range 4 {
					at := 4 + 6*t
					if x[at] == 0 {
						break
					}
					add := int64(s[x[at+1]]) * int64(x.i32(at+2))
					addTo(&w, x[at], add)
				}
			}
			withs = nil
			if run {
				list[w.engine()] = append(list[w.engine()], passed{w, uint32(pc), count})
			}
		}
	}
	return list
}

// addTo adds to the field of w at byte offset off.
func addTo(w *word, off byte, add int64) {
	o := int(off)
	if long := w[0] == 0x10 || w[0] == 0x20 || w[0] == 0x21; long && o == 12 {
		v := w.offset() + uint64(add)
		w[5] = byte(v >> 32)
		binary.LittleEndian.PutUint32(w[12:], uint32(v))
		return
	}
	if sizeOf(w[0], o) == 2 {
		binary.LittleEndian.PutUint16(w[o:], uint16(w.u16(o)+uint64(add)))
		return
	}
	binary.LittleEndian.PutUint32(w[o:], uint32(w.u32(o)+uint64(add)))
}

func truth(v bool) int32 {
	if v {
		return 1
	}
	return 0
}

// scalar is §5.6.15.
func scalar(op byte, x, y int32) int32 {
	switch op {
	case 0:
		return y
	case 1:
		return x + y
	case 2:
		return x - y
	case 3:
		return x * y
	case 4:
		return min(x, y)
	case 5:
		return max(x, y)
	case 6:
		return x & y
	case 7:
		return x | y
	case 8:
		return x ^ y
	case 9:
		return x << (y & 31)
	case 10:
		return x >> (y & 31)
	case 11:
		return truth(x == y)
	case 12:
		return truth(x != y)
	case 13:
		return truth(x < y)
	}
	return truth(x <= y)
}

// sequence lets engines execute the text before HALT (§5.5, §5.7).
func (m *Machine) sequence(text []word, r *Result) {
	list := m.unroll(text, r)
	var tokens [16]int
	for {
		var next, waits *passed
		for e := range list {
			if len(list[e]) == 0 {
				continue
			}
			p := &list[e][0]
			if tokens[p.word[2]&15] < int(p.word[2]>>4) {
				if waits == nil || p.number < waits.number {
					waits = p
				}
			} else if next == nil || p.number < next.number {
				next = p
			}
		}
		if next == nil {
			if waits != nil {
				r.Instr = waits.index
				fault(true, Deadlock, uint64(waits.word[2]&15))
			}
			return
		}
		w := &next.word
		r.Instr = next.index
		tokens[w[2]&15] -= int(w[2] >> 4)
		m.check(w)
		m.execute(w)
		m.finished++
		tokens[w[3]&15] += int(w[3] >> 4)
		fault(tokens[w[3]&15] > 255, TokenOverflow, uint64(w[3]&15))
		list[w.engine()] = list[w.engine()][1:]
	}
}
