// SPDX-License-Identifier: GPL-2.0-only
/*
 * Address spaces of files, §11: what is mapped where, by the user or at first use by the driver,
 * and the invalidation that comes before memory is given back. npu_pt.c has the tables.
 *
 * A mapping's memory, and the tables that became empty with it, are given back only after
 * INVALIDATE_TLB completed, or a reset, which forgets all translations as well.
 */

#include <linux/bitfield.h>
#include <linux/dma-mapping.h>
#include <linux/slab.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>

#include "npu_drv.h"

/* Binding tables in a page. */
#define NPU_CHUNK_SLOTS		(NPU_PAGE_SIZE / (NPU_MAX_BINDINGS * NPU_BINDING_SIZE))

/* A page of binding tables; it lives as long as its address space. */
struct npu_chunk {
	struct list_head link; /* npu_vm.chunks */
	void *memory;
	dma_addr_t address;
	struct npu_mapping *mapping; /* NULL without MMU */
	struct npu_slot slots[NPU_CHUNK_SLOTS];
};

/* An operation of a VM_BIND that was done, so that it can be undone. */
struct npu_vm_change {
	struct list_head link;
	struct npu_mapping *m;
	bool added; /* or taken away */
};

/* Invalidation. */

/*
 * Has the device forget translations: of the range, or all of the address space if size is 0.
 * Afterwards nothing uses them, in whatever way it ends. npu_vm.lock is held.
 */
static void npu_vm_invalidate(struct npu_vm *vm, u64 start, u64 size)
{
	struct npu_device *npu = vm->npu;
	struct npu_sqe sqe = {
		.opcode = NPU_ADMIN_INVALIDATE_TLB,
		.invalidate.address = cpu_to_le64(start),
		.invalidate.size = cpu_to_le64(size),
	};
	bool awake = !npu_wake(npu);
	struct npu_reply reply;
	int ret;

	mutex_lock(&npu->lock);
	/* A device that is not up was reset; one that has no such context knows nothing of it. */
	if (npu->up && npu_context_live(npu, vm->context)) {
		sqe.invalidate.context = cpu_to_le32(vm->context->number);
		ret = npu_mbox_exec(npu, &sqe, &reply, NPU_MBOX_TIMEOUT_MS);
		if (ret) {
			drm_err(&npu->drm, "translations cannot be invalidated: %d\n", ret);
			npu_reset_locked(npu);
		}
	}
	mutex_unlock(&npu->lock);
	if (awake)
		npu_relax(npu);
}

/* Mappings. */

static struct npu_mapping *npu_mapping_alloc(struct npu_vm *vm, struct npu_bo *bo, u64 offset,
					     u32 access)
{
	struct npu_mapping *m = kzalloc(sizeof(*m), GFP_KERNEL_ACCOUNT);

	if (!m)
		return NULL;
	m->vm = vm;
	m->access = access;
	kref_init(&m->refs);
	INIT_HLIST_NODE(&m->hash);
	INIT_LIST_HEAD(&m->dead);
	if (bo) {
		drm_gem_object_get(&bo->base);
		m->bo = bo;
		m->offset = offset;
		m->address = bo->address + offset; /* of device memory */
		if (bo->placement == DRM_NPU_PLACEMENT_DEVICE)
			m->space = NPU_SPACE_DEVICE;
	}
	return m;
}

/* Frees a mapping that the device cannot reach. */
static void npu_mapping_free(struct npu_mapping *m)
{
	if (drm_mm_node_allocated(&m->node))
		drm_mm_remove_node(&m->node);
	if (m->bo)
		drm_gem_object_put(&m->bo->base);
	kfree(m);
}

static void npu_vm_stock_free(struct npu_vm *vm, struct npu_pt_stock *stock)
{
	npu_pt_free_list(vm->npu, &stock->leaf);
	npu_pt_free_list(vm->npu, &stock->upper);
}

static void npu_vm_stock_init(struct npu_pt_stock *stock)
{
	INIT_LIST_HEAD(&stock->leaf);
	INIT_LIST_HEAD(&stock->upper);
}

static void npu_vm_write(struct npu_vm *vm, struct npu_mapping *m, struct npu_pt_stock *stock)
{
	vm->tables += npu_pt_write(vm->root, m, stock);
	m->written = true;
}

/*
 * Takes mappings from the tables, has the device forget them, and frees what was only needed
 * for them; the mappings are the caller's to free.
 */
