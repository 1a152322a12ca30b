// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"npuemu/core/isa"
	"npuemu/dma/iova"
	"npuemu/firmware"
	"npuemu/mmio/npureg"
	"npuemu/tests/devtest"
	"npuemu/vdev/vfiouser"
)

// script takes values from a fuzzer's bytes; after their end all are 0.
type script []byte

func (s *script) bytes(n int) []byte {
	b := make([]byte, n)
	*s = (*s)[copy(b, *s):]
	return b
}

func (s *script) u8() int     { return int(s.bytes(1)[0]) }
func (s *script) u16() uint64 { return uint64(le.Uint16(s.bytes(2))) }
func (s *script) u32() uint32 { return le.Uint32(s.bytes(4)) }

// entry takes opcode, flags and a few patches of eight bytes.
func (s *script) entry() (e devtest.Entry) {
	e[0], e[1] = byte(s.u8()), byte(s.u8()&s.u8()&s.u8())
	for range s.u8() % 8 {
		copy(e[8*(s.u8()%8):], s.bytes(8))
	}
	return e
}

// fuzzDepth bounds the steps of one script, which keeps a run short.
const fuzzDepth = 64

// guest is where the fuzzer's rings and buffers are.
type guest struct {
	h         *devtest.Host
	context   uint32
	mem       []byte // at addr; read and written while the device does
	addr      uint64
	adminTail int
	tails     [4]uint32 // of user queues 1 to 3
	file      *os.File
}

// page returns the bus address of one: 0 and 1 are the admin rings, then two for
// each of the user queues 1 to 3; the rest is for buffers.
func (g *guest) page(i int) uint64 { return g.addr + uint64(i)*4096 }

const fuzzPages = 16

// step takes one step of a script.
func (g *guest) step(s *script) {
	h, c := g.h, g.h.Client
	must := func(err error) {
		if err != nil {
			h.T.Fatalf("the transport fails: %v", err)
		}
	}
	switch s.u8() % 17 {
	case 0: // a register
		h.Write32(uint32(s.u8())*4, s.u32())
	case 1: // any access to BAR0
		must(c.WriteRegion(vfiouser.RegionBAR0, s.u16(), s.bytes(s.u8()%9)))
	case 2:
		must(c.ReadRegion(vfiouser.RegionBAR0, s.u16(), make([]byte, s.u8()%17)))
	case 3: // config space
		must(c.WriteRegion(vfiouser.RegionConfig, s.u16()%0x200, s.bytes(1+s.u8()%4)))
	case 4: // MSI-X
		off := s.u16() % 0x2100
		must(c.WriteRegion(vfiouser.RegionBAR0+4, off, s.bytes(s.u8()%9)))
		must(c.ReadRegion(vfiouser.RegionBAR0+4, off, make([]byte, 8)))
	case 5: // any doorbell
		h.Write32(devtest.Doorbell(s.u8()%10)+uint32(s.u8()&4), uint32(s.u8()))
	case 6, 7: // an admin command
		e := s.entry()
		if s.u8()&1 != 0 { // one that could be right
			q := 1 + s.u8()%3
			e = devtest.CreateQueueEntry(q, g.context, q, g.page(2*q), g.page(2*q+1), 2+s.u8()%14, 2+s.u8()%14)
			g.tails[q] = 0
			e[0x24], e[0x25], e[0x30], e[0x34], e[0x36] = byte(s.u8()&3), byte(s.u8()), byte(s.u8()&31), byte(s.u8()), byte(s.u8())
			switch s.u8() % 8 {
			case 0, 1, 2:
				e = devtest.Entry{npureg.AdminDestroyQueue, 8: byte(q)}
			case 3:
				e = devtest.QueueEntry(npureg.AdminSuspendQueue, q, devtest.QueueOptions{})
			case 4:
				e = devtest.QueueEntry(npureg.AdminResumeQueue, q, devtest.QueueOptions{})
			case 5:
				e = devtest.QueueEntry(npureg.AdminModifyQueue, q, devtest.QueueOptions{Priority: uint8(s.u8() & 3), Timeout: uint32(s.u8() & 31)})
			case 6:
				e = devtest.SharedQueueEntry(q, g.context, g.page(2*q), 2+s.u8()%14, 1+s.u8()%3)
			}
		}
		copy(g.mem[g.adminTail*npureg.SQEntrySize:], e[:])
		g.adminTail = (g.adminTail + 1) % 16
		h.Write32(devtest.Doorbell(0)+npureg.DoorbellSQTail, uint32(g.adminTail))
		h.Write32(devtest.Doorbell(0)+npureg.DoorbellCQHead, uint32(s.u8()%16))
	case 8, 9: // a user command
		q, e := 1+s.u8()%3, s.entry()
		switch s.u8() % 5 {
		case 2:
			e = devtest.TimelineEntry(byte(npureg.CmdWait+s.u8()&1), 0, g.page(8)+uint64(s.u8()&^7), uint64(s.u8()))
		case 0:
			e = copyEntry(uint8(s.u8()&1), uint8(s.u8()&1), g.page(8), uint64(s.u32()), uint32(s.u16()), uint16(s.u16()), uint16(s.u16()), s.u16(), s.u16())
		case 1: // a program of two wild instructions
			text := append(s.bytes(2*isa.Size), make([]byte, isa.Size)...)
			text[2*isa.Size] = byte(isa.OpHalt)
			p := isa.Program{Descriptor: isa.Descriptor{Rows: 32, Cols: 32, SpadSize: 4096, AccSize: 4096, Bindings: 1}, Text: text}
			copy(g.mem[9*4096:], p.Image())
			b := g.mem[10*4096:]
			le.PutUint64(b, g.page(8))
			le.PutUint64(b[8:], 4096)
			copy(b[16:], []byte{3, 0, 0, 0})
			e = devtest.Entry{npureg.CmdLaunch, 0x18: 1}
			le.PutUint64(e[8:], g.page(9))
			le.PutUint64(e[0x10:], g.page(10))
			le.PutUint32(e[0x20:], uint32(len(p.Image())))
		}
		copy(g.mem[2*q*4096+int(g.tails[q])*npureg.SQEntrySize:], e[:])
		g.tails[q] = (g.tails[q] + 1) % uint32(2+s.u8()%14)
		h.Write32(devtest.Doorbell(q), g.tails[q])
		h.Write32(devtest.Doorbell(q)+npureg.DoorbellCQHead, uint32(s.u8()%16))
	case 10: // guest memory
		copy(g.mem[s.u16()%(fuzzPages*4096):], s.bytes(s.u8()))
	case 11:
		resets[s.u8()%len(resets)].do(h)
	case 12: // D3hot and back, bus master off and on
		power(h, byte(s.u8()&3))
		h.SetCommand(uint16(s.u8() & 7))
	case 13: // maps: refused or not does not matter
		at, size := iova.Addr(0x4000_0000+s.u16()&^0xfff), 0x1000*uint64(s.u8()%8)
		if s.u8()&1 != 0 {
			_ = c.MapDMA(at, size, iova.Prot(s.u8()&3), g.file, 0)
		} else {
			_ = c.UnmapDMA(at, size)
		}
	case 14:
		must(c.WriteRegion(vfiouser.RegionBAR0+2, s.u16(), s.bytes(s.u8())))
	case 15:
		must(c.MaskVector(vfiouser.IRQMSIX, s.u8()%16, s.u8()&1 != 0))
	case 16:
		g.operate(s)
	}
}

