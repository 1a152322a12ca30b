// SPDX-License-Identifier: Apache-2.0

package isa

import (
	"encoding/binary"
	"fmt"
)

// Size is the number of bytes of every instruction (§5.4).
const Size = 32

// Word is one encoded instruction.
type Word [Size]byte

// Opcode is the first byte of an instruction (§5.4).
type Opcode uint8

// The opcodes of §5.6.
const (
	OpHalt       Opcode = 0x01
	OpLoop       Opcode = 0x02
	OpEnd        Opcode = 0x03
	OpScalar     Opcode = 0x04
	OpWith       Opcode = 0x05
	OpLoad       Opcode = 0x10
	OpSyncLoad   Opcode = 0x1f
	OpStore      Opcode = 0x20
	OpStamp      Opcode = 0x21
	OpSyncStore  Opcode = 0x2f
	OpPreload    Opcode = 0x30
	OpMatmul     Opcode = 0x31
	OpOperands   Opcode = 0x32
	OpWindow     Opcode = 0x33
	OpGemm       Opcode = 0x34
	OpConv       Opcode = 0x35
	OpBlocks     Opcode = 0x36
	OpSparse     Opcode = 0x37
	OpSyncMatrix Opcode = 0x3f
	OpFill       Opcode = 0x40
	OpBias       Opcode = 0x41
	OpRequant    Opcode = 0x42
	OpElement    Opcode = 0x43
	OpTable      Opcode = 0x44
	OpReduce     Opcode = 0x45
	OpNorm       Opcode = 0x46
	OpImage      Opcode = 0x47
	OpPool       Opcode = 0x48
	OpResize     Opcode = 0x49
	OpShape      Opcode = 0x4a
	OpTranspose  Opcode = 0x4b
	OpGather     Opcode = 0x4c
	OpScatter    Opcode = 0x4d
	OpQuantize   Opcode = 0x4e
	OpSyncVector Opcode = 0x4f
	OpScales     Opcode = 0x50
	OpAddq       Opcode = 0x51
)

// Class is the engine that executes an instruction (§5.1).
type Class uint8

// The sequencer's own class and the four engines.
const (
	ClassControl Class = 0
	ClassLoad    Class = 1
	ClassStore   Class = 2
	ClassMatrix  Class = 3
	ClassVector  Class = 4
)

// moreVector is the high nibble of the vector engine's opcodes beyond its class's own sixteen.
const moreVector = 5

// Class returns the engine of o, which its high nibble says (§5.4).
func (o Opcode) Class() Class {
	if o>>4 == moreVector {
		return ClassVector
	}
	return Class(o >> 4)
}

// Bits of the flags byte.
const (
	flagACC        = 1 << 0 // LOAD, STORE, FILL
	flagAccumulate = 1 << 0 // MATMUL, GEMM, CONV
	flagPerChannel = 1 << 0 // REQUANT, OPERANDS

	flagByRegister = 1 << 0 // LOOP
	flagImmediate  = 1 << 0 // SCALAR

	flagXAcc       = 1 << 0 // ELEMENT, REDUCE, NORM
	flagYAcc       = 1 << 1 // ELEMENT, REDUCE, NORM
	flagOutAcc     = 1 << 2 // ELEMENT, REDUCE, NORM
	flagNoSaturate = 1 << 3 // ELEMENT, REDUCE, NORM
	flagOne        = 1 << 4 // ELEMENT, REDUCE, NORM, ADDQ

	flagCountPad = 1 << 0 // POOL
	flagHalf     = 1 << 0 // RESIZE
	flagCenter   = 1 << 1 // RESIZE
	flagFromEnd  = 1 << 0 // GATHER, SCATTER

	flagByChannel = 1 << 1 // QUANTIZE
	flagOn        = 1 << 0 // SPARSE

	flagTransposeA       = 1 << 1 // OPERANDS
	flagTransposeB       = 1 << 2 // OPERANDS
	flagOutputStationary = 1 << 3 // OPERANDS
)

// Token is the wait or signal part of an instruction (§5.4). The zero Token
// neither waits nor signals.
type Token struct {
	ID    uint8 // 0 … 15
	Count uint8 // 0 … 15
}

func (t Token) encode() byte {
	if t.ID > 15 || t.Count > 15 {
		panic(fmt.Sprintf("isa: token %d:%d does not fit: number and count are 0 to 15", t.ID, t.Count))
	}
	return t.Count<<4 | t.ID
}

func decodeToken(b byte) Token { return Token{ID: b & 15, Count: b >> 4} }

