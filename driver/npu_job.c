// SPDX-License-Identifier: GPL-2.0-only
/*
 * Jobs: what user space submits is checked and turned into submission entries
 * (§4.9, §4.10) and binding tables (§7.3) here; the DRM scheduler decides when
 * they go to the device; completions end them.
 */

#include <linux/bitfield.h>
#include <linux/dma-fence-chain.h>
#include <linux/dma-resv.h>
#include <linux/dmapool.h>
#include <linux/module.h>
#include <linux/overflow.h>
#include <linux/sort.h>
#include <linux/uaccess.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_syncobj.h>

#include "npu_compat.h"
#include "npu_drv.h"

static uint job_timeout_ms = 30000;
module_param(job_timeout_ms, uint, 0644);
MODULE_PARM_DESC(job_timeout_ms,
		 "Milliseconds a job may take before the device is reset; read at a file's first submit");

/* Its own lock, because a fence may outlive queue and device. */
struct npu_fence {
	struct dma_fence base;
	spinlock_t lock; /* of base */
};

/* A BO that a command needs. */
struct npu_use {
	struct drm_gem_object *obj; /* referenced */
	bool write;
};

struct npu_command {
	struct npu_sqe sqe;
	struct npu_hw_binding *table; /* from npu_device.tables, or NULL */
	dma_addr_t table_addr;
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

	struct list_head node; /* npu_queue.inflight */
	u16 command_id; /* of the next completion */
	u32 completed; /* commands */
	struct drm_npu_job_status status; /* of the command that counts, see uAPI */

	u32 count;
	struct npu_command commands[] __counted_by(count);
};

/* The BOs of a job, each once, with their reservations locked. */
struct npu_reservation {
	struct npu_use *uses;
	struct drm_gem_object **objs;
	u32 count;
	struct ww_acquire_ctx ctx;
};

/* A syncobj to be signalled, with what that needs allocated. */
struct npu_out_sync {
	struct drm_syncobj *syncobj;
	struct dma_fence_chain *chain; /* NULL for binary */
	u64 point;
};

static struct npu_job *to_npu_job(struct drm_sched_job *job)
{
	return container_of(job, struct npu_job, base);
}

/* npu_job_timeout_ms returns the module parameter within what the scheduler takes. */
int npu_job_timeout_ms(void)
{
	return clamp(READ_ONCE(job_timeout_ms), 1U, 3600U * 1000);
}

static const char *npu_fence_driver_name(struct dma_fence *fence)
{
	return DRM_NPU_NAME;
}

static const char *npu_fence_timeline_name(struct dma_fence *fence)
{
	return "queue";
}

static const struct dma_fence_ops npu_fence_ops = {
	.get_driver_name = npu_fence_driver_name,
	.get_timeline_name = npu_fence_timeline_name,
};

/* Statuses. */

static struct drm_npu_job_status *npu_job_record(struct npu_file *file, u64 seqno)
{
	return &file->jobs[seqno % NPU_JOB_RECORDS];
}

/* Makes the job's end known to queries. */
static void npu_job_set_status(struct npu_job *job, int error)
{
	struct npu_file *file = job->file;
	struct drm_npu_job_status *record = npu_job_record(file, job->seqno);

	job->status.seqno = job->seqno;
	job->status.error = error;
	job->status.state = error ? DRM_NPU_JOB_FAILED : DRM_NPU_JOB_DONE;

	spin_lock(&file->jobs_lock);
	if (record->seqno == job->seqno)
		*record = job->status;
	spin_unlock(&file->jobs_lock);
}

/* npu_job_query returns a copy of the job's status, or -ENOENT. */
int npu_job_query(struct npu_file *file, u64 seqno, struct drm_npu_job_status *status)
{
	int ret = -ENOENT;

	spin_lock(&file->jobs_lock);
	*status = *npu_job_record(file, seqno);
	if (seqno && status->seqno == seqno)
		ret = 0;
	spin_unlock(&file->jobs_lock);
	return ret;
}

/* Completion. */

/*
 * npu_job_complete ends a job that is no longer on its queue's list. The job may
 * be freed before this returns.
 */
void npu_job_complete(struct npu_job *job, int error)
{
	struct dma_fence *fence = dma_fence_get(&job->fence->base);

	npu_job_set_status(job, error);
	if (error)
		dma_fence_set_error(fence, error);
	dma_fence_signal(fence);
	dma_fence_put(fence);
}

