// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/dma"
	"npuemu/dma/iova"
	"npuemu/mmio/npureg"
	"npuemu/queue"
	"npuemu/timing"
)

// executor is the command processor: it decodes user commands and runs them on
// the DMA channel and the core. Its methods run on the queue engine's goroutine,
// without Device.mu.
type executor struct {
	d       *Device
	core    *core.Core
	engines engines
	clock   modelClock
	view    *dma.View // the command's way to memory

	// Reused, because a command allocates nothing.
	buf    []byte // staging of COPY, dma.Chunk bytes
	text   []byte // program image
	table  []byte // binding table in memory
	word   [8]byte
	bound  []core.Binding
	memory programMemory

	// Of the command that runs.
	began     uint64      // d.mem.Bus.Unmaps when it was fetched
	unreached *iova.Fault // the access to the bus that stopped it, or nil
	granule   uint64      // that it met poisoned
	refused   *dma.Fault  // of its translation, or nil
	status    npureg.Status
	cycles    uint64 // of its work, if it succeeds
	report    timing.Report
	record    [npureg.ProfileSize]byte
}

// Limits of a program's text (§5.3).
const maxProgram = isa.DescriptorSize + 16<<20

// Execute runs one user command (§4.9, §4.10, §4.17, §4.18).
func (x *executor) Execute(ctx context.Context, from queue.Origin, e *queue.Entry) queue.Completion {
	if x.d.ras.thermal.level.Load() != 0 && !x.throttle(ctx) {
		return queue.Completion{Status: npureg.StatusAborted}
	}
	ctx = x.engines.begin(ctx, e[0])
	x.view.Begin(x.d.spaces[from.Queue].Load(), dma.Requester{Context: from.Context, Queue: uint16(from.Queue), Index: from.Index, ID: e.ID()})
	x.began, x.unreached, x.refused, x.cycles = x.d.mem.Bus.Unmaps(), nil, nil, 0
	began := time.Now()
	var c queue.Completion
	switch op := e[0]; op {
	case npureg.CmdNop:
		c = x.nop(e)
	case npureg.CmdCopy:
		c = x.copy(ctx, e)
	case npureg.CmdLaunch:
		c = x.launch(ctx, e)
	case npureg.CmdWait, npureg.CmdSignal:
		c = x.timeline(e)
	default:
		c = queue.Completion{Status: npureg.StatusInvalidOpcode, Info: uint64(op)}
	}
	c = x.engines.end(x.tick(ctx, began, c))
	if x.view.Hits|x.view.Misses != 0 {
		x.d.count(npureg.CounterTLBHits, x.view.Hits)
		x.d.count(npureg.CounterTLBMisses, x.view.Misses)
	}
	x.status, c.Faulted = c.Status, x.refused != nil
	if c.Status == npureg.StatusPoison {
		x.d.metPoison(from, e, uint8(c.Info>>poisonUnitShift), x.granule)
	}
	if x.unreached != nil && ctx.Err() == nil {
		x.d.blame(x.unreached, x.began, fmt.Sprintf("queue %d, context %d, command %d, opcode %#02x", from.Queue, from.Context, e.ID(), e[0]))
	}
	if !c.Pending && x.d.log.Enabled(ctx, slog.LevelDebug) {
		x.d.log.LogAttrs(ctx, slog.LevelDebug, "command", slog.Int("context", int(from.Context)), slog.Int("opcode", int(e[0])),
			slog.Int("id", int(e.ID())), slog.String("status", c.Status.String()), slog.Uint64("result", uint64(c.Result)),
			slog.String("info", fmt.Sprintf("%#x", c.Info)))
	}
	return c
}

// zero reports INVALID_FIELD for the first reserved byte of e in the given half-open
// ranges that is not 0 (§4.2).
func zero(e *queue.Entry, ranges ...[2]int) (queue.Completion, bool) {
	for _, r := range ranges {
		for i := r[0]; i < r[1]; i++ {
			if e[i] != 0 {
				return invalidField(i), false
			}
		}
	}
	return queue.Completion{}, true
}

func invalidField(off int) queue.Completion {
	return queue.Completion{Status: npureg.StatusInvalidField, Info: uint64(off)}
}

