/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware: the admin queue (§4.4 to §4.7). */
#include "fw.h"

#define IDENTIFY_SIZE	256u
#define REFUSALS	8u	/* lines a tick; more are only counted */

struct completion {
	uint32_t result;
	uint32_t reserved0;
	uint64_t info;
	uint64_t reserved1;
	uint16_t sq_head;
	uint16_t queue;
	uint16_t command_id;
	uint16_t status;
};

_Static_assert(sizeof(struct completion) == NPU_CQ_ENTRY_SIZE, "completion entry");

static struct {
	bool running;		/* false before ENABLE and after a ring error */
	bool phase;
	uint32_t epoch;		/* of CP_AQ_EPOCH; tells a queue from the next one */
	uint64_t sq, cq;
	uint32_t sq_entries, cq_entries;
	uint32_t sq_head, sq_tail, cq_head, cq_tail;
} aq;

static uint64_t executed;	/* commands since boot, for log page 1 */
static uint32_t refusals;	/* since the last tick */

static struct entry entry;	/* the command in progress */
static struct completion completion;
static union {
	uint32_t word[LOG_PAGE_MAX / 4];
	char text[IDENTIFY_SIZE];
} page;				/* what the command returns */

/* stop records why the queue cannot go on (§9.2); only a new epoch starts it again. */
static void stop(uint32_t code, uint32_t source, uint32_t index, uint64_t addr)
{
	cp_write(NPU_CP_FAULT_ADDR_LO, (uint32_t)addr);
	cp_write(NPU_CP_FAULT_ADDR_HI, (uint32_t)(addr >> 32));
	cp_write(NPU_CP_FAULT_INFO, FIELD_PREP(NPU_FAULT_INFO_QUEUE, 0) | FIELD_PREP(NPU_FAULT_INFO_SOURCE, source) |
				    FIELD_PREP(NPU_FAULT_INFO_INDEX, index));
	cp_write(NPU_CP_FAULT_CODE, code);
	aq.running = false;
	log_level(LOG_ERROR);
	console("admin: queue stopped, status ");
	console_hex(code);
	console(", source ");
	console_hex(source);
	console(", index ");
	console_hex(index);
	console("\n");
}

static void start(uint32_t epoch)
{
	uint32_t size = host_read(NPU_AQ_SIZE);

	aq.epoch = epoch;
	aq.sq = host_read64(NPU_ASQ_BASE_LO);
	aq.cq = host_read64(NPU_ACQ_BASE_LO);
	aq.sq_entries = FIELD_GET(NPU_AQ_SIZE_SQ_ENTRIES, size);
	aq.cq_entries = FIELD_GET(NPU_AQ_SIZE_CQ_ENTRIES, size);
	aq.sq_head = aq.sq_tail = aq.cq_head = aq.cq_tail = 0;
	aq.phase = true;
	if (aq.sq_entries < 2 || aq.sq_entries > NPU_MAX_ADMIN_ENTRIES ||
	    aq.cq_entries < 2 || aq.cq_entries > NPU_MAX_ADMIN_ENTRIES)
		stop(NPU_STATUS_INVALID_FIELD, NPU_FAULT_SOURCE_CP, NPU_AQ_SIZE, 0);
	else if (aq.sq + (aq.sq_entries * NPU_SQ_ENTRY_SIZE - 1) < aq.sq)
		stop(NPU_STATUS_INVALID_FIELD, NPU_FAULT_SOURCE_CP, NPU_ASQ_BASE_LO, aq.sq);
	else if (aq.cq + (aq.cq_entries * NPU_CQ_ENTRY_SIZE - 1) < aq.cq)
		stop(NPU_STATUS_INVALID_FIELD, NPU_FAULT_SOURCE_CP, NPU_ACQ_BASE_LO, aq.cq);
	else
		aq.running = true;
}

static uint32_t sq_queued(uint32_t tail)
{
	return tail >= aq.sq_head ? tail - aq.sq_head : tail + aq.sq_entries - aq.sq_head;
}

