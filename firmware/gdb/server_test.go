// SPDX-License-Identifier: Apache-2.0

package gdb_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"npuemu/firmware/gdb"
	"npuemu/vdev"
)

// stub serves the control processor of a card whose ROM waits for an image.
type stub struct {
	*gdb.Server
	log *syncBuffer
}

// syncBuffer is a log that a test reads while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newStub(tb testing.TB) *stub {
	tb.Helper()
	cfg := vdev.DefaultConfig()
	cfg.Memory.Size = 1 << 20
	d, err := vdev.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(tb.Context())
	ran := make(chan struct{})
	go func() { defer close(ran); d.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		<-ran
		if err := d.Close(); err != nil {
			tb.Error(err)
		}
	})
	log := &syncBuffer{}
	return &stub{&gdb.Server{Target: d.Debugger(), Log: slog.New(slog.NewTextHandler(log, nil))}, log}
}

// client is a scripted client.
type client struct {
	testing.TB
	conn  net.Conn
	r     *bufio.Reader
	ended chan error
}

func (s *stub) dial(tb testing.TB) *client {
	tb.Helper()
	ours, theirs := net.Pipe()
	c := &client{tb, ours, bufio.NewReader(ours), make(chan error, 1)}
	go func() { c.ended <- s.ServeConn(tb.Context(), theirs) }()
	tb.Cleanup(func() { c.conn.Close(); _ = c.end() }) // tests that care look at it themselves
	if err := ours.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		tb.Fatal(err)
	}
	return c
}

// end waits for the end of the session.
func (c *client) end() error {
	err := <-c.ended
	c.ended <- err
	return err
}

func (c *client) send(raw string) {
	c.Helper()
	if _, err := io.WriteString(c.conn, raw); err != nil {
		c.Fatalf("send %q: %v", raw, err)
	}
}

// packet is the content of the next packet; what comes before $ is ignored.
func (c *client) packet() string {
	c.Helper()
	if _, err := c.r.ReadString('$'); err != nil {
		c.Fatal(err)
	}
	s, err := c.r.ReadString('#')
	if err != nil {
		c.Fatal(err)
	}
	s = s[:len(s)-1]
	var sum byte
	for i := range len(s) {
		sum += s[i]
	}
	var check [2]byte
	if _, err := io.ReadFull(c.r, check[:]); err != nil || string(check[:]) != fmt.Sprintf("%02x", sum) {
		c.Fatalf("checksum %q of %q", check, s)
	}
	return s
}

func frame(p string) string {
	var sum byte
	for i := range len(p) {
		sum += p[i]
	}
	return fmt.Sprintf("$%s#%02x", p, sum)
}

func (c *client) ask(p string) string {
	c.Helper()
	c.send(frame(p))
	return c.packet()
}