static void npu_vm_clear(struct npu_vm *vm, struct npu_mapping **mappings, u32 count)
{
	LIST_HEAD(garbage);
	u32 i, written = 0;
	u64 start = 0, size = 0;

	for (i = 0; i < count; i++) {
		struct npu_mapping *m = mappings[i];

		if (!m->written)
			continue;
		vm->tables -= npu_pt_clear(vm->root, m->node.start, m->node.size, &garbage);
		m->written = false;
		start = m->node.start;
		size = m->node.size;
		written++;
	}
	if (written)
		npu_vm_invalidate(vm, written == 1 ? start : 0, written == 1 ? size : 0);
	npu_pt_free_list(vm->npu, &garbage);
}

/* Finds a place in the driver's half, and maps. */
static int npu_vm_place(struct npu_vm *vm, struct npu_mapping *m, u64 size)
{
	u64 align = size >= NPU_VM_LARGE ? NPU_VM_LARGE : NPU_PAGE_SIZE;
	struct npu_pt_stock stock;
	int ret;

	lockdep_assert_held(&vm->lock);

	ret = drm_mm_insert_node_generic(&vm->driver, &m->node, size, align, 0, DRM_MM_INSERT_BEST);
	if (ret)
		return ret;
	npu_vm_stock_init(&stock);
	ret = npu_pt_stock_up(vm->npu, m, &stock);
	if (!ret)
		npu_vm_write(vm, m, &stock);
	npu_vm_stock_free(vm, &stock);
	return ret;
}

/* The driver's half: BOs that commands name by handle. */

static struct npu_mapping *npu_vm_find(struct npu_vm *vm, struct npu_bo *bo)
{
	struct npu_mapping *m;

	hash_for_each_possible(vm->bos, m, hash, (unsigned long)bo)
		if (m->bo == bo)
			return m;
	return NULL;
}

/*
 * npu_vm_use maps a BO that the file has named by a handle, unless it is mapped; the caller
 * gives the mapping back with npu_vm_put(). The mapping stays for as long as the handle: should
 * that be closed meanwhile, npu_vm_forget() is called by who closes, who may have come too early
 * to find it, and else by us.
 */
struct npu_mapping *npu_vm_use(struct npu_vm *vm, struct drm_file *filp, u32 handle,
			       struct npu_bo *bo)
{
	struct npu_mapping *m;
	bool fresh = false;
	int ret;

	mutex_lock(&vm->lock);
	m = npu_vm_find(vm, bo);
	if (m)
		goto out;
	m = npu_mapping_alloc(vm, bo, 0, NPU_PAGE_READ | NPU_PAGE_WRITE | NPU_PAGE_EXECUTE);
	if (!m) {
		mutex_unlock(&vm->lock);
		return ERR_PTR(-ENOMEM);
	}
	ret = npu_vm_place(vm, m, bo->base.size);
	if (ret) {
		npu_mapping_free(m);
		mutex_unlock(&vm->lock);
		return ERR_PTR(ret);
	}
	hash_add(vm->bos, &m->hash, (unsigned long)bo); /* with the reference of the handle */
	fresh = true;
out:
	kref_get(&m->refs);
	mutex_unlock(&vm->lock);
	if (fresh && !npu_gem_has_handle(filp, handle, bo))
		npu_vm_forget(vm, bo);
	return m;
}

/* Whoever ends a job cannot wait for an invalidation, so another does. */
static void npu_mapping_release(struct kref *refs)
{
	struct npu_mapping *m = container_of(refs, struct npu_mapping, refs);
	struct npu_device *npu = m->vm->npu;

	spin_lock(&npu->dead_lock);
	list_add_tail(&m->dead, &npu->dead);
	spin_unlock(&npu->dead_lock);
	queue_work(npu->vm_wq, &npu->vm_work);
}

void npu_vm_put(struct npu_mapping *m)
{
	kref_put(&m->refs, npu_mapping_release);
}

/* npu_vm_forget drops the mapping of a BO whose handle is closed; jobs may still have it. */
void npu_vm_forget(struct npu_vm *vm, struct npu_bo *bo)
{
	struct npu_mapping *m;

	mutex_lock(&vm->lock);
	m = npu_vm_find(vm, bo);
	if (m) {
		hash_del(&m->hash);
		npu_vm_put(m); /* locked: npu_vm_empty() frees all, whoever has references */
	}
	mutex_unlock(&vm->lock);
}

/*
 * npu_vm_use_memory maps memory that is no BO's, until npu_vm_put() and flushing
 * npu_device.vm_work.
 */
