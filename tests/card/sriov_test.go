// SPDX-License-Identifier: Apache-2.0

package card

import (
	"bytes"
	"strings"
	"testing"

	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

// TestSRIOV is what QEMU and Linux carry of SR-IOV (docs/limits.md): QEMU hides the capability, so Linux has no
// sriov_numvfs. A guest that writes the registers all the same makes a virtual function exist, which is then
// plugged in as a card of its own and does the main job.
func TestSRIOV(t *testing.T) {
	e := guest.Require(t)
	card := vdev.DefaultConfig()
	card.SRIOV.VFs = 2
	d, socket := devtest.Start(t, card)
	vf := d.Functions()[1]
	vfSocket := devtest.Serve(t, vf, vfiouser.Config{Admit: vf.Admit})
	absent := d.Functions()[2]
	absentSocket := devtest.Serve(t, absent, vfiouser.Config{Admit: absent.Admit})
	cfg := kit(t, e, e.Kernels()[0]).Config("", socket, common+`
pf=${dev##*/}
set="/usr/bin/setpci -s $pf"
/usr/bin/lspci -n -vv -s $pf >$RESULT/lspci || die lspci
ls $dev | grep sriov >$RESULT/attributes
(echo 1 >$dev/sriov_numvfs) 2>$RESULT/numvfs && die "sriov_numvfs took a value"
$set 1a0.w=1 198.w=9 || die setpci
$set 198.w 1a0.w >$RESULT/registers
echo "operator: plug 0"
for n in $(seq 300); do
	new=$(grep -l 0x10f0 /sys/bus/pci/devices/*/device | grep -v $pf)
	[ -n "$new" ] && break
	sleep 0.1
done
[ -n "$new" ] || die "the virtual function does not come"
new=${new%/device}
/usr/bin/lspci -n -vv -s ${new##*/} >$RESULT/vf || die lspci
echo none >$dev/driver_override
load
[ -e $dev/driver ] && die "the physical function has a driver"
digits `+Digits+` >$RESULT/digits.json || die "digits on the virtual function"
rmmod npu || die rmmod
$set 198.w=0 || die setpci
/usr/bin/setpci -s ${new##*/} 0.l >$RESULT/vanished
`)
	cfg.RootPort = true
	pciutils(&cfg)
	plugged := make(chan string, 2) // the operator's answers; a guest that never began is booted again
	operator(t, map[string]func(*qmp){
		"operator: plug 0": func(q *qmp) {
			// QEMU itself may abort when it is turned away (docs/limits.md).
			if c, err := vfiouser.Dial(absentSocket); err == nil {
				c.Close()
				t.Error("the socket of a function that does not exist takes a client")
			}
			plugged <- plug(q, "vf0", "spare0", vfSocket)
		},
	})(&cfg)
	// With room for what is plugged in later.
	cfg.ExtraArgs = append(cfg.ExtraArgs, "-device", "pcie-root-port,id=spare0,bus=pcie.0,chassis=90,mem-reserve=4M,pref64-reserve=64M")
	res, err := guest.Boot(t.Context(), e, cfg)
	guest.Note(t, res, err)
	if err != nil || res.Status != 0 {
		t.Fatalf("%v\n%s", err, console(res))
	}
	for _, name := range []string{"attributes", "numvfs", "registers", "vf", "vanished"} {
		t.Logf("%s:\n%s", name, res.Files[name])
	}
	if refusal := <-plugged; refusal != "" { // the guest waited for it
		t.Errorf("device_add of a function that exists: %s", refusal)
	}
	checkDigits(t, res.Files["digits.json"])
	if b := res.Files["lspci"]; bytes.Contains(b, []byte("SR-IOV")) || bytes.Contains(b, []byte("Alternative Routing")) {
		t.Errorf("QEMU shows SR-IOV or ARI: docs/limits.md says that it does not\n%s", b)
	}
	if b := res.Files["attributes"]; len(b) != 0 {
		t.Errorf("Linux has %s", b)
	}
	if got, want := strings.Fields(string(res.Files["registers"])), "0009 0001"; strings.Join(got, " ") != want {
		t.Errorf("SR-IOV control and NumVFs %v, want %s", got, want)
	}
	if got := strings.TrimSpace(string(res.Files["vanished"])); got != "ffffffff" {
		t.Errorf("a function that is gone reads %s", got)
	}
	if n := vf.Counter(npureg.CounterPrograms); n == 0 {
		t.Error("the virtual function did nothing")
	}
}
