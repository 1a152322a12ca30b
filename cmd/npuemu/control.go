// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"npuemu/internal/control"
	"npuemu/vdev"
)

// Arguments and results of the control socket's commands (docs/control.md).
type (
	target struct {
		Card     int `json:"card"`
		Function int `json:"function"`
	}
	injectArgs struct {
		target
		Error  string   `json:"error"`
		Header []uint32 `json:"header,omitempty"`
	}
	injectResult struct {
		Message string `json:"message"`
	}
)

// in returns the function that t names.
func (t target) in(cards [][]*vdev.Device) (*vdev.Device, error) {
	if t.Card < 0 || t.Card >= len(cards) {
		return nil, fmt.Errorf("card %d: this server has 0 to %d, in the order of --socket", t.Card, len(cards)-1)
	}
	functions := cards[t.Card]
	if t.Function < 0 || t.Function >= len(functions) {
		return nil, fmt.Errorf("function %d: card %d has 0 to %d", t.Function, t.Card, len(functions)-1)
	}
	return functions[t.Function], nil
}

// controlCommands are the commands for a server of these cards, each of which is its functions.
func controlCommands(cards [][]*vdev.Device) map[string]control.Handler {
	return map[string]control.Handler{
		"status": func(raw json.RawMessage) (any, error) {
			var a target
			if err := control.Decode(raw, &a); err != nil {
				return nil, err
			}
			d, err := a.in(cards)
			if err != nil {
				return nil, err
			}
			return d.Status(), nil
		},
		"aer-inject": func(raw json.RawMessage) (any, error) {
			var a injectArgs
			if err := control.Decode(raw, &a); err != nil {
				return nil, err
			}
			d, err := a.in(cards)
			if err != nil {
				return nil, err
			}
			m, err := d.InjectError(a.Error, a.Header)
			if err != nil {
				return nil, err
			}
			return injectResult{m.String()}, nil
		},
	}
}

func ctlCommand() *cobra.Command {
	var (
		socket string
		to     target
		header string
	)
	c := &cobra.Command{
		Use:   "ctl --control PATH COMMAND",
		Short: "Command a running server: status, error injection",
		Long: "ctl sends one command to the control socket of a running server (npuemu serve --control PATH) and prints the\n" +
			"answer as JSON. Guests see nothing of this road. The protocol is in docs/control.md.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("ctl: give it a command, status or aer-inject (see npuemu ctl --help)")
		},
	}
	c.PersistentFlags().StringVar(&socket, "control", "", "`path` of the server's control socket (required)")
	c.PersistentFlags().IntVar(&to.Card, "card", 0, "`number` of the card, in the order of the server's --socket flags, from 0")
	c.PersistentFlags().IntVar(&to.Function, "function", 0, "`number` of the function: 0, or 1 and up for virtual functions")
	_ = c.MarkPersistentFlagRequired("control")
	_ = c.MarkPersistentFlagFilename("control")

	call := func(c *cobra.Command, command string, args any) error {
		result, err := control.Call(c.Context(), socket, command, args)
		if err != nil {
			return fmt.Errorf("ctl %s: %w", command, err)
		}
		var b bytes.Buffer
		if err := json.Indent(&b, result, "", "  "); err != nil {
			return fmt.Errorf("ctl %s: reply: %w", command, err)
		}
		_, err = fmt.Fprintln(c.OutOrStdout(), b.String())
		return err
	}
	status := &cobra.Command{
		Use:   "status",
		Short: "Print power state, interrupts, error logs and findings of a function",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return call(c, "status", to) },
	}
	inject := &cobra.Command{
		Use:   "aer-inject ERROR",
		Short: "Make the function have a PCI Express error",
		Long: "aer-inject makes the function detect an error of the link or of its own, as docs/spec/pci.md §1.6 says: Device Status,\n" +
			"AER status, First Error Pointer and header log. It prints the error message that the host wanted for it; no transport\n" +
			"carries messages to a root complex. With [pci] error_interrupt, a fatal one raises VFIO's error interrupt, and QEMU\n" +
			"stops its machine.\n\nErrors: " + strings.Join(vdev.ErrorKinds(), ", ") + ".",
		Example:   "  npuemu ctl --control /tmp/npu.ctl aer-inject bad-tlp\n  npuemu ctl --control /tmp/npu.ctl aer-inject poisoned-tlp --header 0x40000001,0xf,0xfe000010",
		Args:      cobra.ExactArgs(1),
		ValidArgs: vdev.ErrorKinds(),
		RunE: func(c *cobra.Command, args []string) error {
			h, err := parseHeader(header)
			if err != nil {
				return err
			}
			return call(c, "aer-inject", injectArgs{to, args[0], h})
		},
	}
	inject.Flags().StringVar(&header, "header", "", "the packet's header: 1 to 4 `doublewords`, with commas between")
	c.AddCommand(status, inject)
	return c
}

// parseHeader reads the doublewords of --header.
func parseHeader(s string) ([]uint32, error) {
	if s == "" {
		return nil, nil
	}
	var h []uint32
	for f := range strings.SplitSeq(s, ",") {
		v, err := strconv.ParseUint(strings.TrimSpace(f), 0, 32)
		if err != nil {
			return nil, fmt.Errorf("--header %q: %q is not a doubleword: use numbers such as 0x40000001, with commas between", s, f)
		}
		h = append(h, uint32(v))
	}
	return h, nil
}
