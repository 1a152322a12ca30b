// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"context"
	"errors"
	"fmt"

	"npuemu/accel"
	"npuemu/compiler/model"
	"npuemu/compiler/run"
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

func (c umdCard) Free(m run.Memory) error { return c.d.Free(m.(umdMemory).Buffer) }

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
	if err != nil {
		return run.Counters{}, err
	}
	t, err := c.d.ModelTime()
	return run.Counters{
		Programs: v.Programs, Errors: v.Errors, Instructions: v.Instructions, MACs: v.MACs, BytesRead: v.BytesRead, BytesWritten: v.BytesWritten, Cycles: t,
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
		return nil, errors.Join(err, b.Close())
	}
	return accelMemory{b, mem, size}, nil
}

func (c accelCard) Free(m run.Memory) error {
	if err := m.(accelMemory).b.Close(); err != nil {
		return fmt.Errorf("give a buffer back: %w", err)
	}
	return nil
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
