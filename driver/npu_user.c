// SPDX-License-Identifier: GPL-2.0-only
/*
 * Queues that a process drives itself: it has the rings and the doorbell page mapped, and names
 * virtual addresses, since the hardware takes no others in a translated context (§11.1). The
 * driver makes and destroys them, and tells the process when a queue ended under it.
 *
 * Mappings are filled page by page, and taken away with the queue. Which page is there, and
 * whether there is one, npu_queue.user_lock guards. Recovery ends queues without it, and leaves
 * mappings to user_work: to take one away may wait for whoever watches the process's memory, and
 * so for jobs. A doorbell that is rung meanwhile is that of a queue that the device does not
 * have (§9.2), since the number stays the process's.
 */

#include <linux/bitfield.h>
#include <linux/dma-map-ops.h>
#include <linux/mm.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_gem.h>
#include <drm/drm_vma_manager.h>

#include "npu_drv.h"

/*
 * Offsets for mmap() lie below those of BOs. They have the number of the queue on the device,
 * because all files share an address space, from which mappings are taken by offset.
 */
#define NPU_USER_QUEUE		20 /* bits of an offset below the number */
#define NPU_USER_REGION		18 /* bits below the region */

enum npu_user_region {
	NPU_USER_SQ,
	NPU_USER_CQ,
	NPU_USER_DOORBELL,
	NPU_USER_REGIONS,
};

static u64 npu_user_offset(struct npu_queue *q, enum npu_user_region region)
{
	return (u64)q->number << NPU_USER_QUEUE | (u64)region << NPU_USER_REGION;
}

static size_t npu_user_size(struct npu_queue *q, enum npu_user_region region)
{
	switch (region) {
	case NPU_USER_SQ:
		return PAGE_ALIGN(q->user.entries * NPU_SQ_ENTRY_SIZE);
	case NPU_USER_CQ:
		return PAGE_ALIGN(q->user.entries * NPU_CQ_ENTRY_SIZE);
	default:
		return PAGE_SIZE;
	}
}

/* Mappings. */

static unsigned long npu_user_pfn(void *address)
{
	return is_vmalloc_addr(address) ? vmalloc_to_pfn(address) : PHYS_PFN(virt_to_phys(address));
}

static unsigned long npu_user_page(struct npu_queue *q, enum npu_user_region region, size_t at)
{
	switch (region) {
	case NPU_USER_SQ:
		return npu_user_pfn(q->user.sq + at);
	case NPU_USER_CQ:
		return npu_user_pfn(q->user.cq + at);
	default: /* of a queue that ended a page that nobody reads */
		if (READ_ONCE(q->user.ended))
			return npu_user_pfn(q->user.sink);
		return PHYS_PFN(q->user.doorbell);
	}
}

static vm_fault_t npu_user_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct npu_queue *q = vma->vm_private_data;
	struct drm_file *filp = vma->vm_file->private_data;
	struct npu_file *file = filp->driver_priv;
	enum npu_user_region region;
	vm_fault_t ret = VM_FAULT_SIGBUS;
	u64 offset;
	int idx;

	if (!npu_enter(q->npu, &idx))
		return VM_FAULT_SIGBUS;
	offset = (u64)vmf->pgoff << PAGE_SHIFT & (BIT(NPU_USER_QUEUE) - 1);
	region = offset >> NPU_USER_REGION;
	offset &= BIT(NPU_USER_REGION) - 1;
	mutex_lock(&q->user_lock);
	if (q->user.file == file && offset < npu_user_size(q, region))
		ret = vmf_insert_pfn(vma, vmf->address, npu_user_page(q, region, offset));
	mutex_unlock(&q->user_lock);
	drm_dev_exit(idx);
	return ret;
}

static const struct vm_operations_struct npu_user_vm_ops = {
	.fault = npu_user_fault,
};

static int npu_user_mmap(struct npu_queue *q, struct npu_file *file, struct vm_area_struct *vma)
{
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT & (BIT(NPU_USER_QUEUE) - 1);
	enum npu_user_region region = offset >> NPU_USER_REGION;
	int ret = -EINVAL;

	offset &= BIT(NPU_USER_REGION) - 1;
	mutex_lock(&q->user_lock);
	if (q->user.file == file && region < NPU_USER_REGIONS && !offset &&
	    vma->vm_end - vma->vm_start <= npu_user_size(q, region))
		ret = vma->vm_flags & VM_SHARED ? 0 : -EINVAL;
	mutex_unlock(&q->user_lock);
	if (ret)
		return ret;
	if (region == NPU_USER_CQ) {
		if (vma->vm_flags & VM_WRITE)
			return -EACCES; /* the device alone writes completions */
		vm_flags_clear(vma, VM_MAYWRITE);
	}
	if (region == NPU_USER_DOORBELL)
		vma->vm_page_prot = pgprot_noncached(vma->vm_page_prot);
	vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_private_data = q;
	vma->vm_ops = &npu_user_vm_ops;
	return 0;
}

/* npu_mmap maps a part of a user's queue, or a BO. */
int npu_mmap(struct file *filp, struct vm_area_struct *vma)
{
	struct drm_file *drm = filp->private_data;
	struct npu_file *file = drm->driver_priv;
	struct npu_device *npu = file->npu;
	u64 number = (u64)vma->vm_pgoff << PAGE_SHIFT >> NPU_USER_QUEUE;
	int ret, idx;

	if (vma->vm_pgoff >= DRM_FILE_PAGE_OFFSET_START || !number ||
	    number > npu->params.queues)
		return drm_gem_mmap(filp, vma);
	if (!npu_enter(npu, &idx))
		return -ENODEV;
	ret = npu_user_mmap(&npu->queues[number - 1], file, vma);
	drm_dev_exit(idx);
	return ret;
}

