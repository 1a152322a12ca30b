/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware: how queues are served (§4.12 to §4.16), timeouts (§4.14), queue status (§4.19). */
#include "fw.h"

static struct {
	bool suspending;	/* a SUSPEND_QUEUE waits */
	bool stopped;		/* and its queue is destroyed meanwhile */
	uint8_t owner;		/* of the completion ring: the queue itself, or another */
	uint16_t command_id;	/* of the SUSPEND_QUEUE */
	bool expired;		/* its last WAIT was to be ended, and it was not resumed since */
	uint32_t sequence;	/* of that WAIT */
	uint32_t timeout;	/* ms */
} qos[NPU_CP_QUEUE_LIMIT];
static uint32_t suspending;	/* queues that are */
static uint32_t status[NPU_QUEUE_STATUS_SIZE / 4];
static uint32_t status_page[LOG_PAGE_MAX / 4];

bool qos_exists(void)
{
	return host_read(NPU_FEATURES_LO) & NPU_FEATURES_LO_QUEUE_CONTROL_MASK;
}

static void read_status(uint32_t q)
{
	cp_write(NPU_CP_QUEUE_INDEX, q);
	for (uint32_t i = 0; i < NPU_QUEUE_STATUS_SIZE / 4; i++) {
		cp_write(NPU_CP_QUEUE_STATUS_INDEX, i);
		status[i] = cp_read(NPU_CP_QUEUE_STATUS);
	}
}

const uint32_t *qos_status(uint32_t q)
{
	uint32_t sequence, flags;

	cp_write(NPU_CP_QUEUE_INDEX, q);
	sequence = cp_read(NPU_CP_QUEUE_SEQUENCE);	/* first: whatever it is, the status is not older */
	read_status(q);
	flags = status[0] >> 24 & (NPU_QUEUE_FLAG_WAITING | NPU_QUEUE_FLAG_IN_FLIGHT);
	if (flags == NPU_QUEUE_FLAG_IN_FLIGHT && qos[q].expired && qos[q].sequence == sequence)
		return NULL;
	return status;
}

static uint32_t state_of(const uint32_t *queue)
{
	return queue[0] >> 16 & 0xff;
}

bool qos_scheduled(const uint32_t *queue)
{
	uint32_t state = state_of(queue);

	return state == NPU_CP_QUEUE_STATE_ENABLED || state == NPU_CP_QUEUE_STATE_SUSPENDED || state == NPU_CP_QUEUE_STATE_SUSPENDING;
}

bool qos_stuck(uint32_t q, const uint32_t *queue)
{
	uint32_t flags = queue[0] >> 24;

	if (!qos_scheduled(queue))
		return false;
	return flags & NPU_QUEUE_FLAG_WAITING ||
	       (state_of(queue) == NPU_CP_QUEUE_STATE_SUSPENDED && flags & NPU_QUEUE_FLAG_TIMED_OUT && qos[q].expired);
}

static uint32_t check_priority(const struct entry *e)
{
	return e->create.priority < NPU_QUEUE_PRIORITIES ? 0 : offsetof(struct entry, create.priority);
}

uint32_t qos_check_create(const struct entry *e)
{
	bool shared = e->create.flags & NPU_QUEUE_SHARED_CQ;
	uint32_t limit = FIELD_GET(NPU_QUEUE_PARAM_COUNT, host_read(NPU_QUEUE_PARAM));

	if (check_priority(e))
		return check_priority(e);
	if (e->create.flags & ~NPU_QUEUE_SHARED_CQ)
		return offsetof(struct entry, create.flags);
	if (e->create.shadow % NPU_SHADOW_SIZE)
		return offsetof(struct entry, create.shadow);
	if (shared && e->create.coalesce_count)
		return offsetof(struct entry, create.coalesce_count);
	if (shared && e->create.coalesce_time)
		return offsetof(struct entry, create.coalesce_time);
	if (shared ? e->create.owner < 1 || e->create.owner > limit || e->create.owner == e->create.queue : e->create.owner)
		return offsetof(struct entry, create.owner);
	if (e->create.reserved[0] || e->create.reserved[1] || e->create.reserved[2])
		return offsetof(struct entry, create.reserved);
	return 0;
}

