// SPDX-License-Identifier: GPL-2.0-only
/*
 * Driver for the NPU of npuemu (1af4:10f0): boots its firmware and has its DMA
 * engine copy, by a user queue. Section numbers are those of the hardware's
 * specification.
 */
#include <stdint.h>
#include <unistd.h>

#include <linux/bitfield.h>
#include <linux/compiler.h>
#include <linux/errno.h>
#include <linux/io.h>
#include <linux/kernel.h>
#include <linux/pci_regs.h>
#include <linux/sizes.h>

#include <asm/barrier.h>

#include <libvfio.h>

#include "npu_hw.h"

#define PCI_VENDOR_ID_REDHAT_QUMRANET	0x1af4
#define PCI_DEVICE_ID_NPU		0x10f0

#define NPU_FIRMWARE			"/lib/firmware/npu/npufw-1.bin"
#define NPU_IMAGE_MAX			(SZ_256K + SZ_4K)
#define NPU_BOOT_TIMEOUT_MS		10000
#define NPU_ENTRIES			256
#define NPU_MAX_COPY			SZ_1M

/*
 * Each completion of a user queue raises the queue's vector (8.1). Copies raise
 * one that is never enabled, so they make no interrupt.
 */
#define NPU_VECTOR_MSI			0
#define NPU_VECTOR_UNUSED		1

enum npu_queue {
	NPU_QUEUE_ADMIN,
	NPU_QUEUE_COPY,
	NPU_QUEUE_MSI,
	NPU_QUEUES
};

struct npu_ring {
	struct npu_sqe sq[NPU_ENTRIES] __aligned(NPU_RING_ALIGN);
	struct npu_cqe cq[NPU_ENTRIES] __aligned(NPU_RING_ALIGN);
	u32 tail;
	u32 head;
	u16 phase;
};

struct npu_state {
	u8 image[NPU_IMAGE_MAX] __aligned(64);
	u32 image_size;
	u32 doorbell_offset;
	u32 doorbell_stride;
	u64 in_flight;
	struct npu_ring rings[NPU_QUEUES];
};

static struct npu_state *to_npu(struct vfio_pci_device *device)
{
	return device->driver.region.vaddr;
}

static u32 npu_read(struct vfio_pci_device *device, u32 reg)
{
	return readl(device->bars[0].vaddr + reg);
}

static void npu_write(struct vfio_pci_device *device, u32 reg, u32 value)
{
	writel(value, device->bars[0].vaddr + reg);
}

/* An address register is two, the low half first. */
static void npu_write_addr(struct vfio_pci_device *device, u32 reg, void *vaddr)
{
	iova_t iova = to_iova(device, vaddr);

	npu_write(device, reg, iova);
	npu_write(device, reg + 4, iova >> 32);
}

static u32 npu_boot_state(struct vfio_pci_device *device)
{
	return FIELD_GET(NPU_BOOT_STATUS_STATE, npu_read(device, NPU_BOOT_STATUS));
}

static void npu_await_boot_state(struct vfio_pci_device *device, u32 want)
{
	int attempts;
	u32 state;

	for (attempts = NPU_BOOT_TIMEOUT_MS; attempts; attempts--) {
		state = npu_boot_state(device);
		if (state == want)
			return;
		VFIO_ASSERT_NE(state, NPU_BOOT_STATE_FAILED, "%s: BOOT_STATUS 0x%x, detail 0x%x\n",
			       NPU_FIRMWARE, npu_read(device, NPU_BOOT_STATUS),
			       npu_read(device, NPU_FW_ERROR_DETAIL));
		usleep(1000);
	}
	VFIO_FAIL("BOOT_STATUS 0x%x, expected state %u\n", npu_read(device, NPU_BOOT_STATUS), want);
}

static void npu_reset(struct vfio_pci_device *device)
{
	npu_write(device, NPU_DEVICE_CONTROL, NPU_DEVICE_CONTROL_RESET);
	npu_await_boot_state(device, NPU_BOOT_STATE_WAITING);
}

static void npu_ring_clear(struct npu_ring *ring)
{
	memset(ring, 0, sizeof(*ring));
	ring->phase = NPU_CQE_PHASE;
}

static void npu_ring_push(struct npu_ring *ring, const struct npu_sqe *sqe)
{
	ring->sq[ring->tail] = *sqe;
	ring->tail = (ring->tail + 1) % NPU_ENTRIES;
}

static void npu_doorbell(struct vfio_pci_device *device, enum npu_queue queue, u32 which,
			 u32 value)
{
	struct npu_state *npu = to_npu(device);

	wmb(); /* Entries are written, or have been read, before the index says so. */
	npu_write(device, npu->doorbell_offset + queue * npu->doorbell_stride + which, value);
}

/*
 * Waits for @count completions. Returns the first error of a command, if any, or -EIO if the
 * device stopped the queue; then nothing more comes.
 */