struct npu_mapping *npu_vm_use_memory(struct npu_vm *vm, u32 space, u64 address, u64 size,
				      u32 access)
{
	struct npu_mapping *m = npu_mapping_alloc(vm, NULL, 0, access);
	int ret;

	if (!m)
		return ERR_PTR(-ENOMEM);
	m->space = space;
	m->address = address;
	mutex_lock(&vm->lock);
	ret = npu_vm_place(vm, m, size);
	if (ret)
		npu_mapping_free(m);
	mutex_unlock(&vm->lock);
	return ret ? ERR_PTR(ret) : m;
}

/* Mappings that were dead at the same time are invalidated at once, up to so many. */
#define NPU_VM_REAP	64

static void npu_vm_reap(struct npu_vm *vm)
{
	struct npu_mapping *m, *next, *gone[NPU_VM_REAP];
	struct npu_device *npu = vm->npu;
	u32 count = 0, i;

	mutex_lock(&vm->lock);
	spin_lock(&npu->dead_lock);
	list_for_each_entry_safe(m, next, &npu->dead, dead) {
		if (m->vm != vm || count == ARRAY_SIZE(gone))
			continue;
		list_del_init(&m->dead);
		gone[count++] = m;
	}
	spin_unlock(&npu->dead_lock);
	npu_vm_clear(vm, gone, count);
	for (i = 0; i < count; i++)
		npu_mapping_free(gone[i]);
	mutex_unlock(&vm->lock);
}

/*
 * npu_vm_work frees mappings and BOs that nobody has. An address space waits for it before it
 * ends.
 */
void npu_vm_work(struct work_struct *work)
{
	struct npu_device *npu = container_of(work, struct npu_device, vm_work);
	struct npu_mapping *m;
	struct npu_vm *vm;

	npu_gem_put_dead(npu);
	for (;;) {
		spin_lock(&npu->dead_lock);
		m = list_first_entry_or_null(&npu->dead, struct npu_mapping, dead);
		vm = m ? m->vm : NULL;
		spin_unlock(&npu->dead_lock);
		if (!vm)
			return;
		npu_vm_reap(vm);
	}
}

/* Binding tables. */

static void npu_chunk_free(struct npu_vm *vm, struct npu_chunk *chunk)
{
	if (chunk->mapping)
		npu_mapping_free(chunk->mapping);
	dma_free_coherent(vm->npu->drm.dev, NPU_PAGE_SIZE, chunk->memory, chunk->address);
	kfree(chunk);
}

static int npu_vm_add_chunk(struct npu_vm *vm)
{
	struct npu_chunk *chunk = kzalloc(sizeof(*chunk), GFP_KERNEL_ACCOUNT);
	u64 address;
	u32 i;

	if (!chunk)
		return -ENOMEM;
	chunk->memory = dma_alloc_coherent(vm->npu->drm.dev, NPU_PAGE_SIZE, &chunk->address,
					   GFP_KERNEL_ACCOUNT);
	if (!chunk->memory) {
		kfree(chunk);
		return -ENOMEM;
	}
	address = chunk->address;
	if (vm->npu->mmu) {
		chunk->mapping = npu_vm_use_memory(vm, NPU_SPACE_BUS, address, NPU_PAGE_SIZE,
						   NPU_PAGE_READ);
		if (IS_ERR(chunk->mapping)) {
			int ret = PTR_ERR(chunk->mapping);

			chunk->mapping = NULL;
			npu_chunk_free(vm, chunk);
			return ret;
		}
		address = chunk->mapping->node.start;
	}
	mutex_lock(&vm->lock);
	list_add(&chunk->link, &vm->chunks);
	mutex_unlock(&vm->lock);
	spin_lock(&vm->slots_lock);
	for (i = 0; i < NPU_CHUNK_SLOTS; i++) {
		size_t at = i * NPU_MAX_BINDINGS * NPU_BINDING_SIZE;

		chunk->slots[i].table = chunk->memory + at;
		chunk->slots[i].address = address + at;
		list_add(&chunk->slots[i].link, &vm->slots);
	}
	spin_unlock(&vm->slots_lock);
	return 0;
}

/* npu_slot_get returns room for a binding table, which is not zero, or an error. */
struct npu_slot *npu_slot_get(struct npu_vm *vm)
{
	struct npu_slot *slot;
	int ret;

