// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/warnings"
)

// toucher is a fake that keeps what UseTouch gives it.
type toucher struct {
	*fake
	use chan func(addr iova.Addr, access iova.Prot, b byte) error // of one element
}

func newToucher(t testing.TB) *toucher {
	return &toucher{newFake(t), make(chan func(iova.Addr, iova.Prot, byte) error, 1)}
}

func (t *toucher) UseTouch(touch func(addr iova.Addr, access iova.Prot, b byte) error) {
	t.use <- touch
}

func (t *toucher) touch(addr iova.Addr, access iova.Prot, b byte) error {
	touch := <-t.use
	t.use <- touch
	return touch(addr, access, b)
}

// touched attaches a client that maps a range which only messages reach, and so can be touched.
func touched(t *testing.T, cfg Config) (*raw, *toucher) {
	t.Helper()
	f := newToucher(t)
	r := rawClient(t, cfg, f)
	r.negotiate("")
	r.mapROM()
	return r, f
}

func (r *raw) mapROM() {
	r.t.Helper()
	r.send(message(cmdDMAMap, 2, 0, dmaMapRequest(0xc0000, 0x1000, iova.Read, 0)))
	if h, _ := r.mustRecv(); h.flags != flagReply {
		r.t.Fatalf("DMA_MAP: %+v", h)
	}
}

// inStep expects that the next message of the server is the reply to the next command.
func (r *raw) inStep() {
	r.t.Helper()
	r.send(message(cmdReset, 77, 0))
	if h, _ := r.mustRecv(); h.id != 77 || h.flags != flagReply {
		r.t.Fatalf("answer to a reset: %+v", h)
	}
}

// goTouch touches in a goroutine, because the client is this one.
func goTouch(f *toucher, addr iova.Addr, access iova.Prot, b byte) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f.touch(addr, access, b) }()
	return done
}

func TestTouch(t *testing.T) {
	r, f := touched(t, Config{DMATimeout: 300 * time.Millisecond})
	const at = 0xffff_ffff_a123
	reply := func(h header, flags, errno uint32, body ...[]byte) {
		msg := message(h.command, h.id, flagReply|flags, body...)
		order.PutUint32(msg[12:], errno)
		r.send(msg)
	}
	refused := func(errno uint32) func(h header, body []byte) {
		return func(h header, _ []byte) { reply(h, flagError, errno) }
	}
	for _, tt := range []struct {
		name   string
		access iova.Prot
		reply  func(h header, body []byte)
		is     error  // what the error is, if not nil
		says   string // what it says; "" if there is none
	}{
		{"QEMU, read", iova.Read, refused(19), unix.ENODEV, "refused DMA_READ at 0xffffffffa123"},
		{"QEMU, write", iova.Write, refused(19), unix.ENODEV, "refused DMA_WRITE at 0xffffffffa123"},
		{"error without errno", iova.Write, refused(0), nil, "refused"},
		{"memory after all, read", iova.Read, func(h header, b []byte) { reply(h, 0, 0, b[:16], []byte{9}) }, nil, ""},
		{"memory after all, write", iova.Write, func(h header, b []byte) { reply(h, 0, 0, b[:16]) }, nil, ""},
		{"short", iova.Read, func(h header, b []byte) { reply(h, 0, 0, b[:16]) }, nil, "16 bytes, want 17"},
		{"long", iova.Write, func(h header, b []byte) { reply(h, 0, 0, b) }, nil, "17 bytes, want 16"},
		{"other address", iova.Write, func(h header, _ []byte) { reply(h, 0, 0, u64(0, 1)) }, nil, "names 1 bytes at 0x0"},
		{"a command first", iova.Read, func(h header, _ []byte) { r.readRegister(); reply(h, flagError, 19) }, unix.ENODEV, "refused"},
	} {
		done := goTouch(f, at, tt.access, 0x5a)
		h, body := r.mustRecv()
		want, cmd := u64(at, 1), cmdDMARead
		if tt.access == iova.Write {
			want, cmd = append(want, 0x5a), cmdDMAWrite
		}
		if h.command != cmd || h.flags != 0 || !bytes.Equal(body, want) {
			t.Fatalf("%s: message %+v %x, want %v of one byte", tt.name, h, body, cmd)
		}
		tt.reply(h, body)
		err := <-done
		if tt.is != nil && !errors.Is(err, tt.is) || tt.says == "" != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want %v, %q", tt.name, err, tt.is, tt.says)
		}
	}
	r.inStep()

	// A client that does not answer is not asked again, until it shows that it does.
	done := goTouch(f, at, iova.Read, 0)
	h, body := r.mustRecv()
	if err := <-done; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("no reply: %v", err)
	}
	if err := f.touch(at, iova.Read, 0); !errors.Is(err, ErrTouchUnserved) {
		t.Errorf("touch after one without a reply: %v, want %v", err, ErrTouchUnserved)
	}
	reply(h, 0, 0, body, []byte{1}) // late, dropped
	r.inStep()
	r.send(message(cmdDMAMap, 2, 0, dmaMapRequest(0xd0000, 0x1000, iova.Read, 0)))
	r.mustRecv()
	done = goTouch(f, at, iova.Read, 0)
	h, _ = r.mustRecv()
	reply(h, flagError, 19)
	if err := <-done; !errors.Is(err, unix.ENODEV) {
		t.Errorf("touch of a client that serves again: %v", err)
	}
}

