// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"npuemu/internal/control"
	"npuemu/mmio/npureg"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
	"npuemu/vdev/vhostuser"
)

// configFlags are the flags that choose a card.
type configFlags struct {
	file, arch string
}

func (f *configFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.file, "config", "", "TOML `file` with the card's configuration (default: npuemu info --defaults)")
	c.Flags().StringVar(&f.arch, "arch", "", fmt.Sprintf("architecture `version` to present, one of %v", vdev.Arches()))
	_ = c.RegisterFlagCompletionFunc("arch", cobra.FixedCompletions(vdev.Arches(), cobra.ShellCompDirectiveNoFileComp))
	_ = c.MarkFlagFilename("config", "toml")
}

// load returns the configuration that the flags ask for.
func (f *configFlags) load() (vdev.Config, error) {
	cfg := vdev.DefaultConfig()
	if f.file != "" {
		b, err := os.ReadFile(f.file)
		if err != nil {
			return cfg, fmt.Errorf("configuration: %w", err)
		}
		if cfg, err = vdev.ParseConfig(b); err != nil {
			return cfg, fmt.Errorf("%s: %w", f.file, err)
		}
	}
	if f.arch != "" {
		cfg.Arch = f.arch
	}
	return cfg, cfg.Validate()
}

func serveCommand() *cobra.Command {
	var (
		cf    configFlags
		opt   serveOptions
		level string
	)
	c := &cobra.Command{
		Use:   "serve --socket PATH",
		Short: "Be the card: wait for a VMM on a vfio-user or vhost-user socket",
		Long: "serve presents one NPU on a UNIX socket, until SIGINT or SIGTERM. One client is served at a\n" +
			"time; when it leaves, the card is reset and keeps only its device memory.\n\n" +
			"QEMU 10.1 or later needs shared guest memory and the device in JSON form:\n\n" +
			"  -object memory-backend-memfd,id=mem,size=1G,share=on -machine q35,memory-backend=mem\n" +
			"  -device '{\"driver\":\"vfio-user-pci\",\"socket\":{\"path\":\"PATH\",\"type\":\"unix\"}}'\n\n" +
			"With --transport vhost-user the NPU is a virtio device (docs/spec/virtio-npu.md), for QEMU 11.1 or later:\n\n" +
			"  -chardev socket,id=npu,path=PATH\n" +
			fmt.Sprintf("  -device vhost-user-test-device-pci,chardev=npu,virtio-id=%d,num_vqs=QUEUES+2,config_size=%d", vdev.VirtioIDInQEMU, vdev.VirtioConfigSize),
		Example: "  npuemu serve --socket /tmp/npu.sock\n  npuemu serve --socket /tmp/npu.sock --config card.toml --log debug --once",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var lv slog.Level
			if err := lv.UnmarshalText([]byte(level)); err != nil {
				return fmt.Errorf("--log %q: use debug, info, warn or error", level)
			}
			cfg, err := cf.load()
			if err != nil {
				return err
			}
			cfg.Log = slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: lv}))
			return serve(c.Context(), cfg, opt)
		},
	}
	c.Flags().StringVar(&opt.socket, "socket", "", "`path` of the UNIX socket to listen on (required)")
	c.Flags().StringVar(&opt.transport, "transport", "vfio-user", "what the socket speaks, `vfio-user` or vhost-user")
	c.Flags().StringVar(&level, "log", "info", "least `level` that is logged: debug, info, warn, error")
	c.Flags().BoolVar(&opt.once, "once", false, "exit when the first client has left")
	c.Flags().StringVar(&opt.control, "control", "", "`path` of a UNIX socket for npuemu ctl; only this user may connect")
	_ = c.MarkFlagRequired("socket")
	_ = c.RegisterFlagCompletionFunc("transport", cobra.FixedCompletions([]string{"vfio-user", "vhost-user"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("log", cobra.FixedCompletions([]string{"debug", "info", "warn", "error"}, cobra.ShellCompDirectiveNoFileComp))
	cf.add(c)
	return c
}

// A server presents the card to clients (package vdev/vfiouser, vdev/vhostuser).
type server interface {
	Serve(ctx context.Context, ln *net.UnixListener) error
	ServeConn(ctx context.Context, nc *net.UnixConn) error
}

// serveOptions are the flags of serve that do not choose a card.
type serveOptions struct {
	socket, transport, control string
	once                       bool
}

// serve runs a card until ctx is done or, with opt.once, until its first client has
// left.
func serve(ctx context.Context, cfg vdev.Config, opt serveOptions) (err error) {
	if opt.transport != "vfio-user" && opt.transport != "vhost-user" {
		return fmt.Errorf("--transport %q: use vfio-user or vhost-user", opt.transport)
	}
	d, err := vdev.New(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	ln, err := vfiouser.Listen(opt.socket)
	if err != nil {
		return err
	}
	defer ln.Close()
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	run := func(f func(context.Context)) {
		wg.Add(1)
		go func() { defer wg.Done(); f(ctx) }()
	}
	if opt.control != "" {
		cl, err := control.Listen(opt.control)
		if err != nil {
			return fmt.Errorf("--control: %w", err)
		}
		s := &control.Server{Commands: controlCommands([]*vdev.Device{d}), Log: cfg.Log}
		run(func(ctx context.Context) {
			if err := s.Serve(ctx, cl); err != nil {
				cfg.Log.Error("the control socket is lost; the card goes on", "error", err)
			}
		})
	}
	run(d.Run)
	var srv server = vfiouser.NewServer(vfiouser.Config{Log: cfg.Log}, d)
	if opt.transport == "vhost-user" {
		v := vdev.NewParavirt(d)
		run(v.Run)
		srv = vhostuser.NewServer(vhostuser.Config{Log: cfg.Log}, v)
	}

	cfg.Log.Info("listening", "transport", opt.transport, "socket", opt.socket, "arch", cfg.Arch,
		"array", fmt.Sprintf("%dx%d", cfg.Array.Rows, cfg.Array.Cols), "memory", cfg.Memory.Size)
	if opt.once {
		var nc *net.UnixConn
		if nc, err = accept(ctx, ln); err == nil {
			err = srv.ServeConn(ctx, nc)
		}
	} else {
		err = srv.Serve(ctx, ln)
	}
	if errors.Is(err, context.Canceled) {
		err = nil // SIGTERM is how a card is switched off
	}
	stop()
	wg.Wait()
	report(cfg.Log, d)
	return err
}

// report logs what the card did and what guests did wrong.
func report(log *slog.Logger, d *vdev.Device) {
	log.Info("switched off", "commands", d.Counter(npureg.CounterCommands), "errors", d.Counter(npureg.CounterErrors),
		"programs", d.Counter(npureg.CounterPrograms), "macs", d.Counter(npureg.CounterMACs), "interrupts", d.Counter(npureg.CounterInterrupts))
	for _, f := range d.Findings() {
		log.Info("finding", "id", f.ID, "count", f.Count, "rule", f.Rule, "last", f.Last)
	}
}

// accept takes one connection, or returns ctx's error.
func accept(ctx context.Context, ln *net.UnixListener) (*net.UnixConn, error) {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	nc, err := ln.AcceptUnix()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nc, err
}
