// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"npuemu/compiler/ir"
	"npuemu/core/isa"
)

// Names of sections (§14.2).
const (
	secDesc     = ".npu.desc"
	secText     = ".text"
	secNote     = ".note.npu"
	secConst    = ".npu.const"
	secManifest = ".npu.model"
	secHosts    = ".npu.hosts"
)

// maxPrograms bounds the segments of a file: one for each node would be a large model.
const maxPrograms = 4096

func printed(g *ir.Graph) ([]byte, error) {
	var b bytes.Buffer
	if err := g.Print(&b, false); err != nil {
		return nil, fmt.Errorf("model: %w", err)
	}
	return b.Bytes(), nil
}

// section is one of the file to be written.
type section struct {
	elf.Section64
	name    string
	content []byte
}

// writeELF lays out header, program headers, contents at multiples of 64, section names and
// section headers. Files before format 1.2 have no sums.
func writeELF(programs []*isa.Program, constants, manifest, hosts []byte, summed bool) []byte {
	le := binary.LittleEndian
	sections := []section{{}}
	addr := uint64(0)
	var segments []elf.Prog64
	for i, p := range programs {
		image := p.Image()
		suffix := ""
		if i > 0 {
			suffix = fmt.Sprintf(".%d", i)
		}
		sections = append(sections,
			section{elf.Section64{Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC), Addr: addr, Addralign: 64}, secDesc + suffix, image[:isa.DescriptorSize]},
			section{elf.Section64{Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_ALLOC | elf.SHF_EXECINSTR), Addr: addr + isa.DescriptorSize, Addralign: 32}, secText + suffix, image[isa.DescriptorSize:]})
		segments = append(segments, elf.Prog64{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: addr, Paddr: addr,
			Filesz: uint64(len(image)), Memsz: uint64(len(image)), Align: 64,
		})
		addr = (addr + uint64(len(image)) + 63) &^ 63
	}
	if len(programs) > 0 {
		note := le.AppendUint32(nil, 4)
		note = le.AppendUint32(note, isa.DescriptorSize)
		note = le.AppendUint32(note, 1)
		note = append(note, "NPU\x00"...)
		note = append(note, sections[1].content...)
		sections = append(sections, section{elf.Section64{Type: uint32(elf.SHT_NOTE), Addralign: 4}, secNote, note})
		segments = append(segments, elf.Prog64{Type: uint32(elf.PT_NOTE), Flags: uint32(elf.PF_R), Filesz: uint64(len(note)), Align: 4})
	}
	for _, s := range []struct {
		name    string
		content []byte
	}{{secConst, constants}, {secManifest, manifest}, {secHosts, hosts}} {
		if len(s.content) > 0 {
			sections = append(sections, section{elf.Section64{Type: uint32(elf.SHT_PROGBITS), Addralign: 64}, s.name, s.content})
		}
	}
	const sectionNames = ".shstrtab"
	own := len(sections)
	if summed {
		length := sumLength + len(restName) + sumLength + len(sectionNames)
		for _, s := range sections[1:] {
			length += sumLength + len(s.name)
		}
		sections = append(sections, section{elf.Section64{Type: uint32(elf.SHT_PROGBITS), Addralign: 64}, secSums, make([]byte, length)})
	}
	names := []byte{0}
	for i := range sections[1:] {
		s := &sections[i+1]
		s.Section64.Name = uint32(len(names))
		names = append(append(names, s.name...), 0)
	}
	last := section{elf.Section64{Type: uint32(elf.SHT_STRTAB), Addralign: 1, Name: uint32(len(names))}, sectionNames, nil}
	last.content = append(append(names, last.name...), 0)
	sections = append(sections, last)

	const header, progHeader, sectHeader = 64, 56, 64
	off := uint64(header + progHeader*len(segments))
	for i := range sections[1:] {
		s := &sections[i+1]
		if s.name != secText && !strings.HasPrefix(s.name, secText+".") { // a text follows its descriptor
			off = (off + 63) &^ 63
		}
		s.Off, s.Size = off, uint64(len(s.content))
		off += s.Size
	}
	off = (off + 7) &^ 7
	for i := range segments {
		if elf.ProgType(segments[i].Type) == elf.PT_LOAD {
			segments[i].Off = sections[1+2*i].Off
		} else {
			segments[i].Off = sections[1+2*len(programs)].Off
		}
	}
	var out bytes.Buffer
	out.Grow(int(off) + sectHeader*len(sections))
	put := func(v any) {
		if err := binary.Write(&out, le, v); err != nil { // a bytes.Buffer does not fail
			panic("model: BUG: " + err.Error())
		}
	}
	h := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
		Type:  uint16(elf.ET_EXEC), Machine: uint16(isa.Machine), Version: uint32(elf.EV_CURRENT), Shoff: off,
		Ehsize: header, Phentsize: progHeader, Phnum: uint16(len(segments)), Shentsize: sectHeader, Shnum: uint16(len(sections)), Shstrndx: uint16(len(sections) - 1),
	}
	if len(segments) > 0 {
		h.Phoff, h.Entry = header, isa.DescriptorSize
	}
	put(h)
	for _, s := range segments {
		put(s)
	}
	for _, s := range sections[1:] {
		out.Write(make([]byte, s.Off-uint64(out.Len())))
		out.Write(s.content)
	}
	out.Write(make([]byte, off-uint64(out.Len())))
	for _, s := range sections {
		put(s.Section64)
	}
	b := out.Bytes()
	if summed {
		var extents []extent
		for _, s := range sections[1:] {
			extents = append(extents, extent{s.name, s.Off, s.Size})
		}
		l, err := sums(bytes.NewReader(b), uint64(len(b)), extents)
		if err != nil || len(l) != len(sections[own].content) {
			panic(fmt.Sprintf("model: BUG: sums of %d bytes for %d: %v", len(l), len(sections[own].content), err))
		}
		copy(b[sections[own].Off:], l)
	}
	return b
}

