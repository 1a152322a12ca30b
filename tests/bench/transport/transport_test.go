// SPDX-License-Identifier: Apache-2.0

//go:build linux

package transport

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	measure = flag.Bool("measure", false, "measure, for a few minutes; without it there is nothing to test")
	rounds  = flag.Int("rounds", 8, "`turns` that each process gets in each mode")
	starts  = flag.Int("starts", 7, "how many `times` the servers are started anew: where memory lies makes 1 %")
	out     = flag.String("out", "", "`directory` for transport.txt, which benchstat reads, and table.md")
)

// report collects what the rows find.
type report struct {
	t     *testing.T
	lines bytes.Buffer // as a benchmark prints them
	table bytes.Buffer
}

// sample records one measurement of name: pairs of value and unit.
func (r *report) sample(name string, n int, values ...any) {
	fmt.Fprintf(&r.lines, "Benchmark%s-%d\t%d", name, runtime.GOMAXPROCS(0), n)
	for i := 0; i < len(values); i += 2 {
		fmt.Fprintf(&r.lines, "\t%.4g %s", values[i], values[i+1])
	}
	fmt.Fprintln(&r.lines)
}

// row adds a row to the table; met says what became of its bar.
func (r *report) row(what, result, bar, met string) {
	fmt.Fprintf(&r.table, "| %s | %s | %s | %s |\n", what, result, bar, met)
	r.t.Logf("%s: %s (bar: %s): %s", what, result, bar, met)
}

func verdict(ok bool) string {
	if ok {
		return "met"
	}
	return "**missed**"
}

// TestMeasure measures everything in one run. It fails where something could not be
// measured, not where it is slow.
func TestMeasure(t *testing.T) {
	if !*measure {
		t.Skip("measures for minutes; run make bench-transport")
	}
	r := &report{t: t}
	fmt.Fprintf(&r.lines, "goos: %s\ngoarch: %s\npkg: npuemu/tests/bench/transport\ncpu: %s\n", runtime.GOOS, runtime.GOARCH, cpu(t))
	fifo := setFIFO(0, true) == nil && setFIFO(0, false) == nil
	method := "B: in turns, both ends on one processor, SCHED_FIFO during a turn"
	if !fifo {
		method = "A: in turns, both ends on one processor (SCHED_FIFO is not allowed here, so other processes disturb)"
	}
	fmt.Fprintf(&r.table, "Method %s; %d processes of each server, %d turns each. Load average %s.\n\n| what | measured | bar | |\n|---|---|---|---|\n", method, *starts, *rounds, load(t))
	r.sockets(fifo)
	r.copies(fifo)
	r.interrupts(fifo)
	r.idle()
	r.collector(fifo)
	if *out != "" {
		if err := os.MkdirAll(*out, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{"transport.txt": r.lines.Bytes(), "table.md": r.table.Bytes()} {
			if err := os.WriteFile(filepath.Join(*out, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func cpu(t *testing.T) string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func load(t *testing.T) string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(b))[0]
}

// setFIFO puts thread tid (0 is the caller's) under SCHED_FIFO, or back.
func setFIFO(tid int, on bool) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}
	if on {
		attr.Policy, attr.Priority = unix.SCHED_FIFO, 1
	}
	return unix.SchedSetAttr(tid, &attr, 0)
}

// quiet runs f with this thread under SCHED_FIFO if fifo.
func quiet(t *testing.T, fifo bool, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if fifo {
		if err := setFIFO(0, true); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := setFIFO(0, false); err != nil {
				t.Fatal(err)
			}
		}()
	}
	f()
}

// median sorts v.
func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// start runs a server, and waits for its socket. stop may be called twice, and is at the
// end of the test.
func start(t *testing.T, cmd *exec.Cmd, socket string) (pid int, stop func()) {
	t.Helper()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(unix.SIGTERM) // it may have ended
		late := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait() // it was told to end
		late.Stop()
		_ = os.Remove(socket) // a listener of Go has done it
	})
	t.Cleanup(stop)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			time.Sleep(50 * time.Millisecond) // bound; now it listens
			return cmd.Process.Pid, stop
		}
		if time.Now().After(end) {
			t.Fatalf("%v does not listen", cmd)
		}
	}
}

// self returns a command that runs this binary as a server.
func self(t *testing.T, env, socket string) *exec.Cmd {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), env+"="+socket)
	return cmd
}

// sockDir returns a directory whose name is short enough for sockets.
func sockDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "npu")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// npuemu builds the program and returns its path.
func npuemu(t *testing.T) string {
	exe := filepath.Join(t.TempDir(), "npuemu")
	if b, err := exec.Command("go", "build", "-o", exe, "npuemu/cmd/npuemu").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return exe
}

func cache(t *testing.T) string {
	if dir := os.Getenv("NPUEMU_CACHE"); dir != "" {
		return filepath.Join(dir, "bench")
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "npuemu", "bench")
}

// turn is a line of the client.
type turn struct{ mean, p50, p99 float64 }

