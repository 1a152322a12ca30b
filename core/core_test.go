// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/core"
	"npuemu/core/isa"
)

// testConfig is a small core.
var testConfig = core.Config{Rows: 16, Cols: 24, SpadSize: 8192, AccSize: 4096}

// memory is a core.Memory whose binding i is at address (i+1) << 32.
type memory struct {
	t    testing.TB
	bufs [][]byte
	// fail, if set, decides the outcome of an access before it happens.
	fail  func(b core.Binding, off uint64) error
	calls int
	// failsAt, if not 0, is an offset in the first binding that cannot be read.
	failsAt uint64
	planes  int // that a rowMemory was asked for
}

func (m *memory) access(b core.Binding, off uint64, p []byte) ([]byte, error) {
	m.calls++
	if m.fail != nil {
		if err := m.fail(b, off); err != nil {
			return nil, err
		}
	}
	if len(p) == 0 || off > b.Size || uint64(len(p)) > b.Size-off {
		m.t.Errorf("core accesses [%#x, +%#x) in a binding of %#x bytes", off, len(p), b.Size)
		return nil, errors.New("outside")
	}
	if at := m.failsAt; at > 0 && b.Addr == 1<<32 && off <= at && at < off+uint64(len(p)) {
		return nil, &core.MemoryError{Addr: b.Addr + at, Err: errors.New("bad")}
	}
	return m.bufs[b.Addr>>32-1][off:], nil
}

func (m *memory) Load(b core.Binding, off uint64, p []byte) error {
	buf, err := m.access(b, off, p)
	if !b.Read {
		m.t.Errorf("core reads a binding without Read")
	}
	copy(p, buf)
	return err
}

func (m *memory) Store(b core.Binding, off uint64, p []byte) error {
	buf, err := m.access(b, off, p)
	if !b.Write {
		m.t.Errorf("core writes a binding without Write")
	}
	copy(buf, p)
	return err
}

// rowMemory moves rows at once, too, if none of them fails.
type rowMemory struct{ *memory }

func (m rowMemory) rows(off, stride uint64, p []byte, step, size, rows int, move func(off uint64, p []byte) error) bool {
	m.planes++
	for k := range rows {
		if move(off+uint64(k)*stride, p[k*step:][:size]) != nil {
			return false
		}
	}
	return true
}

func (m rowMemory) LoadRows(b core.Binding, off, stride uint64, p []byte, step, size, rows int) bool {
	return m.rows(off, stride, p, step, size, rows, func(off uint64, p []byte) error { return m.Load(b, off, p) })
}

func (m rowMemory) StoreRows(b core.Binding, off, stride uint64, p []byte, step, size, rows int) bool {
	return m.rows(off, stride, p, step, size, rows, func(off uint64, p []byte) error { return m.Store(b, off, p) })
}

// bind makes every buffer a binding that may be read and written.
func (m *memory) bind() []core.Binding {
	table := make([]core.Binding, len(m.bufs))
	for i, b := range m.bufs {
		table[i] = core.Binding{Addr: uint64(i+1) << 32, Size: uint64(len(b)), Read: true, Write: true}
	}
	return table
}

