// SPDX-License-Identifier: GPL-2.0-only
/*
 * Interrupts, §8, and fault records, §9.3.
 *
 * Vector 0 carries the causes of IRQ_STATUS. User queue q completes on vector
 * 1 + (q - 1) % (vectors - 1), or on vector 0 if there is no other. INTx is one
 * vector, whose line may be shared: there completions are a cause as well.
 */

#include <linux/bitfield.h>
#include <linux/interrupt.h>

#include "npu_drv.h"

static void npu_irq_fault(struct npu_device *npu)
{
	static const char * const sources[] = {
		[NPU_FAULT_SOURCE_DOORBELL] = "doorbell",
		[NPU_FAULT_SOURCE_FETCH] = "submission fetch",
		[NPU_FAULT_SOURCE_POST] = "completion post",
		[NPU_FAULT_SOURCE_CP] = "control processor",
	};
	u32 status = npu_read(npu, NPU_FAULT_STATUS);
	u32 info = npu_read(npu, NPU_FAULT_INFO);
	u64 addr = npu_read(npu, NPU_FAULT_ADDR_LO) |
		   (u64)npu_read(npu, NPU_FAULT_ADDR_HI) << 32;
	u32 code = FIELD_GET(NPU_FAULT_STATUS_CODE, status);
	u32 queue = FIELD_GET(NPU_FAULT_INFO_QUEUE, info);
	u32 source = FIELD_GET(NPU_FAULT_INFO_SOURCE, info);
	bool overflow = status & NPU_FAULT_STATUS_OVERFLOW;

	if (status == U32_MAX || !(status & NPU_FAULT_STATUS_VALID))
		return;
	npu_write(npu, NPU_FAULT_STATUS, NPU_FAULT_STATUS_VALID | NPU_FAULT_STATUS_OVERFLOW);

	dev_err_ratelimited(npu->drm.dev,
			    "fault: %s (0x%02x), queue %u, source %s, index %lu, address 0x%llx%s\n",
			    npu_status_name(code), code, queue,
			    source < ARRAY_SIZE(sources) ? sources[source] : "unknown",
			    FIELD_GET(NPU_FAULT_INFO_INDEX, info), addr,
			    overflow ? ", further faults not recorded" : "");

	if (code == NPU_STATUS_QUEUE_DISABLED)
		return; /* nothing runs there */
	if (source == NPU_FAULT_SOURCE_CP || !queue || queue > npu->params.queues ||
	    overflow) {
		npu_schedule_recovery(npu, NPU_RECOVER_RESET);
		return;
	}
	set_bit(queue - 1, npu->faulted);
	npu_schedule_recovery(npu, NPU_RECOVER_QUEUES);
}

static void npu_irq_boot(struct npu_device *npu)
{
	u32 status = npu_read(npu, NPU_BOOT_STATUS);

	if (status == U32_MAX ||
	    FIELD_GET(NPU_BOOT_STATUS_STATE, status) != NPU_BOOT_STATE_FAILED)
		return;
	dev_err_ratelimited(npu->drm.dev, "firmware died: error %lu, detail 0x%08x\n",
			    FIELD_GET(NPU_BOOT_STATUS_ERROR, status),
			    npu_read(npu, NPU_FW_ERROR_DETAIL));
	npu_schedule_recovery(npu, NPU_RECOVER_RESET);
}

static void npu_irq_queues(struct npu_device *npu, unsigned int vector)
{
	u32 i;

	for (i = 0; i < npu->params.queues; i++)
		if (npu->queues[i].vector == vector)
			npu_queue_poll(&npu->queues[i]);
}

/* Order as §8.2: read and clear the causes, the thread looks at what they mean. */
static irqreturn_t npu_irq_hard_admin(int irq, void *data)
{
	struct npu_vector *vector = data;
	struct npu_device *npu = vector->npu;
	u32 causes = npu_read(npu, NPU_IRQ_STATUS);

	if (causes == U32_MAX) /* a reset is in progress, which asserts nothing */
		causes = 0;
	if (causes) {
		npu_write(npu, NPU_IRQ_STATUS, causes);
		if (npu->intx) /* a cause until the write arrives is not told again, §8.4 */
			npu_read(npu, NPU_IRQ_STATUS);
		atomic_or(causes, &npu->causes);
	} else if (npu->intx) {
		return IRQ_NONE; /* another device's */
	}
	return IRQ_WAKE_THREAD;
}

