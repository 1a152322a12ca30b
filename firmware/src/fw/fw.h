/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FW_H
#define FW_H

#include <stdint.h>

/* log.c: the firmware log (§12.7). A line of the console is an entry of it. */
void log_put(uint8_t c);
#define CONSOLE_PUT(c)	log_put(c)

#include "../npu_cp.h"

/* FW_BUILD_* come from the Makefile, which also puts them into the image header. */
#define FW_INTERFACE		(NPU_FIRMWARE_MAJOR << 16 | NPU_FIRMWARE_MINOR)
#define FW_BUILD		((uint32_t)FW_BUILD_MAJOR << 24 | FW_BUILD_MINOR << 16 | FW_BUILD_PATCH)
#define STR_(x)			#x
#define STR(x)			STR_(x)
#define FW_NAME			"npuemu firmware " STR(FW_BUILD_MAJOR) "." STR(FW_BUILD_MINOR) "." STR(FW_BUILD_PATCH)

/* Why a command did not succeed (§9.1), or what it returns (§4.2). */
struct outcome {
	uint16_t status;
	uint32_t result;
	uint64_t info;
};

static inline struct outcome refused(uint16_t status, uint64_t info)
{
	return (struct outcome){ .status = status, .info = info };
}

static inline struct outcome done(uint32_t result)
{
	return (struct outcome){ .status = NPU_STATUS_SUCCESS, .result = result };
}

/* A submission entry (§4.2), by the layouts of §4.5 to §4.7. */
struct entry {
	uint8_t opcode, flags;
	uint16_t command_id;
	uint32_t reserved;
	union {
		uint32_t word[14];
		struct {
			uint64_t addr;
			uint32_t size;
			uint32_t page;
			uint32_t first;	/* of log pages that have a cursor (§12); the first queue of page 8 */
		} buffer;
		struct {
			uint32_t level;
			int32_t threshold;
		} thermal;
		struct {
			uint32_t number;
		} object;
		struct {
			uint64_t root;
			uint32_t flags;
		} context;	/* reserved without MMU */
		struct {
			uint64_t addr, size;
			uint32_t context;
		} tlb;
		struct {
			uint64_t sq, cq;
			uint16_t queue, vector, sq_entries, cq_entries;
			uint32_t context;
			uint8_t priority, weight;	/* this and the rest: reserved without QUEUE_CONTROL, but for the shadow line */
			uint16_t flags;
			uint64_t shadow;	/* §4.11; reserved without SHADOW_DOORBELLS */
			uint32_t timeout;
			uint16_t coalesce_count, coalesce_time;
			uint16_t owner;
			uint16_t reserved[3];
		} create;		/* and MODIFY_QUEUE */
		struct {
			uint64_t addr, value;
		} timeline;		/* WAIT and SIGNAL (§4.17), of user queues */
	};
};

_Static_assert(sizeof(struct entry) == NPU_SQ_ENTRY_SIZE, "submission entry");
_Static_assert(offsetof(struct entry, create.context) == 0x20, "submission entry");
_Static_assert(offsetof(struct entry, create.owner) == 0x38, "submission entry");

#define LOG_PAGE_MAX		4096u

/* resources.c: contexts and user queues (§4.6, §4.8). */
void resources_init(void);
uint32_t contexts_limit(void);
uint32_t contexts_used(void);
uint32_t queues_used(void);
bool context_exists(uint32_t context);
/* A queue that exists, and one that is not being destroyed either. q is below NPU_CP_QUEUE_LIMIT. */
bool queue_exists(uint32_t q);
bool queue_live(uint32_t q);
/* The submission ring of a queue that exists, and who submits. */
struct ring {
	uint64_t base;
	uint32_t entries, context;
};
struct ring queue_ring(uint32_t q);
struct outcome create_context(const struct entry *e);
struct outcome destroy_context(uint32_t context);
struct outcome create_queue(const struct entry *e);
/* Sets *pending and returns nothing of use if the queue is still draining; its completion follows. */
struct outcome destroy_queue(uint32_t queue, uint16_t command_id, bool *pending);
/* Takes a queue that has finished draining; *report says whether its DESTROY_QUEUE waits for a completion. */
bool queue_drained(uint16_t *command_id, bool *report);
/* The admin queue went away: nobody waits for the queues that drain. */
void forget_destroyers(void);

