// SPDX-License-Identifier: Apache-2.0

// Package accel uses an NPU through Linux: it opens /dev/accel/accelN, makes
// buffers and queues, submits jobs and waits for them. It speaks the interface
// of the driver, driver/uapi/npu_accel.h, and knows nothing else of the device.
//
// A Device is an open file. It has a queue that is always there (Device.Queue)
// and those that Device.NewQueue makes; the jobs of a queue run one after the
// other, those of different queues are ordered by Syncs only. A job that
// fails ends like any other; how, says its status: Job.Wait returns a
// *JobError then.
//
// Everything may be used from several goroutines at once, but for what is
// being closed. Closing a Device closes all that came from it, except memory
// that is mapped.
//
// Errors of the driver wrap its unix.Errno, so that errors.Is(err, unix.ENOSPC)
// works; what they mean is in the header, beside each call. When a device is
// removed, calls fail with unix.ENODEV, and memory that is mapped is gone: an
// access to it is a fault, as of a nil pointer (debug.SetPanicOnFault).
//
// The package needs interface 1.0; what is newer says so.
package accel
