// SPDX-License-Identifier: Apache-2.0

package onnx

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Page is docs/operators.md: what became of the cases, by operator and type.
func Page(results []Result) string {
	var b strings.Builder
	total := map[Status]int{}
	type row struct {
		count   map[Status]int
		reasons map[string]bool
	}
	rows := map[string]*row{}
	by := map[string]Result{}
	for _, r := range results {
		by[r.Name] = r
	}
	for _, r := range results {
		total[r.Status]++
		key := operator(r, by) + "|" + strings.Join(r.Types, ", ")
		if rows[key] == nil {
			rows[key] = &row{map[Status]int{}, map[string]bool{}}
		}
		rows[key].count[r.Status]++
		if r.Status != Pass && r.Status != Folded {
			rows[key].reasons[reason(r)] = true
		}
	}
	fmt.Fprintf(&b, `# ONNX operators

Written by `+"`make operators`"+`; do not edit. Each of the %d backend node test cases of the wheel that `+"`tests/onnx/requirements.txt`"+` pins is
imported, compiled and run on a card in process. An input of a case that the compiler needs as a constant (weights, shapes,
axes, scales) is made one, with the case's value. A case of an operator that is written out in others, as ONNX defines it as a function, is
"expanded" under that operator. The tolerance is the case's; of bfloat16 it is 1/64 of the value at least, two units of the last place, which is what ONNX's own
runner of these cases allows.

| Result | Cases | Meaning |
|---|---|---|
| pass | %d | every node ran on the device, as its counters prove; integers equal, floating point within the tolerance |
| folded | %d | equal, and known when compiling, since all that it depends on had to be constants: nothing was left to run |
| host | %d | equal, and the named operations ran on the host: the device lacks their type, or does not do what they need |
| wrong | %d | another result |
| unsupported | %d | refused, with an error that names node, operator and rule |

| Operator | Types of the inputs | pass | folded | host | wrong | unsupported | Host operations, or why not |
|---|---|---|---|---|---|---|---|
`, len(results), total[Pass], total[Folded], total[Host], total[Wrong], total[Unsupported])
	for _, key := range slices.Sorted(maps.Keys(rows)) {
		r := rows[key]
		op, types, _ := strings.Cut(key, "|")
		reasons := slices.Sorted(maps.Keys(r.reasons))
		if len(reasons) > 3 {
			reasons = append(reasons[:3], fmt.Sprintf("and %d more", len(reasons)-3))
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s | %s | %s |\n", op, types, number(r.count[Pass]), number(r.count[Folded]), number(r.count[Host]), number(r.count[Wrong]), number(r.count[Unsupported]),
			strings.ReplaceAll(strings.Join(reasons, "; "), "|", "\\|"))
	}
	return b.String()
}

// operator is what a case is about: the operator of its model, or the one that it writes out in others.
func operator(r Result, by map[string]Result) string {
	if name, _, ok := strings.Cut(r.Name, "_expanded"); ok {
		if whole := by[name]; len(whole.Operators) == 1 {
			return whole.Operators[0] + ", expanded"
		}
	}
	if len(r.Operators) > 3 {
		return "several operators"
	}
	return strings.Join(r.Operators, " + ")
}

func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// reason is a case's detail without what is of this case alone.
func reason(r Result) string {
	if r.Status == Host {
		var l []string
		for _, h := range r.Hosted {
			op, why, ok := strings.Cut(h, ": ")
			if ok {
				why, _, _ = strings.Cut(why, "; ")
				op += " (" + why + ")"
			}
			l = append(l, op)
		}
		slices.Sort(l)
		return strings.Join(slices.Compact(l), ", ")
	}
	d := r.Detail
	if _, after, ok := strings.Cut(d, "): "); ok {
		d = after
	}
	if _, after, ok := strings.Cut(d, `tensor "`); ok {
		if _, rule, ok := strings.Cut(after, `": `); ok {
			d = rule
		}
	}
	if before, _, ok := strings.Cut(d, "; "); ok {
		d = before
	}
	if r.Status == Wrong {
		return "values differ"
	}
	if len(d) > 90 {
		d = d[:90] + "…"
	}
	return strings.Map(func(c rune) rune {
		if c == '\n' {
			return ' '
		}
		return c
	}, d)
}
