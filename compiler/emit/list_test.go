// SPDX-License-Identifier: Apache-2.0

package emit

import (
	"strings"
	"testing"

	"npuemu/core/isa"
)

// TestList: a list gives a Builder what was emitted, in that order; what is to be set up is so once, and again after another setup.
func TestList(t *testing.T) {
	wide, narrow := isa.Operands{TransposeB: true, AStride: 8, BStride: 8, AccStride: 32}, isa.Operands{TransposeB: true, AStride: 16, BStride: 16, AccStride: 32}
	gemm := func(at uint32) isa.Gemm { return isa.Gemm{M: 1, N: 8, K: 8, A: at, B: 1024, Acc: 0} }
	load := func(at uint32) isa.Load { return isa.Load{Local: at, NX: 64, NY: 1, NZ: 1} }
	l := NewList(target)
	l.Emit(load(0))
	l.Setup(wide, nil)
	l.Emit(gemm(0))
	other := NewList(target)
	other.Setup(wide, nil) // is so already
	other.Emit(gemm(64))
	other.Setup(narrow, nil)
	other.Emit(gemm(128))
	if l.Entries() != 3 || l.Len() < 3 || l.Target() != target {
		t.Errorf("%d entries, %d instructions at most, target %+v", l.Entries(), l.Len(), l.Target())
	}
	l.Join(other)
	l.Setup(wide, nil)
	l.Emit(load(64))
	rest := l.Cut(7)
	if l.Entries() != 7 || rest.Entries() != 2 {
		t.Errorf("%d entries, %d cut off", l.Entries(), rest.Entries())
	}
	other.Emit(load(0)) // not of l
	l.Emit(load(128))   // not of rest
	b := New(target, 1)
	b.Append(l)
	b.Append(rest)
	p, _, err := b.Program()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := 0; i < len(p.Text); i += isa.Size {
		w := isa.Word(p.Text[i:])
		inst, v := isa.Decode(&w)
		if v != nil {
			t.Fatal(v)
		}
		switch inst := inst.(type) {
		case isa.Load:
			got = append(got, "load")
		case isa.Gemm:
			got = append(got, "gemm")
		case isa.Operands:
			got = append(got, map[uint16]string{8: "wide", 16: "narrow"}[uint16(inst.AStride)])
		}
	}
	if want := "load wide gemm gemm narrow gemm load wide load"; strings.Join(got, " ") != want {
		t.Errorf("the program is %v, want %s", got, want)
	}
}