/* Books the time that the first job of the queue was it; npu_queue.lock is held. */
static void npu_queue_account(struct npu_queue *q, struct npu_job *job)
{
	ktime_t now = ktime_get();

	atomic64_add(ktime_to_ns(ktime_sub(now, q->first_since)), &job->file->busy_ns);
	q->first_since = now;
}

/* npu_queue_cancel ends all jobs on the device, which has forgotten them. */
void npu_queue_cancel(struct npu_queue *q, struct drm_sched_job *guilty, int error)
{
	struct npu_job *job, *next;
	LIST_HEAD(jobs);

	spin_lock(&q->lock);
	job = list_first_entry_or_null(&q->inflight, struct npu_job, node);
	if (job)
		npu_queue_account(q, job);
	list_splice_init(&q->inflight, &jobs);
	spin_unlock(&q->lock);

	list_for_each_entry_safe(job, next, &jobs, node) {
		list_del(&job->node);
		if (!job->status.status)
			job->status = (struct drm_npu_job_status){ .command = job->completed };
		npu_job_complete(job, &job->base == guilty ? -ETIMEDOUT : error);
	}
}

/* Books one completion; returns the job if it was the last one of it. */
static struct npu_job *npu_queue_take(struct npu_queue *q, const struct npu_cqe *cqe)
{
	struct npu_device *npu = q->npu;
	u32 status = FIELD_GET(NPU_CQE_STATUS, le16_to_cpu(cqe->status));
	struct npu_job *job = list_first_entry_or_null(&q->inflight, struct npu_job, node);

	if (!job || le16_to_cpu(cqe->command_id) != job->command_id) {
		dev_err_ratelimited(npu->drm.dev,
				    "queue %u: completion for command %u, which is not next\n",
				    q->number, le16_to_cpu(cqe->command_id));
		npu_schedule_recovery(npu, NPU_RECOVER_RESET);
		return NULL;
	}

	if (!job->status.status) { /* none has failed yet */
		job->status.command = job->completed;
		job->status.status = status;
		job->status.result = le32_to_cpu(cqe->result);
		job->status.info = le64_to_cpu(cqe->info);
		if (status)
			drm_dbg(&npu->drm, "queue %u: command: %s (0x%02x), result %u, info 0x%llx\n",
				q->number, npu_status_name(status), status, job->status.result,
				job->status.info);
	}
	job->command_id++;
	if (++job->completed < job->count)
		return NULL;
	npu_queue_account(q, job);
	list_del(&job->node);
	return job;
}

/* npu_queue_poll takes the completions that the device has posted (§4.2). */
void npu_queue_poll(struct npu_queue *q)
{
	struct npu_job *job, *next;
	struct npu_cqe cqe;
	LIST_HEAD(done);

	spin_lock(&q->lock);
	while (q->attached && q->npu->ops->queue_pop(q, &cqe)) {
		job = npu_queue_take(q, &cqe);
		if (job)
			list_add_tail(&job->node, &done);
	}
	spin_unlock(&q->lock);

	list_for_each_entry_safe(job, next, &done, node) {
		list_del(&job->node);
		npu_job_complete(job, npu_status_errno(job->status.status));
	}
}

/* Commands of the first job that npu_queue_print() shows; those behind it wait. */
#define NPU_PRINT_COMMANDS	8

/* npu_queue_print prints the queue and its jobs on the device; npu_device.lock is held. */
void npu_queue_print(struct npu_queue *q, struct drm_printer *p)
{
	struct npu_job *job;
	u32 i, end;

	spin_lock(&q->lock);
	drm_printf(p, "queue %u: context %u, %s, next command %u\n", q->number, q->context->number,
		   q->live ? "live" : "not on the device", q->command_id);
	q->npu->ops->queue_print(q, p);
	list_for_each_entry(job, &q->inflight, node) {
		drm_printf(p, "  job %llu of client %llu: %u of %u commands done, next id %u\n",
			   job->seqno, job->file->client_id, job->completed, job->count,
			   job->command_id);
		if (!list_is_first(&job->node, &q->inflight))
			continue;
		end = min(job->count, job->completed + NPU_PRINT_COMMANDS);
		for (i = job->completed; i < end; i++)
			drm_printf(p, "    command %u: opcode 0x%02x, %*phN\n", i,
				   job->commands[i].sqe.opcode, (int)sizeof(struct npu_sqe),
				   &job->commands[i].sqe);
	}
	spin_unlock(&q->lock);
}

/* Scheduler. */

static struct dma_fence *npu_job_run(struct drm_sched_job *sched_job)
{
	struct npu_job *job = to_npu_job(sched_job);
	const struct npu_bus_ops *ops = job->npu->ops;
	struct npu_queue *q = job->queue;
	int ret;
	u32 i;

