// SPDX-License-Identifier: Apache-2.0

package onnx

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// The messages below have the fields of onnx.proto that the importer reads, by their numbers.
// Byte slices point into the file.

type model struct {
	graph     []byte
	opsets    map[string]int64
	functions []function
}

// function is one of the model's own.
type function struct {
	domain, name, overload string
	inputs, outputs        []string
	nodes                  []node
	defaults               []attribute // of those that it has
	opsets                 map[string]int64
}

type graph struct {
	name            string
	nodes           []node
	initializers    []tensor
	inputs, outputs []value
	sparse          bool
}

type node struct {
	name, op, domain string
	overload         string
	inputs, outputs  []string
	attrs            []attribute
}

type attribute struct {
	name    string
	kind    int64
	f       float32
	i       int64
	s       string
	t       *tensor
	floats  []float32
	ints    []int64
	strings []string
	ref     string
	g       []byte // a graph
}

type tensor struct {
	name     string
	dims     []int64
	kind     int64
	raw      []byte
	hasRaw   bool
	words    []uint64 // int32_data, int64_data, uint64_data, float_data and double_data, as bits
	strings  int
	external map[string]string // nil unless the data is elsewhere
}

// value is an input or output of the graph. dims has −1 for an unknown dimension, whose name is in params.
type value struct {
	name   string
	kind   int64 // 0 if it is no tensor
	dims   []int64
	params []string
	shaped bool
}

// field is one field of a message: a number, or bytes.
type field struct {
	num   protowire.Number
	typ   protowire.Type
	value uint64
	bytes []byte
}

// fields calls f for each field of a message.
func fields(what string, b []byte, f func(f field) error) error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("%s: %w", what, protowire.ParseError(n))
		}
		b = b[n:]
		v := field{num: num, typ: typ}
		switch typ {
		case protowire.VarintType:
			v.value, n = protowire.ConsumeVarint(b)
		case protowire.Fixed32Type:
			var x uint32
			x, n = protowire.ConsumeFixed32(b)
			v.value = uint64(x)
		case protowire.Fixed64Type:
			v.value, n = protowire.ConsumeFixed64(b)
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return ended(what, v, b, f, protowire.ParseError(n))
		}
		b = b[n:]
		if err := f(v); err != nil {
			return err
		}
	}
	return nil
}

// ended is the error of a message that ends in field v, of which b is there: that of the innermost message, which says most.
func ended(what string, v field, b []byte, f func(f field) error, err error) error {
	name := fieldNames[what][v.num]
	if name == "" {
		name = fmt.Sprintf("field %d", v.num)
	}
	size, n := protowire.ConsumeVarint(b)
	if v.typ != protowire.BytesType || n < 0 || size <= uint64(len(b)-n) {
		return fmt.Errorf("%s: %s: %w", what, name, err)
	}
	v.bytes = b[n:]
	if err := f(v); err != nil {
		return err
	}
	return fmt.Errorf("the file ends in %s of %s: %d of %d bytes are there", name, what, len(v.bytes), size)
}

// fieldNames are those of the fields that take the most of a file.
var fieldNames = map[string]map[protowire.Number]string{
	"model":  {7: "graph"},
	"graph":  {1: "a node", 2: "the name", 5: "an initializer", 11: "an input", 12: "an output"},
	"node":   {1: "the inputs", 2: "the outputs", 3: "the name", 4: "op_type", 5: "an attribute"},
	"tensor": {4: "float_data", 5: "int32_data", 7: "int64_data", 8: "the name", 9: "raw_data", 10: "double_data", 11: "uint64_data"},
}

// place is what is wrong with the file's form, and where.
type place struct {
	graph, node, op, tensor string
	err                     error
}

func (p *place) Error() string { return p.err.Error() }
func (p *place) Unwrap() error { return p.err }

// want is an error unless the field has that type.
func (f field) want(what string, typ protowire.Type) error {
	if f.typ != typ {
		return fmt.Errorf("%s: field %d has wire type %d, not %d", what, f.num, f.typ, typ)
	}
	return nil
}

