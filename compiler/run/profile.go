// SPDX-License-Identifier: Apache-2.0

package run

import (
	"encoding/binary"
	"fmt"
)

// Launch is what a card says of a program that it ran.
type Launch struct {
	Program int    `json:"program"`
	Cycles  uint64 `json:"cycles"` // model time of the command (§13.8.2), of which Profile has the program's; 0 if there is none
	Untimed string `json:"-"`      // why Cycles is 0

	Profile *Profile `json:"profile,omitempty"` // nil if the card or its driver has none
}

// Why there are no cycles, whoever drives the card.
const (
	NoTiming = "the card is of an architecture before 1.4, which has no model time (§13.8)"
	FastMode = "the card's time mode is fast (§13.8.1)"
)

// Engines are the core's, in the order of profile records.
var Engines = [...]string{"load", "store", "matrix", "vector"}

// Profile is a profile record (§13.8.4). What is marked * is 0 without model time.
type Profile struct {
	Timed        bool   `json:"timed"`        // there is model time
	Began        uint64 `json:"began"`        // * at which the command began, cycles since the card's reset
	Cycles       uint64 `json:"cycles"`       // * of the program
	Instructions uint64 `json:"instructions"` // HALT and SYNC among them
	MACs         uint64 `json:"macs"`
	Loaded       uint64 `json:"bytes_loaded"`
	Stored       uint64 `json:"bytes_stored"`
	DRAM         uint64 `json:"bytes_device_memory"` // * whole bursts
	Bus          uint64 `json:"bytes_bus"`           // *

	Engines [len(Engines)]EngineProfile `json:"engines"`
}

// EngineProfile is how an engine spent a program's cycles (§13.6).
type EngineProfile struct {
	Engine       string `json:"engine"`
	Instructions uint64 `json:"instructions"`
	Busy         uint64 `json:"busy"`   // *
	Stalls       Stalls `json:"stalls"` // *
}

// Stalls are cycles in which an engine had an instruction and did not go on, or not at its own speed: by what it waited for.
type Stalls struct {
	Load       uint64 `json:"load"`   // a token of that engine
	Store      uint64 `json:"store"`  // likewise
	Matrix     uint64 `json:"matrix"` // likewise
	Vector     uint64 `json:"vector"` // likewise
	Dispatch   uint64 `json:"dispatch"`
	Weights    uint64 `json:"weights"`
	Memory     uint64 `json:"memory"`     // part of Busy
	Scratchpad uint64 `json:"scratchpad"` // part of Busy
}

// profileSize is the size of a profile record; later ones may be longer.
const profileSize = 0x50 + 80*len(Engines)

// ParseProfile reads a profile record.
func ParseProfile(b []byte) (*Profile, error) {
	le := binary.LittleEndian
	if len(b) < profileSize || int(le.Uint32(b)) < profileSize {
		return nil, fmt.Errorf("run: profile record of %d bytes that begins % x: it has at least %d, and says so (§13.8.4)", len(b), b[:min(len(b), 4)], profileSize)
	}
	p := &Profile{Timed: le.Uint32(b[4:])&1 != 0}
	words := b[8:]
	next := func() uint64 {
		v := le.Uint64(words)
		words = words[8:]
		return v
	}
	for _, f := range []*uint64{&p.Began, &p.Cycles, &p.Instructions, &p.MACs, &p.Loaded, &p.Stored, &p.DRAM, &p.Bus} {
		*f = next()
	}
	next() // reserved
	for i := range p.Engines {
		e := &p.Engines[i]
		e.Engine = Engines[i]
		s := &e.Stalls
		for _, f := range []*uint64{&e.Instructions, &e.Busy, &s.Load, &s.Store, &s.Matrix, &s.Vector, &s.Dispatch, &s.Weights, &s.Memory, &s.Scratchpad} {
			*f = next()
		}
	}
	return p, nil
}
