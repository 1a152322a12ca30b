// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"

	"npuemu/attach"
	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/ref"
)

// errDiverges ends verify with status 1 behind what it printed.
var errDiverges = errors.New("the card and the reference differ")

func verifyCommand() *cobra.Command {
	var (
		cf      configFlags
		o       runOptions
		level   string
		timeout time.Duration
	)
	c := &cobra.Command{
		Use:   "verify MODEL [WEIGHTS]",
		Short: "Compare a model on a card with the CPU reference, node by node",
		Long: "verify compiles MODEL, runs it on the card and in the compiler's CPU reference, and compares every tensor that a node\n" +
			"computes, to the bit. It names the first one that differs, its first element, and the instruction that stored it; the\n" +
			"exit status is then 1. Without --input the inputs are pseudo-random, the same each time. What is on the host is computed by\n" +
			"the reference, so that its result is equal by itself; the number of such nodes is printed. " + weightsHelp,
		Example: "  npuemu verify mobilenet.onnx\n  npuemu verify net.npuir --input x.npy --config array.toml --device vfio-user:/tmp/npu.sock",
		Args:    cobra.RangeArgs(1, 2),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if o.cfg.Log, err = newLog(c.ErrOrStderr(), level); err != nil {
				return err
			}
			log := o.cfg.Log
			if o.cfg, err = cf.load(); err != nil {
				return err
			}
			o.cfg.Log = log
			if err := o.memory.check(o.device); err != nil {
				return err
			}
			g, err := loadGraph(c, args, nil)
			if err != nil {
				return err
			}
			inputs, err := verifyInputs(g, o.inputs, int(o.memory.bytes()))
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeoutCause(c.Context(), timeout, fmt.Errorf("no result within --timeout %v", timeout))
			defer cancel()
			card, err := attach.Open(ctx, o.device, o.options())
			if err != nil {
				return fmt.Errorf("--device: %w", err)
			}
			defer func() { err = errors.Join(err, card.Close()) }()
			bar := newBar(c.ErrOrStderr(), len(g.Nodes))
			d, r, err := compiler.Verify(ctx, card, g, attach.Target(o.cfg), inputs, func(n, _ int, what string) { bar.at(n, what) })
			bar.done()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			w := c.OutOrStdout()
			if d != nil {
				fmt.Fprintln(w, d)
				return errDiverges
			}
			host := len(r.Steps) - r.Programs // which the reference computes
			_, err = fmt.Fprintf(w, "%s: all tensors of %d nodes are equal to the reference's, %d of them on the host; the card counted %d programs, %d instructions, %d multiply-accumulates\n",
				g.Name, len(g.Nodes), host, r.Counters.Programs, r.Counters.Instructions, r.Counters.MACs)
			return err
		},
	}
	c.Flags().StringArrayVar(&o.inputs, "input", nil, "`[NAME=]FILE` with an input; may be repeated")
	c.Flags().StringVar(&o.device, "device", attach.InProcess, "`card` to use: in-process, vfio-user:PATH, or /dev/accel/accelN")
	c.Flags().StringVar(&level, "log", "warn", logUsage)
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up after this `duration`")
	o.memory.add(c)
	cf.add(c)
	return c
}

// verifyInputs reads the files, or makes numbers, of up to most bytes: floating point around 0, integers of all values.
func verifyInputs(g *ir.Graph, files []string, most int) ([][]byte, error) {
	if len(files) > 0 {
		var l []model.Tensor
		for _, t := range g.Inputs {
			l = append(l, model.Tensor{Name: t.Name, Type: t.Type.String(), Shape: t.Shape})
		}
		return readTensors(l, nil, files)
	}
	total := 0
	for _, t := range g.Inputs {
		if total += t.Bytes(); total > most {
			return nil, fmt.Errorf("inputs of %d bytes and more are not made up, the card has %d: give files with --input, or more with --memory", total, most)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	var data [][]byte
	for _, t := range g.Inputs {
		n := t.Elements()
		b := make([]byte, 0, t.Bytes())
		for at := 0; at < n; at += randomPart {
			b = append(b, random(r, t.Type, min(randomPart, n-at))...)
		}
		data = append(data, b)
	}
	return data, nil
}

// randomPart elements, which are whole bytes, are made at a time.
const randomPart = 1 << 16

// random is the data of n elements.
func random(r *rand.Rand, t ir.Type, n int) []byte {
	if t.Float() {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return ref.PutFloats(t, v, true)
	}
	lo, hi := t.Range()
	v := make([]int64, n)
	for i := range v {
		v[i] = int64(r.Uint64())
		if span := uint64(hi-lo) + 1; span != 0 {
			v[i] = lo + int64(r.Uint64N(span))
		}
	}
	return ref.PutInts(t, v)
}
