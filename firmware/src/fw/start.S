/* SPDX-License-Identifier: Apache-2.0 */
/* Firmware: entry and trap vector. */

	.section .text.start, "ax"
	.globl _start
_start:
	la	t0, trap_vector
	csrw	mtvec, t0
	la	sp, __stack_top
	la	t0, __bss_start
	la	t1, __bss_end
1:	bgeu	t0, t1, 2f
	sw	zero, 0(t0)
	addi	t0, t0, 4
	j	1b
2:	j	fw_main

/* No interrupt is ever taken, so this is an exception. It does not return, and has a stack of its own because
 * sp may be what is wrong. */
	.balign	4
trap_vector:
	la	sp, __trap_stack_top
	csrr	a0, mcause
	csrr	a1, mepc
	csrr	a2, mtval
	j	fw_trap