static int npu_ring_wait(struct vfio_pci_device *device, enum npu_queue queue, u64 count,
			 u32 *result)
{
	struct npu_ring *ring = &to_npu(device)->rings[queue];
	struct npu_cqe *cqe;
	u16 status;
	int ret = 0;

	while (count) {
		cqe = &ring->cq[ring->head];
		status = le16_to_cpu(READ_ONCE(cqe->status));
		if ((status & NPU_CQE_PHASE) != ring->phase) {
			if (npu_read(device, NPU_FAULT_STATUS) & NPU_FAULT_STATUS_VALID)
				return -EIO;
			continue;
		}
		rmb(); /* The phase is valid, now the rest is. */
		if (FIELD_GET(NPU_CQE_STATUS, status) && !ret) {
			dev_err(device, "command %u of queue %d: status 0x%x, info 0x%lx\n",
				le16_to_cpu(cqe->command_id), queue, status >> 1,
				(u64)le64_to_cpu(cqe->info));
			ret = -EINVAL;
		}
		if (result)
			*result = le32_to_cpu(cqe->result);
		if (++ring->head == NPU_ENTRIES) {
			ring->head = 0;
			ring->phase ^= NPU_CQE_PHASE;
		}
		count--;
	}
	npu_doorbell(device, queue, NPU_DOORBELL_CQ_HEAD, ring->head);

	return ret;
}

static u32 npu_admin(struct vfio_pci_device *device, const struct npu_sqe *sqe)
{
	struct npu_ring *ring = &to_npu(device)->rings[NPU_QUEUE_ADMIN];
	u32 result;

	npu_ring_push(ring, sqe);
	npu_doorbell(device, NPU_QUEUE_ADMIN, NPU_DOORBELL_SQ_TAIL, ring->tail);
	VFIO_ASSERT_EQ(npu_ring_wait(device, NPU_QUEUE_ADMIN, 1, &result), 0,
		       "admin command 0x%x\n", sqe->opcode);

	return result;
}

static void npu_create_queue(struct vfio_pci_device *device, enum npu_queue queue, u32 context,
			     u16 vector)
{
	struct npu_ring *ring = &to_npu(device)->rings[queue];

	npu_ring_clear(ring);
	npu_admin(device, &(struct npu_sqe) {
		.opcode = NPU_ADMIN_CREATE_QUEUE,
		.create_queue.sq = cpu_to_le64(to_iova(device, ring->sq)),
		.create_queue.cq = cpu_to_le64(to_iova(device, ring->cq)),
		.create_queue.number = cpu_to_le16(queue),
		.create_queue.vector = cpu_to_le16(vector),
		.create_queue.sq_entries = cpu_to_le16(NPU_ENTRIES),
		.create_queue.cq_entries = cpu_to_le16(NPU_ENTRIES),
		.create_queue.context = cpu_to_le32(context),
	});
}

/* Brings the device from any state to one in which it copies (3.2, 4.4, 4.6). */
static void npu_start(struct vfio_pci_device *device)
{
	struct npu_state *npu = to_npu(device);
	struct npu_ring *admin = &npu->rings[NPU_QUEUE_ADMIN];
	u32 context;

	npu_reset(device);

	npu_write_addr(device, NPU_IMAGE_ADDR_LO, npu->image);
	npu_write(device, NPU_IMAGE_SIZE, npu->image_size);
	npu_write(device, NPU_BOOT_TIMEOUT, NPU_BOOT_TIMEOUT_MS);
	npu_write(device, NPU_BOOT_CONTROL, NPU_BOOT_CONTROL_START);
	npu_await_boot_state(device, NPU_BOOT_STATE_READY);

	npu_ring_clear(admin);
	npu_write_addr(device, NPU_ASQ_BASE_LO, admin->sq);
	npu_write_addr(device, NPU_ACQ_BASE_LO, admin->cq);
	npu_write(device, NPU_AQ_SIZE, FIELD_PREP(NPU_AQ_SIZE_SQ_ENTRIES, NPU_ENTRIES) |
				       FIELD_PREP(NPU_AQ_SIZE_CQ_ENTRIES, NPU_ENTRIES));
	npu_write(device, NPU_AQ_CONTROL, NPU_AQ_CONTROL_ENABLE);

	context = npu_admin(device, &(struct npu_sqe) { .opcode = NPU_ADMIN_CREATE_CONTEXT });
	npu_create_queue(device, NPU_QUEUE_COPY, context, NPU_VECTOR_UNUSED);
	npu_create_queue(device, NPU_QUEUE_MSI, context, NPU_VECTOR_MSI);
}

