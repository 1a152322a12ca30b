// SPDX-License-Identifier: GPL-2.0-only
/*
 * A driver that makes the mistakes with DMA mappings which docs/spec/memory.md §7.6
 * names, one after the other, in its probe. It takes the place of npu.ko and prints
 * what the device answered to each: "CASE: ADDRESS status S info I".
 */

#include <linux/bitfield.h>
#include <linux/delay.h>
#include <linux/dma-mapping.h>
#include <linux/firmware.h>
#include <linux/iopoll.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>

#include "npu_hw.h"
#include "npu_regs.h"

#define NF_FIRMWARE	"npu/npufw-1.bin"
#define NF_ENTRIES	8
#define NF_NOWHERE	0x40000000ULL /* no IOMMU driver hands it out so early, and no RAM is there */
#define NF_TIMEOUT_US	(20 * USEC_PER_SEC)

/* Linux's driver for Intel's IOMMU prints three faults in five seconds, not more. */
static unsigned int quiet_ms = 2000;
module_param(quiet_ms, uint, 0444);
MODULE_PARM_DESC(quiet_ms, "pause after a mistake");

#define NF_BUS_TO_DEVICE	FIELD_PREP_CONST(NPU_SPACES_SECOND, NPU_SPACE_DEVICE)
#define NF_DEVICE_TO_BUS	FIELD_PREP_CONST(NPU_SPACES_FIRST, NPU_SPACE_DEVICE)

struct nf_ring {
	u32 number;
	struct npu_sqe *sq;
	struct npu_cqe *cq;
	dma_addr_t sq_addr, cq_addr;
	u16 tail, head, phase;
};

struct nf {
	struct device *dev;
	void __iomem *regs;
	struct nf_ring admin, user;
};

static u32 nf_read(struct nf *nf, u32 off)
{
	return readl(nf->regs + off);
}

static void nf_write(struct nf *nf, u32 off, u32 value)
{
	writel(value, nf->regs + off);
}

static void nf_write64(struct nf *nf, u32 off, u64 value)
{
	nf_write(nf, off, lower_32_bits(value));
	nf_write(nf, off + 4, upper_32_bits(value));
}

static u32 nf_doorbell(struct nf *nf, u32 number)
{
	return nf_read(nf, NPU_DOORBELL_OFFSET) + number * nf_read(nf, NPU_DOORBELL_STRIDE);
}

static int nf_ring_init(struct nf *nf, struct nf_ring *r, u32 number)
{
	r->number = number;
	r->phase = 1;
	r->sq = dmam_alloc_coherent(nf->dev, PAGE_SIZE, &r->sq_addr, GFP_KERNEL);
	r->cq = dmam_alloc_coherent(nf->dev, PAGE_SIZE, &r->cq_addr, GFP_KERNEL);
	return r->sq && r->cq ? 0 : -ENOMEM;
}

static void nf_submit(struct nf *nf, struct nf_ring *r, struct npu_sqe *sqe)
{
	sqe->command_id = cpu_to_le16(r->tail + 0x100);
	r->sq[r->tail] = *sqe;
	r->tail = (r->tail + 1) % NF_ENTRIES;
	dma_wmb(); /* the entry before the doorbell */
	nf_write(nf, nf_doorbell(nf, r->number) + NPU_DOORBELL_SQ_TAIL, r->tail);
}

static int nf_wait(struct nf *nf, struct nf_ring *r, struct npu_cqe *cqe)
{
	struct npu_cqe *at = &r->cq[r->head];
	u16 status;
	int ret;

	ret = read_poll_timeout(le16_to_cpu, status,
				FIELD_GET(NPU_CQE_PHASE, status) == r->phase, 200,
				NF_TIMEOUT_US, false, READ_ONCE(at->status));
	if (ret)
		return ret;
	dma_rmb(); /* the phase before the rest */
	*cqe = *at;
	r->head = (r->head + 1) % NF_ENTRIES;
	if (!r->head)
		r->phase ^= 1;
	nf_write(nf, nf_doorbell(nf, r->number) + NPU_DOORBELL_CQ_HEAD, r->head);
	return 0;
}

