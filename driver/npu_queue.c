// SPDX-License-Identifier: GPL-2.0-only
/*
 * User queues, §4.1 to §4.6: slots, their contexts and rings on the device, and
 * what happens to them when the device is reset. Rings are the bus's.
 */

#include <linux/bitfield.h>
#include <linux/capability.h>
#include <linux/iopoll.h>
#include <linux/module.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_managed.h>

#include "npu_compat.h"
#include "npu_drv.h"

/* Firmware interface that knows priorities, weights and timeouts of queues. */
#define NPU_FW_MINOR_QUEUE_CONTROL	2

/* How much later than the device the driver looks whether a job hangs. */
#define NPU_TIMEOUT_GRACE_MS		2000

static bool npu_queue_timeouts = true;
module_param_named(queue_timeouts, npu_queue_timeouts, bool, 0444);
MODULE_PARM_DESC(queue_timeouts,
		 "Have the device end commands that take too long, where it can (default true)");

/* npu_has_queue_control says whether queues have priorities, weights and a status (§4.12). */
bool npu_has_queue_control(struct npu_device *npu)
{
	return npu->params.features & NPU_FEATURES_LO_QUEUE_CONTROL &&
	       FIELD_GET(NPU_FW_VERSION_MINOR, npu->fw_version) >= NPU_FW_MINOR_QUEUE_CONTROL;
}

/* npu_has_queue_timeouts says whether the device ends commands that take too long (§4.14). */
bool npu_has_queue_timeouts(struct npu_device *npu)
{
	return npu_queue_timeouts && npu_has_queue_control(npu);
}

