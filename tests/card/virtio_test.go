// SPDX-License-Identifier: Apache-2.0

package card

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/tests/virtiotest"
	"npuemu/vdev"
	"npuemu/vdev/vhostuser"
)

// A monitor is QEMU's vhost-user-test-device-pci as it is put before a card.
type monitor struct {
	queues     int // virtqueues, those of the card if 0
	queueSize  int // 64 if 0, as in QEMU
	configSize int // vdev.VirtioConfigSize if 0, none if negative
}

// alone is where a virtio device goes: behind the result channel, whose port must be the
// first.
const alone = "bus=pcie.0,addr=1f.5"

// args returns QEMU's arguments for a device, whose card has so many virtqueues.
func (m monitor) args(socket string, queues int, place string) []string {
	id := filepath.Base(filepath.Dir(socket)) // unlike the socket's own name it is unique
	return []string{"-chardev", "socket,id=" + id + ",path=" + socket, "-device",
		fmt.Sprintf("vhost-user-test-device-pci,chardev=%s,virtio-id=%d,num_vqs=%d,vq_size=%d,config_size=%d,%s",
			id, vdev.VirtioIDInQEMU, cmp.Or(m.queues, queues), cmp.Or(m.queueSize, 64), max(cmp.Or(m.configSize, vdev.VirtioConfigSize), 0), place)}
}

// paravirt is a card as a virtio device (docs/spec/virtio-npu.md).
func paravirt(t *testing.T, cfg vdev.Config) (*vdev.Device, *vdev.Paravirt) {
	t.Helper()
	d, err := vdev.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	v := vdev.NewParavirt(d)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for _, run := range []func(context.Context){d.Run, v.Run} {
		wg.Add(1)
		go func() { defer wg.Done(); run(ctx) }()
	}
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, v
}

// bootVirtio is bootWith for the card as a virtio device.
func bootVirtio(t *testing.T, e *guest.Env, card vdev.Config, m monitor, kernel, script string, change ...func(*guest.Config)) (*guest.Result, *vdev.Device) {
	t.Helper()
	d, v := paravirt(t, card)
	args := m.args(virtiotest.Serve(t, vhostuser.Config{NoMemSlots: true}, v), v.Queues(), alone)
	return bootQEMU(t, e, args, kernel, script, change...), d
}

// bootQEMU boots a guest with these devices, and expects status 0. QEMU 11.1 crashes now and then when a card with a
// window is reset (docs/limits.md); then another one gets the same card.
func bootQEMU(t *testing.T, e *guest.Env, devices []string, kernel, script string, change ...func(*guest.Config)) *guest.Result {
	t.Helper()
	cfg := kit(t, e, kernel).Config(kernel, "", common+script)
	cfg.Sockets = nil
	cfg.ExtraArgs = devices
	for _, f := range change {
		f(&cfg)
	}
	res, err := guest.Boot(t.Context(), e, cfg)
	for more := 2; more > 0 && err != nil && strings.Contains(err.Error(), "segmentation fault"); more-- {
		t.Logf("%v\none more attempt", err)
		res, err = guest.Boot(t.Context(), e, cfg)
	}
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

// sameCounters are those that say what was computed; how often the host was asked or
// told differs between buses.
var sameCounters = []string{"commands", "errors", "programs", "instructions", "macs", "dma_read", "dma_written", "faults", "copies"}

// TestVirtioDigits is the main job over virtio, on every kernel, and then over PCI in the same guest, with a card of its own.
// The program is the same, and so are its results and what the devices count.
func TestVirtioDigits(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			d, v := paravirt(t, vdev.DefaultConfig())
			_, socket := devtest.Start(t, vdev.DefaultConfig())
			args := monitor{}.args(virtiotest.Serve(t, vhostuser.Config{NoMemSlots: true}, v), v.Queues(), alone)
			res := bootQEMU(t, e, args, k, `
echo 0 >/sys/bus/pci/drivers_autoprobe
load
digits `+Digits+` >$RESULT/digits.json || die digits: $?
rmmod npu || die rmmod
echo 0 >/sys/bus/virtio/drivers_autoprobe
echo 1 >/sys/bus/pci/drivers_autoprobe
load
digits `+Digits+` >$RESULT/pci.json || die digits over PCI: $?
rmmod npu || die rmmod
`, func(c *guest.Config) { c.Sockets = []string{socket} })
			checkDigits(t, res.Files["digits.json"])
			checkDigits(t, res.Files["pci.json"])
			if f := d.Findings(); len(f) != 0 {
				guest.Attr(t, guest.AttrCause, guest.CauseDevice)
				t.Errorf("our own driver makes mistakes: %+v", f)
			}
			var got, want digitsResult
			for b, to := range map[*digitsResult][]byte{&got: res.Files["digits.json"], &want: res.Files["pci.json"]} {
				if err := json.Unmarshal(to, b); err != nil {
					t.Fatal(err)
				}
				maps.DeleteFunc(b.Counters, func(name string, _ uint64) bool { return !slices.Contains(sameCounters, name) })
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("PCI and virtio differ (-PCI +virtio):\n%s", diff)
			}
		})
	}
}

