// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package gokvm

import (
	"unsafe"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"
)

// Numbers of the ioctls of linux/kvm.h that carry a pointer.
const (
	nrGetSupportedCPUID = 0x05
	nrSetMemoryRegion   = 0x46
	nrSetIdentityMap    = 0x48
	nrIRQLine           = 0x61
	nrSetGSIRouting     = 0x6a
	nrIRQFD             = 0x76
	nrCreatePIT2        = 0x77
	nrSetRegs           = 0x82
	nrGetSregs          = 0x83
	nrSetSregs          = 0x84
	nrSetCPUID2         = 0x90
)

// cpuidHeader is struct kvm_cpuid2 without its entries.
type cpuidHeader struct{ n, _ uint32 }

// maxCPUID is more entries than any processor has.
const maxCPUID = 256

type cpuid struct {
	cpuidHeader
	entries [maxCPUID]kvm.CPUIDEntry2
}

// irqfdResample: the pin is a level, and resample is signalled when the guest ends the
// interrupt (KVM_IRQFD_FLAG_RESAMPLE).
const irqfdResample = 1 << 1

// irqfd is struct kvm_irqfd.
type irqfd struct {
	fd, gsi, flags, resample uint32
	_                        [16]byte
}

// pit is struct kvm_pit_config.
type pit struct {
	flags uint32
	_     [15]uint32
}

// irqLevel is struct kvm_irq_level.
type irqLevel struct{ irq, level uint32 }

// route is struct kvm_irq_routing_entry. a to d are chip and pin, or the message's
// address (low, high) and data.
type route struct {
	gsi, kind, flags, _ uint32
	a, b, c             uint32
	_                   [5]uint32
}

const (
	routeChip    = 1 // KVM_IRQ_ROUTING_IRQCHIP
	routeMessage = 2 // KVM_IRQ_ROUTING_MSI
)

// maxRoutes: 16 inputs of the PICs, 24 of the I/O APIC, the device's vectors.
const maxRoutes = 16 + ioapicPins + maxVectors

// routing is struct kvm_irq_routing.
type routing struct {
	n, _    uint32
	entries [maxRoutes]route
}

// ioctl calls an ioctl that moves the n bytes at p.
func ioctl(fd int, number uintptr, p unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), number, uintptr(p))
	if errno != 0 {
		return errno
	}
	return nil
}

func createPIT(vm int) error {
	c := pit{flags: 1} // also models port 0x61
	return ioctl(vm, kvm.IIOW(nrCreatePIT2, unsafe.Sizeof(c)), unsafe.Pointer(&c))
}

func setIdentityMap(vm int, addr uint64) error {
	return ioctl(vm, kvm.IIOW(nrSetIdentityMap, unsafe.Sizeof(addr)), unsafe.Pointer(&addr))
}

// setMemory makes mem guest memory at addr; mem nil removes the slot.
func setMemory(vm int, slot uint32, addr uint64, mem []byte) error {
	r := kvm.UserspaceMemoryRegion{Slot: slot, GuestPhysAddr: addr, MemorySize: uint64(len(mem))}
	if len(mem) > 0 {
		r.UserspaceAddr = uint64(uintptr(unsafe.Pointer(&mem[0]))) // mmapped: it does not move
	}
	return ioctl(vm, kvm.IIOW(nrSetMemoryRegion, unsafe.Sizeof(r)), unsafe.Pointer(&r))
}

// setCPUID gives the processor what KVM supports, as processor 0.
func setCPUID(sys, cpu int) error {
	c := &cpuid{cpuidHeader: cpuidHeader{n: maxCPUID}}
	if err := ioctl(sys, kvm.IIOWR(nrGetSupportedCPUID, unsafe.Sizeof(cpuidHeader{})), unsafe.Pointer(c)); err != nil {
		return err
	}
	for i := range c.entries[:c.n] {
		switch e := &c.entries[i]; e.Function {
		case 1: // APIC id of the processor that we ran on, and how many there are
			e.Ebx = e.Ebx&0xffff | 1<<16
		case 0xb, 0x1f: // topology: x2APIC id
			e.Edx = 0
		}
	}
	return ioctl(cpu, kvm.IIOW(nrSetCPUID2, unsafe.Sizeof(cpuidHeader{})), unsafe.Pointer(c))
}

func setIRQLine(vm int, irq uint32, level bool) error {
	l := irqLevel{irq: irq}
	if level {
		l.level = 1
	}
	return ioctl(vm, kvm.IIOW(nrIRQLine, unsafe.Sizeof(l)), unsafe.Pointer(&l))
}

// setIRQFD makes KVM raise f.gsi when f.fd is signalled.
func setIRQFD(vm int, f irqfd) error {
	return ioctl(vm, kvm.IIOW(nrIRQFD, unsafe.Sizeof(f)), unsafe.Pointer(&f))
}

// setRouting replaces the table from gsi to interrupt.
func setRouting(vm int, entries []route) error {
	r := &routing{n: uint32(len(entries))}
	copy(r.entries[:], entries)
	return ioctl(vm, kvm.IIOW(nrSetGSIRouting, unsafe.Sizeof(cpuidHeader{})), unsafe.Pointer(r))
}

func setRegs(cpu int, r *kvm.Regs) error {
	return ioctl(cpu, kvm.IIOW(nrSetRegs, unsafe.Sizeof(*r)), unsafe.Pointer(r))
}

func getSregs(cpu int) (*kvm.Sregs, error) {
	s := new(kvm.Sregs)
	return s, ioctl(cpu, kvm.IIOR(nrGetSregs, unsafe.Sizeof(*s)), unsafe.Pointer(s))
}

func setSregs(cpu int, s *kvm.Sregs) error {
	return ioctl(cpu, kvm.IIOW(nrSetSregs, unsafe.Sizeof(*s)), unsafe.Pointer(s))
}

// runData is the start of the page that KVM shares with us.
func runData(page []byte) *kvm.RunData { return (*kvm.RunData)(unsafe.Pointer(&page[0])) }
