// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
)

// u32 and u64 build payloads.
func u32(vs ...uint32) (b []byte) {
	for _, v := range vs {
		b = order.AppendUint32(b, v)
	}
	return b
}

func u64(vs ...uint64) (b []byte) {
	for _, v := range vs {
		b = order.AppendUint64(b, v)
	}
	return b
}

func cat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// edited is a valid command with one u32 of its header replaced.
func edited(cmd Command, off int, v uint32, body ...[]byte) []byte {
	msg := message(cmd, 5, 0, body...)
	order.PutUint32(msg[off:], v)
	return msg
}

const ok = unix.Errno(0)

// dmaMapBody and the like are payloads with every field in the open.
func dmaMapBody(argsz, flags uint32, off, addr, size uint64) []byte {
	return cat(u32(argsz, flags), u64(off, addr, size))
}

func dmaUnmapBody(argsz, flags uint32, addr, size uint64) []byte {
	return cat(u32(argsz, flags), u64(addr, size))
}

func irqBody(argsz, flags, index, start, count uint32, data ...byte) []byte {
	return cat(u32(argsz, flags, index, start, count), data)
}

func accessBody(off uint64, region, count uint32, data ...byte) []byte {
	return cat(u64(off), u32(region, count), data)
}

func cmd(c Command, body ...[]byte) []byte { return message(c, 5, 0, body...) }

// kinds of descriptors that a row sends along
const (
	noFDs = iota
	eventfds
	memfds   // of 16 KiB
	pipes    // their write ends
	readOnly // a memfd opened for reading
)

