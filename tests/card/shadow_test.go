// SPDX-License-Identifier: Apache-2.0

package card

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/vdev"
)

// doorbellRun is what the doorbell program prints of its jobs.
type doorbellRun struct {
	Jobs          float64
	Alone, Queued struct {
		Seconds  float64
		Counters map[string]float64
	}
}

// TestShadowDoorbells runs the same jobs with and without shadow doorbells (§4.11) in one guest, and
// reports both: the numbers of docs/performance.md. Then the device idles.
func TestShadowDoorbells(t *testing.T) {
	e := guest.Require(t)
	const script = `
echo 1 >$dev/enable
for i in 1 2 3; do doorbell register $dev/resource0 2000 >$RESULT/register$i || die register; done
echo 0 >$dev/enable
for i in 1 2 3; do
	for on in 0 1; do
		modprobe npu shadow_doorbells=$on || die "modprobe npu shadow_doorbells=$on"
		for j in $(seq 50); do [ -e /dev/accel/accel0 ] && break; sleep 0.1; done
		echo "jobs begin $on"
		doorbell jobs 1000 >$RESULT/run$on-$i || die "jobs, shadow_doorbells=$on"
		echo "jobs end $on"
		[ $i$on = 31 ] && { sleep 1; echo "idle begins"; sleep 10; echo "idle ends"; }
		rmmod npu || die rmmod
	done
done
`
	d, socket := devtest.Start(t, vdev.DefaultConfig())
	cfg := kit(t, e, e.Kernels()[0]).Config("", socket, common+script)
	var before, shadows [2]uint64
	var idle time.Duration
	cfg.OnLine = func(line string) {
		for on, name := range []string{"0", "1"} {
			if strings.Contains(line, "jobs begin "+name) {
				before[on] = d.Counter(npureg.CounterShadow)
			}
			if strings.Contains(line, "jobs end "+name) {
				shadows[on] += d.Counter(npureg.CounterShadow) - before[on]
			}
		}
		if strings.Contains(line, "idle begins") {
			idle = -processorTime(t)
		}
		if strings.Contains(line, "idle ends") {
			idle += processorTime(t)
		}
	}
	res, err := guest.Boot(t.Context(), e, cfg)
	guest.Note(t, res, err)
	if err != nil || res.Status != 0 {
		t.Fatalf("%v\n%s", err, console(res))
	}
	for _, f := range []string{"register1", "register2", "register3"} {
		t.Logf("%s: %s", f, strings.TrimSpace(string(res.Files[f])))
	}
	for _, i := range []string{"1", "2", "3"} {
		for _, on := range []string{"0", "1"} {
			var r doorbellRun
			if err := json.Unmarshal(res.Files["run"+on+"-"+i], &r); err != nil {
				t.Fatalf("doorbell printed %q: %v", res.Files["run"+on+"-"+i], err)
			}
			t.Logf("shadow_doorbells=%s: alone %.0f jobs/s, %.2f doorbells a job; queued %.0f jobs/s, %.2f doorbells a job", on,
				r.Jobs/r.Alone.Seconds, r.Alone.Counters["doorbells"]/r.Jobs, r.Jobs/r.Queued.Seconds, r.Queued.Counters["doorbells"]/r.Jobs)
		}
	}
	t.Logf("indices taken from lines: %d with, %d without", shadows[1], shadows[0])
	if shadows[0] != 0 || shadows[1] < 3*2*1000 {
		t.Errorf("indices taken from lines: %d with shadow_doorbells=1, %d with 0; want at least one for each of 6000 jobs, and none", shadows[1], shadows[0])
	}
	// Text from the console and the runtime's own timers cost a little.
	if t.Logf("idle: %v of processor time in 10 s", idle); idle > 100*time.Millisecond {
		t.Errorf("idle: %v of processor time in 10 s, want 1 %% at most", idle)
	}
	if f := d.Findings(); len(f) != 0 {
		guest.Attr(t, guest.AttrCause, guest.CauseDevice)
		t.Errorf("our own driver makes mistakes: %+v", f)
	}
}

// processorTime is what this process, the device among it, has used.
func processorTime(t *testing.T) time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		t.Error(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
