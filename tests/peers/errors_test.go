// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// row is a message, and what comes of it: "ok" or an errno, with ", closed" if the
// connection ends, ", out of step" if the server then takes the next message for
// something else (as which it may well hang up), ", then EINVAL" if it refuses the next
// message, ", keeps descriptors" if they stay open though the message was refused.
// "silent" is no reply at all, "none" that none was wanted.
type row struct {
	name  string
	first bool     // msg is the first message: no VERSION before it
	setup [][]byte // messages that must succeed before
	msg   []byte
	split []int // where msg is cut, with a pause
	fds   int   // descriptors that go with it
	kind  int

	want string // of our server
	lib  string // of libvfio-user's, if that differs
	why  string // it differs
}

// mapped is a page that the client has mapped by descriptor.
var mapped = msg(dmaMap, mapping(32, 3, 0, 0x10000, 0x1000))

func rows() []row {
	return []row{
		// Negotiation: what comes first.
		{name: "version: without JSON", first: true, msg: msg(version, u16(0, 0)), want: "ok"},
		{name: "version: empty object", first: true, msg: hello(`{}`), want: "ok"},
		{name: "version: no capabilities", first: true, msg: hello(`{"capabilities":{}}`), want: "ok"},
		{name: "version: unknown capability", first: true, msg: hello(`{"capabilities":{"colour":"red"}}`), want: "ok"},
		{name: "version: large but legal", first: true, msg: hello(`{"capabilities":{"max_msg_fds":1024,"max_data_xfer_size":4294967296}}`), want: "ok"},
		{name: "version: no descriptors at all", first: true, msg: hello(`{"capabilities":{"max_msg_fds":0}}`), want: "ok"},
		{name: "version: newer minor", first: true, msg: msg(version, u16(0, 999), []byte("{}\x00")), want: "ok"},
		{name: "version: no payload", first: true, msg: msg(version), want: "EINVAL, closed"},
		{name: "version: two bytes", first: true, msg: msg(version, u16(0)), want: "EINVAL, closed"},
		{name: "version: major 999", first: true, msg: msg(version, u16(999, 0), []byte("{}\x00")), want: "EINVAL, closed"},
		{name: "version: no NUL", first: true, msg: msg(version, u16(0, 0), []byte("{}")), want: "EINVAL, closed"},
		{name: "version: open brace", first: true, msg: hello(`{"capabilities":`), want: "EINVAL, closed"},
		{name: "version: open quote", first: true, msg: hello(`{"capabilities":{"max`), want: "EINVAL, closed"},
		{name: "version: capabilities a string", first: true, msg: hello(`{"capabilities":"all"}`), want: "EINVAL, closed"},
		{name: "version: max_msg_fds a string", first: true, msg: hello(`{"capabilities":{"max_msg_fds":"8"}}`), want: "EINVAL, closed"},
		{name: "version: max_msg_fds -1", first: true, msg: hello(`{"capabilities":{"max_msg_fds":-1}}`), want: "EINVAL, closed"},
		{name: "version: max_msg_fds 1025", first: true, msg: hello(`{"capabilities":{"max_msg_fds":1025}}`), want: "EINVAL, closed"},
		{name: "version: max_data_xfer_size a string", first: true, msg: hello(`{"capabilities":{"max_data_xfer_size":"1"}}`), want: "EINVAL, closed"},
		{
			name: "version: max_data_xfer_size -1", first: true, msg: hello(`{"capabilities":{"max_data_xfer_size":-1}}`), want: "EINVAL, closed",
			lib: "ok", why: "libvfio-user takes it for no limit",
		},
		{name: "version: migration a string", first: true, msg: hello(`{"capabilities":{"migration":"yes"}}`), want: "EINVAL, closed"},
		{name: "version: migration empty", first: true, msg: hello(`{"capabilities":{"migration":{}}}`), want: "ok"},
		{name: "version: page size a string", first: true, msg: hello(`{"capabilities":{"migration":{"pgsize":"4096"}}}`), want: "EINVAL, closed"},
		{name: "version: page size 4095", first: true, msg: hello(`{"capabilities":{"migration":{"pgsize":4095}}}`), want: "EINVAL, closed"},
		{name: "version: page size 4096", first: true, msg: hello(`{"capabilities":{"migration":{"pgsize":4096}}}`), want: "ok"},
		{name: "version: twin socket a boolean", first: true, msg: hello(`{"capabilities":{"twin_socket":true}}`), want: "EINVAL, closed"},
		{
			name: "version: a reply", first: true, msg: raw(version, 0, flagReply, u16(0, 0)), want: "EINVAL, closed",
			lib: "closed", why: "libvfio-user hangs up without a word",
		},
		{name: "version: another command first", first: true, msg: msg(getInfo, u32(16, 0, 0, 0)), want: "EINVAL, closed"},
		{
			name: "version: size 8", first: true, msg: raw(version, 8, 0), want: "EINVAL, closed",
			lib: "closed", why: "libvfio-user hangs up without a word",
		},
		{
			name: "version: 2 MiB", first: true, msg: raw(version, 2<<20, 0, u16(0, 0)), want: "EINVAL, closed",
			lib: "closed", why: "libvfio-user hangs up without a word",
		},
		{name: "version: again", msg: hello(`{}`), want: "EINVAL"},

		// Header.
		{name: "header: size 15", msg: raw(deviceReset, 15, 0), want: "EINVAL"},
		{name: "header: size 0", msg: cat(u16(7, deviceReset), u32(0, 0, 0)), want: "EINVAL"},
		{name: "header: a reply nobody asked for", msg: raw(deviceReset, 0, flagReply), want: "EINVAL"},
		{
			name: "header: a reply with a body", msg: raw(dmaRead, 0, flagReply, u64(0, 4), u32(0)), want: "EINVAL",
			lib: "EINVAL, out of step", why: "libvfio-user leaves the body in the stream and takes it for the next header",
		},
		{name: "header: type 2", msg: raw(deviceReset, 0, 2), want: "EINVAL"},
		{
			name: "header: error bit", msg: raw(deviceReset, 0, flagError), want: "EINVAL",
			lib: "ok", why: "libvfio-user ignores it",
		},
		{
			name: "header: reserved bit", msg: raw(deviceReset, 0, 1<<31), want: "EINVAL",
			lib: "ok", why: "libvfio-user ignores it",
		},
		{name: "header: command 0", msg: msg(0), want: "EINVAL"},
		{name: "header: command 19", msg: msg(19), want: "EINVAL"},
		{name: "header: unknown command with a body", msg: msg(0xffff, make([]byte, 5000)), want: "EINVAL"},
		{name: "header: DMA_READ from the client", msg: msg(dmaRead, u64(0, 4)), want: "EINVAL"},
		{name: "header: DIRTY_PAGES, withdrawn", msg: msg(dirtyPages, u32(8, 1)), want: "EINVAL"},
		{
			name: "header: larger than was negotiated", msg: msg(regionWrite, access(0, 1, 2<<20), make([]byte, 2<<20)), want: "EINVAL",
			lib: "out of step", why: "libvfio-user leaves the body in the stream and takes it for headers",
		},
		{
			name: "header: in two pieces", msg: msg(getInfo, u32(16, 0, 0, 0)), split: []int{8}, want: "ok",
			lib: "closed", why: "libvfio-user wants a header in one piece; a stream has no pieces",
		},
		{
			name: "header: byte by byte", msg: msg(deviceReset), split: []int{1, 2, 3, 15}, want: "ok",
			lib: "closed", why: "libvfio-user wants a header in one piece; a stream has no pieces",
		},
		{name: "body: apart from the header", msg: msg(regionWrite, access(0, 1, 4, 1, 2, 3, 4)), split: []int{16}, want: "ok"},
		{
			name: "body: in two pieces", msg: msg(regionWrite, access(0, 1, 4, 1, 2, 3, 4)), split: []int{24}, want: "ok",
			lib: "EINVAL, out of step", why: "libvfio-user does not wait for the rest of a body",
		},
		{name: "body: more than the command has", msg: msg(deviceReset, make([]byte, 100)), want: "ok"},
		{name: "body: longer than the command needs", msg: raw(getInfo, 64, 0, u32(16, 0, 0, 0), make([]byte, 32)), want: "ok"},
		{name: "posted: a write", msg: raw(regionWrite, 0, flagNoReply, access(0, 1, 4, 1, 2, 3, 4)), want: "none"},
		{name: "posted: a write that is refused", msg: raw(regionWrite, 0, flagNoReply, access(0, 9, 4, 1, 2, 3, 4)), want: "none"},
		{name: "posted: an unknown command", msg: raw(99, 0, flagNoReply), want: "none"},

		// DEVICE_GET_INFO.
		{name: "info: no payload", msg: msg(getInfo), want: "EINVAL"},
		{name: "info: short", msg: msg(getInfo, u32(16, 0, 0)), want: "EINVAL"},
		{name: "info: argsz 15", msg: msg(getInfo, u32(15, 0, 0, 0)), want: "EINVAL"},
		{name: "info: argsz 32, as Cloud Hypervisor", msg: msg(getInfo, u32(32, 0, 0, 0)), want: "ok"},

		// DEVICE_GET_REGION_INFO.
		{name: "region: no payload", msg: msg(regionInfo), want: "EINVAL"},
		{name: "region: short", msg: msg(regionInfo, make([]byte, 31)), want: "EINVAL"},
		{name: "region: argsz 31", msg: msg(regionInfo, region(31, 0)), want: "EINVAL"},
		{name: "region: index 9", msg: msg(regionInfo, region(32, 9)), want: "EINVAL"},
		{name: "region: index -1", msg: msg(regionInfo, region(32, 0xffffffff)), want: "EINVAL"},
		{name: "region: one that is not there", msg: msg(regionInfo, region(32, 3)), want: "ok"},
		{name: "region: argsz too small for its capabilities", msg: msg(regionInfo, region(32, 1)), want: "ok"},

		// DEVICE_GET_REGION_IO_FDS.
		{name: "io fds: argsz 15", msg: msg(regionIOFDs, u32(15, 0, 0, 0)), want: "EINVAL"},
		{name: "io fds: argsz above 1 MiB", msg: msg(regionIOFDs, u32(1<<20+1, 0, 0, 0)), want: "EINVAL"},
		{name: "io fds: flags", msg: msg(regionIOFDs, u32(64, 1, 0, 0)), want: "EINVAL"},
		{name: "io fds: count", msg: msg(regionIOFDs, u32(64, 0, 0, 1)), want: "EINVAL"},
		{name: "io fds: region that is not there", msg: msg(regionIOFDs, u32(64, 0, 3, 0)), want: "EINVAL"},
		{name: "io fds: region 9", msg: msg(regionIOFDs, u32(64, 0, 9, 0)), want: "EINVAL"},
		{name: "io fds: region without any", msg: msg(regionIOFDs, u32(64, 0, 0, 0)), want: "ok"},

		// DEVICE_GET_IRQ_INFO.
		{name: "irq info: short", msg: msg(irqInfo, u32(16, 0, 0)), want: "EINVAL"},
		{name: "irq info: argsz 15", msg: msg(irqInfo, u32(15, 0, 0, 0)), want: "EINVAL"},
		{name: "irq info: index 5", msg: msg(irqInfo, u32(16, 0, 5, 0)), want: "EINVAL"},
		{name: "irq info: a type without vectors", msg: msg(irqInfo, u32(16, 0, 2, 0)), want: "ok"},

		// DEVICE_SET_IRQS. Flags: 1 none, 2 bool, 4 eventfd; 8 mask, 16 unmask, 32 trigger.
		{name: "irqs: no payload", msg: msg(setIRQs), want: "EINVAL"},
		{name: "irqs: short", msg: msg(setIRQs, make([]byte, 19)), want: "EINVAL"},
		{name: "irqs: argsz 19", msg: msg(setIRQs, irqs(19, 1|32, 0, 0, 1)), want: "EINVAL"},
		{name: "irqs: index 5", msg: msg(setIRQs, irqs(20, 1|32, 5, 0, 1)), want: "EINVAL"},
		{name: "irqs: mask and unmask", msg: msg(setIRQs, irqs(20, 1|8|16, 0, 0, 1)), want: "EINVAL"},
		{name: "irqs: none and bool", msg: msg(setIRQs, irqs(21, 1|2|32, 0, 0, 1, 1)), want: "EINVAL"},
		{name: "irqs: no data", msg: msg(setIRQs, irqs(20, 32, 0, 0, 1)), want: "EINVAL"},
		{name: "irqs: no action", msg: msg(setIRQs, irqs(20, 1, 0, 0, 1)), want: "EINVAL"},
		{
			name: "irqs: unknown flag", msg: msg(setIRQs, irqs(20, 1|32|64, 0, 0, 1)), want: "EINVAL",
			lib: "ok", why: "libvfio-user ignores it",
		},
		{name: "irqs: start beyond", msg: msg(setIRQs, irqs(20, 1|32, 0, 1, 1)), want: "EINVAL"},
		{name: "irqs: end beyond", msg: msg(setIRQs, irqs(20, 1|32, 0, 0, 2)), want: "EINVAL"},
		{name: "irqs: sum overflows", msg: msg(setIRQs, irqs(20, 1|32, 0, 1, 0xffffffff)), want: "EINVAL"},
		{name: "irqs: a type without vectors", msg: msg(setIRQs, irqs(20, 1|32, 2, 0, 1)), want: "EINVAL"},
		{name: "irqs: mask ERR", msg: msg(setIRQs, irqs(20, 1|8, 3, 0, 1)), want: "EINVAL"},
		{name: "irqs: unmask REQ", msg: msg(setIRQs, irqs(20, 1|16, 4, 0, 1)), want: "EINVAL"},
		{
			name: "irqs: mask INTx, which cannot be masked", msg: msg(setIRQs, irqs(20, 1|8, 0, 0, 1)), want: "EINVAL",
			lib: "ok", why: "libvfio-user does nothing: it has no masking, and says so in the flags of the type",
		},
		{name: "irqs: two ERRs", msg: msg(setIRQs, irqs(20, 1|32, 3, 0, 2)), want: "EINVAL"},
		{name: "irqs: count 0, start 1", msg: msg(setIRQs, irqs(20, 1|32, 0, 1, 0)), want: "EINVAL"},
		{name: "irqs: count 0, mask", msg: msg(setIRQs, irqs(20, 1|8, 0, 0, 0)), want: "EINVAL"},
		{name: "irqs: count 0, bool", msg: msg(setIRQs, irqs(20, 2|32, 0, 0, 0)), want: "EINVAL"},
		{name: "irqs: count 0, eventfd", msg: msg(setIRQs, irqs(20, 4|32, 0, 0, 0)), want: "EINVAL"},
		{name: "irqs: booleans too few", msg: msg(setIRQs, irqs(20, 2|32, 0, 0, 1)), want: "EINVAL"},
		{name: "irqs: booleans too many", msg: msg(setIRQs, irqs(22, 2|32, 0, 0, 1, 1, 1)), want: "EINVAL"},
		{name: "irqs: descriptor with none", msg: msg(setIRQs, irqs(20, 1|32, 0, 0, 1)), fds: 1, want: "EINVAL"},
		{name: "irqs: descriptor with bool", msg: msg(setIRQs, irqs(21, 2|32, 0, 0, 1, 1)), fds: 1, want: "EINVAL"},
		{name: "irqs: descriptor with disable", msg: msg(setIRQs, irqs(20, 1|32, 0, 0, 0)), fds: 1, want: "EINVAL"},
		{name: "irqs: two descriptors for one", msg: msg(setIRQs, irqs(20, 4|32, 0, 0, 1)), fds: 2, want: "EINVAL"},
		{name: "irqs: attach", msg: msg(setIRQs, irqs(20, 4|32, 0, 0, 1)), fds: 1, want: "ok"},
		{name: "irqs: detach", msg: msg(setIRQs, irqs(20, 4|32, 0, 0, 1)), want: "ok"},
		{name: "irqs: disable", msg: msg(setIRQs, irqs(20, 1|32, 0, 0, 0)), want: "ok"},
		{name: "irqs: trigger without eventfd", msg: msg(setIRQs, irqs(20, 1|32, 0, 0, 1)), want: "ok"},

		// REGION_READ, REGION_WRITE and REGION_WRITE_MULTI.
		{name: "read: no payload", msg: msg(regionRead), want: "EINVAL"},
		{name: "read: short", msg: msg(regionRead, make([]byte, 15)), want: "EINVAL"},
		{name: "read: region 9", msg: msg(regionRead, access(0, 9, 4)), want: "EINVAL"},
		{name: "read: region 0xdeadbeef", msg: msg(regionRead, access(0, 0xdeadbeef, 4)), want: "EINVAL"},
		{name: "read: region that is not there", msg: msg(regionRead, access(0, 3, 4)), want: "EINVAL"},
		{name: "read: beyond the end", msg: msg(regionRead, access(0x2ffd, 1, 4)), want: "EINVAL"},
		{name: "read: sum overflows", msg: msg(regionRead, access(^uint64(0), 1, 4)), want: "EINVAL"},
		{name: "read: more than was negotiated", msg: msg(regionRead, access(0, 1, 1<<20+1)), want: "EINVAL"},
		{name: "read: nothing", msg: msg(regionRead, access(0, 1, 0)), want: "ok"},
		{
			name: "read: what the device refuses", msg: msg(regionRead, access(0, 0, 4)), want: "ok",
			lib: "EINVAL", why: "ours gives all ones, as a bus does: Cloud Hypervisor waits for the data that an error reply does not have",
		},
		{name: "write: short", msg: msg(regionWrite, make([]byte, 15)), want: "EINVAL"},
		{name: "write: no data", msg: msg(regionWrite, access(0, 1, 4)), want: "EINVAL"},
		{name: "write: too much data", msg: msg(regionWrite, access(0, 1, 1, 1, 2)), want: "EINVAL"},
		{name: "write: beyond the end", msg: msg(regionWrite, access(0x3000, 1, 1, 1)), want: "EINVAL"},
		{
			name: "write: 256 KiB, beyond the end", msg: msg(regionWrite, access(0, 1, 256<<10, make([]byte, 256<<10)...)), want: "EINVAL",
			lib: "EINVAL, out of step", why: "libvfio-user does not wait for the rest of a body, and takes it for headers",
		},
		{
			name: "write: what the device refuses", msg: msg(regionWrite, access(0, 0, 4, 1, 2, 3, 4)), want: "ok",
			lib: "EINVAL", why: "ours drops it, as a bus does",
		},
		{
			name: "config: read-only field", msg: msg(regionWrite, access(0, 7, 4, 1, 2, 3, 4)), want: "ok",
			lib: "EINVAL", why: "ours drops it, as a bus does",
		},
		{name: "config: whole space", msg: msg(regionRead, access(0, 7, 256)), want: "ok"},
		{name: "config: beyond the end", msg: msg(regionRead, access(0xfe, 7, 4)), want: "EINVAL"},
		{
			name: "multi: two writes", msg: msg(writeMulti, u64(2), access(0, 1, 1), u64(1), access(8, 1, 8), u64(1)), want: "ok",
			lib: "EINVAL", why: "libvfio-user does not know the command",
		},
		{name: "multi: count too large", msg: msg(writeMulti, u64(2), access(0, 1, 1), u64(1)), want: "EINVAL"},

		// DMA_MAP and DMA_UNMAP.
		{name: "map: short", msg: msg(dmaMap, make([]byte, 31)), want: "EINVAL"},
		{name: "map: argsz 31", msg: msg(dmaMap, mapping(31, 3, 0, 0x10000, 0x1000)), want: "EINVAL"},
		{
			name: "map: no access", msg: msg(dmaMap, mapping(32, 0, 0, 0x10000, 0x1000)), want: "EINVAL",
			lib: "ok", why: "libvfio-user keeps a range that nothing can be done with",
		},
		{name: "map: unknown flag", msg: msg(dmaMap, mapping(32, 3|1<<7, 0, 0x10000, 0x1000)), want: "EINVAL"},
		{
			name: "map: size 0", msg: msg(dmaMap, mapping(32, 3, 0, 0x10000, 0)), want: "EINVAL",
			lib: "ok", why: "libvfio-user does not check it",
		},
		{
			name: "map: beyond the address space", msg: msg(dmaMap, mapping(32, 3, 0, ^uint64(0)-0xfff, 0x2000)), want: "EINVAL",
			lib: "ok", why: "libvfio-user does not check it",
		},
		{name: "map: above 8 TiB", msg: msg(dmaMap, mapping(32, 3, 0, 0, 8<<40+0x1000)), want: "ENOSPC"},
		{name: "map: with descriptor", msg: mapped, fds: 1, kind: files, want: "ok"},
		{name: "map: without descriptor", msg: mapped, want: "ok"},
		{
			name: "map: the same again", setup: [][]byte{mapped}, msg: mapped, fds: 1, kind: files, want: "EEXIST",
			lib: "EINVAL", why: "the specification says EEXIST",
		},
		{
			name: "map: overlap", setup: [][]byte{mapped}, msg: msg(dmaMap, mapping(32, 3, 0, 0xf000, 0x2000)), fds: 1, kind: files, want: "EEXIST",
			lib: "EINVAL", why: "the specification says EEXIST",
		},
		{
			name: "map: two descriptors", msg: mapped, fds: 2, kind: files, want: "EINVAL",
			lib: "ok", why: "libvfio-user takes the first",
		},
		{
			name: "map: beyond the end of the file", msg: msg(dmaMap, mapping(32, 3, 0, 0x10000, 64<<10+0x1000)), fds: 1, kind: files, want: "EINVAL",
			lib: "ok", why: "libvfio-user does not check it; the device would die of SIGBUS",
		},
		{
			name: "map: an eventfd", msg: mapped, fds: 1, kind: eventfds, want: "EINVAL",
			lib: "ENODEV", why: "libvfio-user passes on the errno of mmap",
		},
		{name: "unmap: short", msg: msg(dmaUnmap, make([]byte, 23)), want: "EINVAL"},
		{name: "unmap: argsz 23", setup: [][]byte{mapped}, msg: msg(dmaUnmap, unmapping(23, 0, 0x10000, 0x1000)), want: "EINVAL"},
		{name: "unmap: unknown flag", setup: [][]byte{mapped}, msg: msg(dmaUnmap, unmapping(24, 4, 0x10000, 0x1000)), want: "EINVAL"},
		{name: "unmap: all, with an address", setup: [][]byte{mapped}, msg: msg(dmaUnmap, unmapping(24, 2, 0x10000, 0x1000)), want: "EINVAL"},
		{name: "unmap: all, and dirty pages", setup: [][]byte{mapped}, msg: msg(dmaUnmap, unmapping(24, 3, 0, 0)), want: "EINVAL"},
		{name: "unmap: dirty pages that are not logged", setup: [][]byte{mapped}, msg: msg(dmaUnmap, unmapping(48, 1, 0x10000, 0x1000), u64(0x1000, 8)), want: "EINVAL"},
		{
			name: "unmap: what is not mapped", setup: [][]byte{mapped}, msg: msg(dmaUnmap, unmapping(24, 0, 0x40000, 0x1000)), want: "ok",
			lib: "ENOENT", why: "QEMU with a virtual IOMMU unmaps what was never mapped, and complains of ENOENT",
		},
		{
			name: "unmap: a part", setup: [][]byte{msg(dmaMap, mapping(32, 3, 0, 0x10000, 0x2000))}, msg: msg(dmaUnmap, unmapping(24, 0, 0x10000, 0x1000)), want: "EINVAL",
			lib: "ENOENT", why: "libvfio-user looks only for the whole range; linux/vfio.h says EINVAL",
		},
		{name: "unmap: what is mapped", setup: [][]byte{mapped}, msg: msg(dmaUnmap, unmapping(24, 0, 0x10000, 0x1000)), want: "ok"},
		{name: "unmap: all", setup: [][]byte{mapped}, msg: msg(dmaUnmap, unmapping(24, 2, 0, 0)), want: "ok"},

		// DEVICE_FEATURE.
		{name: "feature: short", msg: msg(feature, u32(8)), want: "EINVAL"},
		{name: "feature: argsz 7", msg: msg(feature, u32(7, featureGet|1)), want: "EINVAL"},
		{name: "feature: unknown", msg: msg(feature, u32(8, featureGet|99)), want: "EINVAL"},
		{name: "feature: probe of an unknown one", msg: msg(feature, u32(8, featureProbe|99)), want: "EINVAL"},
		{name: "feature: probe", msg: msg(feature, u32(8, featureProbe|featureGet|1)), want: "ok"},
		{name: "feature: probe of set where there is only get", msg: msg(feature, u32(8, featureProbe|featureSet|1)), want: "EINVAL"},
		{name: "feature: get migration", msg: msg(feature, u32(16, featureGet|1)), want: "ok"},
		{name: "feature: get migration, argsz too small", msg: msg(feature, u32(8, featureGet|1)), want: "EINVAL"},
		{name: "feature: get and set", msg: msg(feature, u32(16, featureGet|featureSet|2, 1, 0)), want: "EINVAL"},
		{name: "feature: set migration", msg: msg(feature, u32(16, featureSet|1), u64(1)), want: "EINVAL"},

		// Migration states: 0 ERROR, 1 STOP, 2 RUNNING, 3 STOP_COPY, 4 RESUMING, 5 RUNNING_P2P, 6 PRE_COPY.
		{name: "state: get", msg: msg(feature, u32(16, featureGet|2)), want: "ok"},
		{
			name: "state: short", msg: msg(feature, u32(16, featureSet|2, 1)), want: "EINVAL",
			lib: "ok, then EINVAL", why: "libvfio-user reads the state beyond what came; and as below",
		},
		{
			name: "state: STOP", msg: deviceState(1), want: "ok",
			lib: "ok, then EINVAL", why: "a stopped device of libvfio-user answers region accesses and migration, nothing else",
		},
		{name: "state: RUNNING to RUNNING", msg: deviceState(2), want: "ok"},
		{
			name: "state: RUNNING to STOP_COPY", msg: deviceState(3), want: "ok",
			lib: "ok, then EINVAL", why: "as above",
		},
		{name: "state: RUNNING to RESUMING", msg: deviceState(4), want: "ok"},
		{name: "state: RUNNING to PRE_COPY", msg: deviceState(6), want: "ok"},
		{name: "state: ERROR", msg: deviceState(0), want: "EINVAL"},
		{name: "state: P2P, which the device does not know", msg: deviceState(5), want: "EINVAL"},
		{name: "state: 8", msg: deviceState(8), want: "EINVAL"},
		{
			name: "state: STOP to PRE_COPY", setup: [][]byte{deviceState(1)}, msg: deviceState(6), want: "ok",
			lib: "closed", why: "its device asserts that it never runs again without a whole state",
		},
		{
			name: "state: PRE_COPY to STOP_COPY", setup: [][]byte{deviceState(6)}, msg: deviceState(3), want: "ok",
			lib: "ok, then EINVAL", why: "as above",
		},
		{
			name: "state: PRE_COPY to RESUMING", setup: [][]byte{deviceState(6)}, msg: deviceState(4), want: "ok",
			lib: "closed", why: "its device asserts that it never runs again without a whole state",
		},

		// MIG_DATA_READ and MIG_DATA_WRITE.
		{name: "data: read while RUNNING", msg: msg(migDataRead, u32(24, 16)), want: "EINVAL"},
		{name: "data: write while RUNNING", msg: msg(migDataWrite, u32(24, 16), make([]byte, 16)), want: "EINVAL"},
		{name: "data: read in PRE_COPY", setup: [][]byte{deviceState(6)}, msg: msg(migDataRead, u32(24, 16)), want: "ok"},
		{name: "data: write in PRE_COPY", setup: [][]byte{deviceState(6)}, msg: msg(migDataWrite, u32(24, 16), make([]byte, 16)), want: "EINVAL"},
		{name: "data: read, short", setup: [][]byte{deviceState(6)}, msg: msg(migDataRead, u32(24)), want: "EINVAL"},
		{name: "data: read, argsz 7", setup: [][]byte{deviceState(6)}, msg: msg(migDataRead, u32(7, 16)), want: "EINVAL"},
		{name: "data: read, argsz too small for the data", setup: [][]byte{deviceState(6)}, msg: msg(migDataRead, u32(16, 16)), want: "EINVAL"},
		{name: "data: read, more than was negotiated", setup: [][]byte{deviceState(6)}, msg: msg(migDataRead, u32(8+1<<20+1, 1<<20+1)), want: "EINVAL"},

		// The log of written pages.
		{name: "log: start", setup: [][]byte{mapped}, msg: startLog(4096), want: "ok"},
		{name: "log: start, page size 0", setup: [][]byte{mapped}, msg: startLog(0), want: "EINVAL"},
		{
			name: "log: start, page size 4095", setup: [][]byte{mapped}, msg: startLog(4095), want: "EINVAL",
			lib: "ok", why: "libvfio-user takes what is no power of two",
		},
		{
			name: "log: start, page size 8192", setup: [][]byte{mapped}, msg: startLog(8192), want: "ok",
			lib: "EINVAL", why: "libvfio-user logs pages of the size of the negotiation only",
		},
		{
			name: "log: start, short", setup: [][]byte{mapped}, msg: msg(feature, u32(24, featureSet|6), u64(4096)), want: "EINVAL",
			lib: "ok", why: "libvfio-user reads beyond what came",
		},
		{name: "log: start twice with another page size", setup: [][]byte{mapped, startLog(4096)}, msg: startLog(8192), want: "EINVAL"},
		{name: "log: stop without start", setup: [][]byte{mapped}, msg: msg(feature, u32(8, featureSet|7)), want: "ok"},
		{name: "log: report", setup: [][]byte{mapped, startLog(4096)}, msg: dirty(40, 0x10000, 0x1000, 4096), want: "ok"},
		{name: "log: report without start", setup: [][]byte{mapped}, msg: dirty(40, 0x10000, 0x1000, 4096), want: "EINVAL"},
		{name: "log: report, argsz too small for the bitmap", setup: [][]byte{mapped, startLog(4096)}, msg: dirty(39, 0x10000, 0x1000, 4096), want: "EINVAL"},
		{
			name: "log: report of what is not mapped", setup: [][]byte{mapped, startLog(4096)}, msg: dirty(40, 0x40000, 0x1000, 4096), want: "ok",
			lib: "ENOENT", why: "our log is kept by address, so that an unmap loses nothing of it",
		},
		{name: "log: report of half a range", setup: [][]byte{msg(dmaMap, mapping(32, 3, 0, 0x10000, 0x2000)), startLog(4096)}, msg: dirty(40, 0x10000, 0x1000, 4096), want: "ok"},
		{name: "log: report, page size 4095", setup: [][]byte{mapped, startLog(4096)}, msg: dirty(40, 0x10000, 0x1000, 4095), want: "EINVAL"},
		{
			name: "log: report, page size 2^24", setup: [][]byte{mapped, startLog(4096)}, msg: dirty(40, 0x10000, 0x1000, 1<<24), want: "ok",
			lib: "EINVAL", why: "our log reports in pages of any size that the log can be counted in",
		},
	}
}

