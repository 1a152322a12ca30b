// SPDX-License-Identifier: Apache-2.0

// Package tiers runs tests again with fewer instructions of the processor: the core has kernels for AVX-512, for AVX2 and in
// plain Go, and uses the best that there are.
package tiers

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"

	"npuemu/core/gemm"
	"npuemu/core/vec"
)

// variable tells a test binary that Again started which tier it is for.
const variable = "NPUEMU_TEST_TIER"

// lower are the tiers below the best one, with what takes the better ones away (package cpu reads it at the start).
var lower = []struct {
	name, debug string
	here        bool
}{
	{"avx2", "cpu.avx512f=off", cpu.X86.HasAVX2 && cpu.X86.HasFMA},
	{"go", "cpu.avx512f=off,cpu.avx2=off,cpu.fma=off", true},
}

// Again runs the tests of this binary that match pattern once more, with args, for each tier that the processor has below its
// best, side by side. Tests that it runs call Check.
func Again(t *testing.T, pattern string, args ...string) {
	t.Helper()
	if os.Getenv(variable) != "" {
		t.Skip("this is such a run")
	}
	if gemm.New(1).Tier() == "go" {
		t.Skip("this processor has plain Go only")
	}
	for _, tier := range lower {
		t.Run(tier.name, func(t *testing.T) {
			t.Parallel()
			if !tier.here {
				t.Skip("this processor has no AVX2")
			}
			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			all := append([]string{"-test.run=" + pattern, "-test.v", "-test.timeout=10m"}, args...)
			if testing.Short() {
				all = append(all, "-test.short")
			}
			cmd := exec.CommandContext(t.Context(), exe, all...)
			cmd.Env = append(os.Environ(), variable+"="+tier.name, "GODEBUG="+tier.debug)
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "tier "+tier.name) {
				t.Fatalf("%v, and the tier is to be %s\n%s", err, tier.name, out)
			}
			for line := range strings.Lines(string(out)) {
				if strings.Contains(line, "_test.go:") || strings.Contains(line, "tiers.go:") {
					t.Log(strings.TrimSpace(line))
				}
			}
		})
	}
}

// Check says which tier the core uses, and fails if Again asked for another one.
func Check(t *testing.T) {
	t.Helper()
	products, rows := gemm.New(1).Tier(), vec.New().Tier()
	if want := os.Getenv(variable); want != "" && (products != want || rows != want) {
		t.Fatalf("products are of tier %s, rows of tier %s, want %s", products, rows, want)
	}
	t.Logf("tier %s", products)
}
