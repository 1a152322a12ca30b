// SPDX-License-Identifier: Apache-2.0

// Package ktap reads and writes test results as KTAP version 1 has them
// (Linux, Documentation/dev-tools/ktap.rst), and TAP version 13, which most
// kernel selftests print. A reader of results must not believe them: whatever
// is missing, doubled or cut off is said, and nothing makes Parse fail.
package ktap

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Directives, the words behind "#" in a result line.
const (
	Skip    = "SKIP"    // the test could not run
	Todo    = "TODO"    // it is known to fail
	XFail   = "XFAIL"   // it failed as expected
	XPass   = "XPASS"   // kselftest: it was expected to fail, and passed
	Timeout = "TIMEOUT" // it did not end in time
	Error   = "ERROR"   // it did not come to a result of its own
)

var directives = []string{Skip, Todo, XFail, XPass, Timeout, Error}

// A Test is one result line with what belongs to it.
type Test struct {
	Name        string
	OK          bool
	Directive   string // one of the constants, or ""
	Reason      string // behind the directive
	Diagnostics []string
	Children    []*Test // subtests; Test is their sum
}

// A Verdict is what a test counts as.
type Verdict int

// Verdicts.
const (
	Passed Verdict = iota
	Failed
	Skipped
	Known // failed, and was expected to
)

// Verdict says what t counts as. An unexpected success is a failure: the
// expectation is wrong.
func (t *Test) Verdict() Verdict {
	switch {
	case t.OK && t.Directive == Skip:
		return Skipped
	case t.Directive == XFail, !t.OK && t.Directive == Todo:
		return Known
	case t.OK && t.Directive != XPass:
		return Passed
	}
	return Failed
}

// Leaves calls f for every test that has no subtests, and for those that failed for
// no reason that a subtest names. path is the names from the top, joined with "/".
func Leaves(tests []*Test, f func(path string, t *Test)) {
	var walk func(prefix string, tests []*Test) (failed bool)
	walk = func(prefix string, tests []*Test) (failed bool) {
		for _, t := range tests {
			below := len(t.Children) > 0 && walk(prefix+t.Name+"/", t.Children)
			if len(t.Children) == 0 || t.Verdict() == Failed && !below {
				f(prefix+t.Name, t)
			}
			failed = failed || below || t.Verdict() == Failed
		}
		return failed
	}
	walk("", tests)
}

// maxDepth bounds nesting: kernel tests use three levels. What is deeper is a
// diagnostic.
const maxDepth = 16

// maxPlan bounds what a plan may promise, so that a lie costs no memory.
const maxPlan = 1 << 20

type level struct {
	indent      int
	plan        int // -1 before there is one
	tests       []*Test
	diagnostics []string // since the last result
	children    []*Test  // of the next result
}

// Parse reads the results of one program. problems says what is wrong with the text
// itself: a plan that was not kept, results out of order, an end in the middle. A
// caller should take any of them for a failure.
func Parse(text string) (tests []*Test, problems []string) {
	p := parser{levels: []*level{{plan: -1}}}
	n := 0
	for line := range strings.Lines(text) {
		n++
		p.number = n
		p.line(strings.TrimRight(line, " \t\r\n"))
	}
	p.number = n + 1
	if len(p.levels) > 1 {
		p.problem("ends within subtests")
	}
	p.popTo(-1)
	top := p.levels[0]
	if len(top.children) > 0 { // their sum never came
		top.tests = append(top.tests, &Test{Name: "(cut off)", Directive: Error, Children: top.children, Diagnostics: top.diagnostics})
	}
	p.close(top)
	if len(top.tests) == 0 && !p.bailed {
		p.problem("no results")
	}
	return top.tests, p.problems
}

type parser struct {
	levels   []*level
	number   int // of the line
	problems []string
	bailed   bool
}

func (p *parser) top() *level { return p.levels[len(p.levels)-1] }

func (p *parser) problem(format string, args ...any) {
	const enough = 100
	if len(p.problems) < enough {
		p.problems = append(p.problems, fmt.Sprintf("line %d: ", p.number)+fmt.Sprintf(format, args...))
	}
}

// at makes the level of this indentation the current one, opening or closing others.
func (p *parser) at(indent int) *level {
	p.popTo(indent)
	if l := p.top(); l.indent < indent {
		if len(p.levels) == 1 && len(l.tests) == 0 && len(l.children) == 0 && l.plan < 0 {
			l.indent = indent // the whole text is indented
			return l
		}
		p.levels = append(p.levels, &level{indent: indent, plan: -1})
	}
	return p.top()
}

// popTo closes the levels that are indented further.
func (p *parser) popTo(indent int) {
	for len(p.levels) > 1 && p.top().indent > indent {
		l := p.top()
		p.levels = p.levels[:len(p.levels)-1]
		if len(l.children) > 0 {
			l.tests = append(l.tests, &Test{Name: "(no result)", Directive: Error, Children: l.children})
			p.problem("subtests without a result of their own")
		}
		p.close(l)
		up := p.top()
		up.children = append(up.children, l.tests...)
		up.diagnostics = append(up.diagnostics, l.diagnostics...)
	}
}

