/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What boot ROM and firmware share: register access, the mover, the console.
 * Everything runs with interrupts disabled (mstatus.MIE = 0); mie only chooses
 * what ends WFI.
 */
#ifndef NPU_CP_H
#define NPU_CP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "npu_regs.h"

/* FIELD_GET(NPU_QUEUE_PARAM_COUNT, v) takes a field out of a register's value. */
#define FIELD_GET(field, v)	(((v) & field##_MASK) >> field##_SHIFT)
#define FIELD_PREP(field, v)	(((uint32_t)(v) << field##_SHIFT) & field##_MASK)

#define MIE_MTIE	(1u << 7)
#define MIE_MEIE	(1u << 11)

static inline uint32_t cp_read(uint32_t off)
{
	return *(volatile uint32_t *)(NPU_CP_REG_BASE + off);
}

static inline void cp_write(uint32_t off, uint32_t v)
{
	*(volatile uint32_t *)(NPU_CP_REG_BASE + off) = v;
}

/* host_read reads a register of the host's page (§3.6). */
static inline uint32_t host_read(uint32_t off)
{
	return *(volatile uint32_t *)(NPU_CP_HOST_BASE + off);
}

static inline uint64_t host_read64(uint32_t lo)
{
	return (uint64_t)host_read(lo + 4) << 32 | host_read(lo);
}

static inline void boot_status(uint32_t state, uint32_t error)
{
	cp_write(NPU_CP_BOOT_STATUS, FIELD_PREP(NPU_CP_BOOT_STATUS_STATE, state) |
				     FIELD_PREP(NPU_CP_BOOT_STATUS_ERROR, error));
}

static inline void wait_for_interrupt(void)
{
	__asm__ volatile("wfi" ::: "memory");
}

/*
 * mover_copy moves size bytes between the bus and SRAM (§3.10); control is
 * NPU_CP_MOVER_READ (bus to local) or NPU_CP_MOVER_WRITE. Returns
 * NPU_CP_MOVER_IDLE, _FAULT or _RANGE.
 */
static inline uint32_t mover_copy(uint32_t control, uint64_t addr, volatile void *local, uint32_t size)
{
	uint32_t status;

	cp_write(NPU_CP_MOVER_ADDR_LO, (uint32_t)addr);
	cp_write(NPU_CP_MOVER_ADDR_HI, (uint32_t)(addr >> 32));
	cp_write(NPU_CP_MOVER_LOCAL, (uint32_t)(uintptr_t)local);
	cp_write(NPU_CP_MOVER_SIZE, size);
	__asm__ volatile("" ::: "memory");
	cp_write(NPU_CP_MOVER_CONTROL, control);
	do
		status = cp_read(NPU_CP_MOVER_STATUS);
	while (status == NPU_CP_MOVER_BUSY);
	__asm__ volatile("" ::: "memory");
	return status;
}

/* Firmware keeps what it prints, and defines CONSOLE_PUT for that (fw.h). */
#ifndef CONSOLE_PUT
#define CONSOLE_PUT(c)	cp_write(NPU_CP_CONSOLE, c)
#endif

static inline void console(const char *s)
{
	while (*s)
		CONSOLE_PUT((uint8_t)*s++);
}

static inline void console_hex(uint32_t v)
{
	int shift = 28;

	console("0x");
	while (shift && !(v >> shift))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		CONSOLE_PUT((uint8_t)"0123456789abcdef"[v >> shift & 15]);
}

#endif /* NPU_CP_H */
