/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware: which queues a WAIT whose time is over depends on, and whether these wait for each other (§4.14). */
#include "fw.h"

#define SPACE_VIRTUAL	2u
#define CHUNK		64u	/* entries that are fetched at a time */
#define TRIES		3u	/* how often queues may go on under the look at them */

/* A timeline (§4.17): its address, and what this is an address of. */
struct timeline {
	uint64_t addr;
	uint32_t place;	/* space, and in space 2 the context << 8 */
};

static struct {
	bool waits;	/* for value of timeline; or did, and was suspended for it */
	uint16_t head;
	struct timeline timeline;
	uint64_t value, found;
} queues[NPU_CP_QUEUE_LIMIT];

/* The SIGNALs in all rings: the largest value for each timeline that a queue has one for. */
static struct signal {
	struct timeline timeline;
	uint64_t value;
	uint32_t queue;
} signals[1024];
static uint32_t known;
static struct entry chunk[CHUNK];
static uint32_t ended[NPU_CP_QUEUE_LIMIT];	/* place of the WAIT that the queue was suspended for */

static uint64_t status64(const uint32_t *status, uint32_t word)
{
	return (uint64_t)status[word + 1] << 32 | status[word];
}

static uint32_t place_of(const struct entry *e, uint32_t context)
{
	uint32_t space = e->reserved & 15;

	return space == SPACE_VIRTUAL ? space | context << 8 : space;
}

static bool same(const struct timeline *a, const struct timeline *b)
{
	return a->addr == b->addr && a->place == b->place;
}

/* note keeps a SIGNAL of q, whose first one is at first; false if there is no room. */
static bool note(uint32_t q, uint32_t first, const struct entry *e, uint32_t context)
{
	struct timeline t = { e->timeline.addr, place_of(e, context) };

	for (uint32_t i = first; i < known; i++)
		if (same(&signals[i].timeline, &t)) {
			if (signals[i].value < e->timeline.value)
				signals[i].value = e->timeline.value;
			return true;
		}
	if (known == sizeof(signals) / sizeof(signals[0]))
		return false;
	signals[known++] = (struct signal){ t, e->timeline.value, q };
	return true;
}

/* take_ring looks at the entries of q from head to tail; false if it does not see, or cannot keep, them all. */
static bool take_ring(uint32_t q, uint32_t head, uint32_t tail, bool waiting)
{
	struct ring r = queue_ring(q);
	uint32_t first = known, n;

	for (; head != tail; head = (head + n) % r.entries) {
		n = (tail > head ? tail : r.entries) - head;
		n = n < CHUNK ? n : CHUNK;
		if (mover_copy(NPU_CP_MOVER_READ, r.base + head * NPU_SQ_ENTRY_SIZE, chunk, n * NPU_SQ_ENTRY_SIZE) != NPU_CP_MOVER_IDLE)
			return false;
		if (waiting) {	/* the entry at the head is its WAIT */
			queues[q].timeline.place = place_of(&chunk[0], r.context);
			waiting = false;
		}
		for (uint32_t i = 0; i < n; i++)
			if (chunk[i].opcode == NPU_CMD_SIGNAL && !note(q, first, &chunk[i], r.context))
				return false;
	}
	return true;
}

/* take_queues notes what all queues are at; false if this cannot be said yet. *all says whether it learnt everything. */
static bool take_queues(bool *all)
{
	known = 0;
	*all = true;
	for (uint32_t q = 1; q < NPU_CP_QUEUE_LIMIT; q++) {
		const uint32_t *status;
		bool waiting;

		queues[q].waits = false;
		if (!queue_live(q))
			continue;
		status = qos_status(q);
		if (!status)
			return false;
		if (!qos_scheduled(status))
			continue;
		waiting = status[0] >> 24 & NPU_QUEUE_FLAG_WAITING;
		queues[q].waits = qos_stuck(q, status);
		queues[q].head = (uint16_t)status[2];
		queues[q].timeline = (struct timeline){ status64(status, 10), ended[q] };
		queues[q].value = status64(status, 12);
		queues[q].found = status64(status, 14);
		*all &= take_ring(q, queues[q].head, status[2] >> 16, waiting);
	}
	return true;
}

/*
 * depends fills order with q and the queues whose SIGNALs could end its WAIT, and theirs, and so on. Returns how many,
 * 1 if no other queue has one, 0 if one of them has something else to wait for than these, or does not wait.
 */
static uint32_t depends(uint32_t q, uint8_t *order)
{
	static bool member[NPU_CP_QUEUE_LIMIT];
	uint32_t n = 1;

	for (uint32_t i = 0; i < NPU_CP_QUEUE_LIMIT; i++)
		member[i] = i == q;
	order[0] = (uint8_t)q;
	for (uint32_t i = 0; i < n; i++) {
		bool found = false;

		for (uint32_t s = 0; s < known; s++) {
			uint32_t by = signals[s].queue;

			if (!same(&signals[s].timeline, &queues[order[i]].timeline) || signals[s].value < queues[order[i]].value)
				continue;
			if (!queues[by].waits)
				return 0;
			found = true;
			if (!member[by])
				order[n++] = (uint8_t)by;
			member[by] = true;
		}
		if (!found)
			return i == 0;
	}
	return n;
}

/* still says whether the queues wait as they did when they were looked at, one after the other. */
static bool still(const uint8_t *order, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t *status = qos_status(order[i]);

		if (!status || !qos_stuck(order[i], status) || (uint16_t)status[2] != queues[order[i]].head)
			return false;
	}
	return true;
}

static void console_hex64(uint64_t v)
{
	if (v >> 32)
		console_hex((uint32_t)(v >> 32)), console(":");
	console_hex((uint32_t)v);
}

/* report tells of a deadlock of n queues; order[0] is the one whose time is over. */
static void report(const uint8_t *order, uint32_t n)
{
	uint32_t other = NPU_CP_QUEUE_LIMIT;

	for (uint32_t i = 0; i < n; i++) {
		uint32_t q = order[i];

		if (i && q < other)
			other = q;
		console("deadlock: queue ");
		console_hex(q);
		console(" waits at ");
		console_hex64(queues[q].timeline.addr);
		console(" for ");
		console_hex64(queues[q].value);
		console(", found ");
		console_hex64(queues[q].found);
		console("\n");
	}
	cp_write(NPU_CP_FAULT_ADDR_LO, (uint32_t)queues[order[0]].timeline.addr);
	cp_write(NPU_CP_FAULT_ADDR_HI, (uint32_t)(queues[order[0]].timeline.addr >> 32));
	cp_write(NPU_CP_FAULT_INFO, FIELD_PREP(NPU_FAULT_INFO_QUEUE, order[0]) | FIELD_PREP(NPU_FAULT_INFO_SOURCE, NPU_FAULT_SOURCE_CP) |
				    FIELD_PREP(NPU_FAULT_INFO_INDEX, other));
	cp_write(NPU_CP_FAULT_CODE, NPU_STATUS_WAIT_TIMEOUT);
}

bool deadlock_look(uint32_t q, uint32_t *result)
{
	static uint8_t order[NPU_CP_QUEUE_LIMIT];
	bool all;

	*result = 0;
	for (uint32_t i = 0; i < TRIES; i++) {
		uint32_t n;

		if (!take_queues(&all))
			return false;
		ended[q] = queues[q].timeline.place;
		if (!all || !queues[q].waits)
			return true;
		n = depends(q, order);
		if (n > 1 && !still(order, n))
			continue;
		if (n > 1)
			report(order, n);
		*result = n;
		return true;
	}
	return true;
}
