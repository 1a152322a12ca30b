// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package gokvm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime"
	"time"

	"github.com/bobuhiro11/gokvm/kvm"
	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/vdev/local"
	"npuemu/vdev/vfiouser"
)

// Guest physical addresses.
const (
	memoryEnd    = 0xc000_0000 // BARs above
	reservedBase = 0xfec0_0000 // I/O APIC, local APIC, and what KVM needs on Intel:
	identityMap  = 0xfffb_c000 // a page
	taskState    = 0xfffb_d000 // three pages
)

const (
	pageSize    = 4096
	hugePage    = 2 << 20
	minMemory   = 16 << 20 // page tables, zero page, a small kernel
	ioapicPins  = 24
	irqNPU      = 16 // pin of INTA: the first that no ISA interrupt has
	maxVectors  = 64 // more than the device can have
	npuSlot     = 1  // device number on the bus
	slotMemory  = 0  // memory slots of KVM
	slotDevice  = 1
	deviceBAR   = 2 // the BAR that is memory
	tableBAR    = 4 // the BAR with the MSI-X table, at its start
	tableEntry  = 16
	exitSystem  = 24 // KVM_EXIT_SYSTEM_EVENT
	messageBase = 0xfee0_0000
	messageMask = 0xfff0_0000 // of an address that is an interrupt message
)

// vm is a machine with a device in it.
type vm struct {
	log      *slog.Logger
	sys      int // /dev/kvm
	fd       int
	cpu      int
	page     []byte // shared with KVM: struct kvm_run and the data of port accesses
	run      *kvm.RunData
	memFile  *os.File // ours; nil if the memory is the caller's
	shared   *os.File // guest memory
	mem      []byte
	dev      *local.Client
	npu      *deviceFunction
	bridge   hostBridge
	uart     uart
	dram     []byte // the device's memory, as BAR2 shows it
	dramAt   uint64 // where the guest has it mapped, if dramOpen
	dramOpen bool
	vectors  []*eventfd.FD // one for message i of MSI-X or of MSI, whichever is on
	pin      *eventfd.FD   // INTA is asserted
	ended    *eventfd.FD   // the guest has ended the interrupt of the pin
	watching chan struct{} // closed when nobody waits for ended any more
	table    []byte        // MSI-X table as routed; zero after reset, like the device's
	reset    bool          // the guest asked for a reset
}

// newVM builds a machine and attaches to d. close frees it.
func newVM(d Device, cfg Config) (_ *vm, err error) {
	if cfg.Memory == 0 {
		cfg.Memory = DefaultMemory
	}
	if cfg.Memory < minMemory || cfg.Memory > memoryEnd || cfg.Memory%hugePage != 0 {
		return nil, fmt.Errorf("gokvm: guest memory of %d bytes: use %d to %d, a multiple of %d", cfg.Memory, minMemory, int64(memoryEnd), hugePage)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Console == nil {
		cfg.Console = io.Discard
	}
	v := &vm{log: cfg.Log, sys: -1, fd: -1, cpu: -1}
	defer func() {
		if err != nil {
			v.close()
		}
	}()
	v.uart.out = cfg.Console
	v.uart.line = func(level bool) {
		if err := setIRQLine(v.fd, irqUART, level); err != nil {
			v.log.Error("interrupt of the serial port", "err", err)
		}
	}
	if v.sys, err = unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("%w: /dev/kvm: %w; enable virtualization, load the kvm module, and get access to the device (group kvm), or use npuemu serve with QEMU", ErrKVM, err)
	}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"memory", func() error { return v.newMemory(cfg.Memory, cfg.MemoryFile) }},
		{"machine", v.newMachine},
		{"processor", v.newCPU},
		{"device", func() error { return v.attach(d) }},
	} {
		if err = step.do(); err != nil {
			return nil, fmt.Errorf("gokvm: %s: %w", step.what, err)
		}
	}
	return v, nil
}

// newMemory makes guest memory: a file that is mapped here, for the guest, and by
// the device. It is f if that is not nil.
func (v *vm) newMemory(size int64, f *os.File) error {
	if f == nil {
		fd, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "guest")
		v.memFile = f
		if err := f.Truncate(size); err != nil {
			return err
		}
	}
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if st.Size() != size {
		return fmt.Errorf("MemoryFile has %d bytes, guest memory %d: give a file as long as guest memory", st.Size(), size)
	}
	if v.mem, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE); err != nil {
		return err
	}
	v.shared = f
	return nil
}

