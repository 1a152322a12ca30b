// SPDX-License-Identifier: Apache-2.0

package vfiouser

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"npuemu/internal/uds"
)

const (
	// maxReply is the largest message that a Client takes: a bitmap of written
	// pages, with what is before it.
	maxReply = headerSize + 64 + maxBitmap

	// maxReplyFDs is what it takes of descriptors: those of one region's eventfds
	// and their shadows.
	maxReplyFDs = 2 * MaxIOEvents
)

// Offer is what a client proposes in VERSION. A field of value 0 is not proposed, and the
// protocol's default holds. Of MaxMsgFDs and MaxDataXferSize, what comes back is the server's
// own limit.
type Offer struct {
	MaxMsgFDs         uint64 // descriptors in a message
	MaxDataXferSize   uint64 // bytes of data in a message
	MaxDMAMaps        uint64 // ranges at once
	PageSizes         uint64 // of ranges, one bit each
	MigrationPageSize uint64 // of bitmaps of written pages
	MaxBitmapSize     uint64 // bytes of such a bitmap
	WriteMultiple     bool   // REGION_WRITE_MULTI
	TwinSocket        bool   // the server's commands on a second socket
}

// DefaultOffer is what a Client proposes that is not told otherwise. It sets no page
// size, so ranges may begin and end anywhere.
func DefaultOffer() Offer {
	return Offer{
		MaxMsgFDs: maxReplyFDs, MaxDataXferSize: maxData, WriteMultiple: true,
		MigrationPageSize: 4096, MaxBitmapSize: maxBitmap,
	}
}

// capabilities returns o as it goes over the wire.
func (o Offer) capabilities() (c capabilities) {
	number := func(n uint64) *uint64 {
		if n == 0 {
			return nil
		}
		return &n
	}
	c = capabilities{
		MaxMsgFDs: number(o.MaxMsgFDs), MaxDataXferSize: number(o.MaxDataXferSize),
		MaxDMAMaps: number(o.MaxDMAMaps), PageSizes: number(o.PageSizes),
	}
	if o.WriteMultiple {
		c.WriteMultiple = &o.WriteMultiple
	}
	if o.TwinSocket {
		c.TwinSocket = &twinCapability{Supported: true}
	}
	if o.MigrationPageSize != 0 || o.MaxBitmapSize != 0 {
		c.Migration = &migrationCapability{PageSize: number(o.MigrationPageSize), MaxBitmapSize: number(o.MaxBitmapSize)}
	}
	return c
}

// Agreed returns what VERSION agreed on.
func (c *Client) Agreed() Offer { return c.agreed }

// agree checks the reply to VERSION against the offer and takes it over.
func (c *Client) agree(offer Offer, r result) error {
	minor, caps, err := parseVersion(r.body)
	if err != nil {
		return err
	}
	bad := func(key string, value any) error {
		return fmt.Errorf("vfiouser: the server answers VERSION with %s %v, which was not offered", key, value)
	}
	switch {
	case minor != 0:
		return bad("minor version", minor)
	case caps.MaxDMAMaps != nil && *caps.MaxDMAMaps > offer.MaxDMAMaps:
		return bad("max_dma_maps", *caps.MaxDMAMaps)
	case caps.PageSizes != nil && *caps.PageSizes&^offer.PageSizes != 0:
		return bad("pgsizes", *caps.PageSizes)
	case caps.WriteMultiple != nil && *caps.WriteMultiple && !offer.WriteMultiple:
		return bad("write_multiple", true)
	}
	c.agreed = Offer{
		MaxMsgFDs:       or(caps.MaxMsgFDs, defaultPeerFDs),
		MaxDataXferSize: min(or(caps.MaxDataXferSize, maxData), maxData),
		MaxDMAMaps:      or(caps.MaxDMAMaps, offer.MaxDMAMaps),
		PageSizes:       or(caps.PageSizes, offer.PageSizes),
		WriteMultiple:   caps.WriteMultiple != nil && *caps.WriteMultiple,
	}
	if m := caps.Migration; m != nil {
		c.agreed.MigrationPageSize = or(m.PageSize, offer.MigrationPageSize)
		c.agreed.MaxBitmapSize = min(or(m.MaxBitmapSize, offer.MaxBitmapSize), maxBitmap)
	}
	if t := caps.TwinSocket; t != nil && t.Supported {
		if !offer.TwinSocket || t.FDIndex == nil || *t.FDIndex >= uint64(len(r.fds)) {
			return bad("twin_socket", "without its socket")
		}
		c.agreed.TwinSocket = true
		return c.openTwin(r.fds[*t.FDIndex])
	}
	return nil
}

// openTwin serves the server's commands on a socket that came with VERSION. fd stays
// the caller's.
func (c *Client) openTwin(fd int) error {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("vfiouser: twin socket: %w", err)
	}
	f := os.NewFile(uintptr(own), "vfio-user twin socket")
	defer f.Close()
	nc, err := net.FileConn(f)
	if err != nil {
		return fmt.Errorf("vfiouser: twin socket: %w", err)
	}
	unixConn, ok := nc.(*net.UnixConn)
	if !ok {
		return errors.Join(fmt.Errorf("vfiouser: the twin socket is a %T; a UNIX stream socket is needed", nc), nc.Close())
	}
	if c.twin, err = uds.New(unixConn, sendTimeout); err != nil {
		return err
	}
	c.served = make(chan struct{})
	go func() {
		defer close(c.served)
		defer c.sock.Shutdown()
		for c.receiveOne(c.twin) == nil {
		}
	}()
	return nil
}