// Packets and their replies, in one session from top to bottom; a reply may end in *. Before each of them, and after
// all, the session is alive. 0x10008000 is SRAM that nobody uses.
func TestPackets(t *testing.T) {
	c := newStub(t).dial(t)
	for _, tt := range []struct{ name, send, want string }{
		{"supported", "qSupported:swbreak+", "PacketSize=4000;QStartNoAckMode+;*"},
		{"why stopped", "?", "T05"},
		{"attached to a running one", "qAttached", "1"},
		{"unknown verb must be empty", "vMustReplyEmpty", ""},
		{"unknown query", "qWhatever:1,2", ""},
		{"unknown letter", "y1", ""},
		{"empty packet", "", ""},
		{"extended mode is not offered", "!", ""},
		{"thread", "Hg0", "OK"},
		{"vCont", "vCont?", "vCont;c;C;s;S"},

		{"set x5", "P5=78563412", "OK"},
		{"x5", "p5", "78563412"},
		{"x0 stays 0", "P0=ffffffff", "OK"},
		{"x0", "p0", "00000000"},
		{"set pc", "P20=00800010", "OK"},
		{"pc", "p20", "00800010"},
		{"mstatus", "p341", "00180000"},
		{"set mscratch", "P381=01020304", "OK"},
		{"mscratch", "p381", "01020304"},
		{"mhartid cannot be written", "Pf55=01000000", "E02"},
		{"no floating point", "p21", "E02"},
		{"CSR that is not there", "p1c1", "E02"},
		{"number of no register", "pffffffff", "E02"},
		{"register without number", "p", "E01"},
		{"register with more", "p5;thread:1;", "E01"},
		{"33-bit number", "p100000000", "E01"},
		{"value too short", "P5=785634", "E01"},
		{"value too long", "P5=7856341200", "E01"},
		{"value of no digits", "P5=7856341x", "E01"},
		{"no value", "P5", "E01"},
		{"all registers", "G" + strings.Repeat("01000000", 33), "OK"},
		{"all registers are set", "g", "00000000" + strings.Repeat("01000000", 31) + "00000000"}, // pc has no bit 0
		{"too few registers", "G" + strings.Repeat("01000000", 32), "E01"},
		{"registers of no digits", "G" + strings.Repeat("0100000x", 33), "E01"},

		{"write memory", "M10008000,4:11223344", "OK"},
		{"write bytes", "X10008004,4:a}\x03b}]", "OK"}, // } 3^0x20 is #; } ]^0x20 is }
		{"read memory", "m10008000,8", "1122334461236 27d"},
		{"no bytes", "m10008000,0", ""},
		{"X is there", "X0,0:", "OK"},
		{"beyond SRAM", "m1003fffe,4", "0000"},
		{"not memory", "m80000000,4", "E03"},
		{"end of the addresses", "mffffffff,2", "E03"},
		{"4 GiB are as much as a packet has", "m0,ffffffff", "*"},
		{"ROM is not written", "M0,1:00", "E03"},
		{"fewer bytes than said", "M10008000,4:112233", "E01"},
		{"more bytes than said", "M10008000,2:112233", "E01"},
		{"half a byte", "M10008000,1:1", "E01"},
		{"no colon", "M10008000,1", "E01"},
		{"no length", "m10008000", "E01"},
		{"no address", "m,4", "E01"},
		{"more after the length", "m10008000,4,5", "E01"},
		{"ID", "m40001000,4", "4e505545"},
		{"a register of the host is not written", "M40001000,4:00000000", "E03"},

		{"breakpoint", "Z0,10008000,2", "OK"},
		{"again", "Z0,10008000,4", "OK"},
		{"hardware breakpoint", "Z1,10008000,2", "OK"},
		{"where nothing is", "Z0,90000000,4", "OK"},
		{"remove it", "z0,10008000,2", "OK"},
		{"remove what is not there", "z1,4,4", "OK"},
		{"watchpoint", "Z2,10008000,4", "OK"},
		{"of no bytes", "Z2,10008000,0", "E01"},
		{"over the end of the addresses", "Z4,fffffffe,4", "E01"},
		{"remove watchpoint", "z2,10008000,4", "OK"},
		{"condition", "Z0,10008000,4;X1,22", "E01"},
		{"kind that is not there", "Z5,10008000,4", ""},
		{"no kind", "Z", ""},
		{"no size", "Z0,10008000", "E01"},

		{"continue at no address", "cxyz", "E01"},
		{"unknown action", "vCont;t", "E01"},
		{"no action", "vCont;", "E01"},
		{"range stepping is not offered", "vCont;r10,20", "E01"},
		{"other verb", "vFlashErase:0,10", ""},
		{"description", "qXfer:features:read:target.xml:0,10", "m<?xml version=\"1"},
		{"another document", "qXfer:features:read:other.xml:0,10", "E00"},
		{"another object", "qXfer:auxv:read::0,10", "E00"},
		{"write a description", "qXfer:features:write:target.xml:0:x", "E00"},
		{"beyond its end", "qXfer:features:read:target.xml:fffffff,10", "l"},
		{"no offset", "qXfer:memory-map:read::", "E01"},
		{"still here", "p5", "01000000"},
	} {
		want := strings.ReplaceAll(tt.want, " ", "")
		if tt.send == "" || tt.name == "description" {
			want = tt.want
		}
		got := c.ask(tt.send)
		if prefix, open := strings.CutSuffix(want, "*"); got != want && (!open || !strings.HasPrefix(got, prefix)) {
			t.Errorf("%s: %q is answered %q, want %q", tt.name, tt.send, got, want)
		}
	}
}

