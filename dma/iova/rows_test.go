// SPDX-License-Identifier: Apache-2.0

package iova

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// rowBytes is Bytes that moves rows.
type rowBytes struct{ *Bytes }

func (m rowBytes) ReadRows(p []byte, step, size, rows int, off, stride uint64) error {
	for k := range rows {
		if err := m.ReadAt(p[k*step:][:size], off+uint64(k)*stride); err != nil {
			return err
		}
	}
	return nil
}

func (m rowBytes) WriteRows(p []byte, step, size, rows int, off, stride uint64) error {
	for k := range rows {
		if err := m.WriteAt(p[k*step:][:size], off+uint64(k)*stride); err != nil {
			return err
		}
	}
	return nil
}

// Direct finds memory that lies in one mapping, moves rows, and permits what is asked.
func TestDirect(t *testing.T) {
	mem := rowBytes{NewBytes(make([]byte, 4*page))}
	var tab Table
	for _, m := range []struct {
		addr Addr
		prot Prot
		mem  Memory
	}{{4 * page, Read | Write, mem}, {8 * page, Read, mem}, {12 * page, Read | Write, NewBytes(make([]byte, 4*page))}} {
		if err := tab.Map(m.addr, 4*page, m.prot, m.mem); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		access Prot
		addr   Addr
		size   uint64
		first  Addr
		ok     bool
	}{
		{Read | Write, 4 * page, 4 * page, 4 * page, true},
		{Read, 5*page + 7, 1, 4 * page, true},
		{Read, 4 * page, 4*page + 1, 0, false}, // two mappings
		{Read, 8 * page, page, 8 * page, true},
		{Read | Write, 8 * page, page, 0, false},
		{Read, 12 * page, page, 0, false}, // no rows
		{Read, page, page, 0, false},
		{Read, 7 * page, ^uint64(0), 0, false},
	} {
		if first, ok := tab.Direct(tt.access, tt.addr, tt.size); ok != tt.ok || ok && first != tt.first {
			t.Errorf("Direct(%v, %#x, %#x) = %#x, %v, want %#x, %v", tt.access, uint64(tt.addr), tt.size, uint64(first), ok, uint64(tt.first), tt.ok)
		}
	}
}

// Rows are what Read and Write of each row would be, or are refused: across mappings, beyond them, in memory that has no rows,
// against their permissions. What was written is in the log.
func TestRows(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	mem, plain := make([]byte, 8*page), make([]byte, page)
	var tab Table
	for _, m := range []struct {
		addr Addr
		prot Prot
		mem  Memory
		size uint64
	}{
		{0, Read | Write, rowBytes{NewBytes(mem[:4*page])}, 4 * page},
		{4 * page, Read | Write, rowBytes{NewBytes(mem[4*page : 6*page])}, 2 * page},
		{6 * page, Read, rowBytes{NewBytes(mem[6*page : 7*page])}, page},
		{7 * page, Write, rowBytes{NewBytes(mem[7*page:])}, page},
		{8 * page, Read | Write, NewBytes(plain), page},
	} {
		if err := tab.Map(m.addr, m.size, m.prot, m.mem); err != nil {
			t.Fatal(err)
		}
	}
	of := func(addr Addr) int { // mapping
		switch {
		case addr < 4*page:
			return 0
		case addr < 6*page:
			return 1
		}
		return min(int(addr/page)-4, 5)
	}
	done := 0
	for range 1000 {
		addr, stride := Addr(rng.IntN(9*page+100)), uint64(rng.IntN(600))
		rows, size := 1+rng.IntN(40), 1+rng.IntN(200)
		step := size + rng.IntN(3)
		p := make([]byte, (rows-1)*step+size)
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
		access := Read
		if rng.IntN(2) == 0 {
			access = Write
		}
		last := addr + Addr(uint64(rows-1)*stride) + Addr(size-1)
		inside := of(addr) == of(last) && of(addr) < 4 && (of(addr) < 2 || of(addr) == 2 && access == Read || of(addr) == 3 && access == Write)
		want, wantMem := bytes.Clone(p), bytes.Clone(mem)
		if inside {
			for k := range rows {
				at := int(addr) + k*int(stride)
				if access == Read {
					copy(want[k*step:][:size], wantMem[at:])
				} else {
					copy(wantMem[at:][:size], p[k*step:])
				}
			}
			done++
		}
		log := rng.IntN(8) == 0
		if log {
			if _, err := tab.StartLog(page, nil); err != nil {
				t.Fatal(err)
			}
		}
		if ok := tab.Rows(access, addr, stride, p, step, size, rows); ok != inside || !bytes.Equal(p, want) || !bytes.Equal(mem, wantMem) {
			t.Fatalf("%v of %d rows of %d bytes at %v, stride %d: %t, want %t, and the bytes that Read and Write move", access, rows, size, addr, stride, ok, inside)
		}
		if log {
			dirty := map[uint64]bool{}
			for k := range rows {
				from := uint64(addr) + uint64(k)*stride
				for at := from / page; inside && access == Write && at <= (from+uint64(size)-1)/page; at++ {
					dirty[at] = true
				}
			}
			got := report(t, &tab, 0, 10*page, page)
			for _, at := range got {
				if !dirty[at] {
					t.Fatalf("page %d is in the log", at)
				}
			}
			if len(got) != len(dirty) {
				t.Fatalf("pages %v are in the log, want %d", got, len(dirty))
			}
			tab.StopLog()
		}
	}
	if done < 100 {
		t.Errorf("only %d cases moved rows", done)
	}
}
