// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"npuemu/core/systolic"
)

// SyntaxError is one mistake in assembler text.
type SyntaxError struct {
	File         string
	Line, Column int // from 1; columns count bytes
	Msg          string
	From         []string // the macros, repetitions and files that led there, innermost first
}

// Error implements error. Where the mistake came from follows in lines of their own.
func (e *SyntaxError) Error() string {
	s := fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
	for _, from := range e.From {
		s += "\n\t" + from
	}
	return s
}

// SyntaxErrors are the mistakes in a text, in the order in which they were found.
type SyntaxErrors []*SyntaxError

// Error returns one line for each mistake.
func (l SyntaxErrors) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// maxErrors is how many mistakes Assemble reports: a screenful.
const maxErrors = 20

// Assemble translates text in the syntax of §5.8. It checks every instruction
// against the program's own array, local memory and bindings, and that the
// program ends with halt. The error is a SyntaxErrors; file is its file name.
// Text that includes a file is refused.
func Assemble(file string, src []byte) (*Program, error) { return AssembleFiles(file, src, nil) }

// AssembleFiles is Assemble for text that may include files, which read returns;
// their names are relative to the directory of the file that includes them.
func AssembleFiles(file string, src []byte, read func(name string) ([]byte, error)) (*Program, error) {
	a := assembler{
		read:   read,
		prog:   &Program{Descriptor: Descriptor{Rows: 32, Cols: 32}, Debug: &Debug{}},
		setup:  initialSetup,
		seen:   map[string]int{},
		macros: map[string]*macro{},
		scopes: []scope{{}},
		pos:    position{file: file, line: 1},
	}
	a.block(split(file, src))
	if a.stopped {
		return nil, a.errs
	}
	switch {
	case a.halted.line > 0 || a.doubts.halt:
	case a.last.line > 0 || len(a.errs) == 0:
		if a.pos = a.last; a.pos.line == 0 {
			a.pos = position{file: file, line: 1}
		}
		a.fail(1, "the program does not end with halt (NO_HALT, §5.7); add a halt as its last instruction")
	}
	if len(a.errs) == 0 && a.prog.Features&FeatureControl != 0 {
		a.finish()
	}
	if len(a.errs) > 0 {
		return nil, a.errs
	}
	return a.prog, nil
}

// position is where a line of text comes from.
type position struct {
	file string
	line int
	from *origin // nil in the file that was given
}

// origin is what led to a line that is not in the file that was given.
type origin struct {
	what string // such as "in macro tile"
	at   position
}

type assembler struct {
	prog *Program
	errs SyntaxErrors
	read func(name string) ([]byte, error)

	pos       position
	toks      []token        // of this line; the last is end
	at        int            // the next of toks
	started   bool           // the first statement was seen
	stopped   bool           // too many mistakes, or too much text
	seen      map[string]int // directive to its line
	last      position       // of the last instruction
	halted    position       // of halt
	setup     Setup          // of the matrix engine, after the last instruction
	doubts    doubts         // what was refused, and later mistakes follow from
	pending   []pendingWith  // that wait for an instruction
	positions []position     // of the instructions in prog

	// Text that makes text (macro.go).
	macros   map[string]*macro
	scopes   []scope // names; the innermost last
	params   map[string][]token
	depth    int      // of macros, repetitions and files inside each other
	passed   int      // lines
	expanded int      // macros and repetitions, for the names of labels
	used     [2]int64 // bytes of scratchpad and accumulators that .alloc gave out
}

func (a *assembler) fail(col int, format string, args ...any) {
	a.errs = append(a.errs, &SyntaxError{a.pos.file, a.pos.line, col, fmt.Sprintf(format, args...), a.pos.trace()})
}

// kind is a class of tokens; a punctuation character is its own kind, and
// '<' and '>' stand for the shifts.
type kind byte

const (
	end    kind = 0
	name   kind = 'a'
	number kind = '0'  // starts with a digit; what it is worth is decided where it is used
	param  kind = '\\' // a parameter of a macro, without its backslash
	quoted kind = '"'  // without its quotes
)

type token struct {
	kind kind
	text string
	col  int
}

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '.'
}
func digit(c byte) bool { return c >= '0' && c <= '9' }

