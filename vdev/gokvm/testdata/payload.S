/* SPDX-License-Identifier: Apache-2.0 */

/*
 * A guest without an operating system: it drives the NPU as docs/spec says,
 * and reports each step with a letter on the serial port, or with '!' and the
 * letter of the step that failed. It ends with a reset of the machine.
 *
 * It runs at 0x100000 in 64-bit mode, with the first 4 GiB mapped one to one and
 * interrupts off. The test puts the size of a firmware image at FWSIZE and the
 * image at FW.
 *
 *	as payload.S -o payload.o
 *	ld -Ttext=0x100000 --oformat=binary payload.o -o payload.bin
 */

	.intel_syntax noprefix
	.code64

	.equ	STACK, 0x200000
	.equ	IDT, 0x201000
	.equ	COUNT, 0x202000		/* interrupts taken */
	.equ	FWSIZE, 0x203000
	.equ	ASQ, 0x210000
	.equ	ACQ, 0x211000
	.equ	IDENTITY, 0x212000
	.equ	FW, 0x400000

	.equ	BAR0, 0xd0000000
	.equ	BAR2, 0xd4000000
	.equ	BAR2_MOVED, 0xdc000000
	.equ	BAR4, 0xd8000000
	.equ	PBA, BAR4 + 0x2000
	.equ	NOTHING, 0xf0000000
	.equ	APIC, 0xfee00000

	.equ	COM1, 0x3f8
	.equ	VECTOR, 0x40

	.equ	NPU_ID, 0x10f01af4
	.equ	ENABLE, 0x80000000

	/* registers of BAR0 (docs/spec/registers.md) */
	.equ	BOOT_CONTROL, 0x140
	.equ	BOOT_STATUS, 0x144
	.equ	IMAGE_ADDR_LO, 0x148
	.equ	IMAGE_SIZE, 0x150
	.equ	ASQ_BASE_LO, 0x180
	.equ	ACQ_BASE_LO, 0x188
	.equ	AQ_SIZE, 0x190
	.equ	AQ_CONTROL, 0x194
	.equ	IRQ_STATUS, 0x1c0
	.equ	IRQ_ENABLE, 0x1c4
	.equ	SQ_TAIL0, 0x80000

/* step: say that the steps before went well; from here on \letter is at stake */
.macro step letter
	mov	bl, \letter
.endm

.macro done
	call	putc
.endm

/* want: fail unless eax is \value */
.macro want value
	cmp	eax, \value
	jne	fail
.endm

/* load: eax from a 32-bit register of memory space */
.macro load addr
	mov	edx, \addr
	mov	eax, [rdx]
.endm

.macro store addr, value
	mov	edx, \addr
	mov	dword ptr [rdx], \value
.endm

/* cfgread: eax from configuration register \off of the NPU, whose address is in r12d */
.macro cfgread off
	mov	ecx, \off
	call	config_read
.endm

.macro cfgwrite off, value
	mov	ecx, \off
	mov	esi, \value
	call	config_write
.endm

	.globl	_start
_start:
	mov	esp, STACK

	/* one gate: VECTOR to handler, code segment 0x10 */
	lea	rax, [rip + handler]
	mov	edi, IDT + 16 * VECTOR
	mov	[rdi], ax
	mov	word ptr [rdi + 2], 0x10
	mov	word ptr [rdi + 4], 0x8e00
	shr	eax, 16
	mov	[rdi + 6], ax
	mov	dword ptr [rdi + 8], 0
	lidt	[rip + idtr]

	/* C: configuration mechanism #1 finds the host bridge and the NPU */
	step	'C'
	mov	r12d, ENABLE
	mov	ecx, 8
	call	config_read
	shr	eax, 16
	want	0x0600
find:
	add	r12d, 1 << 11			/* next device */
	cmp	r12d, ENABLE | 32 << 11
	je	fail
	cfgread	0
	cmp	eax, NPU_ID
	je	found
	want	0xffffffff			/* nobody is there */
	jmp	find