func newCore(t testing.TB, cfg core.Config) *core.Core {
	t.Helper()
	c, err := core.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// program is one that uses all of cfg's local memory.
func program(cfg core.Config, bindings int, text []byte) *isa.Program {
	return &isa.Program{
		Descriptor: isa.Descriptor{
			Rows: uint16(cfg.Rows), Cols: uint16(cfg.Cols),
			SpadSize: uint32(cfg.SpadSize), AccSize: uint32(cfg.AccSize), Bindings: uint16(bindings),
		},
		Text: text,
	}
}

// run executes instructions on a new small core with bufs as bindings.
func run(t testing.TB, bufs [][]byte, text ...isa.Instruction) (core.Stats, error) {
	t.Helper()
	m := &memory{t: t, bufs: bufs}
	image := program(testConfig, len(bufs), isa.Text(text...)).Image()
	return newCore(t, testConfig).Run(t.Context(), image, m.bind(), m)
}

func tok(id, count uint8) isa.Token { return isa.Token{ID: id, Count: count} }

func TestConfig(t *testing.T) {
	for _, tt := range []struct {
		cfg core.Config
		ok  bool
	}{
		{testConfig, true},
		{core.Config{Rows: 8, Cols: 256, SpadSize: 1, AccSize: 4}, true},
		{core.Config{Rows: 4, Cols: 8, SpadSize: 64, AccSize: 64}, false},
		{core.Config{Rows: 8, Cols: 264, SpadSize: 64, AccSize: 64}, false},
		{core.Config{Rows: 8, Cols: 8, SpadSize: 0, AccSize: 64}, false},
		{core.Config{Rows: 8, Cols: 8, SpadSize: core.MaxLocalSize + 1, AccSize: 64}, false},
		{core.Config{Rows: 8, Cols: 8, SpadSize: 64, AccSize: 0}, false},
		{core.Config{Rows: 8, Cols: 8, SpadSize: 64, AccSize: 66}, false},
		{core.Config{Rows: 8, Cols: 8, SpadSize: 64, AccSize: core.MaxLocalSize + 4}, false},
		{core.Config{Rows: 8, Cols: 8, SpadSize: 64, AccSize: 64, Threads: core.MaxThreads}, true},
		{core.Config{Rows: 8, Cols: 8, SpadSize: 64, AccSize: 64, Threads: core.MaxThreads + 1}, false},
		{core.Config{Rows: 8, Cols: 8, SpadSize: 64, AccSize: 64, Threads: -1}, false},
	} {
		if err := tt.cfg.Validate(); (err == nil) != tt.ok {
			t.Errorf("%+v.Validate() = %v, want ok %t", tt.cfg, err, tt.ok)
		}
		if !tt.ok {
			if _, err := core.New(tt.cfg); err == nil {
				t.Errorf("New(%+v) succeeded", tt.cfg)
			}
		}
	}
}

// Every row of §5.7, and what the order of the checks decides.
func TestProgramErrors(t *testing.T) {
	load := isa.Load{NX: 16, NY: 1, NZ: 1}
	edit := func(f func(*isa.Load)) isa.Load {
		i := load
		f(&i)
		return i
	}
	raw := func(i isa.Instruction, off int, v byte) []byte {
		w := i.Encode()
		w[off] = v
		return w[:]
	}
	overflow := []isa.Instruction{}
	for range 17 { // 17 · 15 = 255
		overflow = append(overflow, isa.Sync{Engine: isa.ClassLoad, Signal: tok(9, 15)})
	}
	full := isa.Text(overflow...)
	syncLoad := isa.Sync{Engine: isa.ClassLoad}
	requant := isa.Requant{N: 2, PerChannel: true, Params: 8, MX: 1, MY: 1, Lo: -128, Hi: 127}

	// Binding 0: 64 bytes, read. Binding 1: 64 bytes, write. Addresses behind
	// either fault from offset 48 on; at 40 the fault names another address.
	tests := []struct {
		name   string
		text   []byte
		status core.Status // 0: no fault
		instr  uint32
		info   uint64
	}{
		{"no error", isa.Text(load, isa.Halt{}), 0, 0, 0},
		{"opcode", append(isa.Text(syncLoad), raw(isa.Halt{}, 0, 0x77)...), core.StatusIllegalInstruction, 1, 0x77},
		{"reserved", append(isa.Text(syncLoad, syncLoad), raw(isa.Halt{}, 30, 1)...), core.StatusReservedField, 2, 30},
		{"operand", isa.Text(syncLoad, edit(func(i *isa.Load) { i.NX = 0 }), isa.Halt{}), core.StatusBadOperand, 1, 16},
		{"shape", isa.Text(isa.Preload{K: 17, N: 1, Stride: 1}, isa.Halt{}), core.StatusArrayShape, 0, 4},
		{"scratchpad", isa.Text(isa.Fill{Local: 8191, NX: 2, NY: 1}, isa.Halt{}), core.StatusLocalBounds, 0, 8192},
		{"accumulators", isa.Text(isa.Fill{Acc: true, Local: 4096, NX: 4, NY: 1}, isa.Halt{}), core.StatusLocalBounds, 0, 4096},
		{"binding index", isa.Text(edit(func(i *isa.Load) { i.Binding = 2 }), isa.Halt{}), core.StatusBindingIndex, 0, 2},
		{"binding not readable", isa.Text(edit(func(i *isa.Load) { i.Binding = 1 }), isa.Halt{}), core.StatusBindingAccess, 0, 1},
		{"binding not writable", isa.Text(isa.Store(load), isa.Halt{}), core.StatusBindingAccess, 0, 0},
		{"binding straddled", isa.Text(edit(func(i *isa.Load) { i.Offset = 60 }), isa.Halt{}), core.StatusBindingBounds, 0, 64},
		{"binding passed", isa.Text(edit(func(i *isa.Load) { i.Offset = 1 << 39 }), isa.Halt{}), core.StatusBindingBounds, 0, 1 << 39},
		{"binding plane outside", isa.Text(edit(func(i *isa.Load) { i.NZ, i.StrideZ, i.LocalStride = 3, 50, 16 }), isa.Halt{}), core.StatusBindingBounds, 0, 64},
		{
			"parameter",
			isa.Text(isa.Fill{Local: 8, Value: 1, NX: 5, NY: 1, Signal: tok(0, 1)}, isa.Sync{Engine: isa.ClassLoad, Wait: tok(0, 1)}, requant, isa.Halt{}),
			core.StatusBadParam, 2, 16,
		},
		{"memory", isa.Text(edit(func(i *isa.Load) { i.Offset = 48 }), isa.Halt{}), core.StatusMemoryFault, 0, 1<<32 + 48},
		{"memory names the address", isa.Text(edit(func(i *isa.Load) { i.Offset = 40 }), isa.Halt{}), core.StatusMemoryFault, 0, 0xdead},
		{"memory, accumulators", isa.Text(edit(func(i *isa.Load) { i.Offset, i.Acc = 48, true }), isa.Halt{}), core.StatusMemoryFault, 0, 1<<32 + 48},
		{"memory, store", isa.Text(isa.Store(edit(func(i *isa.Load) { i.Binding, i.Offset = 1, 48 })), isa.Halt{}), core.StatusMemoryFault, 0, 2<<32 + 48},
		{"counter at 255", append(full[:len(full):len(full)], isa.Text(isa.Halt{})...), 0, 0, 0},
		{
			"counter passes 255",
			append(full[:len(full):len(full)], isa.Text(isa.Sync{Engine: isa.ClassLoad, Signal: tok(9, 1)}, isa.Halt{})...),
			core.StatusTokenOverflow, 17, 9,
		},
		{
			"deadlock",
			isa.Text(syncLoad, isa.Sync{Engine: isa.ClassVector, Wait: tok(3, 1)}, isa.Sync{Engine: isa.ClassLoad, Wait: tok(4, 2)}, isa.Halt{}),
			core.StatusDeadlock, 1, 3,
		},
		{
			"deadlock for want of one",
			isa.Text(isa.Sync{Engine: isa.ClassLoad, Signal: tok(4, 1)}, isa.Sync{Engine: isa.ClassMatrix, Wait: tok(4, 2)}, isa.Halt{}),
			core.StatusDeadlock, 1, 4,
		},
		{
			"deadlock of an earlier load",
			isa.Text(isa.Sync{Engine: isa.ClassLoad, Wait: tok(4, 2)}, isa.Sync{Engine: isa.ClassVector, Wait: tok(3, 1)}, isa.Halt{}),
			core.StatusDeadlock, 0, 4,
		},
		{
			"deadlock after the count was taken",
			isa.Text(
				isa.Sync{Engine: isa.ClassLoad, Signal: tok(4, 1)},
				isa.Sync{Engine: isa.ClassMatrix, Wait: tok(4, 1)}, isa.Sync{Engine: isa.ClassMatrix, Wait: tok(4, 1)}, isa.Halt{},
			),
			core.StatusDeadlock, 2, 4,
		},
		{"no halt", isa.Text(syncLoad, syncLoad), core.StatusNoHalt, 2, 0},

		{"reserved before operand", raw(edit(func(i *isa.Load) { i.NX = 0 }), 1, 2), core.StatusReservedField, 0, 1},
		{"operand before binding", isa.Text(edit(func(i *isa.Load) { i.NX, i.Binding = 0, 9 }), isa.Halt{}), core.StatusBadOperand, 0, 16},
		{"local before binding", isa.Text(edit(func(i *isa.Load) { i.Local, i.Binding = 8192, 9 }), isa.Halt{}), core.StatusLocalBounds, 0, 8192},
		{"access before bounds", isa.Text(edit(func(i *isa.Load) { i.Offset, i.Binding = 64, 1 }), isa.Halt{}), core.StatusBindingAccess, 0, 1},
		{"bounds before memory", isa.Text(edit(func(i *isa.Load) { i.Offset = 49 }), isa.Halt{}), core.StatusBindingBounds, 0, 64},
		{"local before parameter", isa.Text(isa.Requant{N: 2, Out: 8191, MX: 1, MY: 1}, isa.Halt{}), core.StatusLocalBounds, 0, 8192},
		{"behind halt is not looked at", append(isa.Text(isa.Halt{}), make([]byte, 64)...), 0, 0, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := &memory{t: t, bufs: [][]byte{make([]byte, 64), make([]byte, 64)}}
			m.fail = func(b core.Binding, off uint64) error {
				switch {
				case off >= 48:
					return errors.New("not mapped")
				case off == 40:
					return fmt.Errorf("copy: %w", &core.MemoryError{Addr: 0xdead, Err: errors.New("not mapped")})
				}
				return nil
			}
			bindings := m.bind()
			bindings[0].Write = false
			bindings[1].Read = false
			_, err := newCore(t, testConfig).Run(t.Context(), program(testConfig, 2, tt.text).Image(), bindings, m)
			if tt.status == 0 {
				if err != nil {
					t.Errorf("Run: %v", err)
				}
				return
			}
			var f *core.Fault
			if !errors.As(err, &f) || f.Status != tt.status || f.Instr != tt.instr || f.Info != tt.info {
				t.Errorf("Run: %v, want %v of instruction %d with info %#x", err, tt.status, tt.instr, tt.info)
			}
		})
	}
}

