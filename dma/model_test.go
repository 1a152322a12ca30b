// SPDX-License-Identifier: Apache-2.0

package dma_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"npuemu/dma"
)

// The model of §11: it reads the specification's words and nothing of package dma or npureg. A cache is a list of
// everything that was ever read and not invalidated.

type modelLeaf struct {
	context           int
	va, size, to      uint64
	space             int
	read, write, exec bool
}

type model struct {
	tables func(space int, addr uint64) (entry uint64, ok bool)
	cached []modelLeaf
}

// outcome is what an access of one byte comes to: a place, or a reason.
type outcome struct {
	space  int
	addr   uint64
	reason int // FAULT_CONTEXT.REASON
	level  int
}

func (l modelLeaf) allows(access int) bool {
	return access == 1 && l.read || access == 2 && l.write || access == 3 && l.exec
}

func (l modelLeaf) place(va uint64) outcome { return outcome{space: l.space, addr: l.to + (va - l.va)} }

// translate follows the tables now.
func (m *model) translate(context, rootSpace int, root, va uint64, access int) (outcome, *modelLeaf) {
	if va>>48 != 0 {
		return outcome{reason: 6}, nil
	}
	spans := []uint64{512 << 30, 1 << 30, 2 << 20, 4 << 10}
	table, space, rest := root, rootSpace, va
	for i, span := range spans {
		level := 4 - i
		entry, ok := m.tables(space, table+8*(rest/span))
		bit := func(n int) bool { return entry&(1<<n) != 0 }
		at := int(entry / 16 % 16)
		addr := entry / 4096 * 4096
		leaf := bit(8)
		switch {
		case !ok:
			return outcome{reason: 4, level: level}, nil
		case !bit(0):
			return outcome{reason: 1, level: level}, nil
		case bit(9), bit(10), at > 1, leaf && level == 4, !leaf && level == 1:
			return outcome{reason: 3, level: level}, nil
		case leaf && addr%span != 0, !leaf && (bit(1) || bit(2) || bit(3)):
			return outcome{reason: 3, level: level}, nil
		}
		if leaf {
			l := modelLeaf{context: context, va: va / span * span, size: span, to: addr, space: at, read: bit(1), write: bit(2), exec: bit(3)}
			if !l.allows(access) {
				return outcome{reason: 2, level: level}, nil
			}
			return l.place(va), &l
		}
		table, space, rest = addr, at, rest%span
	}
	panic("a leaf at level 1 or a refusal ends every walk")
}

// outcomes are all that §11.4 allows an access to come to.
func (m *model) outcomes(context, rootSpace int, root, va uint64, access int) []outcome {
	now, leaf := m.translate(context, rootSpace, root, va, access)
	all := []outcome{now}
	for _, l := range m.cached {
		if l.context == context && l.va <= va && va-l.va < l.size && l.allows(access) {
			all = append(all, l.place(va))
		}
	}
	if leaf != nil {
		m.cached = append(m.cached, *leaf)
	}
	return all
}

func (m *model) invalidate(context int, va, size uint64) {
	var kept []modelLeaf
	for _, l := range m.cached {
		overlap := size == 0 || l.va < va+size && va < l.va+l.size
		if !(l.context == context && overlap) && context >= 0 {
			kept = append(kept, l)
		}
	}
	m.cached = kept
}

