// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Fields of an x86 kernel image (Linux, Documentation/arch/x86/boot.rst).
const (
	setupSects    = 0x1f1 // sectors of the setup code behind the first; 0 means 4
	setupMagic    = 0x202 // "HdrS"
	payloadOffset = 0x248 // from the end of the setup code
	payloadLength = 0x24c
	setupEnd      = 0x250
)

const zstdMagic = 0xfd2fb528

// zstdPayload returns the compressed kernel in an image and the size that it has unpacked, which the kernel's
// build appends to it. Without one, or with another compression, ok is false.
func zstdPayload(image []byte) (payload []byte, size uint32, ok bool) {
	le := binary.LittleEndian
	if len(image) < setupEnd || string(image[setupMagic:setupMagic+4]) != "HdrS" {
		return nil, 0, false
	}
	sects := uint64(image[setupSects])
	if sects == 0 {
		sects = 4
	}
	off := (sects+1)*512 + uint64(le.Uint32(image[payloadOffset:]))
	n := uint64(le.Uint32(image[payloadLength:]))
	if off > uint64(len(image)) || n > uint64(len(image))-off || n < 8 {
		return nil, 0, false
	}
	payload = image[off : off+n]
	if le.Uint32(payload) != zstdMagic {
		return nil, 0, false
	}
	return payload[:n-4], le.Uint32(payload[n-4:]), true
}

// asDebugSection wraps a zstd stream as the compressed debug section of an object file: the one form in which a
// program of the tool root, objcopy, unpacks zstd.
func asDebugSection(stream []byte, size uint32) []byte {
	const names = "\x00.debug_kernel\x00.shstrtab\x00"
	const headerSize, chdrSize = 64, 24
	dataSize := uint64(chdrSize + len(stream))
	var b bytes.Buffer
	for _, v := range []any{
		elf.Header64{
			Ident: [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: uint32(elf.EV_CURRENT), Ehsize: headerSize,
			Shoff: headerSize + dataSize + uint64(len(names)), Shentsize: 64, Shnum: 3, Shstrndx: 2,
		},
		elf.Chdr64{Type: uint32(elf.COMPRESS_ZSTD), Size: uint64(size), Addralign: 1},
		stream, []byte(names),
		elf.Section64{},
		elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Flags: uint64(elf.SHF_COMPRESSED), Off: headerSize, Size: dataSize, Addralign: 1},
		elf.Section64{Name: 15, Type: uint32(elf.SHT_STRTAB), Off: headerSize + dataSize, Size: uint64(len(names)), Addralign: 1},
	} {
		_ = binary.Write(&b, binary.LittleEndian, v) // to memory, of fixed sizes
	}
	return b.Bytes()
}

// unpacked returns the kernel of an image as an ELF file, which QEMU starts by its PVH entry. The guest then need
// not unpack it, which under TCG is a good part of a boot. It is kept in the cache. An image that cannot be unpacked
// here, because it is not compressed by zstd, is returned as it is.
func (e *Env) unpacked(ctx context.Context, image string) (string, error) {
	if e.Arch != AMD64 {
		return image, nil
	}
	info, err := os.Stat(image)
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	dir := filepath.Join(e.Cache, "vmlinux")
	path := filepath.Join(dir, fmt.Sprintf("%s-%d-%d", filepath.Base(filepath.Dir(image))+"-"+filepath.Base(image), info.Size(), info.ModTime().Unix()))
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	text, err := os.ReadFile(image)
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	payload, size, ok := zstdPayload(text)
	if !ok {
		return image, nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	work, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	defer os.RemoveAll(work)
	object, plain := filepath.Join(work, "object"), filepath.Join(work, "vmlinux")
	if err := os.WriteFile(object, asDebugSection(payload, size), 0o666); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	out, err := exec.CommandContext(ctx, e.root("lib64/ld-linux-x86-64.so.2"), "--library-path", e.root("usr/lib/x86_64-linux-gnu"),
		e.root("usr/bin/x86_64-linux-gnu-objcopy"), "--decompress-debug-sections", "--dump-section", ".debug_kernel="+plain,
		object, filepath.Join(work, "rest")).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("guest: objcopy cannot unpack %s: %w: %s", image, err, out)
	}
	if !hasPVHEntry(plain) {
		return image, nil
	}
	if err := os.Rename(plain, path); err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	return path, nil
}

// hasPVHEntry reports whether a kernel has the note that names its 32-bit entry point.
func hasPVHEntry(path string) bool {
	const phys32Entry = 18
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		note := make([]byte, min(p.Filesz, 1<<20))
		if _, err := p.ReadAt(note, 0); err != nil {
			return false
		}
		le := binary.LittleEndian
		for len(note) >= 12 {
			name, desc, kind := uint64(le.Uint32(note)), uint64(le.Uint32(note[4:])), le.Uint32(note[8:])
			size := 12 + (name+3)&^3 + (desc+3)&^3
			if size > uint64(len(note)) {
				break
			}
			if kind == phys32Entry && string(note[12:12+name]) == "Xen\x00" {
				return true
			}
			note = note[size:]
		}
	}
	return false
}
