// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

// Package hands drives a card by the processor of a guest: a small guest in the embedded VMM
// (testdata/hands.S) does the accesses that a test asks for, as instructions, and
// counts the interrupts that reach it. A Client looks like a client of a
// transport, as far as a guest can be one.
package hands

import (
	"context"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/mmio/npureg"
	"npuemu/vdev/gokvm"
	"npuemu/vdev/vfiouser"
)

// payload is testdata/hands.S, assembled.
//
//go:embed testdata/hands.bin
var payload []byte

// Addresses and numbers that hands.S and the machine have.
const (
	mailbox     = 0x300000
	counts      = 0x301000
	causes      = 0x302000
	messages    = 64
	firstVector = 0x40
	localAPIC   = 0xfee0_0000
	ioAPIC      = 0xfec0_0000
	pinINTA     = 16
	npuDevice   = 1

	opIn, opOut, opLoad, opStore = 1, 2, 3, 4

	configAddress, configData = 0xcf8, 0xcfc
	timeout                   = 20 * time.Second
)

// ErrCannot is the error of what a guest cannot do, though other clients can.
var ErrCannot = errors.New("hands: a guest's processor cannot do this")

// Client is a guest with a card. One goroutine at a time uses it.
type Client struct {
	t     testing.TB
	mem   []byte // guest memory
	bars  [6]uint64
	sizes [6]uint64
	irqs  []vfiouser.IRQ
	ended chan error
	stop  context.CancelFunc

	set  []vectors                                // what SetVectors was told
	fds  [messages + 1]atomic.Pointer[eventfd.FD] // who hears of an interrupt
	quit chan struct{}
	done chan struct{}
}

// vectors are the arguments of a SetVectors.
type vectors struct {
	index, start int
	fds          []*eventfd.FD
}