// TestBadMessages sends each message to a server with one range mapped,
// [0x100000, 0x104000), and an eventfd on MSI-X vector 2, and wants the errno,
// nothing changed but what the row says, no descriptor kept, and service going
// on. The rows of libvfio-user's own tests that apply to us are among them.
func TestBadMessages(t *testing.T) {
	type row struct {
		name    string
		msg     []byte
		fds     int // how many descriptors go along
		kind    int // of which kind
		want    unix.Errno
		ranges  int // mapped afterwards, if not 1
		vectors int // attached afterwards, if not 1
		calls   []string
		body    []byte // of the reply, if not nil
	}
	const gone = -1 // for ranges and vectors: none left
	rows := []row{
		// Header.
		{name: "size 15", msg: edited(cmdReset, 4, 15), want: unix.EINVAL},
		{name: "size 0", msg: edited(cmdReset, 4, 0), want: unix.EINVAL},
		{name: "type 2", msg: edited(cmdReset, 8, 2), want: unix.EINVAL},
		{name: "type reply, unsolicited", msg: edited(cmdReset, 8, flagReply), want: unix.EINVAL},
		{name: "reply to DMA_READ, unsolicited", msg: edited(cmdDMARead, 8, flagReply, u64(0, 4), u32(0)), want: unix.EINVAL},
		{name: "error bit in a command", msg: edited(cmdReset, 8, flagError), want: unix.EINVAL},
		{name: "reserved flags", msg: edited(cmdReset, 8, 1<<31), want: unix.EINVAL},
		{name: "errno in a command is ignored", msg: edited(cmdReset, 12, 5), calls: []string{"reset"}},
		{name: "command 0", msg: cmd(0), want: unix.EINVAL},
		{name: "command 19", msg: cmd(19), want: unix.EINVAL},
		{name: "command 65535 with a body", msg: cmd(65535, make([]byte, 5000)), want: unix.EINVAL},
		{name: "DMA_READ from the client", msg: cmd(cmdDMARead, u64(0, 4)), want: unix.EINVAL},
		{name: "DMA_WRITE from the client", msg: cmd(cmdDMAWrite, u64(0, 4), u32(0)), want: unix.EINVAL},
		{name: "VERSION again", msg: cmd(cmdVersion, u32(0)), want: unix.EINVAL},
		{name: "17 descriptors", msg: cmd(cmdReset), fds: 17, kind: eventfds, want: unix.EINVAL},
		{name: "200 descriptors", msg: cmd(cmdReset), fds: 200, kind: memfds, want: unix.EINVAL},
		{name: "stray descriptor", msg: cmd(cmdReset), fds: 1, kind: memfds, calls: []string{"reset"}},
		{name: "stray body", msg: cmd(cmdReset, make([]byte, 100)), calls: []string{"reset"}},

		// DEVICE_GET_INFO.
		{name: "info: no payload", msg: cmd(cmdGetInfo), want: unix.EINVAL},
		{name: "info: short", msg: cmd(cmdGetInfo, u32(16, 0, 0)), want: unix.EINVAL},
		{name: "info: argsz 15", msg: cmd(cmdGetInfo, u32(15, 0, 0, 0)), want: unix.EINVAL},
		{name: "info: argsz 32, as Cloud Hypervisor", msg: cmd(cmdGetInfo, u32(32, 0, 0, 0)), body: u32(16, 3, 9, 5)},

		// DEVICE_GET_REGION_INFO.
		{name: "region: no payload", msg: cmd(cmdGetRegionInfo), want: unix.EINVAL},
		{name: "region: short", msg: cmd(cmdGetRegionInfo, make([]byte, 31)), want: unix.EINVAL},
		{name: "region: argsz 31", msg: cmd(cmdGetRegionInfo, u32(31, 0, 0, 0), u64(0, 0)), want: unix.EINVAL},
		{name: "region: index 9", msg: cmd(cmdGetRegionInfo, u32(32, 0, 9, 0), u64(0, 0)), want: unix.EINVAL},
		{name: "region: index -1", msg: cmd(cmdGetRegionInfo, u32(32, 0, 0xffffffff, 0), u64(0, 0)), want: unix.EINVAL},
		{
			name: "region: argsz too small for capabilities",
			msg:  cmd(cmdGetRegionInfo, u32(63, 0, 2, 0), u64(0, 0)),
			body: cat(u32(64, 7, 2, 0), u64(bar2Size, 0)),
		},
		{
			name: "region: argsz just large enough",
			msg:  cmd(cmdGetRegionInfo, u32(64, 0, 2, 0), u64(0, 0)),
			body: cat(u32(64, 15, 2, 32), u64(bar2Size, 0), u32(1|1<<16, 0, 1, 0), u64(bar2Size/2, bar2Size/2)),
		},
		{
			name: "region: body as long as SPDK's",
			msg:  cmd(cmdGetRegionInfo, u32(4064, 0, 7, 0), make([]byte, 4048)),
			body: cat(u32(32, 3, 7, 0), u64(4096, 0)),
		},

		// DEVICE_GET_REGION_IO_FDS.
		{name: "io fds: short", msg: cmd(cmdGetRegionIOFDs, u32(16, 0, 0)), want: unix.EINVAL},
		{name: "io fds: argsz 15", msg: cmd(cmdGetRegionIOFDs, u32(15, 0, 0, 0)), want: unix.EINVAL},
		{name: "io fds: argsz above 1 MiB", msg: cmd(cmdGetRegionIOFDs, u32(1<<20+1, 0, 0, 0)), want: unix.EINVAL},
		{name: "io fds: flags", msg: cmd(cmdGetRegionIOFDs, u32(64, 1, 0, 0)), want: unix.EINVAL},
		{name: "io fds: count", msg: cmd(cmdGetRegionIOFDs, u32(64, 0, 0, 1)), want: unix.EINVAL},
		{name: "io fds: region that is not there", msg: cmd(cmdGetRegionIOFDs, u32(64, 0, 8, 0)), want: unix.EINVAL},
		{name: "io fds: region 9", msg: cmd(cmdGetRegionIOFDs, u32(64, 0, 9, 0)), want: unix.EINVAL},
		{name: "io fds: proper", msg: cmd(cmdGetRegionIOFDs, u32(64, 0, 0, 0)), want: unix.ENOTSUP},

		// DEVICE_GET_IRQ_INFO.
		{name: "irq info: short", msg: cmd(cmdGetIRQInfo, u32(16, 0, 0)), want: unix.EINVAL},
		{name: "irq info: argsz 15", msg: cmd(cmdGetIRQInfo, u32(15, 0, 0, 0)), want: unix.EINVAL},
		{name: "irq info: index 5", msg: cmd(cmdGetIRQInfo, u32(16, 0, 5, 0)), want: unix.EINVAL},
		{name: "irq info: MSI-X", msg: cmd(cmdGetIRQInfo, u32(16, 0, 2, 0)), body: u32(16, 3, 2, 32)},

		// DEVICE_SET_IRQS. Flags: 1 none, 2 bool, 4 eventfd; 8 mask, 16 unmask, 32 trigger.
		{name: "irqs: no payload", msg: cmd(cmdSetIRQs), want: unix.EINVAL},
		{name: "irqs: short", msg: cmd(cmdSetIRQs, make([]byte, 19)), want: unix.EINVAL},
		{name: "irqs: argsz 19", msg: cmd(cmdSetIRQs, irqBody(19, 1|32, 2, 0, 1)), want: unix.EINVAL},
		{name: "irqs: index 5", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 5, 0, 1)), want: unix.EINVAL},
		{name: "irqs: no data bit", msg: cmd(cmdSetIRQs, irqBody(20, 32, 2, 0, 1)), want: unix.EINVAL},
		{name: "irqs: no action bit", msg: cmd(cmdSetIRQs, irqBody(20, 1, 2, 0, 1)), want: unix.EINVAL},
		{name: "irqs: mask and unmask", msg: cmd(cmdSetIRQs, irqBody(20, 1|8|16, 2, 0, 1)), want: unix.EINVAL},
		{name: "irqs: none and bool", msg: cmd(cmdSetIRQs, irqBody(21, 1|2|32, 2, 0, 1, 1)), want: unix.EINVAL},
		{name: "irqs: unknown flag", msg: cmd(cmdSetIRQs, irqBody(20, 1|32|64, 2, 0, 1)), want: unix.EINVAL},
		{name: "irqs: start beyond", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 2, 32, 1)), want: unix.EINVAL},
		{name: "irqs: end beyond", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 2, 31, 2)), want: unix.EINVAL},
		{name: "irqs: sum overflows", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 2, 1, 0xffffffff)), want: unix.EINVAL},
		{name: "irqs: start overflows", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 2, 0xffffffff, 1)), want: unix.EINVAL},
		{name: "irqs: vector of a type without vectors", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 1, 0, 1)), want: unix.EINVAL},
		{name: "irqs: mask ERR", msg: cmd(cmdSetIRQs, irqBody(20, 1|8, 3, 0, 1)), want: unix.EINVAL},
		{name: "irqs: unmask REQ", msg: cmd(cmdSetIRQs, irqBody(20, 1|16, 4, 0, 1)), want: unix.EINVAL},
		{name: "irqs: two ERRs", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 3, 0, 2)), want: unix.EINVAL},
		{name: "irqs: second REQ", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 4, 1, 1)), want: unix.EINVAL},
		{name: "irqs: eventfd for REQ, which has none", msg: cmd(cmdSetIRQs, irqBody(20, 4|32, 4, 0, 1)), fds: 1, kind: eventfds, want: unix.EINVAL},
		{name: "irqs: count 0, start 1", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 2, 1, 0)), want: unix.EINVAL},
		{name: "irqs: count 0, mask", msg: cmd(cmdSetIRQs, irqBody(20, 1|8, 2, 0, 0)), want: unix.EINVAL},
		{name: "irqs: count 0, bool", msg: cmd(cmdSetIRQs, irqBody(20, 2|32, 2, 0, 0)), want: unix.EINVAL},
		{name: "irqs: count 0, eventfd", msg: cmd(cmdSetIRQs, irqBody(20, 4|32, 2, 0, 0)), want: unix.EINVAL},
		{name: "irqs: booleans too few", msg: cmd(cmdSetIRQs, irqBody(21, 2|32, 2, 0, 2, 1)), want: unix.EINVAL},
		{name: "irqs: booleans too many", msg: cmd(cmdSetIRQs, irqBody(23, 2|32, 2, 0, 2, 1, 1, 1)), want: unix.EINVAL},
		{name: "irqs: descriptor with none", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 2, 0, 1)), fds: 1, kind: eventfds, want: unix.EINVAL},
		{name: "irqs: descriptor with bool", msg: cmd(cmdSetIRQs, irqBody(21, 2|32, 2, 0, 1, 1)), fds: 1, kind: eventfds, want: unix.EINVAL},
		{name: "irqs: descriptor with disable", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 2, 0, 0)), fds: 1, kind: eventfds, want: unix.EINVAL},
		{name: "irqs: one descriptor for two", msg: cmd(cmdSetIRQs, irqBody(20, 4|32, 2, 0, 2)), fds: 1, kind: eventfds, want: unix.EINVAL},
		{name: "irqs: two descriptors for one", msg: cmd(cmdSetIRQs, irqBody(20, 4|32, 2, 0, 1)), fds: 2, kind: eventfds, want: unix.EINVAL},
		{name: "irqs: pipes", msg: cmd(cmdSetIRQs, irqBody(20, 4|32, 2, 0, 2)), fds: 2, kind: pipes, want: unix.EINVAL},
		{name: "irqs: trigger", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 2, 30, 2)), calls: []string{"trigger 2/30", "trigger 2/31"}},
		{name: "irqs: trigger by bool", msg: cmd(cmdSetIRQs, irqBody(23, 2|32, 2, 4, 3, 1, 0, 7)), calls: []string{"trigger 2/4", "trigger 2/6"}},
		{name: "irqs: mask by bool", msg: cmd(cmdSetIRQs, irqBody(22, 2|8, 2, 0, 2, 0, 1)), calls: []string{"mask 2/1 true"}},
		{name: "irqs: unmask INTx", msg: cmd(cmdSetIRQs, irqBody(20, 1|16, 0, 0, 1)), calls: []string{"mask 0/0 false"}},
		{name: "irqs: attach two", msg: cmd(cmdSetIRQs, irqBody(20, 4|32, 2, 8, 2)), fds: 2, kind: eventfds, vectors: 3},
		{name: "irqs: enable with nothing attached, as QEMU", msg: cmd(cmdSetIRQs, irqBody(20, 4|32, 2, 0, 1))},
		{name: "irqs: detach vector 2, which libvfio-user forgets", msg: cmd(cmdSetIRQs, irqBody(20, 4|32, 2, 2, 1)), vectors: gone},
		{name: "irqs: detach all", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 2, 0, 0)), vectors: gone},
		{name: "irqs: disable a type without vectors", msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 1, 0, 0))},

		// REGION_READ and REGION_WRITE.
		{name: "read: no payload", msg: cmd(cmdRegionRead), want: unix.EINVAL},
		{name: "read: short", msg: cmd(cmdRegionRead, make([]byte, 15)), want: unix.EINVAL},
		{name: "read: region 9", msg: cmd(cmdRegionRead, accessBody(0, 9, 4)), want: unix.EINVAL},
		{name: "read: region 0xdeadbeef", msg: cmd(cmdRegionRead, accessBody(0, 0xdeadbeef, 4)), want: unix.EINVAL},
		{name: "read: region that is not there", msg: cmd(cmdRegionRead, accessBody(0, RegionROM, 4)), want: unix.EINVAL},
		{name: "read: beyond the end", msg: cmd(cmdRegionRead, accessBody(64<<10-3, 0, 4)), want: unix.EINVAL},
		{name: "read: sum overflows", msg: cmd(cmdRegionRead, accessBody(^uint64(0), 0, 4)), want: unix.EINVAL},
		{name: "read: more than 1 MiB", msg: cmd(cmdRegionRead, accessBody(0, 5, 1<<20+1)), want: unix.EINVAL},
		{name: "read: nothing", msg: cmd(cmdRegionRead, accessBody(8, 0, 0)), body: accessBody(8, 0, 0)},
		{name: "read: device refuses", msg: cmd(cmdRegionRead, accessBody(8, 4, 2)), body: accessBody(8, 4, 2, 0xff, 0xff)},
		{name: "write: short", msg: cmd(cmdRegionWrite, make([]byte, 15)), want: unix.EINVAL},
		{name: "write: no data", msg: cmd(cmdRegionWrite, accessBody(0, 0, 4)), want: unix.EINVAL},
		{name: "write: too much data", msg: cmd(cmdRegionWrite, accessBody(0, 0, 1, 1, 2)), want: unix.EINVAL},
		{name: "write: beyond the end", msg: cmd(cmdRegionWrite, accessBody(64<<10, 0, 1, 1)), want: unix.EINVAL},
		{name: "write: sum overflows", msg: cmd(cmdRegionWrite, accessBody(^uint64(0), 0, 1, 1)), want: unix.EINVAL},
		{name: "write: region 9", msg: cmd(cmdRegionWrite, accessBody(0, 9, 1, 1)), want: unix.EINVAL},
		{name: "write: nothing", msg: cmd(cmdRegionWrite, accessBody(64<<10, 0, 0)), body: accessBody(64<<10, 0, 0)},
		{name: "write: device refuses", msg: cmd(cmdRegionWrite, accessBody(0, 4, 1, 1)), body: accessBody(0, 4, 1)},

		// REGION_WRITE_MULTI.
		{name: "multi: short", msg: cmd(cmdWriteMulti, make([]byte, 7)), want: unix.EINVAL},
		{name: "multi: count too small", msg: cmd(cmdWriteMulti, u64(0), accessBody(0, 0, 1), u64(1)), want: unix.EINVAL},
		{name: "multi: count too large", msg: cmd(cmdWriteMulti, u64(2), accessBody(0, 0, 1), u64(1)), want: unix.EINVAL},
		{name: "multi: count overflows", msg: cmd(cmdWriteMulti, u64(1<<61+1), accessBody(0, 0, 1), u64(1)), want: unix.EINVAL},
		{name: "multi: entry cut", msg: cmd(cmdWriteMulti, u64(1), accessBody(0, 0, 1), u32(1)), want: unix.EINVAL},
		{name: "multi: 9 bytes", msg: cmd(cmdWriteMulti, u64(1), accessBody(0, 0, 9), u64(1)), want: unix.EINVAL},
		{name: "multi: second is wrong", msg: cmd(cmdWriteMulti, u64(2), accessBody(0, 0, 1), u64(1), accessBody(0, 6, 1), u64(1)), want: unix.EINVAL},
		{name: "multi: none", msg: cmd(cmdWriteMulti, u64(0)), body: u64(0)},

		// DMA_MAP.
		{name: "map: short", msg: cmd(cmdDMAMap, make([]byte, 31)), want: unix.EINVAL},
		{name: "map: argsz 31", msg: cmd(cmdDMAMap, dmaMapBody(31, 3, 0, 0, 4096)), want: unix.EINVAL},
		{name: "map: no access", msg: cmd(cmdDMAMap, dmaMapBody(32, 0, 0, 0, 4096)), want: unix.EINVAL},
		{name: "map: unknown flag", msg: cmd(cmdDMAMap, dmaMapBody(32, 7, 0, 0, 4096)), want: unix.EINVAL},
		{name: "map: size 0", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0, 0)), want: unix.EINVAL},
		{name: "map: beyond the address space", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 0, ^uint64(0), 2)), want: unix.EINVAL},
		{name: "map: above 8 TiB", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0, 8<<40+1)), want: unix.ENOSPC},
		{name: "map: the same again", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0x100000, 0x4000)), fds: 1, kind: memfds, want: unix.EEXIST},
		{name: "map: overlap without descriptor", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0xff000, 0x1001)), want: unix.EEXIST},
		{name: "map: beyond the end of the file", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0, 16<<10+1)), fds: 1, kind: memfds, want: unix.EINVAL},
		{name: "map: offset beyond the file", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 16<<10, 0, 1)), fds: 1, kind: memfds, want: unix.EINVAL},
		{name: "map: offset overflows", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, ^uint64(0), 0, 4096)), fds: 1, kind: memfds, want: unix.EINVAL},
		{name: "map: two descriptors", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0, 4096)), fds: 2, kind: memfds, want: unix.EINVAL},
		{name: "map: a pipe", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0, 4096)), fds: 1, kind: pipes, want: unix.EINVAL},
		{name: "map: an eventfd", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0, 4096)), fds: 1, kind: eventfds, want: unix.EINVAL},
		{name: "map: writable on a read-only descriptor", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0, 4096)), fds: 1, kind: readOnly, want: unix.EACCES},
		{name: "map: readable on a read-only descriptor", msg: cmd(cmdDMAMap, dmaMapBody(32, 1, 0, 0, 4096)), fds: 1, kind: readOnly, ranges: 2},
		{name: "map: odd address and size", msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 7, 9, 11)), fds: 1, kind: memfds, ranges: 2},

		// DMA_UNMAP.
		{name: "unmap: short", msg: cmd(cmdDMAUnmap, make([]byte, 23)), want: unix.EINVAL},
		{name: "unmap: argsz 23", msg: cmd(cmdDMAUnmap, dmaUnmapBody(23, 0, 0x100000, 0x4000)), want: unix.EINVAL},
		{name: "unmap: dirty bitmap while not logging", msg: cmd(cmdDMAUnmap, dmaUnmapBody(64, 1, 0x100000, 0x4000), u64(4096, 8)), want: unix.EINVAL},
		{name: "unmap: unknown flag", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 4, 0x100000, 0x4000)), want: unix.EINVAL},
		{name: "unmap: all with address", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 2, 0x100000, 0)), want: unix.EINVAL},
		{name: "unmap: all with size", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 2, 0, 0x4000)), want: unix.EINVAL},
		{name: "unmap: all with dirty", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 3, 0, 0)), want: unix.EINVAL},
		{name: "unmap: size 0", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 0x100000, 0)), want: unix.EINVAL},
		{name: "unmap: beyond the address space", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 2, ^uint64(0))), want: unix.EINVAL},
		{name: "unmap: part of a range", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 0x100000, 0x1000)), want: unix.EINVAL},
		{name: "unmap: nothing there, as QEMU", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 1<<40, 1<<46)), body: dmaUnmapBody(24, 0, 1<<40, 1<<46)},
		{name: "unmap: with descriptor, as SPDK", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 0x100000, 0x4000)), fds: 1, kind: memfds, ranges: gone},
		{name: "unmap: around", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 0, 1<<47)), ranges: gone},
		{name: "unmap: all", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 2, 0, 0)), ranges: gone},

		// What the device does not have.
		{name: "dirty pages", msg: cmd(cmdDirtyPages, u32(8, 1)), want: unix.EINVAL},
		{name: "feature: short", msg: cmd(cmdFeature, u32(8)), want: unix.EINVAL},
		{name: "feature: probe migration", msg: cmd(cmdFeature, u32(8, 1<<18|1<<16|1)), want: unix.EINVAL},
		{name: "feature: start logging", msg: cmd(cmdFeature, u32(24, 1<<17|6), u64(4096, 0)), want: unix.EINVAL},
		{name: "migration read", msg: cmd(cmdMigDataRead, u32(8, 4096)), want: unix.EINVAL},
		{name: "migration write", msg: cmd(cmdMigDataWrite, u32(8, 0)), want: unix.EINVAL},
	}
	for _, tt := range rows {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			before := slices.Clone(f.mem[0])
			r := rawClient(t, Config{}, f)
			r.negotiate("")
			ram := memfd(t, 0x4000)
			r.send(message(cmdDMAMap, 2, 0, dmaMapBody(32, 3, 0, 0x100000, 0x4000)), int(ram.Fd()))
			r.mustRecv()
			vector := newEventfd(t)
			r.send(message(cmdSetIRQs, 3, 0, irqBody(20, 4|32, 2, 2, 1)), vector.Fd())
			r.mustRecv()

			fds := someFDs(t, tt.kind, tt.fds)
			open := descriptors(t)
			r.send(tt.msg, fds...)
			h, body, nfds, err := r.recv()
			if err != nil {
				t.Fatalf("no reply: %v", err)
			}
			wantHeader := header{id: 5, command: decodeHeader(tt.msg).command, size: h.size, flags: flagReply, errno: uint32(tt.want)}
			if tt.want != ok {
				wantHeader.size, wantHeader.flags = headerSize, flagReply|flagError
			}
			if h != wantHeader {
				t.Errorf("reply %+v, want %+v", h, wantHeader)
			}
			if tt.body != nil && !bytes.Equal(body, tt.body) {
				t.Errorf("payload (-want +got):\n%s", cmp.Diff(tt.body, body))
			}
			if capabilities := tt.name == "region: argsz just large enough"; (nfds == 1) != capabilities {
				t.Errorf("%d descriptors with the reply", nfds)
			}

			// Still in step, and nothing else changed.
			r.send(message(cmdRegionRead, 9, 0, accessBody(0, 0, 4)))
			if h, body := r.mustRecv(); h.id != 9 || h.flags != flagReply || len(body) != 20 {
				t.Fatalf("the next reply is %+v", h)
			}
			count := func(what string, got, want int) {
				t.Helper()
				switch want {
				case 0:
					want = 1
				case gone:
					want = 0
				}
				if got != want {
					t.Errorf("%d %s afterwards, want %d", got, what, want)
				}
			}
			count("ranges", f.table.Len(), tt.ranges)
			count("vectors", f.attached(), tt.vectors)
			if diff := cmp.Diff(tt.calls, f.logged()); diff != "" {
				t.Errorf("device calls (-want +got):\n%s", diff)
			}
			if !bytes.Equal(before, f.mem[0]) {
				t.Error("BAR0 was written")
			}
			// The device owns the eventfds of the vectors that it has.
			if got, want := descriptors(t), open+f.attached()-1; got != want {
				t.Errorf("%d descriptors open, want %d", got, want)
			}
		})
	}
	if len(rows) < 60 {
		t.Errorf("only %d rows", len(rows))
	}
}

