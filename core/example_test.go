// SPDX-License-Identifier: Apache-2.0

package core_test

import (
	"context"
	"fmt"
	"log"

	"npuemu/core"
	"npuemu/core/isa"
)

// slices is a Memory of byte slices: the binding's address is an index.
type slices [][]byte

func (s slices) Load(b core.Binding, off uint64, p []byte) error {
	copy(p, s[b.Addr][off:])
	return nil
}

func (s slices) Store(b core.Binding, off uint64, p []byte) error {
	copy(s[b.Addr][off:], p)
	return nil
}

// A dot product: one row of three activations, a column of three weights.
func ExampleCore_Run() {
	program, err := isa.Assemble("dot.npu", []byte(`
.isa 1.0
.array 8, 8
.spad 64
.acc 64
.bindings 2
.equ IFMAP, 0
.equ WEIGHTS, IFMAP + 3

load    binding=0 local=IFMAP nx=6 signal=0     ; both operands
preload k=3 n=1 weights=WEIGHTS stride=1 wait=0
matmul  k=3 n=1 ifmap=IFMAP acc=0 signal=1
store   binding=1 local=0 nx=4 acc_mem wait=1   ; one int32
halt
`))
	if err != nil {
		log.Fatal(err)
	}
	c, err := core.New(core.Config{Rows: 8, Cols: 8, SpadSize: 1024, AccSize: 1024})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	mem := slices{{1, 2, 3, 10, 20, 30}, make([]byte, 4)}
	bindings := []core.Binding{
		{Addr: 0, Size: 6, Read: true},
		{Addr: 1, Size: 4, Write: true},
	}
	stats, err := c.Run(context.Background(), program.Image(), bindings, mem)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("result", mem[1], "MACs", stats.MACs)

	bindings[1].Write = false
	_, err = c.Run(context.Background(), program.Image(), bindings, mem)
	fmt.Println(err)

	// Output:
	// result [140 0 0 0] MACs 3
	// core: BINDING_ACCESS: instruction 3, info 0x1
}
