// SPDX-License-Identifier: Apache-2.0

//go:build linux

package accel

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"
)

// A Job was submitted.
type Job struct {
	d *Device
	// Seqno is its number in this file, of all queues, from 1.
	Seqno uint64
	// Sync is signalled when it has ended.
	Sync Sync
}

// A JobState says how far a job is.
type JobState uint32

const (
	// Pending jobs wait or run.
	Pending JobState = 0
	// Done are jobs of which all commands succeeded.
	Done JobState = 1
	// Failed are others that have ended.
	Failed JobState = 2
)

func (s JobState) String() string {
	switch s {
	case Pending:
		return "pending"
	case Done:
		return "done"
	case Failed:
		return "failed"
	}
	return fmt.Sprintf("state %d", uint32(s))
}

// A Status is a status code of the device (§9.1). 0 is success, or that the device gave none.
type Status uint32

func (s Status) String() string {
	if name, ok := statusNames[s]; ok {
		return name
	}
	return fmt.Sprintf("status 0x%02x", uint32(s))
}

// A JobError is how a job failed. errors.Is finds its Errno.
type JobError struct{ JobStatus }

func (e *JobError) Error() string {
	if e.Status == 0 {
		return fmt.Sprintf("accel: job %d: command %d: %v", e.Seqno, e.Command, e.Unwrap())
	}
	return fmt.Sprintf("accel: job %d: command %d: %v, result %d, info %#x: %v", e.Seqno, e.Command, e.Status, e.Result, e.Info, e.Unwrap())
}

// Unwrap returns the error number: EINVAL a wrong command or program, EFAULT a wrong access, EIO another
// failure, ETIMEDOUT, ECANCELED by a reset or the end of its queue, ENODEV.
func (e *JobError) Unwrap() error { return unix.Errno(-e.Errno) }

// Err returns a *JobError if the job failed.
func (s JobStatus) Err() error {
	if s.State != Failed {
		return nil
	}
	return &JobError{s}
}

// Status asks what became of the job. The driver knows the last 64 of a file: ENOENT.
func (j *Job) Status() (JobStatus, error) {
	s, err := ask[JobStatus](j.d, queryJob, j.Seqno)
	if err != nil {
		err = fmt.Errorf("accel: status of job %d: %w", j.Seqno, err)
	}
	return s, err
}

// Wait waits for the end of the job, and returns its status; if it failed, the error is a *JobError. An end of
// ctx does not end the job.
func (j *Job) Wait(ctx context.Context) (JobStatus, error) {
	if err := j.Sync.Wait(ctx); err != nil {
		return JobStatus{}, err
	}
	s, err := j.Status()
	if err == nil {
		err = s.Err()
	}
	return s, err
}
