// SPDX-License-Identifier: GPL-2.0-only
/*
 * Driver for the NPU of npuemu (1af4:10f0): boots its firmware and has its DMA
 * engine copy, by a user queue. Section numbers are those of the hardware's
 * specification.
 */
#include <stdint.h>
#include <unistd.h>

#include <linux/bitfield.h>
#include <linux/bits.h>
#include <linux/compiler.h>
#include <linux/errno.h>
#include <linux/io.h>
#include <linux/pci_regs.h>
#include <linux/sizes.h>

#include <asm/barrier.h>

#include <libvfio.h>

#define PCI_VENDOR_ID_REDHAT_QUMRANET	0x1af4
#define PCI_DEVICE_ID_NPU		0x10f0

#define NPU_FIRMWARE			"/lib/firmware/npu/npufw-1.bin"

/* Registers of BAR0 (2.1). An address is two of them, the low half first. */
#define NPU_ARCH_VERSION		0x004
#define NPU_ARCH_VERSION_MAJOR		GENMASK(31, 16)
#define NPU_DOORBELL_OFFSET		0x030
#define NPU_DOORBELL_STRIDE		0x034
#define NPU_DEVICE_CONTROL		0x100
#define NPU_DEVICE_CONTROL_RESET	BIT(0)
#define NPU_BOOT_CONTROL		0x140
#define NPU_BOOT_CONTROL_START		BIT(0)
#define NPU_BOOT_STATUS			0x144
#define NPU_BOOT_STATUS_STATE		GENMASK(7, 0)
#define NPU_BOOT_STATE_WAITING		1
#define NPU_BOOT_STATE_READY		4
#define NPU_IMAGE_ADDR			0x148
#define NPU_IMAGE_SIZE			0x150
#define NPU_BOOT_TIMEOUT		0x154 /* ms */
#define NPU_ASQ_BASE			0x180
#define NPU_ACQ_BASE			0x188
#define NPU_AQ_SIZE			0x190
#define NPU_AQ_SIZE_SQ_ENTRIES		GENMASK(15, 0)
#define NPU_AQ_SIZE_CQ_ENTRIES		GENMASK(31, 16)
#define NPU_AQ_CONTROL			0x194
#define NPU_AQ_CONTROL_ENABLE		BIT(0)
#define NPU_FAULT_STATUS		0x200
#define NPU_FAULT_STATUS_VALID		BIT(0)

#define NPU_DOORBELL_SQ_TAIL		0x0
#define NPU_DOORBELL_CQ_HEAD		0x4

/* Entries of rings in memory (4.2, 4.6, 4.8). */
#define NPU_ADMIN_CREATE_CONTEXT	0x10
#define NPU_ADMIN_CREATE_QUEUE		0x20
#define NPU_CMD_NOP			0x01
#define NPU_CMD_COPY			0x02

struct npu_sqe {
	u8 opcode;
	u8 flags;
	__le16 command_id;
	__le32 spaces; /* 0: both addresses are the bus's */
	union {
		struct {
			__le64 sq;
			__le64 cq;
			__le16 number;
			__le16 vector;
			__le16 sq_entries;
			__le16 cq_entries;
			__le32 context;
		} create_queue;
		struct {
			__le64 src;
			__le64 dst;
			__le32 nx;
			__le16 ny;
			__le16 nz;
		} copy;
		u8 size[56];
	};
};

struct npu_cqe {
	__le32 result;
	__le32 cycles;
	__le64 info;
	__le64 time;
	__le16 sq_head;
	__le16 queue;
	__le16 command_id;
	__le16 status;
};

#define NPU_CQE_PHASE			BIT(0)
#define NPU_CQE_STATUS			GENMASK(15, 1)

/*
 * Each completion of a user queue raises the queue's vector (8.1). Copies raise
 * one that is never enabled, so they make no interrupt.
 */
enum npu_vector {
	NPU_VECTOR_MSI,
	NPU_VECTOR_UNUSED
};

enum npu_queue {
	NPU_QUEUE_ADMIN,
	NPU_QUEUE_COPY,
	NPU_QUEUE_MSI,
	NPU_QUEUES
};

#define NPU_ENTRIES			256

struct npu_ring {
	struct npu_sqe sq[NPU_ENTRIES] __aligned(64);
	struct npu_cqe cq[NPU_ENTRIES] __aligned(64);
	u32 tail;
	u32 head;
	u16 phase;
};

