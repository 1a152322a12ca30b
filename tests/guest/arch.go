// SPDX-License-Identifier: Apache-2.0

package guest

import "runtime"

// Arch is an architecture of guests.
type Arch struct {
	name     string // in Debian's and in Go's words
	qemu     string // QEMU's program
	setup    string // setup.sh's option that fetches what is needed, or ""
	root     string // where kernels and busybox are in the tool root
	compiler string // in the tool root
	machine  string // the default of Config.Machine
	console  string // the kernel's name of the first serial port
	tcg      string // the processor that TCG plays
	kernel   string // arguments of the kernel
}

// AMD64 guests are QEMU's q35. no_timer_check: a busy host fails the kernel's test of its timer.
var AMD64 = &Arch{
	name: "amd64", qemu: "qemu-system-x86_64", compiler: "gcc",
	machine: "q35,sata=off", console: "ttyS0", tcg: "max", kernel: "no_timer_check",
}

// ARM64 guests are QEMU's virt with its interrupt controller for messages (GICv3 and ITS). Pointer authentication as
// the architecture defines it takes half of TCG's time, so QEMU's own is used.
var ARM64 = &Arch{
	name: "arm64", qemu: "qemu-system-aarch64", setup: " --arm64", root: "arm64", compiler: "aarch64-linux-gnu-gcc-14",
	machine: "virt,gic-version=3,its=on", console: "ttyAMA0", tcg: "max,pauth-impdef=on",
}

// native reports whether KVM of this machine might run the architecture.
func (a *Arch) native() bool { return a.name == runtime.GOARCH }
