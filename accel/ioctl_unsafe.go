// SPDX-License-Identifier: Apache-2.0

//go:build linux

package accel

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// call makes an ioctl, again if a signal interrupted it. The error is a unix.Errno.
func call[T any](d *Device, r request, arg *T) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(d.fd), r.number(unsafe.Sizeof(*arg)), uintptr(unsafe.Pointer(arg)))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

// address pins what p points to until the pinner lets go, and returns where it is.
func address[T any](pin *runtime.Pinner, p *T) uint64 {
	pin.Pin(p)
	return uint64(uintptr(unsafe.Pointer(p)))
}

// list describes s to the driver, and pins it.
func list[T any](pin *runtime.Pinner, s []T) array {
	if len(s) == 0 {
		return array{}
	}
	return array{Stride: uint32(unsafe.Sizeof(s[0])), Count: uint32(len(s)), Ptr: address(pin, &s[0])}
}

// ask is DRM_IOCTL_NPU_QUERY. What an older driver does not know stays 0.
func ask[T any](d *Device, kind uint32, arg uint64) (answer T, err error) {
	var pin runtime.Pinner
	defer pin.Unpin()
	to := new(T)
	err = call(d, reqNPUQuery, &query{Type: kind, Size: uint32(unsafe.Sizeof(*to)), Arg: arg, Ptr: address(&pin, to)})
	return *to, err
}

// launchOf returns the union of a command as that of LAUNCH; what is behind it stays 0.
func launchOf(c *command) *launch { return (*launch)(unsafe.Pointer(&c.Union)) }
