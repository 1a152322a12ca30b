// SPDX-License-Identifier: Apache-2.0

package cpu

import "fmt"

// mnemonics by op; "" has none of its own.
var mnemonics = [opBreak + 1]string{
	opADDI: "addi", opSLTI: "slti", opSLTIU: "sltiu", opXORI: "xori", opORI: "ori", opANDI: "andi",
	opSLLI: "slli", opSRLI: "srli", opSRAI: "srai", opADD: "add", opSUB: "sub", opSLL: "sll", opSLT: "slt",
	opSLTU: "sltu", opXOR: "xor", opSRL: "srl", opSRA: "sra", opOR: "or", opAND: "and", opMUL: "mul", opMULH: "mulh",
	opMULHSU: "mulhsu", opMULHU: "mulhu", opDIV: "div", opDIVU: "divu", opREM: "rem", opREMU: "remu", opJAL: "jal",
	opJALR: "jalr", opBEQ: "beq", opBNE: "bne", opBLT: "blt", opBGE: "bge", opBLTU: "bltu", opBGEU: "bgeu", opLB: "lb",
	opLH: "lh", opLW: "lw", opLBU: "lbu", opLHU: "lhu", opSB: "sb", opSH: "sh", opSW: "sw", opFENCE: "fence",
	opFENCEI: "fence.i", opLR: "lr.w", opSC: "sc.w", opAMOSWAP: "amoswap.w", opAMOADD: "amoadd.w", opAMOXOR: "amoxor.w",
	opAMOAND: "amoand.w", opAMOOR: "amoor.w", opAMOMIN: "amomin.w", opAMOMAX: "amomax.w", opAMOMINU: "amominu.w",
	opAMOMAXU: "amomaxu.w", opCSRRW: "csrrw", opCSRRS: "csrrs", opCSRRC: "csrrc", opCSRRWI: "csrrwi",
	opCSRRSI: "csrrsi", opCSRRCI: "csrrci", opECALL: "ecall", opEBREAK: "ebreak", opMRET: "mret", opWFI: "wfi",
	opIllegal: "illegal",
}

// registerNames by number; the sink is x0.
var registerNames = [sink + 1]string{
	"zero", "ra", "sp", "gp", "tp", "t0", "t1", "t2", "s0", "s1", "a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7",
	"s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "t3", "t4", "t5", "t6", "zero",
}

// RegisterName returns what the calling convention calls register x0 to x31; i is taken modulo 32.
func RegisterName(i int) string { return registerNames[i&31] }

var csrNames = map[CSR]string{
	Mstatus: "mstatus", Misa: "misa", Mie: "mie", Mtvec: "mtvec", Mstatush: "mstatush", Mscratch: "mscratch", Mepc: "mepc",
	Mcause: "mcause", Mtval: "mtval", Mip: "mip", Mcycle: "mcycle", Minstret: "minstret", Mcycleh: "mcycleh",
	Minstreth: "minstreth", Mvendorid: "mvendorid", Marchid: "marchid", Mimpid: "mimpid", Mhartid: "mhartid", Mconfigptr: "mconfigptr",
}

// Disassemble returns the instruction at pc whose bits are given, of which a compressed one has 16, as an assembler
// would take it, without pseudo-instructions and with absolute targets. A compressed instruction shows as the one that it abbreviates.
func Disassemble(pc, bits uint32) string {
	var in instruction
	if bits&3 != 3 {
		in = decode16(uint16(bits))
	} else {
		in = decode32(bits, pc)
	}
	name := mnemonics[in.op]
	rd, rs1, rs2 := registerNames[in.rd], registerNames[in.rs1], registerNames[in.rs2]
	switch {
	case in.op == opLI:
		if in.size == 4 {
			return fmt.Sprintf("%s %s,%#x", map[uint32]string{0x37: "lui", 0x17: "auipc"}[bits&0x7f], rd, bits>>12)
		}
		if bits>>13 == 3 { // C.LUI
			return fmt.Sprintf("lui %s,%#x", rd, uint32(in.imm)>>12)
		}
		return fmt.Sprintf("addi %s,zero,%d", rd, in.imm)
	case in.op >= opADDI && in.op <= opSRAI:
		return fmt.Sprintf("%s %s,%s,%d", name, rd, rs1, in.imm)
	case in.op >= opADD && in.op <= opREMU:
		return fmt.Sprintf("%s %s,%s,%s", name, rd, rs1, rs2)
	case in.op == opJAL:
		return fmt.Sprintf("%s %s,%#x", name, rd, pc+uint32(in.imm))
	case in.op >= opBEQ && in.op <= opBGEU:
		return fmt.Sprintf("%s %s,%s,%#x", name, rs1, rs2, pc+uint32(in.imm))
	case in.op == opJALR || in.op >= opLB && in.op <= opLHU:
		return fmt.Sprintf("%s %s,%d(%s)", name, rd, in.imm, rs1)
	case in.op >= opSB && in.op <= opSW:
		return fmt.Sprintf("%s %s,%d(%s)", name, rs2, in.imm, rs1)
	case in.op == opLR:
		return fmt.Sprintf("%s %s,(%s)", name, rd, rs1)
	case in.op >= opSC && in.op <= opAMOMAXU:
		return fmt.Sprintf("%s %s,%s,(%s)", name, rd, rs2, rs1)
	case in.op >= opCSRRW && in.op <= opCSRRCI:
		n := CSR(uint32(in.imm) >> 20)
		csr := csrNames[n]
		if csr == "" {
			csr = fmt.Sprintf("%#x", uint16(n))
		}
		if in.op >= opCSRRWI {
			return fmt.Sprintf("%s %s,%s,%d", name, rd, csr, in.rs1)
		}
		return fmt.Sprintf("%s %s,%s,%s", name, rd, csr, rs1)
	}
	return name
}
