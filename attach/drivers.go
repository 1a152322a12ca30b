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

func (c umdCard) Hardware() (run.Hardware, error) {
	var v [5]uint32
	for i, r := range []uint32{npureg.ArrayDim, npureg.SpadSize, npureg.AccSize, npureg.FeaturesLo, npureg.ArchVersion} {
		var err error
		if v[i], err = c.d.Register(r); err != nil {
			return run.Hardware{}, err
		}
	}
	return run.Hardware{
		Array:        model.Array{Rows: int(v[0] & 0xffff), Cols: int(v[0] >> 16), Scratchpad: v[1], Accumulators: v[2], Groups: run.Groups(uint64(v[3]))},
		Architecture: accel.Version(v[4]).String(),
	}, nil
}

func (c umdCard) Alloc(size int) (run.Memory, error) {
	b, err := c.d.Alloc(uint64(size))
	if err != nil {
		err = fmt.Errorf("%w: give more with --memory", err)
	}
	return umdMemory{b}, err
}

func (c umdCard) Free(m run.Memory) error { return c.d.Free(m.(umdMemory).Buffer) }

func (c umdCard) Launch(ctx context.Context, program run.Memory, bindings []run.Binding) (run.Launch, error) {
	l := make([]umd.Binding, len(bindings))
	for i, b := range bindings {
		l[i] = umd.Binding{Buffer: b.Memory.(umdMemory).Buffer, Read: true, Write: b.Write}
	}
	s, err := c.d.Launch(ctx, program.(umdMemory).Buffer, l)
	var status *umd.StatusError
	if errors.As(err, &status) {
		err = statusError{status}
	}
	if err != nil {
		return run.Launch{}, err
	}
	return Launched(s)
}

// Launched is what the card said of a program that the user-mode driver launched.
func Launched(s umd.LaunchStats) (run.Launch, error) {
	if s.Record == nil {
		return run.Launch{Untimed: run.NoTiming}, nil
	}
	return launched(uint64(s.Cycles), s.Record)
}

// launched is a program that took so many cycles and left a profile record.
func launched(cycles uint64, record []byte) (run.Launch, error) {
	p, err := run.ParseProfile(record)
	l := run.Launch{Cycles: cycles, Profile: p}
	if cycles == 0 {
		l.Untimed = run.FastMode
	}
	return l, err
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
type accelCard struct {
	d       *accel.Device
	cycles  uint64      // of all launches
	untimed string      // why there are none, if that is known from the start
	record  accelMemory // room for profile records; none if untimed says why
}

// profileVersion is the driver's interface from which on it tells of cycles.
const profileVersion accel.Version = 1<<16 | 3

// newAccelCard looks whether card and driver tell of cycles, and makes room for what they tell.
func newAccelCard(d *accel.Device) (*accelCard, error) {
	c := &accelCard{d: d}
	i, err := d.Info()
	if err != nil {
		return nil, err
	}
	if c.untimed = untimed(i.Features, d.Version()); c.untimed != "" {
		return c, nil
	}
	m, err := c.Alloc(accel.ProfileSize)
	if err != nil {
		return nil, err
	}
	c.record = m.(accelMemory)
	return c, nil
}

// untimed says why a card with these features does not tell of cycles through a driver with this interface, if so.
func untimed(features uint64, driver accel.Version) string {
	switch {
	case features&npureg.FeatureTiming == 0:
		return run.NoTiming
	case driver < profileVersion:
		return fmt.Sprintf("the driver has interface %v, and tells of them from %v on", driver, profileVersion)
	}
	return ""
}

func (c *accelCard) close() error {
	var err error
	if c.untimed == "" {
		err = c.record.b.Close()
	}
	return errors.Join(err, c.d.Close())
}

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

func (c *accelCard) Hardware() (run.Hardware, error) {
	i, err := c.d.Info()
	return run.Hardware{
		Array:        model.Array{Rows: int(i.ArrayRows), Cols: int(i.ArrayCols), Scratchpad: i.SpadSize, Accumulators: i.AccSize, Groups: run.Groups(i.Features)},
		Architecture: i.Arch.String(),
	}, err
}

func (c *accelCard) Alloc(size int) (run.Memory, error) {
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

func (c *accelCard) Free(m run.Memory) error {
	if err := m.(accelMemory).b.Close(); err != nil {
		return fmt.Errorf("give a buffer back: %w", err)
	}
	return nil
}

func (c *accelCard) Launch(ctx context.Context, program run.Memory, bindings []run.Binding) (run.Launch, error) {
	p := program.(accelMemory)
	l := accel.Launch{Program: p.b, Size: uint32(p.size)}
	if c.untimed == "" {
		l.Profile = &accel.Profile{Buffer: c.record.b}
	}
	for _, b := range bindings {
		m := b.Memory.(accelMemory)
		l.Bindings = append(l.Bindings, accel.Binding{Buffer: m.b, Size: uint64(m.size), Read: true, Write: b.Write})
	}
	s, err := c.d.Queue().Run(ctx, l)
	var job *accel.JobError
	if errors.As(err, &job) {
		err = jobError{job}
	}
	if err != nil {
		return run.Launch{}, err
	}
	if c.untimed != "" {
		return run.Launch{Untimed: c.untimed}, nil
	}
	c.cycles += s.Cycles
	return launched(s.Cycles, c.record.Bytes())
}

func (c *accelCard) Counters(context.Context) (run.Counters, error) {
	v, err := c.d.Counters()
	return run.Counters{
		Programs: v.Programs, Errors: v.Errors, Instructions: v.Instructions, MACs: v.MACs, BytesRead: v.DMARead, BytesWritten: v.DMAWritten,
		Cycles: c.cycles,
	}, err
}