func someFDs(t *testing.T, kind, n int) (fds []int) {
	t.Helper()
	for range n {
		switch kind {
		case eventfds:
			fds = append(fds, newEventfd(t).Fd())
		case memfds:
			fds = append(fds, int(memfd(t, 16<<10).Fd()))
		case pipes:
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { r.Close(); w.Close() })
			fds = append(fds, int(w.Fd()))
		case readOnly:
			f, err := os.Open("/proc/self/fd/" + strconv.Itoa(int(memfd(t, 16<<10).Fd())))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { f.Close() })
			fds = append(fds, int(f.Fd()))
		}
	}
	return fds
}

// A refused VERSION is answered and ends the connection.
func TestBadVersion(t *testing.T) {
	version := func(text string) []byte { return cmd(cmdVersion, u32(0), []byte(text)) }
	capability := func(text string) []byte { return version(`{"capabilities":{` + text + "}}\x00") }
	for _, tt := range []struct {
		name string
		msg  []byte
		want unix.Errno
	}{
		{"no payload", cmd(cmdVersion), unix.EINVAL},
		{"three bytes", cmd(cmdVersion, []byte{0, 0, 0}), unix.EINVAL},
		{"another command first", cmd(cmdGetInfo, u32(16, 0, 0, 0)), unix.EINVAL},
		{"a reply first", edited(cmdVersion, 8, flagReply, u32(0)), unix.EINVAL},
		{"size 8", edited(cmdVersion, 4, 8, u32(0)), unix.EINVAL},
		{"too large", edited(cmdVersion, 4, maxMessage+1, u32(0)), unix.EINVAL},
		{"major 1", cmd(cmdVersion, u32(1)), unix.EINVAL},
		{"major 999", cmd(cmdVersion, u32(999)), unix.EINVAL},
		{"no NUL", version(`{}`), unix.EINVAL},
		{"open brace", version("{\x00"), unix.EINVAL},
		{"open quote", version("{\"capabilities\x00"), unix.EINVAL},
		{"an array", version("[]\x00"), unix.EINVAL},
		{"two objects", version("{}{}\x00"), unix.EINVAL},
		{"capabilities a string", version("{\"capabilities\":\"x\"}\x00"), unix.EINVAL},
		{"max_msg_fds text", capability(`"max_msg_fds":"x"`), unix.EINVAL},
		{"max_msg_fds -1", capability(`"max_msg_fds":-1`), unix.EINVAL},
		{"max_msg_fds 1025", capability(`"max_msg_fds":1025`), unix.EINVAL},
		{"max_data_xfer_size text", capability(`"max_data_xfer_size":"1"`), unix.EINVAL},
		{"max_data_xfer_size -1", capability(`"max_data_xfer_size":-1`), unix.EINVAL},
		{"migration a string", capability(`"migration":"x"`), unix.EINVAL},
		{"pgsize text", capability(`"migration":{"pgsize":"x"}`), unix.EINVAL},
		{"pgsize 4095", capability(`"migration":{"pgsize":4095}`), unix.EINVAL},
		{"twin_socket a boolean", capability(`"twin_socket":true`), unix.EINVAL},
		{"write_multiple a number", capability(`"write_multiple":1`), unix.EINVAL},
		{"no JSON, as SPDK", cmd(cmdVersion, u32(0)), ok},
		{"only the NUL", version("\x00"), ok},
		{"empty object", version("{}\x00"), ok},
		{"minor 1, as the Rust client", cmd(cmdVersion, u32(1<<16), []byte("{}\x00")), ok},
		{"minor 65535", cmd(cmdVersion, u32(0xffff<<16)), ok},
		{"unknown keys", version("{\"x\":1,\"capabilities\":{\"y\":{}}}\x00"), ok},
		{"max_msg_fds 0", capability(`"max_msg_fds":0`), ok},
		{"max_data_xfer_size 0", capability(`"max_data_xfer_size":0`), ok},
		{"large values", capability(`"max_msg_fds":1024,"max_data_xfer_size":18446744073709551615,"max_dma_maps":4294967296`), ok},
		{"twin_socket", capability(`"twin_socket":{"supported":true}`), ok},
		{"QEMU 11.1", capability(`"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096,` +
			`"migration":{"pgsize":4096,"max_bitmap_size":268435456},"write_multiple":true`), ok},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			r := rawClient(t, Config{}, f)
			fds := someFDs(t, memfds, 2)
			open := descriptors(t)
			r.send(tt.msg, fds...)
			h, body, _, err := r.recv()
			if err != nil {
				t.Fatal(err)
			}
			if descriptors(t) != open {
				t.Error("the descriptors were kept")
			}
			if tt.want == ok {
				if h.flags != flagReply || h.size > 200 || len(body) < 5 {
					t.Fatalf("reply %+v, want success in at most 200 bytes", h)
				}
				minor, caps, err := parseVersion(body)
				if err != nil || minor != 0 || *caps.MaxMsgFDs != 16 || *caps.MaxDataXferSize != 1<<20 {
					t.Errorf("minor %d, %q, %v", minor, body[4:], err)
				}
				if asked := strings.Contains(string(tt.msg), "write_multiple"); caps.WriteMultiple != asked {
					t.Errorf("write_multiple %v, asked %v", caps.WriteMultiple, asked)
				}
				return
			}
			want := header{id: 5, command: h.command, size: headerSize, flags: flagReply | flagError, errno: uint32(tt.want)}
			if h != want {
				t.Errorf("reply %+v, want %+v", h, want)
			}
			if _, _, _, err := r.recv(); !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("afterwards %v, want the end of the connection", err)
			}
			if f.logged() != nil {
				t.Errorf("the device saw %q", f.logged())
			}
		})
	}
}

