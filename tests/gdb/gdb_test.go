// SPDX-License-Identifier: Apache-2.0

// Package gdb has stock GDB debug the firmware of a card that a driver uses meanwhile.
package gdb

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"npuemu/firmware"
	"npuemu/firmware/gdb"
	"npuemu/internal/uds"
	"npuemu/tests/guest"
	"npuemu/umd"
	"npuemu/vdev"
	"npuemu/vdev/local"
)

// buildFirmware builds the firmware of this tree with the tool root's compiler and returns the ELF file that has its symbols.
func buildFirmware(t *testing.T, e *guest.Env) string {
	t.Helper()
	out := t.TempDir()
	if _, err := e.Build(t.Context(), "../../firmware/src", out, "make", "-s", "payloads"); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(out, "build/fw.elf")
}

// The session of docs/debugging.md: break at functions by name, one of them hit by an admin command of a driver that opens
// the card meanwhile; look and step; go on. The driver notices nothing.
func TestSession(t *testing.T) {
	e := guest.Require(t)
	elf := buildFirmware(t, e)

	dev, err := vdev.New(vdev.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	run := func(f func()) {
		wg.Add(1)
		go func() { defer wg.Done(); f() }()
	}
	defer func() {
		cancel()
		wg.Wait()
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}()
	run(func() { dev.Run(ctx) })
	dir, err := os.MkdirTemp("", "npu") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "gdb")
	ln, err := uds.Listen(socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := gdb.Server{Target: dev.Debugger(), Log: slog.New(slog.DiscardHandler)}
	run(func() {
		if err := s.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})

	// The script says what it sees; ready makes the driver start.
	ready := filepath.Join(dir, "ready")
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, fmt.Appendf(nil, `
set pagination off
set confirm off
set width 0
target remote %s
printf "rom pc %%x\n", $pc
break fw_main
hbreak create_context
shell touch %s
continue
printf "at main %%x misa %%x\n", $pc, $misa
compare-sections
continue
backtrace
info registers sp mcause
printf "id %%x\n", *(unsigned *)0x40001000
set var *(unsigned *)0x10038000 = 0x1234abcd
printf "memory %%x\n", *(unsigned *)0x10038000
set $before = $pc
stepi
printf "stepped %%d\n", $pc != $before
next
watch completion.status
continue
backtrace 1
delete
finish
info registers mstatus mie mtvec mip
detach
`, socket, ready), 0o666); err != nil {
		t.Fatal(err)
	}
	ctx2, cancel2 := context.WithTimeout(ctx, time.Minute)
	defer cancel2()
	cmd := exec.CommandContext(ctx2, e.Tool("gdb-multiarch"), "-nx", "-q", "-batch", "-x", script, elf)
	cmd.Dir = "../.." // where the sources are found
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { t.Logf("gdb:\n%s", &out) }()
	gdbEnded := make(chan error, 1)
	go func() { gdbEnded <- cmd.Wait() }()

	for {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		select {
		case err := <-gdbEnded:
			t.Fatalf("gdb ended early: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	d, err := umd.Open(ctx2, local.Attach(dev), umd.Config{Firmware: firmware.Image()})
	if err != nil {
		t.Fatalf("the driver noticed the debugger: %v", err)
	}
	defer d.Close()
	if err := <-gdbEnded; err != nil {
		t.Errorf("gdb: %v", err)
	}
	if _, err := d.Counters(ctx2); err != nil { // an admin command
		t.Errorf("the card does not work after the debugger has left: %v", err)
	}

	text := out.String()
	for _, want := range []string{
		`(?m)^rom pc [0-9a-f]{1,3}$`, // the ROM waits for START
		`(?s)Breakpoint 1, .*fw_main \(\) at fw/main\.c:`,
		`(?m)^\d+\s+\w+_init\(\);`, // the source
		`(?m)^at main 100[0-9a-f]+ misa 40001105$`,
		`Section .text, range .* matched`,
		`(?s)Breakpoint 2, .*create_context \(.*\) at fw/resources\.c:`,
		`(?m)^#[1-9] .*\badmin_serve \(\) at fw/admin\.c:`,
		`(?m)^#[1-9] .*\bfw_main \(\) at fw/main\.c:`,
		`(?m)^id 4555504e$`,
		`(?m)^memory 1234abcd$`,
		`(?m)^stepped 1$`,
		`watchpoint \d+: completion.status`,
		`(?s)New value = `,
		`(?m)^mtvec +0x100`,
		`\[Inferior 1 \(Remote target\) detached\]`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("gdb did not print %s", want)
		}
	}
	if strings.Contains(text, "MIS-MATCHED") {
		t.Error("the symbols are not those of the firmware that ran")
	}
}
