/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware: contexts and user queues (§4.6), and how hardware is told (§4.8). */
#include "fw.h"

/* CONTEXT_PARAM may be at most what CP_QUEUE_BINDING.CONTEXT holds. */
#define MAX_CONTEXTS	0xffffu
#define MAX_QUEUES	(NPU_CP_QUEUE_LIMIT - 1)

enum queue_state {
	QUEUE_FREE,
	QUEUE_LIVE,
	QUEUE_DESTROYING,	/* DESTROY_QUEUE waits for the drain */
	QUEUE_DRAINING,		/* drains, and nobody waits */
};

static uint32_t context_bits[(MAX_CONTEXTS + 32) / 32];
static uint32_t contexts;	/* bits that are set */
static uint32_t draining;	/* queues that are DESTROYING or DRAINING */
static struct queue {
	uint8_t state;
	uint16_t command_id;	/* of the DESTROY_QUEUE */
	struct ring ring;
} queues[MAX_QUEUES + 1];

uint32_t contexts_limit(void)
{
	uint32_t n = host_read(NPU_CONTEXT_PARAM);

	return n < MAX_CONTEXTS ? n : MAX_CONTEXTS;
}

uint32_t contexts_used(void)
{
	return contexts;
}

static uint32_t queues_limit(void)
{
	uint32_t n = FIELD_GET(NPU_QUEUE_PARAM_COUNT, host_read(NPU_QUEUE_PARAM));

	return n < MAX_QUEUES ? n : MAX_QUEUES;
}

uint32_t queues_used(void)
{
	uint32_t n = 0;

	for (uint32_t q = 1; q <= MAX_QUEUES; q++)
		n += queues[q].state == QUEUE_LIVE || queues[q].state == QUEUE_DESTROYING;
	return n;
}

bool queue_exists(uint32_t q)
{
	return queues[q].state != QUEUE_FREE;
}

bool queue_live(uint32_t q)
{
	return queues[q].state == QUEUE_LIVE;
}

struct ring queue_ring(uint32_t q)
{
	return queues[q].ring;
}

bool context_exists(uint32_t c)
{
	return c >= 1 && c <= contexts_limit() && context_bits[c / 32] >> c % 32 & 1;
}

static uint32_t hw_state(uint32_t q)
{
	cp_write(NPU_CP_QUEUE_INDEX, q);
	return cp_read(NPU_CP_QUEUE_STATE);
}

static uint32_t hw_disable(uint32_t q)
{
	cp_write(NPU_CP_QUEUE_INDEX, q);
	cp_write(NPU_CP_QUEUE_CONTROL, NPU_CP_QUEUE_DISABLE);
	return cp_read(NPU_CP_QUEUE_STATE);
}

/* User queues outlive firmware (§9.2); a new one knows nothing of them and stops them. */
void resources_init(void)
{
	for (uint32_t q = 1; q <= queues_limit(); q++)
		if (hw_state(q) != NPU_CP_QUEUE_STATE_DISABLED && hw_disable(q) != NPU_CP_QUEUE_STATE_DISABLED) {
			queues[q].state = QUEUE_DRAINING;
			draining++;
		}
}

struct outcome create_context(const struct entry *e)
{
	uint32_t wrong = mmu_present() ? mmu_wrong_field(e) : 0;

	if (wrong)
		return refused(NPU_STATUS_INVALID_FIELD, wrong);
	for (uint32_t c = 1; c <= contexts_limit(); c++) {
		if (context_exists(c))
			continue;
		context_bits[c / 32] |= 1u << c % 32;
		contexts++;
		mmu_create(c, e);
		return done(c);
	}
	return refused(NPU_STATUS_NO_RESOURCE, 0);
}

struct outcome destroy_context(uint32_t c)
{
	if (!context_exists(c))
		return refused(NPU_STATUS_INVALID_CONTEXT, 0);
	for (uint32_t q = 1; q <= MAX_QUEUES; q++)
		if (queues[q].state != QUEUE_FREE && queues[q].ring.context == c)
			return refused(NPU_STATUS_BUSY, 0);
	context_bits[c / 32] &= ~(1u << c % 32);
	contexts--;
	mmu_remove(c);
	return done(0);
}

/* ring_fits: base is aligned, and n entries of size bytes do not pass 2^64. */
static bool ring_fits(uint64_t base, uint32_t n, uint32_t size)
{
	return base % 64 == 0 && base + (n * size - 1) >= base;
}

static bool entries_valid(uint32_t n)
{
	return n >= 2 && n <= FIELD_GET(NPU_QUEUE_PARAM_MAX_ENTRIES, host_read(NPU_QUEUE_PARAM));
}

/* first_reserved returns the offset of the first field behind the context that is wrong, or 0. */
static uint32_t first_reserved(const struct entry *e)
{
	bool shadow = host_read(NPU_FEATURES_LO) & NPU_FEATURES_LO_SHADOW_DOORBELLS_MASK;

	if (qos_exists())
		return qos_check_create(e);
	for (uint32_t off = 0x24; off < sizeof(*e); off += 4) {
		if (!e->word[(off - 8) / 4])
			continue;
		if (!shadow || off < offsetof(struct entry, create.shadow))
			return 0x24;
		if (off >= 0x30)
			return 0x30;
		if (e->create.shadow % NPU_SHADOW_SIZE)
			return offsetof(struct entry, create.shadow);
	}
	return 0;
}

