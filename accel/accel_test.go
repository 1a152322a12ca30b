// SPDX-License-Identifier: Apache-2.0

//go:build linux

package accel

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io/fs"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"npuemu/core/isa"
	"npuemu/mmio/npureg"
)

func TestOpenPath(t *testing.T) {
	for path, want := range map[string]error{"/dev/accel/none": fs.ErrNotExist, "/dev/null": unix.ENOTTY, "/": unix.EISDIR} {
		if d, err := OpenPath(path); !errors.Is(err, want) || d != nil || !strings.Contains(err.Error(), path) {
			t.Errorf("OpenPath(%q): %v, want %v", path, err, want)
		}
	}
}

// What the driver prints for a file, with other lines of the kernel around it.
func TestUsage(t *testing.T) {
	const text = "pos:\t0\nflags:\t02100002\ndrm-driver:\tnpu\ndrm-client-id:\t5\ndrm-engine-npu:\t123456789 ns\ndrm-engine-capacity-npu:\t1\n" +
		"drm-total-device:\t2 MiB\ndrm-shared-device:\t0\ndrm-active-device:\t4 KiB\ndrm-resident-device:\t2 MiB\ndrm-total-system:\t12345\nnpu-timeouts:\t3\n"
	want := Usage{Busy: 123456789 * time.Nanosecond, Timeouts: 3, Memory: map[string]MemoryUsage{
		"device": {Total: 2 << 20, Active: 4 << 10, Resident: 2 << 20}, "system": {Total: 12345},
	}}
	got, err := parseUsage(text)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"drm-engine-npu: many ns\n", "drm-total-device: 1 GiB\n", "drm-total-device:\n", "drm-engine-npu: -1 ns\n", "npu-timeouts: few\n"} {
		if u, err := parseUsage(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, u)
		}
	}
}

func TestJobError(t *testing.T) {
	s := JobStatus{Seqno: 7, State: Failed, Errno: -int32(unix.EFAULT), Command: 3, Status: Status(npureg.StatusBindingBounds), Result: 1, Info: 64}
	err := s.Err()
	var e *JobError
	if !errors.Is(err, unix.EFAULT) || !errors.As(err, &e) || e.Command != 3 {
		t.Errorf("%#v", err)
	}
	if want := "accel: job 7: command 3: BINDING_BOUNDS, result 1, info 0x40: bad address"; err.Error() != want {
		t.Errorf("%q, want %q", err, want)
	}
	s.Status, s.Errno = 0, -int32(unix.ECANCELED)
	if got, want := s.Err().Error(), "accel: job 7: command 3: operation canceled"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	s.State = Done
	if err := s.Err(); err != nil {
		t.Errorf("a job that is done: %v", err)
	}
	if got := Status(0xabc).String(); got != "status 0xabc" {
		t.Errorf("a status of tomorrow is %q", got)
	}
}

