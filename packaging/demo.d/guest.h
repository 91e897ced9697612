/* The guest program (guest.S) as the emulator and the oracle see it: where it lies in guest memory, its
 * entries, and the constants of its arithmetic.  Also read by the assembler.
 *
 * Guest memory, in pages:	0		the code
 *				1 ... 95	the table: guest_hash of every page, kept by the guest itself
 *				96 ...		data
 *				at the end	the heap, if the plan has one: its tables, and its pages
 *
 * The heap is the guest's own: an allocator (a bit a page, set: used) whose pages hold objects, or nothing, or are in the
 * balloon.  What the guest's driver says and asks goes through ports of 32 bits, pages by their numbers in guest memory:
 *
 *	out START	the driver is there; its balloon is empty
 *	in TARGET	how many pages memctld wants in it
 *	out INFLATE	a page given, out DEFLATE: a page wanted back; neither counts before
 *	in COMMIT	carries out what was named, GUEST_BATCH of one kind at most: how many were refused
 *	in REFUSED	which: places in the batch, the last first
 */
#pragma once

#define GUEST_TABLE_PAGE 1
#define GUEST_DATA_PAGE  96
/* The table has a word for each page. */
#define GUEST_MAX_PAGES ((GUEST_DATA_PAGE - GUEST_TABLE_PAGE) * 512)

/* The heap's tables, in bytes from its start: the bits; how many pages are in the balloon; the page of each object; the
 * pages in the balloon.  The pages are counted from where the tables end. */
#define GUEST_HEAP_MAX         8192
#define GUEST_HEAP_BALLOONED   1024
#define GUEST_HEAP_OBJECTS     4096
#define GUEST_HEAP_BALLOON     (4096 * 9)
#define GUEST_HEAP_TABLE_PAGES 17

#define GUEST_PORT_START   0x510
#define GUEST_PORT_TARGET  0x514
#define GUEST_PORT_INFLATE 0x518
#define GUEST_PORT_DEFLATE 0x51c
#define GUEST_PORT_COMMIT  0x520
#define GUEST_PORT_REFUSED 0x524
#define GUEST_BATCH        512

#define GUEST_HASH_START    0x243f6a8885a308d3
#define GUEST_HASH_MULTIPLY 0x9e3779b97f4a7c15
#define GUEST_HASH_ROTATE   29
#define GUEST_KEY_MULTIPLY  0xd1342543de82ef95

#ifndef __ASSEMBLER__
/* Entries: their offsets from guest_begin are guest addresses, as the code is loaded at 0. */
extern const char guest_begin[], guest_end[];
extern const char guest_report[], guest_seal[], guest_check[], guest_rewrite[], guest_sort[], guest_walk[],
	guest_boot[], guest_use[], guest_look[], guest_drop[], guest_balloon[];
#endif
