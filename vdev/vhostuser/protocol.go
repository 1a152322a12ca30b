// SPDX-License-Identifier: Apache-2.0

package vhostuser

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"npuemu/dma/iova"
)

var order = binary.LittleEndian // the protocol's is the machine's; both ends are on one

// request is the first field of a message: what the front end asks for.
type request uint32

// The front end's requests.
const (
	reqGetFeatures         request = 1
	reqSetFeatures         request = 2
	reqSetOwner            request = 3
	reqResetOwner          request = 4
	reqSetMemTable         request = 5
	reqSetVringNum         request = 8
	reqSetVringAddr        request = 9
	reqSetVringBase        request = 10
	reqGetVringBase        request = 11
	reqSetVringKick        request = 12
	reqSetVringCall        request = 13
	reqSetVringErr         request = 14
	reqGetProtocolFeatures request = 15
	reqSetProtocolFeatures request = 16
	reqGetQueueNum         request = 17
	reqSetVringEnable      request = 18
	reqSetBackendReqFD     request = 21
	reqGetConfig           request = 24
	reqSetConfig           request = 25
	reqGetInflightFD       request = 31
	reqSetInflightFD       request = 32
	reqResetDevice         request = 34
	reqGetMaxMemSlots      request = 36
	reqAddMemReg           request = 37
	reqRemMemReg           request = 38
	reqSetStatus           request = 39
	reqGetStatus           request = 40
	reqGetShmemConfig      request = 44
)

// Our own requests, on the back-end channel.
const (
	reqConfigChange request = 2 // VHOST_USER_BACKEND_CONFIG_CHANGE_MSG
	reqShmemMap     request = 9 // VHOST_USER_BACKEND_SHMEM_MAP
)

// Feature bits of the transport and of virtqueues.
const (
	FeatureIndirect   = 1 << 28 // VIRTIO_F_INDIRECT_DESC
	FeatureEventIndex = 1 << 29 // VIRTIO_F_EVENT_IDX
	FeatureProtocol   = 1 << 30 // VHOST_USER_F_PROTOCOL_FEATURES
	FeatureVersion1   = 1 << 32 // VIRTIO_F_VERSION_1
	FeaturePacked     = 1 << 34 // VIRTIO_F_RING_PACKED

	// deviceFeatures are the bits that belong to the device type.
	deviceFeatures = 1<<24 - 1
	ringFeatures   = FeatureIndirect | FeatureEventIndex | FeatureProtocol | FeatureVersion1 | FeaturePacked
)

// Protocol feature bits.
const (
	protoMQ            = 1 << 0
	protoReplyAck      = 1 << 3
	protoBackendReq    = 1 << 5
	protoConfig        = 1 << 9
	protoBackendSendFD = 1 << 10
	protoInflight      = 1 << 12
	protoResetDevice   = 1 << 13
	protoMemSlots      = 1 << 15
	protoStatus        = 1 << 16
	protoShmem         = 1 << 22

	// QEMU acknowledges every bit that it knows: only what is here may be offered.
	protoOffered = protoMQ | protoReplyAck | protoBackendReq | protoConfig | protoBackendSendFD |
		protoInflight | protoResetDevice | protoMemSlots | protoStatus | protoShmem
)

// Bits of the virtio device status (VIRTIO 1.3 §2.1).
const (
	statusFeaturesOK = 8
	statusNeedsReset = 64
)

const (
	headerSize = 12

	// maxBody is the largest body of a message that we know, with room for later
	// fields: SET_MEM_TABLE has 8 + 8·32, GET_CONFIG 12 + 256.
	maxBody = 512

	// maxFDs is what SET_MEM_TABLE carries; nothing carries more.
	maxFDs = 8

	// maxTableRegions is the protocol's limit for SET_MEM_TABLE, maxSlots ours for
	// ADD_MEM_REG, which is QEMU's own for x86.
	maxTableRegions = 8
	maxSlots        = 512

	// MaxQueues is what the 8-bit index of SET_VRING_KICK can name.
	MaxQueues = 256

	// maxRingSize is the largest queue that QEMU makes.
	maxRingSize = 1024

	// MaxConfig is the size of the configuration space that the protocol carries.
	MaxConfig = 256

	// maxGuestAddr is above every guest-physical address of the machines that there
	// are: 52 bits on x86-64 and arm64.
	maxGuestAddr = 1 << 52

	shmemRegions = 8 // of GET_SHMEM_CONFIG
)

// Bits of a header's flags.
const (
	flagVersion   = 1 // bits 1:0, the only version
	flagVersionOf = 3
	flagReply     = 1 << 2
	flagNeedReply = 1 << 3
)

// header precedes every message.
type header struct {
	request request
	flags   uint32
	size    uint32 // of the body
}

func (h header) put(b []byte) {
	order.PutUint32(b, uint32(h.request))
	order.PutUint32(b[4:], h.flags)
	order.PutUint32(b[8:], h.size)
}

// parseHeader decodes b, of headerSize bytes. An error means that the stream is
// not a vhost-user stream, or that it is out of step.
func parseHeader(b []byte) (header, error) {
	h := header{request: request(order.Uint32(b)), flags: order.Uint32(b[4:]), size: order.Uint32(b[8:])}
	switch {
	case h.flags&flagVersionOf != flagVersion:
		return h, fmt.Errorf("vhostuser: message %d has version %d; use %d", h.request, h.flags&flagVersionOf, flagVersion)
	case h.size > maxBody:
		return h, fmt.Errorf("vhostuser: message %d has a body of %d bytes; no message has more than %d", h.request, h.size, maxBody)
	case h.flags&^(flagVersionOf|flagNeedReply) != 0:
		return h, fmt.Errorf("vhostuser: message %d has flags %#x; a request has the version and bit 3 at most", h.request, h.flags)
	}
	return h, nil
}

// region is a part of guest memory as SET_MEM_TABLE and ADD_MEM_REG describe it.
type region struct {
	guest iova.Addr // guest-physical address
	size  uint64
	user  uint64 // the front end's virtual address, in which ring addresses are given
	off   uint64 // in the file
}

const regionSize = 32

// parseRegion decodes b, of regionSize bytes, and checks that no sum overflows.
func parseRegion(b []byte) (region, error) {
	r := region{guest: iova.Addr(order.Uint64(b)), size: order.Uint64(b[8:]), user: order.Uint64(b[16:]), off: order.Uint64(b[24:])}
	switch {
	case r.size == 0 || r.size > maxGuestAddr || r.guest > iova.Addr(maxGuestAddr-r.size):
		return r, refuse(unix.EINVAL, "%#x bytes at guest address %v; a region has at least a byte and lies below %#x", r.size, r.guest, uint64(maxGuestAddr))
	case r.user > ^uint64(0)-(r.size-1):
		return r, refuse(unix.EINVAL, "%#x bytes at user address %#x pass 2^64", r.size, r.user)
	}
	return r, nil
}

// refusal is a rule that a message breaks, and the errno that says so.
type refusal struct {
	errno unix.Errno
	rule  string
}

func (r *refusal) Error() string { return r.rule }
func (r *refusal) Unwrap() error { return r.errno }

func refuse(errno unix.Errno, format string, args ...any) error {
	return &refusal{errno: errno, rule: fmt.Sprintf(format, args...)}
}

// errnoOf returns the errno that tells the peer about err.
func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	if errors.As(err, &errno) && errno != 0 {
		return errno
	}
	return unix.EIO
}
