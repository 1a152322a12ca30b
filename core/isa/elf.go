// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Machine is e_machine of a program file; the number is not registered (§5.3.1).
const Machine elf.Machine = 0x4e50

// File layout: ELF header, two program headers, then at a multiple of 64 the
// image, the note, the section names and the section headers.
const (
	elfHeaderSize = 64
	elfProgSize   = 56
	elfSectSize   = 64
	imageOffset   = (elfHeaderSize + 2*elfProgSize + 63) &^ 63
	noteName      = "NPU\x00"
	noteType      = 1
	noteHeader    = 12
	noteSize      = noteHeader + len(noteName) + DescriptorSize
)

// elfSections are the section names; offsets in this string go into headers.
const elfSections = "\x00.npu.desc\x00.text\x00.note.npu\x00.shstrtab\x00"

// ELF returns the program as an ELF64 file (§5.3.1).
func (p *Program) ELF() []byte {
	image := p.Image()
	size := uint64(len(image))
	note := imageOffset + size
	names := note + uint64(noteSize)
	sections := (names + uint64(len(elfSections)) + 7) &^ 7

	var out bytes.Buffer
	put := func(v any) {
		// A bytes.Buffer does not fail and all values have a fixed size.
		if err := binary.Write(&out, binary.LittleEndian, v); err != nil {
			panic("isa: BUG: " + err.Error())
		}
	}
	pad := func(to uint64) { out.Write(make([]byte, to-uint64(out.Len()))) }
	name := func(s string) uint32 { return uint32(bytes.Index([]byte(elfSections), []byte(s+"\x00"))) }

	put(elf.Header64{
		Ident: [elf.EI_NIDENT]byte{
			0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT),
		},
		Type: uint16(elf.ET_EXEC), Machine: uint16(Machine), Version: uint32(elf.EV_CURRENT),
		Entry: DescriptorSize, // the first instruction
		Phoff: elfHeaderSize, Shoff: sections,
		Ehsize: elfHeaderSize, Phentsize: elfProgSize, Phnum: 2,
		Shentsize: elfSectSize, Shnum: 5, Shstrndx: 4,
	})
	put(elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Off: imageOffset, Filesz: size, Memsz: size, Align: DescriptorSize,
	})
	put(elf.Prog64{
		Type: uint32(elf.PT_NOTE), Flags: uint32(elf.PF_R),
		Off: note, Filesz: uint64(noteSize), Align: 4,
	})
	pad(imageOffset)
	out.Write(image)
	put([]uint32{uint32(len(noteName)), DescriptorSize, noteType})
	out.WriteString(noteName)
	out.Write(image[:DescriptorSize])
	out.WriteString(elfSections)
	pad(sections)
	put(elf.Section64{})
	put(elf.Section64{
		Name: name(".npu.desc"), Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC),
		Off: imageOffset, Size: DescriptorSize, Addralign: DescriptorSize,
	})
	put(elf.Section64{
		Name: name(".text"), Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR),
		Addr: DescriptorSize, Off: imageOffset + DescriptorSize, Size: size - DescriptorSize, Addralign: Size,
	})
	put(elf.Section64{
		Name: name(".note.npu"), Type: uint32(elf.SHT_NOTE), Off: note, Size: uint64(noteSize), Addralign: 4,
	})
	put(elf.Section64{
		Name: name(".shstrtab"), Type: uint32(elf.SHT_STRTAB), Off: names, Size: uint64(len(elfSections)), Addralign: 1,
	})
	return out.Bytes()
}

// ReadELF reads a program file (§5.3.1). Like a loader it needs only the
// PT_LOAD segment; a note that is there must agree with it. Instructions are
// not checked.
func ReadELF(r io.ReaderAt) (*Program, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("isa: read ELF: %w", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB || f.Type != elf.ET_EXEC || f.Machine != Machine {
		return nil, fmt.Errorf("isa: read ELF: %v %v %v machine %#x is not an NPU program (§5.3.1)", f.Class, f.Data, f.Type, uint16(f.Machine))
	}
	var image, note []byte
	for _, p := range f.Progs {
		switch p.Type {
		case elf.PT_LOAD:
			if image != nil {
				return nil, errors.New("isa: read ELF: more than one PT_LOAD segment (§5.3.1)")
			}
			if image, err = readSegment(p, DescriptorSize+MaxTextSize); err != nil {
				return nil, err
			}
		case elf.PT_NOTE:
			if note, err = readSegment(p, uint64(noteSize)); err != nil {
				return nil, err
			}
		}
	}
	if image == nil {
		return nil, errors.New("isa: read ELF: no PT_LOAD segment (§5.3.1)")
	}
	prog, err := ParseImage(image)
	if err != nil {
		return nil, err
	}
	if note != nil && (len(note) != noteSize || !bytes.Equal(note[noteSize-DescriptorSize:], image[:DescriptorSize])) {
		return nil, errors.New("isa: read ELF: the note's descriptor is not the image's (§5.3.1)")
	}
	return prog, nil
}

// readSegment returns the bytes of p in the file, at most limit.
func readSegment(p *elf.Prog, limit uint64) ([]byte, error) {
	if p.Filesz > limit || p.Memsz > limit {
		return nil, fmt.Errorf("isa: read ELF: %v segment has %d bytes; the most is %d", p.Type, max(p.Filesz, p.Memsz), limit)
	}
	b, err := io.ReadAll(p.Open())
	if err != nil {
		return nil, fmt.Errorf("isa: read ELF: %v segment: %w", p.Type, err)
	}
	return b, nil
}