// The stream may come in pieces of any size; libvfio-user drops a client whose
// header or body is split.
func TestSplitMessages(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{}, f)
	r.negotiate("")
	file := memfd(t, 4096)
	for i, cut := range []int{1, 8, 15, 16, 17, 40, 47} {
		msg := message(cmdDMAMap, uint16(i), 0, dmaMapBody(32, 3, 0, uint64(i)<<12, 4096))
		r.send(msg[:cut], int(file.Fd())) // with the first piece, as sendmsg does
		time.Sleep(2 * time.Millisecond)
		r.send(msg[cut:])
		if h, _ := r.mustRecv(); h.id != uint16(i) || h.flags != flagReply {
			t.Errorf("cut at %d: %+v", cut, h)
		}
	}
	// Each byte alone, the descriptor with the last.
	msg := message(cmdDMAMap, 50, 0, dmaMapBody(32, 3, 0, 50<<12, 4096))
	for i := range msg {
		if i == len(msg)-1 {
			r.send(msg[i:], int(file.Fd()))
			break
		}
		r.send(msg[i : i+1])
	}
	if h, _ := r.mustRecv(); h.flags != flagReply {
		t.Errorf("byte by byte: %+v", h)
	}
	// All were mapped directly: no message asks for the data.
	if err := f.table.Read(0, make([]byte, 7<<12)); err != nil || f.table.Len() != 8 {
		t.Errorf("%d ranges, read: %v", f.table.Len(), err)
	}
}

