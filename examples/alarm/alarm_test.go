// SPDX-License-Identifier: Apache-2.0

//go:build linux

package alarm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/internal/uds"
	"npuemu/vdev/vfiouser"
)

const patience = 10 * time.Second

// start serves a function and returns it with a client.
func start(t *testing.T) (*Device, *vfiouser.Client) {
	t.Helper()
	d, err := New(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	near, far, err := uds.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = vfiouser.NewServer(vfiouser.Config{}, d).ServeConn(ctx, near) // how it ends is the test's doing
	}()
	c, err := vfiouser.NewClient(far)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		cancel()
		<-done
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// host gives the function two ranges of 4 KiB, of which the second is mapped by
// descriptor and returned, and INTx.
func host(t *testing.T, c *vfiouser.Client) (mapped *os.File, messaged *iova.Bytes, intx *eventfd.FD) {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	must(t, err)
	mapped = os.NewFile(uintptr(fd), "guest")
	t.Cleanup(func() { mapped.Close() })
	must(t, mapped.Truncate(0x1000))
	messaged = iova.NewBytes(make([]byte, 0x1000))
	const rw = iova.Read | iova.Write
	must(t, c.MapMemory(0x1000, 0x1000, rw, messaged))
	must(t, c.MapDMA(0x8000, 0x1000, rw, mapped, 0))
	intx, err = eventfd.New()
	must(t, err)
	t.Cleanup(intx.Close)
	must(t, c.SetVectors(vfiouser.IRQINTx, 0, intx))
	return mapped, messaged, intx
}

func setAlarm(t *testing.T, c *vfiouser.Client, at time.Time) {
	t.Helper()
	must(t, c.WriteRegion(0, 0, binary.NativeEndian.AppendUint64(nil, uint64(at.Unix()))))
}

// burst is what the function writes at an alarm.
func burst() (p []byte) {
	for i := range pieces {
		p = append(p, bytes.Repeat([]byte{'A' + byte(i)}, pieceSize)...)
	}
	return p
}

// awaitIdle waits until the DMA of an alarm is over.
func (d *Device) awaitIdle() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.busy {
		d.idle.Wait()
	}
}

func TestAlarm(t *testing.T) {
	d, c := start(t)
	mapped, messaged, intx := host(t, c)
	setAlarm(t, c, time.Now().Add(time.Hour))
	if intx.Wait(50*time.Millisecond) != 0 {
		t.Error("the alarm comes an hour early")
	}
	var p [8]byte
	must(t, c.ReadRegion(0, 0, p[:]))
	if ago := int64(binary.NativeEndian.Uint64(p[:])); ago > -3590 || ago < -3600 {
		t.Errorf("BAR0 reads %d s, an hour before the alarm", ago)
	}
	setAlarm(t, c, time.Now().Add(-time.Second))
	if intx.Wait(patience) == 0 {
		t.Fatal("no interrupt at the alarm")
	}
	d.awaitIdle()
	got := make([]byte, 0x1000)
	if _, err := mapped.ReadAt(got, 0); err != nil || !bytes.Equal(got, burst()) {
		t.Errorf("mapped memory after the alarm: %v, %q...", err, got[:4])
	}
	clear(got)
	if err := messaged.ReadAt(got, 0); err != nil || !bytes.Equal(got, burst()) {
		t.Errorf("memory behind messages after the alarm: %v, %q...", err, got[:4])
	}
}