/* Says whether completions may be looked for; those of a process's queue are not. */
static void npu_queue_set_attached(struct npu_queue *q, bool attached)
{
	spin_lock(&q->lock);
	q->attached = attached && !q->own;
	spin_unlock(&q->lock);
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

	if (npu_has_queue_control(npu)) {
		sqe.create_queue.priority = q->priority;
		sqe.create_queue.weight = q->weight;
		if (npu_has_queue_timeouts(npu) || q->own) /* where nobody else looks */
			sqe.create_queue.timeout = cpu_to_le32(q->timeout_ms);
	}
	spin_lock(&q->lock);
	npu->ops->queue_empty(q, &sqe);
	spin_unlock(&q->lock);

	clear_bit(q->number - 1, npu->faulted); /* of who had the number before */
	ret = npu_mbox_exec(npu, &sqe, &reply, NPU_MBOX_TIMEOUT_MS);
	if (ret)
		return ret;

	spin_lock(&q->lock);
	q->live = true;
	q->late = false;
	q->resuming = false;
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
 * then ends the jobs that have none, with -ETIMEDOUT the late one, the others with error.
 */
static void npu_queue_end(struct npu_queue *q, int error)
{
	npu_queue_kill(q);
	npu_queue_poll(q);
	npu_queue_cancel(q, error);
	npu_user_end(q);
}

/* Destroying a queue stops the command that it executes, and waits for that (§4.6). */
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
	u32 timeout_ms = q->timeout_ms;
	int ret;

	if (q->own)
		return npu_user_init(q, file);
	if (npu_has_queue_timeouts(npu))
		timeout_ms += NPU_TIMEOUT_GRACE_MS;
	ret = npu_sched_init(&q->sched, &npu_sched_ops, npu->submit_wq, npu->params.credits,
			     msecs_to_jiffies(timeout_ms), npu->reset_wq, DRM_NPU_NAME,
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

/* Takes a slot that is free. Until it is allocated, or given back, it is the caller's alone. */
static struct npu_queue *npu_queue_take_slot(struct npu_device *npu)
{
	struct npu_queue *q = ERR_PTR(-EBUSY);
	u32 i;

	npu_lock(npu);
	for (i = 0; i < npu->params.queues && IS_ERR(q); i++)
		if (!npu->queues[i].taken)
			q = &npu->queues[i];
	if (!npu->up)
		q = ERR_PTR(-EIO);
	else if (IS_ERR(q))
		drm_dbg(&npu->drm, "all %u queues are in use\n", npu->params.queues);
	else
		q->taken = true;
	mutex_unlock(&npu->lock);
	return q;
}

static void npu_queue_give_slot(struct npu_queue *q)
{
	mutex_lock(&q->npu->lock);
	q->taken = false;
	mutex_unlock(&q->npu->lock);
}

/* Makes a queue whose memory and feed are there on the device, and the file's. */
static int npu_queue_create_locked(struct npu_queue *q)
{
	struct npu_device *npu = q->npu;
	int ret;

	lockdep_assert_held(&npu->lock);

	if (!npu->up)
		return -EIO;
	npu_queue_set_attached(q, true);
	ret = npu_hw_create(q);
	if (ret == -EFAULT) /* the context has faulted, and waits for recovery */
		ret = npu_context_recover(q) ? -EIO : npu_hw_create(q);
	if (ret) {
		npu_queue_set_attached(q, false);
		if (ret == -ETIMEDOUT || ret == -EIO) { /* no more commands before a reset */
			npu_schedule_recovery(npu, NPU_RECOVER_RESET);
			ret = -EIO;
		}
		return ret;
	}
	q->context->queues++;
	q->allocated = true;
	q->active = !q->own;
	if (q->own)
		npu_stay_awake(npu);
	return 0;
}

/**
 * npu_queue_acquire - get a queue for a file
 * @file: file
 * @handle: number of the queue in it
 * @args: what the file wants, checked; NULL for the implicit queue
 *
 * The device is awake.
 *
 * Return: the queue, to be given back with npu_queue_release(). -EBUSY when all
 * queues or contexts are in use, -EIO when the device did not survive a reset.
 */
struct npu_queue *npu_queue_acquire(struct npu_file *file, u32 handle,
				    const struct drm_npu_queue_create *args)
{
	struct npu_device *npu = file->npu;
	struct npu_queue *q;
	int ret;

	ret = npu_vm_start(&file->vm);
	if (ret)
		return ERR_PTR(ret);
	q = npu_queue_take_slot(npu);
	if (IS_ERR(q))
		return q;
	q->own = args && args->flags & DRM_NPU_QUEUE_USER;
	q->priority = args ? args->priority : DRM_NPU_PRIORITY_DEFAULT;
	q->weight = args && args->weight ? args->weight : 1;
	q->timeout_ms = args && args->timeout_ms ? args->timeout_ms : npu_job_timeout_ms();

	q->context = &file->context;
	q->handle = handle;

	/* Memory comes without npu_device.lock, for which recovery waits. */
	ret = npu->ops->queue_alloc(q);
	if (ret)
		goto err_slot;
	ret = npu_queue_init_feed(q, file);
	if (ret)
		goto err_free;
	npu_lock(npu);
	ret = npu_queue_create_locked(q);
	mutex_unlock(&npu->lock);
	if (!ret)
		return q;

	npu_queue_fini_feed(q);
err_free:
	npu->ops->queue_free(q);
err_slot:
	npu_queue_give_slot(q);
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
		npu_user_revoke(q);
	else
		drm_sched_entity_destroy(&q->entity);

	npu_lock(npu); /* otherwise its scheduler could stay stopped */
	q->active = false;
	if (q->live)
		ret = npu_hw_destroy_queue(q);
	if (!--context->queues && npu_context_live(npu, context) && !ret)
		ret = npu_hw_destroy_context(npu, context);
	if (ret && npu->up) {
		drm_err(&npu->drm, "queue %u cannot be destroyed: %d\n", q->number, ret);
		npu_reset_locked(npu);
	}
	npu_queue_end(q, -ECANCELED);
	npu_queue_set_attached(q, false);
	q->allocated = false;
	mutex_unlock(&npu->lock);

	wait_event(q->idle, !atomic_read(&q->jobs));
	if (q->own) {
		npu_user_fini(q);
		npu_relax(npu);
	} else {
		drm_sched_fini(&q->sched);
	}
	npu->ops->queue_free(q);
	npu_queue_give_slot(q);
	if (awake)
		npu_relax(npu);
}

/* npu_queue_read_status asks firmware what the queue is at (§4.19); it has queue control. */
int npu_queue_read_status(struct npu_queue *q, struct npu_queue_status *status)
{
	int ret;

	ret = npu_mbox_read_log(q->npu, NPU_QUEUE_LOG_PAGE, q->number, status, sizeof(*status));
	if (ret < 0)
		return ret;
	return ret == sizeof(*status) && le16_to_cpu(status->queue) == q->number ? 0 : -EIO;
}

/**
 * npu_queue_recover - bring back a queue whose job is late, or that is in the error state (§9.2)
 * @q: queue
 *
 * The queue is made anew, which stops what it executes; other queues notice nothing. Its jobs
 * on the device end: with -ETIMEDOUT one that is late and with -ECANCELED those behind it, or
 * all with -EIO. Those that wait run afterwards. Called with npu_device.lock held.
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
			npu_queue_end(q, -EIO);
		return ret;
	}
	if (!q->active)
		return 0;
	drm_sched_wqueue_stop(&q->sched);
	if (q->late)
		npu_queue_report_late(q);
	ret = npu_hw_destroy_queue(q);
	if (!ret) {
		npu_queue_end(q, q->late ? -ECANCELED : -EIO);
		ret = npu_hw_create_queue(q);
		if (ret == -EFAULT) /* the context has faulted meanwhile */
			ret = npu_context_recover(q);
	}
	if (!ret) /* otherwise the reset that follows starts it */
		drm_sched_wqueue_start(&q->sched);
	return ret;
}