	spin_lock(&q->lock);
	if (!q->live) {
		spin_unlock(&q->lock);
		ret = READ_ONCE(job->npu->gone) ? -ENODEV : -EIO;
		npu_job_set_status(job, ret);
		return ERR_PTR(ret);
	}
	dma_fence_init(&job->fence->base, &npu_fence_ops, &job->fence->lock, q->fence_context,
		       ++q->fence_seqno);
	job->started = true;
	job->command_id = q->command_id;
	if (list_empty(&q->inflight))
		q->first_since = ktime_get();
	list_add_tail(&job->node, &q->inflight);
	for (i = 0; i < job->count; i++) {
		job->commands[i].sqe.command_id = cpu_to_le16(q->command_id++);
		ops->queue_push(q, &job->commands[i].sqe);
	}
	ops->queue_kick(q);
	spin_unlock(&q->lock);

	/* One reference for the scheduler, one stays with the job. */
	return dma_fence_get(&job->fence->base);
}

static enum drm_gpu_sched_stat npu_job_timedout(struct drm_sched_job *sched_job)
{
	struct npu_job *job = to_npu_job(sched_job);
	struct npu_device *npu = job->npu;

	mutex_lock(&npu->lock);
	npu_queue_poll(job->queue);
	if (!job->started || dma_fence_is_signaled(&job->fence->base)) {
		mutex_unlock(&npu->lock);
		return npu_sched_no_hang(sched_job);
	}
	drm_err(&npu->drm, "queue %u: job %llu did not end in time, %u of %u commands are done\n",
		job->queue->number, job->seqno, job->completed, job->count);
	npu_dump(npu, "a job did not end in time");
	npu_reset_locked(npu, sched_job);
	npu_sched_start(&job->queue->sched);
	mutex_unlock(&npu->lock);
	return npu_sched_was_reset();
}

static void npu_job_free(struct npu_job *job)
{
	u32 i, k;

	for (i = 0; i < job->count; i++) {
		struct npu_command *command = &job->commands[i];

		for (k = 0; k < command->use_count; k++)
			drm_gem_object_put(command->uses[k].obj);
		kfree(command->uses);
		if (command->table)
			dma_pool_free(job->npu->tables, command->table, command->table_addr);
	}
	if (job->started)
		dma_fence_put(&job->fence->base);
	else
		kfree(job->fence);
	kvfree(job);
}

static void npu_job_sched_free(struct drm_sched_job *sched_job)
{
	struct npu_job *job = to_npu_job(sched_job);
	struct npu_device *npu = job->npu;
	struct npu_queue *q = job->queue;

	/* A job that never ran, because its queue was destroyed. */
	if (job->status.state == DRM_NPU_JOB_PENDING)
		npu_job_set_status(job, -ECANCELED);
	drm_sched_job_cleanup(sched_job);
	npu_job_free(job);
	npu_relax(npu);
	if (atomic_dec_and_test(&q->jobs))
		wake_up_all(&q->idle);
}

const struct drm_sched_backend_ops npu_sched_ops = {
	.run_job = npu_job_run,
	.timedout_job = npu_job_timedout,
	.free_job = npu_job_sched_free,
};

/* Submission. */

/**
 * npu_array_copy - copy an array from user space
 * @drm: for debug messages
 * @array: where it is
 * @size: of one element here
 * @max: elements
 *
 * Return: the elements, to be freed with kvfree(); NULL for none; -EINVAL,
 * -E2BIG, -EFAULT, -ENOMEM.
 */
static void *npu_array_copy(struct drm_device *drm, const struct drm_npu_array *array, size_t size,
			    u32 max)
{
	void *elements;
	u32 i;
	int ret;

	if (!array->count)
		return NULL;
	if (array->count > max || array->stride < size || array->stride > PAGE_SIZE) {
		drm_dbg(drm, "array: %u elements of %u bytes, allowed are %u of %zu\n",
			array->count, array->stride, max, size);
		return ERR_PTR(-EINVAL);
	}
	elements = kvmalloc_array(array->count, size, GFP_KERNEL);
	if (!elements)
		return ERR_PTR(-ENOMEM);
	for (i = 0; i < array->count; i++) {
		ret = copy_struct_from_user(elements + i * size, size,
					    u64_to_user_ptr(array->ptr) + (size_t)i * array->stride,
					    array->stride);
		if (ret) {
			kvfree(elements);
			return ERR_PTR(ret);
		}
	}
	return elements;
}

