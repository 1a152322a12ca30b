// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// accel returns "kvm" if it works here, else "tcg". NPUEMU_ACCEL overrides.
//
// That /dev/kvm opens is not enough: inside some virtual machines it exists and cannot run a kernel of today. So the
// kernel is started once, without an initramfs, and must get as far as to complain of that. The answer is kept until
// the host boots again or QEMU changes.
func (e *Env) accel(ctx context.Context) (string, error) {
	switch a := os.Getenv("NPUEMU_ACCEL"); a {
	case "":
	case "kvm", "tcg":
		if a == "tcg" || e.Arch.native() {
			return a, nil
		}
	default:
		return "", fmt.Errorf("guest: NPUEMU_ACCEL=%q: want kvm or tcg", a)
	}
	if !e.Arch.native() {
		return "tcg", nil
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return "tcg", nil
	}
	kvm.Close()

	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("guest: %w", err)
	}
	key := strings.TrimSpace(string(bootID)) + " " + e.QEMU + " " + e.QEMUVersion + " "
	path := filepath.Join(e.Cache, "accel")
	if known, err := os.ReadFile(path); err == nil {
		if a, ok := strings.CutPrefix(string(known), key); ok {
			return a, nil
		}
	}
	accel := "tcg"
	if e.kvmWorks(ctx) {
		accel = "kvm"
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("guest: %w", ctx.Err())
	}
	// Only a cache: when it cannot be written the next boot asks again.
	_ = os.WriteFile(path, []byte(key+accel), 0o666)
	return accel, nil
}

func (e *Env) kvmWorks(ctx context.Context) bool {
	const limit = 10 * time.Second // takes 1 s where it works
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errors.New("no answer"))
	defer cancel()
	works := false
	console := &lineWriter{onLine: func(line string) {
		switch {
		case strings.Contains(line, "Kernel panic") && strings.Contains(line, "root fs"):
			works = true
		case strings.Contains(line, "KVM internal error"):
			cancel() // QEMU only stops the guest
		}
	}}
	args := append(e.accelArgs("kvm"),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", e.Arch.machine, "-m", "256M",
		"-serial", "stdio", "-kernel", e.kernelImage(e.kernels[0]),
		"-append", "console="+e.Arch.console+" quiet panic=-1 root=/dev/none")
	_ = e.runQEMU(ctx, args, console) // whatever the reason, the answer is in works
	return works
}
