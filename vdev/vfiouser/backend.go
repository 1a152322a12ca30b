// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"os"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
)

// Indexes of the regions of a PCI function, as linux/vfio.h numbers them.
const (
	RegionBAR0   = 0 // to RegionBAR0+5
	RegionROM    = 6
	RegionConfig = 7
	RegionVGA    = 8
	NumRegions   = 9
)

// Indexes of the interrupt types of a PCI function.
const (
	IRQINTx = 0
	IRQMSI  = 1
	IRQMSIX = 2
	IRQErr  = 3
	IRQReq  = 4
	NumIRQs = 5
)

// RegionFlags says how a region may be used.
type RegionFlags uint32

// The bits of RegionFlags.
const (
	RegionRead  RegionFlags = 1 << 0 // VFIO_REGION_INFO_FLAG_READ
	RegionWrite RegionFlags = 1 << 1 // VFIO_REGION_INFO_FLAG_WRITE
	RegionMmap  RegionFlags = 1 << 2 // VFIO_REGION_INFO_FLAG_MMAP; needs a File

	regionCaps RegionFlags = 1 << 3 // VFIO_REGION_INFO_FLAG_CAPS
)

// Region describes one region. A region of size 0 is not there.
type Region struct {
	Size  uint64
	Flags RegionFlags
	// File backs a region with RegionMmap: region offset 0 is file offset 0.
	// The client gets it with all rights it has here, so a memfd that the
	// device maps itself should be sealed against shrinking. It stays the
	// Backend's and open while a server uses it.
	File *os.File
	// Areas are the parts of the region that the client may map; none means
	// all of it. Keep the MSI-X table outside: some clients map what they are
	// told.
	Areas []Area
}

// Area is a part of a region, in bytes.
type Area struct{ Off, Size uint64 }

// IRQFlags says what an interrupt type can do.
type IRQFlags uint32

// The bits of IRQFlags.
const (
	IRQEventfd    IRQFlags = 1 << 0 // VFIO_IRQ_INFO_EVENTFD
	IRQMaskable   IRQFlags = 1 << 1 // VFIO_IRQ_INFO_MASKABLE
	IRQAutomasked IRQFlags = 1 << 2 // VFIO_IRQ_INFO_AUTOMASKED
	IRQNoResize   IRQFlags = 1 << 3 // VFIO_IRQ_INFO_NORESIZE
)

// IRQ describes one interrupt type. Count 0 means that it is not there.
type IRQ struct {
	Count int // vectors
	Flags IRQFlags
}

// Backend is the device behind a Server. Its methods are called by one goroutine
// at a time, the connection's, with indexes, vectors and ranges already checked
// against Regions and IRQs. They must return soon: QEMU gives up on a register
// access after 5 s. An error that wraps a unix.Errno decides the errno of the
// reply; any other becomes EIO.
type Backend interface {
	// Regions returns NumRegions entries and IRQs NumIRQs entries. They are
	// asked once per client and must not change while it is attached.
	Regions() []Region
	IRQs() []IRQ

	// ReadRegion fills p from byte offset off of a region; WriteRegion writes
	// p, which is the server's after it returns. The client sees neither
	// error: it reads all ones, and the log gets a warning.
	ReadRegion(index int, off uint64, p []byte) error
	WriteRegion(index int, off uint64, p []byte) error

	// SetVector attaches fd to a vector, or detaches what is there if fd is
	// nil. The Backend owns fd and closes the one it replaces.
	SetVector(index, vector int, fd *eventfd.FD)
	// TriggerVector raises the interrupt as if the device had.
	TriggerVector(index, vector int)
	// MaskVector masks or unmasks. Unmasking raises a level interrupt again
	// whose cause is still there.
	MaskVector(index, vector int, masked bool)

	// MapDMA adds a range; the Backend owns mem if it returns nil, and closes
	// it after the range's last access. iova.Table does all of it, and
	// UnmapDMA and UnmapAllDMA as the server needs them: no access to a removed
	// range runs any more when they return.
	MapDMA(addr iova.Addr, size uint64, prot iova.Prot, mem iova.Memory) error
	UnmapDMA(addr iova.Addr, size uint64) error
	UnmapAllDMA()

	// Reset is a function reset: work is aborted, mappings and vectors stay.
	Reset() error

	// Detach tells that the client is gone. Message-backed memory fails
	// already; the device stops its work, as at a Reset: nothing may reach the
	// memory of the next client. After Detach the server detaches every
	// vector and calls UnmapAllDMA.
	Detach()
}
