// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/internal/uds"
)

const (
	// helloTimeout is how long a client may take for VERSION: it occupies the
	// only place meanwhile.
	helloTimeout = 10 * time.Second

	// sendTimeout ends the connection of a client that does not read. QEMU
	// reads in a thread of its own and never comes near.
	sendTimeout = 30 * time.Second

	// defaultDMATimeout is QEMU's own patience for our replies.
	defaultDMATimeout = 5 * time.Second

	// acceptPause is how long Serve waits for descriptors or memory.
	acceptPause = 100 * time.Millisecond

	// A peer may cause warnBurst warnings at once, then one in warnEvery.
	warnBurst = 16
	warnEvery = time.Second
)

// ErrBusy is returned by ServeConn when another client is attached.
var ErrBusy = errors.New("vfiouser: another client is attached; the device serves one at a time")

// Direction of a message, seen from the side that traces.
type Direction uint8

// The directions.
const (
	Received Direction = iota
	Sent
)

func (d Direction) String() string {
	if d == Received {
		return "received"
	}
	return "sent"
}

// Config is what a Server needs besides its Backend. The zero value will do.
type Config struct {
	// Log gets a few lines per client; nil discards them.
	Log *slog.Logger
	// DMATimeout is how long an access to memory without a descriptor waits
	// for the client; 0 means 5 s.
	DMATimeout time.Duration
	// Trace, if set, is called for every message with its 16-byte header, its
	// body and the number of descriptors that came or went with it. The body
	// of a message that is too large is not kept, and is nil. The slices are
	// only valid during the call; calls may be concurrent.
	Trace func(dir Direction, header, body []byte, nfds int)
}

// Server presents a Backend to one client at a time.
type Server struct {
	cfg      Config
	backend  Backend
	warnings limiter

	mu  sync.Mutex
	cur *attachment // guarded by mu; nil when no client is there
}

// attachment is a connection's claim on the device.
type attachment struct {
	sock *uds.Conn
	done chan struct{} // closed when the claim has ended
}

// NewServer returns a server for b.
func NewServer(cfg Config, b Backend) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.DMATimeout == 0 {
		cfg.DMATimeout = defaultDMATimeout
	}
	return &Server{cfg: cfg, backend: b, warnings: limiter{tokens: warnBurst}}
}

// Listen opens the socket at path. It removes the socket of a server that is no
// longer there, and nothing else.
func Listen(path string) (*net.UnixListener, error) {
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("vfiouser: listen: %w", err)
	case st.Mode()&fs.ModeSocket == 0:
		return nil, fmt.Errorf("vfiouser: listen: %s exists and is not a socket; choose another path or remove it", path)
	default:
		probe, err := net.DialUnix("unix", nil, addr)
		if err == nil {
			probe.Close()
			return nil, fmt.Errorf("vfiouser: listen: another server is live at %s; stop it or choose another path", path)
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			return nil, fmt.Errorf("vfiouser: listen: is a server live at %s? %w", path, err)
		}
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("vfiouser: listen: remove the socket of a dead server: %w", err)
		}
	}
	ln, err := net.ListenUnix("unix", addr)
	if err != nil {
		return nil, fmt.Errorf("vfiouser: listen: %w (a socket path has at most 107 bytes)", err)
	}
	return ln, nil
}

// Serve accepts clients until ctx ends, one at a time: who comes while one is
// attached is accepted and closed at once, rather than left to time out. Serve
// closes ln, and returns after the last connection has ended: nil if ctx did it.
func (s *Server) Serve(ctx context.Context, ln *net.UnixListener) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	context.AfterFunc(ctx, func() { ln.Close() })
	for {
		nc, err := ln.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if !exhausted(err) {
				return fmt.Errorf("vfiouser: accept: %w", err)
			}
			s.warn("vfio-user client waits: this process is out of descriptors or memory; raise its limits", slog.Any("rule", err))
			select {
			case <-ctx.Done():
			case <-time.After(acceptPause):
			}
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			err := s.ServeConn(ctx, nc)
			switch {
			case err == nil || ctx.Err() != nil:
				s.cfg.Log.Info("vfio-user client detached")
			case errors.Is(err, ErrBusy):
				s.warn("vfio-user client turned away", slog.Any("rule", err))
			default:
				s.warn("vfio-user client lost", slog.Any("rule", err))
			}
		}()
	}
}

// exhausted reports whether an accept failed for want of what may be there again
// later.
func exhausted(err error) bool {
	for _, e := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// ServeConn serves the client on nc, which it owns, until the client closes (nil),
// ctx ends (its error) or the connection is lost. It returns ErrBusy at once if
// another client is attached, unless that one has hung up: then it waits until
// the device is free.
func (s *Server) ServeConn(ctx context.Context, nc *net.UnixConn) error {
	sock, err := uds.New(nc, sendTimeout)
	if err != nil {
		return err
	}
	defer sock.Close()
	a := &attachment{sock: sock, done: make(chan struct{})}
	if err := s.attach(a); err != nil {
		return err
	}
	defer s.release(a)
	stop := context.AfterFunc(ctx, sock.Shutdown)
	defer stop()

	// The goroutine keeps its thread, which waits in system calls.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := newConn(s, sock)
	defer c.in.close()

	hello := time.AfterFunc(helloTimeout, sock.Shutdown)
	err = c.negotiate()
	if err != nil {
		if !hello.Stop() && ctx.Err() == nil {
			return fmt.Errorf("vfiouser: no VERSION within %v", helloTimeout)
		}
		return ended(ctx, err)
	}
	hello.Stop()
	s.cfg.Log.Info("vfio-user client attached", "max_data_xfer_size", c.peerData)
	defer c.detach()
	for {
		if err := c.step(); err != nil {
			return ended(ctx, err)
		}
	}
}

// ended tells an ordinary end from a loss.
func ended(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, io.EOF), errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return nil
	}
	return err
}

func (s *Server) attach(a *attachment) error {
	for {
		s.mu.Lock()
		cur := s.cur
		if cur == nil {
			s.cur = a
			s.mu.Unlock()
			return nil
		}
		s.mu.Unlock()
		if !cur.sock.HungUp() {
			return ErrBusy
		}
		<-cur.done // soon: its reader sees the end, and detaches
	}
}

func (s *Server) release(a *attachment) {
	s.mu.Lock()
	s.cur = nil
	s.mu.Unlock()
	close(a.done)
}

// warn logs what a peer did wrong, within the limits.
func (s *Server) warn(msg string, attrs ...slog.Attr) {
	ok, dropped := s.warnings.allow(time.Now())
	if !ok {
		return
	}
	if dropped > 0 {
		attrs = append(attrs, slog.Int("warnings_dropped", dropped))
	}
	s.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn, msg, attrs...)
}

// limiter is a bucket of warnBurst tokens that gets one every warnEvery.
type limiter struct {
	mu      sync.Mutex
	tokens  int       // guarded by mu
	last    time.Time // guarded by mu; when a token was last added
	dropped int       // guarded by mu
}

// allow reports whether something may be logged now, and how much was not since
// the last time.
func (l *limiter) allow(now time.Time) (ok bool, dropped int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := int(now.Sub(l.last) / warnEvery); n > 0 {
		l.tokens = min(warnBurst, l.tokens+min(n, warnBurst))
		l.last = now
	}
	if l.tokens == 0 {
		l.dropped++
		return false, 0
	}
	l.tokens--
	dropped, l.dropped = l.dropped, 0
	return true, dropped
}
