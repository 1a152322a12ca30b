// SPDX-License-Identifier: Apache-2.0

package attach

import (
	"strings"
	"testing"

	"npuemu/accel"
	"npuemu/compiler/run"
	"npuemu/mmio/npureg"
)

// TestUntimed: card and driver both have to know of cycles; otherwise it is said who does not.
func TestUntimed(t *testing.T) {
	for _, tt := range []struct {
		features uint64
		driver   accel.Version
		want     string
	}{
		{npureg.FeatureTiming, 1<<16 | 3, ""},
		{npureg.FeatureTiming, 1<<16 | 4, ""},
		{npureg.FeatureTiming, 1<<16 | 2, "the driver has interface 1.2, and tells of them from 1.3 on"},
		{npureg.FeatureTiming, 1 << 16, "interface 1.0"},
		{npureg.FeatureMMU, 1<<16 | 3, run.NoTiming},
		{0, 1 << 16, run.NoTiming},
	} {
		if got := untimed(tt.features, tt.driver); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("features %#x, driver %v: %q, want %q", tt.features, tt.driver, got, tt.want)
		}
	}
}
