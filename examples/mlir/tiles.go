// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// memory is a value of memref type: a place and a strided shape.
type memory struct {
	shaped
	binding int  // in space 0
	at      int  // byte offset in the binding, byte address in local memory
	table   bool // part of REQUANT's table: elements are 8 bytes apart
}

// access is that an instruction touches bytes from lo to hi of a memory.
type access struct {
	space, binding, lo, hi int
	write, whole           bool // whole: it writes every byte between
}

// instruction is one of the assembler's, without its tokens.
type instruction struct {
	engine   string
	text     string
	accesses []access
}

// tiler executes a function whose operands are memrefs and writes down the instructions that do the same. Loops are unrolled.
type tiler struct {
	rows, cols int
	values     map[string]any // memory, int
	list       []instruction
	spad, acc  int           // bytes given out
	slots      map[*op][]int // addresses of the buffers of an allocation, or of a table
	turn       map[*op]int   // how often an allocation was passed
	parts      map[*op]part
	bindings   int
	loops      int // that are open
}

// tiles translates a function to assembler text for an array of rows × cols.
func tiles(f *op, rows, cols int) (string, error) {
	t := &tiler{rows: rows, cols: cols, values: map[string]any{}, slots: map[*op][]int{}, turn: map[*op]int{}, parts: map[*op]part{}}
	body := f.regions[0]
	for i, name := range body.args {
		s, err := parseShaped(body.types[i])
		if err != nil {
			return "", f.errorf("argument %d: %v", i, err)
		}
		t.values[name] = memory{shaped: s, binding: i}
	}
	t.bindings = len(body.args)
	t.findTables(body)
	if err := t.block(body); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, ".isa 1.0\n.array %d, %d\n.spad %d\n.acc %d\n.bindings %d\n\n", rows, cols, t.spad, t.acc, t.bindings)
	for _, line := range withTokens(withoutDeadLoads(t.list)) {
		b.WriteString(line + "\n")
	}
	b.WriteString("halt\n")
	return b.String(), nil
}

// maxInstructions bounds what loops are unrolled to. A program may have eight times as many (§5.3), SYNCs included.
const maxInstructions = 1 << 16

func (t *tiler) emit(engine, text string, accesses ...access) {
	t.list = append(t.list, instruction{engine, text, accesses})
}

func (t *tiler) block(r region) error {
	for _, o := range r.ops {
		if err := t.op(o); err != nil {
			return err
		}
		if len(t.list) > maxInstructions {
			return o.errorf("more than %d instructions; use larger tiles", maxInstructions)
		}
	}
	return nil
}

func (t *tiler) op(o *op) error {
	if err := o.wellFormed(); err != nil {
		return err
	}
	switch o.name {
	case "arith.constant":
		text, _, _ := strings.Cut(o.attrs["value"], " : ")
		n, err := strconv.Atoi(text)
		if err != nil {
			return o.errorf("%s is not an integer", o.attrs["value"])
		}
		t.values[o.results[0]] = n
		return nil
	case "scf.for":
		return t.loop(o)
	case "memref.alloc":
		return t.alloc(o)
	case "memref.subview":
		return t.subview(o)
	case "memref.copy", "linalg.copy":
		return t.copy(o)
	case "linalg.broadcast":
		return t.bias(o)
	case "linalg.matmul":
		return t.matmul(o)
	case "linalg.generic":
		return t.requant(o)
	case "memref.dealloc", "scf.yield":
		return nil
	case "func.return":
		for i := range o.operands {
			if m, err := t.memory(o, i); err != nil || m.space != 0 {
				return o.errorf("a result has to be an argument: write the function in destination style")
			}
		}
		return nil
	}
	return o.errorf("no instruction does this; tile or rewrite it, or add it to examples/mlir/tiles.go")
}

// memory is operand i, which has to be one.
func (t *tiler) memory(o *op, i int) (memory, error) {
	if i >= len(o.operands) {
		return memory{}, o.errorf("operand %d is missing", i)
	}
	m, ok := t.values[o.operands[i]].(memory)
	if !ok {
		return memory{}, o.errorf("operand %s is no memref of known place", o.operands[i])
	}
	return m, nil
}

