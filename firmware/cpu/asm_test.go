// SPDX-License-Identifier: Apache-2.0

package cpu

// Encoders for the tests, one per instruction format.

func rType(opcode, rd, funct3, rs1, rs2, funct7 uint32) uint32 {
	return opcode | rd<<7 | funct3<<12 | rs1<<15 | rs2<<20 | funct7<<25
}

func iType(opcode, rd, funct3, rs1 uint32, imm int32) uint32 {
	return opcode | rd<<7 | funct3<<12 | rs1<<15 | uint32(imm)<<20
}

func sType(funct3, rs1, rs2 uint32, imm int32) uint32 {
	u := uint32(imm)
	return 0x23 | u&0x1f<<7 | funct3<<12 | rs1<<15 | rs2<<20 | u>>5<<25
}

func bType(funct3, rs1, rs2 uint32, off int32) uint32 {
	u := uint32(off)
	return 0x63 | u>>11&1<<7 | u>>1&0xf<<8 | funct3<<12 | rs1<<15 | rs2<<20 | u>>5&0x3f<<25 | u>>12&1<<31
}

func lui(rd, v uint32) uint32 { return 0x37 | rd<<7 | v&^0xfff }

func jal(rd uint32, off int32) uint32 {
	u := uint32(off)
	return 0x6f | rd<<7 | u&0xff000 | u>>11&1<<20 | u>>1&0x3ff<<21 | u>>20&1<<31
}

func addi(rd, rs1 uint32, imm int32) uint32      { return iType(0x13, rd, 0, rs1, imm) }
func lw(rd, rs1 uint32, off int32) uint32        { return iType(0x03, rd, 2, rs1, off) }
func sw(rs2, rs1 uint32, off int32) uint32       { return sType(2, rs1, rs2, off) }
func csrrw(rd uint32, n CSR, rs1 uint32) uint32  { return iType(0x73, rd, 1, rs1, int32(n)) }
func csrrs(rd uint32, n CSR, rs1 uint32) uint32  { return iType(0x73, rd, 2, rs1, int32(n)) }
func csrrsi(rd uint32, n CSR, imm uint32) uint32 { return iType(0x73, rd, 6, imm, int32(n)) }
func csrrci(rd uint32, n CSR, imm uint32) uint32 { return iType(0x73, rd, 7, imm, int32(n)) }

const (
	nop    = 0x00000013
	ecall  = 0x00000073
	ebreak = 0x00100073
	mret   = 0x30200073
	wfi    = 0x10500073
	fenceI = 0x0000100f
)