// The limits are the program's, not the core's (§5.3), and the launch may have
// more bindings than the program says.
func TestProgramLimits(t *testing.T) {
	m := &memory{t: t, bufs: [][]byte{make([]byte, 64), make([]byte, 64)}}
	p := program(testConfig, 1, isa.Text(isa.Load{Binding: 1, NX: 64, NY: 1, NZ: 1}, isa.Halt{}))
	p.SpadSize = 64
	c := newCore(t, testConfig)
	if _, err := c.Run(t.Context(), p.Image(), m.bind(), m); err != nil {
		t.Errorf("64 bytes: %v", err)
	}
	p.SpadSize = 63
	var f *core.Fault
	if _, err := c.Run(t.Context(), p.Image(), m.bind(), m); !errors.As(err, &f) || f.Status != core.StatusLocalBounds || f.Info != 63 {
		t.Errorf("63 bytes: %v, want LOCAL_BOUNDS with info 63", err)
	}
}

func TestDescriptorErrors(t *testing.T) {
	good := func() []byte { return program(testConfig, 0, isa.Text(isa.Halt{})).Image() }
	tests := []struct {
		name   string
		edit   func(b []byte) []byte
		status core.Status
		info   uint64
	}{
		{"short", func(b []byte) []byte { return b[:63] }, core.StatusBadProgram, 0},
		{"text missing", func(b []byte) []byte { return b[:64] }, core.StatusBadProgram, 0x10},
		{"magic", func(b []byte) []byte { b[0] = 0; return b }, core.StatusBadProgram, 0x00},
		{"array_rows", func(b []byte) []byte { b[0x18] = 32; return b }, core.StatusConfigMismatch, 0x18},
		{"spad_size", func(b []byte) []byte { b[0x1c] = 1; return b }, core.StatusConfigMismatch, 0x1c},
		{"acc_size", func(b []byte) []byte { b[0x20] = 1; return b }, core.StatusConfigMismatch, 0x20},
		{"features", func(b []byte) []byte { b[0x28] = 1; return b }, core.StatusConfigMismatch, 0x28},
		{"binding_count", func(b []byte) []byte { b[0x24] = 1; return b }, core.StatusBadProgram, 0x24},
		{"text_crc32", func(b []byte) []byte { b[0x14]++; return b }, core.StatusBadProgram, 0x14},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var f *core.Fault
			_, err := newCore(t, testConfig).Run(t.Context(), tt.edit(good()), nil, nil)
			if !errors.As(err, &f) || f.Status != tt.status || f.Instr != 0 || f.Info != tt.info {
				t.Errorf("Run: %v, want %v with info %#x", err, tt.status, tt.info)
			}
		})
	}
	c := newCore(t, testConfig)
	desc := (*[isa.DescriptorSize]byte)(good())
	if size, err := c.CheckDescriptor(desc, 0); size != isa.Size || err != nil {
		t.Errorf("CheckDescriptor = %d, %v, want %d", size, err, isa.Size)
	}
	desc[0] = 0
	if _, err := c.CheckDescriptor(desc, 0); err == nil {
		t.Error("CheckDescriptor accepts a bad magic")
	}
}

