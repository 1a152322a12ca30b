// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
)

// Debug says where instructions come from. The device does not see it (§5.3.1).
type Debug struct {
	Files  []string
	Lines  []Line // of instruction i; none if there are fewer
	Labels []Label
}

// Line is a place in assembler text.
type Line struct {
	File   uint32 // index in Files
	Line   uint32 // from 1
	Column uint32 // from 1, in bytes, of the first word; 0 if it is not known
}

// Label names an instruction.
type Label struct {
	Name  string
	Index int
}

// add notes where the next instruction comes from.
func (d *Debug) add(file string, line, column int) {
	n := slices.Index(d.Files, file)
	if n < 0 {
		n = len(d.Files)
		d.Files = append(d.Files, file)
	}
	d.Lines = append(d.Lines, Line{uint32(n), uint32(line), uint32(column)})
}

// At returns file and line of instruction index; false if that is not known.
func (d *Debug) At(index int) (file string, line int, ok bool) {
	if d == nil || index < 0 || index >= len(d.Lines) || int(d.Lines[index].File) >= len(d.Files) {
		return "", 0, false
	}
	l := d.Lines[index]
	return d.Files[l.File], int(l.Line), true
}

// Column returns the column of instruction index, or 0 if it is not known.
func (d *Debug) Column(index int) int {
	if d == nil || index < 0 || index >= len(d.Lines) {
		return 0
	}
	return int(d.Lines[index].Column)
}

// The sections that have lines and files, and columns (§5.3.1).
const (
	linesName   = ".npu.lines"
	columnsName = ".npu.columns"
)

// encode returns the content of that section.
func (d *Debug) encode() []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, uint32(len(d.Files)))
	b = le.AppendUint32(b, uint32(len(d.Lines)))
	for _, l := range d.Lines {
		b = le.AppendUint32(le.AppendUint32(b, l.File), l.Line)
	}
	for _, f := range d.Files {
		b = append(append(b, f...), 0)
	}
	return b
}

// columns returns the content of the section of columns.
func (d *Debug) columns() []byte {
	var b []byte
	for _, l := range d.Lines {
		b = binary.LittleEndian.AppendUint32(b, l.Column)
	}
	return b
}

// readColumns reads that section.
func (d *Debug) readColumns(s *elf.Section) error {
	if s.FileSize != uint64(4*len(d.Lines)) {
		return fmt.Errorf("isa: read ELF: %s: has %d bytes for %d lines (§5.3.1)", columnsName, s.FileSize, len(d.Lines))
	}
	b, err := io.ReadAll(s.Open())
	if err != nil {
		return fmt.Errorf("isa: read ELF: %s: %w (§5.3.1)", columnsName, err)
	}
	if len(b) != 4*len(d.Lines) {
		return fmt.Errorf("isa: read ELF: %s: ends after %d bytes (§5.3.1)", columnsName, len(b))
	}
	for i := range d.Lines {
		d.Lines[i].Column = binary.LittleEndian.Uint32(b[4*i:])
	}
	return nil
}

// readDebug reads the section that has lines, of a program of so many
// instructions.
func readDebug(s *elf.Section, instructions int) (*Debug, error) {
	bad := func(what string, args ...any) (*Debug, error) {
		return nil, fmt.Errorf("isa: read ELF: %s: "+what+" (§5.3.1)", append([]any{linesName}, args...)...)
	}
	const limit = 8 + 8*MaxTextSize/Size + 1<<20
	if s.FileSize > limit {
		return bad("has %d bytes; the most is %d", s.FileSize, limit)
	}
	b, err := io.ReadAll(s.Open())
	if err != nil {
		return bad("%w", err)
	}
	if len(b) < 8 {
		return bad("has %d bytes; it has at least 8", len(b))
	}
	le := binary.LittleEndian
	files, lines := le.Uint32(b), le.Uint32(b[4:])
	if uint64(lines) > uint64(instructions) || uint64(len(b)-8) < 8*uint64(lines) {
		return bad("has %d lines in %d bytes; the program has %d instructions", lines, len(b), instructions)
	}
	d := &Debug{}
	for i := range int(lines) {
		l := Line{File: le.Uint32(b[8+8*i:]), Line: le.Uint32(b[12+8*i:])}
		if l.File >= files {
			return bad("line %d is of file %d; there are %d", i, l.File, files)
		}
		d.Lines = append(d.Lines, l)
	}
	for b = b[8+8*lines:]; len(b) > 0; {
		file, rest, ok := bytes.Cut(b, []byte{0})
		if !ok {
			return bad("the last file name has no end")
		}
		d.Files, b = append(d.Files, string(file)), rest
	}
	if uint64(len(d.Files)) != uint64(files) {
		return bad("has %d file names; it says %d", len(d.Files), files)
	}
	return d, nil
}

// symbols returns the labels as a symbol table, all of them local, and its names.
func (d *Debug) symbols(section uint16) (table, names []byte) {
	var b bytes.Buffer
	put := func(s elf.Sym64) {
		// A bytes.Buffer does not fail and a Sym64 has a fixed size.
		if err := binary.Write(&b, binary.LittleEndian, s); err != nil {
			panic("isa: BUG: " + err.Error())
		}
	}
	put(elf.Sym64{})
	names = []byte{0}
	for _, l := range d.Labels {
		put(elf.Sym64{Name: uint32(len(names)), Info: elf.ST_INFO(elf.STB_LOCAL, elf.STT_NOTYPE), Shndx: section, Value: DescriptorSize + Size*uint64(l.Index)})
		names = append(append(names, l.Name...), 0)
	}
	return b.Bytes(), names
}
