// SPDX-License-Identifier: Apache-2.0

// Package vfiouser speaks the vfio-user protocol, version 0.0, as QEMU's
// docs/interop/vfio-user.rst describes it and as QEMU 11.1 uses it: a [Server]
// presents a [Backend], one PCI function, to one client at a time; a [Client]
// is the other side, for tests and for a driver in this process. A Backend may also be
// a [Migrator], a [DMALogger], a [Messenger], a [Toucher] and an [IOEventer]. Choices, and where others answer otherwise:
// docs/vfio-user.md.
//
// # What the server does with a wrong message
//
// The sender gets an errno, the log gets a rate-limited warning that names the
// rule, and the next message is served. The connection ends only when VERSION
// fails or a message cannot be read to its end. A message is refused or obeyed
// as a whole, and its descriptors are closed unless it was obeyed. An access
// inside a region never fails, because Cloud Hypervisor waits for the data that
// an error reply does not have: where the Backend refuses, reads give all ones
// and writes are dropped.
//
// # Goroutines and locks
//
// One goroutine per connection receives, calls the Backend and replies; it
// blocks in system calls on a thread of its own. DMA engines call the
// [iova.Memory] values of the mappings from their own goroutines. Memory that
// came with a descriptor is copied directly; one mapping per file is shared by
// all ranges in it. Memory without a descriptor is reached by DMA_READ and
// DMA_WRITE, whose replies the connection's goroutine hands out: the Backend must
// not access such memory while that goroutine waits for it. With a twin socket
// another goroutine hands them out. When the client may signal eventfds, to write
// registers or to unmask, one more goroutine waits for them and calls the Backend
// in turn with the connection's. Lock order: conn.turn; conn.mu; files.mu; the
// socket's. Only turn is held across Backend calls, and only the socket's own send
// lock across a socket call; none across a copy of guest memory that the device makes.
//
// # Left out
//
// ioregionfds, which no released kernel has.
package vfiouser
