// SPDX-License-Identifier: Apache-2.0

package timeline

import (
	"encoding/json"
	"strconv"
)

// Events are made in Writer.line. Times and durations are whole numbers, which viewers take for microseconds and keep
// exactly.

// begin begins an event.
func (t *Writer) begin(phase byte, row int, at uint64, name string) {
	t.head(phase, row, name)
	t.field(`,"ts":`, at)
}

func (t *Writer) head(phase byte, row int, name string) {
	t.line = append(t.line[:0], `{"ph":"`...)
	t.line = append(t.line, phase)
	t.text(`","pid":1,"tid":`)
	t.number(uint64(row))
	t.text(`,"name":`)
	t.quote(name)
}

// end ends an event and writes it.
func (t *Writer) end(s string) {
	t.text(s)
	if t.begun {
		t.raw(",\n")
	} else {
		t.raw("\n")
	}
	t.begun = true
	if t.err == nil {
		_, t.err = t.w.Write(t.line)
	}
}

// meta names the process, or a row.
func (t *Writer) meta(what string, row int, name string) {
	t.head('M', row, what)
	t.text(`,"args":{"name":`)
	t.quote(name)
	t.end("}}")
}

// counter sets that of a row to a thousandth of rate.
func (t *Writer) counter(row int, at, rate uint64) {
	t.begin('C', row, at, rowNames[row])
	t.field(`,"args":{"bytes/cycle":`, rate/1000)
	if f := rate % 1000; f > 0 {
		t.text("." + strconv.FormatUint(1000+f, 10)[1:])
	}
	t.end("}}")
}

func (t *Writer) raw(s string) {
	if t.err == nil {
		_, t.err = t.w.WriteString(s)
	}
}

func (t *Writer) text(s string)   { t.line = append(t.line, s...) }
func (t *Writer) number(n uint64) { t.line = appendNumber(t.line, n) }

// field appends text and a number.
func (t *Writer) field(s string, n uint64) {
	t.text(s)
	t.number(n)
}

// quote appends s as a JSON string; what is not UTF-8 in it is replaced.
func (t *Writer) quote(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			b, err := json.Marshal(s)
			if err != nil {
				panic("timeline: BUG: " + err.Error()) // a string is always marshalled
			}
			t.line = append(t.line, b...)
			return
		}
	}
	t.line = append(append(append(t.line, '"'), s...), '"')
}

func appendNumber(b []byte, n uint64) []byte { return strconv.AppendUint(b, n, 10) }
