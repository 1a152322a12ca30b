// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"math"
	"slices"
	"strconv"
)

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
		if a.accept('(') {
			return a.call(t, depth+1)
		}
		if v, ok := a.value(t.text); ok {
			return v, true
		}
		if a.doubts.names[t.text] {
			a.doubts.hushed++
			return 0, false
		}
		fix := "define it before with .equ"
		if near := nearest(t.text, a.names()); near != "" {
			fix = "did you mean " + near + "?"
		}
		a.fail(t.col, "%s is not defined; %s", t.text, fix)
		return 0, false
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

// functions are those of constant expressions (§5.8). The number of arguments is
// at least so many, and more only for those that take any number.
var functions = []struct {
	name string
	args int
	any  bool
}{{"min", 1, true}, {"max", 1, true}, {"align", 2, false}, {"ceildiv", 2, false}, {"sizeof", 1, false}}

// call computes function f, whose parenthesis was opened.
func (a *assembler) call(f token, depth int) (int64, bool) {
	var known []string
	for _, k := range functions {
		known = append(known, k.name)
	}
	n := slices.Index(known, f.text)
	if n < 0 {
		a.fail(f.col, "there is no function %s%s", f.text, suggest(f.text, known))
		return 0, false
	}
	if f.text == "sizeof" {
		t := a.next()
		size, ok := a.size(t.text)
		if !ok {
			a.fail(t.col, "%q was not allocated; sizeof takes a name of .alloc or .alloc_acc", t.text)
			return 0, false
		}
		return size, a.expect(')', "sizeof takes one name")
	}
	var args []int64
	for {
		v, ok := a.binary(1, depth)
		if !ok {
			return 0, false
		}
		if args = append(args, v); !a.accept(',') {
			break
		}
	}
	if !a.expect(')', "the parenthesis is not closed") {
		return 0, false
	}
	if len(args) < functions[n].args || len(args) > functions[n].args && !functions[n].any {
		a.fail(f.col, "%s has %d arguments; it takes %d", f.text, len(args), functions[n].args)
		return 0, false
	}
	switch f.text {
	case "min":
		return slices.Min(args), true
	case "max":
		return slices.Max(args), true
	}
	x, y := args[0], args[1]
	if x < 0 || y < 1 || x > math.MaxInt64-y {
		a.fail(f.col, "%s(%d, %d): the first is at least 0, the second at least 1, and their sum fits in 64 bits", f.text, x, y)
		return 0, false
	}
	x = (x + y - 1) / y
	if f.text == "align" {
		x *= y
	}
	return x, true
}
