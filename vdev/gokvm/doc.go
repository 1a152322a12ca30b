// SPDX-License-Identifier: Apache-2.0

// Package gokvm is the embedded VMM: guest and device in one process, for
// bring-up without QEMU. It drives KVM through github.com/bobuhiro11/gokvm/kvm.
//
// The machine is small: one processor, memory below 3 GiB, KVM's interrupt
// controllers and timer, a serial port, a PCI bus with a host bridge at 00:00.0 and
// the device at 00:01.0. There is no firmware: Linux is entered as
// Documentation/arch/x86/boot.rst says (64-bit), finds the processor and the
// interrupt wiring in an MP table, and places the BARs itself. There is no ACPI,
// so configuration space ends at 0x100 for the guest: AER and the serial number
// cannot be seen.
//
//	0x0009fc00          MP table
//	0x00100000          kernel
//	end of memory       initrd
//	0xc0000000          free for BARs, as everything above 4 GiB
//	0xfec00000          interrupt controllers
//
// The device sees guest memory as the guest does, with bus address = physical
// address: both map the same file, nothing is copied. BAR2 is a memory
// slot of KVM while the guest has it open. MSI-X messages travel from the
// device's eventfd through KVM's irqfd to the local APIC; the table is the one in
// BAR4, and its mask bits are obeyed by the device.
//
// Of gokvm the packages bootparam and kvm are used; of the latter its types, the numbers of
// the ioctls, and the calls that pass no pointer. Its machine keeps ports and memory to itself
// and gives up on MMIO; its pci takes any enable bit and panics on a read at 0x40;
// its ioctls with pointers convert them to integers too early, so that a stack
// that moves would leave the kernel with a stale address.
//
// Boot's caller is the processor, and the only one to touch the bridge, the BARs
// and the routes. The serial port's input has a goroutine of its own; uart.mu is a
// leaf.
package gokvm
