// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/ref"
)

// shown is how many values of an output are printed; of larger ones the greatest is.
const shown = 16

// outputSummary is what run says of an output.
type outputSummary struct {
	Name    string    `json:"name"`
	Type    string    `json:"type"`
	Shape   []int     `json:"shape"`
	Values  []float64 `json:"values,omitempty"` // all, of outputs of up to shown elements that are finite numbers
	Largest *largest  `json:"largest,omitempty"`
	Special bool      `json:"not_all_finite,omitempty"`
	File    string    `json:"file,omitempty"`
}

// largest is the greatest element of an output, the first of equal ones, and where it is.
type largest struct {
	Value float64 `json:"value"`
	Index []int   `json:"index"`
}

func summarize(t *model.Tensor, data []byte, file string) outputSummary {
	s := outputSummary{Name: t.Name, Type: t.TypeOf().String(), Shape: t.Shape, File: file}
	v := ref.Doubles(t.TypeOf(), data, ir.Elements(t.Shape))
	best := -1
	for i, x := range v {
		if finite := x-x == 0; !finite {
			s.Special = true
			return s
		}
		if best < 0 || x > v[best] {
			best = i
		}
	}
	if best < 0 {
		return s
	}
	if len(v) <= shown {
		s.Values = v
	}
	s.Largest = &largest{v[best], make([]int, len(t.Shape))}
	for axis, at := len(t.Shape)-1, best; axis >= 0; axis-- {
		s.Largest.Index[axis], at = at%t.Shape[axis], at/t.Shape[axis]
	}
	return s
}

func (s outputSummary) String() string {
	text := fmt.Sprintf("%s: %s%s", s.Name, s.Type, strings.ReplaceAll(fmt.Sprint(s.Shape), " ", ", "))
	if s.Special {
		text += ", of which not all are finite numbers"
	}
	if s.Values != nil {
		parts := make([]string, len(s.Values))
		for i, v := range s.Values {
			parts[i] = fmt.Sprintf("%.4g", v)
		}
		text += " " + strings.Join(parts, " ")
	}
	if s.Largest != nil && len(s.Shape) > 0 {
		text += fmt.Sprintf("; largest %.4g at %s", s.Largest.Value, strings.ReplaceAll(fmt.Sprint(s.Largest.Index), " ", ", "))
	}
	if s.File != "" {
		text += "; in " + s.File
	}
	return text
}
