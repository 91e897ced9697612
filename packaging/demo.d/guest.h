/* The guest program (guest.S) as the emulator and the oracle see it: where it lies in guest memory, its
 * entries, and the constants of its arithmetic.  Also read by the assembler.
 *
 * Guest memory, in pages:	0		the code
 *				1 ... 95	the table: guest_hash of every page, kept by the guest itself
 *				96 ...		data
 */
#pragma once

#define GUEST_TABLE_PAGE 1
#define GUEST_DATA_PAGE  96
/* The table has a word for each page. */
#define GUEST_MAX_PAGES ((GUEST_DATA_PAGE - GUEST_TABLE_PAGE) * 512)

#define GUEST_HASH_START    0x243f6a8885a308d3
#define GUEST_HASH_MULTIPLY 0x9e3779b97f4a7c15
#define GUEST_HASH_ROTATE   29
#define GUEST_KEY_MULTIPLY  0xd1342543de82ef95

#ifndef __ASSEMBLER__
/* Entries: their offsets from guest_begin are guest addresses, as the code is loaded at 0. */
extern const char guest_begin[], guest_end[];
extern const char guest_report[], guest_seal[], guest_check[], guest_rewrite[], guest_sort[], guest_walk[];
#endif
