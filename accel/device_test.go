// SPDX-License-Identifier: Apache-2.0

//go:build linux

package accel_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/accel"
	"npuemu/core/isa"
	"npuemu/mmio/npureg"
)

// The tests of this file need a device: TestAccel of tests/card runs them in guests.

// open opens the device, or skips where there is none.
func open(t *testing.T) *accel.Device {
	t.Helper()
	d, err := accel.Open()
	if errors.Is(err, unix.ENODEV) {
		if _, err := os.Stat("/dev/accel/accel0"); errors.Is(err, fs.ErrNotExist) {
			t.Skip("no /dev/accel/accel0; tests/card, TestAccel, runs this in guests")
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// buffer makes a mapped buffer that the test closes.
func buffer(t *testing.T, d *accel.Device, p accel.Placement, size int) (*accel.Buffer, []byte) {
	t.Helper()
	b, err := d.NewBuffer(p, size)
	must(t, err)
	mem, err := b.Map()
	must(t, err)
	t.Cleanup(func() { must(t, b.Close()) })
	return b, mem
}

// soon is a context that ends before the guest's patience.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestDeviceInfo(t *testing.T) {
	d := open(t)
	i, err := d.Info()
	must(t, err)
	if i.UAPI != d.Version() || i.Arch>>16 != 1 || i.ArrayRows == 0 || i.DRAMFree > i.DRAMSize || i.MaxCommands == 0 || i.Firmware.String() == "" {
		t.Errorf("%+v, driver %v", i, d.Version())
	}
	before, err := d.Counters()
	must(t, err)
	_, err = d.Queue().Run(soon(t), accel.Nop{}, accel.Nop{})
	must(t, err)
	after, err := d.Counters()
	must(t, err)
	if n := after.Since(before); n.Commands != 2 || n.Errors != 0 || n.Interrupts == 0 {
		t.Errorf("two NOPs are counted as %+v", n)
	}
}

func TestDeviceBuffers(t *testing.T) {
	d := open(t)
	host, h := buffer(t, d, accel.SystemMemory, 10000)
	device, m := buffer(t, d, accel.DeviceMemory, 10000)
	if host.Size() != 12288 || len(h) != 12288 || device.Size() != 12288 {
		t.Errorf("sizes %d, %d, %d: want whole pages", host.Size(), len(h), device.Size())
	}
	for i := range h {
		h[i] = byte(i * 7)
	}
	s, err := d.Queue().Run(soon(t), accel.Copy{Src: host, Dst: device, Bytes: 12288})
	must(t, err)
	if s.Info != 12288 || !bytes.Equal(h, m) {
		t.Errorf("status %+v; equal: %t", s, bytes.Equal(h, m))
	}
	// Every second row of 16 bytes, packed.
	_, err = d.Queue().Run(soon(t), accel.Copy{Src: device, Dst: host, DstOffset: 4096, Bytes: 16, Rows: 4, Planes: 2, SrcRowStride: 32, SrcPlaneStride: 1024, DstRowStride: 16, DstPlaneStride: 64})
	must(t, err)
	for i, want := range []int{0, 32, 64, 96, 1024, 1056, 1088, 1120} {
		if !bytes.Equal(h[4096+16*i:][:16], m[want:][:16]) {
			t.Errorf("row %d: % x", i, h[4096+16*i:][:16])
		}
	}
	if _, err := d.NewBuffer(accel.SystemMemory, 0); !errors.Is(err, unix.EINVAL) {
		t.Errorf("size 0: %v", err)
	}
	if _, err := d.NewBuffer(9, 4096); !errors.Is(err, unix.EINVAL) {
		t.Errorf("placement 9: %v", err)
	}
	if _, err := d.NewBuffer(accel.DeviceMemory, math.MaxInt64); !errors.Is(err, unix.EINVAL) {
		t.Errorf("2⁶³-1 bytes: %v", err)
	}
}

func TestDeviceSharing(t *testing.T) {
	d, other := open(t), open(t)
	b, mem := buffer(t, d, accel.SystemMemory, 4096)
	f, err := b.Export()
	must(t, err)
	defer f.Close()
	again, err := d.Import(f) // the same buffer of the same file
	must(t, err)
	there, err := other.Import(f)
	must(t, err)
	for i, x := range []*accel.Buffer{again, there} {
		m, err := x.Map()
		must(t, err)
		if m[0] = byte(i + 1); mem[0] != byte(i+1) || x.Size() != 4096 {
			t.Errorf("import %d: not the same memory", i)
		}
	}
	must(t, again.Close())
	_, err = d.Queue().Run(soon(t), accel.Copy{Src: b, Dst: b, DstOffset: 8, Bytes: 1})
	must(t, err) // the handle is still there
	to, m := buffer(t, other, accel.SystemMemory, 4096)
	_, err = other.Queue().Run(soon(t), accel.Copy{Src: there, Dst: to, Bytes: 16})
	must(t, err)
	if m[0] != 2 || m[8] != 2 {
		t.Errorf("copied % x", m[:16])
	}
	must(t, there.Close())
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	defer w.Close()
	if _, err := d.Import(r); err == nil {
		t.Error("a pipe is imported")
	}
}

func TestDeviceTimelines(t *testing.T) {
	d := open(t)
	a, mem := buffer(t, d, accel.SystemMemory, 4096)
	second, err := d.NewQueue(accel.QueueConfig{})
	must(t, err)
	timeline, err := d.NewSyncobj()
	must(t, err)
	defer func() { must(t, timeline.Close()) }()

	must(t, timeline.At(1).Signal())
	mem[0] = 7
	var last *accel.Job
	for i := range 10 { // each waits for the one before it, in the other queue
		q := []*accel.Queue{d.Queue(), second}[i%2]
		last, err = q.Submit(accel.Submission{
			Commands: []accel.Command{accel.Copy{Src: a, Dst: a, SrcOffset: uint64(i), DstOffset: uint64(i + 1), Bytes: 1}},
			Wait:     []accel.Sync{timeline.At(uint64(i + 1))}, Signal: []accel.Sync{timeline.At(uint64(i + 2))},
		})
		must(t, err)
	}
	_, err = last.Wait(soon(t))
	must(t, err)
	must(t, timeline.At(11).Wait(soon(t)))
	if p, err := timeline.Point(); p != 11 || err != nil || mem[10] != 7 {
		t.Errorf("point %d, %v; byte 10 is %d", p, err, mem[10])
	}
	must(t, second.Close())
	if _, err := second.Submit(accel.Submission{Commands: []accel.Command{accel.Nop{}}}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("submit to a queue that is closed: %v", err)
	}
}

func TestDeviceWait(t *testing.T) {
	d := open(t)
	gate, err := d.NewSyncobj()
	must(t, err)
	late, stop := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer stop()
	if err := gate.At(1).Wait(late); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a point that nobody signals: %v", err)
	}
	if done, err := gate.At(1).Done(); done || err != nil {
		t.Errorf("done %t, %v", done, err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(20*time.Millisecond, func() { cancel(cause) })
	if err := gate.At(0).Wait(ctx); !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { must(t, gate.At(2).Signal()) })
	must(t, gate.At(1).Wait(t.Context())) // also by a later point
	if done, err := gate.At(1).Done(); !done || err != nil {
		t.Errorf("done %t, %v", done, err)
	}
}

func TestDeviceErrors(t *testing.T) {
	d := open(t)
	b, mem := buffer(t, d, accel.SystemMemory, 4096)
	if _, err := d.Queue().Submit(accel.Submission{}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("no commands: %v", err)
	}
	if _, err := d.Queue().Submit(accel.Submission{Commands: []accel.Command{accel.Copy{Src: b, Dst: b, SrcOffset: 4090, Bytes: 7}}}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("beyond the buffer: %v", err)
	}
	for _, cfg := range []accel.QueueConfig{{Priority: 4}, {Weight: 1 << 20}, {Timeout: time.Microsecond}, {Timeout: -time.Second}, {Timeout: 1000 * time.Hour}} {
		if _, err := d.NewQueue(cfg); !errors.Is(err, unix.EINVAL) {
			t.Errorf("queue %+v: %v", cfg, err)
		}
	}

	info, err := d.Info()
	must(t, err)
	p, err := isa.Assemble("halt", fmt.Appendf(nil, ".isa 1.0\n.array %d, %d\nhalt\n", info.ArrayRows, info.ArrayCols))
	must(t, err)
	image := p.Image()
	copy(mem, image)
	launch := accel.Launch{Program: b, Size: uint32(len(image))}
	s, err := d.Queue().Run(soon(t), launch)
	must(t, err)
	if s.State != accel.Done || s.Result != 1 {
		t.Errorf("%+v", s)
	}
	mem[0]++ // the magic
	_, err = d.Queue().Run(soon(t), accel.Nop{}, launch)
	var e *accel.JobError
	if !errors.As(err, &e) || !errors.Is(err, unix.EINVAL) || e.Command != 1 || e.Status.String() != "BAD_PROGRAM" || e.State != accel.Failed {
		t.Errorf("a wrong program: %v", err)
	}

	j, err := d.Queue().Submit(accel.Submission{Commands: []accel.Command{accel.Nop{}}})
	must(t, err)
	for range 64 {
		_, err = d.Queue().Run(soon(t), accel.Nop{})
		must(t, err)
	}
	if _, err := j.Status(); !errors.Is(err, unix.ENOENT) {
		t.Errorf("status of a job 64 jobs ago: %v", err)
	}
}

// A launch leaves a profile record, and the status of its job the cycles, if the device counts any.
func TestDeviceProfile(t *testing.T) {
	d := open(t)
	info, err := d.Info()
	must(t, err)
	p, err := isa.Assemble("nothing", fmt.Appendf(nil, ".isa 1.0\n.array %d, %d\n.spad 64\n.bindings 1\nload binding=0 local=0 nx=64\nhalt\n", info.ArrayRows, info.ArrayCols))
	must(t, err)
	image := p.Image()
	text, mem := buffer(t, d, accel.SystemMemory, len(image))
	copy(mem, image)
	record, r := buffer(t, d, accel.SystemMemory, 4096)
	launch := accel.Launch{
		Program: text, Size: uint32(len(image)), Bindings: []accel.Binding{{Buffer: text, Read: true}}, Profile: &accel.Profile{Buffer: record, Offset: 64},
	}
	if info.Features&npureg.FeatureTiming == 0 {
		if _, err := d.Queue().Run(soon(t), launch); !errors.Is(err, unix.EOPNOTSUPP) {
			t.Errorf("a record that the device does not have: %v", err)
		}
		return
	}
	s, err := d.Queue().Run(soon(t), launch)
	must(t, err)
	le, r := binary.LittleEndian, r[64:]
	timed, began, cycles := le.Uint32(r[4:]) == 1, le.Uint64(r[8:]), le.Uint64(r[16:])
	if le.Uint32(r) != accel.ProfileSize || le.Uint64(r[0x18:]) != 2 || le.Uint64(r[0x28:]) != 64 || (cycles > 0) != timed || (s.Cycles > cycles) != timed || s.Time != began+s.Cycles {
		t.Errorf("%+v, record % x", s, r[:0x50])
	}
	launch.Profile.Offset = 4096 - accel.ProfileSize + 8
	if _, err := d.Queue().Run(soon(t), launch); !errors.Is(err, unix.EINVAL) {
		t.Errorf("beyond the buffer: %v", err)
	}
}

// Jobs of a queue that is closed end, and are told apart from others.
func TestDeviceQueueEnds(t *testing.T) {
	d := open(t)
	q, err := d.NewQueue(accel.QueueConfig{})
	must(t, err)
	gate, err := d.NewSyncobj()
	must(t, err)
	must(t, gate.At(1).Signal()) // there must be a fence to wait for
	b, _ := buffer(t, d, accel.SystemMemory, 1<<20)
	var jobs []*accel.Job
	for range 4 {
		j, err := q.Submit(accel.Submission{Commands: []accel.Command{accel.Copy{Src: b, Dst: b, Bytes: 1 << 20, Rows: 200}}, Wait: []accel.Sync{gate.At(1)}})
		must(t, err)
		jobs = append(jobs, j)
	}
	must(t, q.Close())
	for _, j := range jobs {
		if s, err := j.Status(); err != nil || s.State == accel.Pending {
			t.Errorf("job %d: %+v, %v", j.Seqno, s, err)
		} else if s.State == accel.Failed && !errors.Is(s.Err(), unix.ECANCELED) {
			t.Errorf("job %d: %v", j.Seqno, s.Err())
		}
	}
}

func TestDeviceUsage(t *testing.T) {
	d := open(t)
	b, _ := buffer(t, d, accel.DeviceMemory, 1<<20)
	_, err := d.Queue().Run(soon(t), accel.Copy{Src: b, Dst: b, Bytes: 1 << 19, Rows: 20})
	must(t, err)
	u, err := d.Usage()
	must(t, err)
	if u.Busy <= 0 || u.Memory["device"].Total != 1<<20 {
		t.Errorf("%+v", u)
	}
}

// Goroutines that share a queue, and each has one of its own.
func TestDeviceHammer(t *testing.T) {
	d := open(t)
	var wg sync.WaitGroup
	for g := range 8 {
		own, err := d.NewQueue(accel.QueueConfig{})
		must(t, err)
		b, mem := buffer(t, d, accel.SystemMemory, 4096)
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 30 {
				mem[0] = byte(g*31 + i)
				q := []*accel.Queue{d.Queue(), own}[i%2]
				j, err := q.Submit(accel.Submission{Commands: []accel.Command{accel.Copy{Src: b, Dst: b, DstOffset: 100, Bytes: 1}}})
				if err == nil {
					err = j.Sync.Wait(context.Background())
				}
				if err != nil || mem[100] != byte(g*31+i) {
					t.Errorf("%v; %d", err, mem[100])
					return
				}
			}
			if err := own.Close(); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
}

// A command that takes longer than its queue's timeout ends its job, and no other.
func TestDeviceTimeout(t *testing.T) {
	d := open(t)
	b, _ := buffer(t, d, accel.SystemMemory, 4096)
	q, err := d.NewQueue(accel.QueueConfig{Timeout: 300 * time.Millisecond, Weight: 2})
	must(t, err)
	before, err := d.Info()
	must(t, err)
	_, err = q.Run(soon(t), accel.Nop{}, accel.Copy{Src: b, Dst: b, Bytes: 4096, Rows: 65535, Planes: 65535})
	var e *accel.JobError
	if !errors.As(err, &e) || !errors.Is(err, unix.ETIMEDOUT) || e.Command != 1 {
		t.Errorf("a copy that takes hours: %v", err)
	}
	_, err = q.Run(soon(t), accel.Nop{})
	must(t, err)
	after, err := d.Info()
	must(t, err)
	u, err := d.Usage()
	must(t, err)
	if after.Timeouts != before.Timeouts+1 || after.Resets != before.Resets || u.Timeouts != 1 {
		t.Errorf("%d timeouts, %d resets, then %d and %d; the file had %d", before.Timeouts, before.Resets, after.Timeouts, after.Resets, u.Timeouts)
	}
	must(t, q.Close())
}

func TestDeviceTelemetry(t *testing.T) {
	d := open(t)
	a, err := d.Telemetry()
	must(t, err)
	b, err := d.Telemetry()
	must(t, err)
	if b.UptimeUS <= a.UptimeUS || a.Threshold1 <= a.Ambient || a.MaxClockKHz == 0 {
		t.Errorf("%+v, then %+v", a, b)
	}
}

// Commands by address: what is mapped is reached, what is not faults, and the file goes on.
func TestDeviceVM(t *testing.T) {
	d := open(t)
	vm, err := d.VM()
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip(err)
	}
	must(t, err)
	page := uint64(vm.PageSize)
	b, mem := buffer(t, d, accel.SystemMemory, 2*int(page))
	from, to := vm.Start, vm.Start+16*page
	must(t, d.Bind(accel.Map{Address: from, Buffer: b, Size: page, Read: true}, accel.Map{Address: to, Buffer: b, Offset: page, Write: true}))
	for i := range mem[:page] {
		mem[i] = byte(i * 3)
	}
	_, err = d.Queue().Run(soon(t), accel.Copy{SrcOffset: from, DstOffset: to, Bytes: uint32(page)})
	must(t, err)
	if !bytes.Equal(mem[:page], mem[page:]) {
		t.Error("the copy did not arrive")
	}
	if now, err := d.VM(); err != nil || now.Mappings != vm.Mappings+2 {
		t.Errorf("%d mappings, then %d, %v", vm.Mappings, now.Mappings, err)
	}
	if err := d.Bind(accel.Map{Address: to, Buffer: b, Size: page, Read: true}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("mapped twice: %v", err)
	}
	must(t, d.Bind(accel.Unmap{Address: from, Size: page}))
	if err := d.Bind(accel.Unmap{Address: from, Size: page}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("unmapped twice: %v", err)
	}

	j, err := d.Queue().Submit(accel.Submission{Commands: []accel.Command{accel.Nop{}, accel.Copy{SrcOffset: from, DstOffset: to, Bytes: 8}}})
	must(t, err)
	_, err = j.Wait(soon(t))
	var e *accel.JobError
	if !errors.As(err, &e) || !errors.Is(err, unix.EFAULT) || e.Command != 1 || e.Info != from || e.Status.String() != "TRANSLATION_FAULT" {
		t.Errorf("a copy from where nothing is: %v", err)
	}
	f, err := d.Fault()
	must(t, err)
	if f.Count != 1 || f.Address != from || f.Seqno != j.Seqno || f.Command != 1 || f.Access != 1 || f.Reason != 1 {
		t.Errorf("%+v", f)
	}
	_, err = d.Queue().Run(soon(t), accel.Copy{Src: b, Dst: b, DstOffset: page, Bytes: 8})
	must(t, err)
}