// fault turns an error of dma into a completion (§7.2, §11.5). Errors of the context
// need no completion: the engine discards it or makes it ABORTED.
func (x *executor) fault(err error) queue.Completion {
	var f *dma.Fault
	if !errors.As(err, &f) {
		return queue.Completion{Status: npureg.StatusAborted}
	}
	if errors.Is(f.Err, dma.ErrPoison) {
		return x.poison(f)
	}
	errors.As(err, &x.unreached)
	x.refuse(f)
	return queue.Completion{Status: faultStatus(f), Info: f.Addr}
}

// poison is the completion of a command that met poison of device memory (§12.2). It tells a process of its own address;
// the error log has the granule's.
func (x *executor) poison(f *dma.Fault) queue.Completion {
	c := queue.Completion{Status: npureg.StatusPoison, Info: npureg.UnitDRAM<<poisonUnitShift | f.Addr}
	if inner := (*dma.Fault)(nil); f.Space == dma.Virtual && errors.As(f.Err, &inner) {
		f = inner
	}
	x.granule = f.Addr
	return c
}

// refuse takes note of a fault that its context does not survive (§11.5).
func (x *executor) refuse(f *dma.Fault) {
	if f.Refusal != nil {
		x.refused = f
	}
}

func faultStatus(f *dma.Fault) npureg.Status {
	space := f.Space
	if f.Refusal != nil {
		if f.Refusal.Reason != dma.NoTarget {
			return npureg.StatusTranslationFault
		}
		space = f.Refusal.Space
	}
	if space == dma.Device {
		return npureg.StatusDeviceFault
	}
	return npureg.StatusBusFault
}

func (x *executor) nop(e *queue.Entry) queue.Completion {
	c, _ := zero(e, [2]int{1, 2}, [2]int{4, 64})
	return c
}

// copy is COPY (§4.10).
func (x *executor) copy(ctx context.Context, e *queue.Entry) queue.Completion {
	if c, ok := zero(e, [2]int{1, 2}, [2]int{5, 8}); !ok {
		return c
	}
	le := binary.LittleEndian
	src := dma.Side{Space: dma.Space(e[4] & 15), Addr: le.Uint64(e[0x08:]), StrideY: le.Uint64(e[0x20:]), StrideZ: le.Uint64(e[0x28:])}
	dst := dma.Side{Space: dma.Space(e[4] >> 4), Addr: le.Uint64(e[0x10:]), StrideY: le.Uint64(e[0x30:]), StrideZ: le.Uint64(e[0x38:])}
	s := dma.Shape{NX: uint64(le.Uint32(e[0x18:])), NY: uint64(le.Uint16(e[0x1c:])), NZ: uint64(le.Uint16(e[0x1e:]))}
	switch {
	case !x.view.Reaches(src.Space) || !x.view.Reaches(dst.Space):
		return invalidField(4)
	case s.NX == 0:
		return invalidField(0x18)
	case s.NY == 0:
		return invalidField(0x1c)
	case s.NZ == 0:
		return invalidField(0x1e)
	}
	if _, ok := src.Last(s); !ok {
		return invalidField(0x08)
	}
	if _, ok := dst.Last(s); !ok {
		return invalidField(0x10)
	}
	n, row, err := x.view.Copy(ctx, dst, src, s, x.buf)
	x.d.count(npureg.CounterDMARead, n)
	x.d.count(npureg.CounterDMAWritten, n)
	if err != nil {
		c := x.fault(err)
		c.Result = uint32(row)
		return c
	}
	x.d.count(npureg.CounterCopies, 1)
	if x.clock.on {
		x.cycles = x.clock.config.Copy(s.NX, s.NY, s.NZ, x.side(dma.ToRead, src), x.side(dma.ToWrite, dst))
	}
	return queue.Completion{Info: n}
}