/* shadow_init gives a shadow line its first values (§4.11): nothing queued, every store needs a doorbell. */
static bool shadow_init(uint64_t addr)
{
	static const uint32_t line[NPU_SHADOW_SIZE / 4] = {
		[NPU_SHADOW_RING / 4] = NPU_SHADOW_RING_SQ_TAIL | NPU_SHADOW_RING_CQ_HEAD,
	};

	return mover_copy(NPU_CP_MOVER_WRITE, addr, (volatile void *)line, sizeof(line)) == NPU_CP_MOVER_IDLE;
}

struct outcome create_queue(const struct entry *e)
{
	uint32_t q = e->create.queue, reserved = first_reserved(e);
	bool shared = qos_exists() && e->create.flags & NPU_QUEUE_SHARED_CQ;	/* then the ring's fields are 0 */

	if (!ring_fits(e->create.sq, e->create.sq_entries, NPU_SQ_ENTRY_SIZE))
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, create.sq));
	if (shared ? e->create.cq != 0 : !ring_fits(e->create.cq, e->create.cq_entries, NPU_CQ_ENTRY_SIZE))
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, create.cq));
	if (q < 1 || q > queues_limit())
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, create.queue));
	if (shared ? e->create.vector != 0 : e->create.vector >= host_read(NPU_VECTOR_COUNT))
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, create.vector));
	if (!entries_valid(e->create.sq_entries))
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, create.sq_entries));
	if (shared ? e->create.cq_entries != 0 : !entries_valid(e->create.cq_entries))
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, create.cq_entries));
	if (reserved)
		return refused(NPU_STATUS_INVALID_FIELD, reserved);
	if (!context_exists(e->create.context))
		return refused(NPU_STATUS_INVALID_CONTEXT, 0);
	if (mmu_faulted(e->create.context))
		return refused(NPU_STATUS_CONTEXT_FAULTED, 0);
	if (queues[q].state != QUEUE_FREE)
		return refused(NPU_STATUS_QUEUE_EXISTS, 0);
	if (shared && !qos_owner_exists(e))
		return refused(NPU_STATUS_INVALID_QUEUE, 0);
	if (e->create.shadow && !shadow_init(e->create.shadow))
		return refused(NPU_STATUS_BUS_FAULT, e->create.shadow);

	queues[q].state = QUEUE_LIVE;
	queues[q].ring = (struct ring){ e->create.sq, e->create.sq_entries, e->create.context };
	cp_write(NPU_CP_QUEUE_INDEX, q);
	cp_write(NPU_CP_QUEUE_SQ_BASE_LO, (uint32_t)e->create.sq);
	cp_write(NPU_CP_QUEUE_SQ_BASE_HI, (uint32_t)(e->create.sq >> 32));
	cp_write(NPU_CP_QUEUE_CQ_BASE_LO, (uint32_t)e->create.cq);
	cp_write(NPU_CP_QUEUE_CQ_BASE_HI, (uint32_t)(e->create.cq >> 32));
	cp_write(NPU_CP_QUEUE_ENTRIES, FIELD_PREP(NPU_CP_QUEUE_ENTRIES_SQ, e->create.sq_entries) |
				       FIELD_PREP(NPU_CP_QUEUE_ENTRIES_CQ, e->create.cq_entries));
	cp_write(NPU_CP_QUEUE_BINDING, FIELD_PREP(NPU_CP_QUEUE_BINDING_CONTEXT, e->create.context) |
				       FIELD_PREP(NPU_CP_QUEUE_BINDING_VECTOR, e->create.vector));
	cp_write(NPU_CP_QUEUE_SHADOW_LO, (uint32_t)e->create.shadow);
	cp_write(NPU_CP_QUEUE_SHADOW_HI, (uint32_t)(e->create.shadow >> 32));
	qos_configure(e);
	cp_write(NPU_CP_QUEUE_CONTROL, NPU_CP_QUEUE_ENABLE);
	return done(0);
}

struct outcome destroy_queue(uint32_t q, uint16_t command_id, bool *pending)
{
	if (q < 1 || q > queues_limit() || queues[q].state == QUEUE_FREE)
		return refused(NPU_STATUS_INVALID_QUEUE, 0);
	if (queues[q].state != QUEUE_LIVE)
		return refused(NPU_STATUS_BUSY, 0);
	if (qos_shares(q))
		return refused(NPU_STATUS_BUSY, 0);
	qos_destroyed(q);
	if (hw_disable(q) == NPU_CP_QUEUE_STATE_DISABLED) {
		queues[q].state = QUEUE_FREE;
	} else {
		queues[q].state = QUEUE_DESTROYING;
		queues[q].command_id = command_id;
		draining++;
		*pending = true;
	}
	return done(0);
}

bool queue_drained(uint16_t *command_id, bool *report)
{
	for (uint32_t q = 1; draining && q <= MAX_QUEUES; q++) {
		if (queues[q].state < QUEUE_DESTROYING || hw_state(q) != NPU_CP_QUEUE_STATE_DISABLED)
			continue;
		*report = queues[q].state == QUEUE_DESTROYING;
		*command_id = queues[q].command_id;
		queues[q].state = QUEUE_FREE;
		draining--;
		return true;
	}
	return false;
}

void forget_destroyers(void)
{
	for (uint32_t q = 1; draining && q <= MAX_QUEUES; q++)
		if (queues[q].state == QUEUE_DESTROYING)
			queues[q].state = QUEUE_DRAINING;
}
