// SPDX-License-Identifier: Apache-2.0

// Package vfio lets the kernel judge the ioat device: its driver for such engines, its test of DMA drivers, and its
// selftests of VFIO, unmodified, on our lean kernel (make test-vfio). What a stock kernel has is part of make test.
package vfio

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"npuemu/internal/uds"
	"npuemu/tests/guest"
	"npuemu/vdev/ioat"
	"npuemu/vdev/vfiouser"
)

// serve serves an ioat device on a socket until the test ends.
func serve(t *testing.T) (d *ioat.Device, socket string) {
	t.Helper()
	d, err := ioat.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "ioat") // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	ln, err := uds.Listen(socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { d.Run(ctx); done <- struct{}{} }()
	go func() {
		_ = vfiouser.NewServer(vfiouser.Config{}, d).Serve(ctx, ln) // ctx's error
		done <- struct{}{}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		<-done
		os.RemoveAll(dir)
	})
	return d, socket
}

// iommu is a machine whose devices are behind an IOMMU that tells QEMU of every mapping.
var iommu = []string{"-device", "intel-iommu,caching-mode=on,intremap=on"}

// boot runs a script in a guest with the device, and fails the test if that fails.
func boot(t *testing.T, e *guest.Env, cfg guest.Config) (*ioat.Device, *guest.Result) {
	t.Helper()
	d, socket := serve(t)
	cfg.Sockets = []string{socket}
	cfg.ExtraArgs = append(slices.Clone(iommu), cfg.ExtraArgs...)
	cfg.Append = "intel_iommu=on " + cfg.Append
	cfg.Script = common + cfg.Script
	res, err := guest.Boot(t.Context(), e, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if res.Status != 0 {
		t.Fatalf("the guest's script fails with %d:\n%s", res.Status, res.Console)
	}
	for _, s := range res.Stages {
		t.Logf("%s: %.1f s", s.Name, s.Duration.Seconds())
	}
	return d, res
}

// common finds the device: $bdf is its address, $dev its directory.
const common = `
set -e
for dev in /sys/bus/pci/devices/*; do
	read -r vendor <$dev/vendor
	read -r device <$dev/device
	[ $vendor$device != 0x80860x2021 ] || break
done
bdf=${dev##*/}
[ $vendor$device = 0x80860x2021 ]
`

// dmatest has dmatest copy, verify, and say what came of it.
const dmatest = `
stage dmatest
modprobe dmatest timeout=20000 iterations=2000 run=1
read -r done </sys/module/dmatest/parameters/wait
dmesg | grep 'dmatest:' | tail -3 >$RESULT/dmatest
rmmod dmatest
`

var summary = regexp.MustCompile(`summary (\d+) tests, (\d+) failures (\S+) iops (\d+) KB/s`)

func checkDMATest(t *testing.T, res *guest.Result) {
	t.Helper()
	m := summary.FindStringSubmatch(string(res.Files["dmatest"]))
	if m == nil || m[1] != "2000" || m[2] != "0" {
		t.Fatalf("dmatest says %q, want 2000 tests and no failure", res.Files["dmatest"])
	}
	t.Logf("dmatest: %s", m[0])
}

// TestStock is what a stock kernel comes with: the driver, whose probe copies by itself and compares, with each kind of
// interrupt, with the device reset and unbound between them.
func TestStock(t *testing.T) {
	e := guest.Require(t)
	for _, k := range e.Kernels() {
		t.Run(k, func(t *testing.T) {
			d, res := boot(t, e, guest.Config{Kernel: k, Modules: []string{"ioatdma"}, Script: `
for style in msix msi intx; do
	stage $style
	modprobe ioatdma ioat_interrupt_style=$style
	[ -e /sys/bus/pci/drivers/ioatdma/$bdf ]
	grep ioat-$style /proc/interrupts | tee -a $RESULT/interrupts
	[ -e $dev/dma/dma0chan0 ]
	echo 1 >$dev/reset || true
	rmmod ioatdma
done
dmesg | grep -i 'ioat\|DMAR.*fault' >$RESULT/dmesg || true
`})
			// A line ends in its kind's name, and has a count that is not 0 after the number of the interrupt.
			fired := regexp.MustCompile(`(?m)^ *\d+: +[1-9]\d* .*ioat-(msix|msi|intx)$`).FindAllStringSubmatch(string(res.Files["interrupts"]), -1)
			if len(fired) != 3 {
				t.Errorf("interrupts by %d kinds, want msix, msi and intx:\n%s", len(fired), res.Files["interrupts"])
			}
			if text := string(res.Files["dmesg"]); strings.Contains(text, "Self-test") || strings.Contains(text, "fault") {
				t.Errorf("the kernel says:\n%s", text)
			}
			s := d.Stats()
			if s.Descriptors < 6 || s.Errors != 0 || s.Bytes < 3*2000 {
				t.Errorf("the device did %+v", s)
			}
			t.Logf("%+v", s)
			noFindings(t, d)
		})
	}
}

// noFindings fails the test if a guest made mistakes, but for those of ids.
func noFindings(t *testing.T, d *ioat.Device, ids ...string) {
	t.Helper()
	for _, f := range d.Findings() {
		if !slices.Contains(ids, f.ID) {
			t.Errorf("finding %s, %d times: %s: %s", f.ID, f.Count, f.Rule, f.Last)
		}
	}
}

// TestDMATest is the kernel's own test of DMA drivers: 2,000 copies of random size and alignment, compared.
func TestDMATest(t *testing.T) {
	e, lean := guest.RequireLean(t)
	d, res := boot(t, e, guest.Config{Kernel: lean, Modules: []string{"ioatdma", "dmatest"}, Script: "modprobe ioatdma\n" + dmatest})
	checkDMATest(t, res)
	noFindings(t, d)
	t.Logf("%+v", d.Stats())
}

// TestDMATestStock is the same on the stock kernels of the lean kernel's source, which come without dmatest: it is built for them.
func TestDMATestStock(t *testing.T) {
	e, lean := guest.RequireLean(t)
	src := t.TempDir()
	text, err := os.ReadFile(filepath.Join(e.Cache, "kernels", lean, "dmatest/dmatest.c"))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"dmatest.c": string(text), "Kbuild": "obj-m := dmatest.o\n"} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	ko, _, err := e.BuildModule(t.Context(), "", src, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d, res := boot(t, e, guest.Config{Modules: []string{"ioatdma", ko}, Script: "modprobe ioatdma\n" + dmatest})
	checkDMATest(t, res)
	noFindings(t, d)
}

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

// modes are the ways of user space to the IOMMU, as the selftests name them.
var modes = []string{"vfio_type1_iommu", "vfio_type1v2_iommu", "iommufd_compat_type1", "iommufd_compat_type1v2", "iommufd"}

// hugeShared: the driver's test maps 1 GiB of shared memory each time. In pages of 2 MiB these are 513 messages instead of 262,144.
const hugeShared = "transparent_hugepage_shmem=always"

// run is one program with arguments, in a guest of its own, and what must come of it.
type run struct {
	name, program, args string
	append              string // to the kernel's command line
	want                ktap
	findings            []string // mistakes that the test makes on purpose
}

// onPurpose is what vfio_pci_driver_test does wrong to see that the device survives.
var onPurpose = []string{"ioat-source", "ioat-destination"}

func (r run) in(t *testing.T, e *guest.Env, kernel string, modules []string, programs map[string]string) {
	program, ok := programs[r.program]
	if !ok {
		t.Fatalf("no selftest %s", r.program)
	}
	load := ""
	for _, m := range modules {
		load += "modprobe " + m + "\n"
	}
	d, res := boot(t, e, guest.Config{
		Kernel: kernel, Memory: 3072, Modules: modules, Append: r.append, Timeout: 8 * time.Minute,
		Files: map[string]string{"/bin/selftest": program}, Script: load + bind + `
echo 8 >/proc/sys/vm/nr_hugepages
stage test
set +e
selftest ` + r.args + ` $bdf >$RESULT/ktap 2>$RESULT/stderr
status=$?
dmesg | tail -20 >$RESULT/dmesg
stage unbind
echo $bdf >/sys/bus/pci/drivers/vfio-pci/unbind
echo $status >$RESULT/status
`})
	text := string(res.Files["ktap"])
	got := parse(t, text)
	if got != r.want {
		t.Errorf("%+v, want %+v; exit status %s\n%s\n%s\n%s", got, r.want, res.Files["status"], text, res.Files["stderr"], res.Files["dmesg"])
	}
	noFindings(t, d, r.findings...)
	t.Logf("%+v; device: %+v", got, d.Stats())
}

// TestSelftests runs the kernel's VFIO selftests as the distribution has them.
func TestSelftests(t *testing.T) {
	e, lean := guest.RequireLean(t)
	programs := e.BuildSelftests(t, lean, t.TempDir(), nil)
	runs := []run{
		{name: "device", program: "vfio_pci_device_test", want: ktap{pass: 5}},
		{name: "iommufd_setup", program: "vfio_iommufd_setup_test", want: ktap{pass: 6}},
		{name: "dma_mapping_mmio", program: "vfio_dma_mapping_mmio_test", want: ktap{pass: 15}},
		{name: "dma_mapping", program: "vfio_dma_mapping_test", want: ktap{pass: 25, skip: 5}}, // the machine has no pages of 1 GiB
	}
	for _, m := range modes {
		runs = append(runs, run{name: "driver/" + m, program: "vfio_pci_driver_test", args: "-v " + m, append: hugeShared, want: ktap{pass: 7}, findings: onPurpose})
	}
	for _, r := range runs {
		t.Run(r.name, func(t *testing.T) { r.in(t, e, lean, nil, programs) })
	}
}

// TestSelftestsStock runs what a stock kernel can: Debian's has neither IOMMUFD nor device files of VFIO, so those of five modes
// that need them cannot run, nor the tests that take the default one, which is IOMMUFD, unless that one line is changed.
func TestSelftestsStock(t *testing.T) {
	e, lean := guest.RequireLean(t)
	modules := []string{"vfio-pci", "vfio_iommu_type1"}
	unmodified := e.BuildSelftests(t, lean, t.TempDir(), nil)
	changed := e.BuildSelftests(t, lean, t.TempDir(), func(src string) {
		path := filepath.Join(src, "lib/iommu.c")
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		const line = "default_iommu_mode = MODE_IOMMUFD;"
		if n := strings.Count(string(text), line); n != 1 {
			t.Fatalf("%s has %d lines %q", path, n, line)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), line, "default_iommu_mode = MODE_VFIO_TYPE1V2_IOMMU;", 1)), 0o666); err != nil {
			t.Fatal(err)
		}
	})
	const type1 = "-v vfio_type1_iommu -v vfio_type1v2_iommu"
	sizes := ""
	for _, size := range []string{"anonymous", "anonymous_hugetlb_2mb", "anonymous_hugetlb_1gb"} {
		sizes += " -v vfio_type1_iommu_" + size + " -v vfio_type1v2_iommu_" + size
	}
	for _, r := range []run{
		{name: "dma_mapping", program: "vfio_dma_mapping_test", args: type1 + sizes, want: ktap{pass: 10, skip: 2}},
		{name: "dma_mapping_mmio", program: "vfio_dma_mapping_mmio_test", args: type1, want: ktap{pass: 6}},
		{name: "device", program: "vfio_pci_device_test", want: ktap{pass: 5}},
		{name: "driver", program: "vfio_pci_driver_test", args: type1, append: hugeShared, want: ktap{pass: 14}, findings: onPurpose},
	} {
		programs := changed
		if strings.HasPrefix(r.program, "vfio_dma_mapping") { // takes the mode from the variant
			programs = unmodified
		}
		t.Run(r.name, func(t *testing.T) { r.in(t, e, "", modules, programs) })
	}
}
