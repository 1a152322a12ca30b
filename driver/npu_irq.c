// SPDX-License-Identifier: GPL-2.0-only
/*
 * Interrupts of the PCI function, §8.
 *
 * Vector 0 carries the causes of IRQ_STATUS. User queue q completes on vector
 * 1 + (q - 1) % (vectors - 1), or on vector 0 if there is no other. INTx is one
 * vector, whose line may be shared: there completions are a cause as well.
 */

#include <linux/bitfield.h>
#include <linux/interrupt.h>

#include "npu_pci.h"

static void npu_irq_fault(struct npu_pci *pci)
{
	u32 status = npu_read(pci, NPU_FAULT_STATUS);
	u32 info = npu_read(pci, NPU_FAULT_INFO);
	u64 addr = npu_read(pci, NPU_FAULT_ADDR_LO) |
		   (u64)npu_read(pci, NPU_FAULT_ADDR_HI) << 32;

	if (status == U32_MAX || !(status & NPU_FAULT_STATUS_VALID))
		return;
	npu_write(pci, NPU_FAULT_STATUS, NPU_FAULT_STATUS_VALID | NPU_FAULT_STATUS_OVERFLOW);
	npu_fault(&pci->npu, FIELD_GET(NPU_FAULT_STATUS_CODE, status), info, addr,
		  status & NPU_FAULT_STATUS_OVERFLOW);
}

static void npu_irq_boot(struct npu_pci *pci)
{
	u32 status = npu_read(pci, NPU_BOOT_STATUS);

	if (status == U32_MAX ||
	    FIELD_GET(NPU_BOOT_STATUS_STATE, status) != NPU_BOOT_STATE_FAILED)
		return;
	dev_err_ratelimited(pci->npu.drm.dev, "firmware died: error %s, detail 0x%08x\n",
			    npu_boot_error_name(FIELD_GET(NPU_BOOT_STATUS_ERROR, status)),
			    npu_read(pci, NPU_FW_ERROR_DETAIL));
	npu_mbox_abort(&pci->npu);
	npu_schedule_recovery(&pci->npu, NPU_RECOVER_RESET);
}

static void npu_irq_queues(struct npu_pci *pci, unsigned int vector)
{
	u32 i;

	for (i = 1; i <= pci->npu.params.queues; i++)
		if (pci->rings[i].vector == vector)
			npu_queue_poll(&pci->npu.queues[i - 1]);
}

/* Order as §8.2: read and clear the causes, the thread looks at what they mean. */
static irqreturn_t npu_irq_hard_admin(int irq, void *data)
{
	struct npu_vector *vector = data;
	struct npu_pci *pci = vector->pci;
	u32 causes;

	if (READ_ONCE(pci->asleep))
		return IRQ_NONE;
	causes = npu_read(pci, NPU_IRQ_STATUS);
	if (causes == U32_MAX) /* a reset is in progress, which asserts nothing */
		causes = 0;
	if (causes) {
		npu_write(pci, NPU_IRQ_STATUS, causes);
		if (pci->intx) /* a cause until the write arrives is not told again, §8.4 */
			npu_read(pci, NPU_IRQ_STATUS);
		atomic_or(causes, &pci->causes);
	} else if (pci->intx) {
		return IRQ_NONE; /* another device's */
	}
	return IRQ_WAKE_THREAD;
}

static irqreturn_t npu_irq_thread_admin(int irq, void *data)
{
	struct npu_vector *vector = data;
	struct npu_pci *pci = vector->pci;
	u32 causes = atomic_xchg(&pci->causes, 0);

	if (causes & NPU_IRQ_STATUS_ADMIN)
		wake_up_all(&pci->npu.mbox.wait);
	if (causes & NPU_IRQ_STATUS_FAULT)
		npu_irq_fault(pci);
	if (causes & NPU_IRQ_STATUS_BOOT)
		npu_irq_boot(pci);
	if (causes & (NPU_IRQ_STATUS_FIRMWARE | NPU_IRQ_STATUS_ERROR))
		npu_health_check(&pci->npu);
	npu_irq_queues(pci, vector->index);
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

	npu_irq_queues(vector->pci, vector->index);
	return IRQ_HANDLED;
}

/* npu_irq_enable lets vector 0 report causes; those of the past are dropped. */
void npu_irq_enable(struct npu_pci *pci)
{
	npu_write(pci, NPU_IRQ_STATUS, npu_read(pci, NPU_IRQ_STATUS));
	npu_irq_again(pci);
}

/*
 * npu_irq_again lets vector 0 report causes, also those of which the message came while nobody
 * listened.
 */
void npu_irq_again(struct npu_pci *pci)
{
	u32 enable = NPU_IRQ_ENABLE_ADMIN | NPU_IRQ_ENABLE_BOOT | NPU_IRQ_ENABLE_FAULT;

	if (pci->intx)
		enable |= NPU_IRQ_ENABLE_QUEUE;
	if (pci->npu.params.features & NPU_FEATURES_LO_RAS)
		enable |= NPU_IRQ_ENABLE_FIRMWARE | NPU_IRQ_ENABLE_ERROR;
	npu_write(pci, NPU_IRQ_ENABLE, enable);
}

/* npu_irq_disable silences vector 0 and drops the causes that it would report. */
void npu_irq_disable(struct npu_pci *pci)
{
	npu_write(pci, NPU_IRQ_ENABLE, 0);
	npu_write(pci, NPU_IRQ_STATUS, npu_read(pci, NPU_IRQ_STATUS));
}

static void npu_irq_free_vectors(void *pdev)
{
	pci_free_irq_vectors(pdev);
}

/*
 * npu_irq_init allocates vectors, of MSI-X, MSI or INTx, and gives each queue one;
 * needs queue slots and rings.
 */
int npu_irq_init(struct npu_pci *pci)
{
	struct device *dev = pci->npu.drm.dev;
	struct pci_dev *pdev = to_pci_dev(dev);
	struct npu_params *params = &pci->npu.params;
	u32 want = min(npu_read(pci, NPU_VECTOR_COUNT), params->queues + 1);
	unsigned int i;
	int ret;

	ret = pci_alloc_irq_vectors(pdev, 1, max(want, 1U), PCI_IRQ_ALL_TYPES);
	if (ret < 0)
		return dev_err_probe(dev, ret, "no interrupt\n");
	params->vectors = ret;
	pci->intx = !pdev->msix_enabled && !pdev->msi_enabled;
	ret = devm_add_action_or_reset(dev, npu_irq_free_vectors, pdev);
	if (ret)
		return ret;

	for (i = 0; i < params->queues; i++)
		pci->rings[i + 1].vector = params->vectors > 1 ? 1 + i % (params->vectors - 1) : 0;

	pci->vectors = devm_kcalloc(dev, params->vectors, sizeof(*pci->vectors), GFP_KERNEL);
	if (!pci->vectors)
		return -ENOMEM;
	for (i = 0; i < params->vectors; i++) {
		char *name = devm_kasprintf(dev, GFP_KERNEL, "%s-%s-%u", DRM_NPU_NAME,
					    pci_name(pdev), i);

		if (!name)
			return -ENOMEM;
		pci->vectors[i].pci = pci;
		pci->vectors[i].index = i;
		ret = devm_request_threaded_irq(dev, pci_irq_vector(pdev, i),
						i ? npu_irq_hard_queue : npu_irq_hard_admin,
						i ? npu_irq_thread_queue : npu_irq_thread_admin,
						pci->intx ? IRQF_SHARED : 0, name,
						&pci->vectors[i]);
		if (ret)
			return dev_err_probe(dev, ret, "vector %u\n", i);
	}
	return 0;
}
