// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// dram is device memory: a memfd that the device maps and that clients map too.
type dram struct {
	file *os.File
	mem  []byte
}

// newDRAM makes device memory of size bytes, zeroed. The file is sealed against
// resizing, so that no client can take pages away under the mapping.
func newDRAM(size int64) (*dram, error) {
	fd, err := unix.MemfdCreate("npu-dram", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("vdev: device memory: memfd_create: %w", err)
	}
	d := &dram{file: os.NewFile(uintptr(fd), "npu-dram")}
	if err := unix.Ftruncate(fd, size); err != nil {
		d.file.Close()
		return nil, fmt.Errorf("vdev: device memory of %d bytes: %w", size, err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		d.file.Close()
		return nil, fmt.Errorf("vdev: device memory: seal: %w", err)
	}
	d.mem, err = unix.Mmap(fd, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		d.file.Close()
		return nil, fmt.Errorf("vdev: device memory of %d bytes: mmap: %w", size, err)
	}
	return d, nil
}

// close frees the memory. Nothing may use it any more.
func (d *dram) close() error {
	err := unix.Munmap(d.mem)
	if e := d.file.Close(); err == nil {
		err = e
	}
	return err
}
