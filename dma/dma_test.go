// SPDX-License-Identifier: Apache-2.0

package dma_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"testing"

	"npuemu/dma"
	"npuemu/dma/iova"
)

const (
	busBase = 0x1_0000_0000 // guest memory of the test
	roBase  = 0x2_0000_0000 // a page that the device may only read
)

func newMemory(t *testing.T) (m *dma.Memory, guest []byte) {
	t.Helper()
	guest = make([]byte, 0x20000)
	m = &dma.Memory{Bus: new(iova.Table), DRAM: make([]byte, 0x10000)}
	if err := m.Bus.Map(busBase, uint64(len(guest)), iova.Read|iova.Write, iova.NewBytes(guest)); err != nil {
		t.Fatal(err)
	}
	if err := m.Bus.Map(roBase, 0x1000, iova.Read, iova.NewBytes(make([]byte, 0x1000))); err != nil {
		t.Fatal(err)
	}
	m.SetBusMaster(true)
	return m, guest
}

func TestFaults(t *testing.T) {
	tests := []struct {
		name  string
		space dma.Space
		addr  uint64
		size  int
		write bool
		off   bool // bus mastering off
		want  uint64
		err   error
	}{
		{name: "device, last byte and one more", space: dma.Device, addr: 0xffff, size: 2, want: 0x10000},
		{name: "device, first byte outside", space: dma.Device, addr: 0x10000, size: 1, want: 0x10000},
		{name: "device, far outside", space: dma.Device, addr: math.MaxUint64, size: 1, write: true, want: math.MaxUint64},
		{name: "bus, not mapped", space: dma.Bus, addr: 0x1000, size: 4, want: 0x1000},
		{name: "bus, runs out of the mapping", space: dma.Bus, addr: busBase + 0x1fffe, size: 4, want: busBase + 0x20000},
		{name: "bus, write to a read-only mapping", space: dma.Bus, addr: roBase + 4, size: 4, write: true, want: roBase + 4},
		{name: "bus, passes 2^64", space: dma.Bus, addr: math.MaxUint64, size: 2, want: math.MaxUint64},
		{name: "bus mastering off", space: dma.Bus, addr: busBase, size: 4, off: true, want: busBase, err: dma.ErrBusMaster},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, _ := newMemory(t)
			m.SetBusMaster(!tt.off)
			access := m.Read
			if tt.write {
				access = m.Write
			}
			err := access(tt.space, tt.addr, make([]byte, tt.size))
			var f *dma.Fault
			if !errors.As(err, &f) {
				t.Fatalf("got %v, want a *dma.Fault", err)
			}
			if f.Addr != tt.want || f.Space != tt.space || f.Write != tt.write {
				t.Errorf("fault %+v, want address %#x in %v, write %v", f, tt.want, tt.space, tt.write)
			}
			if tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("reason %v, want %v", err, tt.err)
			}
		})
	}
}

// Poison of device memory: what reads it fails, with its address; what overwrites it, in pieces too, makes it clean.
func TestPoison(t *testing.T) {
	m, guest := newMemory(t)
	const bad = 0x1_0000 - 128
	poisoned := func(err error) bool {
		var f *dma.Fault
		return errors.As(err, &f) && errors.Is(err, dma.ErrPoison) && f.Addr == bad && f.Space == dma.Device && !f.Write
	}
	row := func(space dma.Space, addr uint64) dma.Side { return dma.Side{Space: space, Addr: addr} }
	ctx := context.Background()
	m.Poison.Mark(bad)
	for range 2 { // it stays
		if err := m.Read(dma.Device, bad+63, make([]byte, 1)); !poisoned(err) {
			t.Errorf("read of its last byte: %v", err)
		}
	}
	if err := m.Read(dma.Device, bad-64, make([]byte, 64)); err != nil {
		t.Errorf("read before it: %v", err)
	}
	for _, to := range []dma.Side{row(dma.Bus, busBase), row(dma.Device, 0)} {
		if _, _, err := m.Copy(ctx, to, row(dma.Device, 0), dma.Shape{NX: 0xffff, NY: 1, NZ: 1}, nil); !poisoned(err) {
			t.Errorf("copy from it: %v", err)
		}
	}
	// A copy onto it that fails leaves it, be it the source that fails or the destination.
	if _, _, err := m.Copy(ctx, row(dma.Device, bad), row(dma.Bus, busBase+uint64(len(guest))-63), dma.Shape{NX: 64, NY: 1, NZ: 1}, nil); err == nil {
		t.Error("a copy from where nothing is succeeded")
	}
	if err := m.Write(dma.Device, bad, make([]byte, 129)); err == nil {
		t.Error("a write beyond device memory succeeded")
	}
	if !m.Poison.Some() {
		t.Fatal("clean after writes that failed")
	}
	if err := m.Write(dma.Device, bad-8, make([]byte, 40)); err != nil {
		t.Error(err)
	}
	if _, _, err := m.Copy(ctx, row(dma.Device, bad+32), row(dma.Bus, busBase), dma.Shape{NX: 32, NY: 1, NZ: 1}, nil); err != nil {
		t.Error(err)
	}
	if err := m.Read(dma.Device, bad, make([]byte, 64)); err != nil || m.Poison.Some() {
		t.Errorf("read of what was overwritten: %v", err)
	}
}

