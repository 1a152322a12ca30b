/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The core of the driver, which knows no bus: user interface, buffer objects, jobs,
 * queues, resets. The bus below it is struct npu_bus_ops.
 *
 * Locks, outermost first:
 *   npu_device.files_lock   list of open files
 *   npu_file.lock           the file's queues, and the order of its jobs
 *   npu_vm.lock             the file's address space
 *   npu_device.lock         queue slots, and whether the device is up; held over
 *                           every reset that the driver makes
 *   npu_health.lock         what was told of the device's logs
 *   npu_mbox.lock           admin queue
 *   npu_device.bo_lock      list and backing memory of buffer objects
 *   npu_queue.user_lock     mappings of a queue's process; inside mmap_lock, and allocates
 *   npu_vm.slots_lock, npu_device.dead_lock (spinlocks)
 *   npu_queue.lock          the queue's ring and jobs on the device (spinlock)
 *   npu_file.jobs_lock, npu_device.busy_lock  job statuses; time of the device (spinlocks)
 * Recovery takes npu_device.lock, npu_mbox.lock and the spinlocks. Nobody who holds one of them
 * waits for a job, or allocates memory that somebody may have to free first: that may wait for
 * a job as well. npu_signalling_begin() has lockdep watch it.
 */
#ifndef NPU_DRV_H
#define NPU_DRV_H

#include <linux/dma-fence.h>
#include <linux/ktime.h>
#include <linux/llist.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include <drm/drm_device.h>
#include <drm/drm_gem.h>
#include <drm/drm_mm.h>
#include <drm/drm_print.h>
#include <drm/gpu_scheduler.h>

#include "npu_hw.h"
#include "npu_vm.h"
#include "uapi/npu_accel.h"

struct dma_buf;
struct dma_buf_attachment;
struct drm_file;
struct sg_table;

/*
 * Commands of a job, and what a bus should let a user queue hold, if it can: two
 * such jobs, so that the device never idles between jobs.
 */
#define NPU_MAX_COMMANDS		127
#define NPU_QUEUE_ENTRIES		256

/* Syncobjs in one array of a submit; bounds what one call allocates. */
#define NPU_MAX_SYNCS			64

/* Jobs of a file whose status can be queried; part of the user interface. */
#define NPU_JOB_RECORDS			64

/* Limits of what user space chooses for a queue, §4.12, §4.14. */
#define NPU_MAX_WEIGHT			255
#define NPU_MAX_TIMEOUT_MS		(3600U * 1000)

/* Commands of firmware that do not wait for anything take microseconds. */
#define NPU_MBOX_TIMEOUT_MS		5000

struct npu_device;
struct npu_file;
struct npu_queue;

/* What a process has of a queue that it drives itself. */
struct npu_user {
	struct npu_file *file; /* user_lock; NULL once it may map no more */
	bool ended; /* npu_device.lock, but for readers; the queue is no longer on the device */
	u32 entries; /* of each ring */
	void *sq;
	void *cq;
	phys_addr_t doorbell;
	void *sink; /* the page that is mapped for it once the queue has ended */
};

/*
 * What a bus does for the core. Unless it says otherwise a function may sleep, and is
 * called with npu_device.lock held or before the device is registered.
 */
struct npu_bus_ops {
	/*
	 * How long the first command after boot may take: more where firmware may
	 * still be booting when boot returns.
	 */
	unsigned int identify_timeout_ms;

	/* The device sleeps when nobody needs it, see npu_wake(). */
	bool runtime_pm;

	/* Addresses on the bus are physical ones, and no cache is between. */
	bool physical;

	/* Nobody tells that the error log (§12.3) has grown. */
	bool silent_errors;

	/* reset() and boot() allocate memory, and take locks of the kernel's. */
	bool reset_allocates;

	/* Starts a device that was reset, until admin() works; says what went wrong. */
	int (*boot)(struct npu_device *npu);

