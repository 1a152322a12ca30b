/* SPDX-License-Identifier: Apache-2.0 */
/* Boot ROM: reset entry, trap vector, hand-over. */
#include "../npu_regs.h"

#define BOOT_FAILED_TRAP (NPU_BOOT_STATE_FAILED | NPU_BOOT_ERROR_TRAP << NPU_CP_BOOT_STATUS_ERROR_SHIFT)

	.section .text.start, "ax"
	.globl _start
_start:
	la	t0, trap
	csrw	mtvec, t0
	la	sp, __stack_top
	j	rom_main

/*
 * Serves an image that did not set its own vector yet, too. Uses no stack, as
 * sp may be what is wrong.
 */
	.balign	4
trap:
	li	t0, NPU_CP_REG_BASE
	csrr	t1, mepc
	sw	t1, NPU_CP_FW_ERROR_DETAIL(t0)
	li	t1, BOOT_FAILED_TRAP
	sw	t1, NPU_CP_BOOT_STATUS(t0)
1:	j	1b

/* void enter(uint32_t entry): §3.4 */
	.globl enter
enter:
	csrw	mie, zero
	fence.i
	mv	t0, a0
	li	a0, 0
	jr	t0
