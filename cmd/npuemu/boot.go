// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"npuemu/vdev"
	"npuemu/vdev/gokvm"
)

func bootCommand() *cobra.Command {
	var (
		cf             configFlags
		kernel, initrd string
		payload        string
		cmdline, level string
		memory         int64
		debug          debugFlags
	)
	c := &cobra.Command{
		Use:   "boot {--kernel BZIMAGE | --payload FILE}",
		Short: "Boot Linux, or bare-metal code, with the card in this process, without QEMU",
		Long: "boot runs a guest in this process with the card on its PCI bus, through KVM and gokvm. It needs /dev/kvm, a Linux\n" +
			"bzImage for x86-64 and, usually, an initramfs. The guest has one CPU and a serial console on this terminal, and\n" +
			"neither disk nor network. boot ends when the guest reboots (reboot -f), or on SIGINT or SIGTERM.\n\n" +
			"--payload runs code without an operating system: FILE is put at 1 MiB and entered at its first byte in 64-bit mode, with\n" +
			"the first 4 GiB mapped one to one, interrupts off, and no stack. The NPU is 00:01.0, its BARs are not placed; the\n" +
			"serial port is at 0x3f8; a write of 6 to port 0xcf9 ends it.",
		Example: "  npuemu boot --kernel bzImage --initrd initramfs.cpio.gz\n  npuemu boot --kernel bzImage --initrd i.cpio --memory 1024 --append 'console=ttyS0 panic=-1 quiet'",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			log, err := newLog(c.ErrOrStderr(), level)
			if err != nil {
				return err
			}
			cfg, err := cf.load()
			if err != nil {
				return err
			}
			cfg.Log = log
			if err := debug.check(1); err != nil {
				return err
			}
			guest := gokvm.Config{Memory: memory << 20, Cmdline: cmdline, Console: c.OutOrStdout(), Input: c.InOrStdin(), Log: cfg.Log}
			if payload != "" {
				if guest.Payload, err = os.ReadFile(payload); err != nil {
					return fmt.Errorf("--payload: %w", err)
				}
				if len(guest.Payload) == 0 {
					return fmt.Errorf("--payload: %s is empty", payload)
				}
				return boot(c.Context(), cfg, debug, guest)
			}
			k, err := os.Open(kernel)
			if err != nil {
				return fmt.Errorf("--kernel: %w", err)
			}
			defer k.Close()
			guest.Kernel = k
			if initrd != "" {
				i, err := os.Open(initrd)
				if err != nil {
					return fmt.Errorf("--initrd: %w", err)
				}
				defer i.Close()
				guest.Initrd = i
			}
			return boot(c.Context(), cfg, debug, guest)
		},
	}
	c.Flags().StringVar(&kernel, "kernel", "", "Linux bzImage `file`")
	c.Flags().StringVar(&payload, "payload", "", "bare-metal code, a flat binary `file`")
	c.Flags().StringVar(&initrd, "initrd", "", "initramfs `file`")
	c.Flags().StringVar(&cmdline, "append", "console=ttyS0 panic=-1", "the kernel's command `line`")
	c.Flags().Int64Var(&memory, "memory", gokvm.DefaultMemory>>20, "guest memory in `MiB`, 16 to 3072")
	c.Flags().StringVar(&level, "log", "warn", logUsage)
	c.MarkFlagsOneRequired("kernel", "payload")
	c.MarkFlagsMutuallyExclusive("payload", "kernel")
	c.MarkFlagsMutuallyExclusive("payload", "initrd")
	cf.add(c)
	debug.add(c)
	return c
}

// boot runs a guest with a card until it reboots or ctx is done.
func boot(ctx context.Context, cfg vdev.Config, debug debugFlags, guest gokvm.Config) error {
	d, err := vdev.New(cfg)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	run := func(f func(context.Context)) {
		wg.Add(1)
		go func() { defer wg.Done(); f(ctx) }()
	}
	closeTrace, err := debug.start(cfg.Log, 0, d, run)
	if err == nil {
		run(d.Run)
		err = gokvm.Boot(ctx, d, guest)
	}
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	stop()
	wg.Wait()
	report(cfg.Log, d)
	return errors.Join(err, d.Close(), closeTrace())
}
