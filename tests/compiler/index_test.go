// SPDX-License-Identifier: Apache-2.0

package compiler

import (
	"fmt"
	"strings"
	"testing"

	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// TestIndexes: an index of no row fails the run, on the card and in the reference, with the node; a constant one is refused. Rows at
// both ends are there.
func TestIndexes(t *testing.T) {
	c := newCard(t)
	for _, tt := range []struct {
		rows, cols int
		typ        ir.Type
		index      int64
		ok         bool
	}{
		{30, 5, ir.Int32, 29, true},
		{30, 5, ir.Int32, -30, true},
		{30, 5, ir.Int32, 30, false},
		{30, 5, ir.Int32, -31, false},
		{30, 5, ir.Int64, -30, true},
		{30, 5, ir.Int64, 30, false},
		{30, 5, ir.Int64, 1 << 32, false}, // whose low half is a row
		{30, 5, ir.Int64, -1 << 40, false},
		{3000, 100, ir.Int32, 2999, true}, // in parts
		{3000, 100, ir.Int32, -3000, true},
		{3000, 100, ir.Int32, 3000, false},
		{3000, 100, ir.Int32, -3001, false},
		{3000, 100, ir.Int64, 1<<32 + 1, false},
	} {
		t.Run(fmt.Sprintf("%d of %d, %s", tt.index, tt.rows, tt.typ), func(t *testing.T) {
			input := fmt.Sprintf("input %%i: %s[3]\n", tt.typ)
			rest := fmt.Sprintf("input %%x: float32[%d, %d]\nnode \"look\" npu.gather(%%x, %%i) -> (%%z: float32[3, %d]) {axis=0}\noutput %%z", tt.rows, tt.cols, tt.cols)
			g, err := ir.Parse("graph \"g\"\n" + input + rest)
			if err != nil {
				t.Fatal(err)
			}
			in := [][]byte{ref.PutInts(tt.typ, []int64{0, tt.index, 1}), make([]byte, g.Inputs[1].Bytes())}
			in[1][len(in[1])-4*tt.cols] = 1 // the last row is not the others
			want, refErr := ref.Run(g, in, nil)
			got, _, err := c.Execute(t.Context(), g, in)
			if tt.ok {
				if err != nil || refErr != nil || string(got[0]) != string(want[0]) {
					t.Errorf("%v, %v, or another result", err, refErr)
				}
				return
			}
			for _, err := range []error{err, refErr} {
				if err == nil || !strings.Contains(err.Error(), "BAD_INDEX") || !strings.Contains(err.Error(), `node "look"`) {
					t.Errorf("the error is %v, and not a BAD_INDEX of the node", err)
				}
			}
			g.Inputs[0].Data, g.Inputs = in[0], g.Inputs[1:]
			_, err = compiler.Build(g, c.target)
			if err == nil {
				err = g.Verify()
			}
			if err == nil || !strings.Contains(err.Error(), `node "look" (npu.gather): tensor "i": index`) {
				t.Errorf("a constant is %v", err)
			}
		})
	}
}