// readRegister reads a register, which the server answers while it waits for a reply.
func (r *raw) readRegister() {
	r.t.Helper()
	r.send(message(cmdRegionRead, 78, 0, u64(0), u32(0, 4)))
	if h, _ := r.mustRecv(); h.id != 78 || h.flags != flagReply {
		r.t.Fatalf("answer to a register read: %+v", h)
	}
}

// A client is touched only when it has shown that it answers DMA messages: one that does not
// takes them for replies.
func TestTouchUnserved(t *testing.T) {
	f := newToucher(t)
	r := rawClient(t, Config{}, f)
	r.negotiate("")
	r.send(message(cmdDMAMap, 2, 0, dmaMapRequest(0, 4096, rw, 0)), int(memfd(t, 4096).Fd()))
	r.mustRecv()
	if err := f.touch(0x1000, iova.Read, 0); !errors.Is(err, ErrTouchUnserved) {
		t.Errorf("client with shared memory alone: %v, want %v", err, ErrTouchUnserved)
	}
	r.inStep()

	f = newToucher(t)
	r = rawClient(t, Config{}, f)
	r.negotiate(`{"capabilities":{"max_data_xfer_size":0}}`)
	r.mapROM()
	if err := f.touch(0x1000, iova.Read, 0); !errors.Is(err, ErrTouchUnserved) {
		t.Errorf("client that takes no data: %v, want %v", err, ErrTouchUnserved)
	}
	r.inStep()

	f = newToucher(t)
	_, twin := twinClient(t, f)
	done := goTouch(f, 0x1000, iova.Write, 7)
	h, body := twin.mustRecv()
	if !bytes.Equal(body, append(u64(0x1000, 1), 7)) {
		t.Errorf("on the twin socket: %+v %x", h, body)
	}
	twin.send(message(h.command, h.id, flagReply, body[:16]))
	if err := <-done; err != nil {
		t.Errorf("client with a twin socket: %v", err)
	}
}

// A guest that makes the device go wrong all the time does not flood the client.
func TestTouchRate(t *testing.T) {
	r, f := touched(t, Config{})
	for range warnings.Burst {
		done := goTouch(f, 0x5000, iova.Read, 0)
		h, _ := r.mustRecv()
		msg := message(h.command, h.id, flagReply|flagError)
		order.PutUint32(msg[12:], 19)
		r.send(msg)
		if err := <-done; !errors.Is(err, unix.ENODEV) {
			t.Fatal(err)
		}
	}
	start := time.Now()
	if err := f.touch(0x5000, iova.Read, 0); !errors.Is(err, ErrTouchRate) && time.Since(start) < warnings.Every {
		t.Errorf("touch %d: %v, want %v", warnings.Burst+1, err, ErrTouchRate)
	}
}

// The connection's goroutine does not wait for a touch whose reply only it can hand out.
func TestTouchEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		msg  []byte
		want error
	}{
		{"by an unmap around it", message(cmdDMAUnmap, 3, 0, dmaUnmapBody(dmaUnmapSize, 0, 0, 1<<40)), errRevoked},
		{"by an unmap of everything", message(cmdDMAUnmap, 3, 0, dmaUnmapBody(dmaUnmapSize, unmapAll, 0, 0)), errRevoked},
		{"by a reset", message(cmdReset, 3, 0), errRevoked},
		{"when the client goes", nil, errDetached},
	} {
		r, f := touched(t, Config{})
		done := goTouch(f, 0x5000, iova.Write, 1)
		r.mustRecv()
		if tt.msg == nil {
			r.sock.Close()
		} else {
			r.send(tt.msg)
			if h, _ := r.mustRecv(); h.id != 3 || h.flags != flagReply {
				t.Errorf("%s: answer %+v", tt.name, h)
			}
		}
		if err := <-done; !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}
