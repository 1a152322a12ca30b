// SPDX-License-Identifier: Apache-2.0

// Package image encodes, decodes and checks firmware images: a 64-byte header
// and a payload, docs/spec/boot.md §3.3.
//
// The boot ROM checks an image by itself; this package gives the same verdict
// (§3.5) to tools before a driver meets it, for the newest architecture.
package image

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"npuemu/mmio/npureg"
)

// Values of §3.3.
const (
	Magic       = 0x4655504e // "NPUF"
	HeaderSize  = 64
	HeaderMajor = 1

	// ROMReserved is the end of SRAM that no payload can use.
	ROMReserved = 4096
	loadable    = npureg.CPSRAMSize - ROMReserved
)

// Byte offsets in the header.
const (
	offMagic          = 0x00
	offHeaderMajor    = 0x04
	offHeaderMinor    = 0x06
	offHeaderSize     = 0x08
	offPayloadSize    = 0x0c
	offLoadAddress    = 0x10
	offEntry          = 0x14
	offPayloadCRC     = 0x18
	offInterfaceMajor = 0x1c
	offInterfaceMinor = 0x1e
	offBuild          = 0x20
	offArchMajor      = 0x24
	offArchMinor      = 0x26
	offReserved       = 0x28
	offHeaderCRC      = 0x3c
)

// Build is firmware's own version: major in bits 31:24, minor in 23:16, patch
// in 15:0.
type Build uint32

// ParseBuild reads "major.minor.patch".
func ParseBuild(s string) (Build, error) {
	parts := strings.Split(s, ".")
	var b Build
	for i, bits := range []int{8, 8, 16} {
		if len(parts) != 3 {
			break
		}
		n, err := strconv.ParseUint(parts[i], 10, bits)
		if err != nil {
			return 0, fmt.Errorf("image: build %q: use major.minor.patch, at most 255.255.65535: %w", s, err)
		}
		b = b<<bits | Build(n)
	}
	if len(parts) != 3 {
		return 0, fmt.Errorf("image: build %q has %d parts; use major.minor.patch", s, len(parts))
	}
	return b, nil
}

func (b Build) String() string {
	return fmt.Sprintf("%d.%d.%d", b>>24, b>>16&0xff, b&0xffff)
}

// Header is the header of an image without the fields that have one legal
// value.
type Header struct {
	HeaderMinor                    uint16
	PayloadSize                    uint32 // bytes
	LoadAddress, Entry             uint32 // addresses of the control processor
	PayloadCRC                     uint32
	InterfaceMajor, InterfaceMinor uint16
	Build                          Build
	ArchMajor, ArchMinor           uint16
}

// Error is a boot error: what BOOT_STATUS.ERROR and FW_ERROR_DETAIL would hold
// (§3.5).
type Error struct {
	Code   uint8  // npureg.BootErr…
	Detail uint32 // as §3.5 says for the code
	Reason string
}

func (e *Error) Error() string {
	return fmt.Sprintf("image: boot error %d (detail %#x), §3.5: %s", e.Code, e.Detail, e.Reason)
}

func fail(code uint8, detail uint32, format string, args ...any) error {
	return &Error{Code: code, Detail: detail, Reason: fmt.Sprintf(format, args...)}
}

// Parse checks an image as the boot ROM does when IMAGE_SIZE is len(b), in the
// order of §3.5, and returns its header and payload, which is a part of b. A
// refused image gives an *Error.
func Parse(b []byte) (Header, []byte, error) {
	h, err := parse(b)
	if err != nil {
		return Header{}, nil, err
	}
	return h, b[HeaderSize:], nil
}

func parse(b []byte) (Header, error) {
	var h Header
	if n := len(b); n < HeaderSize+4 || n > HeaderSize+npureg.CPSRAMSize {
		return h, fail(npureg.BootErrSize, uint32(n), "%d bytes; an image has %d to %d", n, HeaderSize+4, HeaderSize+npureg.CPSRAMSize)
	}
	u16, u32 := binary.LittleEndian.Uint16, binary.LittleEndian.Uint32
	if v := u32(b[offMagic:]); v != Magic {
		return h, fail(npureg.BootErrMagic, v, "magic %#x is not %#x (\"NPUF\"); this is not a firmware image", v, Magic)
	}
	if have, want := u32(b[offHeaderCRC:]), crc32.ChecksumIEEE(b[:offHeaderCRC]); have != want {
		return h, fail(npureg.BootErrHeaderCRC, want, "header_crc32 is %#x, computed %#x; the header is damaged", have, want)
	}
	if v := u16(b[offHeaderMajor:]); v != HeaderMajor {
		return h, fail(npureg.BootErrHeader, offHeaderMajor, "header_major %d; this boot ROM knows %d", v, HeaderMajor)
	}
	if v := u32(b[offHeaderSize:]); v != HeaderSize {
		return h, fail(npureg.BootErrHeader, offHeaderSize, "header_size %d must be %d", v, HeaderSize)
	}
	for i, v := range b[offReserved:offHeaderCRC] {
		if v != 0 {
			return h, fail(npureg.BootErrHeader, offReserved, "reserved byte %#x is %#x; write 0", offReserved+i, v)
		}
	}
	h = Header{
		HeaderMinor: u16(b[offHeaderMinor:]), PayloadSize: u32(b[offPayloadSize:]), LoadAddress: u32(b[offLoadAddress:]),
		Entry: u32(b[offEntry:]), PayloadCRC: u32(b[offPayloadCRC:]), InterfaceMajor: u16(b[offInterfaceMajor:]),
		InterfaceMinor: u16(b[offInterfaceMinor:]), Build: Build(u32(b[offBuild:])), ArchMajor: u16(b[offArchMajor:]),
		ArchMinor: u16(b[offArchMinor:]),
	}
	if err := h.check(); err != nil {
		return h, err
	}
	if len(b)-HeaderSize != int(h.PayloadSize) {
		return h, fail(npureg.BootErrSize, uint32(len(b)), "%d bytes; header and payload have %d", len(b), HeaderSize+int(h.PayloadSize))
	}
	if crc := crc32.ChecksumIEEE(b[HeaderSize:]); crc != h.PayloadCRC {
		return h, fail(npureg.BootErrPayloadCRC, crc, "payload_crc32 is %#x, computed %#x; the payload is damaged", h.PayloadCRC, crc)
	}
	return h, nil
}