// packed appends the numbers of a repeated field, packed or not. elem is the wire type of one.
func (f field) packed(what string, elem protowire.Type, to []uint64) ([]uint64, error) {
	if f.typ == elem {
		return append(to, f.value), nil
	}
	if err := f.want(what, protowire.BytesType); err != nil {
		return nil, err
	}
	for b := f.bytes; len(b) > 0; {
		var v uint64
		var n int
		switch elem {
		case protowire.Fixed32Type:
			var x uint32
			x, n = protowire.ConsumeFixed32(b)
			v = uint64(x)
		case protowire.Fixed64Type:
			v, n = protowire.ConsumeFixed64(b)
		default:
			v, n = protowire.ConsumeVarint(b)
		}
		if n < 0 {
			return nil, fmt.Errorf("%s: field %d: %w", what, f.num, protowire.ParseError(n))
		}
		b = b[n:]
		to = append(to, v)
	}
	return to, nil
}

func parseModel(b []byte) (m model, err error) {
	m.opsets = map[string]int64{}
	err = fields("model", b, func(f field) error {
		switch f.num {
		case 7:
			m.graph = f.bytes
			return f.want("model's graph", protowire.BytesType)
		case 8:
			return opset(f.bytes, m.opsets)
		case 25:
			fn, err := parseFunction(f.bytes)
			m.functions = append(m.functions, fn)
			return err
		}
		return nil
	})
	return m, err
}

// opset adds what a message says of a domain's version.
func opset(b []byte, to map[string]int64) error {
	var domain string
	var version int64
	err := fields("opset", b, func(f field) error {
		switch f.num {
		case 1:
			domain = string(f.bytes)
		case 2:
			version = int64(f.value)
		}
		return nil
	})
	to[domain] = version
	return err
}

func parseFunction(b []byte) (fn function, err error) {
	fn.opsets = map[string]int64{}
	err = fields("function", b, func(f field) error {
		if err := f.want("function", protowire.BytesType); err != nil {
			return err
		}
		switch f.num {
		case 1:
			fn.name = string(f.bytes)
		case 4:
			fn.inputs = append(fn.inputs, string(f.bytes))
		case 5:
			fn.outputs = append(fn.outputs, string(f.bytes))
		case 7:
			n, err := parseNode(f.bytes)
			fn.nodes = append(fn.nodes, n)
			return err
		case 9:
			return opset(f.bytes, fn.opsets)
		case 10:
			fn.domain = string(f.bytes)
		case 11:
			a, err := parseAttribute(f.bytes)
			fn.defaults = append(fn.defaults, a)
			return err
		case 13:
			fn.overload = string(f.bytes)
		}
		return nil
	})
	return fn, err
}

func parseGraph(b []byte) (g graph, err error) {
	in := func(p place, err error) error {
		if err == nil || errors.As(err, new(*place)) {
			return err
		}
		p.graph, p.err = g.name, err
		return &p
	}
	err = fields("graph", b, func(f field) error {
		switch f.num {
		case 1, 2, 5, 11, 12, 15:
			if err := f.want("graph", protowire.BytesType); err != nil {
				return err
			}
		}
		switch f.num {
		case 1:
			n, err := parseNode(f.bytes)
			g.nodes = append(g.nodes, n)
			return in(place{node: cmp.Or(n.name, fmt.Sprintf("%s_%d", n.op, len(g.nodes)-1)), op: n.op, tensor: strings.Join(n.outputs[:min(len(n.outputs), 1)], "")}, err)
		case 2:
			g.name = string(f.bytes)
		case 5:
			t, err := parseTensor(f.bytes)
			g.initializers = append(g.initializers, t)
			return in(place{tensor: cmp.Or(t.name, fmt.Sprintf("initializer %d", len(g.initializers)-1))}, err)
		case 11:
			v, err := parseValue(f.bytes)
			g.inputs = append(g.inputs, v)
			return in(place{tensor: cmp.Or(v.name, fmt.Sprintf("input %d", len(g.inputs)-1))}, err)
		case 12:
			v, err := parseValue(f.bytes)
			g.outputs = append(g.outputs, v)
			return in(place{tensor: cmp.Or(v.name, fmt.Sprintf("output %d", len(g.outputs)-1))}, err)
		case 15:
			g.sparse = true
		}
		return nil
	})
	return g, in(place{}, err)
}

