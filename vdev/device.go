// SPDX-License-Identifier: Apache-2.0

// Package vdev is the board: one NPU, made of blocks that do not know each other
// (PCI function, register bank, control processor, queues, DMA, core), and the
// wiring between them. It implements vfiouser.Backend, and with Paravirt vhostuser.Backend.
//
// Ownership:
//
//   - Device.mu guards the register bank, the PCI function, the queue engine's and
//     the control processor's state. It is held for one register access or one bounded slice
//     of the control processor, never across a copy, a product or a socket call.
//   - Two goroutines, started by Run, do the work: the control processor's loop and the
//     queue engine's. The connection's goroutine records and replies.
//   - The bus table (dma/iova) and the counters have their own synchronization.
//   - Lock order: the connection's, Device.mu, that of a virtual function, that of pci's interrupts. The findings' lock is a leaf.
//     The MMU's (dma.MMU) is held during an access to memory, and so comes before all of them.
//
// A reset (§9.4) disables everything at once and is over when the command and the mover copy that
// were in flight have ended; until then BAR0 reads all-ones. A reset by register or config
// space does not wait for that, because what is in flight may need the very connection that
// asked for it; Reset and Detach do, up to 100 ms, because a transport has failed such
// accesses before it calls them.
package vdev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"npuemu/core"
	"npuemu/dma"
	"npuemu/dma/iova"
	"npuemu/firmware"
	"npuemu/internal/eventfd"
	"npuemu/mmio"
	"npuemu/mmio/npureg"
	"npuemu/queue"
	"npuemu/vdev/pci"
	"npuemu/vdev/vfiouser"
)

// Identity of the PCI function (§1.1).
const (
	VendorID        = 0x1af4
	DeviceID        = 0x10f0
	SubsystemVendor = 0x1af4
	SubsystemID     = 0x0001
	bar4Size        = 16 << 10
)

// Device is one NPU. Create it with New, start it with Run.
type Device struct {
	cfg      Config
	log      *slog.Logger
	findings findingList
	dram     *dram
	mem      dma.Memory
	paravirt atomic.Pointer[Paravirt]           // the front door if it is not PCI, or nil
	toucher  atomic.Pointer[touchFunc]          // of the client, or nil
	counters [npureg.CounterCount]atomic.Uint64 // since New
	vfs      []*Device                          // of a physical function
	virtual  bool
	claimed  map[uint32]bool // offsets of the host's registers

	mu       sync.Mutex
	fn       *pci.Function               // guarded by mu
	bar0     *mmio.Bank                  // guarded by mu
	queues   *queue.Engine               // guarded by mu
	fw       *firmware.Processor         // guarded by mu
	ras      ras                         // guarded by mu
	absent   bool                        // a virtual function that does not exist now; guarded by mu
	removed  bool                        // by the operator (§9.4); guarded by mu
	gone     atomic.Bool                 // absent or removed; set with mu held
	closed   bool                        // a virtual function whose VF MSE is clear; guarded by mu
	resets   int                         // parts of a reset still to end; guarded by mu
	over     chan struct{}               // closed when the reset is over, if somebody waits; guarded by mu
	atReset  [npureg.CounterCount]uint64 // counters when the last reset was over; guarded by mu
	messages [pci.ErrFatal + 1]uint64    // error messages that would have gone out; guarded by mu
	irqs     map[irq]*eventfd.FD         // what the client attached to interrupts; guarded by mu
	executor *executor
	contexts map[uint16]*translation // contexts that are translated; guarded by mu
	faultLog faultLog                // guarded by mu

	// By user queue, what its context's addresses meant when it was enabled, or nil. Stored
	// with mu held, loaded by the executor.
	spaces []atomic.Pointer[dma.AddressSpace]
}

