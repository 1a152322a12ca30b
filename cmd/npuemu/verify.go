// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"npuemu/attach"
	"npuemu/compiler"
	"npuemu/compiler/ir"
	"npuemu/compiler/run"
)

// errDiverges ends verify with status 1 behind what it printed.
var errDiverges = errors.New("what was compared differs")

func verifyCommand() *cobra.Command {
	var (
		cf      configFlags
		o       runOptions
		level   string
		timeout time.Duration
		asJSON  bool
		rules   bool
	)
	c := &cobra.Command{
		Use:   "verify MODEL [WEIGHTS]",
		Short: "Compare a model on a card with the CPU reference, node by node",
		Long: "verify compiles MODEL, runs it on the card and in the compiler's CPU reference, and compares every tensor that a node\n" +
			"computes, to the bit: the outputs in the model as compile makes it, all tensors in one whose memory is not used again, and\n" +
			"those that stay in local memory in one that computes each node by itself. It names the first one that differs, its first element, and the instruction that stored it; the\n" +
			"exit status is then 1.\n\n" +
			"That reference computes the graph behind all passes. So verify also compares it with the model as its operators' rules alone\n" +
			"make it, read again and computed on the CPU without fusion, layout and tables (docs/compiler.md, Checking): the outputs, and every tensor\n" +
			"that the model names and the compiled graph still has. They are equal, to the bit, but where products of floating point were fused,\n" +
			"which rounds anew: there integers may be a step apart, and floating point by 2⁻¹⁶ of the tensor's largest element (fp16 2⁻⁹,\n" +
			"bf16 2⁻⁶; with --float that part of an integer's range besides). A difference is the compiler's fault; the exit status is then 1. --rules=false leaves this out.\n\n" +
			"Without --input the inputs are pseudo-random, the same each time. What is on the host is computed by\n" +
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
			var byRules *compiler.Rules
			if rules {
				if byRules, err = modelSource(args, o.sizes).Rules(); err != nil {
					return err
				}
			}
			bar := newBar(c.ErrOrStderr(), "on the card")
			defer bar.done()
			bar.follow(executed(card))
			v, err := compiler.Verify(ctx, card, g, byRules, attach.Target(o.cfg), inputs, bar.at)
			bar.done()
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			w := c.OutOrStdout()
			if asJSON {
				return printVerified(w, g, v, byRules != nil)
			}
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
			if byRules != nil {
				if d := v.Rules.Difference; d != nil {
					fmt.Fprintln(w, d)
					return errDiverges
				}
				printRules(w, v.Rules)
			}
			r := v.Report
			_, err = fmt.Fprintf(w, "the card counted %d programs, %d instructions, %d multiply-accumulates\n", r.Counters.Programs, r.Counters.Instructions, r.Counters.MACs)
			return err
		},
	}
	c.Flags().StringArrayVar(&o.inputs, "input", nil, "`[NAME=]FILE` with an input; may be repeated")
	c.Flags().StringVar(&o.device, "device", attach.InProcess, "`card` to use: in-process, vfio-user:PATH, or /dev/accel/accelN")
	c.Flags().StringVar(&level, "log", "warn", logUsage)
	c.Flags().BoolVar(&asJSON, "json", false, "print what was found as JSON")
	c.Flags().BoolVar(&rules, "rules", true, "compare with the model as its operators' rules alone make it, too")
	c.Flags().DurationVar(&timeout, "timeout", 10*time.Minute, "give up after this `duration`")
	o.memory.add(c)
	o.sizes.add(c)
	o.images.add(c)
	cf.add(c)
	return c
}

// printRules says how the graph compares with the rules of the model's operators.
func printRules(w io.Writer, r compiler.RulesReport) {
	fmt.Fprintf(w, "by the rules of the model's operators alone: %d tensors of the model are compared with those of the compiled graph; %d are equal, to the bit", r.Compared, r.Compared-r.Differ)
	if r.Differ > 0 {
		fmt.Fprintf(w, ", and %d of the %d behind fused products of floating point are within the tolerance", r.Differ, r.Rounded)
	}
	if r.Skipped > 0 {
		fmt.Fprintf(w, "; %d behind such products count or compare, and are not compared", r.Skipped)
	}
	fmt.Fprintln(w)
}

// verifiedSummary is what verify prints as JSON.
type verifiedSummary struct {
	Model      string                `json:"model"`
	Equal      bool                  `json:"equal"` // all of it
	Nodes      int                   `json:"nodes"`
	Tensors    int                   `json:"tensors"`
	Within     int                   `json:"tensors_in_local_memory"`
	OnHost     []hostNode            `json:"operators_on_host"`
	Divergence *divergence           `json:"divergence"`      // of card and reference
	Rules      *compiler.RulesReport `json:"rules,omitempty"` // without them, nothing
	Counters   run.Counters          `json:"counters"`
}

// divergence is a compiler.Divergence.
type divergence struct {
	Node        string   `json:"node"`
	Op          string   `json:"op"`
	Tensor      string   `json:"tensor"`
	Type        string   `json:"type"`
	Shape       []int    `json:"shape"`
	Index       []int    `json:"index"`
	Want        string   `json:"want"` // bytes of the element, as they are in memory
	Got         string   `json:"got"`
	Differ      int      `json:"differ"`
	Of          int      `json:"of"`
	Program     int      `json:"program"`
	Instruction int      `json:"instruction"`
	Text        string   `json:"text"`
	Tile        [][2]int `json:"tile"`
	With        []string `json:"with,omitempty"`
}

func printVerified(w io.Writer, g *ir.Graph, v compiler.Verified, rules bool) error {
	s := verifiedSummary{Model: g.Name, Nodes: len(g.Nodes), Tensors: v.Tensors, Within: v.Within, OnHost: []hostNode{}, Counters: v.Report.Counters}
	for _, h := range v.Hosts {
		s.OnHost = append(s.OnHost, hostNode{h.Name, h.Op, h.Reason})
	}
	if d := v.Divergence; d != nil {
		s.Divergence = &divergence{
			Node: d.Node, Op: d.Op, Tensor: d.Tensor, Type: d.Type.String(), Shape: d.Shape, Index: d.Index, Want: fmt.Sprintf("%x", d.Want), Got: fmt.Sprintf("%x", d.Got),
			Differ: d.Differ, Of: d.Of, Program: d.Program, Instruction: d.Instruction, Text: d.Text, Tile: d.Tile, With: d.With,
		}
	}
	if rules {
		s.Rules = &v.Rules
	}
	s.Equal = v.Divergence == nil && v.Rules.Difference == nil
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(s); err != nil {
		return err
	}
	if !s.Equal {
		return errDiverges
	}
	return nil
}
