// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Command is the number of a message's command.
type Command uint16

// The commands of the protocol, with the specification's names.
const (
	cmdVersion         Command = 1  // VFIO_USER_VERSION
	cmdDMAMap          Command = 2  // VFIO_USER_DMA_MAP
	cmdDMAUnmap        Command = 3  // VFIO_USER_DMA_UNMAP
	cmdGetInfo         Command = 4  // VFIO_USER_DEVICE_GET_INFO
	cmdGetRegionInfo   Command = 5  // VFIO_USER_DEVICE_GET_REGION_INFO
	cmdGetRegionIOFDs  Command = 6  // VFIO_USER_DEVICE_GET_REGION_IO_FDS
	cmdGetIRQInfo      Command = 7  // VFIO_USER_DEVICE_GET_IRQ_INFO
	cmdSetIRQs         Command = 8  // VFIO_USER_DEVICE_SET_IRQS
	cmdRegionRead      Command = 9  // VFIO_USER_REGION_READ
	cmdRegionWrite     Command = 10 // VFIO_USER_REGION_WRITE
	cmdDMARead         Command = 11 // VFIO_USER_DMA_READ, server to client
	cmdDMAWrite        Command = 12 // VFIO_USER_DMA_WRITE, server to client
	cmdReset           Command = 13 // VFIO_USER_DEVICE_RESET
	cmdDirtyPages      Command = 14 // VFIO_USER_DIRTY_PAGES, retired
	cmdWriteMulti      Command = 15 // VFIO_USER_REGION_WRITE_MULTI
	cmdFeature         Command = 16 // VFIO_USER_DEVICE_FEATURE
	cmdMigDataRead     Command = 17 // VFIO_USER_MIG_DATA_READ
	cmdMigDataWrite    Command = 18 // VFIO_USER_MIG_DATA_WRITE
	firstUnusedCommand         = 19
)

var commandNames = [firstUnusedCommand]string{
	cmdVersion: "VERSION", cmdDMAMap: "DMA_MAP", cmdDMAUnmap: "DMA_UNMAP",
	cmdGetInfo: "DEVICE_GET_INFO", cmdGetRegionInfo: "DEVICE_GET_REGION_INFO",
	cmdGetRegionIOFDs: "DEVICE_GET_REGION_IO_FDS", cmdGetIRQInfo: "DEVICE_GET_IRQ_INFO",
	cmdSetIRQs: "DEVICE_SET_IRQS", cmdRegionRead: "REGION_READ", cmdRegionWrite: "REGION_WRITE",
	cmdDMARead: "DMA_READ", cmdDMAWrite: "DMA_WRITE", cmdReset: "DEVICE_RESET",
	cmdDirtyPages: "DIRTY_PAGES", cmdWriteMulti: "REGION_WRITE_MULTI",
	cmdFeature: "DEVICE_FEATURE", cmdMigDataRead: "MIG_DATA_READ", cmdMigDataWrite: "MIG_DATA_WRITE",
}

func (c Command) String() string {
	if c < firstUnusedCommand && commandNames[c] != "" {
		return commandNames[c]
	}
	return fmt.Sprintf("Command(%d)", uint16(c))
}

// Sizes and limits.
const (
	headerSize = 16

	// maxData is our max_data_xfer_size: QEMU reads the whole configuration
	// space, up to 4096 bytes, in one message; 1 MiB is the protocol's default.
	maxData = 1 << 20

	// maxMessage is the largest message we take: header, the 16 bytes that
	// describe an access, and its data.
	maxMessage = headerSize + 16 + maxData

	// maxFDs is our max_msg_fds. QEMU accepts at most 16 and sends eventfds in
	// groups of what we say; Cloud Hypervisor sends 16 whatever we say.
	maxFDs = 16

	// maxDMABytes bounds a mapped range, and the sum of what is mapped from
	// files, far below the 128 TiB of address space that this process shares
	// with the runtime's heap.
	maxDMABytes = 8 << 40
)

// Bits of a header's flags.
const (
	flagTypeMask = 0xf
	flagReply    = 0x1
	flagNoReply  = 1 << 4
	flagError    = 1 << 5
)

// order is the host's byte order, as the protocol has it.
var order = binary.NativeEndian

// header is the fixed part of every message.
type header struct {
	id      uint16
	command Command
	size    uint32 // of the whole message
	flags   uint32
	errno   uint32
}

// decodeHeader reads the first headerSize bytes of b.
func decodeHeader(b []byte) header {
	_ = b[headerSize-1] // one bounds check
	return header{
		id:      order.Uint16(b[0:]),
		command: Command(order.Uint16(b[2:])),
		size:    order.Uint32(b[4:]),
		flags:   order.Uint32(b[8:]),
		errno:   order.Uint32(b[12:]),
	}
}

// put writes h to the first headerSize bytes of b.
func (h header) put(b []byte) {
	_ = b[headerSize-1]
	order.PutUint16(b[0:], h.id)
	order.PutUint16(b[2:], uint16(h.command))
	order.PutUint32(b[4:], h.size)
	order.PutUint32(b[8:], h.flags)
	order.PutUint32(b[12:], h.errno)
}

func (h header) isReply() bool { return h.flags&flagTypeMask == flagReply }

// refusal is a peer's mistake: the errno of the reply, and for the log the rule
// that was broken and its remedy.
type refusal struct {
	errno unix.Errno
	rule  string
}

func (r *refusal) Error() string { return fmt.Sprintf("%s (%v)", r.rule, r.errno) }

func (r *refusal) Unwrap() error { return r.errno }

func refuse(errno unix.Errno, format string, args ...any) error {
	return &refusal{errno: errno, rule: fmt.Sprintf(format, args...)}
}

// errnoOf returns the errno that tells the peer about err.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	if errors.As(err, &errno) && errno != 0 {
		return errno
	}
	return unix.EIO
}
