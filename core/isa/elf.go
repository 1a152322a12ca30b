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
// image, the other sections and the section headers.
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

// section is a section of a program file, with what a header says of it.
type section struct {
	name  string
	elf   elf.Section64
	bytes []byte
}

// ELF returns the program as an ELF64 file (§5.3.1).
func (p *Program) ELF() []byte {
	image := p.Image()
	note := binary.LittleEndian.AppendUint32(nil, uint32(len(noteName)))
	note = binary.LittleEndian.AppendUint32(note, DescriptorSize)
	note = binary.LittleEndian.AppendUint32(note, noteType)
	note = append(append(note, noteName...), image[:DescriptorSize]...)
	sections := []section{
		{},
		{".npu.desc", elf.Section64{Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC), Addralign: DescriptorSize}, image[:DescriptorSize]},
		{".text", elf.Section64{
			Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR), Addr: DescriptorSize, Addralign: Size,
		}, image[DescriptorSize:]},
		{".note.npu", elf.Section64{Type: uint32(elf.SHT_NOTE), Addralign: 4}, note},
	}
	const text = 2 // index of .text
	if p.Debug != nil {
		symbols, names := p.Debug.symbols(text)
		n := uint32(len(sections))
		sections = append(
			sections,
			section{".symtab", elf.Section64{
				Type: uint32(elf.SHT_SYMTAB), Link: n + 1, Info: uint32(len(symbols) / elf.Sym64Size), Addralign: 8, Entsize: elf.Sym64Size,
			}, symbols},
			section{".strtab", elf.Section64{Type: uint32(elf.SHT_STRTAB), Addralign: 1}, names},
			section{linesName, elf.Section64{Type: uint32(elf.SHT_PROGBITS), Addralign: 4}, p.Debug.encode()},
			section{columnsName, elf.Section64{Type: uint32(elf.SHT_PROGBITS), Addralign: 4}, p.Debug.columns()},
		)
	}
	sections = append(sections, section{".shstrtab", elf.Section64{Type: uint32(elf.SHT_STRTAB), Addralign: 1}, nil})
	names := []byte{0}
	for i := range sections {
		if s := &sections[i]; s.name != "" {
			s.elf.Name = uint32(len(names))
			names = append(append(names, s.name...), 0)
		}
	}
	sections[len(sections)-1].bytes = names

	size := uint64(len(image))
	var out bytes.Buffer
	put := func(v any) {
		// A bytes.Buffer does not fail and all values have a fixed size.
		if err := binary.Write(&out, binary.LittleEndian, v); err != nil {
			panic("isa: BUG: " + err.Error())
		}
	}
	out.Write(make([]byte, imageOffset)) // headers, written when offsets are known
	for i := 1; i < len(sections); i++ {
		s := &sections[i]
		for s.elf.Addralign > 1 && uint64(out.Len())%s.elf.Addralign != 0 {
			out.WriteByte(0)
		}
		s.elf.Off, s.elf.Size = uint64(out.Len()), uint64(len(s.bytes))
		out.Write(s.bytes)
	}
	out.Write(make([]byte, -out.Len()&7))
	table := uint64(out.Len())
	for i := range sections {
		put(sections[i].elf)
	}
	file := out.Bytes()
	out = bytes.Buffer{}
	put(elf.Header64{
		Ident: [elf.EI_NIDENT]byte{
			0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT),
		},
		Type: uint16(elf.ET_EXEC), Machine: uint16(Machine), Version: uint32(elf.EV_CURRENT),
		Entry: DescriptorSize, // the first instruction
		Phoff: elfHeaderSize, Shoff: table,
		Ehsize: elfHeaderSize, Phentsize: elfProgSize, Phnum: 2,
		Shentsize: elfSectSize, Shnum: uint16(len(sections)), Shstrndx: uint16(len(sections) - 1),
	})
	put(elf.Prog64{
		Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X),
		Off: imageOffset, Filesz: size, Memsz: size, Align: DescriptorSize,
	})
	put(elf.Prog64{
		Type: uint32(elf.PT_NOTE), Flags: uint32(elf.PF_R),
		Off: sections[3].elf.Off, Filesz: uint64(len(note)), Align: 4,
	})
	copy(file, out.Bytes())
	return file
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
	if s := f.Section(linesName); s != nil {
		if prog.Debug, err = readDebug(s, len(prog.Text)/Size); err != nil {
			return nil, err
		}
		if s := f.Section(columnsName); s != nil {
			if err := prog.Debug.readColumns(s); err != nil {
				return nil, err
			}
		}
		symbols, err := f.Symbols()
		if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
			return nil, fmt.Errorf("isa: read ELF: symbols: %w", err)
		}
		for _, s := range symbols {
			if i := int64(s.Value-DescriptorSize) / Size; i >= 0 && i <= int64(len(prog.Text)/Size) {
				prog.Debug.Labels = append(prog.Debug.Labels, Label{s.Name, int(i)})
			}
		}
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
