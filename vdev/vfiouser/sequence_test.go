// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
)

// FuzzSequence makes any bytes a sequence of well-formed calls of a client that maps,
// unmaps, logs, migrates, resets, signals, and truncates the files that it shared, while the
// device does DMA all the time. What must hold: calls succeed or fail with an errno; the
// ranges are those of a model; every page that the device wrote while that was logged is
// reported; and when the client goes nothing stays behind.
func FuzzSequence(f *testing.F) {
	f.Add([]byte{0, 0x10, 1, 4, 0, 0, 0, 0x22, 2, 13, 0x10, 9, 4, 2, 0x10, 2, 0x10, 1})
	f.Add([]byte{0, 0, 3, 4, 0, 0, 10, 0, 0, 13, 0, 1, 13, 1, 1, 10, 0, 8, 2, 0, 3, 3, 0, 0})
	f.Add([]byte{5, 6, 0, 6, 9, 9, 5, 3, 0, 6, 255, 255, 5, 1, 0, 5, 4, 0, 7, 1, 4, 5, 2, 0, 9, 0, 0})
	f.Add([]byte{1, 3, 0, 4, 0, 0, 13, 3, 3, 11, 0, 0, 12, 0, 0, 9, 0, 0, 2, 3, 1, 8, 1, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) <= 300 { // longer ones find nothing that two do not
			newSequence(t).run(ops)
		}
	})
}

// Every operation after every other one.
func TestSequence(t *testing.T) {
	var ops []byte
	for a := range byte(seqOps) {
		for b := range byte(seqOps) {
			ops = append(ops, a, a*7+b, b, b, a*7+b, a*3)
		}
	}
	newSequence(t).run(ops)
}

const (
	seqOps   = 14
	seqPages = 64 // of bus addresses
	seqFile  = 8  // pages of a file
	seqMaps  = 5  // max_dma_maps
)

type sequence struct {
	t      testing.TB
	a      *able
	c      *Client
	files  [2]*os.File
	ranges map[int]int  // pages by first page, as the client mapped them
	log    bool         // what the device writes is logged
	dirty  map[int]bool // pages that were written since, and not reported
	io     []IOEventFD
	ack    *eventfd.FD
}

func newSequence(t testing.TB) *sequence {
	a := newAble(t, MigrationCanPreCopy|MigrationCanP2P)
	a.events = map[int][]IOEvent{0: {{Off: 0x100, Size: 4, Value: 7}}}
	offer := DefaultOffer()
	offer.TwinSocket, offer.MaxDMAMaps = true, seqMaps
	s := &sequence{
		t: t, a: a, c: attachWith(t, Config{}, a, offer), ack: newEventfd(t),
		files:  [2]*os.File{memfd(t, seqFile*4096), memfd(t, seqFile*4096)},
		ranges: make(map[int]int), dirty: make(map[int]bool),
	}
	var err error
	if s.io, err = s.c.RegionIOFDs(0); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *sequence) run(ops []byte) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() { // an engine that reads; faults are the client's doing
		defer wg.Done()
		p := make([]byte, 3*4096)
		for page := 0; ; page = (page + 1) % seqPages {
			select {
			case <-stop:
				return
			default:
				_ = s.a.table.Read(iova.Addr(page)*4096, p)
			}
		}
	}()
	for ; len(ops) >= 3 && !s.t.Failed(); ops = ops[3:] {
		op, x, y := int(ops[0])%seqOps, int(ops[1]), int(ops[2])
		if err := s.step(op, x, y); err != nil {
			var errno unix.Errno
			var fault *iova.Fault
			if !errors.As(err, &errno) && !errors.As(err, &fault) && !errors.Is(err, iova.ErrOverlap) {
				s.t.Errorf("%v", err)
			}
		}
		if n := s.a.table.Len(); n != len(s.ranges) {
			s.t.Errorf("%d ranges, want %d", n, len(s.ranges))
		}
		if s.t.Failed() {
			s.t.Errorf("after operation %d, %d, %d", op, x, y)
		}
	}
	close(stop)
	wg.Wait()
	closeIOFDs(s.io)
	s.c.Close()
	eventually(s.t, "everything given back", func() bool {
		return s.a.table.Len() == 0 && s.a.attached() == 0 && mappings(s.t) == 0 && !s.a.table.Logging()
	})
}

