// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package gokvm

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/vdev"
)

// payload is testdata/payload.S, assembled; the comment at its top says how.
//
//go:embed testdata/payload.bin
var payload []byte

// Addresses that payload.S names.
const (
	payloadAt     = 0x100000
	firmwareSize  = 0x203000
	firmwareAt    = 0x400000
	payloadReport = "CBMDFIA\n"
)

// testLog logs to t.
func testLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(logWriter{t}, nil)) }

type logWriter struct{ t *testing.T }

func (w logWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

// card is a running device with 1 MiB of memory; it ends with the test.
func card(t *testing.T) *vdev.Device {
	t.Helper()
	cfg := vdev.DefaultConfig()
	cfg.Memory.Size = 1 << 20
	return cardWith(t, cfg)
}

// cardWith is a running device; it ends with the test.
func cardWith(t *testing.T, cfg vdev.Config) *vdev.Device {
	t.Helper()
	cfg.Log = testLog(t)
	d, err := vdev.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { d.Run(ctx); close(done) }()
	t.Cleanup(func() {
		cancel()
		<-done
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// machine is a machine with d in it; the test is skipped where KVM cannot be used.
func machine(t *testing.T, d Device, console *bytes.Buffer) *vm {
	t.Helper()
	v, err := newVM(d, Config{Memory: minMemory, Console: console, Log: testLog(t)})
	skipWithoutKVM(t, err)
	t.Cleanup(v.close)
	return v
}

func skipWithoutKVM(t *testing.T, err error) {
	t.Helper()
	if errors.Is(err, ErrKVM) {
		t.Skip("not run: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPayload runs a guest without an operating system. It needs of KVM only
// 64-bit mode, exits, the interrupt controllers and irqfd.
func TestPayload(t *testing.T) {
	d := card(t)
	var console bytes.Buffer
	v := machine(t, d, &console)
	copy(v.mem[payloadAt:], payload)
	image := firmware.Image()
	binary.LittleEndian.PutUint32(v.mem[firmwareSize:], uint32(len(image)))
	copy(v.mem[firmwareAt:], image)
	if err := v.setup64(payloadAt, 0); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	err := v.boot(ctx, Config{})
	if errors.Is(err, ErrEmulation) {
		t.Skipf("not run: %v, after %q", err, console.String())
	}
	if err != nil {
		t.Fatalf("%v, after %q", err, console.String())
	}
	if got := console.String(); got != payloadReport {
		t.Fatalf("the payload says %q, want %q; payload.S names the steps", got, payloadReport)
	}
	if !v.dramOpen {
		t.Error("BAR2 was not mapped: every access to it was trapped")
	}
	if n := d.Counter(npureg.CounterAdmin); n != 1 {
		t.Errorf("%d admin commands, want 1", n)
	}
	for _, f := range d.Findings() {
		if f.ID != "bar0-width" { // step M does it on purpose
			t.Errorf("finding %+v", f)
		}
	}
}

// TestPayloadSource holds payload.bin against its source, where the tools are.
func TestPayloadSource(t *testing.T) {
	for _, tool := range []string{"as", "ld"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("not run: ", err)
		}
	}
	dir := t.TempDir()
	obj, bin := filepath.Join(dir, "payload.o"), filepath.Join(dir, "payload.bin")
	for _, args := range [][]string{
		{"as", "--64", "testdata/payload.S", "-o", obj},
		{"ld", "-m", "elf_x86_64", "-Ttext=0x100000", "--oformat=binary", obj, "-o", bin},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
	}
	got, err := os.ReadFile(bin)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, payload) {
		t.Error("testdata/payload.bin is not what testdata/payload.S says; make it again as the comment there says")
	}
}
