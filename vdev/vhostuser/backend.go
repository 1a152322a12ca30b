// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vhostuser

import (
	"os"

	"npuemu/dma/iova"
)

// SharedMemory is a window into the device's own memory that the guest maps: a
// virtio shared memory region.
type SharedMemory struct {
	ID   uint8 // below 8
	Size uint64
	// File is mapped from its start, by front end and guest, with all rights it has
	// here. A memfd that the device maps itself should be sealed against shrinking. It
	// stays the Backend's and open while a server uses it.
	File *os.File
}

// Backend is the device behind a Server. All methods but Kick are called by the
// connection's goroutine, one at a time, without a lock of this package; they may take the
// Backend's own.
type Backend interface {
	// Features are the device type's feature bits, 0 to 23, Queues the number of
	// its virtqueues, at most MaxQueues, SharedMemory its windows. They are constant.
	Features() uint64
	Queues() int
	SharedMemory() []SharedMemory

	// ReadConfig fills p with the configuration space from its first byte; what is
	// beyond its end is 0. WriteConfig is what the driver wrote at off.
	ReadConfig(p []byte)
	WriteConfig(off int, p []byte)

	// MapDMA adds a range of guest memory; the Backend owns mem if it returns nil,
	// and closes it after the range's last access. When UnmapDMA returns, no access
	// runs any more. Detach does not unmap: the server does, range by range.
	MapDMA(addr iova.Addr, size uint64, prot iova.Prot, mem iova.Memory) error
	UnmapDMA(addr iova.Addr, size uint64) error

	// Attach begins a connection, Detach ends it: nothing may run on, or be done by,
	// the device for this front end after it. With keep nothing is in flight, and the driver's life
	// goes on: with the next Attach, if no Reset follows.
	Attach(f *FrontEnd)
	Detach(keep bool)

	// Start tells that the driver is there: its first virtqueue runs. With lost, its life began
	// with a device whose state is gone: it has to reset this one. Reset forgets
	// everything that a driver did. A driver's life begins with Start, and ends with the next
	// Reset or Detach; virtqueues may stop and run again in between.
	Start(lost bool)
	Reset()

	// Kick tells that a virtqueue may have something to Take. It is called from any
	// goroutine, with or without a lock held, and only takes note.
	Kick(queue int)
}
