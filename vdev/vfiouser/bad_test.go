// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"bytes"
	stdcmp "cmp"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
)

// u32 and u64 build payloads.
func u32(vs ...uint32) (b []byte) {
	for _, v := range vs {
		b = order.AppendUint32(b, v)
	}
	return b
}

func u64(vs ...uint64) (b []byte) {
	for _, v := range vs {
		b = order.AppendUint64(b, v)
	}
	return b
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// edited is a valid command with one u32 of its header replaced.
func edited(cmd Command, off int, v uint32, body ...[]byte) []byte {
	msg := message(cmd, 5, 0, body...)
	order.PutUint32(msg[off:], v)
	return msg
}

const ok = unix.Errno(0)

// dmaMapBody and the like are payloads with every field in the open.
func dmaMapBody(argsz, flags uint32, off, addr, size uint64) []byte {
	return cat(u32(argsz, flags), u64(off, addr, size))
}

func dmaUnmapBody(argsz, flags uint32, addr, size uint64) []byte {
	return cat(u32(argsz, flags), u64(addr, size))
}

func irqBody(argsz, flags, index, start, count uint32, data ...byte) []byte {
	return cat(u32(argsz, flags, index, start, count), data)
}

func accessBody(off uint64, region, count uint32, data ...byte) []byte {
	return cat(u64(off), u32(region, count), data)
}

func cmd(c Command, body ...[]byte) []byte { return message(c, 5, 0, body...) }

// kinds of descriptors that a row sends along
const (
	noFDs = iota
	eventfds
	memfds   // of 16 KiB
	pipes    // their write ends
	readOnly // a memfd opened for reading
)

// TestBadMessages sends each message to a server with one range mapped,
// [0x100000, 0x104000), and an eventfd on MSI-X vector 2, and wants the errno,
// nothing changed but what the row says, no descriptor kept, and service going
// on, or the end of the connection.
func TestBadMessages(t *testing.T) {
	rows := badRows()
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) { tt.check(t) })
	}
	if len(rows) < 250 {
		t.Errorf("only %d rows", len(rows))
	}
}

func (tt *badRow) check(t *testing.T) {
	f := newFake(t)
	var b Backend = f
	if tt.dev != basic {
		a := newAble(t, MigrationCanPreCopy)
		a.events = map[int][]IOEvent{0: {{Off: 0x100, Size: 4, Value: 7}}}
		f, b = a.fake, a
	}
	before := slices.Clone(f.mem[0])
	s := NewServer(Config{Strict: tt.dev == strict}, b)
	r := rawClientOf(t, s)
	if tt.first {
		tt.kind, tt.fds = memfds, 2
	} else {
		tt.prepare(r, f)
	}

	fds := someFDs(t, tt.kind, tt.fds)
	open := descriptors(t)
	r.send(tt.msg, fds...)
	if !tt.silent {
		h, body, got := r.recvFDs()
		nfds := len(got)
		for _, fd := range got {
			if !tt.first { // a twin socket is open as long as the connection
				unix.Close(fd)
				continue
			}
			defer unix.Close(fd)
		}
		want := header{id: 5, command: decodeHeader(tt.msg).command, size: h.size, flags: flagReply, errno: uint32(tt.want)}
		if tt.want != ok {
			want.size, want.flags = headerSize, flagReply|flagError
		}
		if h != want {
			t.Errorf("reply %+v, want %+v", h, want)
		}
		if tt.body != nil && !bytes.Equal(body, tt.body) {
			t.Errorf("payload (-want +got):\n%s", cmp.Diff(tt.body, body))
		}
		if tt.first && tt.want == ok && (h.size > 200 || body[len(body)-1] != 0) {
			t.Errorf("VERSION is answered with %d bytes; QEMU takes 214, and a NUL at the end", h.size)
		}
		if nfds != tt.comes {
			t.Errorf("%d descriptors with the reply, want %d", nfds, tt.comes)
		}
	}
	if tt.closes {
		if _, _, _, err := r.recv(); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("afterwards %v, want the end of the connection", err)
		}
		if f.logged() != nil {
			t.Errorf("the device saw %q", f.logged())
		}
		if descriptors(t) != open {
			t.Error("the descriptors were kept")
		}
		return
	}

	// Still in step, and nothing else changed.
	r.send(message(cmdRegionRead, 9, 0, accessBody(0, 0, 4)))
	if h, body := r.mustRecv(); h.id != 9 || h.flags != flagReply || len(body) != 20 {
		t.Fatalf("the next reply is %+v", h)
	}
	vectors := f.attached()
	if !tt.first {
		count(t, "ranges", f.table.Len(), tt.ranges)
		count(t, "vectors", vectors, tt.vectors)
		if tt.dev != basic {
			want := stdcmp.Or(tt.after, tt.state, running)
			r.send(message(cmdFeature, 10, 0, u32(16, featureGet|featMigState)))
			if _, body := r.mustRecv(); MigrationState(order.Uint32(body[8:])) != want {
				t.Errorf("the device is in %v, want %v", MigrationState(order.Uint32(body[8:])), want)
			}
		}
		vectors--
	}
	if diff := cmp.Diff(tt.calls, f.logged()); diff != "" {
		t.Errorf("device calls (-want +got):\n%s", diff)
	}
	if !bytes.Equal(before, f.mem[0]) {
		t.Error("BAR0 was written")
	}
	// The device owns the eventfds of the vectors that it has; the server those that
	// it watches, with one to end the watch.
	watched := tt.events
	if watched > 0 {
		watched++
	}
	if got, want := descriptors(t), open+vectors+watched; got != want {
		t.Errorf("%d descriptors open, want %d", got, want)
	}
}

