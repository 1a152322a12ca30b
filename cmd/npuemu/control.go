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
	eccArgs struct {
		target
		Kind    string `json:"kind"`
		Memory  string `json:"memory"`
		Address uint64 `json:"address"`
	}
	thermalArgs struct {
		target
		Ambient     *float64 `json:"ambient,omitempty"`
		Temperature *float64 `json:"temperature,omitempty"`
		Model       bool     `json:"model,omitempty"`
	}
	crashArgs struct {
		target
		How string `json:"how"`
	}
	nothing struct{}
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

// at returns t, for the arguments that have one.
func (t target) at() target { return t }

// handler is a command with arguments of type A, for the function that they name.
func handler[A interface{ at() target }](cards [][]*vdev.Device, do func(d *vdev.Device, a A) (any, error)) control.Handler {
	return func(raw json.RawMessage) (any, error) {
		var a A
		if err := control.Decode(raw, &a); err != nil {
			return nil, err
		}
		d, err := a.at().in(cards)
		if err != nil {
			return nil, err
		}
		return do(d, a)
	}
}

// controlCommands are the commands for a server of these cards, each of which is its functions.
func controlCommands(cards [][]*vdev.Device) map[string]control.Handler {
	return map[string]control.Handler{
		"ecc-inject": handler(cards, func(d *vdev.Device, a eccArgs) (any, error) {
			return nothing{}, d.InjectMemoryError(a.Kind, a.Memory, a.Address)
		}),
		"thermal": handler(cards, func(d *vdev.Device, a thermalArgs) (any, error) {
			switch {
			case a.Ambient == nil && a.Temperature == nil && !a.Model:
				return nil, errors.New("nothing to set: use ambient, temperature or model")
			case a.Temperature != nil && a.Model:
				return nil, errors.New("temperature and model exclude each other: the sensor shows one of them")
			}
			return nothing{}, d.SetThermal(a.Ambient, a.Temperature, a.Model)
		}),
		"firmware-crash": handler(cards, func(d *vdev.Device, a crashArgs) (any, error) { return nothing{}, d.CrashFirmware(a.How) }),
		"remove":         handler(cards, func(d *vdev.Device, _ target) (any, error) { return nothing{}, d.Remove() }),
		"insert":         handler(cards, func(d *vdev.Device, _ target) (any, error) { return nothing{}, d.Insert() }),
		"status":         handler(cards, func(d *vdev.Device, _ target) (any, error) { return d.Status(), nil }),
		"aer-inject": handler(cards, func(d *vdev.Device, a injectArgs) (any, error) {
			m, err := d.InjectError(a.Error, a.Header)
			return injectResult{m.String()}, err
		}),
	}
}

