// SPDX-License-Identifier: Apache-2.0

package pci

// MSI is the MSI side of a function (§6.1.4, §7.7.1): 64-bit address, per-vector
// masking, all of it in configuration space. Its messages are a power of two, at
// least the number of vectors; the host allocates as many or fewer, and vector v is message
// v modulo that number. The data of message m is the host's data with m in its low bits.
//
// The mask bits in configuration space are always obeyed, since transports forward
// writes to configuration space even if they keep a copy; MaskVector masks in
// addition.
//
// While MSI is on only by attached Signalers, all messages count as allocated: such a
// client decides by what it attaches.
//
// All methods may be called from any goroutine.
type MSI struct {
	messages
	allocated int    // by Multiple Message Enable
	mask      uint32 // by message
}

// Count returns the number of messages.
func (m *MSI) Count() int { return len(m.signalers) }

func (m *MSI) allocatedLocked() int {
	if m.enabled {
		return m.allocated
	}
	return len(m.signalers)
}

func (m *MSI) signalerLocked(vector int) Signaler {
	i := vector % m.allocatedLocked()
	if (uint64(m.mask)|m.peerMask)&(1<<i) != 0 {
		return nil
	}
	return m.signalers[i]
}

// sharersLocked returns the vectors that have the message of this one.
func (m *MSI) sharersLocked(vector int) uint64 {
	var all uint64
	n := m.allocatedLocked()
	for v := vector % n; v < m.irq.vectors; v += n {
		all |= 1 << v
	}
	return all
}

// pending returns the Pending Bits register.
func (m *MSI) pending() uint32 {
	m.irq.mu.Lock()
	defer m.irq.mu.Unlock()
	if !m.onLocked() || m.irq.msix.onLocked() {
		return 0
	}
	var p uint32
	for i := range m.allocatedLocked() {
		if m.irq.pending&m.sharersLocked(i) != 0 {
			p |= 1 << i
		}
	}
	return p
}

// setControl takes over Message Control and the mask bits.
func (m *MSI) setControl(enabled bool, allocated int, mask uint32) {
	m.irq.mu.Lock()
	defer m.irq.mu.Unlock()
	m.setEnabledLocked(enabled)
	m.allocated, m.mask = allocated, mask
	m.irq.updateLocked()
}

func (m *MSI) resetLocked() { m.enabled, m.allocated, m.mask = false, 1, 0 }
