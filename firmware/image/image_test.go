// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/mmio/npureg"
)

var testHeader = Header{
	HeaderMinor: 7, LoadAddress: 0x10000100, Entry: 0x10000102, InterfaceMajor: 1, InterfaceMinor: 3,
	Build: 0x01020003, ArchMajor: 1,
}

var testPayload = []byte("a payload of 24 bytes...")

func testImage(t testing.TB) []byte {
	b, err := New(testHeader, testPayload)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNew(t *testing.T) {
	b := testImage(t)
	want := []byte{
		'N', 'P', 'U', 'F', 1, 0, 7, 0, 64, 0, 0, 0, 24, 0, 0, 0,
		0x00, 0x01, 0x00, 0x10, 0x02, 0x01, 0x00, 0x10, 0, 0, 0, 0, 1, 0, 3, 0,
		3, 0, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	}
	binary.LittleEndian.PutUint32(want[0x18:], crc32.ChecksumIEEE(testPayload))
	binary.LittleEndian.PutUint32(want[0x3c:], crc32.ChecksumIEEE(want[:0x3c]))
	if diff := cmp.Diff(append(want, testPayload...), b); diff != "" {
		t.Errorf("image (-want +got):\n%s", diff)
	}
	h, payload, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	wantHeader := testHeader
	wantHeader.PayloadSize, wantHeader.PayloadCRC = 24, crc32.ChecksumIEEE(testPayload)
	if diff := cmp.Diff(wantHeader, h); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
	if !bytes.Equal(testPayload, payload) {
		t.Errorf("payload %q", payload)
	}
	if _, err := New(testHeader, testPayload[:3]); err == nil {
		t.Error("New accepts a payload of 3 bytes")
	}
}

// Every rule of §3.3, with what §3.5 says of it. The header is sealed after the
// change unless the row says otherwise.
func TestErrors(t *testing.T) {
	p16, p32 := binary.LittleEndian.PutUint16, binary.LittleEndian.PutUint32
	at32 := func(off int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { p32(b[off:], v); return b }
	}
	at16 := func(off int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { p16(b[off:], v); return b }
	}
	resized := func(n int) func([]byte) []byte {
		return func(b []byte) []byte { return append(b, make([]byte, 1<<20)...)[:n] }
	}
	tests := []struct {
		name   string
		change func([]byte) []byte
		raw    bool
		code   uint8
		detail uint32
	}{
		{name: "good", change: func(b []byte) []byte { return b }},
		{name: "empty", change: resized(0), raw: true, code: npureg.BootErrSize, detail: 0},
		{name: "67 bytes", change: resized(67), code: npureg.BootErrSize, detail: 67},
		{name: "larger than SRAM", change: resized(64 + 0x40000 + 1), code: npureg.BootErrSize, detail: 64 + 0x40000 + 1},
		{name: "magic", change: at32(0, 0x464c457f), code: npureg.BootErrMagic, detail: 0x464c457f},
		{name: "magic before checksum", change: at32(0, 1), raw: true, code: npureg.BootErrMagic, detail: 1},
		{name: "header checksum before header", change: at16(4, 2), raw: true, code: npureg.BootErrHeaderCRC},
		{name: "header_major", change: at16(4, 2), code: npureg.BootErrHeader, detail: 4},
		{name: "header_major 0", change: at16(4, 0), code: npureg.BootErrHeader, detail: 4},
		{name: "header_minor is free", change: at16(6, 0xffff)},
		{name: "header_size", change: at32(8, 128), code: npureg.BootErrHeader, detail: 8},
		{name: "first reserved byte", change: at32(0x28, 1), code: npureg.BootErrHeader, detail: 0x28},
		{name: "last reserved byte", change: at32(0x38, 0x01000000), code: npureg.BootErrHeader, detail: 0x28},
		{name: "interface_major", change: at16(0x1c, 2), code: npureg.BootErrInterface, detail: 2<<16 | 3},
		{name: "interface_minor is free", change: at16(0x1e, 0xffff)},
		{name: "build is free", change: at32(0x20, 0xffffffff)},
		{name: "arch_major", change: at16(0x24, 2), code: npureg.BootErrArch, detail: 2 << 16},
		{name: "arch_major 0", change: at16(0x24, 0), code: npureg.BootErrArch, detail: 0},
		{name: "arch_minor", change: at16(0x26, npureg.ArchMinor+1), code: npureg.BootErrArch, detail: 1<<16 | npureg.ArchMinor + 1},
		{name: "payload_size 0", change: at32(0x0c, 0), code: npureg.BootErrRange, detail: 0x0c},
		{name: "payload_size odd", change: at32(0x0c, 22), code: npureg.BootErrRange, detail: 0x0c},
		{name: "payload leaves SRAM", change: at32(0x0c, 0xfffffffc), code: npureg.BootErrRange, detail: 0x10},
		{name: "load_address misaligned", change: at32(0x10, 0x10000102), code: npureg.BootErrRange, detail: 0x10},
		{name: "load_address in ROM", change: at32(0x10, 0), code: npureg.BootErrRange, detail: 0x10},
		{name: "load_address below SRAM", change: at32(0x10, 0x0ffffffc), code: npureg.BootErrRange, detail: 0x10},
		{name: "load_address in the ROM's part", change: at32(0x10, 0x1003f000), code: npureg.BootErrRange, detail: 0x10},
		{name: "payload reaches the ROM's part", change: at32(0x10, 0x1003efec), code: npureg.BootErrRange, detail: 0x10},
		{name: "payload ends before the ROM's part", change: func(b []byte) []byte {
			return at32(0x14, 0x1003efe8)(at32(0x10, 0x1003efe8)(b))
		}},
		{name: "entry odd", change: at32(0x14, 0x10000101), code: npureg.BootErrRange, detail: 0x14},
		{name: "entry before the payload", change: at32(0x14, 0x100000fe), code: npureg.BootErrRange, detail: 0x14},
		{name: "entry after the payload", change: at32(0x14, 0x10000118), code: npureg.BootErrRange, detail: 0x14},
		{name: "entry at the last halfword", change: at32(0x14, 0x10000116)},
		{name: "too long", change: resized(92), code: npureg.BootErrSize, detail: 92},
		{name: "too short", change: resized(84), code: npureg.BootErrSize, detail: 84},
		{name: "payload checksum", change: func(b []byte) []byte { b[64] ^= 1; return b }, code: npureg.BootErrPayloadCRC,
			detail: crc32.ChecksumIEEE([]byte("` payload of 24 bytes..."))},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := tt.change(testImage(t))
			if !tt.raw {
				Seal(b)
			}
			if tt.code == npureg.BootErrHeaderCRC {
				tt.detail = crc32.ChecksumIEEE(b[:0x3c])
			}
			_, _, err := Parse(b)
			if tt.code == 0 {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("error %v, want code %d", err, tt.code)
			}
			if e.Code != tt.code || e.Detail != tt.detail {
				t.Errorf("code %d detail %#x, want %d, %#x: %v", e.Code, e.Detail, tt.code, tt.detail, e)
			}
		})
	}
}

