// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// kicks waits for the kick descriptors of all queues.
//
// They are watched edge-triggered and never read: every write to an eventfd is an
// edge. A read could block for ever, on a descriptor that the front end shares with us and
// did not make non-blocking.
type kicks struct {
	epoll, quit int
	done        chan struct{}
}

const quitIndex = -1

// newKicks starts to wait; kick is called with the index of the queue.
func newKicks(kick func(queue int)) (*kicks, error) {
	k := &kicks{epoll: -1, quit: -1, done: make(chan struct{})}
	var err error
	if k.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("vhostuser: epoll_create: %w", err)
	}
	if k.quit, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err == nil {
		err = k.add(quitIndex, k.quit)
	}
	if err != nil {
		unix.Close(k.epoll)
		if k.quit >= 0 {
			unix.Close(k.quit)
		}
		return nil, fmt.Errorf("vhostuser: kick descriptors: %w", err)
	}
	go k.run(kick)
	return k, nil
}

// add watches fd for a queue, del stops that. fd stays the caller's.
func (k *kicks) add(queue, fd int) error {
	return unix.EpollCtl(k.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET&0xffffffff, Fd: int32(queue)})
}

func (k *kicks) del(fd int) {
	// It fails only for what was never added.
	_ = unix.EpollCtl(k.epoll, unix.EPOLL_CTL_DEL, fd, nil)
}

func (k *kicks) run(kick func(queue int)) {
	defer close(k.done)
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := unix.EpollWait(k.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			panic("vhostuser: BUG: epoll_wait: " + err.Error())
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd == quitIndex {
				return
			}
			kick(int(e.Fd))
		}
	}
}

// stop ends the waiting, and returns when kick is not called any more; close
// follows.
func (k *kicks) stop() {
	if _, err := unix.Write(k.quit, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
		panic("vhostuser: BUG: eventfd: " + err.Error())
	}
	<-k.done
}

func (k *kicks) close() {
	unix.Close(k.quit)
	unix.Close(k.epoll)
}
