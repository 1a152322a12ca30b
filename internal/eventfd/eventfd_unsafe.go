// SPDX-License-Identifier: Apache-2.0

//go:build linux

package eventfd

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// add adds one to the count of the eventfd. If it cannot wait, the scheduler need not
// hear of it.
func add(fd int, mayWait bool) syscall.Errno {
	one := uint64(1)
	var errno syscall.Errno
	if mayWait {
		_, _, errno = syscall.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
	} else {
		_, _, errno = syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), unsafe.Sizeof(one))
	}
	return errno
}
