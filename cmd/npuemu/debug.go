// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"npuemu/firmware/gdb"
	"npuemu/internal/uds"
	"npuemu/vdev"
)

const gdbUsage = "let GDB debug the control processor through `ADDR`: :PORT or HOST:PORT, or the path of a UNIX socket, with a / in it"

// debugFlags are the flags that look into control processors: each is given as often as there are cards, or less.
type debugFlags struct {
	gdb []string
}

func (f *debugFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.gdb, "gdb", nil, gdbUsage)
}

// check compares the flags with the number of cards.
func (f *debugFlags) check(cards int) error {
	if n := len(f.gdb); n > cards {
		return fmt.Errorf("--gdb is given %d times for %d cards: the first is the first card's, and so on; - leaves a card out", n, cards)
	}
	return nil
}

// start starts what the flags ask for card number i. run starts a function that ends with its context.
func (f *debugFlags) start(log *slog.Logger, i int, d *vdev.Device, run func(func(context.Context))) error {
	if i >= len(f.gdb) || f.gdb[i] == "-" {
		return nil
	}
	ln, err := listenGDB(log, f.gdb[i])
	if err != nil {
		return err
	}
	log.Info("gdb: listening", "address", f.gdb[i])
	s := gdb.Server{Target: d.Debugger(), Log: log}
	run(func(ctx context.Context) {
		if err := s.Serve(ctx, ln); err != nil {
			log.Error("the road for GDB is lost; the card goes on", "error", err)
		}
	})
	return nil
}

// listenGDB opens what --gdb names. Without a host it is this machine's alone.
func listenGDB(log *slog.Logger, addr string) (net.Listener, error) {
	if strings.Contains(addr, "/") {
		ln, err := uds.Listen(addr, nil)
		if err != nil {
			return nil, fmt.Errorf("--gdb %s: %w", addr, err)
		}
		return ln, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("--gdb %q: use :PORT, HOST:PORT, or a path with a / in it for a UNIX socket", addr)
	}
	if host == "" {
		host = "127.0.0.1"
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("--gdb %s: %w; choose another port, or a UNIX socket", addr, err)
	}
	if a, ok := ln.Addr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		log.Warn("gdb: other machines can reach this port; whoever connects is master of the control processor and, through its mover, of guest memory", "address", ln.Addr())
	}
	return ln, nil
}
