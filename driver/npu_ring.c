// SPDX-License-Identifier: GPL-2.0-only
/*
 * Rings in memory of the host and doorbells, §4.1 to §4.4: how the PCI function is given
 * commands.
 */

#include <linux/bitfield.h>
#include <linux/dma-mapping.h>
#include <linux/module.h>

#include <drm/drm_managed.h>

#include "npu_pci.h"

/* Firmware interface that knows shadow lines. */
#define NPU_FW_MINOR_SHADOW	1

static bool npu_shadow_doorbells = true;
module_param_named(shadow_doorbells, npu_shadow_doorbells, bool, 0444);
MODULE_PARM_DESC(shadow_doorbells,
		 "Leave indices in memory for the device to find, where it can (default true)");

static struct npu_ring *npu_ring_of(struct npu_queue *q)
{
	return &to_npu_pci(q->npu)->rings[q->number];
}

/* Rings a doorbell (§4.3); orders earlier writes to memory before it. */
static void npu_doorbell(struct npu_pci *pci, u32 queue, u32 which, u32 value)
{
	npu_write(pci, pci->doorbell_offset + queue * pci->doorbell_stride + which, value);
}

static size_t npu_ring_sq_size(struct npu_ring *ring)
{
	return ring->entries * sizeof(*ring->sq);
}

static size_t npu_ring_cq_size(struct npu_ring *ring)
{
	return ring->entries * sizeof(*ring->cq);
}

static void npu_ring_empty(struct npu_ring *ring)
{
	memset(ring->cq, 0, npu_ring_cq_size(ring));
	ring->sq_tail = 0;
	ring->cq_head = 0;
	ring->cq_told = 0;
	ring->phase = NPU_CQE_PHASE;
}

static void npu_ring_push(struct npu_ring *ring, const struct npu_sqe *sqe)
{
	ring->sq[ring->sq_tail] = *sqe;
	ring->sq_tail = (ring->sq_tail + 1) % ring->entries;
}

/*
 * Stores an index in the shadow line (§4.11). Returns whether the device sleeps and has to
 * be rung for it.
 */
static bool npu_shadow_store(struct npu_shadow *shadow, __le32 *index, u32 value, u32 ring)
{
	dma_mb(); /* entries are written, or have been read, before the index says so */
	WRITE_ONCE(*index, cpu_to_le32(value));
	mb(); /* the device stores RING and looks at the index; we do it the other way round */
	return le32_to_cpu(READ_ONCE(shadow->ring)) & ring;
}

static void npu_ring_tell_submitted(struct npu_pci *pci, struct npu_ring *ring)
{
	struct npu_shadow *shadow = ring->shadow;

	if (!shadow || npu_shadow_store(shadow, &shadow->sq_tail, ring->sq_tail,
					NPU_SHADOW_RING_SQ_TAIL))
		npu_doorbell(pci, ring->number, NPU_DOORBELL_SQ_TAIL, ring->sq_tail);
}

static bool npu_ring_pending(struct npu_ring *ring)
{
	u16 status = le16_to_cpu(READ_ONCE(ring->cq[ring->cq_head].status));

	return (status & NPU_CQE_PHASE) == ring->phase;
}

static bool npu_ring_pop(struct npu_ring *ring, struct npu_cqe *cqe)
{
	if (!npu_ring_pending(ring))
		return false;
	dma_rmb(); /* the phase is valid, now the rest is */
	*cqe = ring->cq[ring->cq_head];
	if (++ring->cq_head == ring->entries) {
		ring->cq_head = 0;
		ring->phase ^= NPU_CQE_PHASE;
	}
	return true;
}

static void npu_ring_tell_taken(struct npu_pci *pci, struct npu_ring *ring)
{
	struct npu_shadow *shadow = ring->shadow;

	if (ring->cq_told == ring->cq_head)
		return;
	ring->cq_told = ring->cq_head;
	if (!shadow || npu_shadow_store(shadow, &shadow->cq_head, ring->cq_head,
					NPU_SHADOW_RING_CQ_HEAD))
		npu_doorbell(pci, ring->number, NPU_DOORBELL_CQ_HEAD, ring->cq_head);
}

