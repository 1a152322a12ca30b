// SPDX-License-Identifier: Apache-2.0

package uds

import (
	"errors"
	"fmt"
	"net"
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
	ln, err := Listen(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v, %v; only its owner may connect", st.Mode(), err)
	}
	if _, err := Listen(path, nil); err == nil || !strings.Contains(err.Error(), "another server is live") {
		t.Errorf("a live socket: %v", err)
	}
	ln.UnixListener.Close() // as a server that was killed
	next, err := Listen(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	next.Close()
	last, err := Listen(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	next.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("a second Close removes the next server's socket: %v", err)
	}
	last.Close()
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, nil); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file: %v", err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "precious" {
		t.Errorf("a file that is not a socket was touched: %q, %v", b, err)
	}
	for _, path := range []string{"", "@abstract", filepath.Join(dir, strings.Repeat("x", 120)), filepath.Join(dir, "none", "s")} {
		if ln, err := Listen(path, nil); err == nil {
			ln.Close()
			t.Errorf("listens at %q", path)
		}
	}
}

// Names of every length that an address holds can be listened at, of one byte too.
func TestListenLongPath(t *testing.T) {
	for n := 1; n <= 20; n++ {
		dir := t.TempDir()
		if len(dir)+1+n > maxPath {
			t.Skipf("%s is too long for this test", dir)
		}
		dir = filepath.Join(dir, strings.Repeat("d", maxPath-len(dir)-2-n))
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, strings.Repeat("s", n))
		ln, err := Listen(path, nil)
		if err != nil {
			t.Fatalf("a path of %d bytes whose last name has %d: %v", len(path), n, err)
		}
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("beside the socket: %v, %v", left, err)
		}
		ln.Close()
		if ln, err := Listen(path+"s", nil); err == nil {
			ln.Close()
			t.Errorf("listens at a path of %d bytes", maxPath+1)
		}
	}
}

// Whoever sees the socket can connect, and it already has its permissions.
func TestListenIsVisibleWhenReady(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for range 200 {
		seen := make(chan error)
		go func() {
			for {
				st, err := os.Lstat(path)
				if err != nil {
					continue
				}
				c, err := net.Dial("unix", path)
				if err == nil {
					c.Close()
				}
				if st.Mode().Perm() != 0o640 {
					err = errors.Join(err, fmt.Errorf("it has mode %v", st.Mode()))
				}
				seen <- err
				return
			}
		}()
		ln, err := Listen(path, func(name string) error { return os.Chmod(name, 0o640) })
		if err != nil {
			t.Fatal(err)
		}
		if err := <-seen; err != nil {
			t.Fatalf("the socket was seen, but: %v", err)
		}
		ln.Close()
	}
}

// What is there when the socket is ready stays, and what failed leaves nothing.
func TestListenLosesTheRace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	var winner *Listener
	_, err := Listen(path, func(string) (err error) {
		winner, err = Listen(path, nil)
		return err
	})
	if err == nil || !errors.Is(err, os.ErrExist) {
		t.Errorf("the second of two servers: %v", err)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the first of two servers was cut off: %v", err)
	}
	c.Close()
	winner.Close()
	refused := errors.New("refused")
	if _, err := Listen(path, func(string) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("prepare's error: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
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
