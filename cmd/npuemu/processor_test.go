// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A run ends with its time, and with a signal, whatever the program does, and where the card and who waits for it have one
// processor between them.
func TestOneProcessor(t *testing.T) {
	const large = ".isa 1.1\n.features gemm, float, control\n.array 32, 32\n.spad 0x80000\n.acc 0x40000\n.bindings 0\n" +
		"loop reg=s0 count=60000\noperands a_type=fp32 b_type=fp32 a_stride=1024 b_stride=1024 acc_stride=1024\ngemm m=256 n=256 k=256 a=0 b=0x40000 acc=0\nend\nhalt\n"
	const small = ".isa 1.1\n.features gemm, control\n.array 32, 32\n.spad 64\n.bindings 0\n" +
		"loop reg=s0 count=2000\nloop reg=s1 count=4000\nfill local=0 nx=8 ny=1 value=1\nend\nend\nhalt\n"
	before := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	for name, text := range map[string]string{"large instructions": large, "small instructions": small} {
		program := filepath.Join(t.TempDir(), "p.npu") // the assembler goes through loops, too
		if _, _, err := npuemu(t.Context(), "asm", file(t, "p.npuasm", text), "-o", program); err != nil {
			t.Fatal(err)
		}
		t.Run(name+", time", func(t *testing.T) {
			began := time.Now()
			_, _, err := npuemu(t.Context(), "run", program, "--timeout", "1s")
			if err == nil || !strings.Contains(err.Error(), "no result within --timeout 1s") {
				t.Errorf("the error is %v", err)
			}
			if d := time.Since(began); d > 8*time.Second {
				t.Errorf("it took %v", d)
			}
		})
		t.Run(name+", signal", func(t *testing.T) {
			ctx, stop := signal.NotifyContext(t.Context(), os.Interrupt)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			time.AfterFunc(500*time.Millisecond, func() {
				if err := unix.Kill(os.Getpid(), unix.SIGINT); err != nil {
					t.Error(err)
				}
			})
			began := time.Now()
			if _, _, err := npuemu(ctx, "run", program); err == nil || !strings.Contains(err.Error(), "interrupt signal received") {
				t.Errorf("the error is %v", err)
			}
			if d := time.Since(began); d > 8*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}