/*
 * npu_context_faulted says whether a queue's context has: then all its queues are in the error
 * state. npu_device.faulted has those that are, but for this one.
 */
bool npu_context_faulted(struct npu_queue *bad)
{
	struct npu_device *npu = bad->npu;
	u32 i;

	if (!npu->mmu || !bad->allocated || bad->late)
		return false; /* one that is late finds out when it is made again */
	for (i = 0; i < npu->params.queues && !bad->held; i++) {
		struct npu_queue *q = &npu->queues[i];

		if (q != bad && q->allocated && q->context == bad->context && q->live &&
		    !test_bit(i, npu->faulted))
			return false;
	}
	return true;
}

/* The next queue of a context from this slot on, or NULL. */
static struct npu_queue *npu_context_queue(struct npu_device *npu, struct npu_context *context,
					   u32 *slot)
{
	while (*slot < npu->params.queues) {
		struct npu_queue *q = &npu->queues[(*slot)++];

		if (q->allocated && q->context == context)
			return q;
	}
	return NULL;
}

/* Takes a context that has faulted from the device, with what its queues completed. */
static int npu_context_destroy(struct npu_device *npu, struct npu_context *context)
{
	struct npu_queue *q;
	u32 i;
	int ret;

	for (i = 0; (q = npu_context_queue(npu, context, &i));) {
		if (!q->live)
			continue;
		if (q->late)
			npu_queue_report_late(q);
		spin_lock(&q->lock);
		q->resuming = true;
		spin_unlock(&q->lock);
		ret = npu_hw_destroy_queue(q);
		if (ret)
			return ret;
		npu_queue_poll(q);
	}
	return npu_hw_destroy_context(npu, context);
}

/* Makes a queue of such a context again. The jobs that it has are still to be repeated. */
static int npu_context_resume(struct npu_queue *q)
{
	clear_bit(q->number - 1, q->npu->faulted);
	if (q->own) { /* the process makes another */
		npu_queue_end(q, -EIO);
		return 0;
	}
	npu_queue_end_faulted(q);
	if (q->late)
		npu_queue_cancel(q, -ECANCELED);
	return q->active ? npu_hw_create(q) : 0;
}

