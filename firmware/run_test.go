// SPDX-License-Identifier: Apache-2.0

//go:build go1.25

package firmware

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"npuemu/mmio/npureg"
)

// Reset while a copy is in flight: the copy has no effect, and MoverIdle tells
// once that it has ended, however many resets there were (§9.4).
func TestResetDuringCopy(t *testing.T) {
	b := newBoard(t, nil)
	moved, hold := make(chan struct{}), make(chan struct{})
	b.moved, b.hold = moved, hold
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan struct{})
	go func() { defer close(ran); b.p.Run(ctx) }()

	b.mu.Lock()
	b.load(Image())
	b.p.Start()
	b.mu.Unlock()
	<-moved
	b.mu.Lock()
	for range 2 {
		if !b.p.Reset() {
			t.Error("Reset does not see the copy in flight")
		}
	}
	sram := bytes.Clone(b.p.sram)
	b.mu.Unlock()
	close(hold)
	for idle := 0; idle == 0; {
		time.Sleep(time.Millisecond)
		b.mu.Lock()
		idle = b.idle
		b.mu.Unlock()
	}
	b.mu.Lock()
	if b.p.Reset() {
		t.Error("Reset sees a copy that has ended")
	}
	if s := b.host.Value(npureg.BootStatus); s != npureg.BootWaiting {
		t.Errorf("BOOT_STATUS %#x, want WAITING", s)
	}
	if !bytes.Equal(sram, b.p.sram) {
		t.Error("the abandoned copy changed SRAM")
	}
	b.p.Start()
	b.mu.Unlock()
	b.await(t, npureg.BootReady)
	cancel()
	<-ran
	if b.idle != 1 {
		t.Errorf("MoverIdle was called %d times, want 1", b.idle)
	}
}

// await polls BOOT_STATUS like a driver.
func (b *board) await(t testing.TB, state uint32) {
	t.Helper()
	for range 5000 {
		b.mu.Lock()
		s := b.host.Value(npureg.BootStatus)
		b.mu.Unlock()
		if s == state {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("BOOT_STATUS did not become %#x", state)
}

// Run by itself: firmware kicks the watchdog for a minute and sleeps between
// ticks; a hanging host of it would fail with WATCHDOG.
func TestRunIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		b := newBoard(t, func() time.Duration { return time.Since(start) })
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go b.p.Run(ctx)
		b.mu.Lock()
		b.load(Image())
		b.p.Start()
		b.mu.Unlock()
		b.await(t, npureg.BootReady)
		b.mu.Lock()
		steps := b.p.core.Steps()
		b.mu.Unlock()
		time.Sleep(time.Minute)
		b.mu.Lock()
		defer b.mu.Unlock()
		steps = b.p.core.Steps() - steps
		if s := b.host.Value(npureg.BootStatus); s != npureg.BootReady || steps < 120 || steps > 120*1000 {
			t.Errorf("BOOT_STATUS %#x, %d steps in a minute; want READY and some hundred steps for each of 120 ticks", s, steps)
		}
	})
}

// Everything that other goroutines may do, at once.
func TestHammer(t *testing.T) {
	start := time.Now()
	b := newBoard(t, func() time.Duration { return time.Since(start) })
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { b.p.Run(ctx) })
	b.mu.Lock()
	b.host.Set(npureg.ASQBaseHi, uint32(asqAddr>>32))
	b.host.Set(npureg.ASQBaseLo, uint32(asqAddr&0xffff_ffff))
	b.host.Set(npureg.ACQBaseHi, uint32(acqAddr>>32))
	b.host.Set(npureg.ACQBaseLo, uint32(acqAddr&0xffff_ffff))
	b.host.Set(npureg.AQSize, 16<<16|16)
	b.load(Image())
	b.mu.Unlock()
	gate := make(chan struct{})
	for i, do := range []func(n int){
		func(n int) { b.p.Start() },
		func(n int) {
			if n%64 == 0 {
				b.p.Reset()
			}
		},
		func(n int) {
			b.host.Set(npureg.AQControl, uint32(n/8&1))
			b.p.AdminControl(n/8&1 != 0)
		},
		func(n int) { b.p.RingAdminTail(uint32(n % 18)) },
		func(n int) { b.p.RingAdminHead(uint32(n % 17)) },
		func(n int) { b.finish(1 + n%testQueues) },
	} {
		wg.Go(func() {
			<-gate
			for n := range 500 {
				b.mu.Lock()
				do(n + i)
				b.mu.Unlock()
				time.Sleep(time.Duration(n%7) * 20 * time.Microsecond)
			}
		})
	}
	close(gate)
	time.Sleep(100 * time.Millisecond)
	cancel()
	wg.Wait()

	// Whatever happened, a reset and a good image work.
	ctx, cancel2 := context.WithCancel(t.Context())
	defer cancel2()
	wg.Go(func() { b.p.Run(ctx) })
	b.mu.Lock()
	b.p.Reset()
	b.p.Start()
	b.mu.Unlock()
	b.await(t, npureg.BootReady)
	cancel2()
}
