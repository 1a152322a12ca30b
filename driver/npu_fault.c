// SPDX-License-Identifier: GPL-2.0-only
/*
 * Faults of translated contexts, §11.5: who has faulted, what the file is told of it, and how it
 * goes on. A fault stops all queues of its context, and no other.
 *
 * FAULT_STATUS and its like hold one record, and software reads it late. So a record, or a
 * completion, only says that something is to be done; queue status (§4.19) says where, and the
 * fault log (§11.6) what it was.
 */

#include <linux/bitfield.h>

#include <drm/drm_managed.h>

#include "npu_job.h"

/* npu_fault_of_context says whether a command that ends so has faulted its context. */
bool npu_fault_of_context(struct npu_queue *q, u32 status)
{
	if (!q->npu->mmu)
		return false;
	switch (status) {
	case NPU_STATUS_TRANSLATION_FAULT:
	case NPU_STATUS_CONTEXT_FAULTED:
	case NPU_STATUS_BUS_FAULT: /* these with reason TARGET */
	case NPU_STATUS_DEVICE_FAULT:
	case NPU_STATUS_MEMORY_FAULT:
		return true;
	default:
		return false;
	}
}

/*
 * npu_faults_find marks the queues in the error state, and those with a job that faulted, in
 * npu_device.faulted. npu_device.lock is held. An error means that the device needs a reset.
 */
int npu_faults_find(struct npu_device *npu)
{
	const u32 count = PAGE_SIZE / sizeof(struct npu_queue_status);
	struct npu_queue_status *status = npu->log_page;
	u32 first, i;
	int ret;

	lockdep_assert_held(&npu->lock);

	for (first = 1; first <= npu->params.queues; first += count) {
		ret = npu_mbox_read_log(npu, NPU_QUEUE_LOG_PAGE, first, status, PAGE_SIZE);
		if (ret < 0)
			return ret;
		for (i = 0; i < ret / sizeof(*status); i++) {
			u16 number = le16_to_cpu(status[i].queue);

			if (number && number <= npu->params.queues &&
			    status[i].state == NPU_QUEUE_STATE_ERROR)
				set_bit(number - 1, npu->faulted);
		}
	}
	for (i = 0; i < npu->params.queues; i++)
		if (READ_ONCE(npu->queues[i].held))
			set_bit(i, npu->faulted);
	return 0;
}

/* The newest record of the context that its file was not told of, or NULL. */
static const struct npu_fault_entry *npu_fault_read(struct npu_device *npu,
						    struct npu_context *context)
{
	const struct npu_fault_log *log = npu->log_page;
	const struct npu_fault_entry *entries = (const void *)(log + 1);
	u32 count, told = 0;
	int size;

	size = npu_mbox_read_log(npu, NPU_LOG_FAULTS, 0, npu->log_page, PAGE_SIZE);
	if (size < (int)sizeof(*log))
		return NULL;
	count = min_t(u32, le32_to_cpu(log->count), (size - sizeof(*log)) / sizeof(*entries));
	if (context->fault_generation == npu->generation)
		told = context->fault_number;
	while (count--) {
		const struct npu_fault_entry *entry = &entries[count];

		if (le16_to_cpu(entry->context) != context->number ||
		    le32_to_cpu(entry->number) <= told)
			continue;
		context->fault_generation = npu->generation;
		context->fault_number = le32_to_cpu(entry->number);
		return entry;
	}
	return NULL;
}

/*
 * npu_fault_note tells the context's file of its fault. The context's queues are no longer on
 * the device, their completions are taken, and their jobs not yet ended.
 */
void npu_fault_note(struct npu_device *npu, struct npu_context *context)
{
	struct npu_file *file = container_of(context, struct npu_file, context);
	const struct npu_fault_entry *entry;
	struct drm_npu_fault fault = {};
	struct npu_queue *q;
	struct npu_job *job;
	u16 number;

	lockdep_assert_held(&npu->lock);

	entry = npu_fault_read(npu, context);
	if (!entry)
		return;
	number = le16_to_cpu(entry->queue);
	if (!number || number > npu->params.queues)
		return;
	q = &npu->queues[number - 1];
	if (!q->allocated || q->context != context)
		return;

	fault.address = le64_to_cpu(entry->va);
	fault.queue = q->handle;
	fault.status = le16_to_cpu(entry->status);
	fault.access = entry->access;
	fault.reason = entry->reason;
	fault.engine = entry->engine;
	fault.entry = le16_to_cpu(entry->index);
	fault.command = le16_to_cpu(entry->command_id);
	spin_lock(&q->lock);
	job = list_first_entry_or_null(&q->inflight, struct npu_job, node);
	if (job) {
		fault.seqno = job->seqno;
		fault.command = job->completed ? job->completed - 1 : 0;
	}
	spin_unlock(&q->lock);

	spin_lock(&file->jobs_lock);
	fault.count = file->fault.count + 1;
	file->fault = fault;
	spin_unlock(&file->jobs_lock);
	drm_dbg(&npu->drm, "client %llu: fault at 0x%llx, access %u, reason %u, engine %u\n",
		file->client_id, fault.address, fault.access, fault.reason, fault.engine);
}

void npu_query_fault(struct npu_file *file, struct drm_npu_fault *fault)
{
	spin_lock(&file->jobs_lock);
	*fault = file->fault;
	spin_unlock(&file->jobs_lock);
}

/* npu_fault_init makes room for what is read of the device when it has faulted. */
int npu_fault_init(struct npu_device *npu)
{
	npu->log_page = drmm_kzalloc(&npu->drm, PAGE_SIZE, GFP_KERNEL);
	return npu->log_page ? 0 : -ENOMEM;
}
