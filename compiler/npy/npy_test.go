// SPDX-License-Identifier: Apache-2.0

package npy_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/compiler/ir"
	"npuemu/compiler/npy"
)

func TestRoundTrip(t *testing.T) {
	for _, tt := range []struct {
		t     ir.Type
		shape []int
	}{
		{ir.Float32, []int{2, 3}}, {ir.Int8, []int{7}}, {ir.Bool, nil}, {ir.Int64, []int{1, 0, 4}}, {ir.Float16, []int{1, 2, 3, 4}}, {ir.BFloat16, []int{3}}, {ir.Uint8, []int{1000}},
	} {
		data := make([]byte, tt.t.Bytes(ir.Elements(tt.shape)))
		for i := range data {
			data[i] = byte(i)
		}
		b, err := npy.Write(tt.t, tt.shape, data)
		if err != nil {
			t.Fatal(err)
		}
		if (len(b)-len(data))%64 != 0 {
			t.Errorf("%v%v: the header has %d bytes, no multiple of 64", tt.t, tt.shape, len(b)-len(data))
		}
		shape, got, err := npy.Read(b, tt.t)
		if err != nil {
			t.Errorf("%v%v: %v", tt.t, tt.shape, err)
			continue
		}
		if diff := cmp.Diff(tt.shape, shape); diff != "" || !bytes.Equal(got, data) {
			t.Errorf("%v: shape (-want +got):\n%s", tt.t, diff)
		}
	}
}

// The bytes that numpy.save writes for numpy.arange(6, dtype="int16").reshape(2, 3).
const saved = "\x93NUMPY\x01\x00v\x00{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }                                                          \n\x00\x00\x01\x00\x02\x00\x03\x00\x04\x00\x05\x00"

func TestNumPy(t *testing.T) {
	shape, data, err := npy.Read([]byte(saved), ir.Int16)
	if err != nil {
		t.Fatal(err)
	}
	b, err := npy.Write(ir.Int16, shape, data)
	if err != nil || string(b) != saved {
		t.Errorf("written as %q, %v", b, err)
	}
}

func TestBadFiles(t *testing.T) {
	r := strings.NewReplacer
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "does not begin"},
		{"no magic", "PK\x03\x04567890", "does not begin"},
		{"another type", r("<i2", "<f4").Replace(saved), "the array is of <f4"},
		{"big endian", r("<i2", ">i2").Replace(saved), "the array is of >i2"},
		{"objects", r("'<i2'", "'|O8'").Replace(saved), "the array is of |O8"},
		{"Fortran order", r("False,", "True, ").Replace(saved), "Fortran order"},
		{"more elements than it says", saved + "x", "13 bytes of elements"},
		{"fewer", saved[:len(saved)-1], "11 bytes of elements"},
		{"header longer than the file", saved[:40], "header of 118 bytes"},
		{"no shape", r("shape", "shade").Replace(saved), "lacks descr"},
		{"a large shape", r("(2, 3)", "(99999999, 99999999999999)").Replace(saved), "is too large"},
		{"version 9", "\x93NUMPY\x09" + saved[7:], "version 9"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := npy.Read([]byte(tt.text), ir.Int16); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("the error is %v, want one that says %q", err, tt.want)
			}
		})
	}
}

// A type that NumPy lacks is neither read, whatever the file says of its elements, nor written.
func TestNoSuchType(t *testing.T) {
	for _, descr := range []string{"|i1", "=i1", "="} {
		b := strings.Replace(saved, "<i2", descr, 1)
		if _, _, err := npy.Read([]byte(b), ir.Int4); err == nil || !strings.Contains(err.Error(), "arrays of int4 cannot be read") {
			t.Errorf("%s: the error is %v", descr, err)
		}
	}
	if _, err := npy.Write(ir.Int4, []int{2}, []byte{1}); err == nil || !strings.Contains(err.Error(), "arrays of int4 cannot be written") {
		t.Errorf("written: %v", err)
	}
}

