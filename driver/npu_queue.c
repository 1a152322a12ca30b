// SPDX-License-Identifier: GPL-2.0-only
/*
 * User queues, §4.1 to §4.6: slots, their contexts and rings on the device, and
 * what happens to them when the device is reset. Rings are the bus's.
 */

#include <linux/bitfield.h>
#include <linux/capability.h>
#include <linux/iopoll.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_managed.h>

#include "npu_compat.h"
#include "npu_drv.h"

static int npu_queue_attach(struct npu_queue *q)
{
	int ret;

	ret = q->npu->ops->queue_alloc(q);
	if (ret)
		return ret;
	spin_lock(&q->lock);
	q->attached = !q->own; /* completions of others are not looked at */
	spin_unlock(&q->lock);
	return 0;
}

static void npu_queue_detach(struct npu_queue *q)
{
	spin_lock(&q->lock);
	q->attached = false;
	spin_unlock(&q->lock);
	q->npu->ops->queue_free(q);
}

static int npu_hw_destroy(struct npu_device *npu, u8 opcode, u32 number, unsigned int timeout_ms)
{
	struct npu_sqe sqe = { .opcode = opcode, .destroy.number = cpu_to_le32(number) };
	struct npu_reply reply;

	return npu_mbox_exec(npu, &sqe, &reply, timeout_ms);
}

/* Makes the queue on the device, in its context, with an empty ring. */
static int npu_hw_create_queue(struct npu_queue *q)
{
	struct npu_device *npu = q->npu;
	struct npu_sqe sqe = {
		.opcode = NPU_ADMIN_CREATE_QUEUE,
		.create_queue.number = cpu_to_le16(q->number),
		.create_queue.context = cpu_to_le32(q->context->number),
	};
	struct npu_reply reply;
	int ret;

	if (q->own) /* nobody else looks how long its commands take */
		sqe.create_queue.timeout = cpu_to_le32(npu_job_timeout_ms());
	spin_lock(&q->lock);
	npu->ops->queue_empty(q, &sqe);
	spin_unlock(&q->lock);

	ret = npu_mbox_exec(npu, &sqe, &reply, NPU_MBOX_TIMEOUT_MS);
	if (ret)
		return ret;

	spin_lock(&q->lock);
	q->live = true;
	spin_unlock(&q->lock);
	return 0;
}

/* npu_context_live says whether the device has the context; npu_device.lock is held. */
bool npu_context_live(struct npu_device *npu, struct npu_context *context)
{
	return context->generation == npu->generation;
}

static int npu_hw_create_context(struct npu_device *npu, struct npu_context *context)
{
	struct npu_sqe sqe = { .opcode = NPU_ADMIN_CREATE_CONTEXT };
	struct npu_reply reply;
	int ret;

	if (npu->mmu) {
		sqe.create_context.root = cpu_to_le64(context->root);
		sqe.create_context.flags = cpu_to_le32(NPU_CONTEXT_TRANSLATED | NPU_SPACE_BUS <<
						       NPU_CONTEXT_SPACE_SHIFT);
	}
	ret = npu_mbox_exec(npu, &sqe, &reply, NPU_MBOX_TIMEOUT_MS);
	if (ret)
		return ret;
	context->number = reply.result;
	context->generation = npu->generation;
	return 0;
}

static int npu_hw_destroy_context(struct npu_device *npu, struct npu_context *context)
{
	context->generation = 0;
	return npu_hw_destroy(npu, NPU_ADMIN_DESTROY_CONTEXT, context->number, NPU_MBOX_TIMEOUT_MS);
}

/* Makes the queue, and its context if it is the first in it. */
static int npu_hw_create(struct npu_queue *q)
{
	struct npu_device *npu = q->npu;
	int ret;

	if (!npu_context_live(npu, q->context)) {
		ret = npu_hw_create_context(npu, q->context);
		if (ret)
			return ret;
	}
	ret = npu_hw_create_queue(q);
	if (ret && !q->context->queues)
		npu_hw_destroy_context(npu, q->context);
	return ret;
}

/* From here on nobody submits to the queue. */
static void npu_queue_kill(struct npu_queue *q)
{
	spin_lock(&q->lock);
	q->live = false;
	spin_unlock(&q->lock);
}

/*
 * The queue no longer exists on the device: takes the completions that it left,
 * then ends the jobs that have none. guilty gets -ETIMEDOUT, the others error.
 */
