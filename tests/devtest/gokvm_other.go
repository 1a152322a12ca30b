// SPDX-License-Identifier: Apache-2.0

//go:build !amd64

package devtest

import (
	"os"
	"testing"

	"npuemu/vdev"
)

// bootGuest skips the test: the embedded VMM is for x86-64.
func bootGuest(t testing.TB, _ *vdev.Device, _ *os.File) Transport {
	t.Helper()
	t.Skip("not run: the embedded VMM is for x86-64")
	return nil
}