/**
 * npu_context_recover - bring back a context that has faulted (§11.5)
 * @bad: a queue of it, or one that is to be
 *
 * The job that faulted ends with what its command says. The others of the context go on where
 * they were: what has no completion has not begun. Called with npu_device.lock held.
 *
 * Return: 0, or an error after which the device needs a reset.
 */
int npu_context_recover(struct npu_queue *bad)
{
	struct npu_context *context = bad->context;
	struct npu_device *npu = bad->npu;
	struct npu_queue *q;
	int ret;
	u32 i;

	lockdep_assert_held(&npu->lock);

	if (!npu_context_live(npu, context))
		return 0;
	for (i = 0; (q = npu_context_queue(npu, context, &i));)
		if (q->active)
			drm_sched_wqueue_stop(&q->sched);
	ret = npu_context_destroy(npu, context);
	if (!ret)
		npu_fault_note(npu, context);
	for (i = 0; !ret && (q = npu_context_queue(npu, context, &i));)
		ret = npu_context_resume(q);
	/* All queues are there, so a fault from here on is a new one. */
	for (i = 0; !ret && (q = npu_context_queue(npu, context, &i));)
		if (q->active)
			npu_queue_repeat(q);
	/* Otherwise the reset that follows starts them. */
	for (i = 0; !ret && (q = npu_context_queue(npu, context, &i));)
		if (q->active)
			drm_sched_wqueue_start(&q->sched);
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

/* npu_queues_cancel ends all jobs that the device had. It no longer touches memory. */
void npu_queues_cancel(struct npu_device *npu, int error)
{
	u32 i;

	lockdep_assert_held(&npu->lock);

	for (i = 0; i < npu->params.queues; i++) {
		struct npu_queue *q = &npu->queues[i];

		if (q->active || (q->allocated && q->own))
			npu_queue_end(q, error);
	}
}

/*
 * npu_queues_interrupt ends the jobs that a reset of the device interrupted; those that had not
 * started stay for npu_queues_restart(). The device no longer touches memory.
 */
void npu_queues_interrupt(struct npu_device *npu)
{
	u32 i;

	lockdep_assert_held(&npu->lock);

	for (i = 0; i < npu->params.queues; i++) {
		struct npu_queue *q = &npu->queues[i];

		if (q->allocated && q->own)
			npu_queue_end(q, -ECANCELED);
		if (!q->active)
			continue;
		npu_queue_kill(q);
		npu_queue_poll(q);
		npu_queue_interrupt(q, -ECANCELED);
	}
}

/* npu_queues_start lets jobs run. */
void npu_queues_start(struct npu_device *npu)
{
	u32 i;

	lockdep_assert_held(&npu->lock);

	for (i = 0; i < npu->params.queues; i++)
		if (npu->queues[i].active)
			drm_sched_wqueue_start(&npu->queues[i].sched);
}

/* Says whether no queue has jobs on the device, or none but those that have stopped. */
static bool npu_queues_idle(struct npu_device *npu, bool stopped)
{
	bool idle = true;
	u32 i;

	for (i = 0; i < npu->params.queues && idle; i++) {
		struct npu_queue *q = &npu->queues[i];

		if (!q->active)
			continue;
		npu_queue_poll(q);
		spin_lock(&q->lock);
		idle = list_empty(&q->inflight) ||
		       (stopped && (!q->live || q->late || q->held || test_bit(i, npu->faulted)));
		spin_unlock(&q->lock);
	}
	return idle;
}

/* npu_queues_drain waits for the jobs on the device; new ones are kept from it. */
int npu_queues_drain(struct npu_device *npu, unsigned int timeout_ms)
{
	bool idle;

	return read_poll_timeout(npu_queues_idle, idle, idle, 2000, timeout_ms * USEC_PER_MSEC,
				 false, npu, false);
}

/*
 * npu_queues_settle lets the jobs on the device end that can without firmware; new ones are kept
 * from it.
 */
void npu_queues_settle(struct npu_device *npu, unsigned int timeout_ms)
{
	bool idle;

	read_poll_timeout(npu_queues_idle, idle, idle, 2000, timeout_ms * USEC_PER_MSEC, false,
			  npu, true);
}

/*
 * npu_queues_restart makes the queues again if the device is up, and lets their jobs run or
 * fail, as npu_queues_start() does; those that npu_queues_interrupt() left come first.
 */
void npu_queues_restart(struct npu_device *npu)
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
	/* A job may fault, and then its context makes no more queues: so all are made first. */
	for (i = 0; i < npu->params.queues; i++) {
		struct npu_queue *q = &npu->queues[i];

		if (q->active && q->live)
			npu_queue_repeat(q);
		else if (q->active)
			npu_queue_cancel(q, -ECANCELED);
	}
	npu_queues_start(npu);
}

