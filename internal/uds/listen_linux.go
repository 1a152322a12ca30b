// SPDX-License-Identifier: Apache-2.0

package uds

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An Acceptor is where clients connect: a [net.UnixListener], or a Listener.
type Acceptor interface {
	AcceptUnix() (*net.UnixConn, error)
	Close() error
}

// Listener is the socket that Listen opened. Its Addr is not the path: the socket was bound
// under another name.
type Listener struct {
	*net.UnixListener
	path string
	once sync.Once // removes path
}

// Close removes the socket and stops listening.
func (l *Listener) Close() error {
	l.once.Do(func() { _ = os.Remove(l.path) }) // somebody may have done so
	return l.UnixListener.Close()
}

// maxPath is what a socket's address holds besides the NUL.
const maxPath = 107

// Listen opens the socket at path, for this user alone (mode 0600): whoever may
// connect is master of the device. prepare, which may be nil, may widen that: it is called
// with another name that the socket has until it accepts clients. Only then it is
// seen at path, so that whoever sees it can connect. Listen removes the socket of a server
// that is no longer there, and nothing else.
func Listen(path string, prepare func(name string) error) (*Listener, error) {
	if len(path) == 0 || len(path) > maxPath {
		return nil, fmt.Errorf("listen: a socket path has 1 to %d bytes, this one has %d; choose a shorter one, or one relative to the working directory: %s", maxPath, len(path), path)
	}
	if path[0] == '@' {
		return nil, fmt.Errorf("listen: %s would be an abstract name, which has no permissions; for a file write ./%[1]s", path)
	}
	if err := vacate(path); err != nil {
		return nil, err
	}
	ln, name, err := bindBeside(path)
	if err != nil {
		return nil, err
	}
	if prepare != nil {
		err = prepare(name)
	}
	if err == nil {
		// Unlike a rename, a link never replaces what somebody put there meanwhile.
		if err = os.Link(name, path); err != nil {
			err = fmt.Errorf("listen: %w; is another server starting there?", err)
		}
	}
	if rerr := os.Remove(name); err == nil && rerr != nil {
		err = errors.Join(rerr, os.Remove(path))
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return &Listener{UnixListener: ln, path: path}, nil
}

// vacate removes the socket of a dead server from path. It fails if something else is there.
func vacate(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("listen: %w", err)
	case st.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("listen: %s exists and is not a socket; choose another path or remove it", path)
	}
	probe, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err == nil {
		probe.Close()
		return fmt.Errorf("listen: another server is live at %s; stop it or choose another path", path)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return fmt.Errorf("listen: is a server live at %s? %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("listen: remove the socket of a dead server: %w", err)
	}
	return nil
}

// bindBeside opens a socket in the folder of path, under a name that nothing had.
func bindBeside(path string) (ln *net.UnixListener, name string, err error) {
	// Linux gives the file that bind makes the mode of the socket itself, so nobody
	// connects before it is restricted.
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		cerr := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(err, cerr)
	}}
	for range 100 {
		name = beside(path, rand.Text()[:8])
		var l net.Listener
		l, err = lc.Listen(context.Background(), "unix", name)
		if err == nil {
			ln = l.(*net.UnixListener)
			ln.SetUnlinkOnClose(false)
			return ln, name, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) {
		err = op.Err // without a name that nobody gave
	}
	return nil, "", fmt.Errorf("listen: %s: %w", path, err)
}

// beside returns path with a suffix, so that lists of sockets tell whose it is. If that is
// longer than an address holds, the start of the file's name is left out.
func beside(path, suffix string) string {
	dir, base := filepath.Split(path)
	base += "." + suffix
	return dir + base[max(0, len(dir)+len(base)-maxPath):]
}

// Access is a rule for the processes that may use a device. A process that the
// kernel says ran as one of Users, or with one of Groups as its primary group, when it
// connected may. The zero value lets everybody in whom the socket's file permissions let
// connect.
type Access struct {
	Users, Groups []uint32
}

// Denied says who was refused, and why.
type Denied struct{ Peer unix.Ucred }

func (d *Denied) Error() string {
	return fmt.Sprintf("process %d of user %d, group %d may not use the device; allow the user or the group, or let another one connect", d.Peer.Pid, d.Peer.Uid, d.Peer.Gid)
}

// Check returns who is at the other end of c, and a *Denied if the rule refuses it.
func (a Access) Check(c *Conn) (unix.Ucred, error) {
	peer, err := unix.GetsockoptUcred(c.fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return unix.Ucred{}, fmt.Errorf("who is the peer? %w", err)
	}
	if len(a.Users)+len(a.Groups) > 0 && !slices.Contains(a.Users, peer.Uid) && !slices.Contains(a.Groups, peer.Gid) {
		return *peer, &Denied{*peer}
	}
	return *peer, nil
}

// acceptPause is how long Serve waits for the process to have descriptors again.
const acceptPause = 100 * time.Millisecond

// Serve accepts connections until ctx ends and calls serve for each on a goroutine of its
// own. When the process is out of descriptors or memory it calls wait and tries again.
// Serve closes ln, and returns after the last serve has: nil if ctx ended it.
func Serve(ctx context.Context, ln Acceptor, wait func(error), serve func(context.Context, *net.UnixConn)) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	context.AfterFunc(ctx, func() { ln.Close() })
	for {
		nc, err := ln.AcceptUnix()
		switch {
		case err == nil:
			wg.Add(1)
			go func() {
				defer wg.Done()
				serve(ctx, nc)
			}()
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			wait(err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
		default:
			return fmt.Errorf("accept: %w", err)
		}
	}
}

// Exclusive is a device that one connection at a time may claim. The zero value is
// free.
type Exclusive struct {
	mu  sync.Mutex
	cur *claim // guarded by mu; nil when the device is free
}

type claim struct {
	conn *Conn
	done chan struct{} // closed when the claim has ended
}

// Claim claims the device for c until release is called. It reports false at once if
// another connection has it, unless that one's peer has hung up: then it waits until the
// device is free.
func (e *Exclusive) Claim(c *Conn) (release func(), ok bool) {
	for {
		e.mu.Lock()
		cur := e.cur
		if cur == nil {
			mine := &claim{conn: c, done: make(chan struct{})}
			e.cur = mine
			e.mu.Unlock()
			return func() {
				e.mu.Lock()
				e.cur = nil
				e.mu.Unlock()
				close(mine.done)
			}, true
		}
		e.mu.Unlock()
		if !cur.conn.HungUp() {
			return nil, false
		}
		<-cur.done // soon: its reader sees the end, and gives the device back
	}
}
