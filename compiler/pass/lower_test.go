// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Lower keeps the names of inputs and outputs, gives others those of the nodes, and says of what each node is made. What the rules make is
// TestGolden's.
func TestLower(t *testing.T) {
	g := model(t, "input %x: float32[2, 2]", `node "soft" Softplus(%x) -> %y`, `node "same" Identity(%x) -> %z`, `node "soft" Relu(%y) -> %y2`, "output %y", "output %z", "output %y2")
	roots := slices.Clone(g.Nodes)
	if err := Infer(g); err != nil {
		t.Fatal(err)
	}
	if err := Lower(g); err != nil {
		t.Fatal(err)
	}
	if err := g.Verify(); err != nil {
		t.Error(err)
	}
	var got []string
	for _, n := range g.Nodes {
		got = append(got, fmt.Sprintf("%s %s %s of %d", n.Name, n.Attrs.Str("op", n.Op), n.Outputs[0].Name, slices.Index(roots, n.Root())))
	}
	want := []string{
		"soft abs soft:element of 0", "soft/1 neg soft/1:element of 0", "soft/2 exp soft/2:element of 0", "soft/3 relu soft/3:element of 0", "soft/5 add soft/5:element of 0",
		"soft/6 log soft/6:element of 0", "soft/7 add y of 0", "same npu.reshape z of 1", "soft~2 relu y2 of 2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("nodes (-want +got):\n%s", diff)
	}
}
