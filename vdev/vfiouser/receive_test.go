// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/uds"
)

// piece is what one send carries.
type piece struct {
	data []byte
	fds  []int
}

// mapPiece is a DMA_MAP of the page at i<<12, with a new file whose first byte is i.
func mapPiece(t *testing.T, i int) piece {
	t.Helper()
	file := memfd(t, 4096)
	if _, err := file.WriteAt([]byte{byte(i)}, 0); err != nil {
		t.Fatal(err)
	}
	return piece{message(cmdDMAMap, uint16(i), 0, dmaMapBody(32, 3, 0, uint64(i)<<12, 4096)), []int{int(file.Fd())}}
}

// drain takes what the server sends until the returned function is called. That one
// returns when nobody reads any more: only then may the socket be closed, because
// another connection may get its descriptor.
func (r *raw) drain() (end func()) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			if _, _, _, err := r.recv(); err != nil {
				return
			}
		}
	}()
	return func() {
		r.sock.Shutdown()
		<-ended
	}
}

func plain(msgs ...[]byte) piece { return piece{data: cat(msgs...)} }

// cut splits p after n bytes; its descriptors go with the second part if late.
func (p piece) cut(n int, late bool) (a, b piece) {
	a, b = piece{p.data[:n], p.fds}, piece{data: p.data[n:]}
	if late {
		a.fds, b.fds = nil, p.fds
	}
	return a, b
}

