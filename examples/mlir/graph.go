// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// tensor is a value of tensor type.
type tensor struct {
	shaped
	name  string // in the graph; "" until a node or a const has it
	data  []byte // of a constant
	bias  string // of an int32 start of sums: the constant that each row of it is; "0" if it is 0; "?" if it is undefined
	low   []int  // of a tensor.pad whose convolution has not come yet
	high  []int
	under string // what is padded
	sums  *product
}

// product is a convolution or matmul that waits for its requantization.
type product struct {
	op     string
	inputs []string
	attrs  string
	uses   int
}

// grapher writes a function whose operands are tensors down as the compiler's graph (compiler/ir).
type grapher struct {
	out     strings.Builder
	values  map[string]*tensor
	scalars map[string]int
	uses    map[string]int
	names   int
}

// types of the graph, by those of MLIR.
var graphTypes = map[string]string{"i8": "int8", "i32": "int32"}

// graph translates a function to the text that npuemu compile takes as .npuir.
func graph(f *op) (string, error) {
	g := &grapher{values: map[string]*tensor{}, scalars: map[string]int{}, uses: map[string]int{}}
	body := f.regions[0]
	fmt.Fprintf(&g.out, "graph %s\n", f.attrs["sym_name"])
	for i, name := range body.args {
		s, err := parseShaped(body.types[i])
		if err != nil || graphTypes[s.element] == "" {
			return "", f.errorf("argument %d: %s: a tensor of i8 or i32 and of known shape is wanted", i, body.types[i])
		}
		t := &tensor{shaped: s, name: "arg" + strconv.Itoa(i)}
		g.values[name] = t
		fmt.Fprintf(&g.out, "input %s\n", g.declare(t))
	}
	for _, o := range body.ops {
		for _, name := range o.operands {
			g.uses[name]++
		}
	}
	for _, o := range body.ops {
		if err := g.op(o); err != nil {
			return "", err
		}
	}
	return g.out.String(), nil
}

// declare is a tensor's name, type and shape.
func (g *grapher) declare(t *tensor) string {
	return fmt.Sprintf("%%%s: %s[%s]", t.name, graphTypes[t.element], join(t.shape))
}

func join(list []int) string {
	words := make([]string, len(list))
	for i, n := range list {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ", ")
}

// fresh is a name that nothing has.
func (g *grapher) fresh(kind string) string {
	g.names++
	return kind + strconv.Itoa(g.names)
}

// node writes a node with one output and gives it its name.
func (g *grapher) node(o *op, opcode string, t *tensor, inputs []string, attrs string) {
	t.name = g.fresh("t")
	for i := range inputs {
		inputs[i] = "%" + inputs[i]
	}
	fmt.Fprintf(&g.out, "node \"%s %s\" %s(%s) -> (%s)", o.name, t.name, opcode, strings.Join(inputs, ", "), g.declare(t))
	if attrs != "" {
		fmt.Fprintf(&g.out, " {%s}", attrs)
	}
	g.out.WriteByte('\n')
}

// product writes the node of a convolution or matmul. Matrices of npu.gemm are a batch of one.
func (g *grapher) product(o *op, t *tensor, p *product, requantization string) {
	if p.op == "npu.conv" {
		g.node(o, p.op, t, p.inputs, p.attrs+requantization)
		return
	}
	batch := &tensor{shaped: shaped{shape: append([]int{1}, t.shape...), element: t.element}}
	g.node(o, p.op, batch, p.inputs, p.attrs+requantization)
	g.node(o, "npu.reshape", t, []string{batch.name}, "")
}

// constant writes a constant and returns its name.
func (g *grapher) constant(s shaped, data []byte) string {
	t := &tensor{shaped: s, name: g.fresh("c")}
	fmt.Fprintf(&g.out, "const %s = \"%s\"\n", g.declare(t), base64.StdEncoding.EncodeToString(data))
	return t.name
}

