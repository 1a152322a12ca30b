// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"errors"
	"fmt"
	"os"

	"npuemu/dma/iova"
)

// What follows are abilities that a Backend may have besides. The server finds
// them by type assertion when it is made, and announces what it finds.

// MigrationState is a state of the device while it is moved to another server.
// The numbers are those of enum vfio_device_mig_state in linux/vfio.h.
type MigrationState uint32

// The states.
const (
	MigrationError      MigrationState = 0 // ERROR: failed; only a reset helps
	MigrationStop       MigrationState = 1 // STOP: no DMA, no interrupt, nothing changes
	MigrationRunning    MigrationState = 2 // RUNNING
	MigrationStopCopy   MigrationState = 3 // STOP_COPY: as STOP, and the state is read out
	MigrationResuming   MigrationState = 4 // RESUMING: as STOP, and a state is written in
	MigrationRunningP2P MigrationState = 5 // RUNNING_P2P: runs, but starts no DMA
	MigrationPreCopy    MigrationState = 6 // PRE_COPY: runs, and the state is read out
	MigrationPreCopyP2P MigrationState = 7 // PRE_COPY_P2P: both of the above

	numMigrationStates = 8
)

var migrationNames = [numMigrationStates]string{
	"ERROR", "STOP", "RUNNING", "STOP_COPY", "RESUMING", "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P",
}

func (s MigrationState) String() string {
	if s < numMigrationStates {
		return migrationNames[s]
	}
	return fmt.Sprintf("MigrationState(%d)", uint32(s))
}

// Saving reports whether the device's state can be read in s.
func (s MigrationState) Saving() bool {
	return s == MigrationStopCopy || s == MigrationPreCopy || s == MigrationPreCopyP2P
}

// MigrationFlags says which states a device knows.
type MigrationFlags uint64

// The bits of MigrationFlags, as linux/vfio.h has them.
const (
	MigrationCanStopCopy MigrationFlags = 1 << 0 // VFIO_MIGRATION_STOP_COPY: STOP, STOP_COPY and RESUMING; needed
	MigrationCanP2P      MigrationFlags = 1 << 1 // VFIO_MIGRATION_P2P: RUNNING_P2P
	MigrationCanPreCopy  MigrationFlags = 1 << 2 // VFIO_MIGRATION_PRE_COPY: PRE_COPY, and with the above PRE_COPY_P2P
)

// ErrMigrationLost is wrapped by the error of a SetMigrationState that left the
// device in no usable state: it is in MigrationError then.
var ErrMigrationLost = errors.New("vfiouser: the device is in no usable state")

// Migrator is a Backend that can be moved to another server. The server keeps
// the state, takes a request apart into the arcs that linux/vfio.h defines, and
// calls SetMigrationState once for each. The device begins in MigrationRunning,
// and is there again after Reset and Detach, which drop a session of reading or
// writing.
type Migrator interface {
	// MigrationFlags is asked once; MigrationCanStopCopy must be among them.
	MigrationFlags() MigrationFlags

	// SetMigrationState goes along one arc. When it returns in a stopped state
	// (STOP, STOP_COPY, RESUMING) the device does no DMA and raises no interrupt
	// until it leaves that state; it must not wait for memory that is reached by
	// messages. Region accesses are served in every state. Leaving RESUMING takes
	// over what was written, or fails if it is incomplete or wrong. After an error the
	// device is in the state from, or in MigrationError if the error wraps
	// ErrMigrationLost.
	SetMigrationState(from, to MigrationState) error

	// ReadMigration fills p, or as much of it as there is, with the next bytes
	// of the device's state, in a saving state. Fewer than len(p) mean that there is
	// no more; in the PRE_COPY states there may be later.
	ReadMigration(p []byte) (int, error)

	// WriteMigration takes the next bytes of the state, in MigrationResuming.
	// They come in pieces of any size. p is the server's after it returns.
	WriteMigration(p []byte) error
}

// DMALogger is a Backend whose device does all its DMA through one table, where
// the server can have the written pages logged.
type DMALogger interface {
	// DMATable returns the table behind MapDMA. It is asked once.
	DMATable() *iova.Table
}

// Messenger is a Backend that reaches memory of the client by messages even where
// a descriptor came with it.
type Messenger interface {
	// UseMessages is called for every client before its first command, with memory
	// that is the bus: offset a is address a, and every access is DMA_READ or
	// DMA_WRITE, mapped or not. It fails once the client is gone, and must not be
	// used by the goroutine that calls the Backend.
	UseMessages(mem iova.Memory)
}

// Why a touch was not made.
var (
	// ErrTouchUnserved: nothing says that the client answers DMA messages, or it did not answer one in time.
	ErrTouchUnserved = errors.New("vfiouser: the client is not known to answer DMA messages")
	// ErrTouchRate: there were too many of them lately.
	ErrTouchRate = errors.New("vfiouser: too many accesses that no mapping permits")
)

// Toucher is a Backend that shows the client the accesses that no mapping permitted, so
// that the IOMMU of its machine can log them as faults (docs/vfio-user.md, "Faults").
type Toucher interface {
	// UseTouch is called for every client before its first command. touch makes an access
	// of one byte at addr a message, DMA_READ or, if access is iova.Write, DMA_WRITE of b, and
	// returns the client's answer: nil, or an error that wraps its errno. What was read is
	// dropped. It makes no more messages than internal/warnings allows warnings, waits at most a
	// second, and must not be called by the goroutine that calls the Backend, nor with a
	// lock that one takes. It fails once the client is gone.
	UseTouch(touch func(addr iova.Addr, access iova.Prot, b byte) error)
}

// IOEventer is a Backend with registers that a client may write by signalling an
// eventfd: from KVM, for example, without a message. The server makes the
// eventfds, and calls WriteRegion for each signal as for a REGION_WRITE; signals
// that come faster than they are served may become one write. A write by signal is
// done before the commands that the client sends after it.
type IOEventer interface {
	// IOEvents describes the registers of a region that have this; at most
	// MaxIOEvents, each within the region. It is asked once per region and client.
	IOEvents(index int) []IOEvent
}

// MaxIOEvents bounds the eventfds of a region.
const MaxIOEvents = 64

// IOEvent is a part of a region that can be written by signalling an eventfd.
type IOEvent struct {
	Off  uint64 // byte offset in the region
	Size int    // of a write: 1, 2, 4 or 8 bytes, or 0 if any size counts

	// Value is what WriteRegion gets, in Size bytes of host order, 4 if Size is 0.
	Value uint64
	// Match: only a write of Value counts (KVM_IOEVENTFD_FLAG_DATAMATCH).
	Match bool
	// PIO: the region is in I/O ports (KVM_IOEVENTFD_FLAG_PIO).
	PIO bool

	// Shadow, if not nil, is a file of at least ShadowOff+Size bytes in memory to
	// which the client writes the value before it signals; WriteRegion gets what
	// is there instead of Value. The file stays the Backend's, open while a server
	// uses it; keep it sealed against shrinking. Size is not 0 then.
	Shadow    *os.File
	ShadowOff uint64
}