// New builds a device from cfg, with its virtual functions: powered on, boot ROM ready to run. Close frees
// it. The error names the wrong part of cfg.
func New(cfg Config) (*Device, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Memory.Size = cfg.partition()
	d, err := newDevice(cfg, false)
	if err != nil {
		return nil, err
	}
	if err := d.addVFs(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// newDevice builds one function from a valid cfg.
func newDevice(cfg Config, virtual bool) (*Device, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	d := &Device{cfg: cfg, log: cfg.Log, findings: newFindings(cfg.Log), irqs: map[irq]*eventfd.FD{}, claimed: map[uint32]bool{}, virtual: virtual, absent: virtual}
	d.gone.Store(virtual)
	var err error
	if d.dram, err = newDRAM(cfg.Memory.Size); err != nil {
		return nil, err
	}
	d.mem.Bus = &iova.Table{Refused: d.touch, Tick: d.counters[npureg.CounterCommands].Load}
	d.mem.DRAM = d.dram.mem

	pcfg := pci.Config{
		VendorID: VendorID, DeviceID: DeviceID, SubsystemVendorID: SubsystemVendor, SubsystemID: SubsystemID,
		Revision: npureg.ArchMajor<<4 | uint8(cfg.archMinor()), Class: [3]uint8{0x12, 0x00, 0x00},
		Vectors: cfg.Queues.Vectors, MSIX: cfg.PCI.MSIX, MSI: cfg.PCI.MSI, Serial: cfg.Serial,
		VFs: cfg.SRIOV.VFs, Virtual: virtual,
	}
	pcfg.BARs[0] = pci.BAR{Size: npureg.BAR0Size}
	pcfg.BARs[2] = pci.BAR{Size: uint64(cfg.Memory.Size), Prefetchable: true, Resizable: !virtual}
	if cfg.PCI.MSIX {
		pcfg.BARs[4] = pci.BAR{Size: bar4Size}
	}
	d.fn, err = pci.New(pcfg, pci.Hooks{
		FLR:     func() { d.resetLocked("function-level reset") },
		VFs:     d.vfsChangedLocked,
		Power:   func(pci.PowerState) { d.masterLocked() },
		Command: d.masterLocked,
		Error:   d.errorMessage,
		Pending: d.mem.Reading,
		Mistake: d.findings.add,
	})
	if err != nil {
		return nil, fmt.Errorf("vdev: %w", err)
	}
	d.mem.ReadFailed = d.readFailed
	d.fn.MSIX().SetTableOwner(pci.TableInTransport)
	d.fn.MSIX().Trace(d.traceBank("bar4"))

	c, err := core.New(cfg.core())
	if err != nil {
		return nil, fmt.Errorf("vdev: %w", err)
	}
	d.executor = &executor{d: d, core: c, view: dma.NewView(&d.mem), buf: make([]byte, dma.Chunk)}
	d.executor.engines.start = time.Now()
	d.executor.clock.setUp(cfg)
	d.ras.on = cfg.features()&npureg.FeatureRAS != 0
	d.ras.thermal.init()
	d.spaces = make([]atomic.Pointer[dma.AddressSpace], cfg.Queues.Count+1)
	d.contexts = map[uint16]*translation{}
	d.queues = queue.New(&d.mu, cfg.Queues.Count, bus{d}, d.executor, board{d})
	registers := cfg.hostRegisters()
	d.bar0 = mmio.New(npureg.BAR0Size, registers)
	for _, r := range registers {
		d.claimed[r.Off] = true
	}
	d.hooks()
	fcfg := firmware.Config{
		Lock: &d.mu, Mover: mover{bus{d}}, Host: host{d}, Queues: queues{d}, MMU: translator{d}, Counter: d.counterLocked, Log: d.log,
	}
	if d.ras.on {
		fcfg.RAS = health{d}
	}
	d.fw = firmware.New(fcfg)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.parametersLocked()
	d.fw.Reset()
	return d, nil
}

// Run runs the goroutines of the device, and of its virtual functions, until ctx is done.
func (d *Device) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, f := range d.Functions() {
		wg.Add(2)
		go func() { defer wg.Done(); f.fw.Run(ctx) }()
		go func() { defer wg.Done(); f.queues.Run(ctx) }()
	}
	wg.Wait()
}

// Close frees device memory and ends the threads of the core, also those of virtual functions. Run has returned, and no client is attached.
func (d *Device) Close() error {
	var err error
	for _, f := range d.Functions() {
		f.stopThermal()
		f.executor.core.Close()
		err = errors.Join(err, f.dram.close())
	}
	return err
}

// Executed is how many instructions the card has begun so far, for who shows how far a program is. Any goroutine may ask.
func (d *Device) Executed() uint64 { return d.executor.core.Executed() }

// Findings returns what guests did wrong so far.
func (d *Device) Findings() []Finding { return d.findings.list() }

// Counter returns a counter of §4.7 (npureg.CounterCommands …). It counts from
// New on, over all resets and clients; guests see what came after the last reset.
func (d *Device) Counter(index int) uint64 {
	if index < 0 || index >= len(d.counters) {
		return 0
	}
	return d.counters[index].Load()
}

func (d *Device) counterLocked(index int) uint64 { return d.counters[index].Load() - d.atReset[index] }

// WriteConfigDump writes the config space in the form that lspci -F reads.
func (d *Device) WriteConfigDump(w io.Writer) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.fn.WriteDump(w)
}

