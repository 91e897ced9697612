/* One page in, a frame of zstd out (the daemon's door to zstd).
 *
 * A codec belongs to one thread.  Its contexts are made once: nothing is allocated per page.  The format is zstd's
 * without magic number, content size and checksum (14 bytes less a page; the store checks the page itself). */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct codec;

int codec_new(struct codec **ret);
void codec_free(struct codec *c);
/* The compressed length, or 0 if it does not fit into `room`. */
size_t codec_compress(struct codec *c, int level, const void *page, void *to, size_t room);
/* 0, or -EBADMSG: not exactly one page. */
int codec_decompress(struct codec *c, const void *from, size_t length, void *to_page);
