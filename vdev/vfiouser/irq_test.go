// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"npuemu/internal/eventfd"
)

// allIRQs is a fake with every type of interrupt, and an INTx as devices have it: it
// masks itself when it fires, and fires again when it is unmasked while its line is up.
type allIRQs struct {
	*fake

	mu     sync.Mutex
	line   bool // INTx is asserted
	masked bool
}

func (a *allIRQs) IRQs() []IRQ {
	return []IRQ{
		{Count: 1, Flags: IRQEventfd | IRQMaskable | IRQAutomasked},
		{Count: 8, Flags: IRQEventfd | IRQMaskable | IRQNoResize},
		{Count: 32, Flags: IRQEventfd | IRQMaskable},
		{Count: 1, Flags: IRQEventfd},
		{Count: 1, Flags: IRQEventfd},
	}
}

// set moves the line of INTx.
func (a *allIRQs) set(up bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.line = up
	a.fireLocked()
}

func (a *allIRQs) fireLocked() {
	if a.line && !a.masked {
		a.masked = true
		a.raise(IRQINTx, 0)
	}
}

func (a *allIRQs) MaskVector(index, vector int, masked bool) {
	a.fake.MaskVector(index, vector, masked)
	if index == IRQINTx {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.masked = masked
		a.fireLocked()
	}
}

