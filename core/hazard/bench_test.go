// SPDX-License-Identifier: Apache-2.0

package hazard_test

import (
	"testing"

	"npuemu/core/hazard"
	"npuemu/core/isa"
)

// step is an instruction as an engine executes it.
type step struct {
	word          isa.Word
	index, number int
}

// rounds is the program of core's BenchmarkHazards, in the order in which the core executes it.
func rounds(n int) []step {
	token := func(id uint8) isa.Token { return isa.Token{ID: id, Count: 1} }
	var list []step
	add := func(index int, i isa.Instruction) {
		list = append(list, step{i.Encode(), index, len(list)})
	}
	add(0, isa.Sync{Engine: isa.ClassMatrix, Signal: isa.Token{ID: 1, Count: 2}})
	add(1, isa.Sync{Engine: isa.ClassStore, Signal: isa.Token{ID: 3, Count: 2}})
	for r := range n {
		b := uint32(r & 1)
		add(2, isa.Load{Local: b * 1024, NX: 1024, NY: 1, NZ: 1, Wait: token(1), Signal: token(0)})
		add(3, isa.Sync{Engine: isa.ClassMatrix, Wait: token(0)})
		add(4, isa.Preload{Weights: b * 1024, K: 16, N: 16, Stride: 16, Wait: token(3)})
		add(5, isa.Matmul{Ifmap: 256 + b*1024, Acc: b * 2048, K: 16, N: 16, MX: 32, MY: 1, StrideX: 16, AccStride: 64, Signal: token(1)})
		add(6, isa.Sync{Engine: isa.ClassMatrix, Signal: token(2)})
		add(7, isa.Store{Acc: true, Binding: 1, Local: b * 2048, NX: 2048, NY: 1, NZ: 1, Wait: token(2), Signal: token(3)})
	}
	return list
}

// BenchmarkTracker is what the tracker costs an instruction of core's BenchmarkHazards.
func BenchmarkTracker(b *testing.B) {
	list := rounds(1000)
	t := hazard.Tracker{Entries: 1024, Rows: 4096}
	var s isa.Setup
	b.ReportAllocs()
	for b.Loop() {
		t.Reset()
		t.Done(3)
		for i := range list {
			if r := t.Step(&list[i].word, &s, uint32(list[i].index), uint64(list[i].number), nil); len(r) > 0 {
				b.Fatal(r)
			}
		}
	}
	if t.Undecided > 0 {
		b.Fatal("undecided")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(list)), "ns/instruction")
}
