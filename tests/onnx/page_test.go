// SPDX-License-Identifier: Apache-2.0

package onnx

import (
	"strings"
	"testing"
)

// TestPage: each case is under its operator, also one that was refused, and one that is written out in other operators.
func TestPage(t *testing.T) {
	page := Page([]Result{
		{Name: "test_gelu", Operators: []string{"Gelu"}, Types: []string{"float32"}, Status: Pass},
		{Name: "test_gelu_expanded_ver20", Operators: []string{"Add", "Div", "Erf", "Mul"}, Types: []string{"float32"}, Status: Pass},
		{Name: "test_if", Operators: []string{"If"}, Types: []string{"bool"}, Status: Unsupported, Detail: `node "n" (If): a graph; simplify`},
		{Name: "test_pair", Operators: []string{"Range", "Slice"}, Types: []string{"int64"}, Status: Folded},
		{Name: "test_lost_expanded", Operators: []string{"A", "B", "C", "D"}, Types: []string{"int64"}, Status: Wrong},
	})
	for _, want := range []string{
		"| Gelu | float32 | 1 |  |  |  |  |  |",
		"| Gelu, expanded | float32 | 1 |  |  |  |  |  |",
		"| If | bool |  |  |  |  | 1 | a graph |",
		"| Range + Slice | int64 |  | 1 |  |  |  |  |",
		"| several operators | int64 |  |  |  | 1 |  | values differ |",
		"Each of the 5 backend node test cases", "| pass | 2 |",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
}