static void npu_queue_end(struct npu_queue *q, struct drm_sched_job *guilty, int error)
{
	npu_queue_kill(q);
	npu_queue_poll(q);
	npu_queue_cancel(q, guilty, error);
	npu_user_end(q);
}

/* Destroying a queue waits for the command that it executes. */
static int npu_hw_destroy_queue(struct npu_queue *q)
{
	npu_queue_kill(q);
	return npu_hw_destroy(q->npu, NPU_ADMIN_DESTROY_QUEUE, q->number,
			      NPU_MBOX_TIMEOUT_MS + npu_job_timeout_ms());
}

/* Makes what feeds the queue: a scheduler, or the process. */
static int npu_queue_init_feed(struct npu_queue *q, struct npu_file *file)
{
	struct npu_device *npu = q->npu;
	struct drm_gpu_scheduler *sched = &q->sched;
	int ret;

	if (q->own)
		return npu_user_init(q, file);
	ret = npu_sched_init(&q->sched, &npu_sched_ops, npu->submit_wq, npu->params.credits,
			     msecs_to_jiffies(npu_job_timeout_ms()), npu->reset_wq, DRM_NPU_NAME,
			     npu->drm.dev);
	if (ret)
		return ret;
	ret = drm_sched_entity_init(&q->entity, DRM_SCHED_PRIORITY_NORMAL, &sched, 1, NULL);
	if (ret)
		drm_sched_fini(&q->sched);
	return ret;
}

static void npu_queue_fini_feed(struct npu_queue *q)
{
	if (q->own) {
		npu_user_fini(q);
		return;
	}
	drm_sched_entity_destroy(&q->entity);
	drm_sched_fini(&q->sched);
}

/**
 * npu_queue_acquire - get a queue for a file
 * @file: file
 * @handle: number of the queue in it
 * @own: the process drives it; it keeps the device awake
 *
 * The device is awake.
 *
 * Return: the queue, to be given back with npu_queue_release(). -EBUSY when all
 * queues or contexts are in use, -EIO when the device did not survive a reset.
 */
struct npu_queue *npu_queue_acquire(struct npu_file *file, u32 handle, bool own)
{
	struct npu_context *context = &file->context;
	struct npu_device *npu = file->npu;
	struct npu_queue *q = NULL;
	u32 i;
	int ret;

	ret = npu_vm_start(&file->vm);
	if (ret)
		return ERR_PTR(ret);
	mutex_lock(&npu->lock);
	if (!npu->up) {
		ret = -EIO;
		goto err_unlock;
	}
	for (i = 0; i < npu->params.queues && !q; i++)
		if (!npu->queues[i].allocated)
			q = &npu->queues[i];
	if (!q) {
		drm_dbg(&npu->drm, "all %u queues are in use\n", npu->params.queues);
		ret = -EBUSY;
		goto err_unlock;
	}

	q->own = own;
	ret = npu_queue_attach(q);
	if (ret)
		goto err_unlock;
	ret = npu_queue_init_feed(q, file);
	if (ret)
		goto err_detach;
	q->context = context;
	q->handle = handle;
	ret = npu_hw_create(q);
	if (ret)
		goto err_fini_feed;
	context->queues++;
	q->allocated = true;
	q->active = !own;
	if (own)
		npu_stay_awake(npu);
	mutex_unlock(&npu->lock);
	return q;

err_fini_feed:
	npu_queue_fini_feed(q);
err_detach:
	npu_queue_detach(q);
err_unlock:
	if (ret == -ETIMEDOUT || ret == -EIO) { /* no more commands before a reset */
		npu_schedule_recovery(npu, NPU_RECOVER_RESET);
		ret = -EIO;
	}
	mutex_unlock(&npu->lock);
	return ERR_PTR(ret);
}

/**
 * npu_queue_release - give back a queue
 * @q: queue that nobody submits to any more
 *
 * Jobs that wait are given a second, then they and the running ones are
 * cancelled.
 */
void npu_queue_release(struct npu_queue *q)
{
	struct npu_device *npu = q->npu;
	struct npu_context *context = q->context;
	bool awake = !npu_wake(npu);
	int ret = 0;

	if (q->own)
		npu_user_fini(q);
	else
		drm_sched_entity_destroy(&q->entity);

	mutex_lock(&npu->lock);
	q->active = false;
	if (q->live)
		ret = npu_hw_destroy_queue(q);
	if (!--context->queues && npu_context_live(npu, context) && !ret)
		ret = npu_hw_destroy_context(npu, context);
	if (ret && npu->up) {
		drm_err(&npu->drm, "queue %u cannot be destroyed: %d\n", q->number, ret);
		npu_reset_locked(npu, NULL);
	}
	npu_queue_end(q, NULL, -ECANCELED);
	mutex_unlock(&npu->lock);

	wait_event(q->idle, !atomic_read(&q->jobs));
	if (q->own)
		npu_relax(npu);
	else
		drm_sched_fini(&q->sched);

	mutex_lock(&npu->lock);
	npu_queue_detach(q);
	q->allocated = false;
	mutex_unlock(&npu->lock);
	if (awake)
		npu_relax(npu);
}