static u32 nf_status(const struct npu_cqe *cqe)
{
	return FIELD_GET(NPU_CQE_STATUS, le16_to_cpu(cqe->status));
}

static int nf_admin(struct nf *nf, struct npu_sqe *sqe, u32 *result)
{
	struct npu_cqe cqe;
	int ret;

	nf_submit(nf, &nf->admin, sqe);
	ret = nf_wait(nf, &nf->admin, &cqe);
	if (ret)
		return ret;
	if (nf_status(&cqe)) {
		dev_err(nf->dev, "admin command 0x%02x: status 0x%02x\n", sqe->opcode, nf_status(&cqe));
		return -EIO;
	}
	*result = le32_to_cpu(cqe.result);
	return 0;
}

static int nf_create_queue(struct nf *nf, u32 context, u32 number, dma_addr_t sq, dma_addr_t cq)
{
	struct npu_sqe sqe = {
		.opcode = NPU_ADMIN_CREATE_QUEUE,
		.create_queue = {
			.sq = cpu_to_le64(sq),
			.cq = cpu_to_le64(cq),
			.number = cpu_to_le16(number),
			.sq_entries = cpu_to_le16(NF_ENTRIES),
			.cq_entries = cpu_to_le16(NF_ENTRIES),
			.context = cpu_to_le32(context),
		},
	};
	u32 result;

	return nf_admin(nf, &sqe, &result);
}

static void nf_submit_copy(struct nf *nf, u32 spaces, u64 src, u64 dst, u32 nx, u16 ny, u16 nz)
{
	struct npu_sqe sqe = {
		.opcode = NPU_CMD_COPY,
		.spaces = cpu_to_le32(spaces),
		.copy = {
			.src = cpu_to_le64(src),
			.dst = cpu_to_le64(dst),
			.nx = cpu_to_le32(nx),
			.ny = cpu_to_le16(ny),
			.nz = cpu_to_le16(nz),
		},
	};

	nf_submit(nf, &nf->user, &sqe);
}

/* nf_report waits for the copy and prints what the device says of it. */
static void nf_report(struct nf *nf, const char *name, u64 addr)
{
	struct npu_cqe cqe;

	if (nf_wait(nf, &nf->user, &cqe)) {
		dev_info(nf->dev, "%s: 0x%llx no completion\n", name, addr);
		return;
	}
	dev_info(nf->dev, "%s: 0x%llx status 0x%02x info 0x%llx\n", name, addr,
		 nf_status(&cqe), le64_to_cpu(cqe.info));
	if (nf_status(&cqe))
		msleep(quiet_ms);
}

static void nf_copy(struct nf *nf, const char *name, u32 spaces, u64 bus, u32 size)
{
	if (spaces == NF_BUS_TO_DEVICE)
		nf_submit_copy(nf, spaces, bus, 0, size, 1, 1);
	else
		nf_submit_copy(nf, spaces, 0, bus, size, 1, 1);
	nf_report(nf, name, bus);
}

