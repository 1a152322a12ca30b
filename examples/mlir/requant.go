// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
)

// requant is the body of a linalg.generic that makes int8 of int32: scale, zero point, clamp. All are names of values.
type requant struct {
	multiplier, shift string // a constant, or an argument of the block: an operand of the operation
	zero              string // "" is 0
	lo, hi            string // "" is the end of the type
	operands          int    // that the operation reads: sums, and multipliers and shifts if there is one for each channel
}

// matchRequant looks whether the body of a linalg.generic is
//
//	s = tosa.apply_scale(sum, multiplier, shift); s = s + zero; s = max(s, lo); s = min(s, hi); yield trunci(s)
//
// of which the sum and the bounds may be left out.
func matchRequant(o *op) (requant, error) {
	var q requant
	wrong := func() (requant, error) {
		return q, o.errorf("the body is not tosa.apply_scale with double_round = false, arith.addi, arith.maxsi, arith.minsi and arith.trunci, in this order, of the first operand: that is what REQUANT does (§6.3)")
	}
	if len(o.regions) != 1 {
		return wrong()
	}
	body := o.regions[0]
	q.operands = len(body.args) - 1
	if len(body.args) < 2 || len(body.args) != len(o.operands) {
		return wrong()
	}
	maps := indexingMaps(o)
	for i := range body.args {
		if sums := i == 0 || i == q.operands; len(maps) != len(body.args) || maps[i] != "same" && (sums || maps[i] != "last") {
			return q, o.errorf("the indexing maps are not the identity, of multipliers and shifts the last dimension alone")
		}
	}
	value := body.args[0]
	want := []string{"tosa.apply_scale", "arith.addi", "arith.maxsi", "arith.minsi", "arith.trunci", "linalg.yield"}
	for _, b := range body.ops {
		i := slices.Index(want, b.name)
		if i < 0 || len(b.operands) == 0 || b.operands[0] != value || want[0] == "tosa.apply_scale" && i != 0 {
			return wrong()
		}
		want = want[i+1:]
		switch b.name {
		case "tosa.apply_scale":
			if len(b.operands) != 3 || b.attrs["double_round"] != "false" || b.types[0] != "i32" {
				return wrong()
			}
			q.multiplier, q.shift = b.operands[1], b.operands[2]
		case "arith.addi":
			q.zero = b.operands[1]
		case "arith.maxsi":
			q.lo = b.operands[1]
		case "arith.minsi":
			q.hi = b.operands[1]
		case "arith.trunci":
			if b.resultTypes[0] != "i8" {
				return wrong()
			}
		case "linalg.yield":
			return q, nil
		}
		if len(b.results) != 1 {
			return wrong()
		}
		value = b.results[0]
	}
	return wrong()
}

// operand is the operand of o that an argument of its block stands for, "" if name is none.
func (q requant) operand(o *op, name string) string {
	if i := slices.Index(o.regions[0].args, name); i >= 0 {
		return o.operands[i]
	}
	return ""
}

// indexingMaps says of each operand which elements belong to an iteration: "same" for the element of the same index, "last" for that of the last dimension, "" for any other.
func indexingMaps(o *op) []string {
	var kinds []string
	for _, text := range strings.Split(o.attrs["indexing_maps"], "affine_map<")[1:] {
		from, to, _ := strings.Cut(text[:strings.Index(text+">,", ">,")], " -> ")
		to = strings.TrimRight(to, ">]")
		switch {
		case to == from:
			kinds = append(kinds, "same")
		case to == "("+from[strings.LastIndexAny(from, " (")+1:]:
			kinds = append(kinds, "last")
		default:
			kinds = append(kinds, "")
		}
	}
	return kinds
}

// clamp is what the names of bounds and zero point stand for. Truncation drops bits of what is not clamped, REQUANT saturates it; so both bounds have
// to be there.
func (q requant) clamp(o *op, constant func(string) (int, bool)) (lo, hi, zero int, err error) {
	zero, known := 0, true
	if q.zero != "" {
		zero, known = constant(q.zero)
	}
	lo, known2 := constant(q.lo)
	hi, known3 := constant(q.hi)
	if !known || !known2 || !known3 || lo < -128 || hi > 127 || lo > hi || zero < -128 || zero > 127 {
		return 0, 0, 0, o.errorf("zero point and both bounds have to be constants of int8: arith.trunci would drop bits, REQUANT saturates")
	}
	return lo, hi, zero, nil
}
