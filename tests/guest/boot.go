// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Config says what the guest is made of and what it does. The zero value of every field but Script is useful.
type Config struct {
	Kernel  string // "" for the newest, a prefix such as "6.12", or a whole release
	Machine string // QEMU's machine with its properties; "" for the architecture's

	// Modules may be loaded in the guest with modprobe: names of the kernel's own modules, and paths of .ko files
	// of ours. What they need comes along. Nothing is loaded by itself.
	Modules []string

	// Files maps paths in the guest to files of the host; permission bits are kept.
	Files map[string]string

	// Tools are programs of the tool root, such as lspci, that an x86-64 guest has in /usr/bin, with their libraries.
	Tools []string

	// Script is run by busybox sh as root, with proc, sysfs and devtmpfs mounted and the console as output. The
	// command "stage NAME" ends one stage of Result.Stages and begins the next. Files below the directory $RESULT
	// come back in Result.Files. The guest powers off when the script ends.
	Script string

	Sockets   []string // vfio-user sockets, each listened on already; one device each, with ids npu0, npu1, …
	RootPort  bool     // put each device behind a PCIe root port of its own (AER works there), not on bus 0
	IOMMU     IOMMU    // none if 0
	ExtraArgs []string // more of QEMU's arguments; they come before the devices, as intel-iommu must
	Append    string   // more of the kernel's arguments
	Memory    int      // MiB, 512 if 0

	// Packed starts the kernel as its distribution packed it, which takes longer. An unpacked one QEMU loads again when the
	// guest wakes from S3, over the one that slept.
	Packed bool

	// Timeout limits Script, 2 minutes if 0. Reaching /init has a limit of its own. NPUEMU_TIMEOUT_SCALE, a
	// number, multiplies both.
	Timeout time.Duration

	Console io.Writer // gets the console as it comes, and QEMU's own messages

	// OnLine, if not nil, is called with every line of the console, without its end, one call at a time and not on
	// Boot's goroutine. To stop QEMU at once, as kill -9 would, cancel ctx here.
	OnLine func(line string)

	image string // the kernel, as QEMU gets it
}

// Result is what is known of a boot, whether it went well or not.
type Result struct {
	Console  string            // all of it, QEMU's messages too
	Status   int               // exit status of the script
	Files    map[string][]byte // what the script left in $RESULT, by path relative to it
	Stages   []Stage           // "boot" is the time until /init ran; the others are the script's
	Retried  string            // why a first attempt was given up, or ""
	QEMU     string            // QEMU's version
	Kernel   string            // the kernel's release
	Accel    string            // "kvm" or "tcg"
	PowerOff time.Duration     // from the script's end to QEMU's
}

// Stage is one part of a boot.
type Stage struct {
	Name     string
	Duration time.Duration
}

const (
	initTimeout    = 150 * time.Second // stock kernels take 7 s under TCG on an idle core, up to a minute on a busy one
	defaultTimeout = 2 * time.Minute
	markerPrefix   = "npuemu-guest: "
)

// initScript is the guest's first process. Markers go to the console for whoever watches, and into a file, which
// kernel messages cannot tear.
const initScript = `#!/bin/sh
export PATH=/bin HOME=/ RESULT=/result
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
dmesg -n 5 # the kernel's warnings of itself are warnings
mark() {
	read -r now _ </proc/uptime
	echo "` + markerPrefix + `$now $*"
	echo "` + markerPrefix + `$now $*" >>/markers
}
stage() { mark stage "$@"; }
mark init
( . /script )
mark exit $?
tar -c -f /dev/vport?p1 -C / markers result
poweroff -f
`

// errBeforeInit marks an attempt in which the guest did not get as far as /init. No driver of ours ran, so the cause
// is a starved host or the emulator.
var errBeforeInit = errors.New("guest died before /init")