// check is the part of the order of §3.5 that needs only the header's fields:
// interface, arch, range.
func (h Header) check() error {
	if h.InterfaceMajor != npureg.FirmwareMajor {
		return fail(npureg.BootErrInterface, uint32(h.InterfaceMajor)<<16|uint32(h.InterfaceMinor),
			"firmware interface %d.%d; this boot ROM accepts major %d", h.InterfaceMajor, h.InterfaceMinor, npureg.FirmwareMajor)
	}
	if h.ArchMajor != npureg.ArchMajor || h.ArchMinor > npureg.ArchMinor {
		return fail(npureg.BootErrArch, uint32(h.ArchMajor)<<16|uint32(h.ArchMinor),
			"built for architecture %d.%d; this is %d.%d", h.ArchMajor, h.ArchMinor, npureg.ArchMajor, npureg.ArchMinor)
	}
	if h.PayloadSize < 4 || h.PayloadSize%4 != 0 {
		return fail(npureg.BootErrRange, offPayloadSize, "payload_size %d must be a multiple of 4, at least 4", h.PayloadSize)
	}
	// load is large if load_address is below SRAM, too.
	if load := h.LoadAddress - npureg.CPSRAMBase; load%4 != 0 || load > loadable || h.PayloadSize > loadable-load {
		return fail(npureg.BootErrRange, offLoadAddress, "%#x bytes at load_address %#x: use a multiple of 4, and [%#x, %#x)",
			h.PayloadSize, h.LoadAddress, npureg.CPSRAMBase, npureg.CPSRAMBase+loadable)
	}
	if h.Entry%2 != 0 || h.Entry-h.LoadAddress >= h.PayloadSize {
		return fail(npureg.BootErrRange, offEntry, "entry %#x must be even and in the payload", h.Entry)
	}
	return nil
}

// New returns the image that h describes: h.PayloadSize and h.PayloadCRC are
// ignored and computed from payload. It fails where the boot ROM would refuse
// the result.
func New(h Header, payload []byte) ([]byte, error) {
	h.PayloadSize, h.PayloadCRC = uint32(len(payload)), crc32.ChecksumIEEE(payload)
	b := append(h.encode(), payload...)
	if _, err := parse(b); err != nil {
		return nil, err
	}
	return b, nil
}

// encode returns the header's bytes, unchecked.
func (h Header) encode() []byte {
	b := make([]byte, HeaderSize)
	p16, p32 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32
	p32(b[offMagic:], Magic)
	p16(b[offHeaderMajor:], HeaderMajor)
	p16(b[offHeaderMinor:], h.HeaderMinor)
	p32(b[offHeaderSize:], HeaderSize)
	p32(b[offPayloadSize:], h.PayloadSize)
	p32(b[offLoadAddress:], h.LoadAddress)
	p32(b[offEntry:], h.Entry)
	p32(b[offPayloadCRC:], h.PayloadCRC)
	p16(b[offInterfaceMajor:], h.InterfaceMajor)
	p16(b[offInterfaceMinor:], h.InterfaceMinor)
	p32(b[offBuild:], uint32(h.Build))
	p16(b[offArchMajor:], h.ArchMajor)
	p16(b[offArchMinor:], h.ArchMinor)
	Seal(b)
	return b
}

// Seal writes the header's checksum into b, which starts with a header. Tests
// use it after they damaged a field.
func Seal(b []byte) {
	binary.LittleEndian.PutUint32(b[offHeaderCRC:], crc32.ChecksumIEEE(b[:offHeaderCRC]))
}

// Info describes the image in a few lines, for people.
func (h Header) Info() string {
	return fmt.Sprintf("build         %v\ninterface     %d.%d\narchitecture  %d.%d\npayload       %d bytes, crc32 %#08x\n"+
		"load address  %#08x\nentry         %#08x\n",
		h.Build, h.InterfaceMajor, h.InterfaceMinor, h.ArchMajor, h.ArchMinor, h.PayloadSize, h.PayloadCRC, h.LoadAddress, h.Entry)
}
