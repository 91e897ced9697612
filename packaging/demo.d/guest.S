/* What runs in the emulators: x86-64, position-independent, without a stack, so that the guest's memory holds
 * nothing but what the oracle knows too.
 *
 * Registers on entry (an entry runs to its hlt):
 *	r12 first page		r13 pages		r14 seed
 *	r10 stride in bytes	r9  steps (walk)	r8  address of the table
 *	rbp mismatches between memory and the table, counted up
 * and for the heap's
 *	r12 first object	r13 objects		r14 seed
 *	r8  the heap's address	r10 its pages		r9  not 0: the twin, a driver that does not keep what it gave
 * A result leaves through `syscall`: page in r12, hash in rax.  Nothing is kept in rcx and r11 across it.
 * Subroutines return by r15. */
#include "guest.h"

	.section .rodata.guest, "a", @progbits
	.balign 16
	.globl guest_begin, guest_end
	.globl guest_boot, guest_use, guest_look, guest_drop, guest_balloon
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
/* ---- the heap ---- */

/* eax: a page of the heap; becomes its number, or with `shift` its address, in rax.  Uses rcx. */
.macro to_number shift=0
	mov	%r8, %rcx
	shr	$12, %rcx
	lea	GUEST_HEAP_TABLE_PAGES(%rcx,%rax), %rax
	.if \shift
	shl	$12, %rax
	.endif
.endm

.macro out_eax port
	mov	$\port, %edx
	out	%eax, %dx
.endm

.macro in_eax port
	mov	$\port, %edx
	in	%dx, %eax
.endm

/* Allocate: rax = a page of the heap, -1 if all are used; uses rcx, rdx. */
take:
	xor	%ecx, %ecx
	mov	%r10, %rdx
	shr	$6, %rdx
1:	mov	(%r8,%rcx,8), %rax
	not	%rax
	bsf	%rax, %rax
	jnz	2f
	inc	%rcx
	cmp	%rdx, %rcx
	jb	1b
	mov	$-1, %rax
	jmp	*%r15
2:	shl	$6, %rcx
	add	%rcx, %rax
	bts	%rax, (%r8)
	jmp	*%r15

/* Nothing is used, and the driver is there. */
guest_boot:
	mov	%r10, %rcx
	shr	$6, %rcx
1:	movq	$0, -8(%r8,%rcx,8)
	dec	%rcx
	jnz	1b
	movq	$0, GUEST_HEAP_BALLOONED(%r8)
	xor	%eax, %eax
	out_eax	GUEST_PORT_START
	hlt

/* Allocate a page for each object and fill it with a keystream of its number and the seed.  If all are used, one comes back
 * from the balloon. */
guest_use:
	link_to	take
	cmp	$-1, %rax
	jne	2f
	mov	GUEST_HEAP_BALLOONED(%r8), %rcx
	dec	%rcx
	mov	%rcx, GUEST_HEAP_BALLOONED(%r8)
	mov	GUEST_HEAP_BALLOON(%r8,%rcx,4), %edi
	mov	%rdi, %rax
	to_number
	out_eax	GUEST_PORT_DEFLATE
	in_eax	GUEST_PORT_COMMIT
	mov	%rdi, %rax
2:	mov	%eax, GUEST_HEAP_OBJECTS(%r8,%r12,4)
	to_number shift=1
	mov	%rax, %rsi
	lea	4096(%rsi), %rbx
	movabs	$GUEST_KEY_MULTIPLY, %rdx
	imul	%r12, %rdx
	xor	%r14, %rdx
	or	$1, %rdx
3:	xorshift %rdx, %rcx
	mov	%rdx, (%rsi)
	add	$8, %rsi
	cmp	%rbx, %rsi
	jb	3b
	inc	%r12
	dec	%r13
	jnz	guest_use
	hlt

