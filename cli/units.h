/* Sizes for people: KiB, MiB, GiB in, and out. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* "512", "4K", "4KiB", "0x1000", "2MB" (powers of ten) -> bytes. -EINVAL, -ERANGE. */
int units_parse_size(const char *text, size_t length, uint64_t *ret_bytes);
/* 1536 -> "1.5 KiB"; exact values without a fraction. */
void units_size(uint64_t bytes, char buffer[static 32]);
/* 1234 -> "1.2 us", 2500000 -> "2.5 ms". */
void units_time(uint64_t ns, char buffer[static 32]);
