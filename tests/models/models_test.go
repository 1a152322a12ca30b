// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"npuemu/compiler/run"
	harness "npuemu/tests/compiler"
	"npuemu/vdev"
)

var update = flag.Bool("update", false, "write the figures of the models of testdata into docs/models.md; make models writes all of it")

var pagePath = filepath.Join("../..", page)

// row is a model's row of the page, behind its title, and the page before and behind that.
func row(t *testing.T, title string) (before, row, behind string) {
	t.Helper()
	b, err := os.ReadFile(pagePath)
	if err != nil {
		t.Fatal(err)
	}
	what, tables, _ := strings.Cut(string(b), "\n## What ran where")
	start := "\n| " + title + " | "
	first, rest, ok := strings.Cut(tables, start)
	if !ok {
		t.Fatalf("%s has no row of %s; make models writes it", page, title)
	}
	row, behind, _ = strings.Cut(rest, "\n")
	return what + "\n## What ran where" + first + start, row, "\n" + behind
}

func newCard(t *testing.T) *harness.Card {
	t.Helper()
	c, err := harness.NewCard(t.Context(), vdev.DefaultConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestFigures: the page says of the models of testdata what the compiler of today makes of them.
func TestFigures(t *testing.T) {
	c := newCard(t)
	tested := 0
	for _, n := range networks {
		path := filepath.Join("testdata", n.name+".onnx")
		if _, err := os.Stat(path); err != nil {
			continue
		}
		tested++
		m, err := estimated(t.Context(), c, path)
		if err != nil {
			t.Fatal(err)
		}
		f := describe(m)
		cells := strings.Join(f.cells(), " | ") + " | "
		before, got, behind := row(t, n.title)
		if *update {
			_, results, _ := cut(got, " | ", len(f.cells()))
			got = cells + results
			if err := os.WriteFile(pagePath, []byte(before+got+behind), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if !strings.HasPrefix(got, cells) {
			t.Errorf("%s: the page has\n%s, and it is\n%s; make models writes it, and go test ./tests/models -update these figures alone", n.title, got, cells)
		}
	}
	if tested < 2 {
		t.Errorf("%d models in testdata, want digits and keywords", tested)
	}
}

// cut cuts s behind the n-th sep.
func cut(s, sep string, n int) (before, behind string, ok bool) {
	at := 0
	for range n {
		i := strings.Index(s[at:], sep)
		if i < 0 {
			return s, "", false
		}
		at += i + len(sep)
	}
	return s[:at], s[at:], true
}

// TestDigits: the accumulators of the last layer are those of the example's golden record, for each held-out image, and
// the page's accuracy is theirs.
func TestDigits(t *testing.T) {
	const (
		header, image, record = 64, 64, 3904
		last                  = 3840 // offset of the accumulators in a record
	)
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("../../examples/digits", name))
		if err != nil {
			t.Fatal(err)
		}
		return b[header:]
	}
	images, golden := read("images.bin"), read("golden.bin")
	count := len(images) / (image + 1)
	labels := images[count*image:]
	c := newCard(t)
	m, err := estimated(t.Context(), c, "testdata/digits.onnx")
	if err != nil {
		t.Fatal(err)
	}
	s, err := run.Load(c, m)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	right, different := 0, 0
	for i := range count {
		out, _, err := s.Run(t.Context(), [][]byte{images[i*image:][:image]}, nil)
		if err != nil {
			t.Fatal(err)
		}
		v := numbers(&m.Outputs[0], out[0])
		for k, x := range v {
			different += one(int32(x) != int32(binary.LittleEndian.Uint32(golden[i*record+last+4*k:])))
		}
		right += one(largest(v) == int(labels[i]))
	}
	if different > 0 {
		t.Errorf("%d of %d accumulators are not the golden record's", different, 10*count)
	}
	_, cells, _ := row(t, "digits")
	if want := fmt.Sprintf("| %d of %d right", right, count); !strings.Contains(cells, want) {
		t.Errorf("the page has\n%s, and it is %s; make models writes it", cells, want)
	}
}

// TestDistance: what is far is seen to be, and NaN is.
func TestDistance(t *testing.T) {
	nan := func() float64 { zero := 0.0; return zero / zero }()
	for _, tt := range []struct {
		name      string
		got, want []float64
		step      float64
		most      float64
		fails     bool
	}{
		{"equal", []float64{1, -2}, []float64{1, -2}, 0.5, 0, false},
		{"a step off", []float64{1, -2}, []float64{1, -2.5}, 0.5, 0, true},
		{"a step off, allowed", []float64{1, -2}, []float64{1, -2.5}, 0.5, 1, false},
		{"two steps off", []float64{1, -1.5}, []float64{1, -2.5}, 0.5, 1, true},
		{"part of the largest", []float64{100, 1}, []float64{100, 1.01}, 0, 1e-3, false},
		{"too large a part", []float64{100, 1}, []float64{100, 2}, 0, 1e-3, true},
		{"NaN", []float64{100, nan}, []float64{100, 1}, 0, 1e-3, true},
		{"NaN first", []float64{nan, 1}, []float64{100, 1}, 0.5, 1, true},
		{"integers", []float64{100, 3}, []float64{100, 2}, 0, 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d distance
			d.add(tt.got, tt.want)
			r := result{network: network{most: tt.most}}
			if err := r.judge(&d, tt.step); (err != nil) != tt.fails {
				t.Errorf("judged %v, %q", err, r.agreement)
			}
		})
	}
}