found:
	cfgread	0x0b & ~3			/* the class, by one byte of its doubleword */
	mov	dx, 0xcfc + 3
	xor	eax, eax
	in	al, dx
	want	0x12
	cfgread	0x40				/* the first capability, power management */
	and	eax, 0xff
	want	1
	mov	edx, 0xcf8			/* without the enable bit nobody answers */
	xor	eax, eax
	out	dx, eax
	mov	edx, 0xcfc
	in	eax, dx
	want	0xffffffff
	done

	/* B: sizes and places of the BARs */
	step	'B'
	cfgwrite 0x10, 0xffffffff
	cfgwrite 0x14, 0xffffffff
	cfgread	0x10
	want	0xfff00004			/* 1 MiB, 64-bit */
	cfgread	0x14
	want	0xffffffff
	cfgwrite 0x18, 0xffffffff
	cfgread	0x18
	want	0xfff0000c			/* 1 MiB of device memory, prefetchable */
	cfgwrite 0x20, 0xffffffff
	cfgread	0x20
	want	0xffffc004			/* 16 KiB */
	cfgwrite 0x10, BAR0
	cfgwrite 0x14, 0
	cfgwrite 0x18, BAR2
	cfgwrite 0x1c, 0
	cfgwrite 0x20, BAR4
	cfgwrite 0x24, 0
	load	BAR0				/* still closed */
	want	0xffffffff
	cfgwrite 0x04, 6			/* memory space, bus master */
	done

	/* M: registers */
	step	'M'
	load	BAR0
	want	0x4555504e			/* ID */
	load	BAR0 + 4
	want	0x00010000			/* ARCH_VERSION */
	mov	edx, BAR0
	mov	rax, [rdx]			/* both at once */
	shr	rax, 32
	want	0x00010000
	mov	edx, BAR0
	mov	al, [rdx + 1]			/* too narrow */
	movzx	eax, al
	want	0xff
	load	NOTHING
	want	0xffffffff
	done

	/* D: device memory, also after it was moved */
	step	'D'
	mov	edx, BAR2
	mov	byte ptr [rdx + 0x1001], 0x5a
	mov	rax, 0x1122334455667788
	mov	[rdx + 0xffff8], rax
	cfgwrite 0x04, 4			/* closed */
	load	BAR2 + 0xffff8
	want	0xffffffff
	cfgwrite 0x18, BAR2_MOVED
	cfgwrite 0x04, 6
	load	BAR2_MOVED + 0xffff8
	want	0x55667788
	mov	edx, BAR2_MOVED
	movzx	eax, byte ptr [rdx + 0x1001]
	want	0x5a
	load	BAR2 + 0xffff8
	want	0xffffffff
	done

	/* F: firmware is fetched from guest memory, and boots */
	step	'F'
	store	APIC + 0xf0, 0x1ff		/* local APIC on */
	sti
	/* vector 0: to processor 0, masked */
	store	BAR4, APIC
	store	BAR4 + 4, 0
	store	BAR4 + 8, VECTOR
	cfgread	0x34
	and	eax, 0xfc
capability:
	jz	fail
	mov	ebp, eax
	mov	ecx, eax
	call	config_read
	cmp	al, 0x11			/* MSI-X */
	je	msix
	shr	eax, 8
	and	eax, 0xfc
	jmp	capability
msix:
	mov	ecx, ebp
	mov	esi, 0x80000000			/* enable */
	call	config_write
	store	BAR0 + IMAGE_ADDR_LO, FW
	store	BAR0 + IMAGE_ADDR_LO + 4, 0
	mov	edx, FWSIZE
	mov	eax, [rdx]
	mov	edx, BAR0 + IMAGE_SIZE
	mov	[rdx], eax
	store	BAR0 + IRQ_ENABLE, 0xf
	store	BAR0 + BOOT_CONTROL, 1
boot:
	load	BAR0 + BOOT_STATUS
	cmp	al, 5				/* FAILED */
	je	fail
	cmp	al, 4				/* READY */
	jne	boot
	done

	/* I: the interrupt waits while it is masked, then comes */
	step	'I'
pend:
	load	PBA
	test	eax, 1
	jz	pend
	load	COUNT
	want	0
	store	BAR4 + 12, 0			/* unmask */
	mov	esi, 1
	call	await
	load	PBA
	want	0
	load	BAR0 + IRQ_STATUS
	want	2				/* BOOT */
	store	BAR0 + IRQ_STATUS, 2
	done

	/* A: IDENTIFY through the admin queue; the answer lands here, with an interrupt */
	step	'A'
	store	BAR0 + ASQ_BASE_LO, ASQ
	store	BAR0 + ASQ_BASE_LO + 4, 0
	store	BAR0 + ACQ_BASE_LO, ACQ
	store	BAR0 + ACQ_BASE_LO + 4, 0
	store	BAR0 + AQ_SIZE, 4 | 4 << 16
	store	BAR0 + AQ_CONTROL, 1
	store	ASQ, 0x00770001			/* IDENTIFY, command 0x77 */
	store	ASQ + 8, IDENTITY
	store	ASQ + 0x10, 256
	store	BAR0 + SQ_TAIL0, 1
	mov	esi, 2
	call	await
	load	ACQ + 0x1c			/* command, phase, status */
	want	0x00010077
	load	IDENTITY
	want	256				/* size */
	load	IDENTITY + 12
	want	0x00010000			/* architecture */
	done

	step	10
	done
	jmp	reset

fail:
	mov	bh, bl
	mov	bl, '!'
	call	putc
	mov	bl, bh
	call	putc
reset:
	mov	edx, 0xcf9
	mov	al, 6
	out	dx, al
1:	cli
	hlt
	jmp	1b

/* putc: bl to the serial port */
putc:
	mov	edx, COM1 + 5
1:	in	al, dx
	test	al, 0x20
	jz	1b
	mov	edx, COM1
	mov	al, bl
	out	dx, al
	ret

/* config_read: eax from register ecx of r12d */
config_read:
	mov	eax, r12d
	or	eax, ecx
	mov	edx, 0xcf8
	out	dx, eax
	mov	edx, 0xcfc
	in	eax, dx
	ret

/* config_write: esi to register ecx of r12d */
config_write:
	mov	eax, r12d
	or	eax, ecx
	mov	edx, 0xcf8
	out	dx, eax
	mov	edx, 0xcfc
	mov	eax, esi
	out	dx, eax
	ret

/* await: halt until esi interrupts came */
await:
	mov	edx, COUNT
1:	cli
	cmp	[rdx], esi
	jae	2f
	sti
	hlt
	jmp	1b
2:	sti
	ret

handler:
	push	rax
	mov	eax, COUNT
	inc	dword ptr [rax]
	mov	eax, APIC + 0xb0		/* end of interrupt */
	mov	dword ptr [rax], 0
	pop	rax
	iretq

idtr:
	.word	16 * (VECTOR + 1) - 1
	.quad	IDT
