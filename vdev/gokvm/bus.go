// SPDX-License-Identifier: Apache-2.0

package gokvm

import "encoding/binary"

// Ports of configuration mechanism #1 (PCI Local Bus 3.0, §3.2.2.3.2).
const (
	portConfigAddress = 0xcf8
	portConfigData    = 0xcfc
)

// Fields of CONFIG_ADDRESS. Bits 30:24 and 1:0 are reserved: they read zero.
const (
	configEnable   = 1 << 31
	configAddrBits = configEnable | 0xff_fffc
)

// A function is the configuration space of a function on bus 0. Accesses have 1,
// 2 or 4 bytes and do not cross a doubleword.
type function interface {
	readConfig(off uint64, p []byte)
	writeConfig(off uint64, p []byte)
}

// hostBridge turns accesses to ports 0xcf8 to 0xcff into configuration cycles on
// bus 0. Only function 0 of a device can be there, and there is no bridge to
// another bus: everything else is an aborted cycle, which reads all-ones and
// ignores the write.
type hostBridge struct {
	address uint32 // CONFIG_ADDRESS
	devices [32]function
}

// in serves a read of p from a port; claimed is false if the access is not the
// bridge's. CONFIG_ADDRESS is a doubleword only: narrower accesses to it are
// accesses to ordinary ports. So are all to CONFIG_DATA while the enable bit
// is 0, and those that go beyond CONFIG_DATA.
func (b *hostBridge) in(port uint16, p []byte) (claimed bool) {
	if port == portConfigAddress && len(p) == 4 {
		binary.LittleEndian.PutUint32(p, b.address)
		return true
	}
	f, off, claimed := b.decode(port, len(p))
	if claimed {
		fillOnes(p)
		if f != nil {
			f.readConfig(off, p)
		}
	}
	return claimed
}

// out serves a write of p to a port, with the rules of in.
func (b *hostBridge) out(port uint16, p []byte) (claimed bool) {
	if port == portConfigAddress && len(p) == 4 {
		b.address = binary.LittleEndian.Uint32(p) & configAddrBits
		return true
	}
	f, off, claimed := b.decode(port, len(p))
	if f != nil {
		f.writeConfig(off, p)
	}
	return claimed
}

// decode returns what an access of n bytes to CONFIG_DATA reaches; f is nil if
// nothing answers.
func (b *hostBridge) decode(port uint16, n int) (f function, off uint64, claimed bool) {
	if port < portConfigData || n < 1 || n == 3 || int(port)+n > portConfigData+4 || b.address&configEnable == 0 {
		return nil, 0, false
	}
	bus, device, fn := b.address>>16&0xff, b.address>>11&0x1f, b.address>>8&7
	if bus == 0 && fn == 0 {
		f = b.devices[device]
	}
	return f, uint64(b.address&0xfc) + uint64(port-portConfigData), true
}

// Identity of the host bridge: from the same range for experiments as the NPU's.
const (
	bridgeVendor = 0x1af4
	bridgeDevice = 0x10f1
)

// bridgeFunction is the host bridge as a function of the bus it makes, 00:00.0:
// class 06-00-00, nothing writable. Linux looks for one before it trusts
// mechanism #1.
type bridgeFunction struct{}

func (bridgeFunction) readConfig(off uint64, p []byte) {
	var config [256]byte
	binary.LittleEndian.PutUint16(config[0x00:], bridgeVendor)
	binary.LittleEndian.PutUint16(config[0x02:], bridgeDevice)
	config[0x0b] = 0x06
	copy(p, config[off:])
}

func (bridgeFunction) writeConfig(uint64, []byte) {}

func fillOnes(p []byte) {
	for i := range p {
		p[i] = 0xff
	}
}
