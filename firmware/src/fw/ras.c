/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware: telemetry, error log, crash dump, engine reset, thermal thresholds (§12). */
#include "fw.h"

#define PAGE_MAX	4096u

enum { PAGE_TELEMETRY = 4, PAGE_ERRORS = 5, PAGE_LOG = 6, PAGE_CRASH = 7 };

static uint32_t page[PAGE_MAX / 4];
static uint32_t throttle;	/* level at the last tick */
static struct {
	bool running;		/* hardware has not ended it */
	bool waiting;		/* a completion is owed */
	uint16_t command_id;
} engine;

bool has_ras(void)
{
	return host_read(NPU_FEATURES_LO) & NPU_FEATURES_LO_RAS_MASK;
}

void ras_init(void)
{
	cp_write(NPU_CP_TRAP_FRAME, (uint32_t)(uintptr_t)trap_frame);
}

bool ras_page_exists(uint32_t n)
{
	return n >= PAGE_TELEMETRY && n <= PAGE_CRASH && has_ras();
}

uint32_t ras_page_cursor(uint32_t n)
{
	if (n == PAGE_TELEMETRY || !ras_page_exists(n))
		return 0;
	return n == PAGE_CRASH ? 4 : 1;
}

static uint32_t sensor(uint32_t index)
{
	cp_write(NPU_CP_SENSOR_INDEX, index);
	return cp_read(NPU_CP_SENSOR_LO);
}

static uint32_t telemetry(void)
{
	for (uint32_t i = 0; i < NPU_SENSOR_COUNT; i++) {
		page[2 * i] = sensor(i);
		page[2 * i + 1] = cp_read(NPU_CP_SENSOR_HI);
	}
	return 8 * NPU_SENSOR_COUNT;
}

/* errors puts the records from first on into the page, as many as fit into size bytes. */
static uint32_t errors(uint32_t size, uint32_t first)
{
	uint32_t next = cp_read(NPU_CP_ERROR_NEXT);
	uint32_t oldest = next > NPU_ERROR_LOG_RECORDS ? next - NPU_ERROR_LOG_RECORDS : 0;
	uint32_t room = size < NPU_LOG_HEADER_SIZE ? 0 : (size - NPU_LOG_HEADER_SIZE) / NPU_ERROR_RECORD_SIZE, n;
	uint32_t *to = page + NPU_LOG_HEADER_SIZE / 4;

	if (first < oldest)
		first = oldest;
	n = first < next ? next - first : 0;
	if (n > room)
		n = room;
	page[0] = next;
	page[1] = n;
	page[2] = oldest;
	page[3] = NPU_ERROR_RECORD_SIZE;
	page[4] = sensor(NPU_SENSOR_UPTIME);
	page[5] = cp_read(NPU_CP_SENSOR_HI);
	page[6] = page[7] = 0;
	for (uint32_t i = 0; i < n; i++) {
		cp_write(NPU_CP_ERROR_SELECT, first + i);
		for (uint32_t w = 0; w < NPU_ERROR_RECORD_SIZE / 4; w++)
			*to++ = cp_read(NPU_CP_ERROR_DATA);
	}
	return NPU_LOG_HEADER_SIZE + n * NPU_ERROR_RECORD_SIZE;
}

/* crash_dump puts bytes [first, first + size) of the dump into the page; fewer at its end. */
static uint32_t crash_dump(uint32_t size, uint32_t first)
{
	uint32_t all = host_read(NPU_CRASH_SIZE);
	uint32_t n = first < all ? all - first : 0;

	if (n > size)
		n = size;
	cp_write(NPU_CP_CRASH_SELECT, first);
	for (uint32_t i = 0; i < (n + 3) / 4; i++)
		page[i] = cp_read(NPU_CP_CRASH_DATA);
	return n;
}

struct outcome ras_page(const struct entry *e)
{
	uint32_t size = e->buffer.size, first = e->buffer.first, n;

	switch (e->buffer.page) {
	case PAGE_TELEMETRY:
		n = telemetry();
		break;
	case PAGE_ERRORS:
		n = errors(size, first);
		break;
	case PAGE_LOG:
		n = log_page(page, size, first);
		break;
	default:
		n = crash_dump(size, first);
		break;
	}
	if (n > size)
		n = size;
	if (n && mover_copy(NPU_CP_MOVER_WRITE, e->buffer.addr, page, n) != NPU_CP_MOVER_IDLE)
		return refused(NPU_STATUS_BUS_FAULT, e->buffer.addr);
	return done(n);
}

struct outcome set_threshold(const struct entry *e)
{
	static const uint32_t reg[NPU_THERMAL_LEVEL_CRITICAL] = { NPU_CP_THERMAL_1, NPU_CP_THERMAL_2, NPU_CP_THERMAL_CRITICAL };
	uint32_t level = e->thermal.level;
	int32_t below = 0, above = NPU_THERMAL_MAX + 1;

	if (level < 1 || level > NPU_THERMAL_LEVEL_CRITICAL)
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, thermal.level));
	if (level > 1)
		below = (int32_t)cp_read(reg[level - 2]);
	if (level < NPU_THERMAL_LEVEL_CRITICAL)
		above = (int32_t)cp_read(reg[level]);
	if (e->thermal.threshold <= below || e->thermal.threshold >= above)
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, thermal.threshold));
	if (reserved_from(0x10))
		return refused(NPU_STATUS_INVALID_FIELD, 0x10);
	cp_write(reg[level - 1], (uint32_t)e->thermal.threshold);
	return done(0);
}

struct outcome reset_engine(const struct entry *e, bool *pending)
{
	uint32_t mask = e->object.number;

	if (!mask || mask & ~NPU_ENGINE_ALL)
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, object.number));
	if (reserved_from(0x0c))
		return refused(NPU_STATUS_INVALID_FIELD, 0x0c);
	if (engine.running)
		return refused(NPU_STATUS_BUSY, 0);
	log_level(LOG_WARNING);
	console("engine reset: ");
	console_hex(mask);
	console("\n");
	cp_write(NPU_CP_ENGINE_RESET, mask);
	if (cp_read(NPU_CP_ENGINE_RESET)) {
		engine.running = engine.waiting = true;
		engine.command_id = e->command_id;
		*pending = true;
	}
	return done(0);
}

bool engine_reset_over(uint16_t *command_id, struct outcome *o)
{
	if (!engine.running || cp_read(NPU_CP_ENGINE_RESET))
		return false;
	engine.running = false;
	*command_id = engine.command_id;
	*o = done(cp_read(NPU_CP_ENGINE_ENDED));
	return engine.waiting;
}

void forget_engine_reset(void)
{
	engine.waiting = false;
}

void ras_tick(void)
{
	uint32_t level;

	if (!has_ras())
		return;
	level = sensor(NPU_SENSOR_THROTTLE);
	if (level == throttle)
		return;
	log_level(level > throttle ? LOG_WARNING : LOG_INFO);
	console("thermal: level ");
	console_hex(level);
	console(", millidegrees ");
	console_hex(sensor(NPU_SENSOR_TEMPERATURE));
	console("\n");
	throttle = level;
}
