// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
)

// Text that makes text (§5.8): macros, repetitions, files, and the names in them.

// Limits of what text may make. The longest program has MaxTextSize / Size
// instructions; twice as many lines leave room for what is none.
const (
	maxNesting = 32
	maxLines   = 2 * MaxTextSize / Size
)

// line is one line of a file.
type line struct {
	file string
	n    int
	text string
}

func split(file string, src []byte) []line {
	var list []line
	for text := range strings.Lines(string(src)) {
		list = append(list, line{file, len(list) + 1, text})
	}
	return list
}

// macro is what .macro defines.
type macro struct {
	name     string
	params   []string
	defaults map[string][]token
	body     []line
}

// scope has the names that one file, macro or repetition defines.
type scope struct {
	values map[string]int64
	sizes  map[string]int64 // of those that were allocated
}

// trace tells what led to p, innermost first.
func (p position) trace() []string {
	var list []string
	for o := p.from; o != nil; o = o.at.from {
		list = append(list, fmt.Sprintf("%s, %s:%d", o.what, o.at.file, o.at.line))
	}
	return list
}

// block assembles lines, which come from a.pos.from.
func (a *assembler) block(list []line) {
	from := a.pos.from
	for i := 0; i < len(list) && !a.stopped; i++ {
		a.pos = position{list[i].file, list[i].n, from}
		if !a.pass() {
			return
		}
		a.toks, a.at = a.scan(list[i].text), 0
		if a.toks == nil || !a.substitute() || a.peek().kind == end {
			a.limit()
			continue
		}
		t := a.peek()
		switch {
		case t.text == ".macro" || t.text == ".rept":
			a.at++
			body, n, ok := collect(list[i:], t.text)
			if !ok {
				a.fail(t.col, "%s has no %s", t.text, closing[t.text])
				a.stopped = true
				return
			}
			if t.text == ".macro" {
				a.macro(body)
			} else {
				a.rept(t, body)
			}
			i += n
		case t.text == ".include":
			a.at++
			a.include(t)
		default:
			a.statement()
		}
		a.limit()
	}
}

// pass counts a line, or a repetition. It stops after too many.
func (a *assembler) pass() bool {
	if a.passed++; a.passed > maxLines && !a.stopped {
		a.fail(1, "more than %d lines, those of macros and repetitions counted each time; split the program", maxLines)
		a.stopped = true
	}
	return !a.stopped
}

// limit stops after a screenful of mistakes.
func (a *assembler) limit() {
	if len(a.errs) >= maxErrors && !a.stopped {
		a.fail(1, "too many mistakes; the rest of the text was not read")
		a.stopped = true
	}
}

var closing = map[string]string{".macro": ".endm", ".rept": ".endr"}

// collect returns the lines between the first of list, which has the given
// directive, and the one that closes it, and that one's index.
func collect(list []line, directive string) (body []line, n int, ok bool) {
	depth := 0
	for n = range list {
		word := list[n].text
		if f := strings.FieldsFunc(word, func(r rune) bool { return r == ' ' || r == '\t' || r == ';' || r == '#' || r == '\r' || r == '\n' }); len(f) > 0 {
			word = f[0]
		}
		if strings.TrimLeft(list[n].text, " \t") == "" || !strings.HasPrefix(strings.TrimLeft(list[n].text, " \t"), word) {
			continue // a comment, or nothing
		}
		switch word {
		case directive:
			depth++
		case closing[directive]:
			if depth--; depth == 0 {
				return list[1:n], n, true
			}
		}
	}
	return nil, 0, false
}

// substitute replaces parameters of the macro that is expanded.
func (a *assembler) substitute() bool {
	if !slices.ContainsFunc(a.toks, func(t token) bool { return t.kind == param }) {
		return true
	}
	var toks []token
	for _, t := range a.toks {
		if t.kind != param {
			toks = append(toks, t)
			continue
		}
		with, ok := a.params[t.text]
		if !ok {
			known := make([]string, 0, len(a.params))
			for p := range a.params {
				known = append(known, p)
			}
			slices.Sort(known)
			if a.params == nil {
				a.fail(t.col, "\\%s stands in no macro", t.text)
			} else {
				a.fail(t.col, "\\%s is no parameter of the macro%s", t.text, suggest(t.text, known))
			}
			return false
		}
		for _, w := range with {
			toks = append(toks, token{w.kind, w.text, t.col})
		}
	}
	a.toks = toks
	return true
}

