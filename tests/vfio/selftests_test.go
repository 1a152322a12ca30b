// SPDX-License-Identifier: Apache-2.0

package vfio

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/firmware"
	"npuemu/internal/findings"
	"npuemu/tests/card"
	"npuemu/tests/devtest"
	"npuemu/tests/guest"
	"npuemu/vdev"
)

// bind gives the device to VFIO.
const bind = `
stage bind
echo vfio-pci >$dev/driver_override
echo $bdf >/sys/bus/pci/drivers/vfio-pci/bind
`

// A ktap is the outcome of one program in the kernel's test protocol.
type ktap struct{ pass, skip, fail int }

var ktapLine = regexp.MustCompile(`(?m)^(ok|not ok) \d+ (.*)$`)

// parse counts the results in text, and fails the test if they are not as many as planned.
func parse(t *testing.T, text string) (k ktap) {
	t.Helper()
	for _, m := range ktapLine.FindAllStringSubmatch(text, -1) {
		switch {
		case m[1] == "not ok":
			k.fail++
			t.Logf("not ok: %s", m[2])
		case strings.Contains(m[2], "# SKIP"):
			k.skip++
			t.Logf("skipped: %s", m[2])
		default:
			k.pass++
		}
	}
	plan := "no plan"
	if m := regexp.MustCompile(`(?m)^1\.\.(\d+)$`).FindStringSubmatch(text); m != nil {
		plan = m[1]
	}
	if n := k.pass + k.skip + k.fail; strconv.Itoa(n) != plan || n == 0 {
		t.Errorf("%d results, planned: %s", n, plan)
	}
	return k
}

// A target is a device that the selftests' library has a driver for.
type target struct {
	id    string // vendor and device as sysfs has them
	serve func(*testing.T) (d finder, socket string)
	add   func(t *testing.T, src string) // its driver to the library, if that does not come with it

	// onPurpose is what vfio_pci_driver_test does wrong to see that the device survives.
	onPurpose []string
}

type finder interface{ Findings() []findings.Finding }

var (
	ioatTarget = &target{
		id:        "0x80860x2021",
		serve:     func(t *testing.T) (finder, string) { return serve(t) },
		onPurpose: []string{"ioat-source", "ioat-destination"},
	}
	npuTarget = &target{
		id:        "0x1af40x10f0",
		serve:     func(t *testing.T) (finder, string) { return devtest.Start(t, vdev.DefaultConfig()) },
		add:       addNPU,
		onPurpose: []string{"command-BUS_FAULT", "dma-unmapped"},
	}
)

// addNPU puts npu/npu.c into the selftests, and names it in the two places that name all drivers.
func addNPU(t *testing.T, src string) {
	t.Helper()
	dir := filepath.Join(src, "lib/drivers/npu")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("npu/npu.c")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "npu.c"), text, 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	insertAfter(t, filepath.Join(src, "lib/libvfio.mk"), "LIBVFIO_C += drivers/igb/igb.c\n", "LIBVFIO_C += drivers/npu/npu.c\n")
	table := filepath.Join(src, "lib/vfio_pci_driver.c")
	insertAfter(t, table, "extern struct vfio_pci_driver_ops igb_ops;\n", "extern struct vfio_pci_driver_ops npu_ops;\n")
	insertAfter(t, table, "\t&igb_ops,\n", "\t&npu_ops,\n")
}

// insertAfter changes a file in which a line is once.
func insertAfter(t *testing.T, path, line, more string) {
	t.Helper()
	replace(t, path, line, line+more)
}

func replace(t *testing.T, path, old, text string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(b), old); n != 1 {
		t.Fatalf("%s has %q %d times, want once", path, old, n)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(b), old, text, 1)), 0o666); err != nil {
		t.Fatal(err)
	}
}

// modes are the ways of user space to the IOMMU, as the selftests name them.
var modes = []string{"vfio_type1_iommu", "vfio_type1v2_iommu", "iommufd_compat_type1", "iommufd_compat_type1v2", "iommufd"}

const (
	// The driver's test maps 1 GiB of shared memory each time. In pages of 2 MiB these are 513 messages instead of 262,144.
	hugeShared = "transparent_hugepage_shmem=always"
	// What the mapping test wants of each size. The large one takes 4096 MiB: the kernel's own memory is at the end, and below
	// 2 GiB is the initramfs.
	hugePages = "hugepagesz=1G hugepages=1 hugepagesz=2M hugepages=8"
)

// run is one program with arguments, in a guest of its own, and what must come of it.
type run struct {
	name, program, args string
	append              string // to the kernel's command line
	memory              int    // MiB, 3072 if 0
	want                ktap
	findings            []string // mistakes that the test makes on purpose
	messages            bool     // very many, one at a time: see keepAwake
}

