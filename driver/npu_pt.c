// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page tables, §11.2. They lie in coherent memory of the host: there the driver reads them as
 * cheaply as it writes them, they take nothing of the device memory that BOs are made of,
 * devices without a window to that have them too, and nobody can map them. A miss of the
 * device's TLB costs up to four accesses to the bus instead.
 *
 * Adding to the tables needs no invalidation (§11.4). What was taken from them, tables too, is
 * given back by the caller after one.
 */

#include <linux/bitfield.h>
#include <linux/dma-mapping.h>
#include <linux/slab.h>

#include "npu_drv.h"

#define NPU_PT_ENTRIES		(NPU_PAGE_SIZE / sizeof(__le64))
#define NPU_PT_SHIFT(level)	(12 + 9 * ((level) - 1))
#define NPU_PT_ROOT		4

static u32 npu_pt_index(u64 address, int level)
{
	return address >> NPU_PT_SHIFT(level) & (NPU_PT_ENTRIES - 1);
}

/* Contiguous also behind an IOMMU, where the kernel would map single pages once more. */
struct npu_pt *npu_pt_alloc(struct npu_device *npu, int level)
{
	struct npu_pt *pt = kvzalloc(struct_size(pt, next, level > 1 ? NPU_PT_ENTRIES : 0),
				     GFP_KERNEL_ACCOUNT);

	if (!pt)
		return NULL;
	INIT_LIST_HEAD(&pt->link);
	pt->entries = dma_alloc_attrs(npu->drm.dev, NPU_PAGE_SIZE, &pt->address, GFP_KERNEL_ACCOUNT,
				      DMA_ATTR_FORCE_CONTIGUOUS);
	if (!pt->entries) {
		kvfree(pt);
		return NULL;
	}
	return pt;
}

void npu_pt_free(struct npu_device *npu, struct npu_pt *pt)
{
	dma_free_attrs(npu->drm.dev, NPU_PAGE_SIZE, pt->entries, pt->address,
		       DMA_ATTR_FORCE_CONTIGUOUS);
	kvfree(pt);
}

/* npu_pt_free_tree frees a table and all below it, which no context uses any more. */
void npu_pt_free_tree(struct npu_device *npu, struct npu_pt *pt, int level)
{
	u32 i;

	for (i = 0; level > 1 && i < NPU_PT_ENTRIES; i++)
		if (pt->next[i])
			npu_pt_free_tree(npu, pt->next[i], level - 1);
	npu_pt_free(npu, pt);
}

void npu_pt_free_list(struct npu_device *npu, struct list_head *list)
{
	struct npu_pt *pt, *next;

	list_for_each_entry_safe(pt, next, list, link) {
		list_del(&pt->link);
		npu_pt_free(npu, pt);
	}
}

/* The leaves of a mapping, one after the other. */
struct npu_pt_iter {
	const struct npu_mapping *m;
	u64 done; /* bytes */
	struct scatterlist *sg; /* NULL: contiguous */
	u64 sg_done;
};

static void npu_pt_iter_init(struct npu_pt_iter *it, const struct npu_mapping *m)
{
	*it = (struct npu_pt_iter){ .m = m };
	if (!m->bo || !m->bo->sgt)
		return;
	it->sg = m->bo->sgt->sgl;
	it->sg_done = m->offset;
	while (it->sg_done >= sg_dma_len(it->sg)) {
		it->sg_done -= sg_dma_len(it->sg);
		it->sg = sg_next(it->sg);
	}
}

/* The next leaf; false at the end. */
static bool npu_pt_iter_next(struct npu_pt_iter *it, u64 *va, u64 *address, u64 *size)
{
	u64 run = it->m->node.size - it->done;

	if (!run)
		return false;
	*va = it->m->node.start + it->done;
	if (it->sg) {
		*address = sg_dma_address(it->sg) + it->sg_done;
		run = min(run, sg_dma_len(it->sg) - it->sg_done);
	} else {
		*address = it->m->address + it->done;
	}
	*size = NPU_PAGE_SIZE;
	if (run >= NPU_VM_LARGE && IS_ALIGNED(*va | *address, NPU_VM_LARGE))
		*size = NPU_VM_LARGE;

	it->done += *size;
	it->sg_done += *size;
	if (it->sg && it->sg_done == sg_dma_len(it->sg)) {
		it->sg = sg_next(it->sg);
		it->sg_done = 0;
	}
	return true;
}

/* Entries of a level that the mapping has a part in: so many tables are below them. */
static u64 npu_pt_spanned(const struct npu_mapping *m, int level)
{
	u64 last = m->node.start + m->node.size - 1;

	return (last >> NPU_PT_SHIFT(level)) - (m->node.start >> NPU_PT_SHIFT(level)) + 1;
}