// Instruction is one of the types below.
type Instruction interface {
	// Encode returns the instruction's bytes. It panics if a Token or an
	// Offset does not fit its field.
	Encode() Word
	// Check returns the first rule of §5.7, from BAD_OPERAND to
	// BINDING_INDEX, that the instruction breaks in a core with limits l, or
	// nil.
	Check(l Limits) *Violation
}

// Text encodes a program's instructions one after the other.
func Text(instructions ...Instruction) []byte {
	text := make([]byte, 0, len(instructions)*Size)
	for _, i := range instructions {
		w := i.Encode()
		text = append(text, w[:]...)
	}
	return text
}

// Decode returns the instruction in w, of whatever group, or the violation that
// CheckFormat finds.
// Decode and Encode are inverse.
func Decode(w *Word) (Instruction, *Violation) {
	if v := CheckFormat(w, Features); v != nil {
		return nil, v
	}
	switch Opcode(w[0]) {
	case OpHalt:
		return Halt{}, nil
	case OpLoop:
		return DecodeLoop(w), nil
	case OpEnd:
		return End{}, nil
	case OpScalar:
		return DecodeScalar(w), nil
	case OpWith:
		return DecodeWith(w), nil
	case OpStamp:
		return DecodeStamp(w), nil
	case OpLoad:
		return DecodeLoad(w), nil
	case OpStore:
		return DecodeStore(w), nil
	case OpPreload:
		return DecodePreload(w), nil
	case OpMatmul:
		return DecodeMatmul(w), nil
	case OpOperands:
		return DecodeOperands(w), nil
	case OpWindow:
		return DecodeWindow(w), nil
	case OpGemm:
		return DecodeGemm(w), nil
	case OpConv:
		return DecodeConv(w), nil
	case OpFill:
		return DecodeFill(w), nil
	case OpBias:
		return DecodeBias(w), nil
	case OpRequant:
		return DecodeRequant(w), nil
	case OpElement:
		return DecodeElement(w), nil
	case OpTable:
		return DecodeTable(w), nil
	case OpReduce:
		return DecodeReduce(w), nil
	case OpNorm:
		return DecodeNorm(w), nil
	case OpImage:
		return DecodeImage(w), nil
	case OpPool:
		return DecodePool(w), nil
	case OpResize:
		return DecodeResize(w), nil
	case OpShape:
		return DecodeShape(w), nil
	case OpTranspose:
		return DecodeTranspose(w), nil
	case OpGather:
		return DecodeGather(w), nil
	case OpScatter:
		return DecodeScatter(w), nil
	case OpQuantize:
		return DecodeQuantize(w), nil
	case OpScales:
		return DecodeScales(w), nil
	case OpAddq:
		return DecodeAddq(w), nil
	case OpBlocks:
		return DecodeBlocks(w), nil
	case OpSparse:
		return DecodeSparse(w), nil
	case OpSyncLoad, OpSyncStore, OpSyncMatrix, OpSyncVector:
		return Sync{Engine: Opcode(w[0]).Class(), Wait: decodeToken(w[2]), Signal: decodeToken(w[3])}, nil
	}
	panic(fmt.Sprintf("isa: BUG: opcode %#02x is in the table but not decoded", w[0]))
}

// encoder fills a Word; the first four bytes are common to all instructions.
func encoder(o Opcode, flags byte, wait, signal Token) Word {
	return Word{byte(o), flags, wait.encode(), signal.encode()}
}

func (w *Word) put16(off int, v uint16) { binary.LittleEndian.PutUint16(w[off:], v) }
func (w *Word) put32(off int, v uint32) { binary.LittleEndian.PutUint32(w[off:], v) }
func (w *Word) uint16(off int) uint16   { return binary.LittleEndian.Uint16(w[off:]) }
func (w *Word) uint32(off int) uint32   { return binary.LittleEndian.Uint32(w[off:]) }
func (w *Word) tokens() (_, _ Token)    { return decodeToken(w[2]), decodeToken(w[3]) }
func (w *Word) flag(bit byte) bool      { return w[1]&bit != 0 }
func flagIf(set bool, bit byte) (f byte) {
	if set {
		f = bit
	}
	return f
}

// Halt ends the program (§5.6.1).
type Halt struct{}

// Encode implements Instruction.
func (Halt) Encode() Word { return Word{byte(OpHalt)} }

// Sync only waits and signals on its engine (§5.6.2).
type Sync struct {
	Engine       Class // ClassLoad … ClassVector
	Wait, Signal Token
}

// Encode implements Instruction.
func (i Sync) Encode() Word {
	if i.Engine < ClassLoad || i.Engine > ClassVector {
		panic(fmt.Sprintf("isa: SYNC on engine class %d: engines are 1 to 4", i.Engine))
	}
	return encoder(Opcode(i.Engine<<4)|0xf, 0, i.Wait, i.Signal)
}

