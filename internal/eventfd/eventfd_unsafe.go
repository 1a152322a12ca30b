// SPDX-License-Identifier: Apache-2.0

//go:build linux

package eventfd

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// addNow adds one to the count of an eventfd that does not block, so that the scheduler
// need not hear of it.
func addNow(fd int) {
	one := uint64(1)
	// Any error is the peer's doing and has no remedy here.
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 8)
}
