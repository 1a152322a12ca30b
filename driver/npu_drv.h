/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Locks, outermost first:
 *   npu_device.files_lock   list of open files
 *   npu_file.lock           the file's queue, and the order of its jobs
 *   npu_device.lock         queue slots, and whether the device is up; held over
 *                           every reset, so also over PCI reset callbacks
 *   npu_mbox.lock           admin rings
 *   npu_device.bo_lock      list and backing memory of buffer objects
 *   npu_queue.lock          rings and jobs on the device (spinlock)
 *   npu_file.jobs_lock      job statuses (spinlock)
 * Nobody waits for a job while holding npu_device.lock: recovery needs it.
 */
#ifndef NPU_DRV_H
#define NPU_DRV_H

#include <linux/dma-fence.h>
#include <linux/io.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include <drm/drm_device.h>
#include <drm/drm_gem.h>
#include <drm/drm_mm.h>
#include <drm/drm_print.h>
#include <drm/gpu_scheduler.h>

#include "npu_hw.h"
#include "uapi/npu_accel.h"

struct drm_file;

/* Entries of the admin rings: one command at a time is in flight. */
#define NPU_MBOX_ENTRIES		16

/*
 * Entries of a user queue's rings, if the device allows that many: two jobs of
 * NPU_MAX_COMMANDS can be queued on the device, so it never idles between jobs.
 */
#define NPU_QUEUE_ENTRIES		256
#define NPU_MAX_COMMANDS		127

/* Syncobjs in one array of a submit; bounds what one call allocates. */
#define NPU_MAX_SYNCS			64

/* Jobs of a file whose status can be queried; part of the user interface. */
#define NPU_JOB_RECORDS			64

/* Commands of firmware that do not wait for anything take microseconds. */
#define NPU_MBOX_TIMEOUT_MS		5000

/* Values read from hardware once, in probe. */
struct npu_params {
	u32 arch_version;
	u64 features;
	u32 array_dim;
	u32 spad_size;
	u32 acc_size;
	u32 engines;
	u32 queues;
	u32 files; /* that can have a queue and a context at the same time */
	u64 dram_size;
	u32 doorbell_offset;
	u32 doorbell_stride;
	/* Entries of a user queue's rings, and commands of one job. */
	u32 entries;
	u32 max_commands;
};

/* Admin queue, §4.4. */
struct npu_mbox {
	struct mutex lock; /* everything below */
	bool enabled;
	struct npu_sqe *sq;
	struct npu_cqe *cq;
	void *buffer; /* one page that commands return data in */
	dma_addr_t sq_addr;
	dma_addr_t cq_addr;
	dma_addr_t buffer_addr;
	u16 sq_tail;
	u16 cq_head;
	u16 phase;
	u16 command_id;
	wait_queue_head_t wait; /* woken by vector 0 */
};

struct npu_vector {
	struct npu_device *npu;
	unsigned int index;
};

/*
 * A user queue, and the scheduler that feeds it. Slots exist as long as the
 * device, because finished fences still refer to their scheduler.
 */
struct npu_queue {
	struct npu_device *npu;
	u16 number; /* 1 to npu_params.queues */
	u16 vector;
	bool allocated; /* npu_device.lock: a file has it; rings and sched are valid */
	bool active; /* npu_device.lock: survives resets; not while it is released */
	u32 context; /* npu_device.lock: device context */

	struct drm_gpu_scheduler sched;
	struct drm_sched_entity entity;
	atomic_t jobs; /* pushed and not yet freed */
	wait_queue_head_t idle; /* jobs became 0 */

	struct npu_sqe *sq;
	dma_addr_t sq_addr;
	dma_addr_t cq_addr;

	spinlock_t lock; /* everything below */
	struct npu_cqe *cq; /* NULL while not allocated */
	bool live; /* exists on the device */
	u16 sq_tail;
	u16 cq_head;
	u16 phase;
	struct list_head inflight; /* of npu_job.node, in ring order */
	u64 fence_context;
	u64 fence_seqno;
};

struct npu_file {
	struct npu_device *npu;
	struct list_head node; /* npu_device.files */
	struct mutex lock; /* see above */
	struct npu_queue *queue; /* lock; NULL before the first submit and after unplug */

	spinlock_t jobs_lock; /* everything below */
	u64 seqno; /* of the last job */
	struct drm_npu_job_status jobs[NPU_JOB_RECORDS]; /* at seqno % NPU_JOB_RECORDS */
};

struct npu_bo {
	struct drm_gem_object base;
	u32 placement; /* enum drm_npu_placement */
	u64 address; /* in the space of the placement */
	struct drm_mm_node node; /* DEVICE */
	void *vaddr; /* SYSTEM; bo_lock; NULL once the device is gone */
	struct list_head link; /* npu_device.bos */
};

