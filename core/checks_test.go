// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"encoding/binary"
	"testing"

	"npuemu/core"
	"npuemu/core/isa"
)

// BenchmarkChecks is what the checks of §5.7 cost an instruction, by kind: the format of all of the text before it runs;
// decoding, operands, local memory and the binding of each instruction when it is executed; and, of SYNC in programs that are
// not known, all that the core does besides an instruction's own work: format, the sequencer's way through the text, tokens,
// the hazard tracker.
func BenchmarkChecks(b *testing.B) {
	p, err := isa.Assemble("b", []byte(rounds(1)))
	if err != nil {
		b.Fatal(err)
	}
	limits := p.Limits()
	var body []isa.Word // load, sync, preload, matmul, sync, store
	for w := isa.NewWalker(p.Text, len(p.Text)/isa.Size-1); w.Next(isa.ClassControl); {
		body = append(body, *w.Word())
	}
	body = body[2:8]
	const n = 6000
	var text []byte
	for i := range n {
		text = append(text, body[i%len(body)][:]...)
	}
	text = append(text, isa.Text(isa.Halt{})...)
	per := func(b *testing.B, instructions int) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(instructions), "ns/instruction")
	}
	b.Run("format", func(b *testing.B) {
		for b.Loop() {
			if halt, v, _ := isa.Scan(text, limits.Features); v != nil || halt != n {
				b.Fatal(halt, v)
			}
		}
		per(b, n)
	})
	b.Run("operands and bounds", func(b *testing.B) {
		const size = 1 << 20 // of a binding
		for b.Loop() {
			for i := range n {
				w := (*isa.Word)(text[i*isa.Size:])
				var v *isa.Violation
				outside := false
				switch isa.Opcode(w[0]) {
				case isa.OpLoad, isa.OpStore:
					i := isa.DecodeLoad(w)
					v = i.Check(limits)
					_, outside = i.Memory().Outside(size)
				case isa.OpPreload:
					v = isa.DecodePreload(w).Check(limits)
				case isa.OpMatmul:
					v = isa.DecodeMatmul(w).Check(limits)
				}
				if v != nil || outside {
					b.Fatal(v, outside)
				}
			}
		}
		per(b, n)
	})
	b.Run("all of SYNC", func(b *testing.B) {
		var sync []byte
		for range n / 4 {
			sync = append(sync, isa.Text(
				isa.Sync{Engine: isa.ClassLoad, Wait: isa.Token{ID: 3, Count: 1}, Signal: isa.Token{ID: 0, Count: 1}},
				isa.Sync{Engine: isa.ClassMatrix, Wait: isa.Token{ID: 0, Count: 1}, Signal: isa.Token{ID: 1, Count: 1}},
				isa.Sync{Engine: isa.ClassVector, Wait: isa.Token{ID: 1, Count: 1}, Signal: isa.Token{ID: 2, Count: 1}},
				isa.Sync{Engine: isa.ClassStore, Wait: isa.Token{ID: 2, Count: 1}, Signal: isa.Token{ID: 3, Count: 1}},
			)...)
		}
		start := isa.Text(isa.Sync{Engine: isa.ClassStore, Signal: isa.Token{ID: 3, Count: 1}})
		end := isa.Text(isa.Sync{Engine: isa.ClassLoad, Wait: isa.Token{ID: 3, Count: 1}}, isa.Halt{})
		q := isa.Program{Descriptor: p.Descriptor, Text: append(append(start, sync...), end...)}
		c, err := core.New(core.Config{Rows: 16, Cols: 16, SpadSize: 8192, AccSize: 8192, ISAMinor: isa.Minor, Features: isa.Features, Threads: 1})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		bindings := []core.Binding{{Size: 64, Read: true}, {Size: 64, Write: true}}
		image, spad := q.Image(), uint32(0)
		for b.Loop() {
			spad = spad%4096 + 1 // another program each time
			binary.LittleEndian.PutUint32(image[0x1c:], spad)
			if _, err := c.Run(b.Context(), image, bindings, nowhere{}); err != nil {
				b.Fatal(err)
			}
			if len(c.Hazards()) > 0 || len(c.Unused()) > 0 {
				b.Fatal(c.Hazards(), c.Unused())
			}
		}
		per(b, n)
	})
}
