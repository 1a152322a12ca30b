// SPDX-License-Identifier: Apache-2.0

// Package eventfd signals Linux eventfds, which carry a device's interrupts to
// its client. Close is safe against a concurrent Signal.
package eventfd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// FD is an eventfd that somebody signals. Methods are safe for concurrent use.
type FD struct {
	mu       sync.RWMutex // held for reading while the descriptor is in use
	fd       int          // -1 after Close
	blocking bool         // the description lacks O_NONBLOCK: ask before writing
}

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
	return &FD{fd: fd, blocking: flags&unix.O_NONBLOCK == 0}, nil
}

// Signal adds one to the count. It does not block: when the count is full,
// "pending" is what the peer sees anyway. A closed FD ignores it.
func (f *FD) Signal() {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.fd < 0 || f.blocking && !f.ready(unix.POLLOUT, 0) {
		return
	}
	// Any error but EINTR is the peer's doing and has no remedy here.
	for add(f.fd, f.blocking) == unix.EINTR {
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
	if f.fd >= 0 {
		unix.Close(f.fd)
		f.fd = -1
	}
}
