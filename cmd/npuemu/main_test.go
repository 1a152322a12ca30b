// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"npuemu/compiler/run"
	"npuemu/core/isa"
	"npuemu/vdev/vfiouser"
)

// npuemu runs the command line and returns what it printed.
func npuemu(ctx context.Context, args ...string) (stdout, stderr string, err error) {
	var o, e bytes.Buffer
	c := root()
	c.SetOut(&o)
	c.SetErr(&e)
	c.SetArgs(args)
	err = c.ExecuteContext(ctx)
	return o.String(), e.String(), err
}

// file writes a file for one test.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMistakesOfTheOperator(t *testing.T) {
	notSocket := file(t, "x", "")
	halt := file(t, "halt.npuasm", ".isa 1.0\nhalt\n")
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no socket", []string{"serve"}, `required flag(s) "socket" not set`},
		{"level", []string{"serve", "--socket", "/x", "--log", "loud"}, `--log "loud": use debug, info, warn or error`},
		{"transport", []string{"serve", "--socket", "/x", "--transport", "pci"}, "use vfio-user or vhost-user"},
		{"time", []string{"serve", "--socket", "/x", "--time", "slow"}, `--time mode "slow": use fast, timed, or paced`},
		{"factor", []string{"serve", "--socket", "/x", "--time", "paced:x"}, `--time "paced:x": the factor is a number, as in paced:10`},
		{"factor of nothing", []string{"serve", "--socket", "/x", "--time", "paced:0"}, `--time factor is 0: use 0.000001 to 1000000`},
		{"factor of another mode", []string{"serve", "--socket", "/x", "--time", "timed:2"}, `--time mode "timed:2": use fast, timed, or paced`},
		{"ioat with a time", []string{"serve", "--socket", "/x", "--device", "ioat", "--time", "fast"}, "--time is for --device npu"},
		{"device", []string{"serve", "--socket", "/x", "--device", "gpu"}, `--device "gpu": use npu or ioat`},
		{"ioat with a configuration", []string{"serve", "--socket", "/x", "--device", "ioat", "--config", "a"}, "--config is for --device npu"},
		{"ioat of an architecture", []string{"serve", "--socket", "/x", "--device", "ioat", "--arch", "1.0"}, "--arch is for --device npu"},
		{"ioat with a control socket", []string{"serve", "--socket", "/x", "--device", "ioat", "--control", "/y"}, "--control is for --device npu"},
		{"ioat over virtio", []string{"serve", "--socket", "/x", "--device", "ioat", "--transport", "vhost-user"}, "--transport vhost-user is for --device npu"},
		{"same socket twice", []string{"serve", "--socket", "/x", "--socket", "/x"}, "every card needs a socket of its own"},
		{"two transports for three sockets", []string{"serve", "--socket", "/x", "--socket", "/y", "--socket", "/z", "--transport", "vfio-user", "--transport", "vhost-user"}, "--transport is given 2 times and --socket 3 times"},
		{"two configurations for one socket", []string{"serve", "--socket", "/x", "--config", "a", "--config", "b"}, "--config is given 2 times and --socket 1 times"},
		{"mode is not octal", []string{"serve", "--socket", "/x", "--socket-mode", "0888"}, "octal number up to 0777"},
		{"mode has more than permissions", []string{"serve", "--socket", "/x", "--socket-mode", "4755"}, "octal number up to 0777"},
		{"group of the socket", []string{"serve", "--socket", "/x", "--socket-group", "no such group"}, "--socket-group \"no such group\": there is no such group"},
		{"user", []string{"serve", "--socket", "/x", "--allow-user", "nobody at all"}, "there is no such user"},
		{"user -1", []string{"serve", "--socket", "/x", "--allow-user", "4294967295"}, "there is no such user"},
		{"group", []string{"serve", "--socket", "/x", "--allow-group", "-1"}, "there is no such group"},
		{"arch", []string{"serve", "--socket", "/x", "--arch", "9.9"}, `use one of [1.6 1.5 1.4 1.3 1.2 1.1 1.0]`},
		{"no such configuration", []string{"info", "--config", "/does/not/exist"}, "no such file"},
		{"configuration", []string{"info", "--config", file(t, "c.toml", "[queues]\ncount = 1000\n")}, "use 1 to 127"},
		{"path is a file", []string{"serve", "--socket", notSocket}, "socket"},
		{"virtual functions over virtio", []string{"serve", "--socket", "/x", "--transport", "vhost-user", "--config", file(t, "c.toml", "[sriov]\nvfs = 1\n")}, "use --transport vfio-user"},
		{"virtual functions once", []string{"serve", "--socket", "/x", "--once", "--config", file(t, "c.toml", "[sriov]\nvfs = 1\n")}, "not --once"},
		{"no such directory", []string{"serve", "--socket", "/does/not/exist/s"}, "/does/not/exist"},
		{"boot without a kernel", []string{"boot"}, "at least one of the flags in the group [kernel payload] is required"},
		{"boot of both", []string{"boot", "--kernel", "x", "--payload", "y"}, "none of the others can be"},
		{"no such payload", []string{"boot", "--payload", "/does/not/exist"}, "--payload: open /does/not/exist"},
		{"empty payload", []string{"boot", "--payload", notSocket}, "is empty"},
		{"no such kernel", []string{"boot", "--kernel", "/does/not/exist"}, "--kernel: open /does/not/exist"},
		{"run without a program", []string{"run"}, "accepts between 1 and 2 arg"},
		{"weights of a program", []string{"run", halt, "x.caffemodel"}, "is for the weights of a .prototxt only"},
		{"run what is not there", []string{"run", "/does/not/exist.npu"}, "no such file"},
		{"run what is no program", []string{"run", notSocket}, "a descriptor has"},
		{"binding without a number", []string{"run", halt, "--in", "x"}, "begin with the binding, 0 to 63, and ="},
		{"binding 64", []string{"run", halt, "--in", "64=x"}, "begin with the binding, 0 to 63, and ="},
		{"binding of a file that is not there", []string{"run", halt, "--in", "0=/does/not/exist"}, "no such file"},
		{"binding of an empty file", []string{"run", halt, "--in", "0=" + notSocket}, "is empty"},
		{"part beyond the file", []string{"run", halt, "--in", "0=" + halt + ":0:1000"}, "1000 at 0 are not there"},
		{"part of no size", []string{"run", halt, "--in", "0=" + halt + ":0:0"}, "the size is not 0"},
		{"binding given twice", []string{"run", halt, "--in", "0=" + halt, "--in", "0=" + halt}, "given twice"},
		{"output given twice", []string{"run", halt, "--out", "0=x:1", "--out", "0=x:1"}, "given twice"},
		{"output without a size", []string{"run", halt, "--out", "0=x"}, "name a file and its size"},
		{"output of another size", []string{"run", halt, "--in", "0=" + halt, "--out", "0=x:1"}, "give the same size"},
		{"binding left out", []string{"run", halt, "--in", "1=" + halt}, "binding 0 is missing"},
		{"binding too many", []string{"run", halt, "--in", "0=" + halt}, "uses 0 bindings, and --in and --out give 1"},
		{"no such card", []string{"run", halt, "--device", "/dev/npu"}, "use in-process, vfio-user:PATH"},
		{"nobody at the socket", []string{"run", halt, "--device", "vfio-user:/does/not/exist"}, "/does/not/exist"},
		{"run no times", []string{"run", halt, "--repeat", "0"}, "use 1 or more"},
		{"program for another array", []string{"run", file(t, "x.npuasm", ".isa 1.0\n.array 8, 8\nhalt\n")}, "CONFIG_MISMATCH"},
		{"unknown command", []string{"sevre"}, "serve"},
		{"unknown command of ctl", []string{"ctl", "--control", "/x", "statsu"}, `unknown command "statsu"`},
		{"ctl without a command", []string{"ctl", "--control", "/x"}, "give it a command"},
		{"unknown flag", []string{"serve", "--scoket", "/x"}, "see npuemu serve --help"},
		{"socket in no folder", []string{"serve", "--socket", "/nowhere/x"}, "listen: /nowhere/x: bind: no such file"},
		{"configuration is no text", []string{"info", "--config", file(t, "c.toml", "a = 1\x1b[2J\n")}, "this is not text"},
		{"configuration is not UTF-8", []string{"info", "--config", file(t, "c.toml", "a\xff = 1\n")}, "this is not text"},
		{"program does not assemble", []string{"asm", file(t, "p.npuasm", ".isa 1.0\nlaod\nhalt\n")}, ":2:1"},
		{"not a program", []string{"disasm", file(t, "p.npu", "hello")}, "p.npu"},
		{"not an NPU program", []string{"disasm", file(t, "p.npu", "\x7fELF")}, "p.npu"},
	} {
		if _, _, err := npuemu(t.Context(), tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error that says %q", tt.name, err, tt.want)
		}
	}
	if _, err := os.Stat(notSocket); err != nil {
		t.Errorf("a file that is not a socket was removed: %v", err)
	}
}

