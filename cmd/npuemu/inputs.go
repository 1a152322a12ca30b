// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"math/rand/v2"

	"npuemu/compiler/ir"
	"npuemu/compiler/model"
	"npuemu/compiler/ref"
)

// madeUp makes numbers for inputs, the same each time, of up to most bytes: floating point around 0, integers of all values, or from
// 0 to below those that below has for their names. Inputs that skip has are left out.
func madeUp(inputs []model.Tensor, below map[string]int, skip map[int]int, most int) ([][]byte, error) {
	total := 0
	for i := range inputs {
		if total += inputs[i].Bytes(); total > most {
			return nil, fmt.Errorf("inputs of %d bytes and more are not made up, the card has %d: give files with --input, or more with --memory", total, most)
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	var data [][]byte
	for i := range inputs {
		t := &inputs[i]
		if _, ok := skip[i]; ok {
			data = append(data, t.Zeros())
			continue
		}
		n := 1
		for _, d := range t.Shape {
			n *= d
		}
		b := make([]byte, 0, t.Bytes())
		for at := 0; at < n; at += randomPart {
			b = append(b, random(r, t.TypeOf(), min(randomPart, n-at), below[t.Name])...)
		}
		data = append(data, b)
	}
	return data, nil
}

// randomPart elements, which are whole bytes, are made at a time.
const randomPart = 1 << 16

// random is the data of n elements; integers are from 0 to below, if that is not 0.
func random(r *rand.Rand, t ir.Type, n, below int) []byte {
	if t.Float() {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return ref.PutFloats(t, v, true)
	}
	lo, hi := t.Range()
	if below > 0 {
		lo, hi = 0, min(hi, int64(below)-1)
	}
	v := make([]int64, n)
	for i := range v {
		v[i] = int64(r.Uint64())
		if span := uint64(hi-lo) + 1; span != 0 {
			v[i] = lo + int64(r.Uint64N(span))
		}
	}
	return ref.PutInts(t, v)
}

// indexes are the inputs of g that look up rows of something, with the number of rows.
func indexes(g *ir.Graph) map[string]int {
	below := map[string]int{}
	producer := g.Producers()
	var mark func(t *ir.Tensor, rows int)
	mark = func(t *ir.Tensor, rows int) {
		if t == nil || t.Const() || t.Type.Float() {
			return
		}
		if p := producer[t]; p != nil {
			for _, in := range p.Inputs {
				mark(in, rows)
			}
			return
		}
		if have := below[t.Name]; have == 0 || rows < have {
			below[t.Name] = rows
		}
	}
	for _, n := range g.Nodes {
		if n.Op == "npu.gather" {
			mark(n.Inputs[1], n.Inputs[0].Shape[n.Attrs.Int("axis", 0)])
		}
	}
	return below
}

// tensors are those of l as a model names them.
func tensors(l []*ir.Tensor) []model.Tensor {
	var m []model.Tensor
	for _, t := range l {
		m = append(m, model.Tensor{Name: t.Name, Type: t.Type.String(), Shape: t.Shape, Quant: (*model.Quant)(t.Quant)})
	}
	return m
}
