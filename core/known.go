// SPDX-License-Identifier: Apache-2.0

package core

import (
	"bytes"
	"slices"

	"npuemu/core/isa"
)

// What a program's text is checked for, and what its tokens leave without an order or unused, follows from its image and
// bindings alone: no data decides which instructions are executed, or in which order. So what is true of a program that ran is true
// of the same one when it comes again, which is compared byte by byte: a copy takes far less time.

// Bounds of the programs that are remembered.
const (
	knownPrograms = 8
	knownBytes    = 2 << 20 // of an image
)

// known are programs that ran to their end without a hazard, the latest first.
type known []*knownProgram

type knownProgram struct {
	image    []byte
	bindings []Binding
	halt     int
	unused   []Unused
	course   *course // or nil
	varied   bool    // it has none
}

// find returns the one with that image and those bindings, or nil.
func (k known) find(image []byte, bindings []Binding) *knownProgram {
	for i, p := range k {
		// The descriptor has a checksum: others differ there.
		if len(p.image) == len(image) && bytes.Equal(p.image[:isa.DescriptorSize], image[:isa.DescriptorSize]) &&
			slices.Equal(p.bindings, bindings) && bytes.Equal(p.image, image) {
			copy(k[1:], k[:i])
			k[0] = p
			return p
		}
	}
	return nil
}

// keep remembers a program, in place of the one that has not come for the longest time.
func (k *known) keep(image []byte, bindings []Binding, halt int, unused []Unused) {
	if len(image) > knownBytes {
		return
	}
	if len(*k) < knownPrograms {
		*k = append(*k, new(knownProgram))
	}
	last := len(*k) - 1
	p := (*k)[last]
	copy((*k)[1:], (*k)[:last])
	(*k)[0] = p
	*p = knownProgram{
		image: append(p.image[:0], image...), bindings: append(p.bindings[:0], bindings...), halt: halt, unused: append(p.unused[:0], unused...),
	}
}
