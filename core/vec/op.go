// SPDX-License-Identifier: Apache-2.0

package vec

// Type is the type of elements, with the numbers of §5.6.18.
type Type uint8

// The types.
const (
	Int8  Type = 0
	Int16 Type = 1
	Int32 Type = 3
	Uint8 Type = 4
	FP32  Type = 8
	BF16  Type = 9
	FP16  Type = 10
	E4M3  Type = 11
	E5M2  Type = 12

	numTypes = 13
)

// Float reports whether t is a floating-point type.
func (t Type) Float() bool { return t >= FP32 }

// Size is the size of an element in bytes.
func (t Type) Size() int {
	switch t {
	case Int32, FP32:
		return 4
	case Int16, BF16, FP16:
		return 2
	}
	return 1
}

// Op is an operation on elements, with the numbers of §5.6.18.
type Op uint8

// The operations: of all types, of integers, of floating point.
const (
	Move   Op = 0
	Neg    Op = 1
	Abs    Op = 2
	ReLU   Op = 3
	Add    Op = 4
	Sub    Op = 5
	Mul    Op = 6
	Min    Op = 7
	Max    Op = 8
	Eq     Op = 9
	Ne     Op = 10
	Lt     Op = 11
	Le     Op = 12
	Select Op = 13

	And        Op = 16
	Or         Op = 17
	Xor        Op = 18
	Shl        Op = 19
	Shr        Op = 20
	ShrLogical Op = 21
	ShrRound   Op = 22
	MulHigh    Op = 23
	AddSat     Op = 24
	SubSat     Op = 25

	Div         Op = 32
	Sqrt        Op = 33
	Exp         Op = 34
	Log         Op = 35
	Tanh        Op = 36
	Sigmoid     Op = 37
	SiLU        Op = 38
	GELU        Op = 39
	GELUTanh    Op = 40
	Erf         Op = 41
	Reciprocal  Op = 42
	Rsqrt       Op = 43
	HardSigmoid Op = 44
	HardSwish   Op = 45
	ReLU6       Op = 46

	numOps = 47
)

// Reduction is an operation of REDUCE, with the numbers of §5.6.20.
type Reduction uint8

// The reductions.
const (
	ReduceSum  Reduction = 0
	ReduceMax  Reduction = 1
	ReduceMin  Reduction = 2
	ReduceMean Reduction = 3 // of floating point
)
