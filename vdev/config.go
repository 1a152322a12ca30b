// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/bits"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"

	"npuemu/core"
	"npuemu/core/isa"
	"npuemu/mmio/npureg"
	"npuemu/timing"
	"npuemu/vdev/pci"
)

// Config is what an operator decides about a card. The zero value is not valid;
// start from DefaultConfig.
type Config struct {
	Arch   string      `toml:"arch"` // architecture version to present, one of Arches
	Serial uint64      `toml:"serial"`
	PCI    PCIConfig   `toml:"pci"`
	Array  ArrayConfig `toml:"array"`
	Core   CoreConfig  `toml:"core"`
	Memory MemConfig   `toml:"memory"`
	Queues QueueConfig `toml:"queues"`
	SRIOV  SRIOVConfig `toml:"sriov"`

	// Timing is the model's hardware (§13.2).
	Timing timing.Params `toml:"timing"`
	Time   TimeConfig    `toml:"time"`

	// Log receives what the operator should know, firmware's console among it; nil
	// discards.
	Log *slog.Logger `toml:"-"`
}

// PCIConfig is what the PCI function offers (§1.4). INTx is always there.
type PCIConfig struct {
	MSIX bool `toml:"msix"` // and BAR4
	MSI  bool `toml:"msi"`
	// ErrorInterrupt signals VFIO's error interrupt when the function reports a fatal
	// error (§1.6). QEMU stops the machine for good then.
	ErrorInterrupt bool `toml:"error_interrupt"`
	// Touch repeats an access that the host has not mapped as a message to it, so that its
	// IOMMU logs the fault (§7.6).
	Touch bool `toml:"touch"`
}

// SRIOVConfig makes the card a physical function with virtual functions, each an NPU of its own
// (§1.9). Experimental.
type SRIOVConfig struct {
	VFs int `toml:"vfs"` // 0 for none
}

// ArrayConfig is the compute core (§5.1).
type ArrayConfig struct {
	Rows         int   `toml:"rows"`         // input channels, 8 to 256
	Cols         int   `toml:"cols"`         // output channels, 8 to 256
	Scratchpad   int64 `toml:"scratchpad"`   // bytes
	Accumulators int64 `toml:"accumulators"` // bytes
}

// CoreConfig is what the compute core leaves out, and how it is simulated.
type CoreConfig struct {
	// Without names the groups of instructions (§5.3) that the core does not have, as .features does. What the architecture
	// lacks in any case may be among them.
	Without []string `toml:"without"`
	// Threads is how many threads a large product takes, 0 for one on each processor of the host. Values are the same, and no
	// guest sees it.
	Threads int `toml:"threads"`
}

// MemConfig is device memory (§7.1).
type MemConfig struct {
	Size   int64 `toml:"size"`   // bytes, a power of two
	Window bool  `toml:"window"` // clients may map it; QEMU then waits for every doorbell
}

// QueueConfig is what §4 and §8 leave to the configuration.
type QueueConfig struct {
	Count      int `toml:"count"`       // user queues, 1 to 127
	MaxEntries int `toml:"max_entries"` // of a ring
	Contexts   int `toml:"contexts"`
	Vectors    int `toml:"vectors"` // interrupt vectors
}

// Arches lists the architecture versions that can be presented, newest first.
func Arches() []string { return []string{"1.5", "1.4", "1.3", "1.2", "1.1", "1.0"} }

// archMinor returns the minor version to present; c is valid.
func (c Config) archMinor() uint32 {
	return npureg.ArchMinor - uint32(slices.Index(Arches(), c.Arch))
}

// features returns FEATURES_LO (§2.1); c is valid.
func (c Config) features() uint32 {
	var f uint32
	if c.archMinor() >= 1 {
		f |= npureg.FeatureShadowDoorbells
	}
	if c.archMinor() >= 2 {
		f |= npureg.FeatureMMU | npureg.FeatureQueueControl | npureg.FeatureTimelines | npureg.FeatureRAS
	}
	if c.archMinor() >= 3 {
		f |= npureg.FeatureGEMM | npureg.FeatureFloat | npureg.FeatureControl | npureg.FeatureVector | npureg.FeatureReduce
	}
	if c.archMinor() >= 4 {
		f |= npureg.FeaturePool | npureg.FeatureGather | npureg.FeatureQuant | npureg.FeatureSparse | npureg.FeatureMX | npureg.FeatureTiming
	}
	if c.archMinor() >= 5 {
		f |= npureg.FeatureAddq
	}
	return f &^ c.without()
}

// without returns the groups of instructions that Core leaves out.
func (c Config) without() uint32 {
	var f uint64
	for _, name := range c.Core.Without {
		f |= isa.Group(name)
	}
	return uint32(f)
}

// isaMinor returns the newest minor version of the ISA that the core has (§5.3); c is valid.
func (c Config) isaMinor() uint16 {
	switch minor := c.archMinor(); {
	case minor >= 5:
		return isa.Minor
	case minor >= 3:
		return uint16(minor - 2)
	}
	return 0
}

// DefaultConfig is the card that npuemu serve shows without a configuration file. Its local memories are those of a present edge
// NPU: most activations of a network for images of 224² stay in them (docs/performance.md, "Networks end to end").
func DefaultConfig() Config {
	return Config{
		Arch:   Arches()[0],
		Serial: 0x1,
		Array:  ArrayConfig{Rows: 32, Cols: 32, Scratchpad: 1 << 20, Accumulators: 512 << 10},
		PCI:    PCIConfig{MSIX: true, MSI: true, Touch: true},
		Memory: MemConfig{Size: 64 << 20, Window: true},
		Queues: QueueConfig{Count: 64, MaxEntries: 1024, Contexts: 64, Vectors: 16},
		Timing: timing.DefaultParams(),
		Time:   TimeConfig{Mode: TimeFast, Factor: 1},
	}
}

