// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package gokvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/bobuhiro11/gokvm/bootparam"
	"github.com/bobuhiro11/gokvm/kvm"
)

// Where things are in guest memory when the processor starts.
const (
	gdtAt      = 0x1000
	tablesAt   = 0x2000 // 6 pages
	zeroPageAt = 0x10000
	cmdlineAt  = 0x20000
	mpTableAt  = bootparam.EBDAStart
	kernelAt   = 0x100000
)

// Selectors that the 64-bit boot protocol asks for.
const (
	selectorCode = 0x10
	selectorData = 0x18
)

// setup64 puts the processor into 64-bit mode with the first 4 GiB mapped one to
// one and interrupts off, at rip, with rsi.
func (v *vm) setup64(rip, rsi uint64) error {
	le := binary.LittleEndian
	le.PutUint64(v.mem[gdtAt+selectorCode:], 0x00af_9b00_0000_ffff)
	le.PutUint64(v.mem[gdtAt+selectorData:], 0x00cf_9300_0000_ffff)
	const present, large = 0x3, 0x83 // present and writable; of 2 MiB
	le.PutUint64(v.mem[tablesAt:], tablesAt+pageSize|present)
	for i := range uint64(4) {
		le.PutUint64(v.mem[tablesAt+pageSize+8*i:], tablesAt+(2+i)*pageSize|present)
	}
	for i := range uint64(4 << 30 / hugePage) {
		le.PutUint64(v.mem[tablesAt+2*pageSize+8*i:], i*hugePage|large)
	}
	s, err := getSregs(v.cpu)
	if err != nil {
		return fmt.Errorf("gokvm: processor: %w", err)
	}
	s.GDT = kvm.Descriptor{Base: gdtAt, Limit: selectorData + 7}
	s.IDT = kvm.Descriptor{}
	s.CR0 = 0x8000_0033 // PG, NE, ET, MP, PE
	s.CR3 = tablesAt
	s.CR4 = 0x20   // PAE
	s.EFER = 0x500 // LME, LMA
	s.CS = kvm.Segment{Limit: 0xffff_ffff, Selector: selectorCode, Typ: 11, Present: 1, S: 1, L: 1, G: 1}
	data := kvm.Segment{Limit: 0xffff_ffff, Selector: selectorData, Typ: 3, Present: 1, S: 1, DB: 1, G: 1}
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	if err := setSregs(v.cpu, s); err != nil {
		return fmt.Errorf("gokvm: processor: %w", err)
	}
	if err := setRegs(v.cpu, &kvm.Regs{RIP: rip, RSI: rsi, RFLAGS: 2}); err != nil {
		return fmt.Errorf("gokvm: processor: %w", err)
	}
	return nil
}

// loadPayload puts a payload into guest memory, and the processor at its start.
func (v *vm) loadPayload(cfg Config) error {
	if n, room := len(cfg.Payload), len(v.mem)-kernelAt; n > room {
		return fmt.Errorf("gokvm: a payload of %d bytes; memory from 1 MiB on has %d: give the guest more", n, room)
	}
	copy(v.mem[kernelAt:], cfg.Payload)
	return v.setup64(kernelAt, 0)
}

// loadLinux puts kernel, initrd and their parameters into guest memory, and the
// processor at the kernel's 64-bit entry.
func (v *vm) loadLinux(cfg Config) error {
	if cfg.Kernel == nil {
		return errors.New("gokvm: no kernel: give a bzImage")
	}
	p, err := bootparam.New(cfg.Kernel)
	if err != nil {
		return fmt.Errorf("gokvm: kernel: %w; give a bzImage for x86-64", err)
	}
	const entry64, needs = 1 << 0, 0x20c // XLF_KERNEL_64, boot protocol 2.12
	if p.Hdr.Version < needs || p.Hdr.XloadFlags&entry64 == 0 {
		return fmt.Errorf("gokvm: kernel: boot protocol %#x, xloadflags %#x: not a 64-bit kernel of Linux 3.8 or later", p.Hdr.Version, p.Hdr.XloadFlags)
	}
	setup := int64(p.Hdr.SetupSects)
	if setup == 0 {
		setup = 4
	}
	if len(cfg.Cmdline) > int(p.Hdr.CmdlineSize) {
		return fmt.Errorf("gokvm: command line of %d bytes; this kernel takes %d", len(cfg.Cmdline), p.Hdr.CmdlineSize)
	}
	n, err := readAll(cfg.Kernel, (setup+1)*512, v.mem[kernelAt:])
	if err != nil {
		return fmt.Errorf("gokvm: kernel: %w", err)
	}
	end := kernelAt + max(uint64(p.Hdr.InitSize), uint64(n))
	if top := p.Hdr.PrefAddress + uint64(p.Hdr.InitSize); p.Hdr.PrefAddress >= kernelAt && top > end {
		end = top // where it moves to
	}
	if end > uint64(len(v.mem)) {
		return fmt.Errorf("gokvm: the kernel needs %#x bytes of memory; the guest has %#x", end, len(v.mem))
	}
	if cfg.Initrd != nil {
		if err := v.loadInitrd(cfg.Initrd, end, p); err != nil {
			return err
		}
	}
	copy(v.mem[cmdlineAt:], cfg.Cmdline+"\x00")
	copy(v.mem[mpTableAt:], mpTable())

	p.AddE820Entry(0, mpTableAt, bootparam.E820Ram)
	p.AddE820Entry(mpTableAt, kernelAt-mpTableAt, bootparam.E820Reserved)
	p.AddE820Entry(kernelAt, uint64(len(v.mem)-kernelAt), bootparam.E820Ram)
	p.AddE820Entry(reservedBase, 1<<32-reservedBase, bootparam.E820Reserved)
	p.Hdr.VidMode = 0xffff // normal
	p.Hdr.TypeOfLoader = 0xff
	p.Hdr.LoadFlags |= bootparam.LoadedHigh
	p.Hdr.CmdlinePtr = cmdlineAt
	b, err := p.Bytes()
	if err != nil {
		return fmt.Errorf("gokvm: boot parameters: %w", err)
	}
	copy(v.mem[zeroPageAt:], b)
	return v.setup64(kernelAt+0x200, zeroPageAt)
}

