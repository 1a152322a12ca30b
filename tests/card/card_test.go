// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/tests/guest/ktap"
	"npuemu/vdev"
)

// common defines what scripts use: the device's directory, loading, and a way
// to fail with a reason.
const common = `
die() { echo "FAILED: $*"; dmesg | tail -30; exit 1; }
dev=$(grep -l 0x10f0 /sys/bus/pci/devices/*/device); dev=${dev%/device}
load() {
	modprobe npu || die "modprobe npu: $?"
	for i in $(seq 50); do [ -e /dev/accel/accel0 ] && return; sleep 0.1; done
	die "no /dev/accel/accel0"
}
`

// kits caches what Build made, by kernel: tests of one run share it.
var kits = map[string]*Kit{}

func kit(t *testing.T, e *guest.Env, kernel string) *Kit {
	t.Helper()
	if kernel == "" {
		kernel = e.Kernels()[0]
	}
	if k := kits[kernel]; k != nil {
		return k
	}
	dir, err := os.MkdirTemp("", "npu-card-")
	if err != nil {
		t.Fatal(err)
	}
	cleanups = append(cleanups, func() { os.RemoveAll(dir) })
	k, err := Build(t.Context(), e, kernel, "../..", dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(k.Warnings) != 0 {
		t.Errorf("driver for %s: W=1 warns:\n%s", kernel, strings.Join(k.Warnings, "\n"))
	}
	kits[kernel] = k
	return k
}

var cleanups []func()

func TestMain(m *testing.M) {
	code := m.Run()
	for _, f := range cleanups {
		f()
	}
	os.Exit(code)
}

// boot runs script in a guest with one card and expects status 0.
func boot(t *testing.T, e *guest.Env, kernel, script string, change ...func(*guest.Config)) (*guest.Result, *vdev.Device) {
	t.Helper()
	return bootWith(t, e, vdev.DefaultConfig(), kernel, script, change...)
}

// bootWith is boot with a card of this configuration.
func bootWith(t *testing.T, e *guest.Env, card vdev.Config, kernel, script string, change ...func(*guest.Config)) (*guest.Result, *vdev.Device) {
	t.Helper()
	d, socket := devtest.Start(t, card)
	return bootCard(t, e, kernel, socket, script, change...), d
}

// bootCard is boot with the card on this socket.
func bootCard(t *testing.T, e *guest.Env, kernel, socket, script string, change ...func(*guest.Config)) *guest.Result {
	t.Helper()
	cfg := kit(t, e, kernel).Config(kernel, socket, common+script)
	for _, f := range change {
		f(&cfg)
	}
	res, err := guest.Boot(t.Context(), e, cfg)
	guest.Note(t, res, err)
	if err != nil {
		t.Fatalf("%v\n%s", err, console(res))
	}
	if res.Status != 0 {
		t.Fatalf("status %d\n%s", res.Status, console(res))
	}
	checkKernelLog(t, res)
	return res
}

// checkKernelLog expects that the kernel found nothing wrong with itself.
func checkKernelLog(t *testing.T, res *guest.Result) {
	t.Helper()
	for _, bad := range []string{"BUG:", "WARNING:", "Oops", "Call Trace", "refcount_t"} {
		if strings.Contains(res.Console, bad) {
			guest.Attr(t, guest.AttrCause, guest.CauseCrash)
			t.Errorf("the kernel complains (%s)\n%s", bad, console(res))
		}
	}
}

func console(res *guest.Result) string {
	if res == nil {
		return ""
	}
	return res.Console
}

// digitsResult is the part of the digits program's report that tests read.
type digitsResult struct {
	Images     int
	Correct    int
	Mismatched int `json:"mismatched_bytes"`
	Counters   map[string]uint64
	OK         bool
}

func checkDigits(t *testing.T, b []byte) {
	t.Helper()
	d := checkImages(t, b)
	if got, want := d.Counters["macs"], uint64(d.Images)*25600; got != want {
		t.Errorf("the device counted %d MACs, want %d", got, want)
	}
}

// checkImages is checkDigits where other programs use the device too, which counts what they do.
func checkImages(t *testing.T, b []byte) digitsResult {
	t.Helper()
	var d digitsResult
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatalf("digits printed %q: %v", b, err)
	}
	if d.Images != 364 || d.Correct < 350 || d.Mismatched != 0 || !d.OK {
		t.Errorf("digits: %+v, want 364 images, at least 350 correct, no byte different", d)
	}
	return d
}

