// SPDX-License-Identifier: Apache-2.0

package card

import (
	"testing"
	"time"

	"npuemu/tests/guest"
)

// TestIOMMU is the main job behind the guest's own IOMMU, in translated mode, and with other ways in which a kernel
// hands out bus addresses.
func TestIOMMU(t *testing.T) {
	e := guest.Require(t)
	for _, tt := range []struct {
		name   string
		iommu  guest.IOMMU
		append string
		check  string // that the mode is what it is meant to be
	}{
		{"intel", guest.IntelIOMMU, "", `grep -q ^DMA $dev/iommu_group/type || die "not translated"`},
		{"virtio", guest.VirtIOMMU, "", `grep -q ^DMA $dev/iommu_group/type || die "not translated"`},
		{"intel, 64-bit addresses", guest.IntelIOMMU, "iommu.forcedac=1", `grep -q ^DMA $dev/iommu_group/type || die "not translated"`},
		{"virtio, 64-bit addresses", guest.VirtIOMMU, "iommu.forcedac=1", `grep -q ^DMA $dev/iommu_group/type || die "not translated"`},
		{"bounce buffers", guest.NoIOMMU, "swiotlb=force", `dmesg | grep -q "software IO TLB: mapped" || die "no bounce buffers"`},
	} {
		for _, k := range e.Kernels() {
			t.Run(tt.name+" "+k, func(t *testing.T) {
				res, d := boot(t, e, k, tt.check+`
load
stage digits
digits `+Digits+` >$RESULT/digits.json || die digits: $?
stage uapitest
uapitest -r -t >$RESULT/ktap; echo status $?
stage again
echo 1 >$dev/reset || die FLR
digits `+Digits+` >$RESULT/again.json || die digits after FLR: $?
rmmod npu || die rmmod
dmesg | grep -iE "DMAR.*fault|page fault from EP" && die "the IOMMU saw faults"
true
`, func(c *guest.Config) {
					c.IOMMU, c.Append, c.Timeout = tt.iommu, tt.append, 4*time.Minute
				})
				checkDigits(t, res.Files["digits.json"])
				checkDigits(t, res.Files["again.json"])
				checkKTAP(t, res.Files["ktap"], 180)
				t.Logf("QEMU %s, Linux %s: %v; %d ranges mapped at the end", res.QEMU, res.Kernel, res.Stages, d.DMATable().Len())
			})
		}
	}
}
