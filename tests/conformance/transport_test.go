// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"os"
	"os/exec"
	"testing"

	"npuemu/tests/devtest"
)

// TestOtherTransports runs all tests of this package again, over every other transport: in the device's
// process, as `go test -transport in-process` does, and as a virtio device. Tests that drive the PCI function itself
// skip there, and say so.
func TestOtherTransports(t *testing.T) {
	if devtest.InUse() != devtest.VFIOUser {
		t.Skip("this is another run")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, transport := range devtest.Transports() {
		if transport == devtest.InUse() {
			continue
		}
		t.Run(transport, func(t *testing.T) {
			args := []string{"-transport", transport}
			if testing.Short() {
				args = append(args, "-test.short")
			}
			cmd := exec.CommandContext(t.Context(), exe, args...)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%q: %v\n%s", cmd.Args, err, out)
			}
		})
	}
}
