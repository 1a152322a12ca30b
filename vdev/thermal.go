// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"npuemu/mmio/npureg"
)

// The model of §12.5: a body with one heat capacity. Temperatures are in °C. At the ambient temperature of power-on a card
// that works all the time stays below the first threshold.
const (
	ambientDefault = 35.0
	riseIdle       = 10.0 // above ambient, for ever
	riseCore       = 30.0 // more, with the core always busy
	riseDMA        = 5.0  // more, with the DMA channel always busy
	timeConstant   = 20 * time.Second

	minTemperature, maxTemperature = -40, 150 // that an operator sets, °C

	sampleInterval = 100 * time.Millisecond // at least, between looks at the sensor
	nominalClock   = 1_000_000              // kHz
)

// duty is the share of time in percent that engines work, by throttle level.
var duty = [npureg.ThrottleCritical + 1]int64{100, 50, 25, 0}

// thermal is the temperature sensor and what follows from it. Guarded by Device.mu, but for level.
type thermal struct {
	level atomic.Int32 // throttle level

	ambient     float64
	temperature float64
	forced      *float64 // if not nil, what the operator makes the sensor show
	thresholds  [npureg.ThrottleCritical]float64

	at   time.Duration               // of the last sample, since engines.start
	busy [enginesCount]time.Duration // engines.worked then
	used [enginesCount]float64       // share of the time between the last two samples
	tick *time.Timer                 // looks again while level is not 0
}

func (t *thermal) init() {
	t.ambient, t.temperature = ambientDefault, ambientDefault+riseIdle
	t.setThresholds([npureg.ThrottleCritical]int32{npureg.ThermalDefault1, npureg.ThermalDefault2, npureg.ThermalDefaultCritical})
}

func (t *thermal) setThresholds(milli [npureg.ThrottleCritical]int32) {
	for i, v := range milli {
		t.thresholds[i] = float64(v) / 1000
	}
}

// advance lets dt pass with engines busy for the given shares of it.
func (t *thermal) advance(dt time.Duration, used [enginesCount]float64) {
	target := t.ambient + riseIdle + riseCore*used[engineCore] + riseDMA*used[engineDMA]
	t.temperature += (target - t.temperature) * -math.Expm1(-dt.Seconds()/timeConstant.Seconds())
}

// shown is what the sensor shows, in °C.
func (t *thermal) shown() float64 {
	if t.forced != nil {
		return *t.forced
	}
	return t.temperature
}

// next returns the throttle level that follows a level at the shown temperature.
func (t *thermal) next(level int32) int32 {
	for level < npureg.ThrottleCritical && t.shown() >= t.thresholds[level] {
		level++
	}
	for level > 0 && t.shown() < t.thresholds[level-1]-npureg.ThermalHysteresis/1000 {
		level--
	}
	return level
}

// sampleLocked looks at the sensor, if the last look is long enough ago; now is since engines.start.
func (d *Device) sampleLocked(now time.Duration) {
	t := &d.ras.thermal
	dt := now - t.at
	if !d.ras.on || dt < sampleInterval {
		return
	}
	busy := d.executor.engines.worked(now)
	for i := range busy {
		t.used[i] = min(1, (busy[i]-t.busy[i]).Seconds()/dt.Seconds())
	}
	t.at, t.busy = now, busy
	t.advance(dt, t.used)
	d.throttleLocked()
}

// throttleLocked chooses the throttle level for what the sensor shows (§12.5).
func (d *Device) throttleLocked() {
	t := &d.ras.thermal
	old := t.level.Load()
	level := t.next(old)
	if level != old {
		t.level.Store(level)
		d.logErrorLocked(record{kind: npureg.ErrorThermal, unit: npureg.UnitThermal, addr: uint64(milli(t.shown())), detail: uint16(level)})
	}
	if level != 0 && t.tick == nil {
		t.tick = time.AfterFunc(sampleInterval, d.thermalTick)
	}
}

// thermalTick is the look of a card that may have nothing else to look for.
func (d *Device) thermalTick() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ras.thermal.tick == nil {
		return // closed
	}
	d.ras.thermal.tick = nil
	d.sampleLocked(time.Since(d.executor.engines.start))
	d.throttleLocked()
}

// stopThermal ends the looks of thermalTick.
func (d *Device) stopThermal() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.ras.thermal.tick; t != nil {
		t.Stop()
		d.ras.thermal.tick = nil
	}
}

func milli(celsius float64) int64 { return int64(math.Round(celsius * 1000)) }

// throttle waits until the next command may begin (§12.5). It reports false if ctx is done before that. It runs on the
// queue engine's goroutine.
func (x *executor) throttle(ctx context.Context) bool {
	for {
		level := x.d.ras.thermal.level.Load()
		wait := sampleInterval
		if level < npureg.ThrottleCritical {
			rest := x.engines.took * time.Duration(100-duty[level]) / time.Duration(duty[level])
			wait = min(wait, rest-(time.Since(x.engines.start)-time.Duration(x.engines.ended.Load())))
		}
		if wait <= 0 {
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}
