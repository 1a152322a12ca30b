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
func TestInProcess(t *testing.T) { again(t, devtest.InProcess) }

// TestGoKVM runs them with hosts that are guests in the embedded VMM, whose
// processor does every access: `go test -transport gokvm`. Tests skip what a guest
// cannot do, and all of it where KVM cannot be used.
func TestGoKVM(t *testing.T) { again(t, devtest.GoKVM) }

// again runs the tests over another transport.
func again(t *testing.T, transport string) {
	t.Helper()
	if devtest.InUse() != devtest.VFIOUser {
		t.Skip("this is another run")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-transport", transport}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := exec.CommandContext(t.Context(), exe, args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%q: %v\n%s", cmd.Args, err, out)
	}
}