func (v *vm) newMachine() error {
	fd, err := kvm.CreateVM(uintptr(v.sys))
	if err != nil {
		return fmt.Errorf("%w: create: %w", ErrKVM, err)
	}
	v.fd = int(fd)
	if err := kvm.SetTSSAddr(fd, taskState); err != nil {
		return fmt.Errorf("%w: task state: %w", ErrKVM, err)
	}
	if err := setIdentityMap(v.fd, identityMap); err != nil {
		return fmt.Errorf("%w: identity map: %w", ErrKVM, err)
	}
	if err := kvm.CreateIRQChip(fd); err != nil {
		return fmt.Errorf("%w: interrupt controllers: %w", ErrKVM, err)
	}
	if err := createPIT(v.fd); err != nil {
		return fmt.Errorf("%w: timer: %w", ErrKVM, err)
	}
	if err := setMemory(v.fd, slotMemory, 0, v.mem); err != nil {
		return fmt.Errorf("%w: guest memory: %w", ErrKVM, err)
	}
	return nil
}

func (v *vm) newCPU() error {
	fd, err := kvm.CreateVCPU(uintptr(v.fd), 0)
	if err != nil {
		return fmt.Errorf("%w: create: %w", ErrKVM, err)
	}
	v.cpu = int(fd)
	size, err := kvm.GetVCPUMMmapSize(uintptr(v.sys))
	if err != nil {
		return fmt.Errorf("%w: size of the shared page: %w", ErrKVM, err)
	}
	if v.page, err = unix.Mmap(v.cpu, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return fmt.Errorf("%w: shared page: %w", ErrKVM, err)
	}
	v.run = runData(v.page)
	if err := setCPUID(v.sys, v.cpu); err != nil {
		return fmt.Errorf("%w: CPUID: %w", ErrKVM, err)
	}
	return nil
}

