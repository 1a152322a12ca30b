// SPDX-License-Identifier: GPL-2.0-only
/*
 * Jobs: the DRM scheduler decides when they go to the device; completions, timeouts
 * and resets end them. npu_submit.c makes them.
 */

#include <linux/bitfield.h>
#include <linux/module.h>

#include <drm/drm_file.h>

#include "npu_compat.h"
#include "npu_job.h"

static uint job_timeout_ms = 30000;
module_param(job_timeout_ms, uint, 0644);
MODULE_PARM_DESC(job_timeout_ms,
		 "Milliseconds a command may take, or a job if only the driver watches; read when a queue is made");

static struct npu_job *to_npu_job(struct drm_sched_job *job)
{
	return container_of(job, struct npu_job, base);
}

/* npu_job_timeout_ms returns the module parameter within what the scheduler takes. */
int npu_job_timeout_ms(void)
{
	return clamp(READ_ONCE(job_timeout_ms), 1U, NPU_MAX_TIMEOUT_MS);
}

static const char *npu_fence_driver_name(struct dma_fence *fence)
{
	return DRM_NPU_NAME;
}

static const char *npu_fence_timeline_name(struct dma_fence *fence)
{
	return "queue";
}

/*
 * A fence may outlive file, queue and device, for instance in a sync file, so each one that was
 * initialized keeps the module, whose code this is. Once the last one has let go the module may
 * be unloaded while its processor is still on the way back from here: npu_module_exit() waits.
 */
static void npu_fence_release(struct dma_fence *fence)
{
	dma_fence_free(fence);
	module_put(THIS_MODULE);
}

static const struct dma_fence_ops npu_fence_ops = {
	.get_driver_name = npu_fence_driver_name,
	.get_timeline_name = npu_fence_timeline_name,
	.release = npu_fence_release,
};

/* Initializes the fence of a job of the queue; npu_queue.lock is held. */
static void npu_fence_init(struct npu_fence *fence, struct npu_queue *q)
{
	__module_get(THIS_MODULE); /* the job's file, or who closes it, has it */
	dma_fence_init(&fence->base, &npu_fence_ops, &fence->lock, q->fence_context,
		       ++q->fence_seqno);
}

/* Statuses. */

static struct drm_npu_job_status *npu_job_record(struct npu_file *file, u64 seqno)
{
	return &file->jobs[seqno % NPU_JOB_RECORDS];
}

