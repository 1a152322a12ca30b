// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"

	"npuemu/core/isa"
	"npuemu/timing"
)

// products are the instructions that multiply.
var products = map[isa.Opcode]string{isa.OpMatmul: "matmul", isa.OpGemm: "gemm", isa.OpConv: "conv"}

// programParts cuts a program that no compiler's manifest describes: at its labels, or if it has none around its runs of products.
// There is one name more, of what is in no part.
func programParts(p *isa.Program) (names []string, parts []timing.Part) {
	end := len(p.Text) / isa.Size
	cut := func(at int, name string) {
		if n := len(parts); n > 0 {
			parts[n-1].Last = at
		}
		names, parts = append(names, name), append(parts, timing.Part{First: at, Last: end})
	}
	if labels := programLabels(p); len(labels) > 0 {
		for _, l := range labels {
			if n := len(parts); n > 0 && parts[n-1].First == l.Index {
				names[n-1] += ", " + l.Name
				continue
			}
			cut(l.Index, l.Name)
		}
		return append(names, "before them"), parts
	}
	// A part ends behind the vector engine's or the store engine's work on what it multiplied, where something is loaded or
	// multiplied again.
	multiplied, worked := false, false
	for at := range end {
		o := isa.Opcode(p.Text[at*isa.Size])
		if again := o.Class() == isa.ClassLoad || o.Class() == isa.ClassMatrix; at == 0 || worked && again {
			cut(at, fmt.Sprintf("from %d", at))
			multiplied, worked = false, false
		}
		if name := products[o]; name != "" && !multiplied {
			names[len(names)-1] = fmt.Sprintf("%s %d", name, at)
			multiplied = true
		}
		switch o {
		case isa.OpSyncStore, isa.OpSyncVector:
		default:
			worked = worked || multiplied && (o.Class() == isa.ClassVector || o.Class() == isa.ClassStore)
		}
	}
	return append(names, ""), parts
}

// programLabels are p's labels that name an instruction, in order.
func programLabels(p *isa.Program) (list []isa.Label) {
	if p.Debug == nil {
		return nil
	}
	for _, l := range p.Debug.Labels {
		if l.Index >= 0 && l.Index < len(p.Text)/isa.Size {
			list = append(list, l)
		}
	}
	slices.SortStableFunc(list, func(a, b isa.Label) int { return a.Index - b.Index })
	return list
}