	/*
	 * Resets: afterwards nothing of before touches memory, even if the reset failed.
	 * What completed before it can still be taken with queue_pop(). -ENODEV if the
	 * device is gone.
	 */
	int (*reset)(struct npu_device *npu);

	/* Says whether firmware died; user queues go on without it (§9.2). */
	bool (*firmware_dead)(struct npu_device *npu);

	/* Makes the device silent, for good or until the next boot. */
	void (*stop)(struct npu_device *npu);

	/*
	 * Executes one admin command; npu_mbox.lock is held. -ETIMEDOUT or -EIO if
	 * there is no completion; then no more follow before a reset.
	 */
	int (*admin)(struct npu_device *npu, const struct npu_sqe *sqe, struct npu_cqe *cqe,
		     unsigned int timeout_ms);

	/* Memory of a user queue's ring. */
	int (*queue_alloc)(struct npu_queue *q);
	void (*queue_free)(struct npu_queue *q);

	/* Empties the ring, and adds it to a CREATE_QUEUE; npu_queue.lock is held. */
	void (*queue_empty)(struct npu_queue *q, struct npu_sqe *create);

	/*
	 * Adds a command, for which the core knows that there is room (npu_params.credits),
	 * and tells the device of all that were added; npu_queue.lock is held.
	 */
	void (*queue_push)(struct npu_queue *q, const struct npu_sqe *sqe);
	void (*queue_kick)(struct npu_queue *q);

	/*
	 * Takes the next completion. If there is none, tells the device of those taken,
	 * unless the queue is not live; npu_queue.lock is held.
	 */
	bool (*queue_pop)(struct npu_queue *q, struct npu_cqe *cqe);

	/*
	 * Says where the ring and doorbell page of a queue are that its process will drive.
	 * NULL: it cannot.
	 */
	int (*queue_share)(struct npu_queue *q, struct npu_user *user);

	/*
	 * Copies the crash dump (§12.8) that hardware keeps, which it then forgets; returns
	 * its size, or 0 if there is none. NULL: only firmware has it, after the next boot.
	 */
	size_t (*take_crash)(struct npu_device *npu, void *to, size_t size);

	/* Print the device's registers, and a ring; npu_queue.lock is held for the latter. */
	void (*print)(struct npu_device *npu, struct drm_printer *p);
	void (*queue_print)(struct npu_queue *q, struct drm_printer *p);
};

/* Values read from hardware once, in probe; the bus fills in all but the last. */
struct npu_params {
	u32 arch_version;
	u64 features;
	u32 array_dim;
	u32 spad_size;
	u32 acc_size;
	u32 engines;
	u32 queues;
	u32 contexts;
	u64 dram_size;
	u32 vectors; /* of interrupts */
	u32 credits; /* commands that a user queue holds */
	u32 max_commands; /* of one job */
};

/* Admin queue, §4.4. */
struct npu_mbox {
	struct mutex lock; /* everything below */
	bool enabled;
	bool dead; /* without lock: nobody will complete anything before a reset */
	u16 command_id;
	void *buffer; /* one page that commands return data in */
	dma_addr_t buffer_addr;
	wait_queue_head_t wait; /* woken by the bus when a command may have completed */
};

/* A device context, §4.5; guarded by npu_device.lock. */
struct npu_context {
	u32 number;
	u32 generation; /* of the device that has it, see npu_device.generation; 0 none */
	u32 queues; /* in it */
	u32 fault_generation; /* device generation of fault_number */
	u32 fault_number; /* of the last record of the fault log that the file was told of */
	dma_addr_t root; /* of its page tables; set by npu_vm_start() for good; 0 without MMU */
};

/*
 * A user queue, and the scheduler that feeds it. Slots exist as long as the
 * device, because finished fences still refer to their scheduler.
 */
