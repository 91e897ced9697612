#define ZSTD_STATIC_LINKING_ONLY
#include <zstd.h>

#include "mem/codec.h"
#include "mem/page.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

struct codec {
	ZSTD_CCtx *cctx;
	ZSTD_DCtx *dctx;
	int level;
};

int codec_new(struct codec **ret)
{
	struct codec *c = calloc(1, sizeof *c);

	if (!c)
		return -ENOMEM;
	c->cctx = ZSTD_createCCtx();
	c->dctx = ZSTD_createDCtx();
	c->level = INT_MIN;
	if (!c->cctx || !c->dctx) {
		codec_free(c);
		return -ENOMEM;
	}
	ZSTD_CCtx_setParameter(c->cctx, ZSTD_c_format, ZSTD_f_zstd1_magicless);
	ZSTD_CCtx_setParameter(c->cctx, ZSTD_c_contentSizeFlag, 0);
	ZSTD_CCtx_setParameter(c->cctx, ZSTD_c_checksumFlag, 0);
	ZSTD_CCtx_setParameter(c->cctx, ZSTD_c_dictIDFlag, 0);
	ZSTD_DCtx_setParameter(c->dctx, ZSTD_d_format, ZSTD_f_zstd1_magicless);
	*ret = c;
	return 0;
}

void codec_free(struct codec *c)
{
	if (!c)
		return;
	ZSTD_freeCCtx(c->cctx);
	ZSTD_freeDCtx(c->dctx);
	free(c);
}

size_t codec_compress(struct codec *c, int level, const void *page, void *to, size_t room)
{
	size_t n;

	if (level != c->level) {
		ZSTD_CCtx_setParameter(c->cctx, ZSTD_c_compressionLevel, level);
		c->level = level;
	}
	n = ZSTD_compress2(c->cctx, to, room, page, PAGE_SIZE);
	return ZSTD_isError(n) ? 0 : n;
}

int codec_decompress(struct codec *c, const void *from, size_t length, void *to_page)
{
	size_t n = ZSTD_decompressDCtx(c->dctx, to_page, PAGE_SIZE, from, length);

	return n == PAGE_SIZE ? 0 : -EBADMSG;
}
