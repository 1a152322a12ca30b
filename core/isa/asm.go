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
}

// Error implements error.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
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
func Assemble(file string, src []byte) (*Program, error) {
	a := assembler{
		file:    file,
		prog:    &Program{Descriptor: Descriptor{Rows: 32, Cols: 32}},
		symbols: map[string]int64{},
		setup:   initialSetup,
		seen:    map[string]int{},
	}
	for text := range strings.Lines(string(src)) {
		a.line++
		a.toks, a.pos = a.scan(text), 0
		if a.toks != nil && a.peek().kind != end {
			a.statement()
		}
		if len(a.errs) >= maxErrors {
			a.fail(1, "too many mistakes; the rest of the text was not read")
			return nil, a.errs
		}
	}
	switch {
	case a.halted > 0:
	case a.instrLine > 0 || len(a.errs) == 0:
		a.line = max(a.instrLine, 1)
		a.fail(1, "the program does not end with halt (NO_HALT); add a halt as its last instruction")
	}
	if len(a.errs) == 0 && a.prog.Features&FeatureControl != 0 {
		a.finish()
	}
	if len(a.errs) > 0 {
		return nil, a.errs
	}
	return a.prog, nil
}

type assembler struct {
	file string
	prog *Program
	errs SyntaxErrors

	line      int
	toks      []token // of this line; the last is end
	pos       int
	started   bool             // the first statement was seen
	symbols   map[string]int64 // .equ
	seen      map[string]int   // directive to its line
	instrLine int              // line of the last instruction
	halted    int              // line of halt
	setup     Setup            // of the matrix engine, after the last instruction
	pending   []pendingWith    // that wait for an instruction
	lines     []int            // of the instructions in prog
}

func (a *assembler) fail(col int, format string, args ...any) {
	a.errs = append(a.errs, &SyntaxError{a.file, a.line, col, fmt.Sprintf(format, args...)})
}

// kind is a class of tokens; a punctuation character is its own kind, and
// '<' and '>' stand for the shifts.
type kind byte