struct npu_queue {
	struct npu_device *npu;
	u16 number; /* 1 to npu_params.queues */
	bool taken; /* npu_device.lock: somebody has the slot */
	bool allocated; /* npu_device.lock: a file has it; ring and sched are valid */
	bool active; /* npu_device.lock: survives resets; not while it is released */
	struct npu_context *context; /* of the file that has it */
	u32 handle; /* number in that file */
	bool own; /* npu_device.lock: the process drives it; no scheduler, never active */
	u8 priority; /* §4.12 */
	u8 weight;
	u32 timeout_ms; /* of a command (§4.14); of a job if the device does not watch */

	struct mutex user_lock; /* see above */
	struct npu_user user; /* of a queue that is own; constant but for what says otherwise */
	struct work_struct user_work; /* takes the doorbell's mapping away */

	struct drm_gpu_scheduler sched;
	struct drm_sched_entity entity;
	atomic_t jobs; /* pushed and not yet freed */
	wait_queue_head_t idle; /* jobs became 0 */

	spinlock_t lock; /* everything below */
	bool attached; /* the bus has memory for it, so completions may be looked for */
	bool live; /* exists on the device */
	bool resuming; /* it was destroyed, to be made again for the jobs that it has */
	bool held; /* its first job has faulted, and ends when the context is made again */
	bool late; /* a job did not end in time: the queue waits for npu_queue_recover() */
	u16 command_id; /* of the next command */
	struct list_head inflight; /* of npu_job.node, in order of submission */
	ktime_t busy_since; /* when the device got the first of these, or all of them again */
	u64 fence_context;
	u64 fence_seqno;
};

struct npu_file {
	struct npu_device *npu;
	u64 client_id; /* as in fdinfo */
	struct list_head node; /* npu_device.files */
	struct mutex lock; /* see above */
	struct xarray queues; /* lock; of npu_queue by number, see uAPI; empty after unplug */
	struct npu_context context;
	struct npu_vm vm;
	atomic64_t busy_ns; /* time for which the device executed its jobs */
	atomic_t timeouts; /* jobs that did not end in time */

	spinlock_t jobs_lock; /* everything below */
	struct drm_npu_fault fault; /* the last one */
	u64 seqno; /* of the last job */
	struct drm_npu_job_status jobs[NPU_JOB_RECORDS]; /* at seqno % NPU_JOB_RECORDS */
};

struct npu_bo {
	struct drm_gem_object base;
	u32 placement; /* enum drm_npu_placement */
	u64 address; /* in the space of the placement; not of SYSTEM with MMU */
	struct drm_mm_node node; /* DEVICE */
	struct page **pages; /* SYSTEM; NULL if imported */
	struct sg_table *sgt; /* SYSTEM; bo_lock; NULL once the device is gone */
	bool shared; /* was exported or imported: jobs wait for fences of others */
	struct list_head link; /* npu_device.bos */
	struct llist_node dead; /* npu_device.dead_bos */
};

/* What the device said of a fault, §9.3. */
struct npu_fault_record {
	u64 count; /* of all */
	u32 code; /* of the last, as the others */
	u32 info;
	u64 addr;
};

/* What the device was asked of its health, §12; unused without RAS. */
struct npu_health {
	struct work_struct work; /* tells what is new in the device's logs */
	struct mutex lock; /* everything up to crash */
	void *page; /* of a log */
	bool started; /* next_error is valid */
	u32 next_error; /* record of the error log that has not been told */
	u32 next_line; /* likewise of the firmware log, */
	u32 generation; /* of this boot */
	struct device *hwmon; /* set before the device is registered */

	void *crash; /* npu_device.lock, as the rest */
	bool crash_known;
	u32 crash_number; /* of the last dump that firmware told of */
};

#define NPU_RECOVER_RESET		0 /* bits of npu_device.recover */
#define NPU_RECOVER_QUEUES		1
#define NPU_RECOVER_CONTEXTS		2

