// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"bytes"
	"encoding/json"
	"math/bits"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
)

// capabilities is the JSON object of a VERSION message. A nil field was absent.
type capabilities struct {
	MaxMsgFDs       *uint64              `json:"max_msg_fds,omitempty"`
	MaxDataXferSize *uint64              `json:"max_data_xfer_size,omitempty"`
	MaxDMAMaps      *uint64              `json:"max_dma_maps,omitempty"`
	PageSizes       *uint64              `json:"pgsizes,omitempty"`
	WriteMultiple   *bool                `json:"write_multiple,omitempty"`
	TwinSocket      *twinCapability      `json:"twin_socket,omitempty"`
	Migration       *migrationCapability `json:"migration,omitempty"`
}

type twinCapability struct {
	Supported bool    `json:"supported"`
	FDIndex   *uint64 `json:"fd_index,omitempty"` // only in a reply
}

type migrationCapability struct {
	PageSize      *uint64 `json:"pgsize,omitempty"`
	MaxBitmapSize *uint64 `json:"max_bitmap_size,omitempty"`
}

type versionData struct {
	Capabilities capabilities `json:"capabilities"`
}

// What a capability means that was not sent.
const (
	defaultPeerFDs   = 1
	defaultMaxBitmap = 256 << 20
	defaultMaxMaps   = 65535
)

// maxPeerFDs is the largest max_msg_fds that makes sense: Linux passes fewer.
const maxPeerFDs = 1024

// pageSizes are the page sizes of our DMA_MAP: the table has no pages, so all from
// 4 KiB on.
const pageSizes = ^uint64(4095)

// parseVersion reads the payload of VERSION: major, minor, and optional JSON
// with its NUL. Unknown keys are allowed.
func parseVersion(body []byte) (minor uint16, caps capabilities, err error) {
	if len(body) < 4 {
		return 0, caps, refuse(unix.EINVAL, "VERSION has %d bytes of payload; major and minor need 4", len(body))
	}
	if major := order.Uint16(body); major != 0 {
		return 0, caps, refuse(unix.EINVAL, "VERSION proposes major %d; offer major 0", major)
	}
	minor = order.Uint16(body[2:])
	if len(body) == 4 {
		return minor, caps, nil
	}
	text, _, found := bytes.Cut(body[4:], []byte{0})
	if !found {
		return 0, caps, refuse(unix.EINVAL, "VERSION: the JSON does not end with NUL; count the NUL in the message size")
	}
	var v versionData
	if len(text) > 0 {
		if jerr := json.Unmarshal(text, &v); jerr != nil {
			return 0, caps, refuse(unix.EINVAL, "VERSION: bad JSON: %v; send an object with \"capabilities\"", jerr)
		}
	}
	caps = v.Capabilities
	if n := caps.MaxMsgFDs; n != nil && *n > maxPeerFDs {
		return 0, caps, refuse(unix.EINVAL, "VERSION: max_msg_fds is %d; offer at most %d", *n, maxPeerFDs)
	}
	if p := caps.PageSizes; p != nil && *p&pageSizes == 0 {
		return 0, caps, refuse(unix.EINVAL, "VERSION: pgsizes is %#x; offer pages of 4096 bytes or more", *p)
	}
	if m := caps.Migration; m != nil && m.PageSize != nil && bits.OnesCount64(*m.PageSize) != 1 {
		return 0, caps, refuse(unix.EINVAL, "VERSION: migration.pgsize is %d; offer a power of two", *m.PageSize)
	}
	return minor, caps, nil
}

// appendVersion appends a VERSION payload. QEMU receives the reply into a buffer
// as large as its own request, 214 bytes with the header, so replies stay below
// 200 bytes: a reply has only the keys of the request, with values that are not longer.
func appendVersion(b []byte, minor uint16, caps capabilities) []byte {
	b = order.AppendUint16(b, 0)
	b = order.AppendUint16(b, minor)
	text, err := json.Marshal(versionData{Capabilities: caps})
	if err != nil {
		panic("vfiouser: BUG: capabilities do not marshal: " + err.Error())
	}
	b = append(b, text...)
	return append(b, 0)
}

// atMost returns the smaller of what was offered and our limit; nil if nothing was.
func atMost(offer *uint64, limit uint64) *uint64 {
	if offer == nil {
		return nil
	}
	n := min(*offer, limit)
	return &n
}

// or returns *v, or what it means that v was not sent.
func or(v *uint64, missing uint64) uint64 {
	if v == nil {
		return missing
	}
	return *v
}

// agree takes over what a client offers and returns what the reply says, which has no
// other keys than the offer. The twin socket is for the caller.
func (c *conn) agree(offer capabilities) (reply capabilities) {
	// These two say what the sender can receive: each side tells its own.
	c.peerFDs = int(or(offer.MaxMsgFDs, defaultPeerFDs))
	c.peerData = int(min(or(offer.MaxDataXferSize, maxData), maxData))
	fds, data := uint64(maxFDs), uint64(maxData)
	if offer.MaxMsgFDs != nil {
		reply.MaxMsgFDs = &fds
	}
	if offer.MaxDataXferSize != nil {
		reply.MaxDataXferSize = &data
	}

	// A client that says no more than the protocol's default has not counted: QEMU names it,
	// and maps page after page behind an IOMMU.
	c.maxMaps = iova.MaxMappings
	if n := or(offer.MaxDMAMaps, defaultMaxMaps); n < defaultMaxMaps {
		c.maxMaps = n
	}
	reply.MaxDMAMaps = atMost(offer.MaxDMAMaps, iova.MaxMappings)
	if p := offer.PageSizes; p != nil {
		common := *p & pageSizes
		c.pageMask = common&-common - 1
		reply.PageSizes = &common
	}
	reply.WriteMultiple = offer.WriteMultiple
	c.maxBitmap = maxBitmap
	if m := offer.Migration; m != nil {
		c.maxBitmap = min(or(m.MaxBitmapSize, defaultMaxBitmap), maxBitmap)
		if c.s.migration.dev != nil || c.s.table != nil {
			reply.Migration = &migrationCapability{MaxBitmapSize: atMost(m.MaxBitmapSize, maxBitmap)}
			if m.PageSize != nil {
				size := min(max(*m.PageSize, iova.MinLogPage), iova.MaxLogPage)
				reply.Migration.PageSize = &size
			}
		}
	}
	return reply
}