// Boot runs cfg.Script in a fresh guest and waits for its end. The error is nil if the script ran to its end, whatever
// its exit status: look at Result.Status. Result is not nil if QEMU was started. A guest that dies before /init is
// booted a second time and Result.Retried says so. When ctx ends QEMU is killed.
func Boot(ctx context.Context, e *Env, cfg Config) (*Result, error) {
	release, err := e.release(cfg.Kernel)
	if err != nil {
		return nil, err
	}
	scale := 1.0
	if s := os.Getenv("NPUEMU_TIMEOUT_SCALE"); s != "" {
		if scale, err = strconv.ParseFloat(s, 64); err != nil || scale <= 0 {
			return nil, fmt.Errorf("guest: NPUEMU_TIMEOUT_SCALE=%q is not a positive number", s)
		}
	}
	dir, err := os.MkdirTemp("", "npuemu-guest-")
	if err != nil {
		return nil, fmt.Errorf("guest: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := e.writeInitramfs(ctx, filepath.Join(dir, "initramfs"), release, cfg); err != nil {
		return nil, err
	}
	accel, err := e.accel(ctx)
	if err != nil {
		return nil, err
	}
	if cfg.image = e.kernelImage(release); !cfg.Packed {
		if cfg.image, err = e.unpacked(ctx, cfg.image); err != nil {
			return nil, err
		}
	}

	res, err := e.attempt(ctx, cfg, release, accel, dir, scale)
	if errors.Is(err, errBeforeInit) {
		first := err
		if cfg.Console != nil {
			fmt.Fprintf(cfg.Console, "guest: %v: infrastructure, not the driver; one more attempt\n", first)
		}
		if res, err = e.attempt(ctx, cfg, release, accel, dir, scale); err != nil {
			err = fmt.Errorf("%w (second attempt; the first: %w)", err, first)
		}
		res.Retried = first.Error()
	}
	return res, err
}

// attempt starts QEMU once. The result is never nil.
func (e *Env) attempt(ctx context.Context, cfg Config, release, accel, dir string, scale float64) (*Result, error) {
	res := &Result{QEMU: e.QEMUVersion, Kernel: release, Accel: accel, Files: map[string][]byte{}}
	resultPath := filepath.Join(dir, "result.tar")
	if err := os.RemoveAll(resultPath); err != nil {
		return res, fmt.Errorf("guest: %w", err)
	}
	args, err := e.qemuArgs(cfg, release, accel, filepath.Join(dir, "initramfs"), resultPath)
	if err != nil {
		return res, err
	}
	timeout := cfg.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	timeout = time.Duration(float64(timeout) * scale)
	beforeInit := time.Duration(float64(initTimeout) * scale)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(beforeInit, func() {
		cancel(fmt.Errorf("%w within %v", errBeforeInit, beforeInit))
	})

	start := time.Now()
	var boot, scriptEnd time.Duration // since start; 0 if it did not come to that
	var markers []string
	console := &lineWriter{raw: cfg.Console, onLine: func(line string) {
		if i := strings.Index(line, markerPrefix); i >= 0 {
			markers = append(markers, line[i:])
			if boot == 0 { // even if the marker is torn
				boot = time.Since(start)
				timer.Stop()
				timer = time.AfterFunc(timeout, func() {
					cancel(fmt.Errorf("the script did not end within %v", timeout))
				})
			}
			if strings.Contains(line[i:], " exit ") {
				scriptEnd = time.Since(start)
			}
		}
		if cfg.OnLine != nil {
			cfg.OnLine(line)
		}
	}}
	waitErr := e.runQEMU(ctx, args, console) // console is not written to after this
	timer.Stop()
	end := time.Since(start)
	res.Console = console.all.String()

	err = readResult(resultPath, res, &markers)
	if boot > 0 {
		res.Stages = append(res.Stages, Stage{"boot", boot})
	}
	status, ended := res.addStages(markers)
	res.Status = status
	if scriptEnd > 0 {
		res.PowerOff = end - scriptEnd
	}

	cause := context.Cause(ctx)
	switch {
	case cause != nil:
		return res, fmt.Errorf("guest: %w", cause)
	case waitErr != nil:
		return res, fmt.Errorf("guest: %s: %w: %s", e.QEMU, waitErr, console.tail())
	case boot == 0:
		return res, fmt.Errorf("guest: %w: %s", errBeforeInit, console.tail())
	case !ended:
		return res, fmt.Errorf("guest: died in the script: %s", console.tail())
	case err != nil:
		return res, fmt.Errorf("guest: result channel: %w", err)
	}
	return res, nil
}

// qemuArgs returns QEMU's command line.
func (e *Env) qemuArgs(cfg Config, release, accel, initramfs, result string) ([]string, error) {
	memory := strconv.Itoa(cfg.Memory) + "M"
	if cfg.Memory == 0 {
		memory = "512M"
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-vga", "none", "-net", "none",
		"-machine", cmp.Or(cfg.Machine, e.Arch.machine) + ",memory-backend=mem", "-smp", "1", "-m", memory,
		// The device reaches guest memory through the file descriptor of this memory.
		"-object", "memory-backend-memfd,id=mem,share=on,size=" + memory,
		"-kernel", cfg.image, "-initrd", initramfs,
		// The last two save a fifth of the boot.
		"-append", "console=" + e.Arch.console + " quiet panic=-1 " + e.Arch.kernel + " nokaslr cryptomgr.notests " + cfg.Append,
		"-serial", "stdio",
	}
	args = append(args, e.accelArgs(accel)...)
	args = append(args, cfg.IOMMU.args()...)
	args = append(args, cfg.ExtraArgs...)
	args = append(args,
		"-device", "virtio-serial-pci,addr=0x1e",
		"-chardev", "file,id=result,path="+result, "-device", "virtserialport,chardev=result,name=result")
	for i, socket := range cfg.Sockets {
		device := map[string]any{
			"driver": "vfio-user-pci", "id": fmt.Sprintf("npu%d", i),
			"socket": map[string]string{"path": socket, "type": "unix"},
		}
		if cfg.RootPort {
			// ioh3420, because pcie-root-port cannot finish the recovery from a fatal error.
			port := fmt.Sprintf("port%d", i)
			args = append(args, "-device", fmt.Sprintf("ioh3420,id=%s,bus=pcie.0,chassis=%d", port, i+1))
			device["bus"] = port
		}
		text, err := json.Marshal(device) // only JSON can name the socket
		if err != nil {
			return nil, fmt.Errorf("guest: socket %q: %w", socket, err)
		}
		args = append(args, "-device", string(text))
	}
	return args, nil
}

func (e *Env) accelArgs(accel string) []string {
	if accel == "kvm" {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	return []string{"-accel", "tcg", "-cpu", e.Arch.tcg}
}

func (e *Env) kernelImage(release string) string {
	if image := e.own(release, "vmlinux"); e.isOwn(release) {
		if _, err := os.Stat(image); err == nil {
			return image
		}
	}
	image := filepath.Join(e.modulesDir(release), "vmlinuz")
	if _, err := os.Stat(image); err != nil {
		image = e.guestRoot("boot/vmlinuz-" + release) // where it is in trixie
	}
	return image
}

// runQEMU starts QEMU and waits for it; when ctx ends it is killed. Standard output is the console. It dies with this
// process, and therefore with the thread that started it, which is why that one is locked.
func (e *Env) runQEMU(ctx context.Context, args []string, console io.Writer) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, e.QEMU, args...)
	cmd.Stdout, cmd.Stderr = console, console
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}

