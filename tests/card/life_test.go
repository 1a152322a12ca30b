// SPDX-License-Identifier: Apache-2.0

package card

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"npuemu/internal/uds"
	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

// inspect defines what scripts use to look at the driver from outside.
const inspect = `
mount -t debugfs debugfs /sys/kernel/debug
state() { cat /sys/kernel/debug/accel/*/$1; }
core() {
	for i in $(seq 50); do [ -e /sys/class/devcoredump/devcd*/data ] && break; sleep 0.1; done
	cat /sys/class/devcoredump/devcd*/data || die "no core dump"
	for d in /sys/class/devcoredump/devcd*/data; do echo 1 >$d; done
}
`

// checkDump expects a core dump that begins with what every one has, and says this.
func checkDump(t *testing.T, dump []byte, want ...string) {
	t.Helper()
	if len(dump) > 64<<10 || !strings.HasPrefix(string(dump), "npu core dump 1\nreason: ") {
		t.Errorf("core dump of %d bytes begins %.60q", len(dump), dump)
	}
	for _, w := range append(want, "\nkernel: ", "\narch: 1.", "\nfirmware: ", "\nregisters:\n", "\nqueues:\nqueue ") {
		if !strings.Contains(string(dump), w) {
			t.Errorf("the core dump does not say %q:\n%s", w, dump)
		}
	}
}

// A sleeper notes the card's power state whenever the guest says that it sleeps.
func sleeper(d *vdev.Device, states *[]string) func(*guest.Config) {
	return func(c *guest.Config) {
		c.OnLine = func(line string) {
			if strings.HasPrefix(line, "lifetest: asleep") {
				*states = append(*states, d.Status().PowerState)
			}
		}
	}
}

// TestSleep lets the idle function sleep in D3hot, on every kernel. What the driver says of itself is looked at in
// passing.
func TestSleep(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			d, socket := devtest.Start(t, vdev.DefaultConfig())
			var states []string
			res := bootCard(t, e, k, socket, inspect+`
load
lifetest sleep | tee $RESULT/sleep
state state >$RESULT/state || die debugfs
state queues >$RESULT/queues || die debugfs
state contexts >$RESULT/contexts || die debugfs
digits `+Digits+` >$RESULT/digits.json || die digits
rmmod npu || die rmmod
`, sleeper(d, &states), func(c *guest.Config) { c.Timeout = 4 * time.Minute })
			checkKTAP(t, res.Files["sleep"], 14)
			checkDigits(t, res.Files["digits.json"])
			if len(states) != 1 || states[0] != "D3hot" {
				t.Errorf("the card was in %q when the guest said that it sleeps", states)
			}
			if s := string(res.Files["state"]); !strings.Contains(s, "BOOT_STATUS      0x00000004") {
				t.Errorf("state in debugfs:\n%s", s)
			}
			for _, f := range d.Findings() {
				t.Errorf("finding %s ×%d: %s", f.ID, f.Count, f.Last)
			}
		})
	}
}

// TestRemoval takes the device from a program that uses it: its driver, then the function itself. While it is open
// the module stays.
func TestRemoval(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			_, socket := devtest.Start(t, vdev.DefaultConfig())
			res := bootCard(t, e, k, socket, `
work() {
	rm -f /working
	lifetest removed /working >$RESULT/$1 &
	for i in $(seq 300); do [ -e /working ] && return; sleep 0.1; done
	die "$1: no jobs"
}
load
bdf=${dev##*/}
for i in 1 2; do
	work unbind$i
	echo $bdf >/sys/bus/pci/drivers/npu/unbind || die unbind
	wait
	echo $bdf >/sys/bus/pci/drivers/npu/bind || die bind
done
work remove
rmmod npu && die "the module is unloaded under a program"
echo 1 >$dev/remove || die remove
wait
echo 1 >/sys/bus/pci/rescan || die rescan
for i in $(seq 50); do [ -e /dev/accel/accel0 ] && break; sleep 0.1; done
digits `+Digits+` >$RESULT/digits.json || die digits
rmmod npu || die rmmod
`, func(c *guest.Config) { c.RootPort = true })
			for _, name := range []string{"unbind1", "unbind2", "remove"} {
				checkKTAP(t, res.Files[name], 12)
			}
			checkDigits(t, res.Files["digits.json"])
		})
	}
}

// TestVanished ends the server under a program that uses the card: everything reads all-ones, and the driver
// finds out.
func TestVanished(t *testing.T) {
	e := guest.Require(t)
	d, _ := devtest.Start(t, vdev.DefaultConfig())
	dir, err := os.MkdirTemp("", "npu") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "npu.sock")
	ln, err := uds.Listen(socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, vanish := context.WithCancel(t.Context())
	defer vanish()
	go func() { _ = vfiouser.NewServer(vfiouser.Config{}, d).Serve(ctx, ln) }() // ctx's error
	res := bootCard(t, e, "", socket, inspect+`
load
echo 2000 >/sys/module/npu/parameters/job_timeout_ms
lifetest gone /working >$RESULT/gone &
for i in $(seq 300); do [ -e /working ] && break; sleep 0.1; done
echo "please vanish"
wait
dmesg | grep "device is gone" || die "the driver does not say so"
core >$RESULT/dump
rmmod npu || die rmmod
`, func(c *guest.Config) {
		c.OnLine = func(line string) {
			if strings.HasPrefix(line, "please vanish") {
				vanish()
			}
		}
	})
	checkKTAP(t, res.Files["gone"], 9)
	checkDump(t, res.Files["dump"], "  ID               0xffffffff\n")
}