// in is operand i, which has to be in that space, of elements of that type, and of that rank.
func (t *tiler) in(o *op, i, space int, element string, rank int) (memory, error) {
	m, err := t.memory(o, i)
	if err == nil && (m.space != space || m.element != element || len(m.shape) != rank || m.strides[rank-1] != 1) {
		names := []string{"outside", "in the scratchpad", "in the accumulators"}
		err = o.errorf("operand %d is %s, of %v %s with strides %v; the instruction wants it %s, of %d dimensions of %s, the last with stride 1", i, names[m.space],
			m.shape, m.element, m.strides, names[space], rank, element)
	}
	return m, err
}

func (t *tiler) loop(o *op) error {
	var bounds [3]int
	for i := range bounds {
		n, ok := t.values[o.operands[i]].(int)
		if !ok {
			return o.errorf("bounds and step have to be constants")
		}
		bounds[i] = n
	}
	if len(o.operands) != 3 || bounds[2] < 1 || len(o.regions[0].args) != 1 {
		return o.errorf("a loop over memory has no values that it carries, and a step above 0")
	}
	t.loops++
	defer func() { t.loops-- }()
	for i := bounds[0]; i < bounds[1]; i += bounds[2] {
		t.values[o.regions[0].args[0]] = i
		if err := t.block(o.regions[0]); err != nil {
			return err
		}
	}
	return nil
}

// alloc gives out local memory. An allocation in a loop has two buffers in turn, so that a tile can be loaded while the one before it is used.
func (t *tiler) alloc(o *op) error {
	s, err := parseShaped(o.resultTypes[0])
	if err != nil {
		return o.errorf("%v", err)
	}
	next, size := &t.spad, (s.elements()*s.bytes()+63)&^63
	switch {
	case s.space == 0:
		return o.errorf("a buffer outside; what is between operations has to be in memory space 1 or 2")
	case s.space == 2 && s.element != "i32", s.bytes() == 0:
		return o.errorf("elements of %s; the scratchpad holds i8 and i32, the accumulators i32", s.element)
	case s.space == 2:
		next = &t.acc
	}
	m, key := memory{shaped: s}, o
	if p, ok := t.parts[o]; ok {
		if len(s.shape) != 1 || s.space != 1 || s.element != "i32" && !p.shift || s.element != "i8" && p.shift {
			return o.errorf("%s; multipliers are i32 and shifts i8, one for each column, in memory space 1", o.resultTypes[0])
		}
		key, size = p.table, (8*s.shape[0]+63)&^63
		m.table, m.strides = true, []int{8 / s.bytes()}
		if p.shift {
			m.at = 4
		}
	}
	buffers := 1
	if t.loops > 0 {
		buffers = 2
	}
	if len(t.slots[key]) < buffers {
		t.slots[key] = append(t.slots[key], *next)
		*next += size
	}
	m.at += t.slots[key][t.turn[o]%buffers]
	t.values[o.results[0]] = m
	t.turn[o]++
	return nil
}

func (t *tiler) subview(o *op) error {
	m, err := t.memory(o, 0)
	if err != nil {
		return err
	}
	if m.table {
		return o.errorf("multipliers and shifts are copied whole")
	}
	s, err := parseShaped(o.resultTypes[0])
	if err != nil {
		return o.errorf("%v", err)
	}
	offsets, err := o.ints("static_offsets")
	if err != nil {
		return err
	}
	if len(offsets) != len(m.shape) {
		return o.errorf("not an offset for each dimension")
	}
	dynamic := o.operands[1:]
	at := m.at
	for i, n := range offsets {
		if n < 0 { // ShapedType::kDynamic: the next operand
			if len(dynamic) == 0 {
				return o.errorf("an offset is missing")
			}
			var ok bool
			if n, ok = t.values[dynamic[0]].(int); !ok {
				return o.errorf("offset %s does not follow from constants", dynamic[0])
			}
			dynamic = dynamic[1:]
		}
		at += n * m.strides[i] * m.bytes()
	}
	if len(dynamic) > 0 {
		return o.errorf("sizes and strides have to be constants")
	}
	t.values[o.results[0]] = memory{shaped: s, binding: m.binding, at: at}
	return nil
}

