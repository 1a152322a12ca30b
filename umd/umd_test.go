// SPDX-License-Identifier: Apache-2.0

//go:build linux

package umd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"npuemu/core/isa"
	"npuemu/firmware"
	"npuemu/internal/uds"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/umd"
	"npuemu/vdev"
	"npuemu/vdev/local"
	"npuemu/vdev/vfiouser"
)

// card returns a way to attach to a running card, over a socket or in this process.
func card(t testing.TB, cfg vdev.Config, socket bool) (attach func() umd.Function) {
	t.Helper()
	d := devtest.Run(t, cfg)
	if !socket {
		return func() umd.Function { return local.Attach(d) }
	}
	s := vfiouser.NewServer(vfiouser.Config{}, d)
	return func() umd.Function {
		near, far, err := uds.Pair()
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan struct{})
		go func() { _ = s.ServeConn(ctx, far); close(served) }() // ctx's error
		t.Cleanup(func() { cancel(); <-served })
		return client(t, near)
	}
}

func client(t testing.TB, nc *net.UnixConn) umd.Function {
	t.Helper()
	c, err := vfiouser.NewClient(nc)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, fn umd.Function) *umd.Device {
	t.Helper()
	d, err := umd.Open(t.Context(), fn, umd.Config{Firmware: firmware.Image()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// program assembles a program for the default array and puts it into memory.
func program(t testing.TB, d *umd.Device, text string) umd.Buffer {
	t.Helper()
	p, err := isa.Assemble("test", []byte(".isa 1.0\n.array 32, 32\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Put(p.Image())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const copyProgram = `.spad 4096
.bindings 2
load binding=0 local=0 nx=4096 signal=0
store binding=1 local=0 nx=4096 wait=0
halt
`

// Whatever the road and the interrupts of the card, programs run, in order, many
// times round the rings, and the card counts them.
func TestLaunch(t *testing.T) {
	msi := vdev.DefaultConfig()
	msi.PCI.MSIX = false
	intx := msi
	intx.PCI.MSI = false
	one := vdev.DefaultConfig()
	one.Queues.Vectors = 1
	for _, tt := range []struct {
		name   string
		cfg    vdev.Config
		socket bool
	}{
		{"in this process", vdev.DefaultConfig(), false},
		{"over a socket", vdev.DefaultConfig(), true},
		{"MSI", msi, true},
		{"INTx, so polled", intx, false},
		{"one vector", one, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := open(t, card(t, tt.cfg, tt.socket)())
			p := program(t, d, copyProgram)
			in, err := d.Put(bytes.Repeat([]byte("npu!"), 1024))
			if err != nil {
				t.Fatal(err)
			}
			const runs = 100
			for i := range runs {
				in.Bytes[0] = byte(i)
				out, err := d.Alloc(4096)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := d.Launch(t.Context(), p, []umd.Binding{{Buffer: in, Read: true}, {Buffer: out, Write: true}}); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(in.Bytes, out.Bytes) {
					t.Fatalf("run %d: the copy differs", i)
				}
			}
			c, err := d.Counters(t.Context())
			if err != nil || c.Programs != runs || c.Errors != 0 || c.BytesRead != runs*4096 || c.BytesWritten != runs*4096 {
				t.Errorf("counters %+v, %v", c, err)
			}
		})
	}
}

func TestMistakes(t *testing.T) {
	attach := card(t, vdev.DefaultConfig(), false)
	d := open(t, attach())
	p := program(t, d, copyProgram)
	in, err := d.Alloc(4096)
	if err != nil {
		t.Fatal(err)
	}
	// A binding that does not allow it: the command fails, and the next one works.
	_, err = d.Launch(t.Context(), p, []umd.Binding{{Buffer: in, Read: true}, {Buffer: in, Read: true}})
	var st *umd.StatusError
	if !errors.As(err, &st) || st.Status != npureg.StatusBindingAccess || st.Result != 1 {
		t.Errorf("a store to a binding that is read-only: %v", err)
	}
	if _, err := d.Launch(t.Context(), p, []umd.Binding{{Buffer: in, Read: true}, {Buffer: in, Write: true}}); err != nil {
		t.Errorf("after a program that failed: %v", err)
	}
	if _, err := d.Launch(t.Context(), p, make([]umd.Binding, 65)); err == nil || !strings.Contains(err.Error(), "the most is 64") {
		t.Errorf("65 bindings: %v", err)
	}
	if _, err := d.Alloc(umd.DefaultMemory); err == nil || !strings.Contains(err.Error(), "Config.Memory") {
		t.Errorf("more memory than there is: %v", err)
	}
	if _, err := d.Alloc(^uint64(0)); err == nil {
		t.Error("a size that overflows")
	}
	d.Close()
	d.Close()
	if _, err := d.Counters(t.Context()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("after Close: %v", err)
	}

	// The card is free again, and says what is wrong with an image.
	bad := bytes.Clone(firmware.Image())
	bad[100] ^= 1
	if _, err := umd.Open(t.Context(), attach(), umd.Config{Firmware: bad}); err == nil || !strings.Contains(err.Error(), "firmware does not boot: error 6") {
		t.Errorf("an image with a wrong checksum: %v", err)
	}
	open(t, attach())
}

// A program that its caller gives up on writes no memory afterwards.
func TestCancel(t *testing.T) {
	d := open(t, card(t, vdev.DefaultConfig(), false)())
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, errors.New("enough"))
	defer cancel()
	long := ".spad 32768\n.acc 131072\npreload k=32 n=32 weights=0 stride=32\n" +
		strings.Repeat("matmul k=32 n=32 ifmap=0 acc=0 mx=1024 stride_x=0 acc_stride=128\n", 60_000) + "halt\n" // a second, or some
	b := program(t, d, long)
	if _, err := d.Launch(ctx, b, nil); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Fatalf("a program that takes seconds: %v", err)
	}
	if _, err := d.Launch(t.Context(), b, nil); err == nil || !strings.Contains(err.Error(), "was reset") {
		t.Errorf("after giving up: %v", err)
	}
}

// other is a function that is no NPU, or one from the future.
type other struct {
	umd.Function
	id, arch uint32
}

func (o *other) ReadRegion(index int, off uint64, p []byte) error {
	if index == vfiouser.RegionBAR0 && off <= npureg.ArchVersion && len(p) == 4 {
		v := o.id
		if off == npureg.ArchVersion {
			v = o.arch
		}
		p[0], p[1], p[2], p[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
		return nil
	}
	return o.Function.ReadRegion(index, off, p)
}

func TestOtherDevices(t *testing.T) {
	attach := card(t, vdev.DefaultConfig(), false)
	for _, tt := range []struct {
		id, arch uint32
		want     string
	}{
		{0xffffffff, 0, "this is no NPU"},
		{npureg.Magic, (npureg.ArchMajor + 1) << 16, fmt.Sprintf("architecture %d.0", npureg.ArchMajor+1)},
	} {
		if _, err := umd.Open(t.Context(), &other{attach(), tt.id, tt.arch}, umd.Config{Firmware: firmware.Image()}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// BenchmarkLaunch is a program of one instruction, from the doorbell to the answer.
func BenchmarkLaunch(b *testing.B) {
	for _, socket := range []bool{false, true} {
		b.Run(fmt.Sprintf("socket=%t", socket), func(b *testing.B) {
			d := open(b, card(b, vdev.DefaultConfig(), socket)())
			p := program(b, d, "halt\n")
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.Launch(b.Context(), p, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
