// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package hands

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"npuemu/firmware"
	"npuemu/internal/eventfd"
	"npuemu/mmio/npureg"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

const firmwareAt = 0x40_0000

// boot returns a guest with a running card, and the firmware image in its memory.
func boot(t *testing.T, cfg vdev.Config) *Client {
	t.Helper()
	d, err := vdev.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "guest")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(firmware.Image(), firmwareAt); err != nil {
		t.Fatal(err)
	}
	c := Boot(t, d, f)
	t.Cleanup(c.Close)
	return c
}

// TestInterrupts boots the firmware of cards that interrupt in different ways: every
// cause reaches the guest's processor exactly once.
func TestInterrupts(t *testing.T) {
	for _, tt := range []struct {
		name      string
		index     int
		msix, msi bool
	}{
		{"MSI-X", vfiouser.IRQMSIX, true, true},
		{"MSI", vfiouser.IRQMSI, false, true},
		{"MSI though there is MSI-X", vfiouser.IRQMSI, true, true},
		{"INTA", vfiouser.IRQINTx, false, false},
		{"INTA though there are messages", vfiouser.IRQINTx, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := vdev.DefaultConfig()
			cfg.PCI = vdev.PCIConfig{MSIX: tt.msix, MSI: tt.msi}
			c := boot(t, cfg)
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			reg := func(off, v uint32) {
				t.Helper()
				must(c.WriteRegion(0, uint64(off), binary.LittleEndian.AppendUint32(nil, v)))
			}
			read := func(off uint32) uint32 {
				t.Helper()
				p := make([]byte, 4)
				must(c.ReadRegion(0, uint64(off), p))
				return binary.LittleEndian.Uint32(p)
			}
			must(c.WriteRegion(vfiouser.RegionConfig, 4, []byte{6, 0}))
			if id := read(npureg.ID); id != npureg.Magic {
				t.Fatalf("ID %#x", id)
			}
			fd, err := eventfd.New()
			must(err)
			defer fd.Close()
			must(c.SetVectors(tt.index, 0, fd))
			reg(npureg.ImageAddrLo, firmwareAt)
			reg(npureg.ImageAddrLo+4, 0)
			reg(npureg.ImageSize, uint32(len(firmware.Image())))
			reg(npureg.IRQEnable, npureg.IRQBoot)
			reg(npureg.BootControl, npureg.BootControlStart)
			if fd.Wait(timeout) == 0 {
				t.Fatalf("no interrupt; BOOT_STATUS %#x, IRQ_STATUS %#x", read(npureg.BootStatus), read(npureg.IRQStatus))
			}
			if s := read(npureg.BootStatus); s != npureg.BootReady {
				t.Errorf("BOOT_STATUS %#x", s)
			}
			count := func() uint32 {
				if tt.index == vfiouser.IRQINTx {
					return c.Count(-1)
				}
				return c.Count(0)
			}
			if n := count(); n != 1 {
				t.Errorf("%d interrupts, want 1", n)
			}
			// Causes one after the other: doorbells of a queue that is not there (§9.2).
			reg(npureg.IRQEnable, npureg.IRQFault)
			for i := range uint32(200) {
				reg(npureg.DoorbellBase+npureg.DoorbellStride, 1)
				if fd.Wait(timeout) == 0 || count() != i+2 {
					t.Fatalf("cause %d: %d interrupts, IRQ_STATUS %#x", i, count(), read(npureg.IRQStatus))
				}
				reg(npureg.IRQStatus, npureg.IRQFault)
				reg(npureg.FaultStatus, npureg.FaultValid|npureg.FaultOverflow)
			}
		})
	}
}

// TestPayloadSource holds hands.bin against its source, where the tools are.
func TestPayloadSource(t *testing.T) {
	for _, tool := range []string{"as", "ld"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("not run: ", err)
		}
	}
	dir := t.TempDir()
	obj, bin := filepath.Join(dir, "hands.o"), filepath.Join(dir, "hands.bin")
	for _, args := range [][]string{
		{"as", "--64", "testdata/hands.S", "-o", obj},
		{"ld", "-m", "elf_x86_64", "-Ttext=0x100000", "--oformat=binary", obj, "-o", bin},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	got, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, payload) {
		t.Error("testdata/hands.bin is not what testdata/hands.S says; make it again as the comment there says")
	}
}
