// SPDX-License-Identifier: Apache-2.0

package card

import (
	"testing"

	"npuemu/tests/guest"
)

// TestLean is the main job on the lean kernel, and shows how long that takes to its first process, beside the stock kernel of
// the same version as its distribution packed it.
func TestLean(t *testing.T) {
	e, lean := guest.RequireOwn(t, guest.Lean)
	for _, k := range []string{lean, e.Kernels()[0]} {
		res, d := boot(t, e, k, "load\ndigits "+Digits+" >$RESULT/digits.json || die digits: $?\nrmmod npu || die rmmod\n", func(c *guest.Config) { c.Packed = true })
		checkDigits(t, res.Files["digits.json"])
		if f := d.Findings(); len(f) != 0 {
			t.Errorf("%s: our own driver makes mistakes: %+v", k, f)
		}
		for _, s := range res.Stages {
			t.Logf("%s: %s %.2f s", k, s.Name, s.Duration.Seconds())
		}
	}
}
