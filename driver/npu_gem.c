// SPDX-License-Identifier: GPL-2.0-only
/*
 * Buffer objects: device memory, which is behind a window of the device; memory of the
 * host; and dma-bufs of others. Without an MMU in the device the last two must be
 * contiguous on the bus.
 */

#include <linux/dma-buf.h>
#include <linux/dma-mapping.h>
#include <linux/iommu.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/scatterlist.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_managed.h>
#include <drm/drm_prime.h>

#include "npu_compat.h"
#include "npu_drv.h"

static size_t npu_bo_pages(struct npu_bo *bo)
{
	return bo->base.size >> PAGE_SHIFT;
}

/* Memory of the host. */

/* As much in one piece as is easily had, up to a large page of the device. */
static struct page *npu_pages_alloc_piece(size_t pages, gfp_t gfp, unsigned int *order)
{
	struct page *page;

	*order = min_t(unsigned int, ilog2(pages), get_order(NPU_VM_LARGE));
	for (; *order; (*order)--) {
		page = alloc_pages((gfp & ~__GFP_RETRY_MAYFAIL) | __GFP_NORETRY, *order);
		if (page) {
			split_page(page, *order);
			return page;
		}
	}
	return alloc_page(gfp);
}

/*
 * Allocates size bytes of zeros, in one piece unless an MMU or IOMMU makes one of them. Bounded
 * by what can be had without killing processes.
 */
static struct page **npu_pages_alloc(struct npu_device *npu, size_t size)
{
	const gfp_t gfp = GFP_KERNEL_ACCOUNT | __GFP_ZERO | __GFP_NOWARN | __GFP_RETRY_MAYFAIL;
	size_t i, k, count = size >> PAGE_SHIFT;
	struct page **pages, *page;
	unsigned int order;
	void *whole;

	pages = kvmalloc_array(count, sizeof(*pages), gfp & ~__GFP_ZERO);
	if (!pages)
		return NULL;
	if (!npu->mmu) {
		whole = alloc_pages_exact(size, gfp);
		for (i = 0; whole && i < count; i++)
			pages[i] = virt_to_page(whole + i * PAGE_SIZE);
		if (whole)
			return pages;
		if (!device_iommu_mapped(npu->drm.dev))
			goto err;
	}
	for (i = 0; i < count;) {
		page = fatal_signal_pending(current) ? NULL :
			npu_pages_alloc_piece(count - i, gfp, &order);
		if (!page)
			goto err_free;
		for (k = 0; k < BIT(order); k++)
			pages[i++] = page + k;
		cond_resched();
	}
	return pages;

err_free:
	while (i--)
		__free_page(pages[i]);
err:
	kvfree(pages);
	return NULL;
}

/* Mappings have references of their own. */
static void npu_pages_free(struct page **pages, size_t count)
{
	while (count--)
		__free_page(pages[count]);
	kvfree(pages);
}

/* Whether the device reaches size bytes, and those that the processor sees. */
static bool npu_sgt_usable(struct npu_device *npu, struct sg_table *sgt, size_t size)
{
	struct scatterlist *sg;
	size_t sum = 0;
	int i;

	if (!npu->mmu && drm_prime_get_contiguous_size(sgt) < size) {
		drm_dbg(&npu->drm, "memory is not contiguous on the bus; remedy: an IOMMU, or huge pages\n");
		return false;
	}
	for_each_sgtable_dma_sg(sgt, sg, i) {
		sum += sg_dma_len(sg);
		if (npu->mmu && !IS_ALIGNED(sg_dma_address(sg) | sg_dma_len(sg), NPU_PAGE_SIZE)) {
			drm_dbg(&npu->drm, "memory is not made of pages\n");
			return false;
		}
		if (!npu->ops->physical && !device_iommu_mapped(npu->drm.dev) &&
		    dma_need_sync(npu->drm.dev, sg_dma_address(sg))) {
			drm_dbg(&npu->drm, "DMA is not coherent, or goes through bounce buffers\n");
			return false;
		}
	}
	return sum >= size;
}