struct npu_state {
	u8 image[SZ_256K + SZ_4K] __aligned(64);
	u32 image_size;
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

static void npu_write_addr(struct vfio_pci_device *device, u32 reg, void *vaddr)
{
	npu_write(device, reg, to_iova(device, vaddr));
	npu_write(device, reg + 4, to_iova(device, vaddr) >> 32);
}

static void npu_await_boot_state(struct vfio_pci_device *device, u32 want)
{
	int attempts = 10000;

	while (FIELD_GET(NPU_BOOT_STATUS_STATE, npu_read(device, NPU_BOOT_STATUS)) != want) {
		VFIO_ASSERT_GT(--attempts, 0, "BOOT_STATUS 0x%x, expected state %u\n",
			       npu_read(device, NPU_BOOT_STATUS), want);
		usleep(1000);
	}
}

static void npu_reset(struct vfio_pci_device *device)
{
	npu_write(device, NPU_DEVICE_CONTROL, NPU_DEVICE_CONTROL_RESET);
	npu_await_boot_state(device, NPU_BOOT_STATE_WAITING);
}

static void npu_doorbell(struct vfio_pci_device *device, enum npu_queue queue, u32 which, u32 index)
{
	u32 page = npu_read(device, NPU_DOORBELL_OFFSET) +
		   queue * npu_read(device, NPU_DOORBELL_STRIDE);

	wmb(); /* Entries are written, or have been read, before the index says so. */
	npu_write(device, page + which, index);
}

static void npu_push(struct npu_ring *ring, const struct npu_sqe *sqe)
{
	ring->sq[ring->tail] = *sqe;
	ring->tail = (ring->tail + 1) % NPU_ENTRIES;
}

/*
 * Waits for @count completions. Returns the first error of a command, if any, or -EIO if the
 * device stopped the queue; then nothing more comes.
 */
static int npu_wait(struct vfio_pci_device *device, enum npu_queue queue, u64 count, u32 *result)
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
		if (FIELD_GET(NPU_CQE_STATUS, status))
			ret = -EINVAL;
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

/* Returns the result of a command, which must succeed. */
static u32 npu_do(struct vfio_pci_device *device, enum npu_queue queue, const struct npu_sqe *sqe)
{
	struct npu_ring *ring = &to_npu(device)->rings[queue];
	u32 result;

	npu_push(ring, sqe);
	npu_doorbell(device, queue, NPU_DOORBELL_SQ_TAIL, ring->tail);
	VFIO_ASSERT_EQ(npu_wait(device, queue, 1, &result), 0, "command 0x%x\n", sqe->opcode);

	return result;
}

static void npu_create_queue(struct vfio_pci_device *device, enum npu_queue queue, u32 context,
			     enum npu_vector vector)
{
	struct npu_ring *ring = &to_npu(device)->rings[queue];

	npu_do(device, NPU_QUEUE_ADMIN, &(struct npu_sqe) {
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
	u32 context;
	int i;

	npu_reset(device);

	npu_write_addr(device, NPU_IMAGE_ADDR, npu->image);
	npu_write(device, NPU_IMAGE_SIZE, npu->image_size);
	npu_write(device, NPU_BOOT_TIMEOUT, 10000);
	npu_write(device, NPU_BOOT_CONTROL, NPU_BOOT_CONTROL_START);
	npu_await_boot_state(device, NPU_BOOT_STATE_READY);

	memset(npu->rings, 0, sizeof(npu->rings));
	for (i = 0; i < NPU_QUEUES; i++)
		npu->rings[i].phase = NPU_CQE_PHASE;

	npu_write_addr(device, NPU_ASQ_BASE, npu->rings[NPU_QUEUE_ADMIN].sq);
	npu_write_addr(device, NPU_ACQ_BASE, npu->rings[NPU_QUEUE_ADMIN].cq);
	npu_write(device, NPU_AQ_SIZE, FIELD_PREP(NPU_AQ_SIZE_SQ_ENTRIES, NPU_ENTRIES) |
				       FIELD_PREP(NPU_AQ_SIZE_CQ_ENTRIES, NPU_ENTRIES));
	npu_write(device, NPU_AQ_CONTROL, NPU_AQ_CONTROL_ENABLE);

	context = npu_do(device, NPU_QUEUE_ADMIN,
			 &(struct npu_sqe) { .opcode = NPU_ADMIN_CREATE_CONTEXT });
	npu_create_queue(device, NPU_QUEUE_COPY, context, NPU_VECTOR_UNUSED);
	npu_create_queue(device, NPU_QUEUE_MSI, context, NPU_VECTOR_MSI);
}

static int npu_probe(struct vfio_pci_device *device)
{
	if (!vfio_pci_device_match(device, PCI_VENDOR_ID_REDHAT_QUMRANET, PCI_DEVICE_ID_NPU))
		return -EINVAL;

	VFIO_ASSERT_NOT_NULL(device->bars[0].vaddr);

	if (FIELD_GET(NPU_ARCH_VERSION_MAJOR, npu_read(device, NPU_ARCH_VERSION)) != 1) {
		dev_err(device, "npu: Unsupported architecture\n");
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
	npu_start(device);
	vfio_pci_msix_enable(device, NPU_VECTOR_MSI, 1);

	device->driver.msi = NPU_VECTOR_MSI;
	device->driver.max_memcpy_size = SZ_1M;
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
	struct npu_ring *ring = &to_npu(device)->rings[NPU_QUEUE_COPY];
	u64 i;

	for (i = 0; i < count; i++)
		npu_push(ring, &(struct npu_sqe) {
			.opcode = NPU_CMD_COPY,
			.copy.src = cpu_to_le64(src),
			.copy.dst = cpu_to_le64(dst),
			.copy.nx = cpu_to_le32(size),
			.copy.ny = cpu_to_le16(1),
			.copy.nz = cpu_to_le16(1),
		});
	to_npu(device)->in_flight = count;
	npu_doorbell(device, NPU_QUEUE_COPY, NPU_DOORBELL_SQ_TAIL, ring->tail);
}

static int npu_memcpy_wait(struct vfio_pci_device *device)
{
	u32 result;
	int ret = npu_wait(device, NPU_QUEUE_COPY, to_npu(device)->in_flight, &result);

	/* A stopped queue needs more than a failed command does. */
	if (ret == -EIO)
		npu_start(device);

	return ret;
}

static void npu_send_msi(struct vfio_pci_device *device)
{
	npu_do(device, NPU_QUEUE_MSI, &(struct npu_sqe) { .opcode = NPU_CMD_NOP });
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
