// SPDX-License-Identifier: Apache-2.0

package vdev

import (
	"reflect"
	"strings"
	"testing"

	"npuemu/core/isa"
)

func TestParseConfig(t *testing.T) {
	c, err := ParseConfig([]byte("serial = 7\n[array]\nrows = 64\n[memory]\nsize = 2097152\nwindow = false\n[pci]\nmsix = false\ntouch = false\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := DefaultConfig()
	want.Serial, want.Array.Rows, want.Memory.Size = 7, 64, 2<<20
	want.Memory.Window, want.PCI.MSIX, want.PCI.Touch = false, false, false
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v, want %+v", c, want)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "[array]\nrow = 3\n", "row"},
		{"not TOML", "array = [", "array"},
		{"wrong type", "serial = \"x\"\n", "serial"},
		{"arch", "arch = \"2.0\"\n", `arch "2.0" is not known: use one of [1.5 1.4 1.3 1.2 1.1 1.0]`},
		{"array too large", "[array]\ncols = 264\n", "264"},
		{"array not a multiple of 8", "[array]\nrows = 12\n", "12"},
		{"scratchpad", "[array]\nscratchpad = 3\n", "array.scratchpad is 3: use 1024 to 67108864"},
		{"a group that there is not", "[core]\nwithout = [\"mx\", \"bf16\"]\n", `core.without names "bf16": groups of instructions are gemm, float, control,`},
		{"threads", "[core]\nthreads = 65\n", "core.threads is 65: use 1 to 64"},
		{"no threads", "[core]\nthreads = -1\n", "core.threads is -1"},
		{"accumulators", "[array]\naccumulators = 1025\n", "1025"},
		{"memory not a power of two", "[memory]\nsize = 3145728\n", "power of two"},
		{"memory too small", "[memory]\nsize = 4096\n", "memory.size is 4096: use 1048576 to 17179869184"},
		{"not a boolean", "[pci]\nmsi = 1\n", "msi"},
		{"no queues", "[queues]\ncount = 0\n", "queues.count is 0: use 1 to 127"},
		{"ring", "[queues]\nmax_entries = 1\n", "queues.max_entries is 1"},
		{"contexts", "[queues]\ncontexts = -1\n", "queues.contexts is -1"},
		{"virtual functions", "[sriov]\nvfs = 8\n", "sriov.vfs is 8: use 0 to 7"},
		{"memory for all functions", "[memory]\nsize = 4194304\n[sriov]\nvfs = 4\n", "which leaves 524288 for each of 5 functions: use at least 8388608"},
		{"virtual functions without messages", "[pci]\nmsi = false\nmsix = false\n[sriov]\nvfs = 1\n", "a virtual function has no INTx"},
		{"time mode", "[time]\nmode = \"real\"\n", `time: mode "real": use fast, timed, or paced`},
		{"time factor", "[time]\nfactor = nan\n", "time: factor is NaN"},
		{"timing", "[timing]\nclock = 0\n", "timing.clock is 0: use 1 to 1048576"},
		{"vectors", "[queues]\nvectors = 65\n", "queues.vectors is 65"},
	} {
		if _, err := ParseConfig([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want an error that says %q", tt.name, err, tt.want)
		}
	}
}

// TestWithout: the groups of instructions that a configuration leaves out are not announced (§2.1), and nothing else changes.
func TestWithout(t *testing.T) {
	for _, tt := range []struct {
		text   string
		groups uint64
	}{
		{"", isa.Features},
		{"[core]\nwithout = []\n", isa.Features},
		{"[core]\nwithout = [\"mx\", \"float\", \"mx\"]\n", isa.Features &^ (isa.FeatureMX | isa.FeatureFloat)},
		{"[core]\nwithout = [\"gemm\", \"float\", \"control\", \"vector\", \"reduce\", \"pool\", \"sparse\", \"mx\", \"gather\", \"quant\", \"addq\"]\n", isa.Features &^ (isa.FeaturesOf(3))},
		{"arch = \"1.3\"\n[core]\nwithout = [\"float\", \"mx\"]\n", isa.FeaturesOf(1) &^ isa.FeatureFloat},
		{"arch = \"1.0\"\n[core]\nwithout = [\"mx\"]\n", 0},
	} {
		c, err := ParseConfig([]byte(tt.text))
		if err != nil {
			t.Fatal(err)
		}
		if _, got := c.ISA(); got != tt.groups {
			t.Errorf("%q: groups %#x, want %#x", tt.text, got, tt.groups)
		}
		all := c
		all.Core.Without = nil
		if rest := ^uint32(isa.Features); c.features()&rest != all.features()&rest {
			t.Errorf("%q: other features are %#x, want %#x", tt.text, c.features()&rest, all.features()&rest)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("[array]\nrows = 64\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseConfig(b)
		if err == nil && c.Validate() != nil {
			t.Errorf("accepted %+v, which is not valid", c)
		}
	})
}
