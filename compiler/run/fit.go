// SPDX-License-Identifier: Apache-2.0

package run

import (
	"fmt"
	"slices"
	"strings"

	"npuemu/compiler/model"
	"npuemu/core/isa"
)

// groupBits are the instruction groups that a model can name (§5.3), and their bits.
var groupBits = []struct {
	name string
	bit  uint64
}{
	{"gemm", isa.FeatureGEMM}, {"float", isa.FeatureFloat}, {"control", isa.FeatureControl}, {"vector", isa.FeatureVector}, {"reduce", isa.FeatureReduce},
	{"pool", isa.FeaturePool}, {"gather", isa.FeatureGather}, {"addq", isa.FeatureAddq},
}

// Groups are the names of the groups in a card's FEATURES (§2.1).
func Groups(features uint64) []string {
	var l []string
	for _, g := range groupBits {
		if features&g.bit != 0 {
			l = append(l, g.name)
		}
	}
	return l
}

// fits reports why a model that was compiled for want does not run on a card that is have.
func fits(m *model.Model, have model.Array) error {
	var why []string
	want := m.Array
	if want.Rows != have.Rows || want.Cols != have.Cols {
		why = append(why, fmt.Sprintf("an array of %d × %d, the card has %d × %d", want.Rows, want.Cols, have.Rows, have.Cols))
	}
	var spad, acc uint32
	for _, p := range m.Programs {
		spad, acc = max(spad, p.SpadSize), max(acc, p.AccSize)
	}
	if spad > have.Scratchpad {
		why = append(why, fmt.Sprintf("%d bytes of scratchpad, the card has %d", spad, have.Scratchpad))
	}
	if acc > have.Accumulators {
		why = append(why, fmt.Sprintf("%d bytes of accumulators, the card has %d", acc, have.Accumulators))
	}
	for _, g := range want.Groups {
		if !slices.Contains(have.Groups, g) {
			why = append(why, fmt.Sprintf("instructions of group %s (architecture %s), the card has %v", g, m.Architecture, have.Groups))
		}
	}
	if why == nil {
		return nil
	}
	return fmt.Errorf("run: model %q is compiled for %s (§14.5): compile it for this card's configuration, or run it on another", m.Name, strings.Join(why, "; for "))
}
