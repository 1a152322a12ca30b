// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"npuemu/core/isa"
	"npuemu/firmware"
	"npuemu/firmware/image"
	"npuemu/mmio"
	"npuemu/mmio/npureg"
	"npuemu/vdev"
)

func infoCommand() *cobra.Command {
	var (
		cf                          configFlags
		asJSON, defaults, registers bool
		config                      bool
	)
	c := &cobra.Command{
		Use:   "info",
		Short: "Print a card's parameters and its register map",
		Long:  "info prints what a card with this configuration shows to software. Without flags: parameters, then the registers of §2.1.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := cf.load()
			if err != nil {
				return err
			}
			w := c.OutOrStdout()
			switch {
			case defaults:
				return toml.NewEncoder(w).Encode(vdev.DefaultConfig())
			case config:
				d, err := vdev.New(cfg)
				if err != nil {
					return err
				}
				defer d.Close()
				return d.WriteConfigDump(w)
			case asJSON:
				e := json.NewEncoder(w)
				e.SetIndent("", "  ")
				return e.Encode(infoJSON(cfg))
			}
			if !registers {
				if err := printParameters(w, cfg); err != nil {
					return err
				}
				fmt.Fprintln(w)
			}
			return printRegisters(w)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print parameters and registers as JSON")
	c.Flags().BoolVar(&defaults, "defaults", false, "print the default configuration as TOML")
	c.Flags().BoolVar(&registers, "registers", false, "print only the register map")
	c.Flags().BoolVar(&config, "config-space", false, "print the PCI config space as a dump for lspci -F")
	c.MarkFlagsMutuallyExclusive("json", "defaults", "registers", "config-space")
	cf.add(c)
	return c
}

// parameter is a line of info.
type parameter struct {
	Name  string `json:"name"`
	Value any    `json:"value"`
	Unit  string `json:"unit,omitempty"`
}

func parameters(cfg vdev.Config) []parameter {
	minor, groups := cfg.ISA()
	p := []parameter{
		{"pci_id", fmt.Sprintf("%04x:%04x", vdev.VendorID, vdev.DeviceID), ""},
		{"arch", cfg.Arch, ""},
		{"isa", fmt.Sprintf("%d.%d", isa.Major, minor), ""},
		{"groups", strings.Join(isa.GroupNames(groups), ", "), ""},
		{"array_rows", cfg.Array.Rows, ""},
		{"array_cols", cfg.Array.Cols, ""},
		{"scratchpad", cfg.Array.Scratchpad, "bytes"},
		{"accumulators", cfg.Array.Accumulators, "bytes"},
		{"device_memory", cfg.Memory.Size, "bytes"},
		{"user_queues", cfg.Queues.Count, ""},
		{"max_ring_entries", cfg.Queues.MaxEntries, ""},
		{"contexts", cfg.Queues.Contexts, ""},
		{"msix_vectors", cfg.Queues.Vectors, ""},
	}
	if h, _, err := image.Parse(firmware.Image()); err == nil {
		p = append(p, parameter{"firmware_shipped", fmt.Sprintf("%v, interface %d.%d", h.Build, npureg.FirmwareMajor, h.InterfaceMinor), ""})
	}
	return p
}

func printParameters(w io.Writer, cfg vdev.Config) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, p := range parameters(cfg) {
		fmt.Fprintf(t, "%s\t%v %s\n", p.Name, p.Value, p.Unit)
	}
	return t.Flush()
}

func printRegisters(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "OFFSET\tREGISTER\tSECTION\tMEANING")
	for _, r := range npureg.Host() {
		fmt.Fprintf(t, "0x%03x\t%s\t%s\t%s\n", r.Off, r.Name, r.Spec, r.Doc)
		for _, f := range r.Fields {
			fmt.Fprintf(t, "\t  %d:%d %s\t\t%s\n", f.Shift+f.Width-1, f.Shift, f.Name, f.Doc)
		}
	}
	return t.Flush()
}

func infoJSON(cfg vdev.Config) any {
	return struct {
		Parameters []parameter     `json:"parameters"`
		Registers  []mmio.Register `json:"registers"`
	}{parameters(cfg), npureg.Host()}
}
