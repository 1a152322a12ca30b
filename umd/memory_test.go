// SPDX-License-Identifier: Apache-2.0

//go:build linux

package umd_test

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"npuemu/firmware"
	"npuemu/umd"
	"npuemu/vdev"
)

// Buffers that are given back can be had again, all zero, for years; those in use keep their bytes.
func TestFree(t *testing.T) {
	d, err := umd.Open(t.Context(), card(t, vdev.DefaultConfig(), false)(), umd.Config{Firmware: firmware.Image(), Memory: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	r := rand.New(rand.NewPCG(1, 1))
	type used struct {
		umd.Buffer
		fill byte
	}
	var l []used
	refused := 0
	for i := range 2000 {
		if len(l) > 0 && r.IntN(2) == 0 {
			k := r.IntN(len(l))
			if b := l[k].Bytes; !bytes.Equal(b, bytes.Repeat([]byte{l[k].fill}, len(b))) {
				t.Fatalf("%d: a buffer at %#x has changed", i, l[k].Addr)
			}
			if err := d.Free(l[k].Buffer); err != nil {
				t.Fatal(err)
			}
			l[k] = l[len(l)-1]
			l = l[:len(l)-1]
			continue
		}
		b, err := d.Alloc(r.Uint64N(100_000))
		if err != nil {
			refused++
			continue
		}
		if !bytes.Equal(b.Bytes, make([]byte, len(b.Bytes))) {
			t.Fatalf("%d: a buffer of %d bytes at %#x is not zero", i, len(b.Bytes), b.Addr)
		}
		u := used{b, byte(i) | 1}
		copy(u.Bytes, bytes.Repeat([]byte{u.fill}, len(u.Bytes)))
		l = append(l, u)
	}
	if refused == 0 || refused > 1000 {
		t.Errorf("%d buffers did not fit: the test shows nothing", refused)
	}
	for _, u := range l {
		if err := d.Free(u.Buffer); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := d.Alloc(900_000)
	if err != nil {
		t.Errorf("all is free, and yet: %v", err)
	}
	if _, err := d.Counters(t.Context()); err != nil {
		t.Errorf("the driver's own memory: %v", err)
	}
	for _, size := range []uint64{200_000, 1 << 40, math.MaxUint64} {
		if _, err := d.Alloc(size); err == nil || !strings.Contains(err.Error(), "in one piece") {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if err := d.Free(whole); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a buffer was given back twice")
		}
	}()
	_ = d.Free(whole) // which panics
}
