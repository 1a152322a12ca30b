// SPDX-License-Identifier: Apache-2.0

package uds

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func pair(t *testing.T, sendTimeout time.Duration) (a, b *Conn) {
	t.Helper()
	na, nb, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if a, err = New(na, sendTimeout); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	if b, err = New(nb, sendTimeout); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return a, b
}

func TestSendAndRecv(t *testing.T) {
	a, b := pair(t, time.Second)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	head, tail := []byte("head"), bytes.Repeat([]byte("x"), 1<<20) // larger than any socket buffer
	sent := make(chan error, 1)
	go func() {
		sent <- errors.Join(a.Send(head, tail, int(w.Fd())), a.Send([]byte("next"), nil, int(w.Fd()), int(w.Fd())))
		a.Shutdown()
	}()
	rights := Rights{Limit: 1}
	got := make([]byte, len(head)+len(tail))
	if err := b.Recv(got, &rights); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[:4], head) || !bytes.Equal(got[4:], tail) {
		t.Error("received other bytes than were sent")
	}
	if rights.Len() != 1 || rights.Lost() != 0 {
		t.Errorf("%d descriptors, %d lost, want 1 and 0", rights.Len(), rights.Lost())
	}
	if _, err := unix.Write(rights.Take(0), []byte("p")); err != nil {
		t.Errorf("the descriptor does not work: %v", err)
	}
	rights.Close()
	if err := b.Recv(got[:4], &rights); err != nil {
		t.Fatal(err)
	}
	if rights.Len() != 2 || rights.Lost() != 1 {
		t.Errorf("%d descriptors, %d lost, want 2 and 1: the limit is 1", rights.Len(), rights.Lost())
	}
	rights.Close()
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if err := b.Recv(got[:1], &rights); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v, want %v", err, io.EOF)
	}
}

func TestCutMessage(t *testing.T) {
	a, b := pair(t, time.Second)
	if err := a.Send([]byte("abc"), nil); err != nil {
		t.Fatal(err)
	}
	if b.HungUp() {
		t.Error("the peer is said to have hung up")
	}
	a.Close()
	if !b.HungUp() {
		t.Error("the peer has hung up")
	}
	if err := b.Recv(make([]byte, 4), &Rights{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Recv = %v, want %v", err, io.ErrUnexpectedEOF)
	}
	if err := a.Send([]byte("x"), nil); !errors.Is(err, ErrClosed) {
		t.Errorf("Send after Close = %v, want %v", err, ErrClosed)
	}
	a.Shutdown()
	a.Close()
}

func TestSendTimesOut(t *testing.T) {
	a, _ := pair(t, 50*time.Millisecond)
	if err := a.Send(make([]byte, 8<<20), nil); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("Send to a peer that does not read = %v, want %v", err, unix.EAGAIN)
	}
}

func TestShutdownUnblocks(t *testing.T) {
	a, b := pair(t, time.Minute)
	ended := make(chan error, 2)
	go func() { ended <- a.Send(make([]byte, 8<<20), nil) }()
	go func() { ended <- a.Recv(make([]byte, 1), &Rights{}) }()
	time.Sleep(20 * time.Millisecond)
	a.Shutdown()
	for range 2 {
		select {
		case err := <-ended:
			if err == nil {
				t.Error("a cut transfer succeeded")
			}
		case <-time.After(5 * time.Second):
			t.Fatal("still blocked")
		}
	}
	_ = b
}