bool qos_owner_exists(const struct entry *e)
{
	uint32_t owner = e->create.owner;

	return !(e->create.flags & NPU_QUEUE_SHARED_CQ) || (queue_live(owner) && qos[owner].owner == owner);
}

static void write_schedule(const struct entry *e, uint32_t q)
{
	bool shared = qos[q].owner != q;

	cp_write(NPU_CP_QUEUE_SCHEDULE, FIELD_PREP(NPU_CP_QUEUE_SCHEDULE_PRIORITY, e->create.priority) |
					FIELD_PREP(NPU_CP_QUEUE_SCHEDULE_WEIGHT, e->create.weight) |
					FIELD_PREP(NPU_CP_QUEUE_SCHEDULE_SHARED, shared) |
					FIELD_PREP(NPU_CP_QUEUE_SCHEDULE_OWNER, shared ? qos[q].owner : 0));
	cp_write(NPU_CP_QUEUE_TIMEOUT, e->create.timeout);
	cp_write(NPU_CP_QUEUE_COALESCE, FIELD_PREP(NPU_CP_QUEUE_COALESCE_COUNT, e->create.coalesce_count) |
					FIELD_PREP(NPU_CP_QUEUE_COALESCE_TIME, e->create.coalesce_time));
	qos[q].timeout = e->create.timeout;
}

void qos_configure(const struct entry *e)
{
	uint32_t q = e->create.queue;

	qos[q].suspending = qos[q].stopped = qos[q].expired = false;
	qos[q].owner = (uint8_t)(e->create.flags & NPU_QUEUE_SHARED_CQ ? e->create.owner : q);
	if (qos_exists())
		write_schedule(e, q);
}

bool qos_shares(uint32_t q)
{
	for (uint32_t i = 1; i < NPU_CP_QUEUE_LIMIT; i++)
		if (i != q && queue_exists(i) && qos[i].owner == q)
			return true;
	return false;
}

void qos_destroyed(uint32_t q)
{
	qos[q].stopped = true;
}

/* The fields of MODIFY_QUEUE lie where CREATE_QUEUE has them; the others are reserved. */
static uint32_t check_modify(const struct entry *e)
{
	for (uint32_t off = 0x0c; off < 0x24; off += 4)
		if (e->word[(off - 8) / 4])
			return 0x0c;
	if (check_priority(e))
		return check_priority(e);
	if (e->create.flags || e->create.shadow)
		return offsetof(struct entry, create.flags);
	if (e->create.owner || e->create.reserved[0] || e->create.reserved[1] || e->create.reserved[2])
		return offsetof(struct entry, create.owner);
	return 0;
}

struct outcome modify_queue(const struct entry *e)
{
	uint32_t q = e->object.number, wrong = check_modify(e);

	if (wrong)
		return refused(NPU_STATUS_INVALID_FIELD, wrong);
	if (q >= NPU_CP_QUEUE_LIMIT || !queue_live(q))
		return refused(NPU_STATUS_INVALID_QUEUE, 0);
	if (qos[q].owner != q && e->create.coalesce_count)
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, create.coalesce_count));
	if (qos[q].owner != q && e->create.coalesce_time)
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, create.coalesce_time));
	cp_write(NPU_CP_QUEUE_INDEX, q);
	write_schedule(e, q);
	cp_write(NPU_CP_QUEUE_CONTROL, NPU_CP_QUEUE_MODIFY);
	return done(0);
}

struct outcome suspend_queue(uint32_t q, uint16_t command_id, bool *pending)
{
	if (q >= NPU_CP_QUEUE_LIMIT || !queue_live(q))
		return refused(NPU_STATUS_INVALID_QUEUE, 0);
	if (qos[q].suspending)
		return refused(NPU_STATUS_BUSY, 0);
	cp_write(NPU_CP_QUEUE_INDEX, q);
	cp_write(NPU_CP_QUEUE_CONTROL, NPU_CP_QUEUE_SUSPEND);
	if (cp_read(NPU_CP_QUEUE_STATE) == NPU_CP_QUEUE_STATE_SUSPENDING) {
		qos[q].suspending = true;
		qos[q].command_id = command_id;
		suspending++;
		*pending = true;
	}
	return done(0);
}

