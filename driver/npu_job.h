/* SPDX-License-Identifier: GPL-2.0-only */
/* Jobs, from submission to their end. */
#ifndef NPU_JOB_H
#define NPU_JOB_H

#include "npu_drv.h"

/* Its own lock, because a fence may outlive queue and device. It keeps the module. */
struct npu_fence {
	struct dma_fence base; /* first: dma_fence_free() frees the whole */
	spinlock_t lock; /* of base */
};

/* A BO that a command needs. */
struct npu_use {
	struct drm_gem_object *obj; /* referenced */
	bool write;
	struct npu_mapping *mapping; /* referenced; NULL without MMU */
};

struct npu_command {
	struct npu_sqe sqe;
	struct npu_slot *slot; /* its binding table, or NULL */
	struct npu_use *uses;
	u32 use_count;
};

struct npu_job {
	struct drm_sched_job base;
	struct npu_device *npu;
	struct npu_file *file;
	struct npu_queue *queue;
	struct npu_fence *fence; /* initialized by run_job */
	bool started;
	u64 seqno;

	struct list_head node; /* npu_queue.inflight; npu_queue.lock guards all up to status */
	u16 command_id; /* of the next completion */
	u32 completed; /* commands */
	bool faulted; /* the last of these, and with it the context */
	bool late; /* one of them did not end in time */
	u32 looked_at; /* 1 + the command that was in flight at the last look, or 0 */
	struct drm_npu_job_status status; /* of the command that counts, see uAPI */

	u32 count;
	struct npu_command commands[] __counted_by(count);
};

struct npu_job *npu_job_alloc(struct npu_device *npu, struct drm_file *filp, u32 count);
void npu_job_free(struct npu_job *job);
u64 npu_job_number(struct npu_job *job);

#endif /* NPU_JOB_H */
