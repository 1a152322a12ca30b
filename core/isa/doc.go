// SPDX-License-Identifier: Apache-2.0

// Package isa is the instruction set of the compute core: instruction types
// and their encodings, program images, ELF files, an assembler and a
// disassembler (docs/spec/isa.md §5, ISA 1.4).
//
// Programs are built in one of two ways: with Assemble from text, or with Text
// from instruction values. Both give bytes that Check would let an engine run.
// The package executes nothing.
package isa

// Version of the instruction set that this package encodes and accepts.
const (
	Major = 1
	Minor = 4
)

// Groups of instructions that a core may have, as bits of FEATURES (§2.1) and of
// a descriptor's features (§5.3).
const (
	FeatureGEMM  = 1 << 5 // GEMM: §5.6.9 to §5.6.12
	FeatureFloat = 1 << 6 // FLOAT: floating-point types in OPERANDS

	FeatureControl = 1 << 7  // CONTROL: §5.6.13 to §5.6.17
	FeatureVector  = 1 << 8  // VECTOR: §5.6.18, §5.6.19, rounding of REQUANT
	FeatureReduce  = 1 << 9  // REDUCE: §5.6.20, §5.6.21
	FeaturePool    = 1 << 10 // POOL: §5.6.22 to §5.6.24

	FeatureSparse = 1 << 11 // SPARSE: §5.6.31
	FeatureMX     = 1 << 12 // MX: §5.6.30
	FeatureGather = 1 << 14 // GATHER: §5.6.25 to §5.6.28, argmax and argmin of REDUCE
	FeatureQuant  = 1 << 15 // QUANT: §5.6.29

	FeatureAddq = 1 << 16 // ADDQ: §5.6.32, §5.6.33

	FeatureArguments = 1 << 17 // ARGUMENTS: s0 to s3 at the start, §5.6.13

	// Features are all groups that this package knows, features11 to features13
	// those of ISA 1.1 to 1.3.
	Features   = features13 | FeatureArguments
	features13 = features12 | FeatureAddq
	features12 = features11 | FeaturePool | FeatureSparse | FeatureMX | FeatureGather | FeatureQuant
	features11 = FeatureGEMM | FeatureFloat | FeatureControl | FeatureVector | FeatureReduce
)

// FeaturesOf returns the groups that a program of ISA 1.minor may name.
func FeaturesOf(minor uint16) uint64 {
	switch minor {
	case 0:
		return 0
	case 1:
		return features11
	case 2:
		return features12
	case 3:
		return features13
	}
	return Features
}
