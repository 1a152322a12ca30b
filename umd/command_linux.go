// SPDX-License-Identifier: Apache-2.0

package umd

import (
	"context"
	"errors"
	"fmt"

	"npuemu/core/isa"
	"npuemu/mmio/npureg"
)

// Binding lets a program reach a buffer (§7.3).
type Binding struct {
	Buffer
	Read, Write bool
}

// LaunchStats is what the device says of a program that ran.
type LaunchStats struct {
	Instructions uint32
	MACs         uint64
	Cycles       uint32 // of the command (§13.8.2); 0 if the card counts none
	Record       []byte // its profile record (§13.8.4), until the next command; nil if the card has none
}

// Launch runs a program image (§5.3) and returns when it has completed; what it wrote is
// then in the bindings' buffers. A *StatusError says what the program did wrong. args, at most isa.Arguments, are what its
// registers begin with, from s0 on (§4.9).
func (d *Device) Launch(ctx context.Context, program Buffer, bindings []Binding, args ...int32) (LaunchStats, error) {
	if n := len(args); n > isa.Arguments || n > 0 && !d.arguments {
		if !d.arguments {
			return LaunchStats{}, errors.New("umd: LAUNCH with arguments: the card takes none (FEATURES_LO.ARGUMENTS, §2.1)")
		}
		return LaunchStats{}, fmt.Errorf("umd: LAUNCH with %d arguments; the most is %d (§4.9)", n, isa.Arguments)
	}
	if len(bindings) > isa.MaxBindings {
		return LaunchStats{}, fmt.Errorf("umd: LAUNCH with %d bindings; the most is %d (§4.9)", len(bindings), isa.MaxBindings)
	}
	table := d.table.Bytes[:0]
	for _, b := range bindings {
		var r [npureg.BindingSize]byte
		le.PutUint64(r[0x00:], b.Addr)
		le.PutUint64(r[0x08:], uint64(len(b.Bytes)))
		if b.Read {
			r[0x10] |= 1
		}
		if b.Write {
			r[0x10] |= 2
		}
		table = append(table, r[:]...)
	}
	var e [npureg.SQEntrySize]byte
	e[0] = npureg.CmdLaunch
	le.PutUint64(e[0x08:], program.Addr)
	if len(bindings) > 0 {
		le.PutUint64(e[0x10:], d.table.Addr)
	}
	le.PutUint32(e[0x18:], uint32(len(bindings)))
	le.PutUint32(e[0x20:], uint32(len(program.Bytes)))
	var record []byte
	if d.timing {
		record = d.table.Bytes[recordAt:][:npureg.ProfileSize]
		e[1] |= npureg.LaunchProfile
		le.PutUint64(e[0x28:], d.table.Addr+recordAt)
	}
	if len(args) > 0 {
		e[1] |= npureg.LaunchArguments
		for i, v := range args {
			le.PutUint32(e[0x30+4*i:], uint32(v))
		}
	}
	c, err := d.do(ctx, &d.user, "LAUNCH", e)
	if err != nil {
		return LaunchStats{}, err
	}
	return LaunchStats{Instructions: c.Result, MACs: c.Info, Cycles: c.Cycles, Record: record}, nil
}

// Counters are the device's own (§4.7, log page 2): the proof that work ran there.
type Counters struct {
	Commands     uint64 `json:"commands"`
	Errors       uint64 `json:"errors"`
	Programs     uint64 `json:"programs"`
	Instructions uint64 `json:"instructions"`
	MACs         uint64 `json:"macs"`
	BytesRead    uint64 `json:"dma_bytes_read"`
	BytesWritten uint64 `json:"dma_bytes_written"`
	Interrupts   uint64 `json:"interrupts"`
}

// Counters asks the firmware for the counters.
func (d *Device) Counters(ctx context.Context) (Counters, error) {
	const size, page = 8 * npureg.CounterCount, 2
	var e [npureg.SQEntrySize]byte
	e[0] = npureg.AdminGetLogPage
	le.PutUint64(e[0x08:], d.table.Addr)
	le.PutUint32(e[0x10:], size)
	le.PutUint32(e[0x14:], page)
	c, err := d.do(ctx, &d.admin, "GET_LOG_PAGE", e)
	if err != nil {
		return Counters{}, err
	}
	if c.Result != size {
		return Counters{}, fmt.Errorf("umd: GET_LOG_PAGE: the counters have %d bytes, not %d (§4.7)", c.Result, size)
	}
	at := func(i int) uint64 { return le.Uint64(d.table.Bytes[8*i:]) }
	return Counters{
		Commands: at(npureg.CounterCommands), Errors: at(npureg.CounterErrors), Programs: at(npureg.CounterPrograms),
		Instructions: at(npureg.CounterInstructions), MACs: at(npureg.CounterMACs), BytesRead: at(npureg.CounterDMARead),
		BytesWritten: at(npureg.CounterDMAWritten), Interrupts: at(npureg.CounterInterrupts),
	}, nil
}

// ModelTime is the card's model time in cycles (§13.8); 0 if commands take none, or the card does not have it.
func (d *Device) ModelTime() (uint64, error) {
	if !d.timing {
		return 0, nil
	}
	var v [2]uint32
	for i, r := range []uint32{npureg.TimeLo, npureg.TimeLo + 4} { // the low half latches the high one
		var err error
		if v[i], err = d.Register(r); err != nil {
			return 0, err
		}
	}
	return uint64(v[1])<<32 | uint64(v[0]), nil
}