/* First member of what the bus allocates. */
struct npu_device {
	struct drm_device drm;
	const struct npu_bus_ops *ops;
	struct npu_params params;
	bool mmu; /* contexts are translated, §11; set before the device is registered */

	u32 fw_version;
	u32 fw_build;
	char fw_name[NPU_IDENTIFY_NAME_SIZE];

	struct npu_mbox mbox;

	struct mutex lock; /* see above */
	bool up; /* lock: firmware runs */
	bool asleep; /* lock: the system sleeps; the device boots when it wakes */
	bool gone; /* it answers no more, and will not; never taken back */
	bool resetting; /* lock: by somebody else, see npu_reset_pause(); then it is not up */
	wait_queue_head_t reset_wait; /* resetting became false */
	u32 generation; /* lock: counts boots, each of which starts without contexts */
	atomic_t resets;
	atomic_t timeouts; /* jobs that did not end in time */
	struct npu_queue *queues;
	struct workqueue_struct *submit_wq; /* run_job and free_job of all queues */
	struct workqueue_struct *reset_wq; /* ordered: timeouts and recovery */
	struct work_struct recover_work;
	unsigned long recover;
	unsigned long *faulted; /* bitmap of queue slots */
	void *log_page; /* lock; a log page that recovery reads */

	struct workqueue_struct *vm_wq; /* vm_work, which frees what is in dead and dead_bos */
	struct work_struct vm_work;
	spinlock_t dead_lock; /* dead */
	struct list_head dead; /* mappings */
	struct llist_head dead_bos; /* with the last reference */

	spinlock_t busy_lock; /* charged */
	ktime_t charged; /* until when files were charged for the device's time */

	spinlock_t fault_lock; /* fault */
	struct npu_fault_record fault;
	void *dump; /* lock; core dump that dump_work publishes */
	size_t dump_size; /* lock; 0 if there is nothing to publish */
	struct work_struct dump_work;

	struct npu_health health;

	struct mutex files_lock; /* files */
	struct list_head files;