static int npu_pt_stock_add(struct npu_device *npu, struct list_head *list, int level, u64 count)
{
	struct npu_pt *pt;

	while (count--) {
		pt = fatal_signal_pending(current) ? NULL : npu_pt_alloc(npu, level);
		if (!pt)
			return -ENOMEM;
		list_add(&pt->link, list);
		cond_resched();
	}
	return 0;
}

/*
 * npu_pt_stock_up adds as many tables to the stock as npu_pt_write() may need for the mapping,
 * so that it cannot fail. What is left of the stock is the caller's to free, also on error.
 */
int npu_pt_stock_up(struct npu_device *npu, const struct npu_mapping *m,
		    struct npu_pt_stock *stock)
{
	u64 va, address, size, count = 0, last = U64_MAX;
	struct npu_pt_iter it;
	int ret;

	npu_pt_iter_init(&it, m);
	while (npu_pt_iter_next(&it, &va, &address, &size)) {
		if (size == NPU_VM_LARGE || va >> NPU_PT_SHIFT(2) == last)
			continue;
		last = va >> NPU_PT_SHIFT(2);
		count++;
	}
	ret = npu_pt_stock_add(npu, &stock->leaf, 1, count);
	if (!ret)
		ret = npu_pt_stock_add(npu, &stock->upper, 2,
				       npu_pt_spanned(m, 3) + npu_pt_spanned(m, 4));
	return ret;
}

/* One store of 8 bytes, as §11.2 asks; the driver uses the MMU on 64-bit kernels only. */
static void npu_pt_set(struct npu_pt *pt, u32 index, u64 entry)
{
	WRITE_ONCE(pt->entries[index], cpu_to_le64(entry));
}

static bool npu_pt_valid(struct npu_pt *pt, u32 index)
{
	return le64_to_cpu(READ_ONCE(pt->entries[index])) & NPU_PAGE_VALID;
}

/* npu_pt_write makes a mapping's entries valid; it returns how many tables it took. */
u32 npu_pt_write(struct npu_pt *root, const struct npu_mapping *m, struct npu_pt_stock *stock)
{
	u64 va, address, size;
	struct npu_pt_iter it;
	u32 taken = 0;

	npu_pt_iter_init(&it, m);
	while (npu_pt_iter_next(&it, &va, &address, &size)) {
		int leaf = size == NPU_VM_LARGE ? 2 : 1, level;
		struct npu_pt *pt = root;

		for (level = NPU_PT_ROOT; level > leaf; level--) {
			u32 i = npu_pt_index(va, level);

			if (!pt->next[i]) {
				struct list_head *from = level == 2 ? &stock->leaf : &stock->upper;

				pt->next[i] = list_first_entry(from, struct npu_pt, link);
				list_del_init(&pt->next[i]->link);
				dma_wmb(); /* its zeros, before it can be found */
				npu_pt_set(pt, i, pt->next[i]->address | NPU_PAGE_VALID |
					   NPU_SPACE_BUS << NPU_PAGE_SPACE_SHIFT);
				pt->used++;
				taken++;
			}
			pt = pt->next[i];
		}
		npu_pt_set(pt, npu_pt_index(va, leaf), address | NPU_PAGE_VALID | NPU_PAGE_LEAF |
			   m->access | m->space << NPU_PAGE_SPACE_SHIFT);
		pt->used++;
	}
	return taken;
}

static u32 npu_pt_clear_level(struct npu_pt *pt, int level, u64 start, u64 last,
			      struct list_head *garbage)
{
	u64 span = BIT_ULL(NPU_PT_SHIFT(level)), va = start, end;
	u32 freed = 0;

	for (;;) {
		u32 i = npu_pt_index(va, level);
		struct npu_pt *next = level > 1 ? pt->next[i] : NULL;

		end = min(last, va | (span - 1));
		if (next) {
			freed += npu_pt_clear_level(next, level - 1, va, end, garbage);
			if (!next->used) {
				pt->next[i] = NULL;
				list_add(&next->link, garbage);
				freed++;
			}
		}
		if (npu_pt_valid(pt, i) && (!next || !pt->next[i])) {
			npu_pt_set(pt, i, 0);
			pt->used--;
		}
		if (end == last)
			return freed;
		va = end + 1;
	}
}

/*
 * npu_pt_clear takes a mapping's range from the tables, and tables that are empty then. Those
 * are the caller's to free after an invalidation; their number is returned.
 */
u32 npu_pt_clear(struct npu_pt *root, u64 start, u64 size, struct list_head *garbage)
{
	return npu_pt_clear_level(root, NPU_PT_ROOT, start, start + size - 1, garbage);
}