// loadInitrd puts the initrd as high as the kernel allows.
func (v *vm) loadInitrd(r io.ReaderAt, low uint64, p *bootparam.BootParam) error {
	size, err := sizeOf(r)
	if err != nil {
		return fmt.Errorf("gokvm: initrd: %w", err)
	}
	top := min(uint64(len(v.mem)), uint64(p.Hdr.InitrdAddrMax)+1)
	if uint64(size) > top-min(low, top) {
		return fmt.Errorf("gokvm: the initrd of %#x bytes does not fit between the kernel's end %#x and %#x: give the guest more memory", size, low, top)
	}
	at := (top - uint64(size)) &^ (pageSize - 1)
	if at < low {
		return fmt.Errorf("gokvm: the initrd of %#x bytes does not fit between the kernel's end %#x and %#x: give the guest more memory", size, low, top)
	}
	if _, err := r.ReadAt(v.mem[at:at+uint64(size)], 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("gokvm: initrd: %w", err)
	}
	p.Hdr.RamdiskImage, p.Hdr.RamdiskSize = uint32(at), uint32(size)
	return nil
}

// readAll reads r from off to its end into p.
func readAll(r io.ReaderAt, off int64, p []byte) (int, error) {
	n, err := r.ReadAt(p, off)
	switch {
	case err == nil:
		return n, fmt.Errorf("it does not fit into %#x bytes of memory", len(p))
	case !errors.Is(err, io.EOF):
		return n, err
	case n == 0:
		return 0, errors.New("it is empty")
	}
	return n, nil
}

// sizeOf returns how many bytes r has.
func sizeOf(r io.ReaderAt) (int64, error) {
	s := io.NewSectionReader(r, 0, 1<<62)
	return io.Copy(io.Discard, s)
}

// mpTable returns the tables of the MultiProcessor Specification 1.4 for this
// machine, to lie at mpTableAt: one processor, an ISA bus whose interrupts go
// to the same pins of the I/O APIC, the PICs behind the local APIC.
func mpTable() []byte {
	const (
		apicID, ioapicID       = 0, 1
		localAPIC, ioAPIC      = 0xfee0_0000, 0xfec0_0000
		pointerSize, headerLen = 16, 44
		pci, isa, irqs         = 0, 1, 16 // a PCI bus has its own number
		inta                   = npuSlot << 2
		levelLow               = 0xf // trigger level, active low
	)
	le := binary.LittleEndian
	entries, count := []byte(nil), uint16(0)
	add := func(b ...byte) { entries, count = append(entries, b...), count+1 }
	add(append([]byte{0, apicID, 0x14, 3}, make([]byte, 16)...)...) // enabled boot processor
	add(append([]byte{1, pci}, "PCI   "...)...)
	add(append([]byte{1, isa}, "ISA   "...)...)
	add(le.AppendUint32([]byte{2, ioapicID, 0x11, 1}, ioAPIC)...)
	for i := range byte(irqs) {
		add(3, 0, 0, 0, isa, i, ioapicID, i)
	}
	add(3, 0, levelLow, 0, pci, inta, ioapicID, irqNPU)
	add(4, 3, 0, 0, isa, 0, 0xff, 0) // the PICs on LINT0
	add(4, 1, 0, 0, isa, 0, 0xff, 1) // NMI on LINT1

	table := make([]byte, headerLen, headerLen+len(entries))
	copy(table, "PCMP")
	le.PutUint16(table[4:], uint16(headerLen+len(entries)))
	table[6] = 4
	copy(table[8:], "NPUEMU  ")
	copy(table[16:], "GOKVM       ")
	le.PutUint16(table[34:], count)
	le.PutUint32(table[36:], localAPIC)
	table = append(table, entries...)
	table[7] = checksum(table)

	pointer := make([]byte, pointerSize)
	copy(pointer, "_MP_")
	le.PutUint32(pointer[4:], mpTableAt+pointerSize)
	pointer[8], pointer[9] = 1, 4
	pointer[10] = checksum(pointer)
	return append(pointer, table...)
}

// checksum returns the byte that makes the sum of p zero.
func checksum(p []byte) byte {
	var sum byte
	for _, b := range p {
		sum -= b
	}
	return sum
}
