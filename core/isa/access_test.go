// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"math/rand/v2"
	"testing"
)

// Every instruction of an engine says what it touches, within the memory that it was
// checked against; those that only set something up touch nothing.
func TestAccesses(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 22))
	p := testProgram()
	p.SpadSize, p.AccSize = 1<<31, 1<<31
	p.Minor, p.Features = Minor, Features
	l := p.Limits()
	l.Setup.Operands.AStride, l.Setup.Operands.BStride, l.Setup.Operands.AccStride = 512, 1024, 2048
	none := map[Opcode]bool{OpOperands: true, OpWindow: true, OpImage: true, OpShape: true, OpBlocks: true, OpSparse: true, OpScales: true}
	seen := map[Opcode]int{}
	for range 4000 {
		w := randomWord(rng, l)
		op := Opcode(w[0])
		if op&15 == 15 { // SYNC
			continue
		}
		seen[op]++
		list := Accesses(nil, &w, &l.Setup)
		if none[op] != (len(list) == 0) {
			t.Fatalf("%v: %d accesses", &w, len(list))
		}
		writes := 0
		for _, a := range list {
			if a.Write {
				writes++
			}
			if _, outside := a.Rows.Outside(1 << 31); outside && a.Space != Memory || a.Rows.Bytes == 0 {
				t.Fatalf("%v: %+v", &w, a)
			}
		}
		if !none[op] && op != OpPreload && writes != 1 {
			t.Fatalf("%v: %d of its accesses write, want one", &w, writes)
		}
	}
	for i := range operations {
		if op := operations[i].opcode; op.Class() != ClassControl && op&15 != 15 && seen[op] == 0 {
			t.Errorf("no %s", operations[i].name)
		}
	}
}
