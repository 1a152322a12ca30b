// SPDX-License-Identifier: GPL-2.0-only
/*
 * Buffer objects, in device memory or in memory of the host.
 * There is no device MMU, so both kinds are contiguous.
 */

#include <linux/dma-mapping.h>
#include <linux/mm.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_managed.h>

#include "npu_drv.h"

/*
 * Lets large allocations fail without a stack trace in the log. Freeing takes
 * the same attributes.
 */
#define NPU_SYSTEM_ATTRS DMA_ATTR_NO_WARN

static void npu_gem_free_system(struct npu_device *npu, struct npu_bo *bo)
{
	lockdep_assert_held(&npu->bo_lock);

	if (!bo->vaddr)
		return;
	dma_free_attrs(npu->drm.dev, bo->base.size, bo->vaddr, bo->address, NPU_SYSTEM_ATTRS);
	bo->vaddr = NULL;
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
		npu_gem_free_system(npu, bo);
		list_del(&bo->link);
		mutex_unlock(&npu->bo_lock);
	}
	drm_gem_object_release(obj);
	kfree(bo);
}

static int npu_gem_map(struct npu_device *npu, struct npu_bo *bo, struct vm_area_struct *vma)
{
	/* The fake offset of drm_gem_mmap() means the start of the object. */
	vma->vm_pgoff = 0;

	if (bo->placement == DRM_NPU_PLACEMENT_DEVICE) {
		vm_flags_set(vma, VM_IO | VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
		vma->vm_page_prot = pgprot_writecombine(vm_get_page_prot(vma->vm_flags));
		return io_remap_pfn_range(vma, vma->vm_start,
					  PHYS_PFN(npu->dram_phys + bo->address),
					  vma->vm_end - vma->vm_start, vma->vm_page_prot);
	}

	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP);
	return dma_mmap_attrs(npu->drm.dev, vma, bo->vaddr, bo->address, bo->base.size,
			      NPU_SYSTEM_ATTRS);
}

static int npu_gem_mmap(struct drm_gem_object *obj, struct vm_area_struct *vma)
{
	struct npu_device *npu = to_npu(obj->dev);
	int ret, idx;

	if (!(vma->vm_flags & VM_SHARED)) {
		drm_dbg(&npu->drm, "a buffer object is mapped MAP_SHARED only\n");
		return -EINVAL;
	}
	if (!drm_dev_enter(&npu->drm, &idx))
		return -ENODEV;
	ret = npu_gem_map(npu, to_npu_bo(obj), vma);
	drm_dev_exit(idx);
	return ret;
}

/*
 * Removal of the device takes the memory from under mappings of its own files,
 * which it can find. A dma-buf could be mapped elsewhere.
 */
static struct dma_buf *npu_gem_export(struct drm_gem_object *obj, int flags)
{
	return ERR_PTR(-EOPNOTSUPP);
}

static const struct vm_operations_struct npu_gem_vm_ops = {
	.open = drm_gem_vm_open,
	.close = drm_gem_vm_close,
};

static const struct drm_gem_object_funcs npu_gem_funcs = {
	.free = npu_gem_free,
	.mmap = npu_gem_mmap,
	.export = npu_gem_export,
	.vm_ops = &npu_gem_vm_ops,
};

static int npu_gem_alloc_device(struct npu_device *npu, struct npu_bo *bo, size_t size,
				struct drm_file *filp)
{
	int ret;

	mutex_lock(&npu->bo_lock);
	ret = drm_mm_insert_node_generic(&npu->dram, &bo->node, size, PAGE_SIZE, 0,
					 DRM_MM_INSERT_BEST);
	if (!ret) {
		npu->dram_free -= size;
		list_add(&bo->link, &npu->bos);
	}
	mutex_unlock(&npu->bo_lock);
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
	dma_addr_t address;

	bo->vaddr = dma_alloc_attrs(npu->drm.dev, size, &address,
				    GFP_KERNEL | __GFP_NOWARN | __GFP_RETRY_MAYFAIL,
				    NPU_SYSTEM_ATTRS);
	if (!bo->vaddr)
		return -ENOMEM;
	bo->address = address;
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

	if (!drm_dev_enter(drm, &idx))
		return -ENODEV;
	ret = npu_gem_create(npu, args, filp);
	drm_dev_exit(idx);
	return ret;
}

/*
 * npu_gem_revoke gives host memory back while the device can still be named to
 * the IOMMU. The device is unplugged: mappings are gone, jobs have ended.
 */
void npu_gem_revoke(struct npu_device *npu)
{
	struct npu_bo *bo;

	mutex_lock(&npu->bo_lock);
	list_for_each_entry(bo, &npu->bos, link)
		if (bo->placement == DRM_NPU_PLACEMENT_SYSTEM)
			npu_gem_free_system(npu, bo);
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

	npu->dram_free = size;
	drm_mm_init(&npu->dram, 0, size);
	return drmm_add_action_or_reset(&npu->drm, npu_gem_fini, NULL);
}
