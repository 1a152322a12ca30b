// SPDX-License-Identifier: Apache-2.0

// Package local is the in-process transport: a host in the device's own process,
// a user-mode driver or an embedded VMM, attaches with no socket in between.
// A Client answers to the calls of vfiouser.Client, with the checks that
// vfiouser.Server makes, so whoever drives one can drive the other.
package local

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
	"npuemu/internal/eventfd"
	"npuemu/internal/filemap"
	"npuemu/vdev/vfiouser"
)

// ErrClosed is the error of a call after Close.
var ErrClosed = errors.New("local: the client is closed; attach again")

// Client is a host attached to a device. Methods may be called from any
// goroutine; the device sees one call at a time. A Memory that is mapped must not
// call the Client.
type Client struct {
	regions []vfiouser.Region // never change
	irqs    []vfiouser.IRQ    // never change
	files   filemap.Set       // behind MapDMA

	mu     sync.Mutex       // held across every call of dev
	dev    vfiouser.Backend // guarded by mu
	closed bool             // guarded by mu
}

// Attach attaches a host to dev, which has no other client until Close.
func Attach(dev vfiouser.Backend) *Client {
	return &Client{dev: dev, regions: dev.Regions(), irqs: dev.IRQs()}
}

// Close detaches: the device stops its DMA and forgets mappings and vectors, as
// when the client of a socket goes away. Closing twice is allowed.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	c.dev.Detach()
	for i, irq := range c.irqs {
		for v := range irq.Count {
			c.dev.SetVector(i, v, nil)
		}
	}
	c.dev.UnmapAllDMA()
}

// do calls f, which may use the device.
func (c *Client) do(f func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	return f()
}

// RegionInfo describes a region. Its File stays the device's.
func (c *Client) RegionInfo(index int) (vfiouser.Region, error) {
	if index < 0 || index >= len(c.regions) {
		return vfiouser.Region{}, fmt.Errorf("local: region %d; the device has %d", index, len(c.regions))
	}
	return c.regions[index], nil
}

// IRQInfo describes an interrupt type.
func (c *Client) IRQInfo(index int) (vfiouser.IRQ, error) {
	if index < 0 || index >= len(c.irqs) {
		return vfiouser.IRQ{}, fmt.Errorf("local: interrupt type %d; the device has %d", index, len(c.irqs))
	}
	return c.irqs[index], nil
}

// access checks an access to a region.
func (c *Client) access(index int, off uint64, n int, need vfiouser.RegionFlags) error {
	r, err := c.RegionInfo(index)
	switch {
	case err != nil:
		return err
	case off > r.Size || uint64(n) > r.Size-off:
		return fmt.Errorf("local: %d bytes at %#x of region %d go beyond its %#x bytes", n, off, index, r.Size)
	case n > 0 && r.Flags&need == 0:
		return fmt.Errorf("local: region %d does not allow this access; its flags are %#x", index, r.Flags)
	}
	return nil
}

// ReadRegion fills p from a region.
func (c *Client) ReadRegion(index int, off uint64, p []byte) error {
	if err := c.access(index, off, len(p), vfiouser.RegionRead); err != nil {
		return err
	}
	return c.do(func() error { return c.dev.ReadRegion(index, off, p) })
}

// WriteRegion writes p to a region.
func (c *Client) WriteRegion(index int, off uint64, p []byte) error {
	if err := c.access(index, off, len(p), vfiouser.RegionWrite); err != nil {
		return err
	}
	return c.do(func() error { return c.dev.WriteRegion(index, off, p) })
}

// MapDMA lets the device reach size bytes of f from offset off at addr, without
// copying. f stays the caller's; accesses to what it loses by shrinking fail.
func (c *Client) MapDMA(addr iova.Addr, size uint64, prot iova.Prot, f *os.File, off uint64) error {
	if err := checkProt(prot); err != nil {
		return err
	}
	m, err := c.files.Open(int(f.Fd()), off, size, prot&iova.Write != 0)
	if err != nil {
		return fmt.Errorf("local: map: %w", err)
	}
	return c.MapMemory(addr, size, prot, m)
}

// MapMemory lets the device reach mem at addr. mem is closed when it is unmapped
// or when MapMemory fails.
func (c *Client) MapMemory(addr iova.Addr, size uint64, prot iova.Prot, mem iova.Memory) error {
	err := checkProt(prot)
	if err == nil {
		err = c.do(func() error { return c.dev.MapDMA(addr, size, prot, mem) })
	}
	if err != nil {
		mem.Close()
	}
	return err
}

func checkProt(prot iova.Prot) error {
	if prot == 0 || prot&^(iova.Read|iova.Write) != 0 {
		return fmt.Errorf("local: map: protection %v; give iova.Read, iova.Write or both", prot)
	}
	return nil
}

// UnmapDMA takes back every range inside [addr, addr+size). No access to it runs
// any more when it returns.
func (c *Client) UnmapDMA(addr iova.Addr, size uint64) error {
	return c.do(func() error { return c.dev.UnmapDMA(addr, size) })
}

// SetVectors attaches an eventfd to each vector from start on. The eventfds stay
// the caller's: the device gets duplicates.
func (c *Client) SetVectors(index, start int, fds ...*eventfd.FD) error {
	irq, err := c.IRQInfo(index)
	if err != nil {
		return err
	}
	if start < 0 || start > irq.Count || len(fds) > irq.Count-start {
		return fmt.Errorf("local: vectors %d+%d of interrupt type %d; it has %d", start, len(fds), index, irq.Count)
	}
	return c.do(func() error {
		for i, fd := range fds {
			dup, err := unix.FcntlInt(uintptr(fd.Fd()), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("local: eventfd of vector %d: %w", start+i, err)
			}
			own, err := eventfd.Adopt(dup)
			if err != nil {
				return fmt.Errorf("local: vector %d: %w", start+i, err)
			}
			c.dev.SetVector(index, start+i, own)
		}
		return nil
	})
}

// MaskVector masks or unmasks a vector.
func (c *Client) MaskVector(index, vector int, masked bool) error {
	irq, err := c.IRQInfo(index)
	if err != nil {
		return err
	}
	if vector < 0 || vector >= irq.Count || irq.Flags&vfiouser.IRQMaskable == 0 {
		return fmt.Errorf("local: vector %d of interrupt type %d cannot be masked; it has %d vectors, flags %#x", vector, index, irq.Count, irq.Flags)
	}
	return c.do(func() error { c.dev.MaskVector(index, vector, masked); return nil })
}

// Reset resets the function; mappings and vectors stay.
func (c *Client) Reset() error { return c.do(c.dev.Reset) }
