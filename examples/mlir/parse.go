// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strconv"
	"strings"
)

// op is an operation of MLIR's generic form. Values have their names with the %; attributes and types are text, with the aliases of
// attributes replaced.
type op struct {
	name        string
	line        int
	results     []string
	operands    []string
	attrs       map[string]string // inherent ones and others
	regions     []region
	types       []string // of the operands
	resultTypes []string
}

// region has one block: the dialects that are translated here have no others.
type region struct {
	args, types []string
	ops         []*op
}

// parse reads a module as mlir-opt --mlir-print-op-generic prints it and returns its functions by name.
func parse(text string) (map[string]*op, error) {
	p := &parser{rest: text, alias: map[string]string{}, line: 1}
	var module *op
	err := p.try(func() {
		for p.peek("#") {
			name := p.until(" =")
			p.expect("=")
			p.alias[name] = p.until("\n")
		}
		module = p.op()
		p.space()
		if p.rest != "" {
			p.fail("%.20q behind the module", p.rest)
		}
	})
	if err != nil {
		return nil, err
	}
	functions := map[string]*op{}
	for _, r := range module.regions {
		for _, o := range r.ops {
			name, err := strconv.Unquote(o.attrs["sym_name"])
			if o.name != "func.func" || err != nil || len(o.regions) != 1 {
				return nil, o.errorf("a module of functions is wanted")
			}
			functions[name] = o
		}
	}
	return functions, nil
}

// errorf says what is wrong with an operation, and where.
func (o *op) errorf(format string, args ...any) error {
	return fmt.Errorf("line %d: %s: %s", o.line, o.name, fmt.Sprintf(format, args...))
}

// forms says how many operands, results and regions the operations that are translated have at least.
var forms = map[string][3]int{
	"arith.constant": {0, 1, 0}, "func.return": {0, 0, 0},
	"scf.for": {3, 0, 1}, "scf.yield": {0, 0, 0},
	"memref.alloc": {0, 1, 0}, "memref.dealloc": {1, 0, 0}, "memref.subview": {1, 1, 0}, "memref.copy": {2, 0, 0},
	"tensor.empty": {0, 1, 0}, "tensor.pad": {1, 1, 1}, "tensor.collapse_shape": {1, 1, 0}, "tensor.expand_shape": {1, 1, 0},
	"linalg.copy": {2, 0, 0}, "linalg.fill": {2, 0, 1}, "linalg.broadcast": {2, 0, 1}, "linalg.matmul": {3, 0, 1}, "linalg.conv_2d_nhwc_hwcf": {3, 0, 1},
	"linalg.generic": {2, 0, 1},
}

// wellFormed reports whether o has what its translation looks at.
func (o *op) wellFormed() error {
	form := forms[o.name]
	if len(o.operands) < form[0] || len(o.results) < form[1] || len(o.regions) < form[2] || len(o.resultTypes) < len(o.results) {
		return o.errorf("%d operands, %d results and %d regions; it has at least %d, %d and %d", len(o.operands), len(o.results), len(o.regions), form[0], form[1], form[2])
	}
	return nil
}

// ints is an attribute of the form array<i64: 1, 2>.
func (o *op) ints(attr string) ([]int, error) {
	text, ok := strings.CutPrefix(o.attrs[attr], "array<i64")
	if !ok {
		return nil, o.errorf("no list of integers %s", attr)
	}
	var v []int
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" ,:>", r) }) {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, o.errorf("%s: %q is not an integer", attr, word)
		}
		v = append(v, n)
	}
	return v, nil
}

// parser takes text apart. A mistake ends it by a panic that try turns into the error.
type parser struct {
	rest  string
	alias map[string]string
	line  int
	depth int // regions that are open
}

type syntax struct{ err error }

func (p *parser) try(f func()) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s, ok := r.(syntax)
			if !ok {
				panic(r)
			}
			err = s.err
		}
	}()
	f()
	return nil
}

func (p *parser) fail(format string, args ...any) {
	panic(syntax{fmt.Errorf("line %d: %s; the text has to be what mlir-opt --mlir-print-op-generic prints", p.line, fmt.Sprintf(format, args...))})
}

func (p *parser) take(n int) string {
	s := p.rest[:n]
	p.line += strings.Count(s, "\n")
	p.rest = p.rest[n:]
	return s
}

func (p *parser) space() { p.take(len(p.rest) - len(strings.TrimLeft(p.rest, " \t\r\n"))) }

func (p *parser) peek(s string) bool {
	p.space()
	return strings.HasPrefix(p.rest, s)
}

func (p *parser) accept(s string) bool {
	if !p.peek(s) {
		return false
	}
	p.take(len(s))
	return true
}

func (p *parser) expect(s string) {
	if !p.accept(s) {
		p.fail("%q wanted before %.20q", s, p.rest)
	}
}

func (p *parser) until(s string) string {
	p.space()
	n := strings.Index(p.rest, s)
	if n < 0 {
		p.fail("no %q behind %.20q", s, p.rest)
	}
	return strings.TrimSpace(p.take(n))
}

