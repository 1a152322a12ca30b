// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/internal/uds"
	"npuemu/internal/warnings"
)

const (
	// sendTimeout ends the connection of a front end that does not read.
	sendTimeout = 30 * time.Second

	// defaultDrainTimeout is how long GET_VRING_BASE waits for what is in flight. QEMU's
	// main loop, and with it the guest's monitor, stands still meanwhile.
	defaultDrainTimeout = 2 * time.Second
)

// ErrBusy is returned by ServeConn when another front end is attached.
var ErrBusy = errors.New("vhostuser: another front end is attached; the device serves one at a time")

// Config is what a Server needs besides its Backend. The zero value will do.
type Config struct {
	// Log gets a few lines per connection; nil discards them.
	Log *slog.Logger
	// Access says which processes may attach; the zero value leaves it to the
	// socket's file permissions.
	Access uds.Access
	// DrainTimeout is how long a queue that is stopped may finish what is in flight
	// before the device is reset; 0 means 2 s.
	DrainTimeout time.Duration
	// NoMemSlots keeps CONFIGURE_MEM_SLOTS from the front end, which then sends whole
	// memory tables. QEMU 11.1 crashes with both slots and shared memory: when the guest has
	// reset the device, it removes a slot whose memory it has freed.
	NoMemSlots bool
}

// Server presents a Backend to one front end at a time.
type Server struct {
	cfg      Config
	backend  Backend
	warnings warnings.Limiter
	device   uds.Exclusive
	parked   *inflightRegion // of a front end that may come back; of whoever has claimed device
}

// NewServer returns a server for b. It panics if b has no queue, or more than
// MaxQueues.
func NewServer(cfg Config, b Backend) *Server {
	if n := b.Queues(); n < 1 || n > MaxQueues {
		panic(fmt.Sprintf("vhostuser: BUG: a device with %d queues", n))
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = defaultDrainTimeout
	}
	return &Server{cfg: cfg, backend: b}
}

// Serve accepts front ends until ctx ends, one at a time: who comes while one is
// attached is accepted and closed at once, rather than left to time out. Serve
// closes ln, and returns after the last connection has ended: nil if ctx did it.
func (s *Server) Serve(ctx context.Context, ln uds.Acceptor) error {
	wait := func(err error) {
		s.warn("vhost-user front end waits: this process is out of descriptors or memory; raise its limits", slog.Any("rule", err))
	}
	defer s.unpark()
	err := uds.Serve(ctx, ln, wait, func(ctx context.Context, nc *net.UnixConn) {
		err := s.ServeConn(ctx, nc)
		var denied *uds.Denied
		switch {
		case err == nil || ctx.Err() != nil:
			s.cfg.Log.Info("vhost-user front end detached")
		case errors.Is(err, ErrBusy), errors.As(err, &denied):
			s.warn("vhost-user front end turned away", slog.Any("rule", err))
		default:
			s.warn("vhost-user front end lost", slog.Any("rule", err))
		}
	})
	if err != nil {
		return fmt.Errorf("vhostuser: %w", err)
	}
	return nil
}

// ServeConn serves the front end on nc, which it owns, until it closes (nil),
// ctx ends (its error) or the connection is lost. It returns ErrBusy at once if
// another front end is attached, unless that one has hung up: then it waits until
// the device is free.
func (s *Server) ServeConn(ctx context.Context, nc *net.UnixConn) error {
	sock, err := uds.New(nc, sendTimeout)
	if err != nil {
		return err
	}
	defer sock.Close()
	peer, err := s.cfg.Access.Check(sock)
	if err != nil {
		return fmt.Errorf("vhostuser: %w", err)
	}
	release, ok := s.device.Claim(sock)
	if !ok {
		return ErrBusy
	}
	defer release()
	stop := context.AfterFunc(ctx, sock.Shutdown)
	defer stop()

	// The goroutine blocks in system calls: give it the thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c, err := newConn(s, sock)
	if err != nil {
		return err
	}
	defer c.detach()
	s.cfg.Log.Info("vhost-user front end attached", "pid", peer.Pid, "uid", peer.Uid)
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

// park keeps what tells a front end that comes back from others: the file of its in-flight region, which
// it alone has.
func (s *Server) park(g *inflightRegion) {
	s.unpark()
	s.parked = g
}

// unpark forgets it, and reports whether there was one.
func (s *Server) unpark() bool {
	if s.parked == nil {
		return false
	}
	s.parked.mem.Close()
	s.parked = nil
	return true
}

// warn logs what a peer did wrong, within the limits.
func (s *Server) warn(msg string, attrs ...slog.Attr) {
	ok, dropped := s.warnings.Allow(time.Now())
	if !ok {
		return
	}
	if dropped > 0 {
		attrs = append(attrs, slog.Int("warnings_dropped", dropped))
	}
	s.cfg.Log.LogAttrs(context.Background(), slog.LevelWarn, msg, attrs...)
}