func TestParseBuild(t *testing.T) {
	for in, want := range map[string]Build{"0.1.0": 0x00010000, "255.255.65535": 0xffffffff, "1.2.3": 0x01020003} {
		b, err := ParseBuild(in)
		if err != nil || b != want || b.String() != in {
			t.Errorf("ParseBuild(%q) = %#x (%v), %v; want %#x", in, uint32(b), b, err, uint32(want))
		}
	}
	for _, in := range []string{"", "1", "1.2", "1.2.3.4", "256.0.0", "0.0.65536", "-1.0.0", "a.b.c"} {
		if b, err := ParseBuild(in); err == nil {
			t.Errorf("ParseBuild(%q) = %v, want an error", in, b)
		}
	}
}

// FuzzParse: any bytes are refused with a boot error or are an image that New
// makes again.
func FuzzParse(f *testing.F) {
	good := testImage(f)
	f.Add(good)
	r := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		b := bytes.Clone(good)
		b[r.IntN(offHeaderCRC)] ^= byte(1 << r.IntN(8))
		Seal(b)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, payload, err := Parse(b)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Code == 0 {
				t.Fatalf("error without a boot error code: %v", err)
			}
			return
		}
		again, err := New(h, payload)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("New of a parsed image: %v, equal %v", err, bytes.Equal(again, b))
		}
	})
}
