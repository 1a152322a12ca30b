// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import "golang.org/x/sys/unix"

// badRow is a message, and what comes of it. Those that libvfio-user's own tests send are
// among the rows; where we answer otherwise, the row says what is so, or "strict".
type badRow struct {
	name  string
	first bool // it is sent in the place of VERSION, and comes with two memfds
	dev   device
	state MigrationState // that a full device is in, if not RUNNING
	log   bool           // written pages are logged, and 0x101000 is one
	msg   []byte
	fds   int // how many descriptors go along
	kind  int // of which kind

	want    unix.Errno
	silent  bool           // no reply
	body    []byte         // of the reply, if not nil
	comes   int            // descriptors that come with the reply
	closes  bool           // the connection ends after the reply
	ranges  int            // mapped afterwards, if not 1
	vectors int            // attached afterwards, if not 1
	events  int            // eventfds under watch afterwards
	calls   []string       // what the device was told
	after   MigrationState // of a full device afterwards, if not state
}

// device is the kind of device that a row is for.
type device int

const (
	basic  device = iota // what a Backend must have
	full                 // everything; PRE_COPY, no P2P; an eventfd at 0x100 of BAR0
	strict               // the same, with Config.Strict
)

const gone = -1 // for ranges and vectors: none left

func badRows() []badRow {
	const get, set, probe = featureGet, featureSet, featureProbe
	version := func(text string) []byte { return cmd(cmdVersion, u32(0), []byte(text)) }
	capability := func(text string) []byte { return version(`{"capabilities":{` + text + "}}\x00") }
	return []badRow{
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
			body: cat(u32(64, 15, 2, 32), u64(bar2Size, 0), u32(1|1<<16, 0, 1, 0), u64(bar2Size/2, bar2Size/2)), comes: 1,
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
		{name: "io fds: of a device without", msg: cmd(cmdGetRegionIOFDs, u32(64, 0, 0, 0)), body: u32(16, 0, 0, 0)},
		{name: "io fds: of a region without", dev: full, msg: cmd(cmdGetRegionIOFDs, u32(64, 0, 1, 0)), body: u32(16, 0, 1, 0)},
		{name: "io fds: argsz too small for an entry", dev: full, events: 1, msg: cmd(cmdGetRegionIOFDs, u32(55, 0, 0, 0)), body: u32(56, 0, 0, 1)},
		{name: "io fds: argsz of the header", dev: full, events: 1, msg: cmd(cmdGetRegionIOFDs, u32(16, 0, 0, 0)), body: u32(56, 0, 0, 1)},
		{name: "io fds: argsz of 1 MiB", dev: full, events: 1, msg: cmd(cmdGetRegionIOFDs, u32(1<<20, 0, 0, 0)), comes: 1, body: cat(u32(56, 0, 0, 1), u64(0x100, 4), u32(0, 0, 0, 0), u64(7))},

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
		{name: "irqs: eventfd to unmask ERR", msg: cmd(cmdSetIRQs, irqBody(20, 4|16, 3, 0, 1)), fds: 1, kind: eventfds, want: unix.EINVAL},
		{name: "irqs: eventfd to mask REQ", msg: cmd(cmdSetIRQs, irqBody(20, 4|8, 4, 0, 1)), fds: 1, kind: eventfds, want: unix.EINVAL},
		{name: "irqs: one descriptor to unmask two", msg: cmd(cmdSetIRQs, irqBody(20, 4|16, 2, 0, 2)), fds: 1, kind: eventfds, want: unix.EINVAL},
		{name: "irqs: a memfd to unmask", msg: cmd(cmdSetIRQs, irqBody(20, 4|16, 0, 0, 1)), fds: 1, kind: memfds, want: unix.EINVAL},
		{name: "irqs: pipes to mask", msg: cmd(cmdSetIRQs, irqBody(20, 4|8, 2, 0, 2)), fds: 2, kind: pipes, want: unix.EINVAL},
		{name: "irqs: detach what never unmasked", msg: cmd(cmdSetIRQs, irqBody(20, 4|16, 0, 0, 1))},
		{name: "irqs: eventfds to unmask", msg: cmd(cmdSetIRQs, irqBody(20, 4|16, 2, 0, 2)), fds: 2, kind: eventfds, events: 2},
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
		{name: "map: unknown flag", msg: cmd(cmdDMAMap, dmaMapBody(32, 16|3, 0, 0, 4096)), want: unix.EINVAL},
		{name: "map: to be mapped, without descriptor", msg: cmd(cmdDMAMap, dmaMapBody(32, 4|3, 0, 0, 4096)), want: unix.EINVAL},
		{name: "map: by file I/O, without descriptor", msg: cmd(cmdDMAMap, dmaMapBody(32, 8|3, 0, 0, 4096)), want: unix.EINVAL},
		{name: "map: to be mapped, as libvfio-user", msg: cmd(cmdDMAMap, dmaMapBody(32, 4|3, 0, 0, 4096)), fds: 1, kind: memfds, ranges: 2},
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
		{name: "unmap: dirty bitmap of a device without", msg: cmd(cmdDMAUnmap, dmaUnmapBody(48, 1, 0x100000, 0x4000), u64(4096, 8)), want: unix.EINVAL},
		{name: "unmap: dirty bitmap not described", dev: full, log: true, msg: cmd(cmdDMAUnmap, dmaUnmapBody(48, 1, 0x100000, 0x4000), u64(4096), u32(8)), want: unix.EINVAL},
		{name: "unmap: dirty bitmap, argsz too small", dev: full, log: true, msg: cmd(cmdDMAUnmap, dmaUnmapBody(47, 1, 0x100000, 0x4000), u64(4096, 8)), want: unix.EINVAL},
		{name: "unmap: dirty bitmap too small", dev: full, log: true, msg: cmd(cmdDMAUnmap, dmaUnmapBody(48, 1, 0x100000, 65*4096), u64(4096, 8)), want: unix.EINVAL},
		{name: "unmap: dirty bitmap of 0 bytes", dev: full, log: true, msg: cmd(cmdDMAUnmap, dmaUnmapBody(48, 1, 0x100000, 0x4000), u64(4096, 0)), want: unix.EINVAL},
		{name: "unmap: dirty bitmap of 12 bytes", dev: full, log: true, msg: cmd(cmdDMAUnmap, dmaUnmapBody(52, 1, 0x100000, 0x4000), u64(4096, 12)), want: unix.EINVAL},
		{name: "unmap: dirty bitmap of 2^63 bytes", dev: full, log: true, msg: cmd(cmdDMAUnmap, dmaUnmapBody(^uint32(0), 1, 0x100000, 0x4000), u64(4096, 1<<63)), want: unix.EINVAL},
		{name: "unmap: dirty bitmap, page size 0", dev: full, log: true, msg: cmd(cmdDMAUnmap, dmaUnmapBody(48, 1, 0x100000, 0x4000), u64(0, 8)), want: unix.EINVAL},
		{name: "unmap: dirty bitmap, page size 4095", dev: full, log: true, msg: cmd(cmdDMAUnmap, dmaUnmapBody(48, 1, 0x100000, 0x4000), u64(4095, 8)), want: unix.EINVAL},
		{name: "unmap: dirty bitmap of a sweep", dev: full, log: true, msg: cmd(cmdDMAUnmap, dmaUnmapBody(48, 1, 0, 1<<47), u64(4096, 8)), want: unix.EINVAL},
		{name: "unmap: dirty bitmap of a part", dev: full, log: true, msg: cmd(cmdDMAUnmap, dmaUnmapBody(48, 1, 0x101000, 0x1000), u64(4096, 8)), want: unix.EINVAL},
		{
			name: "unmap: dirty bitmap", dev: full, log: true, ranges: gone,
			msg:  cmd(cmdDMAUnmap, dmaUnmapBody(48, 1, 0x100000, 0x4000), u64(4096, 8)),
			body: cat(dmaUnmapBody(48, 1, 0x100000, 0x4000), u64(4096, 8, 0b0010)),
		},
		{
			name: "unmap: dirty bitmap with room to spare", dev: full, log: true, ranges: gone,
			msg:  cmd(cmdDMAUnmap, dmaUnmapBody(99, 1, 0x100000, 0x4000), u64(2048, 16)),
			body: cat(dmaUnmapBody(99, 1, 0x100000, 0x4000), u64(2048, 16, 0b1100, 0)),
		},
		{
			name: "unmap: dirty bitmap where nothing is mapped", dev: full, log: true,
			msg:  cmd(cmdDMAUnmap, dmaUnmapBody(48, 1, 1<<30, 0x4000), u64(4096, 8)),
			body: cat(dmaUnmapBody(48, 1, 1<<30, 0x4000), u64(4096, 8, 0)),
		},
		{name: "unmap, strict: nothing there", dev: strict, msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 1<<40, 1<<46)), want: unix.ENOENT},
		{name: "unmap, strict: part of a range", dev: strict, msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 0x100000, 0x1000)), want: unix.ENOENT},
		{name: "unmap, strict: end of a range", dev: strict, msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 0x101000, 0x3000)), want: unix.ENOENT},
		{name: "unmap, strict: around", dev: strict, msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 0, 1<<47)), want: unix.ENOENT},
		{name: "unmap, strict: argsz above 1 MiB", dev: strict, msg: cmd(cmdDMAUnmap, dmaUnmapBody(1<<20+1, 0, 0x100000, 0x4000)), want: unix.EINVAL},
		{name: "unmap, strict: exactly", dev: strict, msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 0x100000, 0x4000)), ranges: gone},
		{name: "unmap, strict: all", dev: strict, msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 2, 0, 0)), ranges: gone},
		{name: "unmap: with descriptor, as SPDK", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 0x100000, 0x4000)), fds: 1, kind: memfds, ranges: gone},
		{name: "unmap: around", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 0, 0, 1<<47)), ranges: gone},
		{name: "unmap: all", msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 2, 0, 0)), ranges: gone},

		// DEVICE_FEATURE. Flags: 1<<16 get, 1<<17 set, 1<<18 probe; 1 migration, 2 state,
		// 6 start, 7 stop and 8 report a log of written pages.
		{name: "dirty pages, retired", msg: cmd(cmdDirtyPages, u32(8, 1)), want: unix.EINVAL},
		{name: "dirty pages of a full device", dev: full, msg: cmd(cmdDirtyPages, u32(8, 1)), want: unix.EINVAL},
		{name: "feature: no payload", dev: full, msg: cmd(cmdFeature), want: unix.EINVAL},
		{name: "feature: short", dev: full, msg: cmd(cmdFeature, u32(8)), want: unix.EINVAL},
		{name: "feature: argsz 7", dev: full, msg: cmd(cmdFeature, u32(7, probe|1)), want: unix.EINVAL},
		{name: "feature: probe migration of a device without", msg: cmd(cmdFeature, u32(8, probe|get|1)), want: unix.EINVAL},
		{name: "feature: start a log of a device without", msg: cmd(cmdFeature, u32(24, set|6), u64(4096, 0)), want: unix.EINVAL},
		{name: "feature: 0", dev: full, msg: cmd(cmdFeature, u32(8, probe)), want: unix.EINVAL},
		{name: "feature: 3, low power", dev: full, msg: cmd(cmdFeature, u32(8, probe|3)), want: unix.EINVAL},
		{name: "feature: 65535", dev: full, msg: cmd(cmdFeature, u32(8, probe|0xffff)), want: unix.EINVAL},
		{name: "feature: unknown flag", dev: full, msg: cmd(cmdFeature, u32(8, 1<<19|probe|1)), want: unix.EINVAL},
		{name: "feature: no operation", dev: full, msg: cmd(cmdFeature, u32(16, 2), u64(0)), want: unix.EINVAL},
		{name: "feature: get and set", dev: full, msg: cmd(cmdFeature, u32(16, get|set|2), u32(1, 0)), want: unix.EINVAL},
		{name: "feature: set migration", dev: full, msg: cmd(cmdFeature, u32(16, set|1), u64(1)), want: unix.EINVAL},
		{name: "feature: get start", dev: full, msg: cmd(cmdFeature, u32(24, get|6), u64(4096, 0)), want: unix.EINVAL},
		{name: "feature: set report", dev: full, log: true, msg: cmd(cmdFeature, u32(40, set|8), u64(0x100000, 0x4000, 4096)), want: unix.EINVAL},
		{name: "feature: probe set migration", dev: full, msg: cmd(cmdFeature, u32(8, probe|get|set|1)), want: unix.EINVAL},
		{name: "feature: probe get stop", dev: full, msg: cmd(cmdFeature, u32(8, probe|get|7)), want: unix.EINVAL},
		{name: "feature: probe with data, argsz too small", dev: full, msg: cmd(cmdFeature, u32(15, probe|1), u64(0)), want: unix.EINVAL},
		{name: "feature: probe", dev: full, msg: cmd(cmdFeature, u32(8, probe|1)), body: u32(8, probe|1)},
		{name: "feature: probe get and set state", dev: full, msg: cmd(cmdFeature, u32(8, probe|get|set|2)), body: u32(8, probe|get|set|2)},
		{name: "feature: get migration, argsz 15", dev: full, msg: cmd(cmdFeature, u32(15, get|1)), want: unix.EINVAL},
		{name: "feature: get migration", dev: full, msg: cmd(cmdFeature, u32(16, get|1)), body: cat(u32(16, get|1), u64(5))},
		{name: "feature: get migration, argsz 100", dev: full, msg: cmd(cmdFeature, u32(100, get|1)), body: cat(u32(16, get|1), u64(5))},
		{name: "feature: get state, argsz 15", dev: full, msg: cmd(cmdFeature, u32(15, get|2)), want: unix.EINVAL},
		{name: "feature: get state", dev: full, msg: cmd(cmdFeature, u32(16, get|2)), body: u32(16, get|2, 2, ^uint32(0))},
		{name: "feature: set state, short", dev: full, msg: cmd(cmdFeature, u32(16, set|2, 1)), want: unix.EINVAL},
		{name: "feature: set state, argsz 15", dev: full, msg: cmd(cmdFeature, u32(15, set|2, 1, 0)), want: unix.EINVAL},
		{name: "feature: set state 8", dev: full, msg: cmd(cmdFeature, u32(16, set|2, 8, 0)), want: unix.EINVAL},
		{name: "feature: set state 0xabcd", dev: full, msg: cmd(cmdFeature, u32(16, set|2, 0xabcd, 0)), want: unix.EINVAL},
		{name: "feature: set ERROR", dev: full, msg: cmd(cmdFeature, u32(16, set|2, 0, 0)), want: unix.EINVAL},
		{name: "feature: set RUNNING_P2P of a device without", dev: full, msg: cmd(cmdFeature, u32(16, set|2, 5, 0)), want: unix.EINVAL},
		{name: "feature: set PRE_COPY_P2P of a device without", dev: full, msg: cmd(cmdFeature, u32(16, set|2, 7, 0)), want: unix.EINVAL},
		{name: "feature: set PRE_COPY from STOP_COPY", dev: full, state: stopCopy, msg: cmd(cmdFeature, u32(16, set|2, 6, 0)), want: unix.EINVAL, after: stopCopy},
		{name: "feature: leave RESUMING with nothing", dev: full, state: resuming, msg: cmd(cmdFeature, u32(16, set|2, 1, 0)), want: unix.EINVAL, after: resuming},
		{name: "feature: set STOP", dev: full, msg: cmd(cmdFeature, u32(16, set|2, 1, ^uint32(0))), body: u32(16, set|2, 1, ^uint32(0)), after: stop},
		{name: "feature: set STOP_COPY from RUNNING", dev: full, msg: cmd(cmdFeature, u32(16, set|2, 3, 0)), body: u32(16, set|2, 3, 0), after: stopCopy},
		{name: "feature: set RUNNING again", dev: full, msg: cmd(cmdFeature, u32(16, set|2, 2, 0)), body: u32(16, set|2, 2, 0)},
		{name: "log: start, short", dev: full, msg: cmd(cmdFeature, u32(24, set|6), u64(4096), u32(0)), want: unix.EINVAL},
		{name: "log: start, argsz 23", dev: full, msg: cmd(cmdFeature, u32(23, set|6), u64(4096, 0)), want: unix.EINVAL},
		{name: "log: start, page size 0", dev: full, msg: cmd(cmdFeature, u32(24, set|6), u64(0, 0)), want: unix.EINVAL},
		{name: "log: start, page size 4097", dev: full, msg: cmd(cmdFeature, u32(24, set|6), u64(4097, 0)), want: unix.EINVAL},
		{name: "log: start, reserved field", dev: full, msg: cmd(cmdFeature, u32(24, set|6), u64(4096), u32(0, 1)), want: unix.EINVAL},
		{name: "log: start, ranges cut", dev: full, msg: cmd(cmdFeature, u32(48, set|6), u64(4096), u32(2, 0), u64(0, 4096, 8192)), want: unix.EINVAL},
		{name: "log: start, 257 ranges", dev: full, msg: cmd(cmdFeature, u32(8000, set|6), u64(4096), u32(257, 0), make([]byte, 257*16)), want: unix.E2BIG},
		{name: "log: start, 2^32-1 ranges", dev: full, msg: cmd(cmdFeature, u32(24, set|6), u64(4096), u32(^uint32(0), 0)), want: unix.E2BIG},
		{name: "log: start, empty range", dev: full, msg: cmd(cmdFeature, u32(40, set|6), u64(4096), u32(1, 0), u64(4096, 0)), want: unix.EINVAL},
		{name: "log: start, range beyond the address space", dev: full, msg: cmd(cmdFeature, u32(40, set|6), u64(4096), u32(1, 0), u64(4096, ^uint64(0))), want: unix.EINVAL},
		{name: "log: start, ranges overlap", dev: full, msg: cmd(cmdFeature, u32(56, set|6), u64(4096), u32(2, 0), u64(0, 4096, 4095, 1)), want: unix.EINVAL},
		{name: "log: start with small pages", dev: full, msg: cmd(cmdFeature, u32(24, set|6), u64(512, 0)), body: cat(u32(24, set|6), u64(4096, 0))},
		{name: "log: start with huge pages", dev: full, msg: cmd(cmdFeature, u32(24, set|6), u64(1<<50, 0)), body: cat(u32(24, set|6), u64(1<<30, 0))},
		{name: "log: start again", dev: full, log: true, msg: cmd(cmdFeature, u32(24, set|6), u64(4096, 0)), body: cat(u32(24, set|6), u64(4096, 0))},
		{name: "log: start again with half the page size, which becomes the same", dev: full, log: true, msg: cmd(cmdFeature, u32(24, set|6), u64(2048, 0)), body: cat(u32(24, set|6), u64(4096, 0))},
		{name: "log: start again with double the page size", dev: full, log: true, msg: cmd(cmdFeature, u32(24, set|6), u64(8192, 0)), want: unix.EINVAL},
		{name: "log: start again with a range", dev: full, log: true, msg: cmd(cmdFeature, u32(40, set|6), u64(4096), u32(1, 0), u64(0, 4096)), want: unix.EINVAL},
		{name: "log: stop none", dev: full, msg: cmd(cmdFeature, u32(8, set|7)), body: u32(8, set|7)},
		{name: "log: stop with data, as libvfio-user", dev: full, log: true, msg: cmd(cmdFeature, u32(24, set|7), u64(4096, 0)), body: cat(u32(24, set|7), u64(4096, 0))},
		{name: "log: report of none", dev: full, msg: cmd(cmdFeature, u32(40, get|8), u64(0x100000, 0x4000, 4096)), want: unix.EINVAL},
		{name: "log: report, short", dev: full, log: true, msg: cmd(cmdFeature, u32(40, get|8), u64(0x100000, 0x4000)), want: unix.EINVAL},
		{name: "log: report, argsz 39", dev: full, log: true, msg: cmd(cmdFeature, u32(39, get|8), u64(0x100000, 0x4000, 4096)), want: unix.EINVAL},
		{name: "log: report, page size 0", dev: full, log: true, msg: cmd(cmdFeature, u32(40, get|8), u64(0x100000, 0x4000, 0)), want: unix.EINVAL},
		{name: "log: report, page size 3", dev: full, log: true, msg: cmd(cmdFeature, u32(4096, get|8), u64(0x100000, 0x4000, 3)), want: unix.EINVAL},
		{name: "log: report of nothing", dev: full, log: true, msg: cmd(cmdFeature, u32(40, get|8), u64(0x100000, 0, 4096)), want: unix.EINVAL},
		{name: "log: report beyond the address space", dev: full, log: true, msg: cmd(cmdFeature, u32(40, get|8), u64(0x100000, ^uint64(0), 1<<63)), want: unix.EINVAL},
		{name: "log: report of more than 32 MiB", dev: full, log: true, msg: cmd(cmdFeature, u32(^uint32(0), get|8), u64(0, 1<<40+4096, 4096)), want: unix.EINVAL},
		{name: "log: report", dev: full, log: true, msg: cmd(cmdFeature, u32(40, get|8), u64(0x100000, 0x4000, 4096)), body: cat(u32(40, get|8), u64(0x100000, 0x4000, 4096, 0b0010))},
		{name: "log: report where nothing is mapped", dev: full, log: true, msg: cmd(cmdFeature, u32(40, get|8), u64(0xdeadb000, 0x4000, 4096)), body: cat(u32(40, get|8), u64(0xdeadb000, 0x4000, 4096, 0))},
		{name: "log: report of pages of 16 MiB", dev: full, log: true, msg: cmd(cmdFeature, u32(40, get|8), u64(0x100000, 0x4000, 1<<24)), body: cat(u32(40, get|8), u64(0x100000, 0x4000, 1<<24, 1))},
		{name: "log, strict: report where nothing is mapped", dev: strict, log: true, msg: cmd(cmdFeature, u32(40, get|8), u64(0xdeadb000, 0x4000, 4096)), want: unix.ENOENT},
		{name: "log, strict: report of a part", dev: strict, log: true, msg: cmd(cmdFeature, u32(40, get|8), u64(0x100000, 0x3000, 4096)), want: unix.ENOTSUP},
		{name: "log, strict: report from the middle", dev: strict, log: true, msg: cmd(cmdFeature, u32(40, get|8), u64(0x100001, 0x3fff, 4096)), want: unix.ENOTSUP},
		{name: "log, strict: report of a mapping", dev: strict, log: true, msg: cmd(cmdFeature, u32(40, get|8), u64(0x100000, 0x4000, 4096)), body: cat(u32(40, get|8), u64(0x100000, 0x4000, 4096, 0b0010))},

		// MIG_DATA_READ and MIG_DATA_WRITE.
		{name: "migration read of a device without", msg: cmd(cmdMigDataRead, u32(8, 4096)), want: unix.EINVAL},
		{name: "migration write to a device without", msg: cmd(cmdMigDataWrite, u32(8, 0)), want: unix.EINVAL},
		{name: "migration read: no payload", dev: full, state: stopCopy, msg: cmd(cmdMigDataRead), want: unix.EINVAL},
		{name: "migration read: short", dev: full, state: stopCopy, msg: cmd(cmdMigDataRead, u32(12, 4)[:7]), want: unix.EINVAL},
		{name: "migration read: argsz too small", dev: full, state: stopCopy, msg: cmd(cmdMigDataRead, u32(11, 4)), want: unix.EINVAL},
		{name: "migration read: argsz overflows", dev: full, state: stopCopy, msg: cmd(cmdMigDataRead, u32(3, ^uint32(0)-4)), want: unix.EINVAL},
		{name: "migration read: more than 1 MiB", dev: full, state: stopCopy, msg: cmd(cmdMigDataRead, u32(2<<20, 1<<20+1)), want: unix.EINVAL},
		{name: "migration read in RUNNING", dev: full, msg: cmd(cmdMigDataRead, u32(12, 4)), want: unix.EINVAL},
		{name: "migration read in STOP", dev: full, state: stop, msg: cmd(cmdMigDataRead, u32(12, 4)), want: unix.EINVAL},
		{name: "migration read in RESUMING", dev: full, state: resuming, msg: cmd(cmdMigDataRead, u32(12, 4)), want: unix.EINVAL},
		{name: "migration read: nothing", dev: full, state: stopCopy, msg: cmd(cmdMigDataRead, u32(8, 0)), body: u32(8, 0)},
		{name: "migration read, strict: more than there is, so zeros follow", dev: strict, state: stopCopy, msg: cmd(cmdMigDataRead, u32(70008, 70000)), body: freshState(70000)},
		{name: "migration read", dev: full, state: preCopy, msg: cmd(cmdMigDataRead, u32(100, 6)), body: cat(u32(14, 6, 0), []byte{0, 0})},
		{name: "migration write: no payload", dev: full, state: resuming, msg: cmd(cmdMigDataWrite), want: unix.EINVAL},
		{name: "migration write: short", dev: full, state: resuming, msg: cmd(cmdMigDataWrite, u32(8)), want: unix.EINVAL},
		{name: "migration write: too little data", dev: full, state: resuming, msg: cmd(cmdMigDataWrite, u32(12, 4), []byte{1, 2, 3}), want: unix.EINVAL},
		{name: "migration write: too much data", dev: full, state: resuming, msg: cmd(cmdMigDataWrite, u32(12, 4), []byte{1, 2, 3, 4, 5}), want: unix.EINVAL},
		{name: "migration write: argsz too small", dev: full, state: resuming, msg: cmd(cmdMigDataWrite, u32(11, 4, 0)), want: unix.EINVAL},
		{name: "migration write: more than 1 MiB", dev: full, state: resuming, msg: cmd(cmdMigDataWrite, u32(2<<20, 1<<20+1), make([]byte, 1<<20+1)), want: unix.EINVAL},
		{name: "migration write in RUNNING", dev: full, msg: cmd(cmdMigDataWrite, u32(12, 4, 0)), want: unix.EINVAL},
		{name: "migration write in STOP_COPY", dev: full, state: stopCopy, msg: cmd(cmdMigDataWrite, u32(12, 4, 0)), want: unix.EINVAL},
		{name: "migration write: nothing", dev: full, state: resuming, msg: cmd(cmdMigDataWrite, u32(8, 0)), body: []byte{}},
		{name: "migration write: 1 MiB", dev: full, state: resuming, msg: cmd(cmdMigDataWrite, u32(8+1<<20, 1<<20), make([]byte, 1<<20))},

		// A device that stands still is served like one that runs, but strictly.
		{name: "in STOP: reset", dev: full, state: stop, msg: cmd(cmdReset), calls: []string{"reset"}, after: running},
		{name: "in RESUMING: reset", dev: full, state: resuming, msg: cmd(cmdReset), calls: []string{"reset"}, after: running},
		{name: "in STOP_COPY: unmap", dev: full, state: stopCopy, msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 2, 0, 0)), ranges: gone},
		{name: "in STOP: eventfds", dev: full, state: stop, msg: cmd(cmdSetIRQs, irqBody(20, 4|32, 2, 8, 2)), fds: 2, kind: eventfds, vectors: 3},
		{name: "in STOP_COPY: read", dev: full, state: stopCopy, msg: cmd(cmdRegionRead, accessBody(8, 0, 2)), body: accessBody(8, 0, 2, 0, 0)},
		{name: "in STOP, strict: reset", dev: strict, state: stop, msg: cmd(cmdReset), want: unix.EINVAL},
		{name: "in STOP_COPY, strict: reset", dev: strict, state: stopCopy, msg: cmd(cmdReset), want: unix.EINVAL},
		{name: "in STOP, strict: unmap", dev: strict, state: stop, msg: cmd(cmdDMAUnmap, dmaUnmapBody(24, 2, 0, 0)), want: unix.EINVAL},
		{name: "in STOP_COPY, strict: map", dev: strict, state: stopCopy, msg: cmd(cmdDMAMap, dmaMapBody(32, 3, 0, 0, 4096)), fds: 1, kind: memfds, want: unix.EINVAL},
		{name: "in STOP_COPY, strict: interrupts", dev: strict, state: stopCopy, msg: cmd(cmdSetIRQs, irqBody(20, 1|32, 2, 0, 0)), want: unix.EINVAL},
		{name: "in STOP, strict: several writes", dev: strict, state: stop, msg: cmd(cmdWriteMulti, u64(0)), want: unix.EINVAL},
		{name: "in STOP, strict: migration write", dev: strict, state: stop, msg: cmd(cmdMigDataWrite, u32(8, 0)), want: unix.EINVAL},
		{name: "in STOP_COPY, strict: write", dev: strict, state: stopCopy, msg: cmd(cmdRegionWrite, accessBody(0, 1, 1, 1)), body: accessBody(0, 1, 1)},
		{name: "in RESUMING, strict: reset", dev: strict, state: resuming, msg: cmd(cmdReset), calls: []string{"reset"}, after: running},

		// VERSION: a mistake is answered and ends the connection.
		{name: "version: no payload", first: true, msg: cmd(cmdVersion), want: unix.EINVAL, closes: true},
		{name: "version: three bytes", first: true, msg: cmd(cmdVersion, []byte{0, 0, 0}), want: unix.EINVAL, closes: true},
		{name: "version: another command first", first: true, msg: cmd(cmdGetInfo, u32(16, 0, 0, 0)), want: unix.EINVAL, closes: true},
		{name: "version: a reply first", first: true, msg: edited(cmdVersion, 8, flagReply, u32(0)), want: unix.EINVAL, closes: true},
		{name: "version: size 8", first: true, msg: edited(cmdVersion, 4, 8, u32(0)), want: unix.EINVAL, closes: true},
		{name: "version: too large", first: true, msg: edited(cmdVersion, 4, maxMessage+1, u32(0)), want: unix.EINVAL, closes: true},
		{name: "version: major 1", first: true, msg: cmd(cmdVersion, u32(1)), want: unix.EINVAL, closes: true},
		{name: "version: major 999", first: true, msg: cmd(cmdVersion, u32(999)), want: unix.EINVAL, closes: true},
		{name: "version: no NUL", first: true, msg: version(`{}`), want: unix.EINVAL, closes: true},
		{name: "version: open brace", first: true, msg: version("{\x00"), want: unix.EINVAL, closes: true},
		{name: "version: open quote", first: true, msg: version("{\"capabilities\x00"), want: unix.EINVAL, closes: true},
		{name: "version: an array", first: true, msg: version("[]\x00"), want: unix.EINVAL, closes: true},
		{name: "version: two objects", first: true, msg: version("{}{}\x00"), want: unix.EINVAL, closes: true},
		{name: "version: capabilities a string", first: true, msg: version("{\"capabilities\":\"x\"}\x00"), want: unix.EINVAL, closes: true},
		{name: "version: max_msg_fds text", first: true, msg: capability(`"max_msg_fds":"x"`), want: unix.EINVAL, closes: true},
		{name: "version: max_msg_fds -1", first: true, msg: capability(`"max_msg_fds":-1`), want: unix.EINVAL, closes: true},
		{name: "version: max_msg_fds 1025", first: true, msg: capability(`"max_msg_fds":1025`), want: unix.EINVAL, closes: true},
		{name: "version: max_data_xfer_size text", first: true, msg: capability(`"max_data_xfer_size":"1"`), want: unix.EINVAL, closes: true},
		{name: "version: max_data_xfer_size -1", first: true, msg: capability(`"max_data_xfer_size":-1`), want: unix.EINVAL, closes: true},
		{name: "version: migration a string", first: true, msg: capability(`"migration":"x"`), want: unix.EINVAL, closes: true},
		{name: "version: pgsize text", first: true, msg: capability(`"migration":{"pgsize":"x"}`), want: unix.EINVAL, closes: true},
		{name: "version: pgsize 4095", first: true, msg: capability(`"migration":{"pgsize":4095}`), want: unix.EINVAL, closes: true},
		{name: "version: twin_socket a boolean", first: true, msg: capability(`"twin_socket":true`), want: unix.EINVAL, closes: true},
		{name: "version: write_multiple a number", first: true, msg: capability(`"write_multiple":1`), want: unix.EINVAL, closes: true},
		{name: "version: no JSON, as SPDK", first: true, msg: cmd(cmdVersion, u32(0))},
		{name: "version: only the NUL", first: true, msg: version("\x00")},
		{name: "version: empty object", first: true, msg: version("{}\x00")},
		{name: "version: minor 1, as the Rust client", first: true, msg: cmd(cmdVersion, u32(1<<16), []byte("{}\x00"))},
		{name: "version: minor 65535", first: true, msg: cmd(cmdVersion, u32(0xffff<<16))},
		{name: "version: unknown keys", first: true, msg: version("{\"x\":1,\"capabilities\":{\"y\":{}}}\x00")},
		{name: "version: max_msg_fds 0", first: true, msg: capability(`"max_msg_fds":0`)},
		{name: "version: max_data_xfer_size 0", first: true, msg: capability(`"max_data_xfer_size":0`)},
		{name: "version: large values", first: true, msg: capability(`"max_msg_fds":1024,"max_data_xfer_size":18446744073709551615,"max_dma_maps":4294967296`)},
		{name: "version: twin_socket", first: true, comes: 1, msg: capability(`"twin_socket":{"supported":true}`)},
		{name: "version: QEMU 11.1", first: true, msg: capability(`"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096,` +
			`"migration":{"pgsize":4096,"max_bitmap_size":268435456},"write_multiple":true`)},
		{name: "version: without wanting a reply", first: true, msg: edited(cmdVersion, 8, flagNoReply, u32(0)), silent: true, closes: true},
		{name: "version: pgsizes 0", first: true, msg: capability(`"pgsizes":0`), want: unix.EINVAL, closes: true},
		{name: "version: pgsizes below 4096", first: true, msg: capability(`"pgsizes":2048`), want: unix.EINVAL, closes: true},
		{name: "version: pgsizes text", first: true, msg: capability(`"pgsizes":"4k"`), want: unix.EINVAL, closes: true},
		{name: "version: max_dma_maps -1", first: true, msg: capability(`"max_dma_maps":-1`), want: unix.EINVAL, closes: true},
		{name: "version: max_dma_maps 1.5", first: true, msg: capability(`"max_dma_maps":1.5`), want: unix.EINVAL, closes: true},
		{name: "version: max_bitmap_size text", first: true, msg: capability(`"migration":{"max_bitmap_size":"x"}`), want: unix.EINVAL, closes: true},
		{name: "version: pgsize 0", first: true, msg: capability(`"migration":{"pgsize":0}`), want: unix.EINVAL, closes: true},
		{name: "version: twin_socket.supported text", first: true, msg: capability(`"twin_socket":{"supported":"yes"}`), want: unix.EINVAL, closes: true},
		{name: "version: max_dma_maps 0", first: true, msg: capability(`"max_dma_maps":0`)},
		{name: "version: twin_socket not supported", first: true, msg: capability(`"twin_socket":{"supported":false}`)},
		{name: "version: null capabilities", first: true, msg: version("{\"capabilities\":null}\x00")},
	}
}

// freshState is the reply to MIG_DATA_READ of n bytes, more than there are, of a device
// whose memory is all zero.
func freshState(n int) []byte {
	const pages = 64 << 10 / statePage
	var state []byte
	for page := range uint32(pages) {
		state = append(append(state, u32(page)...), make([]byte, statePage)...)
	}
	state = append(state, u32(stateEnd)...)
	size := uint32(len(state))
	return cat(u32(migDataSize+size, size), state, make([]byte, n-len(state)))
}
