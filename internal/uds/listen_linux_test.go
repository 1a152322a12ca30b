// SPDX-License-Identifier: Apache-2.0

package uds

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestListen(t *testing.T) {
	dir, err := os.MkdirTemp("", "uds")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another server is live") {
		t.Errorf("a live socket: %v", err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	ln, err = Listen(path) // the socket of a dead server
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	if _, err := Listen(filepath.Join(dir, strings.Repeat("x", 120))); err == nil {
		t.Error("a path of more than 107 bytes")
	}
}

func TestExclusive(t *testing.T) {
	pair := func() (*Conn, *Conn) {
		t.Helper()
		a, b, err := Pair()
		if err != nil {
			t.Fatal(err)
		}
		ca, err := New(a, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		cb, err := New(b, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(ca.Close)
		t.Cleanup(cb.Close)
		return ca, cb
	}
	var e Exclusive
	first, peer := pair()
	second, _ := pair()
	release, ok := e.Claim(first)
	if !ok {
		t.Fatal("a free device is refused")
	}
	if _, ok := e.Claim(second); ok {
		t.Fatal("claimed twice")
	}
	peer.Close()
	got := make(chan bool)
	go func() {
		_, ok := e.Claim(second)
		got <- ok
	}()
	select {
	case <-got:
		t.Error("claimed before the first let go")
	case <-time.After(10 * time.Millisecond):
	}
	release()
	if !<-got {
		t.Error("refused though the first's peer had hung up")
	}
}