// attach puts the device into its slot, and its interrupts through.
func (v *vm) attach(d Device) error {
	v.dev = local.Attach(d)
	d.ServeTable()
	if err := v.dev.Reset(); err != nil {
		return err
	}
	if err := v.dev.MapDMA(0, uint64(len(v.mem)), iova.Read|iova.Write, v.shared, 0); err != nil {
		return err
	}
	if err := v.attachMessages(); err != nil {
		return err
	}
	if err := v.attachPin(); err != nil {
		return err
	}
	r, err := v.dev.RegionInfo(vfiouser.RegionBAR0 + deviceBAR)
	if err != nil {
		return err
	}
	if r.Flags&vfiouser.RegionMmap != 0 && r.File != nil && len(r.Areas) == 0 {
		if v.dram, err = unix.Mmap(int(r.File.Fd()), 0, int(r.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE); err != nil {
			return fmt.Errorf("BAR2: mmap of %#x bytes: %w", r.Size, err)
		}
	}
	if v.npu, err = newFunction(v.dev, v.log); err != nil {
		return err
	}
	v.npu.moved, v.npu.rerouted = v.placeDRAM, v.mustRoute
	v.bridge.devices[0] = bridgeFunction{}
	v.bridge.devices[npuSlot] = v.npu
	return nil
}

// attachMessages gives every message of MSI-X and MSI an input of KVM. Message i of
// both has the same: the guest turns one kind on.
func (v *vm) attachMessages() error {
	msix, err := v.dev.IRQInfo(vfiouser.IRQMSIX)
	if err != nil {
		return err
	}
	msi, err := v.dev.IRQInfo(vfiouser.IRQMSI)
	if err != nil {
		return err
	}
	if msix.Count > maxVectors {
		return fmt.Errorf("%d MSI-X vectors; this machine routes %d", msix.Count, maxVectors)
	}
	v.table = make([]byte, msix.Count*tableEntry)
	for i := range max(msix.Count, msi.Count) {
		fd, err := eventfd.New()
		if err != nil {
			return err
		}
		v.vectors = append(v.vectors, fd)
		if i < msix.Count {
			err = v.dev.SetVectors(vfiouser.IRQMSIX, i, fd)
		}
		if i < msi.Count {
			err = errors.Join(err, v.dev.SetVectors(vfiouser.IRQMSI, i, fd))
		}
		if err != nil {
			return err
		}
		if err := setIRQFD(v.fd, irqfd{fd: uint32(fd.Fd()), gsi: uint32(ioapicPins + i)}); err != nil {
			return fmt.Errorf("%w: interrupt of vector %d: %w", ErrKVM, i, err)
		}
	}
	return nil
}

// attachPin wires INTA to its pin of the I/O APIC. KVM holds the pin from the signal of
// one eventfd until the guest ends the interrupt, and then signals the other; the device
// is unmasked, and signals again if it asserts INTA still.
func (v *vm) attachPin() error {
	var err error
	if v.pin, err = eventfd.New(); err != nil {
		return err
	}
	if v.ended, err = eventfd.New(); err != nil {
		return err
	}
	if err := setIRQFD(v.fd, irqfd{fd: uint32(v.pin.Fd()), gsi: irqNPU, flags: irqfdResample, resample: uint32(v.ended.Fd())}); err != nil {
		return fmt.Errorf("%w: interrupt pin: %w", ErrKVM, err)
	}
	if err := v.dev.SetVectors(vfiouser.IRQINTx, 0, v.pin); err != nil {
		return err
	}
	v.watching = make(chan struct{})
	go func() {
		defer close(v.watching)
		for {
			// Nothing but close ends this wait; the timeout is what it may take to see it.
			if v.ended.Wait(100*time.Millisecond) == 0 {
				if v.ended.Fd() < 0 {
					return
				}
				continue
			}
			if err := v.dev.MaskVector(vfiouser.IRQINTx, 0, false); err != nil {
				return // closed
			}
		}
	}()
	return nil
}

// close detaches the device and frees the machine.
func (v *vm) close() {
	if v.dev != nil {
		v.dev.Close()
	}
	for _, fd := range append(v.vectors, v.pin, v.ended) {
		if fd != nil {
			fd.Close()
		}
	}
	if v.watching != nil {
		<-v.watching
	}
	for _, fd := range []int{v.cpu, v.fd, v.sys} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	for _, m := range [][]byte{v.page, v.dram, v.mem} {
		if m != nil {
			_ = unix.Munmap(m) // cannot fail: mapped by us
		}
	}
	if v.memFile != nil {
		v.memFile.Close()
	}
}

// placeDRAM makes BAR2 a slot of guest memory where the guest has placed it. If KVM
// does not take it there, accesses are served one by one.
func (v *vm) placeDRAM() {
	at, size := v.npu.bars[deviceBAR], uint64(len(v.dram))
	// Guest memory and the interrupt controllers hide what is placed over them.
	free := at >= uint64(len(v.mem)) && at <= math.MaxUint64-size && (at >= 1<<32 || at+size <= reservedBase)
	open := v.npu.open && v.dram != nil && free
	if open == v.dramOpen && (!open || at == v.dramAt) {
		return
	}
	if v.dramOpen {
		v.dramOpen = false
		if err := setMemory(v.fd, slotDevice, v.dramAt, nil); err != nil {
			v.log.Error("BAR2 stays mapped", "addr", iova.Addr(v.dramAt), "err", err)
		}
	}
	if open {
		if err := setMemory(v.fd, slotDevice, at, v.dram); err != nil {
			v.log.Debug("BAR2 not mapped; its accesses are slow", "addr", iova.Addr(at), "err", err)
			return
		}
		v.dramAt, v.dramOpen = at, true
	}
}

// execute runs the processor until the guest resets the machine (nil), it cannot go
// on, or ctx ends (its error).
func (v *vm) execute(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := v.route(); err != nil {
		return err
	}
	// The processor leaves the guest for a signal, and does not enter it again
	// while ImmediateExit is set. SIGURG means nothing to a Go program.
	tid := unix.Gettid()
	kicked := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(kicked)
		v.run.ImmediateExit = 1
		_ = unix.Tgkill(unix.Getpid(), tid, unix.SIGURG)
	})
	defer func() {
		if !stop() {
			<-kicked // it uses the shared page
		}
	}()
	for !v.reset {
		v.run.ExitReason = uint32(kvm.EXITINTR)
		if err := kvm.Run(uintptr(v.cpu)); err != nil {
			return fmt.Errorf("gokvm: run: %w", err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := v.exit(kvm.ExitType(v.run.ExitReason)); err != nil {
			return err
		}
	}
	return nil
}

// exit serves what the guest left for.
func (v *vm) exit(reason kvm.ExitType) error {
	switch reason {
	case kvm.EXITINTR:
	case kvm.EXITIO:
		direction, size, port, count, off := v.run.IO()
		for i := range count {
			p := v.page[off+i*size:][:size]
			if direction == kvm.EXITIOIN {
				v.portIn(uint16(port), p)
			} else {
				v.portOut(uint16(port), p)
			}
		}
	case kvm.EXITMMIO:
		// struct kvm_run: address, eight bytes, length in 32 bits, direction in 8;
		// the rest is padding, which KVM need not clear.
		var data [8]byte
		binary.LittleEndian.PutUint64(data[:], v.run.Data[1])
		n := v.run.Data[2] & 0xffff_ffff
		if n > uint64(len(data)) {
			return fmt.Errorf("gokvm: BUG: an access of %d bytes", n)
		}
		if v.run.Data[2]>>32&0xff != 0 {
			v.memoryWrite(v.run.Data[0], data[:n])
		} else {
			v.memoryRead(v.run.Data[0], data[:n])
			v.run.Data[1] = binary.LittleEndian.Uint64(data[:])
		}
	case kvm.EXITSHUTDOWN:
		return ErrTripleFault
	case kvm.EXITINTERNALERROR:
		return v.internalError()
	case kvm.EXITFAILENTRY:
		return fmt.Errorf("%w: entry failed, hardware reason %#x", ErrKVM, v.run.Data[0])
	default:
		return fmt.Errorf("gokvm: unexpected exit %v (%d) of the guest", reason, reason)
	}
	return nil
}

// internalError tells which instruction KVM could not run, if it says so.
func (v *vm) internalError() error {
	const emulation, bytesValid = 1, 1 << 0 // KVM_INTERNAL_ERROR_EMULATION, its flag
	suberror, n := uint32(v.run.Data[0]), uint32(v.run.Data[0]>>32)
	if suberror != emulation {
		return fmt.Errorf("%w: internal error %d, data %#x", ErrKVM, suberror, v.run.Data[1:][:min(n, 8)])
	}
	where := "at an unknown address"
	if r, err := kvm.GetRegs(uintptr(v.cpu)); err == nil {
		where = fmt.Sprintf("at %#x", r.RIP)
	}
	if n >= 3 && v.run.Data[1]&bytesValid != 0 {
		var b [16]byte
		binary.LittleEndian.PutUint64(b[:], v.run.Data[2])
		binary.LittleEndian.PutUint64(b[8:], v.run.Data[3])
		return fmt.Errorf("%w: %s: % x", ErrEmulation, where, b[1:][:min(int(b[0]), 15)])
	}
	return fmt.Errorf("%w: %s", ErrEmulation, where)
}

// Ports that are not the bridge's or the serial port's, and what they reset with.
const (
	portKeyboard = 0x64 // command 0xfe pulses the reset line
	portCMOS     = 0x70
	portReset    = 0xcf9
)

func (v *vm) portIn(port uint16, p []byte) {
	switch {
	case v.bridge.in(port, p):
	case port >= portUART && port < portUART+uartSize && len(p) == 1:
		p[0] = v.uart.read(port - portUART)
	case port == portCMOS || port == portCMOS+1: // no clock: zero is a clock that stands still
		clear(p)
	default:
		fillOnes(p)
	}
}

func (v *vm) portOut(port uint16, p []byte) {
	switch {
	case v.bridge.out(port, p):
	case len(p) != 1:
	case port >= portUART && port < portUART+uartSize:
		v.uart.write(port-portUART, p[0])
	case port == portKeyboard && p[0] == 0xfe, port == portReset && p[0]&4 != 0:
		v.reset = true
	}
}

func (v *vm) memoryRead(addr uint64, p []byte) {
	bar, off, ok := v.npu.find(addr, len(p))
	if !ok {
		fillOnes(p)
		return
	}
	if err := v.dev.ReadRegion(vfiouser.RegionBAR0+bar, off, p); err != nil {
		v.log.Debug("read not done; it gives all ones", "bar", bar, "off", off, "rule", err)
		fillOnes(p)
	}
}

func (v *vm) memoryWrite(addr uint64, p []byte) {
	bar, off, ok := v.npu.find(addr, len(p))
	if !ok {
		return
	}
	// A message goes out as soon as its mask bit is clear: the route is there before,
	// because address and data were written before, each with a route of its own.
	if err := v.dev.WriteRegion(vfiouser.RegionBAR0+bar, off, p); err != nil {
		v.log.Debug("write dropped", "bar", bar, "off", off, "rule", err)
	}
	if bar == tableBAR && off < uint64(len(v.table)) {
		v.reroute(off / tableEntry * tableEntry)
	}
}

// reroute takes over the entry of the MSI-X table at off, which the guest has written:
// address and data, one register after the other.
func (v *vm) reroute(off uint64) {
	var e [tableEntry - 4]byte
	for i := 0; i < len(e); i += 4 {
		if err := v.dev.ReadRegion(vfiouser.RegionBAR0+tableBAR, off+uint64(i), e[i:i+4]); err != nil {
			v.log.Error("an entry of the MSI-X table cannot be read", "off", off, "err", err)
			return
		}
	}
	if routed := v.table[off:][:len(e)]; !bytes.Equal(routed, e[:]) {
		copy(routed, e[:])
		v.mustRoute()
	}
}

// route makes KVM send every vector where the MSI-X table says.
func (v *vm) route() error {
	le := binary.LittleEndian
	var routes []route
	for i := range uint32(ioapicPins) { // as KVM wires them
		if i < 16 {
			routes = append(routes, route{gsi: i, kind: routeChip, a: i / 8, b: i % 8})
		}
		routes = append(routes, route{gsi: i, kind: routeChip, a: 2, b: i})
	}
	for i := range v.vectors {
		var lo, hi, data uint32
		switch m := v.npu.msi; {
		case m.on && i < m.count:
			lo, hi, data = m.lo, m.hi, m.data&^uint32(m.count-1)|uint32(i)
		case !m.on && i*tableEntry < len(v.table):
			e := v.table[i*tableEntry:]
			lo, hi, data = le.Uint32(e), le.Uint32(e[4:]), le.Uint32(e[8:])
		}
		if lo&messageMask != messageBase || hi != 0 {
			continue // not an interrupt: nothing is delivered
		}
		routes = append(routes, route{gsi: uint32(ioapicPins + i), kind: routeMessage, a: lo, b: hi, c: data})
	}
	if err := setRouting(v.fd, routes); err != nil {
		return fmt.Errorf("gokvm: interrupt routes: %w", err)
	}
	return nil
}

// mustRoute is route for those who have nobody to tell.
func (v *vm) mustRoute() {
	if err := v.route(); err != nil {
		v.log.Error("interrupts are not routed", "err", err)
	}
}

// Boot boots a Linux kernel, or a payload, with d in its PCI slot, and returns when the guest
// resets the machine (nil), when it ends in another way (see the Err variables), or
// when ctx ends (its error). d runs already and has no other client.
func Boot(ctx context.Context, d Device, cfg Config) error {
	v, err := newVM(d, cfg)
	if err != nil {
		return err
	}
	defer v.close()
	if cfg.Payload != nil {
		err = v.loadPayload(cfg)
	} else {
		err = v.loadLinux(cfg)
	}
	if err != nil {
		return err
	}
	return v.boot(ctx, cfg)
}

// boot feeds the serial port and runs.
func (v *vm) boot(ctx context.Context, cfg Config) error {
	if cfg.Input != nil {
		go v.uart.feed(cfg.Input)
		defer v.uart.unplug()
	}
	start := time.Now()
	err := v.execute(ctx)
	reason := any("it reset the machine")
	if err != nil {
		reason = err
	}
	v.log.Info("guest ended", "after", time.Since(start), "reason", reason)
	return errors.Join(err, v.uart.failure())
}