static uint32_t cq_used(uint32_t head)
{
	return aq.cq_tail >= head ? aq.cq_tail - head : aq.cq_tail + aq.cq_entries - head;
}

static bool cq_full(void)
{
	return cq_used(aq.cq_head) == aq.cq_entries - 1;
}

/* post writes a completion, the word with the phase last (§7.5). The ring has room for it. */
static void post(uint16_t command_id, struct outcome o)
{
	uint64_t addr = aq.cq + aq.cq_tail * NPU_CQ_ENTRY_SIZE;
	const uint32_t last = offsetof(struct completion, command_id);

	completion = (struct completion){
		.result = o.result,
		.info = o.info,
		.sq_head = (uint16_t)aq.sq_head,
		.command_id = command_id,
		.status = (uint16_t)(o.status << 1 | aq.phase),
	};
	if (mover_copy(NPU_CP_MOVER_WRITE, addr, &completion, last) != NPU_CP_MOVER_IDLE ||
	    mover_copy(NPU_CP_MOVER_WRITE, addr + last, &completion.command_id, sizeof(completion) - last) != NPU_CP_MOVER_IDLE) {
		stop(NPU_STATUS_BUS_FAULT, NPU_FAULT_SOURCE_POST, aq.cq_tail, addr);
		return;
	}
	if (++aq.cq_tail == aq.cq_entries) {
		aq.cq_tail = 0;
		aq.phase = !aq.phase;
	}
	cp_write(NPU_CP_HOST_EVENT, NPU_IRQ_STATUS_ADMIN_MASK);
}

bool reserved_from(uint32_t off)
{
	for (uint32_t i = (off - 8) / 4; i < 14; i++)
		if (entry.word[i])
			return true;
	return false;
}

/* give writes the page that was put together to the command's buffer. */
static struct outcome give(uint32_t size)
{
	uint64_t addr = entry.buffer.addr;

	if (mover_copy(NPU_CP_MOVER_WRITE, addr, &page, size) != NPU_CP_MOVER_IDLE)
		return refused(NPU_STATUS_BUS_FAULT, addr);
	return done(size);
}

static void page_clear(void)
{
	for (uint32_t i = 0; i < IDENTIFY_SIZE / 4; i++)
		page.word[i] = 0;
}

static struct outcome identify(void)
{
	static const char name[] = FW_NAME;
	struct outcome o;

	_Static_assert(sizeof(name) <= 33, "IDENTIFY's name has 32 bytes");
	if (entry.buffer.size != IDENTIFY_SIZE)
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, buffer.size));
	if (reserved_from(0x14))
		return refused(NPU_STATUS_INVALID_FIELD, 0x14);
	page_clear();
	page.word[0] = IDENTIFY_SIZE;
	page.word[1] = FW_INTERFACE;
	page.word[2] = FW_BUILD;
	page.word[3] = host_read(NPU_ARCH_VERSION);
	page.word[4] = contexts_limit();
	page.word[5] = FIELD_GET(NPU_QUEUE_PARAM_COUNT, host_read(NPU_QUEUE_PARAM));
	page.word[6] = FIELD_GET(NPU_QUEUE_PARAM_MAX_ENTRIES, host_read(NPU_QUEUE_PARAM));
	for (uint32_t i = 0; i < sizeof(name) - 1; i++)
		page.text[0x20 + i] = name[i];
	o = give(IDENTIFY_SIZE);
	o.result = 0;
	return o;
}

static struct outcome get_log_page(void)
{
	uint32_t size = entry.buffer.size, cursor, have;
	uint64_t now;