// scan splits a line into tokens. It returns nil after a character that cannot
// be part of one.
func (a *assembler) scan(text string) []token {
	var toks []token
	i := 0
	for i < len(text) {
		c, start := text[i], i
		switch {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			i++
			continue
		case c == ';' || c == '#':
			return append(toks, token{end, "end of line", start + 1})
		case letter(c) || digit(c):
			for i < len(text) && (letter(text[i]) || digit(text[i])) {
				i++
			}
			k := name
			if digit(c) {
				k = number
			}
			toks = append(toks, token{k, text[start:i], start + 1})
		case c == '\\' && i+1 < len(text) && letter(text[i+1]):
			for i++; i < len(text) && (letter(text[i]) || digit(text[i])); {
				i++
			}
			toks = append(toks, token{param, text[start+1 : i], start + 1})
		case c == '"':
			n := strings.IndexAny(text[i+1:], "\"\r\n")
			if n < 0 || text[i+1+n] != '"' {
				a.fail(start+1, "the name in quotes does not end in this line; write a \" behind it")
				return nil
			}
			i += n + 2
			toks = append(toks, token{quoted, text[start+1 : i-1], start + 1})
		case strings.HasPrefix(text[i:], "<<") || strings.HasPrefix(text[i:], ">>"):
			i += 2
			toks = append(toks, token{kind(c), text[start:i], start + 1})
		case strings.IndexByte("=,:+-*/%()", c) >= 0:
			i++
			toks = append(toks, token{kind(c), text[start:i], start + 1})
		default:
			a.fail(start+1, "unexpected character %q; a comment starts with ; or #", []rune(text[i:])[0])
			return nil
		}
	}
	return append(toks, token{end, "end of line", len(strings.TrimRight(text, "\r\n")) + 1})
}

func (a *assembler) peek() token { return a.toks[a.at] }

func (a *assembler) next() token {
	t := a.toks[a.at]
	if t.kind != end {
		a.at++
	}
	return t
}

// accept consumes the next token if it is a k.
func (a *assembler) accept(k kind) bool {
	if a.peek().kind != k {
		return false
	}
	a.at++
	return true
}

// expect is accept with a report.
func (a *assembler) expect(k kind, what string) bool {
	if !a.accept(k) {
		t := a.peek()
		a.fail(t.col, "found %q; %s", t.text, what)
		return false
	}
	return true
}

func (a *assembler) statement() {
	t := a.next()
	if !a.started && t.text != ".isa" {
		a.fail(t.col, "the text does not start with .isa; write .isa %d.%d first", Major, Minor)
	}
	a.started = true
	if t.kind == name && a.peek().kind == ':' {
		a.at++
		a.label(t)
		if t = a.next(); t.kind == end {
			return
		}
	}
	switch {
	case t.kind != name:
		a.fail(t.col, "found %q; a line starts with an instruction or a directive", t.text)
	case t.text[0] == '.':
		a.directive(t)
	case a.macros[t.text] != nil:
		a.expand(a.macros[t.text], t)
	default:
		a.instruction(t)
	}
}

var directives = []string{
	".isa", ".array", ".spad", ".acc", ".bindings", ".features", ".equ", ".alloc", ".alloc_acc",
	".macro", ".endm", ".rept", ".endr", ".include",
}