func (e *Env) writeInitramfs(ctx context.Context, path, release string, cfg Config) error {
	text, err := os.ReadFile(e.guestRoot("usr/bin/busybox"))
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	busybox := e.root("usr/bin/busybox") // the same release, for this machine
	applets, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("guest: %s --list: %w", busybox, err)
	}
	w := &cpioWriter{}
	w.File("bin/busybox", 0o755, text)
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			w.Symlink("bin/"+applet, "busybox")
		}
	}
	w.CharDevice("dev/console", 5, 1)
	for _, dir := range []string{"proc", "sys", "tmp", "result"} {
		w.Dir(dir)
	}
	w.File("init", 0o755, []byte(initScript))
	w.File("script", 0o644, []byte(cfg.IOMMU.script()+cfg.Script))
	if err := e.addModules(ctx, w, release, append(cfg.IOMMU.modules(), cfg.Modules...)); err != nil {
		return err
	}
	if len(cfg.Tools) > 0 && e.Arch != AMD64 {
		return fmt.Errorf("guest: tools %v run on amd64 only, the guest is %s", cfg.Tools, e.Arch.name)
	}
	files, err := toolFiles(e.root(""), cfg.Tools)
	if err != nil {
		return err
	}
	maps.Copy(files, cfg.Files)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		source := files[name]
		info, err := os.Stat(source)
		if err != nil {
			return fmt.Errorf("guest: %w", err)
		}
		text, err := os.ReadFile(source)
		if err != nil {
			return fmt.Errorf("guest: %w", err)
		}
		w.File(name, uint32(info.Mode().Perm()), text)
	}
	if err := os.WriteFile(path, w.Bytes(), 0o600); err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	return nil
}