	if (size < 1 || size > LOG_PAGE_MAX)
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, buffer.size));
	if (entry.buffer.page == NPU_QUEUE_LOG_PAGE && qos_exists()) {
		if (entry.buffer.first > FIELD_GET(NPU_QUEUE_PARAM_COUNT, host_read(NPU_QUEUE_PARAM)))
			return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, buffer.first));
		if (reserved_from(0x1c))
			return refused(NPU_STATUS_INVALID_FIELD, 0x1c);
		return queue_log(entry.buffer.addr, size, entry.buffer.first);
	}
	cursor = ras_page_cursor(entry.buffer.page);
	if (cursor ? entry.buffer.first % cursor : reserved_from(0x18))
		return refused(NPU_STATUS_INVALID_FIELD, 0x18);
	if (reserved_from(0x1c))
		return refused(NPU_STATUS_INVALID_FIELD, 0x1c);
	if (ras_page_exists(entry.buffer.page))
		return ras_page(&entry);
	switch (entry.buffer.page) {
	case 1:
		now = uptime();
		page.word[0] = FW_INTERFACE;
		page.word[1] = FW_BUILD;
		page.word[2] = (uint32_t)now;
		page.word[3] = (uint32_t)(now >> 32);
		page.word[4] = contexts_used();
		page.word[5] = queues_used();
		page.word[6] = (uint32_t)executed;
		page.word[7] = (uint32_t)(executed >> 32);
		have = 32;
		break;
	case 2:
		for (uint32_t i = 0; i < NPU_COUNTER_COUNT; i++) {
			cp_write(NPU_CP_COUNTER_INDEX, i);
			page.word[2 * i] = cp_read(NPU_CP_COUNTER_LO);
			page.word[2 * i + 1] = cp_read(NPU_CP_COUNTER_HI);
		}
		have = 8 * NPU_COUNTER_COUNT;
		break;
	case 3:
		if (!mmu_present())
			return refused(NPU_STATUS_INVALID_LOG_PAGE, 0);
		have = mmu_log(page.word);
		break;
	default:
		return refused(NPU_STATUS_INVALID_LOG_PAGE, 0);
	}
	return give(size < have ? size : have);
}

/* execute runs the command in entry; fields are checked in the order of their offsets. */
static struct outcome execute(bool *pending)
{
	uint32_t first = 0x08;	/* reserved from here, for commands that do not look themselves */

	switch (entry.opcode) {
	case NPU_ADMIN_IDENTIFY:
	case NPU_ADMIN_GET_LOG_PAGE:
	case NPU_ADMIN_CREATE_QUEUE:
		first = sizeof(entry);
		break;
	case NPU_ADMIN_DESTROY_CONTEXT:
	case NPU_ADMIN_DESTROY_QUEUE:
		first = 0x0c;
		break;
	case NPU_ADMIN_MODIFY_QUEUE:
	case NPU_ADMIN_SUSPEND_QUEUE:
	case NPU_ADMIN_RESUME_QUEUE:
		if (!qos_exists())
			return refused(NPU_STATUS_INVALID_OPCODE, 0);
		first = entry.opcode == NPU_ADMIN_MODIFY_QUEUE ? sizeof(entry) : 0x0c;
		break;
	case NPU_ADMIN_RESET_ENGINE:
	case NPU_ADMIN_SET_THRESHOLD:
		if (!has_ras())
			return refused(NPU_STATUS_INVALID_OPCODE, 0);
		first = sizeof(entry);
		break;
	case NPU_ADMIN_CREATE_CONTEXT:
		if (mmu_present())
			first = sizeof(entry);
		break;
	case NPU_ADMIN_INVALIDATE_TLB:
		if (!mmu_present())
			return refused(NPU_STATUS_INVALID_OPCODE, 0);
		first = sizeof(entry);
		break;
	default:
		return refused(NPU_STATUS_INVALID_OPCODE, 0);
	}
	if (entry.flags)
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, flags));
	if (entry.reserved)
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, reserved));
	if (reserved_from(first))
		return refused(NPU_STATUS_INVALID_FIELD, first);

	switch (entry.opcode) {
	case NPU_ADMIN_IDENTIFY:
		return identify();
	case NPU_ADMIN_GET_LOG_PAGE:
		return get_log_page();
	case NPU_ADMIN_CREATE_CONTEXT:
		return create_context(&entry);
	case NPU_ADMIN_DESTROY_CONTEXT:
		return destroy_context(entry.object.number);
	case NPU_ADMIN_INVALIDATE_TLB:
		return invalidate_tlb(&entry);
	case NPU_ADMIN_CREATE_QUEUE:
		return create_queue(&entry);
	case NPU_ADMIN_MODIFY_QUEUE:
		return modify_queue(&entry);
	case NPU_ADMIN_SUSPEND_QUEUE:
		return suspend_queue(entry.object.number, entry.command_id, pending);
	case NPU_ADMIN_RESUME_QUEUE:
		return resume_queue(entry.object.number);
	case NPU_ADMIN_RESET_ENGINE:
		return reset_engine(&entry, pending);
	case NPU_ADMIN_SET_THRESHOLD:
		return set_threshold(&entry);
	default:
		return destroy_queue(entry.object.number, entry.command_id, pending);
	}
}