func (d *Device) count(index int, n uint64) { d.counters[index].Add(n) }

// masterLocked tells everyone whether the device may access the bus (§1.5).
func (d *Device) masterLocked() {
	on := d.fn.BusMaster()
	d.mem.SetBusMaster(on)
	d.queues.BusLocked(on)
}

// parametersLocked fills the registers that depend on the configuration.
func (d *Device) parametersLocked() {
	q := d.cfg.Queues
	for off, v := range map[uint32]uint32{
		npureg.ArchVersion:  npureg.ArchMajor<<16 | d.cfg.archMinor(),
		npureg.FeaturesLo:   d.cfg.features(),
		npureg.ArrayDim:     uint32(d.cfg.Array.Rows) | uint32(d.cfg.Array.Cols)<<16,
		npureg.SpadSize:     uint32(d.cfg.Array.Scratchpad),
		npureg.AccSize:      uint32(d.cfg.Array.Accumulators),
		npureg.QueueParam:   uint32(q.Count) | uint32(q.MaxEntries)<<16,
		npureg.ContextParam: uint32(q.Contexts),
		npureg.DRAMSizeLo:   uint32(d.cfg.Memory.Size),
		npureg.DRAMSizeHi:   uint32(uint64(d.cfg.Memory.Size) >> 32),
		npureg.EngineParam:  1 | 1<<8,
		npureg.VectorCount:  uint32(q.Vectors),
	} {
		d.bar0.Set(off, v)
	}
	if k := &d.executor.clock; k.shown {
		d.bar0.Set(npureg.TimeClock, k.clockRate())
	}
	d.crashLocked()
}

