// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"npuemu/accel"
	"npuemu/compiler/model"
	"npuemu/compiler/run"
	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/umd"
)

// umdCard is a card that the user-mode driver drives.
type umdCard struct{ d *umd.Device }

// umdMemory is a buffer of it.
type umdMemory struct{ umd.Buffer }

func (m umdMemory) Bytes() []byte { return m.Buffer.Bytes }

// statusError names the instruction that a LAUNCH failed at (§5.7).
type statusError struct{ *umd.StatusError }

func (e statusError) Unwrap() error { return e.StatusError }

func (e statusError) Instruction() (int, bool) {
	return int(e.Result), e.Status > npureg.Status(0x41)
}

func (c umdCard) Array() (model.Array, error) {
	var v [4]uint32
	for i, r := range []uint32{npureg.ArrayDim, npureg.SpadSize, npureg.AccSize, npureg.FeaturesLo} {
		var err error
		if v[i], err = c.d.Register(r); err != nil {
			return model.Array{}, err
		}
	}
	return model.Array{Rows: int(v[0] & 0xffff), Cols: int(v[0] >> 16), Scratchpad: v[1], Accumulators: v[2], Groups: run.Groups(uint64(v[3]))}, nil
}

func (c umdCard) Alloc(size int) (run.Memory, error) {
	b, err := c.d.Alloc(uint64(size))
	if err != nil {
		err = fmt.Errorf("%w: give more with --memory", err)
	}
	return umdMemory{b}, err
}

func (c umdCard) Launch(ctx context.Context, program run.Memory, bindings []run.Binding) error {
	l := make([]umd.Binding, len(bindings))
	for i, b := range bindings {
		l[i] = umd.Binding{Buffer: b.Memory.(umdMemory).Buffer, Read: true, Write: b.Write}
	}
	_, err := c.d.Launch(ctx, program.(umdMemory).Buffer, l)
	var status *umd.StatusError
	if errors.As(err, &status) {
		return statusError{status}
	}
	return err
}

func (c umdCard) Counters(ctx context.Context) (run.Counters, error) {
	v, err := c.d.Counters(ctx)
	return run.Counters{
		Programs: v.Programs, Errors: v.Errors, Instructions: v.Instructions, MACs: v.MACs, BytesRead: v.BytesRead, BytesWritten: v.BytesWritten,
	}, err
}

// accelCard is a card behind the kernel driver.
type accelCard struct{ d *accel.Device }

// accelMemory is a buffer of it; size is what was asked for.
type accelMemory struct {
	b    *accel.Buffer
	mem  []byte
	size int
}

func (m accelMemory) Bytes() []byte { return m.mem[:m.size] }

// jobError names the instruction that a job failed at (§5.7).
type jobError struct{ *accel.JobError }

func (e jobError) Unwrap() error { return e.JobError }

func (e jobError) Instruction() (int, bool) { return int(e.Result), e.Status > 0x41 }

func (c accelCard) Array() (model.Array, error) {
	i, err := c.d.Info()
	return model.Array{Rows: int(i.ArrayRows), Cols: int(i.ArrayCols), Scratchpad: i.SpadSize, Accumulators: i.AccSize, Groups: run.Groups(i.Features)}, err
}

func (c accelCard) Alloc(size int) (run.Memory, error) {
	b, err := c.d.NewBuffer(accel.SystemMemory, size)
	if err != nil {
		return nil, err
	}
	mem, err := b.Map()
	if err != nil {
		return nil, err
	}
	return accelMemory{b, mem, size}, nil
}

func (c accelCard) Launch(ctx context.Context, program run.Memory, bindings []run.Binding) error {
	p := program.(accelMemory)
	l := accel.Launch{Program: p.b, Size: uint32(p.size)}
	for _, b := range bindings {
		m := b.Memory.(accelMemory)
		l.Bindings = append(l.Bindings, accel.Binding{Buffer: m.b, Size: uint64(m.size), Read: true, Write: b.Write})
	}
	_, err := c.d.Queue().Run(ctx, l)
	var job *accel.JobError
	if errors.As(err, &job) {
		return jobError{job}
	}
	return err
}

func (c accelCard) Counters(context.Context) (run.Counters, error) {
	v, err := c.d.Counters()
	return run.Counters{
		Programs: v.Programs, Errors: v.Errors, Instructions: v.Instructions, MACs: v.MACs, BytesRead: v.DMARead, BytesWritten: v.DMAWritten,
	}, err
}

// openCard opens the card that --device names, and returns what closes it.
func (o *runOptions) openCard(ctx context.Context) (run.Card, func() error, error) {
	if strings.HasPrefix(o.device, "/") {
		d, err := accel.OpenPath(o.device)
		if err != nil {
			return nil, nil, fmt.Errorf("--device %s: %w", o.device, err)
		}
		return accelCard{d}, d.Close, nil
	}
	fn, stop, err := o.attach(ctx)
	if err != nil {
		return nil, nil, err
	}
	cfg := umd.Config{Firmware: firmware.Image(), Memory: o.memory.bytes()}
	if len(o.debug.gdb) > 0 {
		cfg.BootTime = unhurried
	}
	d, err := umd.Open(ctx, fn, cfg)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("%s: %w", o.device, err), stop())
	}
	return umdCard{d}, func() error { d.Close(); return stop() }, nil
}

// memoryFlag is --memory: what the user-mode driver has for programs and their bindings, in MiB.
type memoryFlag struct {
	mib int64
	c   *cobra.Command
}

// mostMemory is what --memory may say: 1 TiB, which an address space of 48 bits has room for.
const mostMemory = 1 << 20

func (f *memoryFlag) add(c *cobra.Command) {
	f.c = c
	c.Flags().Int64Var(&f.mib, "memory", umd.DefaultMemory>>20, fmt.Sprintf("memory for programs, constants and tensors in `MiB`, 1 to %d, of a card that is not behind a kernel driver", mostMemory))
}

func (f *memoryFlag) check(device string) error {
	if f.mib < 1 || f.mib > mostMemory {
		return fmt.Errorf("--memory %d: use 1 to %d MiB", f.mib, mostMemory)
	}
	if strings.HasPrefix(device, "/") && f.c.Flags().Changed("memory") {
		return fmt.Errorf("--memory is for cards that this process drives: behind %s a kernel driver gives out memory", device)
	}
	return nil
}

func (f *memoryFlag) bytes() uint64 { return uint64(f.mib) << 20 }