// launch is LAUNCH (§4.9).
func (x *executor) launch(ctx context.Context, e *queue.Entry) queue.Completion {
	profiled := x.clock.shown && e[1]&npureg.LaunchProfile != 0
	if e[1]&^npureg.LaunchProfile != 0 || e[1] != 0 && !profiled {
		return invalidField(1)
	}
	c, ok := zero(e, [2]int{4, 8}, [2]int{0x1d, 0x20}, [2]int{0x24, 64})
	if profiled {
		c, ok = zero(e, [2]int{4, 8}, [2]int{0x1d, 0x20}, [2]int{0x25, 0x28}, [2]int{0x30, 64})
	}
	if !ok {
		return c
	}
	le := binary.LittleEndian
	record, recordSpace := le.Uint64(e[0x28:]), dma.Space(e[0x24])
	addr, table := le.Uint64(e[0x08:]), le.Uint64(e[0x10:])
	count, size := le.Uint32(e[0x18:]), le.Uint32(e[0x20:])
	space, tableSpace := dma.Space(e[0x1c]&15), dma.Space(e[0x1c]>>4)
	switch {
	case addr%isa.DescriptorSize != 0 || wraps(addr, uint64(size)):
		return invalidField(0x08)
	case table%npureg.BindingSize != 0 || count == 0 && table != 0 || wraps(table, uint64(count)*npureg.BindingSize):
		return invalidField(0x10)
	case count > npureg.MaxBindings:
		return invalidField(0x18)
	case !x.view.Reaches(space) || !x.view.Reaches(tableSpace):
		return invalidField(0x1c)
	case size < isa.DescriptorSize || size > maxProgram:
		return invalidField(0x20)
	case profiled && !x.view.Reaches(recordSpace):
		return invalidField(0x24)
	case profiled && (record%8 != 0 || wraps(record, npureg.ProfileSize)):
		return invalidField(0x28)
	}
	var bindings []core.Binding
	bindings, c = x.bindings(tableSpace, table, int(count))
	if c.Status != npureg.StatusSuccess {
		return c
	}
	if cap(x.text) < int(size) {
		x.text = make([]byte, size)
	}
	image := x.text[:size]
	desc := (*[isa.DescriptorSize]byte)(image)
	if err := x.view.Fetch(space, addr, desc[:]); err != nil {
		return x.fault(err)
	}
	text, err := x.core.CheckDescriptor(desc, int(count))
	if err != nil {
		return x.programError(ctx, err)
	}
	if uint64(size) != isa.DescriptorSize+uint64(text) {
		return queue.Completion{Status: npureg.StatusBadProgram, Info: 0x10}
	}
	if err := x.view.Fetch(space, addr+isa.DescriptorSize, image[isa.DescriptorSize:]); err != nil {
		return x.fault(err)
	}
	x.measure(ctx, image, bindings)
	x.memory = programMemory{x.view, ctx}
	stats, err := x.core.Run(ctx, image, bindings, &x.memory)
	x.d.count(npureg.CounterInstructions, stats.Instructions)
	x.d.count(npureg.CounterMACs, stats.MACs)
	x.d.count(npureg.CounterDMARead, stats.BytesLoaded)
	x.d.count(npureg.CounterDMAWritten, stats.BytesStored)
	for _, h := range x.core.Hazards() {
		if h.Race() {
			x.d.findings.add("token-race", "an instruction's tokens do not depend on which engine is faster (§5.5)", h.String())
		} else {
			x.d.findings.add("hazard", "tokens order two engines that touch the same byte, at least one of them writing (§5.5)", h.String())
		}
	}
	for _, u := range x.core.Unused() {
		x.d.findings.add("token-unused", "every token that is signalled is waited for before the program ends (§5.5)", u.String())
	}
	if err != nil {
		return x.programError(ctx, err)
	}
	if k := &x.clock; k.on {
		x.cycles += k.config.Fetch(uint64(size), x.onBus(dma.ToExecute, space, addr))
		if count > 0 {
			x.cycles += k.config.Fetch(uint64(count)*npureg.BindingSize, x.onBus(dma.ToRead, tableSpace, table))
		}
	}
	if profiled {
		if err := x.profile(recordSpace, record, stats); err != nil {
			return x.fault(err)
		}
	}
	x.d.count(npureg.CounterPrograms, 1)
	return queue.Completion{Result: uint32(stats.Instructions), Info: stats.MACs}
}

