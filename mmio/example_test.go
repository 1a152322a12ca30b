// SPDX-License-Identifier: Apache-2.0

package mmio_test

import (
	"fmt"

	"npuemu/mmio"
)

func Example() {
	const control, status = 0x0, 0x4
	bank := mmio.New(0x1000, []mmio.Register{
		{Name: "CONTROL", Off: control, RW: 0x1, Spec: "§1.1", Doc: "Bit 0 starts the engine."},
		{Name: "STATUS", Off: status, W1C: 0x1, Spec: "§1.2", Doc: "Bit 0: done."},
	})
	bank.OnWrite(control, func(v uint32) {
		if v&1 != 0 {
			bank.SetBits(status, 1)
		}
	})
	bank.Trace(func(e mmio.Event) { fmt.Println(e) })

	p := make([]byte, 4)
	bank.Write(control, []byte{1, 0, 0, 0})
	bank.Read(status, p)
	bank.Write(status, p)
	bank.Read(status, p)
	bank.Read(status, p[:2])
	// Output:
	// write4 0x0 = 0x1
	// read4 0x4 = 0x1
	// write4 0x4 = 0x1
	// read4 0x4 = 0x0
	// read2 0x4 = 0xffff: width or alignment: use 4 bytes at a multiple of 4, or 8 at a multiple of 8
}