// prepare brings server and device into the state that rows begin with.
func (tt *badRow) prepare(r *raw, f *fake) {
	t := r.t
	r.negotiate("{\"capabilities\":{\"max_msg_fds\":8}}")
	r.send(message(cmdDMAMap, 2, 0, dmaMapBody(32, 3, 0, 0x100000, 0x4000)), int(memfd(t, 0x4000).Fd()))
	r.mustRecv()
	r.send(message(cmdSetIRQs, 3, 0, irqBody(20, 4|32, 2, 2, 1)), newEventfd(t).Fd())
	r.mustRecv()
	feature := func(flags uint32, data ...[]byte) {
		t.Helper()
		r.send(message(cmdFeature, 4, 0, u32(64, flags), cat(data...)))
		if h, _ := r.mustRecv(); h.flags != flagReply {
			t.Fatalf("feature %#x: %+v", flags, h)
		}
	}
	if tt.log {
		feature(featureSet|featLogStart, u64(4096, 0))
		if err := f.table.Write(0x101234, []byte{1}); err != nil {
			t.Fatal(err)
		}
	}
	if tt.state != 0 {
		feature(featureSet|featMigState, u32(uint32(tt.state), 0))
	}
}

// count compares a number with that of a row, where 0 stands for 1 and gone for 0.
func count(t *testing.T, what string, got, want int) {
	t.Helper()
	switch want {
	case 0:
		want = 1
	case gone:
		want = 0
	}
	if got != want {
		t.Errorf("%d %s afterwards, want %d", got, what, want)
	}
}

func someFDs(t *testing.T, kind, n int) (fds []int) {
	t.Helper()
	for range n {
		switch kind {
		case eventfds:
			fds = append(fds, newEventfd(t).Fd())
		case memfds:
			fds = append(fds, int(memfd(t, 16<<10).Fd()))
		case pipes:
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close(); w.Close() })
			fds = append(fds, int(w.Fd()))
		case readOnly:
			f, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(memfd(t, 16<<10).Fd())))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			fds = append(fds, int(f.Fd()))
		}
	}
	return fds
}

