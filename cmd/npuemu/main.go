// SPDX-License-Identifier: Apache-2.0

// Command npuemu is the virtual NPU card: npuemu serve waits for a VMM on a
// vfio-user socket. The other subcommands look at the card and its programs.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"npuemu/core/isa"
	"npuemu/mmio/npureg"
)

// version is set by the linker (make build).
var version = "unknown"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := root().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "npuemu:", err)
		os.Exit(exitStatus(err))
	}
}

// statusFindings is the exit status of a run whose only fault is findings, with --strict. Go's own of a crash is 2.
const statusFindings = 3

// findingsError says that something ran, and left findings.
type findingsError struct{ error }

// exitStatus is that of a command with this error.
func exitStatus(err error) int {
	var f findingsError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &f):
		return statusFindings
	}
	return 1
}

func root() *cobra.Command {
	c := &cobra.Command{
		Use:   "npuemu",
		Short: "A virtual NPU card for QEMU, over vfio-user",
		Long: "npuemu is a process that is a PCIe neural processing unit: PCI function, registers, DMA, control processor with\n" +
			"firmware, and a systolic compute core. Stock QEMU 10.1 or later plugs it into a virtual machine.",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error { return fmt.Errorf("%w; see %s --help", err, c.CommandPath()) })
	c.AddCommand(serveCommand(), ctlCommand(), bootCommand(), runCommand(), compileCommand(), verifyCommand(), estimateCommand(), infoCommand(),
		asmCommand(), disasmCommand(), lintCommand(), versionCommand())
	return c
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the versions of program, architecture, firmware interface and ISA",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			v := version
			if b, ok := debug.ReadBuildInfo(); ok && v == "unknown" && b.Main.Version != "" {
				v = b.Main.Version
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "npuemu %s\nhardware architecture %d.%d\nfirmware interface %d\nISA %d.%d\n%s %s/%s\n", v,
				npureg.ArchMajor, npureg.ArchMinor, npureg.FirmwareMajor, isa.Major, isa.Minor, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
}
