// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"os"
	"os/exec"
	"testing"

	"npuemu/tests/devtest"
)

// TestInProcess runs all tests of this package again, with hosts in the
// device's process instead of behind a socket: `go test -transport in-process`.
func TestInProcess(t *testing.T) {
	if devtest.InUse() == devtest.InProcess {
		t.Skip("this is the other run")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-transport", devtest.InProcess}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%q: %v\n%s", cmd.Args, err, out)
	}
}
