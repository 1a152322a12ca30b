/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A guest that does what a test in the host tells it, one access at a time, and
 * counts interrupts. hands.go has the other side of the mailbox.
 *
 * It runs at 0x100000 in 64-bit mode, with the first 4 GiB mapped one to one and
 * interrupts off.
 *
 *	as --64 hands.S -o hands.o
 *	ld -m elf_x86_64 -Ttext=0x100000 --oformat=binary hands.o -o hands.bin
 */

	.intel_syntax noprefix
	.code64

	.equ	STACK, 0x200000
	.equ	IDT, 0x201000
	.equ	MAILBOX, 0x300000	/* op, size, address (8 bytes), value (8 bytes) */
	.equ	COUNTS, 0x301000	/* interrupts taken: 64 messages, then the pin */
	.equ	CAUSES, 0x302000	/* address of a register with causes, write 1 clears */
	.equ	MESSAGES, 64
	.equ	FIRST, 0x40		/* vector of message 0 */
	.equ	CODE, 0x10
	.equ	APIC, 0xfee00000

	.globl	_start
_start:
	mov	esp, STACK

	/* gates FIRST to FIRST + MESSAGES; stubs have 16 bytes */
	lea	rax, [rip + stubs]
	mov	edi, IDT + 16 * FIRST
	mov	ecx, MESSAGES + 1
1:	mov	[rdi], ax
	mov	word ptr [rdi + 2], CODE
	mov	word ptr [rdi + 4], 0x8e00
	mov	edx, eax
	shr	edx, 16
	mov	[rdi + 6], dx
	mov	dword ptr [rdi + 8], 0
	mov	dword ptr [rdi + 12], 0
	add	rax, 16
	add	rdi, 16
	dec	ecx
	jnz	1b
	lidt	[rip + idtr]
	mov	eax, APIC + 0xf0	/* local APIC on */
	mov	dword ptr [rax], 0x1ff
	sti

	mov	ebx, MAILBOX
again:
	pause
	mov	eax, [rbx]
	test	eax, eax
	jz	again
	mov	esi, [rbx + 4]		/* size */
	mov	rdx, [rbx + 8]		/* address */
	mov	rcx, [rbx + 16]		/* value */
	cmp	eax, 1
	je	input
	cmp	eax, 2
	je	output
	cmp	eax, 3
	je	load
	cmp	eax, 4
	je	store
	mov	edx, 0xcf9		/* anything else: reset the machine */
	mov	al, 6
	out	dx, al
	jmp	done

input:
	xor	eax, eax
	cmp	esi, 1
	je	1f
	cmp	esi, 2
	je	2f
	in	eax, dx
	jmp	result
1:	in	al, dx
	jmp	result
2:	in	ax, dx
	jmp	result

output:
	mov	eax, ecx
	cmp	esi, 1
	je	1f
	cmp	esi, 2
	je	2f
	out	dx, eax
	jmp	done
1:	out	dx, al
	jmp	done
2:	out	dx, ax
	jmp	done

load:
	xor	eax, eax
	cmp	esi, 1
	je	1f
	cmp	esi, 2
	je	2f
	cmp	esi, 4
	je	4f
	mov	rax, [rdx]
	jmp	result
1:	mov	al, [rdx]
	jmp	result
2:	mov	ax, [rdx]
	jmp	result
4:	mov	eax, [rdx]
	jmp	result

store:
	cmp	esi, 1
	je	1f
	cmp	esi, 2
	je	2f
	cmp	esi, 4
	je	4f
	mov	[rdx], rcx
	jmp	done
1:	mov	[rdx], cl
	jmp	done
2:	mov	[rdx], cx
	jmp	done
4:	mov	[rdx], ecx
	jmp	done

result:
	mov	[rbx + 16], rax
done:
	mov	dword ptr [rbx], 0
	jmp	again

	.balign	16
stubs:
	.set	i, 0
	.rept	MESSAGES + 1
	push	rax
	mov	eax, i
	jmp	taken
	.balign	16
	.set	i, i + 1
	.endr

/*
 * taken: interrupt eax. A level has to be taken away before the interrupt ends: a
 * register that CAUSES points to is written with what it reads, and read again. An
 * interrupt of the pin without a cause is another device's, or none: KVM can interrupt once
 * more for a level that has gone.
 */
taken:
	push	rdx
	cmp	eax, MESSAGES
	jne	1f
	push	rax
	mov	edx, CAUSES
	mov	edx, [rdx]
	mov	eax, [rdx]
	test	eax, eax
	jz	2f
	mov	[rdx], eax
	mov	eax, [rdx]
	pop	rax
1:	lea	edx, [COUNTS + rax * 4]
	inc	dword ptr [rdx]
	jmp	3f
2:	pop	rax
3:	mov	edx, APIC + 0xb0	/* end of interrupt */
	mov	dword ptr [rdx], 0
	pop	rdx
	pop	rax
	iretq

idtr:
	.word	16 * (FIRST + MESSAGES + 1) - 1
	.quad	IDT
