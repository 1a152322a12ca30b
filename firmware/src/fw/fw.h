/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FW_H
#define FW_H

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

/* An admin submission entry (§4.2), by the layouts of §4.5 to §4.7. */
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
		} buffer;
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
			uint32_t reserved;
			uint64_t shadow;	/* §4.11; reserved without SHADOW_DOORBELLS */
		} create;
	};
};

_Static_assert(sizeof(struct entry) == NPU_SQ_ENTRY_SIZE, "submission entry");
_Static_assert(offsetof(struct entry, create.context) == 0x20, "submission entry");

/* resources.c: contexts and user queues (§4.6, §4.8). */
void resources_init(void);
uint32_t contexts_limit(void);
uint32_t contexts_used(void);
uint32_t queues_used(void);
bool context_exists(uint32_t context);
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

/* admin.c: the admin queue (§4.4). Does at most one command; false if there is nothing to do. */
bool admin_serve(void);
/* Lets refused commands be logged again. */
void admin_tick(void);

/* main.c */
uint64_t uptime(void);

#endif /* FW_H */