// Every form of SET_IRQS on every type: what the device is told, or that it is refused.
func TestSetIRQsForms(t *testing.T) {
	for index, count := range []int{1, 8, 32, 1, 1} {
		for _, action := range []IRQAction{IRQMask, IRQUnmask, IRQTrigger} {
			for _, form := range []string{"none", "bool", "eventfd"} {
				t.Run(fmt.Sprintf("type %d, action %#x, %s", index, action, form), func(t *testing.T) {
					a := &allIRQs{fake: newFake(t)}
					c := attach(t, Config{}, a)
					last := count - 1
					set := IRQSet{Index: index, Start: last, Count: 1, Action: action}
					fd := newEventfd(t)
					switch form {
					case "bool":
						set.Start, set.Count, set.Bools = 0, count, make([]byte, count)
						set.Bools[last] = 1
					case "eventfd":
						set.FDs = []*eventfd.FD{fd}
					}
					err := c.SetIRQs(set)
					if action != IRQTrigger && index >= IRQErr {
						if !errors.Is(err, unix.EINVAL) || a.logged() != nil || a.attached() != 0 {
							t.Errorf("masking what cannot be masked: %v, %q", err, a.logged())
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					want := fmt.Sprintf("mask %d/%d %v", index, last, action == IRQMask)
					if action == IRQTrigger {
						want = fmt.Sprintf("trigger %d/%d", index, last)
					}
					if form == "eventfd" && action == IRQTrigger {
						if !a.raise(index, last) || fd.Wait(time.Second) != 1 {
							t.Error("the eventfd does not tell of the interrupt")
						}
						set.FDs, set.Detach = nil, true
						if err := c.SetIRQs(set); err != nil || a.raise(index, last) {
							t.Errorf("detached: %v, and it is still there", err)
						}
						return
					}
					if form == "eventfd" { // the client signals: linux/vfio.h, irqfds
						if a.logged() != nil {
							t.Errorf("before the signal: %q", a.logged())
						}
						fd.Signal()
						eventually(t, "the signal", func() bool { return a.logged() != nil })
					}
					if diff := cmp.Diff([]string{want}, a.logged()); diff != "" {
						t.Errorf("calls (-want +got):\n%s", diff)
					}
					if form == "eventfd" {
						if n := fd.Wait(0); n != 1 {
							t.Errorf("the server wrote to it, or read it: count %d", n)
						}
						set.FDs, set.Detach = nil, true
						if err := c.SetIRQs(set); err != nil {
							t.Fatal(err)
						}
						fd.Signal()
						if err := c.Reset(); err != nil { // signals come before it
							t.Fatal(err)
						}
						if diff := cmp.Diff([]string{want, "reset"}, a.logged()); diff != "" {
							t.Errorf("after detaching (-want +got):\n%s", diff)
						}
					}
				})
			}
		}
	}
}

// An INTx that KVM acknowledges by eventfd: the line is up, the device fires once; the
// signal unmasks, and it fires again as long as the line is up.
func TestUnmaskBySignal(t *testing.T) {
	a := &allIRQs{fake: newFake(t)}
	c := attach(t, Config{}, a)
	fired, ack := newEventfd(t), newEventfd(t)
	if err := errors.Join(
		c.SetVectors(IRQINTx, 0, fired),
		c.SetIRQs(IRQSet{Index: IRQINTx, Count: 1, Action: IRQUnmask, FDs: []*eventfd.FD{ack}}),
	); err != nil {
		t.Fatal(err)
	}
	a.set(true)
	for i := range 5 {
		if n := fired.Wait(time.Second); n != 1 {
			t.Fatalf("round %d: %d interrupts", i, n)
		}
		if n := fired.Wait(5 * time.Millisecond); n != 0 {
			t.Fatalf("round %d: %d more before the acknowledgement", i, n)
		}
		ack.Signal()
	}
	if n := fired.Wait(time.Second); n != 1 {
		t.Fatal("no interrupt while the line is up")
	}
	a.set(false)
	ack.Signal()
	if n := fired.Wait(20 * time.Millisecond); n != 0 {
		t.Errorf("%d interrupts with the line down", n)
	}
	a.set(true)
	if n := fired.Wait(time.Second); n != 1 {
		t.Error("the acknowledgement did not unmask")
	}

	// Replaced: the old one is forgotten, the new one counts.
	other := newEventfd(t)
	if err := c.SetIRQs(IRQSet{Index: IRQINTx, Count: 1, Action: IRQUnmask, FDs: []*eventfd.FD{other}}); err != nil {
		t.Fatal(err)
	}
	ack.Signal()
	if n := fired.Wait(20 * time.Millisecond); n != 0 {
		t.Errorf("%d interrupts by an eventfd that was replaced", n)
	}
	other.Signal()
	if n := fired.Wait(time.Second); n != 1 {
		t.Error("the new eventfd does not unmask")
	}
	// Disabling the type ends it all.
	if err := c.ClearVectors(IRQINTx); err != nil {
		t.Fatal(err)
	}
	before := len(a.logged())
	other.Signal()
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	if got := a.logged()[before:]; len(got) != 1 {
		t.Errorf("after disabling the type: %q", got)
	}
}

// An eventfd that was signalled before it was passed counts at once, as for an irqfd.
func TestUnmaskPending(t *testing.T) {
	a := &allIRQs{fake: newFake(t)}
	c := attach(t, Config{}, a)
	ack := newEventfd(t)
	ack.Signal()
	if err := c.SetIRQs(IRQSet{Index: IRQINTx, Count: 1, Action: IRQUnmask, FDs: []*eventfd.FD{ack}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the signal of before", func() bool { return a.logged() != nil })
}

// A client that passes other things than eventfds, keeps one readable for ever, or reads it
// itself, holds nobody up: the next message is served, and the server ends.
func TestHostileSignals(t *testing.T) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	timer, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(timer)
	blocking, err := unix.Eventfd(1<<20, unix.EFD_CLOEXEC|unix.EFD_SEMAPHORE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(blocking)
	// An epoll descriptor that is readable, and stays so.
	ready := newEventfd(t)
	ready.Signal()
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, ready.Fd(), &unix.EpollEvent{Events: unix.EPOLLIN}); err != nil {
		t.Fatal(err)
	}
	a := &allIRQs{fake: newFake(t)}
	r := rawClient(t, Config{}, a)
	r.negotiate("")
	for i, fd := range []int{epoll, timer, blocking, blocking} {
		r.send(message(cmdSetIRQs, uint16(i), 0, irqBody(20, 4|16, IRQMSIX, uint32(i), 1)), fd)
		if h, _ := r.mustRecv(); h.flags != flagReply {
			t.Errorf("descriptor %d: %+v", i, h)
		}
	}
	time.Sleep(20 * time.Millisecond)
	calls := len(a.logged())
	if calls > 4 {
		t.Errorf("%d calls for descriptors that were signalled once or never", calls)
	}
	r.send(message(cmdReset, 9, 0))
	if h, _ := r.mustRecv(); h.id != 9 || h.flags != flagReply {
		t.Errorf("%+v", h)
	}
}