// tensor is operand i.
func (g *grapher) tensor(o *op, i int) (*tensor, error) {
	if i >= len(o.operands) || g.values[o.operands[i]] == nil {
		return nil, o.errorf("operand %d is no tensor that is known here", i)
	}
	return g.values[o.operands[i]], nil
}

// use is operand i as an input of a node: what was put off is written.
func (g *grapher) use(o *op, i int) (*tensor, error) {
	t, err := g.tensor(o, i)
	switch {
	case err != nil || t.name != "":
		return t, err
	case t.data != nil:
		t.name = g.constant(t.shaped, t.data)
	case t.under != "":
		g.node(o, "npu.pad", t, []string{t.under}, fmt.Sprintf("pads=[%s], zero=0", join(append(slices.Clone(t.low), t.high...))))
	case t.sums != nil:
		g.product(o, t, t.sums, `rounding="none"`)
	default:
		return nil, o.errorf("operand %d has no contents that the graph could name", i)
	}
	return t, nil
}

func (g *grapher) op(o *op) error {
	if err := o.wellFormed(); err != nil {
		return err
	}
	var t *tensor
	if len(o.results) == 1 && strings.HasPrefix(o.resultTypes[0], "tensor<") {
		s, err := parseShaped(o.resultTypes[0])
		if err != nil {
			return o.errorf("%v", err)
		}
		if graphTypes[s.element] == "" {
			return o.errorf("elements of %s; i8 and i32 are translated here", s.element)
		}
		t = &tensor{shaped: s}
		g.values[o.results[0]] = t
	}
	if t == nil && o.name != "arith.constant" && o.name != "func.return" {
		return o.errorf("its result is not a tensor")
	}
	switch o.name {
	case "arith.constant":
		return g.literal(o, t)
	case "tensor.empty":
		t.bias = "?"
		return nil
	case "linalg.fill":
		if g.scalars[o.operands[0]] != 0 || t.element != "i32" {
			return o.errorf("sums start at 0 or at a bias")
		}
		t.bias = "0"
		return nil
	case "linalg.broadcast":
		row, err := g.tensor(o, 0)
		if err != nil {
			return err
		}
		if row.data == nil || row.element != "i32" || len(row.shape) != 1 || len(t.shape) == 0 || row.shape[0] != t.shape[len(t.shape)-1] {
			return o.errorf("a bias is a constant of an int32 for each of the last dimension's")
		}
		if row.name == "" {
			row.name = g.constant(row.shaped, row.data)
		}
		t.bias = row.name
		return nil
	case "tensor.pad":
		return g.pad(o, t)
	case "linalg.conv_2d_nhwc_hwcf":
		return g.conv(o, t)
	case "linalg.matmul":
		return g.matmul(o, t)
	case "linalg.generic":
		return g.requant(o, t)
	case "tensor.collapse_shape", "tensor.expand_shape":
		x, err := g.use(o, 0)
		if err == nil {
			g.node(o, "npu.reshape", t, []string{x.name}, "")
		}
		return err
	case "func.return":
		for i := range o.operands {
			x, err := g.use(o, i)
			if err != nil {
				return err
			}
			fmt.Fprintf(&g.out, "output %%%s\n", x.name)
		}
		return nil
	}
	return o.errorf("no operation of the graph does this; rewrite it, or add it to examples/mlir/graph.go")
}

