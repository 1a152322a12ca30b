// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"npuemu/internal/eventfd"
)

// watch calls functions when a client signals eventfds: to unmask an interrupt, or to
// write a register. One goroutine waits for all of them.
//
// A client's descriptor may be anything, and shared with others who read it. So it is
// never read: epoll reports each signal once (EPOLLET), and several in a row perhaps
// as one.
type watch struct {
	epoll int
	stop  *eventfd.FD   // signalled to end run
	done  chan struct{} // closed when run has ended
	turn  *sync.Mutex   // the connection's: held while functions are called

	calls map[int32]func() // guarded by turn; by key
	next  int32            // guarded by turn; the last key, never used again
}

// newWatch starts a watch. Whoever calls holds turn.
func newWatch(turn *sync.Mutex) (*watch, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	w := &watch{epoll: epoll, done: make(chan struct{}), turn: turn, calls: make(map[int32]func())}
	if w.stop, err = eventfd.New(); err == nil {
		if err = w.control(unix.EPOLL_CTL_ADD, w.stop, 0, 0); err != nil {
			w.stop.Close()
		}
	}
	if err != nil {
		unix.Close(epoll)
		return nil, err
	}
	go w.run()
	return w, nil
}

func (w *watch) control(op int, fd *eventfd.FD, flags uint32, key int32) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN | flags, Fd: key}
	if err := unix.EpollCtl(w.epoll, op, fd.Fd(), &ev); err != nil {
		return fmt.Errorf("epoll: %w", err)
	}
	return nil
}

// add has f called, with turn held, whenever fd is signalled, and at once if it has
// been. fd stays the caller's, who removes it before closing it. The caller holds turn.
func (w *watch) add(fd *eventfd.FD, f func()) (key int32, err error) {
	w.next++
	if err := w.control(unix.EPOLL_CTL_ADD, fd, unix.EPOLLET, w.next); err != nil {
		return 0, err
	}
	w.calls[w.next] = f
	return w.next, nil
}

// remove ends what add began. The caller holds turn.
func (w *watch) remove(fd *eventfd.FD, key int32) {
	delete(w.calls, key)
	// It fails only if the descriptor is not there any more.
	_ = w.control(unix.EPOLL_CTL_DEL, fd, 0, 0)
}

// run waits for signals. It takes them only with turn held, as pending does: a signal
// is either still there for pending to see, or served.
func (w *watch) run() {
	defer close(w.done)
	for {
		p := []unix.PollFd{{Fd: int32(w.epoll), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && err != unix.EINTR {
			panic("vfiouser: BUG: poll of an epoll descriptor of ours: " + err.Error())
		}
		w.turn.Lock()
		stopped := w.pending()
		w.turn.Unlock()
		if stopped {
			return
		}
	}
}

// pending serves the signals that are there, and reports whether stop was one. The
// caller holds turn.
func (w *watch) pending() (stopped bool) {
	var events [32]unix.EpollEvent
	// All that were there before; who signals without end does not keep us here.
	for left := len(w.calls) + 1; left > 0; {
		n, err := unix.EpollWait(w.epoll, events[:], 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			panic("vfiouser: BUG: epoll descriptor of ours: " + err.Error())
		}
		for _, ev := range events[:n] {
			if ev.Fd == 0 {
				stopped = true
			} else if f := w.calls[ev.Fd]; f != nil {
				f()
			}
		}
		if left -= n; n < len(events) {
			break
		}
	}
	return stopped
}

// close ends the watch: no function is called any more. The caller does not hold turn.
// What was added may be removed afterwards.
func (w *watch) close() {
	w.stop.Signal()
	<-w.done
	w.stop.Close()
	unix.Close(w.epoll)
	w.epoll = -1
}

// watched is an eventfd under watch.
type watched struct {
	fd  *eventfd.FD
	key int32
}

// observe has f called when fd is signalled; fd is c's from then on, to be passed to
// ignore. After an error it is the caller's.
func (c *conn) observe(fd *eventfd.FD, f func()) (watched, error) {
	if c.watch == nil {
		w, err := newWatch(&c.turn)
		if err != nil {
			return watched{}, err
		}
		c.watch = w
	}
	key, err := c.watch.add(fd, f)
	return watched{fd, key}, err
}

// ignore undoes observe and closes the eventfd.
func (c *conn) ignore(w watched) {
	c.watch.remove(w.fd, w.key)
	w.fd.Close()
}

// irqEvent names the eventfd with which the client masks or unmasks a vector. That it is
// the client who signals is linux/vfio.h's rule (irqfds); KVM does it, for an INTx
// that was acknowledged, without a message.
type irqEvent struct {
	index, vector int
	action        uint32 // setActionMask or setActionUnmask
}

// setEvents watches fds for a range of vectors, or nothing where they are nil, instead
// of what was watched. It owns fds. After an error nothing has changed.
func (c *conn) setEvents(index, start int, action uint32, fds []*eventfd.FD) error {
	fresh := make([]watched, len(fds))
	for i, fd := range fds {
		if fd == nil {
			continue
		}
		w, err := c.observe(fd, func() { c.s.backend.MaskVector(index, start+i, action == setActionMask) })
		if err != nil {
			for j, fd := range fds {
				if j < i {
					c.ignore(fresh[j])
				} else {
					fd.Close()
				}
			}
			errno := errnoOf(err)
			if errno == unix.EPERM || errno == unix.ELOOP { // epoll's words for "nothing to wait for"
				errno = unix.EINVAL
			}
			return refuse(errno, "DEVICE_SET_IRQS: descriptor %d cannot be watched: %v; pass an eventfd", i, err)
		}
		fresh[i] = w
	}
	for i, w := range fresh {
		c.dropEvent(irqEvent{index, start + i, action})
		if w.fd != nil {
			c.events[irqEvent{index, start + i, action}] = w
		}
	}
	return nil
}

func (c *conn) dropEvent(e irqEvent) {
	if w, ok := c.events[e]; ok {
		c.ignore(w)
		delete(c.events, e)
	}
}

// dropEvents ends the masking and unmasking by signals of an interrupt type.
func (c *conn) dropEvents(index int) {
	for e := range c.events {
		if e.index == index {
			c.dropEvent(e)
		}
	}
}
