// SPDX-License-Identifier: Apache-2.0

package mmio

// Field is a named group of bits of a register. It documents; masks decide.
type Field struct {
	Name         string
	Shift, Width uint8 // in bits; Shift+Width is at most 32
	Doc          string
}

// Register is one row of a bank's table: 32 bits wide, little-endian. A 64-bit
// value is two registers, NAME_LO and NAME_HI.
//
// A bit in none of RW, W1C and W1S ignores writes and keeps its value until
// the device changes it. A bit may be in at most one of the three.
type Register struct {
	Name   string
	Off    uint32  // byte offset in the bank, a multiple of 4
	Reset  uint32  // value after New and Bank.Reset
	RW     uint32  // bits that a write stores
	W1C    uint32  // bits that a write of one clears
	W1S    uint32  // bits that a write of one sets
	WO     bool    // the host reads zero; the device still sees the value
	Narrow bool    // bytes and aligned pairs of bytes of it can be accessed, too
	Fields []Field // documentation, for the C header and the specification
	Spec   string  // section, such as "§3.2"
	Doc    string  // one sentence
}