// The stream may come in pieces of any size; libvfio-user drops a client whose
// header or body is split.
func TestSplitMessages(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{}, f)
	r.negotiate("")
	file := memfd(t, 4096)
	for i, cut := range []int{1, 8, 15, 16, 17, 40, 47} {
		msg := message(cmdDMAMap, uint16(i), 0, dmaMapBody(32, 3, 0, uint64(i)<<12, 4096))
		r.send(msg[:cut], int(file.Fd())) // with the first piece, as sendmsg does
		time.Sleep(2 * time.Millisecond)
		r.send(msg[cut:])
		if h, _ := r.mustRecv(); h.id != uint16(i) || h.flags != flagReply {
			t.Errorf("cut at %d: %+v", cut, h)
		}
	}
	// Each byte alone, the descriptor with the last.
	msg := message(cmdDMAMap, 50, 0, dmaMapBody(32, 3, 0, 50<<12, 4096))
	for i := range msg {
		if i == len(msg)-1 {
			r.send(msg[i:], int(file.Fd()))
			break
		}
		r.send(msg[i : i+1])
	}
	if h, _ := r.mustRecv(); h.flags != flagReply {
		t.Errorf("byte by byte: %+v", h)
	}
	// All were mapped directly: no message asks for the data.
	if err := f.table.Read(0, make([]byte, 7<<12)); err != nil || f.table.Len() != 8 {
		t.Errorf("%d ranges, read: %v", f.table.Len(), err)
	}
}

// Messages back to back in one send, some with descriptors in separate sends:
// every descriptor stays with its message.
func TestDescriptorsStayWithTheirMessage(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{}, f)
	r.negotiate("")
	const n = 64
	for i := range n {
		file := memfd(t, 4096)
		if _, err := file.WriteAt([]byte{byte(i)}, 0); err != nil {
			t.Fatal(err)
		}
		// A message without a descriptor directly before each one with.
		r.send(message(cmdRegionWrite, 0, flagNoReply, accessBody(0, 0, 1, 1)))
		r.send(message(cmdDMAMap, uint16(i), 0, dmaMapBody(32, 3, 0, uint64(i)<<12, 4096)), int(file.Fd()))
	}
	for range n {
		if h, _ := r.mustRecv(); h.flags != flagReply {
			t.Fatalf("%+v", h)
		}
	}
	for i := range n {
		p := []byte{0xee}
		if err := f.table.Read(iova.Addr(i)<<12, p); err != nil || p[0] != byte(i) {
			t.Errorf("range %d starts with %d, %v", i, p[0], err)
		}
	}
	// Five messages in one piece.
	r.send(bytes.Repeat(message(cmdReset, 7, 0), 5))
	for range 5 {
		if h, _ := r.mustRecv(); h.id != 7 || h.flags != flagReply {
			t.Errorf("%+v", h)
		}
	}
}

// What is too large is refused at once, skipped, and the next message served.
func TestBodyOfRefusedMessageIsSkipped(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{}, f)
	r.negotiate("")
	fds := someFDs(t, memfds, 3)
	open := descriptors(t)
	large := message(cmdRegionWrite, 2, 0, make([]byte, maxMessage)) // 16 bytes too many
	for i, msg := range [][]byte{
		large,
		message(cmdRegionWrite, 2, 0, accessBody(0, 9, 1<<19), make([]byte, 1<<19)),
		message(99, 2, 0, make([]byte, 1<<20)),
	} {
		r.send(msg, fds[i])
		if h, _ := r.mustRecv(); h.id != 2 || h.errno != uint32(unix.EINVAL) {
			t.Errorf("message %d: %+v", i, h)
		}
		r.send(message(cmdReset, 3, 0))
		if h, _ := r.mustRecv(); h.id != 3 || h.flags != flagReply {
			t.Errorf("after message %d: %+v", i, h)
		}
	}
	if got := descriptors(t); got != open {
		t.Errorf("%d descriptors open, want %d", got, open)
	}
}