/* npu_ring_print says where driver and device are; what the device has written is not looked at. */
void npu_ring_print(struct npu_ring *ring, struct drm_printer *p)
{
	drm_printf(p, "  ring %u: tail %u, head %u, told %u, phase %u of %u entries", ring->number,
		   ring->sq_tail, ring->cq_head, ring->cq_told, ring->phase, ring->entries);
	if (ring->shadow)
		drm_printf(p, ", shadow tail %u, head %u, ring 0x%x",
			   le32_to_cpu(READ_ONCE(ring->shadow->sq_tail)),
			   le32_to_cpu(READ_ONCE(ring->shadow->cq_head)),
			   le32_to_cpu(READ_ONCE(ring->shadow->ring)));
	drm_printf(p, "\n");
}

/* Admin queue. */

/* npu_ring_start_admin starts the admin queue; firmware is READY. */
void npu_ring_start_admin(struct npu_pci *pci)
{
	struct npu_ring *ring = &pci->rings[0];

	npu_ring_empty(ring);
	npu_write(pci, NPU_AQ_CONTROL, 0);
	npu_write(pci, NPU_ASQ_BASE_LO, lower_32_bits(ring->sq_addr));
	npu_write(pci, NPU_ASQ_BASE_HI, upper_32_bits(ring->sq_addr));
	npu_write(pci, NPU_ACQ_BASE_LO, lower_32_bits(ring->cq_addr));
	npu_write(pci, NPU_ACQ_BASE_HI, upper_32_bits(ring->cq_addr));
	npu_write(pci, NPU_AQ_SIZE,
		  FIELD_PREP(NPU_AQ_SIZE_SQ_ENTRIES, ring->entries) |
		  FIELD_PREP(NPU_AQ_SIZE_CQ_ENTRIES, ring->entries));
	npu_write(pci, NPU_AQ_CONTROL, NPU_AQ_CONTROL_ENABLE);
}

int npu_ring_admin(struct npu_device *npu, const struct npu_sqe *sqe, struct npu_cqe *cqe,
		   unsigned int timeout_ms)
{
	struct npu_pci *pci = to_npu_pci(npu);
	struct npu_ring *ring = &pci->rings[0];

	npu_ring_push(ring, sqe);
	npu_ring_tell_submitted(pci, ring);
	if (!wait_event_timeout(npu->mbox.wait,
				npu_ring_pending(ring) || READ_ONCE(npu->mbox.dead),
				msecs_to_jiffies(timeout_ms)))
		return -ETIMEDOUT;
	if (!npu_ring_pop(ring, cqe))
		return -EIO;
	npu_ring_tell_taken(pci, ring);
	return 0;
}

/* User queues. */

int npu_ring_queue_alloc(struct npu_queue *q)
{
	struct npu_ring *ring = npu_ring_of(q);
	struct device *dev = q->npu->drm.dev;

	ring->sq = dma_alloc_coherent(dev, npu_ring_sq_size(ring), &ring->sq_addr, GFP_KERNEL);
	if (!ring->sq)
		return -ENOMEM;
	ring->cq = dma_alloc_coherent(dev, npu_ring_cq_size(ring), &ring->cq_addr, GFP_KERNEL);
	if (!ring->cq) {
		dma_free_coherent(dev, npu_ring_sq_size(ring), ring->sq, ring->sq_addr);
		return -ENOMEM;
	}
	npu_ring_empty(ring);
	return 0;
}

void npu_ring_queue_free(struct npu_queue *q)
{
	struct npu_ring *ring = npu_ring_of(q);
	struct device *dev = q->npu->drm.dev;

	dma_free_coherent(dev, npu_ring_cq_size(ring), ring->cq, ring->cq_addr);
	dma_free_coherent(dev, npu_ring_sq_size(ring), ring->sq, ring->sq_addr);
}