func TestImage(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 2, 1))
	img.Set(0, 0, color.RGBA{10, 20, 30, 255})
	img.Set(1, 0, color.RGBA{200, 210, 220, 255})
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name  string
		t     ir.Type
		shape []int
		want  []byte
		err   string
	}{
		{"H W C", ir.Uint8, []int{1, 1, 2, 3}, []byte{10, 20, 30, 200, 210, 220}, ""},
		{"C H W", ir.Uint8, []int{1, 3, 1, 2}, []byte{10, 200, 20, 210, 30, 220}, ""},
		{"int8", ir.Int8, []int{1, 2, 3}, []byte{138, 148, 158, 72, 82, 92}, ""},
		{"grey", ir.Uint8, []int{1, 1, 2, 1}, []byte{18, 208}, ""},
		{"float", ir.Float32, []int{1, 1, 2, 1}, []byte{0x91, 0x90, 0x90, 0x3d, 0xd1, 0xd0, 0x50, 0x3f}, ""},
		{"another size", ir.Uint8, []int{1, 4, 4, 3}, nil, "scale the image"},
		{"no image", ir.Uint8, []int{1, 1, 2, 7}, nil, "2 × 1 pixels, the tensor"},
		{"no channels", ir.Uint8, []int{1, 5, 2, 7}, nil, "is no tensor of shape"},
		{"type", ir.Int64, []int{1, 1, 2, 3}, nil, "is no tensor of int64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := npy.Image(b.Bytes(), tt.t, tt.shape)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("the error is %v, want one that says %q", err, tt.err)
				}
				return
			}
			if err != nil || !bytes.Equal(got, tt.want) {
				t.Errorf("got % d, %v; want % d", got, err, tt.want)
			}
		})
	}
	// The header of a PNG of 8000 x 8000 pixels is not decoded for a tensor of two.
	large := bytes.Clone(b.Bytes()[:33])
	copy(large[16:], "\x00\x00\x1f\x40\x00\x00\x1f\x40")
	binary.BigEndian.PutUint32(large[29:], crc32.ChecksumIEEE(large[12:29]))
	if _, err := npy.Image(large, ir.Uint8, []int{1, 1, 2, 3}); err == nil || !strings.Contains(err.Error(), "8000 × 8000 pixels, the tensor 2 × 1") {
		t.Errorf("a large image: %v", err)
	}
	if _, err := npy.Image([]byte("\x89PNG\r\n"), ir.Uint8, []int{1, 1, 1, 1}); err == nil {
		t.Error("half a PNG is read")
	}
}

// What Read takes, Write writes, and Read takes again.
func FuzzRead(f *testing.F) {
	f.Add([]byte(saved), uint8(ir.Int16))
	for _, t := range []ir.Type{ir.Float32, ir.Bool, ir.BFloat16} {
		b, err := npy.Write(t, []int{2, 1}, make([]byte, t.Bytes(2)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint8(t))
	}
	f.Add([]byte("\x93NUMPY\x02\x00;\x00\x00\x00{'descr': '<i2', 'fortran_order': False, 'shape': (), }   \n\x01\x02"), uint8(ir.Int16))
	f.Fuzz(func(t *testing.T, b []byte, kind uint8) {
		shape, elements, err := npy.Read(b, ir.Type(kind))
		if err != nil {
			return
		}
		again, err := npy.Write(ir.Type(kind), shape, elements)
		if err != nil {
			t.Fatalf("%v%v was read: %v", ir.Type(kind), shape, err)
		}
		s, e, err := npy.Read(again, ir.Type(kind))
		if err != nil || !bytes.Equal(e, elements) || cmp.Diff(shape, s) != "" {
			t.Errorf("%v%v becomes %v%v, %v", ir.Type(kind), shape, ir.Type(kind), s, err)
		}
	})
}

// An image becomes a tensor of its size or is refused.
func FuzzImage(f *testing.F) {
	img := image.NewNRGBA(image.Rect(0, 0, 5, 3))
	gray := image.NewGray16(image.Rect(-2, 1, 3, 4))
	palette := image.NewPaletted(img.Rect, color.Palette{color.Black, color.White})
	for _, i := range []image.Image{img, gray, palette} {
		var p, j bytes.Buffer
		if err := png.Encode(&p, i); err != nil {
			f.Fatal(err)
		}
		if err := jpeg.Encode(&j, i, nil); err != nil {
			f.Fatal(err)
		}
		f.Add(p.Bytes(), uint8(0), uint8(3), uint8(5), uint8(3))
		f.Add(j.Bytes(), uint8(2), uint8(1), uint8(5), uint8(3))
	}
	f.Fuzz(func(t *testing.T, b []byte, kind, c, w, h uint8) {
		typ := []ir.Type{ir.Uint8, ir.Int8, ir.Float32, ir.Int64}[kind%4]
		for _, shape := range [][]int{{1, int(c), int(h), int(w)}, {int(h), int(w), int(c)}} {
			out, err := npy.Image(b, typ, shape)
			if want := typ.Bytes(ir.Elements(shape)); err == nil && len(out) != want {
				t.Errorf("%v%v has %d bytes, want %d", typ, shape, len(out), want)
			}
		}
	})
}
