// SPDX-License-Identifier: Apache-2.0

// Package uml attaches User-mode Linux to the paravirtual NPU: no QEMU, no virtual machine, and Linux's own virtio
// core at the other end of the virtqueues. setup.sh builds it.
package uml

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"npuemu/mmio/npureg"
	"npuemu/tests/guest"
	"npuemu/tests/virtiotest"
	"npuemu/vdev"
	"npuemu/vdev/vhostuser"
)

// require finds User-mode Linux, or skips the test with the reason.
func require(t *testing.T) (e *guest.Env, dir string) {
	t.Helper()
	e = guest.Require(t)
	dir = filepath.Join(e.Cache, "uml")
	if _, err := os.Stat(filepath.Join(dir, "stamp")); err != nil {
		if os.Getenv("NPUEMU_REQUIRE_UML") == "1" {
			t.Fatal(err)
		}
		t.Skipf("no User-mode Linux in %s: run make test-uml", dir)
	}
	return e, dir
}

// module builds the one kernel module whose Kbuild file is in src, for User-mode Linux, into the root directory.
func module(t *testing.T, e *guest.Env, dir, src, root string) {
	t.Helper()
	work := t.TempDir()
	for from, to := range map[string]string{filepath.Join(dir, "headers"): "linux", src: "module"} {
		if err := os.CopyFS(filepath.Join(work, to), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	out := t.TempDir()
	if _, err := e.Run(t.Context(), work, out, "sh", "-c", "make -s ARCH=um -C linux M=$PWD/module modules && mv module/*.ko . && rm -rf linux module"); err != nil {
		t.Fatal(err)
	}
	kos, err := filepath.Glob(filepath.Join(out, "*.ko"))
	if err != nil || len(kos) != 1 {
		t.Fatalf("%d modules, %v", len(kos), err)
	}
	copyFile(t, kos[0], filepath.Join(root, filepath.Base(kos[0])))
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o777)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// newRoot returns a root directory with a busybox, for User-mode Linux to mount.
func newRoot(t *testing.T, e *guest.Env) string {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"bin", "proc", "sys", "dev", "tmp"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o777); err != nil {
			t.Fatal(err)
		}
	}
	copyFile(t, filepath.Join(e.Cache, "toolroot/usr/bin/busybox"), filepath.Join(root, "bin/busybox"))
	return root
}

// boot runs a script in User-mode Linux with the NPU, and returns the console and the card, which may have found what is
// expected. virtio_uml has at most 64 virtqueues, so the card has few.
func boot(t *testing.T, dir, root, script string, expected ...string) (string, *vdev.Device) {
	t.Helper()
	cfg := vdev.DefaultConfig()
	cfg.Memory.Size = 1 << 20
	cfg.Queues.Count = 4
	d, err := vdev.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	v := vdev.NewParavirt(d)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { d.Run(ctx); done <- struct{}{} }()
	go func() { v.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	socket := virtiotest.Serve(t, vhostuser.Config{}, v)
	init := "#!/bin/busybox sh\nexport PATH=/bin\n/bin/busybox --install -s /bin\nmount -t proc proc /proc\nmount -t sysfs sys /sys\n" + script + "\npoweroff -f\n"
	if err := os.WriteFile(filepath.Join(root, "init"), []byte(init), 0o777); err != nil {
		t.Fatal(err)
	}
	limit, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	cmd := exec.CommandContext(limit, filepath.Join(dir, "linux"), "mem=256M", "rootfstype=hostfs", "rootflags="+root, "rw", "init=/init",
		"uml_dir="+t.TempDir(), "con0=fd:0,fd:1", "con=null", "ssl=null", fmt.Sprintf("virtio_uml.device=%s:%d", socket, vdev.VirtioID))
	// The kernel's user processes begin as copies of itself that have unmapped everything: also where the C library
	// would have restartable sequences.
	cmd.Env = append(os.Environ(), "GLIBC_TUNABLES=glibc.pthread.rseq=0")
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, console.String())
	}
	for _, f := range d.Findings() {
		if !slices.Contains(expected, f.ID) {
			t.Errorf("finding: %+v", f)
		}
	}
	return strings.ReplaceAll(console.String(), "\r", ""), d
}

