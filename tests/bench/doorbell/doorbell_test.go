// SPDX-License-Identifier: Apache-2.0

package doorbell

import (
	"context"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/firmware"
	"npuemu/internal/filemap"
	"npuemu/mmio/npureg"
	"npuemu/queue"
	"npuemu/tests/devtest"
	"npuemu/vdev"
)

const (
	entries = 64
	sqAt    = 0x1000
	cqAt    = 0x4000
	lineAt  = 0x8000
	memSize = 0x10000
)

// probe is bus, executor and board of an engine; it notes when an entry is fetched.
type probe struct {
	bus     iova.Table
	base    time.Time
	fetched atomic.Int64 // nanoseconds since base, of the last fetch
	posted  atomic.Uint64
}

func (p *probe) Read(addr iova.Addr, b []byte) error {
	p.fetched.Store(int64(time.Since(p.base)))
	return p.bus.Read(addr, b)
}

func (p *probe) Write(addr iova.Addr, b []byte) error {
	err := p.bus.Write(addr, b)
	if len(b) == 2 {
		p.posted.Add(1)
	}
	return err
}
func (p *probe) Watch(addr iova.Addr) *iova.Watch { return p.bus.Watch(addr, npureg.ShadowSize) }
func (p *probe) Execute(context.Context, queue.Origin, *queue.Entry) queue.Completion {
	return queue.Completion{}
}
func (p *probe) CompletedLocked(*queue.Completion) {}
func (p *probe) InterruptLocked(uint16)            {}
func (p *probe) FaultLocked(f queue.Fault)         { panic(f) }
func (p *probe) ContextFaultLocked()               {}
func (p *probe) QueueEventLocked()                 {}
func (p *probe) IdleLocked()                       {}
func (p *probe) CountLocked(int, uint64)           {}

// BenchmarkFetch is the time from the client's store of SQ_TAIL to the device's fetch of the entry, with
// pauses of 0 to 20 µs between commands: the device is busy, and watches. Client and device have a mapping of
// guest memory each, and a thread.
func BenchmarkFetch(b *testing.B) {
	file, mem := memory(b)
	var files filemap.Set
	r, err := files.Open(int(file.Fd()), 0, memSize, true)
	if err != nil {
		b.Fatal(err)
	}
	p := &probe{base: time.Now()}
	if err := p.bus.Map(0, memSize, iova.Read|iova.Write, r); err != nil {
		b.Fatal(err)
	}
	var mu sync.Mutex
	e := queue.New(&mu, 1, p, p, p)
	mu.Lock()
	e.EnableLocked(1, queue.Config{SQ: sqAt, CQ: cqAt, SQEntries: entries, CQEntries: entries, Shadow: lineAt})
	mu.Unlock()
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		e.Run(ctx)
	}()
	defer wg.Wait()
	defer cancel()

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	line := devtest.LineAt(lineAt, mem[lineAt:])
	line.Store(npureg.ShadowRing, npureg.RingSQTail|npureg.RingCQHead) // as firmware does
	rng := rand.New(rand.NewPCG(1, 2))
	samples := make([]time.Duration, 0, 1<<20)
	var sent uint64
	tell := func(off int, bit uint32, ring func(int, uint32)) (rung bool) {
		line.Store(off, uint32(sent%entries))
		if line.Ring()&bit == 0 {
			return false
		}
		mu.Lock()
		ring(1, 0)
		mu.Unlock()
		return true
	}
	rung := 0
	b.ReportAllocs()
	for b.Loop() {
		for end := time.Now().Add(time.Duration(rng.IntN(20_000))); time.Now().Before(end); {
			continue
		}
		sent++
		start := time.Since(p.base)
		if tell(npureg.ShadowSQTail, npureg.RingSQTail, e.RingSQLocked) {
			rung++
			start = -1
		}
		for p.posted.Load() != sent {
			continue
		}
		if start >= 0 && len(samples) < cap(samples) {
			samples = append(samples, time.Duration(p.fetched.Load())-start)
		}
		tell(npureg.ShadowCQHead, npureg.RingCQHead, e.RingCQLocked)
	}
	report(b, samples)
	b.ReportMetric(100*float64(rung)/float64(sent), "%rung")
}

// report adds percentiles to a benchmark's result.
func report(b *testing.B, samples []time.Duration) {
	if len(samples) == 0 {
		return
	}
	slices.Sort(samples)
	for _, q := range []struct {
		at   float64
		unit string
	}{{0.5, "p50-µs"}, {0.9, "p90-µs"}, {0.99, "p99-µs"}} {
		b.ReportMetric(float64(samples[int(q.at*float64(len(samples)-1))])/1e3, q.unit)
	}
}

func memory(b *testing.B) (*os.File, []byte) {
	b.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "guest")
	b.Cleanup(func() { file.Close() })
	if err := file.Truncate(memSize); err != nil {
		b.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, memSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Munmap(mem) })
	return file, mem
}

// BenchmarkCommand is the time from the client's doorbell for a NOP to its completion in guest memory, of the whole
// device behind a vfio-user socket: trapped doorbells are messages that are waited for, as QEMU
// does with a mappable BAR.
func BenchmarkCommand(b *testing.B) {
	for _, shadow := range []bool{false, true} {
		name := "trapped"
		if shadow {
			name = "shadow"
		}
		b.Run(name, func(b *testing.B) {
			h := devtest.New(b, vdev.DefaultConfig())
			h.Bring(firmware.Image())
			c := h.CreateContext()
			if shadow {
				h.CreateShadowQueue(1, c, 1, entries, h.NewLine(0))
			} else {
				h.CreateQueue(1, c, 1, entries)
			}
			samples := make([]time.Duration, 0, 1<<20)
			for b.Loop() {
				start := time.Now()
				h.Submit(1, devtest.Entry{npureg.CmdNop})
				for !h.Completed(1) {
					continue
				}
				if len(samples) < cap(samples) {
					samples = append(samples, time.Since(start))
				}
				h.Wait(1)
			}
			report(b, samples)
		})
	}
}