func TestAsmDisasmRoundTrip(t *testing.T) {
	src := file(t, "p.npuasm", ".isa 1.0\n.spad 1024\n.bindings 1\nload binding=0 local=0 nx=16 signal=1\nsync.vector wait=1\nhalt\n")
	if _, _, err := npuemu(t.Context(), "asm", src); err != nil {
		t.Fatal(err)
	}
	elf := strings.TrimSuffix(src, "asm")
	text, _, err := npuemu(t.Context(), "disasm", elf)
	if err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "again.npu")
	if _, _, err := npuemu(t.Context(), "asm", "-o", again, file(t, "q.npuasm", text)); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	image := func(name string) []byte { // lines differ, what the device gets does not
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := isa.ReadELF(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		return p.Image()
	}
	if !bytes.Equal(image(elf), image(again)) {
		t.Errorf("the disassembly assembles to other bytes:\n%s", text)
	}
}

// TestOutputIsNotReplaced: an output that is a device or a pipe is written to; so is the file behind a link.
func TestOutputIsNotReplaced(t *testing.T) {
	src := file(t, "halt.npuasm", ".isa 1.0\nhalt\n")
	dir := t.TempDir()
	pipe, behind, link := filepath.Join(dir, "pipe"), filepath.Join(dir, "behind"), filepath.Join(dir, "link")
	if err := errors.Join(unix.Mkfifo(pipe, 0o600), os.WriteFile(behind, nil, 0o600), os.Symlink("behind", link)); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(pipe, os.O_RDWR, 0) // so that nobody waits for a reader
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for name, kind := range map[string]os.FileMode{pipe: os.ModeNamedPipe, link: os.ModeSymlink} {
		if _, _, err := npuemu(t.Context(), "asm", src, "-o", name); err != nil {
			t.Errorf("%v: %v", kind, err)
		}
		if st, err := os.Lstat(name); err != nil || st.Mode().Type() != kind {
			t.Errorf("%v was replaced by %v, %v", kind, st.Mode(), err)
		}
	}
	if b, err := os.ReadFile(behind); err != nil || !bytes.HasPrefix(b, []byte("\x7fELF")) {
		t.Errorf("behind the link: %d bytes, %v", len(b), err)
	}
}