// operate does something that operators do; refused or not does not matter.
func (g *guest) operate(s *script) {
	d := g.h.Dev
	switch s.u8() % 6 {
	case 0:
		_ = d.InjectMemoryError("uncorrected", "dram", s.u16())
	case 1:
		_ = d.InjectMemoryError("uncorrected", "scratchpad", s.u16())
	case 2:
		celsius := float64(s.u8())
		_ = d.SetThermal(nil, &celsius, false)
	case 3:
		_ = d.CrashFirmware("trap")
	case 4:
		_ = d.CrashFirmware("hang")
	case 5: // and accesses meanwhile, which must not fail
		_ = d.Remove()
		g.h.Write32(uint32(s.u8())*4, s.u32())
		g.h.SetCommand(uint16(s.u8()))
		g.h.Read32(uint32(s.u8()) * 4)
		_ = d.Insert()
	}
}

// FuzzDevice plays a script to a device whose firmware runs and whose queue 1
// exists. The server stays alive, and a conventional reset brings back a device that
// boots and executes a command.
func FuzzDevice(f *testing.F) {
	devtest.NeedsFunction(f, "registers")
	f.Add([]byte{})
	f.Add([]byte{8, 0, 1, 0, 0, 3, 1, 0})                                                 // NOP
	f.Add([]byte{8, 0, 2, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}) // a long COPY
	f.Add([]byte{0, 0x50, 1, 0, 0, 0, 11, 1, 11, 2, 12, 3, 7, 12, 0, 6})
	f.Add([]byte{16, 0, 0, 1, 8, 0, 2, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0xff, 1, 1, 0, 1, 0, 16, 2, 200, 16, 3, 16, 5, 0, 0, 1})
	f.Add([]byte{8, 0, 4, 0, 0, 2, 0, 8, 1, 8, 0, 4, 0, 0, 2, 0, 8, 1, 6, 0, 0, 1, 1, 0, 5}) // WAIT, WAIT, CREATE_QUEUE
	f.Add([]byte{6, 0x10, 0, 0, 0, 0, 0, 7, 1, 0, 0, 0, 0, 0, 1, 1, 2, 4, 4, 0, 0})
	devtest.NeedsBus(f)
	h := devtest.New(f, config())
	mark, _ := h.Alloc(0)
	fd, err := unix.MemfdCreate("extra", unix.MFD_CLOEXEC)
	if err != nil {
		f.Fatal(err)
	}
	file := os.NewFile(uintptr(fd), "extra")
	f.Cleanup(func() { file.Close() })
	if err := file.Truncate(0x8000); err != nil {
		f.Fatal(err)
	}
	// begin is what every machine can do with the device, whatever came before.
	begin := func(t *testing.T) *guest {
		h.T = t
		if err := h.Dev.SetThermal(nil, nil, true); err != nil {
			t.Fatal(err)
		}
		resets[2].do(h)
		power(h, 0)
		h.Rewind(mark)
		h.Bring(firmware.Image())
		g := &guest{h: h, context: h.CreateContext(), file: file}
		h.CreateQueue(1, g.context, 1, 8)
		if c := h.Do(1, nop()); c.Status != npureg.StatusSuccess {
			t.Fatalf("NOP: %v", c)
		}
		return g
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		g := begin(t)
		g.addr, g.mem = h.Alloc(fuzzPages * 4096)
		// The script has an admin queue of its own.
		h.Write32(npureg.AQControl, 0)
		h.Write64(npureg.ASQBaseLo, g.page(0))
		h.Write64(npureg.ACQBaseLo, g.page(1))
		h.Write32(npureg.AQSize, 16<<16|16)
		h.Write32(npureg.AQControl, npureg.AQControlEnable)
		s := script(b)
		for range fuzzDepth {
			if len(s) == 0 {
				break
			}
			g.step(&s)
		}
		if err := h.Client.UnmapDMA(0x4000_0000, 0x20000); err != nil {
			t.Fatal(err)
		}
		begin(t)
	})
}
