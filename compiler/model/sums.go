// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
)

// secSums has the sums of all bytes of the file but its own (§14.6).
const secSums = ".npu.sums"

// restName stands in secSums for what is in no section.
const restName = "-"

// sumLength is that of a line of secSums without its section's name.
const sumLength = 2*sha256.Size + 3

// extent is a part of the file that has a sum: a section, which has the name.
type extent struct {
	name      string
	off, size uint64
}

// sums returns the content of secSums: a line for each section in their order, and one for what is between them and around.
// sections lie in the file of size bytes, and secSums is one of them.
func sums(r io.ReaderAt, size uint64, sections []extent) ([]byte, error) {
	var out []byte
	line := func(name string, parts ...extent) error {
		h := sha256.New()
		for _, p := range parts {
			if _, err := io.Copy(h, io.NewSectionReader(r, int64(p.off), int64(p.size))); err != nil {
				return err
			}
		}
		out = append(append(hex.AppendEncode(out, h.Sum(nil)), "  "+name...), '\n')
		return nil
	}
	for _, s := range sections {
		if s.name == secSums {
			continue
		}
		if err := line(s.name, s); err != nil {
			return nil, err
		}
	}
	inOrder := slices.Clone(sections)
	slices.SortFunc(inOrder, func(a, b extent) int { return cmp.Compare(a.off, b.off) })
	var rest []extent
	at := uint64(0)
	for _, s := range append(inOrder, extent{off: size}) {
		if s.off < at { // each byte is read once, whatever a file says of itself
			return nil, fmt.Errorf("section %s begins at %d, where another one is (§14.2)", s.name, s.off)
		}
		if s.off > at {
			rest = append(rest, extent{off: at, size: s.off - at})
		}
		at = s.off + s.size
	}
	return out, line(restName, rest...)
}

// checkSums compares the file with its sums, if it has any.
func checkSums(r io.ReaderAt, size uint64, f *elf.File) (there bool, err error) {
	const damaged = "the file is damaged: compile the model again"
	var sections []extent
	var own *elf.Section
	for _, s := range f.Sections {
		if s.Type == elf.SHT_NULL || s.Type == elf.SHT_NOBITS || s.FileSize == 0 {
			continue
		}
		if s.Offset > size || s.FileSize > size-s.Offset {
			return true, fmt.Errorf("section %s of %d bytes at %d is not wholly in the file (§14.2): %s", s.Name, s.FileSize, s.Offset, damaged)
		}
		if s.Name == secSums {
			own = s
		}
		sections = append(sections, extent{s.Name, s.Offset, s.FileSize})
	}
	if own == nil {
		return false, nil
	}
	want := make([]byte, own.FileSize)
	if _, err := r.ReadAt(want, int64(own.Offset)); err != nil {
		return true, err
	}
	got, err := sums(r, size, sections)
	if err != nil {
		return true, fmt.Errorf("%w: %s", err, damaged)
	}
	if bytes.Equal(got, want) {
		return true, nil
	}
	is, says := bytes.Split(got, []byte{'\n'}), bytes.Split(want, []byte{'\n'})
	for i := range min(len(is), len(says)) {
		g, w := is[i], says[i]
		if bytes.Equal(g, w) {
			continue
		}
		if len(g) != len(w) || !bytes.Equal(g[sumLength-1:], w[sumLength-1:]) {
			break // other names
		}
		name := string(g[sumLength-1:])
		if name == restName {
			return true, fmt.Errorf("headers, or bytes between sections, do not have the SHA-256 that %s has (§14.6): %s", secSums, damaged)
		}
		return true, fmt.Errorf("section %s does not have the SHA-256 that %s has (§14.6): %s", name, secSums, damaged)
	}
	return true, fmt.Errorf("section %s does not name the file's sections (§14.6): %s", secSums, damaged)
}
