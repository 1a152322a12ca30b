// SPDX-License-Identifier: Apache-2.0

package gokvm

import (
	"errors"
	"io"
	"log/slog"
	"os"

	"npuemu/vdev/vfiouser"
)

// Device is what goes into the PCI slot: a PCI function that interrupts by MSI-X, with
// the table in BAR4, by MSI or by INTA.
type Device interface {
	vfiouser.Backend
	// ServeTable makes the device obey the mask bits of the table in BAR4, until
	// Detach.
	ServeTable()
}

// Config is a guest.
type Config struct {
	Memory  int64       // bytes of guest memory, a multiple of 2 MiB; 0 is DefaultMemory
	Kernel  io.ReaderAt // a bzImage of Linux for x86-64
	Initrd  io.ReaderAt // nil: none
	Cmdline string      // with console=ttyS0, or nothing is seen

	// Payload is a guest without an operating system, instead of Kernel: it is put
	// at 1 MiB and entered at its first byte in 64-bit mode, with the first 4 GiB mapped one to
	// one, interrupts off, and no stack.
	Payload []byte
	// MemoryFile becomes guest memory, and is as long as that: its other mappings see what
	// guest and device do. It stays the caller's. nil: memory is the guest's alone.
	MemoryFile *os.File

	Console io.Writer    // what the guest sends to its serial port; nil: discarded
	Input   io.Reader    // what it receives; nil: nothing. Boot does not wait for a Read that blocks.
	Log     *slog.Logger // nil: discarded
}

// DefaultMemory is what a guest gets if Config does not say.
const DefaultMemory = 512 << 20

// What a guest ends with, other than by itself.
var (
	// ErrKVM: this machine has no KVM that we may use.
	ErrKVM = errors.New("gokvm: KVM cannot be used")
	// ErrEmulation: KVM met an instruction that it must emulate and cannot. Seen where
	// KVM itself has no hardware support.
	ErrEmulation = errors.New("gokvm: KVM cannot run an instruction of the guest")
	// ErrTripleFault: the guest's processor shut down. Linux does it on purpose only
	// with reboot=t.
	ErrTripleFault = errors.New("gokvm: the guest's processor shut down (triple fault)")
)
