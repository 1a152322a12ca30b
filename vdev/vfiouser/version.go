// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vfiouser

import (
	"bytes"
	"encoding/json"
	"math/bits"

	"golang.org/x/sys/unix"
)

// capabilities is the JSON object of a VERSION message. A nil field was absent.
type capabilities struct {
	MaxMsgFDs       *uint64 `json:"max_msg_fds,omitempty"`
	MaxDataXferSize *uint64 `json:"max_data_xfer_size,omitempty"`
	MaxDMAMaps      *uint64 `json:"max_dma_maps,omitempty"`
	PageSizes       *uint64 `json:"pgsizes,omitempty"`
	WriteMultiple   bool    `json:"write_multiple,omitempty"`
	TwinSocket      *struct {
		Supported bool `json:"supported"`
	} `json:"twin_socket,omitempty"`
	Migration *struct {
		PageSize      *uint64 `json:"pgsize"`
		MaxBitmapSize *uint64 `json:"max_bitmap_size"`
	} `json:"migration,omitempty"`
}

type versionData struct {
	Capabilities capabilities `json:"capabilities"`
}

// maxPeerFDs is the largest max_msg_fds that makes sense: Linux passes fewer.
const maxPeerFDs = 1024

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
	if m := caps.Migration; m != nil && m.PageSize != nil && bits.OnesCount64(*m.PageSize) != 1 {
		return 0, caps, refuse(unix.EINVAL, "VERSION: migration.pgsize is %d; offer a power of two", *m.PageSize)
	}
	return minor, caps, nil
}

// appendVersion appends a VERSION payload. QEMU receives the reply into a buffer
// as large as its own request, 214 bytes with the header, so replies stay below
// 200 bytes.
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