// The names are those of §9.
func TestStatusNames(t *testing.T) {
	want := []string{
		"BAD_PROGRAM", "CONFIG_MISMATCH", "ILLEGAL_INSTRUCTION", "RESERVED_FIELD", "BAD_OPERAND", "ARRAY_SHAPE",
		"LOCAL_BOUNDS", "BINDING_INDEX", "BINDING_ACCESS", "BINDING_BOUNDS", "BAD_PARAM", "MEMORY_FAULT",
		"TOKEN_OVERFLOW", "DEADLOCK", "NO_HALT",
	}
	for i, name := range want {
		if got := core.Status(0x40 + i).String(); got != name {
			t.Errorf("Status(%#x) = %s, want %s", 0x40+i, got, name)
		}
	}
}

func TestTokenOrder(t *testing.T) {
	out := func() [][]byte { return [][]byte{{1, 2, 3, 4}, make([]byte, 4)} }
	load := isa.Load{NX: 4, NY: 1, NZ: 1, Signal: tok(0, 1)}
	store := isa.Store{Binding: 1, NX: 4, NY: 1, NZ: 1, Wait: tok(0, 1)}
	tests := []struct {
		name string
		text []isa.Instruction
		want []byte
	}{
		{"store waits for a later load", []isa.Instruction{store, load, isa.Halt{}}, []byte{1, 2, 3, 4}},
		{"two signals for one wait", []isa.Instruction{
			isa.Store{Binding: 1, NX: 4, NY: 1, NZ: 1, Wait: tok(0, 2)},
			isa.Fill{Value: 7, NX: 2, NY: 1, Wait: tok(1, 1), Signal: tok(0, 1)},
			isa.Load{NX: 4, NY: 1, NZ: 1, Signal: tok(1, 1)},
			isa.Sync{Engine: isa.ClassMatrix, Signal: tok(0, 1)},
			isa.Halt{},
		}, []byte{7, 7, 3, 4}},
		{"an engine keeps its order behind a wait", []isa.Instruction{
			isa.Fill{Value: 1, NX: 4, NY: 1, Wait: tok(5, 1)},
			isa.Fill{Value: 2, NX: 2, NY: 1, Signal: tok(0, 1)},
			isa.Sync{Engine: isa.ClassLoad, Signal: tok(5, 1)},
			store, isa.Halt{},
		}, []byte{2, 2, 1, 1}},
		{"signal and wait of one instruction", []isa.Instruction{
			isa.Sync{Engine: isa.ClassVector, Signal: tok(3, 1)},
			isa.Sync{Engine: isa.ClassMatrix, Wait: tok(3, 1), Signal: tok(3, 1)},
			isa.Load{NX: 4, NY: 1, NZ: 1, Wait: tok(3, 1), Signal: tok(0, 1)},
			store, isa.Halt{},
		}, []byte{1, 2, 3, 4}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bufs := out()
			stats, err := run(t, bufs, tt.text...)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, bufs[1]); diff != "" {
				t.Errorf("stored (-want +got):\n%s", diff)
			}
			if int(stats.Instructions) != len(tt.text) {
				t.Errorf("%d instructions, want %d", stats.Instructions, len(tt.text))
			}
		})
	}
}

