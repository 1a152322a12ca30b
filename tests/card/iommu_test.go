// SPDX-License-Identifier: Apache-2.0

package card

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"npuemu/tests/guest"
)

// TestIOMMU is the main job behind the guest's own IOMMU, in translated mode, and with other ways in which a kernel
// hands out bus addresses.
func TestIOMMU(t *testing.T) {
	e := guest.Require(t)
	for i, tt := range []struct {
		name   string
		iommu  guest.IOMMU
		append string
	}{ // the kernels in turn: each has both IOMMUs, and both kinds of addresses
		{"intel", guest.IntelIOMMU, ""},
		{"intel, 64-bit addresses", guest.IntelIOMMU, "iommu.forcedac=1"},
		{"virtio, 64-bit addresses", guest.VirtIOMMU, "iommu.forcedac=1"},
		{"virtio", guest.VirtIOMMU, ""},
	} {
		k := e.Kernels()[i%len(e.Kernels())]
		t.Run(tt.name+" "+k, func(t *testing.T) {
			res, d := boot(t, e, k, `grep -q ^DMA $dev/iommu_group/type || die "not translated"
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

// TestBounceBuffers: a host that bounces all DMA has no memory for the NPU (driver/README.md). The driver loads, says so, and goes.
func TestBounceBuffers(t *testing.T) {
	e := guest.Require(t)
	boot(t, e, e.Kernels()[0], `dmesg | grep -q "software IO TLB: area num" || die "no bounce buffers"
load
digits `+Digits+` >/dev/null 2>$RESULT/why && die "digits ran"
grep -qi "cannot allocate memory" $RESULT/why || die "digits: $(cat $RESULT/why)"
rmmod npu || die rmmod
`, func(c *guest.Config) { c.Append = "swiotlb=force" })
}

// buildFault builds npufault.ko, a driver that makes mistakes with DMA mappings.
func buildFault(t *testing.T, e *guest.Env, kernel string) string {
	t.Helper()
	src, out := t.TempDir(), t.TempDir()
	for _, f := range []string{"../guest/modules/Kbuild", "../guest/modules/npufault.c", "../../driver/npu_hw.h", "../../driver/npu_regs.h"} {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, filepath.Base(f)), text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	ko, warnings, err := e.BuildModule(t.Context(), kernel, src, out)
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 0 {
		t.Errorf("npufault.ko: W=1 warns:\n%s", strings.Join(warnings, "\n"))
	}
	return ko
}

// TestIOMMUFaults: a driver breaks the rules of §7.6. It sees errors, the guest's own IOMMU
// driver logs true faults, the device says what was wrong; then our driver works.
func TestIOMMUFaults(t *testing.T) {
	e := guest.Require(t)
	const read, write = "Read", "Write"
	for i, tt := range []struct {
		name  string
		iommu guest.IOMMU
		quiet int                              // ms after each mistake
		fault func(access, addr string) string // in the kernel's log
	}{
		{"intel", guest.IntelIOMMU, 2000, func(access, addr string) string {
			return `DMAR: \[DMA ` + access + ` NO_PASID\] Request device \[[0-9a-f:.]+\] fault addr ` + addr + `000 \[fault reason 0x0[56]\] PTE ` + access + ` access is not set`
		}},
		{"virtio", guest.VirtIOMMU, 50, func(_, addr string) string {
			return `virtio_iommu virtio\d+: page fault from EP \d+ at ` + addr + "000 "
		}},
	} {
		k := e.Kernels()[i%len(e.Kernels())] // one kernel each, to save time
		t.Run(tt.name+" "+k, func(t *testing.T) {
			ko := buildFault(t, e, k)
			res, d := boot(t, e, k, fmt.Sprintf("modprobe npufault quiet_ms=%d", tt.quiet)+` || die modprobe npufault: $?
dmesg >$RESULT/log
rmmod npufault || die rmmod npufault
stage digits
load
digits `+Digits+` >$RESULT/digits.json || die digits: $?
rmmod npu || die rmmod
`, func(c *guest.Config) {
				c.IOMMU, c.Append = tt.iommu, "iommu.strict=1" // or virtio's unmaps come later
				c.Modules = append(c.Modules, ko)
			})
			log := string(res.Files["log"])
			faults := map[string]int{} // that there must be, by pattern
			for _, c := range []struct {
				name, status, access string // access "": no fault
			}{
				{"firmware-unmapped", "0x02", read}, // FETCH
				{"good", "0x00", ""},
				{"read-unmapped", "0x10", read},
				{"write-unmapped", "0x10", write},
				{"write-read-only", "0x10", write},
				{"read-after-unmap", "0x10", read},
				{"unmap-in-flight", "0x10", read},
				{"ring-after-unmap", "0x10", read},
				{"good-again", "0x00", ""},
			} {
				m := regexp.MustCompile(`npufault [0-9a-f:.]+: ` + c.name + `: (0x[0-9a-f]+) status (0x\d+) info`).FindStringSubmatch(log)
				if m == nil || m[2] != c.status {
					t.Errorf("%s: %q, want status %s", c.name, m, c.status)
					continue
				}
				if c.access != "" {
					faults[tt.fault(c.access, m[1][:len(m[1])-3])]++
				}
			}
			for pattern, want := range faults {
				if got := len(regexp.MustCompile(pattern).FindAllString(log, -1)); got != want {
					t.Errorf("the IOMMU's driver logs %d faults, want %d of %s", got, want, pattern)
				}
			}
			if !regexp.MustCompile(`npufault [0-9a-f:.]+: done: 0`).MatchString(log) {
				t.Error("npufault did not get to its end")
			}
			checkDigits(t, res.Files["digits.json"])
			found := map[string]uint64{}
			for _, f := range d.Findings() {
				found[f.ID] = f.Count
				t.Logf("%s, %d: %s", f.ID, f.Count, f.Last)
			}
			for id, n := range map[string]uint64{"dma-unmapped": 3, "dma-direction": 1, "dma-after-unmap": 2, "dma-unmap-in-flight": 1} {
				if found[id] != n {
					t.Errorf("finding %s: %d times, want %d", id, found[id], n)
				}
			}
			if t.Failed() {
				t.Logf("log:\n%s", log)
			} else {
				t.Log(strings.Join(regexp.MustCompile(`(?m)^.*(npufault [0-9a-f]|DMAR: \[|page fault).*$`).FindAllString(log, -1), "\n"))
			}
		})
	}
}