// touch is the access to all of a memory, of rows whose first is at m.at.
func touch(m memory, write bool) access {
	last := m.at
	for i, d := range m.shape {
		last += (d - 1) * m.strides[i] * m.bytes()
	}
	hi := last + m.bytes()
	return access{m.space, m.binding, m.at, hi, write, write && hi-m.at == m.elements()*m.bytes()}
}

// copy is LOAD or STORE.
func (t *tiler) copy(o *op) error {
	from, err := t.memory(o, 0)
	if err != nil {
		return err
	}
	to, err := t.memory(o, 1)
	if err != nil {
		return err
	}
	outside, local, name := from, to, "load"
	if from.space > 0 {
		outside, local, name = to, from, "store"
	}
	if outside.space != 0 || local.space == 0 || !slices.Equal(from.shape, to.shape) || from.element != to.element || from.bytes() == 0 {
		return o.errorf("copies are between an argument and local memory, of one shape, of i8 or i32")
	}
	size, far, near := rows(outside.shape, outside.strides, local.strides)
	for len(size) < 3 {
		size, far, near = append([]int{1}, size...), append([]int{0}, far...), append([]int{0}, near...)
	}
	width := outside.bytes()
	if len(size) > 3 || size[0] > 1 && near[0] != size[1]*near[1] || size[0] > 0xffff || size[1] > 0xffff || near[1]*width > 0xffff {
		return o.errorf("LOAD and STORE move up to 65535 planes of 65535 rows, evenly spaced in local memory and less than 64 KiB apart (§5.6.3)")
	}
	text := fmt.Sprintf("%s binding=%d offset=%d local=%d nx=%d", name, outside.binding, outside.at, local.at, size[2]*width)
	if size[0]*size[1] > 1 {
		text += fmt.Sprintf(" ny=%d stride_y=%d local_stride=%d", size[1], far[1]*width, near[1]*width)
	}
	if size[0] > 1 {
		text += fmt.Sprintf(" nz=%d stride_z=%d", size[0], far[0]*width)
	}
	if local.space == 2 {
		text += " acc_mem"
	}
	t.emit(name, text, touch(from, false), touch(to, true))
	return nil
}

// bias is BIAS: a row of int32 for each row of accumulators.
func (t *tiler) bias(o *op) error {
	row, err := t.in(o, 0, 1, "i32", 1)
	if err != nil {
		return err
	}
	acc, err := t.in(o, 1, 2, "i32", 2)
	if err != nil {
		return err
	}
	if o.attrs["dimensions"] != "array<i64: 0>" {
		return o.errorf("BIAS repeats a row (§5.6.7): dimensions have to be [0], not %s", o.attrs["dimensions"])
	}
	if acc.shape[1] != row.shape[0] {
		return o.errorf("%d biases of %d columns", row.shape[0], acc.shape[1])
	}
	if acc.strides[0]*4 > 0xffff || acc.shape[1] > 0xffff {
		return o.errorf("rows of accumulators are less than 64 KiB apart; use smaller tiles")
	}
	t.emit("vector", fmt.Sprintf("bias n=%d m=%d bias=%d acc=%d acc_stride=%d", acc.shape[1], acc.shape[0], row.at, acc.at, acc.strides[0]*4),
		touch(row, false), touch(acc, true))
	return nil
}

