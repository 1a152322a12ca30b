// SPDX-License-Identifier: Apache-2.0

// Command demo is make demo: it sets up what is missing, builds everything,
// starts the card, boots Linux in QEMU with it, classifies handwritten digits
// on the NPU and prints what happened. Its exit status tells success.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"npuemu/tests/card"
	"npuemu/tests/guest"
)

type options struct {
	npuemu, tree, kernel, out  string
	console, asJSON, buildOnly bool
}

func main() {
	var o options
	flag.StringVar(&o.npuemu, "npuemu", "bin/npuemu", "the npuemu `binary`")
	flag.StringVar(&o.tree, "tree", ".", "top of the source `directory`")
	flag.StringVar(&o.kernel, "kernel", "", "guest kernel, such as 6.12 (default: the newest)")
	flag.StringVar(&o.out, "out", "build", "`directory` for what is built, and for logs")
	flag.BoolVar(&o.console, "console", false, "show the guest's console")
	flag.BoolVar(&o.asJSON, "json", false, "print the report as JSON")
	flag.BoolVar(&o.buildOnly, "build-only", false, "build driver and programs for every guest kernel and stop")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo: FAILED:", err)
		os.Exit(1)
	}
}

// stages times what the demo does, and says what it is doing.
type stages struct {
	names []string
	times []time.Duration
	start time.Time
}

func (s *stages) begin(name string) {
	s.end()
	fmt.Fprintf(os.Stderr, "demo: %s …\n", name)
	s.names = append(s.names, name)
	s.start = time.Now()
}

func (s *stages) end() {
	if len(s.times) < len(s.names) {
		s.times = append(s.times, time.Since(s.start))
	}
}

// digits is what the guest program of that name prints.
type digits struct {
	Device struct {
		UAPI     string `json:"uapi_version"`
		Arch     string `json:"arch_version"`
		ABI      string `json:"fw_version"`
		Firmware string
		Rows     int `json:"array_rows"`
		Cols     int `json:"array_cols"`
	}
	Images     int
	Correct    int
	Accuracy   float64
	Compared   int `json:"compared_bytes"`
	Mismatched int `json:"mismatched_bytes"`
	Seconds    float64
	Counters   map[string]uint64
}

// Report is what the demo found out.
type Report struct {
	QEMU    string            `json:"qemu"`
	Accel   string            `json:"accel"`
	Kernel  string            `json:"kernel"`
	Device  string            `json:"device"`
	Driver  string            `json:"driver"`
	Digits  json.RawMessage   `json:"digits"`
	Retried string            `json:"retried,omitempty"`
	Stages  map[string]string `json:"stages"`
	Console string            `json:"console"`
	CardLog string            `json:"card_log"`
	order   []string
}

const script = `
stage probe
modprobe npu || { echo "the driver does not load"; exit 1; }
for i in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/accel/accel0 ] && break; sleep 0.2; done
[ -e /dev/accel/accel0 ] || { echo "no /dev/accel/accel0"; exit 1; }
for d in /sys/bus/pci/devices/*; do
	[ "$(cat $d/vendor):$(cat $d/device)" = 0x1af4:0x10f0 ] || continue
	echo "${d##*/} class $(cat $d/class) [$(cat $d/vendor):$(cat $d/device)] rev $(cat $d/revision)" >$RESULT/device
	basename "$(readlink $d/driver)" >$RESULT/driver
done
stage digits
digits ` + card.Digits + ` >$RESULT/digits.json
status=$?
stage unload
rmmod npu || exit 1
exit $status
`