struct outcome resume_queue(uint32_t q)
{
	if (q >= NPU_CP_QUEUE_LIMIT || !queue_live(q))
		return refused(NPU_STATUS_INVALID_QUEUE, 0);
	if (qos[q].suspending)
		return refused(NPU_STATUS_BUSY, 0);
	qos[q].expired = false;
	cp_write(NPU_CP_QUEUE_INDEX, q);
	cp_write(NPU_CP_QUEUE_CONTROL, NPU_CP_QUEUE_RESUME);
	return done(0);
}

bool queue_suspended(uint16_t *command_id, struct outcome *o)
{
	for (uint32_t q = 1; suspending && q < NPU_CP_QUEUE_LIMIT; q++) {
		if (!qos[q].suspending)
			continue;
		cp_write(NPU_CP_QUEUE_INDEX, q);
		if (!qos[q].stopped && cp_read(NPU_CP_QUEUE_STATE) == NPU_CP_QUEUE_STATE_SUSPENDING)
			continue;
		qos[q].suspending = false;
		suspending--;
		*command_id = qos[q].command_id;
		*o = qos[q].stopped ? refused(NPU_STATUS_ABORTED, 0) : done(0);
		return true;
	}
	return false;
}

void forget_suspenders(void)
{
	for (uint32_t q = 1; suspending && q < NPU_CP_QUEUE_LIMIT; q++)
		if (qos[q].suspending) {
			qos[q].suspending = false;
			suspending--;
		}
}

bool timeout_serve(void)
{
	uint32_t q, sequence, age_lo, result = 0;
	uint64_t age;

	if (!qos_exists())
		return false;
	q = cp_read(NPU_CP_QUEUE_OVERDUE);
	if (!q || q >= NPU_CP_QUEUE_LIMIT)
		return false;
	read_status(q);	/* the registers below are of this queue */
	sequence = cp_read(NPU_CP_QUEUE_SEQUENCE);
	age_lo = cp_read(NPU_CP_QUEUE_AGE_LO);
	age = (uint64_t)cp_read(NPU_CP_QUEUE_AGE_HI) << 32 | age_lo;
	if (!qos[q].timeout || age < (uint64_t)qos[q].timeout * 1000)
		return false;	/* another command by now */
	if (status[0] >> 24 & NPU_QUEUE_FLAG_WAITING) {
		if (!deadlock_look(q, &result))
			return true;
		qos[q].expired = true;
		qos[q].sequence = sequence;
	}
	console("timeout: queue ");
	console_hex(q);
	console("\n");
	cp_write(NPU_CP_QUEUE_INDEX, q);
	cp_write(NPU_CP_QUEUE_RESULT, result);
	cp_write(NPU_CP_QUEUE_ABORT, sequence);
	return true;
}

struct outcome queue_log(uint64_t addr, uint32_t size, uint32_t first)
{
	uint32_t limit = FIELD_GET(NPU_QUEUE_PARAM_COUNT, host_read(NPU_QUEUE_PARAM)), have = 0;
	uint32_t *word = status_page;

	for (uint32_t q = first ? first : 1; q <= limit && have < LOG_PAGE_MAX; q++) {
		read_status(q);
		status[0] = (status[0] & ~0xffffu) | q;
		for (uint32_t i = 0; i < NPU_QUEUE_STATUS_SIZE / 4; i++)
			*word++ = status[i];
		have += NPU_QUEUE_STATUS_SIZE;
	}
	size = size < have ? size : have;
	if (mover_copy(NPU_CP_MOVER_WRITE, addr, status_page, size) != NPU_CP_MOVER_IDLE)
		return refused(NPU_STATUS_BUS_FAULT, addr);
	return done(size);
}