// hooks connects registers to blocks. All hooks run with Device.mu held.
func (d *Device) hooks() {
	d.bar0.OnWrite(npureg.DeviceControl, func(v uint32) {
		if v&npureg.DeviceControlReset != 0 {
			d.resetLocked("soft reset")
		}
	})
	d.bar0.OnWrite(npureg.BootControl, func(v uint32) {
		d.bar0.ClearBits(npureg.BootControl, npureg.BootControlStart)
		if v&npureg.BootControlStart == 0 {
			return
		}
		switch s := d.bar0.Value(npureg.BootStatus) & 0xff; s {
		case npureg.BootWaiting, npureg.BootFailed:
			d.fw.Start()
		default:
			d.findings.add("start-ignored", "START is for the states WAITING and FAILED (§3.2)", fmt.Sprintf("state %d", s))
		}
	})
	d.bar0.OnWrite(npureg.AQControl, func(v uint32) {
		enable := v&npureg.AQControlEnable != 0
		if s := d.bar0.Value(npureg.BootStatus) & 0xff; enable && s != npureg.BootReady {
			d.findings.add("admin-early", "AQ_CONTROL.ENABLE is set when firmware is READY (§4.4)", fmt.Sprintf("state %d", s))
		}
		d.fw.AdminControl(enable)
	})
	for _, off := range []uint32{npureg.ASQBaseLo, npureg.ASQBaseHi, npureg.ACQBaseLo, npureg.ACQBaseHi, npureg.AQSize} {
		d.bar0.OnWrite(off, func(v uint32) {
			if d.bar0.Value(npureg.AQControl)&npureg.AQControlEnable != 0 {
				d.findings.add("admin-live", "base and size of the admin queue do not change while AQ_CONTROL.ENABLE is 1 (§4.4)", fmt.Sprintf("%#x = %#x", off, v))
			}
			if stored := d.bar0.Value(off); stored != v {
				d.findings.add("admin-alignment", "admin rings are aligned to 64 bytes (§4.1)", fmt.Sprintf("%#x = %#x becomes %#x", off, v, stored))
			}
		})
	}
	d.bar0.OnWrite(npureg.IRQStatus, func(uint32) { d.levelLocked() })
	d.bar0.OnWrite(npureg.IRQEnable, func(v uint32) {
		d.levelLocked()
		if v&d.bar0.Value(npureg.IRQStatus) != 0 {
			d.raiseLocked(0)
		}
	})
	d.rasHooks()
	d.clockHooks()
	n := d.cfg.Queues.Count + 1
	d.bar0.OnWriteRange(npureg.DoorbellBase, npureg.DoorbellStride, n, npureg.DoorbellSQTail, func(q int, v uint32) {
		d.count(npureg.CounterDoorbells, 1)
		if q == 0 {
			d.fw.RingAdminTail(v)
			return
		}
		d.queues.RingSQLocked(q, v)
	})
	d.bar0.OnWriteRange(npureg.DoorbellBase, npureg.DoorbellStride, n, npureg.DoorbellCQHead, func(q int, v uint32) {
		d.count(npureg.CounterDoorbells, 1)
		if q == 0 {
			d.fw.RingAdminHead(v)
			return
		}
		d.queues.RingCQLocked(q, v)
	})
	d.bar0.Trace(d.traceBank("bar0"))
}

// traceBank makes findings of the accesses to a BAR that break its rules.
func (d *Device) traceBank(bar string) mmio.Tracer {
	return func(e mmio.Event) {
		if e.Rule != mmio.RuleNone {
			d.findings.add(bar+"-"+ruleID(e.Rule), e.Rule.String()+" (§1.3)", e.String())
		}
	}
}

func ruleID(r mmio.Rule) string {
	switch r {
	case mmio.RuleWidth:
		return "width"
	case mmio.RuleUnclaimed:
		return "unclaimed"
	case mmio.RuleReadOnly:
		return "read-only"
	}
	return "access"
}

// readFailed shows in config space how a read of the bus failed (§1.6); not one that a reset
// found in flight. Device.mu is not held.
func (d *Device) readFailed(err error) {
	how := pci.CompletedUnsupported
	var f *iova.Fault
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		how = pci.CompletedNever
	case errors.As(err, &f) && f.Reason == iova.Failed:
		how = pci.CompletedAbort
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.resets == 0 {
		d.fn.LogCompletion(how)
	}
}

// errorMessage is called with Device.mu held when the host wants to hear of an error of the
// function. A fatal one goes out as VFIO's error interrupt if the operator wants that.
func (d *Device) errorMessage(m pci.ErrorMessage) {
	d.messages[m]++
	if fd := d.irqs[irq{vfiouser.IRQErr, 0}]; m == pci.ErrFatal && d.cfg.PCI.ErrorInterrupt && fd != nil {
		fd.Signal()
	}
}

// raiseLocked raises a vector and counts it.
func (d *Device) raiseLocked(vector int) {
	if v := d.paravirt.Load(); v != nil {
		v.signal()
	} else {
		d.fn.Raise(vector)
	}
	d.count(npureg.CounterInterrupts, 1)
}

// levelLocked makes INTx follow the causes (§8.4).
func (d *Device) levelLocked() {
	d.fn.SetLevel(d.bar0.Value(npureg.IRQStatus)&d.bar0.Value(npureg.IRQEnable) != 0)
}

// causeLocked sets causes of vector 0 and raises it if one is enabled (§8.2).
func (d *Device) causeLocked(bits uint32) {
	d.bar0.SetBits(npureg.IRQStatus, bits)
	d.levelLocked()
	if bits&d.bar0.Value(npureg.IRQEnable) != 0 {
		d.raiseLocked(0)
	}
}

