// SPDX-License-Identifier: Apache-2.0

package card

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"npuemu/tests/guest"
)

// TestAccel runs the tests of package accel in guests, where they find a device.
func TestAccel(t *testing.T) {
	e := guest.Require(t)
	tests := filepath.Join(t.TempDir(), "accel.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", tests, "npuemu/accel")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	const want = 13
	expected := []string{"command-ABORTED", "command-BAD_PROGRAM", "command-TIMEOUT", "command-TRANSLATION_FAULT", "fault-TRANSLATION_FAULT"}
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			res, d := boot(t, e, k, "load\n/accel.test -test.v -test.run Device >$RESULT/tests || { cat $RESULT/tests; die accel.test; }\nrmmod npu || die rmmod\n",
				func(c *guest.Config) { c.Files["/accel.test"] = tests })
			out := string(res.Files["tests"])
			if n := strings.Count(out, "--- PASS: TestDevice"); n < want || strings.Contains(out, "--- FAIL") {
				t.Errorf("%d tests passed, want %d:\n%s", n, want, out)
			}
			for _, f := range d.Findings() {
				if !slices.Contains(expected, f.ID) { // which the tests are after
					guest.Attr(t, guest.AttrCause, guest.CauseDevice)
					t.Errorf("our own driver makes mistakes: %+v", f)
				}
			}
		})
	}
}
