// SPDX-License-Identifier: Apache-2.0

package devtest

import (
	"encoding/binary"

	"npuemu/mmio/npureg"
)

// A PageTable is a context's page tables (§11.2), all of them on the bus or all in device memory.
type PageTable struct {
	h     *Host
	space uint8
	root  uint64
	next  uint64            // where the next table lies in device memory
	bytes map[uint64][]byte // of the tables by address; in device memory a copy
}

// NewPageTable returns empty page tables on the bus.
func (h *Host) NewPageTable() *PageTable {
	h.T.Helper()
	p := &PageTable{h: h, bytes: map[uint64][]byte{}}
	p.root = p.table()
	return p
}

// NewDevicePageTable returns empty page tables in device memory, from an address on, where everything is 0 or was left
// by earlier ones. (A guest in the embedded VMM writes a word of device memory at a time, slowly.)
func (h *Host) NewDevicePageTable(at uint64) *PageTable {
	h.T.Helper()
	p := &PageTable{h: h, space: 1, next: at, bytes: map[uint64][]byte{}}
	p.root = p.table()
	return p
}

func (p *PageTable) table() uint64 {
	p.h.T.Helper()
	if p.space == 0 {
		at, b := p.h.Alloc(npureg.PageSize)
		p.bytes[at] = b
		return at
	}
	at := p.next
	p.next += npureg.PageSize
	b := p.h.tables[at]
	if b == nil {
		b = make([]byte, npureg.PageSize)
		p.h.tables[at] = b
	}
	p.bytes[at] = b
	for off := uint64(0); off < npureg.PageSize; off += 8 {
		if binary.LittleEndian.Uint64(b[off:]) != 0 {
			p.store(at, off, 0)
		}
	}
	return at
}

// Entry64 returns an entry of a table that leads to addr in a space; bits are its other bits without VALID.
func Entry64(space uint8, addr, bits uint64) uint64 {
	return addr | uint64(space)<<npureg.EntrySpaceShift | bits | npureg.EntryValid
}

// Set stores the entry of a level for va, and makes the tables above it.
func (p *PageTable) Set(va uint64, level int, entry uint64) {
	p.h.T.Helper()
	table := p.root
	for l := 4; ; l-- {
		index := va >> (3 + 9*l) & 511 * 8
		b := p.bytes[table][index:][:8]
		old := binary.LittleEndian.Uint64(b)
		switch {
		case l == level:
			p.store(table, index, entry)
			return
		case old&npureg.EntryValid == 0:
			below := p.table()
			p.store(table, index, Entry64(p.space, below, 0))
			table = below
		default:
			table = old & npureg.EntryAddress
			if p.bytes[table] == nil {
				p.h.T.Fatalf("devtest: the entry of level %d for %#x, %#x, leads to no table", l, va, old)
			}
		}
	}
}

func (p *PageTable) store(table, index, entry uint64) {
	p.h.T.Helper()
	b := p.bytes[table][index:][:8]
	binary.LittleEndian.PutUint64(b, entry)
	if p.space != 0 {
		p.h.WriteDRAM(table+index, b)
	}
}

// Map maps size bytes at va by pages of 4 KiB to addr in a space.
func (p *PageTable) Map(va, size uint64, space uint8, addr, bits uint64) {
	p.h.T.Helper()
	for off := uint64(0); off < size; off += npureg.PageSize {
		p.Set(va+off, 1, Entry64(space, addr+off, bits|npureg.EntryLeaf))
	}
}

// CreateTranslated creates a context with page tables and returns its number.
func (h *Host) CreateTranslated(p *PageTable) uint32 {
	h.T.Helper()
	c := h.Admin(CreateTranslatedEntry(p.space, p.root))
	if c.Status != npureg.StatusSuccess {
		h.T.Fatalf("devtest: CREATE_CONTEXT: %v", c)
	}
	return c.Result
}

// CreateTranslatedEntry returns CREATE_CONTEXT with a root table.
func CreateTranslatedEntry(space uint8, root uint64) Entry {
	e := Entry{npureg.AdminCreateContext}
	binary.LittleEndian.PutUint64(e[0x08:], root)
	binary.LittleEndian.PutUint32(e[0x10:], npureg.ContextTranslated|uint32(space)<<npureg.ContextSpaceShift)
	return e
}

// DestroyContext destroys a context.
func (h *Host) DestroyContext(context uint32) {
	h.T.Helper()
	e := Entry{npureg.AdminDestroyContext}
	binary.LittleEndian.PutUint32(e[8:], context)
	if c := h.Admin(e); c.Status != npureg.StatusSuccess {
		h.T.Fatalf("devtest: DESTROY_CONTEXT %d: %v", context, c)
	}
}

// InvalidateTLB invalidates a range of a context (§11.4).
func (h *Host) InvalidateTLB(context uint32, va, size uint64) {
	h.T.Helper()
	e := Entry{npureg.AdminInvalidateTLB}
	binary.LittleEndian.PutUint64(e[0x08:], va)
	binary.LittleEndian.PutUint64(e[0x10:], size)
	binary.LittleEndian.PutUint32(e[0x18:], context)
	if c := h.Admin(e); c.Status != npureg.StatusSuccess {
		h.T.Fatalf("devtest: INVALIDATE_TLB: %v", c)
	}
}

// A FaultRecord is a record of the fault log (§11.6).
type FaultRecord struct {
	Number                    uint32
	Status                    npureg.Status
	Reason, Access            uint8
	Context, Queue, Index, ID uint16
	Engine, Level, Space      uint8
	VA, Entry, Addr           uint64
}

// FaultLog reads the fault log, and returns how many faults there were since the reset and the records.
func (h *Host) FaultLog() (total uint32, records []FaultRecord) {
	h.T.Helper()
	le := binary.LittleEndian
	p := h.Log(3, 4096)
	n := int(le.Uint32(p[4:]))
	if len(p) != npureg.FaultLogHeader+n*npureg.FaultLogRecord || le.Uint32(p[8:]) != npureg.FaultLogRecord || le.Uint32(p[12:]) != 0 {
		h.T.Fatalf("devtest: log page 3 of %d bytes: header % x", len(p), p[:16])
	}
	for i := range n {
		b := p[npureg.FaultLogHeader+i*npureg.FaultLogRecord:]
		records = append(records, FaultRecord{
			Number: le.Uint32(b), Status: npureg.Status(le.Uint16(b[4:])), Reason: b[6], Access: b[7],
			Context: le.Uint16(b[8:]), Queue: le.Uint16(b[10:]), Index: le.Uint16(b[12:]), ID: le.Uint16(b[14:]),
			Engine: b[16], Level: b[17], Space: b[18], VA: le.Uint64(b[0x18:]), Entry: le.Uint64(b[0x20:]), Addr: le.Uint64(b[0x28:]),
		})
	}
	return le.Uint32(p), records
}
