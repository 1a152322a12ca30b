// SPDX-License-Identifier: Apache-2.0

//go:build linux

package umd

import (
	"sync/atomic"
	"unsafe"

	"npuemu/mmio/npureg"
)

// statusWord loads command_id and status of a completion entry (§4.2) in one access:
// what the device wrote before them is visible once the phase is (§7.5). entry is
// aligned to 4 bytes, in memory that the device writes.
func statusWord(entry []byte) uint32 {
	_ = entry[npureg.CQEntrySize-1]
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&entry[0x1c])))
}