/**
 * npu_queue_recover - bring back a queue that is in the error state (§9.2)
 * @q: queue
 *
 * Its jobs on the device fail with -EIO; those that wait run afterwards. Called
 * with npu_device.lock held.
 *
 * Return: 0, or an error after which the device needs a reset.
 */
int npu_queue_recover(struct npu_queue *q)
{
	int ret;

	lockdep_assert_held(&q->npu->lock);

	if (!q->allocated || !q->live)
		return 0;
	if (q->own) { /* the process makes another */
		ret = npu_hw_destroy_queue(q);
		if (!ret)
			npu_queue_end(q, NULL, -EIO);
		return ret;
	}
	if (!q->active)
		return 0;
	drm_sched_wqueue_stop(&q->sched);
	ret = npu_hw_destroy_queue(q);
	if (!ret) {
		npu_queue_end(q, NULL, -EIO);
		ret = npu_hw_create_queue(q);
	}
	drm_sched_wqueue_start(&q->sched);
	return ret;
}

/* Whether a queue is in the error state with all others of its context. */
static bool npu_context_faulted(struct npu_queue *bad)
{
	struct npu_device *npu = bad->npu;
	u32 i;

	for (i = 0; i < npu->params.queues && !bad->held; i++) {
		struct npu_queue *q = &npu->queues[i];

		if (q != bad && q->allocated && q->context == bad->context && q->live &&
		    !test_bit(i, npu->faulted))
			return false;
	}
	return true;
}

/**
 * npu_context_recover - bring back a context that has faulted (§11.5)
 * @bad: a queue of it, or one that failed by itself, or that nobody has any more
 *
 * Queues in the error state are in npu_device.faulted, but for @bad. The job that faulted ends
 * with what its command says. The others of the context go on where they were: what has no
 * completion has not begun. Called with npu_device.lock held.
 *
 * Return: 0, or an error after which the device needs a reset.
 */
int npu_context_recover(struct npu_queue *bad)
{
	struct npu_device *npu = bad->npu;
	struct npu_context *context = bad->context;
	struct npu_queue *q, *end = npu->queues + npu->params.queues;
	int ret = 0;

	lockdep_assert_held(&npu->lock);

	if (!bad->allocated || !npu_context_live(npu, context))
		return 0;
	if (!npu_context_faulted(bad))
		return npu_queue_recover(bad);
	for (q = npu->queues; q < end; q++) {
		if (!q->active || q->context != context)
			continue;
		drm_sched_wqueue_stop(&q->sched);
		spin_lock(&q->lock);
		q->resuming = true;
		spin_unlock(&q->lock);
	}
	for (q = npu->queues; q < end && !ret; q++)
		if (q->allocated && q->context == context && q->live)
			ret = npu_hw_destroy_queue(q);
	if (!ret)
		ret = npu_hw_destroy_context(npu, context);
	for (q = npu->queues; q < end && !ret; q++)
		if (q->allocated && q->context == context)
			npu_queue_poll(q);
	if (!ret)
		npu_fault_note(npu, context);
	for (q = npu->queues; q < end && !ret; q++) {
		if (!q->allocated || q->context != context)
			continue;
		clear_bit(q->number - 1, npu->faulted);
		if (q->active)
			ret = npu_hw_create(q);
		else if (q->own) /* the process makes another */
			npu_queue_end(q, NULL, -EIO);
	}
	for (q = npu->queues; q < end; q++) {
		if (!q->active || q->context != context)
			continue;
		npu_queue_resume(q, !ret);
		drm_sched_wqueue_start(&q->sched);
	}
	return ret;
}

/* npu_queues_stop keeps new jobs from the device until npu_queues_start(). */
void npu_queues_stop(struct npu_device *npu)
{
	u32 i;

	lockdep_assert_held(&npu->lock);

	for (i = 0; i < npu->params.queues; i++)
		if (npu->queues[i].active)
			drm_sched_wqueue_stop(&npu->queues[i].sched);
}

