// SPDX-License-Identifier: Apache-2.0

package card

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"npuemu/tests/guest"
	"npuemu/tests/kselftest"
)

// verdict unloads the driver, so that the kernel looks at what it leaves behind, and brings what the kernel's checks say.
const verdict = `
rmmod npu || die rmmod
[ -d /sys/kernel/debug/dma-api ] || mount -t debugfs debugfs /sys/kernel/debug
cat /proc/sys/kernel/tainted >$RESULT/tainted
grep debug_locks: /proc/lockdep_stats >$RESULT/debug_locks
for f in disabled error_count num_errors; do echo "$f $(cat /sys/kernel/debug/dma-api/$f)"; done >$RESULT/dma-api
dmesg >$RESULT/dmesg
`

// Taints of a kernel that has found something wrong with itself (Documentation/admin-guide/tainted-kernels.rst).
const badTaints = 1<<5 | 1<<7 | 1<<9 | 1<<14 // bad page, died, warning, soft lockup

// checkVerdict expects that the kernel looked to the end and found nothing.
func checkVerdict(t *testing.T, res *guest.Result) {
	t.Helper()
	taint, err := strconv.ParseUint(strings.TrimSpace(string(res.Files["tainted"])), 10, 64)
	if err != nil || taint&badTaints != 0 {
		t.Errorf("tainted: %#x (%v)", taint, err)
	}
	if f := strings.Fields(string(res.Files["debug_locks"])); len(f) != 2 || f[1] != "1" {
		t.Errorf("lockdep was turned off: %q", f)
	}
	dma := strings.Fields(string(res.Files["dma-api"]))
	if len(dma) != 6 || dma[1] != "N" || dma[3] != "0" {
		t.Errorf("DMA-API: %q, want it enabled and no error", dma)
	}
	for line := range strings.Lines(string(res.Files["dmesg"])) {
		for _, bad := range []string{"BUG: ", "WARNING: ", "INFO: task", "INFO: possible", "UBSAN: ", "DMA-API: npu", "Oops", "refcount_t"} {
			if strings.Contains(line, bad) {
				t.Errorf("the kernel complains: %s", line)
			}
		}
	}
	if t.Failed() {
		guest.Attr(t, guest.AttrCause, guest.CauseCrash)
		t.Logf("dmesg:\n%s", res.Files["dmesg"])
	}
}

// TestDebugKernel runs the driver's tests on the debug kernel, in guests of their own: one that has complained of something
// does not look any more. It takes a while (make test-debug-kernel).
func TestDebugKernel(t *testing.T) {
	e, debug := guest.RequireOwn(t, guest.Debug)
	// Linux forgets for a moment of its start that page tables have five levels (identify_cpu), and an interrupt then makes KASAN
	// complain of the kernel itself: so they have four.
	roomy := func(c *guest.Config) { c.Memory, c.Timeout, c.Append = 1536, 8*time.Minute, c.Append+" no5lvl" }
	t.Run("uapitest", func(t *testing.T) {
		res, _ := boot(t, e, debug, inspect+"load\nuapitest -r -t >$RESULT/ktap; echo status $?\n"+verdict, roomy)
		checkKTAP(t, res.Files["ktap"], 180)
		checkVerdict(t, res)
	})
	t.Run("sharetest", func(t *testing.T) {
		res, _ := boot(t, e, debug, inspect+"load\nmodprobe vgem || die vgem\nsharetest >$RESULT/ktap; echo status $?\n"+verdict, roomy,
			func(c *guest.Config) { c.Modules = append(c.Modules, "vgem") })
		checkKTAP(t, res.Files["ktap"], 90)
		checkVerdict(t, res)
	})
	t.Run("digits", func(t *testing.T) {
		res, d := boot(t, e, debug, "load\ndigits "+Digits+" >$RESULT/digits.json || die digits: $?\n"+verdict, roomy)
		checkDigits(t, res.Files["digits.json"])
		checkVerdict(t, res)
		if f := d.Findings(); len(f) != 0 {
			t.Errorf("our own driver makes mistakes: %+v", f)
		}
	})
	for _, p := range kselftest.Programs {
		t.Run(p, func(t *testing.T) {
			res, _ := boot(t, e, debug, "load\n"+kselftest.Script(p)+"modprobe npu\n"+verdict, kselftests(t, e), roomy)
			checkKTAP(t, res.Files[p+".ktap"], 1)
			checkVerdict(t, res)
		})
	}
}
