// SPDX-License-Identifier: Apache-2.0

package devtest

import (
	"os"
	"testing"

	"npuemu/tests/hands"
	"npuemu/vdev"
)

// bootGuest returns a guest with the memory f whose processor reaches d.
func bootGuest(t testing.TB, d *vdev.Device, f *os.File) Transport {
	t.Helper()
	return hands.Boot(t, d, f)
}
