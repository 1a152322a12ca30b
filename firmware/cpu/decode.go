// SPDX-License-Identifier: Apache-2.0

package cpu

// instruction is one decoded instruction.
//
// A compressed instruction becomes the instruction it abbreviates. AUIPC becomes
// opLI, since an entry of the decode cache belongs to one address.
type instruction struct {
	op       op
	size     uint8 // bytes, 2 or 4
	rd       uint8 // sink for x0
	rs1, rs2 uint8 // rs1 of the CSR immediate forms is the immediate
	imm      int32 // of opIllegal and CSR instructions, the instruction's bits
}

// entry is an instruction packed for the decode cache: from bit 0 up, op, rd
// with the size in halfwords above it, rs1, rs2 and imm. It is one integer so
// that the hot loop loads it once. 0 is an instruction not decoded yet.
type entry uint64

func (in instruction) pack() entry {
	return entry(in.op) | entry(in.rd)<<8 | entry(in.size>>1)<<14 | entry(in.rs1)<<16 | entry(in.rs2)<<24 |
		entry(uint32(in.imm))<<32
}

func (e entry) op() op       { return op(e) }
func (e entry) rd() uint     { return uint(e>>8) & 63 }
func (e entry) size() uint32 { return uint32(e>>14) & 3 << 1 }
func (e entry) rs1() uint    { return uint(e>>16) & 63 }
func (e entry) rs2() uint    { return uint(e>>24) & 63 }
func (e entry) imm() int32   { return int32(e >> 32) }

type op uint8

const (
	opNone op = iota

	opLI // LUI, AUIPC
	opADDI
	opSLTI
	opSLTIU
	opXORI
	opORI
	opANDI
	opSLLI
	opSRLI
	opSRAI
	opADD
	opSUB
	opSLL
	opSLT
	opSLTU
	opXOR
	opSRL
	opSRA
	opOR
	opAND
	opMUL
	opMULH
	opMULHSU
	opMULHU
	opDIV
	opDIVU
	opREM
	opREMU
	opJAL
	opJALR
	opBEQ
	opBNE
	opBLT
	opBGE
	opBLTU
	opBGEU
	opLB
	opLH
	opLW
	opLBU
	opLHU
	opSB
	opSH
	opSW
	opFENCE // orders nothing: a single hart sees its accesses in order

	// From here on, Core.step only.
	opFENCEI
	opLR
	opSC
	opAMOSWAP
	opAMOADD
	opAMOXOR
	opAMOAND
	opAMOOR
	opAMOMIN
	opAMOMAX
	opAMOMINU
	opAMOMAXU
	opCSRRW
	opCSRRS
	opCSRRC
	opCSRRWI
	opCSRRSI
	opCSRRCI
	opECALL
	opEBREAK
	opMRET
	opWFI
	opIllegal
	opBreak // a debugger's breakpoint, in place of the instruction
)

// Opcodes by funct3; opIllegal marks the unused ones.
var (
	loadOps   = [8]op{opLB, opLH, opLW, opIllegal, opLBU, opLHU, opIllegal, opIllegal}
	storeOps  = [8]op{opSB, opSH, opSW, opIllegal, opIllegal, opIllegal, opIllegal, opIllegal}
	branchOps = [8]op{opBEQ, opBNE, opIllegal, opIllegal, opBLT, opBGE, opBLTU, opBGEU}
	immOps    = [8]op{opADDI, opSLLI, opSLTI, opSLTIU, opXORI, opSRLI, opORI, opANDI}
	regOps    = [8]op{opADD, opSLL, opSLT, opSLTU, opXOR, opSRL, opOR, opAND}
	mulOps    = [8]op{opMUL, opMULH, opMULHSU, opMULHU, opDIV, opDIVU, opREM, opREMU}
	csrOps    = [8]op{opIllegal, opCSRRW, opCSRRS, opCSRRC, opIllegal, opCSRRWI, opCSRRSI, opCSRRCI}
)

// amoOps is indexed by funct5 (bits 31:27); the zero value marks unused ones.
var amoOps = [32]op{
	0x00: opAMOADD, 0x01: opAMOSWAP, 0x02: opLR, 0x03: opSC, 0x04: opAMOXOR, 0x08: opAMOOR,
	0x0c: opAMOAND, 0x10: opAMOMIN, 0x14: opAMOMAX, 0x18: opAMOMINU, 0x1c: opAMOMAXU,
}

// dest returns the index that writes to register r go to.
func dest(r uint32) uint8 {
	if r == 0 {
		return sink
	}
	return uint8(r)
}

// field returns w[hi:lo] moved to bit 'to'.
func field(w uint32, hi, lo, to uint) uint32 { return w >> lo & (1<<(hi-lo+1) - 1) << to }