// Messages back to back in one send, some with descriptors in separate sends:
// every descriptor stays with its message.
func TestDescriptorsStayWithTheirMessage(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{}, f)
	r.negotiate("")
	const n = 64
	for i := range n {
		file := memfd(t, 4096)
		if _, err := file.WriteAt([]byte{byte(i)}, 0); err != nil {
			t.Fatal(err)
		}
		// A message without a descriptor directly before each one with.
		r.send(message(cmdRegionWrite, 0, flagNoReply, accessBody(0, 0, 1, 1)))
		r.send(message(cmdDMAMap, uint16(i), 0, dmaMapBody(32, 3, 0, uint64(i)<<12, 4096)), int(file.Fd()))
	}
	for range n {
		if h, _ := r.mustRecv(); h.flags != flagReply {
			t.Fatalf("%+v", h)
		}
	}
	for i := range n {
		p := []byte{0xee}
		if err := f.table.Read(iova.Addr(i)<<12, p); err != nil || p[0] != byte(i) {
			t.Errorf("range %d starts with %d, %v", i, p[0], err)
		}
	}
	// Five messages in one piece.
	r.send(bytes.Repeat(message(cmdReset, 7, 0), 5))
	for range 5 {
		if h, _ := r.mustRecv(); h.id != 7 || h.flags != flagReply {
			t.Errorf("%+v", h)
		}
	}
}

