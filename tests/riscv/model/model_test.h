/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What riscv-arch-test asks of a model: how a program ends, and where its signature is. A program ends by a 1 in tohost,
 * which QEMU's spike machine takes as 64 bits, the upper half last; it looks for the sizes and types of the symbols.
 * There are no interrupts to set and no console.
 */
#ifndef MODEL_TEST_H
#define MODEL_TEST_H

#define RVMODEL_BOOT

#define RVMODEL_HALT                                                    \
	li t0, 1;                                                       \
1:	la t1, tohost;                                                  \
	sw t0, 0(t1);                                                   \
	sw zero, 4(t1);                                                 \
	j 1b;

#define MODEL_DOUBLE_WORD(name)                                         \
	.balign 64;                                                     \
	.global name;                                                   \
	.type name, @object;                                            \
	.size name, 8;                                                  \
name:	.dword 0;

#define RVMODEL_DATA_BEGIN                                              \
	.pushsection .tohost, "aw", @progbits;                          \
	MODEL_DOUBLE_WORD(tohost)                                       \
	MODEL_DOUBLE_WORD(fromhost)                                     \
	.popsection;                                                    \
	.balign 16;                                                     \
	.global begin_signature;                                        \
begin_signature:

#define RVMODEL_DATA_END                                                \
	.balign 4;                                                      \
	.global end_signature;                                          \
end_signature:

#define RVMODEL_IO_INIT
#define RVMODEL_IO_CHECK()
#define RVMODEL_IO_WRITE_STR(register, string)
#define RVMODEL_IO_ASSERT_GPR_EQ(register, checked, value)
#define RVMODEL_IO_ASSERT_SFPR_EQ(register, checked, value)
#define RVMODEL_IO_ASSERT_DFPR_EQ(register, checked, value)

#define RVMODEL_SET_MSW_INT
#define RVMODEL_CLEAR_MSW_INT
#define RVMODEL_CLEAR_MTIMER_INT
#define RVMODEL_CLEAR_MEXT_INT

#endif
