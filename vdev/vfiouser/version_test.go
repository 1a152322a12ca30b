// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// DMA on a second socket: the device reads and writes by messages while the
// connection's own goroutine waits for it, which it cannot with one socket.
func TestTwinSocket(t *testing.T) {
	for _, name := range []string{"twin", "one"} {
		f := &dmaInRegion{fake: newFake(t)}
		offer := DefaultOffer()
		offer.TwinSocket = name == "twin"
		c := attachWith(t, Config{DMATimeout: 200 * time.Millisecond}, f, offer)
		if c.Agreed().TwinSocket != offer.TwinSocket {
			t.Fatalf("%s: agreed %+v", name, c.Agreed())
		}
		if err := c.MapMemory(0x10000, 64<<10, rw, newBytes(64<<10)); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if err := c.WriteRegion(0, 0, []byte{byte(i + 1)}); err != nil {
				t.Fatal(err)
			}
			got, err := f.last()
			if name == "one" {
				if err == nil {
					t.Error("with one socket the device waited for its own reader, and got an answer")
				}
				break
			}
			if want := bytes.Repeat([]byte{byte(i + 1)}, 4); err != nil || !bytes.Equal(got, want) {
				t.Errorf("round %d: the device reads % x, %v, want % x", i, got, err, want)
			}
		}
	}
}

// dmaInRegion writes to 0x10000 and reads it back inside WriteRegion.
type dmaInRegion struct {
	*fake
	mu  sync.Mutex
	got []byte
	err error
}

func (d *dmaInRegion) WriteRegion(_ int, _ uint64, p []byte) error {
	got := make([]byte, 4)
	err := errors.Join(d.table.Write(0x10000, bytes.Repeat(p[:1], 4)), d.table.Read(0x10000, got))
	d.mu.Lock()
	defer d.mu.Unlock()
	d.got, d.err = got, err
	return nil
}

func (d *dmaInRegion) last() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.got, d.err
}

// The client's mistakes on the twin socket, and its end.
func TestTwinSocketErrors(t *testing.T) {
	f := newFake(t)
	sockets := openFiles(t, "socket:")
	r, twin := twinClient(t, f)
	r.send(message(cmdDMAMap, 2, 0, dmaMapRequest(0x1000, 0x1000, rw, 0)))
	r.mustRecv()
	r.send(message(cmdReset, 3, 0))
	r.mustRecv()
	// A command here is refused, an answer to nothing dropped; both leave it in step.
	twin.send(message(cmdReset, 4, 0))
	if h, _ := twin.mustRecv(); h.id != 4 || h.errno != uint32(unix.EINVAL) {
		t.Errorf("a command on the twin socket: %+v", h)
	}
	twin.send(message(cmdReset, 4, flagNoReply))
	twin.send(message(cmdDMARead, 77, flagReply, u64(0, 4), u32(0)), int(memfd(t, 4096).Fd()))
	result := make(chan error, 1)
	p := make([]byte, 4)
	go func() { result <- f.table.Read(0x1000, p) }()
	h, body := twin.mustRecv()
	if h.command != cmdDMARead {
		t.Fatalf("%+v on the twin socket, want DMA_READ", h)
	}
	twin.send(message(cmdDMARead, h.id, flagReply, body, []byte("data")))
	if err := <-result; err != nil || string(p) != "data" {
		t.Errorf("%q, %v", p, err)
	}
	if diff := cmp.Diff([]string{"reset"}, f.logged()); diff != "" {
		t.Errorf("device calls (-want +got):\n%s", diff)
	}

	// Out of step: the whole connection ends, and what waited fails.
	go func() { result <- f.table.Read(0x1000, p) }()
	twin.mustRecv()
	twin.send(edited(cmdDMARead, 4, 15))
	if err := <-result; !errors.Is(err, errDetached) {
		t.Errorf("the access under way: %v, want %v", err, errDetached)
	}
	if _, _, _, err := r.recv(); err == nil {
		t.Error("the main socket is still served")
	}
	eventually(t, "device detached", func() bool { return f.table.Len() == 0 })
	r.sock.Close()
	twin.sock.Close()
	eventually(t, "sockets closed", func() bool { return openFiles(t, "socket:") <= sockets })
}