func (a *assembler) directive(t token) {
	defer a.doubtDirective(t, a.mistakes())
	switch t.text {
	case ".equ":
		a.equ()
		return
	case ".alloc":
		a.alloc(&a.prog.SpadSize, ".spad", 1)
		return
	case ".alloc_acc":
		a.alloc(&a.prog.AccSize, ".acc", 4)
		return
	case ".macro", ".rept", ".include":
		a.fail(t.col, "%s stands first in its line; put the label in a line before", t.text)
		return
	case ".endm", ".endr":
		a.fail(t.col, "%s without %s", t.text, map[string]string{".endm": ".macro", ".endr": ".rept"}[t.text])
		return
	}
	if line := a.seen[t.text]; line > 0 {
		a.fail(t.col, "%s was given in line %d; write it once", t.text, line)
		return
	}
	if a.last.line > 0 {
		a.fail(t.col, "%s after an instruction; directives that describe the program come first", t.text)
		return
	}
	a.seen[t.text] = a.pos.line
	var ok bool
	switch t.text {
	case ".isa":
		a.isa()
		return
	case ".features":
		a.features(t)
		return
	case ".array":
		var r, c int64
		if r, ok = a.dim(); !ok || !a.expect(',', "write .array rows, columns") {
			return
		}
		if c, ok = a.dim(); ok {
			a.prog.Rows, a.prog.Cols = uint16(r), uint16(c)
		}
	case ".spad", ".acc":
		var v int64
		size, used := &a.prog.SpadSize, a.used[0]
		if t.text == ".acc" {
			size, used = &a.prog.AccSize, a.used[1]
		}
		if v, ok = a.number(t.text, used, math.MaxUint32); ok {
			*size = uint32(v)
		}
	case ".bindings":
		var v int64
		if v, ok = a.number(t.text, 0, MaxBindings); ok {
			a.prog.Bindings = uint16(v)
		}
	default:
		a.fail(t.col, "unknown directive %s%s", t.text, suggest(t.text, directives))
		return
	}
	if ok {
		a.expect(end, "the directive ends here")
	}
}

func (a *assembler) isa() {
	t := a.next()
	major, minor, ok := strings.Cut(t.text, ".")
	ma, err1 := strconv.ParseUint(major, 10, 16)
	mi, err2 := strconv.ParseUint(minor, 10, 16)
	switch {
	case !ok || err1 != nil || err2 != nil:
		a.fail(t.col, "found %q; write the version, as in .isa %d.%d", t.text, Major, Minor)
	case ma != Major || mi > Minor:
		a.fail(t.col, "ISA %s is not known; this assembler knows %d.%d", t.text, Major, Minor)
	default:
		a.prog.Minor = uint16(mi)
		a.expect(end, "the directive ends here")
	}
}

// features reads the names of groups of instructions.
func (a *assembler) features(directive token) {
	var names []string
	for _, g := range groups {
		names = append(names, g.name)
	}
	least := uint16(1) // minor of the oldest ISA that has all of them
	for _, t := range a.toks[a.at:] {
		if i := slices.Index(names, t.text); i >= 0 {
			least = max(least, since(groups[i].bit))
		}
	}
	if a.prog.Minor == 0 {
		if !a.doubts.isa {
			a.fail(directive.col, "ISA 1.0 has no features; write .isa %d.%d", Major, least)
		}
		return
	}
	for {
		t := a.next()
		i := slices.Index(names, t.text)
		if i < 0 {
			a.fail(t.col, "%q is no group of instructions%s", t.text, suggest(t.text, names))
			return
		}
		if groups[i].bit&^FeaturesOf(a.prog.Minor) != 0 {
			a.fail(t.col, "ISA %d.%d has no group %s; write .isa %d.%d", Major, a.prog.Minor, t.text, Major, least)
			return
		}
		a.prog.Features |= groups[i].bit
		if !a.accept(',') {
			a.expect(end, "the directive ends here")
			return
		}
	}
}

func (a *assembler) dim() (int64, bool) {
	col := a.peek().col
	v, ok := a.number(".array", 0, math.MaxUint16)
	if ok && systolic.CheckDim(int(v)) != nil {
		a.fail(col, "an array cannot have %d rows or columns; both are multiples of %d from %d to %d (§5.1)",
			v, systolic.DimStep, systolic.MinDim, systolic.MaxDim)
		return 0, false
	}
	return v, ok
}

func (a *assembler) equ() {
	t := a.peek()
	if !a.expect(name, "write .equ NAME, value") || !a.expect(',', "write .equ NAME, value") {
		return
	}
	v, ok := a.expr()
	if !ok || !a.expect(end, "the value ends here") {
		return
	}
	a.define(t, v)
}

