// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"path/filepath"

	"npuemu/timing"
)

// roofline returns an SVG: what the card could do at most, by arithmetic
// intensity, and where the layers of e are. Both axes are logarithmic.
func roofline(name string, e estimate) []byte {
	const width, height, left, right, top, bottom = 900, 600, 80, 30, 50, 60
	c := e.config
	peak := float64(c.Rows * c.Cols)
	memory := float64(c.DRAMWidth)
	// Decades that hold every layer and the ridge.
	ridge := peak / memory
	minX, maxX, minY := ridge, ridge, peak
	var shown []*layer
	nothing, moved := 0, 0.0 // without products; the most products for a byte
	for i := range e.layers {
		if l := &e.layers[i]; l.macs > 0 && l.cycles > 0 {
			shown = append(shown, l)
			moved = math.Max(moved, l.intensity())
		} else {
			nothing++
		}
	}
	// What moves nothing, since its operands stay in local memory, is at the right of all that does.
	place := func(l *layer) (intensity, rate float64) {
		intensity, rate = l.intensity(), float64(l.macs)/float64(l.cycles)
		if intensity == 0 {
			intensity = 10 * math.Max(moved, ridge)
		}
		return intensity, rate
	}
	for _, l := range shown {
		x, y := place(l)
		minX, maxX, minY = math.Min(minX, x), math.Max(maxX, x), math.Min(minY, y)
	}
	x0, x1 := math.Floor(math.Log10(minX)), math.Ceil(math.Log10(maxX*1.01))
	y0, y1 := math.Floor(math.Log10(minY)), math.Ceil(math.Log10(peak*1.01))
	px := func(x float64) float64 { return left + (math.Log10(x)-x0)/(x1-x0)*(width-left-right) }
	py := func(y float64) float64 { return height - bottom - (math.Log10(y)-y0)/(y1-y0)*(height-top-bottom) }

	var b bytes.Buffer
	text := func(x, y float64, anchor, s string) {
		fmt.Fprintf(&b, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor)
		_ = xml.EscapeText(&b, []byte(s)) // a Buffer takes everything
		b.WriteString("</text>\n")
	}
	line := func(x, y, u, v float64, style string) {
		fmt.Fprintf(&b, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x, y, u, v, style)
	}
	fmt.Fprintf(&b, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"13\">\n", width, height, width, height)
	fmt.Fprintf(&b, "<rect width=\"%d\" height=\"%d\" fill=\"white\"/>\n", width, height)
	flow := ", " + c.Dataflow.String()
	if e.program != nil {
		flow = "" // each product says its own
	}
	text(width/2, 28, "middle", fmt.Sprintf("%s on %d×%d%s: %d bytes/cycle, %d MHz", filepath.Base(name), c.Rows, c.Cols, flow, c.DRAMWidth, c.Clock))
	if nothing > 0 {
		text(left+8, top-6, "start", fmt.Sprintf("%d without products are not shown", nothing))
	}
	const grid, roof = `stroke="#ddd"`, `stroke="black" stroke-width="2"`
	for d := x0; d <= x1; d++ {
		x := px(math.Pow(10, d))
		line(x, top, x, height-bottom, grid)
		text(x, height-bottom+18, "middle", fmt.Sprintf("%g", math.Pow(10, d)))
	}
	for d := y0; d <= y1; d++ {
		y := py(math.Pow(10, d))
		line(left, y, width-right, y, grid)
		text(left-8, y+4, "end", fmt.Sprintf("%g", math.Pow(10, d)))
	}
	text(width/2, height-15, "middle", "multiply-accumulates for each byte of device memory")
	fmt.Fprintf(&b, "<text transform=\"translate(20 %d) rotate(-90)\" text-anchor=\"middle\">multiply-accumulates in a cycle</text>\n", height/2)
	// The memory's line begins where it enters the picture.
	from := math.Max(math.Pow(10, x0), math.Pow(10, y0)/memory)
	line(px(from), py(from*memory), px(ridge), py(peak), roof)
	line(px(ridge), py(peak), width-right, py(peak), roof)
	colours := map[timing.Bound]string{
		timing.ByArray: "#1f77b4", timing.ByMemory: "#d62728", timing.ByScratchpad: "#9467bd", timing.ByVector: "#2ca02c",
		timing.ByWeights: "#ff7f0e", timing.ByDispatch: "#8c564b", timing.ByLatency: "#7f7f7f",
	}
	legend := timing.Bounds()
	if e.program == nil {
		legend = legend[:timing.ByVector+1]
	}
	for i, bound := range legend {
		y := float64(height - bottom - 20*(len(legend)-i))
		fmt.Fprintf(&b, "<circle cx=\"%d\" cy=\"%.1f\" r=\"5\" fill=\"%s\"/>\n", width-right-160, y-4, colours[bound])
		text(width-right-148, y, "start", "bound by "+bound.String())
	}
	for _, l := range shown {
		x, y := place(l)
		fmt.Fprintf(&b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"5\" fill=\"%s\" fill-opacity=\"0.6\"><title>", px(x), py(y), colours[l.bound])
		note := ""
		if l.read+l.written == 0 {
			note = ", no byte of memory"
		}
		_ = xml.EscapeText(&b, []byte(fmt.Sprintf("%s: %d cycles, %.1f %%%s", l.name, l.cycles, 100*utilization(l.macs, l.cycles, c), note)))
		b.WriteString("</title></circle>\n")
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
