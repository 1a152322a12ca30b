// SPDX-License-Identifier: Apache-2.0

package compiler

import "npuemu/compiler/model"

// OperatorReport is what became of an operator.
type OperatorReport struct {
	Name         string `json:"name"`
	Op           string `json:"op"`
	Device       bool   `json:"device"`
	Engine       string `json:"engine"`           // that computes: matrix, vector, or load and store of what is only moved; host; none
	Reason       string `json:"reason,omitempty"` // why it is on the host
	Within       string `json:"within,omitempty"` // operator that it is computed with, tile by tile, and counted there
	Cycles       uint64 `json:"cycles"`           // by itself (§13)
	Instructions [4]int `json:"instructions"`     // of the load, store, matrix and vector engine
	MACs         uint64 `json:"macs"`

	Utilization float64 `json:"utilization"`         // of the array in those cycles
	Intensity   float64 `json:"intensity,omitempty"` // multiply-accumulates for each byte of device memory
	Bound       string  `json:"bound,omitempty"`     // what takes most of those cycles (§13.11)

	Bytes  uint64 `json:"bytes"` // loaded and stored
	Loaded uint64 `json:"bytes_loaded"`
	Stored uint64 `json:"bytes_stored"`
}

// Operators are those of m, which Estimate gave their cycles.
func Operators(m *model.Model) []OperatorReport {
	l := make([]OperatorReport, 0, len(m.Nodes))
	for _, n := range m.Nodes {
		o := OperatorReport{
			Name: n.Name, Op: Operator(n.Op), Device: n.Host == "", Reason: n.Host, Within: n.Within, Cycles: n.Cycles, MACs: n.MACs,
			Bytes: n.Loaded + n.Stored, Loaded: n.Loaded, Stored: n.Stored, Engine: "none", Bound: n.Bound,
		}
		if n.Cycles > 0 {
			o.Utilization = float64(n.MACs) / (float64(n.Cycles) * float64(m.Array.Rows) * float64(m.Array.Cols))
		}
		if n.Moved > 0 {
			o.Intensity = float64(n.MACs) / float64(n.Moved)
		}
		copy(o.Instructions[:], n.Instructions)
		if n.Within != "" {
			o.Engine = "vector"
		}
		switch i := o.Instructions; {
		case n.Host != "":
			o.Engine = "host"
		case i[2] > 0:
			o.Engine = "matrix"
		case i[3] > 0:
			o.Engine = "vector"
		case i[0]+i[1] > 0:
			o.Engine = "load, store"
		}
		l = append(l, o)
	}
	return l
}
