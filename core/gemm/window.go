// SPDX-License-Identifier: Apache-2.0

package gemm

// Window makes a left operand of an image, without a copy of it in memory: row
// r = y·OutW + x has, for each position of the window, from top left along the
// lines, Channels elements of the pixel under it. What lies outside of the
// image is padding. All are at least 1, paddings and Offset at least 0.
type Window struct {
	InH, InW             int // lines, pixels of a line
	Line, Pixel          int // bytes from a line to the next, and from a pixel
	Offset               int // bytes from the beginning of a pixel to the channels
	Channels             int
	OutH, OutW           int
	KernelH, KernelW     int
	StepY, StepX         int
	DilationY, DilationX int
	PadTop, PadLeft      int
}

// depth is the number of elements of a row.
func (w *Window) depth() int { return w.KernelH * w.KernelW * w.Channels }

// run returns how many bytes of a row lie in one piece, and how many such pieces a line of the window has: a pixel's
// channels, or all of the line if pixels follow each other without a gap.
func (w *Window) run(size int) (bytes, perLine int) {
	pixel := w.Channels * size
	if w.DilationX == 1 && w.Pixel == pixel {
		return pixel * w.KernelW, 1
	}
	return pixel, w.KernelW
}

// Run returns the elements of size bytes of K that lie in one piece. Weights had better be packed by such lines.
func (w *Window) Run(size int) int {
	bytes, _ := w.run(size)
	return bytes / size
}

// gather writes len(to) bytes of row r, from byte k on, to to.
func (w *Window) gather(to, image []byte, r, k, size int, pad byte) {
	pixel := w.Channels * size
	run, perLine := w.run(size)
	at, c := k/run, k%run
	ky, kx := at/perLine, at%perLine
	oy, ox := r/w.OutW, r%w.OutW
	for len(to) > 0 {
		y := oy*w.StepY + ky*w.DilationY - w.PadTop
		x := ox*w.StepX + kx*w.DilationX - w.PadLeft
		n := min(run-c, len(to))
		from, end := n, n // of the bytes that are in the image
		if uint(y) < uint(w.InH) {
			if run > pixel {
				from = min(max(-x*pixel-c, 0), n)
				end = max(min((w.InW-x)*pixel-c, n), from)
			} else if uint(x) < uint(w.InW) {
				from = 0
			}
		}
		fill(to[:from], pad)
		if from < end {
			copy(to[from:end], image[y*w.Line+x*w.Pixel+w.Offset+c+from:])
		}
		fill(to[end:n], pad)
		to, c = to[n:], 0
		if kx++; kx == perLine {
			kx = 0
			ky++
		}
	}
}

// leastRun is how long a run must be, in bytes, that it is packed where it lies.
const leastRun = 4

// inPlace reports whether rows of elements of size bytes are packed from where they lie, for weights packed by lines of
// so many elements.
func (w *Window) inPlace(size, line, elems int) bool {
	bytes, _ := w.run(size)
	return bytes >= leastRun && (bytes/size%elems == 0 || bytes/size == line)
}

// runs is Window.run, and what follows from it.
type runs struct{ bytes, perLine, step, padded, pixels int }

func (w *Window) runs(size, elems int) (r runs) {
	r.bytes, r.perLine = w.run(size)
	r.step = elems * size
	r.padded = ceil(r.bytes, r.step) * r.step
	r.pixels = r.bytes / (w.Channels * size)
	return r
}