func TestInfo(t *testing.T) {
	out, _, err := npuemu(t.Context(), "info", "--json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Parameters []struct{ Name string }
		Registers  []struct{ Name string }
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Registers) == 0 || v.Registers[0].Name != "ID" || len(v.Parameters) == 0 {
		t.Errorf("info --json: %+v", v)
	}
	// The defaults are a configuration that changes nothing.
	toml, _, err := npuemu(t.Context(), "info", "--defaults")
	if err != nil {
		t.Fatal(err)
	}
	plain, _, err := npuemu(t.Context(), "info")
	if err != nil {
		t.Fatal(err)
	}
	same, _, err := npuemu(t.Context(), "info", "--config", file(t, "c.toml", toml))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(plain, same); diff != "" {
		t.Errorf("info with the defaults (-without +with):\n%s", diff)
	}
	for _, flag := range []string{"--registers", "--config-space"} {
		if out, _, err := npuemu(t.Context(), "info", flag); err != nil || out == "" {
			t.Errorf("info %s: %q, %v", flag, out, err)
		}
	}
	if out, _, err := npuemu(t.Context(), "version"); err != nil || !strings.Contains(out, "hardware architecture 1.6") {
		t.Errorf("version: %q, %v", out, err)
	}
}

// sockets returns a directory whose path is short enough for a socket.
func sockets(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "npu")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// dial waits for a server at path.
func dial(t *testing.T, path string) *vfiouser.Client {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		c, err := vfiouser.Dial(path)
		if err == nil {
			return c
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

func TestServe(t *testing.T) {
	path := filepath.Join(sockets(t), "s")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var log string
	serve := func(ctx context.Context, args ...string) {
		go func() {
			var err error
			_, log, err = npuemu(ctx, append([]string{"serve", "--socket", path}, args...)...)
			ended <- err
		}()
	}

	serve(ctx)
	dial(t, path).Close()
	dial(t, path).Close() // clients come one after the other
	if _, _, err := npuemu(t.Context(), "serve", "--socket", path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("second server on a live socket: %v", err)
	}
	cancel() // as SIGTERM
	if err := <-ended; err != nil {
		t.Errorf("serve after SIGTERM: %v", err)
	}
	if !strings.Contains(log, "switched off") {
		t.Errorf("log lacks the last report:\n%s", log)
	}

	// A socket that a killed server left behind is no obstacle.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	serve(t.Context(), "--once")
	dial(t, path).Close()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("serve --once: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("serve --once does not end with its client")
	}
}

// Several cards in one process are told apart by their serial numbers, and one that
// cannot start starts none.
func TestServeSeveral(t *testing.T) {
	dir := sockets(t)
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := npuemu(ctx, "serve", "--socket", a, "--socket", b, "--config", file(t, "c.toml", "serial = 7\n"), "--socket-mode", "0666")
		ended <- err
	}()
	for i, path := range []string{a, b} {
		c := dial(t, path) // both at once
		defer c.Close()
		config := make([]byte, 4096)
		if err := c.ReadRegion(vfiouser.RegionConfig, 0, config); err != nil {
			t.Fatal(err)
		}
		// Device Serial Number extended capability, §1.4.
		at := uint32(0x100)
		for at != 0 && binary.LittleEndian.Uint16(config[at:]) != 3 {
			at = binary.LittleEndian.Uint32(config[at:]) >> 20
		}
		if serial := binary.LittleEndian.Uint64(config[at+4:]); at == 0 || serial != uint64(7+i) {
			t.Errorf("card %d has serial number %#x", i, serial)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o666 {
			t.Errorf("mode of %s: %v, %v", path, st.Mode(), err)
		}
	}
	if _, _, err := npuemu(t.Context(), "serve", "--socket", filepath.Join(dir, "new"), "--socket", b); err == nil || !strings.Contains(err.Error(), "another server is live") {
		t.Errorf("a card on a socket that is in use: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "new")); err == nil {
		t.Error("the other card's socket was left behind")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("serve after SIGTERM: %v", err)
	}
}

// serve --device ioat is another function on the same socket options, and reports what was done with it.
func TestServeIOAT(t *testing.T) {
	dir := sockets(t)
	path := filepath.Join(dir, "s")
	ended := make(chan error, 1)
	var log string
	go func() {
		var err error
		_, log, err = npuemu(t.Context(), "serve", "--device", "ioat", "--once", "--socket", path, "--socket", filepath.Join(dir, "t"), "--socket-mode", "0660")
		ended <- err
	}()
	for _, path := range []string{path, filepath.Join(dir, "t")} {
		c := dial(t, path)
		var id, count [4]byte
		if err := c.ReadRegion(vfiouser.RegionConfig, 0, id[:]); err != nil || binary.LittleEndian.Uint32(id[:]) != 0x2021_8086 {
			t.Errorf("id %x, %v", id, err)
		}
		if err := c.WriteRegion(vfiouser.RegionConfig, 4, []byte{2, 0}); err != nil {
			t.Error(err)
		}
		if err := c.WriteRegion(vfiouser.RegionBAR0, 0x86, []byte{1, 0}); err != nil { // a mistake, for the report
			t.Error(err)
		}
		if err := c.ReadRegion(vfiouser.RegionBAR0, 0x86, count[:2]); err != nil || count[0] != 0 {
			t.Errorf("DMACOUNT %x, %v", count, err)
		}
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o660 {
			t.Errorf("mode of %s: %v, %v", path, st.Mode(), err)
		}
		c.Close()
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for _, want := range []string{"device=ioat", "switched off", "id=ioat-start-chain count=1"} {
		if !strings.Contains(log, want) {
			t.Errorf("the log lacks %q:\n%s", want, log)
		}
	}
}

// A process whose user is not allowed is turned away before its first message is read,
// and the card waits for the next.
func TestServeDenied(t *testing.T) {
	for _, transport := range []string{"vfio-user", "vhost-user"} {
		path := filepath.Join(sockets(t), "s")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var log string
		go func() {
			var err error
			_, log, err = npuemu(ctx, "serve", "--socket", path, "--transport", transport, "--allow-user", strconv.Itoa(os.Getuid()+1), "--allow-group", strconv.Itoa(os.Getgid()+1))
			ended <- err
		}()
		for range 2 {
			var nc net.Conn
			var err error
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
				if nc, err = net.Dial("unix", path); err == nil || time.Now().After(end) {
					break
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			if n, err := nc.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Errorf("%s: %d bytes, %v", transport, n, err)
			}
			if err := nc.Close(); err != nil {
				t.Error(err)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if !strings.Contains(log, "turned away") || !strings.Contains(log, "may not use the device") {
			t.Errorf("%s: the log does not say why:\n%s", transport, log)
		}
	}
}

// The digits program on a card in this process, and on one behind a socket: the bytes
// that numpy computed (examples/digits), and the card's own word for it.
func TestRun(t *testing.T) {
	const digits = "../../examples/digits/"
	golden, err := os.ReadFile(digits + "golden.bin")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(sockets(t), "s")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, _, err := npuemu(ctx, "serve", "--socket", path)
		ended <- err
	}()
	dial(t, path).Close()
	for _, device := range []string{"in-process", "vfio-user:" + path} {
		record := filepath.Join(t.TempDir(), "record.bin")
		out, _, err := npuemu(t.Context(), "run", digits+"digits.npuasm", "--device", device, "--json", "--repeat", "3",
			"--in", "0="+digits+"weights.bin:64:4120", "--in", "1="+digits+"images.bin:64:64", "--out", "2="+record+":3904")
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(record); err != nil || !bytes.Equal(b, golden[64:][:3904]) {
			t.Errorf("%s: the record differs from the golden one; %v", device, err)
		}
		var s runSummary
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			t.Fatal(err)
		}
		if s.Device != device || s.Runs != 3 || s.MACs != 25600 || s.Counters.Programs != 3 || s.Counters.MACs != 3*25600 || s.Counters.BytesWritten != 3*3904 || s.Untimed != run.FastMode || s.Launch.Profile.MACs != 25600 {
			t.Errorf("summary %+v", s)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}

	// What a program took, or why nobody knows.
	for mode, want := range map[string]string{"timed": "cycles (§13.8)", "fast": "no cycles: " + run.FastMode} {
		out, _, err := npuemu(t.Context(), "run", file(t, "p.npuasm", ".isa 1.0\nhalt\n"), "--time", mode)
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("time mode %s: %q, %v; want %q", mode, out, err, want)
		}
	}

	// Results on standard output are nothing but the results.
	out, summary, err := npuemu(t.Context(), "run", file(t, "p.npuasm", ".isa 1.0\n.spad 1024\n.bindings 1\nload binding=0 local=0 nx=4 signal=0\nstore binding=0 offset=4 local=0 nx=4 wait=0\nhalt\n"),
		"--in", "0="+file(t, "in", "npu!...."), "--out", "0=-:8")
	if err != nil || out != "npu!npu!" || !strings.Contains(summary, "1 programs") {
		t.Errorf("a binding that is read and written: %q, %q, %v", out, summary, err)
	}
	// Neither a program that fails nor one of whose files cannot be written leaves a result.
	never := filepath.Join(t.TempDir(), "never")
	out, _, err = npuemu(t.Context(), "run", file(t, "p.npuasm", ".isa 1.0\n.spad 1024\n.bindings 3\nhalt\n"), "--out", "0="+never+":8", "--out", "1=-:8", "--out", "2="+never+"/there:8")
	if err == nil || !strings.Contains(err.Error(), "never/there: no such file") || out != "" {
		t.Errorf("a folder that is not there: %q, %v", out, err)
	}
	if l, err := os.ReadDir(filepath.Dir(never)); err != nil || len(l) > 0 {
		t.Errorf("files are left: %v, %v", l, err)
	}
	if _, _, err := npuemu(t.Context(), "run", file(t, "p.npuasm", ".isa 1.0\n.spad 1024\n.bindings 1\nstore binding=0 offset=8 local=0 nx=1\nhalt\n"), "--out", "0="+never+":8"); err == nil || !strings.Contains(err.Error(), "BINDING_BOUNDS") {
		t.Errorf("a store outside its binding: %v", err)
	}
	if _, err := os.Stat(never); err == nil {
		t.Error("the result of a program that failed was stored")
	}
}

// The command line has the last word on --touch, if it has any.
func TestTouchFlag(t *testing.T) {
	for _, tt := range []struct {
		args   []string
		config string
		want   bool
	}{
		{nil, "", true},
		{nil, "[pci]\ntouch = false\n", false},
		{[]string{"--touch=false"}, "", false},
		{[]string{"--touch"}, "[pci]\ntouch = false\n", true},
	} {
		c := serveCommand()
		if err := c.ParseFlags(tt.args); err != nil {
			t.Fatal(err)
		}
		f := serveFlags{sockets: []string{"/x"}, transports: []string{"vfio-user"}, mode: "0600", configs: []string{file(t, "c.toml", tt.config)}}
		if fl := c.Flags().Lookup("touch"); fl.Changed {
			f.touch, f.touchSet = fl.Value.String() == "true", true
		}
		cards, err := f.cards(slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if got := cards[0].cfg.PCI.Touch; got != tt.want {
			t.Errorf("serve %q with %q: touch is %v, want %v", tt.args, tt.config, got, tt.want)
		}
	}
}
