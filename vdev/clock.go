// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/dma"
	"npuemu/mmio/npureg"
	"npuemu/queue"
	"npuemu/timing"
)

// The time modes (§13.8).
const (
	TimeFast  = "fast"
	TimeTimed = "timed"
	TimePaced = "paced"
)

// TimeConfig says whether commands take model time (§13.8). Values are the same.
type TimeConfig struct {
	Mode   string  `toml:"mode"`   // fast, timed or paced
	Factor float64 `toml:"factor"` // of paced: wall time for model time
}

// maxFactor makes a cycle of 1 MHz a second.
const maxFactor = 1e6

// ParseTime reads fast, timed, paced or paced:FACTOR.
func ParseTime(s string) (TimeConfig, error) {
	c := TimeConfig{Mode: s, Factor: 1}
	if mode, factor, found := strings.Cut(s, ":"); found && mode == TimePaced {
		v, err := strconv.ParseFloat(factor, 64)
		if err != nil {
			return c, fmt.Errorf("%q: the factor is a number, as in paced:10", s)
		}
		c = TimeConfig{Mode: mode, Factor: v}
	}
	return c, c.validate()
}

func (c TimeConfig) validate() error {
	if c.Mode != TimeFast && c.Mode != TimeTimed && c.Mode != TimePaced {
		return fmt.Errorf("mode %q: use fast, timed, or paced", c.Mode)
	}
	if !(c.Factor >= 1e-6 && c.Factor <= maxFactor) { // NaN is neither
		return fmt.Errorf("factor is %v: use 0.000001 to %.0f", c.Factor, maxFactor)
	}
	return nil
}

// modelClock is the model time of a card. Commands move it on, on the queue engine's
// goroutine; registers read it.
type modelClock struct {
	config timing.Config
	on     bool          // timed or paced
	shown  bool          // FEATURES_LO.TIMING
	pace   float64       // nanoseconds of wall time for a cycle, 0 for none
	now    atomic.Uint64 // cycles
}

// setUp makes k the clock of a card with configuration c.
func (k *modelClock) setUp(c Config) {
	k.config = timing.Config{
		Rows: c.Array.Rows, Cols: c.Array.Cols, Scratchpad: c.Array.Scratchpad, Accumulators: c.Array.Accumulators, Params: c.Timing,
	}
	k.on, k.shown = c.Time.Mode != TimeFast, c.features()&npureg.FeatureTiming != 0
	if c.Time.Mode == TimePaced {
		k.pace = 1e3 / float64(c.Timing.Clock) * c.Time.Factor
	}
}

// clockHooks connects the registers of §13.8.3.
func (d *Device) clockHooks() {
	if !d.executor.clock.shown {
		return
	}
	d.bar0.OnRead(npureg.TimeLo, func() uint32 {
		now := d.executor.clock.now.Load()
		d.bar0.Set(npureg.TimeHi, uint32(now>>32))
		return uint32(now)
	})
}

// clockRate is TIME_CLOCK.
func (k *modelClock) clockRate() uint32 {
	if !k.on {
		return 0
	}
	return uint32(k.config.Clock)
}

// tick moves model time on by what the command took, and holds its completion
// back until wall time has come as far. began is when its execution did.
func (x *executor) tick(ctx context.Context, began time.Time, c queue.Completion) queue.Completion {
	k := &x.clock
	if !k.on || c.Pending {
		return c
	}
	cycles := k.config.Overhead()
	if c.Status == npureg.StatusSuccess {
		cycles += x.cycles
	}
	now := k.now.Add(cycles)
	if k.shown {
		c.Cycles, c.Time = uint32(min(cycles, math.MaxUint32)), now
	}
	if k.pace == 0 {
		return c
	}
	until := began.Add(time.Duration(min(float64(cycles)*k.pace, math.MaxInt64/2)))
	for ctx.Err() == nil {
		rest := time.Until(until)
		if rest <= 0 {
			return c
		}
		// An engine reset (§12.6) shows in Err and not in Done.
		timer := time.NewTimer(min(rest, time.Millisecond))
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
	return queue.Completion{Status: npureg.StatusAborted}
}

// measure runs the model over a program before the core runs it, because STAMP stores its times.
// A program that the model refuses the core refuses too.
func (x *executor) measure(ctx context.Context, image []byte, bindings []core.Binding) {
	x.report = timing.Report{}
	x.core.SetTimes(nil)
	if !x.clock.on {
		return
	}
	p, err := isa.ParseImage(image)
	if err != nil {
		return
	}
	p.Bindings, p.Args = uint16(len(bindings)), &x.args // what LAUNCH gives limits binding indexes (§5.3)
	var onBus uint64
	for i, b := range bindings {
		a := dma.ToRead
		if !b.Read {
			a = dma.ToWrite
		}
		if x.onBus(a, dma.Space(b.Space), b.Addr) {
			onBus |= 1 << i
		}
	}
	if x.report, err = timing.Program(ctx, p, x.clock.config, onBus); err != nil {
		x.report = timing.Report{}
		return
	}
	x.cycles += x.report.Cycles
	if x.clock.shown {
		x.core.SetTimes(x.report.Stamps)
	}
	x.report.Stamps = nil // there may be millions, and a program's end lets go of them
}

// onBus reports whether memory from addr on counts as the bus', and not as device memory (§13.8.2).
func (x *executor) onBus(a dma.Access, s dma.Space, addr uint64) bool {
	return x.view.Leads(a, s, addr) == dma.Bus
}

// side is s for the timing model.
func (x *executor) side(a dma.Access, s dma.Side) timing.Side {
	return timing.Side{Addr: s.Addr, StrideY: s.StrideY, StrideZ: s.StrideZ, Bus: x.onBus(a, s.Space, s.Addr)}
}

// profile writes a profile record (§13.8.4).
func (x *executor) profile(space dma.Space, addr uint64, stats core.Stats) error {
	le, b, r := binary.LittleEndian, x.record[:0], &x.report
	flags := uint32(0)
	if x.clock.on {
		flags = npureg.ProfileTimed
	}
	b = le.AppendUint32(b, npureg.ProfileSize)
	b = le.AppendUint32(b, flags)
	for _, v := range [...]uint64{
		x.clock.now.Load(), r.Cycles, stats.Instructions, stats.MACs, stats.BytesLoaded, stats.BytesStored, r.DRAM, r.Bus, 0,
	} {
		b = le.AppendUint64(b, v)
	}
	for i, e := range r.Engines {
		b = le.AppendUint64(b, stats.ByClass[i+1])
		b = le.AppendUint64(b, e.Busy)
		for _, n := range e.Stalls {
			b = le.AppendUint64(b, n)
		}
	}
	return x.view.Write(dma.Command, space, addr, b)
}
