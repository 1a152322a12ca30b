// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDebugMistakes(t *testing.T) {
	dir := sockets(t)
	s := filepath.Join(dir, "s")
	digits := "../../examples/digits/"
	run := []string{"run", digits + "digits.npuasm", "--in", "0=" + digits + "weights.bin:64:4120", "--in", "1=" + digits + "images.bin:64:64", "--out", "2=/dev/null:3904"}
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no port", []string{"serve", "--socket", s, "--gdb", "1234"}, "use :PORT, HOST:PORT, or a path with a / in it"},
		{"no such port", []string{"serve", "--socket", s, "--gdb", ":99999"}, "choose another port, or a UNIX socket"},
		{"no such directory", []string{"serve", "--socket", s, "--gdb", dir + "/none/gdb"}, "--gdb " + dir + "/none/gdb"},
		{"more than cards", []string{"serve", "--socket", s, "--gdb", "-", "--gdb", ":1"}, "--gdb is given 2 times and there are 1 cards"},
		{"twice the same", []string{"serve", "--socket", s, "--socket", s + "2", "--gdb", ":1", "--gdb", ":1"}, "--gdb :1 is given twice"},
		{"one trace for two", []string{"serve", "--socket", s, "--socket", s + "2", "--cp-trace", "a", "--cp-trace", "a"}, "--cp-trace a is given twice"},
		{"trace that cannot be written", []string{"serve", "--socket", s, "--cp-trace", dir + "/none/trace"}, "--cp-trace: open"},
		{"no limit", []string{"serve", "--socket", s, "--cp-trace", dir + "/t", "--cp-trace-limit", "0"}, "use 1 to 1048576 MiB"},
		{"another process's card", append(run[:len(run):len(run)], "--device", "vfio-user:"+s, "--gdb", ":1"), "give them to npuemu serve"},
		{"boot", []string{"boot", "--kernel", "/dev/null", "--gdb", ":1", "--gdb", ":2"}, "--gdb is given 2 times"},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		if _, _, err := npuemu(ctx, tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error that says %q", tt.name, err, tt.want)
		}
		cancel()
		if _, err := os.Stat(s); err == nil {
			t.Errorf("%s: the card's socket was left behind", tt.name)
		}
	}
}

// Only this machine may connect, unless the operator says otherwise and is warned.
func TestListenGDB(t *testing.T) {
	for addr, warned := range map[string]bool{":0": false, "localhost:0": false, "[::1]:0": false, "0.0.0.0:0": true, filepath.Join(sockets(t), "g"): false} {
		var log bytes.Buffer
		ln, err := listenGDB(slog.New(slog.NewTextHandler(&log, nil)), addr)
		if err != nil {
			if addr == "[::1]:0" { // a machine without IPv6
				continue
			}
			t.Errorf("%s: %v", addr, err)
			continue
		}
		if a, ok := ln.Addr().(*net.TCPAddr); ok && a.IP.IsLoopback() == warned {
			t.Errorf("%s listens on %v", addr, a)
		}
		if strings.Contains(log.String(), "other machines can reach this port") != warned {
			t.Errorf("%s: warned: %s", addr, &log)
		}
		if err := ln.Close(); err != nil {
			t.Error(err)
		}
	}
}

// run --gdb waits for a debugger that continues; run --cp-trace leaves a trace in two files of bounded size.
func TestRunDebug(t *testing.T) {
	dir := sockets(t)
	socket, trace := filepath.Join(dir, "gdb"), filepath.Join(dir, "trace")
	digits := "../../examples/digits/"
	ended := make(chan error, 1)
	go func() {
		_, _, err := npuemu(t.Context(), "run", digits+"digits.npuasm", "--in", "0="+digits+"weights.bin:64:4120", "--in", "1="+digits+"images.bin:64:64",
			"--out", "2=/dev/null:3904", "--gdb", socket, "--cp-trace", trace, "--cp-trace-limit", "1")
		ended <- err
	}()
	var conn net.Conn
	for range 1000 {
		var err error
		if conn, err = net.Dial("unix", socket); err == nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if conn == nil {
		t.Fatal("nobody listens for GDB")
	}
	defer conn.Close()
	select {
	case err := <-ended:
		t.Fatalf("run did not wait for the debugger: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	if _, err := io.WriteString(conn, "$c#63"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, name := range []string{trace + ".1", trace} { // several times its limit was written
		b, err := os.ReadFile(name)
		if err != nil || len(b) == 0 || len(b) > 1<<20 || b[len(b)-1] != '\n' {
			t.Fatalf("%s: %d bytes, %v", name, len(b), err)
		}
		all = append(all, b...)
	}
	// The last thing that firmware did is to wait.
	lines := strings.Split(strings.TrimSuffix(string(all), "\n"), "\n")
	if last := strings.Split(lines[len(lines)-1], "\t"); len(last) != 5 || last[2] != "10500073" || last[3] != "wfi" {
		t.Errorf("the trace ends with %q", last)
	}
	step := 0
	for i, line := range lines {
		if line == "# reset" {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 5 {
			t.Fatalf("line %d of the trace has %d columns: %q", i, len(f), line)
		}
		var n int
		for _, c := range f[0] {
			n = n*10 + int(c-'0')
		}
		if step > 0 && n != step+1 {
			t.Fatalf("line %d is step %d, after %d", i, n, step)
		}
		step = n
	}
}
