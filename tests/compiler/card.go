// SPDX-License-Identifier: Apache-2.0

// Package compiler tests the compiler against other implementations: models run on a card in
// this process, with the user-mode driver, and what they compute is compared.
package compiler

import (
	"context"
	"errors"
	"sync"

	"npuemu/compiler"
	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/run"
	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/umd"
	"npuemu/vdev"
	"npuemu/vdev/local"
)

// Card is a card in this process.
type Card struct {
	d      *umd.Device
	cfg    vdev.Config
	target emit.Target
	stop   func() error
}

// NewCard boots a card of configuration cfg.
func NewCard(ctx context.Context, cfg vdev.Config) (*Card, error) {
	v, err := vdev.New(cfg)
	if err != nil {
		return nil, err
	}
	loop, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Add(1)
	go func() { defer wg.Done(); v.Run(loop) }()
	stop := func() error { cancel(); wg.Wait(); return v.Close() }
	d, err := umd.Open(ctx, local.Attach(v), umd.Config{Firmware: firmware.Image()})
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	minor, groups := cfg.ISA()
	return &Card{d: d, cfg: cfg, stop: stop, target: emit.Target{
		Rows: cfg.Array.Rows, Cols: cfg.Array.Cols, SpadSize: uint32(cfg.Array.Scratchpad), AccSize: uint32(cfg.Array.Accumulators), Minor: minor, Features: groups,
	}}, nil
}

// Close ends the card.
func (c *Card) Close() error {
	c.d.Close()
	return c.stop()
}

// Execute compiles g, runs it once and returns the outputs, and the nodes that ran on the host.
func (c *Card) Execute(ctx context.Context, g *ir.Graph, inputs [][]byte) (outputs [][]byte, hosts []model.Node, err error) {
	m, err := compiler.Build(g, c.target)
	if err != nil {
		return nil, nil, err
	}
	mark := c.d.Mark()
	defer c.d.Release(mark)
	s, err := run.Load(c, m)
	if err != nil {
		return nil, nil, err
	}
	out, _, err := s.Run(ctx, inputs, nil)
	for _, o := range out { // the card's memory is given back
		outputs = append(outputs, append([]byte{}, o...))
	}
	for _, n := range m.Nodes {
		if n.Host != "" {
			hosts = append(hosts, n)
		}
	}
	return outputs, hosts, err
}

type memory struct{ umd.Buffer }

func (m memory) Bytes() []byte { return m.Buffer.Bytes }

// Array implements run.Card.
func (c *Card) Array() (model.Array, error) {
	f, err := c.d.Register(npureg.FeaturesLo)
	a := c.cfg.Array
	return model.Array{Rows: a.Rows, Cols: a.Cols, Scratchpad: uint32(a.Scratchpad), Accumulators: uint32(a.Accumulators), Groups: run.Groups(uint64(f))}, err
}

// Alloc implements run.Card.
func (c *Card) Alloc(size int) (run.Memory, error) {
	b, err := c.d.Alloc(uint64(size))
	return memory{b}, err
}

// Launch implements run.Card.
func (c *Card) Launch(ctx context.Context, program run.Memory, bindings []run.Binding) error {
	l := make([]umd.Binding, len(bindings))
	for i, b := range bindings {
		l[i] = umd.Binding{Buffer: b.Memory.(memory).Buffer, Read: true, Write: b.Write}
	}
	_, err := c.d.Launch(ctx, program.(memory).Buffer, l)
	return err
}

// Counters implements run.Card.
func (c *Card) Counters(ctx context.Context) (run.Counters, error) {
	v, err := c.d.Counters(ctx)
	return run.Counters{
		Programs: v.Programs, Errors: v.Errors, Instructions: v.Instructions, MACs: v.MACs, BytesRead: v.BytesRead, BytesWritten: v.BytesWritten,
	}, err
}

// Target is what to compile for.
func (c *Card) Target() emit.Target { return c.target }
