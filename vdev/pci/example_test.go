// SPDX-License-Identifier: Apache-2.0

package pci_test

import (
	"fmt"

	"npuemu/vdev/pci"
)

type printer struct{ vector int }

func (p printer) Signal() { fmt.Println("interrupt", p.vector) }

func Example() {
	f, err := pci.New(pci.Config{
		VendorID: 0x1af4, DeviceID: 0x10f0, Class: [3]uint8{0x12, 0, 0},
		BARs:    [6]pci.BAR{0: {Size: 1 << 20}, 4: {Size: 16 << 10}},
		Vectors: 2, MSIX: true,
	}, pci.Hooks{
		Command: func() { fmt.Println("command changed") },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	// The transport of a client that keeps the MSI-X table to itself.
	f.MSIX().SetTableOwner(pci.TableInTransport)

	f.Write(0x92, []byte{0x00, 0x80}) // MSI-X Enable
	fmt.Println(f.Raise(1))           // no eventfd, and not a bus master
	f.MSIX().SetVector(1, printer{1})
	f.Write(0x04, []byte{0x06, 0x00}) // Memory Space Enable, Bus Master Enable
	fmt.Println(f.Raise(1))
	// Output:
	// pending
	// interrupt 1
	// command changed
	// interrupt 1
	// delivered
}
