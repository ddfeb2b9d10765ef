/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a multiboot loader, or a start-up interrupt, to cpu_main(number) in 64-bit mode: paging on,
 * the first 4 GiB mapped one to one, interrupts off. No library, no operating system.
 */
#define STACK 0x4000

	.section .boot, "ax"
	.align 4
	.long 0x1badb002, 0, -0x1badb002

	.code32
	.globl _start
_start:
	/* entries of 2 MiB, usable in ring 3 too */
	mov $pd, %edi
	mov $0x87, %eax
	mov $2048, %ecx
1:	mov %eax, (%edi)
	add $0x200000, %eax
	add $8, %edi
	loop 1b
	movl $pd + 0x0007, pdpt
	movl $pd + 0x1007, pdpt + 8
	movl $pd + 0x2007, pdpt + 16
	movl $pd + 0x3007, pdpt + 24
	movl $pdpt + 7, pml4
	xor %ebx, %ebx

/* ebx: number of this CPU */
to_64_bit:
	mov %cr4, %eax
	or $(1 << 5 | 1 << 9), %eax		/* PAE, OSFXSR */
	mov %eax, %cr4
	mov $pml4, %eax
	mov %eax, %cr3
	mov $0xc0000080, %ecx			/* EFER */
	rdmsr
	or $(1 << 8), %eax			/* LME */
	wrmsr
	mov %cr0, %eax
	or $(1 << 31 | 1 << 16), %eax		/* PG, WP */
	mov %eax, %cr0
	lgdt gdt_pointer
	ljmp $0x08, $in_64_bit

	.code64
in_64_bit:
	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	xor %eax, %eax
	mov %eax, %fs
	mov %eax, %gs
	mov %rbx, %rdi
	inc %ebx
	imul $STACK, %rbx, %rbx
	lea stacks(%rbx), %rsp
	call cpu_main
1:	hlt
	jmp 1b

/* Copied to a page below 1 MiB, where another CPU begins in real mode. */
	.globl trampoline, trampoline_end
	.code16
trampoline:
	cli
	lgdtl %cs:(trampoline_gdt - trampoline)
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	ljmpl $0x18, $1f
trampoline_gdt:
	.word gdt_end - gdt - 1
	.long gdt
trampoline_end:
	.code32
1:	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $1, %ebx
	lock xadd %ebx, next_cpu
	jmp to_64_bit

	.code64
/* Exceptions: exception(vector, error code) never returns. */
	.align 16
	.globl stubs
stubs:
	.set v, 0
	.rept 32
	.align 16
	.if v != 8 && (v < 10 || v > 14) && v != 17
	push $0					/* no error code */
	.endif
	push $v
	jmp exception_common
	.set v, v + 1
	.endr
exception_common:
	pop %rdi
	pop %rsi
	cld
	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	and $-16, %rsp
	call exception
	ud2

/* in_ring3(function): calls it in ring 3; it returns by an exception only */
	.globl in_ring3
in_ring3:
	pop %rax
	mov $0x33, %eax
	mov %eax, %ds
	mov %eax, %es
	push $0x33
	lea stacks + 3 * STACK, %rax
	push %rax
	push $2
	push $0x2b
	push %rdi
	iretq

/* in_32_bit(function): calls it in compatibility mode, with ds = 0x20, whose base is not 0 */
	.globl in_32_bit
in_32_bit:
	push %rbx
	push %rbp
	lea 1f, %rax
	push $0x18
	push %rax
	lretq
	.code32
1:	call *%edi
	ljmp $0x08, $2f
	.code64
2:	mov $0x10, %eax
	mov %eax, %ds
	mov %eax, %es
	pop %rbp
	pop %rbx
	ret

	.data
	.align 4
next_cpu:
	.long 1

	.align 16
	.globl gdt, tss
gdt:
	.quad 0
	.quad 0x00af9b000000ffff		/* 08: code, 64 bits */
	.quad 0x00cf93000000ffff		/* 10: data */
	.quad 0x00cf9b000000ffff		/* 18: code, 32 bits */
	.quad 0x40cf93000000ffff		/* 20: data, from 1 GiB */
	.quad 0x00affb000000ffff		/* 28: code, 64 bits, ring 3 */
	.quad 0x00cff3000000ffff		/* 30: data, ring 3 */
	.quad 0, 0				/* 38: task state, filled in by C */
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.long gdt

	.bss
	.align 4096
	.globl pd
pml4:	.skip 4096
pdpt:	.skip 4096
pd:	.skip 4 * 4096
tss:	.skip 104
	.align 16
stacks:	.skip 3 * STACK
