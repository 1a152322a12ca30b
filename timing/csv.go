// SPDX-License-Identifier: Apache-2.0

package timing

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Limits of layer tables. Dimensions of 2²⁰ and sums of 2⁴⁸ multiply-accumulates
// are above what any network has, and keep the model's arithmetic below 2⁶⁴.
const (
	maxLayers    = 10000
	maxDimension = 1 << 20
	maxMACs      = 1 << 48
	maxTensor    = 1 << 40
)

// column is one of a layer table.
type column struct {
	name  string
	field func(*Layer) *uint64
}

var convColumns = []column{
	{"IFMAP height", func(l *Layer) *uint64 { return &l.InH }},
	{"IFMAP width", func(l *Layer) *uint64 { return &l.InW }},
	{"filter height", func(l *Layer) *uint64 { return &l.KernelH }},
	{"filter width", func(l *Layer) *uint64 { return &l.KernelW }},
	{"channels", func(l *Layer) *uint64 { return &l.Channels }},
	{"number of filters", func(l *Layer) *uint64 { return &l.Filters }},
	{"stride", func(l *Layer) *uint64 { return &l.StepY }},
}

var gemmColumns = []column{
	{"M", func(l *Layer) *uint64 { return &l.InH }},
	{"N", func(l *Layer) *uint64 { return &l.Filters }},
	{"K", func(l *Layer) *uint64 { return &l.Channels }},
}

// ReadLayers reads a topology table of SCALE-Sim (§13.7). name is the file's for
// errors, which are of the form name:line:column: rule; remedy.
func ReadLayers(name string, text []byte) ([]Layer, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	var layers []Layer
	var columns []column
	for n, line := range strings.Split(string(text), "\n") {
		r := row{name: name, line: n + 1}
		line = strings.TrimSuffix(line, "\r")
		if !utf8.ValidString(line) || strings.ContainsFunc(line, func(c rune) bool { return unicode.IsControl(c) && c != '\t' }) {
			return nil, r.fail(0, "this is not text; a layer table is UTF-8 without control characters")
		}
		if strings.TrimSpace(line) == "" {
			continue
		}
		r.split(line)
		if columns == nil {
			var err error
			if columns, err = r.header(); err != nil {
				return nil, err
			}
			continue
		}
		if len(layers) == maxLayers {
			return nil, r.fail(0, "more than %d layers; split the table", maxLayers)
		}
		l, err := r.layer(columns)
		if err != nil {
			return nil, err
		}
		layers = append(layers, l)
	}
	if len(layers) == 0 {
		return nil, fmt.Errorf("%s: no layers; the first line names the columns, each one behind it is a layer", name)
	}
	return layers, nil
}

// row is a line of a table: its cells, and where they begin.
type row struct {
	name  string
	line  int
	cells []string
	cols  []int
}

// split cuts line at commas. A comma at its end ends the last cell, as
// SCALE-Sim writes it.
func (r *row) split(line string) {
	at := 0
	for _, cell := range strings.Split(line, ",") {
		trimmed := strings.TrimLeft(cell, " \t")
		r.cols = append(r.cols, utf8.RuneCountInString(line[:at+len(cell)-len(trimmed)])+1)
		r.cells = append(r.cells, strings.TrimSpace(cell))
		at += len(cell) + 1
	}
	if last := len(r.cells) - 1; last > 0 && r.cells[last] == "" {
		r.cells = r.cells[:last]
	}
}

func (r *row) fail(cell int, format string, args ...any) error {
	col := 1
	if cell < len(r.cols) {
		col = r.cols[cell]
	} else if len(r.cols) > 0 {
		col = r.cols[len(r.cols)-1]
	}
	return fmt.Errorf("%s:%d:%d: %s", r.name, r.line, col, fmt.Sprintf(format, args...))
}

// header tells the two kinds of tables apart.
func (r *row) header() ([]column, error) {
	if len(r.cells) >= 4 && strings.EqualFold(r.cells[1], "m") && strings.EqualFold(r.cells[2], "n") && strings.EqualFold(r.cells[3], "k") {
		return gemmColumns, nil
	}
	if len(r.cells) >= 8 {
		if _, err := strconv.Atoi(r.cells[1]); err != nil {
			return convColumns, nil
		}
	}
	return nil, r.fail(0, "this is no header; write Layer,M,N,K, for products, or Layer,IFMAP height,IFMAP width,Filter height,Filter width,Channels,Num filter,Strides, for convolutions")
}

func (r *row) layer(columns []column) (Layer, error) {
	l := Layer{Name: r.cells[0], InW: 1, KernelH: 1, KernelW: 1, StepY: 1, Groups: 1}
	if l.Name == "" {
		return l, r.fail(0, "the layer has no name; write one in the first column")
	}
	if n := len(r.cells) - 1; n < len(columns) || n > len(columns)+1 {
		return l, r.fail(len(r.cells), "the layer has %d numbers; the table has %d columns and may have one for sparsity", n, len(columns))
	}
	for i, c := range columns {
		cell := r.cells[i+1]
		v, err := strconv.ParseUint(cell, 10, 64)
		if err != nil || v < 1 || v > maxDimension {
			return l, r.fail(i+1, "%s is %q; use a whole number from 1 to %d", c.name, cell, maxDimension)
		}
		*c.field(&l) = v
	}
	if len(r.cells) > len(columns)+1 && r.cells[len(columns)+1] != "1:1" {
		return l, r.fail(len(columns)+1, "sparsity is %q; only dense layers are modelled: write 1:1 or leave the column out", r.cells[len(columns)+1])
	}
	l.StepX = l.StepY
	if l.KernelH > l.InH {
		return l, r.fail(3, "the filter's height %d is above the input's %d; the input's height includes its padding", l.KernelH, l.InH)
	}
	if l.KernelW > l.InW {
		return l, r.fail(4, "the filter's width %d is above the input's %d; the input's width includes its padding", l.KernelW, l.InW)
	}
	if len(columns) == len(convColumns) && strings.Contains(l.Name, "DP") {
		// As many layers of one channel, each with all filters.
		l.Groups = l.Channels
		l.Filters *= l.Groups
	}
	if l.Filters > maxDimension {
		return l, r.fail(6, "%d filters for each of %d channels; a layer has at most %d", l.Filters/l.Groups, l.Groups, maxDimension)
	}
	depth := l.KernelH * l.KernelW // at most 2⁴⁰, and so are the others
	if l.InH*l.InW > maxTensor/l.Channels || depth > maxTensor/l.Channels || l.outH()*l.outW() > maxTensor/l.Filters ||
		depth*l.Channels/l.Groups > maxTensor/l.Filters || l.outH()*l.outW()*l.Filters > maxMACs/(depth*l.Channels/l.Groups) {
		return l, r.fail(0, "the layer is larger than 2^40 elements or 2^48 multiply-accumulates; split it")
	}
	return l, nil
}