// TestDescriptorsInMergedReceives holds descriptors to their messages when several
// sends reach the server in one receive. The pieces of a row are all in the socket
// before the server looks; afterwards every page is mapped and shows its own file.
func TestDescriptorsInMergedReceives(t *testing.T) {
	write := message(cmdRegionWrite, 0, flagNoReply, accessBody(0, 0, 1, 1))
	read := message(cmdRegionRead, 900, 0, accessBody(0, 0, 4))
	wrongSize := edited(cmdReset, 4, 3)
	type pieces = []piece
	for _, tt := range []struct {
		name  string
		pages int
		build func(m func(i int) piece) pieces
	}{
		{"behind plain messages", 1, func(m func(int) piece) pieces { return pieces{plain(write, write, read), m(0)} }},
		{"between plain messages", 1, func(m func(int) piece) pieces { return pieces{plain(write), m(0), plain(write, read)} }},
		{"back to back", 3, func(m func(int) piece) pieces { return pieces{m(0), m(1), m(2)} }},
		{"in one send with what is before", 1, func(m func(int) piece) pieces {
			p := m(0)
			return pieces{{cat(write, write, p.data), p.fds}}
		}},
		{"header alone, descriptor first", 1, func(m func(int) piece) pieces {
			a, b := m(0).cut(16, false)
			return pieces{plain(write), a, b}
		}},
		{"header alone, descriptor with the body", 1, func(m func(int) piece) pieces {
			a, b := m(0).cut(16, true)
			return pieces{plain(write), a, b, plain(read)}
		}},
		{"split header, descriptor first", 2, func(m func(int) piece) pieces {
			a, b := m(0).cut(7, false)
			return pieces{a, b, m(1)}
		}},
		{"split header, descriptor last", 2, func(m func(int) piece) pieces {
			a, b := m(0).cut(7, true)
			return pieces{plain(write), a, b, m(1)}
		}},
		{"split body between two with descriptors", 3, func(m func(int) piece) pieces {
			a, b := m(1).cut(40, false)
			return pieces{m(0), a, b, m(2)}
		}},
		{"end of one and start of the next in one send", 2, func(m func(int) piece) pieces {
			a, b := m(0).cut(40, false)
			c, d := m(1).cut(8, false)
			return pieces{a, {cat(b.data, c.data), c.fds}, d}
		}},
		{"behind a message that is refused", 1, func(m func(int) piece) pieces { return pieces{plain(wrongSize, cmd(99)), m(0)} }},
		{"behind a stray descriptor", 1, func(m func(int) piece) pieces {
			return pieces{{write, someFDs(t, eventfds, 1)}, m(0)}
		}},
		{"behind a message of more than a receive", 2, func(m func(int) piece) pieces {
			large := message(cmdRegionWrite, 901, flagNoReply, accessBody(0, 5, 100_000), make([]byte, 100_000))
			return pieces{m(0), plain(large), m(1)}
		}},
		{"behind the body of a message that is too large", 2, func(m func(int) piece) pieces {
			large := message(cmdRegionWrite, 902, 0, make([]byte, maxMessage))
			return pieces{m(0), plain(large[:60_000]), {large[60_000:100_000], someFDs(t, memfds, 1)}, plain(large[100_000:]), m(1)}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			near, far, err := uds.Pair()
			if err != nil {
				t.Fatal(err)
			}
			sock, err := uds.New(far, 10*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			defer sock.Close()
			r := &raw{t, sock}
			defer r.drain()()
			r.send(message(cmdVersion, 999, 0, u32(0)))
			all := tt.build(func(i int) piece { return mapPiece(t, i) })
			open := descriptors(t)
			sent := make(chan struct{})
			go func() {
				defer close(sent)
				for _, p := range all {
					r.send(p.data, p.fds...)
				}
				r.send(message(cmdReset, 903, 0))
			}()
			select {
			case <-sent:
			case <-time.After(20 * time.Millisecond): // the socket is full
			}
			done := make(chan error, 1)
			go func() { done <- NewServer(Config{}, f).ServeConn(context.Background(), near) }()
			eventually(t, "everything served", func() bool { return len(f.logged()) > 0 })
			if f.table.Len() != tt.pages {
				t.Errorf("%d pages mapped, want %d", f.table.Len(), tt.pages)
			}
			for i := range tt.pages {
				p := []byte{0xee}
				if err := f.table.Read(iova.Addr(i)<<12, p); err != nil || p[0] != byte(i) {
					t.Errorf("page %d starts with %d, %v", i, p[0], err)
				}
			}
			if n := descriptors(t); n != open {
				t.Errorf("%d descriptors open, want %d", n, open)
			}
			sock.Shutdown()
			if err := <-done; err != nil && !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		})
	}
}

// Any mixture of plain messages and DMA_MAPs, cut anywhere, gives every page its file.
func TestDescriptorsInAnyCut(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 40 {
		f := newFake(t)
		r := rawClient(t, Config{}, f)
		r.negotiate("")
		const pages = 20
		end := r.drain()
		for i := range pages {
			for range rnd.IntN(4) {
				n := rnd.IntN(3000)
				r.send(message(cmdRegionWrite, 0, flagNoReply, accessBody(0, 5, uint32(n)), make([]byte, n)))
			}
			p := mapPiece(t, i)
			for len(p.data) > 0 {
				a, b := p.cut(1+rnd.IntN(len(p.data)), rnd.IntN(2) == 0)
				if len(b.data) == 0 {
					a.fds = append(a.fds, b.fds...)
				}
				r.send(a.data, a.fds...)
				p = b
			}
		}
		r.send(message(cmdReset, 1, 0))
		eventually(t, "everything served", func() bool { return len(f.logged()) > 0 })
		for i := range pages {
			p := []byte{0xee}
			if err := f.table.Read(iova.Addr(i)<<12, p); err != nil || p[0] != byte(i) {
				t.Fatalf("page %d of %d starts with %d, %v", i, f.table.Len(), p[0], err)
			}
		}
		end()
	}
}

// waiter is a fake that waits, in a write or a reset, for what only a client can do that has
// the replies to what it sent before.
type waiter struct {
	*fake
	replied chan struct{}
	late    bool
}

func (w *waiter) wait() {
	select {
	case <-w.replied:
	case <-time.After(5 * time.Second):
		w.late = true
	}
}

func (w *waiter) WriteRegion(int, uint64, []byte) error {
	w.wait()
	return nil
}

func (w *waiter) Reset() error {
	w.wait()
	return nil
}

// Before the device does what may wait for its client, the replies to the messages before
// go out, though all came with one receive.
func TestRepliesBeforeWaiting(t *testing.T) {
	read := cmd(cmdRegionRead, accessBody(0, 0, 4))
	for _, tt := range []struct {
		name string
		next []byte
	}{
		{"write", cmd(cmdRegionWrite, accessBody(0, 0, 4, 1, 2, 3, 4))},
		{"posted write", message(cmdRegionWrite, 0, flagNoReply, accessBody(0, 0, 4, 1, 2, 3, 4))},
		{"large write", cmd(cmdRegionWrite, accessBody(0, 0, 64, make([]byte, 64)...))},
		{"several writes", cmd(cmdWriteMulti, u64(1), accessBody(0, 0, 4), u64(1))},
		{"reset", cmd(cmdReset)},
	} {
		for _, trace := range []func(Direction, []byte, []byte, int){nil, func(Direction, []byte, []byte, int) {}} {
			w := &waiter{fake: newFake(t), replied: make(chan struct{})}
			r := rawClient(t, Config{Trace: trace}, w)
			r.negotiate("")
			r.send(cat(read, read, tt.next, read))
			for i := range 2 {
				if h, _ := r.mustRecv(); h.command != cmdRegionRead {
					t.Fatalf("%s: reply %d is %+v", tt.name, i, h)
				}
			}
			close(w.replied)
			for h := (header{}); h.command != cmdRegionRead; {
				h, _ = r.mustRecv()
			}
			if w.late {
				t.Errorf("%s: the replies to the reads before were kept", tt.name)
			}
		}
	}
}

// The replies to one receive come in as few pieces as possible, whole and in order,
// errors, large ones and descriptors among them.
func TestRepliesInOneSend(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{}, f)
	r.negotiate("")
	var msgs []byte
	var want []header
	add := func(size, flags uint32, msg []byte) {
		h := decodeHeader(msg)
		h.id = uint16(len(want))
		order.PutUint16(msg, h.id)
		msgs = append(msgs, msg...)
		want = append(want, header{id: h.id, command: h.command, size: size, flags: flags})
	}
	for i := range 300 {
		switch {
		case i%50 == 10:
			add(32+40_000, flagReply, cmd(cmdRegionRead, accessBody(0, 0, 40_000)))
		case i%50 == 20:
			add(80, flagReply, cmd(cmdGetRegionInfo, u32(64, 0, 2, 0), u64(0, 0)))
		case i%3 == 1:
			add(16, flagReply|flagError, cmd(99))
		default:
			add(36, flagReply, cmd(cmdRegionRead, accessBody(0, 0, 4)))
		}
	}
	r.send(msgs)
	// What one receive returns never ends inside a header.
	buf, got := make([]byte, 1<<20), []byte(nil)
	rights := uds.Rights{Limit: maxFDs}
	defer rights.Close()
	for _, w := range want {
		if len(got) == 0 {
			n, err := r.sock.Read(buf, &rights)
			if err != nil {
				t.Fatal(err)
			}
			got = buf[:n]
		}
		if len(got) < headerSize {
			t.Fatalf("%d bytes of a header", len(got))
		}
		h := decodeHeader(got)
		errno := h.errno
		h.errno = 0
		if h != w || (errno != 0) != (w.flags&flagError != 0) {
			t.Fatalf("got %+v, errno %d, want %+v", h, errno, w)
		}
		for len(got) < int(h.size) {
			rest := make([]byte, int(h.size)-len(got))
			n, err := r.sock.Read(rest, &rights)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got[:len(got):len(got)], rest[:n]...)
		}
		got = got[h.size:]
	}
	if rights.Len() != 6 {
		t.Errorf("%d descriptors, want 6", rights.Len())
	}
}