// Boot starts a guest with d whose memory is f, and places the BARs. The test is
// skipped where KVM cannot be used. The guest ends with Close.
func Boot(t testing.TB, d gokvm.Device, f *os.File) *Client {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	c := &Client{t: t, irqs: d.IRQs(), ended: make(chan error, 1), quit: make(chan struct{}), done: make(chan struct{})}
	if c.mem, err = unix.Mmap(int(f.Fd()), 0, int(st.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	clear(c.mem[mailbox:][:0x3000])
	go func() {
		c.ended <- gokvm.Boot(ctx, d, gokvm.Config{Memory: st.Size(), MemoryFile: f, Payload: payload})
	}()
	go c.watch()
	at := uint64(0xd000_0000)
	for i, r := range d.Regions()[:6] {
		if r.Size == 0 {
			continue
		}
		at = (at + r.Size - 1) &^ (r.Size - 1)
		c.bars[i], c.sizes[i] = at, r.Size
		at += r.Size
	}
	if err := c.place(); err != nil {
		c.Close()
		if errors.Is(err, gokvm.ErrKVM) || errors.Is(err, gokvm.ErrEmulation) {
			t.Skip("not run: ", err)
		}
		t.Fatal(err)
	}
	return c
}

// place writes the BARs, all of which have 64 bits.
func (c *Client) place() error {
	for i, at := range c.bars {
		if at == 0 {
			continue
		}
		if err := c.WriteRegion(vfiouser.RegionConfig, uint64(0x10+4*i), binary.LittleEndian.AppendUint64(nil, at)); err != nil {
			return err
		}
	}
	return nil
}

// do has the guest do an access of 1, 2, 4 or, in memory, 8 bytes.
func (c *Client) do(op, size uint32, addr, value uint64) (uint64, error) {
	le := binary.LittleEndian
	m := c.mem[mailbox:][:24]
	le.PutUint32(m[4:], size)
	le.PutUint64(m[8:], addr)
	le.PutUint64(m[16:], value)
	word := (*uint32)(unsafe.Pointer(&m[0]))
	atomic.StoreUint32(word, op)
	for n, end := 0, time.Now().Add(timeout); atomic.LoadUint32(word) != 0; n++ {
		if n%1000 != 999 {
			continue
		}
		select {
		case err := <-c.ended:
			c.ended <- err
			return 0, fmt.Errorf("hands: the guest ended: %w", err)
		default:
		}
		if time.Now().After(end) {
			return 0, fmt.Errorf("hands: no answer of the guest for operation %d of %d bytes at %#x", op, size, addr)
		}
		time.Sleep(10 * time.Microsecond)
	}
	return le.Uint64(m[16:]), nil
}

// Load and Store access guest-physical memory.
func (c *Client) Load(addr uint64, size int) (uint64, error) {
	return c.do(opLoad, uint32(size), addr, 0)
}

// Store is Load's counterpart.
func (c *Client) Store(addr uint64, size int, value uint64) error {
	_, err := c.do(opStore, uint32(size), addr, value)
	return err
}

// pieces calls f for the accesses that make up n bytes at off, none larger than most:
// what is one access stays one, if a processor has it.
func pieces(off uint64, n, most int, f func(off uint64, at, size int) error) error {
	if n < most && n != 1 && n != 2 && n != 4 {
		return fmt.Errorf("%w: an access of %d bytes", ErrCannot, n)
	}
	for at := 0; at < n; {
		size := most
		for size > n-at || int(off+uint64(at))%size != 0 && n != size {
			size /= 2
		}
		if err := f(off+uint64(at), at, size); err != nil {
			return err
		}
		at += size
	}
	return nil
}

// ReadRegion reads configuration space through ports, and BARs through memory.
func (c *Client) ReadRegion(index int, off uint64, p []byte) error {
	read := func(op uint32, addr uint64, at, size int) error {
		v, err := c.do(op, uint32(size), addr, 0)
		for i := range size {
			p[at+i] = byte(v >> (8 * i))
		}
		return err
	}
	if index == vfiouser.RegionConfig {
		return pieces(off, len(p), 4, func(off uint64, at, size int) error {
			port, err := c.config(off, size)
			if err != nil {
				return err
			}
			return read(opIn, port, at, size)
		})
	}
	base, err := c.bar(index, off, len(p))
	if err != nil {
		return err
	}
	return pieces(off, len(p), 8, func(off uint64, at, size int) error { return read(opLoad, base+off, at, size) })
}

// WriteRegion is ReadRegion's counterpart. A write of the command register that opens
// the BARs first restores what a reset of the function took away, as a driver does: the
// BARs and the interrupts.
func (c *Client) WriteRegion(index int, off uint64, p []byte) error {
	if err := c.write(index, off, p); err != nil {
		return err
	}
	if index == vfiouser.RegionConfig && off == 4 && p[0]&2 != 0 {
		return c.restore()
	}
	return nil
}

func (c *Client) restore() error {
	var p [4]byte
	if err := c.ReadRegion(vfiouser.RegionConfig, 0x10, p[:]); err != nil {
		return err
	}
	if uint64(binary.LittleEndian.Uint32(p[:])&^0xf) == c.bars[0] {
		return nil
	}
	if err := c.place(); err != nil {
		return err
	}
	for _, v := range c.set {
		if err := c.setVectors(v.index, v.start, v.fds); err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) write(index int, off uint64, p []byte) error {
	write := func(op uint32, addr uint64, at, size int) error {
		var v uint64
		for i := range size {
			v |= uint64(p[at+i]) << (8 * i)
		}
		_, err := c.do(op, uint32(size), addr, v)
		return err
	}
	if index == vfiouser.RegionConfig {
		return pieces(off, len(p), 4, func(off uint64, at, size int) error {
			port, err := c.config(off, size)
			if err != nil {
				return err
			}
			return write(opOut, port, at, size)
		})
	}
	base, err := c.bar(index, off, len(p))
	if err != nil {
		return err
	}
	return pieces(off, len(p), 8, func(off uint64, at, size int) error { return write(opStore, base+off, at, size) })
}

// config selects a register by CONFIG_ADDRESS, and returns the port to access it.
func (c *Client) config(off uint64, size int) (port uint64, err error) {
	if off+uint64(size) > 0x100 || off%4+uint64(size) > 4 {
		return 0, fmt.Errorf("%w: %d bytes at %#x of configuration space, which ends at 0x100 here", ErrCannot, size, off)
	}
	_, err = c.do(opOut, 4, configAddress, 1<<31|npuDevice<<11|off&^3)
	return configData + off&3, err
}

func (c *Client) bar(index int, off uint64, n int) (uint64, error) {
	if index < 0 || index >= len(c.bars) || off > c.sizes[index] || uint64(n) > c.sizes[index]-off {
		return 0, fmt.Errorf("%w: %d bytes at %#x of region %d", ErrCannot, n, off, index)
	}
	return c.bars[index], nil
}

// IRQInfo describes an interrupt type.
func (c *Client) IRQInfo(index int) (vfiouser.IRQ, error) { return c.irqs[index], nil }

// SetVectors tells eventfds of interrupts from start on, which it sets up as a driver
// does: entries of the MSI-X table and MSI-X Enable; MSI for all messages, and MSI Enable; or
// the pin of the I/O APIC, whose handler clears the causes in IRQ_STATUS as §8.4 says.
func (c *Client) SetVectors(index, start int, fds ...*eventfd.FD) error {
	c.set = append(c.set, vectors{index, start, fds})
	return c.setVectors(index, start, fds)
}

func (c *Client) setVectors(index, start int, fds []*eventfd.FD) error {
	switch index {
	case vfiouser.IRQMSIX:
		for i, fd := range fds {
			e := uint64(start+i) * 16
			c.fds[start+i].Store(fd)
			for off, v := range map[uint64]uint32{0: localAPIC, 4: 0, 8: uint32(firstVector + start + i)} {
				if err := c.WriteRegion(vfiouser.RegionBAR0+4, e+off, binary.LittleEndian.AppendUint32(nil, v)); err != nil {
					return err
				}
			}
			if err := c.MaskVector(index, start+i, false); err != nil {
				return err
			}
		}
		return c.setCapability(0x11, func(_ uint64, control uint16) (uint16, error) { return control | 1<<15, nil })
	case vfiouser.IRQMSI:
		for i, fd := range fds {
			c.fds[start+i].Store(fd)
		}
		return c.setCapability(0x05, func(at uint64, control uint16) (uint16, error) {
			err := errors.Join(c.WriteRegion(vfiouser.RegionConfig, at+4, binary.LittleEndian.AppendUint32(nil, localAPIC)),
				c.WriteRegion(vfiouser.RegionConfig, at+8, binary.LittleEndian.AppendUint32(nil, 0)),
				c.WriteRegion(vfiouser.RegionConfig, at+12, binary.LittleEndian.AppendUint16(nil, firstVector)))
			return control | control>>1&7<<4 | 1, err // as many messages as it can
		})
	case vfiouser.IRQINTx:
		c.fds[messages].Store(fds[0])
		binary.LittleEndian.PutUint32(c.mem[causes:], uint32(c.bars[0])+npureg.IRQStatus)
		return errors.Join(c.Store(ioAPIC, 4, 0x10+2*pinINTA), c.Store(ioAPIC+0x10, 4, uint64(firstVector+messages)|1<<15))
	}
	return fmt.Errorf("%w: interrupts of type %d", ErrCannot, index)
}

// setCapability changes the control register of a capability.
func (c *Client) setCapability(id byte, f func(at uint64, control uint16) (uint16, error)) error {
	p := make([]byte, 4)
	at := uint64(0x34)
	if err := c.ReadRegion(vfiouser.RegionConfig, at, p[:1]); err != nil {
		return err
	}
	for at = uint64(p[0]); at != 0; at = uint64(p[1]) {
		if err := c.ReadRegion(vfiouser.RegionConfig, at, p); err != nil {
			return err
		}
		if p[0] == id {
			v, err := f(at, binary.LittleEndian.Uint16(p[2:]))
			return errors.Join(err, c.WriteRegion(vfiouser.RegionConfig, at+2, binary.LittleEndian.AppendUint16(nil, v)))
		}
	}
	return fmt.Errorf("hands: the card has no capability %#x", id)
}

// MaskVector masks or unmasks a message of MSI-X in the table.
func (c *Client) MaskVector(index, vector int, masked bool) error {
	if index != vfiouser.IRQMSIX {
		return fmt.Errorf("%w: mask interrupts of type %d", ErrCannot, index)
	}
	bit := []byte{0, 0, 0, 0}
	if masked {
		bit[0] = 1
	}
	return c.WriteRegion(vfiouser.RegionBAR0+4, uint64(vector)*16+12, bit)
}

// Count returns how often the guest took message i, or, with -1, an interrupt of the pin.
func (c *Client) Count(i int) uint32 {
	if i < 0 {
		i = messages
	}
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&c.mem[counts+4*i])))
}

