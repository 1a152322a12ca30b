// SPDX-License-Identifier: Apache-2.0

package timing

// Commands of queues (§13.8.2): what they take besides the program.

// Overhead returns the cycles of every command: to fetch and decode it, of firmware
// if it has a part in it, and to post its completion.
func (c *Config) Overhead() uint64 {
	return uint64(c.CommandFetch) + uint64(c.CommandFirmware) + uint64(c.CommandRetire)
}

// Fetch returns the cycles in which the command processor reads so many bytes,
// of the bus or of device memory.
func (c *Config) Fetch(bytes uint64, onBus bool) uint64 {
	if onBus {
		return uint64(c.BusLatency) + ceilDiv(bytes, uint64(c.BusWidth))
	}
	burst := uint64(c.Burst)
	return uint64(c.DRAMLatency) + ceilDiv(ceilDiv(bytes, burst)*burst, uint64(c.DRAMWidth))
}

// Launch returns the cycles of a LAUNCH besides its program's: of a program's image and a binding table of so many bytes, in the
// same memory.
func (c *Config) Launch(image, table uint64, onBus bool) uint64 {
	cycles := c.Overhead() + c.Fetch(image, onBus)
	if table > 0 {
		cycles += c.Fetch(table, onBus)
	}
	return cycles
}

// Side is one end of a COPY: nx bytes in each of ny·nz rows.
type Side struct {
	Addr, StrideY, StrideZ uint64
	Bus                    bool // memory on the bus, and not of the device
}

// Copy returns the cycles of a COPY (§7.4), whose reads and writes overlap.
func (c *Config) Copy(nx, ny, nz uint64, from, to Side) uint64 {
	var dram, bus, latency uint64
	for _, s := range [...]Side{from, to} {
		if s.Bus {
			bus += nx * ny * nz
			latency += uint64(c.BusLatency)
			continue
		}
		row, y, z := nx, ny, nz
		if y > 1 && s.StrideY == row {
			row, y = row*y, 1
		}
		if z > 1 && y == 1 && s.StrideZ == row {
			row, z = row*z, 1
		}
		burst := uint64(c.Burst)
		dram += bursts(s.Addr, row, s.StrideY, s.StrideZ, y, z, burst) * burst
		latency += uint64(c.DRAMLatency)
	}
	return latency + max(ny*nz, ceilDiv(dram, uint64(c.DRAMWidth)), ceilDiv(bus, uint64(c.BusWidth)))
}