static void log_refusal(struct outcome o)
{
	if (refusals++ >= REFUSALS)
		return;
	console("admin: refused opcode ");
	console_hex(entry.opcode);
	console(" id ");
	console_hex(entry.command_id);
	console(": status ");
	console_hex(o.status);
	console(", info ");
	if (o.info >> 32)
		console_hex((uint32_t)(o.info >> 32)), console(":");
	console_hex((uint32_t)o.info);
	console("\n");
}

void admin_tick(void)
{
	if (refusals > REFUSALS) {
		console("admin: refused more commands, not logged: ");
		console_hex(refusals - REFUSALS);
		console("\n");
	}
	refusals = 0;
}

/* doorbells takes the doorbells' values; false if the queue cannot go on with them. */
static bool doorbells(uint32_t tail, uint32_t head)
{
	if (tail >= aq.sq_entries || sq_queued(tail) < sq_queued(aq.sq_tail)) {
		stop(NPU_STATUS_INVALID_DOORBELL, NPU_FAULT_SOURCE_DOORBELL, tail, 0);
		return false;
	}
	if (head >= aq.cq_entries || cq_used(head) > cq_used(aq.cq_head)) {
		stop(NPU_STATUS_INVALID_DOORBELL, NPU_FAULT_SOURCE_DOORBELL, head, 0);
		return false;
	}
	aq.sq_tail = tail;
	aq.cq_head = head;
	return true;
}

bool admin_serve(void)
{
	bool enabled = host_read(NPU_AQ_CONTROL) & NPU_AQ_CONTROL_ENABLE_MASK;
	uint32_t tail = cp_read(NPU_CP_ASQ_TAIL), head = cp_read(NPU_CP_ACQ_HEAD);
	uint32_t epoch = cp_read(NPU_CP_AQ_EPOCH);	/* after the doorbells: a new epoch clears them */
	bool report, pending = false;
	struct outcome o;
	uint16_t id;

	if (epoch != aq.epoch || !enabled) {
		aq.running = false;
		forget_destroyers();
		forget_suspenders();
		forget_engine_reset();
	}
	if (enabled && epoch != aq.epoch) {
		start(epoch);
		return true;
	}
	if (aq.running && !doorbells(tail, head))
		return true;
	if ((!aq.running || !cq_full()) && queue_drained(&id, &report)) {
		if (report && aq.running)
			post(id, done(0));
		return true;
	}
	if (aq.running && !cq_full() && queue_suspended(&id, &o)) {
		post(id, o);
		return true;
	}
	if ((!aq.running || !cq_full()) && engine_reset_over(&id, &o)) {
		if (aq.running)
			post(id, o);
		return true;
	}
	if (!aq.running || aq.sq_head == tail || cq_full())
		return false;

	uint64_t addr = aq.sq + aq.sq_head * NPU_SQ_ENTRY_SIZE;

	if (mover_copy(NPU_CP_MOVER_READ, addr, &entry, sizeof(entry)) != NPU_CP_MOVER_IDLE) {
		stop(NPU_STATUS_BUS_FAULT, NPU_FAULT_SOURCE_FETCH, aq.sq_head, addr);
		return true;
	}
	if (++aq.sq_head == aq.sq_entries)
		aq.sq_head = 0;
	o = execute(&pending);
	executed++;
	if (o.status != NPU_STATUS_SUCCESS)
		log_refusal(o);
	if (!pending)
		post(entry.command_id, o);
	return true;
}