// TestDigits is the main job, on every kernel.
func TestDigits(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			res, d := boot(t, e, k, "load\ndigits "+Digits+" >$RESULT/digits.json || die digits: $?\nrmmod npu || die rmmod\n")
			checkDigits(t, res.Files["digits.json"])
			if f := d.Findings(); len(f) != 0 {
				guest.Attr(t, guest.AttrCause, guest.CauseDevice)
				t.Errorf("our own driver makes mistakes: %+v", f)
			}
		})
	}
}

// TestReload loads and unloads the driver, unbinds and binds it, and resets the
// function while it is idle, with the driver bound and with a file open.
func TestReload(t *testing.T) {
	e := guest.Require(t)
	res, _ := boot(t, e, "", `
for i in 1 2 3; do
	load
	digits `+Digits+` >/dev/null || die "digits, load $i"
	rmmod npu || die "rmmod $i"
	[ -e /dev/accel/accel0 ] && die "node left behind"
done
load
bdf=${dev##*/}
echo $bdf >/sys/bus/pci/drivers/npu/unbind || die unbind
echo $bdf >/sys/bus/pci/drivers/npu/bind || die bind
digits `+Digits+` >/dev/null || die "digits after bind"
for i in 1 2 3; do
	echo 1 >$dev/reset || die "FLR $i"
	digits `+Digits+` >$RESULT/after-flr.json || die "digits after FLR $i"
done
rmmod npu || die rmmod
`)
	checkDigits(t, res.Files["after-flr.json"])
}

// TestUAPI runs the guest's own test program of the driver interface.
func TestUAPI(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			res, _ := boot(t, e, k, inspect+"load\nuapitest -r -t >$RESULT/ktap; echo status $?\ncore >$RESULT/dump\nmodprobe vgem || die vgem\nsharetest >$RESULT/share; echo status $?; rmmod npu || die rmmod\n",
				func(c *guest.Config) { c.Timeout, c.Modules = 4*time.Minute, append(c.Modules, "vgem") })
			checkKTAP(t, res.Files["ktap"], 180)
			checkKTAP(t, res.Files["share"], 90)
			checkDump(t, res.Files["dump"], "BOOT_STATUS      0x00000004\n", ": 0 of 1 commands done", "    command 0: opcode 0x02, 02")
		})
	}
}

// TestJudge runs random programs and wrong ones against models and rules that
// were written from docs/spec and the uAPI header alone.
func TestJudge(t *testing.T) {
	e := guest.Require(t)
	res, _ := boot(t, e, "", "load\njudge >$RESULT/ktap; echo status $?; rmmod npu || die rmmod\n")
	checkKTAP(t, res.Files["ktap"], 45)
}

// checkKTAP expects no failure and at least so many rows.
func checkKTAP(t *testing.T, text []byte, want int) {
	t.Helper()
	guest.SaveKTAP(t, text)
	tests, problems := ktap.Parse(string(text))
	for _, p := range problems {
		t.Errorf("results: %s", p)
	}
	passed := 0
	ktap.Leaves(tests, func(path string, r *ktap.Test) {
		switch r.Verdict() {
		case ktap.Passed:
			passed++
		case ktap.Failed:
			t.Errorf("%s\n%s", path, strings.Join(r.Diagnostics, "\n"))
		case ktap.Skipped, ktap.Known:
			t.Logf("%s: %s %s", path, r.Directive, r.Reason)
		}
	})
	if passed < want {
		t.Errorf("%d rows passed, want at least %d\n%s", passed, want, text)
	}
}

