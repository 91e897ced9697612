#include "record/gap.h"

#include "base/clock.h"

#include <pthread.h>

#define READER_NS (2 * NS_PER_S)		/* the writer comes each second */
#define WRITER_NS (5 * NS_PER_S / 2)	/* a turn is cut off after two */
#define LOOK_NS	  (20 * NS_PER_MS)

static struct {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool wanted;
	unsigned reading;
} gap = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0 };

static void wait_a_little(void)
{
	uint64_t until = wall_ns() + LOOK_NS;
	struct timespec t = { .tv_sec = (time_t)(until / NS_PER_S), .tv_nsec = (long)(until % NS_PER_S) };

	pthread_cond_timedwait(&gap.wake, &gap.lock, &t);
}

void gap_want(bool wanted)
{
	pthread_mutex_lock(&gap.lock);
	gap.wanted = wanted;
	pthread_cond_broadcast(&gap.wake);
	pthread_mutex_unlock(&gap.lock);
}

bool gap_take(void)
{
	uint64_t deadline_ns = now_ns() + WRITER_NS;
	bool any;

	pthread_mutex_lock(&gap.lock);
	gap.wanted = true;
	any = gap.reading > 0;
	while (gap.reading && now_ns() < deadline_ns)
		wait_a_little();
	any = any && !gap.reading;
	pthread_mutex_unlock(&gap.lock);
	return any;
}

void gap_enter(const atomic_bool *stop)
{
	uint64_t deadline_ns = now_ns() + READER_NS;

	pthread_mutex_lock(&gap.lock);
	while (gap.wanted && now_ns() < deadline_ns && !atomic_load(stop))
		wait_a_little();
	gap.reading++;
	pthread_mutex_unlock(&gap.lock);
}

void gap_leave(void)
{
	pthread_mutex_lock(&gap.lock);
	gap.reading--;
	pthread_cond_broadcast(&gap.wake);
	pthread_mutex_unlock(&gap.lock);
}
