// SPDX-License-Identifier: Apache-2.0

//go:build linux

package accel

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A Syncobj is a syncobj of DRM: one fence, or with points above 0 a timeline of them.
type Syncobj struct {
	d      *Device
	handle uint32
}

// NewSyncobj makes a syncobj without a fence.
func (d *Device) NewSyncobj() (*Syncobj, error) {
	var c syncobjCreate
	if err := call(d, reqSyncobjCreate, &c); err != nil {
		return nil, fmt.Errorf("accel: make syncobj: %w", err)
	}
	return &Syncobj{d: d, handle: c.Handle}, nil
}

// Close gives the syncobj back. Jobs that wait for its fences go on doing so.
func (s *Syncobj) Close() error {
	if err := call(s.d, reqSyncobjDestroy, &syncobjDestroy{Handle: s.handle}); err != nil {
		return fmt.Errorf("accel: close syncobj: %w", err)
	}
	return nil
}

// At returns a point of the timeline, or with 0 the fence of a syncobj that is none.
func (s *Syncobj) At(point uint64) Sync { return Sync{s, point} }

// Point returns the last point of a timeline that was signalled.
func (s *Syncobj) Point() (uint64, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	handle, point := s.handle, uint64(0)
	q := timelineArray{Handles: address(&pin, &handle), Points: address(&pin, &point), CountHandles: 1}
	if err := call(s.d, reqSyncobjQuery, &q); err != nil {
		return 0, fmt.Errorf("accel: query syncobj: %w", err)
	}
	return point, nil
}

// A Sync is something to wait for, and to signal: a point of a timeline, or the fence of a
// syncobj with point 0. A fence is signalled when its job has ended, however that was.
type Sync struct {
	Obj   *Syncobj
	Point uint64
}

// patience is how long a wait whose context can be cancelled stays in the kernel at a time.
const patience = 50 * time.Millisecond

// Wait waits until s is signalled; whoever signals it may come later. It returns the context's
// error when that ends first: at its deadline, or up to 50 ms after it was cancelled.
func (s Sync) Wait(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("accel: wait: %w", context.Cause(ctx))
		}
		until := int64(math.MaxInt64)
		if ctx.Done() != nil {
			slice := patience
			if end, ok := ctx.Deadline(); ok {
				slice = min(slice, max(0, time.Until(end)))
			}
			var now unix.Timespec
			if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
				return fmt.Errorf("accel: wait: %w", err)
			}
			until = now.Nano() + int64(slice)
		}
		if err := s.wait(until); !errors.Is(err, unix.ETIME) {
			return err
		}
		if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
			return fmt.Errorf("accel: wait: %w", context.DeadlineExceeded)
		}
	}
}

// Done reports whether s is signalled.
func (s Sync) Done() (bool, error) {
	err := s.wait(0)
	if errors.Is(err, unix.ETIME) {
		return false, nil
	}
	return err == nil, err
}

// wait waits until a time of the monotonic clock, in ns.
func (s Sync) wait(until int64) error {
	var pin runtime.Pinner
	defer pin.Unpin()
	handle := s.Obj.handle
	at := address(&pin, &handle)
	var err error
	if s.Point == 0 {
		err = call(s.Obj.d, reqSyncobjWait, &syncobjWait{Handles: at, TimeoutNS: until, CountHandles: 1, Flags: waitForSubmit})
	} else {
		point := s.Point
		err = call(s.Obj.d, reqTimelineWait, &timelineWait{Handles: at, Points: address(&pin, &point), TimeoutNS: until, CountHandles: 1, Flags: waitForSubmit})
	}
	if err != nil {
		return fmt.Errorf("accel: wait: %w", err)
	}
	return nil
}

// Signal signals s. Points of a timeline grow.
func (s Sync) Signal() error {
	var pin runtime.Pinner
	defer pin.Unpin()
	handle := s.Obj.handle
	at := address(&pin, &handle)
	var err error
	if s.Point == 0 {
		err = call(s.Obj.d, reqSyncobjSignal, &syncobjArray{Handles: at, CountHandles: 1})
	} else {
		point := s.Point
		err = call(s.Obj.d, reqTimelineSignal, &timelineArray{Handles: at, Points: address(&pin, &point), CountHandles: 1})
	}
	if err != nil {
		return fmt.Errorf("accel: signal: %w", err)
	}
	return nil
}

// points are syncs as the driver takes them.
func points(syncs []Sync) []syncPoint {
	p := make([]syncPoint, 0, len(syncs)+1)
	for _, s := range syncs {
		p = append(p, syncPoint{Handle: s.Obj.handle, Point: s.Point})
	}
	return p
}
