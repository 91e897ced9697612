#include "seccomp_filter.h"

#include "base/events.h"
#include "mem/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifdef HAVE_SECCOMP
#include <seccomp.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

/* A name that this machine does not have (open, on aarch64) needs no rule. */
static int permit(scmp_filter_ctx f, const char *name, unsigned n, struct scmp_arg_cmp argument)
{
	int number = seccomp_syscall_resolve_name(name);

	if (number == __NR_SCMP_ERROR)
		return -EINVAL;
	return number < 0 ? 0 : seccomp_rule_add(f, SCMP_ACT_ALLOW, number, n, argument);
}

static int permit_ioctls(scmp_filter_ctx f)
{
	int r = 0;

	for (const unsigned long *request = uffd_requests; *request && r == 0; request++)
		r = permit(f, "ioctl", 1, SCMP_A1(SCMP_CMP_EQ, *request));
	return r;
}

/* Signals to ourselves: abort(), and those by which threads of leases are ended. */
static int permit_own_signals(scmp_filter_ctx f)
{
	static const char *const calls[] = { "kill", "tgkill" };
	int r = 0;

	for (unsigned i = 0; i < sizeof calls / sizeof *calls && r == 0; i++)
		r = permit(f, calls[i], 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
	return r;
}

static int add_rules(scmp_filter_ctx f)
{
	int r = 0;

#define CALL(name, why)                                                                    \
	if (r == 0)                                                                        \
		r = permit(f, #name, 0, SCMP_A0(SCMP_CMP_EQ, 0));
#define CALL_IF(name, why, argument, mask, value)                                          \
	if (r == 0)                                                                        \
		r = permit(f, #name, 1, SCMP_CMP(argument, SCMP_CMP_MASKED_EQ, mask, value));
#include "seccomp_filter.def"
#undef CALL
#undef CALL_IF
	/* the other filter says no */
	if (r == 0)
		r = permit(f, "clone3", 0, SCMP_A0(SCMP_CMP_EQ, 0));
	if (r == 0)
		r = permit_ioctls(f);
	return r == 0 ? permit_own_signals(f) : r;
}

bool seccomp_filter_is_built(void)
{
	return true;
}

/* clone3 has its flags in memory, where no filter sees them; without it the C library makes its threads by clone.  It tries for each
 * of them, and that is nothing to tell anybody: so this is a filter of its own. */
static int add_clone3(scmp_filter_ctx f)
{
	return seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

static int apply(uint32_t otherwise, int (*add)(scmp_filter_ctx f), bool tell)
{
	scmp_filter_ctx f = seccomp_init(otherwise);
	int r;

	if (!f)
		return -ENOMEM;
	r = add(f);
	/* what is optional of it: to tell, and no slower code for a process that runs nobody else's */
	seccomp_attr_set(f, SCMP_FLTATR_CTL_LOG, tell);
	seccomp_attr_set(f, SCMP_FLTATR_CTL_SSB, 1);
	seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	if (r == 0)
		r = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	if (r == 0)
		r = seccomp_load(f);
	seccomp_release(f);
	return r;
}

int seccomp_filter_apply(void)
{
	int r = apply(SCMP_ACT_ALLOW, add_clone3, false);

	/* the first one has its calls too: this is the last */
	return r == 0 ? apply(SCMP_ACT_ERRNO(EPERM), add_rules, true) : r;
}

#else

bool seccomp_filter_is_built(void)
{
	return false;
}

int seccomp_filter_apply(void)
{
	return -ENOSYS;
}

#endif

/* ---- what must be refused ---- */

static long try_exec(void)
{
	char *none[] = { NULL };

	return execve("/nonexistent", none, none);
}

static long try_network(void)
{
	return socket(AF_INET, SOCK_STREAM, 0);
}

static long try_netlink(void)
{
	return socket(AF_NETLINK, SOCK_RAW, 0);
}

static long try_ptrace(void)
{
	return ptrace(PTRACE_ATTACH, -1, NULL, NULL);
}

static long try_process(void)
{
	/* of a signal that there is none, so that no process comes of it where it is not refused */
	return syscall(SYS_clone, CLONE_SIGHAND, NULL, NULL, NULL, 0);
}

static long try_unshare(void)
{
	return unshare(CLONE_NEWUTS);
}

static long try_setns(void)
{
	return setns(-1, 0);
}

static long try_written_code(void)
{
	return (long)mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static long try_other_memory(void)
{
	return syscall(SYS_process_vm_readv, -1, NULL, 0ul, NULL, 0ul, 0ul);
}

static long try_rings(void)
{
	return syscall(SYS_io_uring_setup, 0, NULL);
}

static long try_ioctl(void)
{
	return syscall(SYS_ioctl, -1, 0x5413, NULL);
}

static long try_signal(void)
{
	return kill(1, 0);
}

static long try_dump(void)
{
	errno = EPERM;
	return prctl(PR_GET_DUMPABLE) ? 0 : -1;
}

void seccomp_filter_try(void)
{
	static const struct {
		const char *what;
		long (*act)(void);
	} tries[] = {
		{ "exec", try_exec }, { "network", try_network }, { "netlink", try_netlink }, { "ptrace", try_ptrace },
		{ "process", try_process }, { "unshare", try_unshare }, { "setns", try_setns }, { "written-code", try_written_code },
		{ "other-memory", try_other_memory }, { "rings", try_rings }, { "ioctl", try_ioctl }, { "signal", try_signal },
		{ "dump", try_dump },
	};

	for (unsigned i = 0; i < sizeof tries / sizeof *tries; i++) {
		long r;

		errno = 0;
		r = tries[i].act();
		event_tell(EVENT_TEST_SWITCH, NULL, "TRY %s: %s", tries[i].what, r == -1 ? strerrorname_np(errno) : "done");
	}
}
