// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Sizes of a program image (§5.3).
const (
	DescriptorSize = 64
	MaxTextSize    = 16 << 20
	MaxBindings    = 64
)

// magic is the first four bytes of a descriptor.
const magic = "NPUP"

// Byte offsets of the descriptor's fields.
const (
	descMagic       = 0x00
	descMajor       = 0x04
	descMinor       = 0x06
	descSize        = 0x08
	descTextOffset  = 0x0c
	descTextSize    = 0x10
	descTextCRC     = 0x14
	descRows        = 0x18
	descCols        = 0x1a
	descSpadSize    = 0x1c
	descAccSize     = 0x20
	descBindings    = 0x24
	descReserved0   = 0x26
	descFeatures    = 0x28
	descReserved1   = 0x30
	descReservedEnd = 0x40
)

// DescriptorFeatures is the byte offset of a descriptor's features, the info of a violation of them.
const DescriptorFeatures = descFeatures

// Descriptor is what a program says about itself (§5.3).
type Descriptor struct {
	Minor             uint16 // of the ISA version; the major is that of this package
	TextSize, TextCRC uint32 // bytes; CRC-32 of the text
	Rows, Cols        uint16 // of the array the program is for
	SpadSize, AccSize uint32 // bytes of local memory that it uses
	Bindings          uint16
	Features          uint64 // bits that the device must have
}

// Encode returns the descriptor's bytes.
func (d Descriptor) Encode() [DescriptorSize]byte {
	var b [DescriptorSize]byte
	le := binary.LittleEndian
	copy(b[descMagic:], magic)
	le.PutUint16(b[descMajor:], Major)
	le.PutUint16(b[descMinor:], d.Minor)
	le.PutUint32(b[descSize:], DescriptorSize)
	le.PutUint32(b[descTextOffset:], DescriptorSize)
	le.PutUint32(b[descTextSize:], d.TextSize)
	le.PutUint32(b[descTextCRC:], d.TextCRC)
	le.PutUint16(b[descRows:], d.Rows)
	le.PutUint16(b[descCols:], d.Cols)
	le.PutUint32(b[descSpadSize:], d.SpadSize)
	le.PutUint32(b[descAccSize:], d.AccSize)
	le.PutUint16(b[descBindings:], d.Bindings)
	le.PutUint64(b[descFeatures:], d.Features)
	return b
}

func badDescriptor(r Rule, off uint64, field, format string, args ...any) *Violation {
	return &Violation{Rule: r, Info: off, Field: field, Detail: "descriptor: " + field + " " + fmt.Sprintf(format, args...)}
}

// ParseDescriptor decodes a descriptor and makes the checks that come first
// (§5.3): magic, version, sizes and reserved fields, all BAD_PROGRAM. minor is
// the newest that the core knows.
func ParseDescriptor(b *[DescriptorSize]byte, minor uint16) (Descriptor, *Violation) {
	le := binary.LittleEndian
	d := Descriptor{
		Minor:    le.Uint16(b[descMinor:]),
		TextSize: le.Uint32(b[descTextSize:]),
		TextCRC:  le.Uint32(b[descTextCRC:]),
		Rows:     le.Uint16(b[descRows:]),
		Cols:     le.Uint16(b[descCols:]),
		SpadSize: le.Uint32(b[descSpadSize:]),
		AccSize:  le.Uint32(b[descAccSize:]),
		Bindings: le.Uint16(b[descBindings:]),
		Features: le.Uint64(b[descFeatures:]),
	}
	bad := func(off uint64, field, format string, args ...any) (Descriptor, *Violation) {
		return Descriptor{}, badDescriptor(BadProgram, off, field, format, args...)
	}
	if got := b[descMagic : descMagic+4]; string(got) != magic {
		return bad(descMagic, "magic", "is % x; a program starts with % x", got, magic)
	}
	if v := le.Uint16(b[descMajor:]); v != Major {
		return bad(descMajor, "isa_major", "is %d; only %d is known", v, Major)
	}
	if d.Minor > minor {
		return bad(descMinor, "isa_minor", "is %d; %d.%d is the newest that is known", d.Minor, Major, minor)
	}
	if v := le.Uint32(b[descSize:]); v != DescriptorSize {
		return bad(descSize, "descriptor_size", "is %d; it must be %d", v, DescriptorSize)
	}
	if v := le.Uint32(b[descTextOffset:]); v != DescriptorSize {
		return bad(descTextOffset, "text_offset", "is %d; it must be %d", v, DescriptorSize)
	}
	if v := d.TextSize; v < Size || v > MaxTextSize || v%Size != 0 {
		return bad(descTextSize, "text_size", "is %d; it must be a multiple of %d from %d to %d", v, Size, Size, MaxTextSize)
	}
	if v := le.Uint16(b[descReserved0:]); v != 0 {
		return bad(descReserved0, "reserved", "is %#04x; it must be 0", v)
	}
	for _, v := range b[descReserved1:descReservedEnd] {
		if v != 0 {
			return bad(descReserved1, "reserved", "is % x; it must be 0", b[descReserved1:descReservedEnd])
		}
	}
	return d, nil
}

