// SPDX-License-Identifier: Apache-2.0

package isa_test

import (
	"fmt"

	"npuemu/core/isa"
)

func ExampleAssemble() {
	_, err := isa.Assemble("net.npu", []byte(`.isa 1.0
.spad 1024
.equ ROWS, 4
fill local=0 nx=16 ny=ROWS strid=16
fill local=0 nx=16 ny=ROWS stride=8
halt
`))
	fmt.Println(err)
	// Output:
	// net.npu:4:28: fill has no operand strid; did you mean stride?
	// net.npu:5:28: stride is 8, rows would overlap; it must be at least nx = 16 (BAD_OPERAND, §5.7)
}

func ExampleDisassemble() {
	p := &isa.Program{
		Descriptor: isa.Descriptor{Rows: 32, Cols: 32, SpadSize: 1024},
		Text: isa.Text(
			isa.Fill{Local: 0x40, NX: 16, NY: 4, Stride: 16, Signal: isa.Token{ID: 1, Count: 1}},
			isa.Halt{},
		),
	}
	fmt.Print(isa.Disassemble(p))
	// Output:
	// .isa 1.0
	// .array 32, 32
	// .spad 1024
	// .acc 0
	// .bindings 0
	//
	// fill    local=0x40 nx=16 ny=4 stride=16 signal=1
	// halt
}