	struct mutex bo_lock; /* dram, dram_free, bos */
	struct drm_mm dram;
	u64 dram_free;
	phys_addr_t dram_phys;
	void __iomem *dram_map; /* all of it, write-combining; NULL if the host has no window */
	dma_addr_t zeros_addr; /* without a window: a page of zeros */
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

/* npu_drv.c */
struct npu_signalling {
	bool annotated;
	bool cookie;
	unsigned int noreclaim;
};

void npu_signalling_begin(struct npu_device *npu, struct npu_signalling *s);
void npu_signalling_end(const struct npu_signalling *s);
struct npu_device *npu_alloc(struct device *dev, size_t size, const struct npu_bus_ops *ops);
int npu_init(struct npu_device *npu);
int npu_start(struct npu_device *npu);
void npu_remove(struct npu_device *npu);
void npu_quiesce(struct npu_device *npu);
int npu_suspend(struct npu_device *npu);
int npu_resume(struct npu_device *npu);
bool npu_enter(struct npu_device *npu, int *idx);
int npu_wake(struct npu_device *npu);
void npu_stay_awake(struct npu_device *npu);
void npu_relax(struct npu_device *npu);
int npu_hold(struct npu_device *npu);
void npu_let_go(struct npu_device *npu);
int npu_check_arch(struct npu_device *npu);
int npu_reset_locked(struct npu_device *npu);
void npu_reset_begin(struct npu_device *npu);
int npu_reset_end(struct npu_device *npu, int error);
void npu_reset_pause(struct npu_device *npu);
void npu_reset_resume(struct npu_device *npu, int error);
void npu_lock(struct npu_device *npu);
void npu_schedule_recovery(struct npu_device *npu, int what);
void npu_schedule_queue_recovery(struct npu_queue *q);
void npu_fault(struct npu_device *npu, u32 code, u32 info, u64 addr, bool overflow);
const char *npu_boot_error_name(u32 error);

/* npu_mbox.c */
struct npu_reply {
	u32 result;
	u64 info;
};

int npu_mbox_init(struct npu_device *npu);
void npu_mbox_enable(struct npu_device *npu);
void npu_mbox_disable(struct npu_device *npu);
void npu_mbox_abort(struct npu_device *npu);
int npu_mbox_exec(struct npu_device *npu, struct npu_sqe *sqe, struct npu_reply *reply,
		  unsigned int timeout_ms);
int npu_mbox_read(struct npu_device *npu, u8 opcode, u32 page, void *to, size_t size,
		  unsigned int timeout_ms);
int npu_mbox_read_log(struct npu_device *npu, u32 page, u32 cursor, void *to, size_t size);
const char *npu_status_name(u32 status);
int npu_status_errno(u32 status);

/* npu_queue.c */
int npu_queues_init(struct npu_device *npu);
bool npu_has_queue_control(struct npu_device *npu);
bool npu_has_queue_timeouts(struct npu_device *npu);
int npu_queue_read_status(struct npu_queue *q, struct npu_queue_status *status);
struct npu_queue *npu_queue_acquire(struct npu_file *file, u32 handle,
				    const struct drm_npu_queue_create *args);
struct npu_queue *npu_file_queue(struct npu_file *file, u32 number);
void npu_file_release_queues(struct npu_file *file);
int npu_ioctl_queue_create(struct drm_device *drm, void *data, struct drm_file *filp);
int npu_ioctl_queue_destroy(struct drm_device *drm, void *data, struct drm_file *filp);
void npu_queue_release(struct npu_queue *q);
void npu_queue_poll(struct npu_queue *q);
int npu_queue_recover(struct npu_queue *q);
bool npu_context_faulted(struct npu_queue *bad);
int npu_context_recover(struct npu_queue *bad);
void npu_queues_stop(struct npu_device *npu);
void npu_queues_cancel(struct npu_device *npu, int error);
void npu_queues_interrupt(struct npu_device *npu);
int npu_queues_drain(struct npu_device *npu, unsigned int timeout_ms);
void npu_queues_settle(struct npu_device *npu, unsigned int timeout_ms);
bool npu_context_live(struct npu_device *npu, struct npu_context *context);
void npu_queues_restart(struct npu_device *npu);
void npu_queues_start(struct npu_device *npu);
unsigned int npu_queues_free(struct npu_device *npu);

/* npu_job.c */
struct npu_job;

extern const struct drm_sched_backend_ops npu_sched_ops;
int npu_job_timeout_ms(void);
int npu_job_query(struct npu_file *file, u64 seqno, struct drm_npu_job_status *status);
void npu_job_complete(struct npu_job *job, int error);
void npu_queue_cancel(struct npu_queue *q, int error);
void npu_queue_end_faulted(struct npu_queue *q);
void npu_queue_interrupt(struct npu_queue *q, int error);
void npu_queue_repeat(struct npu_queue *q);
void npu_queue_report_late(struct npu_queue *q);
void npu_queue_print(struct npu_queue *q, struct drm_printer *p);

/* npu_submit.c */
void *npu_array_copy(struct drm_device *drm, const struct drm_npu_array *array, size_t size,
		     u32 max);
int npu_job_clear(struct npu_device *npu, struct drm_file *filp, u64 address, u64 size);
int npu_ioctl_submit(struct drm_device *drm, void *data, struct drm_file *filp);

/* npu_state.c */
int npu_state_init(struct npu_device *npu);
void npu_dump(struct npu_device *npu, const char *reason);
void npu_dump_crash(struct npu_device *npu);

/* npu_health.c */
int npu_health_init(struct npu_device *npu);
bool npu_has_ras(struct npu_device *npu);
void npu_health_check(struct npu_device *npu);
size_t npu_crash_take(struct npu_device *npu);
void npu_crash_print(struct npu_device *npu, size_t size, struct drm_printer *p);
int npu_telemetry_read(struct npu_device *npu, s64 *values);
int npu_query_telemetry(struct npu_device *npu, struct drm_npu_telemetry *telemetry);

/* npu_hwmon.c */
#if IS_REACHABLE(CONFIG_HWMON)
void npu_hwmon_init(struct npu_device *npu);
void npu_hwmon_throttled(struct npu_device *npu);
#else
static inline void npu_hwmon_init(struct npu_device *npu)
{
}

static inline void npu_hwmon_throttled(struct npu_device *npu)
{
}
#endif

/* npu_vm.c */
void npu_vm_init(struct npu_vm *vm, struct npu_device *npu, struct npu_context *context);
int npu_vm_start(struct npu_vm *vm);
void npu_vm_empty(struct npu_vm *vm);
void npu_vm_fini(struct npu_vm *vm);
void npu_vm_work(struct work_struct *work);
struct npu_mapping *npu_vm_use(struct npu_vm *vm, struct drm_file *filp, u32 handle,
			       struct npu_bo *bo);
struct npu_mapping *npu_vm_use_memory(struct npu_vm *vm, u32 space, u64 address, u64 size,
				      u32 access);
void npu_vm_put(struct npu_mapping *m);
void npu_vm_forget(struct npu_vm *vm, struct npu_bo *bo);
struct npu_slot *npu_slot_get(struct npu_vm *vm);
void npu_slot_put(struct npu_vm *vm, struct npu_slot *slot);
void npu_query_vm(struct npu_vm *vm, struct drm_npu_vm_info *info);
int npu_ioctl_vm_bind(struct drm_device *drm, void *data, struct drm_file *filp);

/* npu_user.c */
bool npu_user_supported(struct npu_device *npu);
void npu_user_init_slot(struct npu_queue *q);
int npu_user_init(struct npu_queue *q, struct npu_file *file);
void npu_user_end(struct npu_queue *q);
void npu_user_revoke(struct npu_queue *q);
void npu_user_fini(struct npu_queue *q);
int npu_mmap(struct file *filp, struct vm_area_struct *vma);
int npu_ioctl_queue_map(struct drm_device *drm, void *data, struct drm_file *filp);

/* npu_fault.c */
int npu_fault_init(struct npu_device *npu);
bool npu_fault_of_context(struct npu_queue *q, u32 status);
int npu_faults_find(struct npu_device *npu);
void npu_fault_note(struct npu_device *npu, struct npu_context *context);
void npu_query_fault(struct npu_file *file, struct drm_npu_fault *fault);

/* npu_gem.c */
int npu_gem_init(struct npu_device *npu, phys_addr_t window);
void npu_gem_revoke(struct npu_device *npu);
void npu_gem_put_later(struct npu_bo *bo);
void npu_gem_put_dead(struct npu_device *npu);
bool npu_gem_has_handle(struct drm_file *filp, u32 handle, struct npu_bo *bo);
struct drm_gem_object *npu_gem_import(struct drm_device *drm, struct dma_buf *dmabuf);
struct drm_gem_object *npu_gem_import_sg_table(struct drm_device *drm,
					       struct dma_buf_attachment *attach,
					       struct sg_table *sgt);
int npu_ioctl_bo_create(struct drm_device *drm, void *data, struct drm_file *filp);

/* The buses: npu_pci.c and npu_virtio.c, if the kernel has them. */
#if IS_ENABLED(CONFIG_PCI)
int npu_pci_register(void);
void npu_pci_unregister(void);
#else
static inline int npu_pci_register(void)
{
	return 0;
}

static inline void npu_pci_unregister(void)
{
}
#endif

#if IS_ENABLED(CONFIG_VIRTIO)
int npu_virtio_register(void);
void npu_virtio_unregister(void);
#else
static inline int npu_virtio_register(void)
{
	return 0;
}

static inline void npu_virtio_unregister(void)
{
}
#endif

#endif /* NPU_DRV_H */