// TestCopyAgainstModel compares copies of random shapes with a byte-by-byte model.
func TestCopyAgainstModel(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		m, guest := newMemory(t)
		for i := range guest {
			guest[i] = byte(rng.Uint32())
		}
		for i := range m.DRAM {
			m.DRAM[i] = byte(rng.Uint32())
		}
		s := dma.Shape{NX: 1 + rng.Uint64N(200), NY: 1 + rng.Uint64N(6), NZ: 1 + rng.Uint64N(4)}
		side := func(space dma.Space, base uint64) dma.Side {
			return dma.Side{Space: space, Addr: base + rng.Uint64N(64), StrideY: rng.Uint64N(300), StrideZ: rng.Uint64N(2000)}
		}
		src, dst := side(dma.Bus, busBase), side(dma.Device, 0)
		if rng.IntN(2) == 0 {
			src, dst = side(dma.Device, 0), side(dma.Bus, busBase)
		}
		from, to := guest, bytes.Clone(m.DRAM)
		fromBase, toBase := uint64(busBase), uint64(0)
		if src.Space == dma.Device {
			from, to, fromBase, toBase = m.DRAM, bytes.Clone(guest), 0, busBase
		}
		for z := range s.NZ {
			for y := range s.NY {
				for x := range s.NX {
					to[dst.Addr-toBase+z*dst.StrideZ+y*dst.StrideY+x] = from[src.Addr-fromBase+z*src.StrideZ+y*src.StrideY+x]
				}
			}
		}
		n, _, err := m.Copy(context.Background(), dst, src, s, nil)
		if err != nil || n != s.NX*s.NY*s.NZ {
			t.Fatalf("Copy %+v = %d, %v", s, n, err)
		}
		got := m.DRAM
		if dst.Space == dma.Bus {
			got = guest
		}
		if !bytes.Equal(got, to) {
			t.Fatalf("copy %+v from %+v to %+v differs from the model", s, src, dst)
		}
	}
}

func TestCopyStopsAtTheFailingRow(t *testing.T) {
	m, guest := newMemory(t)
	for i := range guest {
		guest[i] = 1
	}
	// Rows of 0x4000 bytes: the fifth destination row leaves device memory.
	n, row, err := m.Copy(context.Background(), dma.Side{Space: dma.Device, StrideY: 0x4000}, dma.Side{Addr: busBase, StrideY: 0x4000},
		dma.Shape{NX: 0x4000, NY: 8, NZ: 1}, nil)
	var f *dma.Fault
	if !errors.As(err, &f) || row != 4 || n != 0x10000 || f.Addr != 0x10000 {
		t.Errorf("n %#x, row %d, %v; want 0x10000, row 4, a fault at 0x10000", n, row, err)
	}
}

func TestCopyStopsWhenTold(t *testing.T) {
	m, _ := newMemory(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	n, _, err := m.Copy(ctx, dma.Side{Space: dma.Device}, dma.Side{Addr: busBase}, dma.Shape{NX: 16, NY: 1, NZ: 1}, nil)
	if n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("got %d bytes, %v", n, err)
	}
}

func TestLast(t *testing.T) {
	tests := []struct {
		name string
		d    dma.Side
		s    dma.Shape
		want uint64
		ok   bool
	}{
		{"one byte", dma.Side{Addr: 7}, dma.Shape{NX: 1, NY: 1, NZ: 1}, 7, true},
		{"three dimensions", dma.Side{Addr: 1, StrideY: 10, StrideZ: 100}, dma.Shape{NX: 4, NY: 3, NZ: 2}, 1 + 100 + 20 + 3, true},
		{"up to the end", dma.Side{Addr: math.MaxUint64 - 3}, dma.Shape{NX: 4, NY: 1, NZ: 1}, math.MaxUint64, true},
		{"passes the end", dma.Side{Addr: math.MaxUint64 - 2}, dma.Shape{NX: 4, NY: 1, NZ: 1}, 0, false},
		{"stride times count overflows", dma.Side{StrideY: 1 << 63}, dma.Shape{NX: 1, NY: 3, NZ: 1}, 0, false},
	}
	for _, tt := range tests {
		got, ok := tt.d.Last(tt.s)
		if ok != tt.ok || ok && got != tt.want {
			t.Errorf("%s: got %#x, %v; want %#x, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func BenchmarkCopy(b *testing.B) {
	m := &dma.Memory{Bus: new(iova.Table), DRAM: make([]byte, 1<<20)}
	if err := m.Bus.Map(0, 1<<20, iova.Read, iova.NewBytes(make([]byte, 1<<20))); err != nil {
		b.Fatal(err)
	}
	m.SetBusMaster(true)
	buf := make([]byte, dma.Chunk)
	b.SetBytes(1 << 20)
	for b.Loop() {
		if _, _, err := m.Copy(context.Background(), dma.Side{Space: dma.Device}, dma.Side{}, dma.Shape{NX: 1 << 20, NY: 1, NZ: 1}, buf); err != nil {
			b.Fatal(err)
		}
	}
}
