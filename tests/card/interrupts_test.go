// SPDX-License-Identifier: Apache-2.0

package card

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"npuemu/tests/guest"
	"npuemu/vdev"
)

// An interruptCard is a card that offers less than the default (§1.4).
type interruptCard struct {
	name   string
	config func(*vdev.Config)
	modes  string // of the interrupts in msi_irqs
	bar4   bool
}

// TestInterrupts is the main job on cards that offer less than the default (§1.4),
// on every kernel: the driver falls back, and loses no interrupt. A job whose interrupt
// is lost ends by its timeout of 30 s. The cards of a group are in one guest, and the driver
// is bound to one after the other.
func TestInterrupts(t *testing.T) {
	e := guest.Require(t)
	remapping := func(c *guest.Config) { // without it x86 gives out one message of MSI
		c.ExtraArgs = append(c.ExtraArgs, "-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on")
		c.Append += " intel_iommu=on"
	}
	msi := func(c *vdev.Config) { c.PCI.MSIX = false }
	for _, group := range []struct {
		name   string
		change []func(*guest.Config)
		cards  []interruptCard
	}{
		{"plain", nil, []interruptCard{
			{"MSI", msi, "1 msi", false},
			{"INTx", func(c *vdev.Config) { c.PCI = vdev.PCIConfig{} }, "", false},
			{"INTx, posted writes", func(c *vdev.Config) { c.PCI = vdev.PCIConfig{}; c.Memory.Window = false }, "", false},
			{"MSI-X without MSI", func(c *vdev.Config) { c.PCI.MSI = false }, "16 msix", true},
		}},
		{"remapped", []func(*guest.Config){remapping}, []interruptCard{{"MSI, many messages", msi, "16 msi", false}}},
	} {
		for _, k := range e.Kernels() {
			t.Run(group.name+"/"+k, func(t *testing.T) { testInterrupts(t, e, k, group.cards, group.change...) })
		}
	}
}

func testInterrupts(t *testing.T, e *guest.Env, kernel string, cards []interruptCard, change ...func(*guest.Config)) {
	var turns []turn
	for _, c := range cards {
		cfg := vdev.DefaultConfig()
		c.config(&cfg)
		turns = append(turns, turn{c.name, cfg, `
load
stage jobs $n
cat $dev/msi_irqs/* 2>/dev/null | sort | uniq -c >$RESULT/modes
sed -n 5p $dev/resource >$RESULT/bar4
grep npu- /proc/interrupts >$RESULT/lines || die "no interrupt of the driver"
digits ` + Digits + ` >$RESULT/digits.json || die digits: $?
echo 1 >$dev/reset || die FLR
digits ` + Digits + ` >$RESULT/after-flr.json || die digits after FLR: $?
grep npu- /proc/interrupts >$RESULT/lines || die "no interrupt of the driver"
stage other $n
rmmod npu || die rmmod
[ -e $dev/msi_irqs ] && die "vectors left behind"
dmesg | grep -q "nobody cared" && die "interrupts that nobody handled"
load
digits ` + Digits + ` >/dev/null || die digits after load: $?
rmmod npu || die rmmod
`})
	}
	bootTurns(t, e, kernel, turns, func(t *testing.T, i int, res *guest.Result, d *vdev.Device) {
		checkDigits(t, res.Files["digits.json"])
		checkDigits(t, res.Files["after-flr.json"])
		c := cards[i]
		if got := strings.Join(strings.Fields(string(res.Files["modes"])), " "); got != c.modes {
			t.Errorf("msi_irqs: %q, want %q", got, c.modes)
		}
		lines := string(res.Files["lines"])
		if intx := strings.Contains(lines, "IO-APIC"); intx != (c.modes == "") {
			t.Errorf("want INTx %t:\n%s", c.modes == "", lines)
		}
		bar4 := res.Files["bar4"]
		if absent := strings.HasPrefix(string(bar4), "0x0000000000000000 0x0000000000000000"); absent == c.bar4 {
			t.Errorf("BAR4 %s, want it there: %t", bar4, c.bar4)
		}
		if f := d.Findings(); len(f) != 0 {
			guest.Attr(t, guest.AttrCause, guest.CauseDevice)
			t.Errorf("our own driver makes mistakes: %+v", f)
		}
		for _, s := range res.Stages {
			if s.Name == fmt.Sprintf("jobs %d", i) && s.Duration > 30*time.Second {
				t.Errorf("the jobs took %v: an interrupt is lost\n%s", s.Duration, lines)
			}
		}
	}, change...)
}