// Load moves rows from memory to local memory (§5.6.3).
type Load struct {
	Acc          bool   // local memory is the accumulators
	Binding      uint8  // index
	Offset       uint64 // bytes in the binding, below 2^40
	Local        uint32 // byte address
	NX           uint32 // bytes per row
	NY, NZ       uint16 // rows per plane, planes
	StrideY      uint32 // bytes between rows in memory
	StrideZ      uint32 // bytes between planes in memory
	LocalStride  uint16 // bytes between rows in local memory
	Wait, Signal Token
}

// Store moves rows from local memory to memory (§5.6.3).
type Store Load

// Encode implements Instruction.
func (i Load) Encode() Word { return i.encode(OpLoad) }

// Encode implements Instruction.
func (i Store) Encode() Word { return Load(i).encode(OpStore) }

// MaxOffset is the first offset that LOAD and STORE cannot express.
const MaxOffset = 1 << 40

func (i Load) encode(o Opcode) Word {
	if i.Offset >= MaxOffset {
		panic(fmt.Sprintf("isa: offset %#x does not fit in 40 bits", i.Offset))
	}
	w := encoder(o, flagIf(i.Acc, flagACC), i.Wait, i.Signal)
	w[4] = i.Binding
	w[5] = byte(i.Offset >> 32)
	w.put16(6, i.NY)
	w.put32(8, i.Local)
	w.put32(12, uint32(i.Offset))
	w.put32(16, i.NX)
	w.put32(20, i.StrideY)
	w.put32(24, i.StrideZ)
	w.put16(28, i.NZ)
	w.put16(30, i.LocalStride)
	return w
}