// What is too large is refused at once, skipped, and the next message served.
func TestBodyOfRefusedMessageIsSkipped(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{}, f)
	r.negotiate("")
	fds := someFDs(t, memfds, 3)
	open := descriptors(t)
	large := message(cmdRegionWrite, 2, 0, make([]byte, maxMessage)) // 16 bytes too many
	for i, msg := range [][]byte{
		large,
		message(cmdRegionWrite, 2, 0, accessBody(0, 9, 1<<19), make([]byte, 1<<19)),
		message(99, 2, 0, make([]byte, 1<<20)),
	} {
		r.send(msg, fds[i])
		if h, _ := r.mustRecv(); h.id != 2 || h.errno != uint32(unix.EINVAL) {
			t.Errorf("message %d: %+v", i, h)
		}
		r.send(message(cmdReset, 3, 0))
		if h, _ := r.mustRecv(); h.id != 3 || h.flags != flagReply {
			t.Errorf("after message %d: %+v", i, h)
		}
	}
	if got := descriptors(t); got != open {
		t.Errorf("%d descriptors open, want %d", got, open)
	}
}

// No_reply means no reply, not even to what is refused.
func TestPostedErrorsAreSilent(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{}, f)
	r.negotiate("")
	for _, msg := range [][]byte{
		message(cmdRegionWrite, 2, flagNoReply, accessBody(0, 9, 1, 1)),
		message(cmdRegionWrite, 2, flagNoReply, accessBody(0, 0, 4)),
		message(cmdRegionRead, 2, flagNoReply, accessBody(0, 0, 4)),
		message(cmdReset, 2, flagNoReply),
		message(77, 2, flagNoReply),
	} {
		r.send(msg)
	}
	r.send(message(cmdReset, 3, 0))
	if h, _ := r.mustRecv(); h.id != 3 {
		t.Errorf("reply to id %d, want only the one to 3", h.id)
	}
	if diff := cmp.Diff([]string{"reset", "reset"}, f.logged()); diff != "" {
		t.Errorf("device calls (-want +got):\n%s", diff)
	}
}

