// SPDX-License-Identifier: Apache-2.0

// Package eventfd signals Linux eventfds, which carry a device's interrupts to
// its client. Close is safe against a concurrent Signal.
package eventfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// FD is an eventfd that somebody signals. Methods are safe for concurrent use.
type FD struct {
	mu       sync.RWMutex // held for reading while the descriptor is in use, but by Signal
	signal   sync.Mutex   // held by Signal: cheaper than mu
	fd       int          // -1 after Close; changes under both
	blocking bool         // the description lacked O_NONBLOCK: ask before writing
	socket   bool         // not an eventfd: the count is a message

	// A peer can make the description blocking, and its count full, whenever it likes. A
	// Signal that does not get through is helped by reading the count.
	begun    atomic.Uint32 // odd while a Signal writes
	seen     atomic.Uint32 // begun when help was last here
	watched  atomic.Bool   // help will come
	drain    sync.Mutex    // held by help, so that fd stays open for it
	draining atomic.Bool   // help reads
	help     *time.Timer   // nil if no peer has the descriptor
}

// patience is how long a Signal may take before the peer is to blame; it is helped after
// twice that at most.
const patience = 250 * time.Millisecond

// helpPause is between two reads of help.
const helpPause = time.Millisecond

// New creates an eventfd with count 0.
func New() (*FD, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: create: %w", err)
	}
	return &FD{fd: fd}, nil
}

// Adopt takes over a descriptor that a peer sent, and closes it if it cannot be
// an eventfd. Its file status flags are shared with the peer and stay as they
// are.
func Adopt(fd int) (*FD, error) {
	var st unix.Stat_t
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil && st.Mode&unix.S_IFMT != 0 { // an anonymous inode has no type
		err = errors.New("a file, pipe or socket; pass an eventfd")
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("eventfd: adopt: %w", err)
	}
	f := &FD{fd: fd, blocking: flags&unix.O_NONBLOCK == 0}
	f.help = time.AfterFunc(time.Hour, f.lookAfter)
	f.help.Stop()
	return f, nil
}

// AdoptCall is Adopt that takes a UNIX stream socket as well: User-mode Linux, which gets
// no SIGIO from eventfds, passes one and reads counts from its other end.
func AdoptCall(fd int) (*FD, error) {
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil { // not a socket
		return Adopt(fd)
	}
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || domain != unix.AF_UNIX || kind != unix.SOCK_STREAM {
		unix.Close(fd)
		return nil, fmt.Errorf("eventfd: adopt: a socket of domain %d and type %d; pass an eventfd or a UNIX stream socket", domain, kind)
	}
	return &FD{fd: fd, socket: true}, nil
}

// Signal adds one to the count. It does not block: when the count is full,
// "pending" is what the peer sees anyway. If the peer makes it block all the same, that
// ends after 500 ms, later only while more writers of the peer's win the room that is made,
// and the count begins anew. A closed FD ignores it.
func (f *FD) Signal() {
	f.signal.Lock()
	switch {
	case f.fd < 0:
	case f.socket:
		one := binary.NativeEndian.AppendUint64(nil, 1)
		for unix.Send(f.fd, one, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) == unix.EINTR {
		}
	case f.help == nil:
		addNow(f.fd)
	case !f.blocking || f.ready(unix.POLLOUT, 0):
		f.addHelped()
	}
	f.signal.Unlock()
}

// addHelped is add for a descriptor that a peer has. The caller holds signal.
func (f *FD) addHelped() {
	f.begun.Add(1)
	if !f.watched.Load() {
		f.watched.Store(true)
		f.help.Reset(patience)
	}
	add(f.fd)
	f.begun.Add(1)
}

// lookAfter helps a Signal that has been writing since the last time. It comes again while
// one writes, and no Signal begins without knowing whether it will.
func (f *FD) lookAfter() {
	f.drain.Lock()
	if n := f.begun.Load(); n&1 == 1 && f.seen.Swap(n) == n {
		for f.begun.Load() == n {
			// Read blocks if the peer has just emptied the count; then the Signal is through.
			f.draining.Store(true)
			var count [8]byte
			_, _ = unix.Read(f.fd, count[:])
			f.draining.Store(false)
			time.Sleep(helpPause) // for the Signal to take the room, if no writer of the peer's does
		}
	}
	f.drain.Unlock()
	f.watched.Store(false)
	if f.begun.Load()&1 == 1 && !f.watched.Swap(true) {
		f.help.Reset(patience)
	}
}

// Wait takes the count, waiting until it is not zero or the timeout has passed;
// then it returns 0.
func (f *FD) Wait(timeout time.Duration) uint64 {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.fd < 0 || !f.ready(unix.POLLIN, timeout) {
		return 0
	}
	var n [8]byte
	if _, err := unix.Read(f.fd, n[:]); err != nil {
		return 0
	}
	return binary.NativeEndian.Uint64(n[:])
}

// ready reports whether the descriptor is ready for events within the timeout.
func (f *FD) ready(events int16, timeout time.Duration) bool {
	for end := time.Now().Add(timeout); ; timeout = time.Until(end) {
		p := []unix.PollFd{{Fd: int32(f.fd), Events: events}}
		n, err := unix.Poll(p, int(max(0, timeout.Milliseconds())))
		if err == unix.EINTR {
			continue
		}
		return err == nil && n == 1 && p[0].Revents&events != 0
	}
}

// Fd returns the descriptor, to be passed on while f is open; -1 after Close.
func (f *FD) Fd() int {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.fd
}

// Close closes the descriptor once no Signal or Wait uses it. Closing twice is
// allowed.
func (f *FD) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.signal.Lock()
	defer f.signal.Unlock()
	if f.fd < 0 {
		return
	}
	for !f.drain.TryLock() {
		if f.draining.Load() {
			f.addHelped() // what it waits for; if the peer was faster, and filled the count, help comes again
		}
		time.Sleep(helpPause)
	}
	defer f.drain.Unlock()
	if f.help != nil {
		f.help.Stop()
	}
	unix.Close(f.fd)
	f.fd = -1
}
