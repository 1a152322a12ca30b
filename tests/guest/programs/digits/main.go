// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command digits classifies the held-out images of examples/digits on the NPU, one
// launch an image, and compares every byte that the device wrote with the
// golden data. Weights and program are in device memory, images and results in
// memory of the host, so both kinds of DMA take part.
//
//	digits DIR
//
// DIR holds weights.bin, images.bin, golden.bin and digits.elf. It prints one JSON
// object, and exits with 0 only if all bytes are equal, the accuracy is at least
// 96 %, and the device's own counters say that it ran one program an image.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"npuemu/accel"
)

// Layouts of the example's files and bindings (examples/digits/README.md).
const (
	headerSize  = 64
	weightsSize = 4120
	imageSize   = 64
	recordSize  = 3904
	acc3        = 3840 // offset in a record of one int32 for each class
	classes     = 10
)

const (
	accuracy  = 0.96
	timeout   = 2 * time.Minute // of one job; interpreted guests are slow
	unwritten = 0xa5            // results before the device writes them
)

// report is what the program prints.
type report struct {
	Device          accel.Info     `json:"device"`
	Images          int            `json:"images"`
	Correct         int            `json:"correct"`
	Accuracy        float64        `json:"accuracy"`
	Compared        int            `json:"compared_bytes"`
	Mismatched      int            `json:"mismatched_bytes"`
	First           *mismatch      `json:"first_mismatch"`
	Seconds         float64        `json:"seconds"`
	ImagesPerSecond float64        `json:"images_per_second"`
	Counters        accel.Counters `json:"counters"`
	OK              bool           `json:"ok"`
}

type mismatch struct {
	Image  int  `json:"image"`
	Offset int  `json:"offset"`
	Got    byte `json:"got"`
	Want   byte `json:"want"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: digits DIR")
		os.Exit(2)
	}
	r, err := run(os.Args[1])
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(r)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "digits:", err)
	}
	if err != nil || !r.OK {
		os.Exit(1)
	}
}

// read returns the records of one of the example's files, and what is behind them.
func read(dir, name, magic string, size int) (records, rest []byte, err error) {
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	le := binary.LittleEndian
	if len(b) < headerSize || string(b[:4]) != magic || le.Uint32(b[4:]) != 1 || le.Uint32(b[8:]) != headerSize || le.Uint32(b[16:]) != uint32(size) {
		return nil, nil, fmt.Errorf("%s: not a %s file of version 1 with records of %d bytes", path, magic, size)
	}
	n := uint64(le.Uint32(b[12:])) * uint64(size)
	if n > uint64(len(b)-headerSize) {
		return nil, nil, fmt.Errorf("%s: has %d bytes, which is less than its records", path, len(b))
	}
	return b[headerSize:][:n], b[headerSize+n:], nil
}

// filled makes a buffer with that content.
func filled(d *accel.Device, p accel.Placement, content []byte) (*accel.Buffer, []byte, error) {
	b, err := d.NewBuffer(p, len(content))
	if err != nil {
		return nil, nil, err
	}
	mem, err := b.Map()
	copy(mem, content)
	return b, mem, err
}

func run(dir string) (r *report, err error) {
	weights, _, err := read(dir, "weights.bin", "DIGW", weightsSize)
	if err != nil {
		return nil, err
	}
	images, labels, err := read(dir, "images.bin", "DIGI", imageSize)
	if err != nil {
		return nil, err
	}
	golden, _, err := read(dir, "golden.bin", "DIGG", recordSize)
	if err != nil {
		return nil, err
	}
	n := len(images) / imageSize
	if n == 0 || len(weights) != weightsSize || len(golden) != n*recordSize || len(labels) != n {
		return nil, fmt.Errorf("%d images with %d labels, %d golden records", n, len(labels), len(golden)/recordSize)
	}
	f, err := os.Open(filepath.Join(dir, "digits.elf"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := accel.ReadProgram(f)
	if err != nil {
		return nil, err
	}

	d, err := accel.Open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	r = &report{Images: n, Compared: len(golden)}
	if r.Device, err = d.Info(); err != nil {
		return nil, err
	}
	program, _, err := filled(d, accel.DeviceMemory, text)
	if err != nil {
		return nil, err
	}
	weightsBO, _, err := filled(d, accel.DeviceMemory, weights)
	if err != nil {
		return nil, err
	}
	imagesBO, _, err := filled(d, accel.SystemMemory, images)
	if err != nil {
		return nil, err
	}
	results, got, err := filled(d, accel.SystemMemory, bytes.Repeat([]byte{unwritten}, len(golden)))
	if err != nil {
		return nil, err
	}

	before, err := d.Counters()
	if err != nil {
		return nil, err
	}
	start := time.Now()
	for i := 0; i < n; {
		var job []accel.Command
		for ; i < n && len(job) < int(r.Device.MaxCommands); i++ {
			job = append(job, accel.Launch{Program: program, Size: uint32(len(text)), Bindings: []accel.Binding{
				{Buffer: weightsBO, Size: weightsSize, Read: true},
				{Buffer: imagesBO, Offset: uint64(i * imageSize), Size: imageSize, Read: true},
				{Buffer: results, Offset: uint64(i * recordSize), Size: recordSize, Write: true},
			}})
		}
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		_, err := d.Queue().Run(ctx, job...)
		cancel()
		if err != nil {
			return nil, fmt.Errorf("images before %d: %w", i, err)
		}
	}
	r.Seconds = time.Since(start).Seconds()
	r.ImagesPerSecond = float64(n) / r.Seconds
	after, err := d.Counters()
	if err != nil {
		return nil, err
	}
	r.Counters = after.Since(before)

	for i, want := range golden {
		if got[i] != want {
			if r.Mismatched++; r.First == nil {
				r.First = &mismatch{i / recordSize, i % recordSize, got[i], want}
			}
		}
	}
	for i := range n {
		if class(got[i*recordSize:]) == int(labels[i]) {
			r.Correct++
		}
	}
	r.Accuracy = float64(r.Correct) / float64(n)
	r.OK = r.Mismatched == 0 && r.Accuracy >= accuracy && r.Counters.Programs >= uint64(n)
	return r, nil
}

// class returns the class with the largest sum, of equal ones the lowest.
func class(record []byte) (best int) {
	sum := func(i int) int32 { return int32(binary.LittleEndian.Uint32(record[acc3+4*i:])) }
	for i := range classes {
		if sum(i) > sum(best) {
			best = i
		}
	}
	return best
}
