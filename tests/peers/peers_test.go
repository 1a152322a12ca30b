// SPDX-License-Identifier: Apache-2.0

// Package peers has the card and the server of package vfiouser judged by
// programs that were written elsewhere: rust-vmm's vfio-user client, and
// libvfio-user's client and server (docs/testing.md).
package peers

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/firmware"
)

// cacheDir is where peers are built, outside the tree.
func cacheDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("NPUEMU_CACHE")
	if dir == "" {
		base, err := os.UserCacheDir()
		if err != nil {
			t.Fatalf("no cache directory: %v; set NPUEMU_CACHE", err)
		}
		dir = filepath.Join(base, "npuemu")
	}
	return filepath.Join(dir, "peers")
}

// build compiles a command of the tree to path.
func build(t *testing.T, pkg, path string) {
	t.Helper()
	if out, err := exec.Command("go", "build", "-o", path, pkg).CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
}

// socketDir is t.TempDir with a name that is short enough for sockets.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// output collects what a process prints.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// serve starts a server that makes a socket, waits for the socket, and ends the
// server with the test. What it prints is in the test's log if the test fails.
func serve(t *testing.T, socket string, name string, args ...string) *output {
	t.Helper()
	out := new(output)
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(unix.SIGTERM) // it may have ended already
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			_ = cmd.Process.Kill()
			t.Errorf("%s does not end on SIGTERM", name)
		}
		if t.Failed() {
			t.Logf("%s printed:\n%s", name, out)
		}
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(socket); err == nil {
			return out
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended before it listened: %v\n%s", name, err, out)
		default:
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen at %s", name, socket)
		}
	}
}

// rustSteps are what the Rust program does, in order (rust/src/main.rs).
const rustSteps = "negotiate regions config registers window map interrupts boot admin refusals reset again unmap detach reconnect"

// TestRustClient drives npuemu serve by a program over rust-vmm's client, from
// negotiation to a doorbell, a completion and its interrupt, and back.
func TestRustClient(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a Rust program; not with -short")
	}
	cargo, err := exec.LookPath("cargo")
	if err != nil {
		t.Skip("not run: no cargo, so rust-vmm's client cannot be built; install Rust 1.77 or later (rustup.rs)")
	}
	target := filepath.Join(cacheDir(t), "rust")
	run := func(args ...string) ([]byte, error) {
		cmd := exec.Command(cargo, args...)
		cmd.Dir = "rust"
		cmd.Env = append(os.Environ(), "CARGO_TARGET_DIR="+target)
		return cmd.CombinedOutput()
	}
	if out, err := run("fetch", "--locked"); err != nil {
		t.Skipf("not run: the crates of tests/peers/rust cannot be had: %v\n%s", err, out)
	}
	if out, err := run("build", "--locked", "--offline", "--quiet"); err != nil {
		t.Fatalf("cargo build: %v\n%s", err, out)
	}

	dir := socketDir(t)
	card, socket, image := filepath.Join(dir, "npuemu"), filepath.Join(dir, "npu.sock"), filepath.Join(dir, "npu_fw.bin")
	build(t, "npuemu/cmd/npuemu", card)
	if err := os.WriteFile(image, firmware.Image(), 0o600); err != nil {
		t.Fatal(err)
	}
	serve(t, socket, card, "serve", "--socket", socket)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(target, "debug", "npu-peer"), socket, image).CombinedOutput()
	if err != nil {
		t.Fatalf("npu-peer: %v\n%s", err, out)
	}
	want := "ok " + strings.ReplaceAll(rustSteps, " ", "\nok ") + "\n"
	if string(out) != want {
		t.Errorf("npu-peer printed\n%swant\n%s", out, want)
	}
}