func TestStats(t *testing.T) {
	stats, err := run(
		t, [][]byte{make([]byte, 64)},
		isa.Load{NX: 8, NY: 2, NZ: 2, StrideY: 8, StrideZ: 16, LocalStride: 8, Signal: tok(0, 1)},
		isa.Preload{K: 2, N: 3, Stride: 3, Wait: tok(0, 1)},
		isa.Matmul{K: 2, N: 3, MX: 4, MY: 5, AccStride: 12, Signal: tok(1, 1)},
		isa.Store{Acc: true, NX: 12, NY: 1, NZ: 1, Wait: tok(1, 1)},
		isa.Sync{Engine: isa.ClassVector},
		isa.Halt{},
	)
	if err != nil {
		t.Fatal(err)
	}
	want := core.Stats{Instructions: 6, ByClass: [5]uint64{1, 1, 1, 2, 1}, MACs: 120, BytesLoaded: 32, BytesStored: 12}
	if diff := cmp.Diff(want, stats); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

// Nothing of an earlier program can be observed (§5.1).
func TestStartsFromZero(t *testing.T) {
	c := newCore(t, testConfig)
	m := &memory{t: t, bufs: [][]byte{make([]byte, 8192), make([]byte, 4096)}}
	leave := isa.Text(
		isa.Fill{Value: 1, NX: 8192, NY: 1},
		isa.Fill{Value: 2, NX: 4096, NY: 1, Acc: true, Signal: tok(0, 1)},
		isa.Preload{K: 16, N: 24, Stride: 24, Wait: tok(0, 1), Signal: tok(5, 3)},
		isa.Halt{},
	)
	look := func(text ...isa.Instruction) []byte { return program(testConfig, 2, isa.Text(text...)).Image() }

	if _, err := c.Run(t.Context(), program(testConfig, 2, leave).Image(), m.bind(), m); err != nil {
		t.Fatal(err)
	}
	_, err := c.Run(t.Context(), look(
		isa.Fill{Value: 3, NX: 16, NY: 1, Local: 0, Signal: tok(1, 1)},
		isa.Matmul{K: 16, N: 24, MX: 1, MY: 1, Acc: 0, Accumulate: true, Wait: tok(1, 1), Signal: tok(2, 1)},
		isa.Fill{Value: 0, NX: 16, NY: 1, Wait: tok(2, 1), Signal: tok(3, 1)},
		isa.Store{NX: 8192, NY: 1, NZ: 1, Wait: tok(3, 1)},
		isa.Store{Binding: 1, Acc: true, NX: 4096, NY: 1, NZ: 1},
		isa.Halt{},
	), m.bind(), m)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range m.bufs {
		if n := bytes.Count(b, []byte{0}); n != len(b) {
			t.Errorf("binding %d: %d bytes are not 0", i, len(b)-n)
		}
	}
	var f *core.Fault
	if _, err := c.Run(t.Context(), look(isa.Sync{Engine: isa.ClassLoad, Wait: tok(5, 1)}, isa.Halt{}), m.bind(), m); !errors.As(err, &f) || f.Status != core.StatusDeadlock {
		t.Errorf("token of the program before: %v, want DEADLOCK", err)
	}
}

// A convolution as §5.6.5 describes it: one MATMUL for each kernel position,
// over a bias, against sums over a picture with coordinates.
func TestConvolution(t *testing.T) {
	const (
		h, w, cin, cout, kernel = 9, 11, 4, 10, 3
		oh, ow                  = h - kernel + 1, w - kernel + 1
		ifmap, weights          = 0, 512
		bias, params, out       = 1024, 1088, 2048
	)
	rng := rand.New(rand.NewPCG(3, 4))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	in := random(h * w * cin)                        // [y][x][c]
	filter := random(kernel * kernel * cin * cout)   // [ky][kx][c][n]
	table := make([]byte, 4*cout, 4*cout+cout*8+100) // bias, then parameters from 64
	for n := range cout {
		binary.LittleEndian.PutUint32(table[4*n:], uint32(rng.IntN(20000)-10000))
	}
	table = append(table, make([]byte, params-bias-len(table))...)
	for range cout {
		table = binary.LittleEndian.AppendUint32(table, 1<<30+uint32(rng.IntN(1<<30)))
		table = append(table, byte(38+rng.IntN(3)), 0, 0, 0)
	}
	result := make([]byte, oh*ow*cout)
	bufs := [][]byte{in, filter, table, result}

	text := []isa.Instruction{
		isa.Load{Binding: 0, Local: ifmap, NX: uint32(len(in)), NY: 1, NZ: 1},
		isa.Load{Binding: 1, Local: weights, NX: uint32(len(filter)), NY: 1, NZ: 1},
		isa.Load{Binding: 2, Local: bias, NX: uint32(len(table)), NY: 1, NZ: 1, Signal: tok(0, 1)},
		isa.Bias{N: cout, AccStride: 4 * cout, Bias: bias, M: oh * ow, Wait: tok(0, 1), Signal: tok(1, 1)},
		isa.Sync{Engine: isa.ClassMatrix, Wait: tok(1, 1)},
	}
	for ky := range kernel {
		for kx := range kernel {
			text = append(
				text,
				isa.Preload{K: cin, N: cout, Stride: cout, Weights: uint32(weights + (ky*kernel+kx)*cin*cout)},
				isa.Matmul{
					Accumulate: true, K: cin, N: cout, MX: ow, MY: oh, AccStride: 4 * cout,
					Ifmap: uint32(ifmap + (ky*w+kx)*cin), StrideX: cin, StrideY: w * cin,
				},
			)
		}
	}
	text = append(
		text,
		isa.Sync{Engine: isa.ClassMatrix, Signal: tok(2, 1)},
		isa.Requant{
			PerChannel: true, N: cout, AccStride: 4 * cout, Out: out, Params: params, MX: ow, MY: oh,
			OutStrideX: cout, OutStrideY: ow * cout, ZeroPoint: -5, Lo: -5, Hi: 127, Wait: tok(2, 1), Signal: tok(3, 1),
		},
		isa.Store{Binding: 3, Local: out, NX: uint32(len(result)), NY: 1, NZ: 1, Wait: tok(3, 1)},
		isa.Halt{},
	)
	stats, err := run(t, bufs, text...)
	if err != nil {
		t.Fatal(err)
	}
	distinct := map[byte]bool{}
	for y := range oh {
		for x := range ow {
			for n := range cout {
				sum := int32(binary.LittleEndian.Uint32(table[4*n:]))
				for ky := range kernel {
					for kx := range kernel {
						for c := range cin {
							a := int8(in[((y+ky)*w+x+kx)*cin+c])
							b := int8(filter[((ky*kernel+kx)*cin+c)*cout+n])
							sum += int32(a) * int32(b)
						}
					}
				}
				p := table[params-bias+8*n:]
				want := requantize(sum, int32(binary.LittleEndian.Uint32(p)), p[4], -5, -5, 127)
				if got := int8(result[(y*ow+x)*cout+n]); got != want {
					t.Fatalf("(%d, %d, %d) = %d, want %d", y, x, n, got, want)
				}
				distinct[byte(want)] = true
			}
		}
	}
	if len(distinct) < 50 {
		t.Errorf("only %d different results: the scales hide mistakes", len(distinct))
	}
	if want := uint64(oh * ow * cout * kernel * kernel * cin); stats.MACs != want {
		t.Errorf("%d MACs, want %d", stats.MACs, want)
	}
}

// randomInstruction returns an instruction that breaks no rule in l with
// bindings of size bytes. Results stay below 7168; the parameters above survive
// more often than not.
func randomInstruction(rng *rand.Rand, l isa.Limits, size uint64) isa.Instruction {
	addr := func() uint32 { return uint32(rng.IntN(1000)) }
	word := func() uint32 { return uint32(rng.IntN(250)) * 4 }
	for {
		var in isa.Instruction
		n := 1 + rng.IntN(25)
		step := uint16(4 * (n + rng.IntN(3)))
		mx, my := uint16(1+rng.IntN(6)), uint16(1+rng.IntN(6))
		acc := rng.IntN(2) == 0
		switch rng.IntN(7) {
		case 0, 1:
			i := isa.Load{
				Acc: acc, Binding: uint8(rng.IntN(2)), Offset: uint64(rng.IntN(int(size))), Local: addr(), NX: 1 + addr()%64,
				NY: mx, NZ: my, StrideY: addr() % 100, StrideZ: addr(), LocalStride: uint16(64 + rng.IntN(9)),
			}
			if rng.IntN(3) == 0 { // dense
				i.NX, i.StrideY, i.StrideZ, i.LocalStride = 16, 16, 16*uint32(mx), 16
			}
			if acc {
				i.Local, i.NX, i.LocalStride = i.Local&^3, (i.NX+3)&^3, i.LocalStride&^3
			}
			if _, outside := i.Memory().Outside(size); outside {
				continue
			}
			in = i
			if rng.IntN(2) == 0 {
				in = isa.Store(i)
			}
		case 2:
			in = isa.Preload{K: uint16(1 + rng.IntN(17)), N: uint16(n), Weights: addr(), Stride: uint32(n + rng.IntN(4))}
		case 3:
			in = isa.Matmul{
				Accumulate: acc, K: uint16(1 + rng.IntN(17)), N: uint16(n), Ifmap: addr(), Acc: word(),
				MX: mx, MY: my, StrideX: uint16(rng.IntN(40)), StrideY: addr(), AccStride: step,
			}
		case 4:
			in = isa.Fill{Acc: acc, Value: uint8(addr()), Local: word(), NX: uint32(4 * n), NY: uint32(mx), Stride: uint32(step)}
		case 5:
			in = isa.Bias{N: uint16(n), AccStride: step, Bias: word(), Acc: word(), M: uint32(mx)}
		case 6:
			in = isa.Requant{
				PerChannel: acc, N: uint16(n), AccStride: step, Acc: word(), Out: addr(), Params: 7168 + word()&^7,
				MX: mx, MY: my, OutStrideX: uint16(n + rng.IntN(4)), OutStrideY: mx*uint16(n+4) + uint16(rng.IntN(4)),
				ZeroPoint: int8(addr()), Lo: int8(-rng.IntN(128)), Hi: int8(rng.IntN(128)),
			}
		}
		if in.Check(l) == nil {
			return in
		}
	}
}

// tokensBetween makes a chain of instructions: instruction i waits for i − 1.
func tokensBetween(text []byte) {
	for i := range len(text) / isa.Size {
		w := text[i*isa.Size:]
		if i > 0 {
			w[2] = 1<<4 | byte(i%16)
		}
		w[3] = 1<<4 | byte((i+1)%16)
	}
}

// Random programs against the model, in memory and in what they leave in
// local memory.
func TestAgainstModel(t *testing.T) {
	const size, length = 4096, 40
	rng := rand.New(rand.NewPCG(21, 22))
	c := newCore(t, testConfig)
	ended, faulted := 0, 0
	seen := map[isa.Opcode]int{}
	for range 150 {
		bufs := [][]byte{make([]byte, size), make([]byte, size), make([]byte, 12288)}
		for _, b := range bufs[:2] {
			for i := range b {
				b[i] = byte(rng.Uint32())
			}
		}
		for p := range 128 { // parameters, at 0 of binding 0
			e := bufs[0][8*p : 8*p+8]
			binary.LittleEndian.PutUint32(e, rng.Uint32()>>1)
			copy(e[4:], []byte{byte(30 + rng.IntN(33)), 0, 0, 0})
		}
		program := program(testConfig, 3, nil)
		text := []isa.Instruction{
			isa.Load{Binding: 0, Local: 7168, NX: 1024, NY: 1, NZ: 1},
			isa.Load{Binding: 1, Local: 0, NX: 4096, NY: 1, NZ: 1},
			isa.Load{Binding: 1, Local: 0, NX: 4096, NY: 1, NZ: 1, Acc: true},
		}
		for range length {
			i := randomInstruction(rng, program.Limits(), size)
			w := i.Encode()
			seen[isa.Opcode(w[0])]++
			text = append(text, i)
		}
		text = append(
			text,
			isa.Store{Binding: 2, NX: 8192, NY: 1, NZ: 1},
			isa.Store{Binding: 2, Offset: 8192, Acc: true, NX: 4096, NY: 1, NZ: 1},
		)
		program.Text = isa.Text(text...)
		tokensBetween(program.Text)
		program.Text = append(program.Text, isa.Text(isa.Halt{})...)

		m := &model{spad: make([]byte, testConfig.SpadSize), acc: make([]byte, testConfig.AccSize)}
		for _, b := range bufs {
			m.mem = append(m.mem, bytes.Clone(b))
		}
		want := &core.Fault{}
		for i := range len(text) {
			if bad := m.exec(program.Text[i*isa.Size:]); bad >= 0 {
				want = &core.Fault{Status: core.StatusBadParam, Instr: uint32(i), Info: uint64(bad)}
				break
			}
		}
		mem := &memory{t: t, bufs: bufs}
		_, err := c.Run(t.Context(), program.Image(), mem.bind(), mem)
		got := &core.Fault{}
		if err != nil && !errors.As(err, &got) {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("fault (-want +got):\n%s\n%s", diff, isa.Disassemble(program))
		}
		if want.Status == 0 {
			ended++
		} else {
			faulted++
		}
		for i := range bufs {
			if !bytes.Equal(bufs[i], m.mem[i]) {
				t.Fatalf("binding %d differs after\n%s", i, isa.Disassemble(program))
			}
		}
	}
	if ended < 50 {
		t.Errorf("only %d programs ended, %d had bad parameters", ended, faulted)
	}
	for _, op := range []isa.Opcode{isa.OpLoad, isa.OpStore, isa.OpPreload, isa.OpMatmul, isa.OpFill, isa.OpBias, isa.OpRequant} {
		if seen[op] < 150 {
			t.Errorf("opcode %#x: only %d instructions", op, seen[op])
		}
	}
}

// The same program gives the same on a used core, even with accesses that no
// token orders.
func TestDeterminism(t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	p := program(testConfig, 2, nil)
	var text []isa.Instruction
	for range 200 {
		i := randomInstruction(rng, p.Limits(), 4096)
		if _, ok := i.(isa.Requant); !ok {
			text = append(text, i)
		}
	}
	p.Text = isa.Text(append(text, isa.Halt{})...)
	c := newCore(t, testConfig)
	var first [][]byte
	var firstStats core.Stats
	for round := range 3 {
		m := &memory{t: t, bufs: [][]byte{bytes.Repeat([]byte("ab+3"), 1024), make([]byte, 4096)}}
		stats, err := c.Run(t.Context(), p.Image(), m.bind(), m)
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			first, firstStats = m.bufs, stats
		}
		if diff := cmp.Diff(firstStats, stats); diff != "" {
			t.Errorf("round %d: stats (-first +now):\n%s", round, diff)
		}
		if !cmp.Equal(first, m.bufs) {
			t.Errorf("round %d: memory differs", round)
		}
	}
}

func TestContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := &memory{t: t, bufs: [][]byte{make([]byte, 64)}}
	load := isa.Load{NX: 8, NY: 1, NZ: 1}
	image := program(testConfig, 1, isa.Text(load, load, load, isa.Halt{})).Image()
	c := newCore(t, testConfig)

	m.fail = func(core.Binding, uint64) error {
		if m.calls == 2 {
			cancel()
		}
		return nil
	}
	stats, err := c.Run(ctx, image, m.bind(), m)
	if !errors.Is(err, context.Canceled) || stats.Instructions != 2 {
		t.Errorf("cancelled in the second load: %v after %d instructions, want context.Canceled after 2", err, stats.Instructions)
	}

	// A Memory that fails because it was cancelled is no MEMORY_FAULT.
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	m.fail = func(core.Binding, uint64) error { cancel(); return ctx.Err() }
	if _, err := c.Run(ctx, image, m.bind(), m); err != context.Canceled { //nolint:errorlint // not wrapped in a Fault
		t.Errorf("memory was cancelled: %v, want context.Canceled", err)
	}
}

// Whatever the text is, the program ends, and memory outside the bindings is
// not touched.
func FuzzRun(f *testing.F) {
	rng := rand.New(rand.NewPCG(41, 42))
	p := program(testConfig, 2, nil)
	for range 20 {
		var text []isa.Instruction
		for range 4 {
			text = append(text, randomInstruction(rng, p.Limits(), 256))
		}
		f.Add(isa.Text(text...), true)
		f.Add(isa.Text(text...), false)
	}
	for range 20 {
		f.Add(isa.Text(anyProduct(rng, newConfig.SpadSize, newConfig.AccSize)...), true)
	}
	c, err := core.New(newConfig)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte, halt bool) {
		text = text[:len(text)/isa.Size*isa.Size]
		if halt || len(text) == 0 {
			text = append(text[:len(text):len(text)], isa.Text(isa.Halt{})...)
		}
		m := &memory{t: t, bufs: [][]byte{make([]byte, 256), make([]byte, 256)}}
		bindings := m.bind()
		bindings[0].Write = false
		_, err := c.Run(t.Context(), newProgram(2, text).Image(), bindings, m)
		var fault *core.Fault
		if err != nil && !errors.As(err, &fault) {
			t.Errorf("Run: %v, want a *Fault", err)
		}
	})
}

