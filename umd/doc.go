// SPDX-License-Identifier: Apache-2.0

// Package umd is a user-mode driver: it takes over a whole NPU through a VFIO-like
// interface, boots its firmware, and runs commands. It does what docs/spec asks of a driver
// (§3.2 boot, §4 queues, §7.3 bindings) and knows nothing else of the device, so it
// drives a card over a vfio-user socket and one in its own process alike.
//
// A Device is for one goroutine at a time. Memory of the host is one file that
// the device maps (Alloc); a Buffer lasts until Close, and the
// device touches them only while a call that names them runs.
//
// Not here: more than one queue, device memory as a place for buffers, and
// recovery: after a fault record or an error of the transport, close and open again.
package umd
