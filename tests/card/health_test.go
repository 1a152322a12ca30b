// SPDX-License-Identifier: Apache-2.0

package card

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/tests/virtiotest"
	"npuemu/vdev"
	"npuemu/vdev/vhostuser"
)

// sicken returns what an operator does at healthtest's lines to the card.
func sicken(t *testing.T, d *vdev.Device) map[string]func(*qmp) {
	do := func(f func() error) func(*qmp) {
		return func(*qmp) {
			if err := f(); err != nil {
				t.Error(err)
			}
		}
	}
	shows := func(celsius float64) func(*qmp) {
		return do(func() error { return d.SetThermal(nil, &celsius, false) })
	}
	return map[string]func(*qmp){
		"operator: hot":         shows(96),
		"operator: critical":    shows(106),
		"operator: cool":        do(func() error { return d.SetThermal(nil, nil, true) }),
		"operator: corrected":   do(func() error { return d.InjectMemoryError("corrected", "dram", 32<<20) }),
		"operator: uncorrected": do(func() error { return d.InjectMemoryError("uncorrected", "dram", 32<<20) }),
		"operator: trap":        do(func() error { return d.CrashFirmware("trap") }),
		"operator: hang":        do(func() error { return d.CrashFirmware("hang") }),
	}
}

// healthScript runs healthtest, whose arguments are added, and keeps what else is to be seen: the kernel's log, the files
// in debugfs, a core dump for each of so many crashes.
const healthScript = inspect + `
load
(
	i=0
	while [ $i -lt CRASHES ]; do
		for d in /sys/class/devcoredump/devcd*/data; do
			[ -e $d ] || continue
			cat $d >$RESULT/dump$i
			echo 1 >$d
			i=$((i + 1))
		done
		sleep 0.2
	done
) &
healthtest ARGS | tee $RESULT/health
wait
for f in telemetry errors firmware_log; do state $f >$RESULT/$f || die "debugfs: $f"; done
dmesg | grep npu >$RESULT/dmesg
digits ` + Digits + ` >$RESULT/digits.json || die digits
rmmod npu || die rmmod
`

// healthScriptOf is healthScript with these arguments and so many crashes.
func healthScriptOf(args string, crashes int) string {
	return strings.NewReplacer("ARGS", args, "CRASHES", strconv.Itoa(crashes)).Replace(healthScript)
}

// checkHealth looks at what healthScript left of these crashes.
func checkHealth(t *testing.T, res *guest.Result, crashes ...string) {
	t.Helper()
	checkDigits(t, res.Files["digits.json"])
	log := string(res.Files["dmesg"])
	wants := []string{
		"memory error in the device memory at 0x2000000, corrected",
		"memory error in the device memory at 0x2000000, not corrected",
		"read the device memory at 0x2000000, where a memory error was",
		"too hot, 96000 m°C: throttled, level 2 of 3",
		"too hot, 106000 m°C: throttled, level 3 of 3",
		"no longer throttled",
		"firmware: thermal: level ",
	}
	times := map[string]int{}
	for _, crash := range crashes {
		name, _, _ := strings.Cut(crash, " ")
		if times["error "+name]++; times["error "+name] == 1 {
			wants = append(wants, "error "+name)
		}
	}
	for _, want := range wants {
		if n := strings.Count(log, want); n != max(times[want], 1) && !strings.Contains(want, "throttled") && !strings.HasPrefix(want, "firmware:") || n == 0 {
			t.Errorf("the kernel's log says %q %d times\n%s", want, n, log)
		}
	}
	for i, name := range crashes {
		checkDump(t, res.Files["dump"+string(rune('0'+i))], "\nfirmware crash: number ", ", error "+name, "\n  mepc     0x", "\nfirmware log:\n  [",
			"\ncrash dump: ", "\n  0000 4e50554301000000")
	}
	if s := string(res.Files["telemetry"]); !strings.Contains(s, "\ntemperature m°C: ") {
		t.Errorf("telemetry in debugfs:\n%s", s)
	}
	if s := string(res.Files["errors"]); !strings.Contains(s, "POISON, device memory, address 0x2000000, detail 21, queue ") ||
		!strings.Contains(s, "FIRMWARE, control processor") {
		t.Errorf("errors in debugfs:\n%s", s)
	}
	if s := string(res.Files["firmware_log"]); !strings.Contains(s, "] <6> ") {
		t.Errorf("firmware_log in debugfs:\n%s", s)
	}
}

// TestHealth makes the card sick under the driver, on every kernel: heat, memory errors, firmware that crashes.
func TestHealth(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			d, socket := devtest.Start(t, vdev.DefaultConfig())
			res := bootCard(t, e, k, socket, healthScriptOf("-p", 3), operator(t, sicken(t, d)),
				func(c *guest.Config) { c.Timeout = 4 * time.Minute })
			checkKTAP(t, res.Files["health"], 57)
			checkHealth(t, res, "TRAP (11)", "WATCHDOG (12)", "TRAP (11)")
			for _, f := range d.Findings() {
				t.Logf("finding %s ×%d: %s", f.ID, f.Count, f.Last)
			}
		})
	}
}

// TestVirtioHealth is TestHealth over virtio, where hardware has no crash dump for the driver: it asks the firmware of after.
// Firmware that dies under a command may need two resets there (docs/limits.md), and is left out.
func TestVirtioHealth(t *testing.T) {
	e := guest.Require(t)
	d, v := paravirt(t, vdev.DefaultConfig())
	args := monitor{queueSize: 256}.args(virtiotest.Serve(t, vhostuser.Config{NoMemSlots: true}, v), v.Queues(), alone)
	res := bootQEMU(t, e, args, "", healthScriptOf("", 3), operator(t, sicken(t, d)),
		func(c *guest.Config) { c.Timeout = 4 * time.Minute })
	checkKTAP(t, res.Files["health"], 52)
	checkHealth(t, res, "TRAP (11)", "WATCHDOG (12)", "TRAP (11)")
}
