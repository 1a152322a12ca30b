// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func echo(args json.RawMessage) (any, error) {
	var a struct{ Text string }
	if err := Decode(args, &a); err != nil {
		return nil, err
	}
	if a.Text == "no" {
		return nil, errors.New("echo: refused")
	}
	return a.Text, nil
}

func server() *Server {
	return &Server{Commands: map[string]Handler{"echo": echo}, Log: slog.New(slog.DiscardHandler)}
}

// start serves at a path until the test ends.
func start(t *testing.T) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "npu")
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, "control")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server().Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})
	return path
}

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestRequests: what a peer sends → what it gets. "" as a reply means that the server hangs up
// without one.
func TestRequests(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"a command", `{"version":1,"command":"echo","args":{"Text":"hi"}}`, `{"version":1,"result":"hi"}`},
		{"no arguments", `{"version":1,"command":"echo"}`, `{"version":1,"result":""}`},
		{"the handler refuses", `{"version":1,"command":"echo","args":{"Text":"no"}}`, `echo: refused`},
		{"unknown argument", `{"version":1,"command":"echo","args":{"Txet":"hi"}}`, `unknown field`},
		{"argument of another type", `{"version":1,"command":"echo","args":{"Text":1}}`, `cannot unmarshal`},
		{"arguments are no object", `{"version":1,"command":"echo","args":[1]}`, `cannot unmarshal`},
		{"empty line", ``, `version 0 is not known: use 1`},
		{"no version", `{"command":"echo"}`, `version 0 is not known: use 1`},
		{"version of the future", `{"version":2,"command":"echo"}`, `version 2 is not known: use 1`},
		{"version is a text", `{"version":"1","command":"echo"}`, `not a request`},
		{"no command", `{"version":1}`, `command \"\" is not known: use one of echo`},
		{"unknown command", `{"version":1,"command":"reboot"}`, `command \"reboot\" is not known`},
		{"unknown key", `{"version":1,"command":"echo","arg":{}}`, `unknown field \"arg\"`},
		{"two values", `{"version":1,"command":"echo"} {}`, `more than one value`},
		{"not JSON", `echo hi`, `not a request`},
		{"cut short", `{"version":1,`, `not a request`},
		{"not text", "\x00\xff\xfe", `not a request`},
		{"deep", strings.Repeat(`[`, 20000), `not a request`},
		{"null", `null`, `version 0 is not known`},
		{"too long", `{"version":1,"command":"` + strings.Repeat("x", maxLine) + `"}`, `one line of at most`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := start(t)
			c := dial(t, path)
			defer c.Close()
			go func() { _, _ = io.WriteString(c, tt.in+"\n") }() // a server that hangs up does not read it all
			line, err := bufio.NewReader(c).ReadString('\n')
			if err != nil || !strings.Contains(line, tt.want) || !strings.HasPrefix(line, `{"version":1,`) {
				t.Errorf("%q, %v, want %q", line, err, tt.want)
			}
			// The server is alive, whatever came.
			got, err := Call(t.Context(), path, "echo", map[string]string{"Text": "alive"})
			if err != nil || string(got) != `"alive"` {
				t.Errorf("the next peer: %s, %v", got, err)
			}
		})
	}
}

// TestSeveralRequests: a connection takes one after the other, and a wrong one does not end it.
func TestSeveralRequests(t *testing.T) {
	c := dial(t, start(t))
	defer c.Close()
	if _, err := io.WriteString(c, "nonsense\n"+`{"version":1,"command":"echo","args":{"Text":"a"}}`+"\n"+`{"version":1,"command":"echo","args":{"Text":"b"}}`+"\n"); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(c)
	for _, want := range []string{"not a request", `"a"`, `"b"`} {
		if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, want) {
			t.Errorf("%q, %v, want %q", line, err, want)
		}
	}
}

func TestCallErrors(t *testing.T) {
	path := start(t)
	if _, err := Call(t.Context(), path+"x", "echo", nil); err == nil || !strings.Contains(err.Error(), "is the server running") {
		t.Errorf("no server: %v", err)
	}
	if _, err := Call(t.Context(), path, "echo", map[string]string{"Text": "no"}); err == nil || err.Error() != "echo: refused" {
		t.Errorf("a refusal: %v", err)
	}
}

// TestPeersAreBounded: who comes while maxPeers are there is turned away, and places become free.
func TestPeersAreBounded(t *testing.T) {
	path := start(t)
	var conns []*net.UnixConn
	for range maxPeers {
		c := dial(t, path)
		defer c.Close()
		if _, err := io.WriteString(c, `{"version":1,"command":"echo"}`+"\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if _, err := Call(t.Context(), path, "echo", nil); err == nil {
		t.Error("one more was served")
	}
	conns[0].Close()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, err := Call(t.Context(), path, "echo", nil); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestAccess: the socket is the user's own, and the server looks at who it is even if the mode
// lets others in.
func TestAccess(t *testing.T) {
	path := start(t)
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can pose as another user")
	}
	for _, p := range []string{filepath.Dir(path), path} {
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	got := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread is another user's from here on, and ends
		got <- func() error {
			const nobody = 65534
			if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, nobody, nobody, nobody); e != 0 {
				return e
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
				return err
			}
			_, _ = unix.Write(fd, []byte(`{"version":1,"command":"echo"}`+"\n")) // it may have hung up already
			b := make([]byte, 64)
			n, err := unix.Read(fd, b)
			if n > 0 {
				return errors.New("served: " + string(b[:n]))
			}
			if err != nil && !errors.Is(err, unix.ECONNRESET) {
				return err
			}
			return nil
		}()
	}()
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// FuzzRequests: every line gets one reply, and a server survives every input.
func FuzzRequests(f *testing.F) {
	f.Add([]byte(`{"version":1,"command":"echo","args":{"Text":"hi"}}` + "\n"))
	f.Add([]byte("\n\n{}\n"))
	f.Add([]byte(`{"version":1e9,"command":null}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		if err := server().serve(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), &out}); err != nil {
			t.Fatal(err)
		}
		lines := bytes.Count(b, []byte("\n"))
		if len(b) > 0 && b[len(b)-1] != '\n' {
			lines++
		}
		if got := bytes.Count(out.Bytes(), []byte("\n")); got != lines && len(b) < maxLine {
			t.Errorf("%d replies to %d lines: %s", got, lines, &out)
		}
	})
}