/* npu_job_number gives the job the next number of its file, by which it can be asked for. */
u64 npu_job_number(struct npu_job *job)
{
	struct npu_file *file = job->file;

	spin_lock(&file->jobs_lock);
	job->seqno = ++file->seqno;
	*npu_job_record(file, job->seqno) = (struct drm_npu_job_status){ .seqno = job->seqno };
	spin_unlock(&file->jobs_lock);
	return job->seqno;
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

/*
 * Charges the job's file for the command that has ended. The device executes one at a time, so
 * it was at this one since the queue had commands, or since the last one of any queue ended: no
 * time is charged twice. npu_queue.lock is held.
 */
static void npu_job_account(struct npu_job *job)
{
	struct npu_device *npu = job->npu;
	ktime_t now, since;

	spin_lock(&npu->busy_lock);
	now = ktime_get();
	since = ktime_after(job->queue->busy_since, npu->charged) ? job->queue->busy_since :
								    npu->charged;
	npu->charged = now;
	spin_unlock(&npu->busy_lock);
	atomic64_add(ktime_to_ns(ktime_sub(now, since)), &job->file->busy_ns);
}

/* Ends a job that the device has forgotten, and that was on the list of its queue. */
static void npu_job_cancel(struct npu_job *job, int error)
{
	bool done = job->completed == job->count;

	if (job->faulted) {
		npu_job_complete(job, npu_status_errno(job->status.status));
		return;
	}
	if (!done && !job->status.status)
		job->status = (struct drm_npu_job_status){
			.command = job->completed,
			.cycles = job->status.cycles,
			.time = job->status.time,
		};
	if (done && !job->status.status) {
		error = 0; /* it was late, but not too late */
	} else if (job->late && error != -ENODEV) {
		error = -ETIMEDOUT;
		atomic_inc(&job->npu->timeouts);
		atomic_inc(&job->file->timeouts);
	} else if (done) {
		error = npu_status_errno(job->status.status);
	}
	npu_job_complete(job, error);
}

/* npu_queue_cancel ends all jobs on the device, which has forgotten them. */
void npu_queue_cancel(struct npu_queue *q, int error)
{
	struct npu_job *job, *next;
	LIST_HEAD(jobs);

	spin_lock(&q->lock);
	list_splice_init(&q->inflight, &jobs);
	q->held = false;
	spin_unlock(&q->lock);

	list_for_each_entry_safe(job, next, &jobs, node) {
		list_del(&job->node);
		npu_job_cancel(job, error);
	}
}

/*
 * npu_queue_end_faulted ends the job whose command faulted, if there is one. The context is no
 * longer on the device.
 */
void npu_queue_end_faulted(struct npu_queue *q)
{
	struct npu_job *job;

	spin_lock(&q->lock);
	q->held = false;
	job = list_first_entry_or_null(&q->inflight, struct npu_job, node);
	if (job && job->faulted)
		list_del(&job->node);
	else
		job = NULL;
	spin_unlock(&q->lock);
	if (job)
		npu_job_cancel(job, 0);
}

/*
 * npu_queue_interrupt ends the job that may have started, after a reset of the device, and those
 * behind it if it was late. What is left has not started: npu_queue_repeat() repeats it.
 */
void npu_queue_interrupt(struct npu_queue *q, int error)
{
	struct npu_job *job = NULL;
	bool late;

	spin_lock(&q->lock);
	late = q->late;
	if (!late)
		job = list_first_entry_or_null(&q->inflight, struct npu_job, node);
	if (job) {
		npu_job_account(job);
		list_del(&job->node);
		q->held = false;
	}
	spin_unlock(&q->lock);

	if (late)
		npu_queue_cancel(q, error);
	else if (job)
		npu_job_cancel(job, error);
}

/* The command that the device is at, or that was late; npu_queue.lock is held. */
static u32 npu_job_command(struct npu_job *job)
{
	return job->status.status == NPU_STATUS_TIMEOUT ? job->status.command : job->completed;
}

/* npu_queue_report_late tells of the job that was late; npu_device.lock is held. */
void npu_queue_report_late(struct npu_queue *q)
{
	struct npu_job *job;

	spin_lock(&q->lock);
	list_for_each_entry(job, &q->inflight, node)
		if (job->late)
			dev_err_ratelimited(q->npu->drm.dev,
					    "queue %u: job %llu of client %llu did not end in time, command %u of %u\n",
					    q->number, job->seqno, job->file->client_id,
					    npu_job_command(job), job->count);
	spin_unlock(&q->lock);
	npu_dump(q->npu, "a job did not end in time");
}

/* The job whose completion comes next. A late or faulted one may be complete, and still listed. */
static struct npu_job *npu_queue_next(struct npu_queue *q)
{
	struct npu_job *job;

	list_for_each_entry(job, &q->inflight, node)
		if (job->completed < job->count)
			return job;
	return NULL;
}

/*
 * From here on jobs of the queue do not end with their last completion, so that those behind the
 * late one end after it; npu_queue.lock is held.
 */
static void npu_job_set_late(struct npu_job *job)
{
	job->late = true;
	job->queue->late = true;
}

/* Books one completion; returns the job if it was the last one of it. */
static struct npu_job *npu_queue_take(struct npu_queue *q, const struct npu_cqe *cqe)
{
	struct npu_device *npu = q->npu;
	u32 status = FIELD_GET(NPU_CQE_STATUS, le16_to_cpu(cqe->status));
	struct npu_job *job = npu_queue_next(q);

	if (q->resuming && status == NPU_STATUS_ABORTED) /* had not begun (§10.5) */
		return NULL;
	if (!job || le16_to_cpu(cqe->command_id) != job->command_id) {
		dev_err_ratelimited(npu->drm.dev,
				    "queue %u: completion for command %u, which is not next\n",
				    q->number, le16_to_cpu(cqe->command_id));
		npu_schedule_recovery(npu, NPU_RECOVER_RESET);
		return NULL;
	}

	job->status.cycles += le32_to_cpu(cqe->cycles);
	if (cqe->time)
		job->status.time = le64_to_cpu(cqe->time);
	/* None has failed yet, or this one ends the job. */
	if (!job->status.status || status == NPU_STATUS_TIMEOUT) {
		job->status.command = job->completed;
		job->status.status = status;
		job->status.result = le32_to_cpu(cqe->result);
		job->status.info = le64_to_cpu(cqe->info);
		if (status)
			drm_dbg(&npu->drm, "queue %u: command: %s (0x%02x), result %u, info 0x%llx\n",
				q->number, npu_status_name(status), status, job->status.result,
				job->status.info);
	}
	if (status == NPU_STATUS_POISON && npu->ops->silent_errors)
		npu_health_check(npu);
	if (status == NPU_STATUS_TIMEOUT) { /* the device has suspended the queue, §4.14 */
		npu_job_set_late(job);
		npu_schedule_queue_recovery(q);
	}
	npu_job_account(job);
	job->command_id++;
	job->completed++;
	if (npu_fault_of_context(q, status)) { /* nothing follows, until there is a new context */
		job->faulted = true;
		q->held = true;
		if (q->live)
			npu_schedule_recovery(npu, NPU_RECOVER_CONTEXTS);
		return NULL;
	}
	if (job->completed < job->count || q->late || q->held)
		return NULL;
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
	drm_printf(p, "  priority %u, weight %u, timeout %u ms\n", q->priority, q->weight,
		   q->timeout_ms);
	if (q->own)
		drm_printf(p, "  driven by its process\n");
	else
		q->npu->ops->queue_print(q, p);
	list_for_each_entry(job, &q->inflight, node) {
		drm_printf(p, "  job %llu of client %llu: %u of %u commands done, next id %u%s\n",
			   job->seqno, job->file->client_id, job->completed, job->count,
			   job->command_id, job->late ? ", late" : "");
		if (!list_is_first(&job->node, &q->inflight))
			continue;
		i = npu_job_command(job);
		end = min(job->count, i + NPU_PRINT_COMMANDS);
		for (; i < end; i++)
			drm_printf(p, "    command %u: opcode 0x%02x, %*phN\n", i,
				   job->commands[i].sqe.opcode, (int)sizeof(struct npu_sqe),
				   &job->commands[i].sqe);
	}
	spin_unlock(&q->lock);
}

/* Scheduler. */

/*
 * Gives the job's commands to the device, but for those that it has executed; it is told later.
 * npu_queue.lock is held.
 */
static void npu_job_push(struct npu_job *job)
{
	struct npu_queue *q = job->queue;
	u32 i;

	job->command_id = q->command_id;
	for (i = job->completed; i < job->count; i++) {
		job->commands[i].sqe.command_id = cpu_to_le16(q->command_id++);
		q->npu->ops->queue_push(q, &job->commands[i].sqe);
	}
}

/* npu_queue_repeat gives the jobs that are left to a queue that was made again. */
void npu_queue_repeat(struct npu_queue *q)
{
	struct npu_job *job;

	spin_lock(&q->lock);
	q->busy_since = ktime_get();
	list_for_each_entry(job, &q->inflight, node)
		npu_job_push(job);
	if (!list_empty(&q->inflight))
		q->npu->ops->queue_kick(q);
	spin_unlock(&q->lock);
}

static struct dma_fence *npu_job_run(struct drm_sched_job *sched_job)
{
	struct npu_job *job = to_npu_job(sched_job);
	struct npu_queue *q = job->queue;
	int ret;

	spin_lock(&q->lock);
	if (!q->live) {
		spin_unlock(&q->lock);
		ret = READ_ONCE(job->npu->gone) ? -ENODEV : -EIO;
		npu_job_set_status(job, ret);
		return ERR_PTR(ret);
	}
	npu_fence_init(job->fence, q);
	job->started = true;
	if (list_empty(&q->inflight))
		q->busy_since = ktime_get();
	list_add_tail(&job->node, &q->inflight);
	npu_job_push(job);
	job->npu->ops->queue_kick(q);
	spin_unlock(&q->lock);

	/* One reference for the scheduler, one stays with the job. */
	return dma_fence_get(&job->fence->base);
}

/*
 * Says whether a job that did not end for a while hangs. If the device says what it works on,
 * that is so when two looks find the same command in flight; a job may as well wait for its turn
 * behind those of others, for as long as it takes. Otherwise the time alone counts. A queue in
 * the error state may have got there by another one of its context: recovery finds out who is
 * to blame, and ends or repeats the job.
 */
static bool npu_job_hangs(struct npu_job *job)
{
	struct npu_queue *q = job->queue;
	struct npu_queue_status status;
	u32 look = 1 + job->completed;
	int ret;

	if (!npu_has_queue_control(q->npu))
		return true;
	ret = npu_queue_read_status(q, &status);
	if (!ret && status.state == NPU_QUEUE_STATE_ERROR) {
		npu_schedule_recovery(q->npu, NPU_RECOVER_CONTEXTS);
		return false;
	}
	if (ret || status.state != NPU_QUEUE_STATE_ENABLED)
		return true; /* nothing would ever happen */
	if (!(status.flags & NPU_QUEUE_FLAG_IN_FLIGHT))
		look = 0;
	swap(job->looked_at, look);
	return look && job->looked_at == look;
}

static enum drm_gpu_sched_stat npu_job_timedout(struct drm_sched_job *sched_job)
{
	struct npu_job *job = to_npu_job(sched_job);
	struct npu_device *npu = job->npu;
	struct npu_queue *q = job->queue;
	enum drm_gpu_sched_stat stat;
	struct npu_signalling s;

	npu_signalling_begin(npu, &s);
	mutex_lock(&npu->lock);
	npu_queue_poll(q);
	/* A queue that is late, held, or not live, is about to be recovered. */
	if (job->started && !dma_fence_is_signaled(&job->fence->base) && !q->late && !q->held &&
	    q->live && npu_job_hangs(job)) {
		spin_lock(&q->lock);
		npu_job_set_late(job);
		spin_unlock(&q->lock);
		if (npu_queue_recover(q))
			npu_reset_locked(npu);
	}
	stat = npu_sched_take_back(sched_job); /* with the lock: see there */
	mutex_unlock(&npu->lock);
	npu_signalling_end(&s);
	return stat;
}

/* npu_job_alloc makes a job of empty commands, or returns NULL. */
struct npu_job *npu_job_alloc(struct npu_device *npu, struct drm_file *filp, u32 count)
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

/* npu_job_free frees a job that the scheduler does not know, or no more. */
void npu_job_free(struct npu_job *job)
{
	u32 i, k;

	for (i = 0; i < job->count; i++) {
		struct npu_command *command = &job->commands[i];

		for (k = 0; k < command->use_count; k++) {
			if (command->uses[k].mapping)
				npu_vm_put(command->uses[k].mapping);
			npu_gem_put_later(to_npu_bo(command->uses[k].obj));
		}
		kfree(command->uses);
		if (command->slot)
			npu_slot_put(&job->file->vm, command->slot);
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