// step does one operation. It returns the errors that may be.
func (s *sequence) step(op, x, y int) error {
	c, page, n := s.c, x%seqPages, y%4+1
	addr, size := iova.Addr(page)*4096, uint64(n)*4096
	switch op {
	case 0, 1: // map a file, or memory reached by messages
		want := len(s.ranges) < seqMaps && (op == 1 || s.inFile(s.files[x%2], y/4%seqFile, n))
		for first, pages := range s.ranges {
			want = want && (first+pages <= page || page+n <= first)
		}
		var err error
		if op == 0 {
			err = c.MapDMA(addr, size, rw, s.files[x%2], uint64(y/4%seqFile)*4096)
		} else {
			err = c.MapMemory(addr, size, rw, newBytes(int(size)))
		}
		if (err == nil) != want {
			s.t.Errorf("map: %v, want success %v", err, want)
		}
		if err == nil {
			s.ranges[page] = n
		}
		return err
	case 2: // unmap, with a bitmap if there is one to be had
		want := true
		for first, pages := range s.ranges {
			inside := first >= page && first+pages <= page+n
			want = want && (inside || first+pages <= page || page+n <= first)
		}
		var bitmap []uint64
		var err error
		if s.log && x%2 == 0 {
			bitmap, err = c.UnmapDirty(addr, size, 4096)
		} else {
			err = c.UnmapDMA(addr, size)
		}
		if (err == nil) != want {
			s.t.Errorf("unmap: %v, want success %v", err, want)
		}
		if err == nil {
			for first := range s.ranges {
				if first >= page && first < page+n {
					delete(s.ranges, first)
				}
			}
			if bitmap != nil {
				s.reported(bitmap, page, n)
			}
		}
		return err
	case 3:
		clear(s.ranges)
		return c.UnmapAllDMA()
	case 4:
		switch x % 3 {
		case 0:
			_, err := c.StartLog(4096)
			s.log = s.log || err == nil
			return err
		case 1:
			s.log = false
			clear(s.dirty)
			return c.StopLog()
		}
		bitmap, err := c.ReportDirty(addr, size, 4096)
		if (err == nil) != s.log {
			s.t.Errorf("report: %v, want success %v", err, s.log)
		}
		if err == nil {
			s.reported(bitmap, page, n)
		}
		return err
	case 5:
		return c.SetMigrationState(MigrationState(x % (numMigrationStates + 1)))
	case 6:
		_, err := c.ReadMigration(make([]byte, x<<8|y))
		return err
	case 7:
		return c.WriteMigration(make([]byte, x<<8|y))
	case 8:
		return errors.Join(c.WriteRegion(0, uint64(x)<<8, make([]byte, y)), c.ReadRegion(0, uint64(y)<<8, make([]byte, x)))
	case 9:
		return c.Reset()
	case 10: // pull the memory away under the device, or put it back
		return s.files[x%2].Truncate(int64(y%(seqFile+1)) * 4096)
	case 11:
		set := IRQSet{Index: x % NumIRQs, Count: 1, Action: []IRQAction{IRQMask, IRQUnmask, IRQTrigger}[y%3], Detach: y%2 == 0}
		if !set.Detach {
			set.FDs = []*eventfd.FD{s.ack}
		}
		s.ack.Signal()
		return c.SetIRQs(set)
	case 12:
		return s.io[0].Write(0)
	}
	// The device writes. A fault leaves open what was written.
	err := s.a.table.Write(addr, make([]byte, size))
	for p := page; p < page+n && err == nil && s.log; p++ {
		s.dirty[p] = true
	}
	return err
}

// inFile reports whether a file has pages from first on.
func (s *sequence) inFile(f *os.File, first, pages int) bool {
	st, err := f.Stat()
	if err != nil {
		s.t.Fatal(err)
	}
	return int64(first+pages)*4096 <= st.Size()
}

// reported checks a bitmap for n pages from page on.
func (s *sequence) reported(bitmap []uint64, page, n int) {
	for i := range n {
		if s.dirty[page+i] && bitmap[0]>>i&1 == 0 {
			s.t.Errorf("page %d was written and is not reported", page+i)
		}
		delete(s.dirty, page+i)
	}
}