// A client that reads header by header, as QEMU does, never gets a part of one, however
// many replies one receive asks for.
func TestHeadersArriveWhole(t *testing.T) {
	r := rawClient(t, Config{}, newFake(t))
	r.negotiate("")
	const n = inSize / 32 // replies of 75,776 bytes, in lots of what Linux queues in one piece
	const rounds = 200
	go func() {
		for range rounds {
			r.send(bytes.Repeat(cmd(cmdRegionRead, accessBody(0, 0, 5)), n))
		}
	}()
	reply, rights := make([]byte, 37), uds.Rights{}
	for i := range n * rounds {
		if got, err := r.sock.Read(reply[:headerSize], &rights); got != headerSize || err != nil {
			t.Fatalf("reply %d: %d bytes of its header, %v", i, got, err)
		}
		for got := headerSize; got < len(reply); {
			m, err := r.sock.Read(reply[got:], &rights)
			if err != nil {
				t.Fatal(err)
			}
			got += m
		}
	}
}

// TestNoAllocation counts what client and server allocate for register accesses.
func TestNoAllocation(t *testing.T) {
	// AllocsPerRun runs with one P; connections that know it give it up.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	quiet := &quiet{fake: newFake(t)}
	r := rawClient(t, Config{}, quiet)
	r.negotiate("")
	var multi []byte
	for i := range uint64(200) {
		multi = cat(multi, accessBody(4*i, 0, 4), u64(i))
	}
	read := cmd(cmdRegionRead, accessBody(0, 0, 4))
	for _, tt := range []struct {
		name  string
		send  []byte
		reply int
	}{
		{"read", read, 36},
		{"write", cmd(cmdRegionWrite, accessBody(0, 0, 4, 1, 2, 3, 4)), 32},
		{"posted write, read", cat(message(cmdRegionWrite, 0, flagNoReply, accessBody(0, 0, 4, 1, 2, 3, 4)), read), 36},
		{"16 reads", bytes.Repeat(read, 16), 16 * 36},
		{"several writes", cmd(cmdWriteMulti, u64(200), multi), 24},
	} {
		t.Run(tt.name, func(t *testing.T) {
			buf, rights := make([]byte, 4096), uds.Rights{}
			n := testing.AllocsPerRun(1000, func() {
				if err := r.sock.Send(tt.send, nil); err != nil {
					t.Fatal(err)
				}
				for got := 0; got < tt.reply; {
					n, err := r.sock.Read(buf, &rights)
					if err != nil {
						t.Fatal(err)
					}
					got += n
				}
			})
			if n != 0 {
				t.Errorf("%v allocations each", n)
			}
		})
	}
}