// FuzzMMU compares the MMU with the model: tables of random entries on the bus and in device memory, changed at any
// time, two contexts that share them, accesses and invalidations.
func FuzzMMU(f *testing.F) {
	for seed := range uint64(6) {
		f.Add(seed, seed*77)
	}
	f.Fuzz(func(t *testing.T, a, b uint64) {
		rng := rand.New(rand.NewPCG(a, b))
		m := newMachine(t)
		const nTables = 12 // of each memory
		tableAt := func(space, i int) uint64 {
			if space == 0 {
				return mmuBus + uint64(i)*4096
			}
			return uint64(i) * 4096
		}
		// Every place holds a number of its own.
		mark := func(space int, addr uint64) uint64 { return addr ^ uint64(space+1)*0x9e37_79b9_7f4a_7c15 }
		marks := make([]byte, mmuSize-mmuTables)
		for i := 0; i < len(marks); i += 8 {
			binary.LittleEndian.PutUint64(marks[i:], mark(0, mmuBus+mmuTables+uint64(i)))
		}
		if err := m.bus.WriteAt(marks, mmuTables); err != nil {
			t.Fatal(err)
		}
		for i := mmuTables; i < mmuSize; i += 8 {
			binary.LittleEndian.PutUint64(m.mem.DRAM[i:], mark(1, uint64(i)))
		}
		ref := &model{tables: func(space int, addr uint64) (uint64, bool) {
			var p [8]byte
			if err := m.mem.Read(dma.Space(space), addr, p[:]); err != nil {
				return 0, false
			}
			return binary.LittleEndian.Uint64(p[:]), true
		}}
		// Few indices, so that accesses meet entries.
		index := func() uint64 { return []uint64{0, 1, 2, 511}[rng.IntN(4)] }
		entry := func() uint64 {
			space := uint64(rng.IntN(2))
			if rng.IntN(3) > 0 { // a table
				e := tableAt(int(space), rng.IntN(nTables)) | space<<4 | 1
				if rng.IntN(20) == 0 {
					e |= 1 << rng.IntN(12)
				}
				return e
			}
			target := uint64(mmuTables) + rng.Uint64N((mmuSize-mmuTables)/4096+20)*4096
			if rng.IntN(2) == 0 {
				target &^= 2<<20 - 1 // a large page may be there
			}
			if rng.IntN(8) == 0 {
				target = 0
			}
			if space == 0 {
				target += mmuBus
			}
			e := target | space<<4 | 1 | 1<<8 | rng.Uint64N(8)<<1 | rng.Uint64N(2)<<11
			if rng.IntN(12) == 0 {
				e ^= 1 << rng.IntN(12)
			}
			return e
		}
		for space := range 2 {
			for i := range nTables {
				for range 4 {
					m.store(dma.Space(space), tableAt(space, i), int(index()), entry())
				}
			}
		}
		roots := [2][2]uint64{{0, tableAt(0, 0)}, {1, tableAt(1, 1)}}
		var spaces [2]*dma.AddressSpace
		for i, r := range roots {
			spaces[i] = m.mem.MMU.Space(dma.Space(r[0]), r[1])
		}
		v := dma.NewView(m.mem)
		var mapped []uint64 // what some access found
		for range 3000 {
			c := rng.IntN(2)
			va := index()<<39 | index()<<30 | index()<<21 | index()<<12 | rng.Uint64N(512)*8
			if len(mapped) > 0 && rng.IntN(2) == 0 {
				va = mapped[rng.IntN(len(mapped))] ^ uint64(rng.IntN(2))<<(3+rng.IntN(27))
			}
			switch rng.IntN(20) {
			case 0:
				space := rng.IntN(2)
				m.store(dma.Space(space), tableAt(space, rng.IntN(nTables)), int(index()), entry())
				continue
			case 1:
				size := []uint64{0, 4096, 2 << 20, 1 << 30}[rng.IntN(4)]
				first := va &^ 4095
				if size > 1<<48-first {
					size = 1<<48 - first
				}
				m.mem.MMU.Invalidate(spaces[c], first, size)
				ref.invalidate(c, first, size)
				continue
			case 2:
				if rng.IntN(4) == 0 {
					m.mem.MMU.InvalidateAll()
					ref.invalidate(-1, 0, 0)
				}
				if rng.IntN(4) == 0 {
					va |= 1 << (48 + rng.IntN(16))
				}
			}
			access := 1 + 2*rng.IntN(2) // writes would change marks and tables
			allowed := ref.outcomes(c, int(roots[c][0]), roots[c][1], va, access)
			v.Begin(spaces[c], dma.Requester{})
			var p [8]byte
			err := access2(v, dma.Access(access), va, p[:])
			ok := false
			var fault *dma.Fault
			errors.As(err, &fault)
			for _, o := range allowed {
				var want [8]byte
				switch {
				case o.reason != 0:
					ok = ok || fault != nil && int(fault.Refusal.Reason) == o.reason && int(fault.Refusal.Level) == o.level && fault.Addr == va
				case m.mem.Read(dma.Space(o.space), o.addr, want[:]) != nil:
					ok = ok || fault != nil && fault.Refusal.Reason == dma.NoTarget && fault.Addr == va && int(fault.Refusal.Space) == o.space && fault.Refusal.Addr == o.addr
				default:
					ok = ok || err == nil && p == want
				}
			}
			if !ok {
				t.Fatalf("context %d, va %#x, access %d: %v, read %x; the model allows %+v", c, va, access, err, p, allowed)
			}
			if err == nil {
				mapped = append(mapped, va)
			}
		}
		if a < 6 && b == a*77 && len(mapped) < 50 {
			t.Errorf("only %d accesses went through", len(mapped))
		}
	})
}
