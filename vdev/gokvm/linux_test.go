// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package gokvm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npuemu/tests/guest"
	"npuemu/vdev"
)

// kernelPath finds a kernel: NPUEMU_BOOT_KERNEL, or one of the guest environment.
func kernelPath(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("NPUEMU_BOOT_KERNEL"); path != "" {
		return path
	}
	e := guest.Require(t)
	for _, pattern := range []string{"boot/vmlinuz-*", "usr/lib/modules/*/vmlinuz"} {
		if l, _ := filepath.Glob(filepath.Join(e.Cache, "toolroot", pattern)); len(l) > 0 {
			return l[0]
		}
	}
	t.Skip("not run: the guest environment has no kernel image")
	return ""
}

// TestLinux boots Linux until it restarts the machine: by itself for want of a
// root file system, or as the init of NPUEMU_BOOT_INITRD likes. What that init
// prints goes to the standard output. tests/embedded runs this in a guest whose
// KVM works.
func TestLinux(t *testing.T) {
	cfg := Config{Cmdline: "console=ttyS0 panic=-1 no_timer_check nokaslr cryptomgr.notests", Log: testLog(t)}
	kernel, err := os.Open(kernelPath(t))
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()
	cfg.Kernel = kernel
	var console bytes.Buffer
	cfg.Console = &console
	path := os.Getenv("NPUEMU_BOOT_INITRD")
	if path != "" {
		initrd, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer initrd.Close()
		cfg.Initrd = initrd
		cfg.Console = io.MultiWriter(os.Stdout, &console)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	npu := vdev.DefaultConfig()
	npu.Memory.Size = 1 << 20
	switch kind := os.Getenv("NPUEMU_BOOT_INTERRUPTS"); kind {
	case "":
	case "msi":
		npu.PCI.MSIX = false
	case "intx":
		npu.PCI = vdev.PCIConfig{}
	default:
		t.Fatalf("NPUEMU_BOOT_INTERRUPTS=%s: use msi or intx", kind)
	}
	err = Boot(ctx, cardWith(t, npu), cfg)
	switch {
	case errors.Is(err, ErrKVM), errors.Is(err, ErrEmulation):
		t.Skip("not run: ", err)
	case err != nil:
		t.Errorf("the guest ended with %v", err)
	}
	want := []string{"Linux version", "[1af4:10f1] type 00 class 0x060000", "[1af4:10f0] type 00 class 0x120000"}
	if path == "" {
		want = append(want, "Unable to mount root fs")
	}
	for _, s := range want {
		if !strings.Contains(console.String(), s) {
			t.Errorf("the console does not say %q", s)
		}
	}
	if t.Failed() {
		t.Logf("console:\n%s", console.String())
	}
}

// bzImage is a file with a setup header that fields may change: by offset.
func bzImage(size int, fields map[int]uint32) []byte {
	b := make([]byte, max(size, 0x2000))
	le := binary.LittleEndian
	le.PutUint32(b[0x202:], 0x53726448)
	b[0x1f1] = 1
	le.PutUint16(b[0x206:], 0x20f)
	le.PutUint32(b[0x22c:], 0x7fff_ffff) // initrd_addr_max
	le.PutUint16(b[0x236:], 1)           // xloadflags
	le.PutUint32(b[0x238:], 255)         // cmdline_size
	for off, v := range fields {
		le.PutUint32(b[off:], v)
	}
	return b
}

func TestLoadLinuxRefusals(t *testing.T) {
	good := bzImage(0, nil)
	for _, tt := range []struct {
		name string
		cfg  Config
		want string // in the error; "": none
	}{
		{"good", Config{Kernel: bytes.NewReader(good)}, ""},
		{"good, with initrd", Config{Kernel: bytes.NewReader(good), Initrd: strings.NewReader("initrd")}, ""},
		{"no kernel", Config{}, "no kernel"},
		{"empty", Config{Kernel: strings.NewReader("")}, "bzImage"},
		{"not a kernel", Config{Kernel: bytes.NewReader(make([]byte, 8192))}, "bzImage"},
		{"header only", Config{Kernel: bytes.NewReader(good[:0x300])}, "empty"},
		{"too old", Config{Kernel: bytes.NewReader(bzImage(0, map[int]uint32{0x206: 0x20b}))}, "boot protocol 0x20b"},
		{"32-bit", Config{Kernel: bytes.NewReader(bzImage(0, map[int]uint32{0x234: 0}))}, "not a 64-bit kernel"},
		{"larger than memory", Config{Kernel: bytes.NewReader(bzImage(minMemory, nil))}, "does not fit"},
		{"needs more memory", Config{Kernel: bytes.NewReader(bzImage(0, map[int]uint32{0x260: minMemory}))}, "needs"},
		{"moves above memory", Config{Kernel: bytes.NewReader(bzImage(0, map[int]uint32{0x258: minMemory, 0x260: 4096}))}, "needs"},
		{"long command line", Config{Kernel: bytes.NewReader(good), Cmdline: strings.Repeat("x", 256)}, "command line of 256"},
		{"payload", Config{Payload: []byte{0xf4}}, ""},
		{"payload larger than memory", Config{Payload: make([]byte, minMemory)}, "give the guest more"},
		{"large initrd", Config{Kernel: bytes.NewReader(good), Initrd: bytes.NewReader(make([]byte, minMemory))}, "give the guest more memory"},
		{"nowhere for the initrd", Config{Kernel: bytes.NewReader(bzImage(0, map[int]uint32{0x22c: 0x1000})), Initrd: strings.NewReader("x")}, "give the guest more memory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := machine(t, card(t), nil)
			load := v.loadLinux
			if tt.cfg.Payload != nil {
				load = v.loadPayload
			}
			err := load(tt.cfg)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				size := binary.LittleEndian.Uint32(v.mem[zeroPageAt+0x21c:])
				at := binary.LittleEndian.Uint32(v.mem[zeroPageAt+0x218:])
				if tt.cfg.Initrd != nil && (size != 6 || string(v.mem[at:][:6]) != "initrd") {
					t.Errorf("initrd of %d bytes at %#x is %q", size, at, v.mem[at:][:6])
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// TestMPTable checks what Linux checks: signatures, sums, and that the entries fill the table.
func TestMPTable(t *testing.T) {
	b := mpTable()
	if len(b) > 0xa0000-mpTableAt {
		t.Fatalf("%d bytes do not fit", len(b))
	}
	pointer, table := b[:16], b[16:]
	if checksum(pointer) != 0 || string(pointer[:4]) != "_MP_" || binary.LittleEndian.Uint32(pointer[4:]) != mpTableAt+16 {
		t.Errorf("pointer % x", pointer)
	}
	if checksum(table) != 0 || string(table[:4]) != "PCMP" || int(binary.LittleEndian.Uint16(table[4:])) != len(table) {
		t.Errorf("table % x", table)
	}
	n := 0
	for e := table[44:]; len(e) > 0; n++ {
		size := 8
		if e[0] == 0 {
			size = 20
		}
		e = e[size:]
	}
	if want := int(binary.LittleEndian.Uint16(table[34:])); n != want {
		t.Errorf("%d entries, the header says %d", n, want)
	}
}