// matmul is PRELOAD and MATMUL. The named operation extends the sign of its operands and adds modulo 2³², as §6.2 does.
func (t *tiler) matmul(o *op) error {
	a, err := t.in(o, 0, 1, "i8", 2)
	if err != nil {
		return err
	}
	b, err := t.in(o, 1, 1, "i8", 2)
	if err != nil {
		return err
	}
	acc, err := t.in(o, 2, 2, "i32", 2)
	if err != nil {
		return err
	}
	m, n, k := acc.shape[0], acc.shape[1], a.shape[1]
	if a.shape[0] != m || b.shape[0] != k || b.shape[1] != n {
		return o.errorf("%v × %v is not %v", a.shape, b.shape, acc.shape)
	}
	if k > t.rows || n > t.cols || m > 0xffff || a.strides[0] > 0xffff || acc.strides[0]*4 > 0xffff {
		return o.errorf("a product of %d × %d × %d; the array holds %d × %d weights, and rows are less than 64 KiB apart: tile it", m, k, n, t.rows, t.cols)
	}
	t.emit("matrix", fmt.Sprintf("preload k=%d n=%d weights=%d stride=%d", k, n, b.at, b.strides[0]), touch(b, false))
	out := touch(acc, true)
	out.whole = false // it adds
	t.emit("matrix", fmt.Sprintf("matmul k=%d n=%d ifmap=%d acc=%d mx=%d stride_x=%d acc_stride=%d accumulate", k, n, a.at, acc.at, m, a.strides[0], acc.strides[0]*4),
		touch(a, false), out)
	return nil
}

// part is what an allocation holds of REQUANT's table, whose entries have 8 bytes: a multiplier, a shift behind it, and zeros, which local memory
// holds at first.
type part struct {
	table *op // the operation that reads the table
	shift bool
}

// findTables looks which allocations are multipliers or shifts of a requantization in the same block.
func (t *tiler) findTables(r region) {
	for _, o := range r.ops {
		for _, inner := range o.regions {
			t.findTables(inner)
		}
		q, err := matchRequant(o)
		if o.name != "linalg.generic" || err != nil {
			continue
		}
		for _, alloc := range r.ops {
			if alloc.name != "memref.alloc" || len(alloc.results) != 1 {
				continue
			}
			switch alloc.results[0] {
			case q.operand(o, q.multiplier):
				t.parts[alloc] = part{table: o}
			case q.operand(o, q.shift):
				t.parts[alloc] = part{table: o, shift: true}
			}
		}
	}
}

// requant is REQUANT: scaling as tosa.apply_scale with one rounding defines it, which is §6.3, and a clamp.
func (t *tiler) requant(o *op) error {
	acc, err := t.in(o, 0, 2, "i32", 2)
	if err != nil {
		return err
	}
	out, err := t.in(o, len(o.operands)-1, 1, "i8", 2)
	if err != nil {
		return err
	}
	if !slices.Equal(acc.shape, out.shape) || acc.shape[1] > 0xffff {
		return o.errorf("%v sums make %v bytes", acc.shape, out.shape)
	}
	q, err := matchRequant(o)
	if err != nil {
		return err
	}
	lo, hi, zero, err := q.clamp(o, func(name string) (int, bool) { n, ok := t.values[name].(int); return n, ok })
	if err != nil {
		return err
	}
	multipliers, ok := t.values[q.operand(o, q.multiplier)].(memory)
	shifts, ok2 := t.values[q.operand(o, q.shift)].(memory)
	if !ok || !ok2 || !multipliers.table || !shifts.table || shifts.at != multipliers.at+4 || multipliers.elements() != acc.shape[1] || shifts.elements() != acc.shape[1] {
		return o.errorf("multipliers of i32 and shifts of i8, one for each column, have to be copied to allocations of their own in memory space 1")
	}
	if acc.strides[0]*4 > 0xffff || out.strides[0] > 0xffff || acc.shape[0] > 0xffff {
		return o.errorf("REQUANT (§5.6.8) has up to 65535 rows less than 64 KiB apart")
	}
	t.emit("vector", fmt.Sprintf("requant n=%d acc=%d acc_stride=%d out=%d params=%d per_channel mx=%d out_stride_x=%d zero_point=%d lo=%d hi=%d", acc.shape[1], acc.at,
		acc.strides[0]*4, out.at, multipliers.at, acc.shape[0], out.strides[0], zero, lo, hi),
		access{space: 1, lo: multipliers.at, hi: multipliers.at + 8*acc.shape[1]}, touch(acc, false), touch(out, true))
	return nil
}
