// SPDX-License-Identifier: Apache-2.0

// Package dma moves bytes for the device: it resolves an address in one of the
// device's address spaces (docs/spec/memory.md §7.1) to memory, and executes
// strided copies (§7.4). Commands reach it through a [View], which translates the addresses of
// contexts that have page tables (docs/spec/mmu.md).
//
// Nothing here takes the board's lock; callers run on workers. A Memory is safe
// for concurrent use; ranges that two commands touch at the same time are not
// ordered (§7.5), and bytes may then mix, as on hardware.
package dma

import (
	"errors"
	"fmt"
	"sync/atomic"

	"npuemu/dma/iova"
	"npuemu/ecc"
)

// Space is an address space number as commands and bindings carry it (§7.1).
type Space uint8

// The address spaces.
const (
	Bus     Space = 0
	Device  Space = 1
	Virtual Space = 2 // of a translated context, architecture 1.2
)

// memory reports whether s is one of memory, not of virtual addresses.
func (s Space) memory() bool { return s <= Device }

func (s Space) String() string {
	switch s {
	case Bus:
		return "bus"
	case Device:
		return "device"
	case Virtual:
		return "virtual"
	}
	return fmt.Sprintf("space %d", uint8(s))
}

// ErrBusMaster is the reason of a Fault while the function may not master the
// bus (§1.5).
var ErrBusMaster = errors.New("bus mastering is off or the function is not in D0 (§1.5)")

// ErrPoison is the reason of a Fault at a poisoned granule of device memory (§12.2). Its address is the
// granule's; in Virtual it is that of the first byte of it that was read, and Err is the Fault with the granule's.
var ErrPoison = errors.New("uncorrectable memory error (§12.2)")

// Fault is an access that the memory refused (§7.2).
type Fault struct {
	Space Space
	Addr  uint64 // first byte that could not be accessed, in Space
	Write bool
	Err   error // why; never nil

	Refusal *Refusal // of an access to Virtual; otherwise nil
}

func (f *Fault) Error() string {
	verb := "read"
	if f.Write {
		verb = "write"
	}
	return fmt.Sprintf("dma: %s of %s address %#x: %v", verb, f.Space, f.Addr, f.Err)
}

// Unwrap returns the reason.
func (f *Fault) Unwrap() error { return f.Err }

// Memory is everything that the device can address: the bus, through the
// table of what the host mapped, and its own DRAM.
type Memory struct {
	Bus  *iova.Table
	DRAM []byte // device memory; shared with the host, which may change it at any time
	MMU  MMU    // in front of both, for the commands of translated contexts

	Poison ecc.Poison // of device memory; what the host writes does not clear it

	// ReadFailed, if set, is told of every read of the bus that failed, but not of one that
	// was not made for want of bus mastering. It runs on the reader's goroutine.
	ReadFailed func(error)

	master atomic.Bool  // §1.5
	reads  atomic.Int32 // of the bus, in flight
}

// Reading reports whether a read of the bus is in flight.
func (m *Memory) Reading() bool { return m.reads.Load() != 0 }

// SetBusMaster allows or forbids accesses to the bus (§1.5).
func (m *Memory) SetBusMaster(on bool) { m.master.Store(on) }

// Read copies len(p) bytes at addr in space s into p. An error is a *Fault;
// bytes before its address may have been copied.
func (m *Memory) Read(s Space, addr uint64, p []byte) error { return m.access(s, addr, p, false) }

// Write copies p to addr in space s. An error is a *Fault; bytes before its
// address may have been written.
func (m *Memory) Write(s Space, addr uint64, p []byte) error { return m.access(s, addr, p, true) }

func (m *Memory) access(s Space, addr uint64, p []byte, write bool) error {
	if s == Device {
		local, err := m.device(addr, uint64(len(p)), write)
		if err != nil {
			return err
		}
		if write {
			copy(local, p)
			m.Poison.Overwritten(addr, uint64(len(p)))
		} else {
			copy(p, local)
		}
		return nil
	}
	if !m.master.Load() {
		return &Fault{Space: s, Addr: addr, Write: write, Err: ErrBusMaster}
	}
	var err error
	if write {
		err = m.Bus.Write(iova.Addr(addr), p)
	} else {
		m.reads.Add(1)
		err = m.Bus.Read(iova.Addr(addr), p)
		m.reads.Add(-1)
		if err != nil && m.ReadFailed != nil {
			m.ReadFailed(err)
		}
	}
	if err != nil {
		at := addr
		var f *iova.Fault
		if errors.As(err, &f) {
			at = uint64(f.Addr)
		}
		return &Fault{Space: s, Addr: at, Write: write, Err: err}
	}
	return nil
}

// rows is access of rows of size bytes, stride bytes apart in the bus and step bytes in p, at once. It reports false if
// that is not possible, or failed, after some of them perhaps.
func (m *Memory) rows(s Space, addr, stride uint64, p []byte, step, size, rows int, write bool) bool {
	if s != Bus || !m.master.Load() {
		return false
	}
	if write {
		return m.Bus.Rows(iova.Write, iova.Addr(addr), stride, p, step, size, rows)
	}
	m.reads.Add(1)
	defer m.reads.Add(-1)
	return m.Bus.Rows(iova.Read, iova.Addr(addr), stride, p, step, size, rows)
}

// device returns n bytes of device memory, or a *Fault. Who writes them tells Poison.
func (m *Memory) device(addr, n uint64, write bool) ([]byte, error) {
	size := uint64(len(m.DRAM))
	if addr > size || n > size-addr {
		return nil, &Fault{Space: Device, Addr: max(addr, size), Write: write, Err: fmt.Errorf("outside device memory of %#x bytes (§7.2)", size)}
	}
	if !write && m.Poison.Some() {
		if at, bad := m.Poison.Find(addr, n); bad {
			return nil, &Fault{Space: Device, Addr: at, Err: ErrPoison}
		}
	}
	return m.DRAM[addr : addr+n], nil
}