// What is no packet: bytes between packets, checksums, a packet begun anew, one that is too long.
func TestFraming(t *testing.T) {
	s := newStub(t)
	c := s.dial(t)
	reply := func(raw, want string) {
		t.Helper()
		c.send(raw)
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c.r, got); err != nil || string(got) != want {
			t.Errorf("%q is answered %q, %v; want %q", raw, got, err, want)
		}
	}
	reply("+++noise"+frame("?"), "+$T05#b9")
	reply("$?#00", "-")
	reply("$?#zz", "-")
	reply("$?}#bc", "-")                       // an escape of nothing
	reply("$p5$?#3f", "+$T05#b9")              // given up, begun anew
	reply("-", "$T05#b9")                      // again
	reply("\x03"+frame("qAttached"), "+$1#31") // Ctrl-C while stopped is nothing
	reply(frame("QStartNoAckMode"), "+$OK#9a")
	reply(frame("?"), "$T05#b9")
	reply("$?#00", "-")
	c.send("$" + strings.Repeat("a", 0x4000))
	_, _ = io.WriteString(c.conn, "aa") // the server may have gone
	if err := c.end(); err == nil || !strings.Contains(err.Error(), "more than 16384 bytes") {
		t.Errorf("a packet without end: %v", err)
	}
	// The processor went on, and takes the next client.
	if got := s.dial(t).ask("?"); got != "T05" {
		t.Errorf("the next client is answered %q", got)
	}
}