static void npu_user_zap(struct npu_queue *q, enum npu_user_region region)
{
	unmap_mapping_range(q->npu->drm.anon_inode->i_mapping, npu_user_offset(q, region),
			    npu_user_size(q, region), 1);
}

static void npu_user_work(struct work_struct *work)
{
	struct npu_queue *q = container_of(work, struct npu_queue, user_work);

	mutex_lock(&q->user_lock); /* no fault that came before is still on its way */
	npu_user_zap(q, NPU_USER_DOORBELL);
	mutex_unlock(&q->user_lock);
}

/* Life. */

/* npu_user_init_slot prepares a slot, once. */
void npu_user_init_slot(struct npu_queue *q)
{
	mutex_init(&q->user_lock);
	INIT_WORK(&q->user_work, npu_user_work);
}

/* npu_user_supported says whether a file can have queues of its own. */
bool npu_user_supported(struct npu_device *npu)
{
	return npu->mmu && npu->ops->queue_share && dev_is_dma_coherent(npu->drm.dev);
}

/*
 * npu_user_init makes the queue, whose ring is allocated, the process's to map. The slot is taken
 * and not allocated, so no recovery looks at it.
 */
int npu_user_init(struct npu_queue *q, struct npu_file *file)
{
	struct npu_user user = { .file = file };
	int ret;

	ret = q->npu->ops->queue_share(q, &user);
	if (ret)
		return ret;
	user.sink = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	if (!user.sink)
		return -ENOMEM;
	mutex_lock(&q->user_lock);
	q->user = user;
	mutex_unlock(&q->user_lock);
	return 0;
}

/* npu_user_revoke takes all mappings away, for good. */
void npu_user_revoke(struct npu_queue *q)
{
	int i;

	mutex_lock(&q->user_lock);
	q->user.file = NULL;
	for (i = 0; i < NPU_USER_REGIONS; i++)
		npu_user_zap(q, i);
	mutex_unlock(&q->user_lock);
}

/* npu_user_fini undoes npu_user_init(); the slot is not allocated any more. */
void npu_user_fini(struct npu_queue *q)
{
	npu_user_revoke(q);
	cancel_work_sync(&q->user_work);
	free_page((unsigned long)q->user.sink);
	q->user = (struct npu_user){};
}

/*
 * npu_user_end tells the process that its queue is no longer on the device: behind the
 * completions that the device has posted there is one more, and the doorbell leads nowhere.
 * There is room, because a completion ring is never full (§4.1). npu_device.lock is held, and
 * the queue allocated.
 */
void npu_user_end(struct npu_queue *q)
{
	struct npu_cqe *cq, *end;
	u16 phase;
	u32 i;

	lockdep_assert_held(&q->npu->lock);

	if (!q->own || q->user.ended)
		return;
	WRITE_ONCE(q->user.ended, true);
	cq = q->user.cq;
	phase = le16_to_cpu(READ_ONCE(cq[0].status)) & NPU_CQE_PHASE;
	for (i = 1; i < q->user.entries; i++)
		if ((le16_to_cpu(READ_ONCE(cq[i].status)) & NPU_CQE_PHASE) != phase)
			break;
	end = &cq[i % q->user.entries];
	end->result = 0;
	end->info = 0;
	end->queue = cpu_to_le16(q->number);
	end->command_id = cpu_to_le16(U16_MAX);
	phase = ~le16_to_cpu(end->status) & NPU_CQE_PHASE;
	smp_wmb(); /* the phase says that the rest is there */
	WRITE_ONCE(end->status, cpu_to_le16(FIELD_PREP(NPU_CQE_STATUS, DRM_NPU_STATUS_QUEUE_ENDED) |
					    phase));
	schedule_work(&q->user_work);
}

int npu_ioctl_queue_map(struct drm_device *drm, void *data, struct drm_file *filp)
{
	struct drm_npu_queue_map *args = data;
	struct npu_file *file = filp->driver_priv;
	struct npu_queue *q;
	int ret = 0, idx;

	if (args->flags || args->entries || args->pad || args->sq_offset || args->sq_size ||
	    args->cq_offset || args->cq_size || args->doorbell_offset || args->doorbell_size) {
		drm_dbg(drm, "reserved or out field is not zero\n");
		return -EINVAL;
	}
	if (!npu_enter(to_npu(drm), &idx))
		return -ENODEV;
	mutex_lock(&file->lock);
	q = xa_load(&file->queues, args->queue);
	if (!q) {
		drm_dbg(drm, "no queue %u\n", args->queue);
		ret = -ENOENT;
		goto out;
	}
	mutex_lock(&q->user_lock);
	if (!q->user.file) {
		drm_dbg(drm, "queue %u is the driver's\n", args->queue);
		ret = -EINVAL;
	} else if (READ_ONCE(q->user.ended)) {
		drm_dbg(drm, "queue %u has ended; remedy: destroy it, and create another\n",
			args->queue);
		ret = -EIO;
	} else {
		args->entries = q->user.entries;
		args->sq_offset = npu_user_offset(q, NPU_USER_SQ);
		args->sq_size = npu_user_size(q, NPU_USER_SQ);
		args->cq_offset = npu_user_offset(q, NPU_USER_CQ);
		args->cq_size = npu_user_size(q, NPU_USER_CQ);
		args->doorbell_offset = npu_user_offset(q, NPU_USER_DOORBELL);
		args->doorbell_size = npu_user_size(q, NPU_USER_DOORBELL);
	}
	mutex_unlock(&q->user_lock);
out:
	mutex_unlock(&file->lock);
	drm_dev_exit(idx);
	return ret;
}