static int npu_gem_map_system(struct npu_device *npu, struct npu_bo *bo, size_t size)
{
	struct sg_table *sgt;
	int ret;

	sgt = kzalloc(sizeof(*sgt), GFP_KERNEL);
	if (!sgt)
		return -ENOMEM;
	ret = sg_alloc_table_from_pages(sgt, bo->pages, size >> PAGE_SHIFT, 0, size, GFP_KERNEL);
	if (ret)
		goto err_free;
	ret = dma_map_sgtable(npu->drm.dev, sgt, DMA_BIDIRECTIONAL, 0);
	if (ret)
		goto err_free_table;
	if (!npu_sgt_usable(npu, sgt, size)) {
		ret = -ENOMEM;
		goto err_unmap;
	}
	bo->sgt = sgt;
	bo->address = sg_dma_address(sgt->sgl);
	return 0;

err_unmap:
	dma_unmap_sgtable(npu->drm.dev, sgt, DMA_BIDIRECTIONAL, 0);
err_free_table:
	sg_free_table(sgt);
err_free:
	kfree(sgt);
	return ret;
}

/* Takes memory of the host from the device. */
static void npu_gem_unmap_system(struct npu_device *npu, struct npu_bo *bo)
{
	lockdep_assert_held(&npu->bo_lock);

	if (!bo->sgt)
		return;
	if (bo->base.import_attach) {
		dma_buf_unmap_attachment_unlocked(bo->base.import_attach, bo->sgt,
						  DMA_BIDIRECTIONAL);
	} else {
		dma_unmap_sgtable(npu->drm.dev, bo->sgt, DMA_BIDIRECTIONAL, 0);
		sg_free_table(bo->sgt);
		kfree(bo->sgt);
	}
	bo->sgt = NULL;
}

/* Objects. */

/* A file that has no handle any more has no use for the mapping. */
static void npu_gem_close(struct drm_gem_object *obj, struct drm_file *filp)
{
	struct npu_file *file = filp->driver_priv;

	npu_vm_forget(&file->vm, to_npu_bo(obj));
}

static void npu_gem_free_device(struct npu_device *npu, struct npu_bo *bo, size_t size)
{
	mutex_lock(&npu->bo_lock);
	drm_mm_remove_node(&bo->node);
	npu->dram_free += size;
	list_del(&bo->link);
	mutex_unlock(&npu->bo_lock);
}

static void npu_gem_free(struct drm_gem_object *obj)
{
	struct npu_device *npu = to_npu(obj->dev);
	struct npu_bo *bo = to_npu_bo(obj);

	if (bo->placement == DRM_NPU_PLACEMENT_DEVICE) {
		npu_gem_free_device(npu, bo, obj->size);
	} else {
		mutex_lock(&npu->bo_lock);
		npu_gem_unmap_system(npu, bo);
		list_del(&bo->link);
		mutex_unlock(&npu->bo_lock);
	}
	if (obj->import_attach)
		drm_prime_gem_destroy(obj, NULL);
	if (bo->pages)
		npu_pages_free(bo->pages, npu_bo_pages(bo));
	drm_gem_object_release(obj);
	kfree(bo);
}

/*
 * npu_gem_put_later is drm_gem_object_put() for who ends jobs. To free a BO takes locks that
 * others hold while they wait for jobs, as the reservation of an imported dma-buf; so the last
 * reference is vm_work's to drop.
 */
void npu_gem_put_later(struct npu_bo *bo)
{
	struct npu_device *npu = to_npu(bo->base.dev);

	if (refcount_dec_not_one(&bo->base.refcount.refcount))
		return;
	if (llist_add(&bo->dead, &npu->dead_bos))
		queue_work(npu->vm_wq, &npu->vm_work);
}

/* npu_gem_put_dead drops the references that npu_gem_put_later() left. */
void npu_gem_put_dead(struct npu_device *npu)
{
	struct npu_bo *bo, *next;

	llist_for_each_entry_safe(bo, next, llist_del_all(&npu->dead_bos), dead)
		drm_gem_object_put(&bo->base);
}

/* npu_gem_has_handle says whether the handle is the BO's still. */
bool npu_gem_has_handle(struct drm_file *filp, u32 handle, struct npu_bo *bo)
{
	struct drm_gem_object *obj = drm_gem_object_lookup(filp, handle);

	if (obj)
		drm_gem_object_put(obj); /* the caller has another reference */
	return obj == &bo->base;
}

