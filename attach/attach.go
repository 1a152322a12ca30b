// SPDX-License-Identifier: Apache-2.0

// Package attach finds a card by its name and drives it for compiled models: one in this process, one that npuemu serve
// presents on a vfio-user socket, or one behind the kernel driver.
package attach

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"time"

	"npuemu/accel"
	"npuemu/compiler/emit"
	"npuemu/compiler/run"
	"npuemu/firmware"
	"npuemu/umd"
	"npuemu/vdev"
	"npuemu/vdev/local"
	"npuemu/vdev/vfiouser"
)

// InProcess names a card in this process. The others are called vfio-user:PATH, after a socket, and /dev/accel/accelN.
const InProcess = "in-process"

// Options are for the roads that have them.
type Options struct {
	Config vdev.Config // of a card in this process

	// Prepare, if not nil, is called with a card in this process before it runs. start starts what ends with its
	// context, before the card is closed; the function that Prepare returns is called after that, unless it is nil.
	Prepare func(d *vdev.Device, start func(func(context.Context))) (after func() error, err error)

	Memory   uint64        // bytes for buffers that the user-mode driver shares with the card; 0 is umd.DefaultMemory
	BootTime time.Duration // of the user-mode driver; 0 is its default
}

// Card is an open card.
type Card struct {
	run.Card
	Device *vdev.Device // the card itself, if it is in this process
	close  func() error
}

// Close detaches from the card, and ends one that is in this process.
func (c *Card) Close() error { return c.close() }

// Target is the core of a configuration.
func Target(cfg vdev.Config) emit.Target {
	minor, groups := cfg.ISA()
	return emit.Target{
		Rows: cfg.Array.Rows, Cols: cfg.Array.Cols, SpadSize: uint32(cfg.Array.Scratchpad), AccSize: uint32(cfg.Array.Accumulators),
		Minor: minor, Features: groups, Timing: cfg.Timing,
	}
}

// Open opens the card of that name. The error is ctx's if ctx ended.
func Open(ctx context.Context, name string, o Options) (*Card, error) {
	if strings.HasPrefix(name, "/") {
		d, err := accel.OpenPath(name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("%w: the driver is not loaded, or found no card: load npu.ko (driver/README.md), and look at /dev/accel and the kernel's log", err)
		case errors.Is(err, fs.ErrPermission):
			return nil, fmt.Errorf("%w: become a member of the group that the device file belongs to", err)
		case err != nil:
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		c, err := newAccelCard(d)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), d.Close())
		}
		return &Card{c, nil, c.close}, nil
	}
	d, device, stop, err := Boot(ctx, name, o)
	if err != nil {
		return nil, err
	}
	return &Card{umdCard{d}, device, stop}, nil
}

// Boot opens a card by the user-mode driver, which a card behind the kernel driver does not allow. device is the card
// itself if it is in this process. stop ends both.
func Boot(ctx context.Context, name string, o Options) (d *umd.Device, device *vdev.Device, stop func() error, err error) {
	var fn umd.Function
	end := func() error { return nil }
	if path, ok := strings.CutPrefix(name, "vfio-user:"); ok {
		if fn, err = vfiouser.Dial(path); err != nil {
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
				err = fmt.Errorf("%w: no card is served there: start npuemu serve --socket %s", err, path)
			}
			return nil, nil, nil, fmt.Errorf("%s: %w", name, err)
		}
	} else if name == InProcess {
		if device, end, err = start(ctx, o); err != nil {
			return nil, nil, nil, err
		}
		fn = local.Attach(device)
	} else {
		return nil, nil, nil, fmt.Errorf("card %q: use %s, vfio-user:PATH, or for models /dev/accel/accelN", name, InProcess)
	}
	d, err = umd.Open(ctx, fn, umd.Config{Firmware: firmware.Image(), Memory: o.Memory, BootTime: o.BootTime})
	if err != nil {
		return nil, nil, nil, errors.Join(fmt.Errorf("%s: %w", name, err), end())
	}
	return d, device, func() error { d.Close(); return end() }, nil
}

// start makes a card in this process and lets it run until stop.
func start(ctx context.Context, o Options) (d *vdev.Device, stop func() error, err error) {
	if d, err = vdev.New(o.Config); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // the card outlives its driver
	var wg sync.WaitGroup
	run := func(f func(context.Context)) {
		wg.Add(1)
		go func() { defer wg.Done(); f(ctx) }()
	}
	var after func() error
	stop = func() error {
		cancel()
		wg.Wait()
		if log := o.Config.Log; log != nil {
			for _, f := range d.Findings() {
				log.LogAttrs(ctx, slog.LevelWarn, "finding", slog.String("id", f.ID), slog.Any("count", f.Count), slog.String("rule", f.Rule), slog.String("last", f.Last))
			}
		}
		err := d.Close()
		if after != nil {
			err = errors.Join(err, after())
		}
		return err
	}
	if o.Prepare != nil {
		if after, err = o.Prepare(d, run); err != nil {
			return nil, nil, errors.Join(err, stop())
		}
	}
	run(d.Run)
	return d, stop, nil
}