// TestVirtioUAPI runs the guest's own test program of the driver interface, without the
// rows that reset the PCI function or look into it.
func TestVirtioUAPI(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			res, _ := bootVirtio(t, e, vdev.DefaultConfig(), monitor{queueSize: 256}, k,
				inspect+"load\nuapitest -t >$RESULT/ktap; echo status $?\ncore >$RESULT/dump\nmodprobe vgem || die vgem\nsharetest >$RESULT/share; echo status $?; rmmod npu || die rmmod\n",
				func(c *guest.Config) { c.Timeout, c.Modules = 4*time.Minute, append(c.Modules, "vgem") })
			checkKTAP(t, res.Files["ktap"], 170)
			checkKTAP(t, res.Files["share"], 90)
			checkDump(t, res.Files["dump"], "reason: a job did not end in time\n", "    command 0: opcode 0x02, 02")
		})
	}
}

// TestVirtioJudge is TestJudge over virtio.
func TestVirtioJudge(t *testing.T) {
	e := guest.Require(t)
	res, _ := bootVirtio(t, e, vdev.DefaultConfig(), monitor{}, "", "load\njudge >$RESULT/ktap; echo status $?; rmmod npu || die rmmod\n")
	checkKTAP(t, res.Files["ktap"], 45)
}

// TestVirtioReload loads and unloads the driver, unbinds and binds it, also while a
// job runs.
func TestVirtioReload(t *testing.T) {
	e := guest.Require(t)
	res, _ := bootVirtio(t, e, vdev.DefaultConfig(), monitor{}, "", `
for i in 1 2 3; do
	load
	digits `+Digits+` >/dev/null || die "digits, load $i"
	rmmod npu || die "rmmod $i"
	[ -e /dev/accel/accel0 ] && die "node left behind"
done
load
drv=/sys/bus/virtio/drivers/npu
v=$(basename $drv/virtio*)
for i in 1 2 3; do
	while :; do digits `+Digits+` >/dev/null 2>&1 || break; done &
	sleep 0.$i
	echo $v >$drv/unbind || die unbind
	wait
	echo $v >$drv/bind || die bind
	[ -e /dev/accel/accel0 ] || die "no node after bind"
done
digits `+Digits+` >$RESULT/digits.json || die "digits after bind"
rmmod npu || die rmmod
`)
	checkDigits(t, res.Files["digits.json"])
}

// many is a bus for more virtio devices than one, where alone is.
var many = []string{"-device", "pci-bridge,id=many,chassis_nr=1,shpc=off,addr=0x1f.5"}

// onMany is the place of device i there, and its directory in the guest.
func onMany(i int) (place, dir string) {
	return fmt.Sprintf("bus=many,addr=%x", i+1), fmt.Sprintf("/sys/bus/pci/devices/0000:01:%02x.0/virtio*", i+1)
}

