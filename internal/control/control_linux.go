// SPDX-License-Identifier: Apache-2.0

// Package control is the operator's road to a running server: a UNIX socket that takes commands
// and answers each, as lines of JSON (docs/control.md). Guests and VMMs have no part in it.
//
// Access is the operator's own: the socket has mode 0600, and a peer of another user is turned away
// by its credentials.
package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"npuemu/internal/uds"
)

// Version is the protocol's. A server answers only requests of its own.
const Version = 1

const (
	// maxLine bounds a request or a reply: findings make the longest reply, some 200
	// kinds of them at 300 bytes.
	maxLine = 256 << 10

	// maxPeers bounds connections: an operator and some scripts.
	maxPeers = 16
)

// Request is one line to the server.
type Request struct {
	Version int             `json:"version"`
	Command string          `json:"command"`
	Args    json.RawMessage `json:"args,omitempty"`
}

// Reply is the line that answers it. Error is "" if the command was done.
type Reply struct {
	Version int             `json:"version"`
	Error   string          `json:"error,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
}

// A Handler carries out a command. What it returns becomes Reply.Result. It may be called by several
// goroutines.
type Handler func(args json.RawMessage) (any, error)

// Listen opens the socket at path with mode 0600. It removes the socket of a server that is no longer
// there, and nothing else.
func Listen(path string) (*uds.Listener, error) {
	ln, err := uds.Listen(path, nil)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	return ln, nil
}

// Server answers requests. Fields are not changed after Serve was called.
type Server struct {
	Commands map[string]Handler
	Log      *slog.Logger
}

// Serve answers peers until ctx ends, and closes ln. It returns nil if ctx ended it.
func (s *Server) Serve(ctx context.Context, ln uds.Acceptor) error {
	places := make(chan struct{}, maxPeers)
	wait := func(err error) { s.Log.Warn("control peer waits: out of descriptors or memory", "error", err) }
	return uds.Serve(ctx, ln, wait, func(ctx context.Context, nc *net.UnixConn) {
		defer nc.Close()
		stop := context.AfterFunc(ctx, func() { nc.Close() })
		defer stop()
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			s.Log.Warn("control peer turned away: too many at once", "limit", maxPeers)
			return
		}
		if err := sameUser(nc); err != nil {
			s.Log.Warn("control peer turned away", "error", err)
			return
		}
		if err := s.serve(nc); err != nil && ctx.Err() == nil {
			s.Log.Warn("control peer lost", "error", err)
		}
	})
}

// sameUser reports whether the peer may command: it runs as the server's user.
func sameUser(nc *net.UnixConn) error {
	raw, err := nc.SyscallConn()
	if err != nil {
		return fmt.Errorf("control: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	if credErr != nil {
		return fmt.Errorf("control: credentials of the peer: %w", credErr)
	}
	if uid := os.Geteuid(); int(cred.Uid) != uid {
		return fmt.Errorf("control: process %d is of user %d; only user %d may command", cred.Pid, cred.Uid, uid)
	}
	return nil
}

// serve answers one peer until it closes. A line that is too long ends the connection, since the
// rest of it would be taken for requests.
func (s *Server) serve(rw io.ReadWriter) error {
	lines := bufio.NewScanner(rw)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if err := write(rw, s.answer(lines.Bytes())); err != nil {
			return err
		}
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return write(rw, refuse("a request is one line of at most %d bytes", maxLine))
	} else if err != nil && !errors.Is(err, unix.ECONNRESET) {
		return fmt.Errorf("control: %w", err)
	}
	return nil
}

func refuse(format string, args ...any) Reply {
	return Reply{Version: Version, Error: fmt.Sprintf(format, args...)}
}

func (s *Server) answer(line []byte) Reply {
	var r Request
	if err := Decode(line, &r); err != nil {
		return refuse("not a request: %v", err)
	}
	if r.Version != Version {
		return refuse("version %d is not known: use %d", r.Version, Version)
	}
	h := s.Commands[r.Command]
	if h == nil {
		var names []string
		for name := range s.Commands {
			names = append(names, name)
		}
		slices.Sort(names)
		return refuse("command %q is not known: use one of %s", r.Command, strings.Join(names, ", "))
	}
	result, err := h(r.Args)
	if err != nil {
		return refuse("%v", err)
	}
	b, err := json.Marshal(result)
	if err != nil {
		panic("control: BUG: a result that is not JSON: " + err.Error())
	}
	return Reply{Version: Version, Result: b}
}

// Decode reads exactly one JSON value without unknown keys. Empty input leaves v alone.
func Decode(b []byte, v any) error {
	if len(b) == 0 {
		return nil
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

func write(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		panic("control: BUG: a message that is not JSON: " + err.Error())
	}
	if _, err := w.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("control: %w", err)
	}
	return nil
}

// Call sends one command to the server at path and returns its result. The server's refusal is the
// error.
func Call(ctx context.Context, path, command string, args any) (json.RawMessage, error) {
	nc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("control: %w: is the server running, with this control socket?", err)
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	raw, err := json.Marshal(args)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	if err := write(nc, Request{Version: Version, Command: command, Args: raw}); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(nc)
	lines.Buffer(nil, maxLine)
	if !lines.Scan() {
		return nil, fmt.Errorf("control: the server hung up; its log says why (%w)", errors.Join(lines.Err(), ctx.Err(), io.ErrUnexpectedEOF))
	}
	var r Reply
	if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
		return nil, fmt.Errorf("control: reply: %w", err)
	}
	switch {
	case r.Version != Version:
		return nil, fmt.Errorf("control: the server speaks version %d, this program %d: use the same build", r.Version, Version)
	case r.Error != "":
		return nil, errors.New(r.Error)
	}
	return r.Result, nil
}