static int npu_probe(struct vfio_pci_device *device)
{
	u32 arch;

	if (!vfio_pci_device_match(device, PCI_VENDOR_ID_REDHAT_QUMRANET, PCI_DEVICE_ID_NPU))
		return -EINVAL;

	VFIO_ASSERT_NOT_NULL(device->bars[0].vaddr);

	arch = npu_read(device, NPU_ARCH_VERSION);
	if (FIELD_GET(NPU_ARCH_VERSION_MAJOR, arch) != NPU_ARCH_MAJOR) {
		dev_err(device, "npu: Unsupported architecture: 0x%x\n", arch);
		return -EINVAL;
	}

	return 0;
}

static void npu_init(struct vfio_pci_device *device)
{
	struct npu_state *npu = to_npu(device);
	ssize_t size;
	int fd;

	VFIO_ASSERT_GE(device->driver.region.size, sizeof(*npu));

	fd = open(NPU_FIRMWARE, O_RDONLY);
	VFIO_ASSERT_GE(fd, 0, "open(%s) failed\n", NPU_FIRMWARE);
	size = read(fd, npu->image, sizeof(npu->image));
	VFIO_ASSERT_GT(size, 0, "read(%s) failed\n", NPU_FIRMWARE);
	VFIO_ASSERT_EQ(close(fd), 0);
	npu->image_size = size;

	vfio_pci_config_writew(device, PCI_COMMAND,
			       PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);

	VFIO_ASSERT_GE(FIELD_GET(NPU_QUEUE_PARAM_COUNT, npu_read(device, NPU_QUEUE_PARAM)),
		       NPU_QUEUES - 1);
	VFIO_ASSERT_GE(FIELD_GET(NPU_QUEUE_PARAM_MAX_ENTRIES, npu_read(device, NPU_QUEUE_PARAM)),
		       NPU_ENTRIES);
	VFIO_ASSERT_GT(npu_read(device, NPU_VECTOR_COUNT), NPU_VECTOR_UNUSED);
	npu->doorbell_offset = npu_read(device, NPU_DOORBELL_OFFSET);
	npu->doorbell_stride = npu_read(device, NPU_DOORBELL_STRIDE);

	npu_start(device);
	vfio_pci_msix_enable(device, NPU_VECTOR_MSI, 1);

	device->driver.msi = NPU_VECTOR_MSI;
	device->driver.max_memcpy_size = NPU_MAX_COPY;
	device->driver.max_memcpy_count = NPU_ENTRIES - 1;
}

static void npu_remove(struct vfio_pci_device *device)
{
	npu_reset(device);
	vfio_pci_msix_disable(device);
	vfio_pci_cmd_clear(device, PCI_COMMAND_MASTER);
}

static void npu_memcpy_start(struct vfio_pci_device *device, iova_t src, iova_t dst, u64 size,
			     u64 count)
{
	struct npu_state *npu = to_npu(device);
	struct npu_ring *ring = &npu->rings[NPU_QUEUE_COPY];
	u64 i;

	for (i = 0; i < count; i++)
		npu_ring_push(ring, &(struct npu_sqe) {
			.opcode = NPU_CMD_COPY,
			.command_id = cpu_to_le16(i),
			.spaces = cpu_to_le32(FIELD_PREP(NPU_SPACES_FIRST, NPU_SPACE_BUS) |
					      FIELD_PREP(NPU_SPACES_SECOND, NPU_SPACE_BUS)),
			.copy.src = cpu_to_le64(src),
			.copy.dst = cpu_to_le64(dst),
			.copy.nx = cpu_to_le32(size),
			.copy.ny = cpu_to_le16(1),
			.copy.nz = cpu_to_le16(1),
		});
	npu->in_flight = count;
	npu_doorbell(device, NPU_QUEUE_COPY, NPU_DOORBELL_SQ_TAIL, ring->tail);
}

static int npu_memcpy_wait(struct vfio_pci_device *device)
{
	int ret = npu_ring_wait(device, NPU_QUEUE_COPY, to_npu(device)->in_flight, NULL);

	/* A stopped queue needs more than a failed command does. */
	if (ret == -EIO) {
		dev_err(device, "fault record 0x%x 0x%x\n", npu_read(device, NPU_FAULT_STATUS),
			npu_read(device, NPU_FAULT_INFO));
		npu_start(device);
	}

	return ret;
}

static void npu_send_msi(struct vfio_pci_device *device)
{
	struct npu_ring *ring = &to_npu(device)->rings[NPU_QUEUE_MSI];

	npu_ring_push(ring, &(struct npu_sqe) { .opcode = NPU_CMD_NOP });
	npu_doorbell(device, NPU_QUEUE_MSI, NPU_DOORBELL_SQ_TAIL, ring->tail);

	VFIO_ASSERT_EQ(npu_ring_wait(device, NPU_QUEUE_MSI, 1, NULL), 0);
}

const struct vfio_pci_driver_ops npu_ops = {
	.name = "npu",
	.probe = npu_probe,
	.init = npu_init,
	.remove = npu_remove,
	.memcpy_start = npu_memcpy_start,
	.memcpy_wait = npu_memcpy_wait,
	.send_msi = npu_send_msi,
};
