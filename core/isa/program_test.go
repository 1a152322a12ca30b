// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// testProgram halts at once.
func testProgram() *Program {
	return &Program{
		Descriptor: Descriptor{Rows: 16, Cols: 24, SpadSize: 4096, AccSize: 2048, Bindings: 2},
		Text:       Text(Halt{}),
	}
}

func TestImage(t *testing.T) {
	// The CRC is that of zlib over 01 and 31 zeroes.
	want := strings.ReplaceAll(""+
		"4e505550 0100 0000 40000000 40000000 20000000 0750d0e8 1000 1800 00100000 00080000 0200 0000 0000000000000000"+
		"00000000000000000000000000000000"+
		"0100000000000000000000000000000000000000000000000000000000000000", " ", "")
	p := testProgram()
	image := p.Image()
	if got := hex.EncodeToString(image); got != want {
		t.Errorf("Image:\n got %s\nwant %s", got, want)
	}
	got, err := ParseImage(image)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, got); diff != "" {
		t.Errorf("ParseImage (-want +got):\n%s", diff)
	}
}

// Each row changes bytes of a good image, and names the field that fails.
func TestDescriptorRules(t *testing.T) {
	le := binary.LittleEndian
	tests := []struct {
		name string
		edit func(b []byte)
		rule Rule // 0: no violation
		info uint64
	}{
		{"good", func([]byte) {}, 0, 0},
		{"magic", func(b []byte) { b[3] = 'Q' }, BadProgram, 0x00},
		{"isa_major 0", func(b []byte) { b[4] = 0 }, BadProgram, 0x04},
		{"isa_major 2", func(b []byte) { b[4] = 2 }, BadProgram, 0x04},
		{"isa_minor 1", func(b []byte) { b[6] = 1 }, 0, 0},
		{"isa_minor 2", func(b []byte) { b[6] = 2 }, BadProgram, 0x06},
		{"descriptor_size", func(b []byte) { b[8] = 128 }, BadProgram, 0x08},
		{"text_offset", func(b []byte) { b[0xc] = 0 }, BadProgram, 0x0c},
		{"text_size 0", func(b []byte) { le.PutUint32(b[0x10:], 0) }, BadProgram, 0x10},
		{"text_size odd", func(b []byte) { le.PutUint32(b[0x10:], 33) }, BadProgram, 0x10},
		{"text_size 16 MiB + 32", func(b []byte) { le.PutUint32(b[0x10:], 16<<20+32) }, BadProgram, 0x10},
		{"text shorter than text_size", func(b []byte) { le.PutUint32(b[0x10:], 64) }, BadProgram, 0x10},
		{"text_crc32", func(b []byte) { b[0x14]++ }, BadProgram, 0x14},
		{"text", func(b []byte) { b[0x41] = 1 }, BadProgram, 0x14},
		{"array_rows", func(b []byte) { b[0x18] = 8 }, ConfigMismatch, 0x18},
		{"array_cols", func(b []byte) { b[0x1a] = 32 }, ConfigMismatch, 0x1a},
		{"spad_size", func(b []byte) { le.PutUint32(b[0x1c:], 4097) }, ConfigMismatch, 0x1c},
		{"spad_size smaller", func(b []byte) { le.PutUint32(b[0x1c:], 0) }, 0, 0},
		{"acc_size", func(b []byte) { le.PutUint32(b[0x20:], 2049) }, ConfigMismatch, 0x20},
		{"binding_count more than the launch", func(b []byte) { b[0x24] = 3 }, BadProgram, 0x24},
		{"binding_count 65", func(b []byte) { b[0x24] = 65 }, BadProgram, 0x24},
		{"reserved 0x26", func(b []byte) { b[0x27] = 1 }, BadProgram, 0x26},
		{"features", func(b []byte) { b[0x2f] = 0x80 }, ConfigMismatch, 0x28},
		{"features that the core has", func(b []byte) { b[6], b[0x28] = 1, FeatureGEMM }, 0, 0},
		{"features in ISA 1.0", func(b []byte) { b[0x28] = FeatureGEMM }, ConfigMismatch, 0x28},
		{"features of another kind", func(b []byte) { b[6], b[0x28] = 1, 1 }, ConfigMismatch, 0x28},
		{"reserved 0x30", func(b []byte) { b[0x3f] = 1 }, BadProgram, 0x30},

		{"magic before version", func(b []byte) { b[0], b[4] = 0, 0 }, BadProgram, 0x00},
		{"reserved before array_rows", func(b []byte) { b[0x30], b[0x18] = 1, 0 }, BadProgram, 0x30},
		{"features before binding_count", func(b []byte) { b[0x28], b[0x24] = 1, 65 }, ConfigMismatch, 0x28},
		{"binding_count before text_crc32", func(b []byte) { b[0x14]++; b[0x24] = 65 }, BadProgram, 0x24},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := testProgram().Image()
			tt.edit(b)
			d, v := ParseDescriptor((*[DescriptorSize]byte)(b), 1)
			if v == nil {
				v = d.Check(testLimits)
			}
			if v == nil {
				v = d.CheckText(b[DescriptorSize:])
			}
			switch {
			case tt.rule == 0 && v != nil:
				t.Errorf("violation %v, want none", v)
			case tt.rule != 0 && (v == nil || v.Rule != tt.rule || v.Info != tt.info):
				t.Errorf("violation %+v, want %v with info %#x", v, tt.rule, tt.info)
			}
		})
	}
}

func TestParseImageShort(t *testing.T) {
	var v *Violation
	if _, err := ParseImage(testProgram().Image()[:63]); !errors.As(err, &v) || v.Rule != BadProgram {
		t.Errorf("ParseImage of 63 bytes: %v, want BAD_PROGRAM", err)
	}
}

func TestELF(t *testing.T) {
	p := testProgram()
	file := p.ELF()
	got, err := ReadELF(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(p, got); diff != "" {
		t.Errorf("ReadELF (-want +got):\n%s", diff)
	}

	edits := []struct {
		name string
		edit func(b []byte)
		want string
	}{
		{"not ELF", func(b []byte) { b[0] = 0 }, "bad magic"},
		{"32-bit", func(b []byte) { b[4] = 1 }, "isa: read ELF"},
		{"relocatable", func(b []byte) { b[16] = 1 }, "not an NPU program"},
		{"machine", func(b []byte) { b[18] = 0x3e }, "not an NPU program"},
		{"no PT_LOAD", func(b []byte) { b[64] = 0x7 }, "no PT_LOAD"},
		{"two PT_LOAD", func(b []byte) { b[64+56] = 1 }, "more than one PT_LOAD"},
		{"PT_LOAD too large", func(b []byte) { b[64+32+7] = 1 }, "the most is"},
		{"text", func(b []byte) { b[imageOffset+64] = 2 }, "text_crc32"},
		{"note", func(b []byte) { b[imageOffset+96+16] = 0 }, "note"},
	}
	for _, tt := range edits {
		t.Run(tt.name, func(t *testing.T) {
			b := bytes.Clone(file)
			tt.edit(b)
			if _, err := ReadELF(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("ReadELF: %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func FuzzReadELF(f *testing.F) {
	f.Add(testProgram().ELF())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ReadELF(bytes.NewReader(b))
		if err == nil && len(p.Text)%Size != 0 {
			t.Errorf("text of %d bytes", len(p.Text))
		}
	})
}
