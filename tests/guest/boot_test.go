// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// boot is Boot, and shows the console of a test that fails.
func boot(t *testing.T, ctx context.Context, e *Env, cfg Config) (*Result, error) {
	t.Helper()
	res, err := Boot(ctx, e, cfg)
	Note(t, res, err)
	t.Cleanup(func() {
		if t.Failed() && res != nil {
			t.Logf("console:\n%s", res.Console)
		}
	})
	return res, err
}

// Everything at once, on every kernel: a device on a root port, a module of ours with one of the kernel's below it, a
// static program, data both ways, stages and the exit status.
func TestBoot(t *testing.T) {
	e := Require(t)
	for _, kernel := range e.Kernels() {
		t.Run(kernel, func(t *testing.T) {
			ctx := t.Context()
			ko, warnings, err := e.BuildModule(ctx, kernel, "testdata/hello", t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if len(warnings) > 0 {
				t.Errorf("W=1 warnings:\n%s", strings.Join(warnings, "\n"))
			}
			edu := filepath.Join(t.TempDir(), "edu")
			if err := e.BuildProgram(ctx, edu, []string{"testdata/edu.c"}); err != nil {
				t.Fatal(err)
			}
			data := filepath.Join(t.TempDir(), "data")
			binary := "\x00\r\n\xff\x04data\n"
			if err := os.WriteFile(data, []byte(binary), 0o666); err != nil {
				t.Fatal(err)
			}
			var lines []string
			res, err := boot(t, ctx, e, Config{
				Kernel:    kernel,
				Modules:   []string{ko, "drm_shmem_helper"},
				Files:     map[string]string{"/bin/edu": edu, "/data/in": data},
				ExtraArgs: []string{"-device", "ioh3420,id=rp9,chassis=9", "-device", "edu,bus=rp9"},
				OnLine:    func(line string) { lines = append(lines, line) },
				Script: `
					set -e
					uname -r >$RESULT/release
					stage devices
					for d in /sys/bus/pci/devices/*; do
						echo "${d##*/} $(cat $d/vendor $d/device $d/class | tr '\n' ' ')"
						case $(cat $d/vendor $d/device) in
						0x1234*0x11e8) echo 1 >$d/enable; edu $d/resource0 >$RESULT/edu ;;
						esac
					done
					stage modules
					modprobe hello
					lsmod >$RESULT/lsmod
					rmmod hello
					modprobe hello
					rmmod hello
					modprobe drm_shmem_helper
					mkdir $RESULT/sub
					cp /data/in $RESULT/sub/out
					exit 7`,
			})
			if err != nil {
				t.Fatal(err)
			}
			if res.Retried != "" {
				t.Logf("retried: %s", res.Retried)
			}
			if res.Status != 7 {
				t.Errorf("exit status %d, want 7", res.Status)
			}
			lsmod := string(res.Files["lsmod"])
			delete(res.Files, "lsmod")
			if !strings.Contains(lsmod, "\nhello ") || !strings.Contains(lsmod, "\ncrc8 ") {
				t.Errorf("lsmod after modprobe hello:\n%s", lsmod)
			}
			want := map[string][]byte{
				"release": []byte(kernel + "\n"),
				"edu":     []byte("010000ed 120\n"),
				"sub/out": []byte(binary),
			}
			if diff := cmp.Diff(want, res.Files); diff != "" {
				t.Errorf("files from the guest (-want +got):\n%s", diff)
			}
			var names []string
			for _, s := range res.Stages {
				names = append(names, s.Name)
			}
			if diff := cmp.Diff([]string{"boot", "devices", "modules"}, names); diff != "" {
				t.Errorf("stages (-want +got):\n%s", diff)
			}
			// CRC-8 with polynomial 0x07 of "hello" is 0x92.
			if n := strings.Count(strings.Join(lines, "\n"), "hello: crc8 92"); n != 2 {
				t.Errorf("the module was seen on the console %d times, want 2", n)
			}
			t.Logf("QEMU %s, Linux %s, %s: %v, power-off %v", res.QEMU, res.Kernel, res.Accel, res.Stages, res.PowerOff)
		})
	}
}

// The ways in which a boot ends badly, each told apart.
func TestBootFails(t *testing.T) {
	e := Require(t)
	tests := []struct {
		name   string
		cfg    Config
		cancel string // cancel ctx when this is seen on the console
		want   string // in the error
		is     error
	}{
		{name: "panic in the script", cfg: Config{Script: "echo c >/proc/sysrq-trigger; sleep 60"}, want: "died in the script"},
		{name: "script too slow", cfg: Config{Script: "sleep 1000", Timeout: time.Second}, want: "did not end within"},
		{name: "killed", cfg: Config{Script: "echo half way; sleep 1000"}, cancel: "half way", is: context.Canceled},
		{name: "no server", cfg: Config{Sockets: []string{"/nonexistent/socket"}}, want: "/nonexistent/socket"},
		{name: "no kernel", cfg: Config{Kernel: "2.6"}, want: `no kernel "2.6"`},
		{name: "no module", cfg: Config{Modules: []string{"nosuch"}}, want: `no module "nosuch"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			tt.cfg.OnLine = func(line string) {
				if line == tt.cancel && line != "" {
					cancel()
				}
			}
			start := time.Now()
			res, err := boot(t, ctx, e, tt.cfg)
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("error %v, want %q %v", err, tt.want, tt.is)
			}
			if res != nil && res.Retried != "" {
				t.Errorf("retried: %s", res.Retried)
			}
			if d := time.Since(start); d > time.Minute {
				t.Errorf("took %v", d)
			}
		})
	}
}

// A guest that dies before /init is started twice, and the result says so.
func TestBootRetries(t *testing.T) {
	e := Require(t)
	var console strings.Builder
	res, err := boot(t, t.Context(), e, Config{Append: "rdinit=/nosuch root=/dev/none", Console: &console})
	if !errors.Is(err, errBeforeInit) {
		t.Fatalf("error %v, want %v", err, errBeforeInit)
	}
	if res.Retried == "" || !strings.Contains(console.String(), "one more attempt") {
		t.Errorf("Retried %q, console:\n%s", res.Retried, console.String())
	}
}

// A warning of the compiler reaches the caller; so does an error.
func TestBuildWarnings(t *testing.T) {
	e := Require(t)
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("Kbuild", "obj-m := w.o\n")
	write("w.c", "#include <linux/module.h>\nint unused_global(void);\nint missing(void) { return 0; }\nMODULE_LICENSE(\"GPL\");\n")
	for _, kernel := range e.Kernels() {
		_, warnings, err := e.BuildModule(t.Context(), kernel, dir, t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		// Two things are wrong: no prototype (gcc), no description (modpost).
		all := strings.Join(warnings, "\n")
		if !strings.Contains(all, "missing") || !strings.Contains(all, "MODULE_DESCRIPTION") {
			t.Errorf("%s: warnings:\n%s", kernel, all)
		}
	}
	write("p.c", "int main(void) { int unused; return 0; }\n")
	err := e.BuildProgram(t.Context(), filepath.Join(dir, "p"), []string{filepath.Join(dir, "p.c")})
	if err == nil || !strings.Contains(err.Error(), "unused") {
		t.Errorf("BuildProgram: %v, want the compiler's warning as an error", err)
	}
}
