// SPDX-License-Identifier: Apache-2.0

//go:build linux

package accel

import (
	"fmt"
	"runtime"
)

// VM asks about the file's address space (interface 1.2). EOPNOTSUPP: the device has no MMU.
func (d *Device) VM() (VMInfo, error) {
	if err := d.needs(version12, "address space"); err != nil {
		return VMInfo{}, err
	}
	i, err := ask[VMInfo](d, queryVM, 0)
	if err != nil {
		err = fmt.Errorf("accel: address space: %w", err)
	}
	return i, err
}

// Fault asks for the last access of the file that was refused (interface 1.2).
func (d *Device) Fault() (Fault, error) {
	if err := d.needs(version12, "fault"); err != nil {
		return Fault{}, err
	}
	f, err := ask[Fault](d, queryFault, 0)
	if err != nil {
		err = fmt.Errorf("accel: fault: %w", err)
	}
	return f, err
}

// A VMOp is Map or Unmap.
type VMOp interface{ op() vmOp }

// Map maps a part of a buffer at an address, where nothing is mapped yet. Size 0 is all of it from Offset on.
type Map struct {
	Address           uint64
	Buffer            *Buffer
	Offset, Size      uint64
	Read, Write, Exec bool
}

// Unmap takes away the mappings in a range, each whole.
type Unmap struct{ Address, Size uint64 }

func (m Map) op() vmOp {
	o := vmOp{Type: vmMap, Handle: m.Buffer.handle, Offset: m.Offset, Address: m.Address, Size: m.Size}
	if m.Size == 0 {
		o.Size = m.Buffer.size - m.Offset
	}
	if m.Read {
		o.Flags |= vmRead
	}
	if m.Write {
		o.Flags |= vmWrite
	}
	if m.Exec {
		o.Flags |= vmExec
	}
	return o
}

func (u Unmap) op() vmOp { return vmOp{Type: vmUnmap, Address: u.Address, Size: u.Size} }

// Bind changes the file's address space (interface 1.2), which commands without buffers use: all operations in their
// order, or on an error none. A mapping holds its buffer's memory, until it is unmapped or the file is closed.
// Errors: EINVAL, ENOENT, EEXIST, ENOSPC, EOPNOTSUPP.
func (d *Device) Bind(ops ...VMOp) error {
	if err := d.needs(version12, "address space"); err != nil {
		return err
	}
	var pin runtime.Pinner
	defer pin.Unpin()
	raw := make([]vmOp, len(ops))
	for i, o := range ops {
		raw[i] = o.op()
	}
	if err := call(d, reqNPUVMBind, &vmBind{Ops: list(&pin, raw)}); err != nil {
		return fmt.Errorf("accel: bind: %w", err)
	}
	return nil
}