// programError turns an error of the core into a completion (§5.7).
func (x *executor) programError(ctx context.Context, err error) queue.Completion {
	var f *core.Fault
	if !errors.As(err, &f) {
		return queue.Completion{Status: npureg.StatusAborted}
	}
	errors.As(err, &x.unreached)
	x.d.log.LogAttrs(ctx, slog.LevelDebug, "program error", slog.String("error", f.Error()))
	c := queue.Completion{Status: npureg.Status(f.Status), Info: f.Info}
	var memory *dma.Fault
	switch {
	case f.Status == core.StatusPoison:
		c = queue.Completion{Status: npureg.StatusPoison, Info: npureg.UnitScratchpad<<poisonUnitShift | f.Info}
		x.granule = f.Info
	case errors.As(f.Err, &memory) && errors.Is(memory.Err, dma.ErrPoison):
		c = x.poison(memory)
	case memory != nil:
		x.refuse(memory)
		if s := faultStatus(memory); s == npureg.StatusTranslationFault {
			c.Status = s
		}
	}
	c.Result = f.Instr
	return c
}

// bindings reads and checks a binding table (§7.3). The list is valid until the next call.
func (x *executor) bindings(space dma.Space, addr uint64, count int) ([]core.Binding, queue.Completion) {
	if count == 0 {
		return nil, queue.Completion{}
	}
	x.table = slices.Grow(x.table[:0], count*npureg.BindingSize)
	raw := x.table[:count*npureg.BindingSize]
	if err := x.view.Read(dma.Command, space, addr, raw); err != nil {
		return nil, x.fault(err)
	}
	le := binary.LittleEndian
	x.bound = slices.Grow(x.bound[:0], count)
	list := x.bound[:count]
	for i := range list {
		b := raw[i*npureg.BindingSize:][:npureg.BindingSize]
		flags := le.Uint32(b[0x10:])
		list[i] = core.Binding{Addr: le.Uint64(b), Size: le.Uint64(b[8:]), Read: flags&1 != 0, Write: flags&2 != 0, Space: uint8(flags >> 4 & 15)}
		reserved := le.Uint32(b[0x14:])|le.Uint32(b[0x18:])|le.Uint32(b[0x1c:]) != 0
		if list[i].Size == 0 || wraps(list[i].Addr, list[i].Size) || reserved || flags&^0xf3 != 0 || !x.view.Reaches(dma.Space(list[i].Space)) {
			return nil, queue.Completion{Status: npureg.StatusInvalidBinding, Info: uint64(i)}
		}
	}
	return list, queue.Completion{}
}

// wraps reports whether size bytes at addr pass 2⁶⁴ (§7.2).
func wraps(addr, size uint64) bool { return size != 0 && addr > ^uint64(0)-(size-1) }

// programMemory is a program's way to memory (core.Memory). An instruction can have
// a million rows, so the end of the command is looked at before each of them.
type programMemory struct {
	view *dma.View
	cmd  context.Context // the command's, which outlives its programMemory
}

func (m *programMemory) Load(b core.Binding, off uint64, p []byte) error {
	if err := m.cmd.Err(); err != nil {
		return err
	}
	return memoryError(m.view.Read(dma.Load, dma.Space(b.Space), b.Addr+off, p))
}

func (m *programMemory) Store(b core.Binding, off uint64, p []byte) error {
	if err := m.cmd.Err(); err != nil {
		return err
	}
	return memoryError(m.view.Write(dma.Store, dma.Space(b.Space), b.Addr+off, p))
}

// LoadRows implements core.RowMemory. Rows that it has are at most a plane of 65535.
func (m *programMemory) LoadRows(b core.Binding, off, stride uint64, p []byte, step, size, rows int) bool {
	return m.cmd.Err() == nil && m.view.ReadRows(dma.Space(b.Space), b.Addr+off, stride, p, step, size, rows)
}

// StoreRows implements core.RowMemory.
func (m *programMemory) StoreRows(b core.Binding, off, stride uint64, p []byte, step, size, rows int) bool {
	return m.cmd.Err() == nil && m.view.WriteRows(dma.Space(b.Space), b.Addr+off, stride, p, step, size, rows)
}

// Place implements core.PlacedMemory.
func (m *programMemory) Place(b core.Binding) (uint64, bool) {
	var access iova.Prot
	if b.Read {
		access |= iova.Read
	}
	if b.Write {
		access |= iova.Write
	}
	return m.view.Direct(dma.Space(b.Space), access, b.Addr, b.Size)
}

func memoryError(err error) error {
	if err == nil {
		return nil // before f, which errors.As puts on the heap
	}
	var f *dma.Fault
	if errors.As(err, &f) {
		return &core.MemoryError{Addr: f.Addr, Err: err}
	}
	return err
}