// TestCorruptFirmware gives the driver images that the boot ROM refuses: the
// reason is in dmesg, and a good image works afterwards.
func TestCorruptFirmware(t *testing.T) {
	e := guest.Require(t)
	good := firmware.Image()
	dir := t.TempDir()
	files := map[string]string{}
	script := "mkdir -p /keep; cp " + FirmwarePath + " /keep/good\n"
	for _, tt := range []struct {
		name, want string
		image      []byte
	}{
		{"magic", "MAGIC", flip(good, 0)},
		{"header", "HEADER_CRC", flip(good, 0x20)},
		{"payload", "PAYLOAD_CRC", flip(good, len(good)-1)},
		{"short", "SIZE", good[:len(good)-4]},
		{"tiny", "has 32 bytes", good[:32]},
	} {
		path := filepath.Join(dir, tt.name)
		if err := os.WriteFile(path, tt.image, 0o644); err != nil {
			t.Fatal(err)
		}
		files["/keep/"+tt.name] = path
		script += `
cp /keep/` + tt.name + ` ` + FirmwarePath + `
dmesg -c >/dev/null
modprobe npu
[ -e /dev/accel/accel0 ] && die "` + tt.name + ` was accepted"
dmesg >$RESULT/` + tt.name + `
grep -q "` + tt.want + `" $RESULT/` + tt.name + ` || die "dmesg does not say ` + tt.want + `"
rmmod npu
`
	}
	script += `
rm ` + FirmwarePath + `
dmesg -c >/dev/null
modprobe npu
[ -e /dev/accel/accel0 ] && die "probed without firmware"
dmesg | grep -q npufw-1.bin || die "dmesg does not name the missing file"
rmmod npu
cp /keep/good ` + FirmwarePath + `
load
digits ` + Digits + ` >$RESULT/digits.json || die "digits with good firmware"
`
	res, _ := boot(t, e, "", script, func(c *guest.Config) { maps.Copy(c.Files, files) })
	checkDigits(t, res.Files["digits.json"])
}

func flip(b []byte, off int) []byte {
	b = bytes.Clone(b)
	b[off] ^= 0x40
	return b
}

// TestKilledQEMU kills QEMU in the middle of inference: nothing is left behind,
// and the next machine is served.
func TestKilledQEMU(t *testing.T) {
	e := guest.Require(t)
	d, socket := devtest.Start(t, vdev.DefaultConfig())
	k := kit(t, e, e.Kernels()[0])
	idle := resources(t)
	ctx, kill := context.WithCancel(t.Context())
	defer kill()
	cfg := k.Config("", socket, common+"load\necho inference begins\nwhile digits "+Digits+" >/dev/null; do :; done\n")
	cfg.OnLine = func(line string) {
		if strings.Contains(line, "inference begins") {
			go func() {
				for d.Counter(npureg.CounterPrograms) == 0 && ctx.Err() == nil {
					time.Sleep(time.Millisecond)
				}
				kill()
			}()
		}
	}
	res, err := guest.Boot(ctx, e, cfg)
	if err == nil || ctx.Err() == nil || t.Context().Err() != nil {
		t.Fatalf("QEMU was not killed: %v\n%s", err, console(res))
	}
	if d.Counter(npureg.CounterPrograms) == 0 {
		t.Fatal("no program ran before the kill")
	}
	var after map[string]int
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if after = resources(t); cmp.Equal(idle, after) {
			break
		}
	}
	if diff := cmp.Diff(idle, after); diff != "" {
		t.Errorf("left by the killed QEMU (-before +after):\n%s", diff)
	}
	res, err = guest.Boot(t.Context(), e, k.Config("", socket, common+"load\ndigits "+Digits+" >$RESULT/digits.json || die digits\n"))
	guest.Note(t, res, err)
	if err != nil || res.Status != 0 {
		t.Fatalf("next machine: %v\n%s", err, console(res))
	}
	checkDigits(t, res.Files["digits.json"])
}

// resources counts descriptors and memfd mappings of this process.
func resources(t *testing.T) map[string]int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	m, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]int{"descriptors": len(fds), "memfd mappings": strings.Count(string(m), "/memfd:")}
}
