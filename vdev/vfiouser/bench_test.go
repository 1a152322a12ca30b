// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"context"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"npuemu/dma"
)

// BenchmarkDMA copies from mapped guest memory to device memory, and the same bytes
// with the built-in copy, which is the limit. Each walks 64 MiB, so that small
// copies find their memory as cold as a device does.
func BenchmarkDMA(b *testing.B) {
	const area = 64 << 20
	f := newFake(b)
	c := attach(b, Config{}, f)
	file := memfd(b, area)
	if err := c.MapDMA(0, area, rw, file, 0); err != nil {
		b.Fatal(err)
	}
	guest, err := unix.Mmap(int(file.Fd()), 0, area, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = unix.Munmap(guest) }) // there is nothing to do about it
	m := dma.Memory{Bus: &f.table, DRAM: make([]byte, area)}
	m.SetBusMaster(true)
	for i := 0; i < area; i += 4096 {
		m.DRAM[i] = 1 // no page is missing when the clock runs
	}
	buf := make([]byte, dma.Chunk)
	for size := 4 << 10; size <= area; size <<= 2 {
		run := func(name string, move func(off uint64) error) {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for off := 0; b.Loop(); off = (off + size) % area {
					if err := move(uint64(off)); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		shape := dma.Shape{NX: uint64(size), NY: 1, NZ: 1}
		ctx := context.Background()
		run("memcpy", func(off uint64) error {
			copy(m.DRAM[off:], guest[off:off+uint64(size)])
			return nil
		})
		run("read", func(off uint64) error {
			_, _, err := m.Copy(ctx, dma.Side{Space: dma.Device, Addr: off}, dma.Side{Space: dma.Bus, Addr: off}, shape, buf)
			return err
		})
		run("write", func(off uint64) error {
			_, _, err := m.Copy(ctx, dma.Side{Space: dma.Bus, Addr: off}, dma.Side{Space: dma.Device, Addr: off}, shape, buf)
			return err
		})
	}
}
