// SPDX-License-Identifier: Apache-2.0

package timing

import "fmt"

// Config is the hardware that is modelled.
type Config struct {
	Rows, Cols   int   // of the array
	Scratchpad   int64 // bytes
	Accumulators int64 // bytes
	Dataflow     Dataflow
	Params
}

// Params is what §13.2 calls the parameters of the model. Software cannot
// discover them.
type Params struct {
	Clock         int `toml:"clock"`          // MHz
	WeightBuffers int `toml:"weight_buffers"` // tiles of weights that the array holds, 1 or 2
	Stream        int `toml:"stream"`         // vectors that one step of the array streams at most; 0 for any number
	Banks         int `toml:"banks"`          // of the scratchpad
	BankWidth     int `toml:"bank_width"`     // bytes that a bank moves in a cycle; 0 for the array's rows
	Lanes         int `toml:"lanes"`          // elements that the vector engine takes in a cycle; 0 for the array's columns
	DRAMWidth     int `toml:"dram_width"`     // bytes in a cycle, device memory
	DRAMLatency   int `toml:"dram_latency"`   // cycles from a request to its first byte
	Burst         int `toml:"burst"`          // bytes; device memory moves whole ones
	BusWidth      int `toml:"bus_width"`      // bytes in a cycle, PCI Express
	BusLatency    int `toml:"bus_latency"`    // cycles
	Dispatch      int `toml:"dispatch"`       // cycles from an instruction to the next, of the sequencer
	CommandFetch  int `toml:"command_fetch"`  // cycles from a command's turn to its decoding
	CommandRetire int `toml:"command_retire"` // cycles from a command's end to its completion

	CommandFirmware int `toml:"command_firmware"` // cycles of firmware for each command of a user queue, in which it has no part by default
}

// Dataflow is what the array keeps still.
type Dataflow uint8

// The dataflows. A card has the first two.
const (
	WeightStationary Dataflow = iota
	OutputStationary
	InputStationary
)

var dataflows = [...]string{"ws", "os", "is"}

// String returns ws, os or is.
func (d Dataflow) String() string { return dataflows[d] }

// ParseDataflow is the inverse of String.
func ParseDataflow(s string) (Dataflow, error) {
	for d, name := range dataflows {
		if s == name {
			return Dataflow(d), nil
		}
	}
	return 0, fmt.Errorf("timing: dataflow %q: use ws, os or is", s)
}

// DefaultParams are those of a card without a configuration file.
func DefaultParams() Params {
	return Params{
		Clock: 1000, WeightBuffers: 2,
		Banks:     4,
		DRAMWidth: 32, DRAMLatency: 100, Burst: 64,
		BusWidth: 16, BusLatency: 800,
		Dispatch: 1, CommandFetch: 200, CommandRetire: 100,
	}
}

// Limits of the model: what no array has, so that sums stay far below 2⁶⁴.
const (
	maxDim   = 1 << 14
	maxLocal = 1 << 40
	maxParam = 1 << 20
)

// Validate reports the first rule that p breaks, or nil.
func (p Params) Validate() error {
	for _, r := range []struct {
		key      string
		v        int
		min, max int
	}{
		{"clock", p.Clock, 1, maxParam},
		{"weight_buffers", p.WeightBuffers, 1, 2},
		{"stream", p.Stream, 0, maxDim},
		{"banks", p.Banks, 1, 1024},
		{"bank_width", p.BankWidth, 0, 4096},
		{"lanes", p.Lanes, 0, maxDim},
		{"dram_width", p.DRAMWidth, 1, maxDim},
		{"dram_latency", p.DRAMLatency, 0, maxParam},
		{"burst", p.Burst, 1, 4096},
		{"bus_width", p.BusWidth, 1, maxDim},
		{"bus_latency", p.BusLatency, 0, maxParam},
		{"dispatch", p.Dispatch, 0, maxParam},
		{"command_fetch", p.CommandFetch, 0, maxParam},
		{"command_retire", p.CommandRetire, 0, maxParam},
		{"command_firmware", p.CommandFirmware, 0, maxParam},
	} {
		if r.v < r.min || r.v > r.max {
			return fmt.Errorf("timing.%s is %d: use %d to %d", r.key, r.v, r.min, r.max)
		}
	}
	return nil
}

// Validate reports the first rule that c breaks, or nil.
func (c Config) Validate() error {
	for _, r := range []struct {
		key string
		v   int64
		max int64
	}{
		{"rows", int64(c.Rows), maxDim},
		{"cols", int64(c.Cols), maxDim},
		{"scratchpad", c.Scratchpad, maxLocal},
		{"accumulators", c.Accumulators, maxLocal},
	} {
		if r.v < 1 || r.v > r.max {
			return fmt.Errorf("timing: %s is %d: use 1 to %d", r.key, r.v, r.max)
		}
	}
	if int(c.Dataflow) >= len(dataflows) {
		return fmt.Errorf("timing: dataflow is %d: use ws, os or is", c.Dataflow)
	}
	if err := c.Params.Validate(); err != nil {
		return fmt.Errorf("timing: %w", err)
	}
	return nil
}

// lanes returns the elements that the vector engine takes in a cycle.
func (c *Config) lanes() uint64 {
	if c.Lanes == 0 {
		return uint64(c.Cols)
	}
	return uint64(c.Lanes)
}

func ceilDiv(a, b uint64) uint64 { return (a + b - 1) / b }