func run(ctx context.Context, o options) error {
	var s stages
	s.begin("set-up")
	e, err := guest.Setup(ctx, os.Stderr)
	if err != nil {
		return err
	}
	kernels := e.Kernels()
	if !o.buildOnly {
		if o.kernel == "" {
			o.kernel = kernels[0]
		}
		kernels = []string{o.kernel}
	}
	var kit *card.Kit
	for _, k := range kernels {
		dir, err := filepath.Abs(filepath.Join(o.out, k))
		if err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if kit, err = card.Build(ctx, e, k, o.tree, dir, func(what string) { s.begin("build " + what + " for " + k) }); err != nil {
			return err
		}
		for _, w := range kit.Warnings {
			fmt.Fprintln(os.Stderr, "demo: warning:", w)
		}
		fmt.Fprintln(os.Stderr, "demo: built", kit.Module)
	}
	if o.buildOnly {
		return nil
	}

	s.begin("start the card")
	cardLog := filepath.Join(o.out, "npuemu.log")
	sockets, stop, err := card.Serve(o.npuemu, cardLog, "")
	if err != nil {
		return err
	}
	defer func() { _ = stop() }() // again, after an error that says more

	s.begin("boot Linux " + o.kernel + " in QEMU " + e.QEMUVersion)
	consoleLog := filepath.Join(o.out, "console.log")
	console, err := os.Create(consoleLog)
	if err != nil {
		return err
	}
	defer console.Close()
	cfg := kit.Config(o.kernel, sockets[0], script)
	cfg.Console = io.Writer(console)
	if o.console {
		cfg.Console = io.MultiWriter(console, os.Stderr)
	}
	res, err := guest.Boot(ctx, e, cfg)
	s.end()
	if err != nil {
		return fmt.Errorf("%w (console: %s, card: %s)", err, consoleLog, cardLog)
	}
	if err := stop(); err != nil {
		return fmt.Errorf("npuemu: %w (log: %s)", err, cardLog)
	}
	r := report(e, res, &s)
	r.Console, r.CardLog = consoleLog, cardLog
	if o.asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return err
		}
	} else {
		r.print(os.Stdout)
	}
	if res.Status != 0 {
		return fmt.Errorf("the guest's script ended with status %d (console: %s, card: %s)", res.Status, consoleLog, cardLog)
	}
	return nil
}

func report(e *guest.Env, res *guest.Result, s *stages) *Report {
	text := func(name string) string { return strings.TrimSpace(string(res.Files[name])) }
	r := &Report{QEMU: res.QEMU, Accel: res.Accel, Kernel: res.Kernel, Device: text("device"), Driver: text("driver"), Retried: res.Retried, Stages: map[string]string{}}
	if d := res.Files["digits.json"]; json.Valid(d) {
		r.Digits = d
	}
	add := func(name string, d time.Duration) {
		r.order = append(r.order, name)
		r.Stages[name] = d.Round(10 * time.Millisecond).String()
	}
	for i, name := range s.names[:len(s.names)-1] { // the last is the guest, which has stages of its own
		add(name, s.times[i])
	}
	for _, g := range res.Stages {
		add("guest: "+g.Name, g.Duration)
	}
	add("guest: power off", res.PowerOff)
	return r
}

// print writes the report for people.
func (r *Report) print(w io.Writer) {
	line := func(name, format string, a ...any) { fmt.Fprintf(w, "%-14s %s\n", name, fmt.Sprintf(format, a...)) }
	fmt.Fprintln(w)
	line("QEMU", "%s, %s", r.QEMU, r.Accel)
	line("Linux", "%s", r.Kernel)
	line("device", "%s", r.Device)
	var d digits
	if json.Unmarshal(r.Digits, &d) == nil {
		c := d.Counters
		line("driver", "%s, uAPI %s", r.Driver, d.Device.UAPI)
		line("firmware", "%s, interface %s", d.Device.Firmware, d.Device.ABI)
		line("NPU", "architecture %s, %d×%d array", d.Device.Arch, d.Device.Rows, d.Device.Cols)
		line("digits", "%d of %d classified correctly, %.2f %%", d.Correct, d.Images, 100*d.Accuracy)
		line("bit-exact", "%d of %d bytes of accumulators and outputs equal the reference", d.Compared-d.Mismatched, d.Compared)
		line("throughput", "%.0f images/s (%.2f s)", float64(d.Images)/d.Seconds, d.Seconds)
		line("counters", "%d commands, %d instructions, %d MACs, %d interrupts", c["commands"], c["instructions"], c["macs"], c["interrupts"])
		line("DMA", "%d bytes read, %d bytes written", c["dma_read"], c["dma_written"])
	}
	if r.Retried != "" {
		line("retried", "%s", r.Retried)
	}
	fmt.Fprintln(w)
	for _, name := range r.order {
		fmt.Fprintf(w, "  %-52s %8s\n", name, r.Stages[name])
	}
	fmt.Fprintf(w, "\nlogs: %s, %s\n", r.Console, r.CardLog)
}