// TestVirtioMonitors: what a monitor leaves out, each time before a card of its own, to which the driver is bound in turn.
func TestVirtioMonitors(t *testing.T) {
	e := guest.Require(t)
	small := vdev.DefaultConfig()
	small.Memory.Size = 16 << 20
	windowless := small
	windowless.Memory.Window = false
	rows := []struct {
		name    string
		card    vdev.Config
		monitor monitor
		script  string
		device  map[string]any // of devinfo
	}{
		{"fewer virtqueues", small, monitor{queues: 4}, "digits " + Digits + " >/dev/null || die digits",
			map[string]any{"queues": 2.0, "max_commands": 32.0, "vectors": 1.0}},
		{"short virtqueues", small, monitor{queueSize: 8}, "digits " + Digits + " >/dev/null || die digits",
			map[string]any{"max_commands": 4.0}},
		{"long virtqueues", small, monitor{queueSize: 1024}, "digits " + Digits + " >/dev/null || die digits",
			map[string]any{"max_commands": 127.0}},
		{"no window", windowless, monitor{}, "windowless || die windowless", map[string]any{"dram_size": 16777216.0}},
	}
	args := slices.Clone(many)
	script := "echo 0 >/sys/bus/virtio/drivers_autoprobe\n"
	var devices []*vdev.Device
	for i, row := range rows {
		d, v := paravirt(t, row.card)
		place, dir := onMany(i)
		devices = append(devices, d)
		args = append(args, row.monitor.args(virtiotest.Serve(t, vhostuser.Config{NoMemSlots: true}, v), v.Queues(), place)...)
		script += fmt.Sprintf(`
stage '%s'
modprobe npu || die "modprobe npu: $?"
echo $(basename %s) >/sys/bus/virtio/drivers/npu/bind || die bind
load
devinfo >$RESULT/info%d || die devinfo
%s
rmmod npu || die rmmod
`, row.name, dir, i, row.script)
	}
	res := bootQEMU(t, e, args, "", script)
	for i, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			guest.Note(t, res, nil)
			text := res.Files[fmt.Sprintf("info%d", i)]
			var info struct{ Device map[string]any }
			if err := json.Unmarshal(text, &info); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			maps.DeleteFunc(info.Device, func(name string, _ any) bool { _, wanted := row.device[name]; return !wanted })
			if diff := gocmp.Diff(row.device, info.Device); diff != "" {
				t.Errorf("devinfo (-want +got):\n%s", diff)
			}
			if f := devices[i].Findings(); len(f) != 0 {
				guest.Attr(t, guest.AttrCause, guest.CauseDevice)
				t.Errorf("our own driver makes mistakes: %+v", f)
			}
		})
	}
}

// An oddCard is a card whose configuration space says something else.
type oddCard struct {
	*vdev.Paravirt
	change func(config []byte)
}

func (o *oddCard) ReadConfig(p []byte) {
	o.Paravirt.ReadConfig(p)
	o.change(p)
}