// Check compares d with a core and a launch (§5.3): array, local memory,
// features (CONFIG_MISMATCH), then the binding count (BAD_PROGRAM).
func (d Descriptor) Check(l Limits) *Violation {
	l.Features &= FeaturesOf(d.Minor)
	switch {
	case d.Rows != l.Rows:
		return badDescriptor(ConfigMismatch, descRows, "array_rows", "is %d; the array has %d", d.Rows, l.Rows)
	case d.Cols != l.Cols:
		return badDescriptor(ConfigMismatch, descCols, "array_cols", "is %d; the array has %d", d.Cols, l.Cols)
	case d.SpadSize > l.SpadSize:
		return badDescriptor(ConfigMismatch, descSpadSize, "spad_size", "is %d; the core has %d", d.SpadSize, l.SpadSize)
	case d.AccSize > l.AccSize:
		return badDescriptor(ConfigMismatch, descAccSize, "acc_size", "is %d; the core has %d", d.AccSize, l.AccSize)
	case d.Features&^l.Features != 0:
		return badDescriptor(ConfigMismatch, descFeatures, "features", "is %#x; the core has %#x", d.Features, l.Features)
	case d.Bindings > MaxBindings:
		return badDescriptor(BadProgram, descBindings, "binding_count", "is %d; the most is %d", d.Bindings, MaxBindings)
	case int(d.Bindings) > l.Bindings:
		return badDescriptor(BadProgram, descBindings, "binding_count", "is %d; the launch has %d", d.Bindings, l.Bindings)
	}
	return nil
}

// CheckArguments says whether a launch of d's program may have arguments (§4.9): BAD_PROGRAM.
func (d Descriptor) CheckArguments() *Violation {
	if d.Features&FeatureArguments == 0 {
		return badDescriptor(BadProgram, descFeatures, "features", "is %#x, without ARGUMENTS; the launch has some", d.Features)
	}
	return nil
}

// CheckText compares the text with its size and CRC in d (BAD_PROGRAM).
func (d Descriptor) CheckText(text []byte) *Violation {
	if len(text) != int(d.TextSize) {
		return badDescriptor(BadProgram, descTextSize, "text_size", "is %d; the text has %d bytes", d.TextSize, len(text))
	}
	if crc := crc32.ChecksumIEEE(text); crc != d.TextCRC {
		return badDescriptor(BadProgram, descTextCRC, "text_crc32", "is %#08x; the text has %#08x", d.TextCRC, crc)
	}
	return nil
}

// Limits returns what d's own instructions must keep to, at its start.
func (d Descriptor) Limits() Limits {
	return Limits{
		Rows: d.Rows, Cols: d.Cols, SpadSize: d.SpadSize, AccSize: d.AccSize,
		Bindings: int(d.Bindings), Features: d.Features, Setup: initialSetup,
	}
}

// Program is a descriptor and the text it describes.
type Program struct {
	Descriptor
	Text  []byte // instructions of Size bytes
	Debug *Debug // nil if nothing is known; not part of the image

	// Args are what the registers begin with if the program names ARGUMENTS (§5.6.13), nil if that is not known; not part of the
	// image.
	Args *[Arguments]int32
}

// Open reports whether what p does depends on arguments that are not known.
func (p *Program) Open() bool { return p.Features&FeatureArguments != 0 && p.Args == nil }

// Registers returns what s0 to s3 begin with; arguments that are not known are 0, as those of a launch without.
func (p *Program) Registers() [Arguments]int32 {
	if p.Features&FeatureArguments == 0 || p.Args == nil {
		return [Arguments]int32{}
	}
	return *p.Args
}

// Walker returns a Walker before the first instruction of p, which Scan accepts, with its HALT at index halt.
func (p *Program) Walker(halt int) Walker { return NewWalker(p.Text, halt, p.Registers()) }

// Image returns the program as it is in memory (§5.3). It sets TextSize and
// TextCRC from Text.
func (p *Program) Image() []byte {
	p.TextSize, p.TextCRC = uint32(len(p.Text)), crc32.ChecksumIEEE(p.Text)
	d := p.Encode()
	return append(d[:], p.Text...)
}

// ParseImage reads a program image. The text is a part of b, not a copy.
// Its instructions are not checked. The error is a *Violation.
func ParseImage(b []byte) (*Program, error) {
	if len(b) < DescriptorSize {
		return nil, badDescriptor(BadProgram, descMagic, "image", "has %d bytes; a descriptor has %d", len(b), DescriptorSize)
	}
	d, v := ParseDescriptor((*[DescriptorSize]byte)(b), Minor)
	if v == nil {
		v = d.CheckText(b[DescriptorSize:])
	}
	if v != nil {
		return nil, v
	}
	return &Program{Descriptor: d, Text: b[DescriptorSize:]}, nil
}