static int npu_gem_map(struct npu_device *npu, struct npu_bo *bo, struct vm_area_struct *vma)
{
	u64 offset;
	int ret;

	/* The fake offset of drm_gem_mmap() means the start of the object. */
	vma->vm_pgoff -= drm_vma_node_start(&bo->base.vma_node);
	offset = (u64)vma->vm_pgoff << PAGE_SHIFT;

	if (bo->placement == DRM_NPU_PLACEMENT_SYSTEM) {
		vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
		return vm_map_pages(vma, bo->pages, npu_bo_pages(bo));
	}

	if (!npu->dram_map) {
		drm_dbg(&npu->drm, "the host has no window to device memory\n");
		return -EOPNOTSUPP;
	}
	vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_page_prot = pgprot_writecombine(vm_get_page_prot(vma->vm_flags));
	ret = npu_wake(npu); /* for the mapping, until npu_gem_vm_close() */
	if (ret)
		return ret;
	ret = io_remap_pfn_range(vma, vma->vm_start,
				 PHYS_PFN(npu->dram_phys + bo->address + offset),
				 vma->vm_end - vma->vm_start, vma->vm_page_prot);
	if (ret)
		npu_relax(npu);
	return ret;
}

static int npu_gem_mmap(struct drm_gem_object *obj, struct vm_area_struct *vma)
{
	struct npu_device *npu = to_npu(obj->dev);
	int ret, idx;

	if (!(vma->vm_flags & VM_SHARED)) {
		drm_dbg(&npu->drm, "a buffer object is mapped MAP_SHARED only\n");
		return -EINVAL;
	}
	if (!npu_enter(npu, &idx))
		return -ENODEV;
	ret = npu_gem_map(npu, to_npu_bo(obj), vma);
	drm_dev_exit(idx);
	return ret;
}

static struct sg_table *npu_gem_get_sg_table(struct drm_gem_object *obj)
{
	struct npu_bo *bo = to_npu_bo(obj);

	return drm_prime_pages_to_sg(obj->dev, bo->pages, npu_bo_pages(bo));
}

/* dma-bufs. */

/* Others reach device memory by the processor's mapping only: nobody routes P2P for them. */
static int npu_dmabuf_attach(struct dma_buf *dmabuf, struct dma_buf_attachment *attach)
{
	struct drm_gem_object *obj = dmabuf->priv;

	if (to_npu_bo(obj)->placement == DRM_NPU_PLACEMENT_DEVICE) {
		drm_dbg(obj->dev, "%s cannot import device memory\n", dev_name(attach->dev));
		return -EOPNOTSUPP;
	}
	return drm_gem_map_attach(dmabuf, attach);
}

static const struct dma_buf_ops npu_dmabuf_ops = {
	.attach = npu_dmabuf_attach,
	.detach = drm_gem_map_detach,
	.map_dma_buf = drm_gem_map_dma_buf,
	.unmap_dma_buf = drm_gem_unmap_dma_buf,
	.release = drm_gem_dmabuf_release,
	.mmap = drm_gem_dmabuf_mmap,
};

/* Mappings of the dma-buf are in the address space that drm_dev_unplug() empties. */
static struct dma_buf *npu_gem_export(struct drm_gem_object *obj, int flags)
{
	struct dma_buf_export_info info = {
		.exp_name = DRM_NPU_NAME,
		.owner = THIS_MODULE,
		.ops = &npu_dmabuf_ops,
		.size = obj->size,
		.flags = flags,
		.priv = obj,
		.resv = obj->resv,
	};
	struct dma_buf *dmabuf;

	dmabuf = drm_gem_dmabuf_export(obj->dev, &info);
	if (IS_ERR(dmabuf))
		return dmabuf;
	WRITE_ONCE(to_npu_bo(obj)->shared, true);
	return dmabuf;
}

/* Whoever maps device memory may look at it at any time: it stays awake. */
static bool npu_gem_vm_of_device(struct vm_area_struct *vma)
{
	struct drm_gem_object *obj = vma->vm_private_data;

	return to_npu_bo(obj)->placement == DRM_NPU_PLACEMENT_DEVICE;
}

static void npu_gem_vm_open(struct vm_area_struct *vma)
{
	struct drm_gem_object *obj = vma->vm_private_data;

	if (npu_gem_vm_of_device(vma))
		npu_stay_awake(to_npu(obj->dev));
	drm_gem_vm_open(vma);
}

static void npu_gem_vm_close(struct vm_area_struct *vma)
{
	struct drm_gem_object *obj = vma->vm_private_data;

	if (npu_gem_vm_of_device(vma))
		npu_relax(to_npu(obj->dev));
	drm_gem_vm_close(vma);
}

static const struct vm_operations_struct npu_gem_vm_ops = {
	.open = npu_gem_vm_open,
	.close = npu_gem_vm_close,
};

static const struct drm_gem_object_funcs npu_gem_funcs = {
	.free = npu_gem_free,
	.close = npu_gem_close,
	.mmap = npu_gem_mmap,
	.export = npu_gem_export,
	.get_sg_table = npu_gem_get_sg_table,
	.vm_ops = &npu_gem_vm_ops,
};