// The whole documents, in pieces and at once; they are XML.
func TestDocuments(t *testing.T) {
	c := newStub(t).dial(t)
	for _, name := range []string{"features:read:target.xml", "memory-map:read:"} {
		var whole string
		for last := false; !last; {
			p := c.ask(fmt.Sprintf("qXfer:%s:%x,100", name, len(whole)))
			last = p[0] == 'l'
			whole += unescape(p[1:])
		}
		if got := unescape(c.ask("qXfer:" + name + ":0,3fff")); got[1:] != whole {
			t.Errorf("%s: pieces differ from the whole", name)
		}
		d := xml.NewDecoder(strings.NewReader(whole))
		n := 0
		for {
			tok, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", name, err, whole)
			}
			e, ok := tok.(xml.StartElement)
			if !ok || e.Name.Local != "reg" {
				continue
			}
			// Each register can be read under its number.
			n++
			for _, a := range e.Attr {
				if a.Name.Local != "regnum" {
					continue
				}
				i, _ := strconv.Atoi(a.Value)
				if v := c.ask(fmt.Sprintf("p%x", i)); len(v) != 8 {
					t.Errorf("register %s reads %q", a.Value, v)
				}
			}
		}
		if name[0] == 'f' && n != 33+14 {
			t.Errorf("%d registers", n)
		}
	}
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '}' {
			i++
			b.WriteByte(s[i] ^ 0x20)
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// Run, step, stop: code in SRAM is run by the processor.
func TestRunning(t *testing.T) {
	s := newStub(t)
	c := s.dial(t)
	if got := c.ask("QStartNoAckMode"); got != "OK" {
		t.Fatal(got)
	}
	// 10008000: addi x5, x5, 1; sw x5, 0x100(x6); j 10008000
	if got := c.ask("M10008000,c:" + "93821200" + "23205310" + "6ff09fff"); got != "OK" {
		t.Fatal(got)
	}
	for _, p := range []string{"P5=00000000", "P6=00800010", "P20=00800010"} {
		if got := c.ask(p); got != "OK" {
			t.Fatalf("%s: %s", p, got)
		}
	}
	pc := func(want string) {
		t.Helper()
		if got := c.ask("p20"); got != want {
			t.Errorf("pc %s, want %s", got, want)
		}
	}
	for _, tt := range []struct{ send, stop, pc string }{
		{"s", "T05", "04800010"},
		{"vCont;s:1;c", "T05", "08800010"},
		{"S05", "T05", "00800010"},
		{"s10008004", "T05", "08800010"},
		{"C05;10008000", "", ""}, // runs
		{"\x03", "T02", ""},
		{"?", "T02", ""},
		{"Z0,10008008,4", "OK", ""},
		{"c", "T05", "08800010"},
		{"s", "T05", "00800010"},
		{"vCont;c", "T05", "08800010"},
		{"z0,10008008,4", "OK", ""},
		{"Z2,10008102,1", "OK", ""},
		{"c", "T05watch:10008102;", "08800010"},
		{"z2,10008102,1", "OK", ""},
		{"Z4,10008100,4", "OK", ""},
		{"c", "T05awatch:10008100;", "08800010"},
		{"z4,10008100,4", "OK", ""},
		{"c", "", ""},
		{"\x03", "T02", ""},
	} {
		if tt.send == "\x03" {
			c.send(tt.send)
		} else {
			c.send(frame(tt.send))
		}
		if tt.stop == "" {
			continue
		}
		if got := c.packet(); got != tt.stop {
			t.Fatalf("%q: %q, want %q", tt.send, got, tt.stop)
		}
		if tt.pc != "" {
			pc(tt.pc)
		}
	}
	// While it runs, memory is read, and c is not asked twice.
	c.send(frame("c") + frame("c"))
	if got := c.ask("m10008000,4"); got != "93821200" {
		t.Errorf("memory of the running processor: %q", got)
	}
	c.send("\x03")
	if got := c.packet(); got != "T02" {
		t.Errorf("%q", got)
	}
	// The end of all: an image that is illegal makes the ROM's handler say FAILED.
	if got := c.ask("M40000020,4:ffffffff"); got == "" {
		t.Errorf("%q", got)
	}
	if got := c.ask("M10008000,4:00000000"); got != "OK" {
		t.Errorf("%q", got)
	}
	c.send(frame("c10008000"))
	if got := c.packet(); got != "T06" {
		t.Errorf("a trap nobody handles: %q, want T06", got)
	}
	if got := c.ask("D"); got != "OK" {
		t.Errorf("detach: %q", got)
	}
	if err := c.end(); err != nil {
		t.Errorf("detach: %v", err)
	}
	for _, p := range []string{"k", "vKill;1"} {
		k := s.dial(t)
		k.send(frame(p))
		go io.Copy(io.Discard, k.conn) //nolint:errcheck // ends with the connection
		if err := k.end(); err != nil {
			t.Errorf("%s: %v", p, err)
		}
	}
}

// One client at a time, through a listener, and breakpoints are bounded.
func TestServe(t *testing.T) {
	s := newStub(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	dial := func() *client {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return &client{TB: t, conn: conn, r: bufio.NewReader(conn)}
	}
	first := dial()
	if got := first.ask("?"); got != "T05" {
		t.Errorf("%q", got)
	}
	second := dial()
	if b, err := io.ReadAll(second.conn); len(b) != 0 || err != nil && !strings.Contains(err.Error(), "reset") {
		t.Errorf("a second client got %q, %v", b, err)
	}
	if !strings.Contains(s.log.String(), "another debugger is attached; one at a time") {
		t.Errorf("log: %s", s.log)
	}
	for i := range 1001 {
		want := "OK"
		if i == 1000 {
			want = "E04"
		}
		if got := first.ask(fmt.Sprintf("Z0,%x,4", 0x1000_0000+4*i)); got != want {
			t.Fatalf("breakpoint %d: %q, want %q", i, got, want)
		}
	}
	if got := first.ask("z0,10000000,4"); got != "OK" {
		t.Errorf("%q", got)
	}
	if got := first.ask("Z2,10000000,4"); got != "OK" {
		t.Errorf("after one is gone: %q", got)
	}
	first.conn.Close() // lost, not detached
	for {              // the next one attaches when the first is known to be gone
		third := dial()
		third.send(frame("?"))
		if b, err := third.r.ReadByte(); err == nil {
			if b != '+' || third.packet() != "T05" {
				t.Errorf("the next client: %q", b)
			}
			break
		}
		third.conn.Close()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// FuzzSession sends whatever it likes, and then a packet that must be answered, to the same session or the next one.
func FuzzSession(f *testing.F) {
	for _, p := range []string{"?", "g", "m10000000,40", "M10000000,1:ff", "X10000000,1:a", "Z0,10000000,2", "s", "c", "vCont;c", "qXfer:memory-map:read::0,400", "k", "D", "P20=00000010"} {
		f.Add([]byte(frame(p)))
	}
	f.Add([]byte("\x03+-$$#"))
	f.Add([]byte(frame("c") + "\x03" + frame("s") + "$"))
	s := newStub(f)
	s.Log = slog.New(slog.DiscardHandler)
	f.Fuzz(func(t *testing.T, raw []byte) {
		c := s.dial(t)
		go io.Copy(io.Discard, c.conn) //nolint:errcheck // ends with the connection
		_, _ = c.conn.Write(raw)       // the session may end at any byte
		c.conn.Close()
		_ = c.end()
		c = s.dial(t)
		if got := c.ask("?"); got != "T05" {
			t.Errorf("a new session begins with %q", got)
		}
		if b, err := hex.DecodeString(c.ask("g")); err != nil || len(b) != 4*33 {
			t.Errorf("registers: % x, %v", b, err)
		}
		c.conn.Close()
		_ = c.end()
	})
}