/* Looks a BO up; the command keeps the reference, command->uses has room. */
static struct npu_bo *npu_command_bo(struct npu_command *command, struct drm_file *filp, u32 handle,
				     bool write)
{
	struct drm_gem_object *obj = drm_gem_object_lookup(filp, handle);

	if (!obj)
		return NULL;
	command->uses[command->use_count++] = (struct npu_use){ obj, write };
	return to_npu_bo(obj);
}

static bool npu_bo_contains(struct npu_bo *bo, u64 offset, u64 size)
{
	return size && offset < bo->base.size && size <= bo->base.size - offset;
}

static u32 npu_bo_space(struct npu_bo *bo)
{
	return bo->placement == DRM_NPU_PLACEMENT_DEVICE ? NPU_SPACE_DEVICE : NPU_SPACE_BUS;
}

/* Whether all rows of one side of a copy are in the BO. */
static bool npu_copy_fits(struct npu_bo *bo, u64 offset, const struct drm_npu_copy *copy,
			  u64 stride_y, u64 stride_z)
{
	u64 y, z, span;

	if (check_mul_overflow(stride_y, (u64)copy->ny - 1, &y) ||
	    check_mul_overflow(stride_z, (u64)copy->nz - 1, &z) ||
	    check_add_overflow(y, z, &span) || check_add_overflow(span, (u64)copy->nx, &span))
		return false;
	return npu_bo_contains(bo, offset, span);
}

static int npu_command_copy(struct drm_device *drm, struct drm_file *filp,
			    struct npu_command *command, const struct drm_npu_copy *copy)
{
	struct npu_sqe *sqe = &command->sqe;
	struct npu_bo *src, *dst;

	if (copy->pad || !copy->nx || !copy->ny || copy->ny > U16_MAX || !copy->nz ||
	    copy->nz > U16_MAX) {
		drm_dbg(drm, "copy: pad or shape %u, %u, %u\n", copy->nx, copy->ny, copy->nz);
		return -EINVAL;
	}
	command->uses = kcalloc(2, sizeof(*command->uses), GFP_KERNEL);
	if (!command->uses)
		return -ENOMEM;
	src = npu_command_bo(command, filp, copy->src_handle, false);
	dst = npu_command_bo(command, filp, copy->dst_handle, true);
	if (!src || !dst) {
		drm_dbg(drm, "copy: no buffer object %u or %u\n", copy->src_handle,
			copy->dst_handle);
		return -ENOENT;
	}
	if (!npu_copy_fits(src, copy->src_offset, copy, copy->src_stride_y, copy->src_stride_z) ||
	    !npu_copy_fits(dst, copy->dst_offset, copy, copy->dst_stride_y, copy->dst_stride_z)) {
		drm_dbg(drm, "copy: rows outside the buffer object\n");
		return -EINVAL;
	}

	sqe->opcode = NPU_CMD_COPY;
	sqe->spaces = cpu_to_le32(FIELD_PREP(NPU_SPACES_FIRST, npu_bo_space(src)) |
				  FIELD_PREP(NPU_SPACES_SECOND, npu_bo_space(dst)));
	sqe->copy.src = cpu_to_le64(src->address + copy->src_offset);
	sqe->copy.dst = cpu_to_le64(dst->address + copy->dst_offset);
	sqe->copy.nx = cpu_to_le32(copy->nx);
	sqe->copy.ny = cpu_to_le16(copy->ny);
	sqe->copy.nz = cpu_to_le16(copy->nz);
	sqe->copy.src_stride_y = cpu_to_le64(copy->src_stride_y);
	sqe->copy.src_stride_z = cpu_to_le64(copy->src_stride_z);
	sqe->copy.dst_stride_y = cpu_to_le64(copy->dst_stride_y);
	sqe->copy.dst_stride_z = cpu_to_le64(copy->dst_stride_z);
	return 0;
}