// literal is a constant: a number, or a tensor as a list of numbers, one for all, or hexadecimal bytes.
func (g *grapher) literal(o *op, t *tensor) error {
	text, _, _ := strings.Cut(o.attrs["value"], " : ")
	if t == nil {
		n, err := strconv.Atoi(text)
		if err != nil {
			return o.errorf("%s is not an integer", text)
		}
		g.scalars[o.results[0]] = n
		return nil
	}
	text, ok := strings.CutPrefix(strings.TrimSuffix(text, ">"), "dense<")
	if !ok {
		return o.errorf("a dense constant is wanted")
	}
	if digits, ok := strings.CutPrefix(text, `"0x`); ok {
		data, err := hex.DecodeString(strings.TrimSuffix(digits, `"`))
		if err != nil || len(data) != t.elements()*t.bytes() {
			return o.errorf("the constant does not have %d bytes: %v", t.elements()*t.bytes(), err)
		}
		t.data = data
		return nil
	}
	if t.elements() > 1<<24 {
		return o.errorf("more than 2^24 elements")
	}
	words := strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune("[], ", r) })
	if len(words) == 1 {
		words = slices.Repeat(words, t.elements())
	}
	if len(words) != t.elements() {
		return o.errorf("the constant has %d numbers, its type %d", len(words), t.elements())
	}
	for _, w := range words {
		n, err := strconv.ParseInt(w, 10, 8*t.bytes())
		if err != nil {
			return o.errorf("%q is not an %s", w, t.element)
		}
		if t.bytes() == 1 {
			t.data = append(t.data, byte(n))
		} else {
			t.data = binary.LittleEndian.AppendUint32(t.data, uint32(n))
		}
	}
	return nil
}

// pad is put off: a convolution that follows takes it over.
func (g *grapher) pad(o *op, t *tensor) error {
	x, err := g.use(o, 0)
	if err != nil {
		return err
	}
	low, err := o.ints("static_low")
	if err != nil {
		return err
	}
	high, err := o.ints("static_high")
	if err != nil {
		return err
	}
	body := o.regions[0].ops
	if len(body) != 1 || body[0].name != "tensor.yield" || len(body[0].operands) != 1 || len(low) != len(t.shape) || len(high) != len(t.shape) || len(x.shape) != len(t.shape) || slices.Min(append(slices.Clone(low), high...)) < 0 {
		return o.errorf("padding of known width with a constant is wanted")
	}
	if n, ok := g.scalars[body[0].operands[0]]; !ok || n != 0 {
		return o.errorf("padding of zeros is wanted")
	}
	t.under, t.low, t.high = x.name, low, high
	return nil
}

// start is the bias of a product whose sums begin with operand 2, as its third input.
func (g *grapher) start(o *op, inputs []string) ([]string, error) {
	init, err := g.tensor(o, 2)
	switch {
	case err != nil:
		return nil, err
	case init.bias == "" || init.bias == "?":
		return nil, o.errorf("sums start at linalg.fill of 0 or at linalg.broadcast of a constant")
	case init.bias == "0":
		return inputs, nil
	}
	return append(inputs, init.bias), nil
}

// pair is an attribute with two numbers: dense<[1, 2]> or dense<1>.
func (o *op) pair(attr string) (v [2]int, err error) {
	text, _, _ := strings.Cut(o.attrs[attr], ">")
	text = strings.Trim(strings.TrimPrefix(text, "dense<"), "[]")
	y, x, two := strings.Cut(text, ", ")
	if !two {
		x = y
	}
	if v[0], err = strconv.Atoi(y); err == nil {
		v[1], err = strconv.Atoi(x)
	}
	if err != nil {
		return v, o.errorf("%s: %v", attr, err)
	}
	return v, nil
}