func TestAccess(t *testing.T) {
	_, c := start(t)
	got := make([]byte, 8)
	must(t, c.ReadRegion(0, 0, got[:4]))
	if !bytes.Equal(got[:4], []byte{0xff, 0xff, 0xff, 0xff}) {
		t.Errorf("half of BAR0 reads % x, want all ones", got[:4])
	}
	must(t, c.WriteRegion(vfiouser.RegionConfig, 0, []byte{1, 2, 3, 4, 0xff, 0xff}))
	must(t, c.ReadRegion(vfiouser.RegionConfig, 0, got[:6]))
	if want := []byte{0xad, 0xde, 0xef, 0xbe, 0x07, 0x04}; !bytes.Equal(got[:6], want) {
		t.Errorf("config space is % x after a write, want % x", got[:6], want)
	}
	// The client maps BAR1, and both see one memory.
	r, err := c.RegionInfo(1)
	must(t, err)
	defer r.File.Close()
	mem, err := unix.Mmap(int(r.File.Fd()), 0x2000, 0x1000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	copy(mem, "by mapping")
	must(t, unix.Munmap(mem))
	got = make([]byte, 10)
	must(t, c.ReadRegion(1, 0x2000, got))
	if string(got) != "by mapping" {
		t.Errorf("BAR1 reads %q by message", got)
	}
	if err := r.File.Truncate(0); !errors.Is(err, unix.EPERM) {
		t.Errorf("the client truncates BAR1's file: %v", err)
	}
}

// A reset ends the alarm; an unmapped range is not reached any more.
func TestResetAndUnmap(t *testing.T) {
	d, c := start(t)
	mapped, _, intx := host(t, c)
	setAlarm(t, c, time.Now().Add(time.Second))
	must(t, c.Reset())
	if intx.Wait(2500*time.Millisecond) != 0 {
		t.Error("the alarm comes after a reset")
	}
	must(t, c.UnmapDMA(0x8000, 0x1000))
	setAlarm(t, c, time.Now())
	if intx.Wait(patience) == 0 {
		t.Fatal("no interrupt at the alarm")
	}
	d.awaitIdle()
	got := make([]byte, 0x1000)
	if _, err := mapped.ReadAt(got, 0); err != nil || !bytes.Equal(got, make([]byte, 0x1000)) {
		t.Errorf("memory that was unmapped: %v, %q...", err, got[:4])
	}
}

// TestMigration moves a state by the methods alone, in pieces that do not fit.
func TestMigration(t *testing.T) {
	const (
		stop, run              = vfiouser.MigrationStop, vfiouser.MigrationRunning
		pre, copying, resuming = vfiouser.MigrationPreCopy, vfiouser.MigrationStopCopy, vfiouser.MigrationResuming
	)
	src, c := start(t)
	dst, c2 := start(t)
	memory := make([]byte, memorySize)
	for i := range memory {
		memory[i] = byte(i * 31)
	}
	at := time.Now().Add(2 * time.Second)
	must(t, c.WriteRegion(1, 0, memory))
	setAlarm(t, c, at)
	_, _, oldINTx := host(t, c)
	_, _, intx := host(t, c2)

	read := func(size int) (all []byte) {
		for p := make([]byte, size); ; {
			n, err := src.ReadMigration(p)
			must(t, err)
			all = append(all, p[:n]...)
			if n < len(p) {
				return all
			}
		}
	}
	must(t, src.SetMigrationState(run, pre))
	if got := read(1000); !bytes.Equal(got, memory) {
		t.Errorf("PRE_COPY gives %d bytes, want BAR1's %d", len(got), memorySize)
	}
	memory[5]++
	must(t, c.WriteRegion(1, 5, memory[5:6]))
	must(t, src.SetMigrationState(pre, copying))
	state := read(1024)
	if want := binary.LittleEndian.AppendUint64(bytes.Clone(memory), uint64(at.Unix())); !bytes.Equal(state, want) {
		t.Errorf("STOP_COPY gives %d bytes, want %d, BAR1 as it is now and the alarm", len(state), len(want))
	}
	must(t, src.SetMigrationState(copying, stop))

	must(t, dst.SetMigrationState(run, stop))
	must(t, dst.SetMigrationState(stop, resuming))
	must(t, dst.WriteMigration(state[:7000]))
	if err := dst.SetMigrationState(resuming, stop); !errors.Is(err, unix.EINVAL) {
		t.Errorf("half a state is taken over: %v", err)
	}
	if err := dst.WriteMigration(state); !errors.Is(err, unix.EINVAL) {
		t.Errorf("more than a state is taken: %v", err)
	}
	must(t, dst.WriteMigration(state[7000:]))
	must(t, dst.SetMigrationState(resuming, stop))
	must(t, dst.SetMigrationState(stop, run))
	got := make([]byte, memorySize)
	must(t, c2.ReadRegion(1, 0, got))
	if !bytes.Equal(got, memory) {
		t.Error("BAR1 differs at the destination")
	}
	if intx.Wait(patience) == 0 {
		t.Error("the alarm does not come at the destination")
	}
	if oldINTx.Wait(100*time.Millisecond) != 0 {
		t.Error("the alarm comes at the source, which was stopped")
	}
}