/* npu_queues_free returns how many more queues there can be. */
unsigned int npu_queues_free(struct npu_device *npu)
{
	unsigned int used = 0;
	u32 i;

	mutex_lock(&npu->lock);
	for (i = 0; i < npu->params.queues; i++)
		used += npu->queues[i].taken;
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
	q = npu_queue_acquire(file, number, NULL);
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

static int npu_queue_create(struct npu_file *file, struct drm_npu_queue_create *args)
{
	struct npu_queue *q;
	int ret;

	mutex_lock(&file->lock);
	ret = xa_alloc(&file->queues, &args->queue, NULL, XA_LIMIT(1, U32_MAX), GFP_KERNEL);
	if (ret)
		goto out;
	q = npu_queue_acquire(file, args->queue, args);
	if (IS_ERR(q)) {
		xa_release(&file->queues, args->queue);
		ret = PTR_ERR(q);
		goto out;
	}
	xa_store(&file->queues, args->queue, q, GFP_KERNEL);
out:
	mutex_unlock(&file->lock);
	return ret;
}

/* Checks what a file wants of its queue beyond the default. */
static int npu_queue_check_schedule(struct drm_device *drm, const struct drm_npu_queue_create *args)
{
	if (args->priority > DRM_NPU_PRIORITY_MAX || args->weight > NPU_MAX_WEIGHT ||
	    args->timeout_ms > NPU_MAX_TIMEOUT_MS) {
		drm_dbg(drm, "priority %u, weight %u, timeout %u ms: out of range\n",
			args->priority, args->weight, args->timeout_ms);
		return -EINVAL;
	}
	/* A command that hangs keeps the whole device from others, for as long as it may. */
	if ((args->priority > DRM_NPU_PRIORITY_DEFAULT ||
	     args->timeout_ms > npu_job_timeout_ms()) && !capable(CAP_SYS_NICE)) {
		drm_dbg(drm, "priority %u, timeout %u ms: not without CAP_SYS_NICE\n",
			args->priority, args->timeout_ms);
		return -EACCES;
	}
	if (((args->priority > DRM_NPU_PRIORITY_DEFAULT || args->weight > 1) &&
	     !npu_has_queue_control(to_npu(drm))) ||
	    (args->timeout_ms && !npu_has_queue_timeouts(to_npu(drm)))) {
		drm_dbg(drm, "priority %u, weight %u, timeout %u ms: the device has none\n",
			args->priority, args->weight, args->timeout_ms);
		return -EOPNOTSUPP;
	}
	return 0;
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
	if (args->flags & DRM_NPU_QUEUE_USER && !npu_user_supported(to_npu(drm))) {
		drm_dbg(drm, "the device has no queues for processes\n");
		return -EOPNOTSUPP;
	}
	ret = npu_queue_check_schedule(drm, args);
	if (ret)
		return ret;
	if (!npu_enter(to_npu(drm), &idx))
		return -ENODEV;
	ret = npu_wake(to_npu(drm));
	if (!ret) {
		ret = npu_queue_create(filp->driver_priv, args);
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
		npu_user_init_slot(q);
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
