/* SPDX-License-Identifier: Apache-2.0 */
/* Runs program() once; then a0 is the count, a1 the results, and ECALL ends it. */
	.section .text.start, "ax"
	.globl _start
_start:
	la	sp, stack_top
	la	t0, bss_start
	la	t1, bss_end
1:	bgeu	t0, t1, 2f
	sw	zero, 0(t0)
	addi	t0, t0, 4
	j	1b
2:	la	a0, results
	call	program
	la	a1, results
	ecall
3:	j	3b

	.bss
	.balign	16
results:
	.space	4 * 256