// TestVirtioDeclined puts wrong devices beside a good one: the driver says what is wrong
// with each, and drives the good one.
func TestVirtioDeclined(t *testing.T) {
	e := guest.Require(t)
	put := func(off int, v uint32) func([]byte) {
		return func(p []byte) { binary.LittleEndian.PutUint32(p[off:], v) }
	}
	rows := []struct {
		name    string
		monitor monitor
		change  func([]byte)
		want    string // in the kernel's log, behind the device's name
	}{
		{"magic", monitor{}, put(0x00, 0x12345678), "no NPU: magic is 0x12345678, that of an NPU is 0x4555504e"},
		{"magic of all ones", monitor{}, put(0x00, 1<<32-1), "no NPU: magic is 0xffffffff"},
		{"no configuration space", monitor{configSize: -1}, nil, "no NPU: magic is 0xffffffff"}, // what QEMU has behind its end
		{"short configuration space", monitor{configSize: 8}, nil, "hardware architecture is 65535.65535, needed is 1.x"},
		{"interface 2.0", monitor{}, put(0x04, 2<<16), "version of the virtio interface is 2.0, needed is 1.x"},
		{"architecture 2.0", monitor{}, put(0x0c, 2<<16), "hardware architecture is 2.0, needed is 1.x"},
		{"more memory than window", monitor{}, put(0x20, 32<<20), "the shared memory region has 16777216 bytes"},
		{"memory of half a page", monitor{}, put(0x20, 2048), "DRAM_SIZE is 2048"},
		{"no memory", monitor{}, put(0x20, 0), "DRAM_SIZE is 0"},
		{"no user queues", monitor{}, put(0x3c, 0), "no user queues or contexts"},
		{"no contexts", monitor{}, put(0x38, 0), "no user queues or contexts"},
		{"no submission virtqueue", monitor{queues: 2}, nil, "remedy: offer at least 3 of them"},
		{"virtqueues of one entry", monitor{queueSize: 1}, nil, "hold no request"},
		{"endless user queues", monitor{}, put(0x3c, 1<<32-1), ""},
	}
	args := slices.Clone(many)
	add := func(i int, m monitor, change func([]byte)) {
		cfg := vdev.DefaultConfig()
		cfg.Memory.Size = 16 << 20
		cfg.Queues.Count = 2
		_, v := paravirt(t, cfg)
		if change == nil {
			change = func([]byte) {}
		}
		place, _ := onMany(i)
		args = append(args, m.args(virtiotest.Serve(t, vhostuser.Config{NoMemSlots: true}, &oddCard{v, change}), v.Queues(), place)...)
	}
	var script strings.Builder
	script.WriteString("load\n")
	for i, row := range rows {
		add(i, row.monitor, row.change)
		_, dir := onMany(i)
		if row.want == "" {
			fmt.Fprintf(&script, "[ -e %s/driver ] || die '%s was declined'\n", dir, row.name)
			continue
		}
		fmt.Fprintf(&script, "[ -e %s/driver ] && die '%s was accepted'\n", dir, row.name)
		fmt.Fprintf(&script, "v=$(basename %s); dmesg | grep -q \"$v: .*%s\" || die \"%s: no such message of $v\"\n", dir, row.want, row.name)
	}
	add(len(rows), monitor{}, nil)
	script.WriteString("digits " + Digits + " >$RESULT/digits.json || die digits: $?\nrmmod npu || die rmmod\n")
	res := bootQEMU(t, e, args, "", script.String())
	checkDigits(t, res.Files["digits.json"])
}

// A nagging card says NEEDS_RESET once, when it is told to.
type naggingCard struct {
	*vdev.Paravirt
	front atomic.Pointer[vhostuser.FrontEnd]
	nag   atomic.Bool
}

func (n *naggingCard) Attach(f *vhostuser.FrontEnd) {
	n.front.Store(f)
	n.Paravirt.Attach(f)
}

func (n *naggingCard) ReadConfig(p []byte) {
	n.Paravirt.ReadConfig(p)
	if n.nag.Load() {
		p[0x40] |= 1 << 2
	}
}

func (n *naggingCard) Reset() {
	n.nag.Store(false)
	n.Paravirt.Reset()
}

// TestVirtioNeedsReset: the device asks for a reset (§10.8), gets one, and goes on.
func TestVirtioNeedsReset(t *testing.T) {
	e := guest.Require(t)
	cfg := vdev.DefaultConfig()
	cfg.Memory.Size = 16 << 20
	_, v := paravirt(t, cfg)
	n := &naggingCard{Paravirt: v}
	args := monitor{}.args(virtiotest.Serve(t, vhostuser.Config{NoMemSlots: true}, n), n.Queues(), alone)
	res := bootQEMU(t, e, args, "", `
load
digits `+Digits+` >/dev/null || die "digits before"
echo please nag
for i in $(seq 100); do dmesg | grep -q "device was reset" && break; sleep 0.1; done
dmesg | grep -q "stopped a virtqueue" || die "no message of the driver"
dmesg | grep -q "device was reset" || die "no reset"
digits `+Digits+` >$RESULT/digits.json || die "digits after"
devinfo | grep -q '"resets":1,' || die "the reset is not counted"
rmmod npu || die rmmod
`, func(c *guest.Config) {
		c.OnLine = func(line string) {
			if strings.TrimSpace(line) == "please nag" {
				n.nag.Store(true)
				n.front.Load().ConfigChanged()
			}
		}
	})
	checkDigits(t, res.Files["digits.json"])
}