// A detached vector stays silent, and masking tells who asked to be told.
func TestMaskEvents(t *testing.T) {
	f := newFake(t)
	r := rawClient(t, Config{}, f)
	r.negotiate("")
	masked, unmasked := newEventfd(t), newEventfd(t)
	do := func(body []byte, fds ...int) {
		t.Helper()
		r.send(cmd(cmdSetIRQs, body), fds...)
		if h, _ := r.mustRecv(); h.flags != flagReply {
			t.Fatalf("%x: %+v", body, h)
		}
	}
	want := func(what string, m, u uint64) {
		t.Helper()
		if gotM, gotU := masked.Wait(0), unmasked.Wait(0); gotM != m || gotU != u {
			t.Errorf("%s: events %d and %d, want %d and %d", what, gotM, gotU, m, u)
		}
	}
	do(irqBody(20, 4|8, 2, 1, 1), masked.Fd())
	do(irqBody(20, 4|16, 2, 1, 1), unmasked.Fd())
	do(irqBody(20, 1|8, 2, 0, 3))
	want("masked", 1, 0)
	do(irqBody(22, 2|16, 2, 0, 2, 1, 1))
	want("unmasked", 0, 1)
	do(irqBody(20, 4|8, 2, 1, 1))
	do(irqBody(20, 1|8, 2, 1, 1))
	want("masked after detaching the event", 0, 0)
	do(irqBody(20, 1|32, 2, 0, 0))
	do(irqBody(20, 1|16, 2, 1, 1))
	want("unmasked after disabling the type", 0, 0)
}

