// SPDX-License-Identifier: Apache-2.0

package iova

import "encoding/binary"

// Words is a Memory that host and device share as memory, not by messages: its
// aligned words can be accessed atomically, with the order of sync/atomic, so a
// device can watch what the host stores. The table keeps accesses inside the range.
type Words interface {
	Memory
	// Watchable reports whether words at offset off, a multiple of 8 on the bus,
	// are aligned in memory too.
	Watchable(off uint64) bool
	Load64(off uint64) (uint64, error)
	Store32(off uint64, v uint32) error
}

// Watch is a part of one mapping that the device accesses word by word, again and
// again, without looking it up each time. Methods are safe for concurrent use. They
// fail with a *Fault from the Unmap of the mapping on, and Unmap waits for the access
// that runs; a Watch needs no closing.
type Watch struct {
	t     *Table
	m     *mapping
	words Words
	addr  Addr
	off   uint64 // of addr in the mapping
}

// Watch returns the size bytes at addr, a multiple of 8, for reading and writing; nil
// if they do not lie in one mapping of shared words with both permissions.
func (t *Table) Watch(addr Addr, size uint64) *Watch {
	m := t.acquire(addr)
	if m == nil {
		return nil
	}
	defer m.mu.RUnlock()
	words, ok := m.mem.(Words)
	off := uint64(addr - m.first)
	if !ok || m.prot != Read|Write || size == 0 || size-1 > uint64(m.last-addr) || !words.Watchable(off) {
		return nil
	}
	return &Watch{t: t, m: m, words: words, addr: addr, off: off}
}

// Load64 loads the word at offset off, a multiple of 8.
func (w *Watch) Load64(off uint64) (uint64, error) {
	w.m.mu.RLock()
	if w.m.dead {
		w.m.mu.RUnlock()
		return 0, w.t.refuse(&Fault{Addr: w.addr + Addr(off), Size: 8, Access: Read, Reason: Unmapped}, nil)
	}
	defer w.m.mu.RUnlock()
	v, err := w.words.Load64(w.off + off)
	if err != nil {
		return 0, &Fault{Addr: w.addr + Addr(off), Size: 8, Access: Read, Reason: Failed, Err: err}
	}
	return v, nil
}

// Store32 stores the half of a word at offset off, a multiple of 4. It is a full
// barrier: loads that follow see what others stored before they loaded the old value.
// A log of written pages has it, as it has a Write.
func (w *Watch) Store32(off uint64, v uint32) error {
	w.m.mu.RLock()
	if w.m.dead {
		w.m.mu.RUnlock()
		return w.t.refuse(&Fault{Addr: w.addr + Addr(off), Size: 4, Access: Write, Reason: Unmapped}, binary.LittleEndian.AppendUint32(nil, v))
	}
	defer w.m.mu.RUnlock()
	err := w.words.Store32(w.off+off, v)
	if l := w.t.log.Load(); l != nil {
		l.mark(w.addr+Addr(off), 4)
	}
	if err != nil {
		return &Fault{Addr: w.addr + Addr(off), Size: 4, Access: Write, Reason: Failed, Err: err}
	}
	return nil
}