static int nf_mistakes(struct nf *nf, u32 context)
{
	struct device *dev = nf->dev;
	dma_addr_t addr, cq_addr;
	void *page, *good, *cq;
	int ret;

	page = (void *)devm_get_free_pages(dev, GFP_KERNEL, 0);
	good = dmam_alloc_coherent(dev, PAGE_SIZE, &addr, GFP_KERNEL);
	cq = dmam_alloc_coherent(dev, PAGE_SIZE, &cq_addr, GFP_KERNEL);
	if (!page || !good || !cq)
		return -ENOMEM;

	memset(good, 0xa5, PAGE_SIZE);
	nf_copy(nf, "good", NF_BUS_TO_DEVICE, addr, PAGE_SIZE);

	nf_copy(nf, "read-unmapped", NF_BUS_TO_DEVICE, NF_NOWHERE, 64);
	nf_copy(nf, "write-unmapped", NF_DEVICE_TO_BUS, NF_NOWHERE + SZ_1M, 64);

	addr = dma_map_single(dev, page, PAGE_SIZE, DMA_TO_DEVICE);
	if (dma_mapping_error(dev, addr))
		return -ENOMEM;
	nf_copy(nf, "write-read-only", NF_DEVICE_TO_BUS, addr, 64);
	dma_unmap_single(dev, addr, PAGE_SIZE, DMA_TO_DEVICE);

	addr = dma_map_single(dev, page, PAGE_SIZE, DMA_BIDIRECTIONAL);
	if (dma_mapping_error(dev, addr))
		return -ENOMEM;
	dma_unmap_single(dev, addr, PAGE_SIZE, DMA_BIDIRECTIONAL);
	nf_copy(nf, "read-after-unmap", NF_BUS_TO_DEVICE, addr, 64);

	/* For ever, but for what comes in between. */
	addr = dma_map_single(dev, page, PAGE_SIZE, DMA_BIDIRECTIONAL);
	if (dma_mapping_error(dev, addr))
		return -ENOMEM;
	nf_submit_copy(nf, NF_BUS_TO_DEVICE, addr, 0, PAGE_SIZE, U16_MAX, U16_MAX);
	msleep(100);
	dma_unmap_single(dev, addr, PAGE_SIZE, DMA_BIDIRECTIONAL);
	nf_report(nf, "unmap-in-flight", addr);

	addr = dma_map_single(dev, page, PAGE_SIZE, DMA_TO_DEVICE);
	if (dma_mapping_error(dev, addr))
		return -ENOMEM;
	ret = nf_create_queue(nf, context, 2, addr, cq_addr);
	dma_unmap_single(dev, addr, PAGE_SIZE, DMA_TO_DEVICE);
	if (ret)
		return ret;
	nf_write(nf, nf_doorbell(nf, 2) + NPU_DOORBELL_SQ_TAIL, 1);
	msleep(max(quiet_ms, 100U)); /* it has no completion */
	dev_info(dev, "ring-after-unmap: 0x%llx status 0x%02x info 0x%x\n", addr,
		 (u32)FIELD_GET(NPU_FAULT_STATUS_CODE, nf_read(nf, NPU_FAULT_STATUS)),
		 nf_read(nf, NPU_FAULT_ADDR_LO));

	memset(good, 0, 64);
	addr = dma_map_single(dev, page, PAGE_SIZE, DMA_FROM_DEVICE);
	if (dma_mapping_error(dev, addr))
		return -ENOMEM;
	nf_copy(nf, "good-again", NF_DEVICE_TO_BUS, addr, 64);
	dma_unmap_single(dev, addr, PAGE_SIZE, DMA_FROM_DEVICE);
	return 0;
}

static int nf_boot(struct nf *nf)
{
	const struct firmware *fw;
	dma_addr_t addr;
	u32 status;
	void *image;
	int ret;

	nf_write(nf, NPU_DEVICE_CONTROL, NPU_DEVICE_CONTROL_RESET);
	ret = read_poll_timeout(nf_read, status, FIELD_GET(NPU_BOOT_STATUS_STATE, status) ==
				NPU_BOOT_STATE_WAITING, 1000, NF_TIMEOUT_US, false, nf,
				NPU_BOOT_STATUS);
	if (ret)
		return ret;

	/* First from where nothing is. */
	nf_write64(nf, NPU_IMAGE_ADDR_LO, NF_NOWHERE + 2 * SZ_1M);
	nf_write(nf, NPU_IMAGE_SIZE, SZ_4K);
	nf_write(nf, NPU_BOOT_CONTROL, NPU_BOOT_CONTROL_START);
	ret = read_poll_timeout(nf_read, status, FIELD_GET(NPU_BOOT_STATUS_STATE, status) ==
				NPU_BOOT_STATE_FAILED, 1000, NF_TIMEOUT_US, false, nf,
				NPU_BOOT_STATUS);
	if (ret)
		return ret;
	dev_info(nf->dev, "firmware-unmapped: 0x%llx status 0x%02x info 0x0\n",
		 NF_NOWHERE + 2 * SZ_1M, (u32)FIELD_GET(NPU_BOOT_STATUS_ERROR, status));
	msleep(quiet_ms);

	ret = request_firmware(&fw, NF_FIRMWARE, nf->dev);
	if (ret)
		return ret;
	image = dmam_alloc_coherent(nf->dev, fw->size, &addr, GFP_KERNEL);
	if (image)
		memcpy(image, fw->data, fw->size);
	nf_write(nf, NPU_IMAGE_SIZE, fw->size);
	release_firmware(fw);
	if (!image)
		return -ENOMEM;
	nf_write64(nf, NPU_IMAGE_ADDR_LO, addr);
	nf_write(nf, NPU_BOOT_CONTROL, NPU_BOOT_CONTROL_START);
	return read_poll_timeout(nf_read, status, FIELD_GET(NPU_BOOT_STATUS_STATE, status) ==
				 NPU_BOOT_STATE_READY, 1000, NF_TIMEOUT_US, false, nf,
				 NPU_BOOT_STATUS);
}