/* mmu.c: page tables of contexts (§11). */
bool mmu_present(void);
/* Returns the offset of the first wrong field of a CREATE_CONTEXT, or 0. */
uint32_t mmu_wrong_field(const struct entry *e);
void mmu_create(uint32_t context, const struct entry *e);
void mmu_remove(uint32_t context);
bool mmu_faulted(uint32_t context);
struct outcome invalidate_tlb(const struct entry *e);
/* Fills word with log page 3 and returns its size in bytes. */
uint32_t mmu_log(uint32_t *word);

/* Says whether a byte from offset off, a multiple of 4, to the end of the command in progress is set. */
bool reserved_from(uint32_t off);
/* qos.c: how queues are served (§4.12 to §4.16, §4.19). */
bool qos_exists(void);
/* Returns the first wrong field from 0x24 on, or 0. */
uint32_t qos_check_create(const struct entry *e);
bool qos_owner_exists(const struct entry *e);
/* Tells the hardware, whose CP_QUEUE_INDEX is the queue, before it is enabled. */
void qos_configure(const struct entry *e);
/* Whether other queues use the completion ring of q. */
bool qos_shares(uint32_t q);
/* A SUSPEND_QUEUE of q that waits fails. */
void qos_destroyed(uint32_t q);
struct outcome modify_queue(const struct entry *e);
/* Sets *pending if a command is in flight; its completion follows. */
struct outcome suspend_queue(uint32_t q, uint16_t command_id, bool *pending);
struct outcome resume_queue(uint32_t q);
/* Takes a queue whose SUSPEND_QUEUE does not wait any more. */
bool queue_suspended(uint16_t *command_id, struct outcome *o);
void forget_suspenders(void);
/* Ends a command that took too long, or would, but has to look again; false if there is none. */
bool timeout_serve(void);
/* Writes log page 8 from queue first on, or from 1 if it is 0. */
struct outcome queue_log(uint64_t addr, uint32_t size, uint32_t first);

/*
 * Reads the status of a queue (§4.19), which stays until the next call. NULL: its WAIT is being ended, and soon it
 * shows whether by its timeout.
 */
const uint32_t *qos_status(uint32_t q);
/* The queue of that status executes its entries, or does once it is resumed. */
bool qos_scheduled(const uint32_t *queue);
/* A WAIT waits in queue q of that status, or one was ended there by its timeout and the queue has not gone on. */
bool qos_stuck(uint32_t q, const uint32_t *queue);

/* deadlock.c */
/*
 * Finds the result (§4.14) of the WAIT that waits in q and is to be ended, and tells of a deadlock. False: ask again,
 * another one is being ended.
 */
bool deadlock_look(uint32_t q, uint32_t *result);

/* admin.c: the admin queue (§4.4). Does at most one command; false if there is nothing to do. */
bool admin_serve(void);
/* Lets refused commands be logged again. */
void admin_tick(void);

/* log.c: levels are those of syslog. A line has LOG_INFO unless log_level was called before its first byte. */
enum { LOG_ERROR = 3, LOG_WARNING = 4, LOG_INFO = 6 };
void log_init(void);
void log_level(uint8_t level);
/* Fills page with log page 6 from entry first on, at most size bytes; returns how many. */
uint32_t log_page(uint32_t *page, uint32_t size, uint32_t first);

/* ras.c: log pages 4, 5 and 7, RESET_ENGINE, SET_THRESHOLD (§12). */
bool has_ras(void);
void ras_init(void);
bool ras_page_exists(uint32_t page);
/* What the cursor of a log page has to be a multiple of; 0 if the page has none. */
uint32_t ras_page_cursor(uint32_t page);
/* Writes a log page of §12 to the command's buffer. */
struct outcome ras_page(const struct entry *e);
struct outcome set_threshold(const struct entry *e);
/* Sets *pending and returns nothing of use if a command is still in flight; its completion follows. */
struct outcome reset_engine(const struct entry *e, bool *pending);
/* Takes an engine reset that is over; false if there is none. */
bool engine_reset_over(uint16_t *command_id, struct outcome *o);
/* The admin queue went away: nobody waits for the reset. */
void forget_engine_reset(void);
void ras_tick(void);

/* start.S: where the trap vector saves x1 to x31. */
extern uint32_t trap_frame[32];

/* main.c */
uint64_t uptime(void);

#endif /* FW_H */
