// SPDX-License-Identifier: Apache-2.0

package vdev

import "npuemu/vdev/pci"

// ServeTable is for a host that lets the guest write the MSI-X table in BAR4: its
// mask bits decide until Detach. Without it the host keeps a table of its own, as
// vfio-user clients do, and BAR4's says nothing (§8.3).
func (d *Device) ServeTable() { d.fn.MSIX().SetTableOwner(pci.TableInFunction) }
