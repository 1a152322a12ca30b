// SPDX-License-Identifier: Apache-2.0

// Package npy reads and writes tensors as files: NumPy's .npy, and images.
package npy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"npuemu/compiler/ir"
)

// descrs are NumPy's names of types, little endian. Types that NumPy does not have are
// bytes there: bfloat16 and the 8-bit floating-point types.
var descrs = map[ir.Type]string{
	ir.Int8: "|i1", ir.Uint8: "|u1", ir.Bool: "|b1", ir.Int16: "<i2", ir.Uint16: "<u2", ir.Int32: "<i4", ir.Uint32: "<u4", ir.Int64: "<i8", ir.Uint64: "<u8",
	ir.Float16: "<f2", ir.Float32: "<f4", ir.Float64: "<f8", ir.BFloat16: "<V2", ir.Float8E4M3: "|V1", ir.Float8E5M2: "|V1",
}

const magic = "\x93NUMPY"

// maxHeader bounds the header, which for 64 dimensions has not 2 KiB.
const maxHeader = 1 << 16

var (
	descrField   = regexp.MustCompile(`'descr'\s*:\s*'([^']*)'`)
	fortranField = regexp.MustCompile(`'fortran_order'\s*:\s*(True|False)`)
	shapeField   = regexp.MustCompile(`'shape'\s*:\s*\(([0-9,\sL]*)\)`)
)

// Read returns the elements of a .npy file of version 1 to 3, and their shape. want is the
// type that they have to be of.
func Read(b []byte, want ir.Type) (shape []int, elements []byte, err error) {
	if len(b) < 10 || string(b[:6]) != magic {
		return nil, nil, errors.New("npy: the file does not begin as a .npy file")
	}
	header, at := int(binary.LittleEndian.Uint16(b[8:])), 10
	if b[6] >= 2 {
		if len(b) < 12 {
			return nil, nil, errors.New("npy: the file ends in its header")
		}
		header, at = int(binary.LittleEndian.Uint32(b[8:])), 12
	}
	if b[6] < 1 || b[6] > 3 || header > maxHeader || header > len(b)-at {
		return nil, nil, fmt.Errorf("npy: version %d with a header of %d bytes; versions are 1 to 3, and the header is in the file", b[6], header)
	}
	text := b[at : at+header]
	descr, fortran, dims := descrField.FindSubmatch(text), fortranField.FindSubmatch(text), shapeField.FindSubmatch(text)
	if descr == nil || fortran == nil || dims == nil {
		return nil, nil, errors.New("npy: the header lacks descr, fortran_order or shape, or they are not what arrays of numbers have")
	}
	for _, d := range strings.FieldsFunc(string(dims[1]), func(r rune) bool { return r == ',' || r == ' ' || r == 'L' }) {
		n, err := strconv.Atoi(d)
		if err != nil {
			return nil, nil, fmt.Errorf("npy: dimension %q: %w", d, err)
		}
		shape = append(shape, n)
	}
	if string(fortran[1]) == "True" && len(shape) > 1 {
		return nil, nil, errors.New("npy: the array is in Fortran order; save numpy.ascontiguousarray of it")
	}
	got := string(descr[1])
	wanted, ok := descrs[want]
	if !ok {
		return nil, nil, fmt.Errorf("npy: arrays of %v cannot be read: NumPy has no such type", want)
	}
	if got != wanted && !(strings.HasPrefix(got, "=") && got[1:] == wanted[1:]) {
		return nil, nil, fmt.Errorf("npy: the array is of %s; the tensor is %v, which is %s", got, want, wanted)
	}
	elements = b[at+header:]
	size := want.Bytes(ir.Elements(shape))
	if size < 0 {
		return nil, nil, fmt.Errorf("npy: an array of shape %v is too large", shape)
	}
	if size != len(elements) {
		return nil, nil, fmt.Errorf("npy: %d bytes of elements; %v%v has %d", len(elements), want, shape, size)
	}
	return shape, elements, nil
}

// Write returns a .npy file of version 1.
func Write(t ir.Type, shape []int, elements []byte) ([]byte, error) {
	descr, ok := descrs[t]
	if !ok {
		return nil, fmt.Errorf("npy: arrays of %v cannot be written", t)
	}
	var dims []string
	for _, d := range shape {
		dims = append(dims, strconv.Itoa(d))
	}
	list := strings.Join(dims, ", ")
	if len(dims) == 1 {
		list += ","
	}
	header := fmt.Sprintf("{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, list)
	pad := 64 - (10+len(header)+1)%64
	header += strings.Repeat(" ", pad%64) + "\n"
	out := append([]byte(magic), 1, 0)
	out = binary.LittleEndian.AppendUint16(out, uint16(len(header)))
	return append(append(out, header...), elements...), nil
}
