// SPDX-License-Identifier: Apache-2.0

package dma

import (
	"context"
	"errors"
	"fmt"

	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
)

// View is memory as the commands of a queue see it, one command after the other. Each access says
// which engine makes it, and is translated if the context is. It is one goroutine's; mu of
// the MMU orders it with others.
type View struct {
	mem   *Memory
	space *AddressSpace // nil: not translated
	who   Requester

	Hits, Misses uint64 // of the TLB, since Begin
}

// NewView returns a View of m.
func NewView(m *Memory) *View { return &View{mem: m} }

// Begin makes v that of a command; space is nil if its context is not translated.
func (v *View) Begin(space *AddressSpace, who Requester) {
	v.space, v.who, v.Hits, v.Misses = space, who, 0, 0
}

// Reaches reports whether the command may name space s: virtual addresses if its context is
// translated, and otherwise all the others (§7.1).
func (v *View) Reaches(s Space) bool {
	if v.space != nil {
		return s == Virtual
	}
	return s.memory()
}

// Leads returns the memory that addr in space s is in for an access: of a virtual address what its page is mapped to, or
// Virtual if that is nothing. Nothing is counted, and the TLB stays as it is.
func (v *View) Leads(a Access, s Space, addr uint64) Space {
	if v.space == nil || addr >= npureg.VirtualLimit {
		return s
	}
	m := &v.mem.MMU
	m.mu.Lock()
	defer m.mu.Unlock()
	to, _, no := m.walk(v.mem, v.space, addr, a)
	if no.Reason != 0 {
		return s
	}
	return to.space
}

// Read copies len(p) bytes at addr in space s into p, for e. An error is a *Fault; bytes before its address may have
// been copied.
func (v *View) Read(e Engine, s Space, addr uint64, p []byte) error {
	return v.access(e, ToRead, s, addr, p)
}

// Fetch is Read of a program.
func (v *View) Fetch(s Space, addr uint64, p []byte) error {
	return v.access(Command, ToExecute, s, addr, p)
}

// Write copies p to addr in space s, for e. An error is a *Fault; bytes before its address may have been written.
func (v *View) Write(e Engine, s Space, addr uint64, p []byte) error {
	return v.access(e, ToWrite, s, addr, p)
}

// ReadRows copies rows rows of size bytes, stride bytes apart in space s from addr on, to rows step bytes apart in p. It
// reports false if they cannot be read at once, or one could not be read: Read of each says which.
func (v *View) ReadRows(s Space, addr, stride uint64, p []byte, step, size, rows int) bool {
	return v.space == nil && v.mem.rows(s, addr, stride, p, step, size, rows, false)
}

// WriteRows is ReadRows in the other direction; rows are written one after the other, and some perhaps if it reports false.
func (v *View) WriteRows(s Space, addr, stride uint64, p []byte, step, size, rows int) bool {
	return v.space == nil && v.mem.rows(s, addr, stride, p, step, size, rows, true)
}

// Direct returns a number for the memory that has all of size bytes at addr in space s, if the command's accesses there, of
// the kinds that access has, are permitted and not translated, have no effect but on bytes, and may be made by several
// goroutines at once. Different addresses with one number are different bytes.
func (v *View) Direct(s Space, access iova.Prot, addr, size uint64) (number uint64, ok bool) {
	if v.space != nil || size == 0 {
		return 0, false
	}
	switch m := v.mem; s {
	case Device:
		_, err := m.device(addr, size, false)
		return ^uint64(0), err == nil && !m.Poison.Some() // where no mapping begins
	case Bus:
		first, ok := m.Bus.Direct(access, iova.Addr(addr), size)
		return uint64(first), ok && m.master.Load()
	}
	return 0, false
}

func (v *View) access(e Engine, a Access, s Space, addr uint64, p []byte) error {
	if v.space == nil {
		return v.mem.access(s, addr, p, a == ToWrite)
	}
	for len(p) > 0 {
		n, err := v.piece(e, a, addr, p)
		if err != nil {
			return err
		}
		addr, p = addr+uint64(n), p[n:]
	}
	return nil
}

