// SPDX-License-Identifier: Apache-2.0

package card

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"npuemu/tests/guest"
	"npuemu/vdev"
)

// TestARM64 is the main job in arm64 guests on QEMU's virt machine, with each kind
// of interrupt. MSI-X and MSI arrive through GICv3's ITS.
func TestARM64(t *testing.T) {
	e := guest.RequireArch(t, guest.ARM64)
	for _, tt := range []struct {
		name   string
		config func(*vdev.Config)
		lines  string // of the driver in /proc/interrupts
		more   string
		iommu  guest.IOMMU
	}{
		{"MSI-X", func(*vdev.Config) {}, `ITS-PCI-MSIX.* npu-`, `
stage uapitest
uapitest -r -t >$RESULT/ktap || die uapitest: $?
`, guest.NoIOMMU},
		{"MSI-X behind an IOMMU", func(*vdev.Config) {}, `ITS-PCI-MSIX.* npu-`, `
grep -q ^DMA $dev/iommu_group/type || die "not translated"
`, guest.VirtIOMMU},
		{"MSI", func(c *vdev.Config) { c.PCI.MSIX = false }, `ITS-PCI-MSI-.* npu-`, "", guest.NoIOMMU},
		{"INTx", func(c *vdev.Config) { c.PCI = vdev.PCIConfig{} }, `GICv3 +\d+ Level +npu-`, "", guest.NoIOMMU},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := vdev.DefaultConfig()
			tt.config(&cfg)
			res, d := bootWith(t, e, cfg, "", `
uname -m >$RESULT/uname
load
digits `+Digits+` >$RESULT/digits.json || die digits: $?
grep npu- /proc/interrupts >$RESULT/lines || die "no interrupt of the driver"
echo 1 >$dev/reset || die FLR
digits `+Digits+` >$RESULT/after-flr.json || die digits after FLR: $?
`+tt.more+`
rmmod npu || die rmmod
dmesg | grep -q "nobody cared" && die "interrupts that nobody handled"
true
`, func(c *guest.Config) { c.IOMMU, c.Timeout = tt.iommu, 5*time.Minute })
			if got := string(res.Files["uname"]); got != "aarch64\n" {
				t.Errorf("uname -m: %q", got)
			}
			checkDigits(t, res.Files["digits.json"])
			checkDigits(t, res.Files["after-flr.json"])
			if lines := res.Files["lines"]; !regexp.MustCompile(tt.lines).Match(lines) {
				t.Errorf("interrupts, want %s:\n%s", tt.lines, lines)
			}
			if strings.Contains(tt.more, "uapitest") {
				checkKTAP(t, res.Files["ktap"], 180)
			} else if f := d.Findings(); len(f) != 0 {
				guest.Attr(t, guest.AttrCause, guest.CauseDevice)
				t.Errorf("our own driver makes mistakes: %+v", f)
			}
			t.Logf("QEMU %s, Linux %s: %v", res.QEMU, res.Kernel, res.Stages)
		})
	}
}

// TestPC is the main job on a machine that has conventional PCI only: i440fx.
func TestPC(t *testing.T) {
	e := guest.Require(t)
	res, d := boot(t, e, "", `
wc -c <$dev/config >$RESULT/config
load
digits `+Digits+` >$RESULT/digits.json || die digits: $?
rmmod npu || die rmmod
`, func(c *guest.Config) { c.Machine = "pc" })
	checkDigits(t, res.Files["digits.json"])
	if got := string(res.Files["config"]); got != "256\n" {
		t.Errorf("config space of %q bytes, want 256", got)
	}
	if f := d.Findings(); len(f) != 0 {
		guest.Attr(t, guest.AttrCause, guest.CauseDevice)
		t.Errorf("our own driver makes mistakes: %+v", f)
	}
}
