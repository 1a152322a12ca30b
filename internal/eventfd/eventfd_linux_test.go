// SPDX-License-Identifier: Apache-2.0

package eventfd

import (
	"encoding/binary"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSignalAndWait(t *testing.T) {
	f, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n := f.Wait(time.Millisecond); n != 0 {
		t.Errorf("count of a new eventfd = %d, want 0", n)
	}
	f.Signal()
	f.Signal()
	if n := f.Wait(time.Second); n != 2 {
		t.Errorf("count after two signals = %d, want 2", n)
	}
}

func TestSignalNeverBlocks(t *testing.T) {
	for _, flags := range []int{0, unix.EFD_NONBLOCK} {
		fd, err := unix.Eventfd(0, flags|unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		full := binary.NativeEndian.AppendUint64(nil, ^uint64(1))
		if _, err := unix.Write(fd, full); err != nil {
			t.Fatal(err)
		}
		f, err := Adopt(fd)
		if err != nil {
			t.Fatal(err)
		}
		f.Signal() // hangs the test if it blocks
		f.Close()
	}
}

// TestPeerBlocks: a peer that makes the description blocking and its count full, when it
// has been adopted, holds up neither Signal nor Close for long.
func TestPeerBlocks(t *testing.T) {
	peer, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(peer)
	fd, err := unix.FcntlInt(uintptr(peer), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Adopt(fd)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(peer), unix.F_SETFL, 0); err != nil {
		t.Fatal(err)
	}
	within := func(what string, do func()) {
		t.Helper()
		done := make(chan struct{})
		go func() { do(); close(done) }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s blocks", what)
		}
	}
	full := binary.NativeEndian.AppendUint64(nil, ^uint64(1))
	for range 3 {
		if n := f.Wait(0); n > 1 {
			t.Fatalf("count %d", n)
		}
		if _, err := unix.Write(peer, full); err != nil {
			t.Fatal(err)
		}
		within("Signal", f.Signal)
		within("Signal after that", f.Signal)
		if n := f.Wait(0); n != 2 {
			t.Errorf("count %d after two signals", n)
		}
	}
	if _, err := unix.Write(peer, full); err != nil {
		t.Fatal(err)
	}
	go f.Signal()
	time.Sleep(10 * time.Millisecond)
	within("Close", f.Close)
	// Long enough for help to come once more, to a descriptor that is closed.
	f.lookAfter()
}

// TestSignalAgainstWriters: a peer keeps the count full with many writers, so that room made is mostly taken by them.
func TestSignalAgainstWriters(t *testing.T) {
	const writers, signals = 64, 3
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(peer)
	f, err := Adopt(fd)
	if err != nil {
		t.Fatal(err)
	}
	f.blocking = false // it was when it came
	full := binary.NativeEndian.AppendUint64(nil, ^uint64(1))
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for !stop.Load() {
				if _, err := unix.Write(peer, full); err != nil && err != unix.EINTR {
					t.Error(err)
					return
				}
			}
		}()
	}
	time.Sleep(10 * time.Millisecond)
	done := make(chan struct{})
	begin := time.Now()
	go func() {
		defer close(done)
		for range signals {
			f.Signal()
		}
		f.Close()
	}()
	select { // how long it takes is up to the writers, who are many
	case <-done:
		t.Logf("%d signals took %v; help comes after %v at most", signals, time.Since(begin), 2*patience)
	case <-time.After(2 * time.Minute):
		t.Fatal("a signal does not end")
	}
	stop.Store(true)
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	for {
		select {
		case <-ended:
			return
		case <-time.After(time.Millisecond):
			var count [8]byte
			p := []unix.PollFd{{Fd: int32(peer), Events: unix.POLLIN}}
			if n, _ := unix.Poll(p, 0); n == 1 {
				_, _ = unix.Read(peer, count[:]) // room for one more writer
			}
		}
	}
}

func TestAdoptRefuses(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Adopt(fd); err == nil {
		t.Error("a pipe was adopted")
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("the refused descriptor is still open: %v", err)
	}
}

func TestCloseWhileSignalling(t *testing.T) {
	f, err := New()
	if err != nil {
		t.Fatal(err)
	}
	start := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			<-start
			for range 1000 {
				f.Signal()
			}
		}()
	}
	close(start)
	f.Close()
	f.Close()
	wg.Wait()
	if f.Fd() != -1 {
		t.Error("the descriptor is still open")
	}
}

// TestAdoptCall: a UNIX stream socket carries counts, and neither a full nor a closed one holds up who signals.
func TestAdoptCall(t *testing.T) {
	pair := func(kind int) [2]int {
		t.Helper()
		fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fds[0]) })
		return fds
	}
	fds := pair(unix.SOCK_STREAM)
	f, err := AdoptCall(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Signal()
	var b [8]byte
	if n, err := unix.Read(fds[0], b[:]); n != 8 || err != nil || binary.NativeEndian.Uint64(b[:]) != 1 {
		t.Errorf("%d bytes %x, %v; want the count 1", n, b, err)
	}
	for range 100_000 { // more than it holds
		f.Signal()
	}
	if err := unix.Shutdown(fds[0], unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	f.Signal()

	if _, err := AdoptCall(pair(unix.SOCK_DGRAM)[1]); err == nil {
		t.Error("a datagram socket is taken")
	}
	e, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if f, err = AdoptCall(e); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Signal()
	if n := f.Wait(0); n != 1 {
		t.Errorf("an eventfd counts %d", n)
	}
}
