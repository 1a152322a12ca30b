// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// bar shows on a terminal how far a long work is, and how long it has taken; nothing in the first half second.
type bar struct {
	begin time.Time
	stop  chan struct{} // ends what draws

	mu       sync.Mutex
	w        io.Writer // nil: no terminal, or done
	n, total int
	what     string
	count    func() uint64 // what goes on by itself behind n, nil for nothing
	base     uint64        // what it was at the last call of at
}

// isTerminal reports whether somebody sees what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// newBar is a bar on w, if that is a terminal. done ends it.
func newBar(w io.Writer, what string) *bar {
	if !isTerminal(w) {
		return &bar{}
	}
	b := &bar{w: w, what: what, begin: time.Now(), stop: make(chan struct{})}
	go func() {
		// A step that takes long moves nothing but the clock.
		t := time.NewTicker(time.Second / 2)
		defer t.Stop()
		for {
			select {
			case <-t.C:
				b.draw()
			case <-b.stop:
				return
			}
		}
	}()
	return b
}

// at says that n of total are done, and what comes next.
func (b *bar) at(n, total int, what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.n, b.total, b.what = n, total, what
	if b.count != nil {
		b.base = b.count()
	}
}

// follow makes the bar go on, behind what at says, with what count counts: instructions that a card executes. nil is nothing.
func (b *bar) follow(count func() uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.count = count; count != nil {
		b.base = count()
	}
}

func (b *bar) draw() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.w == nil {
		return
	}
	const width = 30
	n := b.n
	if b.count != nil {
		n = min(n+int(b.count()-b.base), b.total)
	}
	full := width * min(n, b.total) / max(b.total, 1)
	fmt.Fprintf(b.w, "\r\x1b[K[%s%s] %d/%d %.40s, %.0f s", strings.Repeat("#", full), strings.Repeat(".", width-full), n, b.total, b.what, time.Since(b.begin).Seconds())
}

// done takes the bar away, once or several times.
func (b *bar) done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.w != nil {
		fmt.Fprint(b.w, "\r\x1b[K")
		b.w = nil
		close(b.stop)
	}
}
