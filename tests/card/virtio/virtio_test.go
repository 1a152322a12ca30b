// SPDX-License-Identifier: Apache-2.0

// Package virtio plugs the paravirtual NPU (docs/spec/virtio-npu.md) into a stock
// QEMU and drives it from the guest's user space.
package virtio

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"npuemu/internal/uds"
	"npuemu/mmio/npureg"
	"npuemu/tests/guest"
	"npuemu/vdev"
	"npuemu/vdev/vhostuser"
)

// address is behind that of the result channel, whose port must be the first.
const address = "1f.5"

// script shows what Linux makes of the device, and then takes it away from virtio-pci.
const script = `
modprobe virtio_pci
a=0000:00:` + address + `
pci=/sys/bus/pci/devices/$a
cat $pci/virtio*/device $pci/virtio*/status >$RESULT/virtio
cat $pci/device $pci/class >$RESULT/pci
echo $a >/sys/bus/pci/drivers/virtio-pci/unbind
echo 1 >$pci/enable
printf '\006' | dd of=$pci/config bs=1 seek=4 conv=notrunc 2>/dev/null
virtioring $pci >$RESULT/ring || { cat $RESULT/ring; exit 1; }
`

func TestGuest(t *testing.T) {
	e := guest.Require(t)
	bin := filepath.Join(t.TempDir(), "virtioring")
	if err := e.BuildProgram(t.Context(), bin, []string{"programs/virtioring.c"}); err != nil {
		t.Fatal(err)
	}
	cfg := vdev.DefaultConfig()
	cfg.Memory.Size = 16 << 20
	cfg.Queues.Count = 2
	d, err := vdev.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	v := vdev.NewParavirt(d)
	dir, err := os.MkdirTemp("", "npu") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	ln, err := uds.Listen(socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Add(3)
	go func() { defer wg.Done(); d.Run(ctx) }()
	go func() { defer wg.Done(); v.Run(ctx) }()
	go func() {
		defer wg.Done()
		if err := vhostuser.NewServer(vhostuser.Config{NoMemSlots: true}, v).Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		os.RemoveAll(dir)
	})

	cfgGuest := guest.Config{
		Modules: []string{"virtio_pci", "virtio_console"},
		Files:   map[string]string{"/bin/virtioring": bin},
		Script:  script,
		ExtraArgs: []string{"-chardev", "socket,id=npu,path=" + socket, "-device",
			fmt.Sprintf("vhost-user-test-device-pci,chardev=npu,virtio-id=%d,num_vqs=%d,config_size=%d,addr=%s", vdev.VirtioIDInQEMU, v.Queues(), vdev.VirtioConfigSize, address)},
	}
	res, err := guest.Boot(t.Context(), e, cfgGuest)
	guest.Note(t, res, err)
	if err != nil || res.Status != 0 {
		t.Fatalf("%v, status %d:\n%s", err, res.Status, res.Console)
	}
	if got, want := string(res.Files["virtio"]), fmt.Sprintf("0x%04x\n0x00000001\n", vdev.VirtioIDInQEMU); got != want {
		t.Errorf("virtio device %q, want %q", got, want)
	}
	if got := string(res.Files["pci"]); !strings.HasPrefix(got, fmt.Sprintf("0x%04x\n", 0x1040+vdev.VirtioIDInQEMU)) {
		t.Errorf("PCI function %q", got)
	}

	// The program's last line for each name.
	got := map[string]string{}
	for line := range strings.Lines(string(res.Files["ring"])) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[name] = value
	}
	want := map[string]string{
		"shmem-id": "1", "shmem-bar": "4", "shmem-size": "16777216", "queues": "4", "features": "0x530000000",
		"context": "1", "nops": "100", "copy": "4096", "lives": "2", "end": "reset",
		"config-00": "0x4555504e", "config-04": "0x10000", "config-08": "0x10004", "config-0c": "0x10006", "config-10": "0x10002",
		"config-18": "0x7fffe", "config-1c": "0x0", "config-20": "0x1000000", "config-24": "0x0", "config-28": "0x200020",
		"config-2c": "0x100000", "config-30": "0x80000", "config-34": "0x101", "config-38": "0x40", "config-3c": "0x2", "config-40": "0x1",
	}
	maps.DeleteFunc(got, func(name, _ string) bool { return name == "config-14" || name == "config-44" }) // build, generation
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("virtioring (-want +got):\n%s", diff)
	}
	if n := d.Counter(npureg.CounterCommands); n != 202 { // 100 NOPs and a COPY in each life
		t.Errorf("the device counted %d commands, want 202", n)
	}
	if f := d.Findings(); len(f) != 0 {
		t.Errorf("findings: %+v", f)
	}
}