static int npu_command_bindings(struct drm_device *drm, struct drm_file *filp,
				struct npu_command *command,
				const struct drm_npu_binding *bindings, u32 count)
{
	u32 i;

	command->table = dma_pool_zalloc(to_npu(drm)->tables, GFP_KERNEL, &command->table_addr);
	if (!command->table)
		return -ENOMEM;
	for (i = 0; i < count; i++) {
		const struct drm_npu_binding *binding = &bindings[i];
		struct npu_bo *bo;
		u32 flags;

		if (!binding->flags ||
		    binding->flags & ~(DRM_NPU_BINDING_READ | DRM_NPU_BINDING_WRITE)) {
			drm_dbg(drm, "binding %u: flags 0x%x\n", i, binding->flags);
			return -EINVAL;
		}
		bo = npu_command_bo(command, filp, binding->handle,
				    binding->flags & DRM_NPU_BINDING_WRITE);
		if (!bo) {
			drm_dbg(drm, "binding %u: no buffer object %u\n", i, binding->handle);
			return -ENOENT;
		}
		if (!npu_bo_contains(bo, binding->offset, binding->size)) {
			drm_dbg(drm, "binding %u: not in its buffer object\n", i);
			return -EINVAL;
		}
		flags = FIELD_PREP(NPU_BINDING_SPACE, npu_bo_space(bo));
		if (binding->flags & DRM_NPU_BINDING_READ)
			flags |= NPU_BINDING_READ;
		if (binding->flags & DRM_NPU_BINDING_WRITE)
			flags |= NPU_BINDING_WRITE;
		command->table[i].address = cpu_to_le64(bo->address + binding->offset);
		command->table[i].size = cpu_to_le64(binding->size);
		command->table[i].flags = cpu_to_le32(flags);
	}
	return 0;
}

static int npu_command_launch(struct drm_device *drm, struct drm_file *filp,
			      struct npu_command *command, const struct drm_npu_launch *launch)
{
	struct npu_sqe *sqe = &command->sqe;
	struct drm_npu_binding *bindings;
	u32 count = launch->bindings.count;
	struct npu_bo *program;
	int ret = 0;

	if (!IS_ALIGNED(launch->program_offset, NPU_PROGRAM_ALIGN) ||
	    launch->program_size < NPU_PROGRAM_MIN) {
		drm_dbg(drm, "launch: program of %u bytes at offset %llu\n", launch->program_size,
			launch->program_offset);
		return -EINVAL;
	}
	bindings = npu_array_copy(drm, &launch->bindings, sizeof(*bindings), NPU_MAX_BINDINGS);
	if (IS_ERR(bindings))
		return PTR_ERR(bindings);

	command->uses = kcalloc(1 + count, sizeof(*command->uses), GFP_KERNEL);
	if (!command->uses) {
		ret = -ENOMEM;
		goto out;
	}
	program = npu_command_bo(command, filp, launch->program_handle, false);
	if (!program) {
		drm_dbg(drm, "launch: no buffer object %u\n", launch->program_handle);
		ret = -ENOENT;
		goto out;
	}
	if (!npu_bo_contains(program, launch->program_offset, launch->program_size)) {
		drm_dbg(drm, "launch: program outside its buffer object\n");
		ret = -EINVAL;
		goto out;
	}
	if (count)
		ret = npu_command_bindings(drm, filp, command, bindings, count);

	sqe->opcode = NPU_CMD_LAUNCH;
	sqe->launch.program = cpu_to_le64(program->address + launch->program_offset);
	sqe->launch.table = cpu_to_le64(count ? command->table_addr : 0);
	sqe->launch.bindings = cpu_to_le32(count);
	sqe->launch.spaces = cpu_to_le32(FIELD_PREP(NPU_SPACES_FIRST, npu_bo_space(program)) |
					 FIELD_PREP(NPU_SPACES_SECOND, NPU_SPACE_BUS));
	sqe->launch.program_size = cpu_to_le32(launch->program_size);
out:
	kvfree(bindings);
	return ret;
}

/* Checks one command and fills in everything but its command_id. */
static int npu_command_init(struct drm_device *drm, struct drm_file *filp,
			    struct npu_command *command, const struct drm_npu_command *from)
{
	const void *unused = &from->reserved;
	size_t used;

	switch (from->type) {
	case DRM_NPU_COMMAND_NOP:
		used = 0;
		break;
	case DRM_NPU_COMMAND_COPY:
		used = sizeof(from->copy);
		break;
	case DRM_NPU_COMMAND_LAUNCH:
		used = sizeof(from->launch);
		break;
	default:
		drm_dbg(drm, "command of unknown type %u\n", from->type);
		return -EINVAL;
	}
	if (from->flags || memchr_inv(unused + used, 0, sizeof(from->reserved) - used)) {
		drm_dbg(drm, "command: flags or reserved bytes are not zero\n");
		return -EINVAL;
	}

	switch (from->type) {
	case DRM_NPU_COMMAND_COPY:
		return npu_command_copy(drm, filp, command, &from->copy);
	case DRM_NPU_COMMAND_LAUNCH:
		return npu_command_launch(drm, filp, command, &from->launch);
	default:
		command->sqe.opcode = NPU_CMD_NOP;
		return 0;
	}
}

