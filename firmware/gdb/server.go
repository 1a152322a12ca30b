// SPDX-License-Identifier: Apache-2.0

package gdb

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"npuemu/firmware"
	"npuemu/firmware/cpu"
)

// maxPoints bounds breakpoints and watchpoints of a session: far more than a person sets, and little memory.
const maxPoints = 1000

// Error replies. GDB prints the number.
const (
	errorSyntax   = "E01" // the packet is not as the manual has it
	errorRegister = "E02" // no such register, or a read-only one
	errorMemory   = "E03" // no memory there, or none that is written like that
	errorPoints   = "E04" // more than maxPoints
)

// Server serves the GDB remote protocol for one processor. Fields are not changed after Serve was called.
type Server struct {
	Target *firmware.Debugger
	Log    *slog.Logger
}

// Serve takes clients until ctx ends, and closes ln. It returns nil if ctx ended it.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	closeListener := func() { _ = ln.Close() } // a second time it fails, as it should
	stop := context.AfterFunc(ctx, closeListener)
	defer stop()
	defer closeListener()
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for {
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("gdb: %w", err)
		case err != nil: // out of descriptors or memory: the client waits
			s.Log.Warn("gdb: a client waits", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		sessions.Add(1)
		go func() {
			defer sessions.Done()
			if err := s.ServeConn(ctx, conn); err != nil && ctx.Err() == nil {
				s.Log.Warn("gdb: client lost; the processor goes on", "error", err)
			}
		}()
	}
}

