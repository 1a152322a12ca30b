// SPDX-License-Identifier: Apache-2.0

package card

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/vdev"
)

// TestSystemSleep has the whole guest sleep under a program that has jobs on the card all the time: to idle, from which the
// power button wakes it, twice, and in S3, from which the monitor does; once, as the machine takes no second one. The program
// notices nothing.
func TestSystemSleep(t *testing.T) {
	e := guest.Require(t)
	for _, tt := range []struct {
		name, sleep string
		rounds      int
		kernel      int // index of the environment's
		wake        func(q *qmp, awake *atomic.Bool)
	}{
		{"idle", "s2idle", 2, 0, pressButton},
		{"S3", "deep", 1, 1, wakeUp},
	} {
		kernel := e.Kernels()[tt.kernel]
		t.Run(tt.name+"/"+kernel, func(t *testing.T) {
			d, socket := devtest.Start(t, vdev.DefaultConfig())
			var awake atomic.Bool
			res := bootCard(t, e, kernel, socket, `
load
modprobe button
echo `+tt.sleep+` >/sys/power/mem_sleep || die "no such sleep"
(
	n=0
	until [ -e /enough ]; do
		digits `+Digits+` >/digits.json # its word is not asked for: the card counts from 0 when it wakes
		grep -q '"correct":360,.*"mismatched_bytes":0,' /digits.json || { cp /digits.json $RESULT/wrong; break; }
		n=$((n + 1))
	done
	echo $n >$RESULT/rounds
) &
sleep 1
# A virtio port that slept takes no more writes, with and without a card: it is taken out of the machine's sleep.
port=$(basename /sys/bus/virtio/drivers/virtio_console/virtio*)
for i in $(seq `+strconv.Itoa(tt.rounds)+`); do
	echo $port >/sys/bus/virtio/drivers/virtio_console/unbind || die "unbind $port"
	echo "operator: good night"
	echo mem >/sys/power/state || die "sleep $i"
	echo "awake again"
	echo $port >/sys/bus/virtio/drivers/virtio_console/bind || die "bind $port"
	digits `+Digits+` >/dev/null || die "digits after sleep $i"
done
touch /enough
wait
dmesg | grep 'PM: suspend' >$RESULT/sleeps
digits `+Digits+` >$RESULT/digits.json || die digits
rmmod npu || die rmmod
`, operator(t, map[string]func(*qmp){
				"operator: good night":    func(q *qmp) { tt.wake(q, &awake) },
				"operator: pull the plug": func(q *qmp) { _, _ = q.try("quit", nil) }, // it may have gone by itself
			}), func(c *guest.Config) {
				c.Modules = append(c.Modules, "button")
				c.Packed = true
				c.Append += " no_console_suspend"
				operator := c.OnLine
				c.OnLine = func(line string) {
					switch {
					case strings.HasPrefix(line, "operator: good night"):
						awake.Store(false)
					case strings.HasPrefix(line, "awake again"):
						awake.Store(true)
					case strings.HasSuffix(line, "reboot: Power down"):
						line = "operator: pull the plug" // after S3 this machine does not hear it, with and without a card
					}
					operator(line)
				}
			})
			if s := res.Files["wrong"]; s != nil {
				t.Errorf("digits beside the sleep: %s", s)
			}
			if n := strings.TrimSpace(string(res.Files["rounds"])); n == "" || n == "0" {
				t.Errorf("%q rounds of digits beside the sleep", n)
			}
			if s := string(res.Files["sleeps"]); strings.Count(s, "suspend entry ("+tt.sleep+")") != tt.rounds || strings.Count(s, "suspend exit") != tt.rounds {
				t.Errorf("the kernel says of its sleep:\n%s", s)
			}
			checkDigits(t, res.Files["digits.json"])
			for _, f := range d.Findings() {
				t.Errorf("finding %s ×%d: %s", f.ID, f.Count, f.Last)
			}
		})
	}
}

// pressButton presses the power button until the guest is awake. A guest that is not asleep yet takes no notice of it.
func pressButton(q *qmp, awake *atomic.Bool) {
	for range 20 {
		time.Sleep(3 * time.Second)
		if awake.Load() {
			return
		}
		q.do("system_powerdown", nil)
	}
}

// wakeUp wakes a guest that has gone to S3.
func wakeUp(q *qmp, awake *atomic.Bool) {
	for range 600 {
		time.Sleep(100 * time.Millisecond)
		status, refusal := q.try("query-status", nil)
		if refusal != "" {
			q.t.Errorf("QMP: %s", refusal)
			return
		}
		if status["status"] == "suspended" {
			q.do("system_wakeup", nil)
			return
		}
	}
	q.t.Error("the guest did not go to S3")
}