/* Makes a job of empty commands, or returns NULL. */
static struct npu_job *npu_job_alloc(struct npu_device *npu, struct drm_file *filp, u32 count)
{
	struct npu_job *job = kvzalloc(struct_size(job, commands, count), GFP_KERNEL);

	if (!job)
		return NULL;
	job->npu = npu;
	job->file = filp->driver_priv;
	job->count = count;
	job->fence = kzalloc(sizeof(*job->fence), GFP_KERNEL);
	if (!job->fence) {
		kvfree(job);
		return NULL;
	}
	spin_lock_init(&job->fence->lock);
	return job;
}

/* Makes a job that the scheduler does not know yet. */
static struct npu_job *npu_job_create(struct npu_device *npu, struct drm_file *filp,
				      const struct drm_npu_array *array)
{
	struct drm_npu_command *commands;
	struct npu_job *job;
	u32 i;
	int ret = 0;

	if (!array->count) {
		drm_dbg(&npu->drm, "a job has at least one command\n");
		return ERR_PTR(-EINVAL);
	}
	commands = npu_array_copy(&npu->drm, array, sizeof(*commands), npu->params.max_commands);
	if (IS_ERR(commands))
		return ERR_CAST(commands);

	job = npu_job_alloc(npu, filp, array->count);
	if (!job) {
		ret = -ENOMEM;
		goto out;
	}
	for (i = 0; i < array->count && !ret; i++)
		ret = npu_command_init(&npu->drm, filp, &job->commands[i], &commands[i]);
	if (ret)
		npu_job_free(job);
out:
	kvfree(commands);
	return ret ? ERR_PTR(ret) : job;
}

static struct drm_npu_sync *npu_syncs_copy(struct drm_device *drm,
					   const struct drm_npu_array *array)
{
	struct drm_npu_sync *syncs = npu_array_copy(drm, array, sizeof(*syncs), NPU_MAX_SYNCS);
	u32 i;

	if (IS_ERR(syncs))
		return syncs;
	for (i = 0; i < array->count; i++)
		if (syncs[i].flags) {
			drm_dbg(drm, "sync %u: flags 0x%x\n", i, syncs[i].flags);
			kvfree(syncs);
			return ERR_PTR(-EINVAL);
		}
	return syncs;
}

static int npu_job_add_in_syncs(struct npu_job *job, struct drm_file *filp,
				const struct drm_npu_array *array)
{
	struct drm_npu_sync *syncs = npu_syncs_copy(&job->npu->drm, array);
	struct dma_fence *fence;
	int ret = 0;
	u32 i;

	if (IS_ERR(syncs))
		return PTR_ERR(syncs);
	for (i = 0; i < array->count && !ret; i++) {
		ret = drm_syncobj_find_fence(filp, syncs[i].handle, syncs[i].point, 0, &fence);
		if (ret) {
			drm_dbg(&job->npu->drm, "in sync %u: no fence in syncobj %u at %llu\n", i,
				syncs[i].handle, syncs[i].point);
			break;
		}
		ret = drm_sched_job_add_dependency(&job->base, fence);
	}
	kvfree(syncs);
	return ret;
}

static void npu_out_syncs_free(struct npu_out_sync *outs, u32 count)
{
	u32 i;

	for (i = 0; i < count && outs[i].syncobj; i++) {
		dma_fence_chain_free(outs[i].chain);
		drm_syncobj_put(outs[i].syncobj);
	}
	kvfree(outs);
}

static struct npu_out_sync *npu_out_syncs_create(struct drm_device *drm, struct drm_file *filp,
						 const struct drm_npu_array *array)
{
	struct drm_npu_sync *syncs = npu_syncs_copy(drm, array);
	struct npu_out_sync *outs;
	int ret = 0;
	u32 i;

	if (IS_ERR_OR_NULL(syncs))
		return ERR_CAST(syncs);
	outs = kvcalloc(array->count, sizeof(*outs), GFP_KERNEL);
	if (!outs) {
		kvfree(syncs);
		return ERR_PTR(-ENOMEM);
	}
	for (i = 0; i < array->count && !ret; i++) {
		outs[i].syncobj = drm_syncobj_find(filp, syncs[i].handle);
		outs[i].point = syncs[i].point;
		if (!outs[i].syncobj) {
			drm_dbg(drm, "out sync %u: no syncobj %u\n", i, syncs[i].handle);
			ret = -ENOENT;
			break;
		}
		if (outs[i].point) {
			outs[i].chain = dma_fence_chain_alloc();
			if (!outs[i].chain)
				ret = -ENOMEM;
		}
	}
	kvfree(syncs);
	if (ret) {
		npu_out_syncs_free(outs, array->count);
		return ERR_PTR(ret);
	}
	return outs;
}