	for (;;) {
		spin_lock(&vm->slots_lock);
		slot = list_first_entry_or_null(&vm->slots, struct npu_slot, link);
		if (slot)
			list_del(&slot->link);
		spin_unlock(&vm->slots_lock);
		if (slot)
			return slot;
		ret = npu_vm_add_chunk(vm);
		if (ret)
			return ERR_PTR(ret);
	}
}

void npu_slot_put(struct npu_vm *vm, struct npu_slot *slot)
{
	spin_lock(&vm->slots_lock);
	list_add(&slot->link, &vm->slots);
	spin_unlock(&vm->slots_lock);
}

/* The user's half. */

/* Checks one operation by itself. */
static int npu_vm_check_op(struct npu_device *npu, const struct drm_npu_vm_op *op)
{
	const u32 access = DRM_NPU_VM_READ | DRM_NPU_VM_WRITE | DRM_NPU_VM_EXEC;
	bool map = op->type == DRM_NPU_VM_MAP;

	if (!map && op->type != DRM_NPU_VM_UNMAP) {
		drm_dbg(&npu->drm, "bind: operation of unknown type %u\n", op->type);
		return -EINVAL;
	}
	if (op->pad || (map ? !op->flags || op->flags & ~access :
			      op->flags || op->handle || op->offset)) {
		drm_dbg(&npu->drm, "bind: flags 0x%x, or a field that is not zero\n", op->flags);
		return -EINVAL;
	}
	if (!op->size || !IS_ALIGNED(op->size | op->address | op->offset, NPU_PAGE_SIZE) ||
	    op->address < NPU_VM_FIRST || op->address >= NPU_VM_SPLIT ||
	    op->size > NPU_VM_SPLIT - op->address) {
		drm_dbg(&npu->drm, "bind: 0x%llx bytes at 0x%llx: not pages in 0x%llx..0x%llx\n",
			op->size, op->address, NPU_VM_FIRST, NPU_VM_SPLIT);
		return -EINVAL;
	}
	return 0;
}

static int npu_vm_note(struct list_head *changes, struct npu_mapping *m, bool added)
{
	struct npu_vm_change *change = kzalloc(sizeof(*change), GFP_KERNEL);

	if (!change)
		return -ENOMEM;
	change->m = m;
	change->added = added;
	list_add_tail(&change->link, changes);
	return 0;
}

static int npu_vm_op_map(struct npu_vm *vm, struct drm_file *filp, const struct drm_npu_vm_op *op,
			 struct list_head *changes)
{
	struct drm_gem_object *obj = drm_gem_object_lookup(filp, op->handle);
	struct npu_mapping *m;
	u32 access = 0;
	int ret;

	if (!obj) {
		drm_dbg(&vm->npu->drm, "bind: no buffer object %u\n", op->handle);
		return -ENOENT;
	}
	if (op->offset >= obj->size || op->size > obj->size - op->offset) {
		drm_dbg(&vm->npu->drm, "bind: not in buffer object %u\n", op->handle);
		drm_gem_object_put(obj);
		return -EINVAL;
	}
	if (op->flags & DRM_NPU_VM_READ)
		access |= NPU_PAGE_READ;
	if (op->flags & DRM_NPU_VM_WRITE)
		access |= NPU_PAGE_WRITE;
	if (op->flags & DRM_NPU_VM_EXEC)
		access |= NPU_PAGE_EXECUTE;
	m = npu_mapping_alloc(vm, to_npu_bo(obj), op->offset, access);
	drm_gem_object_put(obj);
	if (!m)
		return -ENOMEM;

	if (vm->mappings == NPU_VM_MAX_MAPPINGS) {
		drm_dbg(&vm->npu->drm, "bind: more than %u mappings\n", NPU_VM_MAX_MAPPINGS);
		ret = -ENOSPC;
		goto err;
	}
	m->node.start = op->address;
	m->node.size = op->size;
	ret = drm_mm_reserve_node(&vm->user, &m->node);
	if (ret) {
		drm_dbg(&vm->npu->drm, "bind: something is mapped in 0x%llx bytes at 0x%llx\n",
			op->size, op->address);
		ret = -EEXIST;
		goto err;
	}
	ret = npu_vm_note(changes, m, true);
	if (ret)
		goto err;
	vm->mappings++;
	return 0;

err:
	npu_mapping_free(m);
	return ret;
}

