// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"bytes"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev/vfiouser"
)

// endless is a COPY that nobody waits for the end of.
func endless(srcSpace, dstSpace uint8, src, dst uint64) devtest.Entry {
	return copyEntry(srcSpace, dstSpace, src, dst, 4096, 65535, 65535)
}

// soon fails the test if the reset is not over within a second: §9.4 promises 100
// ms, and a busy machine is slower.
func soon(h *devtest.Host) {
	h.T.Helper()
	start := time.Now()
	h.AwaitReset()
	if took := time.Since(start); took > time.Second {
		h.T.Errorf("the reset took %v", took)
	}
}

// TestResetInAnInstruction resets while one LOAD of 262140 rows runs, each of them
// a message to the client.
func TestResetInAnInstruction(t *testing.T) {
	devtest.NeedsFunction(t, "resets by register, function and bus")
	for _, r := range resets {
		t.Run(r.name, func(t *testing.T) {
			devtest.NeedsBus(t)
			h, _ := ready(t)
			p := program(t, ".spad 262144\n.bindings 1\nload binding=0 local=0 nx=1 ny=65535 nz=4 stride_y=2 local_stride=1\nhalt\n")
			h.Submit(1, h.Launch(p, devtest.Binding{Addr: devtest.MsgBase, Size: devtest.MsgSize, Read: true}))
			time.Sleep(20 * time.Millisecond)
			r.do(h)
			soon(h)
			prepare(h)
			if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
				t.Errorf("NOP after reset: %v", c)
			}
		})
	}
}

// TestDeviceResetIsOver: when the host's request for a conventional reset is answered, the
// reset is over: nothing that was in flight writes to memory any more (§9.4), be it
// mapped or reached by messages.
func TestDeviceResetIsOver(t *testing.T) {
	devtest.NeedsBus(t)
	devtest.NeedsFunction(t, "function reset")
	for _, name := range []string{"mapped", "by messages"} {
		t.Run(name, func(t *testing.T) {
			h, _ := ready(t)
			src, from := h.Alloc(8192)
			for i := range from {
				from[i] = byte(i) | 1
			}
			dst, to := src+4096, from[4096:]
			if name != "mapped" {
				dst = devtest.MsgBase
			}
			h.Submit(1, endless(0, 0, src, dst))
			time.Sleep(5 * time.Millisecond)
			if err := h.Client.Reset(); err != nil {
				t.Fatal(err)
			}
			clear(to)
			time.Sleep(20 * time.Millisecond)
			if bytes.Count(to, []byte{0}) != len(to) {
				t.Error("the device writes after its reset")
			}
			h.SetCommand(6)
			if s := h.Read32(npureg.DeviceStatus); s != 0 {
				t.Errorf("DEVICE_STATUS %#x, want 0: the reset is over", s)
			}
		})
	}
}

// TestCountersAfterResetInFlight: what the command did that a reset ended is not
// counted after it (§4.7).
func TestCountersAfterResetInFlight(t *testing.T) {
	devtest.NeedsFunction(t, "resets by register, function and bus")
	h, _ := ready(t)
	h.Submit(1, endless(1, 1, 0, 4096))
	time.Sleep(5 * time.Millisecond)
	resets[0].do(h)
	h.AwaitReset()
	h.Bring(firmware.Image())
	counters := h.Log(2, 8*npureg.CounterCount)
	for i, name := range map[int]string{npureg.CounterDMARead: "bytes read", npureg.CounterDMAWritten: "bytes written", npureg.CounterDoorbells: "doorbells"} {
		want := uint64(0)
		if i == npureg.CounterDoorbells {
			want = 1
		}
		if got := le.Uint64(counters[8*i:]); got != want {
			t.Errorf("%s: %d after the reset, want %d", name, got, want)
		}
	}
}

