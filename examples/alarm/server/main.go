// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command server serves the function of package alarm to one client, and ends when
// that leaves. libvfio-user's sample client starts a second one to migrate to.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"

	"npuemu/examples/alarm"
	"npuemu/internal/uds"
	"npuemu/vdev/vfiouser"
)

func main() {
	verbose := flag.Bool("v", false, "log what the function does")
	strict := flag.Bool("strict", true, "answer as libvfio-user's server where others expect something else; its client needs that")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: server [-v] [-strict=false] SOCKET\n\nServes a PCI function with an alarm clock over vfio-user to one client at the UNIX\n"+
			"socket SOCKET, and ends when the client leaves, or at SIGINT or SIGTERM.")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(flag.Arg(0), *verbose, *strict); err != nil {
		fmt.Fprintln(os.Stderr, "server:", err)
		os.Exit(1)
	}
}

func run(path string, verbose, strict bool) (err error) {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	level := slog.LevelWarn
	if verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	d, err := alarm.New(log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	ln, err := uds.Listen(path, nil)
	if err != nil {
		return err
	}
	stopAccept := context.AfterFunc(ctx, func() { ln.Close() })
	defer stopAccept()
	nc, err := ln.AcceptUnix()
	ln.Close()
	if err == nil {
		err = vfiouser.NewServer(vfiouser.Config{Log: log, Strict: strict}, d).ServeConn(ctx, nc)
	}
	if ctx.Err() != nil {
		return nil // a signal ended it
	}
	return err
}
