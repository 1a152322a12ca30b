// SPDX-License-Identifier: Apache-2.0

package card

import (
	"strings"
	"testing"
	"time"

	"npuemu/tests/guest"
	"npuemu/vdev"
)

// TestInterrupts is the main job on cards that offer less than the default (§1.4),
// on every kernel: the driver falls back, and loses no interrupt. A job whose interrupt
// is lost ends by its timeout of 30 s.
func TestInterrupts(t *testing.T) {
	e := guest.Require(t)
	remapping := func(c *guest.Config) { // without it x86 gives out one message of MSI
		c.ExtraArgs = append(c.ExtraArgs, "-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on")
		c.Append += " intel_iommu=on"
	}
	for _, tt := range []struct {
		name   string
		config func(*vdev.Config)
		change []func(*guest.Config)
		modes  string // of the interrupts in msi_irqs
		bar4   bool
	}{
		{"MSI", func(c *vdev.Config) { c.PCI.MSIX = false }, nil, "1 msi", false},
		{"MSI, many messages", func(c *vdev.Config) { c.PCI.MSIX = false }, []func(*guest.Config){remapping}, "16 msi", false},
		{"INTx", func(c *vdev.Config) { c.PCI = vdev.PCIConfig{} }, nil, "", false},
		{"INTx, posted writes", func(c *vdev.Config) { c.PCI = vdev.PCIConfig{}; c.Memory.Window = false }, nil, "", false},
		{"MSI-X without MSI", func(c *vdev.Config) { c.PCI.MSI = false }, nil, "16 msix", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, k := range e.Kernels() {
				t.Run(k, func(t *testing.T) {
					cfg := vdev.DefaultConfig()
					tt.config(&cfg)
					res, d := bootWith(t, e, cfg, k, `
load
stage jobs
cat $dev/msi_irqs/* 2>/dev/null | sort | uniq -c >$RESULT/modes
sed -n 5p $dev/resource >$RESULT/bar4
grep npu- /proc/interrupts >$RESULT/lines || die "no interrupt of the driver"
digits `+Digits+` >$RESULT/digits.json || die digits: $?
echo 1 >$dev/reset || die FLR
digits `+Digits+` >$RESULT/after-flr.json || die digits after FLR: $?
grep npu- /proc/interrupts >$RESULT/lines || die "no interrupt of the driver"
rmmod npu || die rmmod
[ -e $dev/msi_irqs ] && die "vectors left behind"
dmesg | grep -q "nobody cared" && die "interrupts that nobody handled"
load
digits `+Digits+` >/dev/null || die digits after load: $?
rmmod npu || die rmmod
`, tt.change...)
					checkDigits(t, res.Files["digits.json"])
					checkDigits(t, res.Files["after-flr.json"])
					if got := strings.Join(strings.Fields(string(res.Files["modes"])), " "); got != tt.modes {
						t.Errorf("msi_irqs: %q, want %q", got, tt.modes)
					}
					lines := string(res.Files["lines"])
					if intx := strings.Contains(lines, "IO-APIC"); intx != (tt.modes == "") {
						t.Errorf("want INTx %t:\n%s", tt.modes == "", lines)
					}
					if absent := strings.HasPrefix(string(res.Files["bar4"]), "0x0000000000000000 0x0000000000000000"); absent == tt.bar4 {
						t.Errorf("BAR4 %s, want it there: %t", res.Files["bar4"], tt.bar4)
					}
					if f := d.Findings(); len(f) != 0 {
						guest.Attr(t, guest.AttrCause, guest.CauseDevice)
						t.Errorf("our own driver makes mistakes: %+v", f)
					}
					for _, s := range res.Stages {
						if s.Name == "jobs" && s.Duration > 30*time.Second {
							t.Errorf("the jobs took %v: an interrupt is lost\n%s", s.Duration, lines)
						}
					}
				})
			}
		})
	}
}