// keepAwake keeps this machine's processors from sleeping until the test ends, with loops that run only where nobody else
// wants to (sched(7), SCHED_IDLE). A message to the device wakes three threads in turn, and on a virtual machine it costs more
// to wake a processor than to do what the message asks for.
func keepAwake(t *testing.T) {
	t.Helper()
	for range runtime.NumCPU() {
		cmd := exec.CommandContext(t.Context(), "sh", "-c", "while :; do :; done")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Wait() }) // killed: t.Context has ended
		if err := unix.SchedSetAttr(cmd.Process.Pid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func (r run) in(t *testing.T, e *guest.Env, target *target, kernel string, modules []string, programs map[string]string) {
	program, ok := programs[r.program]
	if !ok {
		t.Fatalf("no selftest %s", r.program)
	}
	image := filepath.Join(t.TempDir(), "firmware")
	if err := os.WriteFile(image, firmware.Image(), 0o666); err != nil {
		t.Fatal(err)
	}
	load := ""
	for _, m := range modules {
		load += "modprobe " + m + "\n"
	}
	d, socket := target.serve(t)
	if r.messages {
		keepAwake(t)
	}
	res := bootWith(t, e, socket, target.id, guest.Config{
		Kernel: kernel, Memory: cmp.Or(r.memory, 3072), Modules: modules, Append: r.append, Timeout: 8 * time.Minute,
		Files: map[string]string{"/bin/selftest": program, card.FirmwarePath: image}, Script: load + bind + `
stage test
set +e
selftest ` + r.args + ` $bdf >$RESULT/ktap 2>$RESULT/stderr
status=$?
dmesg | grep -v "resetting\|reset done" | tail -20 >$RESULT/dmesg
stage unbind
echo $bdf >/sys/bus/pci/drivers/vfio-pci/unbind
echo $status >$RESULT/status
`})
	text := string(res.Files["ktap"])
	guest.SaveKTAP(t, res.Files["ktap"])
	got := parse(t, text)
	if got != r.want {
		t.Errorf("%+v, want %+v; exit status %s\n%s\n%s\n%s", got, r.want, res.Files["status"], text, res.Files["stderr"], res.Files["dmesg"])
	}
	noFindings(t, d, r.findings...)
	t.Logf("%+v", got)
}

// onLean runs the kernel's VFIO selftests on the lean kernel.
func onLean(t *testing.T, target *target) {
	e, lean := guest.RequireOwn(t, guest.Lean)
	var change func(string)
	if target.add != nil {
		change = func(src string) { target.add(t, src) }
	}
	programs := e.BuildSelftests(t, lean, t.TempDir(), change)
	runs := []run{
		{name: "device", program: "vfio_pci_device_test", want: ktap{pass: 5}},
		{name: "iommufd_setup", program: "vfio_iommufd_setup_test", want: ktap{pass: 6}},
		{name: "dma_mapping_mmio", program: "vfio_dma_mapping_mmio_test", want: ktap{pass: 15}},
		{name: "dma_mapping", program: "vfio_dma_mapping_test", append: hugePages, memory: 4096, want: ktap{pass: 30}},
	}
	for _, m := range modes {
		runs = append(runs, run{name: "driver/" + m, program: "vfio_pci_driver_test", args: "-v " + m, append: hugeShared, want: ktap{pass: 7}, findings: target.onPurpose, messages: m == "iommufd_compat_type1"})
	}
	for _, r := range runs {
		t.Run(r.name, func(t *testing.T) { r.in(t, e, target, lean, nil, programs) })
	}
}

// TestSelftests runs the kernel's VFIO selftests as the distribution has them.
func TestSelftests(t *testing.T) { onLean(t, ioatTarget) }

// TestSelftestsNPU runs them with a driver for the NPU.
func TestSelftestsNPU(t *testing.T) { onLean(t, npuTarget) }

// TestSelftestsStock runs what a stock kernel can: Debian's has neither IOMMUFD nor device files of VFIO, so those of five modes
// that need them cannot run, nor the tests that take the default one, which is IOMMUFD, unless that one line is changed.
func TestSelftestsStock(t *testing.T) {
	e, lean := guest.RequireOwn(t, guest.Lean)
	modules := []string{"vfio-pci", "vfio_iommu_type1"}
	unmodified := e.BuildSelftests(t, lean, t.TempDir(), nil)
	changed := e.BuildSelftests(t, lean, t.TempDir(), func(src string) {
		replace(t, filepath.Join(src, "lib/iommu.c"), "default_iommu_mode = MODE_IOMMUFD;", "default_iommu_mode = MODE_VFIO_TYPE1V2_IOMMU;")
	})
	const type1 = "-v vfio_type1_iommu -v vfio_type1v2_iommu"
	sizes := ""
	for _, size := range []string{"anonymous", "anonymous_hugetlb_2mb", "anonymous_hugetlb_1gb"} {
		sizes += " -v vfio_type1_iommu_" + size + " -v vfio_type1v2_iommu_" + size
	}
	for _, r := range []run{
		{name: "dma_mapping", program: "vfio_dma_mapping_test", args: type1 + sizes, append: hugePages, memory: 4096, want: ktap{pass: 12}},
		{name: "dma_mapping_mmio", program: "vfio_dma_mapping_mmio_test", args: type1, want: ktap{pass: 6}},
		{name: "device", program: "vfio_pci_device_test", want: ktap{pass: 5}},
		{name: "driver", program: "vfio_pci_driver_test", args: type1, append: hugeShared, want: ktap{pass: 14}, findings: ioatTarget.onPurpose},
	} {
		programs := changed
		if strings.HasPrefix(r.program, "vfio_dma_mapping") { // takes the mode from the variant
			programs = unmodified
		}
		t.Run(r.name, func(t *testing.T) { r.in(t, e, ioatTarget, "", modules, programs) })
	}
}
