// SPDX-License-Identifier: Apache-2.0

package card

import (
	"strings"
	"testing"
	"time"

	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/vdev"
)

// inspect defines what scripts use to look at the driver from outside.
const inspect = `
mount -t debugfs debugfs /sys/kernel/debug
state() { cat /sys/kernel/debug/accel/*/$1; }
core() {
	for i in $(seq 50); do [ -e /sys/class/devcoredump/devcd*/data ] && break; sleep 0.1; done
	cat /sys/class/devcoredump/devcd*/data || die "no core dump"
	for d in /sys/class/devcoredump/devcd*/data; do echo 1 >$d; done
}
`

// checkDump expects a core dump that begins with what every one has, and says this.
func checkDump(t *testing.T, dump []byte, want ...string) {
	t.Helper()
	if len(dump) > 64<<10 || !strings.HasPrefix(string(dump), "npu core dump 1\nreason: ") {
		t.Errorf("core dump of %d bytes begins %.60q", len(dump), dump)
	}
	for _, w := range append(want, "\nkernel: ", "\narch: 1.", "\nfirmware: ", "\nregisters:\n", "\nqueues:\nqueue ") {
		if !strings.Contains(string(dump), w) {
			t.Errorf("the core dump does not say %q:\n%s", w, dump)
		}
	}
}

// A sleeper notes the card's power state whenever the guest says that it sleeps.
func sleeper(d *vdev.Device, states *[]string) func(*guest.Config) {
	return func(c *guest.Config) {
		c.OnLine = func(line string) {
			if strings.HasPrefix(line, "lifetest: asleep") {
				*states = append(*states, d.Status().PowerState)
			}
		}
	}
}

// TestSleep lets the idle function sleep in D3hot, on every kernel. What the driver says of itself is looked at in
// passing.
func TestSleep(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			d, socket := devtest.Start(t, vdev.DefaultConfig())
			var states []string
			res := bootCard(t, e, k, socket, inspect+`
load
lifetest sleep | tee $RESULT/sleep
state state >$RESULT/state || die debugfs
state queues >$RESULT/queues || die debugfs
state contexts >$RESULT/contexts || die debugfs
digits `+Digits+` >$RESULT/digits.json || die digits
rmmod npu || die rmmod
`, sleeper(d, &states), func(c *guest.Config) { c.Timeout = 4 * time.Minute })
			checkKTAP(t, res.Files["sleep"], 14)
			checkDigits(t, res.Files["digits.json"])
			if len(states) != 1 || states[0] != "D3hot" {
				t.Errorf("the card was in %q when the guest said that it sleeps", states)
			}
			if s := string(res.Files["state"]); !strings.Contains(s, "BOOT_STATUS      0x00000004") {
				t.Errorf("state in debugfs:\n%s", s)
			}
			for _, f := range d.Findings() {
				t.Errorf("finding %s ×%d: %s", f.ID, f.Count, f.Last)
			}
		})
	}
}

// TestShareIOMMU runs sharetest behind an IOMMU, which joins pages that are apart.
func TestShareIOMMU(t *testing.T) {
	e := guest.Require(t)
	res, d := boot(t, e, "", "load\nmodprobe vgem || die vgem\nsharetest -i >$RESULT/share; echo status $?; rmmod npu || die rmmod\n",
		func(c *guest.Config) {
			c.ExtraArgs = append(c.ExtraArgs, "-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on")
			c.Append += " intel_iommu=on"
			c.Modules = append(c.Modules, "vgem")
		})
	checkKTAP(t, res.Files["share"], 95)
	for _, f := range d.Findings() {
		if f.ID != "command-ABORTED" { // of a queue that is destroyed with jobs in it
			t.Errorf("finding %s ×%d: %s", f.ID, f.Count, f.Last)
		}
	}
}
