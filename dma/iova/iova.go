// SPDX-License-Identifier: Apache-2.0

// Package iova resolves addresses that the device puts on the bus (IOVAs) to
// the memory that the host mapped there.
//
// A [Table] is written by the connection that receives map and unmap requests
// and read by every DMA engine. Lookups use an immutable snapshot of the ordered
// map, and take no lock but in the first one after a change, which makes the
// snapshot: an IOMMU with 4 KiB pages makes hundreds of changes for one
// buffer. An access then holds the lock of the one mapping
// it touches, for at most [Slice] bytes, so Unmap returns once no access can
// reach the removed memory any more and never waits for a whole transfer.
//
// Lock order: Table.mu, then a mapping's mu; neither is held when a method of
// Memory is called, except that an access holds its mapping's mu for reading.
package iova

import (
	"fmt"
	"log/slog"
	"sync"
)

// Addr is an address on the device's bus: what a driver gets from its DMA API.
type Addr uint64

func (a Addr) String() string { return fmt.Sprintf("%#x", uint64(a)) }

// LogValue makes addresses print in hexadecimal in structured logs.
func (a Addr) LogValue() slog.Value { return slog.StringValue(a.String()) }

// Prot says what the device may do with a mapped range.
type Prot uint8

// The bits of Prot. A value with both is a bidirectional mapping.
const (
	Read  Prot = 1 << iota // the device may read: host to device
	Write                  // the device may write: device to host
)

func (p Prot) String() string {
	switch p {
	case 0:
		return "none"
	case Read:
		return "read"
	case Write:
		return "write"
	case Read | Write:
		return "read-write"
	}
	return fmt.Sprintf("Prot(%#x)", uint8(p))
}

// Memory backs one mapped range. ReadAt and WriteAt move exactly len(p) bytes
// at byte offset off of the range, or return an error after moving a part; they
// must be safe for concurrent use and must not panic whatever the peer does to
// the memory behind them. The table keeps both inside the range. Close is
// called once, when the range was unmapped and its last access has ended.
type Memory interface {
	ReadAt(p []byte, off uint64) error
	WriteAt(p []byte, off uint64) error
	Close()
}

// Bytes is a Memory backed by a slice, for tests and for hosts in this process.
// Its accesses exclude each other, so an access never sees half of another.
type Bytes struct {
	mu sync.RWMutex
	b  []byte
}

// NewBytes returns a Memory over b. Whoever shares b with the device and reads
// it while DMA runs must use ReadAt and WriteAt as well.
func NewBytes(b []byte) *Bytes { return &Bytes{b: b} }

// ReadAt copies from the slice to p.
func (m *Bytes) ReadAt(p []byte, off uint64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.check(p, off); err != nil {
		return err
	}
	copy(p, m.b[off:])
	return nil
}

// WriteAt copies p into the slice.
func (m *Bytes) WriteAt(p []byte, off uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check(p, off); err != nil {
		return err
	}
	copy(m.b[off:], p)
	return nil
}

// Close does nothing: the slice belongs to the caller of NewBytes.
func (m *Bytes) Close() {}

func (m *Bytes) check(p []byte, off uint64) error {
	size := uint64(len(m.b))
	if off > size || uint64(len(p)) > size-off {
		return fmt.Errorf("iova: %d bytes at offset %#x go beyond the %#x bytes behind the range", len(p), off, size)
	}
	return nil
}
