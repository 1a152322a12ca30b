// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

// image makes an x86 kernel image whose payload is p.
func image(sects byte, p []byte) []byte {
	n := int(sects)
	if n == 0 {
		n = 4
	}
	b := make([]byte, (n+1)*512+16)
	b[setupSects] = sects
	copy(b[setupMagic:], "HdrS")
	binary.LittleEndian.PutUint32(b[payloadOffset:], 16)
	binary.LittleEndian.PutUint32(b[payloadLength:], uint32(len(p)))
	return append(b, p...)
}

func TestZstdPayload(t *testing.T) {
	good := []byte("\x28\xb5\x2f\xfdstream\x39\x30\x00\x00")
	long := image(3, good)
	binary.LittleEndian.PutUint32(long[payloadLength:], 1<<31)
	far := image(3, good)
	binary.LittleEndian.PutUint32(far[payloadOffset:], 1<<32-1)
	old := image(3, good)
	old[setupMagic] = 'X'
	for _, tt := range []struct {
		name  string
		image []byte
		want  bool
	}{
		{"zstd", image(39, good), true},
		{"no number of sectors", image(0, good), true},
		{"gzip", image(3, []byte("\x1f\x8b\x08\x00stream\x39\x30\x00\x00")), false},
		{"too short for a size", image(3, good[:7]), false},
		{"payload past the end", long, false},
		{"payload behind the end", far, false},
		{"no setup header", old, false},
		{"cut off", image(3, good)[:setupEnd-1], false},
		{"empty", nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, size, ok := zstdPayload(tt.image)
			if ok != tt.want {
				t.Fatalf("found %t, want %t", ok, tt.want)
			}
			if ok && (!bytes.Equal(p, good[:len(good)-4]) || size != 12345) {
				t.Errorf("payload %q, size %d", p, size)
			}
		})
	}
}

// TestAsDebugSection: Go's own reader finds the section and the stream's frame in it. (Its decoder is not
// for the kernel: it knows no windows beyond 8 MiB.)
func TestAsDebugSection(t *testing.T) {
	stream := []byte("\x28\xb5\x2f\xfd\x20\x05\x29\x00\x00hello") // a frame of one raw block
	f, err := elf.NewFile(bytes.NewReader(asDebugSection(stream, 5)))
	if err != nil {
		t.Fatal(err)
	}
	got, err := f.Section(".debug_kernel").Data()
	if err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestHasPVHEntry(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no ELF"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{self, text, text + ".absent"} {
		if hasPVHEntry(path) {
			t.Errorf("%s has a PVH entry", path)
		}
	}
}

// TestUnpacked: the kernels of the tool root unpack to what QEMU starts directly, once.
func TestUnpacked(t *testing.T) {
	e := Require(t)
	for _, k := range e.Kernels() {
		path, err := e.unpacked(t.Context(), e.kernelImage(k))
		if err != nil {
			t.Fatal(err)
		}
		if !hasPVHEntry(path) {
			t.Errorf("%s: %s has no PVH entry", k, path)
		}
		again, err := e.unpacked(t.Context(), e.kernelImage(k))
		if err != nil || again != path {
			t.Errorf("second time %s, %v; want %s", again, err, path)
		}
	}
}