static int nf_run(struct nf *nf)
{
	struct npu_sqe sqe = { .opcode = NPU_ADMIN_CREATE_CONTEXT };
	u32 context;
	int ret;

	ret = nf_boot(nf);
	if (ret)
		return ret;
	ret = nf_ring_init(nf, &nf->admin, 0);
	if (ret)
		return ret;
	ret = nf_ring_init(nf, &nf->user, 1);
	if (ret)
		return ret;
	nf_write64(nf, NPU_ASQ_BASE_LO, nf->admin.sq_addr);
	nf_write64(nf, NPU_ACQ_BASE_LO, nf->admin.cq_addr);
	nf_write(nf, NPU_AQ_SIZE, FIELD_PREP(NPU_AQ_SIZE_SQ_ENTRIES, NF_ENTRIES) |
		 FIELD_PREP(NPU_AQ_SIZE_CQ_ENTRIES, NF_ENTRIES));
	nf_write(nf, NPU_AQ_CONTROL, NPU_AQ_CONTROL_ENABLE);
	ret = nf_admin(nf, &sqe, &context);
	if (ret)
		return ret;
	ret = nf_create_queue(nf, context, 1, nf->user.sq_addr, nf->user.cq_addr);
	if (ret)
		return ret;
	return nf_mistakes(nf, context);
}

static int nf_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct nf *nf;
	int ret;

	nf = devm_kzalloc(&pdev->dev, sizeof(*nf), GFP_KERNEL);
	if (!nf)
		return -ENOMEM;
	nf->dev = &pdev->dev;
	pci_set_drvdata(pdev, nf);
	ret = pcim_enable_device(pdev);
	if (ret)
		return ret;
	nf->regs = pcim_iomap(pdev, 0, 0);
	if (!nf->regs)
		return -ENOMEM;
	ret = dma_set_mask_and_coherent(&pdev->dev, DMA_BIT_MASK(64));
	if (ret)
		return ret;
	pci_set_master(pdev);
	ret = nf_run(nf);
	dev_info(&pdev->dev, "done: %d\n", ret);
	return ret;
}

static void nf_remove(struct pci_dev *pdev)
{
	struct nf *nf = pci_get_drvdata(pdev);

	nf_write(nf, NPU_DEVICE_CONTROL, NPU_DEVICE_CONTROL_RESET);
	msleep(100); /* §9.4 */
	pci_clear_master(pdev);
}

static const struct pci_device_id nf_ids[] = {
	{ PCI_DEVICE(0x1af4, 0x10f0) },
	{ }
};
MODULE_DEVICE_TABLE(pci, nf_ids);

static struct pci_driver nf_driver = {
	.name = "npufault",
	.id_table = nf_ids,
	.probe = nf_probe,
	.remove = nf_remove,
};
module_pci_driver(nf_driver);

MODULE_DESCRIPTION("mistakes with DMA mappings, for tests of the emulated NPU");
MODULE_LICENSE("GPL");
