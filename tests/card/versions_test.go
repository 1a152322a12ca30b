// SPDX-License-Identifier: Apache-2.0

package card

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npuemu/firmware"
	"npuemu/firmware/image"
	"npuemu/tests/guest"
	"npuemu/vdev"
)

// healthless says what scripts see of a driver that finds nothing of §12.
const healthless = `
	state telemetry >/dev/null 2>&1 && die "telemetry in debugfs"
	ls $dev/hwmon >/dev/null 2>&1 && die "hwmon"
`

// TestArchitectures gives the driver cards of older architectures: it does with what they have.
func TestArchitectures(t *testing.T) {
	e := guest.Require(t)
	arches := vdev.Arches()[1:]
	var turns []turn
	for _, arch := range arches {
		card := vdev.DefaultConfig()
		card.Arch = arch
		health := healthless
		if arch >= "1.2" {
			health = "state telemetry >/dev/null || die telemetry\n"
		}
		turns = append(turns, turn{arch, card, `
load
` + health + `
state state >$RESULT/state
digits ` + Digits + ` >$RESULT/digits.json || die digits
uapitest -t >$RESULT/ktap; echo status $?
rmmod npu || die rmmod
`})
	}
	bootTurns(t, e, "", turns, func(t *testing.T, i int, res *guest.Result, d *vdev.Device) {
		checkDigits(t, res.Files["digits.json"])
		checkKTAP(t, res.Files["ktap"], 170)
		if s := string(res.Files["state"]); !strings.HasPrefix(s, "arch: "+arches[i]+"\n") {
			t.Errorf("state in debugfs:\n%s", s)
		}
		for _, f := range d.Findings() {
			if strings.HasPrefix(f.ID, "register") || strings.HasPrefix(f.ID, "fault") {
				t.Errorf("finding %s ×%d: %s", f.ID, f.Count, f.Last)
			}
		}
	}, func(c *guest.Config) {
		c.Script = inspect + c.Script
		c.Timeout = 8 * time.Minute
	})
}

// firmwareThatSays builds the tree's firmware, which then says that it has this interface.
func firmwareThatSays(t *testing.T, e *guest.Env, major, minor int) []byte {
	t.Helper()
	src, out := t.TempDir(), t.TempDir()
	if err := os.CopyFS(src, os.DirFS("../../firmware/src")); err != nil {
		t.Fatal(err)
	}
	flags := fmt.Sprintf("FW_CFLAGS=-DFW_BUILD_MAJOR=9 -DFW_BUILD_MINOR=%d -DFW_BUILD_PATCH=%d", major, minor)
	sed := fmt.Sprintf(`s/^(#define FW_INTERFACE).*/\1 (%d << 16 | %d)/`, major, minor)
	if said, err := e.Build(t.Context(), src, out, "sh", "-c", `sed -E -i "$0" fw/fw.h && make -s payloads "$1"`, sed, flags); err != nil {
		t.Fatalf("%v\n%s", err, said)
	}
	payload, err := os.ReadFile(filepath.Join(out, "build/payload.bin"))
	if err != nil {
		t.Fatal(err)
	}
	h, _, err := image.Parse(firmware.Image())
	if err != nil {
		t.Fatal(err)
	}
	b, err := image.New(h, payload)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// header returns the tree's image with another 16-bit value at off of its header.
func header(off int, v byte) []byte {
	b := append([]byte(nil), firmware.Image()...)
	b[off], b[off+1] = v, 0
	image.Seal(b)
	return b
}

// TestFirmwareVersions gives the driver firmware of other interface versions: another major is refused with the reason,
// with another minor it works, and with an older one it does not ask for what that did not have.
func TestFirmwareVersions(t *testing.T) {
	e := guest.Require(t)
	dir := t.TempDir()
	files := map[string]string{}
	script := inspect + "cp " + FirmwarePath + " /good\n"
	row := func(name, want string, image []byte, rest string) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, image, 0o644); err != nil {
			t.Fatal(err)
		}
		files["/"+name] = path
		script += fmt.Sprintf(`
stage %[1]s
cp /%[1]s %[2]s
dmesg -c >/dev/null
modprobe npu
for i in $(seq 20); do dmesg | grep -q "%[3]s" && break; sleep 0.1; done
dmesg | grep "%[3]s" || die "%[1]s: dmesg does not say: %[3]s"
%[4]s
rmmod npu || die "%[1]s: rmmod"
`, name, FirmwarePath, want, rest)
	}
	const refused = `[ -e /dev/accel/accel0 ] && die "it was accepted"`
	const works = "digits " + Digits + " >/dev/null || die digits\n"
	row("identify-2.0", "firmware interface is 2.0, needed is 1.x; remedy: ", firmwareThatSays(t, e, 2, 0), refused)
	row("header-2.0", "error INTERFACE", header(0x1c, 2), refused)
	row("arch-2.0", "error ARCH", header(0x24, 2), refused)
	row("arch-1.9", "error ARCH", header(0x26, 9), refused)
	row("identify-1.0", "firmware interface 1.0, build 9.1.0", firmwareThatSays(t, e, 1, 0), works+healthless)
	row("identify-1.1", "firmware interface 1.1, build 9.1.1", firmwareThatSays(t, e, 1, 1), works+healthless)
	row("identify-1.9", "firmware interface 1.9, build 9.1.9", firmwareThatSays(t, e, 1, 9), works+"state telemetry >/dev/null || die telemetry\n")
	row("good", "build 0.3.0", firmware.Image(), works)
	res, d := boot(t, e, "", script, func(c *guest.Config) { maps.Copy(c.Files, files) })
	for _, f := range d.Findings() {
		t.Logf("finding %s ×%d: %s", f.ID, f.Count, f.Last)
	}
	t.Logf("stages %v", res.Stages)
}