// close compares a level with its plan.
func (p *parser) close(l *level) {
	if l.plan >= 0 && len(l.tests) != l.plan {
		p.problem("%d results, the plan says %d", len(l.tests), l.plan)
	}
	if l.plan < 0 && len(l.tests) > 0 && !p.bailed {
		p.problem("no plan")
	}
}

func (p *parser) line(line string) {
	text := strings.TrimLeft(line, " ")
	indent := len(line) - len(text)
	if text == "" {
		return
	}
	known := len(p.levels) < maxDepth || indent <= p.top().indent
	switch {
	case known && (strings.HasPrefix(text, "KTAP version ") || strings.HasPrefix(text, "TAP version ")):
		p.at(indent)
	case known && p.planLine(indent, text):
	case known && p.resultLine(indent, text):
	case strings.HasPrefix(text, "Bail out!"):
		p.bailed = true
		p.problem("%s", text)
	default:
		if rest, ok := strings.CutPrefix(text, "#"); ok {
			text = strings.TrimPrefix(rest, " ")
		}
		l := p.top()
		l.diagnostics = append(l.diagnostics, text)
	}
}

func (p *parser) planLine(indent int, text string) bool {
	rest, ok := strings.CutPrefix(text, "1..")
	if !ok {
		return false
	}
	number, rest, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(number)
	if err != nil || n < 0 || n > maxPlan {
		return false
	}
	l := p.at(indent)
	if l.plan >= 0 {
		p.problem("a second plan")
		return true
	}
	l.plan = n
	if _, directive, reason := cutDirective(rest); n == 0 && directive == Skip {
		l.plan = 1
		l.tests = append(l.tests, &Test{Name: "(all)", OK: true, Directive: Skip, Reason: reason})
	}
	return true
}

func (p *parser) resultLine(indent int, text string) bool {
	rest, ok := strings.CutPrefix(text, "ok ")
	if !ok {
		if rest, ok = strings.CutPrefix(text, "not ok "); !ok {
			return false
		}
	}
	number, name, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(number)
	if err != nil {
		return false
	}
	l := p.at(indent)
	t := &Test{OK: strings.HasPrefix(text, "ok "), Children: l.children, Diagnostics: l.diagnostics}
	l.children, l.diagnostics = nil, nil
	if n != len(l.tests)+1 {
		p.problem("result %d, want %d", n, len(l.tests)+1)
	}
	name = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(name), "- "))
	t.Name, t.Directive, t.Reason = cutDirective(name)
	if t.Name == "" { // as kselftest has it: "ok 3 # SKIP name"
		t.Name = "test " + number
	}
	l.tests = append(l.tests, t)
	return true
}

// cutDirective takes "name # WORD reason" apart, and takes escapes out of the name.
func cutDirective(s string) (name, directive, reason string) {
	for i := range len(s) {
		if s[i] != '#' || i > 0 && s[i-1] == '\\' {
			continue
		}
		word, rest, _ := strings.Cut(strings.TrimLeft(s[i+1:], " "), " ")
		for _, d := range directives {
			if strings.EqualFold(strings.TrimRight(word, ":"), d) {
				return unescape(strings.TrimSpace(s[:i])), d, strings.TrimSpace(rest)
			}
		}
	}
	return unescape(strings.TrimSpace(s)), "", ""
}

func unescape(s string) string { return strings.ReplaceAll(s, `\#`, "#") }

// flat makes one line of s, which Write can use as a name or reason.
func flat(s string) string { return strings.Join(strings.Fields(s), " ") }

// Write writes tests as one KTAP document, which Parse reads back.
func Write(w io.Writer, tests []*Test) error {
	var b strings.Builder
	write(&b, "", tests)
	_, err := io.WriteString(w, b.String())
	return err
}

func write(b *strings.Builder, indent string, tests []*Test) {
	fmt.Fprintf(b, "%sKTAP version 1\n%s1..%d\n", indent, indent, len(tests))
	for i, t := range tests {
		if len(t.Children) > 0 {
			write(b, indent+"  ", t.Children)
		}
		for _, d := range t.Diagnostics {
			fmt.Fprintf(b, "%s# %s\n", indent, strings.TrimRight(strings.ReplaceAll(d, "\n", " "), " \t\r"))
		}
		not := "not "
		if t.OK {
			not = ""
		}
		fmt.Fprintf(b, "%s%sok %d %s", indent, not, i+1, strings.ReplaceAll(flat(t.Name), "#", `\#`))
		if t.Directive != "" {
			fmt.Fprintf(b, " # %s", t.Directive)
			if t.Reason != "" {
				b.WriteString(" " + flat(t.Reason))
			}
		}
		b.WriteByte('\n')
	}
}