// watch passes interrupts on to eventfds.
func (c *Client) watch() {
	defer close(c.done)
	var seen [messages + 1]uint32
	for {
		select {
		case <-c.quit:
			return
		case <-time.After(100 * time.Microsecond):
		}
		for i := range seen {
			n := atomic.LoadUint32((*uint32)(unsafe.Pointer(&c.mem[counts+4*i])))
			if fd := c.fds[i].Load(); fd != nil && n != seen[i] {
				fd.Signal()
				seen[i] = n
			}
		}
	}
}

// MapDMA, MapMemory, UnmapDMA and Reset are what the machine does and its processor
// cannot.
func (c *Client) MapDMA(iova.Addr, uint64, iova.Prot, *os.File, uint64) error { return ErrCannot }

// MapMemory fails.
func (c *Client) MapMemory(iova.Addr, uint64, iova.Prot, iova.Memory) error { return ErrCannot }

// UnmapDMA fails.
func (c *Client) UnmapDMA(iova.Addr, uint64) error { return ErrCannot }

// Reset fails.
func (c *Client) Reset() error { return ErrCannot }

// Close ends the guest.
func (c *Client) Close() {
	if c.mem == nil {
		return
	}
	c.stop()
	if err := <-c.ended; err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, gokvm.ErrKVM) && !errors.Is(err, gokvm.ErrEmulation) {
		c.t.Error(err)
	}
	close(c.quit)
	<-c.done
	if err := unix.Munmap(c.mem); err != nil {
		c.t.Error(err)
	}
	c.mem = nil
}