// ServeConn serves one client until it detaches or ctx ends, and closes conn.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	if err := s.Target.Attach(); err != nil {
		s.Log.Warn("gdb: client turned away", "error", err)
		return nil
	}
	s.Log.Info("gdb: attached; the control processor and its time stand still")
	defer func() {
		s.Target.Detach()
		s.Log.Info("gdb: detached; the control processor goes on")
	}()

	inputs, ended := make(chan input), make(chan error, 1)
	var reader sync.WaitGroup
	done := make(chan struct{})
	defer reader.Wait()
	defer conn.Close()
	defer close(done)
	reader.Add(1)
	go func() {
		defer reader.Done()
		r := bufio.NewReader(conn)
		for {
			in, err := read(r)
			if err != nil {
				ended <- err
				return
			}
			select {
			case inputs <- in:
			case <-done:
				return
			}
		}
	}()
	c := session{t: s.Target, conn: conn, last: "T05", points: map[point]bool{}}
	for {
		var err error
		select {
		case in := <-inputs:
			err = c.take(in)
		case stop := <-s.Target.Events():
			err = c.stopped(stop)
		case err = <-ended:
			return fmt.Errorf("gdb: %w", err)
		}
		if errors.Is(err, errLeave) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// errLeave ends a session as the client wanted.
var errLeave = errors.New("gdb: the client leaves")

// point is a breakpoint or watchpoint.
type point struct {
	kind       byte
	addr, size uint32
}

// session is one client.
type session struct {
	t       *firmware.Debugger
	conn    net.Conn
	noAck   bool
	running bool   // the client waits for a stop reply
	last    string // stop reply
	sent    []byte // for a client that did not get it
	points  map[point]bool
}

func (c *session) write(p []byte) error {
	if _, err := c.conn.Write(p); err != nil {
		return fmt.Errorf("gdb: %w", err)
	}
	return nil
}

func (c *session) reply(content string) error {
	c.sent = frame(content)
	return c.write(c.sent)
}

// stopped tells the client of a stop, if it waits for one.
func (c *session) stopped(s firmware.Stop) error {
	if !c.running {
		return nil
	}
	c.running = false
	switch {
	case s.Reason == firmware.StopFailed:
		c.last = "T06" // SIGABRT: there is nothing to go on with
	case s.Reason == firmware.StopWatchpoint:
		name := map[cpu.Watch]string{cpu.WatchWrite: "watch", cpu.WatchRead: "rwatch", cpu.WatchAccess: "awatch"}[s.Kind]
		c.last = fmt.Sprintf("T05%s:%x;", name, s.Addr)
	default:
		c.last = "T05"
	}
	return c.reply(c.last)
}

// take handles what the client sent. Its error ends the session.
func (c *session) take(in input) error {
	switch in.kind {
	case inputInterrupt:
		if !c.running {
			return nil
		}
		c.t.Stop()
		c.running, c.last = false, "T02"
		return c.reply(c.last)
	case inputResend:
		return c.write(c.sent)
	case inputBroken:
		return c.write([]byte{'-'})
	}
	if !c.noAck {
		if err := c.write([]byte{'+'}); err != nil {
			return err
		}
	}
	p := string(in.packet)
	if p == "" {
		return c.reply("")
	}
	switch p[0] {
	case 'k':
		return errLeave
	case 'D':
		return errors.Join(c.reply("OK"), errLeave)
	case 'c', 's', 'C', 'S':
		return c.resume(p)
	case 'v':
		return c.verb(p)
	}
	return c.reply(c.answer(p))
}

// resume is c, s, and with a signal, which the processor has none of, C and S.
func (c *session) resume(p string) error {
	addr := p[1:]
	if p[0] == 'C' || p[0] == 'S' {
		_, addr, _ = strings.Cut(addr, ";")
	}
	if addr != "" {
		pc, rest, err := number(addr)
		if err != nil || rest != "" {
			return c.reply(errorSyntax)
		}
		c.t.SetReg(regPC, pc)
	}
	return c.run(p[0] == 's' || p[0] == 'S')
}

func (c *session) run(step bool) error {
	if c.running {
		return nil // one stop reply is on its way
	}
	c.running = true
	if step {
		c.t.Step()
	} else {
		c.t.Continue()
	}
	return nil
}

// verb is the packets that begin with v.
func (c *session) verb(p string) error {
	actions, ok := strings.CutPrefix(p, "vCont;")
	switch {
	case p == "vCont?":
		return c.reply("vCont;c;C;s;S")
	case strings.HasPrefix(p, "vKill;"):
		return errors.Join(c.reply("OK"), errLeave)
	case !ok:
		return c.reply("")
	}
	step := false
	for a := range strings.SplitSeq(actions, ";") {
		switch {
		case a == "" || !strings.ContainsRune("cCsS", rune(a[0])):
			return c.reply(errorSyntax)
		case a[0]|0x20 == 's':
			step = true
		}
	}
	return c.run(step)
}

// answer handles the packets that only ask or change something.
func (c *session) answer(p string) string {
	switch p[0] {
	case '?':
		return c.last
	case 'H', 'T': // there is one thread
		return "OK"
	case 'g':
		var b []byte
		for i := range regCount {
			b = binary.LittleEndian.AppendUint32(b, c.t.Reg(i))
		}
		return hex.EncodeToString(b)
	case 'G':
		b, err := hex.DecodeString(p[1:])
		if err != nil || len(b) != 4*regCount {
			return errorSyntax
		}
		for i := range regCount {
			c.t.SetReg(i, binary.LittleEndian.Uint32(b[4*i:]))
		}
		return "OK"
	case 'p':
		return c.readRegister(p[1:])
	case 'P':
		return c.writeRegister(p[1:])
	case 'm':
		return c.readMemory(p[1:])
	case 'M', 'X':
		return c.writeMemory(p)
	case 'Z', 'z':
		return c.point(p)
	case 'q', 'Q':
		return c.query(p)
	}
	return ""
}

func (c *session) readRegister(p string) string {
	n, rest, err := number(p)
	if err != nil || rest != "" {
		return errorSyntax
	}
	v, ok := uint32(0), false
	if n < regCount {
		v, ok = c.t.Reg(int(n)), true
	} else if n -= regCSR; n < 1<<12 {
		v, ok = c.t.CSR(uint16(n))
	}
	if !ok {
		return errorRegister
	}
	return hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, v))
}