/*
 * Gives the job to a queue of its file, and prepares it for the scheduler. Called with
 * npu_file.lock held.
 */
static int npu_job_attach(struct npu_job *job, struct drm_file *filp, u32 queue)
{
	struct npu_file *file = job->file;
	struct npu_queue *q;

	q = npu_file_queue(file, queue);
	if (IS_ERR(q))
		return PTR_ERR(q);
	job->queue = q;
	return drm_sched_job_init(&job->base, &job->queue->entity, job->count, file,
				  filp->client_id);
}

static int npu_use_compare(const void *a, const void *b)
{
	const struct npu_use *left = a, *right = b;

	return left->obj < right->obj ? -1 : left->obj > right->obj;
}

static void npu_reservation_unlock(struct npu_reservation *r)
{
	if (r->count)
		drm_gem_unlock_reservations(r->objs, r->count, &r->ctx);
	kvfree(r->objs);
	kvfree(r->uses);
}

/* Adds what the job has to wait for, and makes room for its fence. */
static int npu_reservation_prepare(struct npu_reservation *r, struct npu_job *job)
{
	int ret = 0;
	u32 i;

	for (i = 0; i < r->count && !ret; i++) {
		ret = dma_resv_reserve_fences(r->objs[i]->resv, 1);
		if (!ret && READ_ONCE(to_npu_bo(r->objs[i])->shared))
			ret = drm_sched_job_add_implicit_dependencies(&job->base, r->objs[i],
								      r->uses[i].write);
	}
	return ret;
}

/* Locks what the job needs; the job is prepared for the scheduler. */
static int npu_reservation_lock(struct npu_reservation *r, struct npu_job *job)
{
	u32 i, total = 0, count = 0;
	int ret;

	*r = (struct npu_reservation){};
	for (i = 0; i < job->count; i++)
		total += job->commands[i].use_count;
	if (!total)
		return 0;
	r->uses = kvmalloc_array(total, sizeof(*r->uses), GFP_KERNEL);
	r->objs = kvmalloc_array(total, sizeof(*r->objs), GFP_KERNEL);
	if (!r->uses || !r->objs) {
		ret = -ENOMEM;
		goto err;
	}
	for (i = 0; i < job->count; i++) {
		const struct npu_command *command = &job->commands[i];

		memcpy(r->uses + count, command->uses, command->use_count * sizeof(*r->uses));
		count += command->use_count;
	}
	sort(r->uses, total, sizeof(*r->uses), npu_use_compare, NULL);
	for (i = count = 0; i < total; i++) {
		if (count && r->objs[count - 1] == r->uses[i].obj) {
			r->uses[count - 1].write |= r->uses[i].write;
			continue;
		}
		r->objs[count] = r->uses[i].obj;
		r->uses[count++] = r->uses[i];
	}

	ret = drm_gem_lock_reservations(r->objs, count, &r->ctx);
	if (ret)
		goto err;
	r->count = count;
	ret = npu_reservation_prepare(r, job);
	if (!ret)
		return 0;
err:
	npu_reservation_unlock(r);
	return ret;
}

/* Hands the job to the scheduler; from here on it belongs to it. */
static u64 npu_job_push(struct npu_job *job, struct npu_reservation *r, struct npu_out_sync *outs,
			u32 count)
{
	struct npu_file *file = job->file;
	struct dma_fence *fence;
	u64 seqno;
	u32 i;

	lockdep_assert_held(&file->lock);

	drm_sched_job_arm(&job->base);
	fence = &job->base.s_fence->finished;

	spin_lock(&file->jobs_lock);
	seqno = ++file->seqno;
	job->seqno = seqno;
	*npu_job_record(file, seqno) = (struct drm_npu_job_status){ .seqno = seqno };
	spin_unlock(&file->jobs_lock);

	for (i = 0; i < r->count; i++)
		dma_resv_add_fence(r->objs[i]->resv, fence,
				   r->uses[i].write ? DMA_RESV_USAGE_WRITE : DMA_RESV_USAGE_READ);
	for (i = 0; i < count; i++) {
		if (outs[i].chain) {
			drm_syncobj_add_point(outs[i].syncobj, outs[i].chain, fence, outs[i].point);
			outs[i].chain = NULL; /* the syncobj owns it */
		} else {
			drm_syncobj_replace_fence(outs[i].syncobj, fence);
		}
	}
	atomic_inc(&job->queue->jobs);
	npu_stay_awake(job->npu); /* until it is freed */
	drm_sched_entity_push_job(&job->base);
	return seqno;
}