// TestSurpriseRemoval pulls the card out under programs that use it, and puts it back (§9.4): once the driver has to
// find out by itself, once the function is taken away at once, as a hotplug driver would. QEMU and guest survive.
func TestSurpriseRemoval(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			d, socket := devtest.Start(t, vdev.DefaultConfig())
			do := func(f func() error) func(*qmp) {
				return func(*qmp) {
					if err := f(); err != nil {
						t.Error(err)
					}
				}
			}
			res := bootCard(t, e, k, socket, `
work() {
	rm -f /working
	lifetest $1 /working >$RESULT/$1 &
	for i in $(seq 300); do [ -e /working ] && return; sleep 0.1; done
	die "$1: no jobs"
}
load
echo 2000 >/sys/module/npu/parameters/job_timeout_ms
pull() {
	echo "operator: remove"
	for i in $(seq 100); do hexdump -s 8 -n 4 -e '1/4 "%x"' $dev/config | grep -q ffffffff && return; sleep 0.1; done
	die "the card is still there"
}
back() {
	echo "operator: insert"
	for i in $(seq 100); do
		[ -e /dev/accel/accel0 ] && break
		echo 1 >/sys/bus/pci/rescan
		sleep 0.1
	done
	digits `+Digits+` >$RESULT/$1.json || die "digits, $1"
}
stage gone
work gone
pull
wait
dmesg | grep "device is gone" || die "the driver does not say so"
echo 1 >$dev/remove || die remove
back digits1
stage removed
work removed
pull
echo 1 >$dev/remove || die remove
wait
back digits2
rmmod npu || die rmmod
`, operator(t, map[string]func(*qmp){"operator: remove": do(d.Remove), "operator: insert": do(d.Insert)}),
				func(c *guest.Config) { c.RootPort = true })
			checkKTAP(t, res.Files["gone"], 9)
			checkKTAP(t, res.Files["removed"], 12)
			checkDigits(t, res.Files["digits1.json"])
			checkDigits(t, res.Files["digits2.json"])
			for _, f := range d.Findings() {
				t.Logf("finding %s ×%d: %s", f.ID, f.Count, f.Last)
			}
		})
	}
}

// TestAER makes the guest's kernel believe in errors of the bus, while jobs run: after those that can be recovered
// from the card works. The kernel's aer_inject needs a root port, and that it is ioh3420.
func TestAER(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			d, socket := devtest.Start(t, vdev.DefaultConfig())
			res := bootCard(t, e, k, socket, `
load
modprobe aer_inject || die aer_inject
bdf=${dev##*/}
inject() {
	dmesg -c >/dev/null
	aerinject $bdf $1 $2 || die "aerinject: $?"
	for i in $(seq 100); do dmesg | grep -q "$3" && break; sleep 0.1; done
	dmesg | grep -q "$3" || die "$4: the kernel does not say: $3"
	devinfo | tr ',' '\n' | grep '"resets"' >$RESULT/resets-$4
	digits `+Digits+` >$RESULT/$4.json || die "digits after $4"
}
while [ ! -e /enough ]; do digits `+Digits+` >/dev/null 2>&1; done &
inject 0 1 "Correctable" correctable
inject 0x00100000 0 "device recovery successful" nonfatal
for i in 1 2; do
	sleep 0.$i
	inject 0x00040000 0 "device recovery successful" fatal$i
done
touch /enough; wait
rmmod npu || die rmmod
`, func(c *guest.Config) {
				c.RootPort = true
				c.Modules = append(c.Modules, "aer_inject")
			})
			for name, resets := range map[string]string{"correctable": "0", "nonfatal": "0", "fatal1": "1", "fatal2": "2"} {
				checkImages(t, res.Files[name+".json"])
				if got := strings.Trim(string(res.Files["resets-"+name]), "{}\n"); got != `"resets":`+resets {
					t.Errorf("%s: %q, want %s", name, got, resets)
				}
			}
			for _, f := range d.Findings() {
				t.Logf("finding %s ×%d: %s", f.ID, f.Count, f.Last)
			}
		})
	}
}

// TestShareIOMMU runs sharetest behind an IOMMU, which joins pages that are apart.
func TestShareIOMMU(t *testing.T) {
	e := guest.Require(t)
	res, d := boot(t, e, "", "load\nmodprobe vgem || die vgem\nsharetest -i >$RESULT/share; echo status $?; rmmod npu || die rmmod\n",
		func(c *guest.Config) {
			c.ExtraArgs = append(c.ExtraArgs, "-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on")
			c.Append += " intel_iommu=on"
			c.Modules = append(c.Modules, "vgem")
		})
	checkKTAP(t, res.Files["share"], 95)
	for _, f := range d.Findings() {
		if f.ID != "command-ABORTED" { // of a queue that is destroyed with jobs in it
			t.Errorf("finding %s ×%d: %s", f.ID, f.Count, f.Last)
		}
	}
}
