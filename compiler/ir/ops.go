// SPDX-License-Identifier: Apache-2.0

package ir

import "slices"

// kind is the type of an attribute's value.
type kind uint8

const (
	aInt kind = iota
	aFloat
	aStr
	aInts
	aFloats
	aStrs
)

var kindNames = [...]string{"an integer", "a float", "a string", "a list of integers", "a list of floats", "a list of strings"}

func kindOf(v any) (kind, bool) {
	switch v.(type) {
	case int64:
		return aInt, true
	case float32:
		return aFloat, true
	case string:
		return aStr, true
	case []int64:
		return aInts, true
	case []float32:
		return aFloats, true
	case []string:
		return aStrs, true
	}
	return 0, false
}

type attrRule struct {
	name     string
	kind     kind
	required bool
	length   int // of a list; 0 is any
}

// opRule is what the verifier knows of an operation of the device level.
type opRule struct {
	min, max int // inputs
	attrs    []attrRule
	check    func(n *Node) *Error
}

func attrs(lists ...[]attrRule) []attrRule { return slices.Concat(lists...) }

var (
	requantRules = []attrRule{
		{"rounding", aStr, true, 0}, {"scales", aFloats, false, 0}, {"multipliers", aInts, false, 0}, {"shifts", aInts, false, 0},
		{"zero_y", aInt, false, 0}, {"lo", aInt, false, 0}, {"hi", aInt, false, 0},
	}
	actRules    = []attrRule{{"act", aStr, false, 0}, {"clip", aFloats, false, 2}}
	wrapRule    = []attrRule{{"wrap", aInt, false, 0}}
	scaleRules  = []attrRule{{"scales", aFloats, true, 0}, {"zeros", aInts, true, 0}, {"axis", aInt, false, 0}}
	clampRules  = []attrRule{{"lo", aInt, false, 0}, {"hi", aInt, false, 0}}
	clampNeeded = []attrRule{{"lo", aInt, true, 0}, {"hi", aInt, true, 0}}
	qRules      = []attrRule{{"rounding", aStr, true, 0}, {"zeros", aInts, true, 3}, {"lo", aInt, true, 0}, {"hi", aInt, true, 0}}
	windowRules = []attrRule{{"strides", aInts, true, 2}, {"pads", aInts, true, 4}, {"dilations", aInts, false, 2}}
)

// ops are the operations of the device level.
var ops = map[string]opRule{
	"npu.conv": {2, 3, attrs(windowRules, requantRules, actRules, []attrRule{
		{"groups", aInt, true, 0}, {"zero_x", aInt, false, 0}, {"zeros_w", aInts, false, 0},
	}), checkConv},
	"npu.gemm": {2, 3, attrs(requantRules, actRules, []attrRule{
		{"trans_a", aInt, false, 0}, {"trans_b", aInt, false, 0}, {"zero_a", aInt, false, 0}, {"zeros_b", aInts, false, 0},
	}), checkGemm},
	"npu.requantize": {1, 1, attrs(requantRules, []attrRule{{"zero_x", aInt, false, 0}}), checkRequantize},
	"npu.quantize":   {1, 1, attrs(scaleRules, clampNeeded), checkScales},
	"npu.dequantize": {1, 1, scaleRules, checkScales},
	"npu.cast":       {1, 1, []attrRule{{"saturate", aInt, false, 0}, {"trunc", aInt, false, 0}}, checkSameShape},
	"npu.element":    {1, 2, attrs(wrapRule, []attrRule{{"op", aStr, true, 0}}), checkElement},
	"npu.clip":       {1, 1, attrs(clampRules, []attrRule{{"clip", aFloats, false, 2}}), checkClip},
	"npu.select":     {3, 3, nil, checkSelect},
	"npu.table":      {2, 2, nil, checkTable},
	"npu.qadd": {2, 2, attrs(qRules, []attrRule{
		{"left_shift", aInt, false, 0}, {"multipliers", aInts, false, 3}, {"shifts", aInts, false, 3}, {"scales", aFloats, false, 3}, {"sub", aInt, false, 0},
	}), checkQuantized},
	"npu.qmul": {2, 2, attrs(qRules, []attrRule{
		{"multipliers", aInts, true, 1}, {"shifts", aInts, true, 1},
	}), checkQuantized},
	"npu.pool": {1, 1, attrs(windowRules, clampRules, []attrRule{
		{"kind", aStr, true, 0}, {"kernel", aInts, true, 2}, {"count_pad", aInt, false, 0},
	}), checkPool},
	"npu.resize": {1, 1, []attrRule{
		{"mode", aStr, true, 0}, {"half", aInt, false, 0}, {"center", aInt, false, 0}, {"mul", aFloats, false, 2}, {"div", aFloats, false, 2}, {"steps", aInts, false, 2},
	}, checkResize},
	"npu.reduce":    {1, 1, attrs(wrapRule, []attrRule{{"kind", aStr, true, 0}}), checkReduce},
	"npu.softmax":   {1, 1, nil, checkNorm},
	"npu.layernorm": {3, 3, []attrRule{{"epsilon", aFloat, true, 0}}, checkNorm},
	"npu.rmsnorm":   {2, 2, []attrRule{{"epsilon", aFloat, true, 0}}, checkNorm},
	"npu.transpose": {1, 1, []attrRule{{"perm", aInts, true, 0}}, checkTranspose},
	"npu.reshape":   {1, 1, nil, checkReshape},
	"npu.bitcast":   {1, 1, nil, checkBitcast},
	"npu.concat":    {1, 1 << 16, []attrRule{{"axis", aInt, true, 0}}, checkConcat},
	"npu.slice":     {1, 1, []attrRule{{"starts", aInts, true, 0}, {"steps", aInts, true, 0}}, checkSlice},
	"npu.pad":       {1, 1, []attrRule{{"pads", aInts, true, 0}, {"zero", aInt, false, 0}, {"value", aFloat, false, 0}}, checkPad},
	"npu.gather":    {2, 2, []attrRule{{"axis", aInt, true, 0}}, checkGather},
	"npu.expand":    {1, 1, nil, checkExpand},
}

// Unary are the operations of ELEMENT with one operand, Binary those with two; the value says of
// which types: 0 all, 1 integers, 2 floating point.
var (
	Unary = map[string]int{
		"move": 0, "neg": 0, "abs": 0, "relu": 0, "sqrt": 2, "exp": 2, "log": 2, "tanh": 2, "sigmoid": 2, "silu": 2, "gelu": 2,
		"gelu_tanh": 2, "erf": 2, "reciprocal": 2, "rsqrt": 2, "hardsigmoid": 2, "hardswish": 2, "relu6": 2,
	}
	Binary = map[string]int{
		"add": 0, "sub": 0, "mul": 0, "min": 0, "max": 0, "eq": 0, "ne": 0, "lt": 0, "le": 0, "and": 1, "or": 1, "xor": 1,
		"shl": 1, "shr": 1, "shr_logical": 1, "shr_round": 1, "mulhigh": 1, "add_sat": 1, "sub_sat": 1, "div": 2,
	}
)
