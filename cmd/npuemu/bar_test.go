// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty is a terminal, and what shows it.
func pty(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	var err error
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal can be made here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminal can be made here: %v", err)
	}
	t.Cleanup(func() { terminal.Close() })
	return master, terminal
}

// On a terminal work shows how far it is, also while one step takes long, and takes the line away in the end; elsewhere it writes nothing.
func TestBar(t *testing.T) {
	master, terminal := pty(t)
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

// A bar that follows a counter goes on between calls of at, up to the total.
func TestBarFollows(t *testing.T) {
	master, terminal := pty(t)
	b := newBar(terminal, "")
	defer b.done()
	count := uint64(500)
	b.follow(func() uint64 { return count })
	b.at(10, 100, "instructions")
	for _, tt := range []struct {
		more uint64
		want string
	}{{0, " 10/100 instructions"}, {50, "] 60/100 "}, {50, "] 100/100 "}} {
		count += tt.more
		b.draw()
		buf := make([]byte, 4096)
		n, err := master.Read(buf)
		if err != nil || !strings.Contains(string(buf[:n]), tt.want) {
			t.Errorf("%q, %v, want %q", buf[:n], err, tt.want)
		}
	}
}

// onTerminal runs the command line with standard error, or both, on a terminal, and returns what that showed.
func onTerminal(t *testing.T, both bool, args ...string) (stdout, shown string) {
	t.Helper()
	master, terminal := pty(t)
	var out bytes.Buffer
	c := root()
	c.SetOut(&out)
	if both {
		c.SetOut(terminal)
	}
	c.SetErr(terminal)
	c.SetArgs(args)
	read := make(chan string)
	go func() {
		var s strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			s.Write(buf[:n])
			if err != nil || strings.HasSuffix(s.String(), "END") {
				read <- s.String()
				return
			}
		}
	}()
	err := c.ExecuteContext(t.Context())
	fmt.Fprint(terminal, "END")
	shown = <-read
	if err != nil {
		t.Errorf("%q: %v\n%s", args, err, shown)
	}
	return out.String(), shown
}

// base64Zeros are n bytes that are 0, as the text of a graph has them.
func base64Zeros(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }

// compile shows on a terminal how far it is: passes, then groups of nodes; run shows the same, and then the instructions
// that the card has executed, also of one program.
func TestLongWork(t *testing.T) {
	recurrent := file(t, "lstm.npuir", fmt.Sprintf("graph \"lstm\"\ninput %%x: float32[500, 1, 64]\nconst %%w: float32[1, 256, 64] = %q\nconst %%r: float32[1, 256, 64] = %q\n"+
		"node \"n\" LSTM(%%x, %%w, %%r) -> (%%y: invalid[])\noutput %%y\n", base64Zeros(4*256*64), base64Zeros(4*256*64)))
	product := file(t, "product.npuir", "graph \"product\"\ninput %a: float32[1, 2048, 4096]\ninput %b: float32[1, 4096, 2048]\nnode \"n\" npu.gemm(%a, %b) -> (%y: float32[1, 2048, 2048]) {rounding=\"none\"}\noutput %y\n")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"compile", recurrent}, `\] [1-9][0-9]*/[1-9][0-9]* (plan|scratchpad for|cycles of) `},
		{[]string{"run", recurrent}, `\] [1-9][0-9]*/[1-9][0-9]* (plan|scratchpad for|cycles of) `},
		{[]string{"run", product}, `\] [1-9][0-9]*/[1-9][0-9]* instructions, program 0, `},
	} {
		begin := time.Now()
		_, shown := onTerminal(t, false, tt.args...)
		if time.Since(begin) < time.Second { // a bar comes after half of one, of each part of the work
			t.Logf("%q: this machine is too fast to see anything", tt.args)
			continue
		}
		if !regexp.MustCompile(tt.want).MatchString(shown) {
			t.Errorf("%q shows nothing of %s:\n%q", tt.args, tt.want, shown)
		}
		if !strings.HasSuffix(shown, "\r\x1b[KEND") {
			t.Errorf("%q leaves its line behind: %q", tt.args, shown[max(len(shown)-200, 0):])
		}
	}
}

// The table of operators is on a terminal, if they are few; elsewhere and of many it is asked for, and a terminal says how.
func TestTable(t *testing.T) {
	var chain strings.Builder
	chain.WriteString("graph \"long\"\ninput %x0: int8[4]\n")
	for i := range shownNodes + 1 {
		fmt.Fprintf(&chain, "node \"n%d\" npu.element(%%x%d) -> (%%x%d: int8[4]) {op=\"neg\"}\n", i, i, i+1)
	}
	fmt.Fprintf(&chain, "output %%x%d\n", shownNodes+1)
	short, long := file(t, "short.npuir", doubled), file(t, "long.npuir", chain.String())
	const head, hint = "operator  node ", "25 operators: --table shows what became of each"
	for _, tt := range []struct {
		name     string
		terminal bool
		args     []string
		table    bool
		hint     bool
	}{
		{"a few", true, []string{short}, true, false},
		{"many", true, []string{long}, false, true},
		{"many, asked for", true, []string{long, "--table"}, true, false},
		{"elsewhere", false, []string{short}, false, false},
		{"elsewhere, many", false, []string{long}, false, false},
		{"elsewhere, asked for", false, []string{short, "--table"}, true, false},
		{"JSON", true, []string{short, "--json"}, false, false},
	} {
		for _, command := range []string{"compile", "run"} {
			out, shown := onTerminal(t, tt.terminal, append([]string{command}, tt.args...)...)
			if tt.terminal {
				out = shown
			}
			if strings.Contains(out, head) != tt.table || strings.Contains(out, hint) != tt.hint {
				t.Errorf("%s, %s: a table %t, how to see it %t:\n%s", command, tt.name, tt.table, tt.hint, out)
			}
		}
	}
}
