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
	{"gemm", isa.FeatureGEMM},
	{"float", isa.FeatureFloat},
	{"control", isa.FeatureControl},
	{"vector", isa.FeatureVector},
	{"reduce", isa.FeatureReduce},
	{"pool", isa.FeaturePool},
	{"gather", isa.FeatureGather},
	{"addq", isa.FeatureAddq},
}

// needed are those that every compiled model has.
var needed = []string{"gemm", "float", "vector", "reduce"}

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

// fits reports why a model does not run on a card, or nil.
func fits(m *model.Model, have Hardware) error {
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
	remedy := "compile it for this card's configuration, or run it on another"
	if lacks := slices.DeleteFunc(slices.Clone(want.Groups), func(g string) bool { return slices.Contains(have.Groups, g) }); len(lacks) > 0 {
		groups := "groups"
		if len(lacks) == 1 {
			groups = "group"
		}
		why = append(why, fmt.Sprintf("architecture %s, the card is %s: it lacks %s %s", m.Architecture, have.Architecture, groups, strings.Join(lacks, ", ")))
		remedy = fmt.Sprintf("run it on a card of architecture %s or later that has them", m.Architecture)
		if !slices.ContainsFunc(lacks, func(g string) bool { return slices.Contains(needed, g) }) {
			remedy += fmt.Sprintf(", or compile it for this one (--arch %s, or its --config)", have.Architecture)
		}
	}
	if why == nil {
		return nil
	}
	return fmt.Errorf("run: model %q is compiled for %s (§5.3, §14.5); %s", m.Name, strings.Join(why, "; for "), remedy)
}
