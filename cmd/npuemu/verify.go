// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"npuemu/attach"
	"npuemu/compiler"
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
			"computes, to the bit: the outputs in the model as compile makes it, all tensors in one whose memory is not used again, and\n" +
			"those that stay in local memory in one that computes each node by itself. It names the first one that differs, its first element, and the instruction that stored it; the\n" +
			"exit status is then 1. Without --input the inputs are pseudo-random, the same each time. What is on the host is computed by\n" +
			"the reference, so that its result is equal by itself; the number of such nodes is printed. " + weightsHelp + "\n\n" + strings.TrimSuffix(imageHelp, "\n"),
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
			if err := o.images.check(o.inputs); err != nil {
				return err
			}
			g, err := loadGraph(c, args, o.sizes, nil)
			if err != nil {
				return err
			}
			var inputs [][]byte
			if len(o.inputs) > 0 {
				inputs, err = readTensors(tensors(g.Inputs), nil, o.inputs, o.images)
			} else {
				inputs, err = madeUp(tensors(g.Inputs), indexes(g), nil, int(o.memory.bytes()))
			}
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
			bar := newBar(c.ErrOrStderr(), "on the card")
			defer bar.done()
			v, err := compiler.Verify(ctx, card, g, attach.Target(o.cfg), inputs, bar.at)
			bar.done()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			w := c.OutOrStdout()
			for _, h := range v.Hosts {
				fmt.Fprintf(w, "on the host: %s %s: %s\n", h.Op, h.Name, h.Reason)
			}
			if v.Divergence != nil {
				fmt.Fprintln(w, v.Divergence)
				return errDiverges
			}
			fmt.Fprintf(w, "%s: the outputs, and all %d tensors of %d nodes, are equal to the reference's, to the bit; %d nodes are on the host\n", g.Name, v.Tensors, len(g.Nodes), len(v.Hosts))
			if v.Within > 0 {
				fmt.Fprintf(w, "%d tensors, which the model has in local memory alone, were compared in a model that computes each node by itself\n", v.Within)
			}
			r := v.Report
			_, err = fmt.Fprintf(w, "the card counted %d programs, %d instructions, %d multiply-accumulates\n", r.Counters.Programs, r.Counters.Instructions, r.Counters.MACs)
			return err
		},
	}
	c.Flags().StringArrayVar(&o.inputs, "input", nil, "`[NAME=]FILE` with an input; may be repeated")
	c.Flags().StringVar(&o.device, "device", attach.InProcess, "`card` to use: in-process, vfio-user:PATH, or /dev/accel/accelN")
	c.Flags().StringVar(&level, "log", "warn", logUsage)
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up after this `duration`")
	o.memory.add(c)
	o.sizes.add(c)
	o.images.add(c)
	cf.add(c)
	return c
}
