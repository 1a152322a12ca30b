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
}

// newBar is a bar on w, if that is a terminal. done ends it.
func newBar(w io.Writer, what string) *bar {
	f, ok := w.(*os.File)
	if !ok {
		return &bar{}
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
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
}

func (b *bar) draw() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.w == nil {
		return
	}
	const width = 30
	full := width * min(b.n, b.total) / max(b.total, 1)
	fmt.Fprintf(b.w, "\r\x1b[K[%s%s] %d/%d %.40s, %.0f s", strings.Repeat("#", full), strings.Repeat(".", width-full), b.n, b.total, b.what, time.Since(b.begin).Seconds())
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
