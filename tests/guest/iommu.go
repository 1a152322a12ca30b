// SPDX-License-Identifier: Apache-2.0

package guest

// IOMMU is what stands between the guest's devices and its memory.
type IOMMU int

// The IOMMUs. Both translate for vfio-user devices, whose server is told of every page or range that the guest's kernel
// maps: IntelIOMMU page by page (4 KiB), VirtIOMMU in ranges. IntelIOMMU also remaps interrupts.
const (
	NoIOMMU IOMMU = iota
	IntelIOMMU
	VirtIOMMU
)

// args returns QEMU's arguments, which come before those of the devices. Without caching-mode an Intel IOMMU would not
// hear of new mappings, and QEMU refuses to run.
func (m IOMMU) args() []string {
	switch m {
	case IntelIOMMU:
		return []string{"-device", "intel-iommu,caching-mode=on,intremap=on"}
	case VirtIOMMU:
		return []string{"-device", "virtio-iommu-pci,addr=0x1d"}
	}
	return nil
}

// modules returns what the guest's kernel needs for it. Debian's has Intel's driver built in, and on.
func (m IOMMU) modules() []string {
	if m == VirtIOMMU {
		return []string{"virtio-iommu"}
	}
	return nil
}

// script returns what runs before Config.Script: the driver of a device must find the IOMMU there.
func (m IOMMU) script() string {
	if m == VirtIOMMU {
		return "modprobe virtio-iommu\n"
	}
	return ""
}