// piece accesses as much as one translation is good for.
func (v *View) piece(e Engine, a Access, va uint64, p []byte) (int, error) {
	m := &v.mem.MMU
	m.mu.Lock()
	defer m.mu.Unlock()
	to, err := v.translateLocked(e, a, va)
	if err != nil {
		return 0, err
	}
	n := int(min(uint64(len(p)), to.room))
	if err := v.mem.access(to.space, to.addr, p[:n], a == ToWrite); err != nil {
		return 0, v.targetRefused(err, e, a, va, to)
	}
	return n, nil
}

// target is where a virtual address leads to.
type target struct {
	space Space
	addr  uint64
	room  uint64 // bytes that one access may move from there: to the end of the page, at most Chunk
}

// translateLocked translates va; the MMU's mu is held. An error is a *Fault.
func (v *View) translateLocked(e Engine, a Access, va uint64) (target, error) {
	if va >= npureg.VirtualLimit {
		return target{}, v.refused(e, a, va, Refusal{Reason: NoAddress}, nil)
	}
	m := &v.mem.MMU
	at := m.recent[a&3]
	if at == nil || at.tag != v.space.tag || va&^at.mask != at.page {
		at = m.tlb.find(v.space.tag, va)
	}
	if at != nil && at.bits&(1<<a) != 0 {
		v.Hits++
	} else {
		v.Misses++
		if at != nil {
			*at = leaf{} // the tables may allow more by now (§11.4)
		}
		found, level, no := m.walk(v.mem, v.space, va, a)
		if no.Reason != 0 {
			return target{}, v.refused(e, a, va, no, nil)
		}
		at = m.tlb.fill(found, level)
	}
	m.recent[a&3] = at
	off := va & at.mask
	return target{space: at.space, addr: at.addr + off, room: min(at.mask-off+1, Chunk)}, nil
}

// refused makes the *Fault of an access to va.
func (v *View) refused(e Engine, a Access, va uint64, r Refusal, cause error) error {
	r.Requester, r.Engine, r.Access = v.who, e, a
	f := &Fault{Space: Virtual, Addr: va, Write: a == ToWrite, Refusal: &r}
	f.Err = f.Refusal
	if cause != nil {
		f.Err = fmt.Errorf("%w: %w", f.Refusal, cause)
	}
	return f
}

// targetRefused makes the *Fault of an access whose translation at va is to, and whose target failed with err.
func (v *View) targetRefused(err error, e Engine, a Access, va uint64, to target) error {
	var f *Fault
	if !errors.As(err, &f) {
		return err
	}
	if errors.Is(f, ErrPoison) { // no matter of the context (§12.2)
		return &Fault{Space: Virtual, Addr: va + (max(f.Addr, to.addr) - to.addr), Err: f}
	}
	return v.refused(e, a, va+(f.Addr-to.addr), Refusal{Reason: NoTarget, Space: f.Space, Addr: f.Addr}, f)
}

// Copy executes the strided copy of §7.4, as Memory.Copy does.
func (v *View) Copy(ctx context.Context, dst, src Side, s Shape, buf []byte) (n, row uint64, err error) {
	if v.space == nil {
		return v.mem.Copy(ctx, dst, src, s, buf)
	}
	return walkRows(ctx, dst, src, s, func(to, from, size uint64) error {
		for size > 0 {
			n, err := v.movePiece(to, from, size, buf)
			if err != nil {
				return err
			}
			to, from, size = to+n, from+n, size-n
		}
		return nil
	})
}

// movePiece copies as much as one translation of each side is good for.
func (v *View) movePiece(to, from, size uint64, buf []byte) (uint64, error) {
	m := &v.mem.MMU
	m.mu.Lock()
	defer m.mu.Unlock()
	src, err := v.translateLocked(DMA, ToRead, from)
	if err != nil {
		return 0, err
	}
	dst, err := v.translateLocked(DMA, ToWrite, to)
	if err != nil {
		return 0, err
	}
	size = min(size, src.room, dst.room)
	err = v.mem.move(dst.space, dst.addr, src.space, src.addr, size, buf)
	if err == nil {
		return size, nil // before f, which errors.As puts on the heap
	}
	var f *Fault
	if errors.As(err, &f) && f.Write {
		return 0, v.targetRefused(err, DMA, ToWrite, to, dst)
	}
	return 0, v.targetRefused(err, DMA, ToRead, from, src)
}
