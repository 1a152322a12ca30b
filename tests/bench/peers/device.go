// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"npuemu/core/isa"
	"npuemu/firmware"
	"npuemu/umd"
	"npuemu/vdev"
	"npuemu/vdev/local"
)

// card is a device in this process with a driver, and a program that multiplies n×n by n×n int8 into int8: doorbell,
// fetch, DMA of operands from and of the result to memory of the host, REQUANT, completion and interrupt.
type card struct {
	driver   *umd.Device
	program  umd.Buffer
	bindings []umd.Binding
	end      func() error
}

// rowsAtATime is how many rows of the result a step of the program computes.
const rowsAtATime = 252

func newCard(ctx context.Context, n, threads int) (*card, error) {
	cfg := vdev.DefaultConfig()
	cfg.Array.Scratchpad, cfg.Array.Accumulators = 16<<20, 4<<20
	cfg.Core.Threads = threads
	dev, err := vdev.New(cfg)
	if err != nil {
		return nil, err
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Add(1)
	go func() { defer wg.Done(); dev.Run(running) }()
	c := &card{end: func() error {
		cancel()
		wg.Wait()
		return dev.Close()
	}}
	if c.driver, err = umd.Open(ctx, local.Attach(dev), umd.Config{Firmware: firmware.Image()}); err != nil {
		return nil, errors.Join(err, c.end())
	}
	a, weights := make([]byte, n*n), make([]byte, n*n)
	for i := range a {
		a[i], weights[i] = byte(0x30+i%13), byte(0x30+i%13)
	}
	params := slices.Repeat(scale(0), n)
	for _, b := range []struct {
		bytes []byte
		write bool
	}{{a, false}, {weights, false}, {params, false}, {make([]byte, n*n), true}} {
		buf, err := c.driver.Put(b.bytes)
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c.bindings = append(c.bindings, umd.Binding{Buffer: buf, Read: !b.write, Write: b.write})
	}
	if c.program, err = c.driver.Put(product1024(n, cfg)); err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *card) close() error {
	c.driver.Close()
	return c.end()
}

// scale is an entry of REQUANT's table that makes results of about 2^(31+shift) fit.
func scale(shift int) []byte {
	return binary.LittleEndian.AppendUint64(nil, 1<<30|uint64(46+shift)<<32)
}

// product1024 is the program for n×n by n×n: the weights stay, rows of the rest come and go.
func product1024(n int, cfg vdev.Config) []byte {
	weights, params := uint32(0), uint32(n*n)
	in := params + uint32(8*n)
	out := in + uint32(rowsAtATime*n)
	text := []isa.Instruction{
		isa.Load{Binding: 1, Local: weights, NX: uint32(n * n), NY: 1, NZ: 1},
		isa.Load{Binding: 2, Local: params, NX: uint32(8 * n), NY: 1, NZ: 1},
		isa.Operands{AStride: uint32(n), BStride: uint32(n), AccStride: uint32(4 * n)},
	}
	for row := 0; row < n; row += rowsAtATime {
		m := min(rowsAtATime, n-row)
		text = append(text,
			isa.Load{Offset: uint64(row * n), Local: in, NX: uint32(m * n), NY: 1, NZ: 1},
			isa.Gemm{M: uint32(m), N: uint32(n), K: uint32(n), A: in, B: weights},
			isa.Requant{N: uint16(n), AccStride: uint16(4 * n), Out: out, Params: params, PerChannel: true, MX: uint16(m), MY: 1, OutStrideX: uint16(n), Lo: -128, Hi: 127},
			isa.Store{Binding: 3, Offset: uint64(row * n), Local: out, NX: uint32(m * n), NY: 1, NZ: 1},
		)
	}
	return program(text, int(out)+rowsAtATime*n, rowsAtATime*n*4, 4)
}

// program makes a program of text for an array of 32×32, in which each instruction waits for the one before it.
func program(text []isa.Instruction, spad, acc, bindings int) []byte {
	b := isa.Text(text...)
	token := byte(0)
	for i := range len(text) {
		w := b[i*isa.Size:]
		switch isa.Opcode(w[0]).Class() {
		case isa.ClassControl: // no engine
			continue
		}
		if i > 0 {
			w[2] = 1<<4 | token
		}
		w[3] = 1<<4 | token
	}
	b = append(b, isa.Text(isa.Halt{})...)
	p := &isa.Program{Text: b}
	p.Minor, p.Features, p.Rows, p.Cols = isa.Minor, isa.Features, 32, 32
	p.SpadSize, p.AccSize, p.Bindings = uint32(spad), uint32(acc), uint16(bindings)
	return p.Image()
}

// compareDevice measures whole commands beside oneDNN's products of the same size, and prints their row.
func compareDevice(ctx context.Context, p *peer, threads int) error {
	const n, bar = 1024, 0.85
	c, err := newCard(ctx, n, threads)
	if err != nil {
		return err
	}
	ops := 2.0 * n * n * n
	var our, their float64
	var ratios []float64
	for range *rounds {
		them, err := p.measure("s8", n, threads, repeats(ops))
		if err != nil {
			return errors.Join(err, c.close())
		}
		us := 0.0
		for range repeats(ops) {
			from := time.Now()
			if _, err := c.driver.Launch(ctx, c.program, c.bindings); err != nil {
				return errors.Join(err, c.close())
			}
			us = max(us, ops/time.Since(from).Seconds()/1e9)
		}
		our, their = max(our, us), max(their, them)
		ratios = append(ratios, us/them)
	}
	slices.Sort(ratios)
	fmt.Printf("| whole command, int8 × int8 → int8; s8s8s32 alone | %d | %d³ | %.0f | %.0f | **%.2f×** | %.2f× | – | ≥ %.2f× | %s |\n",
		threads, n, our, their, our/their, ratios[len(ratios)/2], bar, verdict(our/their, bar))
	return c.close()
}
