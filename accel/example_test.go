// SPDX-License-Identifier: Apache-2.0

//go:build linux

package accel_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/accel"
)

// A program that reads binding 0 and writes binding 1 runs on the first NPU.
func Example() {
	d, err := accel.Open()
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = d.Close() }() // nothing is lost with a file that is only used here

	f, err := os.Open("square.npu")
	if err != nil {
		log.Fatal(err)
	}
	defer f.Close()
	text, err := accel.ReadProgram(f)
	if err != nil {
		log.Fatal(err)
	}
	buffer := func(p accel.Placement, size int) (*accel.Buffer, []byte) {
		b, err := d.NewBuffer(p, size)
		if err != nil {
			log.Fatal(err)
		}
		mem, err := b.Map()
		if err != nil {
			log.Fatal(err)
		}
		return b, mem
	}
	program, mem := buffer(accel.DeviceMemory, len(text))
	copy(mem, text)
	in, x := buffer(accel.SystemMemory, 4096)
	out, y := buffer(accel.SystemMemory, 4096)
	x[0] = 12

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err = d.Queue().Run(ctx, accel.Launch{
		Program: program, Size: uint32(len(text)),
		Bindings: []accel.Binding{{Buffer: in, Read: true}, {Buffer: out, Write: true}},
	})
	var failed *accel.JobError
	switch {
	case errors.As(err, &failed):
		log.Fatalf("instruction %d: %v", failed.Result, failed.Status)
	case errors.Is(err, unix.ENODEV):
		log.Fatal("the device was removed")
	case err != nil:
		log.Fatal(err)
	}
	fmt.Println(y[0])
}

// Two queues: the second starts when the first has ended.
func ExampleSync() {
	d, err := accel.Open()
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = d.Close() }() // nothing is lost with a file that is only used here
	second, err := d.NewQueue(accel.QueueConfig{})
	if err != nil {
		log.Fatal(err)
	}
	a, err := d.Queue().Submit(accel.Submission{Commands: []accel.Command{accel.Nop{}}})
	if err != nil {
		log.Fatal(err)
	}
	b, err := second.Submit(accel.Submission{Commands: []accel.Command{accel.Nop{}}, Wait: []accel.Sync{a.Sync}})
	if err != nil {
		log.Fatal(err)
	}
	if _, err := b.Wait(context.Background()); err != nil {
		log.Fatal(err)
	}
}