void npu_ring_queue_empty(struct npu_queue *q, struct npu_sqe *create)
{
	struct npu_pci *pci = to_npu_pci(q->npu);
	struct npu_ring *ring = npu_ring_of(q);

	npu_ring_empty(ring);
	ring->shadow = NULL;
	if (pci->shadows && !q->own &&
	    FIELD_GET(NPU_FW_VERSION_MINOR, q->npu->fw_version) >= NPU_FW_MINOR_SHADOW) {
		ring->shadow = &pci->shadows[ring->number];
		create->create_queue.shadow =
			cpu_to_le64(pci->shadows_addr + ring->number * sizeof(*pci->shadows));
	}
	create->create_queue.sq = cpu_to_le64(ring->sq_addr);
	create->create_queue.cq = cpu_to_le64(ring->cq_addr);
	create->create_queue.vector = cpu_to_le16(ring->vector);
	create->create_queue.sq_entries = cpu_to_le16(ring->entries);
	create->create_queue.cq_entries = cpu_to_le16(ring->entries);
}

void npu_ring_queue_push(struct npu_queue *q, const struct npu_sqe *sqe)
{
	npu_ring_push(npu_ring_of(q), sqe);
}

void npu_ring_queue_print(struct npu_queue *q, struct drm_printer *p)
{
	npu_ring_print(npu_ring_of(q), p);
}

void npu_ring_queue_kick(struct npu_queue *q)
{
	npu_ring_tell_submitted(to_npu_pci(q->npu), npu_ring_of(q));
}

bool npu_ring_queue_pop(struct npu_queue *q, struct npu_cqe *cqe)
{
	struct npu_ring *ring = npu_ring_of(q);

	if (npu_ring_pop(ring, cqe))
		return true;
	if (q->live)
		npu_ring_tell_taken(to_npu_pci(q->npu), ring);
	return false;
}

/* The doorbell page must not have another queue's beside it. */
int npu_ring_queue_share(struct npu_queue *q, struct npu_user *user)
{
	struct npu_pci *pci = to_npu_pci(q->npu);
	struct npu_ring *ring = npu_ring_of(q);
	u64 at = pci->doorbell_offset + (u64)q->number * pci->doorbell_stride;

	if (!IS_ALIGNED(pci->doorbell_stride | at, PAGE_SIZE)) {
		drm_dbg(&q->npu->drm, "doorbells are smaller than the kernel's pages\n");
		return -EOPNOTSUPP;
	}
	user->entries = ring->entries;
	user->sq = ring->sq;
	user->cq = ring->cq;
	user->doorbell = pci_resource_start(to_pci_dev(q->npu->drm.dev), 0) + at;
	return 0;
}

/* npu_ring_init makes the rings of the admin queue, and room for those of user queues. */
int npu_ring_init(struct npu_pci *pci)
{
	struct npu_device *npu = &pci->npu;
	struct device *dev = npu->drm.dev;
	struct npu_ring *ring;
	u32 i;

	pci->rings = drmm_kcalloc(&npu->drm, npu->params.queues + 1, sizeof(*pci->rings),
				  GFP_KERNEL);
	if (!pci->rings)
		return -ENOMEM;
	for (i = 0; i <= npu->params.queues; i++) {
		pci->rings[i].number = i;
		pci->rings[i].entries = i ? pci->entries : NPU_ADMIN_ENTRIES;
	}

	if (npu_shadow_doorbells && npu->params.features & NPU_FEATURES_LO_SHADOW_DOORBELLS) {
		pci->shadows = dmam_alloc_coherent(dev, (npu->params.queues + 1) *
						   sizeof(*pci->shadows),
						   &pci->shadows_addr, GFP_KERNEL);
		if (!pci->shadows)
			return -ENOMEM;
	}

	ring = &pci->rings[0];
	ring->sq = dmam_alloc_coherent(dev, npu_ring_sq_size(ring), &ring->sq_addr, GFP_KERNEL);
	ring->cq = dmam_alloc_coherent(dev, npu_ring_cq_size(ring), &ring->cq_addr, GFP_KERNEL);
	return ring->sq && ring->cq ? 0 : -ENOMEM;
}