// TestBusTakenAwayInFlight takes the bus away under a command that uses it. The
// command fails, its completion cannot be posted, and the queue stops with a fault
// record (§1.5, §9.2); registers and the other queue are as before.
func TestBusTakenAwayInFlight(t *testing.T) {
	devtest.NeedsFunction(t, "bus mastering")
	for _, tt := range []struct {
		name string
		off  func(h *devtest.Host)
		on   func(h *devtest.Host)
	}{
		{"bus master cleared", func(h *devtest.Host) { h.SetCommand(2) }, func(h *devtest.Host) { h.SetCommand(6) }},
		{"D3hot", func(h *devtest.Host) { power(h, 3) }, func(h *devtest.Host) { power(h, 0) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, context := ready(t)
			buf, _ := h.Alloc(8192)
			h.CreateQueue(2, context, 2, 4)
			h.Submit(2, endless(0, 0, buf, buf+4096))
			time.Sleep(5 * time.Millisecond)
			tt.off(h)
			for end := time.Now().Add(devtest.Timeout); h.Dev.Counter(npureg.CounterFaults) == 0; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("a command goes on without the bus") // the BARs may be closed, so nothing else tells
				}
			}
			tt.on(h)
			if got, want := h.Read32(npureg.FaultStatus), uint32(npureg.StatusBusFault)<<16|npureg.FaultValid; got != want {
				t.Errorf("FAULT_STATUS %#x, want %#x", got, want)
			}
			if got, want := h.Read32(npureg.FaultInfo), uint32(2|npureg.FaultPost<<8); got != want {
				t.Errorf("FAULT_INFO %#x, want %#x", got, want)
			}
			if !h.Interrupted(0, devtest.Timeout) {
				t.Error("no FAULT interrupt when the bus was back")
			}
			if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
				t.Errorf("other queue: %v", c)
			}
			h.DestroyQueue(2)
			h.CreateQueue(2, context, 2, 4)
			if c := h.Do(2, nop()); c.Status != npureg.StatusSuccess {
				t.Errorf("queue after it was made again: %v", c)
			}
		})
	}
}

// power writes the power state into the PM capability.
func power(h *devtest.Host, state byte) {
	h.T.Helper()
	if err := h.Client.WriteRegion(vfiouser.RegionConfig, uint64(capability(h, 0x01)+4), []byte{state}); err != nil {
		h.T.Fatal(err)
	}
}

// TestUnmapInFlight takes memory away under a COPY; only the command notices.
func TestUnmapInFlight(t *testing.T) {
	devtest.NeedsFunction(t, "unmapping by region")
	devtest.NeedsBus(t)
	h, _ := ready(t)
	fd, err := unix.MemfdCreate("extra", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "extra")
	defer f.Close()
	if err := f.Truncate(8192); err != nil {
		t.Fatal(err)
	}
	const at = 0x4000_0000
	for _, src := range []uint64{at, devtest.MsgBase} {
		if src == at {
			err = h.Client.MapDMA(at, 8192, iova.Read|iova.Write, f, 0)
		}
		if err != nil {
			t.Fatal(err)
		}
		id := h.Submit(1, endless(0, 1, src, 0))
		time.Sleep(5 * time.Millisecond)
		size := uint64(8192)
		if src == devtest.MsgBase {
			size = devtest.MsgSize
		}
		if err := h.Client.UnmapDMA(iova.Addr(src), size); err != nil {
			t.Fatal(err)
		}
		if c := h.Wait(1); c.ID != id || c.Status != npureg.StatusBusFault || c.Info != src {
			t.Errorf("COPY from %#x: %v, want BUS_FAULT at its address", src, c)
		}
		if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
			t.Errorf("next command: %v", c)
		}
	}
}

// TestClientGone: a client that leaves is a conventional reset. Nothing of what it
// left runs on, and the next client finds a device as after power-on, but for
// device memory.
func TestClientGone(t *testing.T) {
	devtest.NeedsFunction(t, "config space")
	h, _ := ready(t)
	h.WriteDRAM(0x8000, []byte("kept"))
	h.Write32(devtest.Doorbell(7), 1) // a fault record
	if err := h.Client.MaskVector(vfiouser.IRQMSIX, 1, true); err != nil {
		t.Fatal(err)
	}
	h.Submit(1, endless(1, 1, 0, 4096))
	time.Sleep(5 * time.Millisecond)
	h.Client.Close()
	for end := time.Now().Add(devtest.Timeout); h.Dev.Counter(npureg.CounterDMARead) == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the command of a client that is gone does not stop")
		}
	}
	h.Attach() // no reset
	h.AwaitReset()
	for _, r := range []struct {
		name      string
		off, want uint32
	}{
		{"DEVICE_STATUS", npureg.DeviceStatus, 0}, {"BOOT_STATUS", npureg.BootStatus, npureg.BootWaiting},
		{"FAULT_STATUS", npureg.FaultStatus, 0}, {"IRQ_ENABLE", npureg.IRQEnable, 0}, {"AQ_CONTROL", npureg.AQControl, 0},
	} {
		if got := h.Read32(r.off); got != r.want {
			t.Errorf("%s is %#x for the next client, want %#x", r.name, got, r.want)
		}
	}
	prepare(h)
	if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
		t.Errorf("NOP of the next client: %v", c)
	}
	if !h.Interrupted(1, time.Second) {
		t.Error("no interrupt: the vector is still masked by the client that is gone")
	}
	at, p := h.Alloc(4)
	if c := h.Do(1, copyEntry(1, 0, 0x8000, at, 4, 1, 1)); c.Status != 0 || !bytes.Equal(p, []byte("kept")) {
		t.Errorf("device memory %q, want %q (%v)", p, "kept", c)
	}
}
