// SPDX-License-Identifier: Apache-2.0

package card

import (
	"maps"
	"slices"
	"testing"
	"time"

	"npuemu/tests/guest"
	"npuemu/tests/kselftest"
	"npuemu/vdev"
)

// TestOldCards is the main job, and the selftests that do not take the guest with them, on cards of earlier
// architectures: the driver does without what they lack, and says so where a program asks for it.
func TestOldCards(t *testing.T) {
	e := guest.Require(t)
	for i, arch := range []string{"1.1", "1.0"} {
		k := e.Kernels()[i%len(e.Kernels())] // one kernel each, to save time
		t.Run(arch+" "+k, func(t *testing.T) {
			card := vdev.DefaultConfig()
			card.Arch = arch
			script := "load\ndigits " + Digits + " >$RESULT/digits.json || die digits: $?\n"
			rows := map[string]int{"ioctl": 100, "memory": 20, "job": 25, "isolation": 9, "queue": 5, "vm": 1, "profile": 4} // of vm only without_mmu
			for _, p := range slices.Sorted(maps.Keys(rows)) {
				script += "stage " + p + "\n" + kselftest.Dir + "/" + p + " >$RESULT/" + p + ".ktap 2>&1; echo " + p + ": status $?\n"
			}
			res, _ := bootWith(t, e, card, k, script+"rmmod npu || die rmmod\n", kselftests(t, e), func(c *guest.Config) { c.Timeout = 4 * time.Minute })
			checkDigits(t, res.Files["digits.json"])
			for p, want := range rows {
				checkKTAP(t, res.Files[p+".ktap"], want)
			}
		})
	}
}
