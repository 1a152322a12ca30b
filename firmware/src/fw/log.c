/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware: its log (§12.7). A ring of lines, which the crash dump keeps too. */
#include "fw.h"

struct log_entry {
	uint32_t number;	/* from 1; 0 is an entry that was never written */
	uint8_t level;
	uint8_t size;		/* bytes of text */
	uint16_t reserved;
	uint64_t time;		/* as uptime() */
	char text[112];
};

_Static_assert(sizeof(struct log_entry) == NPU_LOG_FW_ENTRY_SIZE, "log entry");

static struct log_entry ring[NPU_LOG_FW_ENTRIES];
static struct log_entry line;	/* that is being printed */
static uint32_t next = 1;	/* number of the next entry */

void log_init(void)
{
	line.level = LOG_INFO;
	cp_write(NPU_CP_LOG_BASE, (uint32_t)(uintptr_t)ring);
	cp_write(NPU_CP_LOG_SIZE, sizeof(ring));
}

void log_level(uint8_t level)
{
	line.level = level;
}

static void commit(void)
{
	line.number = next;
	line.time = uptime();
	ring[next % NPU_LOG_FW_ENTRIES] = line;
	next++;
	if (line.level <= LOG_WARNING && has_ras())
		cp_write(NPU_CP_HOST_EVENT, NPU_IRQ_STATUS_FIRMWARE_MASK);
	line = (struct log_entry){ .level = LOG_INFO };
}

void log_put(uint8_t c)
{
	cp_write(NPU_CP_CONSOLE, c);
	if (c == '\n') {
		if (line.size)
			commit();
	} else if (line.size < sizeof(line.text)) {
		line.text[line.size++] = (char)c;
	}
}

uint32_t log_page(uint32_t *page, uint32_t size, uint32_t first)
{
	uint32_t oldest = next > NPU_LOG_FW_ENTRIES ? next - NPU_LOG_FW_ENTRIES : 1;
	uint32_t room = size < NPU_LOG_HEADER_SIZE ? 0 : (size - NPU_LOG_HEADER_SIZE) / NPU_LOG_FW_ENTRY_SIZE, n;
	uint64_t now = uptime();

	if (first < oldest)
		first = oldest;
	n = first < next ? next - first : 0;
	if (n > room)
		n = room;
	page[0] = next;
	page[1] = n;
	page[2] = oldest;
	page[3] = NPU_LOG_FW_ENTRY_SIZE;
	page[4] = (uint32_t)now;
	page[5] = (uint32_t)(now >> 32);
	page[6] = page[7] = 0;
	for (uint32_t i = 0; i < n; i++) {
		const uint32_t *from = (const uint32_t *)&ring[(first + i) % NPU_LOG_FW_ENTRIES];

		for (uint32_t w = 0; w < NPU_LOG_FW_ENTRY_SIZE / 4; w++)
			page[NPU_LOG_HEADER_SIZE / 4 + i * (NPU_LOG_FW_ENTRY_SIZE / 4) + w] = from[w];
	}
	return NPU_LOG_HEADER_SIZE + n * NPU_LOG_FW_ENTRY_SIZE;
}
