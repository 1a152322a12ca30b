// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/uds"
	"npuemu/internal/warnings"
)

const (
	// helloTimeout is how long a client may take for VERSION: it occupies the
	// only place meanwhile.
	helloTimeout = 10 * time.Second

	// refusalTimeout is how long a client that is turned away may take for the message
	// that is answered, and maxRefusing how many of them may take it at once: each costs a thread.
	// maxRefused is more than any VERSION.
	refusalTimeout = time.Second
	maxRefusing    = 16
	maxRefused     = 4096

	// sendTimeout ends the connection of a client that does not read. QEMU
	// reads in a thread of its own and never comes near.
	sendTimeout = 30 * time.Second

	// defaultDMATimeout is QEMU's own patience for our replies.
	defaultDMATimeout = 5 * time.Second
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
	// Access says which processes may attach; the zero value leaves it to the
	// socket's file permissions.
	Access uds.Access
	// Admit, if set, is asked when a client comes; its error turns the client away.
	Admit func() error
	// DMATimeout is how long an access to memory without a descriptor waits
	// for the client; 0 means 5 s.
	DMATimeout time.Duration
	// Strict refuses what libvfio-user refuses and the protocol or QEMU do not:
	// DMA_UNMAP of anything but one whole mapping, a report of written pages for
	// anything else, and in the migration states STOP and STOP_COPY everything but
	// region accesses, features and MIG_DATA_READ. Replies have that library's sizes where
	// they differ. It is for its tests and its client.
	Strict bool
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
	warnings warnings.Limiter
	device   uds.Exclusive
	refusing atomic.Int32 // clients that are being turned away
	table    *iova.Table  // of a DMALogger, or nil

	// migration belongs to the client that is attached.
	migration migration
}

// NewServer returns a server for b.
func NewServer(cfg Config, b Backend) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.DMATimeout == 0 {
		cfg.DMATimeout = defaultDMATimeout
	}
	s := &Server{cfg: cfg, backend: b, migration: newMigration(b)}
	if dev, ok := b.(DMALogger); ok {
		s.table = dev.DMATable()
	}
	return s
}

// Serve accepts clients until ctx ends, one at a time: who comes while one is
// attached is told so, rather than left to time out. Serve
// closes ln, and returns after the last connection has ended: nil if ctx did it.
func (s *Server) Serve(ctx context.Context, ln uds.Acceptor) error {
	wait := func(err error) {
		s.warn("vfio-user client waits: this process is out of descriptors or memory; raise its limits", slog.Any("rule", err))
	}
	err := uds.Serve(ctx, ln, wait, func(ctx context.Context, nc *net.UnixConn) {
		err := s.ServeConn(ctx, nc)
		var denied *uds.Denied
		switch {
		case err == nil || ctx.Err() != nil:
			s.cfg.Log.Info("vfio-user client detached")
		case errors.Is(err, ErrBusy), errors.As(err, &denied):
			s.warn("vfio-user client turned away", slog.Any("rule", err))
		default:
			s.warn("vfio-user client lost", slog.Any("rule", err))
		}
	})
	if err != nil {
		return fmt.Errorf("vfiouser: %w", err)
	}
	return nil
}

// ServeConn serves the client on nc, which it owns, until the client closes (nil),
// ctx ends (its error) or the connection is lost. It refuses the client, and returns ErrBusy, if
// another client is attached, unless that one has hung up: then it waits until
// the device is free.
func (s *Server) ServeConn(ctx context.Context, nc *net.UnixConn) error {
	sock, err := uds.New(nc, sendTimeout)
	if err != nil {
		return err
	}
	defer sock.Close()
	stop := context.AfterFunc(ctx, sock.Shutdown)
	defer stop()
	peer, err := s.cfg.Access.Check(sock)
	if err != nil {
		s.turnAway(sock, unix.EACCES)
		return fmt.Errorf("vfiouser: %w", err)
	}
	if s.cfg.Admit != nil {
		if err := s.cfg.Admit(); err != nil {
			s.turnAway(sock, unix.ENODEV)
			return fmt.Errorf("vfiouser: %w", err)
		}
	}
	release, ok := s.device.Claim(sock)
	if !ok {
		s.turnAway(sock, unix.EBUSY)
		return ErrBusy
	}
	defer release()

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
	s.cfg.Log.Info("vfio-user client attached", "pid", peer.Pid, "uid", peer.Uid, "max_data_xfer_size", c.peerData)
	defer c.detach()
	if m, ok := s.backend.(Messenger); ok {
		m.UseMessages(&messageMemory{c: c})
	}
	if t, ok := s.backend.(Toucher); ok {
		t.UseTouch(c.touch)
	}
	return ended(ctx, c.run())
}

// turnAway answers the first message of a client that may not attach. A client that has its
// answer can tell why; and QEMU 11.1 aborts now and then when a device that is plugged in
// has a server that closes without a word.
func (s *Server) turnAway(sock *uds.Conn, why unix.Errno) {
	defer s.refusing.Add(-1)
	if s.refusing.Add(1) > maxRefusing {
		return
	}
	limit := time.AfterFunc(refusalTimeout, sock.Shutdown)
	defer limit.Stop()
	var b [maxRefused]byte
	var rights uds.Rights // keeps no descriptor
	if sock.Recv(b[:headerSize], &rights) != nil {
		return
	}
	h := decodeHeader(b[:])
	if h.isReply() || h.flags&flagNoReply != 0 || h.size < headerSize || h.size > maxRefused || sock.Recv(b[headerSize:h.size], &rights) != nil {
		return
	}
	header{id: h.id, command: h.command, size: headerSize, flags: flagReply | flagError, errno: uint32(why)}.put(b[:])
	_ = sock.Send(b[:headerSize], nil) // the client may have gone
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
