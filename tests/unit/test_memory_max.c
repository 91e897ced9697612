/* What a memory cgroup must allow: memory_max.h. */
#include "tests/lib/check.h"
#include "memory_max.h"

#include <string.h>

#define MIB (1ull << 20)
#define GIB (1ull << 30)

static struct config with(uint64_t arena_bytes)
{
	struct config c;

	config_defaults(&c, NULL);
	c.arena_bytes = arena_bytes;
	return c;
}

static void it_is_the_arena_the_overhead_and_a_tenth(void)
{
	static const uint64_t arenas[] = { 16 * MIB, 100 * MIB + 4096, 1 * GIB, 8 * GIB, 1024 * GIB, 1ull << 46 };

	for (unsigned i = 0; i < sizeof arenas / sizeof *arenas; i++) {
		struct config c = with(arenas[i]);
		uint64_t need = memory_need_bytes(&c), max = memory_max_bytes(&c);

		CHECK(need >= arenas[i] + 48 * MIB);
		CHECK(max >= need / 10 * 11 && max < need / 10 * 11 + 2 * MIB);
		CHECK_EQ(max % MIB, 0);
	}
}

static void small_guests_are_foreseen(void)
{
	struct config c = with(1 * GIB), large = with(64 * GIB);

	/* 64 leases of 16 MiB */
	CHECK_EQ(memory_need_bytes(&c), 1 * GIB + (32 + 64 * 2) * MIB);
	/* no more of them than VMs may be */
	CHECK_EQ(memory_need_bytes(&large), 64 * GIB + (32 + 1024 * 2) * MIB);
	large.max_vms = 100;
	CHECK_EQ(memory_need_bytes(&large), 64 * GIB + (32 + 100 * 2) * MIB);
	large.max_vms = 1;
	CHECK_EQ(memory_need_bytes(&large), 64 * GIB + (32 + 16 * 2) * MIB);
}

static void a_limit_is_judged(void)
{
	struct config c = with(1 * GIB);
	uint64_t need = memory_need_bytes(&c), max = memory_max_bytes(&c);
	struct problem p = { .text = "untouched" };

	CHECK_EQ(memory_judge(&c, UINT64_MAX, &p), MEMORY_FINE);
	CHECK_EQ(memory_judge(&c, max, &p), MEMORY_FINE);
	CHECK(!strcmp(p.text, "untouched"));
	CHECK_EQ(memory_judge(&c, max - 1, &p), MEMORY_TIGHT);
	CHECK_EQ(memory_judge(&c, need, &p), MEMORY_TIGHT);
	CHECK_EQ(memory_judge(&c, need - 1, &p), MEMORY_TOO_LITTLE);
	CHECK_EQ(memory_judge(&c, 0, &p), MEMORY_TOO_LITTLE);
	CHECK(p.need == need && p.have == 0 && strstr(p.text, "systemctl daemon-reload") && strstr(p.text, "MemoryMax="));
	/* the largest numbers, and the sentence is whole */
	c = with(1ull << 46);
	CHECK_EQ(memory_judge(&c, (1ull << 46) - 1, &p), MEMORY_TOO_LITTLE);
	CHECK(strstr(p.text, "the container's limit"));
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){ SCENARIO(it_is_the_arena_the_overhead_and_a_tenth),
		SCENARIO(small_guests_are_foreseen), SCENARIO(a_limit_is_judged), { 0 } });
}