/* npu_gem_import_sg_table makes a BO of a foreign dma-buf that is attached and mapped. */
struct drm_gem_object *npu_gem_import_sg_table(struct drm_device *drm,
					       struct dma_buf_attachment *attach,
					       struct sg_table *sgt)
{
	struct npu_device *npu = to_npu(drm);
	size_t size = attach->dmabuf->size;
	struct npu_bo *bo;

	if (!PAGE_ALIGNED(size) || !npu_sgt_usable(npu, sgt, size))
		return ERR_PTR(-EINVAL);
	bo = kzalloc(sizeof(*bo), GFP_KERNEL);
	if (!bo)
		return ERR_PTR(-ENOMEM);
	bo->placement = DRM_NPU_PLACEMENT_SYSTEM;
	bo->address = sg_dma_address(sgt->sgl);
	bo->sgt = sgt;
	bo->shared = true;
	bo->base.funcs = &npu_gem_funcs;
	drm_gem_private_object_init(drm, &bo->base, size);
	/* The caller would do so after us, but npu_gem_revoke() needs it as soon as it finds us. */
	bo->base.import_attach = attach;
	mutex_lock(&npu->bo_lock);
	list_add(&bo->link, &npu->bos);
	mutex_unlock(&npu->bo_lock);
	return &bo->base;
}

/* npu_gem_import takes a dma-buf: one of this device is the object itself. */
struct drm_gem_object *npu_gem_import(struct drm_device *drm, struct dma_buf *dmabuf)
{
	struct drm_gem_object *obj;
	int idx;

	if (dmabuf->ops == &npu_dmabuf_ops) {
		obj = dmabuf->priv;
		if (obj->dev == drm) {
			drm_gem_object_get(obj);
			return obj;
		}
	}
	if (!npu_enter(to_npu(drm), &idx))
		return ERR_PTR(-ENODEV);
	obj = drm_gem_prime_import(drm, dmabuf);
	drm_dev_exit(idx);
	return obj;
}

static int npu_gem_insert(struct npu_device *npu, struct npu_bo *bo, size_t size)
{
	int ret = -ENOSPC;

	mutex_lock(&npu->bo_lock);
	if (npu->mmu && size >= NPU_VM_LARGE)
		ret = drm_mm_insert_node_generic(&npu->dram, &bo->node, size, NPU_VM_LARGE, 0,
						 DRM_MM_INSERT_BEST);
	if (ret)
		ret = drm_mm_insert_node_generic(&npu->dram, &bo->node, size, PAGE_SIZE, 0,
						 DRM_MM_INSERT_BEST);
	if (!ret) {
		npu->dram_free -= size;
		list_add(&bo->link, &npu->bos);
	}
	mutex_unlock(&npu->bo_lock);
	return ret;
}

static int npu_gem_alloc_device(struct npu_device *npu, struct npu_bo *bo, size_t size,
				struct drm_file *filp)
{
	int ret;

	ret = npu_gem_insert(npu, bo, size);
	if (ret == -ENOSPC && npu->mmu) { /* some may be free but for an invalidation */
		flush_work(&npu->vm_work);
		ret = npu_gem_insert(npu, bo, size);
	}
	if (ret)
		return ret;

	bo->address = bo->node.start;
	if (npu->dram_map) {
		memset_io(npu->dram_map + bo->address, 0, size);
		return 0;
	}
	ret = npu_job_clear(npu, filp, bo->address, size);
	if (ret)
		npu_gem_free_device(npu, bo, size);
	return ret;
}

static int npu_gem_alloc_system(struct npu_device *npu, struct npu_bo *bo, size_t size)
{
	int ret;

	bo->pages = npu_pages_alloc(npu, size);
	if (!bo->pages)
		return -ENOMEM;
	ret = npu_gem_map_system(npu, bo, size);
	if (ret) {
		npu_pages_free(bo->pages, size >> PAGE_SHIFT);
		return ret;
	}
	mutex_lock(&npu->bo_lock);
	list_add(&bo->link, &npu->bos);
	mutex_unlock(&npu->bo_lock);
	return 0;
}

static int npu_gem_create(struct npu_device *npu, struct drm_npu_bo_create *args,
			  struct drm_file *filp)
{
	size_t size = args->size;
	struct npu_bo *bo;
	int ret;

