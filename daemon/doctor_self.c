/* What memctld knows of itself: who starts it again, its time-outs, its clients, its stores, its history. */
#include "doctor.h"

#include <stdio.h>
#include <string.h>

typedef bool vm_is(const struct doctor_view *v, const struct doctor_vm *vm);

/* The names of the VMs for which `is` holds, "a, b and 3 more"; how many they are. */
static unsigned names(const struct doctor_view *v, vm_is *is, char *ret,
	size_t bytes)
{
	unsigned n = 0, shown = 0;
	size_t at = 0;

	ret[0] = 0;
	for (unsigned i = 0; i < v->n_vms; i++) {
		if (!is(v, &v->vms[i]))
			continue;
		if (n++ < 4) {
			at += (size_t)snprintf(ret + at, bytes - at, "%s%s", shown ? ", " : "", v->vms[i].name);
			shown++;
		}
	}
	if (n > shown)
		snprintf(ret + at, bytes - at, " and %u more", n - shown);
	return n;
}

static const struct doctor_vm *first(const struct doctor_view *v, vm_is *is)
{
	const struct doctor_vm *vm = v->vms;

	while (!is(v, vm))
		vm++;
	return vm;
}

static bool is_user_mode(const struct doctor_view *v, const struct doctor_vm *vm)
{
	(void)v;
	return vm->user_mode_only;
}

static bool is_writer(const struct doctor_view *v, const struct doctor_vm *vm)
{
	(void)v;
	return vm->in_group && vm->pool_writable;
}

static bool is_without_pool(const struct doctor_view *v, const struct doctor_vm *vm)
{
	(void)v;
	return vm->wants_pool && !vm->has_pool;
}

static bool is_of_our_user(const struct doctor_view *v, const struct doctor_vm *vm)
{
	return vm->uid == v->uid && v->uid != 0;
}

static void look_at_restart(struct doctor *d)
{
	const struct doctor_view *v = &d->view;

	if (!v->managed)
		doctor_say(d, DOCTOR_restarter, DOCTOR_FAILURE, NULL,
			"Nobody starts memctld again if it dies, and nobody keeps what guests need: %s would wait for ever.",
			v->n_vms ? "the guests that run now" : "guests");
	else if (!v->keeps)
		doctor_say(d, DOCTOR_restarter, DOCTOR_FAILURE,
			"mkdir -p /etc/systemd/system/memctld.service.d && printf '[Service]\\nFileDescriptorStoreMax=16384\\n' "
			"> /etc/systemd/system/memctld.service.d/fdstore.conf && systemctl daemon-reload && memctl daemon stop --wait && "
			"systemctl start memctld",
			"The service manager keeps no descriptors (FileDescriptorStoreMax=): when memctld dies guests wait for ever.");
	else
		doctor_say(d, DOCTOR_restarter, DOCTOR_OK, NULL, "%s starts memctld again, and keeps what guests need.",
			v->supervised ? "memctld --supervise" : "The service manager");
	doctor_fix_start(d, DOCTOR_restarter, NULL);
	if (v->watchdog_ns)
		doctor_say(d, DOCTOR_watchdog, DOCTOR_OK, NULL, "memctld is killed, and started again, if it hangs for %llu s.",
			(unsigned long long)(v->watchdog_ns / 1000000000));
	else if (v->supervised)
		doctor_say(d, DOCTOR_watchdog, DOCTOR_WARNING, "memctl daemon stop --wait && memctld --supervise --watchdog 10",
			"memctld --supervise was told not to look whether memctld hangs (--watchdog 0).");
	else
		doctor_say(d, DOCTOR_watchdog, DOCTOR_WARNING, v->managed && !v->supervised ?
			"mkdir -p /etc/systemd/system/memctld.service.d && printf '[Service]\\nWatchdogSec=30\\n' "
			"> /etc/systemd/system/memctld.service.d/watchdog.conf && systemctl daemon-reload && memctl daemon upgrade" : NULL,
			"Nobody notices if memctld hangs: there is no watchdog.");
	doctor_fix_start(d, DOCTOR_watchdog, NULL);
}

