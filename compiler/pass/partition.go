// SPDX-License-Identifier: Apache-2.0

package pass

import (
	"strings"

	"npuemu/compiler/ir"
	"npuemu/compiler/ref"
)

// Partition gives the host, by name, every operation that the device has no types for. What the host
// cannot run either is an error. It changes nothing else: HostNodes says what it did.
func Partition(g *ir.Graph) error {
	for _, n := range g.Nodes {
		switch {
		case n.Host():
			continue
		case !n.Device():
			return n.Errorf("the operator was not lowered")
		}
		err := n.Check()
		if err == nil {
			continue
		}
		if !ref.Wide(n) {
			return n.InModel(err)
		}
		n.Op = "host." + strings.TrimPrefix(n.Op, "npu.")
	}
	return nil
}

// HostNodes are the nodes that the host runs, in order.
func HostNodes(g *ir.Graph) []*ir.Node {
	var out []*ir.Node
	for _, n := range g.Nodes {
		if n.Host() {
			out = append(out, n)
		}
	}
	return out
}