// faultLocked writes a fault record (§9.3).
func (d *Device) faultLocked(f queue.Fault) {
	d.recordLocked(f, [4]uint32{})
	name := f.Code.String()
	if !slices.Contains(npureg.Statuses(), npureg.Named{Name: name, Value: uint32(f.Code)}) {
		name = "UNKNOWN" // firmware chose it: one finding for all
	}
	who := fmt.Sprintf("queue %d, source %d, index %d", f.Queue, f.Source, f.Index)
	d.findings.add("fault-"+name, "§9.1 "+f.Code.String(), fmt.Sprintf("%s, address %v", who, f.Addr))
	if f.Code == npureg.StatusBusFault && d.fn.BusMaster() {
		d.blameRing(f, who)
	}
	d.causeLocked(npureg.IRQFault)
}

// recordLocked fills the registers of the fault record, FAULT_CONTEXT and the three behind it with mmu.
func (d *Device) recordLocked(f queue.Fault, mmu [4]uint32) {
	d.count(npureg.CounterFaults, 1)
	if s := d.bar0.Value(npureg.FaultStatus); s&npureg.FaultValid != 0 {
		d.bar0.SetBits(npureg.FaultStatus, npureg.FaultOverflow)
		return
	}
	d.bar0.Set(npureg.FaultStatus, d.bar0.Value(npureg.FaultStatus)&npureg.FaultOverflow|npureg.FaultValid|uint32(f.Code)<<16)
	d.bar0.Set(npureg.FaultInfo, uint32(f.Queue&0xff)|uint32(f.Source)<<8|uint32(f.Index)<<16)
	d.bar0.Set(npureg.FaultAddrLo, uint32(f.Addr))
	d.bar0.Set(npureg.FaultAddrHi, uint32(f.Addr>>32))
	for i, v := range mmu {
		if off := npureg.FaultContext + 4*uint32(i); d.claimed[off] {
			d.bar0.Set(off, v)
		}
	}
}

// resetLocked begins a reset of everything but config space and device memory
// (§9.4). It is over when resets is 0 again.
func (d *Device) resetLocked(why string) {
	d.log.Debug("reset", "kind", why)
	d.masterLocked()
	d.bar0.Reset()
	d.parametersLocked()
	d.levelLocked()
	d.vfsChangedLocked()
	d.forgetContextsLocked()
	d.faultLog = faultLog{}
	d.ras.engines = 0
	d.resets = 0
	if d.queues.ResetLocked() {
		d.resets++
	}
	if d.fw.Reset() {
		d.resets++
	}
	if d.resets == 0 {
		d.resetOverLocked()
		return
	}
	d.bar0.SetBits(npureg.DeviceStatus, npureg.DeviceStatusResetting)
}

// resetPartLocked is called when something that a reset found in flight has ended.
func (d *Device) resetPartLocked() {
	if d.resets--; d.resets == 0 {
		d.bar0.ClearBits(npureg.DeviceStatus, npureg.DeviceStatusResetting)
		d.resetOverLocked()
	}
}

// resetOverLocked makes the guest's counters 0, now that nothing of before counts any more.
func (d *Device) resetOverLocked() {
	d.executor.clock.now.Store(0)
	if d.over != nil {
		close(d.over)
		d.over = nil
	}
	for i := range d.counters {
		d.atReset[i] = d.counters[i].Load()
	}
}

// resetWait is how long a reset takes at most (§9.4) if the host answers.
const resetWait = 100 * time.Millisecond

// awaitReset waits until no reset is in progress, up to resetWait.
func (d *Device) awaitReset() {
	d.mu.Lock()
	if d.resets == 0 {
		d.mu.Unlock()
		return
	}
	if d.over == nil {
		d.over = make(chan struct{})
	}
	over := d.over
	d.mu.Unlock()
	select {
	case <-over:
	case <-time.After(resetWait):
	}
}

// open reports whether a BAR answers an access to n bytes at off (§1.2, §1.3). Otherwise
// the access is an unsupported request: AER shows it, and it leaves a finding.
func (d *Device) open(bar int, off uint64, n int, write bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.openLocked(bar, off, n, write)
}