static int npu_submit(struct npu_device *npu, struct drm_npu_submit *args, struct drm_file *filp)
{
	struct npu_file *file = filp->driver_priv;
	struct npu_reservation r;
	struct npu_out_sync *outs;
	struct npu_job *job;
	int ret;

	outs = npu_out_syncs_create(&npu->drm, filp, &args->out_syncs);
	if (IS_ERR(outs))
		return PTR_ERR(outs);
	job = npu_job_create(npu, filp, &args->commands);
	if (IS_ERR(job)) {
		ret = PTR_ERR(job);
		goto out;
	}

	mutex_lock(&file->lock);
	ret = npu_job_attach(job, filp, args->queue);
	if (ret)
		goto err_unlock;
	ret = npu_job_add_in_syncs(job, filp, &args->in_syncs);
	if (!ret)
		ret = npu_reservation_lock(&r, job);
	if (ret) {
		drm_sched_job_cleanup(&job->base);
		goto err_unlock;
	}
	args->seqno = npu_job_push(job, &r, outs, args->out_syncs.count);
	npu_reservation_unlock(&r);
	mutex_unlock(&file->lock);
	goto out;

err_unlock:
	mutex_unlock(&file->lock);
	npu_job_free(job);
out:
	npu_out_syncs_free(outs, args->out_syncs.count);
	return ret;
}

/*
 * npu_job_clear zeroes device memory that the host cannot reach, by copies of a page of
 * zeros on the file's queue. size is a multiple of the page size, the device is awake.
 */
int npu_job_clear(struct npu_device *npu, struct drm_file *filp, u64 address, u64 size)
{
	struct npu_file *file = filp->driver_priv;
	u64 rows = size >> PAGE_SHIFT, done = 0;
	struct dma_fence *fence;
	struct npu_job *job;
	int ret = 0;

	while (done < rows && !ret) {
		u32 ny = min(rows - done, (u64)U16_MAX);
		struct npu_sqe *sqe;

		job = npu_job_alloc(npu, filp, 1);
		if (!job)
			return -ENOMEM;
		sqe = &job->commands[0].sqe;
		sqe->opcode = NPU_CMD_COPY;
		sqe->spaces = cpu_to_le32(FIELD_PREP(NPU_SPACES_FIRST, NPU_SPACE_BUS) |
					  FIELD_PREP(NPU_SPACES_SECOND, NPU_SPACE_DEVICE));
		sqe->copy.src = cpu_to_le64(npu->zeros_addr);
		sqe->copy.dst = cpu_to_le64(address + (done << PAGE_SHIFT));
		sqe->copy.nx = cpu_to_le32(PAGE_SIZE);
		sqe->copy.ny = cpu_to_le16(ny);
		sqe->copy.nz = cpu_to_le16(1);
		sqe->copy.dst_stride_y = cpu_to_le64(PAGE_SIZE);

		mutex_lock(&file->lock);
		ret = npu_job_attach(job, filp, 0);
		if (ret) {
			mutex_unlock(&file->lock);
			npu_job_free(job);
			return ret;
		}
		drm_sched_job_arm(&job->base);
		fence = dma_fence_get(&job->base.s_fence->finished);
		atomic_inc(&job->queue->jobs);
		npu_stay_awake(npu);
		drm_sched_entity_push_job(&job->base); /* with seqno 0 nobody can ask for it */
		mutex_unlock(&file->lock);
		dma_fence_wait(fence, false);
		ret = dma_fence_get_status(fence);
		dma_fence_put(fence);
		ret = ret < 0 ? -EIO : 0;
		done += ny;
	}
	return ret;
}

int npu_ioctl_submit(struct drm_device *drm, void *data, struct drm_file *filp)
{
	struct drm_npu_submit *args = data;
	int ret, idx;

	if (args->flags || args->seqno) {
		drm_dbg(drm, "reserved or out field is not zero\n");
		return -EINVAL;
	}
	if (!npu_enter(to_npu(drm), &idx))
		return -ENODEV;
	ret = npu_wake(to_npu(drm));
	if (!ret) {
		ret = npu_submit(to_npu(drm), args, filp);
		npu_relax(to_npu(drm));
	}
	drm_dev_exit(idx);
	return ret;
}