// packRuns packs n bytes, with the padding of runs to whole k-steps, from byte k0 on, of rows of panel p. It takes what
// lies in the image from there, and the rest from a row that it makes.
func (j *job) packRuns(s *scratch, dst *byte, p, k0, n int) {
	k, w, size := j.k, j.src.conv, j.src.typ.Size()
	run, perLine, step, padded, pixels := j.runs.bytes, j.runs.perLine, j.runs.step, j.runs.padded, j.runs.pixels
	rows := min(k.mr, j.m-p*k.mr)
	// Where the first row begins; the others too, once somebody needs to know.
	oy, ox := p*k.mr/w.OutW, p*k.mr%w.OutW
	y0, x0, oneLine := oy*w.StepY-w.PadTop, ox*w.StepX-w.PadLeft, ox+rows <= w.OutW
	var ys, xs [maxRows]int
	known := false
	for n > 0 {
		at, c := 0, k0
		if k0 >= padded {
			at, c = k0/padded, k0%padded
		}
		some := min(padded-c, n)
		bytes := min(run-c, some)
		down, right := at*w.DilationY, 0
		if perLine > 1 {
			down, right = at/perLine*w.DilationY, at%perLine*w.DilationX
		}
		if y, x := y0+down, x0+right; oneLine && uint(y) < uint(w.InH) && x >= 0 && x+(rows-1)*w.StepX <= w.InW-pixels {
			// All of one line, inside.
			p, apart := &j.src.pixels[y*w.Line+x*w.Pixel+w.Offset+c], w.StepX*w.Pixel
			lines := w.KernelH - at
			if n < lines*padded {
				lines = n / padded
			}
			if k.packLines != nil && rows == k.mr && c == 0 && perLine == 1 && lines > 0 && y+(lines-1)*w.DilationY < w.InH {
				k.packLines(dst, p, apart, run, lines, w.DilationY*w.Line, j.flip)
				if some = lines * padded; some == n {
					return
				}
				dst = add(dst, some/step*k.mr*word)
				k0, n = k0+some, n-some
				continue
			}
			for r := range k.mr {
				s.rows[r] = add(p, min(r, rows-1)*apart)
			}
			k.packA(dst, &s.rows[0], 0, bytes, j.flip)
			dst = add(dst, some/step*k.mr*word)
			k0, n = k0+some, n-some
			continue
		}
		if !known {
			known = true
			for r := range rows {
				ys[r], xs[r] = oy*w.StepY-w.PadTop, ox*w.StepX-w.PadLeft
				if ox++; ox == w.OutW { // a division takes longer than the rest
					oy, ox = oy+1, 0
				}
			}
		}
		for r := range rows {
			if y, x := ys[r]+down, xs[r]+right; uint(y) < uint(w.InH) && x >= 0 && x <= w.InW-pixels {
				s.rows[r] = &j.src.pixels[y*w.Line+x*w.Pixel+w.Offset+c]
				continue
			}
			line := s.lines[r*bytes:][:bytes]
			w.gather(line, j.src.pixels, p*k.mr+r, at*run+c, size, j.src.pad)
			s.rows[r] = &line[0]
		}
		for r := rows; r < k.mr; r++ {
			s.rows[r] = s.rows[rows-1]
		}
		k.packA(dst, &s.rows[0], 0, bytes, j.flip)
		dst = add(dst, some/step*k.mr*word)
		k0, n = k0+some, n-some
	}
}

func fill(to []byte, v byte) {
	if len(to) == 0 {
		return
	}
	to[0] = v
	for n := 1; n < len(to); n *= 2 {
		copy(to[n:], to[:n])
	}
}

// mostPadded is how many bytes a padded image has at most: it stays in the second level of the cache.
const mostPadded = 1 << 20

// padded returns w and its image or, if rows go beyond it and it is dense and not too large, a copy that has all of them,
// and the window for it.
func (e *Engine) padded(w *Window, image []byte, pad byte) (*Window, []byte) {
	lines, pixels := (w.OutH-1)*w.StepY+(w.KernelH-1)*w.DilationY+1, (w.OutW-1)*w.StepX+(w.KernelW-1)*w.DilationX+1
	line := pixels * w.Pixel
	if w.Pixel != w.Channels || lines > mostPadded || line > mostPadded || lines*line > mostPadded ||
		w.PadTop == 0 && w.PadLeft == 0 && lines <= w.InH && pixels <= w.InW {
		return w, image
	}
	e.image = growTo(e.image, lines*line)
	left := min(w.PadLeft*w.Pixel, line)
	n := min(w.InW*w.Pixel, line-left)
	for y := range lines {
		to := e.image[y*line:][:line]
		in := y - w.PadTop
		if uint(in) >= uint(w.InH) || n == 0 {
			fill(to, pad)
			continue
		}
		fill(to[:left], pad)
		copy(to[left:], image[in*w.Line:][:n])
		fill(to[left+n:], pad)
	}
	e.window = *w
	e.window.InH, e.window.InW, e.window.Line, e.window.PadTop, e.window.PadLeft = lines, pixels, line, 0, 0
	return &e.window, e.image
}

// check panics unless the image lies in n bytes and the window is one.
func (w *Window) check(n, size int) {
	for _, v := range [...]int{w.InH, w.InW, w.Channels, w.OutH, w.OutW, w.KernelH, w.KernelW, w.StepY, w.StepX, w.DilationY, w.DilationX, w.PadTop + 1, w.PadLeft + 1, w.Offset + 1} {
		if v < 1 {
			panic("gemm: BUG: a window with nothing in it")
		}
	}
	check("a line", w.InW, w.Offset+w.Channels*size, w.Pixel, n)
	check("image", w.InH, (w.InW-1)*w.Pixel+w.Offset+w.Channels*size, w.Line, n)
}
