// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"npuemu/internal/uds"
)

// backChannel sends our own requests. A goroutine of its own does it, one request at a
// time: the front end may be waiting for the connection's goroutine while we
// wait for its answer.
type backChannel struct {
	s    *Server
	wake chan struct{} // capacity 1: there is something to send

	mu       sync.Mutex
	sock     *uds.Conn // guarded by mu; nil until SET_BACKEND_REQ_FD
	protocol uint64    // protocol features accepted; guarded by mu
	config   bool      // a change to tell; guarded by mu
	mapped   func()    // shared memory is to be mapped, and then this is called; guarded by mu
	closed   bool      // guarded by mu
	done     chan struct{}
}

func newBackChannel(s *Server) *backChannel {
	return &backChannel{s: s, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// adopt takes over fd, a connected UNIX stream socket, and starts to send.
func (b *backChannel) adopt(fd int, protocol uint64) error {
	file := os.NewFile(uintptr(fd), "back-end channel")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return refuse(unix.EINVAL, "SET_BACKEND_REQ_FD: %v; pass a connected UNIX stream socket", err)
	}
	nc, ok := conn.(*net.UnixConn)
	if !ok || nc.LocalAddr().Network() != "unix" {
		_ = conn.Close() // it was never used
		return refuse(unix.EINVAL, "SET_BACKEND_REQ_FD: not a UNIX stream socket")
	}
	sock, err := uds.New(nc, sendTimeout)
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sock != nil {
		sock.Close()
		return refuse(unix.EBUSY, "SET_BACKEND_REQ_FD: there is a back-end channel already")
	}
	b.sock, b.protocol = sock, protocol
	go b.run(sock)
	b.kickLocked()
	return nil
}

func (b *backChannel) configChanged() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.config = true
	b.kickLocked()
}

// mapWindows makes the shared memory appear in the guest, and calls mapped when it
// has, or never will. Without a channel it reports false.
func (b *backChannel) mapWindows(mapped func()) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.sock == nil {
		return false
	}
	b.mapped = mapped
	b.kickLocked()
	return true
}

func (b *backChannel) kickLocked() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// close ends the channel, and returns when nothing of it runs any more.
func (b *backChannel) close() {
	b.mu.Lock()
	b.closed = true
	sock := b.sock
	b.kickLocked()
	b.mu.Unlock()
	if sock != nil {
		sock.Shutdown()
		<-b.done
		sock.Close()
	}
}

func (b *backChannel) run(sock *uds.Conn) {
	defer close(b.done)
	for range b.wake {
		b.mu.Lock()
		config, mapped, closed, protocol := b.config, b.mapped, b.closed, b.protocol
		b.config, b.mapped = false, nil
		b.mu.Unlock()
		if closed {
			return
		}
		var err error
		if mapped != nil {
			for _, m := range b.s.backend.SharedMemory() {
				if err == nil {
					err = b.mapWindow(sock, m, protocol&protoReplyAck != 0)
				}
			}
			mapped()
		}
		if config && err == nil {
			err = b.send(sock, reqConfigChange, nil, false)
		}
		b.mu.Lock()
		closed = b.closed // then an error is no wonder
		b.mu.Unlock()
		if err != nil && !closed {
			b.s.warn("vhost-user back-end channel", slog.Any("rule", err))
		}
	}
}

// mapWindow is SHMEM_MAP of a whole window.
func (b *backChannel) mapWindow(sock *uds.Conn, m SharedMemory, replies bool) error {
	body := make([]byte, 40)
	body[0] = m.ID
	order.PutUint64(body[8:], 0)  // offset in the file
	order.PutUint64(body[16:], 0) // offset in the window
	order.PutUint64(body[24:], m.Size)
	order.PutUint64(body[32:], 3) // read and write
	return b.send(sock, reqShmemMap, body, replies, int(m.File.Fd()))
}

// send sends one request and, if wanted, waits for the answer.
func (b *backChannel) send(sock *uds.Conn, req request, body []byte, answer bool, fds ...int) error {
	h := header{request: req, flags: flagVersion, size: uint32(len(body))}
	if answer {
		h.flags |= flagNeedReply
	}
	msg := make([]byte, headerSize, headerSize+len(body))
	h.put(msg)
	if err := sock.Send(append(msg, body...), nil, fds...); err != nil || !answer {
		return err
	}
	var rights uds.Rights // none are kept
	defer rights.Close()
	var reply [headerSize + 8]byte
	if err := sock.Recv(reply[:], &rights); err != nil {
		return err
	}
	got := header{request: request(order.Uint32(reply[:])), flags: order.Uint32(reply[4:]), size: order.Uint32(reply[8:])}
	if want := (header{request: req, flags: flagVersion | flagReply, size: 8}); got != want {
		return fmt.Errorf("vhostuser: answer %+v to our request %d; expected %+v", got, req, want)
	}
	if v := order.Uint64(reply[headerSize:]); v != 0 {
		return fmt.Errorf("vhostuser: the front end refuses our request %d with %d", req, v)
	}
	return nil
}