// instruction assembles one line whose mnemonic was m.
func (a *assembler) instruction(m token) {
	op := lookup(m.text)
	if op == nil {
		known := append(mnemonics(), slices.Sorted(maps.Keys(a.macros))...)
		a.fail(m.col, "unknown instruction %s%s", m.text, suggest(m.text, known))
		if meant := lookup(nearest(m.text, known)); meant != nil {
			a.doubts.refuse(meant.opcode)
		}
		return
	}
	defer a.doubtSetup(op.opcode, a.mistakes())
	if op.feature&^a.prog.Features != 0 {
		if a.doubts.hushed++; !a.doubts.features {
			a.fail(m.col, "%s needs a feature; %s", op.name, a.name(op.feature))
		}
		return
	}
	if a.halted.line > 0 {
		a.fail(m.col, "%s is never reached: the program halts in line %d; remove one of the two", m.text, a.halted.line)
		return
	}
	a.last = a.pos
	if op.opcode == OpWith {
		a.with(m)
		return
	}
	changed := len(a.pending) > 0
	if !a.resolve(op) {
		return
	}
	if op.opcode == OpHalt {
		a.halted = a.pos
	}
	errs := len(a.errs)
	w := Word{byte(op.opcode)}
	for i := range op.operands {
		op.operands[i].put(&w, op.operands[i].def)
	}
	at := map[string]int{} // column of each word that was given
	for a.peek().kind != end {
		t := a.next()
		if t.kind != name {
			a.fail(t.col, "found %q; operands are name=value or a flag", t.text)
			return
		}
		if _, dup := at[t.text]; dup {
			a.fail(t.col, "%s is given twice; remove one", t.text)
		}
		at[t.text] = t.col
		var ok bool
		if a.accept('=') {
			ok = a.operand(&w, op, t)
		} else {
			ok = a.flag(&w, op, t)
		}
		if !ok {
			return
		}
	}
	for _, o := range op.operands {
		if _, given := at[o.name]; o.required && !given {
			a.fail(m.col, "%s needs %s; write %s=value", op.name, o.name, o.name)
		}
	}
	if len(a.errs) > errs {
		return
	}
	a.emit(&w, m, at, changed)
}

// emit appends w to the program if it breaks no rule; what registers change is
// seen at the end.
func (a *assembler) emit(w *Word, m token, at map[string]int, changed bool) {
	i, v := Decode(w)
	if v == nil && !changed {
		l := a.prog.Limits()
		l.Setup = a.setup
		if v = i.Check(l); v != nil && a.doubts.explain(v, i, l) {
			return
		}
	}
	if v != nil {
		col, given := at[v.Field]
		if !given {
			col = m.col
		}
		a.fail(col, "%s (%v, §5.7)", v.Detail, v.Rule)
		return
	}
	if len(a.prog.Text) >= MaxTextSize {
		a.fail(m.col, "the text is longer than %d instructions; split the program", MaxTextSize/Size)
		return
	}
	a.setup.Apply(i)
	a.append(w, m.col)
}

func (a *assembler) append(w *Word, col int) {
	a.prog.Text = append(a.prog.Text, w[:]...)
	a.positions = append(a.positions, a.pos)
	a.prog.Debug.add(a.pos.file, a.pos.line, col)
}

// finish checks the program with its loops and registers.
func (a *assembler) finish() {
	if v, at := a.prog.Check(); v != nil {
		at = min(at, len(a.positions)-1)
		a.pos = a.positions[at]
		a.fail(int(a.prog.Debug.Lines[at].Column), "%s (%v, §5.7)", v.Detail, v.Rule)
	}
}

// operand assembles the value after name=. It returns false if the line cannot
// be read on.
func (a *assembler) operand(w *Word, op *operation, t token) bool {
	col := a.peek().col
	switch t.text {
	case "wait", "signal":
		if op.opcode == OpHalt {
			a.fail(t.col, "halt neither waits nor signals; it ends the program when all engines are idle")
			return false
		}
		if op.opcode.Class() == ClassControl {
			a.fail(t.col, "%s neither waits nor signals; the sequencer executes it", op.name)
			return false
		}
		return a.token(w, t.text)
	}
	for i := range op.operands {
		o := &op.operands[i]
		if o.name != t.text {
			continue
		}
		if o.feature&^a.prog.Features != 0 {
			if a.doubts.hushed++; !a.doubts.features {
				a.fail(t.col, "%s needs a feature; %s", o.name, a.name(o.feature))
			}
			return false
		}
		switch o.form {
		case named:
			return a.choice(w, o)
		case scalar:
			r, ok := a.register()
			o.put(w, int64(r))
			return ok
		}
		v, ok := a.expr()
		if !ok {
			return false
		}
		if lo, hi := o.limits(); v < lo || v > hi {
			a.fail(col, "%s=%d does not fit; it is from %d to %d", o.name, v, lo, hi)
			return true
		}
		o.put(w, v)
		return true
	}
	for _, f := range op.flags {
		if f.name == t.text {
			a.fail(t.col, "%s is a flag; write it without a value", t.text)
			return false
		}
	}
	a.fail(t.col, "%s has no operand %s%s", op.name, t.text, suggest(t.text, op.words()))
	return false
}