// quiet is a fake whose registers cost nothing.
type quiet struct{ *fake }

func (q *quiet) ReadRegion(int, uint64, []byte) error  { return nil }
func (q *quiet) WriteRegion(int, uint64, []byte) error { return nil }

// A connection that waits neither holds up garbage collection nor uses the processor,
// and ends at once. With one P, others run while it waits.
func TestIdleConnection(t *testing.T) {
	for _, procs := range []int{1, 2} {
		before := runtime.GOMAXPROCS(procs)
		f := newFake(t)
		near, far, err := uds.Pair()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- NewServer(Config{}, f).ServeConn(ctx, near) }()
		sock, err := uds.New(far, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		r := &raw{t, sock}
		r.negotiate("")
		best := time.Hour
		for range 20 {
			r.send(message(cmdReset, 1, 0))
			r.mustRecv() // the server now waits, for the first millisecond in a raw call
			start := time.Now()
			runtime.GC()
			best = min(best, time.Since(start))
		}
		// Alone, a collection of this heap takes well below a millisecond.
		if best > 10*time.Millisecond {
			t.Errorf("GOMAXPROCS %d: garbage collection takes %v at best", procs, best)
		}
		time.Sleep(20 * time.Millisecond)
		start, cpu := time.Now(), cpuTime(t)
		time.Sleep(200 * time.Millisecond)
		if used := cpuTime(t) - cpu; used > time.Since(start)/20 {
			t.Errorf("GOMAXPROCS %d: %v of processor time in %v of idling", procs, used, time.Since(start))
		}
		start = time.Now()
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("GOMAXPROCS %d: ServeConn = %v", procs, err)
		}
		if d := time.Since(start); d > time.Second {
			t.Errorf("GOMAXPROCS %d: shutdown takes %v", procs, d)
		}
		sock.Close()
		runtime.GOMAXPROCS(before)
	}
}

// cpuTime returns the processor time of this process.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The short way of register accesses and the long way, which a server with a tracer goes,
// give the same replies and the same memory.
func TestShortWay(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	pick := func(v ...uint32) uint32 { return v[rnd.IntN(len(v))] }
	var msgs []byte
	const n = 5000
	for i := range n {
		body := accessBody(uint64(pick(0, 4, 8, 16, 4092, 4095, 4096, 65532, 65536, 1<<31)), pick(0, 0, 0, 1, 3, 4, 5, 7, 8, 9), pick(0, 1, 2, 4, 4, 4, 8, 9, 64))
		c := Command(pick(uint32(cmdRegionRead), uint32(cmdRegionWrite), uint32(cmdRegionWrite), uint32(cmdWriteMulti)))
		if c != cmdRegionRead || rnd.IntN(8) == 0 {
			data := make([]byte, max(0, int(order.Uint32(body[12:]))+rnd.IntN(20)/18-rnd.IntN(20)/18))
			for j := range data {
				data[j] = byte(rnd.Uint32())
			}
			body = append(body, data...)
		}
		msgs = append(msgs, message(c, uint16(i), pick(0, 0, 0, flagNoReply, flagError), body)...)
	}
	msgs = append(msgs, message(cmdReset, n, 0)...)
	run := func(cfg Config) (replies []byte, mem map[int][]byte) {
		f := newFake(t)
		r := rawClient(t, cfg, f)
		r.negotiate("")
		go r.send(msgs)
		for {
			h, body := r.mustRecv()
			head := make([]byte, headerSize)
			h.put(head)
			replies = append(append(replies, head...), body...)
			if h.command == cmdReset {
				f.mu.Lock()
				defer f.mu.Unlock()
				return replies, f.mem
			}
		}
	}
	short, shortMem := run(Config{})
	long, longMem := run(Config{Trace: func(Direction, []byte, []byte, int) {}})
	if !bytes.Equal(short, long) {
		t.Error("the replies differ")
	}
	for region, mem := range longMem {
		if !bytes.Equal(mem, shortMem[region]) {
			t.Errorf("the memory of region %d differs", region)
		}
	}
}