// sockets compares the servers with the same client.
func (r *report) sockets(fifo bool) {
	t := r.t
	bin := cache(t)
	build := exec.Command("c/build.sh", bin)
	build.Stderr = os.Stderr
	err := build.Run()
	var exit *exec.ExitError
	peer := true
	if errors.As(err, &exit) && exit.ExitCode() == 3 {
		peer = false
	} else if err != nil {
		t.Fatal(err)
	}
	modes := []struct {
		mode, what string
		mean, p99  float64 // bars, as parts of the peer's
	}{
		{"read", "REGION_READ, 4 bytes, round trip", 0.92, 0.92},
		{"write", "REGION_WRITE with reply, 4 bytes", 0, 0},
		{"posted", "posted writes, one to a send", 0.6, 0},
		{"posted16", "posted writes, 16 to a send", 0.1, 0},
		{"reads16", "REGION_READ, 16 in flight", 0.25, 0},
		{"multi", "REGION_WRITE_MULTI, 200 to a message", 0, 0},
	}
	dir, exe := sockDir(t), npuemu(t)
	ours, theirs, card := filepath.Join(dir, "o"), filepath.Join(dir, "p"), filepath.Join(dir, "c")
	all := map[string]map[string][]turn{} // by mode and server
	refused := map[string]string{}        // by server: the errno for WRITE_MULTI
	for range *starts {
		var servers []string
		var stops []func()
		add := func(name string, cmd *exec.Cmd, socket string) {
			pid, stop := start(t, cmd, socket)
			servers = append(servers, fmt.Sprintf("%s=%d=%s", name, pid, socket))
			stops = append(stops, stop)
		}
		add("npuemu", self(t, serverEnv, ours), ours)
		if peer {
			add("libvfio-user", exec.Command(filepath.Join(bin, "peer"), theirs), theirs)
		}
		add("card", exec.Command(exe, "serve", "--log", "error", "--socket", card), card)
		for _, m := range modes {
			if m.mode == "write" {
				servers = servers[:len(servers)-1] // writes mean something to a card
			}
			if all[m.mode] == nil {
				all[m.mode] = map[string][]turn{}
			}
			r.client(bin, m.mode, fifo, servers, all[m.mode], refused)
		}
		for _, stop := range stops {
			stop()
		}
	}
	for _, m := range modes {
		turns := all[m.mode]
		value := func(name string, part func(turn) float64) float64 {
			var v []float64
			for _, x := range turns[name] {
				v = append(v, part(x))
			}
			return median(v)
		}
		mean, p99 := func(x turn) float64 { return x.mean }, func(x turn) float64 { return x.p99 }
		unit := func(ns float64) string {
			if ns < 100 {
				return fmt.Sprintf("%.3f µs", ns/1000)
			}
			return fmt.Sprintf("%.2f µs", ns/1000)
		}
		add := func(what string, part func(turn) float64, bar float64) {
			result := unit(value("npuemu", part))
			if len(turns["card"]) > 0 {
				result += ", a register of the NPU " + unit(value("card", part))
			}
			if e := refused["libvfio-user"]; e != "" && m.mode == "multi" {
				r.row(what, result+"; libvfio-user refuses it (errno "+e+")", "it works", verdict(true))
				return
			}
			if !peer {
				r.row(what, result, "", "no peer")
				return
			}
			// What disturbs a turn disturbs its neighbour: the ratio is that of neighbours.
			var ratio []float64
			for i, x := range turns["npuemu"] {
				ratio = append(ratio, part(x)/part(turns["libvfio-user"][i]))
			}
			q := median(ratio)
			result = fmt.Sprintf("%s; libvfio-user %s; **%.3f×**", result, unit(value("libvfio-user", part)), q)
			if bar == 0 {
				r.row(what, result, "–", "")
				return
			}
			r.row(what, result, fmt.Sprintf("≤ %g×", bar), verdict(q <= bar))
		}
		if m.p99 == 0 {
			add(m.what, mean, m.mean)
			continue
		}
		add(m.what+", mean", mean, m.mean)
		add(m.what+", p99", p99, m.p99)
	}
}

// client runs the client, and adds what it prints to turns and refused.
func (r *report) client(bin, mode string, fifo bool, servers []string, turns map[string][]turn, refused map[string]string) {
	t := r.t
	args := []string{"-m", mode, "-r", strconv.Itoa(*rounds), "-c", strconv.Itoa(runtime.NumCPU() - 1)}
	if fifo {
		args = append(args, "-f")
	}
	cmd := exec.Command(filepath.Join(bin, "client"), append(args, servers...)...)
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v", cmd, err)
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		f := strings.Fields(s.Text())
		if len(f) == 4 && f[2] == "refused" {
			refused[f[1]] = f[3]
			continue
		}
		var x turn
		var n int
		if _, err := fmt.Sscan(strings.Join(f[2:], " "), &n, &x.mean, &x.p50, &x.p99); err != nil {
			t.Fatalf("client: %q: %v", s.Text(), err)
		}
		turns[f[1]] = append(turns[f[1]], x)
		values := []any{x.mean, "ns/op"}
		if x.p99 != 0 {
			values = append(values, x.p50, "p50-ns", x.p99, "p99-ns")
		}
		r.sample("Socket/mode="+mode+"/server="+f[1], n, values...)
	}
}