// libvfioUser returns the directory of libvfio-user's samples, or "".
func libvfioUser() string { return os.Getenv("NPUEMU_LIBVFIO_USER") }

// TestErrors sends every row to our server and, where it is, to libvfio-user's, both
// with a device of the same shape, and wants what the row says.
func TestErrors(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process a row; not with -short")
	}
	ours := filepath.Join(t.TempDir(), "server")
	build(t, "npuemu/examples/alarm/server", ours)
	lib := ""
	if dir := libvfioUser(); dir != "" {
		lib = filepath.Join(dir, "server")
		checkServes(t, lib)
	}
	for _, r := range rows() {
		t.Run(r.name, func(t *testing.T) {
			if (r.lib != "") != (r.why != "") || r.lib == r.want {
				t.Errorf("the row gives lib %q and why %q: both where libvfio-user differs, neither where it does not", r.lib, r.why)
			}
			judge(t, r, []string{r.want}, 10*time.Second, ours, "-strict=false")
			if lib == "" {
				return
			}
			want := []string{r.want}
			if r.lib != "" {
				want[0] = r.lib
			}
			if lost, found := strings.CutSuffix(r.lib, ", out of step"); found {
				want = append(want, lost+", closed")
			}
			judge(t, r, want, time.Second, lib)
		})
	}
	if lib == "" {
		t.Log("only our server: NPUEMU_LIBVFIO_USER does not name libvfio-user's samples (docs/testing.md)")
	}
}

// judge wants one of the outcomes.
func judge(t *testing.T, r row, want []string, wait time.Duration, program string, args ...string) {
	t.Helper()
	s := startServer(t, wait, program, args...)
	got, err := s.outcome(t, r)
	s.stop()
	if err != nil {
		t.Errorf("%s: %v", program, err)
	} else if !slices.Contains(want, got) {
		t.Errorf("%s: %s, want %s", program, got, want[0])
	}
	if t.Failed() {
		t.Logf("%s printed:\n%s", program, s.out)
	}
}

// checkServes fails the test if libvfio-user's server does not serve at all.
func checkServes(t *testing.T, program string) {
	t.Helper()
	const hint = "libvfio-user's own server starts up to its commit 7e7a0a6 (docs/testing.md)"
	defer func() {
		if t.Failed() {
			t.Log(hint)
		}
	}()
	s := startServer(t, time.Second, program)
	defer s.stop()
	got, err := s.outcome(t, row{msg: msg(getInfo, u32(16, 0, 0, 0))})
	if err != nil || got != "ok" {
		t.Fatalf("%s does not serve: %q, %v\n%s", program, got, err, s.out)
	}
}