func TestInfoAsJSON(t *testing.T) {
	i := Info{Arch: 1<<16 | 2, FirmwareBuild: 3<<16 | 4}
	copy(i.Firmware[:], "npuemu firmware")
	b, err := json.Marshal(i)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"arch_version":"1.2"`, `"fw_build":"0.3.4"`, `"firmware":"npuemu firmware"`} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s does not have %s", b, want)
		}
	}
}

// Commands as the driver reads them: unions are 0 behind the member that is used.
func TestCommands(t *testing.T) {
	a, b := &Buffer{handle: 1, size: 4096}, &Buffer{handle: 2, size: 8192}
	var pin runtime.Pinner
	defer pin.Unpin()
	var c command
	Nop{}.put(&c, &pin)
	if diff := cmp.Diff(command{Type: 1}, c, cmp.AllowUnexported(copies{})); diff != "" {
		t.Errorf("NOP (-want +got):\n%s", diff)
	}
	c = command{}
	Copy{Src: a, Dst: b, SrcOffset: 3, DstOffset: 4, Bytes: 5, Planes: 2, SrcPlaneStride: 6}.put(&c, &pin)
	want := command{Type: 2, Union: copies{SrcHandle: 1, DstHandle: 2, SrcOffset: 3, DstOffset: 4, NX: 5, NY: 1, NZ: 2, SrcStrideZ: 6}}
	if diff := cmp.Diff(want, c, cmp.AllowUnexported(copies{})); diff != "" {
		t.Errorf("COPY (-want +got):\n%s", diff)
	}
	c = command{}
	Launch{Program: a, Offset: 64, Size: 96, Bindings: []Binding{{Buffer: b, Offset: 8, Size: 16, Read: true}, {Buffer: b, Offset: 4096, Write: true}}}.put(&c, &pin)
	l := *launchOf(&c)
	if c.Type != 3 || l.ProgramHandle != 1 || l.ProgramOffset != 64 || l.ProgramSize != 96 || l.Bindings.Count != 2 || l.Bindings.Stride != 24 || l.Bindings.Ptr == 0 {
		t.Errorf("LAUNCH: %+v", c)
	}

	c = command{}
	Launch{Program: a, Size: 96, Profile: &Profile{Buffer: b, Offset: 400}}.put(&c, &pin)
	if l := *launchOf(&c); c.Flags != 2 || l.ProfileHandle != 2 || l.ProfileOffset != 400 {
		t.Errorf("LAUNCH with a profile record: %+v", c)
	}

	// Without buffers, offsets are addresses.
	c = command{}
	Copy{SrcOffset: 0x10000, DstOffset: 0x20000, Bytes: 5}.put(&c, &pin)
	want = command{Type: 2, Flags: 1, Union: copies{SrcOffset: 0x10000, DstOffset: 0x20000, NX: 5, NY: 1, NZ: 1}}
	if diff := cmp.Diff(want, c, cmp.AllowUnexported(copies{})); diff != "" {
		t.Errorf("COPY of addresses (-want +got):\n%s", diff)
	}
	c = command{}
	Launch{Offset: 0x10000, Size: 96, Bindings: []Binding{{Offset: 0x20000, Size: 16, Read: true}}}.put(&c, &pin)
	if l := *launchOf(&c); c.Flags != 1 || l.ProgramHandle != 0 || l.ProgramOffset != 0x10000 {
		t.Errorf("LAUNCH of an address: %+v", c)
	}
	c = command{}
	Launch{Offset: 0x10000, Size: 96, Profile: &Profile{Offset: 0x30000}}.put(&c, &pin)
	if l := *launchOf(&c); c.Flags != 3 || l.ProfileHandle != 0 || l.ProfileOffset != 0x30000 {
		t.Errorf("LAUNCH of an address with a profile record: %+v", c)
	}
}

func TestVMOps(t *testing.T) {
	b := &Buffer{handle: 3, size: 8192}
	for _, tt := range []struct {
		op   VMOp
		want vmOp
	}{
		{Map{Address: 0x10000, Buffer: b, Read: true, Write: true}, vmOp{Type: 1, Flags: 3, Handle: 3, Address: 0x10000, Size: 8192}},
		{Map{Address: 0x10000, Buffer: b, Offset: 4096, Exec: true}, vmOp{Type: 1, Flags: 4, Handle: 3, Offset: 4096, Address: 0x10000, Size: 4096}},
		{Map{Buffer: b, Size: 4096, Read: true}, vmOp{Type: 1, Flags: 1, Handle: 3, Size: 4096}},
		{Unmap{Address: 0x10000, Size: 4096}, vmOp{Type: 2, Address: 0x10000, Size: 4096}},
	} {
		if diff := cmp.Diff(tt.want, tt.op.op(), cmp.AllowUnexported(vmOp{})); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", tt.op, diff)
		}
	}
	old := &Device{version: 1<<16 | 1}
	_, vm := old.VM()
	_, fault := old.Fault()
	_, telemetry := old.Telemetry()
	_, queue := old.NewQueue(QueueConfig{Weight: 2})
	for _, err := range []error{vm, fault, telemetry, queue, old.Bind()} {
		if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "needs interface 1.2, the driver has 1.1") {
			t.Errorf("on a driver of 1.1: %v", err)
		}
	}
	old.version = 1<<16 | 2
	_, err := (&Queue{d: old}).Submit(Submission{Commands: []Command{Nop{}, Launch{Program: b, Profile: &Profile{Buffer: b}}}})
	if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "profile record: needs interface 1.3, the driver has 1.2") {
		t.Errorf("profile record on a driver of 1.2: %v", err)
	}
}

func TestReadProgram(t *testing.T) {
	p, err := isa.Assemble("test", []byte(".isa 1.0\nhalt\n"))
	if err != nil {
		t.Fatal(err)
	}
	good := p.ELF()
	if got, err := ReadProgram(bytes.NewReader(good)); err != nil || !bytes.Equal(got, p.Image()) {
		t.Errorf("%v: % x, want % x", err, got, p.Image())
	}
	le := binary.LittleEndian
	ph := int(le.Uint64(good[32:])) // the first program header is PT_LOAD
	for _, tt := range []struct {
		name, want string
		edit       func(b []byte) []byte
	}{
		{"empty", "read program", func([]byte) []byte { return nil }},
		{"text", "bad magic", func([]byte) []byte { return []byte(strings.Repeat("halt\n", 100)) }},
		{"another machine", "not an executable for the NPU", func(b []byte) []byte { le.PutUint16(b[18:], 62); return b }},
		{"object", "not an executable", func(b []byte) []byte { le.PutUint16(b[16:], 1); return b }},
		{"no segment", "no PT_LOAD", func(b []byte) []byte { le.PutUint32(b[ph:], 4); return b }},
		{"two segments", "more than one", func(b []byte) []byte { le.PutUint32(b[ph+56:], 1); return b }},
		{"segment of 1 TiB", "want up to", func(b []byte) []byte { le.PutUint64(b[ph+32:], 1<<40); le.PutUint64(b[ph+40:], 1<<40); return b }},
		{"bss", "all in the file", func(b []byte) []byte { le.PutUint64(b[ph+40:], 1<<10); return b }},
		{"segment beyond the file", "EOF", func(b []byte) []byte { le.PutUint64(b[ph+8:], 1<<20); return b }},
	} {
		if got, err := ReadProgram(bytes.NewReader(tt.edit(bytes.Clone(good)))); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v (%d bytes), want an error that says %q", tt.name, err, len(got), tt.want)
		}
	}
}
