// SPDX-License-Identifier: Apache-2.0

// Package embedded boots Linux in the embedded VMM where KVM works for sure: in
// a guest of QEMU, whose emulated processor has AMD's virtualization. The card,
// its VMM and their Linux are all inside that guest.
package embedded

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npuemu/tests/card"
	"npuemu/tests/guest"
	_ "npuemu/vdev/gokvm" // so that a cached result is this VMM's
)

// outer runs in QEMU's guest. The inner guest's root is a copy of its own.
const outer = `
modprobe kvm-amd 2>/dev/null || modprobe kvm-intel
[ -c /dev/kvm ] || { echo "no nested KVM" >$RESULT/skip; exit 0; }
/gokvm.test -test.v -test.run 'TestPayload$|TestEnds$|TestConsole$|TestPlaceDRAM$' >$RESULT/machine.txt || exit 1
stage linux
mkdir -p /inner/dev /inner/proc /inner/sys
cp -a /bin /lib /digits /inner
cp /inner.init /inner/init
mknod /inner/dev/console c 5 1
(cd /inner && find . | cpio -o -H newc) >/inner.img 2>/dev/null
NPUEMU_BOOT_KERNEL=/vmlinuz NPUEMU_BOOT_INITRD=/inner.img /gokvm.test -test.v -test.run 'TestLinux$' >$RESULT/linux.txt
`

// inner is the init of the guest in the embedded VMM.
const inner = `#!/bin/sh
export PATH=/bin HOME=/
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
modprobe npu
devinfo
digits /digits
grep npu- /proc/interrupts
rmmod npu && echo inner: driver unloaded
reboot -f
`

// TestLinux boots a distribution's kernel in the embedded VMM, binds the driver and
// runs the digits example.
func TestLinux(t *testing.T) {
	e := guest.Require(t)
	dir := t.TempDir()
	kernel := e.Kernels()[len(e.Kernels())-1] // the oldest: its image is where Debian puts it
	image := filepath.Join(e.Cache, "toolroot", "boot", "vmlinuz-"+kernel)
	if _, err := os.Stat(image); err != nil {
		t.Skip("not run: ", err)
	}
	kit, err := card.Build(t.Context(), e, kernel, "../..", dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	vmm := filepath.Join(dir, "gokvm.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-o", vmm, "npuemu/vdev/gokvm")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // there is no C library in the guest
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	init := filepath.Join(dir, "init")
	if err := os.WriteFile(init, []byte(inner), 0o755); err != nil {
		t.Fatal(err)
	}
	cfg := kit.Config(kernel, "", outer)
	cfg.Sockets = nil
	cfg.Memory = 2048
	cfg.Timeout = 8 * time.Minute
	cfg.Modules = append(cfg.Modules, "kvm-amd", "kvm-intel")
	cfg.Files["/gokvm.test"], cfg.Files["/vmlinuz"], cfg.Files["/inner.init"] = vmm, image, init
	res, err := guest.Boot(t.Context(), e, cfg)
	guest.Note(t, res, err)
	if res == nil || err != nil {
		t.Fatalf("%v", err)
	}
	if why := res.Files["skip"]; why != nil {
		t.Skipf("not run: %s (QEMU with %s)", strings.TrimSpace(string(why)), res.Accel)
	}
	machine, linux := string(res.Files["machine.txt"]), string(res.Files["linux.txt"])
	if res.Status != 0 {
		t.Fatalf("status %d\n%s\n%s", res.Status, machine, linux)
	}
	for _, s := range []string{"TestPayload", "TestEnds", "TestConsole", "TestPlaceDRAM"} {
		if !strings.Contains(machine, "--- PASS: "+s+" ") {
			t.Errorf("%s did not pass:\n%s", s, machine)
		}
	}
	for _, s := range []string{"--- PASS: TestLinux ", "inner: driver unloaded"} {
		if !strings.Contains(linux, s) {
			t.Errorf("the inner console does not say %q", s)
		}
	}
	found := false
	for line := range strings.Lines(linux) {
		var digits struct {
			Images     int
			Correct    int
			Mismatched int `json:"mismatched_bytes"`
			OK         bool
		}
		if !strings.Contains(line, `"mismatched_bytes"`) || json.Unmarshal([]byte(line), &digits) != nil {
			continue
		}
		found = true
		if !digits.OK || digits.Images != 364 || digits.Correct < 350 || digits.Mismatched != 0 {
			t.Errorf("digits: %+v", digits)
		}
	}
	if !found {
		t.Error("the digits program reported nothing")
	}
	if t.Failed() {
		t.Logf("inner console:\n%s", linux)
	}
	t.Logf("QEMU %s (%s), Linux %s, %v", res.QEMU, res.Accel, res.Kernel, res.Stages)
}