func (d *Device) openLocked(bar int, off uint64, n int, write bool) bool {
	size := d.fn.BARSize(bar)
	switch {
	case d.closed:
		d.findings.add("vf-memory", "BARs of virtual functions are accessed while VF MSE is set (§1.9)", fmt.Sprintf("BAR%d", bar))
	case !d.fn.MemoryEnabled():
		d.findings.add("bar-closed", "BARs are accessed in D0 and with Memory Space Enable set (§1.2)",
			fmt.Sprintf("BAR%d, power state %v", bar, d.fn.Power()))
	case off > size || uint64(n) > size-off:
		d.findings.add("bar-beyond", "a resizable BAR is accessed within its size (§1.2)",
			fmt.Sprintf("BAR%d, %d bytes at %#x of %#x", bar, n, off, size))
	default:
		return true
	}
	d.fn.LogUnsupported(bar, off, n, write)
	return false
}

// registersLocked reports whether an access to BAR0 reaches a register (§1.3),
// and otherwise leaves a finding.
func (d *Device) registersLocked(off uint64, n int, write bool) bool {
	if !d.openLocked(0, off, n, write) {
		return false
	}
	if d.resets == 0 || off == npureg.DeviceStatus && !write {
		return true
	}
	d.findings.add("bar0-resetting", "while DEVICE_STATUS.RESETTING is 1 only DEVICE_STATUS is read, and nothing written (§9.4)", fmt.Sprintf("%#x", off))
	return false
}

func (d *Device) readBAR0(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.registersLocked(off, len(p), false) {
		d.bar0.Read(off, p)
	} else {
		fillOnes(p)
	}
}

func (d *Device) writeBAR0(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.registersLocked(off, len(p), true) {
		d.bar0.Write(off, p)
	}
}

func fillOnes(p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}

// bus is the memory on the bus, for blocks that know only bus addresses. Commands
// do not go through it, and so cannot reach what is private.
type bus struct{ d *Device }

func (b bus) Read(addr iova.Addr, p []byte) error {
	if v := b.d.paravirt.Load(); v != nil && addr >= privateBase {
		return v.bus.Read(addr, p)
	}
	return b.d.mem.Read(dma.Bus, uint64(addr), p)
}

func (b bus) Write(addr iova.Addr, p []byte) error {
	if v := b.d.paravirt.Load(); v != nil && addr >= privateBase {
		return v.bus.Write(addr, p)
	}
	return b.d.mem.Write(dma.Bus, uint64(addr), p)
}

// Watch returns a shadow line (§4.11). It looks at no permission of §1.5: the queue
// engine knows it.
func (b bus) Watch(addr iova.Addr) *iova.Watch {
	return b.d.mem.Bus.Watch(addr, npureg.ShadowSize)
}

// host is the host's register page, as the control processor sees it.
type host struct{ d *Device }

func (h host) Register(off uint32) uint32 {
	if !h.d.claimed[off] {
		return ^uint32(0)
	}
	return h.d.bar0.Value(off)
}

func (h host) SetRegister(off, v uint32) {
	h.d.bar0.Set(off, v)
	if off != npureg.BootStatus {
		return
	}
	h.d.bar0.ClearBits(npureg.DeviceStatus, npureg.DeviceStatusReady|npureg.DeviceStatusFailed)
	switch v & 0xff {
	case npureg.BootLoading: // the next firmware begins without contexts
		h.d.forgetContextsLocked()
	case npureg.BootReady:
		h.d.bar0.SetBits(npureg.DeviceStatus, npureg.DeviceStatusReady)
	case npureg.BootFailed:
		h.d.bar0.SetBits(npureg.DeviceStatus, npureg.DeviceStatusFailed)
	}
}

func (h host) Raise(causes uint32) {
	if causes&npureg.IRQAdmin != 0 { // once for each completion (firmware/src)
		h.d.count(npureg.CounterAdmin, 1)
	}
	h.d.causeLocked(causes)
}

func (h host) MoverIdle() { h.d.resetPartLocked() }

func (h host) Fault(f firmware.Fault) {
	h.d.faultLocked(queue.Fault{Code: f.Code, Queue: int(f.Queue), Source: f.Source, Index: f.Index, Addr: f.Addr})
}
