// SPDX-License-Identifier: Apache-2.0

package cpu_test

import (
	"encoding/binary"
	"fmt"

	"npuemu/firmware/cpu"
)

// uart is the smallest Bus: one write-only byte register at 0x10000000.
type uart struct{}

func (uart) Load(uint32, int) (uint32, bool) { return 0, false }

func (uart) Store(addr uint32, _ int, v uint32) bool {
	if addr != 0x1000_0000 {
		return false
	}
	fmt.Printf("uart: %c\n", v)
	return true
}

// The board gives the hart memory and blocks, runs it in slices, and drives its
// interrupt lines between them.
func Example() {
	sram := make([]byte, 4096)
	for i, w := range []uint32{
		0x10000537, // lui a0, 0x10000
		0x04e00593, // li a1, 'N'
		0x00b50023, // sb a1, 0(a0)
		0x30446073, // csrsi mie, 8
		0x10500073, // wfi
		0x0000a001, // c.j .
	} {
		binary.LittleEndian.PutUint32(sram[4*i:], w)
	}
	core, err := cpu.New(cpu.Config{
		Regions: []cpu.Region{{Base: 0x8000_0000, Mem: sram, Exec: true}},
		Bus:     uart{},
		ResetPC: 0x8000_0000,
	})
	if err != nil {
		fmt.Println(err)
		return
	}

	steps, state := core.Run(1000)
	fmt.Println(steps, state == cpu.Waiting)
	core.SetInterrupt(cpu.MSI, true)
	steps, state = core.Run(1000)
	fmt.Println(steps, state == cpu.Running)
	mip, _ := core.CSR(cpu.Mip)
	fmt.Printf("pc %#x, mip %#x\n", core.PC(), mip)
	// Output:
	// uart: N
	// 5 true
	// 1000 true
	// pc 0x80000014, mip 0x8
}