// choice assembles a value that has a name.
func (a *assembler) choice(w *Word, o *operand) bool {
	t := a.next()
	var names []string
	for _, c := range o.choices {
		if c.name == t.text {
			o.put(w, int64(c.value))
			return true
		}
		names = append(names, c.name)
	}
	a.fail(t.col, "%q is no %s%s", t.text, o.name, suggest(t.text, names))
	return false
}

// token assembles the T or T:count of a wait or signal.
func (a *assembler) token(w *Word, field string) bool {
	id, ok := a.number(field, 0, 15)
	if !ok {
		return false
	}
	count := int64(1)
	if a.accept(':') {
		if count, ok = a.number("count of "+field, 1, 15); !ok {
			return false
		}
	}
	b := Token{uint8(id), uint8(count)}.encode()
	if field == "wait" {
		w[2] = b
	} else {
		w[3] = b
	}
	return true
}

func (a *assembler) flag(w *Word, op *operation, t token) bool {
	for _, f := range op.flags {
		if f.name == t.text {
			w[1] |= f.bit
			return true
		}
	}
	for _, word := range op.words() {
		if word == t.text {
			a.fail(t.col, "%s needs a value; write %s=value", t.text, t.text)
			return false
		}
	}
	a.fail(t.col, "%s has no flag %s%s", op.name, t.text, suggest(t.text, op.words()))
	return false
}

func lookup(mnemonic string) *operation {
	for i := range operations {
		if operations[i].name == mnemonic {
			return &operations[i]
		}
	}
	return nil
}

func mnemonics() []string {
	names := make([]string, len(operations))
	for i := range operations {
		names[i] = operations[i].name
	}
	return names
}

// words returns what may follow op's mnemonic.
func (op *operation) words() []string {
	var words []string
	if op.opcode.Class() != ClassControl {
		words = []string{"wait", "signal"}
	}
	for _, o := range op.operands {
		words = append(words, o.name)
	}
	for _, f := range op.flags {
		words = append(words, f.name)
	}
	return words
}

// suggest ends a report about a word that is none of known.
func suggest(word string, known []string) string {
	if near := nearest(word, known); near != "" {
		return "; did you mean " + near + "?"
	}
	if len(known) == 0 {
		return "; it takes none"
	}
	return "; known are " + strings.Join(known, ", ")
}

// nearest returns the first of known that is most like word, or "" if all
// differ from it in more than two characters in five. Two neighbours that changed
// places count as one, and make a word like another of any length.
func nearest(word string, known []string) string {
	word = strings.ToLower(word)
	best, least := "", math.MaxInt
	for _, k := range known {
		d := distance(word, strings.ToLower(k))
		if d < least && (5*d <= 2*len(k) || d == 1 && exchanged(word, strings.ToLower(k))) {
			best, least = k, d
		}
	}
	return best
}

// exchanged reports whether s and t have the same characters.
func exchanged(s, t string) bool {
	a, b := []byte(s), []byte(t)
	slices.Sort(a)
	slices.Sort(b)
	return string(a) == string(b)
}

// distance counts the insertions, deletions and replacements of characters, and
// the exchanges of two neighbours, that turn s into t.
func distance(s, t string) int {
	before, above, row := make([]int, len(t)+1), make([]int, len(t)+1), make([]int, len(t)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(s) {
		row[0] = i + 1
		for j := range len(t) {
			d := above[j]
			if s[i] != t[j] {
				d = 1 + min(d, above[j+1], row[j])
			}
			if i > 0 && j > 0 && s[i] == t[j-1] && s[i-1] == t[j] {
				d = min(d, 1+before[j-1])
			}
			row[j+1] = d
		}
		before, above, row = above, row, before
	}
	return above[len(t)]
}
