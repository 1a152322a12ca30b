// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"strings"
	"testing"

	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
)

// TestHazardFinding: what tokens leave without an order is a finding; the program completes as it would otherwise, and
// one that orders everything leaves none.
func TestHazardFinding(t *testing.T) {
	for _, tt := range []struct{ name, text, id, want string }{
		{"ordered", "load binding=0 local=0 nx=64 signal=0\nstore binding=1 local=0 nx=64 wait=0\nhalt\n", "", ""},
		{"bytes", "load binding=0 local=0 nx=64\nstore binding=1 local=0 nx=64\nhalt\n", "hazard", "instruction 1 reads scratchpad 0x0, which instruction 0 writes"},
		{"token", "loop reg=s0 count=2\nsync.load signal=0:2\nsync.matrix wait=0\nsync.vector wait=0\nend\nhalt\n", "token-race", "instructions 3 and 2 wait for token 0 in no order"},
		{"token that is left", "sync.load signal=5:2\nsync.vector wait=5\nhalt\n", "token-unused", "1 of token 5 left at HALT, first signalled by instruction 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, _ := ready(t)
			src, _ := h.Alloc(64)
			dst, _ := h.Alloc(64)
			bindings := []devtest.Binding{{Addr: src, Size: 64, Read: true}, {Addr: dst, Size: 64, Write: true}}
			if c := h.Do(1, h.Launch(program11(t, ".spad 64\n.bindings 2\n"+tt.text), bindings...)); c.Status != npureg.StatusSuccess {
				t.Errorf("%v, want success", c)
			}
			found := h.Dev.Findings()
			switch {
			case tt.id == "" && len(found) > 0:
				t.Errorf("findings %+v, want none", found)
			case tt.id != "" && (len(found) != 1 || found[0].ID != tt.id || !strings.Contains(found[0].Last, tt.want) || !strings.Contains(found[0].Rule, "§5.5")):
				t.Errorf("findings %+v, want %s: %s", found, tt.id, tt.want)
			}
		})
	}
}