// twinClient negotiates a twin socket.
func twinClient(t *testing.T, b Backend) (main, twin *raw) {
	t.Helper()
	main = rawClient(t, Config{DMATimeout: 2 * time.Second}, b)
	main.send(message(cmdVersion, 1, 0, u32(0), []byte(`{"capabilities":{"twin_socket":{"supported":true}}}`), []byte{0}))
	h, body, fds := main.recvFDs()
	if want := `{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}`; h.flags != flagReply || len(fds) != 1 || string(body[4:len(body)-1]) != want {
		t.Fatalf("%+v, %d descriptors, %q", h, len(fds), body)
	}
	return main, &raw{t, socketOf(t, fds[0])}
}

// The server's part of VERSION: only what was offered is answered, with values within the offer.
func TestVersionReply(t *testing.T) {
	qemu := `"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096,` +
		`"migration":{"pgsize":4096,"max_bitmap_size":268435456},"write_multiple":true`
	for _, tt := range []struct{ offer, want string }{
		{``, ``},
		{`"max_msg_fds":1`, `"max_msg_fds":16`},
		{`"max_data_xfer_size":5`, `"max_data_xfer_size":1048576`},
		{`"max_dma_maps":7`, `"max_dma_maps":7`},
		{`"max_dma_maps":70000`, `"max_dma_maps":70000`},
		{`"max_dma_maps":2000000`, `"max_dma_maps":1048576`},
		{`"pgsizes":4608`, `"pgsizes":4096`},
		{`"pgsizes":2101248`, `"pgsizes":2101248`},
		{`"write_multiple":true`, `"write_multiple":true`},
		{`"write_multiple":false`, `"write_multiple":false`},
		{`"migration":{}`, `"migration":{}`},
		{`"migration":{"pgsize":512}`, `"migration":{"pgsize":4096}`},
		{`"migration":{"pgsize":2097152}`, `"migration":{"pgsize":2097152}`},
		{`"migration":{"max_bitmap_size":8}`, `"migration":{"max_bitmap_size":8}`},
		{`"migration":{"max_bitmap_size":268435456}`, `"migration":{"max_bitmap_size":33554432}`},
		{`"twin_socket":{"supported":true}`, `"twin_socket":{"supported":true,"fd_index":0}`},
		{`"twin_socket":{"supported":true},"max_msg_fds":0`, `"max_msg_fds":16`},
		{`"twin_socket":{"supported":false}`, ``},
		{`"twin_socket":{}`, ``},
		{`"unknown":{"x":1}`, ``},
		{qemu, `"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096,` +
			`"write_multiple":true,"migration":{"pgsize":4096,"max_bitmap_size":33554432}`},
	} {
		r := rawClient(t, Config{}, newAble(t, 0))
		body := r.negotiate(`{"capabilities":{` + tt.offer + `}}`)
		if got, want := string(body[4:]), `{"capabilities":{`+tt.want+"}}\x00"; got != want {
			t.Errorf("%s\n gives %s\nwant   %s", tt.offer, got, want)
		}
		if len(body)+headerSize > 200 {
			t.Errorf("%s: a reply of %d bytes; QEMU takes 214", tt.offer, len(body)+headerSize)
		}
	}
	// Without migration and a log there is nothing to say about them.
	r := rawClient(t, Config{}, newFake(t))
	if body := r.negotiate(`{"capabilities":{` + qemu + `}}`); bytes.Contains(body, []byte("migration")) {
		t.Errorf("a device without migration answers %s", body)
	}
}

