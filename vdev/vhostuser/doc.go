// SPDX-License-Identifier: Apache-2.0

// Package vhostuser presents a device to a VMM as a virtio device over the
// vhost-user protocol, back-end side: messages, guest memory, split and packed virtqueues with
// indirect descriptors and event index, in-flight tracking. It knows nothing of the device type: that is a
// [Backend]. The protocol is QEMU's docs/interop/vhost-user.rst, virtqueues are VIRTIO
// 1.3 §2.7 and §2.8.
//
// Whose mistake it is decides what happens. A message that breaks a rule is answered
// with an errno if the front end asked for an answer (REPLY_ACK), nothing has changed, and
// service goes on. Without an answer both sides would go on with different ideas of
// the state, so the connection is closed. A virtqueue that breaks a rule stops for
// good ([RingError]): its error eventfd is written, the device status gets
// DEVICE_NEEDS_RESET, and the Backend is told. Nothing that a peer writes makes the
// server wait, crash or touch memory that it was not given.
//
// Ownership: one goroutine serves the connection; another waits for kicks, and a third
// talks on the back-end channel. FrontEnd.mu guards rings and the map of guest memory, and is
// held for one chain. Lock order: the Backend's locks, FrontEnd.mu.
//
// A connection that is lost while an in-flight region is set may come back: the server completes what is in flight,
// keeps the driver's life, and knows its front end by the region's file ([Server], [Backend.Detach]).
//
// Left out, and not offered: dirty-page logging, device IOTLB, postcopy, kicks and calls by message or by polling, IN_ORDER.
package vhostuser
