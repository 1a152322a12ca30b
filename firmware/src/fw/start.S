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
	csrw	mscratch, t0
	la	t0, trap_frame
	.irp	n, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
	sw	x\n, 4 * \n(t0)
	.endr
	csrr	t1, mscratch
	sw	t1, 4 * 5(t0)
	la	sp, __trap_stack_top
	csrr	a0, mcause
	csrr	a1, mepc
	csrr	a2, mtval
	j	fw_trap

	.section .bss.trap_frame, "aw", @nobits
	.balign	16
	.globl trap_frame
trap_frame:
	.space	128
