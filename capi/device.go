// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync/atomic"
	"time"

	"npuemu/attach"
	"npuemu/compiler/run"
	"npuemu/vdev"
)

// enum npuemu_status.
const (
	statusOK = iota
	statusArgument
	statusHandle
	statusFile
	statusModel
	statusConfig
	statusDevice
	statusBuffer
	statusCanceled
	statusTimeout
	_ // forked: shim.c
	statusInternal
)

// failure is an error and its status.
type failure struct {
	status int32
	err    error
}

func (f failure) Error() string { return f.err.Error() }
func (f failure) Unwrap() error { return f.err }

// fails gives err a status, unless it has one.
func fails(status int32, err error) error {
	var f failure
	if err == nil || errors.As(err, &f) {
		return err
	}
	return failure{status, err}
}

var (
	errCanceled = failure{statusCanceled, errors.New("cancelled by the progress function")}
	errClosed   = failure{statusCanceled, errors.New("the device was closed meanwhile")}
)

const (
	defaultMemory  = 4 << 30
	defaultTimeout = 10 * time.Second // to open a card
	traceLimit     = 64 << 20         // bytes
)

// deviceOptions are what npuemu_open is told.
type deviceOptions struct {
	target, time, trace string
	config              string // TOML
	memory              uint64
	timeout             time.Duration
}

// device is a card, and what is to be there after it was opened again.
type device struct {
	target  string
	options attach.Options
	timeout time.Duration // to open it
	trace   *attach.TraceFile
	ctx     context.Context
	cancel  context.CancelCauseFunc // ends all that is done with the device

	turn   chan struct{} // full while somebody uses what follows
	closed bool
	card   *attach.Card // nil: to be opened again
	past   []vdev.Finding
	models map[*loaded]uint64 // and their handles
}

// parseConfig reads a configuration; empty is the default one.
func parseConfig(text string) (vdev.Config, error) {
	cfg, err := vdev.ParseConfig([]byte(text))
	if err != nil {
		return cfg, failure{statusConfig, fmt.Errorf("configuration: %w", err)}
	}
	return cfg, nil
}

// openDevice opens a card.
func openDevice(o deviceOptions) (*device, error) {
	cfg, err := parseConfig(o.config)
	if err != nil {
		return nil, err
	}
	if o.time != "" {
		if cfg.Time, err = vdev.ParseTime(o.time); err != nil {
			return nil, failure{statusArgument, fmt.Errorf("time %w", err)}
		}
	}
	if o.target == "" {
		o.target = attach.InProcess
	}
	if (o.time != "" && o.time != vdev.TimeFast || o.trace != "") && o.target != attach.InProcess {
		return nil, failure{statusArgument, fmt.Errorf("time and cp_trace are for a card in this process: give them to the npuemu serve behind %s", o.target)}
	}
	if o.memory == 0 {
		o.memory = defaultMemory
	}
	const page = 4096
	if o.memory > 1<<46 || o.memory%page != 0 {
		return nil, failure{statusArgument, fmt.Errorf("memory of %d bytes: use a multiple of %d of at most 2⁴⁶", o.memory, page)}
	}
	d := &device{target: o.target, timeout: o.timeout, turn: make(chan struct{}, 1), models: map[*loaded]uint64{}}
	if d.timeout == 0 {
		d.timeout = defaultTimeout
	}
	d.options = attach.Options{Config: cfg, Memory: o.memory, BootTime: d.timeout}
	if o.trace != "" {
		if d.trace, err = attach.NewTraceFile(o.trace, traceLimit); err != nil {
			return nil, failure{statusFile, fmt.Errorf("cp_trace: %w", err)}
		}
		d.options.Prepare = func(v *vdev.Device, _ func(func(context.Context))) (func() error, error) {
			v.TraceControlProcessor(d.trace)
			return nil, nil
		}
	}
	d.ctx, d.cancel = context.WithCancelCause(context.Background())
	err = d.use(d.ctx, func() error { return nil })
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// use calls f with the card open and nobody else using the device. It waits for that until ctx ends. If f fails, the
// card is opened again at its next use.
func (d *device) use(ctx context.Context, f func() error) (err error) {
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	whole := false // f has not ended the goroutine
	defer func() {
		if !whole || err != nil {
			err = errors.Join(err, d.drop())
		}
		<-d.turn
	}()
	if d.closed {
		whole = true
		return errClosed
	}
	if d.card == nil {
		limit := fmt.Errorf("the card is not there within %v", d.timeout)
		ctx, stop := context.WithTimeoutCause(ctx, d.timeout, failure{statusTimeout, limit})
		d.card, err = attach.Open(ctx, d.target, d.options)
		stop()
		if err != nil {
			whole = true
			return fails(statusDevice, err)
		}
	}
	err = f()
	whole = true
	return err
}

// drop closes the card; the turn is the caller's.
func (d *device) drop() error {
	if d.card == nil {
		return nil
	}
	card := d.card
	d.card = nil
	err := card.Close()
	if card.Device != nil {
		d.past = append(d.past, card.Device.Findings()...)
	}
	for l := range d.models {
		l.session = nil
	}
	return err
}

// close ends what is done with the device, and the card.
func (d *device) close() error {
	d.cancel(errClosed)
	d.turn <- struct{}{}
	defer func() { <-d.turn }()
	d.closed = true
	for _, h := range d.models {
		objects.remove(h)
	}
	err := d.drop()
	d.models = nil
	if d.trace != nil {
		err = errors.Join(err, d.trace.Close())
		d.trace = nil
	}
	return fails(statusDevice, err)
}

// counters are the card's.
func (d *device) counters() (c run.Counters, err error) {
	err = d.use(d.ctx, func() error {
		c, err = d.card.Counters(d.ctx)
		return err
	})
	return c, fails(statusDevice, err)
}

// findings are those of all lives of the card.
func (d *device) findings() ([]vdev.Finding, error) {
	l := []vdev.Finding{}
	err := d.use(d.ctx, func() error {
		l = append(l, d.past...)
		if d.card.Device != nil {
			l = append(l, d.card.Device.Findings()...)
		}
		return nil
	})
	return l, err
}

// interval is the time between two calls of a progress function.
const interval = 50 * time.Millisecond

// limited is a context of work for d, or of nothing in particular, with a limit of ms milliseconds unless that is 0.
func limited(parent context.Context, ms uint64) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	if ms == 0 {
		return ctx, cancel
	}
	t := time.Duration(min(ms, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond
	timer := time.AfterFunc(t, func() { cancel(failure{statusTimeout, fmt.Errorf("no result within %v", t)}) })
	return ctx, func(err error) { timer.Stop(); cancel(err) }
}

// wait runs f in a goroutine of its own, since the caller's is bound to a thread of C, and returns what it returns. Until
// then it calls progress, if that is not nil, with what f noted last; if progress says so, cancel is called.
func wait(cancel context.CancelCauseFunc, progress func(done, total uint64) (stop bool), f func(note func(done, total int)) error) error {
	var done, total atomic.Uint64
	note := func(n, of int) { done.Store(uint64(n)); total.Store(uint64(of)) }
	result := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				result <- failure{statusInternal, fmt.Errorf("a mistake of the library, please report it: %v\n%s", p, debug.Stack())}
			}
		}()
		result <- f(note)
	}()
	if progress == nil {
		return <-result
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case err := <-result:
			return err
		case <-tick.C:
			if progress(done.Load(), total.Load()) {
				cancel(errCanceled)
				return <-result
			}
		}
	}
}
