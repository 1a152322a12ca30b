// SPDX-License-Identifier: Apache-2.0

package card

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/vdev"
)

// An interruptCard is a card that offers less than the default (§1.4).
type interruptCard struct {
	name   string
	config func(*vdev.Config)
	modes  string // of the interrupts in msi_irqs
	bar4   bool
}

// TestInterrupts is the main job on cards that offer less than the default (§1.4),
// on every kernel: the driver falls back, and loses no interrupt. A job whose interrupt
// is lost ends by its timeout of 30 s. The cards of a group are in one guest, and the driver
// is bound to one after the other.
func TestInterrupts(t *testing.T) {
	e := guest.Require(t)
	remapping := func(c *guest.Config) { // without it x86 gives out one message of MSI
		c.ExtraArgs = append(c.ExtraArgs, "-device", "intel-iommu,intremap=on,caching-mode=on,device-iotlb=on")
		c.Append += " intel_iommu=on"
	}
	msi := func(c *vdev.Config) { c.PCI.MSIX = false }
	for _, group := range []struct {
		name   string
		change []func(*guest.Config)
		cards  []interruptCard
	}{
		{"plain", nil, []interruptCard{
			{"MSI", msi, "1 msi", false},
			{"INTx", func(c *vdev.Config) { c.PCI = vdev.PCIConfig{} }, "", false},
			{"INTx, posted writes", func(c *vdev.Config) { c.PCI = vdev.PCIConfig{}; c.Memory.Window = false }, "", false},
			{"MSI-X without MSI", func(c *vdev.Config) { c.PCI.MSI = false }, "16 msix", true},
		}},
		{"remapped", []func(*guest.Config){remapping}, []interruptCard{{"MSI, many messages", msi, "16 msi", false}}},
	} {
		for _, k := range e.Kernels() {
			t.Run(group.name+"/"+k, func(t *testing.T) { testInterrupts(t, e, k, group.cards, group.change...) })
		}
	}
}

func testInterrupts(t *testing.T, e *guest.Env, kernel string, cards []interruptCard, change ...func(*guest.Config)) {
	var sockets []string
	var devices []*vdev.Device
	for _, c := range cards {
		cfg := vdev.DefaultConfig()
		c.config(&cfg)
		d, socket := devtest.Start(t, cfg)
		sockets, devices = append(sockets, socket), append(devices, d)
	}
	cfg := kit(t, e, kernel).Config(kernel, "", common+`
echo 0 >/sys/bus/pci/drivers_autoprobe
bind() {
	modprobe npu || die "modprobe npu: $?"
	echo ${dev##*/} >/sys/bus/pci/drivers/npu/bind || die "bind ${dev##*/}"
	for i in $(seq 50); do [ -e /dev/accel/accel0 ] && return; sleep 0.1; done
	die "no /dev/accel/accel0"
}
n=0
for dev in $(grep -l 0x10f0 /sys/bus/pci/devices/*/device); do
	dev=${dev%/device}
	r=$RESULT/$n
	mkdir $r
	bind
	stage jobs $n
	cat $dev/msi_irqs/* 2>/dev/null | sort | uniq -c >$r/modes
	sed -n 5p $dev/resource >$r/bar4
	grep npu- /proc/interrupts >$r/lines || die "no interrupt of the driver"
	digits `+Digits+` >$r/digits.json || die digits: $?
	echo 1 >$dev/reset || die FLR
	digits `+Digits+` >$r/after-flr.json || die digits after FLR: $?
	grep npu- /proc/interrupts >$r/lines || die "no interrupt of the driver"
	stage other $n
	rmmod npu || die rmmod
	[ -e $dev/msi_irqs ] && die "vectors left behind"
	dmesg | grep -q "nobody cared" && die "interrupts that nobody handled"
	bind
	digits `+Digits+` >/dev/null || die digits after load: $?
	rmmod npu || die rmmod
	n=$((n + 1))
done
`)
	cfg.Sockets = sockets
	for _, f := range change {
		f(&cfg)
	}
	res, err := guest.Boot(t.Context(), e, cfg)
	guest.Note(t, res, err)
	if err != nil || res.Status != 0 {
		t.Fatalf("status %d, %v\n%s", res.Status, err, console(res))
	}
	checkKernelLog(t, res)
	for i, c := range cards {
		t.Run(c.name, func(t *testing.T) {
			guest.Note(t, res, nil)
			file := func(name string) []byte { return res.Files[fmt.Sprintf("%d/%s", i, name)] }
			checkDigits(t, file("digits.json"))
			checkDigits(t, file("after-flr.json"))
			if got := strings.Join(strings.Fields(string(file("modes"))), " "); got != c.modes {
				t.Errorf("msi_irqs: %q, want %q", got, c.modes)
			}
			lines := string(file("lines"))
			if intx := strings.Contains(lines, "IO-APIC"); intx != (c.modes == "") {
				t.Errorf("want INTx %t:\n%s", c.modes == "", lines)
			}
			if absent := strings.HasPrefix(string(file("bar4")), "0x0000000000000000 0x0000000000000000"); absent == c.bar4 {
				t.Errorf("BAR4 %s, want it there: %t", file("bar4"), c.bar4)
			}
			if f := devices[i].Findings(); len(f) != 0 {
				guest.Attr(t, guest.AttrCause, guest.CauseDevice)
				t.Errorf("our own driver makes mistakes: %+v", f)
			}
			for _, s := range res.Stages {
				if s.Name == fmt.Sprintf("jobs %d", i) && s.Duration > 30*time.Second {
					t.Errorf("the jobs took %v: an interrupt is lost\n%s", s.Duration, lines)
				}
			}
		})
	}
}