// macro reads the rest of a .macro NAME p, q=default.
func (a *assembler) macro(body []line) {
	n := a.next()
	switch {
	case n.kind != name || n.text[0] == '.':
		a.fail(n.col, "found %q; write .macro NAME parameter, parameter=default", n.text)
		return
	case lookup(n.text) != nil:
		a.fail(n.col, "%s is an instruction; give the macro another name", n.text)
		return
	case a.macros[n.text] != nil:
		a.fail(n.col, "macro %s is already defined", n.text)
		return
	}
	m := &macro{name: n.text, defaults: map[string][]token{}, body: body}
	for a.peek().kind != end {
		p := a.peek()
		if len(m.params) > 0 && !a.expect(',', "parameters are separated by commas") {
			return
		}
		if p = a.next(); p.kind != name || slices.Contains(m.params, p.text) {
			a.fail(p.col, "found %q; a parameter has a name of its own", p.text)
			return
		}
		m.params = append(m.params, p.text)
		if a.accept('=') {
			m.defaults[p.text] = a.argument()
		}
	}
	a.macros[m.name] = m
}

// argument takes the tokens up to a comma outside parentheses. One name that has
// a value, and an expression, become numbers, so that a macro is not surprised
// by precedence or by its own names.
func (a *assembler) argument() []token {
	start, depth := a.at, 0
	for a.peek().kind != end && (depth > 0 || a.peek().kind != ',') {
		switch a.next().kind {
		case '(':
			depth++
		case ')':
			depth--
		}
	}
	arg := slices.Clone(a.toks[start:a.at])
	if len(arg) == 0 {
		return nil
	}
	if len(arg) == 1 {
		if v, ok := a.value(arg[0].text); ok && arg[0].kind == name {
			return []token{{number, fmt.Sprint(v), arg[0].col}}
		}
		return arg
	}
	// Read once more as an expression, whose mistakes do not count.
	try := assembler{scopes: a.scopes, toks: append(slices.Clone(arg), token{kind: end})}
	if v, ok := try.expr(); ok && try.peek().kind == end {
		return []token{{number, fmt.Sprint(v), arg[0].col}}
	}
	return arg
}

// expand assembles macro m, which token t names: NAME value, parameter=value.
func (a *assembler) expand(m *macro, t token) {
	args := map[string][]token{}
	for n := 0; a.peek().kind != end; n++ {
		if n > 0 && !a.expect(',', "arguments are separated by commas") {
			return
		}
		p := a.peek()
		to := ""
		if p.kind == name && a.toks[a.at+1].kind == '=' {
			if to, a.at = p.text, a.at+2; !slices.Contains(m.params, to) {
				a.fail(p.col, "%s has no parameter %s%s", m.name, to, suggest(to, m.params))
				return
			}
		} else if n < len(m.params) {
			to = m.params[n]
		} else {
			a.fail(p.col, "%s takes %d arguments", m.name, len(m.params))
			return
		}
		if _, twice := args[to]; twice {
			a.fail(p.col, "%s is given twice; remove one", to)
			return
		}
		if args[to] = a.argument(); args[to] == nil {
			a.fail(p.col, "%s has no value", to)
			return
		}
	}
	for _, p := range m.params {
		if args[p] == nil {
			if args[p] = m.defaults[p]; args[p] == nil {
				a.fail(t.col, "%s needs %s; write %s=value", m.name, p, p)
				return
			}
		}
	}
	params := a.params
	a.params = args
	a.inside("in macro "+m.name, t, func() { a.block(m.body) })
	a.params = params
}

// inside runs f in a scope of its own, for text that what names.
func (a *assembler) inside(what string, t token, f func()) {
	if a.depth == maxNesting {
		a.fail(t.col, "more than %d macros, repetitions and files inside each other; does %s use itself?", maxNesting, t.text)
		a.stopped = true
		return
	}
	at := a.pos
	a.depth++
	a.expanded++
	a.scopes = append(a.scopes, scope{})
	a.pos.from = &origin{what, at}
	f()
	a.pos = at
	a.scopes = a.scopes[:len(a.scopes)-1]
	a.depth--
}

// rept assembles body as often as the rest of .rept COUNT, NAME says.
func (a *assembler) rept(t token, body []line) {
	count, ok := a.number(".rept", 0, maxLines)
	var counter token
	if ok && a.accept(',') {
		counter = a.next()
		if counter.kind != name {
			a.fail(counter.col, "found %q; write .rept COUNT, NAME", counter.text)
			return
		}
	}
	if !ok || !a.expect(end, "the directive ends here") {
		return
	}
	for n := range count {
		if !a.pass() {
			return
		}
		a.inside(fmt.Sprintf("in repetition %d", n), t, func() {
			if counter.kind == name {
				a.define(counter, n)
			}
			a.block(body)
		})
	}
}

