// SPDX-License-Identifier: Apache-2.0

package uds

import (
	"errors"
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
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v; only its owner may connect", st.Mode(), err)
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
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("a file that is not a socket was touched: %q, %v", b, err)
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

func TestAccess(t *testing.T) {
	a, b, err := Pair() // both ends are this process
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	c, err := New(a, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	for _, tt := range []struct {
		name   string
		access Access
		denied bool
	}{
		{"no rule", Access{}, false},
		{"user", Access{Users: []uint32{uid + 1, uid}}, false},
		{"another user", Access{Users: []uint32{uid + 1}}, true},
		{"group", Access{Groups: []uint32{gid}}, false},
		{"another group", Access{Groups: []uint32{gid + 1}}, true},
		{"user, though not the group", Access{Users: []uint32{uid}, Groups: []uint32{gid + 1}}, false},
		{"group, though not the user", Access{Users: []uint32{uid + 1}, Groups: []uint32{gid}}, false},
		{"neither", Access{Users: []uint32{uid + 1}, Groups: []uint32{gid + 1}}, true},
	} {
		peer, err := tt.access.Check(c)
		var denied *Denied
		if errors.As(err, &denied) != tt.denied || err != nil && !tt.denied {
			t.Errorf("%s: %v, denied should be %t", tt.name, err, tt.denied)
		}
		if peer.Uid != uid || peer.Gid != gid || peer.Pid != int32(os.Getpid()) {
			t.Errorf("%s: peer %+v is not this process", tt.name, peer)
		}
	}
}
