/* What runs in the emulators: x86-64, position-independent, without a stack, so that the guest's memory holds
 * nothing but what the oracle knows too.
 *
 * Registers on entry (an entry runs to its hlt):
 *	r12 first page		r13 pages		r14 seed
 *	r10 stride in bytes	r9  steps (walk)	r8  address of the table
 *	rbp mismatches between memory and the table, counted up
 * A result leaves through `syscall`: page in r12, hash in rax.  Nothing is kept in rcx and r11 across it.
 * Subroutines return by r15. */
#include "guest.h"

	.section .rodata.guest, "a", @progbits
	.balign 16
	.globl guest_begin, guest_end
	.globl guest_report, guest_seal, guest_check, guest_rewrite, guest_sort, guest_walk

.macro link_to target
	lea	9f(%rip), %r15
	jmp	\target
9:
.endm

/* Hash the page, compare it with the table, report it. */
.macro verify_page
	link_to	hash
	cmp	%rax, (%r8,%r12,8)
	je	8f
	inc	%rbp
8:	syscall
.endm

.macro xorshift reg, tmp
	mov	\reg, \tmp
	shl	$13, \tmp
	xor	\tmp, \reg
	mov	\reg, \tmp
	shr	$7, \tmp
	xor	\tmp, \reg
	mov	\reg, \tmp
	shl	$17, \tmp
	xor	\tmp, \reg
.endm

guest_begin:
	hlt

/* rax = hash of page r12; uses rbx, rcx, rdx, rsi. */
hash:
	mov	%r12, %rsi
	shl	$12, %rsi
	movabs	$GUEST_HASH_START, %rax
	movabs	$GUEST_HASH_MULTIPLY, %rbx
	mov	$128, %ecx
1:
	.irp	offset, 0, 8, 16, 24
	xor	\offset(%rsi), %rax
	imul	%rbx, %rax
	rol	$GUEST_HASH_ROTATE, %rax
	.endr
	add	$32, %rsi
	dec	%ecx
	jnz	1b
	mov	%rax, %rdx
	shr	$32, %rdx
	xor	%rdx, %rax
	jmp	*%r15

/* Add a keystream of seed r14 to every r10-th byte's word of page r12; uses rbx, rcx, rdx, rsi.  Not exclusive-or: the stream
 * is linear in its start, and after two of them all pages would be the same. */
mix:
	movabs	$GUEST_KEY_MULTIPLY, %rdx
	imul	%r12, %rdx
	xor	%r14, %rdx
	or	$1, %rdx
	mov	%r12, %rsi
	shl	$12, %rsi
	lea	4096(%rsi), %rbx
1:	xorshift %rdx, %rcx
	add	%rdx, (%rsi)
	add	%r10, %rsi
	cmp	%rbx, %rsi
	jb	1b
	jmp	*%r15

/* Report the pages, whatever the table says. */
guest_report:
	link_to	hash
	syscall
	inc	%r12
	dec	%r13
	jnz	guest_report
	hlt

/* Enter the pages into the table. */
guest_seal:
	link_to	hash
	mov	%rax, (%r8,%r12,8)
	inc	%r12
	dec	%r13
	jnz	guest_seal
	hlt

/* Compare with the table, and report. */
guest_check:
	verify_page
	inc	%r12
	dec	%r13
	jnz	guest_check
	hlt

/* Check, change, enter anew. */
guest_rewrite:
	verify_page
	link_to	mix
	link_to	hash
	mov	%rax, (%r8,%r12,8)
	inc	%r12
	dec	%r13
	jnz	guest_rewrite
	hlt

/* Visit r9 pages of the r13 pages from r12 on, the first of them much more often than the last; a quarter of
 * the visits rewrites. */
guest_walk:
	mov	%r12, %rdi
2:	xorshift %r14, %rcx
	mov	%r14, %rax
	shr	$32, %rax
	mov	%rax, %rcx
	imul	%rax, %rax
	shr	$32, %rax
	imul	%rcx, %rax
	shr	$32, %rax
	imul	%r13, %rax
	shr	$32, %rax
	lea	(%rdi,%rax), %r12
	verify_page
	test	$3, %r14
	jnz	3f
	link_to	mix
	link_to	hash
	mov	%rax, (%r8,%r12,8)
3:	dec	%r9
	jnz	2b
	hlt

/* Sort the pages as one array of unsigned words (Shell's method), enter them into the table, report them. */
guest_sort:
	mov	%r12, %rsi
	shl	$12, %rsi		/* the array */
	mov	%r13, %rbx
	shl	$12, %rbx		/* its size; all distances in bytes */
	mov	%rbx, %rdx
	shr	$3, %rdx		/* gap in words */
4:	cmp	$2, %rdx
	ja	5f
	mov	$1, %edx
	jmp	6f
5:	lea	(%rdx,%rdx,4), %rax	/* gap = gap * 5 / 11 */
	xor	%edx, %edx
	mov	$11, %ecx
	div	%rcx
	mov	%rax, %rdx
6:	lea	(,%rdx,8), %rcx
	mov	%rcx, %rdi		/* i */
7:	mov	(%rsi,%rdi), %rax
	mov	%rdi, %r9		/* j */
1:	mov	%r9, %r11
	sub	%rcx, %r11
	jb	2f
	mov	(%rsi,%r11), %r14
	cmp	%rax, %r14
	jbe	2f
	mov	%r14, (%rsi,%r9)
	mov	%r11, %r9
	jmp	1b
2:	mov	%rax, (%rsi,%r9)
	add	$8, %rdi
	cmp	%rbx, %rdi
	jb	7b
	cmp	$1, %rdx
	jne	4b
3:	link_to	hash
	mov	%rax, (%r8,%r12,8)
	syscall
	inc	%r12
	dec	%r13
	jnz	3b
	hlt
guest_end:

	.section .note.GNU-stack, "", @progbits