// readResult reads the archive that /init sent. An archive that is cut short leaves markers and res.Files as they are.
func readResult(path string, res *Result, markers *[]string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if files[h.Name], err = io.ReadAll(r); err != nil {
			return err
		}
	}
	text, ok := files["markers"]
	if !ok {
		return errors.New("nothing came from the guest")
	}
	*markers = strings.Split(strings.TrimSpace(string(text)), "\n")
	for name, text := range files {
		if name, ok := strings.CutPrefix(name, "result/"); ok {
			res.Files[name] = text
		}
	}
	return nil
}

// addStages turns markers into stages. ended reports whether the script came to its end, with status.
func (res *Result) addStages(markers []string) (status int, ended bool) {
	name, since := "script", 0.0
	for _, m := range markers {
		f := strings.Fields(strings.TrimPrefix(m, markerPrefix))
		if len(f) < 2 {
			continue
		}
		now, err := strconv.ParseFloat(f[0], 64)
		if err != nil {
			continue // torn by a kernel message
		}
		// What comes before the first stage is a stage only if there is no other.
		if f[1] == "exit" || f[1] == "stage" && name != "script" {
			res.Stages = append(res.Stages, Stage{name, time.Duration((now - since) * float64(time.Second))})
		}
		since = now
		switch f[1] {
		case "stage":
			name = strings.Join(f[2:], " ")
		case "exit":
			if len(f) == 3 {
				if status, err = strconv.Atoi(f[2]); err == nil {
					ended = true
				}
			}
		}
	}
	return status, ended
}

// lineWriter keeps what is written, copies it to raw if that is not nil, and hands every full line to onLine.
type lineWriter struct {
	all    bytes.Buffer
	seen   int // bytes of all that onLine had
	raw    io.Writer
	onLine func(string)
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.all.Write(p)
	if w.raw != nil {
		if _, err := w.raw.Write(p); err != nil {
			return 0, err
		}
	}
	for {
		n := bytes.IndexByte(w.all.Bytes()[w.seen:], '\n')
		if n < 0 {
			return len(p), nil
		}
		line := w.all.Bytes()[w.seen : w.seen+n]
		w.seen += n + 1
		w.onLine(string(bytes.TrimRight(line, "\r")))
	}
}

// tail returns the last lines, for an error message.
func (w *lineWriter) tail() string {
	lines := strings.Split(strings.TrimSpace(w.all.String()), "\n")
	return "\n" + strings.Join(lines[max(0, len(lines)-15):], "\n")
}