/* Mappings are taken away whole, so that nothing can be missing to do it. */
static int npu_vm_op_unmap(struct npu_vm *vm, const struct drm_npu_vm_op *op,
			   struct list_head *changes)
{
	u64 end = op->address + op->size;
	struct drm_mm_node *node, *next;
	bool found = false;
	int ret;

	drm_mm_for_each_node_in_range(node, &vm->user, op->address, end) {
		if (node->start < op->address || node->start + node->size > end) {
			drm_dbg(&vm->npu->drm, "bind: part of 0x%llx bytes at 0x%llx\n",
				node->size, node->start);
			return -EINVAL;
		}
		found = true;
	}
	if (!found) {
		drm_dbg(&vm->npu->drm, "bind: nothing is mapped in 0x%llx bytes at 0x%llx\n",
			op->size, op->address);
		return -ENOENT;
	}
	for (node = __drm_mm_interval_first(&vm->user, op->address, end - 1);
	     drm_mm_node_allocated(node) && node->start < end; node = next) {
		struct npu_mapping *m = container_of(node, struct npu_mapping, node);

		next = list_next_entry(node, node_list);
		ret = npu_vm_note(changes, m, false);
		if (ret)
			return ret;
		drm_mm_remove_node(node);
		vm->mappings--;
	}
	return 0;
}

/* Undoes operations that the tables have not seen. */
static void npu_vm_undo(struct npu_vm *vm, struct list_head *changes)
{
	struct npu_vm_change *change, *next;

	list_for_each_entry_safe_reverse(change, next, changes, link) {
		if (change->added) {
			npu_mapping_free(change->m);
			vm->mappings--;
		} else {
			drm_WARN_ON(&vm->npu->drm, drm_mm_reserve_node(&vm->user,
								       &change->m->node));
			vm->mappings++;
		}
		list_del(&change->link);
		kfree(change);
	}
}

/*
 * Brings the tables to where the operations led. First everything is there that this needs;
 * then what was taken away goes, and what was added comes.
 */
static int npu_vm_commit(struct npu_vm *vm, struct list_head *changes)
{
	struct npu_vm_change *change, *next;
	struct npu_mapping **gone = NULL;
	struct npu_pt_stock stock;
	u32 count = 0, i;
	int ret = 0;

	npu_vm_stock_init(&stock);
	list_for_each_entry(change, changes, link) {
		if (!change->added)
			count++;
		else if (drm_mm_node_allocated(&change->m->node) && !ret)
			ret = npu_pt_stock_up(vm->npu, change->m, &stock);
	}
	if (!ret && count) {
		gone = kvmalloc_array(count, sizeof(*gone), GFP_KERNEL);
		if (!gone)
			ret = -ENOMEM;
	}
	if (ret)
		goto out;

	count = 0;
	list_for_each_entry(change, changes, link)
		if (!change->added)
			gone[count++] = change->m;
	npu_vm_clear(vm, gone, count);
	list_for_each_entry_safe(change, next, changes, link) {
		if (change->added && drm_mm_node_allocated(&change->m->node))
			npu_vm_write(vm, change->m, &stock);
		list_del(&change->link);
		kfree(change);
	}
	for (i = 0; i < count; i++)
		npu_mapping_free(gone[i]);
out:
	kvfree(gone);
	npu_vm_stock_free(vm, &stock);
	return ret;
}

static int npu_vm_bind(struct npu_vm *vm, struct drm_file *filp, const struct drm_npu_vm_op *ops,
		       u32 count)
{
	LIST_HEAD(changes);
	int ret = 0;
	u32 i;

	for (i = 0; i < count && !ret; i++)
		ret = npu_vm_check_op(vm->npu, &ops[i]);
	if (!ret)
		ret = npu_vm_start(vm);
	if (ret)
		return ret;

	mutex_lock(&vm->lock);
	for (i = 0; i < count && !ret; i++) {
		if (ops[i].type == DRM_NPU_VM_MAP)
			ret = npu_vm_op_map(vm, filp, &ops[i], &changes);
		else
			ret = npu_vm_op_unmap(vm, &ops[i], &changes);
	}
	if (!ret)
		ret = npu_vm_commit(vm, &changes);
	if (ret)
		npu_vm_undo(vm, &changes);
	mutex_unlock(&vm->lock);
	return ret;
}