// Limits of a configuration. Device memory is host memory and a BAR that a
// guest's firmware must place, hence 16 GiB; the scratchpad is cleared at every
// program start, hence 64 MiB; a MATMUL is not interrupted and does at most
// accumulators/4 × rows multiply-accumulates, 2²⁸ at the limit, which is what a
// reset may have to wait for, hence 4 MiB (GEMM and CONV end at a row of the result); ring sizes are 16-bit fields.
const (
	minDRAM      = 1 << 20
	maxDRAM      = 16 << 30
	maxSpad      = 64 << 20
	maxAcc       = 4 << 20
	maxRing      = 4096
	maxUserQueue = npureg.MaxQueues - 1
	maxContexts  = 1024
)

// ParseConfig reads a TOML configuration over the defaults, and validates it.
func ParseConfig(b []byte) (Config, error) {
	c, err := DecodeConfig(b)
	if err != nil {
		return c, err
	}
	return c, c.Validate()
}

// DecodeConfig is ParseConfig without the rules of a card that can be built. Unknown keys are
// errors: a misspelt key must not silently leave the default.
func DecodeConfig(b []byte) (Config, error) {
	c := DefaultConfig()
	// Errors quote lines of the file, and a terminal obeys control characters.
	control := func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\t\r\n", r) }
	if !utf8.Valid(b) || bytes.ContainsFunc(b, control) {
		return c, errors.New("vdev: config: this is not text: TOML is UTF-8 without control characters")
	}
	d := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		var strict *toml.StrictMissingError
		var de *toml.DecodeError
		switch {
		case errors.As(err, &strict):
			return c, fmt.Errorf("vdev: config: unknown key:\n%s", strict.String())
		case errors.As(err, &de):
			return c, fmt.Errorf("vdev: config:\n%s", de.String())
		}
		return c, fmt.Errorf("vdev: config: %w", err)
	}
	return c, nil
}

// Validate reports the first rule that c breaks, and what to do.
func (c Config) Validate() error {
	if !slices.Contains(Arches(), c.Arch) {
		return fmt.Errorf("vdev: config: arch %q is not known: use one of %v", c.Arch, Arches())
	}
	if n := c.Core.Threads; n < 0 || n > core.MaxThreads {
		return fmt.Errorf("vdev: config: core.threads is %d: use 1 to %d, or 0 for one on each processor", n, core.MaxThreads)
	}
	for _, name := range c.Core.Without {
		if isa.Group(name) == 0 {
			return fmt.Errorf("vdev: config: core.without names %q: groups of instructions are %s (§5.3)", name, strings.Join(isa.GroupNames(isa.Features), ", "))
		}
	}
	if err := c.core().Validate(); err != nil {
		return fmt.Errorf("vdev: config: array: %w", err)
	}
	if err := c.Timing.Validate(); err != nil {
		return fmt.Errorf("vdev: config: %w", err)
	}
	if err := c.Time.validate(); err != nil {
		return fmt.Errorf("vdev: config: time: %w", err)
	}
	for _, r := range []struct {
		key      string
		v        int64
		min, max int64
	}{
		{"array.scratchpad", c.Array.Scratchpad, 1 << 10, maxSpad},
		{"array.accumulators", c.Array.Accumulators, 1 << 10, maxAcc},
		{"memory.size", c.Memory.Size, minDRAM, maxDRAM},
		{"queues.count", int64(c.Queues.Count), 1, maxUserQueue},
		{"queues.max_entries", int64(c.Queues.MaxEntries), 2, maxRing},
		{"queues.contexts", int64(c.Queues.Contexts), 1, maxContexts},
		{"queues.vectors", int64(c.Queues.Vectors), 1, pci.MaxVectors},
		{"sriov.vfs", int64(c.SRIOV.VFs), 0, pci.MaxVFs},
	} {
		if r.v < r.min || r.v > r.max {
			return fmt.Errorf("vdev: config: %s is %d: use %d to %d", r.key, r.v, r.min, r.max)
		}
	}
	if bits.OnesCount64(uint64(c.Memory.Size)) != 1 {
		return fmt.Errorf("vdev: config: memory.size is %d: a BAR needs a power of two", c.Memory.Size)
	}
	if c.SRIOV.VFs == 0 {
		return nil
	}
	if n := c.partition(); n < minDRAM {
		return fmt.Errorf("vdev: config: memory.size is %d, which leaves %d for each of %d functions: use at least %d", c.Memory.Size, n, c.SRIOV.VFs+1, c.Memory.Size/n*minDRAM)
	}
	if !c.PCI.MSI && !c.PCI.MSIX {
		return fmt.Errorf("vdev: config: sriov.vfs is %d without pci.msix or pci.msi: a virtual function has no INTx; enable one", c.SRIOV.VFs)
	}
	return nil
}

// partition returns how much of the device memory each function has: an equal part that is a power of two.
func (c Config) partition() int64 { return c.Memory.Size >> bits.Len(uint(c.SRIOV.VFs)) }

// ISA returns the newest minor version of the instruction set that the core has, and its groups of
// instructions (§5.3); c is valid.
func (c Config) ISA() (minor uint16, groups uint64) {
	return c.isaMinor(), uint64(c.features()) & isa.Features
}

func (c Config) core() core.Config {
	return core.Config{
		Rows: c.Array.Rows, Cols: c.Array.Cols, SpadSize: int(c.Array.Scratchpad), AccSize: int(c.Array.Accumulators),
		ISAMinor: c.isaMinor(), Features: uint64(c.features()) & isa.Features, Threads: c.Core.Threads,
	}
}
