// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// bar shows on a terminal how far a long work is.
type bar struct {
	w     io.Writer // nil: no terminal, or done
	total int
	begin time.Time
}

func newBar(w io.Writer, total int) *bar {
	f, ok := w.(*os.File)
	if !ok {
		return &bar{}
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return &bar{}
	}
	return &bar{w: w, total: total, begin: time.Now()}
}

// at shows that n of the total are done; nothing in the first half second.
func (b *bar) at(n int, what string) {
	if b.w == nil || time.Since(b.begin) < time.Second/2 {
		return
	}
	const width = 30
	full := width * n / max(b.total, 1)
	fmt.Fprintf(b.w, "\r\x1b[K[%s%s] %d/%d %.40s", strings.Repeat("#", full), strings.Repeat(".", width-full), n, b.total, what)
}

func (b *bar) done() {
	if b.w != nil {
		fmt.Fprint(b.w, "\r\x1b[K")
		b.w = nil
	}
}