// digitProgram is of the size that the digits example launches: 64 rows, k 9, n 8.
func digitProgram() ([]byte, [][]byte, core.Config) {
	cfg := core.Config{Rows: 32, Cols: 32, SpadSize: 64 << 10, AccSize: 32 << 10}
	p := program(cfg, 2, isa.Text(
		isa.Load{NX: 4096, NY: 1, NZ: 1, Signal: tok(0, 1)},
		isa.Bias{N: 8, AccStride: 32, Bias: 1024, M: 64, Wait: tok(0, 1), Signal: tok(1, 1)},
		isa.Preload{K: 9, N: 8, Weights: 2048, Stride: 8, Wait: tok(1, 1)},
		isa.Matmul{K: 9, N: 8, MX: 8, MY: 8, StrideX: 9, StrideY: 72, AccStride: 32, Accumulate: true, Signal: tok(2, 1)},
		isa.Requant{N: 8, AccStride: 32, Out: 4096, Params: 3072, MX: 8, MY: 8, OutStrideX: 8, OutStrideY: 64, Hi: 127, Wait: tok(2, 1), Signal: tok(3, 1)},
		isa.Store{Binding: 1, Local: 4096, NX: 512, NY: 1, NZ: 1, Wait: tok(3, 1)},
		isa.Halt{},
	))
	p.SpadSize, p.AccSize = 8192, 4096
	in := make([]byte, 4096)
	copy(in[3072:], []byte{1, 0, 0, 0, 1})
	return p.Image(), [][]byte{in, make([]byte, 512)}, cfg
}

