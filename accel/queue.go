// SPDX-License-Identifier: Apache-2.0

//go:build linux

package accel

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A Queue executes its jobs one after the other.
type Queue struct {
	d        *Device
	number   uint32
	timeline *Syncobj // job n signals its point n

	mu   sync.Mutex
	jobs uint64 // guarded by mu: submitted
}

// QueueConfig says what a queue is like.
type QueueConfig struct {
	Priority int // 0 to 3; above 0 needs CAP_SYS_NICE
	// Weight is how many commands in a row it may have before other queues of its priority, 0 for 1. Interface 1.2.
	Weight int
	// Timeout is what a command of it may take, in whole milliseconds, 0 for Info.JobTimeoutMS, above which it
	// needs CAP_SYS_NICE. Interface 1.2.
	Timeout time.Duration
}

// NewQueue makes a queue (interface 1.1). Errors: EINVAL; EACCES, EOPNOTSUPP (what cfg
// asks for); EBUSY, all queues or contexts are in use.
func (d *Device) NewQueue(cfg QueueConfig) (*Queue, error) {
	if cfg.Weight != 0 || cfg.Timeout != 0 {
		if err := d.needs(version12, "queue with a weight or timeout"); err != nil {
			return nil, err
		}
	}
	ms := cfg.Timeout.Milliseconds()
	if cfg.Timeout != 0 && (ms <= 0 || ms > math.MaxUint32) {
		return nil, fmt.Errorf("accel: make queue: timeout %v: %w", cfg.Timeout, unix.EINVAL)
	}
	timeline, err := d.NewSyncobj()
	if err != nil {
		return nil, err
	}
	c := queueCreate{Priority: uint32(cfg.Priority), Weight: uint32(cfg.Weight), TimeoutMS: uint32(ms)}
	if err := call(d, reqNPUQueueCreate, &c); err != nil {
		return nil, errors.Join(fmt.Errorf("accel: make queue: %w", err), timeline.Close())
	}
	return &Queue{d: d, number: c.Queue, timeline: timeline}, nil
}

// Close ends the queue: its jobs that have not completed end with ECANCELED. The
// queue that every file has stays.
func (q *Queue) Close() error {
	if q.number == 0 {
		return nil
	}
	if err := call(q.d, reqNPUQueueDestroy, &queueDestroy{Queue: q.number}); err != nil {
		return fmt.Errorf("accel: close queue: %w", err)
	}
	return q.timeline.Close()
}

// A Command is Nop, Copy or Launch.
type Command interface {
	// put writes the command; what it refers to is pinned.
	put(c *command, pin *runtime.Pinner)
}

// Nop does nothing.
type Nop struct{}

// Copy and Launch with buffers name memory by buffer and offset. Without any, the offsets are addresses of the
// file's address space (Device.Bind, interface 1.2).

// Copy copies Planes planes of Rows rows of Bytes bytes (§7.4). The first byte of row y of plane z is
// at offset + z·plane stride + y·row stride. Rows and Planes of 0 mean 1.
type Copy struct {
	Src, Dst                     *Buffer
	SrcOffset, DstOffset         uint64
	Bytes, Rows, Planes          uint32
	SrcRowStride, SrcPlaneStride uint64
	DstRowStride, DstPlaneStride uint64
}

// Launch runs a program (§4.9): what ReadProgram returned, at Offset of a buffer.
type Launch struct {
	Program  *Buffer
	Offset   uint64 // a multiple of 64
	Size     uint32 // bytes of the program
	Bindings []Binding

	// Profile is where the device stores a profile record if the program succeeds, nil for none. Interface 1.3; EOPNOTSUPP:
	// the device has none.
	Profile *Profile
}

// Profile is room for a profile record (§13.8.4), ProfileSize bytes.
type Profile struct {
	Buffer *Buffer
	Offset uint64 // a multiple of 8
}

// A Binding is memory that a program can reach (§5.2). Size 0 is all from Offset on.
type Binding struct {
	Buffer       *Buffer
	Offset, Size uint64
	Read, Write  bool
}

func (Nop) put(c *command, _ *runtime.Pinner) { c.Type = commandNop }

func (y Copy) put(c *command, _ *runtime.Pinner) {
	c.Type, c.Flags = commandCopy, y.Src.virtual()
	c.Union = copies{
		SrcHandle: y.Src.name(), DstHandle: y.Dst.name(), SrcOffset: y.SrcOffset, DstOffset: y.DstOffset,
		NX: y.Bytes, NY: max(1, y.Rows), NZ: max(1, y.Planes),
		SrcStrideY: y.SrcRowStride, SrcStrideZ: y.SrcPlaneStride, DstStrideY: y.DstRowStride, DstStrideZ: y.DstPlaneStride,
	}
}

func (l Launch) put(c *command, pin *runtime.Pinner) {
	c.Type, c.Flags = commandLaunch, l.Program.virtual()
	bindings := make([]binding, len(l.Bindings))
	for i, b := range l.Bindings {
		bindings[i] = binding{Handle: b.Buffer.name(), Offset: b.Offset, Size: b.Size}
		if b.Size == 0 && b.Buffer != nil {
			bindings[i].Size = b.Buffer.size - b.Offset
		}
		if b.Read {
			bindings[i].Flags |= bindingRead
		}
		if b.Write {
			bindings[i].Flags |= bindingWrite
		}
	}
	*launchOf(c) = launch{ProgramHandle: l.Program.name(), ProgramSize: l.Size, ProgramOffset: l.Offset, Bindings: list(pin, bindings)}
	if p := l.Profile; p != nil {
		c.Flags |= commandProfile
		launchOf(c).ProfileHandle, launchOf(c).ProfileOffset = p.Buffer.name(), p.Offset
	}
}

// A Submission is a job to be.
type Submission struct {
	Commands []Command // executed one after the other
	Wait     []Sync    // the job starts when these are signalled
	Signal   []Sync    // signalled when it has ended, besides Job.Sync
}

// Submit gives a job to the queue. What can be checked before the job runs is an error here
// (EINVAL, ENOENT, EBUSY, EIO, ENODEV); the rest is an error of the job.
func (q *Queue) Submit(s Submission) (*Job, error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	commands := make([]command, len(s.Commands))
	for i, c := range s.Commands {
		if l, ok := c.(Launch); ok && l.Profile != nil {
			if err := q.d.needs(version13, "profile record"); err != nil {
				return nil, err
			}
		}
		c.put(&commands[i], &pin)
	}
	wait, signal := points(s.Wait), points(s.Signal)

	q.mu.Lock() // so that points come in their order
	defer q.mu.Unlock()
	done := q.timeline.At(q.jobs + 1)
	signal = append(signal, syncPoint{Handle: q.timeline.handle, Point: done.Point})
	a := submit{Commands: list(&pin, commands), InSyncs: list(&pin, wait), OutSyncs: list(&pin, signal), Queue: q.number}
	if err := call(q.d, reqNPUSubmit, &a); err != nil {
		return nil, fmt.Errorf("accel: submit %d commands: %w", len(commands), err)
	}
	q.jobs++
	return &Job{d: q.d, Seqno: a.Seqno, Sync: done}, nil
}

// Run submits commands as one job and waits for it, as Job.Wait.
func (q *Queue) Run(ctx context.Context, commands ...Command) (JobStatus, error) {
	j, err := q.Submit(Submission{Commands: commands})
	if err != nil {
		return JobStatus{}, err
	}
	return j.Wait(ctx)
}
