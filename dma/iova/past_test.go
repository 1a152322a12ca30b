// SPDX-License-Identifier: Apache-2.0

package iova

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"
)

func TestPast(t *testing.T) {
	tick := uint64(100)
	tab := &Table{Tick: func() uint64 { return tick }}
	mem := NewBytes(make([]byte, 16*page))
	mapped := func(addr Addr, pages uint64, prot Prot) {
		t.Helper()
		if err := tab.Map(addr, pages*page, prot, mem); err != nil {
			t.Fatal(err)
		}
	}
	unmap := func(addr Addr, pages uint64) {
		t.Helper()
		if err := tab.Unmap(addr, pages*page); err != nil {
			t.Fatal(err)
		}
	}
	mapped(0x10000, 1, Read|Write)
	mapped(0x11000, 1, Read|Write)
	mapped(0x12000, 1, Read) // another permission
	mapped(0x14000, 1, Read) // apart
	mapped(0x20000, 4, Write)
	before := time.Now()
	if n := tab.Unmaps(); n != 0 {
		t.Fatalf("%d ranges unmapped before the first", n)
	}
	unmap(0x50000, 1) // nothing there
	unmap(0x10000, 8)
	tick = 107
	began := tab.Unmaps()
	unmap(0x20000, 4)
	for _, tt := range []struct {
		addr, first, last Addr
		prot              Prot
		tick, number      uint64 // number 0: nothing known
	}{
		{addr: 0xffff},
		{0x10000, 0x10000, 0x11fff, Read | Write, 100, 1},
		{0x11fff, 0x10000, 0x11fff, Read | Write, 100, 1},
		{0x12000, 0x12000, 0x12fff, Read, 100, 2},
		{addr: 0x13000},
		{0x14000, 0x14000, 0x14fff, Read, 100, 3},
		{0x23fff, 0x20000, 0x23fff, Write, 107, 4},
		{addr: 0x50000},
	} {
		p, ok := tab.LastUnmapped(tt.addr)
		if ok != (tt.number != 0) || p.First != tt.first || p.Last != tt.last || p.Prot != tt.prot || p.Tick != tt.tick || p.Number != tt.number {
			t.Errorf("LastUnmapped(%v) = %+v, %v, want %+v", tt.addr, p, ok, tt)
		}
		if ok && (p.When.Before(before) || p.When.After(time.Now())) {
			t.Errorf("LastUnmapped(%v): at %v", tt.addr, p.When)
		}
		if ok && (p.Number > began) != (tt.number == 4) {
			t.Errorf("number %d, Unmaps was %d before the last", p.Number, began)
		}
	}

	// The last of several counts; what is mapped again is still remembered.
	mapped(0x11000, 1, Read)
	unmap(0x11000, 1)
	mapped(0x11000, 1, Read)
	if p, ok := tab.LastUnmapped(0x11000); !ok || p.First != 0x11000 || p.Prot != Read {
		t.Errorf("unmapped twice: %+v, %v", p, ok)
	}
	if p, ok := tab.LastUnmapped(0x10000); !ok || p.Number != 1 {
		t.Errorf("unmapped once: %+v, %v", p, ok)
	}

	// The oldest goes first. Numbers go on when all is forgotten.
	for range MaxPast {
		mapped(0x30000, 1, Read)
		unmap(0x30000, 1)
	}
	for _, addr := range []Addr{0x10000, 0x23000} {
		if p, ok := tab.LastUnmapped(addr); ok {
			t.Errorf("%v is remembered after %d more: %+v", addr, MaxPast, p)
		}
	}
	n := tab.Unmaps()
	tab.Forget()
	if p, ok := tab.LastUnmapped(0x30000); ok {
		t.Errorf("remembered after Forget: %+v", p)
	}
	unmap(0x11000, 1)
	if p, ok := tab.LastUnmapped(0x11000); !ok || p.Number != n+1 {
		t.Errorf("after Forget: %+v, %v, want number %d", p, ok, n+1)
	}
}

