/* SPDX-License-Identifier: GPL-2.0-only */
/* The NPU as a PCI function: registers, rings in memory of the host, interrupts. */
#ifndef NPU_PCI_H
#define NPU_PCI_H

#include <linux/io.h>
#include <linux/pci.h>

#include "npu_drv.h"

/* Entries of the admin rings: one command at a time is in flight. */
#define NPU_ADMIN_ENTRIES	16

/*
 * Submission and completion ring of a queue, §4.1, §4.2. Fields that change are guarded
 * by npu_queue.lock, those of the admin queue by npu_mbox.lock.
 */
struct npu_ring {
	u16 number; /* of the queue; 0 is admin */
	u16 vector;
	u16 entries;
	u16 sq_tail;
	u16 cq_head;
	u16 cq_told; /* cq_head as the device knows it */
	u16 phase;
	struct npu_sqe *sq;
	struct npu_cqe *cq;
	dma_addr_t sq_addr;
	dma_addr_t cq_addr;
	struct npu_shadow *shadow; /* NULL: every index needs its doorbell */
};

struct npu_vector {
	struct npu_pci *pci;
	unsigned int index;
};

struct npu_pci {
	struct npu_device npu;
	void __iomem *regs; /* BAR0 */
	u32 doorbell_offset;
	u32 doorbell_stride;
	u32 entries; /* of a user queue's rings */
	struct npu_ring *rings; /* by queue number */
	struct npu_shadow *shadows; /* by queue number; NULL where the device has none */
	dma_addr_t shadows_addr;

	void *fw; /* firmware image, kept for every later boot */
	dma_addr_t fw_addr;
	size_t fw_size;

	struct npu_vector *vectors; /* npu_params.vectors of them */
	bool intx; /* vector 0 is a line, not a message */
	bool asleep; /* in D3hot: an interrupt is another device's */
	bool frozen; /* npu_device.lock: the bus has an error, and the slot will be reset */
	atomic_t causes; /* IRQ_STATUS bits from hard handler to thread */
};

static inline struct npu_pci *to_npu_pci(struct npu_device *npu)
{
	return container_of(npu, struct npu_pci, npu);
}

static inline u32 npu_read(struct npu_pci *pci, u32 reg)
{
	return readl(pci->regs + reg);
}

static inline void npu_write(struct npu_pci *pci, u32 reg, u32 value)
{
	writel(value, pci->regs + reg);
}

/* npu_pci.c */
int npu_pci_soft_reset(struct npu_pci *pci);
int npu_pci_wait_reset(struct npu_pci *pci);

/* npu_power.c */
extern const struct dev_pm_ops npu_pci_pm_ops;
extern const struct pci_error_handlers npu_pci_err_handler;
void npu_power_start(struct npu_pci *pci);
void npu_power_stop(struct npu_pci *pci);

/* npu_ring.c */
int npu_ring_init(struct npu_pci *pci);
void npu_ring_start_admin(struct npu_pci *pci);
int npu_ring_admin(struct npu_device *npu, const struct npu_sqe *sqe, struct npu_cqe *cqe,
		   unsigned int timeout_ms);
int npu_ring_queue_alloc(struct npu_queue *q);
void npu_ring_queue_free(struct npu_queue *q);
void npu_ring_queue_empty(struct npu_queue *q, struct npu_sqe *create);
void npu_ring_queue_push(struct npu_queue *q, const struct npu_sqe *sqe);
void npu_ring_queue_kick(struct npu_queue *q);
int npu_ring_queue_share(struct npu_queue *q, struct npu_user *user);
void npu_ring_print(struct npu_ring *ring, struct drm_printer *p);
void npu_ring_queue_print(struct npu_queue *q, struct drm_printer *p);
bool npu_ring_queue_pop(struct npu_queue *q, struct npu_cqe *cqe);

/* npu_irq.c */
int npu_irq_init(struct npu_pci *pci);
void npu_irq_enable(struct npu_pci *pci);
void npu_irq_again(struct npu_pci *pci);
void npu_irq_disable(struct npu_pci *pci);

#endif /* NPU_PCI_H */
