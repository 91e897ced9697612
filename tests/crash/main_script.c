/* The main script: pages go out to every place and come back, are shared, written to, mapped, pinned, discarded, ballooned;
 * another lease comes and goes; resources change.  Each part leaves its pages to the next one. */
#include "tests/crash/script.h"

#include "tests/torture/view.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define COLD_TRIES 100u

/* What may come of a read: a page of zeros, one by one and in a run. */
static void first_touches(void)
{
	check(63, "at its first touch");
	check_all(0, 4, "at its first touch");
}

/* Out to every place and back from it, by faults alone, by runs, and by calls. */
static void out_and_in(void)
{
	populate(4, 5);
	set(4, CONTENT_TEXT, 4);
	set(5, CONTENT_TEXT, 5);
	set(6, CONTENT_RANDOM, 6);
	set(7, CONTENT_RANDOM, 7);
	set(8, CONTENT_ZERO, 0);
	evict(4, 5);
	await(4, "compressed", false);
	await(6, "swapped", false);
	await(8, "zero", false);
	check_all(4, 5, "after an eviction");
	evict(4, 5);
	set(5, CONTENT_TEXT, 105);
	set(7, CONTENT_RANDOM, 107);
	evict(4, 5);
	populate(4, 1);
	will_need(6, 1);
	discard(5, 1);
	discard(7, 1);
	discard(4, 1);
	discard(8, 1);
	check_all(4, 5, "after a discard");
	set(4, CONTENT_TEXT, 204);
	pin(4, 1);
	evict(4, 1);
	await(4, "resident", false);
	set(4, CONTENT_TEXT, 304);
	unpin(4, 1);
	evict(4, 1);
	await(4, "compressed", false);
	check(4, "after pins");
}

/* Pages that are alike are shared, written to, brought home. */
static void share_and_break(void)
{
	populate(20, 10);
	for (unsigned i = 0; i < 4; i++) {
		set(20 + i, i % 2 ? CONTENT_RANDOM : CONTENT_TEXT, 1000 + i);
		like(24 + i, 20 + i);
	}
	set(28, CONTENT_TEXT, 28);
	await_all(20, 8, "shared", true);
	await(29, "zero", false);
	check_all(20, 9, "when they are shared");
	/* clean, and like nothing: its protection ends */
	set(28, CONTENT_TEXT, 128);
	/* break, and home by itself; what is as before is soon shared again */
	set(20, CONTENT_TEXT, 220);
	set(21, CONTENT_TEXT, 221);
	ram[22 * PAGE + 100] ^= 1;
	ram[22 * PAGE + 100] ^= 1;
	check_all(20, 9, "after a break");
	await_all(20, 2, "resident", false);
	/* home by a pin and by a discard, broken and not */
	set(23, CONTENT_TEXT, 223);
	pin(22, 2);
	check_all(20, 9, "pinned at home");
	unpin(22, 2);
	discard(24, 1);
	check_all(20, 8, "when one that was shared is discarded");
}

/* Write to a page what `other` has, and evict it so that it takes a reference to the entry that `other` maps.  That is promised to
 * a page with a frame of its own, if the entry has its frame or is compressed.  A restart may have brought `other` home, which
 * ends the entry; the look that shares it again then takes the page along, and what is mapped is not evicted; or the entry may
 * be on its way to the disk.  So each try begins anew, whatever has become of the page: a discard brings it home. */
static void make_cold(unsigned page, unsigned other)
{
	for (unsigned i = 0; i < COLD_TRIES; i++) {
		if (!await(other, "shared", true))
			return;
		if (!is(page, "resident", false))
			discard(page, 1);
		like(page, other);
		check(other, "as the like of another");
		evict(page, 1);
		if (is(page, "shared", false))
			return;
		nanosleep(&(struct timespec){ .tv_nsec = 10000000 }, NULL);
	}
	errors += !tolerant;
	fprintf(stderr, "scenario: page %u did not become cold\n", page);
}

/* The frames of 25, 26, 27 are taken from all who map them, and come back. */
static void pool_out_and_in(void)
{
	populate(34, 14);
	evict(25, 3);
	check_all(25, 3, "when the pool's frames were taken");
	evict(25, 3);
	/* the break has to bring it back first; so has the mapping of another */
	set(25, CONTENT_TEXT, 325);
	like(34, 26);
	await(34, "shared", true);
	check_all(25, 3, "when the pool's frames came back");
	/* an evicted page that is like one of the pool refers to it and is not mapped */
	make_cold(36, 27);
	check(36, "when it was cold");
	make_cold(36, 27);
	discard(36, 1);
}

/* From the cache to the disk, of the VM and of the pool. */
static void write_back(void)
{
	set(40, CONTENT_TEXT, 40);
	set(41, CONTENT_TEXT, 41);
	evict(40, 2);
	evict(26, 2);
	check(27, "of the pool's swap file");
	await(40, "compressed", false);
	/* a restart forgets what was tuned */
	for (unsigned i = 0; i < 3 && (i == 0 || !is(40, "swapped", false)); i++) {
		tune("MemZipMaxPct", "0");
		set(42, CONTENT_TEXT, 42);
		evict(42, 1);
		evict(26, 2);
	}
	await(40, "swapped", false);
	tune("MemZipMaxPct", "50");
	check(26, "after write-back");
	check_all(40, 3, "after write-back");
	/* its entry has no other reference */
	discard(27, 1);
}

