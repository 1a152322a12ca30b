/* SPDX-License-Identifier: GPL-2.0-only */
/* Address spaces of files, §11 of the hardware specification. */
#ifndef NPU_VM_H
#define NPU_VM_H

#include <linux/hashtable.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mutex.h>
#include <linux/scatterlist.h>
#include <linux/sizes.h>

#include <drm/drm_mm.h>

#include "npu_hw.h"

struct npu_bo;
struct npu_context;
struct npu_device;
struct npu_vm;

/*
 * Halves of the address space: below NPU_VM_SPLIT the user's, who binds, from there on the
 * driver's. What is below NPU_VM_FIRST is nobody's, so that small wrong addresses fault.
 */
#define NPU_VM_FIRST		((u64)SZ_2M)
#define NPU_VM_SPLIT		BIT_ULL(47)
#define NPU_VM_END		BIT_ULL(48)

/* A leaf above the smallest (§11.2). */
#define NPU_VM_LARGE		((u64)SZ_2M)

/* Bounds what one call allocates, and what a file's mappings do. Part of the user interface. */
#define NPU_VM_MAX_OPS		256
#define NPU_VM_MAX_MAPPINGS	65536

/* A table of a level, §11.2. */
struct npu_pt {
	__le64 *entries; /* NPU_PT_ENTRIES of them, in memory that the device reads */
	dma_addr_t address;
	u32 used; /* entries that are valid */
	struct list_head link; /* while it is in no tree */
	struct npu_pt *next[]; /* by entry; none at level 1 */
};

/* Tables that are ready for use: of level 1, and of those above. */
struct npu_pt_stock {
	struct list_head leaf;
	struct list_head upper;
};

/* Memory at a range of virtual addresses. */
struct npu_mapping {
	struct drm_mm_node node; /* of npu_vm.user or npu_vm.driver: where it is */
	struct npu_vm *vm;
	struct npu_bo *bo; /* referenced; NULL: memory at address of space */
	u64 offset; /* in bo, bytes */
	u64 address;
	u32 space;
	u32 access; /* NPU_PAGE_READ, _WRITE, _EXECUTE */
	bool written; /* vm.lock: the tables have it */
	struct kref refs; /* driver's: the BO's handle has one, and each job */
	struct hlist_node hash; /* vm.lock; npu_vm.bos */
	struct list_head dead; /* npu_device.dead_lock; npu_device.dead, or nowhere */
};

/* A binding table of a job, and the page of such that it is in. */
struct npu_slot {
	struct list_head link; /* npu_vm.slots_lock; npu_vm.slots while nobody has it */
	struct npu_hw_binding *table;
	u64 address; /* as commands name it */
};

/*
 * What a file's commands can reach: with a device MMU its page tables, and in any case the
 * memory of its binding tables.
 */
struct npu_vm {
	struct npu_device *npu;
	struct npu_context *context;

	struct mutex lock; /* all up to tables */
	struct npu_pt *root; /* NULL before npu_vm_start(), and once the device is gone */
	struct drm_mm user; /* of mappings */
	struct drm_mm driver;
	u32 mappings; /* in user */
	DECLARE_HASHTABLE(bos, 6); /* the driver's mappings of BOs, by BO */
	struct list_head chunks; /* of npu_chunk.link */
	u32 tables; /* in the tree */

	spinlock_t slots_lock; /* slots */
	struct list_head slots;
};

/* npu_pt.c; npu_vm.lock is held */
struct npu_pt *npu_pt_alloc(struct npu_device *npu, int level);
void npu_pt_free(struct npu_device *npu, struct npu_pt *pt);
void npu_pt_free_tree(struct npu_device *npu, struct npu_pt *pt, int level);
void npu_pt_free_list(struct npu_device *npu, struct list_head *list);
int npu_pt_stock_up(struct npu_device *npu, const struct npu_mapping *m,
		    struct npu_pt_stock *stock);
u32 npu_pt_write(struct npu_pt *root, const struct npu_mapping *m, struct npu_pt_stock *stock);
u32 npu_pt_clear(struct npu_pt *root, u64 start, u64 size, struct list_head *garbage);

#endif /* NPU_VM_H */