func (p *parser) quoted() string {
	p.space()
	q, err := strconv.QuotedPrefix(p.rest)
	if err != nil {
		p.fail("a string wanted before %.20q", p.rest)
	}
	s, err := strconv.Unquote(p.take(len(q)))
	if err != nil {
		p.fail("string %.20q: %v", q, err)
	}
	return s
}

// value takes the name of a value, with its number if the operation that makes it has several results.
func (p *parser) value() string {
	p.space()
	n := 0
	for n < len(p.rest) && !strings.ContainsRune(" ,:)=\n", rune(p.rest[n])) {
		n++
	}
	if n < 2 || p.rest[0] != '%' {
		p.fail("a value wanted before %.20q", p.rest)
	}
	return p.take(n)
}

// balanced takes the text of a type or of an attribute: up to a comma or a bracket that it did not open.
func (p *parser) balanced() string {
	p.space()
	depth, i := 0, 0
scan:
	for i < len(p.rest) {
		switch c := p.rest[i]; {
		case c == '"':
			q, err := strconv.QuotedPrefix(p.rest[i:])
			if err != nil {
				p.fail("a string has no end")
			}
			i += len(q) - 1
		case c == '-' && strings.HasPrefix(p.rest[i:], "->"):
			if depth == 0 {
				break scan
			}
			i++
		case strings.IndexByte("<([{", c) >= 0:
			depth++
		case strings.IndexByte(">)]}", c) >= 0:
			if depth == 0 {
				break scan
			}
			depth--
		case (c == ',' || c == '\n') && depth == 0:
			break scan
		}
		i++
	}
	if i == 0 {
		p.fail("a type or an attribute wanted before %.20q", p.rest)
	}
	return strings.TrimSpace(p.take(i))
}

// list takes items between open and shut.
func (p *parser) list(open, shut string, item func()) {
	p.expect(open)
	for n := 0; !p.accept(shut); n++ {
		if n > 0 {
			p.expect(",")
		}
		item()
	}
}

func (p *parser) dictionary(open, shut string, attrs map[string]string) {
	p.list(open, shut, func() {
		p.space()
		n := strings.IndexAny(p.rest, "=,}>")
		if n < 0 {
			p.fail("an attribute has no end")
		}
		name, text := strings.TrimSpace(p.take(n)), ""
		if p.accept("=") {
			text = p.balanced()
			if p.accept("->") { // a function type
				text += " -> " + p.balanced()
			}
		}
		for from, to := range p.alias {
			text = replaceWord(text, from, to)
		}
		attrs[name] = text
	})
}

// replaceWord replaces from where no letter or digit follows it.
func replaceWord(text, from, to string) string {
	var b strings.Builder
	for {
		i := strings.Index(text, from)
		if i < 0 {
			return b.String() + text
		}
		end := i + len(from)
		b.WriteString(text[:i])
		if end < len(text) && (text[end] == '_' || text[end] >= '0' && text[end] <= '9' || text[end] >= 'a' && text[end] <= 'z') {
			b.WriteString(from)
		} else {
			b.WriteString(to)
		}
		text = text[end:]
	}
}

func (p *parser) op() *op {
	o := &op{attrs: map[string]string{}}
	for p.peek("%") {
		name := p.value()
		if p.accept(":") {
			count, err := strconv.Atoi(p.until(" "))
			if err != nil || count < 1 || count > 1000 {
				p.fail("number of results: %v", err)
			}
			for i := range count {
				o.results = append(o.results, fmt.Sprintf("%s#%d", name, i))
			}
		} else {
			o.results = append(o.results, name)
		}
		if !p.accept(",") {
			p.expect("=")
			break
		}
	}
	p.space()
	o.line = p.line
	o.name = p.quoted()
	p.list("(", ")", func() { o.operands = append(o.operands, p.value()) })
	if p.peek("<{") {
		p.expect("<")
		p.dictionary("{", "}", o.attrs)
		p.expect(">")
	}
	if p.peek("(") {
		p.list("(", ")", func() { o.regions = append(o.regions, p.region()) })
	}
	if p.peek("{") {
		p.dictionary("{", "}", o.attrs)
	}
	p.expect(":")
	p.list("(", ")", func() { o.types = append(o.types, p.balanced()) })
	p.expect("->")
	if p.peek("(") {
		p.list("(", ")", func() { o.resultTypes = append(o.resultTypes, p.balanced()) })
	} else {
		o.resultTypes = append(o.resultTypes, p.balanced())
	}
	if len(o.types) != len(o.operands) || len(o.resultTypes) != len(o.results) && len(o.results) > 0 {
		p.fail("%s has %d operands, %d types of operands, %d results and %d types of results", o.name, len(o.operands), len(o.types), len(o.results), len(o.resultTypes))
	}
	return o
}

func (p *parser) region() region {
	var r region
	if p.depth++; p.depth > 100 {
		p.fail("more than 100 regions inside each other")
	}
	p.expect("{")
	if p.accept("^bb0") {
		p.list("(", ")", func() {
			r.args = append(r.args, p.value())
			p.expect(":")
			r.types = append(r.types, p.balanced())
		})
		p.expect(":")
	}
	for !p.accept("}") {
		if p.peek("^") {
			p.fail("a region with several blocks")
		}
		r.ops = append(r.ops, p.op())
	}
	p.depth--
	return r
}
