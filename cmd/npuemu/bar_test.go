// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// On a terminal work shows how far it is, also while one step takes long, and takes the line away in the end; elsewhere it writes nothing.
func TestBar(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal can be made here: %v", err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal can be made here: %v", err)
	}
	defer terminal.Close()
	b := newBar(terminal, "passes")
	b.at(1, 3, "the second")
	shown, buf := "", make([]byte, 4096)
	read := func(want string) {
		t.Helper()
		for !strings.Contains(shown, want) {
			n, err := master.Read(buf)
			if err != nil {
				t.Fatalf("%q, then %v", shown, err)
			}
			shown += string(buf[:n])
		}
	}
	read("[##########....................] 1/3 the second, ")
	shown = ""
	read("1/3 the second, ") // again, without a call of at
	b.done()
	b.done()
	shown = ""
	read("\r\x1b[K")
	b.at(2, 3, "the third")
	b.draw()

	var plain bytes.Buffer
	b = newBar(&plain, "passes")
	b.at(1, 3, "the second")
	b.draw()
	b.done()
	if plain.Len() > 0 {
		t.Errorf("no terminal: %q", plain.String())
	}
}