func parseNode(b []byte) (n node, err error) {
	err = fields("node", b, func(f field) error {
		if f.num <= 7 {
			if err := f.want("node", protowire.BytesType); err != nil {
				return err
			}
		}
		switch f.num {
		case 1:
			n.inputs = append(n.inputs, string(f.bytes))
		case 2:
			n.outputs = append(n.outputs, string(f.bytes))
		case 3:
			n.name = string(f.bytes)
		case 4:
			n.op = string(f.bytes)
		case 5:
			a, err := parseAttribute(f.bytes)
			n.attrs = append(n.attrs, a)
			return err
		case 7:
			n.domain = string(f.bytes)
		case 8:
			n.overload = string(f.bytes)
		}
		return nil
	})
	return n, err
}

func parseAttribute(b []byte) (a attribute, err error) {
	err = fields("attribute", b, func(f field) error {
		switch f.num {
		case 1:
			a.name = string(f.bytes)
		case 2:
			a.f = math.Float32frombits(uint32(f.value))
		case 3:
			a.i = int64(f.value)
		case 4:
			a.s = string(f.bytes)
		case 5:
			t, err := parseTensor(f.bytes)
			a.t = &t
			return err
		case 6:
			a.g = f.bytes
			return f.want("attribute's graph", protowire.BytesType)
		case 7:
			v, err := f.packed("attribute", protowire.Fixed32Type, nil)
			for _, x := range v {
				a.floats = append(a.floats, math.Float32frombits(uint32(x)))
			}
			return err
		case 8:
			v, err := f.packed("attribute", protowire.VarintType, nil)
			for _, x := range v {
				a.ints = append(a.ints, int64(x))
			}
			return err
		case 9:
			a.strings = append(a.strings, string(f.bytes))
		case 20:
			a.kind = int64(f.value)
		case 21:
			a.ref = string(f.bytes)
		}
		return nil
	})
	return a, err
}

func parseTensor(b []byte) (t tensor, err error) {
	elsewhere := false
	external := map[string]string{}
	err = fields("tensor", b, func(f field) (err error) {
		switch f.num {
		case 1:
			var v []uint64
			v, err = f.packed("tensor", protowire.VarintType, nil)
			for _, d := range v {
				t.dims = append(t.dims, int64(d))
			}
		case 2:
			t.kind = int64(f.value)
		case 4:
			t.words, err = f.packed("tensor", protowire.Fixed32Type, t.words)
		case 5, 7, 11:
			t.words, err = f.packed("tensor", protowire.VarintType, t.words)
		case 10:
			t.words, err = f.packed("tensor", protowire.Fixed64Type, t.words)
		case 6:
			t.strings++
		case 8:
			t.name = string(f.bytes)
		case 9:
			t.raw, t.hasRaw = f.bytes, true
			err = f.want("tensor's data", protowire.BytesType)
		case 13:
			var key, val string
			err = fields("external data", f.bytes, func(f field) error {
				switch f.num {
				case 1:
					key = string(f.bytes)
				case 2:
					val = string(f.bytes)
				}
				return nil
			})
			external[key] = val
		case 14:
			elsewhere = f.value == 1
		}
		return err
	})
	if elsewhere {
		t.external = external
	}
	return t, err
}

func parseValue(b []byte) (v value, err error) {
	err = fields("value", b, func(f field) error {
		switch f.num {
		case 1:
			v.name = string(f.bytes)
		case 2:
			return fields("type", f.bytes, func(f field) error {
				if f.num != 1 {
					return nil // a sequence, map, or other value that is no tensor
				}
				return fields("tensor type", f.bytes, func(f field) error {
					switch f.num {
					case 1:
						v.kind = int64(f.value)
					case 2:
						v.shaped = true
						return fields("shape", f.bytes, func(f field) error {
							if f.num != 1 {
								return nil
							}
							dim, param := int64(-1), ""
							err := fields("dimension", f.bytes, func(f field) error {
								switch f.num {
								case 1:
									dim = int64(f.value)
								case 2:
									param = string(f.bytes)
								}
								return nil
							})
							v.dims, v.params = append(v.dims, dim), append(v.params, param)
							return err
						})
					}
					return nil
				})
			})
		}
		return nil
	})
	return v, err
}
