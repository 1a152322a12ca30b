// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/dma/iova"
	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev/vfiouser"
)

// TestHammer does everything at once, from several goroutines and with clients
// that come and go. What the device answers does not matter; it must not hang, nor
// keep anything, and it must work afterwards. Part of the time it gets as far as executing
// commands, else little would have been hammered.
func TestHammer(t *testing.T) {
	devtest.NeedsFunction(t, "registers")
	devtest.NeedsBus(t)
	h, _ := ready(t)
	addr := map[string]uint64{"image": h.Put(firmware.Image())}
	var admin [][]byte
	for _, name := range []string{"asq", "acq", "sq", "cq", "buf"} {
		at, p := h.Alloc(4096)
		addr[name] = at
		admin = append(admin, p)
	}
	h.Client.Close()

	var client atomic.Pointer[devtest.Transport]
	current := func() devtest.Transport { return *client.Load() }
	attach := func() {
		h.Attach()
		h.Rewind(addr["image"])
		h.Put(firmware.Image())
		for i := range admin {
			_, admin[i] = h.Alloc(4096)
		}
		c := h.Client
		client.Store(&c)
	}
	attach()
	settled := func() map[string]int { // with one client
		m := resources(t)
		m["goroutines"] = runtime.NumGoroutine()
		return m
	}
	h.Release()
	before := settled()

	// What the workers do; the client may be gone, so nobody looks at errors.
	write := func(off, v uint32) {
		_ = current().WriteRegion(vfiouser.RegionBAR0, uint64(off), le.AppendUint32(nil, v))
	}
	read := func(off uint32) uint32 {
		var p [4]byte
		_ = current().ReadRegion(vfiouser.RegionBAR0, uint64(off), p[:])
		return le.Uint32(p[:])
	}
	config := func(off uint64, p ...byte) { _ = current().WriteRegion(vfiouser.RegionConfig, off, p) }
	pcie := uint64(capability(h, 0x10))
	var rings sync.Mutex // guards admin's bytes against a new client
	put := func(ring int, slot uint32, e devtest.Entry) {
		rings.Lock()
		defer rings.Unlock()
		copy(admin[ring][slot*npureg.SQEntrySize:], e[:])
	}
	// posted says whether the first entry of a completion ring was written since the last time.
	posted := func(ring int) bool {
		rings.Lock()
		defer rings.Unlock()
		status := admin[ring][npureg.CQEntrySize-2:]
		was := status[0]&1 != 0
		status[0] = 0
		return was
	}
	// A second and a half, and longer on a busy machine until enough has happened; patience is how much slower everybody then
	// goes, so that a driver gets far.
	begin := time.Now()
	end, limit := begin.Add(1500*time.Millisecond), begin.Add(time.Minute)
	patience := func() time.Duration { return 1 << min(6, max(0, time.Since(end)/(2*time.Second))) }
	var booted, adminDone, userDone, resets, clients atomic.Int64
	workers := []func(rng *rand.Rand){
		func(rng *rand.Rand) { // doorbells
			write(devtest.Doorbell(rng.IntN(9))+uint32(4*rng.IntN(2)), uint32(rng.IntN(9)))
		},
		func(rng *rand.Rand) { read(uint32(rng.IntN(0x90)) * 4) },
		func(rng *rand.Rand) { // resets
			time.Sleep(time.Duration(rng.IntN(20<<rng.IntN(5))) * patience() * time.Millisecond) // sometimes a driver gets far
			switch rng.IntN(3) {
			case 0:
				config(pcie+8, 0x10, 0x81)
			case 1:
				_ = current().Reset()
			case 2:
				write(npureg.DeviceControl, npureg.DeviceControlReset)
			}
			resets.Add(1)
			config(4, 6, 0)
		},
		func(rng *rand.Rand) { // a driver: boot, queues, commands
			for _, w := range [][2]uint32{
				{npureg.ImageAddrLo, uint32(addr["image"])}, {npureg.ImageSize, uint32(len(firmware.Image()))},
				{npureg.IRQEnable, npureg.IRQAll}, {npureg.BootControl, npureg.BootControlStart},
			} {
				write(w[0], w[1])
			}
			for range 200 * patience() {
				if read(npureg.BootStatus)&0xff == npureg.BootReady {
					booted.Add(1)
					break
				}
				time.Sleep(200 * time.Microsecond)
			}
			for _, w := range [][2]uint32{
				{npureg.AQControl, 0}, {npureg.ASQBaseLo, uint32(addr["asq"])}, {npureg.ACQBaseLo, uint32(addr["acq"])},
				{npureg.AQSize, 16<<16 | 16}, {npureg.AQControl, npureg.AQControlEnable},
			} {
				write(w[0], w[1])
			}
			put(0, 0, devtest.Entry{npureg.AdminCreateContext})
			for i := range uint32(6) {
				q := int(1 + i%3)
				e := devtest.CreateQueueEntry(q, 1, q, addr["sq"], addr["cq"], 8, 8)
				if q != 1 && rng.IntN(3) == 0 {
					e = devtest.SharedQueueEntry(q, 1, addr["sq"], 8, 1)
				}
				e[0x24], e[0x25], e[0x30], e[0x36] = byte(rng.IntN(4)), byte(rng.IntN(5)), byte(rng.IntN(4)), byte(rng.IntN(2)*100)
				put(0, 1+2*i, e)
				op := []byte{npureg.AdminDestroyQueue, npureg.AdminDestroyQueue, npureg.AdminModifyQueue, npureg.AdminSuspendQueue, npureg.AdminResumeQueue}[rng.IntN(5)]
				put(0, 2+2*i, devtest.QueueEntry(op, q, devtest.QueueOptions{}))
			}
			put(2, 0, copyEntry(0, 1, addr["buf"], 0, 64, 100, 1))
			put(2, 1, endless(1, 1, 0, 4096))
			put(2, 2, wait(0, addr["buf"]+8*uint64(rng.IntN(4)), uint64(rng.IntN(9))))
			put(2, 3, signal(0, addr["buf"]+8*uint64(rng.IntN(4)), uint64(rng.IntN(9))))
			for tail := uint32(1); tail < 14; tail++ {
				write(devtest.Doorbell(0), tail)
				time.Sleep((patience() - 1) * time.Millisecond) // a head that runs ahead of completions ends the queue
				write(devtest.Doorbell(1+int(tail)%3), 1+tail%4)
				write(devtest.Doorbell(0)+npureg.DoorbellCQHead, tail/2)
			}
			time.Sleep(time.Duration(rng.IntN(20)) * patience() * time.Millisecond)
			if posted(1) {
				adminDone.Add(1)
			}
			if posted(3) {
				userDone.Add(1)
			}
		},
		func(rng *rand.Rand) { // memory that nobody uses, and some that the driver does
			c := current()
			at := iova.Addr(0x4000_0000 + rng.Uint64N(8)*0x1000)
			_ = c.MapMemory(at, 0x1000, iova.Read|iova.Write, iova.NewBytes(make([]byte, 0x1000)))
			_ = c.UnmapDMA(at&^0xffff, uint64(1+rng.IntN(16))*0x1000)
		},
		func(rng *rand.Rand) { _ = current().MaskVector(vfiouser.IRQMSIX, rng.IntN(16), rng.IntN(2) == 0) },
	}
	var wg sync.WaitGroup
	hammering := func() bool {
		now := time.Now()
		return now.Before(end) || now.Before(limit) && (userDone.Load() < 3 || clients.Load() < 3)
	}
	for i, do := range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for rng := rand.New(rand.NewPCG(uint64(i), 7)); hammering(); {
				do(rng)
				if p := patience(); p > 1 {
					time.Sleep(p * time.Millisecond)
				}
			}
		}()
	}
	for hammering() { // clients come and go
		time.Sleep(100 * patience() * time.Millisecond)
		rings.Lock()
		h.Client.Close()
		attach()
		rings.Unlock()
		clients.Add(1)
	}
	wg.Wait()
	t.Logf("%d clients, %d resets; of a driver's rounds %d saw firmware run, %d an admin completion, %d one of a queue",
		clients.Load(), resets.Load(), booted.Load(), adminDone.Load(), userDone.Load())
	if userDone.Load() == 0 || clients.Load() == 0 {
		t.Error("the device did nothing that could have been hammered")
	}

	h.Client.Close()
	attach()
	prepare(h)
	if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
		t.Errorf("NOP afterwards: %v", c)
	}
	h.Release()
	var diff string
	for wait := time.Now().Add(5 * time.Second); time.Now().Before(wait); time.Sleep(10 * time.Millisecond) {
		if diff = cmp.Diff(before, settled()); diff == "" {
			break
		}
	}
	if diff != "" {
		t.Errorf("left behind (-before +after):\n%s", diff)
	}
}