// Refused is told what no mapping permitted, with what a write would have put there, and
// nothing else. It may use the table.
func TestRefused(t *testing.T) {
	var told []Fault
	var wrote [][]byte
	tab := new(Table)
	tab.Refused = func(f *Fault, data []byte) {
		told = append(told, *f)
		wrote = append(wrote, bytes.Clone(data))
		if err := tab.Map(0x90000+Addr(len(told))*page, page, Read, NewBytes(make([]byte, page))); err != nil {
			t.Error(err)
		}
	}
	broken := newProbe(page)
	broken.err = errors.New("broken")
	for _, m := range []struct {
		addr Addr
		prot Prot
		mem  Memory
	}{
		{0x1000, Read | Write, NewBytes(make([]byte, page))},
		{0x2000, Read, NewBytes(make([]byte, page))},
		{0x5000, Read, broken},
		{top - page + 1, Read | Write, NewBytes(make([]byte, page))},
	} {
		if err := tab.Map(m.addr, page, m.prot, m.mem); err != nil {
			t.Fatal(err)
		}
	}
	data := make([]byte, 32)
	for i := range data {
		data[i] = byte(i)
	}
	for _, tt := range []struct {
		name   string
		addr   Addr
		access Prot
		want   *Fault // nil: not told
		data   []byte
	}{
		{"permitted", 0x1000, Write, nil, nil},
		{"read of nothing", 0x3000, Read, &Fault{Addr: 0x3000, Size: 32, Access: Read, Reason: Unmapped}, nil},
		{"write into a hole", 0xff0, Write, &Fault{Addr: 0xff0, Size: 32, Access: Write, Reason: Unmapped}, data},
		{"write to what is read", 0x1ff0, Write, &Fault{Addr: 0x2000, Size: 16, Access: Write, Reason: NotPermitted}, data[16:]},
		{"memory that fails", 0x5000, Read, nil, nil},
		{"over the end of all addresses", top - 15, Write, nil, nil},
	} {
		told, wrote = nil, nil
		if tt.access == Read {
			_ = tab.Read(tt.addr, make([]byte, len(data))) // the fault is looked at
		} else {
			_ = tab.Write(tt.addr, data)
		}
		switch {
		case tt.want == nil && len(told) != 0:
			t.Errorf("%s: told %+v", tt.name, told)
		case tt.want != nil && (len(told) != 1 || told[0] != *tt.want || !bytes.Equal(wrote[0], tt.data)):
			t.Errorf("%s: told %+v with %x, want %+v with %x", tt.name, told, wrote, *tt.want, tt.data)
		}
		if err := tab.Unmap(0x90000, 1<<20); err != nil { // what Refused mapped
			t.Fatal(err)
		}
	}
}

// Lookups while pages come and go see each page as it is before or after.
func TestPagesComeAndGo(t *testing.T) {
	var tab Table
	const pages = 64
	fixed := Addr(1 << 40)
	if err := tab.Map(fixed, page, Read, NewBytes(bytes.Repeat([]byte{7}, page))); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			p := make([]byte, 8)
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				if err := tab.Read(fixed, p); err != nil || p[0] != 7 {
					t.Errorf("a page that stays: %v, %v", err, p)
					return
				}
				at := Addr(n%pages) * page
				p[0] = 0
				var f *Fault
				if err := tab.Read(at, p); err == nil && p[0] != byte(n%pages) || err != nil && (!errors.As(err, &f) || f.Reason != Unmapped) {
					t.Errorf("page %d: %v, %v", n%pages, err, p)
					return
				}
			}
		}()
	}
	for range 200 {
		for i := range Addr(pages) {
			if err := tab.Map(i*page, page, Read, NewBytes(bytes.Repeat([]byte{byte(i)}, page))); err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 1)
			if err := tab.Read(i*page, p); err != nil || p[0] != byte(i) {
				t.Fatalf("page %d after its Map: %v, %v", i, err, p)
			}
		}
		for i := range Addr(pages) {
			if err := tab.Unmap(i*page, page); err != nil {
				t.Fatal(err)
			}
			if tab.Read(i*page, make([]byte, 1)) == nil {
				t.Fatalf("page %d is there after its Unmap", i)
			}
		}
	}
	close(stop)
	wg.Wait()
}