const (
	end    kind = 0
	name   kind = 'a'
	number kind = '0' // starts with a digit; what it is worth is decided where it is used
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

func (a *assembler) peek() token { return a.toks[a.pos] }

func (a *assembler) next() token {
	t := a.toks[a.pos]
	if t.kind != end {
		a.pos++
	}
	return t
}

// accept consumes the next token if it is a k.
func (a *assembler) accept(k kind) bool {
	if a.peek().kind != k {
		return false
	}
	a.pos++
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
	switch {
	case t.kind != name:
		a.fail(t.col, "found %q; a line starts with an instruction or a directive", t.text)
	case t.text[0] == '.':
		a.directive(t)
	default:
		a.instruction(t)
	}
}

var directives = []string{".isa", ".array", ".spad", ".acc", ".bindings", ".features", ".equ"}

func (a *assembler) directive(t token) {
	if t.text == ".equ" {
		a.equ()
		return
	}
	if line := a.seen[t.text]; line > 0 {
		a.fail(t.col, "%s was given in line %d; write it once", t.text, line)
		return
	}
	if a.instrLine > 0 {
		a.fail(t.col, "%s after an instruction; directives that describe the program come first", t.text)
		return
	}
	a.seen[t.text] = a.line
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
		if v, ok = a.number(t.text, 0, math.MaxUint32); ok && t.text == ".spad" {
			a.prog.SpadSize = uint32(v)
		} else if ok {
			a.prog.AccSize = uint32(v)
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
	if a.prog.Minor == 0 {
		a.fail(directive.col, "ISA 1.0 has no features; write .isa %d.%d", Major, Minor)
		return
	}
	var names []string
	for _, g := range groups {
		names = append(names, g.name)
	}
	for {
		t := a.next()
		i := slices.Index(names, t.text)
		if i < 0 {
			a.fail(t.col, "%q is no group of instructions%s", t.text, suggest(t.text, names))
			return
		}
		if groups[i].bit&^FeaturesOf(a.prog.Minor) != 0 {
			a.fail(t.col, "ISA %d.%d has no group %s; write .isa %d.%d", Major, a.prog.Minor, t.text, Major, Minor)
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
	if _, dup := a.symbols[t.text]; dup {
		a.fail(t.col, "%s is already defined; a name has one value", t.text)
		return
	}
	a.symbols[t.text] = v
}

// instruction assembles one line whose mnemonic was m.
func (a *assembler) instruction(m token) {
	op := lookup(m.text)
	if op == nil {
		a.fail(m.col, "unknown instruction %s%s", m.text, suggest(m.text, mnemonics()))
		return
	}
	if op.feature&^a.prog.Features != 0 {
		a.fail(m.col, "%s needs a feature; write .features %s behind .isa %d.%d", op.name, featureName(op.feature), Major, Minor)
		return
	}
	if a.halted > 0 {
		a.fail(m.col, "%s is never reached: the program halts in line %d; remove one of the two", m.text, a.halted)
		return
	}
	a.instrLine = a.line
	if op.opcode == OpWith {
		a.with(m)
		return
	}
	changed := len(a.pending) > 0
	if !a.resolve(op) {
		return
	}
	if op.opcode == OpHalt {
		a.halted = a.line
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
		v = i.Check(l)
	}
	if v != nil {
		col, given := at[v.Field]
		if !given {
			col = m.col
		}
		a.fail(col, "%s (%v)", v.Detail, v.Rule)
		return
	}
	if len(a.prog.Text) >= MaxTextSize {
		a.fail(m.col, "the text is longer than %d instructions; split the program", MaxTextSize/Size)
		return
	}
	a.setup.Apply(i)
	a.append(w)
}

func (a *assembler) append(w *Word) {
	a.prog.Text = append(a.prog.Text, w[:]...)
	a.lines = append(a.lines, a.line)
}

// finish checks the program with its loops and registers.
func (a *assembler) finish() {
	if v, at := a.prog.Check(); v != nil {
		a.line = a.lines[min(at, len(a.lines)-1)]
		a.fail(1, "%s (%v)", v.Detail, v.Rule)
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
			a.fail(t.col, "%s needs a feature; write .features %s behind .isa %d.%d", o.name, featureName(o.feature), Major, Minor)
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

// number is an expression with a range; what names it in the report.
func (a *assembler) number(what string, lo, hi int64) (int64, bool) {
	col := a.peek().col
	v, ok := a.expr()
	if ok && (v < lo || v > hi) {
		a.fail(col, "%s is %d; it must be from %d to %d", what, v, lo, hi)
		return 0, false
	}
	return v, ok
}

// precedence orders the binary operators as C does.
var precedence = map[kind]int{'<': 1, '>': 1, '+': 2, '-': 2, '*': 3, '/': 3, '%': 3}

func (a *assembler) expr() (int64, bool) { return a.binary(1, 0) }

// maxDepth bounds the nesting of expressions, and so the stack.
const maxDepth = 100

func (a *assembler) binary(level, depth int) (int64, bool) {
	l, ok := a.unary(depth)
	for ok {
		op := a.peek()
		p := precedence[op.kind]
		if p == 0 || p < level {
			return l, true
		}
		a.next()
		var r int64
		if r, ok = a.binary(p+1, depth); ok {
			l, ok = a.apply(op, l, r)
		}
	}
	return 0, false
}

func (a *assembler) unary(depth int) (int64, bool) {
	t := a.next()
	if depth > maxDepth {
		a.fail(t.col, "the expression is nested too deeply; use .equ for its parts")
		return 0, false
	}
	switch t.kind {
	case '-':
		v, ok := a.unary(depth + 1)
		if ok && v == math.MinInt64 {
			a.fail(t.col, "the value does not fit in 64 bits")
			return 0, false
		}
		return -v, ok
	case '(':
		v, ok := a.binary(1, depth+1)
		return v, ok && a.expect(')', "the parenthesis is not closed")
	case number:
		v, err := parseNumber(t.text)
		if err != nil {
			a.fail(t.col, "%q is not a number below 2^63; numbers are decimal or 0x…", t.text)
			return 0, false
		}
		return v, true
	case name:
		v, ok := a.symbols[t.text]
		if !ok {
			fix := "define it before with .equ"
			if near := nearest(t.text, slices.Sorted(maps.Keys(a.symbols))); near != "" {
				fix = "did you mean " + near + "?"
			}
			a.fail(t.col, "%s is not defined; %s", t.text, fix)
		}
		return v, ok
	}
	a.fail(t.col, "found %q; a number, a name or ( was expected", t.text)
	return 0, false
}

// parseNumber reads decimal digits or 0x and hexadecimal digits. A leading
// zero does not mean octal.
func parseNumber(s string) (int64, error) {
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		return strconv.ParseInt(s[2:], 16, 64)
	}
	return strconv.ParseInt(s, 10, 64)
}

// apply computes l op r and reports what 64 bits cannot hold.
func (a *assembler) apply(op token, l, r int64) (v int64, ok bool) {
	ok = true
	switch op.kind {
	case '+':
		v = l + r
		ok = (v > l) == (r > 0)
	case '-':
		v = l - r
		ok = (v < l) == (r > 0)
	case '*':
		v = l * r
		ok = l == 0 || v/l == r && !(l == -1 && r == math.MinInt64)
	case '/', '%':
		if r == 0 {
			a.fail(op.col, "division by zero")
			return 0, false
		}
		if ok = l != math.MinInt64 || r != -1; !ok {
			break
		}
		if v = l / r; op.kind == '%' {
			v = l % r
		}
	case '<', '>':
		if r < 0 || r > 63 {
			a.fail(op.col, "shift by %d; a shift is from 0 to 63", r)
			return 0, false
		}
		if v = l >> r; op.kind == '<' {
			v = l << r
			ok = v>>r == l
		}
	}
	if !ok {
		a.fail(op.col, "the value of %d %s %d does not fit in 64 bits", l, op.text, r)
	}
	return v, ok
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
// differ from it in more than two characters in five.
func nearest(word string, known []string) string {
	word = strings.ToLower(word)
	best, least := "", math.MaxInt
	for _, k := range known {
		if d := distance(word, strings.ToLower(k)); d < least && 5*d <= 2*len(k) {
			best, least = k, d
		}
	}
	return best
}

// distance counts the insertions, deletions and replacements of characters
// that turn s into t.
func distance(s, t string) int {
	above := make([]int, len(t)+1)
	for j := range above {
		above[j] = j
	}
	for i := range len(s) {
		diagonal := above[0]
		above[0] = i + 1
		for j := range len(t) {
			d := diagonal
			if s[i] != t[j] {
				d = 1 + min(diagonal, above[j], above[j+1])
			}
			diagonal, above[j+1] = above[j+1], d
		}
	}
	return above[len(t)]
}
