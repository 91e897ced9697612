/* base/: list, histogram, problem. */
#include "base/clock.h"
#include "base/histogram.h"
#include "base/list.h"
#include "base/problem.h"
#include "tests/lib/check.h"

#include <errno.h>
#include <string.h>

struct item {
	int value;
	struct list link;
};

static void list_keeps_order(void)
{
	struct list head = LIST_INIT(head);
	struct item items[3] = { { .value = 0 }, { .value = 1 }, { .value = 2 } };
	int next = 0;

	CHECK(list_empty(&head));
	for (int i = 0; i < 3; i++)
		list_append(&head, &items[i].link);
	list_foreach(at, &head)
		CHECK_EQ(container_of(at, struct item, link)->value, next++);
	CHECK_EQ(next, 3);
}

static void list_removes_while_walking(void)
{
	struct list head = LIST_INIT(head);
	struct item items[3] = { { .value = 0 }, { .value = 1 }, { .value = 2 } };

	for (int i = 0; i < 3; i++)
		list_append(&head, &items[i].link);
	list_foreach_safe(at, &head) {
		if (container_of(at, struct item, link)->value != 1)
			list_remove(at);
	}
	CHECK(head.next == &items[1].link && head.prev == &items[1].link);
	list_remove(&items[1].link);
	list_remove(&items[1].link); /* twice is harmless */
	CHECK(list_empty(&head));
}

static void histogram_is_right_to_a_quarter(void)
{
	static struct histogram h;
	struct histogram_copy c = { 0 };

	CHECK_EQ(histogram_percentile_ns(&c, 500), 0);
	for (uint64_t ns = 1; ns < NS_PER_S * 60; ns = ns * 17 / 16 + 1) {
		static struct histogram one;
		struct histogram_copy of_one = { 0 };
		uint64_t said;

		memset(&one, 0, sizeof one);
		histogram_add(&one, ns);
		histogram_sum(&one, &of_one);
		said = histogram_percentile_ns(&of_one, 500);
		CHECK_EQ(of_one.count, 1);
		CHECK_EQ(of_one.sum_ns, ns);
		CHECK_MSG(said >= ns && said <= ns + ns / 4 + 1, "%llu ns is reported as %llu", (unsigned long long)ns,
			(unsigned long long)said);
	}
	histogram_add(&h, UINT64_MAX); /* beyond the last bucket: kept, not lost */
	histogram_sum(&h, &c);
	CHECK_EQ(c.count, 1);
}

static void histogram_says_how_many_took_less(void)
{
	static struct histogram h;
	struct histogram_copy c = { 0 };

	for (unsigned i = 0; i < 1000; i++)
		histogram_add(&h, 1023);
	histogram_add(&h, 1024);
	histogram_add(&h, UINT64_MAX);
	histogram_sum(&h, &c);
	CHECK_EQ(histogram_below(&c, 9), 0);
	CHECK_EQ(histogram_below(&c, 10), 1000);
	CHECK_EQ(histogram_below(&c, 11), 1001);
	/* what is beyond the last bucket is in the last */
	CHECK_EQ(histogram_below(&c, 63), 1002);
}

static void histogram_percentiles_and_sums(void)
{
	static struct histogram fast, slow;
	struct histogram_copy c = { 0 };

	for (int i = 0; i < 990; i++)
		histogram_add(&fast, 10 * NS_PER_US);
	for (int i = 0; i < 10; i++)
		histogram_add(&slow, 5 * NS_PER_MS);
	histogram_sum(&fast, &c);
	histogram_sum(&slow, &c);
	CHECK_EQ(c.count, 1000);
	CHECK(histogram_percentile_ns(&c, 500) < 13 * NS_PER_US);
	CHECK(histogram_percentile_ns(&c, 990) < 13 * NS_PER_US);
	CHECK(histogram_percentile_ns(&c, 999) >= 5 * NS_PER_MS);
}

static void problem_keeps_the_numbers(void)
{
	struct problem p = { 0 };

	CHECK_EQ(problem_set(&p, ENOMEM, PROBLEM_NOT_ENOUGH_MEMORY, 8, 5, "need %d", 8), -ENOMEM);
	CHECK_EQ(p.kind, PROBLEM_NOT_ENOUGH_MEMORY);
	CHECK_EQ(p.need, 8);
	CHECK_EQ(p.have, 5);
	CHECK(!strcmp(p.text, "need 8"));
	CHECK_EQ(problem_set(NULL, EINVAL, PROBLEM_INVALID_SIZE, 0, 0, "no place for it"), -EINVAL);
	errno = ENOSPC;
	CHECK_EQ(problem_errno(&p, "cannot write"), -ENOSPC);
	CHECK_EQ(p.kind, PROBLEM_SYSTEM);
	CHECK_MSG(strstr(p.text, "cannot write") && strstr(p.text, strerror(ENOSPC)), "%s", p.text);
}

int main(int argc, char **argv)
{
	return check_main(argc, argv, (const struct scenario[]){
		SCENARIO(list_keeps_order),
		SCENARIO(list_removes_while_walking),
		SCENARIO(histogram_is_right_to_a_quarter),
		SCENARIO(histogram_percentiles_and_sums),
		SCENARIO(histogram_says_how_many_took_less),
		SCENARIO(problem_keeps_the_numbers),
		{ 0 } });
}