static void inflate(unsigned first, unsigned count)
{
	struct memctl_error e = { 0 };
	uint64_t pages[PAGES];
	uint8_t refused[PAGES] = { 0 };
	ssize_t r;

	for (unsigned i = 0; i < count; i++)
		pages[i] = first + i;
	r = memctl_balloon_inflate(lease, pages, count, refused, &e);
	must((int)r, "memctl_balloon_inflate", &e);
	/* what failed is not known, and what was refused may be zeros by now */
	for (unsigned i = 0; i < count; i++)
		if ((r >= 0 && !refused[i]) || content_is_zero(ram + (first + i) * PAGE))
			expect[first + i] = zero();
}

static void deflate(unsigned first, unsigned count)
{
	struct memctl_error e = { 0 };
	uint64_t pages[PAGES];

	for (unsigned i = 0; i < count; i++)
		pages[i] = first + i;
	must(memctl_balloon_deflate(lease, pages, count, &e), "memctl_balloon_deflate", &e);
}

/* Pages go into the balloon from where they are, and out of it by a touch, by a deflate, and by a driver that begins anew. */
static void ballooned(void)
{
	struct memctl_error e = { 0 };

	must(memctl_balloon_start(client, &e), "memctl_balloon_start", &e);
	set(56, CONTENT_TEXT, 56);
	set(57, CONTENT_RANDOM, 57);
	evict(57, 1);
	inflate(56, 3);
	await_all(56, 3, "ballooned", false);
	audit();
	check(56, "touched in the balloon");
	await(56, "resident", false);
	set(56, CONTENT_TEXT, 156);
	deflate(56, 2);
	await(57, "zero", false);
	check_all(55, 3, "out of the balloon");
	set(57, CONTENT_TEXT, 157);
	must(memctl_balloon_start(client, &e), "memctl_balloon_start", &e);
	await(58, "zero", false);
	check_all(55, 4, "when its driver began anew");
	/* left as it is */
	inflate(57, 2);
}

/* What a client does that does not keep to the rules: it is corrected, and costs nobody else. */
static void behind_its_back(void)
{
	int fd = view_find_fd(ram, PAGES * PAGE); /* the library's */
	uint8_t buf[CONTENT_PAGE];

	set(45, CONTENT_TEXT, 45);
	set(46, CONTENT_TEXT, 46);
	evict(45, 1);
	/* a page where none was */
	expect[45].page = 145;
	make(45, buf);
	if (fd < 0 || pwrite(fd, buf, PAGE, 45 * PAGE) != PAGE) {
		errors++;
		fprintf(stderr, "scenario: its own memfd cannot be written to\n");
		return;
	}
	/* and none where one was: found by the audit, and by a fault */
	for (unsigned i = 46; i < 48; i++) {
		if (i == 47)
			set(i, CONTENT_TEXT, i);
		if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(i * PAGE), PAGE) < 0)
			errors++;
		expect[i] = zero();
		if (i == 46)
			audit();
		else
			check(i, "punched by its client");
	}
	check_all(44, 4, "changed behind memctld's back");
}

/* Another lease comes and goes, with pages in every place. */
static void tenant(void)
{
	struct memctl_lease *main_lease = lease;
	struct memctl_error e = { 0 };
	struct content kept[4];

	memcpy(kept, expect, sizeof kept);
	lease = NULL;
	must(memctl_lease(client, 1 << 30, 4 * PAGE, &lease, &e), "memctl_lease", &e);
	if (!lease) {
		lease = main_lease;
		return;
	}
	ram = memctl_lease_address(lease);
	populate(0, 4);
	set(0, CONTENT_TEXT, 400);
	set(1, CONTENT_RANDOM, 401);
	like(2, 26);
	set(3, CONTENT_TEXT, 403);
	evict(0, 3);
	check(3, "of the second lease");
	must(memctl_release(lease, &e), "memctl_release", &e);
	lease = main_lease;
	ram = memctl_lease_address(lease);
	memcpy(expect, kept, sizeof kept);
}

/* Its resources change, and are what was said last, whoever was killed in between; what is refused leaves them as they were. */
static void resources(void)
{
	unsigned have_kib = PAGES * PAGE / 1024;

	for (unsigned i = 0; i < 2; i++) {
		unsigned want_kib = i ? 256 : 64;
		char text[200], *reply;

		snprintf(text, sizeof text, "{\"vm\":\"scenario\",\"reservation\":\"%uK\",\"shares\":\"%u\"}", want_kib, 7 + i);
		reply = ask("SetVm", text);
		/* a refusal that is permitted; ask() has told of others */
		if (reply || !tolerant)
			have_kib = want_kib;
		free(reply);
		reply = ask("ShowVm", "{\"vm\":\"scenario\"}");
		snprintf(text, sizeof text, "\"reservation_bytes\":%u,", have_kib << 10);
		if (reply && !strstr(reply, text)) {
			errors++;
			fprintf(stderr, "scenario: the VM's resources are not what they were: no %s\n", text);
		}
		free(reply);
	}
}

void run_main(void)
{
	if (!begin("group:crash", NULL))
		return;
	first_touches();
	out_and_in();
	share_and_break();
	pool_out_and_in();
	write_back();
	tenant();
	behind_its_back();
	resources();
	ballooned();
	audit();
	for (unsigned i = 0; i < PAGES; i++)
		if (expect[i].kind != CONTENT_ZERO)
			check(i, "at the end");
	/* left as it is: mapped, broken, cold, compressed, swapped */
	set(26, CONTENT_TEXT, 526);
	set(36, CONTENT_RANDOM, 536);
	evict(36, 6);
	end();
}