/*
 * npu_queues_cancel ends all jobs that the device had: with -ETIMEDOUT the guilty
 * one, which may be NULL, the others with error. The device no longer touches memory.
 */
void npu_queues_cancel(struct npu_device *npu, struct drm_sched_job *guilty, int error)
{
	u32 i;

	lockdep_assert_held(&npu->lock);

	for (i = 0; i < npu->params.queues; i++) {
		struct npu_queue *q = &npu->queues[i];

		if (q->active || (q->allocated && q->own))
			npu_queue_end(q, guilty, error);
	}
}

/* npu_queues_start lets jobs run. The scheduler skip, which may be NULL, is left stopped. */
void npu_queues_start(struct npu_device *npu, struct drm_gpu_scheduler *skip)
{
	u32 i;

	lockdep_assert_held(&npu->lock);

	for (i = 0; i < npu->params.queues; i++)
		if (npu->queues[i].active && &npu->queues[i].sched != skip)
			drm_sched_wqueue_start(&npu->queues[i].sched);
}

static bool npu_queues_idle(struct npu_device *npu)
{
	bool idle = true;
	u32 i;

	for (i = 0; i < npu->params.queues && idle; i++) {
		struct npu_queue *q = &npu->queues[i];

		if (!q->active)
			continue;
		npu_queue_poll(q);
		spin_lock(&q->lock);
		idle = list_empty(&q->inflight);
		spin_unlock(&q->lock);
	}
	return idle;
}

/* npu_queues_drain waits for the jobs on the device; new ones are kept from it. */
int npu_queues_drain(struct npu_device *npu, unsigned int timeout_ms)
{
	bool idle;

	return read_poll_timeout(npu_queues_idle, idle, idle, 2000, timeout_ms * USEC_PER_MSEC,
				 false, npu);
}

/*
 * npu_queues_restart makes the queues again if the device is up, and lets their jobs run or
 * fail, as npu_queues_start() does.
 */
void npu_queues_restart(struct npu_device *npu, struct drm_gpu_scheduler *skip)
{
	u32 i;
	int ret;

	lockdep_assert_held(&npu->lock);

	for (i = 0; i < npu->params.queues; i++) {
		struct npu_queue *q = &npu->queues[i];

		if (!q->active)
			continue;
		if (npu->up) {
			ret = npu_hw_create(q);
			if (ret)
				drm_err(&npu->drm, "queue %u is lost: %d\n", q->number, ret);
		}
	}
	npu_queues_start(npu, skip);
}

/* npu_queues_free returns how many more queues there can be. */
unsigned int npu_queues_free(struct npu_device *npu)
{
	unsigned int used = 0;
	u32 i;

	mutex_lock(&npu->lock);
	for (i = 0; i < npu->params.queues; i++)
		used += npu->queues[i].allocated;
	mutex_unlock(&npu->lock);
	return npu->params.queues - used;
}

/* Queues of files. */

/*
 * npu_file_queue returns the file's queue of this number, or an error; the implicit one is
 * made if it is not there. Called with npu_file.lock held.
 */
struct npu_queue *npu_file_queue(struct npu_file *file, u32 number)
{
	struct npu_queue *q = xa_load(&file->queues, number);
	int ret;

	lockdep_assert_held(&file->lock);

	if (q)
		return q;
	if (number) {
		drm_dbg(&file->npu->drm, "no queue %u\n", number);
		return ERR_PTR(-ENOENT);
	}
	ret = xa_reserve(&file->queues, number, GFP_KERNEL);
	if (ret)
		return ERR_PTR(ret);
	q = npu_queue_acquire(file, number, false);
	if (IS_ERR(q))
		xa_release(&file->queues, number);
	else
		xa_store(&file->queues, number, q, GFP_KERNEL);
	return q;
}

/* npu_file_release_queues gives all queues of the file back. */
void npu_file_release_queues(struct npu_file *file)
{
	struct npu_queue *q;
	unsigned long number;

	mutex_lock(&file->lock);
	xa_for_each(&file->queues, number, q) {
		xa_erase(&file->queues, number);
		npu_queue_release(q);
	}
	mutex_unlock(&file->lock);
}

static int npu_queue_create(struct npu_file *file, u32 *number, bool own)
{
	struct npu_queue *q;
	int ret;

	mutex_lock(&file->lock);
	ret = xa_alloc(&file->queues, number, NULL, XA_LIMIT(1, U32_MAX), GFP_KERNEL);
	if (ret)
		goto out;
	q = npu_queue_acquire(file, *number, own);
	if (IS_ERR(q)) {
		xa_release(&file->queues, *number);
		ret = PTR_ERR(q);
		goto out;
	}
	xa_store(&file->queues, *number, q, GFP_KERNEL);
out:
	mutex_unlock(&file->lock);
	return ret;
}