func (c *session) writeRegister(p string) string {
	n, value, err := number(p)
	if err != nil || len(value) != 9 || value[0] != '=' {
		return errorSyntax
	}
	b, err := hex.DecodeString(value[1:])
	if err != nil {
		return errorSyntax
	}
	v, ok := binary.LittleEndian.Uint32(b), false
	if n < regCount {
		c.t.SetReg(int(n), v)
		ok = true
	} else if n -= regCSR; n < 1<<12 {
		ok = c.t.SetCSR(uint16(n), v)
	}
	if !ok {
		return errorRegister
	}
	return "OK"
}

func (c *session) readMemory(p string) string {
	v, rest, err := numbers(p, ",")
	if err != nil || rest != "" {
		return errorSyntax
	}
	b := make([]byte, min(v[1], maxPacket/2))
	n := c.t.Read(v[0], b)
	if n == 0 && len(b) != 0 {
		return errorMemory
	}
	return hex.EncodeToString(b[:n])
}

// writeMemory is M, with hexadecimal, and X, with bytes.
func (c *session) writeMemory(p string) string {
	v, text, err := numbers(p[1:], ",")
	if err != nil || text == "" || text[0] != ':' {
		return errorSyntax
	}
	b := []byte(text[1:])
	if p[0] == 'M' {
		if b, err = hex.DecodeString(text[1:]); err != nil {
			return errorSyntax
		}
	}
	if uint32(len(b)) != v[1] {
		return errorSyntax
	}
	if len(b) == 0 { // a client asks whether there is X
		return "OK"
	}
	if err := c.t.Write(v[0], b); err != nil {
		return errorMemory
	}
	return "OK"
}

// point is Z and z: breakpoints 0 and 1, which are the same here, and watchpoints 2 to 4.
func (c *session) point(p string) string {
	if len(p) < 3 || p[1] < '0' || p[1] > '4' || p[2] != ',' {
		return ""
	}
	v, rest, err := numbers(p[3:], ",")
	if err != nil || rest != "" { // conditions and commands were not offered
		return errorSyntax
	}
	pt, on := point{max(p[1], '1'), v[0], v[1]}, p[0] == 'Z'
	watch := pt.kind >= '2'
	switch {
	case !watch:
		pt.size = 0 // of the instruction, as the client thinks
	case pt.size == 0 || pt.size-1 > ^pt.addr:
		return errorSyntax
	}
	switch {
	case on && !c.points[pt] && len(c.points) == maxPoints:
		return errorPoints
	case !on:
		delete(c.points, pt)
	default:
		c.points[pt] = true
	}
	if watch {
		kind := map[byte]cpu.Watch{'2': cpu.WatchWrite, '3': cpu.WatchRead, '4': cpu.WatchAccess}[pt.kind]
		c.t.SetWatchpoint(pt.addr, pt.size, kind, on)
	} else {
		c.t.SetBreakpoint(pt.addr, on)
	}
	return "OK"
}

func (c *session) query(p string) string {
	name, args, _ := strings.Cut(p, ":")
	switch name {
	case "qSupported":
		return fmt.Sprintf("PacketSize=%x;QStartNoAckMode+;vContSupported+;qXfer:features:read+;qXfer:memory-map:read+", maxPacket)
	case "QStartNoAckMode":
		c.noAck = true
		return "OK"
	case "qAttached":
		return "1"
	case "qSymbol":
		return "OK"
	case "qXfer":
		return transfer(args)
	}
	return ""
}

// transfer is qXfer: a part of a document.
func transfer(args string) string {
	var doc string
	part, ok := strings.CutPrefix(args, "features:read:target.xml:")
	if ok {
		doc = targetXML()
	} else if part, ok = strings.CutPrefix(args, "memory-map:read::"); ok {
		doc = memoryXML()
	} else {
		return "E00" // no such document
	}
	v, rest, err := numbers(part, ",")
	if err != nil || rest != "" {
		return errorSyntax
	}
	off, size := int(min(v[0], uint32(len(doc)))), int(min(v[1], maxPacket/2)) // half, as each byte may need an escape
	if n := len(doc) - off; n <= size {
		return "l" + doc[off:]
	}
	return "m" + doc[off:off+size]
}