// sext sign-extends v from its low n bits.
func sext(v uint32, n uint) int32 { return int32(v<<(32-n)) >> (32 - n) }

// decode32 decodes the 4-byte instruction w at pc (RV32I, M, A, Zicsr,
// Zifencei; "RV32/64G Instruction Set Listings").
func decode32(w, pc uint32) instruction {
	illegal := instruction{op: opIllegal, size: 4, imm: int32(w)}
	in := instruction{size: 4, rd: dest(field(w, 11, 7, 0)), rs1: uint8(field(w, 19, 15, 0)), rs2: uint8(field(w, 24, 20, 0))}
	funct3, funct7 := w>>12&7, w>>25
	immI := int32(w) >> 20

	switch w & 0x7f {
	case 0x37: // LUI
		in.op, in.imm = opLI, int32(w&^0xfff)
	case 0x17: // AUIPC
		in.op, in.imm = opLI, int32(pc+w&^0xfff)
	case 0x6f: // JAL
		in.op = opJAL
		in.imm = sext(field(w, 31, 31, 20)|field(w, 30, 21, 1)|field(w, 20, 20, 11)|field(w, 19, 12, 12), 21)
	case 0x67: // JALR
		if funct3 != 0 {
			return illegal
		}
		in.op, in.imm = opJALR, immI
	case 0x63: // BRANCH
		in.op = branchOps[funct3]
		in.imm = sext(field(w, 31, 31, 12)|field(w, 30, 25, 5)|field(w, 11, 8, 1)|field(w, 7, 7, 11), 13)
	case 0x03: // LOAD
		in.op, in.imm = loadOps[funct3], immI
	case 0x23: // STORE
		in.op, in.imm = storeOps[funct3], immI&^0x1f|int32(field(w, 11, 7, 0))
	case 0x13: // OP-IMM
		in.op, in.imm = immOps[funct3], immI
		if in.op == opSLLI || in.op == opSRLI {
			in.imm = immI & 0x1f
			switch {
			case funct7 == 0x20 && in.op == opSRLI:
				in.op = opSRAI
			case funct7 != 0:
				return illegal
			}
		}
	case 0x33: // OP
		switch {
		case funct7 == 0:
			in.op = regOps[funct3]
		case funct7 == 1:
			in.op = mulOps[funct3]
		case funct7 == 0x20 && funct3 == 0:
			in.op = opSUB
		case funct7 == 0x20 && funct3 == 5:
			in.op = opSRA
		default:
			return illegal
		}
	case 0x0f: // MISC-MEM: the unused fields are ignored, as "Memory Ordering Instructions" asks
		switch funct3 {
		case 0:
			in.op = opFENCE
		case 1:
			in.op = opFENCEI
		default:
			return illegal
		}
	case 0x2f: // AMO
		in.op = amoOps[w>>27] // aq and rl order nothing on a single hart
		if funct3 != 2 || in.op == opNone || in.op == opLR && in.rs2 != 0 {
			return illegal
		}
	case 0x73: // SYSTEM
		switch w {
		case 0x0000_0073:
			in.op = opECALL
		case 0x0010_0073:
			in.op = opEBREAK
		case 0x3020_0073:
			in.op = opMRET
		case 0x1050_0073:
			in.op = opWFI
		default:
			in.op, in.imm = csrOps[funct3], int32(w)
		}
	default:
		return illegal
	}
	if in.op == opIllegal {
		return illegal
	}
	return in
}