// No_reply means no reply, not even to what is refused.
func TestPostedErrorsAreSilent(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{}, f)
	r.negotiate("")
	for _, msg := range [][]byte{
		message(cmdRegionWrite, 2, flagNoReply, accessBody(0, 9, 1, 1)),
		message(cmdRegionWrite, 2, flagNoReply, accessBody(0, 0, 4)),
		message(cmdRegionRead, 2, flagNoReply, accessBody(0, 0, 4)),
		message(cmdReset, 2, flagNoReply),
		message(77, 2, flagNoReply),
	} {
		r.send(msg)
	}
	r.send(message(cmdReset, 3, 0))
	if h, _ := r.mustRecv(); h.id != 3 {
		t.Errorf("reply to id %d, want only the one to 3", h.id)
	}
	if diff := cmp.Diff([]string{"reset", "reset"}, f.logged()); diff != "" {
		t.Errorf("device calls (-want +got):\n%s", diff)
	}
}

// Garbage and cut streams end in a detached device, never in a crash or a leak,
// and the next client is served.
func TestGarbage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	}
	write := message(cmdRegionWrite, 4, 0, accessBody(0, 0, 4, 1, 2, 3, 4))
	for _, tt := range []struct {
		name   string
		hello  bool // negotiate first
		stream []byte
	}{
		{"nothing", false, nil},
		{"HTTP", false, []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"noise", false, noise(10000)},
		{"noise after VERSION", true, noise(100000)},
		{"half a header", true, write[:8]},
		{"header only", true, write[:16]},
		{"half a body", true, write[:30]},
		{"too large and cut", true, append(edited(cmdReset, 4, 1<<31), noise(5000)...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			r := rawClient(t, Config{}, f)
			if tt.hello {
				r.negotiate("")
				r.send(message(cmdDMAMap, 2, 0, dmaMapBody(32, 3, 0, 0, 4096)), int(memfd(t, 4096).Fd()))
				r.mustRecv()
			}
			// The server may close while we send: that is one of its answers.
			_ = r.sock.Send(tt.stream, nil, someFDs(t, memfds, 1)[:min(1, len(tt.stream))]...)
			r.sock.Close()
			eventually(t, "device detached", func() bool {
				return f.table.Len() == 0 && (!tt.hello || slices.Contains(f.logged(), "detach"))
			})
			eventually(t, "memory unmapped", func() bool { return mappings(t) == 0 })
			if f.mem[0][0] != 0 {
				t.Error("a cut write was done")
			}
			attach(t, Config{}, f)
		})
	}
}