// contents is what readELF finds.
type contents struct {
	images              [][]byte
	constants, manifest []byte
	hosts               []string
	summed              bool // there are sums, which are right
}

// readELF takes a file of size bytes apart.
func readELF(r io.ReaderAt, size int64) (*contents, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("read ELF: %w; the file is cut, damaged or no compiled model: compile the model again", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB || f.Type != elf.ET_EXEC || f.Machine != isa.Machine {
		return nil, fmt.Errorf("read ELF: %v %v %v machine %#x is not of an NPU (§5.3.1): the file is damaged or no compiled model: compile the model again", f.Class, f.Data, f.Type, uint16(f.Machine))
	}
	c := &contents{}
	if c.summed, err = checkSums(r, uint64(size), f); err != nil {
		return nil, err
	}
	content := func(name string, limit uint64) ([]byte, error) {
		s := f.Section(name)
		if s == nil {
			return nil, nil
		}
		if s.Type != elf.SHT_PROGBITS || s.Flags&elf.SHF_COMPRESSED != 0 || s.FileSize > limit || s.Size != s.FileSize || s.Offset > uint64(size) || s.FileSize > uint64(size)-s.Offset {
			return nil, fmt.Errorf("section %s of %d bytes at %d is not wholly in the file (§14.2): it is cut or damaged: compile the model again", name, s.Size, s.Offset)
		}
		return s.Data()
	}
	if c.manifest, err = content(secManifest, maxManifest); err != nil {
		return nil, err
	}
	if c.manifest == nil {
		return nil, ErrNoModel
	}
	if c.constants, err = content(secConst, uint64(size)); err != nil {
		return nil, err
	}
	hosts, err := content(secHosts, uint64(size))
	if err != nil {
		return nil, err
	}
	for len(hosts) > 0 {
		text, rest, ok := bytes.Cut(hosts, []byte{0})
		if !ok {
			return nil, fmt.Errorf("section %s does not end with a zero (§14.2): the file is damaged: compile the model again", secHosts)
		}
		c.hosts, hosts = append(c.hosts, string(text)), rest
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if p.Filesz != p.Memsz || p.Filesz > isa.DescriptorSize+isa.MaxTextSize || p.Off > uint64(size) || p.Filesz > uint64(size)-p.Off || len(c.images) == maxPrograms {
			return nil, fmt.Errorf("segment of %d bytes at %d: a program has up to %d, all in the file (§14.2): it is cut or damaged: compile the model again", p.Memsz, p.Off, isa.DescriptorSize+isa.MaxTextSize)
		}
		b := make([]byte, p.Filesz)
		if _, err := p.ReadAt(b, 0); err != nil {
			return nil, fmt.Errorf("read ELF: %w; the file is cut, damaged or no compiled model: compile the model again", err)
		}
		c.images = append(c.images, b)
	}
	return c, nil
}