// TestProbe: Linux's virtio core negotiates, and its virtqueues run commands, packed and split, alone and many at once. The
// module comes twice: what it left is gone.
func TestProbe(t *testing.T) {
	e, dir := require(t)
	root := newRoot(t, e)
	module(t, e, dir, "probe", root)
	console, d := boot(t, dir, root, `
for split in 0 0 1 1; do
	insmod /npu_probe.ko split=$split || echo insmod: $?
	cat /sys/bus/virtio/devices/virtio0/status
	rmmod npu_probe || echo rmmod: $?
done`)
	got := regexp.MustCompile(`npu_probe: result.*|insmod:.*|rmmod:.*|WARNING.*`).FindAllString(console, -1)
	var want []string
	for _, packed := range []int{1, 1, 0, 0} { // virtio_uml does not offer again what a driver once declined
		want = append(want, fmt.Sprintf("npu_probe: result 0, packed %d, indirect 1, event index 1", packed))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") || strings.Count(console, "0x0000000f\n") != 4 {
		t.Errorf("%q, want %q\n%s", got, want, console)
	}
	if n := d.Counter(npureg.CounterCommands); n != 4*1060 {
		t.Errorf("the device counted %d commands, want %d", n, 4*1060)
	}
}

// TestRemoval takes the driver from a program that works, and unbinds it from a device that has no window.
func TestRemoval(t *testing.T) {
	e, dir := require(t)
	const driver, programs = "../../driver", "../guest/programs/"
	root := newRoot(t, e)
	module(t, e, dir, driver, root)
	if err := e.BuildProgram(t.Context(), filepath.Join(root, "bin/lifetest"), []string{programs + "lifetest.c", programs + "npu.c"}, programs, driver+"/uapi"); err != nil {
		t.Fatal(err)
	}
	devinfo(t, e, root)
	console, _ := boot(t, dir, root, `
insmod /npu.ko || echo insmod: $?
drv=/sys/bus/virtio/drivers/npu
v=$(basename $drv/virtio*)
for i in 1 2 3; do
	rm -f /working
	lifetest removed /working &
	for k in $(seq 100); do [ -e /working ] && break; sleep 0.1; done
	rmmod npu 2>/dev/null && echo "rmmod: under a program"
	echo $v >$drv/unbind || echo unbind: $?
	wait
	echo $v >$drv/bind || echo bind: $?
	devinfo /dev/accel/accel0 >/dev/null && echo devinfo ran
done
rmmod npu || echo rmmod: $?`, "command-ABORTED")
	if strings.Count(console, "# 0 of 11 failed\n") != 3 || strings.Count(console, "devinfo ran\n") != 3 ||
		regexp.MustCompile(`(?m)^(not ok|insmod:|rmmod:|unbind:|bind:)|WARNING|BUG`).MatchString(console) {
		t.Error(console)
	}
	t.Log(console[max(0, strings.Index(console, "/init as init")):])
}

// devinfo puts the program of that name into root.
func devinfo(t *testing.T, e *guest.Env, root string) {
	t.Helper()
	if err := e.BuildGo(t.Context(), filepath.Join(root, "bin/devinfo"), "../..", "./tests/guest/programs/devinfo"); err != nil {
		t.Fatal(err)
	}
}

// TestDriver: the driver of this tree over virtio, and a program that asks it what is there.
func TestDriver(t *testing.T) {
	e, dir := require(t)
	const driver = "../../driver"
	root := newRoot(t, e)
	module(t, e, dir, driver, root)
	devinfo(t, e, root)
	console, _ := boot(t, dir, root, `
for i in 1 2; do
	insmod /npu.ko || echo insmod: $?
	for k in $(seq 50); do [ -e /dev/accel/accel0 ] && break; sleep 0.1; done
	devinfo /dev/accel/accel0 && echo devinfo ran
	rmmod npu || echo rmmod: $?
done`)
	if strings.Count(console, "devinfo ran\n") != 2 || strings.Contains(console, "insmod:") || strings.Contains(console, "rmmod:") || strings.Contains(console, "WARNING") {
		t.Error(console)
	}
	t.Log(console[max(0, strings.Index(console, "/init as init")):])
}
