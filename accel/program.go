// SPDX-License-Identifier: Apache-2.0

package accel

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
)

const elfMachine = 0x4e50 // §5.3.1

// maxProgram is the descriptor and the longest text (§5.3).
const maxProgram = 64 + 16<<20

// ReadProgram returns the program in an ELF file (§5.3.1), as it goes into a buffer for Launch.
func ReadProgram(r io.ReaderAt) ([]byte, error) {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("accel: read program: %w", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Data != elf.ELFDATA2LSB || f.Type != elf.ET_EXEC || f.Machine != elfMachine {
		return nil, fmt.Errorf("accel: read program: %v %v %v, machine %#x: not an executable for the NPU", f.Class, f.Data, f.Type, uint16(f.Machine))
	}
	var program []byte
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if program != nil {
			return nil, errors.New("accel: read program: more than one PT_LOAD segment")
		}
		if p.Filesz != p.Memsz || p.Filesz == 0 || p.Filesz > maxProgram {
			return nil, fmt.Errorf("accel: read program: segment of %d bytes, %d of them in the file; want up to %d, all in the file", p.Memsz, p.Filesz, maxProgram)
		}
		program = make([]byte, p.Filesz)
		if _, err := p.ReadAt(program, 0); err != nil {
			return nil, fmt.Errorf("accel: read program: %w", err)
		}
	}
	if program == nil {
		return nil, errors.New("accel: read program: no PT_LOAD segment")
	}
	return program, nil
}