func ctlCommand() *cobra.Command {
	var (
		socket string
		to     target
		header string
		eccAt  eccPlace
		heat   thermalFlags
	)
	c := &cobra.Command{
		Use:   "ctl --control PATH COMMAND",
		Short: "Command a running server: status, errors, temperature, removal",
		Long: "ctl sends one command to the control socket of a running server (npuemu serve --control PATH) and prints the\n" +
			"answer as JSON. Guests see nothing of this road. The protocol is in docs/control.md.",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("ctl: give it a command, such as status (see npuemu ctl --help)")
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
	ecc := &cobra.Command{
		Use:   "ecc-inject KIND --memory MEMORY --address ADDRESS",
		Short: "Make a memory error",
		Long: "ecc-inject makes device memory (dram) or the scratchpad have a memory error, as docs/spec/ras.md §12.2 says. A corrected one\n" +
			"is counted and logged. An uncorrected one poisons the 64 bytes around the address besides: commands that read them end\n" +
			"with POISON, until the device overwrites them. In the scratchpad it hits the next program that starts.\n\n" +
			"Kinds: " + strings.Join(vdev.MemoryErrors(), ", ") + ". Memories: " + strings.Join(vdev.Memories(), ", ") + ".",
		Example:   "  npuemu ctl --control /tmp/npu.ctl ecc-inject uncorrected --memory dram --address 0x4000",
		Args:      cobra.ExactArgs(1),
		ValidArgs: vdev.MemoryErrors(),
		RunE: func(c *cobra.Command, args []string) error {
			addr, err := strconv.ParseUint(eccAt.address, 0, 64)
			if err != nil {
				return fmt.Errorf("ctl ecc-inject: --address %q is not an address: use a number such as 0x4000", eccAt.address)
			}
			return call(c, "ecc-inject", eccArgs{to, args[0], eccAt.memory, addr})
		},
	}
	ecc.Flags().StringVar(&eccAt.memory, "memory", "dram", "`memory` that has the error: "+strings.Join(vdev.Memories(), " or "))
	ecc.Flags().StringVar(&eccAt.address, "address", "", "`address` in that memory (required)")
	_ = ecc.MarkFlagRequired("address")
	_ = ecc.RegisterFlagCompletionFunc("memory", cobra.FixedCompletions(vdev.Memories(), cobra.ShellCompDirectiveNoFileComp))

	thermal := &cobra.Command{
		Use:   "thermal",
		Short: "Set the temperature around the card, or what its sensor shows",
		Long: "thermal sets the ambient temperature of the card's thermal model (docs/spec/ras.md §12.4), or makes its sensor show a\n" +
			"temperature whatever the model says. A hot card is slow, and one that is too hot stops until it has cooled (§12.5).",
		Example: "  npuemu ctl --control /tmp/npu.ctl thermal --ambient 50\n" +
			"  npuemu ctl --control /tmp/npu.ctl thermal --temperature 96\n  npuemu ctl --control /tmp/npu.ctl thermal --model",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			a := thermalArgs{target: to, Model: heat.model}
			if c.Flags().Changed("ambient") {
				a.Ambient = &heat.ambient
			}
			if c.Flags().Changed("temperature") {
				a.Temperature = &heat.temperature
			}
			return call(c, "thermal", a)
		},
	}
	thermal.Flags().Float64Var(&heat.ambient, "ambient", 0, "temperature around the card in °`C`; the model follows it")
	thermal.Flags().Float64Var(&heat.temperature, "temperature", 0, "temperature that the sensor shows in °`C`")
	thermal.Flags().BoolVar(&heat.model, "model", false, "the sensor shows the model's temperature again")

	crash := &cobra.Command{
		Use:   "firmware-crash HOW",
		Short: "Make the firmware trap or hang",
		Long: "firmware-crash trap makes the control processor jump to an address where nothing is; hang stops it until its watchdog\n" +
			"fires, after two seconds. BOOT_STATUS then is FAILED, and a crash dump is kept (docs/spec/ras.md §12.8).",
		Example:   "  npuemu ctl --control /tmp/npu.ctl firmware-crash trap",
		Args:      cobra.ExactArgs(1),
		ValidArgs: vdev.FirmwareCrashes(),
		RunE:      func(c *cobra.Command, args []string) error { return call(c, "firmware-crash", crashArgs{to, args[0]}) },
	}
	remove := &cobra.Command{
		Use:   "remove",
		Short: "Take the card away under its guest: surprise removal",
		Long: "remove makes the card answer nothing any more: reads are all-ones, of configuration space too, writes are lost, DMA and\n" +
			"interrupts stop (docs/spec/errors.md §9.4). A VMM keeps what it has mapped of device memory. New clients are turned away.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return call(c, "remove", to) },
	}
	insert := &cobra.Command{
		Use:   "insert",
		Short: "Bring a removed card back, as after a reset of its bus",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return call(c, "insert", to) },
	}
	c.AddCommand(status, inject, ecc, thermal, crash, remove, insert)
	return c
}

// eccPlace and thermalFlags are flags of ctl's commands.
type (
	eccPlace     struct{ memory, address string }
	thermalFlags struct {
		ambient, temperature float64
		model                bool
	}
)

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