int npu_ioctl_queue_create(struct drm_device *drm, void *data, struct drm_file *filp)
{
	struct drm_npu_queue_create *args = data;
	int ret, idx;

	if (args->flags & ~DRM_NPU_QUEUE_USER || args->pad || args->queue) {
		drm_dbg(drm, "unknown flags 0x%x, or reserved or out field is not zero\n",
			args->flags);
		return -EINVAL;
	}
	if (args->priority > DRM_NPU_PRIORITY_MAX) {
		drm_dbg(drm, "unknown priority %u\n", args->priority);
		return -EINVAL;
	}
	if (args->priority != DRM_NPU_PRIORITY_DEFAULT) {
		drm_dbg(drm, "priority %u: the device has none\n", args->priority);
		return capable(CAP_SYS_NICE) ? -EOPNOTSUPP : -EACCES;
	}
	if (args->flags & DRM_NPU_QUEUE_USER && !npu_user_supported(to_npu(drm))) {
		drm_dbg(drm, "the device has no queues for processes\n");
		return -EOPNOTSUPP;
	}
	if (!npu_enter(to_npu(drm), &idx))
		return -ENODEV;
	ret = npu_wake(to_npu(drm));
	if (!ret) {
		ret = npu_queue_create(filp->driver_priv, &args->queue,
				       args->flags & DRM_NPU_QUEUE_USER);
		npu_relax(to_npu(drm));
	}
	drm_dev_exit(idx);
	return ret;
}

int npu_ioctl_queue_destroy(struct drm_device *drm, void *data, struct drm_file *filp)
{
	struct drm_npu_queue_destroy *args = data;
	struct npu_file *file = filp->driver_priv;
	struct npu_queue *q = NULL;
	int idx;

	if (args->pad) {
		drm_dbg(drm, "pad is not zero\n");
		return -EINVAL;
	}
	if (!npu_enter(to_npu(drm), &idx))
		return -ENODEV;
	mutex_lock(&file->lock);
	if (args->queue)
		q = xa_erase(&file->queues, args->queue);
	mutex_unlock(&file->lock);
	if (q)
		npu_queue_release(q);
	drm_dev_exit(idx);
	return q ? 0 : -ENOENT;
}

static void npu_queues_destroy_wq(void *wq)
{
	destroy_workqueue(wq);
}

static struct workqueue_struct *npu_queues_alloc_wq(struct npu_device *npu, const char *name)
{
	struct workqueue_struct *wq = alloc_ordered_workqueue("%s", WQ_MEM_RECLAIM, name);
	int ret;

	if (!wq)
		return ERR_PTR(-ENOMEM);
	ret = devm_add_action_or_reset(npu->drm.dev, npu_queues_destroy_wq, wq);
	return ret ? ERR_PTR(ret) : wq;
}

/* npu_queues_init makes the slots. */
int npu_queues_init(struct npu_device *npu)
{
	u32 i;

	npu->queues = drmm_kcalloc(&npu->drm, npu->params.queues, sizeof(*npu->queues), GFP_KERNEL);
	npu->faulted = drmm_kcalloc(&npu->drm, BITS_TO_LONGS(npu->params.queues),
				    sizeof(*npu->faulted), GFP_KERNEL);
	if (!npu->queues || !npu->faulted)
		return -ENOMEM;
	for (i = 0; i < npu->params.queues; i++) {
		struct npu_queue *q = &npu->queues[i];

		q->npu = npu;
		q->number = i + 1;
		spin_lock_init(&q->lock);
		mutex_init(&q->user_lock);
		INIT_LIST_HEAD(&q->inflight);
		init_waitqueue_head(&q->idle);
		q->fence_context = dma_fence_context_alloc(1);
	}

	npu->submit_wq = npu_queues_alloc_wq(npu, "npu_submit");
	if (IS_ERR(npu->submit_wq))
		return PTR_ERR(npu->submit_wq);
	npu->reset_wq = npu_queues_alloc_wq(npu, "npu_reset");
	if (IS_ERR(npu->reset_wq))
		return PTR_ERR(npu->reset_wq);
	npu->vm_wq = npu_queues_alloc_wq(npu, "npu_vm");
	return PTR_ERR_OR_ZERO(npu->vm_wq);
}