// include assembles the file that the rest of .include "NAME" names.
func (a *assembler) include(t token) {
	n := a.next()
	if n.kind != quoted {
		a.fail(n.col, "found %q; write .include \"FILE\"", n.text)
		return
	}
	if !a.expect(end, "the directive ends here") {
		return
	}
	if a.read == nil {
		a.fail(t.col, "there are no files to include from here")
		return
	}
	file := n.text
	if !path.IsAbs(file) {
		file = path.Join(path.Dir(a.pos.file), file)
	}
	src, err := a.read(file)
	if err != nil {
		a.fail(n.col, "%v", err)
		return
	}
	// Names of a file are the including file's: that is what it is for.
	if a.depth == maxNesting {
		a.fail(t.col, "more than %d macros, repetitions and files inside each other; does %s include itself?", maxNesting, file)
		a.stopped = true
		return
	}
	at := a.pos
	a.depth++
	a.pos.from = &origin{"included", at}
	a.block(split(file, src))
	a.pos = at
	a.depth--
}

// define gives the name t a value in the innermost scope.
func (a *assembler) define(t token, v int64) {
	s := &a.scopes[len(a.scopes)-1]
	if _, dup := s.values[t.text]; dup {
		a.fail(t.col, "%s is already defined; a name has one value", t.text)
		return
	}
	if s.values == nil {
		s.values = map[string]int64{}
	}
	s.values[t.text] = v
}

// value returns what a name stands for.
func (a *assembler) value(s string) (int64, bool) {
	for i := len(a.scopes) - 1; i >= 0; i-- {
		if v, ok := a.scopes[i].values[s]; ok {
			return v, true
		}
	}
	return 0, false
}

// size returns the size of what was allocated as s.
func (a *assembler) size(s string) (int64, bool) {
	for i := len(a.scopes) - 1; i >= 0; i-- {
		if _, ok := a.scopes[i].values[s]; ok {
			v, ok := a.scopes[i].sizes[s]
			return v, ok
		}
	}
	return 0, false
}

// names returns all names that have a value, in order.
func (a *assembler) names() []string {
	var names []string
	for _, s := range a.scopes {
		for n := range s.values {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// label gives t the index of the instruction that follows.
func (a *assembler) label(t token) {
	index := len(a.prog.Text)/Size + len(a.pending)
	a.define(t, int64(index))
	l := t.text
	if len(a.scopes) > 1 {
		l = fmt.Sprintf("%s.%d", l, a.expanded)
	}
	a.prog.Debug.Labels = append(a.prog.Debug.Labels, Label{l, index})
}

// alloc reads the rest of .alloc NAME, size, align. Memory is given out from
// address 0 on. Where directive gave no size, what was given out is the size.
func (a *assembler) alloc(size *uint32, directive string, align int64) {
	t := a.peek()
	if !a.expect(name, "write .alloc NAME, size, align") || !a.expect(',', "write .alloc NAME, size, align") {
		return
	}
	col := a.peek().col
	n, ok := a.number("the size", 1, math.MaxUint32)
	if !ok {
		return
	}
	if a.accept(',') {
		if align, ok = a.number("the alignment", align, 1<<31); ok && align&(align-1) != 0 {
			a.fail(col, "the alignment is %d; it is a power of two", align)
			return
		}
	}
	if !ok || !a.expect(end, "the directive ends here") {
		return
	}
	used := &a.used[0]
	if directive == ".acc" {
		used = &a.used[1]
		n = (n + 3) &^ 3
	}
	at := (*used + align - 1) &^ (align - 1)
	limit := int64(math.MaxUint32)
	if a.seen[directive] > 0 {
		limit = int64(*size)
	}
	if at+n > limit {
		a.fail(t.col, "%s needs %d bytes at %#x; there are %d in all, make %s larger", t.text, n, at, limit, directive)
		return
	}
	if *used = at + n; a.seen[directive] == 0 {
		*size = uint32(at + n)
	}
	errs := len(a.errs)
	if a.define(t, at); len(a.errs) == errs {
		s := &a.scopes[len(a.scopes)-1]
		if s.sizes == nil {
			s.sizes = map[string]int64{}
		}
		s.sizes[t.text] = n
	}
}