static void look_at_time_outs(struct doctor *d)
{
	const struct doctor_view *v = &d->view;

	if (!v->client_hold_limit_s)
		doctor_say(d, DOCTOR_time_outs, DOCTOR_WARNING, v->reconnect_grace_s ? "memctl tune client_hold_limit 30" :
			"memctl tune client_hold_limit 30 && memctl tune reconnect_grace 300",
			"client_hold_limit is 0: a client that holds a thread of memctld is never killed%s.",
			v->reconnect_grace_s ? "" : "; and reconnect_grace is 0: one that does not come back keeps its memory for ever");
	else if (!v->reconnect_grace_s)
		doctor_say(d, DOCTOR_time_outs, DOCTOR_WARNING, "memctl tune reconnect_grace 300",
			"reconnect_grace is 0: a VM whose client lives and does not come back after a restart keeps its memory for ever.");
	else
		doctor_say(d, DOCTOR_time_outs, DOCTOR_OK, NULL,
			"A client may hold a thread for %lld s, and stay away after a restart for %lld s.", (long long)v->client_hold_limit_s,
			(long long)v->reconnect_grace_s);
}

static void look_at_clients(struct doctor *d)
{
	const struct doctor_view *v = &d->view;
	char who[340];
	unsigned n;

	n = names(v, is_user_mode, who, sizeof who);
	if (n) {
		doctor_say(d, DOCTOR_fault_modes, DOCTOR_WARNING, NULL,
			"With user-mode faults only: %s.  KVM, and system calls into pages that are not resident, do not work there.", who);
		doctor_fix(d, DOCTOR_fault_modes, "chgrp memctl /dev/userfaultfd && chmod 0660 /dev/userfaultfd && "
			"usermod -aG memctl \"$(id -un %u)\"", (unsigned)first(v, is_user_mode)->uid);
	} else {
		doctor_say(d, DOCTOR_fault_modes, DOCTOR_OK, NULL, "Of %u VMs none is without a full userfaultfd.", v->n_vms);
	}
	n = names(v, is_writer, who, sizeof who);
	if (n)
		doctor_say(d, DOCTOR_pools_writable, DOCTOR_WARNING, "memctl tune share_with_root no",
			"Could write to their group's shared pages, being root's or memctld's own user's: %s.", who);
	else
		doctor_say(d, DOCTOR_pools_writable, DOCTOR_OK, NULL, "No member of a sharing group can write to its pages.");
	n = names(v, is_without_pool, who, sizeof who);
	if (n)
		doctor_say(d, DOCTOR_sharing, DOCTOR_INFORMATION, "memctl doctor ksm pagemap",
			"Ask for sharing, and have joined no pool (yet): %s.", who);
	else
		doctor_say(d, DOCTOR_sharing, DOCTOR_OK, NULL, "Every VM that asks for sharing has its pool.");
	n = names(v, is_of_our_user, who, sizeof who);
	if (v->uid == 0)
		doctor_say(d, DOCTOR_user, DOCTOR_WARNING, NULL,
			"memctld runs as root, which it need not: the unit has a user of its own for it (memctl).");
	else if (n)
		doctor_say(d, DOCTOR_user, DOCTOR_WARNING, NULL,
			"memctld runs as user %u, and so do the emulators of %s: they can look into it, and stop it.", (unsigned)v->uid, who);
	else
		doctor_say(d, DOCTOR_user, DOCTOR_OK, NULL, "memctld runs as user %u, and no emulator does.", (unsigned)v->uid);
	doctor_fix_start(d, DOCTOR_user, "memctl");
}

static void look_at_stores(struct doctor *d)
{
	if (d->view.swap_errors)
		doctor_say(d, DOCTOR_stores, DOCTOR_FAILURE, "dmesg --level=err,warn | tail -n 20; memctl status",
			"%llu pages could not be written to, or read back from, where they were stored, since their VMs came.",
			(unsigned long long)d->view.swap_errors);
	else
		doctor_say(d, DOCTOR_stores, DOCTOR_OK, NULL, "Nothing that was stored was refused, damaged or lost.");
}

void doctor_look_at_self(struct doctor *d)
{
	look_at_restart(d);
	look_at_time_outs(d);
	look_at_clients(d);
	look_at_stores(d);
}
