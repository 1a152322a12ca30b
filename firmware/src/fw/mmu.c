/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware: page tables of contexts, the TLB and the fault log (§11), and how hardware is told (§11.7). */
#include "fw.h"

#define VIRTUAL_LIMIT	(1ull << 48)
#define MAX_SPACE	1u	/* spaces that tables can lie in: bus, device memory */

bool mmu_present(void)
{
	return host_read(NPU_FEATURES_LO) & NPU_FEATURES_LO_MMU_MASK;
}

static uint32_t status(uint32_t context)
{
	cp_write(NPU_CP_MMU_CONTEXT, context);
	return cp_read(NPU_CP_MMU_STATUS);
}

bool mmu_faulted(uint32_t context)
{
	return status(context) & NPU_CP_MMU_STATUS_FAULTED_MASK;
}

static void control(uint32_t context, uint64_t addr, uint32_t operation, uint32_t space)
{
	cp_write(NPU_CP_MMU_CONTEXT, context);
	cp_write(NPU_CP_MMU_ADDR_LO, (uint32_t)addr);
	cp_write(NPU_CP_MMU_ADDR_HI, (uint32_t)(addr >> 32));
	cp_write(NPU_CP_MMU_CONTROL, FIELD_PREP(NPU_CP_MMU_CONTROL_OPERATION, operation) |
				     FIELD_PREP(NPU_CP_MMU_CONTROL_SPACE, space));
}

/* The fields of CREATE_CONTEXT are 0 unless it is translated, all of them, in the order of their offsets. */
uint32_t mmu_wrong_field(const struct entry *e)
{
	bool translated = e->context.flags & NPU_CONTEXT_TRANSLATED;
	uint32_t space = e->context.flags >> NPU_CONTEXT_SPACE_SHIFT;

	if (translated ? e->context.root % NPU_PAGE_SIZE : e->context.root)
		return offsetof(struct entry, context.root);
	if (e->context.flags & ~(NPU_CONTEXT_TRANSLATED | 15u << NPU_CONTEXT_SPACE_SHIFT) || space > (translated ? MAX_SPACE : 0))
		return offsetof(struct entry, context.flags);
	return reserved_from(0x14) ? 0x14 : 0;
}

void mmu_create(uint32_t context, const struct entry *e)
{
	if (e->context.flags & NPU_CONTEXT_TRANSLATED)
		control(context, e->context.root, NPU_CP_MMU_TRANSLATE, e->context.flags >> NPU_CONTEXT_SPACE_SHIFT);
}

void mmu_remove(uint32_t context)
{
	control(context, 0, NPU_CP_MMU_REMOVE, 0);
}

struct outcome invalidate_tlb(const struct entry *e)
{
	uint64_t addr = e->tlb.addr, size = e->tlb.size, pages = size / NPU_PAGE_SIZE;
	uint32_t context = e->tlb.context;

	if (addr % NPU_PAGE_SIZE || addr >= VIRTUAL_LIMIT || ((!size || !context) && addr))
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, tlb.addr));
	if (size % NPU_PAGE_SIZE || size > VIRTUAL_LIMIT - addr || (!context && size))
		return refused(NPU_STATUS_INVALID_FIELD, offsetof(struct entry, tlb.size));
	if (reserved_from(0x1c))
		return refused(NPU_STATUS_INVALID_FIELD, 0x1c);
	if (context && !context_exists(context))
		return refused(NPU_STATUS_INVALID_CONTEXT, 0);
	cp_write(NPU_CP_MMU_PAGES, pages >> 32 ? 0 : (uint32_t)pages);	/* more than it holds: everything of the context */
	control(context, addr, context ? NPU_CP_MMU_INVALIDATE : NPU_CP_MMU_INVALIDATE_ALL, 0);
	while (status(context) & NPU_CP_MMU_STATUS_BUSY_MASK)
		;
	return done(0);
}

uint32_t mmu_log(uint32_t *word)
{
	uint32_t n, i;

	cp_write(NPU_CP_MMU_LOG, 0);
	for (i = 0; i < NPU_FAULT_LOG_HEADER / 4; i++)
		word[i] = cp_read(NPU_CP_MMU_LOG);
	n = word[1] < NPU_FAULT_LOG_RECORDS ? word[1] : NPU_FAULT_LOG_RECORDS;
	n = (NPU_FAULT_LOG_HEADER + n * NPU_FAULT_LOG_RECORD) / 4;
	for (; i < n; i++)
		word[i] = cp_read(NPU_CP_MMU_LOG);
	return n * 4;
}
