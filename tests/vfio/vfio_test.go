// SPDX-License-Identifier: Apache-2.0

// Package vfio lets the kernel judge the ioat device: its driver for such engines, its test of DMA drivers, and its
// selftests of VFIO, unmodified, on our lean kernel (make test-vfio); and with a driver for their library, npu, the NPU.
// What a stock kernel has is part of make test.
package vfio

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"npuemu/internal/findings"
	"npuemu/internal/uds"
	"npuemu/tests/guest"
	"npuemu/vdev/ioat"
	"npuemu/vdev/vfiouser"
)

// serve serves an ioat device on a socket until the test ends.
func serve(t *testing.T) (d *ioat.Device, socket string) {
	t.Helper()
	d, err := ioat.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ioat") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	ln, err := uds.Listen(socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { d.Run(ctx); done <- struct{}{} }()
	go func() {
		_ = vfiouser.NewServer(vfiouser.Config{}, d).Serve(ctx, ln) // ctx's error
		done <- struct{}{}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
		os.RemoveAll(dir)
	})
	return d, socket
}

// iommu is a machine whose devices are behind an IOMMU that tells QEMU of every mapping.
var iommu = []string{"-device", "intel-iommu,caching-mode=on,intremap=on"}

// boot runs a script in a guest with an ioat device, and fails the test if that fails.
func boot(t *testing.T, e *guest.Env, cfg guest.Config) (*ioat.Device, *guest.Result) {
	t.Helper()
	d, socket := serve(t)
	return d, bootWith(t, e, socket, "0x80860x2021", cfg)
}

// bootWith is boot with the device on this socket, whose vendor and device are id.
func bootWith(t *testing.T, e *guest.Env, socket, id string, cfg guest.Config) *guest.Result {
	t.Helper()
	cfg.Sockets = []string{socket}
	cfg.ExtraArgs = append(slices.Clone(iommu), cfg.ExtraArgs...)
	cfg.Append = "intel_iommu=on " + cfg.Append
	cfg.Script = "id=" + id + common + cfg.Script
	res, err := guest.Boot(t.Context(), e, cfg)
	guest.Note(t, res, err)
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != 0 {
		t.Fatalf("the guest's script fails with %d:\n%s", res.Status, res.Console)
	}
	for _, s := range res.Stages {
		t.Logf("%s: %.1f s", s.Name, s.Duration.Seconds())
	}
	return res
}

// common finds the device that is $id: $bdf is its address, $dev its directory.
const common = `
set -e
for dev in /sys/bus/pci/devices/*; do
	read -r vendor <$dev/vendor
	read -r device <$dev/device
	[ $vendor$device != $id ] || break
done
bdf=${dev##*/}
[ $vendor$device = $id ]
`

// dmatest has dmatest copy, verify, and say what came of it.
const dmatest = `
stage dmatest
modprobe dmatest timeout=20000 iterations=2000 run=1
read -r done </sys/module/dmatest/parameters/wait
dmesg | grep 'dmatest:' | tail -3 >$RESULT/dmatest
rmmod dmatest
`

var summary = regexp.MustCompile(`summary (\d+) tests, (\d+) failures (\S+) iops (\d+) KB/s`)

func checkDMATest(t *testing.T, res *guest.Result) {
	t.Helper()
	m := summary.FindStringSubmatch(string(res.Files["dmatest"]))
	if m == nil || m[1] != "2000" || m[2] != "0" {
		t.Fatalf("dmatest says %q, want 2000 tests and no failure", res.Files["dmatest"])
	}
	t.Logf("dmatest: %s", m[0])
}

// TestStock is what a stock kernel comes with: the driver, whose probe copies by itself and compares, with each kind of
// interrupt, with the device reset and unbound between them.
func TestStock(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			d, res := boot(t, e, guest.Config{Kernel: k, Modules: []string{"ioatdma"}, Script: `
for style in msix msi intx; do
	stage $style
	modprobe ioatdma ioat_interrupt_style=$style
	[ -e /sys/bus/pci/drivers/ioatdma/$bdf ]
	grep ioat-$style /proc/interrupts | tee -a $RESULT/interrupts
	[ -e $dev/dma/dma0chan0 ]
	echo 1 >$dev/reset
	rmmod ioatdma
done
dmesg | grep -i 'ioat\|DMAR.*fault' >$RESULT/dmesg || true
`})
			// A line ends in its kind's name, and has a count that is not 0 after the number of the interrupt.
			fired := regexp.MustCompile(`(?m)^ *\d+: +[1-9]\d* .*ioat-(msix|msi|intx)$`).FindAllStringSubmatch(string(res.Files["interrupts"]), -1)
			if len(fired) != 3 {
				t.Errorf("interrupts by %d kinds, want msix, msi and intx:\n%s", len(fired), res.Files["interrupts"])
			}
			if text := string(res.Files["dmesg"]); strings.Contains(text, "Self-test") || strings.Contains(text, "fault") {
				t.Errorf("the kernel says:\n%s", text)
			}
			s := d.Stats()
			if s.Descriptors < 6 || s.Errors != 0 || s.Bytes < 3*2000 {
				t.Errorf("the device did %+v", s)
			}
			t.Logf("%+v", s)
			noFindings(t, d)
		})
	}
}

// noFindings fails the test if a guest made mistakes, but for those of ids.
func noFindings(t *testing.T, d interface{ Findings() []findings.Finding }, ids ...string) {
	t.Helper()
	for _, f := range d.Findings() {
		if !slices.Contains(ids, f.ID) {
			t.Errorf("finding %s, %d times: %s: %s", f.ID, f.Count, f.Rule, f.Last)
		}
	}
}

// TestDMATest is the kernel's own test of DMA drivers: 2,000 copies of random size and alignment, compared.
func TestDMATest(t *testing.T) {
	e, lean := guest.RequireOwn(t, guest.Lean)
	d, res := boot(t, e, guest.Config{Kernel: lean, Modules: []string{"ioatdma", "dmatest"}, Script: "modprobe ioatdma\n" + dmatest})
	checkDMATest(t, res)
	noFindings(t, d)
	t.Logf("%+v", d.Stats())
}

// TestDMATestStock is the same on the stock kernels of the lean kernel's source, which come without dmatest: it is built for them.
func TestDMATestStock(t *testing.T) {
	e, lean := guest.RequireOwn(t, guest.Lean)
	src := t.TempDir()
	text, err := os.ReadFile(filepath.Join(e.Cache, "kernels", lean, "dmatest/dmatest.c"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"dmatest.c": string(text), "Kbuild": "obj-m := dmatest.o\n"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	ko, _, err := e.BuildModule(t.Context(), "", src, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d, res := boot(t, e, guest.Config{Modules: []string{"ioatdma", ko}, Script: "modprobe ioatdma\n" + dmatest})
	checkDMATest(t, res)
	noFindings(t, d)
}
