// SPDX-License-Identifier: Apache-2.0

// Package compiler tests the compiler against other implementations: models run on a card in
// this process, with the user-mode driver, and what they compute is compared.
package compiler

import (
	"context"
	"errors"

	"npuemu/attach"
	"npuemu/compiler"
	"npuemu/compiler/emit"
	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/run"
	"npuemu/vdev"
)

// Card is a card in this process.
type Card struct {
	*attach.Card
	target emit.Target
}

// NewCard boots a card of configuration cfg.
func NewCard(ctx context.Context, cfg vdev.Config) (*Card, error) {
	c, err := attach.Open(ctx, attach.InProcess, attach.Options{Config: cfg})
	if err != nil {
		return nil, err
	}
	return &Card{c, attach.Target(cfg)}, nil
}

// Execute compiles g, runs it once and returns the outputs, and the nodes that ran on the host.
func (c *Card) Execute(ctx context.Context, g *ir.Graph, inputs [][]byte) (outputs [][]byte, hosts []model.Node, err error) {
	m, err := compiler.Build(g, c.target)
	if err != nil {
		return nil, nil, err
	}
	s, err := run.Load(c, m)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
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

// Target is what to compile for.
func (c *Card) Target() emit.Target { return c.target }
