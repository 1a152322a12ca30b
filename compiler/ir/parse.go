// SPDX-License-Identifier: Apache-2.0

package ir

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// Parse reads what Print wrote, one statement a line; blank lines and lines that begin with #
// are skipped. It checks the form, and that names are defined before they are used and once
// only; Verify checks the rest. An error names the line.
func Parse(text string) (*Graph, error) {
	g := &Graph{}
	defs := map[string]*Tensor{}
	for i, line := range strings.Split(text, "\n") {
		p := &parser{rest: strings.TrimSpace(line), defs: defs}
		if p.rest == "" || p.rest[0] == '#' {
			continue
		}
		p.statement(g)
		if p.err == nil && p.rest != "" {
			p.fail("unexpected %q at the end", p.rest)
		}
		if p.err != nil {
			return nil, fmt.Errorf("ir: line %d: %w", i+1, p.err)
		}
	}
	return g, nil
}

// parser takes one line apart. After the first error, which stays, its methods do nothing.
type parser struct {
	rest string
	defs map[string]*Tensor
	err  error
}

func (p *parser) fail(format string, args ...any) {
	if p.err == nil {
		p.err = fmt.Errorf(format, args...)
	}
	p.rest = ""
}

func (p *parser) space() { p.rest = strings.TrimLeft(p.rest, " \t") }

// accept takes s if it comes next.
func (p *parser) accept(s string) bool {
	p.space()
	rest, ok := strings.CutPrefix(p.rest, s)
	if ok && p.err == nil {
		p.rest = rest
		return true
	}
	return false
}

func (p *parser) expect(s string) {
	if !p.accept(s) {
		p.fail("expected %q before %.20q", s, p.rest)
	}
}

// word takes letters, digits and the signs of names and numbers.
func (p *parser) word() string {
	p.space()
	n := 0
	for n < len(p.rest) && (plainByte(p.rest[n]) || p.rest[n] == '-' || p.rest[n] == '+') {
		n++
	}
	if n == 0 {
		p.fail("expected a word before %.20q", p.rest)
		return ""
	}
	w := p.rest[:n]
	p.rest = p.rest[n:]
	return w
}

func (p *parser) quoted() string {
	p.space()
	q, err := strconv.QuotedPrefix(p.rest)
	if err != nil {
		p.fail("expected a quoted string before %.20q", p.rest)
		return ""
	}
	s, err := strconv.Unquote(q)
	if err != nil {
		p.fail("string %s: %v", q, err)
		return ""
	}
	p.rest = p.rest[len(q):]
	return s
}

func (p *parser) integer() int64 {
	w := p.word()
	v, err := strconv.ParseInt(w, 10, 64)
	if err != nil && p.err == nil {
		p.fail("%q is not an integer", w)
	}
	return v
}

func (p *parser) float() float32 {
	w := p.word()
	v, err := strconv.ParseFloat(w, 32)
	if err != nil && p.err == nil {
		p.fail("%q is not an fp32 number", w)
	}
	return float32(v)
}

// list takes items between brackets.
func (p *parser) list(item func()) {
	p.expect("[")
	for n := 0; p.err == nil && !p.accept("]"); n++ {
		if n > 0 {
			p.expect(",")
		}
		item()
	}
}

func (p *parser) ints() []int64 {
	v := []int64{}
	p.list(func() { v = append(v, p.integer()) })
	return v
}

func (p *parser) floats() []float32 {
	v := []float32{}
	p.expect("floats")
	p.list(func() { v = append(v, p.float()) })
	return v
}

func (p *parser) name() string {
	p.expect("%")
	if strings.HasPrefix(p.rest, `"`) {
		return p.quoted()
	}
	return p.word()
}

// tensor takes the definition of a new tensor.
func (p *parser) tensor() *Tensor {
	t := &Tensor{Name: p.name()}
	p.expect(":")
	w := p.word()
	var ok bool
	if t.Type, ok = ParseType(w); !ok {
		p.fail("%q is not a type", w)
	}
	for _, d := range p.ints() {
		t.Shape = append(t.Shape, int(d))
	}
	if p.accept("quant") {
		p.expect("(")
		q := &Quant{Scales: p.floats()}
		p.expect(",")
		q.Zeros = p.ints()
		p.expect(",")
		q.Axis = int(p.integer())
		p.expect(")")
		t.Quant = q
	}
	if p.err == nil && p.defs[t.Name] != nil {
		p.fail("tensor %q is defined twice", t.Name)
	}
	if p.err == nil {
		p.defs[t.Name] = t
	}
	return t
}

// use takes the name of a tensor, or _ for none.
func (p *parser) use() *Tensor {
	if p.accept("_") {
		return nil
	}
	name := p.name()
	t := p.defs[name]
	if t == nil {
		p.fail("tensor %q is not defined above", name)
	}
	return t
}

func (p *parser) attr() any {
	p.space()
	switch {
	case strings.HasPrefix(p.rest, `"`):
		return p.quoted()
	case strings.HasPrefix(p.rest, "["):
		return p.ints()
	case strings.HasPrefix(p.rest, "floats"):
		return p.floats()
	case p.accept("strings"):
		v := []string{}
		p.list(func() { v = append(v, p.quoted()) })
		return v
	case p.accept("float "):
		return p.float()
	}
	return p.integer()
}

func (p *parser) statement(g *Graph) {
	switch word := p.word(); word {
	case "graph":
		g.Name = p.quoted()
	case "after":
		g.After = p.quoted()
	case "input":
		g.Inputs = append(g.Inputs, p.tensor())
	case "const":
		t := p.tensor()
		p.expect("=")
		if p.accept("elided") {
			p.fail("tensor %q: the constant was left out when the text was printed; --dump-after=PASS=FILE.npuir writes all", t.Name)
		}
		data, err := base64.StdEncoding.DecodeString(p.quoted())
		if err != nil {
			p.fail("tensor %q: the constant is no base64: %v: the text is cut or damaged: write it again, --dump-after=PASS=FILE.npuir", t.Name, err)
		}
		t.Data = append([]byte{}, data...)
	case "node":
		n := &Node{Name: p.quoted(), Op: p.word()}
		p.expect("(")
		for i := 0; p.err == nil && !p.accept(")"); i++ {
			if i > 0 {
				p.expect(",")
			}
			n.Inputs = append(n.Inputs, p.use())
		}
		p.expect("->")
		p.expect("(")
		for i := 0; p.err == nil && !p.accept(")"); i++ {
			if i > 0 {
				p.expect(",")
			}
			if p.accept("_") {
				n.Outputs = append(n.Outputs, nil)
			} else {
				n.Outputs = append(n.Outputs, p.tensor())
			}
		}
		if p.accept("{") {
			n.Attrs = Attrs{}
			for i := 0; p.err == nil && !p.accept("}"); i++ {
				if i > 0 {
					p.expect(",")
				}
				name := p.word()
				p.expect("=")
				if n.Attrs.Has(name) {
					p.fail("attribute %q is given twice", name)
				}
				n.Attrs[name] = p.attr()
			}
		}
		g.Nodes = append(g.Nodes, n)
	case "output":
		t := p.use()
		if t == nil {
			p.fail("an output needs a name")
		}
		g.Outputs = append(g.Outputs, t)
	default:
		p.fail("%q is not a statement: graph, after, input, const, node or output", word)
	}
}
