// SPDX-License-Identifier: Apache-2.0

//go:build linux

package transport

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"npuemu/core/isa"
	"npuemu/dma"
	"npuemu/dma/iova"
	"npuemu/firmware"
	"npuemu/internal/filemap"
	"npuemu/internal/uds"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev"
	"npuemu/vdev/vfiouser"
)

// copies compares DMA through a guest's mapped file with a plain copy of the same bytes, in
// turns. Each walks an area far larger than the caches, so that small copies find their memory as
// cold as a device does.
func (r *report) copies(fifo bool) {
	const area = 128 << 20
	t := r.t
	shared := func(name string) (fd int, b []byte) {
		fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
		if err == nil {
			err = unix.Ftruncate(fd, area)
		}
		if err == nil {
			b, err = unix.Mmap(fd, 0, area, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			_ = unix.Munmap(b) // there is nothing to do about it
			unix.Close(fd)
		})
		return fd, b
	}
	fd, guest := shared("guest")
	_, dram := shared("dram")
	var files filemap.Set
	rng, err := files.Open(fd, 0, area, true)
	if err != nil {
		t.Fatal(err)
	}
	m := dma.Memory{Bus: new(iova.Table), DRAM: dram}
	if err := m.Bus.Map(0, area, iova.Read|iova.Write, rng); err != nil {
		t.Fatal(err)
	}
	defer m.Bus.UnmapAll()
	m.SetBusMaster(true)
	ctx := context.Background()
	buf := make([]byte, dma.Chunk)
	engine := func(dst, src dma.Space) func(off, size uint64) {
		return func(off, size uint64) {
			_, _, err := m.Copy(ctx, dma.Side{Space: dst, Addr: off}, dma.Side{Space: src, Addr: off}, dma.Shape{NX: size, NY: 1, NZ: 1}, buf)
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	// Go's copy of 1 MiB and more goes past the caches, which is slower here: in pieces it
	// is the better opponent.
	plain := func(dst, src []byte) func(off, size uint64) {
		return func(off, size uint64) {
			for ; size > 0; off, size = off+min(size, dma.Chunk), size-min(size, dma.Chunk) {
				copy(dst[off:off+min(size, dma.Chunk)], src[off:])
			}
		}
	}
	ways := []struct {
		name string
		move func(off, size uint64)
	}{
		{"memcpy-from", plain(dram, guest)},
		{"dma-from", engine(dma.Device, dma.Bus)},
		{"memcpy-to", plain(guest, dram)},
		{"dma-to", engine(dma.Bus, dma.Device)},
	}
	for i := 0; i < area; i += 4096 { // through the mapping that DMA uses, too
		ways[1].move(uint64(i), 4096)
	}
	worst, at := math.Inf(1), ""
	var list []string
	for size := uint64(4 << 10); size <= 64<<20; size <<= 2 {
		n := max(1, (8<<20)/size) // copies in a turn
		ratios := [2][]float64{}
		speeds := [4][]float64{}
		off := uint64(0)
		for range 2 * (*rounds) {
			for w, way := range ways {
				at := off // the same for all
				var took time.Duration
				quiet(t, fifo, func() {
					start := time.Now()
					for range n {
						way.move(at, size)
						at = (at + size) % area
					}
					took = time.Since(start)
				})
				speed := float64(n*size) / float64(took.Nanoseconds())
				speeds[w] = append(speeds[w], speed)
				r.sample(fmt.Sprintf("DMA/way=%s/size=%d", way.name, size), int(n), float64(took.Nanoseconds())/float64(n), "ns/op", speed*1000, "MB/s")
				if w%2 == 1 {
					ratios[w/2] = append(ratios[w/2], speed/speeds[w-1][len(speeds[w-1])-1])
				}
			}
			off = (off + n*size) % area
		}
		from, to := median(ratios[0]), median(ratios[1])
		list = append(list, fmt.Sprintf("%s %.2f / %.2f (%.1f GB/s)", human(size), from, to, median(speeds[1])))
		if q := min(from, to); q < worst {
			worst, at = q, human(size)
		}
	}
	r.row("DMA through mapped guest memory against copy of the same bytes, from / to the guest", strings.Join(list, ", ")+"; least at "+at, "≥ 0.90", verdict(worst >= 0.9))
}

func human(n uint64) string {
	if n >= 1<<20 {
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// interrupts runs the benchmark that needs the inside of the board.
func (r *report) interrupts(fifo bool) {
	t := r.t
	bin := filepath.Join(t.TempDir(), "vdev.test")
	if b, err := exec.Command("go", "test", "-c", "-o", bin, "npuemu/vdev").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	args := []string{bin, "-test.run", "^$", "-test.bench", "^BenchmarkInterrupt$", "-test.benchtime", "100x", "-test.count", "15"}
	if fifo { // a fraction of a second each
		args = append([]string{"chrt", "-f", "1"}, args...)
	}
	b, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	var bare, done, ratio []float64
	for _, l := range regexp.MustCompile(`(?m)^BenchmarkInterrupt.*$`).FindAllString(string(b), -1) {
		fmt.Fprintln(&r.lines, l)
		for unit, v := range map[string]*[]float64{"bare-ns": &bare, "completion-ns": &done, "ratio": &ratio} {
			m := regexp.MustCompile(`([0-9.]+) ` + unit).FindStringSubmatch(l)
			if m == nil {
				t.Fatalf("no %s in %q", unit, l)
			}
			x, err := strconv.ParseFloat(m[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			*v = append(*v, x)
		}
	}
	q := median(ratio)
	r.row("completion posted → eventfd readable", fmt.Sprintf("%.2f µs; a bare write %.2f µs; **%.2f×**", median(done)/1000, median(bare)/1000, q), "≤ 1.2×", verdict(q <= 1.2))
}

// idle measures a card with an attached client that does nothing.
func (r *report) idle() {
	const wait = 12 * time.Second
	t := r.t
	socket := filepath.Join(sockDir(t), "s")
	pid, _ := start(t, exec.Command(npuemu(t), "serve", "--log", "error", "--socket", socket), socket)
	h := devtest.Dial(t, socket)
	h.Bring(firmware.Image())
	time.Sleep(time.Second)
	before := cpuTime(t, pid)
	time.Sleep(wait)
	used := cpuTime(t, pid) - before
	part := 100 * used.Seconds() / wait.Seconds()
	r.sample("Idle", 1, part, "%cpu")
	r.row(fmt.Sprintf("processor time of `npuemu serve` with an idle client, over %v", wait), fmt.Sprintf("%.2f %% (%v)", part, used), "0 %", verdict(part < 0.05))

	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var rss, shmem float64
	for l := range strings.Lines(string(b)) {
		f := strings.Fields(l)
		switch f[0] {
		case "VmRSS:":
			rss, _ = strconv.ParseFloat(f[1], 64)
		case "RssShmem:": // device memory, and what DMA touched of the guest's
			shmem, _ = strconv.ParseFloat(f[1], 64)
		}
	}
	mib := (rss - shmem) / 1024
	r.sample("Resident", 1, mib, "MiB")
	r.row("resident memory of `npuemu serve`, firmware running, without device memory", fmt.Sprintf("%.1f MiB", mib), "≤ 32 MiB", verdict(mib <= 32))
}

// cpuTime returns the processor time of a process, in the kernel's ticks of 10 ms.
func cpuTime(t *testing.T, pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	user, err1 := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	if err1 != nil || err2 != nil {
		t.Fatalf("/proc/%d/stat: %q", pid, b)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// cardEnv makes the test binary serve a card on that socket, which collects garbage
// every few milliseconds while SIGUSR1 has come an odd number of times.
const cardEnv = "NPUEMU_BENCH_CARD"

const collectEvery = 5 * time.Millisecond

func serveCard(socket string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	d, err := vdev.New(vdev.DefaultConfig())
	if err != nil {
		return err
	}
	go d.Run(ctx)
	ln, err := uds.Listen(socket, nil)
	if err != nil {
		return err
	}
	toggle := make(chan os.Signal, 1)
	signal.Notify(toggle, unix.SIGUSR1)
	go func() {
		var tick <-chan time.Time
		for {
			select {
			case <-toggle:
				if tick == nil {
					tick = time.Tick(collectEvery)
				} else {
					tick = nil
					fmt.Println(pauses())
				}
			case <-tick:
				runtime.GC()
			}
		}
	}()
	return vfiouser.NewServer(vfiouser.Config{}, d).Serve(ctx, ln)
}

// pauses returns the number of times that the collector stopped this process, and the upper
// bound of the longest in microseconds.
func pauses() string {
	s := []metrics.Sample{{Name: "/sched/pauses/total/gc:seconds"}}
	metrics.Read(s)
	h := s[0].Value.Float64Histogram()
	n, longest := uint64(0), 0.0
	for i, c := range h.Counts {
		n += c
		if c > 0 {
			longest = h.Buckets[i+1]
		}
	}
	return fmt.Sprintf("%d %.1f", n, longest*1e6)
}

// collector measures what a client sees of the collector while DMA and compute run.
func (r *report) collector(fifo bool) {
	t := r.t
	socket := filepath.Join(sockDir(t), "s")
	cmd := self(t, cardEnv, socket)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	pid, _ := start(t, cmd, socket)
	h := devtest.Dial(t, socket)
	h.Bring(firmware.Image())
	h.CreateQueue(1, h.CreateContext(), 1, 16)
	const size = 2 << 20
	buf, _ := h.Alloc(size)
	entry := devtest.Entry{npureg.CmdCopy}
	le := binary.LittleEndian
	entry[4] = 1 << 4
	le.PutUint64(entry[0x08:], buf)
	le.PutUint32(entry[0x18:], size)
	le.PutUint16(entry[0x1c:], 1)
	le.PutUint16(entry[0x1e:], 1)
	p, err := isa.Assemble("bench", []byte(".isa 1.0\n.spad 65536\n.acc 65536\npreload k=32 n=32 weights=0 stride=32\nmatmul k=32 n=32 ifmap=0 acc=0 mx=64 stride_x=0 acc_stride=128\nhalt\n"))
	if err != nil {
		t.Fatal(err)
	}
	launch := h.Launch(p.Image())
	debug.SetGCPercent(-1) // the client does not collect
	defer debug.SetGCPercent(100)

	run := func() (reads []time.Duration, gbs float64) {
		stop := time.Now().Add(4 * time.Second)
		start, moved := time.Now(), 0
		for time.Now().Before(stop) {
			for range 8 {
				h.Submit(1, entry)
				h.Submit(1, launch)
				for range 4 { // while they run
					at := time.Now()
					h.Read32(npureg.DeviceStatus)
					reads = append(reads, time.Since(at))
				}
				for range 2 {
					if c := h.Wait(1); c.Status != npureg.StatusSuccess {
						t.Fatal(c)
					}
				}
				moved += size
			}
		}
		return reads, float64(moved) / float64(time.Since(start).Nanoseconds())
	}
	_, _ = run() // warm
	if fifo {
		threads(t, pid, true)
		threads(t, os.Getpid(), true)
		defer threads(t, os.Getpid(), false)
	}
	quietReads, _ := run()
	if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	reads, gbs := run()
	if err := unix.Kill(pid, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	var stops int
	var longest float64
	if _, err := fmt.Fscan(pipe, &stops, &longest); err != nil {
		t.Fatal(err)
	}
	show := func(v []time.Duration) string {
		slices.Sort(v)
		return fmt.Sprintf("p50 %.0f µs, p99.9 %.2f ms, worst %.2f ms of %d reads", float64(v[len(v)/2].Nanoseconds())/1e3,
			v[len(v)*999/1000].Seconds()*1e3, v[len(v)-1].Seconds()*1e3, len(v))
	}
	without, with := show(quietReads), show(reads)
	r.sample("Collector", len(reads), float64(reads[len(reads)-1].Nanoseconds()), "worst-ns", longest*1000, "pause-ns", gbs, "GB/s")
	r.row(fmt.Sprintf("register reads while %.1f GB/s of DMA and programs run and the collector runs every %v (%d stops)", gbs, collectEvery, stops),
		fmt.Sprintf("longest stop of the world %.2f ms; a client's reads: %s; without collections: %s", longest/1e3, with, without),
		"≤ 2 ms", verdict(reads[len(reads)-1] <= 2*time.Millisecond))
}

// threads puts all threads of a process under SCHED_FIFO, or back.
func threads(t *testing.T, pid int, on bool) {
	dir, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range dir {
		tid, err := strconv.Atoi(e.Name())
		if err != nil {
			t.Fatal(err)
		}
		if err := setFIFO(tid, on); err != nil && !errors.Is(err, unix.ESRCH) {
			t.Fatal(err)
		}
	}
}