// FuzzServer feeds any bytes as a client's stream, after VERSION or from the
// start. Whatever comes, the server ends when the stream does and leaves nothing.
func FuzzServer(f *testing.F) {
	f.Add(false, message(cmdVersion, 1, 0, u32(0), []byte("{}\x00")))
	f.Add(true, cat(
		cmd(cmdGetInfo, u32(16, 0, 0, 0)), cmd(cmdGetRegionInfo, u32(64, 0, 2, 0), u64(0, 0)),
		cmd(cmdGetIRQInfo, u32(16, 0, 2, 0)), cmd(cmdRegionRead, accessBody(0, 0, 4)),
	))
	f.Add(true, cat(
		cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0x1000, 0x1000)), cmd(cmdDMAMap, dmaMapBody(32, 1, 0, 0x2000, 0x1000)),
		cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 0, 0x2000)), cmd(cmdDMAUnmap, dmaUnmapBody(24, 2, 0, 0)),
	))
	f.Add(true, cat(
		cmd(cmdSetIRQs, irqBody(20, 1|32, 2, 0, 2)), cmd(cmdSetIRQs, irqBody(22, 2|8, 2, 0, 2, 1, 0)),
		cmd(cmdSetIRQs, irqBody(20, 4|32, 2, 2, 1)), cmd(cmdReset), edited(cmdReset, 4, 3), edited(cmdReset, 8, flagReply),
	))
	f.Add(true, cat(
		cmd(cmdRegionWrite, accessBody(0, 0, 4, 1, 2, 3, 4)), message(cmdRegionWrite, 5, flagNoReply, accessBody(8, 0, 1, 1)),
		cmd(cmdWriteMulti, u64(1), accessBody(0, 0, 1), u64(1)), cmd(cmdFeature, u32(8, 1)), edited(cmdReset, 4, 1<<24),
	))
	state := func(s MigrationState) []byte { return cmd(cmdFeature, u32(16, featureSet|featMigState, uint32(s), 0)) }
	f.Add(true, cat(
		cmd(cmdFeature, u32(16, featureGet|featMigration)), cmd(cmdFeature, u32(8, featureProbe|featLogStart)),
		state(preCopy), cmd(cmdMigDataRead, u32(4104, 4096)), state(stopCopy), cmd(cmdMigDataRead, u32(4104, 4096)),
		state(resuming), cmd(cmdMigDataWrite, u32(12, 4), u32(stateEnd)), state(running),
	))
	f.Add(true, cat(
		cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0x1000, 0x1000)), cmd(cmdFeature, u32(40, featureSet|featLogStart), u64(4096), u32(1, 0), u64(0, 1<<20)),
		cmd(cmdFeature, u32(40, featureGet|featLogReport), u64(0x1000, 0x1000, 4096)),
		cmd(cmdDMAUnmap, dmaUnmapBody(48, 1, 0x1000, 0x1000), u64(4096, 8)), cmd(cmdFeature, u32(8, featureSet|featLogStop)),
	))
	f.Add(true, cat(cmd(cmdGetRegionIOFDs, u32(4096, 0, 0, 0)), cmd(cmdSetIRQs, irqBody(20, 4|16, 0, 0, 1)), cmd(cmdReset)))
	f.Add(false, message(cmdVersion, 1, 0, u32(0), []byte(`{"capabilities":{"max_msg_fds":9,"max_dma_maps":1,"pgsizes":4096,"twin_socket":{"supported":true},"migration":{"pgsize":4096}}}`), []byte{0}))
	f.Fuzz(func(t *testing.T, hello bool, stream []byte) {
		b := newAble(t, MigrationCanPreCopy)
		b.events = map[int][]IOEvent{0: {{Off: 0x100, Size: 4, Value: 7}}}
		r := rawClient(t, Config{}, b)
		if hello {
			r.negotiate("")
		}
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			for {
				if _, _, _, err := r.recv(); err != nil {
					return
				}
			}
		}()
		_ = r.sock.Send(stream, nil) // the server may have closed already
		r.sock.Shutdown()
		<-drained
		eventually(t, "device detached", func() bool { return b.table.Len() == 0 && b.attached() == 0 && !b.table.Logging() })
	})
}

// FuzzDecode holds the decoders to their contracts for any payload.
func FuzzDecode(f *testing.F) {
	f.Add(append(u32(0), "{\"capabilities\":{\"max_msg_fds\":16}}\x00"...))
	f.Add(cat(u32(64, 15, 2, 32), u64(bar2Size, 0), u32(1|1<<16, 0, 1, 0), u64(bar2Size/2, bar2Size/2)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var wrong *refusal
		if _, caps, err := parseVersion(b); err != nil && !errors.As(err, &wrong) {
			t.Errorf("parseVersion: %v is not a refusal", err)
		} else if err == nil {
			again := appendVersion(nil, 0, caps)
			if _, _, err := parseVersion(again); err != nil {
				t.Errorf("what it accepted, it refuses when written again: %v", err)
			}
		}
		_, _ = parseRegion(b) // must not panic
		if entries, err := parseIOFDs(b, 3); err == nil {
			for _, e := range entries {
				if e.fd >= 3 || e.shadow >= 3 || e.Size > 8 {
					t.Errorf("it accepts %+v", e)
				}
			}
		}
		if len(b) >= headerSize {
			again := make([]byte, headerSize)
			decodeHeader(b).put(again)
			if !bytes.Equal(again, b[:headerSize]) {
				t.Error("the header does not survive decoding and encoding")
			}
		}
	})
}