	bo = kzalloc(sizeof(*bo), GFP_KERNEL);
	if (!bo)
		return -ENOMEM;
	bo->placement = args->placement;
	if (bo->placement == DRM_NPU_PLACEMENT_DEVICE)
		ret = npu_gem_alloc_device(npu, bo, size, filp);
	else
		ret = npu_gem_alloc_system(npu, bo, size);
	if (ret) {
		kfree(bo);
		return ret;
	}

	bo->base.funcs = &npu_gem_funcs;
	drm_gem_private_object_init(&npu->drm, &bo->base, size);
	if (bo->placement == DRM_NPU_PLACEMENT_SYSTEM || npu->dram_map) {
		ret = drm_gem_create_mmap_offset(&bo->base);
		args->mmap_offset = drm_vma_node_offset_addr(&bo->base.vma_node);
	}
	if (!ret)
		ret = drm_gem_handle_create(filp, &bo->base, &args->handle);
	drm_gem_object_put(&bo->base); /* the handle holds it now */
	return ret;
}

int npu_ioctl_bo_create(struct drm_device *drm, void *data, struct drm_file *filp)
{
	struct npu_device *npu = to_npu(drm);
	struct drm_npu_bo_create *args = data;
	u64 limit;
	int ret, idx;

	if (args->flags || args->pad || args->handle || args->mmap_offset) {
		drm_dbg(drm, "reserved or out field is not zero\n");
		return -EINVAL;
	}
	switch (args->placement) {
	case DRM_NPU_PLACEMENT_DEVICE:
		limit = npu->params.dram_size;
		break;
	case DRM_NPU_PLACEMENT_SYSTEM:
		limit = (u64)totalram_pages() << PAGE_SHIFT;
		break;
	default:
		drm_dbg(drm, "unknown placement %u\n", args->placement);
		return -EINVAL;
	}
	if (!args->size || args->size > limit) {
		drm_dbg(drm, "size %llu is not in 1..%llu\n", args->size, limit);
		return -EINVAL;
	}
	args->size = PAGE_ALIGN(args->size);

	if (!npu_enter(npu, &idx))
		return -ENODEV;
	ret = npu_wake(npu);
	if (!ret) {
		ret = npu_gem_create(npu, args, filp);
		npu_relax(npu);
	}
	drm_dev_exit(idx);
	return ret;
}

/*
 * npu_gem_revoke takes memory of the host from the device while that can still be named to
 * the IOMMU. The device is unplugged: mappings of files and dma-bufs are gone, jobs have
 * ended. The memory stays for other drivers that have imported it.
 */
void npu_gem_revoke(struct npu_device *npu)
{
	struct npu_bo *bo;

	mutex_lock(&npu->bo_lock);
	list_for_each_entry(bo, &npu->bos, link)
		if (bo->placement == DRM_NPU_PLACEMENT_SYSTEM)
			npu_gem_unmap_system(npu, bo);
	mutex_unlock(&npu->bo_lock);
}

static void npu_gem_fini(struct drm_device *drm, void *unused)
{
	drm_mm_takedown(&to_npu(drm)->dram);
}

/* npu_gem_init maps device memory, which the host has at window, or cannot reach if it is 0. */
int npu_gem_init(struct npu_device *npu, phys_addr_t window)
{
	struct device *dev = npu->drm.dev;
	u64 size = npu->params.dram_size;
	int ret;

	ret = drmm_mutex_init(&npu->drm, &npu->bo_lock);
	if (ret)
		return ret;
	INIT_LIST_HEAD(&npu->bos);

	if (!size || !PAGE_ALIGNED(size))
		return dev_err_probe(dev, -ENODEV, "DRAM_SIZE is %llu (§1.2)\n", size);
	if (window) {
		npu->dram_phys = window;
		npu->dram_map = devm_ioremap_wc(dev, window, size);
		if (!npu->dram_map)
			return dev_err_probe(dev, -ENOMEM, "device memory cannot be mapped\n");
	} else if (!dmam_alloc_coherent(dev, PAGE_SIZE, &npu->zeros_addr, GFP_KERNEL)) {
		return -ENOMEM;
	}

	/* An IOMMU makes one piece of many, if it is told that there is no limit. */
	if (dev->dma_parms) {
		dma_set_max_seg_size(dev, UINT_MAX);
		dma_set_seg_boundary(dev, ULONG_MAX);
	}

	npu->dram_free = size;
	drm_mm_init(&npu->dram, 0, size);
	return drmm_add_action_or_reset(&npu->drm, npu_gem_fini, NULL);
}

NPU_IMPORT_NS_DMA_BUF;