static irqreturn_t npu_irq_thread_admin(int irq, void *data)
{
	struct npu_vector *vector = data;
	struct npu_device *npu = vector->npu;
	u32 causes = atomic_xchg(&npu->causes, 0);

	if (causes & NPU_IRQ_STATUS_ADMIN)
		wake_up_all(&npu->mbox.wait);
	if (causes & NPU_IRQ_STATUS_FAULT)
		npu_irq_fault(npu);
	if (causes & NPU_IRQ_STATUS_BOOT)
		npu_irq_boot(npu);
	npu_irq_queues(npu, vector->index);
	return IRQ_HANDLED;
}

/* There is no cause to read or clear: the message is the whole interrupt (§8.1). */
static irqreturn_t npu_irq_hard_queue(int irq, void *data)
{
	return IRQ_WAKE_THREAD;
}

static irqreturn_t npu_irq_thread_queue(int irq, void *data)
{
	struct npu_vector *vector = data;

	npu_irq_queues(vector->npu, vector->index);
	return IRQ_HANDLED;
}

/* npu_irq_enable lets vector 0 report causes; those of the past are dropped. */
void npu_irq_enable(struct npu_device *npu)
{
	npu_write(npu, NPU_IRQ_STATUS, npu_read(npu, NPU_IRQ_STATUS));
	npu_write(npu, NPU_IRQ_ENABLE,
		  NPU_IRQ_ENABLE_ADMIN | NPU_IRQ_ENABLE_BOOT | NPU_IRQ_ENABLE_FAULT |
		  (npu->intx ? NPU_IRQ_ENABLE_QUEUE : 0));
}

/* npu_irq_disable silences vector 0 and drops the causes that it would report. */
void npu_irq_disable(struct npu_device *npu)
{
	npu_write(npu, NPU_IRQ_ENABLE, 0);
	npu_write(npu, NPU_IRQ_STATUS, npu_read(npu, NPU_IRQ_STATUS));
}

static void npu_irq_free_vectors(void *pdev)
{
	pci_free_irq_vectors(pdev);
}

/*
 * npu_irq_init allocates vectors, of MSI-X, MSI or INTx, and gives each queue one;
 * needs queue slots.
 */
int npu_irq_init(struct npu_device *npu)
{
	struct device *dev = npu->drm.dev;
	struct pci_dev *pdev = to_pci_dev(dev);
	u32 want = min(npu_read(npu, NPU_VECTOR_COUNT), npu->params.queues + 1);
	unsigned int i;
	int ret;

	ret = pci_alloc_irq_vectors(pdev, 1, max(want, 1U), PCI_IRQ_ALL_TYPES);
	if (ret < 0)
		return dev_err_probe(dev, ret, "no interrupt\n");
	npu->vector_count = ret;
	npu->intx = !pdev->msix_enabled && !pdev->msi_enabled;
	ret = devm_add_action_or_reset(dev, npu_irq_free_vectors, pdev);
	if (ret)
		return ret;

	for (i = 0; i < npu->params.queues; i++)
		npu->queues[i].vector =
			npu->vector_count > 1 ? 1 + i % (npu->vector_count - 1) : 0;

	npu->vectors = devm_kcalloc(dev, npu->vector_count, sizeof(*npu->vectors), GFP_KERNEL);
	if (!npu->vectors)
		return -ENOMEM;
	for (i = 0; i < npu->vector_count; i++) {
		char *name = devm_kasprintf(dev, GFP_KERNEL, "%s-%s-%u", DRM_NPU_NAME,
					    pci_name(pdev), i);

		if (!name)
			return -ENOMEM;
		npu->vectors[i].npu = npu;
		npu->vectors[i].index = i;
		ret = devm_request_threaded_irq(dev, pci_irq_vector(pdev, i),
						i ? npu_irq_hard_queue : npu_irq_hard_admin,
						i ? npu_irq_thread_queue : npu_irq_thread_admin,
						npu->intx ? IRQF_SHARED : 0, name,
						&npu->vectors[i]);
		if (ret)
			return dev_err_probe(dev, ret, "vector %u\n", i);
	}
	return 0;
}