// What VERSION agreed on is kept to.
func TestVersionIsKept(t *testing.T) {
	a := newAble(t, 0)
	c := attachWith(t, Config{}, a, Offer{MaxMsgFDs: 1, MaxDMAMaps: 2, PageSizes: 1 << 13, MaxBitmapSize: 16})
	file := memfd(t, 1<<20)
	check := func(what string, err error, want unix.Errno) {
		t.Helper()
		if want == ok && err != nil || want != ok && !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	check("a map of half a page", c.MapDMA(0, 4096, rw, file, 0), unix.EINVAL)
	check("a map at half a page", c.MapDMA(4096, 8192, rw, file, 0), unix.EINVAL)
	check("a map from half a page on", c.MapDMA(0, 8192, rw, file, 4096), unix.EINVAL)
	check("the first map", c.MapDMA(0, 8192, rw, file, 8192), ok)
	check("the second map", c.MapMemory(8192, 8192, rw, newBytes(8192)), ok)
	check("one too many", c.MapDMA(16384, 8192, rw, file, 0), unix.EINVAL)
	check("an unmap", c.UnmapDMA(0, 8192), ok)
	check("there is room again", c.MapDMA(16384, 8192, rw, file, 0), ok)
	if _, err := c.StartLog(4096); err != nil {
		t.Fatal(err)
	}
	_, err := c.ReportDirty(0, 128*4096, 4096)
	check("a bitmap of 16 bytes", err, ok)
	_, err = c.ReportDirty(0, 129*4096, 4096)
	check("a bitmap of 24 bytes", err, unix.EINVAL)
	if err := c.WriteMulti([]MultiWrite{{0, 0, []byte{1}}}); err == nil {
		t.Error("several writes in a message that the server did not agree to")
	}

	// A client that takes no descriptors is not told of memory that it could map.
	c = attachWith(t, Config{}, a, Offer{})
	if r, err := c.RegionInfo(2); err != nil || r.Flags&RegionMmap == 0 {
		t.Errorf("one descriptor is what a client takes that says nothing: %+v, %v", r, err)
	} else {
		r.File.Close()
	}
	r := rawClient(t, Config{}, a)
	r.negotiate(`{"capabilities":{"max_msg_fds":0}}`)
	r.send(message(cmdGetRegionInfo, 2, 0, u32(64, 0, 2, 0), u64(0, 0)))
	if _, body, nfds, err := r.recv(); err != nil || nfds != 0 || RegionFlags(order.Uint32(body[4:]))&(RegionMmap|regionCaps) != 0 {
		t.Errorf("%d descriptors, % x, %v", nfds, body, err)
	}
}

// Replies to VERSION that a client does not take.
func TestVersionReplyRefused(t *testing.T) {
	for _, tt := range []struct {
		name, reply string
		minor       uint16
		offer       Offer
	}{
		{"a minor version that was not offered", `{}`, 1, Offer{}},
		{"broken JSON", `{`, 0, Offer{}},
		{"more ranges than offered", `{"capabilities":{"max_dma_maps":3}}`, 0, Offer{MaxDMAMaps: 2}},
		{"a page size that was not offered", `{"capabilities":{"pgsizes":8192}}`, 0, Offer{PageSizes: 4096}},
		{"several writes that were not offered", `{"capabilities":{"write_multiple":true}}`, 0, Offer{}},
		{"a twin socket that was not offered", `{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}`, 0, Offer{}},
		{"a twin socket that is not there", `{"capabilities":{"twin_socket":{"supported":true,"fd_index":0}}}`, 0, Offer{TwinSocket: true}},
		{"a twin socket without its number", `{"capabilities":{"twin_socket":{"supported":true}}}`, 0, Offer{TwinSocket: true}},
	} {
		near, far := pair(t)
		server := &raw{t, socketFrom(t, near)}
		done := make(chan struct{})
		go func() {
			defer close(done)
			if _, _, _, err := server.recv(); err != nil {
				return
			}
			body := fmt.Appendf(order.AppendUint16([]byte{0, 0}, tt.minor), "%s\x00", tt.reply)
			_ = server.sock.Send(message(cmdVersion, 1, flagReply, body), nil) // the client may be gone
		}()
		if c, err := NewClientWith(far, tt.offer); err == nil {
			t.Errorf("%s: accepted", tt.name)
			c.Close()
		}
		<-done
	}
}