int npu_ioctl_vm_bind(struct drm_device *drm, void *data, struct drm_file *filp)
{
	struct npu_device *npu = to_npu(drm);
	struct npu_file *file = filp->driver_priv;
	struct drm_npu_vm_bind *args = data;
	struct drm_npu_vm_op *ops;
	int ret, idx;

	if (args->flags) {
		drm_dbg(drm, "flags are not zero\n");
		return -EINVAL;
	}
	if (!npu_enter(npu, &idx))
		return -ENODEV;
	if (!npu->mmu) {
		drm_dbg(drm, "the device has no MMU\n");
		ret = -EOPNOTSUPP;
		goto out;
	}
	ops = npu_array_copy(drm, &args->ops, sizeof(*ops), NPU_VM_MAX_OPS);
	if (IS_ERR_OR_NULL(ops)) {
		ret = PTR_ERR_OR_ZERO(ops);
		goto out;
	}
	ret = npu_vm_bind(&file->vm, filp, ops, args->ops.count);
	kvfree(ops);
out:
	drm_dev_exit(idx);
	return ret;
}

void npu_query_vm(struct npu_vm *vm, struct drm_npu_vm_info *info)
{
	*info = (struct drm_npu_vm_info){
		.start = NPU_VM_FIRST,
		.end = NPU_VM_SPLIT,
		.page_size = NPU_PAGE_SIZE,
		.large_page_size = NPU_VM_LARGE,
		.max_ops = NPU_VM_MAX_OPS,
		.max_mappings = NPU_VM_MAX_MAPPINGS,
	};
	mutex_lock(&vm->lock);
	info->mappings = vm->mappings;
	info->table_bytes = (u64)vm->tables * NPU_PAGE_SIZE;
	mutex_unlock(&vm->lock);
}

/* Life of an address space. */

/* npu_vm_start makes the root table, which the context needs; later calls do nothing. */
int npu_vm_start(struct npu_vm *vm)
{
	int ret = 0;

	if (!vm->npu->mmu)
		return 0;
	mutex_lock(&vm->lock);
	if (!vm->root) {
		vm->root = npu_pt_alloc(vm->npu, 4);
		if (vm->root) {
			vm->context->root = vm->root->address;
			vm->tables = 1;
		} else {
			ret = -ENOMEM;
		}
	}
	mutex_unlock(&vm->lock);
	return ret;
}

void npu_vm_init(struct npu_vm *vm, struct npu_device *npu, struct npu_context *context)
{
	vm->npu = npu;
	vm->context = context;
	mutex_init(&vm->lock);
	drm_mm_init(&vm->user, NPU_VM_FIRST, NPU_VM_SPLIT - NPU_VM_FIRST);
	drm_mm_init(&vm->driver, NPU_VM_SPLIT, NPU_VM_END - NPU_VM_SPLIT);
	hash_init(vm->bos);
	INIT_LIST_HEAD(&vm->chunks);
	spin_lock_init(&vm->slots_lock);
	INIT_LIST_HEAD(&vm->slots);
}

static void npu_vm_free_half(struct npu_vm *vm, struct drm_mm *mm)
{
	struct drm_mm_node *node, *next;

	drm_mm_for_each_node_safe(node, next, mm) {
		struct npu_mapping *m = container_of(node, struct npu_mapping, node);

		hash_del(&m->hash);
		spin_lock(&vm->npu->dead_lock);
		list_del(&m->dead);
		spin_unlock(&vm->npu->dead_lock);
		npu_mapping_free(m);
	}
}

/*
 * npu_vm_empty frees all that the address space has, for the end of the file or of the device:
 * the context is gone, and so are jobs. May be called again.
 */
void npu_vm_empty(struct npu_vm *vm)
{
	struct npu_chunk *chunk, *next;

	flush_work(&vm->npu->vm_work);
	mutex_lock(&vm->lock);
	spin_lock(&vm->slots_lock);
	INIT_LIST_HEAD(&vm->slots);
	spin_unlock(&vm->slots_lock);
	list_for_each_entry_safe(chunk, next, &vm->chunks, link) {
		list_del(&chunk->link);
		npu_chunk_free(vm, chunk);
	}
	npu_vm_free_half(vm, &vm->user);
	npu_vm_free_half(vm, &vm->driver);
	vm->mappings = 0;
	if (vm->root)
		npu_pt_free_tree(vm->npu, vm->root, 4);
	vm->root = NULL;
	vm->tables = 0;
	mutex_unlock(&vm->lock);
}

/* npu_vm_fini ends an empty address space. */
void npu_vm_fini(struct npu_vm *vm)
{
	drm_mm_takedown(&vm->driver);
	drm_mm_takedown(&vm->user);
	mutex_destroy(&vm->lock);
}