// allocsPerRun is testing.AllocsPerRun for a program that has come often enough to be known.
func allocsPerRun(runs int, run func()) float64 {
	for range 3 {
		run()
	}
	return testing.AllocsPerRun(runs, run)
}

func TestNoAllocation(t *testing.T) {
	image, bufs, cfg := digitProgram()
	m := &memory{t: t, bufs: bufs}
	bindings := m.bind()
	c := newCore(t, cfg)
	allocs := allocsPerRun(10, func() {
		if _, err := c.Run(t.Context(), image, bindings, m); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations in a run, want 0", allocs)
	}
}

func BenchmarkRun(b *testing.B) {
	run := func(name string, image []byte, bufs [][]byte, cfg core.Config) {
		b.Run(name, func(b *testing.B) {
			m := &memory{t: b, bufs: bufs}
			bindings := m.bind()
			c := newCore(b, cfg)
			var macs uint64
			for b.Loop() {
				stats, err := c.Run(b.Context(), image, bindings, m)
				if err != nil {
					b.Fatal(err)
				}
				macs += stats.MACs
			}
			b.ReportMetric(float64(macs)/b.Elapsed().Seconds(), "MAC/s")
		})
	}
	image, bufs, cfg := digitProgram()
	run("digits", image, bufs, cfg)

	cfg = core.Config{Rows: 256, Cols: 256, SpadSize: 256 << 10, AccSize: 256 << 10}
	text := []isa.Instruction{isa.Preload{K: 256, N: 256, Stride: 256}}
	for range 8 {
		text = append(text, isa.Matmul{K: 256, N: 256, MX: 256, MY: 1, StrideX: 256, AccStride: 1024, Accumulate: true})
	}
	run("matmul256", program(cfg, 0, isa.Text(append(text, isa.Halt{})...)).Image(), nil, cfg)
}
