// SPDX-License-Identifier: Apache-2.0

package card

import (
	"cmp"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"npuemu/tests/guest"
	"npuemu/tests/guest/ktap"
	"npuemu/tests/kselftest"
	"npuemu/vdev"
)

// selftests caches what kselftest.Build made: it is the same for all kernels.
var selftests map[string]string

// kselftests returns a change of a guest that adds the kernel selftests and time for them.
func kselftests(t *testing.T, e *guest.Env) func(*guest.Config) {
	t.Helper()
	if selftests == nil {
		dir, err := os.MkdirTemp("", "npu-kselftest-")
		if err != nil {
			t.Fatal(err)
		}
		cleanups = append(cleanups, func() { os.RemoveAll(dir) })
		files, err := kselftest.Build(t.Context(), e, "../..", dir)
		if errors.Is(err, kselftest.ErrNotSetUp) {
			guest.Absent(t, err)
		}
		if err != nil {
			t.Fatal(err)
		}
		selftests = files
	}
	return func(c *guest.Config) {
		maps.Copy(c.Files, selftests)
		c.Timeout = 8 * time.Minute
	}
}

// checkSelftests expects what tests/kselftest/expectations says.
func checkSelftests(t *testing.T, res *guest.Result, bus string, want int) {
	t.Helper()
	tests := kselftest.Results(res.Files)
	wrong, err := kselftest.Expect(tests, res.Kernel, bus)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range wrong {
		t.Errorf("tests/kselftest/expectations: %s", w)
	}
	var b strings.Builder
	if err := ktap.Write(&b, tests); err != nil {
		t.Fatal(err)
	}
	checkKTAP(t, []byte(b.String()), want)
	for _, s := range res.Stages {
		t.Logf("%-10s %5.1f s", s.Name, s.Duration.Seconds())
	}
}

// TestKselftest runs the kernel selftests of tests/kselftest, on every kernel.
func TestKselftest(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			res, _ := boot(t, e, k, "load\n"+kselftest.Script()+"rmmod npu || die rmmod\n", kselftests(t, e))
			checkSelftests(t, res, "pci", 381)
		})
	}
}

// TestVirtioKselftest is TestKselftest over virtio, with model time; what needs a PCI function skips.
func TestVirtioKselftest(t *testing.T) {
	e := guest.Require(t)
	card := vdev.DefaultConfig()
	card.Time.Mode = vdev.TimeTimed
	res, _ := bootVirtio(t, e, card, monitor{queueSize: 256}, "", "load\n"+kselftest.Script()+"rmmod npu || die rmmod\n", kselftests(t, e))
	checkSelftests(t, res, "virtio", 353)
}

// TestKselftestTimeouts lets the driver find hangs by itself: on cards that do not watch their commands, and on one that
// is not asked to.
func TestKselftestTimeouts(t *testing.T) {
	e := guest.Require(t)
	var turns []turn
	var queue []int // rows of it that pass
	for _, tt := range []struct {
		name, arch, parameters string
		queue                  int
	}{
		{"arch 1.0", "1.0", "", 19},
		{"arch 1.1", "1.1", "", 19},
		{"driver alone", "", "queue_timeouts=0", 18},
	} {
		card := vdev.DefaultConfig()
		card.Arch = cmp.Or(tt.arch, card.Arch)
		queue = append(queue, tt.queue)
		turns = append(turns, turn{tt.name, card, `
modprobe npu ` + tt.parameters + `
load
for p in queue timeout; do ` + kselftest.Dir + `/$p >$RESULT/$p.ktap 2>&1; done
` + kselftest.Dir + `/ioctl -f query >$RESULT/query.ktap 2>&1
rmmod npu || die rmmod
`})
	}
	bootTurns(t, e, "", turns, func(t *testing.T, i int, res *guest.Result, _ *vdev.Device) {
		checkKTAP(t, res.Files["queue.ktap"], queue[i])
		checkKTAP(t, res.Files["timeout.ktap"], 8)
		checkKTAP(t, res.Files["query.ktap"], 24)
	}, kselftests(t, e))
}
