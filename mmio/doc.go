// SPDX-License-Identifier: Apache-2.0

// Package mmio models banks of 32-bit registers as a host sees them through a
// memory BAR. A [Register] table says which bits a write stores, clears or
// sets; hooks attached to a [Bank] say what the device does about it.
//
// Access rules, the same for every bank:
//
//   - A 4-byte access at a multiple of 4 is one register access.
//   - An 8-byte access at a multiple of 8 is two register accesses, the low
//     half (lower offset) first. A hook of the low half therefore runs before
//     the high half is read or written.
//   - A byte, or an aligned pair of bytes, of a register that is [Register.Narrow]
//     is an access to it with byte enables.
//   - Any other width or alignment reads all-ones and ignores writes.
//   - An offset that no register and no range claims reads all-ones and
//     ignores writes.
//
// Values are little-endian. The host never causes an error or a panic; what it
// did wrong goes to the [Tracer] with the [Rule] it broke.
//
// A Bank has no lock. The owner, normally vdev.Device under Device.mu,
// serializes every call, and hooks run with that lock held: they must not
// block, and they may read and change the bank.
//
// Left out: burst accesses (hosts do not merge accesses to non-prefetchable
// BARs).
package mmio