/* Report what the objects hold. */
guest_look:
	mov	%r12, %rdi
	mov	GUEST_HEAP_OBJECTS(%r8,%r12,4), %eax
	to_number
	mov	%rax, %r12
	link_to	hash
	mov	%rdi, %r12
	syscall
	inc	%r12
	dec	%r13
	jnz	guest_look
	hlt

/* Free the objects; what they held stays in their pages. */
guest_drop:
	mov	GUEST_HEAP_OBJECTS(%r8,%r12,4), %eax
	btr	%rax, (%r8)
	inc	%r12
	dec	%r13
	jnz	guest_drop
	hlt

/* The driver: r12 pages are in the balloon, r13 are wanted; rdi is r12 at the begin of a batch.  A page that is given stays
 * used until it is back; and is not touched, here or elsewhere. */
guest_balloon:
	in_eax	GUEST_PORT_TARGET
	mov	%rax, %r13
	mov	GUEST_HEAP_BALLOONED(%r8), %r12
	cmp	%r13, %r12
	ja	deflate

inflate:
	mov	%r12, %rdi
1:	cmp	%r13, %r12
	jae	2f
	lea	GUEST_BATCH(%rdi), %rcx
	cmp	%rcx, %r12
	jae	2f
	link_to	take
	cmp	$-1, %rax
	je	2f
	mov	%eax, GUEST_HEAP_BALLOON(%r8,%r12,4)
	inc	%r12
	to_number
	out_eax	GUEST_PORT_INFLATE
	jmp	1b
2:	cmp	%rdi, %r12
	je	report_heap
	in_eax	GUEST_PORT_COMMIT
	mov	%eax, %ebx
	test	%r9, %r9
	jz	4f
	mov	%rdi, %rcx
3:	mov	GUEST_HEAP_BALLOON(%r8,%rcx,4), %eax
	btr	%rax, (%r8)
	inc	%rcx
	cmp	%r12, %rcx
	jb	3b
4:	test	%ebx, %ebx
	jz	inflate
5:	in_eax	GUEST_PORT_REFUSED	/* they are free again, and it is enough for this time */
	add	%rdi, %rax
	mov	GUEST_HEAP_BALLOON(%r8,%rax,4), %ecx
	btr	%rcx, (%r8)
	dec	%r12
	mov	GUEST_HEAP_BALLOON(%r8,%r12,4), %ecx
	mov	%ecx, GUEST_HEAP_BALLOON(%r8,%rax,4)
	dec	%ebx
	jnz	5b
	jmp	report_heap

deflate:
	mov	%r12, %rdi
1:	dec	%r12
	mov	GUEST_HEAP_BALLOON(%r8,%r12,4), %eax
	to_number
	out_eax	GUEST_PORT_DEFLATE
	lea	GUEST_BATCH(%r12), %rcx
	cmp	%rcx, %rdi
	jae	2f
	cmp	%r13, %r12
	ja	1b
2:	in_eax	GUEST_PORT_COMMIT
	mov	%r12, %rcx
3:	mov	GUEST_HEAP_BALLOON(%r8,%rcx,4), %eax
	btr	%rax, (%r8)
	inc	%rcx
	cmp	%rdi, %rcx
	jb	3b
	cmp	%r13, %r12
	ja	deflate

/* Report how many pages the allocator counts as used, and how many are in the balloon. */
report_heap:
	mov	%r12, GUEST_HEAP_BALLOONED(%r8)
	xor	%eax, %eax
	mov	%r10, %rcx
	shr	$6, %rcx
1:	mov	-8(%r8,%rcx,8), %rdx
2:	test	%rdx, %rdx
	jz	3f
	lea	-1(%rdx), %rbx
	and	%rbx, %rdx
	inc	%rax
	jmp	2b
3:	dec	%rcx
	jnz	1b
	mov	%r12, %rbx
	xor	%r12d, %r12d
	syscall
	inc	%r12
	mov	%rbx, %rax
	syscall
	hlt
guest_end:
	.org	guest_begin + 4096	/* no more than a page */

	.section .note.GNU-stack, "", @progbits