// Garbage and cut streams end in a detached device, never in a crash or a leak,
// and the next client is served.
func TestGarbage(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	noise := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		return b
	}
	write := message(cmdRegionWrite, 4, 0, accessBody(0, 0, 4, 1, 2, 3, 4))
	for _, tt := range []struct {
		name   string
		hello  bool // negotiate first
		stream []byte
	}{
		{"nothing", false, nil},
		{"HTTP", false, []byte("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")},
		{"noise", false, noise(10000)},
		{"noise after VERSION", true, noise(100000)},
		{"half a header", true, write[:8]},
		{"header only", true, write[:16]},
		{"half a body", true, write[:30]},
		{"too large and cut", true, append(edited(cmdReset, 4, 1<<31), noise(5000)...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			r := rawClient(t, Config{}, f)
			if tt.hello {
				r.negotiate("")
				r.send(message(cmdDMAMap, 2, 0, dmaMapBody(32, 3, 0, 0, 4096)), int(memfd(t, 4096).Fd()))
				r.mustRecv()
			}
			// The server may close while we send: that is one of its answers.
			_ = r.sock.Send(tt.stream, nil, someFDs(t, memfds, 1)[:min(1, len(tt.stream))]...)
			r.sock.Close()
			eventually(t, "device detached", func() bool {
				return f.table.Len() == 0 && (!tt.hello || slices.Contains(f.logged(), "detach"))
			})
			eventually(t, "memory unmapped", func() bool { return mappings(t) == 0 })
			if f.mem[0][0] != 0 {
				t.Error("a cut write was done")
			}
			attach(t, Config{}, f)
		})
	}
}

// FuzzServer feeds any bytes as a client's stream, after VERSION or from the
// start. Whatever comes, the server ends when the stream does and leaves nothing.
func FuzzServer(f *testing.F) {
	f.Add(false, message(cmdVersion, 1, 0, u32(0), []byte("{}\x00")))
	f.Add(true, cat(
		cmd(cmdGetInfo, u32(16, 0, 0, 0)), cmd(cmdGetRegionInfo, u32(64, 0, 2, 0), u64(0, 0)),
		cmd(cmdGetIRQInfo, u32(16, 0, 2, 0)), cmd(cmdRegionRead, accessBody(0, 0, 4)),
	))
	f.Add(true, cat(
		cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0x1000, 0x1000)), cmd(cmdDMAMap, dmaMapBody(32, 1, 0, 0x2000, 0x1000)),
		cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 0, 0x2000)), cmd(cmdDMAUnmap, dmaUnmapBody(24, 2, 0, 0)),
	))
	f.Add(true, cat(
		cmd(cmdSetIRQs, irqBody(20, 1|32, 2, 0, 2)), cmd(cmdSetIRQs, irqBody(22, 2|8, 2, 0, 2, 1, 0)),
		cmd(cmdSetIRQs, irqBody(20, 4|32, 2, 2, 1)), cmd(cmdReset), edited(cmdReset, 4, 3), edited(cmdReset, 8, flagReply),
	))
	f.Add(true, cat(
		cmd(cmdRegionWrite, accessBody(0, 0, 4, 1, 2, 3, 4)), message(cmdRegionWrite, 5, flagNoReply, accessBody(8, 0, 1, 1)),
		cmd(cmdWriteMulti, u64(1), accessBody(0, 0, 1), u64(1)), cmd(cmdFeature, u32(8, 1)), edited(cmdReset, 4, 1<<24),
	))
	f.Fuzz(func(t *testing.T, hello bool, stream []byte) {
		b := newFake(t)
		r := rawClient(t, Config{}, b)
		if hello {
			r.negotiate("")
		}
		drained := make(chan struct{})
		go func() {
			defer close(drained)
			for {
				if _, _, _, err := r.recv(); err != nil {
					return
				}
			}
		}()
		_ = r.sock.Send(stream, nil) // the server may have closed already
		r.sock.Shutdown()
		<-drained
		eventually(t, "device detached", func() bool { return b.table.Len() == 0 && b.attached() == 0 })
	})
}

// FuzzDecode holds the decoders to their contracts for any payload.
func FuzzDecode(f *testing.F) {
	f.Add(append(u32(0), "{\"capabilities\":{\"max_msg_fds\":16}}\x00"...))
	f.Add(cat(u32(64, 15, 2, 32), u64(bar2Size, 0), u32(1|1<<16, 0, 1, 0), u64(bar2Size/2, bar2Size/2)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var wrong *refusal
		if _, caps, err := parseVersion(b); err != nil && !errors.As(err, &wrong) {
			t.Errorf("parseVersion: %v is not a refusal", err)
		} else if err == nil {
			again := appendVersion(nil, 0, caps)
			if _, _, err := parseVersion(again); err != nil {
				t.Errorf("what it accepted, it refuses when written again: %v", err)
			}
		}
		_, _ = parseRegion(b) // must not panic
		if len(b) >= headerSize {
			again := make([]byte, headerSize)
			decodeHeader(b).put(again)
			if !bytes.Equal(again, b[:headerSize]) {
				t.Error("the header does not survive decoding and encoding")
			}
		}
	})
}
