/* The highest value that a number ever had, raised by any thread without a lock. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

static inline void peak_raise(_Atomic uint64_t *peak, uint64_t now)
{
	uint64_t old = atomic_load_explicit(peak, memory_order_relaxed);

	while (now > old && !atomic_compare_exchange_weak(peak, &old, now))
		;
}
