// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"npuemu/attach"
	"npuemu/firmware/gdb"
	"npuemu/internal/uds"
	"npuemu/vdev"
)

const gdbUsage = "let GDB debug the control processor through `ADDR`: :PORT or HOST:PORT, or the path of a UNIX socket, with a / in it"

// debugFlags are the flags that look into control processors: each is given as often as there are cards, or less.
type debugFlags struct {
	gdb   []string
	trace []string
	limit int64 // of a trace file, in MiB
}

func (f *debugFlags) add(c *cobra.Command) {
	c.Flags().StringArrayVar(&f.gdb, "gdb", nil, gdbUsage)
	c.Flags().StringArrayVar(&f.trace, "cp-trace", nil, "write each instruction of the control processor to `FILE`")
	c.Flags().Int64Var(&f.limit, "cp-trace-limit", 64, "when FILE has so many `MiB` it becomes FILE.1, and a new one begins")
	_ = c.MarkFlagFilename("cp-trace")
}

// check compares the flags with the number of cards.
func (f *debugFlags) check(cards int) error {
	for _, l := range []struct {
		flag  string
		given []string
	}{{"--gdb", f.gdb}, {"--cp-trace", f.trace}} {
		if n := len(l.given); n > cards {
			return fmt.Errorf("%s is given %d times and there are %d cards: the first is the first card's, and so on; - leaves a card out", l.flag, n, cards)
		}
		for i, v := range l.given {
			if v != "-" && slices.Contains(l.given[:i], v) {
				return fmt.Errorf("%s %s is given twice: every card needs one of its own", l.flag, v)
			}
		}
	}
	if f.limit < 1 || f.limit > 1<<20 {
		return fmt.Errorf("--cp-trace-limit %d: use 1 to %d MiB", f.limit, 1<<20)
	}
	return nil
}

// start starts what the flags ask for card number i, which does not run yet. run starts a function that ends with its
// context. close is for when the card has ended.
func (f *debugFlags) start(log *slog.Logger, i int, d *vdev.Device, run func(func(context.Context))) (closeTrace func() error, err error) {
	closeTrace = func() error { return nil }
	if i < len(f.trace) && f.trace[i] != "-" {
		t, err := attach.NewTraceFile(f.trace[i], f.limit<<20)
		if err != nil {
			return closeTrace, fmt.Errorf("--cp-trace: %w", err)
		}
		d.TraceControlProcessor(t)
		closeTrace = t.Close
	}
	if i >= len(f.gdb) || f.gdb[i] == "-" {
		return closeTrace, nil
	}
	ln, err := listenGDB(log, f.gdb[i])
	if err != nil {
		return closeTrace, err
	}
	log.Info("gdb: listening", "address", f.gdb[i])
	s := gdb.Server{Target: d.Debugger(), Log: log}
	run(func(ctx context.Context) {
		if err := s.Serve(ctx, ln); err != nil {
			log.Error("the road for GDB is lost; the card goes on", "error", err)
		}
	})
	return closeTrace, nil
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
