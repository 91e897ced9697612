/* A fuzz target: one source, one LLVMFuzzerTestOneInput, which is given bytes of a stranger's and has to come back.  What must hold of any
 * input whatever is a CHECK, which aborts here; the rest is the sanitizers'.
 *
 * Three programs come from it:
 *
 *	corpus-NAME		with replay.c: all of corpus/NAME, once; in every build (tests/run corpus)
 *	fuzz-NAME		with libFuzzer, in build-fuzz, and with AFL++, in build-afl (tests/fuzz/run) */
#pragma once

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Takes bytes from the front; zeros when there are no more. */
struct input {
	const uint8_t *data;
	size_t left;
};
void input_take(struct input *in, void *ret, size_t bytes);
uint8_t input_byte(struct input *in);
/* The lowest descriptor that is free: what is left open shows. */
int input_free_fd(void);