#define NPU_RECOVER_RESET		0 /* bits of npu_device.recover */
#define NPU_RECOVER_QUEUES		1

struct npu_device {
	struct drm_device drm;
	void __iomem *regs; /* BAR0 */
	struct npu_params params;

	void *fw; /* firmware image, kept for every later boot */
	dma_addr_t fw_addr;
	size_t fw_size;
	u32 fw_version;
	u32 fw_build;
	char fw_name[NPU_IDENTIFY_NAME_SIZE];

	struct npu_vector *vectors;
	unsigned int vector_count;
	bool intx; /* vector 0 is a line, not a message */
	atomic_t causes; /* IRQ_STATUS bits from hard handler to thread */

	struct npu_mbox mbox;

	struct mutex lock; /* see above */
	bool up; /* lock: firmware runs */
	atomic_t resets;
	struct npu_queue *queues;
	struct workqueue_struct *submit_wq; /* run_job and free_job of all queues */
	struct workqueue_struct *reset_wq; /* ordered: timeouts and recovery */
	struct work_struct recover_work;
	unsigned long recover;
	unsigned long *faulted; /* bitmap of queue slots */
	struct dma_pool *tables; /* binding tables */

	struct mutex files_lock; /* files */
	struct list_head files;

	struct mutex bo_lock; /* dram, dram_free, bos */
	struct drm_mm dram;
	u64 dram_free;
	phys_addr_t dram_phys;
	void __iomem *dram_map; /* all of BAR2, write-combining */
	struct list_head bos;
};

static inline struct npu_device *to_npu(struct drm_device *drm)
{
	return container_of(drm, struct npu_device, drm);
}

static inline struct npu_bo *to_npu_bo(struct drm_gem_object *obj)
{
	return container_of(obj, struct npu_bo, base);
}

static inline u32 npu_read(struct npu_device *npu, u32 reg)
{
	return readl(npu->regs + reg);
}

static inline void npu_write(struct npu_device *npu, u32 reg, u32 value)
{
	writel(value, npu->regs + reg);
}

/* Rings a doorbell (§4.3); orders earlier writes to memory before it. */
static inline void npu_doorbell(struct npu_device *npu, u32 queue, u32 which, u32 value)
{
	npu_write(npu, npu->params.doorbell_offset + queue * npu->params.doorbell_stride + which,
		  value);
}

/* npu_drv.c */
int npu_reset_locked(struct npu_device *npu, struct drm_sched_job *guilty);
void npu_schedule_recovery(struct npu_device *npu, int what);

/* npu_mbox.c */
struct npu_reply {
	u32 result;
	u64 info;
};

int npu_mbox_init(struct npu_device *npu);
void npu_mbox_enable(struct npu_device *npu);
void npu_mbox_disable(struct npu_device *npu);
int npu_mbox_exec(struct npu_device *npu, struct npu_sqe *sqe, struct npu_reply *reply,
		  unsigned int timeout_ms);
int npu_mbox_read(struct npu_device *npu, u8 opcode, u32 page, void *to, size_t size);
const char *npu_status_name(u32 status);
int npu_status_errno(u32 status);

/* npu_irq.c */
int npu_irq_init(struct npu_device *npu);
void npu_irq_enable(struct npu_device *npu);
void npu_irq_disable(struct npu_device *npu);

/* npu_queue.c */
int npu_queues_init(struct npu_device *npu);
struct npu_queue *npu_queue_acquire(struct npu_device *npu);
void npu_queue_release(struct npu_queue *q);
void npu_queue_poll(struct npu_queue *q);
int npu_queue_recover(struct npu_queue *q);
void npu_queues_stop(struct npu_device *npu);
void npu_queues_cancel(struct npu_device *npu, struct drm_sched_job *guilty);
void npu_queues_restart(struct npu_device *npu, struct drm_gpu_scheduler *skip);
unsigned int npu_queues_free(struct npu_device *npu);

/* npu_job.c */
struct npu_job;

extern const struct drm_sched_backend_ops npu_sched_ops;
int npu_job_timeout_ms(void);
int npu_ioctl_submit(struct drm_device *drm, void *data, struct drm_file *filp);
int npu_job_query(struct npu_file *file, u64 seqno, struct drm_npu_job_status *status);
void npu_job_complete(struct npu_job *job, int error);
void npu_queue_cancel(struct npu_queue *q, struct drm_sched_job *guilty, int error);

/* npu_gem.c */
int npu_gem_init(struct npu_device *npu);
void npu_gem_revoke(struct npu_device *npu);
int npu_ioctl_bo_create(struct drm_device *drm, void *data, struct drm_file *filp);

#endif /* NPU_DRV_H */