// decode16 decodes the compressed instruction h ("C" extension, RV32C without
// the floating-point forms). HINTs decode to the instruction without effect that
// they are.
func decode16(h uint16) instruction {
	const sp = 2
	w := uint32(h)
	illegal := instruction{op: opIllegal, size: 2, imm: int32(w)}

	r := field(w, 11, 7, 0)            // full register field, rd and rs1
	r2 := uint8(field(w, 6, 2, 0))     // full register field, rs2
	hi := uint8(8 + field(w, 9, 7, 0)) // rs1' and rd' in most formats
	lo := uint8(8 + field(w, 4, 2, 0)) // rs2', and rd' of loads and C.ADDI4SPN
	imm6 := sext(field(w, 12, 12, 5)|field(w, 6, 2, 0), 6)
	offW := int32(field(w, 5, 5, 6) | field(w, 12, 10, 3) | field(w, 6, 6, 2))
	offJ := sext(field(w, 12, 12, 11)|field(w, 11, 11, 4)|field(w, 10, 9, 8)|field(w, 8, 8, 10)|
		field(w, 7, 7, 6)|field(w, 6, 6, 7)|field(w, 5, 3, 1)|field(w, 2, 2, 5), 12)
	offB := sext(field(w, 12, 12, 8)|field(w, 11, 10, 3)|field(w, 6, 5, 6)|field(w, 4, 3, 1)|field(w, 2, 2, 5), 9)

	in := instruction{size: 2, rd: sink}
	switch w&3<<3 | w>>13 { // quadrant, funct3
	case 0<<3 | 0: // C.ADDI4SPN; the all-zero halfword is among the illegal ones
		imm := field(w, 12, 11, 4) | field(w, 10, 7, 6) | field(w, 6, 6, 2) | field(w, 5, 5, 3)
		if imm == 0 {
			return illegal
		}
		return instruction{op: opADDI, size: 2, rd: lo, rs1: sp, imm: int32(imm)}
	case 0<<3 | 2: // C.LW
		return instruction{op: opLW, size: 2, rd: lo, rs1: hi, imm: offW}
	case 0<<3 | 6: // C.SW
		in.op, in.rs1, in.rs2, in.imm = opSW, hi, lo, offW
	case 1<<3 | 0: // C.ADDI, C.NOP
		return instruction{op: opADDI, size: 2, rd: dest(r), rs1: uint8(r), imm: imm6}
	case 1<<3 | 1: // C.JAL
		return instruction{op: opJAL, size: 2, rd: 1, imm: offJ}
	case 1<<3 | 2: // C.LI
		return instruction{op: opLI, size: 2, rd: dest(r), imm: imm6}
	case 1<<3 | 3: // C.ADDI16SP, C.LUI
		if imm6 == 0 {
			return illegal
		}
		if r == sp {
			imm := sext(field(w, 12, 12, 9)|field(w, 6, 6, 4)|field(w, 5, 5, 6)|field(w, 4, 3, 7)|field(w, 2, 2, 5), 10)
			return instruction{op: opADDI, size: 2, rd: sp, rs1: sp, imm: imm}
		}
		return instruction{op: opLI, size: 2, rd: dest(r), imm: imm6 << 12}
	case 1<<3 | 4:
		in.rd, in.rs1, in.rs2 = hi, hi, lo
		switch field(w, 11, 10, 0) {
		case 0, 1: // C.SRLI, C.SRAI
			if imm6 < 0 { // shamt[5]
				return illegal
			}
			in.op, in.imm = [2]op{opSRLI, opSRAI}[field(w, 10, 10, 0)], imm6
		case 2: // C.ANDI
			in.op, in.imm = opANDI, imm6
		case 3: // C.SUB, C.XOR, C.OR, C.AND
			if field(w, 12, 12, 0) != 0 { // C.SUBW, C.ADDW: RV64
				return illegal
			}
			in.op = [4]op{opSUB, opXOR, opOR, opAND}[field(w, 6, 5, 0)]
		}
	case 1<<3 | 5: // C.J
		in.op, in.imm = opJAL, offJ
	case 1<<3 | 6: // C.BEQZ
		in.op, in.rs1, in.imm = opBEQ, hi, offB
	case 1<<3 | 7: // C.BNEZ
		in.op, in.rs1, in.imm = opBNE, hi, offB
	case 2<<3 | 0: // C.SLLI
		if imm6 < 0 {
			return illegal
		}
		return instruction{op: opSLLI, size: 2, rd: dest(r), rs1: uint8(r), imm: imm6}
	case 2<<3 | 2: // C.LWSP
		if r == 0 {
			return illegal
		}
		imm := field(w, 12, 12, 5) | field(w, 6, 4, 2) | field(w, 3, 2, 6)
		return instruction{op: opLW, size: 2, rd: uint8(r), rs1: sp, imm: int32(imm)}
	case 2<<3 | 4:
		full := field(w, 12, 12, 0) == 1
		switch {
		case r2 != 0 && !full: // C.MV
			return instruction{op: opADD, size: 2, rd: dest(r), rs2: r2}
		case r2 != 0: // C.ADD
			return instruction{op: opADD, size: 2, rd: dest(r), rs1: uint8(r), rs2: r2}
		case r == 0 && full:
			in.op = opEBREAK
		case r == 0:
			return illegal
		case full: // C.JALR
			return instruction{op: opJALR, size: 2, rd: 1, rs1: uint8(r)}
		default: // C.JR
			in.op, in.rs1 = opJALR, uint8(r)
		}
	case 2<<3 | 6: // C.SWSP
		in.op, in.rs1, in.rs2, in.imm = opSW, sp, r2, int32(field(w, 12, 9, 2)|field(w, 8, 7, 6))
	default: // C.FLD and the other floating-point forms, reserved ones
		return illegal
	}
	return in
}
