// SPDX-License-Identifier: Apache-2.0

//go:build linux

package eventfd

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// add adds one to the count of an eventfd.
func add(fd int) {
	one := uint64(1)
	for {
		// Any error but EINTR is the peer's doing and has no remedy here.
		if _, _, errno := syscall.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 8); errno != unix.EINTR {
			return
		}
	}
}

// addNow is add for an eventfd that cannot block, so that the scheduler need not hear of
// it. Were it to block, it would hold up the whole process.
func addNow(fd int) {
	one := uint64(1)
	// Any error is the peer's doing and has no remedy here.
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 8)
}
