// SPDX-License-Identifier: Apache-2.0

// Package digits_test runs the digits program on the core, without a device
// around it, and compares every byte with the golden data (README.md).
package digits_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
)

const (
	headerSize  = 64
	imageSize   = 64
	weightsSize = 4120
	recordSize  = 3904
)

// fields of a golden record, in order.
var fields = []struct {
	name string
	end  int
}{
	{"acc1", 2048}, {"out1", 2560}, {"acc2", 3584}, {"out2", 3840},
	{"acc3", 3880}, {"out3", 3890}, {"padding", recordSize},
}

// read returns the count and the payload of one of the three files.
func read(t *testing.T, name, magic string, recordSize int) (count int, payload []byte) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) < headerSize || string(b[:4]) != magic {
		t.Fatalf("%s: does not start with a header of %q", name, magic)
	}
	count = int(binary.LittleEndian.Uint32(b[12:]))
	want := [4]uint32{1, headerSize, uint32(count), uint32(recordSize)}
	for i, w := range want {
		if got := binary.LittleEndian.Uint32(b[4+4*i:]); got != w {
			t.Fatalf("%s: header offset %d has %d, want %d", name, 4+4*i, got, w)
		}
	}
	payload = b[headerSize:]
	if len(payload) < count*recordSize {
		t.Fatalf("%s: payload of %d bytes, want %d records of %d", name, len(payload), count, recordSize)
	}
	return count, payload
}

// memory is the host's side of the bindings: Addr is an index into it.
type memory [][]byte

var errOutside = errors.New("outside of the buffer")

func (m memory) at(b core.Binding, off uint64, n int) ([]byte, error) {
	buf := m[b.Addr]
	if off > uint64(len(buf)) || uint64(n) > uint64(len(buf))-off {
		return nil, errOutside
	}
	return buf[off:][:n], nil
}

func (m memory) Load(b core.Binding, off uint64, p []byte) error {
	src, err := m.at(b, off, len(p))
	copy(p, src)
	return err
}

func (m memory) Store(b core.Binding, off uint64, p []byte) error {
	dst, err := m.at(b, off, len(p))
	copy(dst, p)
	return err
}

func TestDigits(t *testing.T) {
	src, err := os.ReadFile("digits.npuasm")
	if err != nil {
		t.Fatal(err)
	}
	program, err := isa.Assemble("digits.npuasm", src)
	if err != nil {
		t.Fatal(err)
	}
	image := program.Image()

	_, weights := read(t, "weights.bin", "DIGW", weightsSize)
	count, images := read(t, "images.bin", "DIGI", imageSize)
	records, golden := read(t, "golden.bin", "DIGG", recordSize)
	labels := images[count*imageSize:]
	if count < 360 || records != count || len(labels) != count || len(golden) != count*recordSize || len(weights) != weightsSize {
		t.Fatalf("%d images, %d labels, %d golden records, %d bytes of weights; want at least 360 and as many of each, and %d bytes",
			count, len(labels), records, len(weights), weightsSize)
	}

	// The smallest local memories that the program says it needs.
	c, err := core.New(core.Config{Rows: 32, Cols: 32, SpadSize: int(program.SpadSize), AccSize: int(program.AccSize)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	bindings := []core.Binding{
		{Addr: 0, Size: weightsSize, Read: true},
		{Addr: 1, Size: imageSize, Read: true},
		{Addr: 2, Size: recordSize, Write: true},
	}
	right := 0
	for i := range count {
		record := bytes.Repeat([]byte{0xa5}, recordSize) // all of it must be written
		mem := memory{weights, images[i*imageSize:][:imageSize], record}
		stats, err := c.Run(t.Context(), image, bindings, mem)
		if err != nil {
			t.Fatalf("image %d: %v", i, err)
		}
		want := golden[i*recordSize:][:recordSize]
		off := 0
		for _, f := range fields {
			for ; off < f.end; off++ {
				if record[off] != want[off] {
					t.Fatalf("image %d, %s: record offset %d has %#02x, want %#02x", i, f.name, off, record[off], want[off])
				}
			}
		}
		// 8·8·9·8 + 4·4·72·16 + 256·10: the network ran here, and nothing was left out.
		if stats.MACs != 25600 || stats.BytesLoaded != weightsSize+imageSize || stats.BytesStored != recordSize {
			t.Fatalf("image %d: %d MACs, %d bytes loaded, %d stored; want 25600, %d, %d",
				i, stats.MACs, stats.BytesLoaded, stats.BytesStored, weightsSize+imageSize, recordSize)
		}
		if class(record[3840:]) == int(labels[i]) {
			right++
		}
	}
	t.Logf("%d of %d images right, %.2f %%", right, count, 100*float64(right)/float64(count))
	if 100*right < 96*count {
		t.Errorf("%d of %d images right, want at least 96 %%", right, count)
	}
}

// class returns the index of the largest of ten int32, the lowest such index if
// there are several.
func class(acc []byte) int {
	best := 0
	for i := range 10 {
		if int32(binary.LittleEndian.Uint32(acc[4*i:])) > int32(binary.LittleEndian.Uint32(acc[4*best:])) {
			best = i
		}
	}
	return best
}