// DecodeLoad reads a LOAD that passed CheckFormat.
func DecodeLoad(w *Word) Load {
	i := Load{
		Acc:         w.flag(flagACC),
		Binding:     w[4],
		Offset:      uint64(w[5])<<32 | uint64(w.uint32(12)),
		NY:          w.uint16(6),
		Local:       w.uint32(8),
		NX:          w.uint32(16),
		StrideY:     w.uint32(20),
		StrideZ:     w.uint32(24),
		NZ:          w.uint16(28),
		LocalStride: w.uint16(30),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// DecodeStore reads a STORE that passed CheckFormat.
func DecodeStore(w *Word) Store { return Store(DecodeLoad(w)) }

// Preload places a tile of weights in the array (§5.6.4).
type Preload struct {
	K, N         uint16 // rows and columns of the tile
	Weights      uint32 // scratchpad address
	Stride       uint32 // bytes between rows
	Wait, Signal Token
}

// Encode implements Instruction.
func (i Preload) Encode() Word {
	w := encoder(OpPreload, 0, i.Wait, i.Signal)
	w.put16(4, i.K)
	w.put16(6, i.N)
	w.put32(8, i.Weights)
	w.put32(12, i.Stride)
	return w
}

// DecodePreload reads a PRELOAD that passed CheckFormat.
func DecodePreload(w *Word) Preload {
	i := Preload{K: w.uint16(4), N: w.uint16(6), Weights: w.uint32(8), Stride: w.uint32(12)}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Matmul streams MX·MY activation rows through the array (§5.6.5).
type Matmul struct {
	Accumulate         bool
	K, N               uint16
	Ifmap              uint32 // scratchpad address of row 0
	Acc                uint32 // accumulator byte address of row 0
	MX, MY             uint16
	StrideX, AccStride uint16 // bytes between activation rows x; between result rows
	StrideY            uint32 // bytes between activation rows y
	Wait, Signal       Token
}

// Encode implements Instruction.
func (i Matmul) Encode() Word {
	w := encoder(OpMatmul, flagIf(i.Accumulate, flagAccumulate), i.Wait, i.Signal)
	w.put16(4, i.K)
	w.put16(6, i.N)
	w.put32(8, i.Ifmap)
	w.put32(12, i.Acc)
	w.put16(16, i.MX)
	w.put16(18, i.MY)
	w.put16(20, i.StrideX)
	w.put16(22, i.AccStride)
	w.put32(24, i.StrideY)
	return w
}

// DecodeMatmul reads a MATMUL that passed CheckFormat.
func DecodeMatmul(w *Word) Matmul {
	i := Matmul{
		Accumulate: w.flag(flagAccumulate),
		K:          w.uint16(4),
		N:          w.uint16(6),
		Ifmap:      w.uint32(8),
		Acc:        w.uint32(12),
		MX:         w.uint16(16),
		MY:         w.uint16(18),
		StrideX:    w.uint16(20),
		AccStride:  w.uint16(22),
		StrideY:    w.uint32(24),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Fill stores one byte value in rows of local memory (§5.6.6).
type Fill struct {
	Acc          bool // local memory is the accumulators
	Value        uint8
	Local        uint32 // byte address
	NX, NY       uint32 // bytes per row, rows
	Stride       uint32 // bytes between rows
	Wait, Signal Token
}

// Encode implements Instruction.
func (i Fill) Encode() Word {
	w := encoder(OpFill, flagIf(i.Acc, flagACC), i.Wait, i.Signal)
	w[4] = i.Value
	w.put32(8, i.Local)
	w.put32(12, i.NX)
	w.put32(16, i.NY)
	w.put32(20, i.Stride)
	return w
}

// DecodeFill reads a FILL that passed CheckFormat.
func DecodeFill(w *Word) Fill {
	i := Fill{
		Acc: w.flag(flagACC), Value: w[4],
		Local: w.uint32(8), NX: w.uint32(12), NY: w.uint32(16), Stride: w.uint32(20),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Bias copies a row of int32 to M rows of accumulators (§5.6.7).
type Bias struct {
	N, AccStride uint16 // columns; bytes between accumulator rows
	Bias         uint32 // scratchpad address of N int32
	Acc          uint32 // accumulator byte address
	M            uint32 // rows
	Wait, Signal Token
}

// Encode implements Instruction.
func (i Bias) Encode() Word {
	w := encoder(OpBias, 0, i.Wait, i.Signal)
	w.put16(4, i.N)
	w.put16(6, i.AccStride)
	w.put32(8, i.Bias)
	w.put32(12, i.Acc)
	w.put32(16, i.M)
	return w
}

// DecodeBias reads a BIAS that passed CheckFormat.
func DecodeBias(w *Word) Bias {
	i := Bias{N: w.uint16(4), AccStride: w.uint16(6), Bias: w.uint32(8), Acc: w.uint32(12), M: w.uint32(16)}
	i.Wait, i.Signal = w.tokens()
	return i
}

// Requant turns accumulators into int8 in the scratchpad (§5.6.8).
type Requant struct {
	PerChannel             bool
	N, AccStride           uint16 // columns; bytes between accumulator rows
	Acc                    uint32 // accumulator byte address
	Out                    uint32 // scratchpad address of the result
	Params                 uint32 // scratchpad address of the parameter table
	MX, MY                 uint16
	OutStrideX, OutStrideY uint16 // bytes
	ZeroPoint, Lo, Hi      int8
	Rounding               Rounding
	Wait, Signal           Token
}

// Rounding is how REQUANT scales (§5.6.8, §6.9).
type Rounding uint8

// The roundings. All but OneRounding need FeatureVector.
const (
	OneRounding  Rounding = iota // §6.3
	TwoRoundings                 // §6.9.2, of TFLite
	FloatScale                   // §6.9.3, of ONNX Runtime
)

var roundings = []choice{{"one", uint8(OneRounding)}, {"two", uint8(TwoRoundings)}, {"float", uint8(FloatScale)}}

// Encode implements Instruction.
func (i Requant) Encode() Word {
	w := encoder(OpRequant, flagIf(i.PerChannel, flagPerChannel), i.Wait, i.Signal)
	w.put16(4, i.N)
	w.put16(6, i.AccStride)
	w.put32(8, i.Acc)
	w.put32(12, i.Out)
	w.put32(16, i.Params)
	w.put16(20, i.MX)
	w.put16(22, i.MY)
	w.put16(24, i.OutStrideX)
	w.put16(26, i.OutStrideY)
	w[28], w[29], w[30], w[31] = byte(i.ZeroPoint), byte(i.Lo), byte(i.Hi), byte(i.Rounding)
	return w
}

// DecodeRequant reads a REQUANT that passed CheckFormat.
func DecodeRequant(w *Word) Requant {
	i := Requant{
		PerChannel: w.flag(flagPerChannel),
		N:          w.uint16(4),
		AccStride:  w.uint16(6),
		Acc:        w.uint32(8),
		Out:        w.uint32(12),
		Params:     w.uint32(16),
		MX:         w.uint16(20),
		MY:         w.uint16(22),
		OutStrideX: w.uint16(24),
		OutStrideY: w.uint16(26),
		ZeroPoint:  int8(w[28]),
		Lo:         int8(w[29]),
		Hi:         int8(w[30]),
		Rounding:   Rounding(w[31]),
	}
	i.Wait, i.Signal = w.tokens()
	return i
}

// ParamSize is the size of an entry of REQUANT's parameter table in bytes.
const ParamSize = 8
