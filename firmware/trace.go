// SPDX-License-Identifier: Apache-2.0

package firmware

import (
	"fmt"
	"io"
	"time"

	"npuemu/firmware/cpu"
)

const (
	// tracedSlice is slice for a hart that is traced, and some 100 times slower.
	tracedSlice = 200
	// tracedTime is what it takes a hart of 100 MIPS.
	tracedTime = 2 * time.Microsecond
)

// trace is the instruction trace. The board's lock guards it.
type trace struct {
	w     io.Writer // nil without trace
	lines []byte    // of the slice in progress
}

// SetTrace writes a line for each instruction that the processor executes to w, from now on; docs/debugging.md has the
// format. Each Write gets whole lines, with the board's lock held. After a failed one the trace ends.
func (p *Processor) SetTrace(w io.Writer) {
	p.trace.w = w
	p.core.SetTrace(func(e cpu.TraceEvent) { p.trace.lines = appendEvent(p.trace.lines, e) })
}

// slice is how many instructions the hart executes with the lock held.
func (t *trace) slice() int {
	if t.w == nil {
		return slice
	}
	return tracedSlice
}

// note writes a line that is no instruction.
func (t *trace) note(text string) {
	if t.w != nil {
		t.lines = fmt.Appendf(t.lines, "# %s\n", text)
	}
}

func (t *trace) flush(p *Processor) {
	if len(t.lines) == 0 {
		return
	}
	if _, err := t.w.Write(t.lines); err != nil {
		p.cfg.Log.Error("the instruction trace ends here", "error", err)
		t.w = nil
		p.core.SetTrace(nil)
	}
	t.lines = t.lines[:0]
}

// appendEvent appends the line of an event: step, pc, bits, instruction and effects, with tabs between.
func appendEvent(b []byte, e cpu.TraceEvent) []byte {
	b = fmt.Appendf(b, "%d\t%08x\t", e.Step, e.PC)
	switch {
	case e.Size == 4:
		b = fmt.Appendf(b, "%08x\t%s\t", e.Bits, cpu.Disassemble(e.PC, e.Bits))
	case e.Size == 2:
		b = fmt.Appendf(b, "%04x\t%s\t", e.Bits, cpu.Disassemble(e.PC, e.Bits))
	default:
		b = append(b, "-\t-\t"...)
	}
	n := len(b)
	if e.Rd != 0 {
		b = fmt.Appendf(b, "%s=%08x ", cpu.RegisterName(e.Rd), e.Value)
	}
	if e.Access {
		b = fmt.Appendf(b, "[%08x] ", e.Addr)
	}
	if e.Trap {
		b = fmt.Appendf(b, "trap %08x tval %08x ", e.Cause, e.Tval)
	}
	if len(b) > n {
		b = b[:len(b)-1]
	}
	return append(b, '\n')
}