func (g *grapher) conv(o *op, t *tensor) error {
	x, err := g.tensor(o, 0)
	if err != nil {
		return err
	}
	w, err := g.tensor(o, 1)
	if err != nil {
		return err
	}
	strides, err := o.pair("strides")
	if err != nil {
		return err
	}
	dilations, err := o.pair("dilations")
	if err != nil {
		return err
	}
	if len(w.shape) != 4 || w.data == nil || x.element != "i8" || w.element != "i8" {
		return o.errorf("x and w are int8, and w is a constant")
	}
	input, pads := x.under, [4]int{}
	if x.name == "" && input != "" && len(x.low) == 4 && x.low[0]+x.low[3]+x.high[0]+x.high[3] == 0 {
		pads = [4]int{x.low[1], x.low[2], x.high[1], x.high[2]}
	} else {
		if x, err = g.use(o, 0); err != nil {
			return err
		}
		input = x.name
	}
	h, wd, cin, cout := w.shape[0], w.shape[1], w.shape[2], w.shape[3]
	weights := make([]byte, len(w.data)) // [H][W][C][F] becomes [F][H][W][C]
	for k := range h * wd * cin {
		for f := range cout {
			weights[f*h*wd*cin+k] = w.data[k*cout+f]
		}
	}
	inputs, err := g.start(o, []string{input, g.constant(shaped{shape: []int{cout, h, wd, cin}, element: "i8"}, weights)})
	if err != nil {
		return err
	}
	t.sums = &product{"npu.conv", inputs, fmt.Sprintf("strides=[%s], dilations=[%s], pads=[%s], groups=1, ", join(strides[:]), join(dilations[:]), join(pads[:])), g.uses[o.results[0]]}
	return nil
}

func (g *grapher) matmul(o *op, t *tensor) error {
	var inputs []string
	for i := range 2 {
		x, err := g.tensor(o, i)
		if err != nil {
			return err
		}
		if len(x.shape) != 2 || x.element != "i8" {
			return o.errorf("operand %d is not a matrix of int8", i)
		}
		batch := &tensor{shaped: shaped{shape: []int{1, x.shape[0], x.shape[1]}, element: "i8"}, data: x.data}
		if x.data != nil {
			batch.name = g.constant(batch.shaped, x.data)
		} else {
			if x, err = g.use(o, i); err != nil {
				return err
			}
			g.node(o, "npu.reshape", batch, []string{x.name}, "")
		}
		inputs = append(inputs, batch.name)
	}
	inputs, err := g.start(o, inputs)
	if err != nil {
		return err
	}
	t.sums = &product{"npu.gemm", inputs, "", g.uses[o.results[0]]}
	return nil
}

// requant makes a product one with requantization, unless something else wants the sums too.
func (g *grapher) requant(o *op, t *tensor) error {
	q, err := matchRequant(o)
	if err != nil {
		return err
	}
	lo, hi, zero, err := q.clamp(o, func(name string) (int, bool) { n, ok := g.scalars[name]; return n, ok })
	if err != nil {
		return err
	}
	multipliers, err := g.numbers(o, q.multiplier)
	if err != nil {
		return err
	}
	shifts, err := g.numbers(o, q.shift)
	if err != nil {
		return err
	}
	for len(shifts) < len(multipliers) && len(shifts) == 1 {
		shifts = append(shifts, shifts[0])
	}
	attrs := fmt.Sprintf(`rounding="one", multipliers=[%s], shifts=[%s], zero_y=%d, lo=%d, hi=%d`, join(multipliers), join(shifts), zero, lo, hi)
	x, err := g.tensor(o, 0)
	if err != nil {
		return err
	}
	if x.sums != nil && x.sums.uses == 1 {
		g.product(o, t, x.sums, attrs)
		return nil
	}
	if x, err = g.use(o, 0); err == nil {
		g.node(o, "npu.requantize", t, []string{x.name}, attrs)
	}
	return err
}

// numbers are those that a value in the body of a requantization stands for: a constant, or the constant tensor that is the operand of an argument.
func (g *grapher) numbers(o *op, name string) ([]int, error) {
	if n, ok := g.scalars[name]; ok {
		return []int{n}, nil
	}
	if i := slices.Index(o.regions[0].args, name); i > 0 {
		t, err := g.tensor(o, i)
		if err != nil {
			return nil, err
		}
		if t.data != nil {
			var list []int
			for i := 0; i < len(t.data); i += t.bytes() {
				if t.bytes() == 1 {
					list = append(list, int(int8(t.data[i])))
				} else {
					list = append(list, int(int32(binary.LittleEndian.Uint32(t.data[i:]))))
				}
			}
			return list, nil
		}
	}
	return nil, o.errorf("multiplier and shift have to be constants")
}
