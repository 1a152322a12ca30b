// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"npuemu/mmio/npureg"
	"npuemu/queue"
)

// errEngineReset ends the command that RESET_ENGINE found on its engine (§12.6).
var errEngineReset = errors.New("vdev: engine reset")

// engines knows which engine works for the command in flight, and for how long engines have worked
// (§12.4). There is one command at a time. Its lock is a leaf.
type engines struct {
	cmd   inFlight      // context of the command in flight; the queue engine's goroutine's
	ended atomic.Int64  // when the last command of an engine ended, in ns since start
	took  time.Duration // how long an engine worked for the last command; the queue engine's goroutine's
	start time.Time

	mu      sync.Mutex
	running uint32                      // npureg.EngineCore or EngineDMA, or 0; guarded by mu
	since   time.Duration               // when that began; guarded by mu
	busy    [enginesCount]time.Duration // without the command in flight; guarded by mu
	resets  uint32                      // commands that the last reset ended; guarded by mu
}

// Indices of engines.busy.
const (
	engineCore = iota
	engineDMA
	enginesCount
)

// inFlight is the context of a command in flight, which an engine reset can end without a context of its own for each command.
type inFlight struct {
	context.Context
	reset atomic.Bool
}

// Err is the reason why the command shall end, or nil.
func (c *inFlight) Err() error {
	if c.reset.Load() {
		return errEngineReset
	}
	return c.Context.Err()
}

// engineOf returns the engine that executes an opcode, or 0.
func engineOf(opcode uint8) uint32 {
	switch opcode {
	case npureg.CmdLaunch:
		return npureg.EngineCore
	case npureg.CmdCopy:
		return npureg.EngineDMA
	}
	return 0
}

// begin gives a command its engine, and returns the context that it is to obey. A command without an engine costs nothing.
func (g *engines) begin(ctx context.Context, opcode uint8) context.Context {
	engine := engineOf(opcode)
	if engine == 0 {
		return ctx
	}
	now := time.Since(g.start)
	g.cmd.Context = ctx
	g.mu.Lock()
	g.running, g.since = engine, now
	g.mu.Unlock()
	return &g.cmd
}

// end takes the engine from the command, and returns its completion: that of §12.6 if a reset stopped it.
func (g *engines) end(c queue.Completion) queue.Completion {
	g.took = 0
	if g.running == 0 { // which begin wrote on this goroutine
		return c
	}
	now := time.Since(g.start)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.took = now - g.since
	g.ended.Store(int64(now))
	g.busy[engineIndex(g.running)] += g.took
	g.running = 0
	if g.cmd.reset.Swap(false) && c.Status == npureg.StatusAborted && g.cmd.Context.Err() == nil {
		g.resets++
		return queue.Completion{Status: npureg.StatusEngineReset}
	}
	return c
}

func engineIndex(engine uint32) int {
	if engine == npureg.EngineCore {
		return engineCore
	}
	return engineDMA
}

// reset stops the command in flight if its engine is one of mask. It reports whether there is one.
func (g *engines) reset(mask uint32) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resets = 0
	hit := g.running&mask != 0
	if hit {
		g.cmd.reset.Store(true)
	}
	return hit
}

// stopped returns how many commands the last reset ended.
func (g *engines) stopped() uint32 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.resets
}

// worked returns for how long each engine has worked up to now.
func (g *engines) worked(now time.Duration) [enginesCount]time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	b := g.busy
	if g.running != 0 {
		b[engineIndex(g.running)] += now - g.since
	}
	return b
}
