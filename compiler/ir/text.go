// SPDX-License-Identifier: Apache-2.0

package ir

import (
	"encoding/base64"
	"fmt"
	"hash/crc32"
	"io"
	"strconv"
	"strings"
)

// Print writes the graph as text. With elide, constants of more than 64 bytes are named by size and
// CRC-32 instead of printed; Parse refuses such text. The text of a graph is always the same.
func (g *Graph) Print(w io.Writer, elide bool) error {
	var b strings.Builder
	fmt.Fprintf(&b, "graph %s\n", strconv.Quote(g.Name))
	if g.After != "" {
		fmt.Fprintf(&b, "after %s\n", strconv.Quote(g.After))
	}
	for _, t := range g.Inputs {
		b.WriteString("input ")
		printTensor(&b, t)
		b.WriteByte('\n')
	}
	seen := map[*Tensor]bool{}
	constant := func(t *Tensor) {
		if !t.Const() || seen[t] {
			return
		}
		seen[t] = true
		b.WriteString("const ")
		printTensor(&b, t)
		if elide && len(t.Data) > 64 {
			fmt.Fprintf(&b, " = elided %d %08x\n", len(t.Data), crc32.ChecksumIEEE(t.Data))
		} else {
			fmt.Fprintf(&b, " = %s\n", strconv.Quote(base64.StdEncoding.EncodeToString(t.Data)))
		}
	}
	for _, n := range g.Nodes {
		for _, t := range n.Inputs {
			constant(t)
		}
		fmt.Fprintf(&b, "node %s %s(", strconv.Quote(n.Name), n.Op)
		for i, t := range n.Inputs {
			if i > 0 {
				b.WriteString(", ")
			}
			printName(&b, t)
		}
		b.WriteString(") -> (")
		for i, t := range n.Outputs {
			if i > 0 {
				b.WriteString(", ")
			}
			printTensor(&b, t)
		}
		b.WriteString(")")
		if len(n.Attrs) > 0 {
			b.WriteString(" {")
			for i, name := range n.Attrs.Names() {
				if i > 0 {
					b.WriteString(", ")
				}
				fmt.Fprintf(&b, "%s=", name)
				printAttr(&b, n.Attrs[name])
			}
			b.WriteString("}")
		}
		b.WriteByte('\n')
	}
	for _, t := range g.Outputs {
		constant(t)
		b.WriteString("output ")
		printName(&b, t)
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// String is the text of Print, with constants elided.
func (g *Graph) String() string {
	var b strings.Builder
	_ = g.Print(&b, true) // a Builder does not fail
	return b.String()
}

func printName(b *strings.Builder, t *Tensor) {
	if t == nil {
		b.WriteByte('_')
		return
	}
	b.WriteByte('%')
	if plain(t.Name) {
		b.WriteString(t.Name)
	} else {
		b.WriteString(strconv.Quote(t.Name))
	}
}

// plain reports whether a name needs no quotes.
func plain(s string) bool {
	for i := range len(s) {
		if !plainByte(s[i]) {
			return false
		}
	}
	return s != ""
}

func plainByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || c == '.' || c == '/'
}

func printTensor(b *strings.Builder, t *Tensor) {
	printName(b, t)
	if t == nil {
		return
	}
	fmt.Fprintf(b, ": %s[", t.Type)
	for i, d := range t.Shape {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(strconv.Itoa(d))
	}
	b.WriteByte(']')
	if q := t.Quant; q != nil {
		b.WriteString(" quant(")
		printAttr(b, q.Scales)
		b.WriteString(", ")
		printAttr(b, q.Zeros)
		fmt.Fprintf(b, ", %d)", q.Axis)
	}
}

func printFloat(b *strings.Builder, f float32) {
	b.WriteString(strconv.FormatFloat(float64(f), 'g', -1, 32))
}

func printAttr(b *strings.Builder, v any) {
	list := func(kind string, n int, item func(i int)) {
		b.WriteString(kind)
		b.WriteByte('[')
		for i := range n {
			if i > 0 {
				b.WriteString(", ")
			}
			item(i)
		}
		b.WriteByte(']')
	}
	switch v := v.(type) {
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case float32:
		b.WriteString("float ")
		printFloat(b, v)
	case string:
		b.WriteString(strconv.Quote(v))
	case []int64:
		list("", len(v), func(i int) { b.WriteString(strconv.FormatInt(v[i], 10)) })
	case []float32:
		list("floats", len(v), func(i int) { printFloat(b, v[i]) })
	case []string:
		list("strings", len(v), func(i int) { b.WriteString(strconv.Quote(v[i])) })
	default:
		panic(fmt.Sprintf("ir: BUG: attribute of type %T", v))
	}
}
