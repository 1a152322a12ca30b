// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command windowless uses device memory that the host has no window to: it is zero when it is
// new, it cannot be mapped, and what is copied there comes back.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/accel"
)

const (
	size    = 2 << 20
	timeout = 20 * time.Second
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "windowless:", err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func run() (err error) {
	d, err := accel.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	before, err := d.Info()
	if err != nil {
		return err
	}
	host, err := d.NewBuffer(accel.SystemMemory, size)
	if err != nil {
		return err
	}
	mem, err := host.Map()
	if err != nil {
		return err
	}
	device, err := d.NewBuffer(accel.DeviceMemory, size)
	if err != nil {
		return err
	}
	if _, err := device.Map(); !errors.Is(err, unix.ENXIO) {
		return fmt.Errorf("map without a window: %w", err)
	}
	f, err := os.Open(d.Path())
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED); !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("map at 0: %w", err)
	}

	pattern := func(i int) byte { return byte(i*7 + i/4096) }
	for i := range mem {
		mem[i] = pattern(i)
	}
	if err := copies(d, host, device); err != nil {
		return err
	}
	clear(mem)
	if err := copies(d, device, host); err != nil {
		return err
	}
	for i, b := range mem {
		if b != pattern(i) {
			return fmt.Errorf("byte %d came back as %d", i, b)
		}
	}

	// The same memory again: what was there is gone.
	if err := closed(d, device, before.DRAMFree); err != nil {
		return err
	}
	other, err := d.NewBuffer(accel.DeviceMemory, size)
	if err != nil {
		return err
	}
	if err := copies(d, other, host); err != nil {
		return err
	}
	for i, b := range mem {
		if b != 0 {
			return fmt.Errorf("byte %d of a new buffer is %d", i, b)
		}
	}
	return closed(d, other, before.DRAMFree)
}

func copies(d *accel.Device, from, to *accel.Buffer) error {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	s, err := d.Queue().Run(ctx, accel.Copy{Src: from, Dst: to, Bytes: size})
	if err == nil && s.Seqno > 4 {
		err = fmt.Errorf("job %d: zeroing counts as a job of the file", s.Seqno)
	}
	return err
}

// closed closes a buffer. Jobs that used it may still hold it for a moment.
func closed(d *accel.Device, b *accel.Buffer, free uint64) error {
	if err := b.Close(); err != nil {
		return err
	}
	for end := time.Now().Add(timeout); ; time.Sleep(10 * time.Millisecond) {
		i, err := d.Info()
		if err != nil || i.DRAMFree == free {
			return err
		}
		if time.Now().After(end) {
			return errors.New("device memory is not given back")
		}
	}
}
