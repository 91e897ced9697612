/* The fields of the operations in ops.def.  A field added here is decoded, encoded and checked everywhere; it
 * must be added to org.memctl.varlink as well (tests/tree compares the two). */
#pragma once

/* A VM arrives: its name, its size (the most its leases may add up to) and its resources.  The connection is
 * the VM's *calls* connection from then on; the token binds the *orders* connection to it. */
#define OP_register_IN(F)                                                                                    \
	F(str, name)                                                                                         \
	F(u64, size) F(opt_u64, reservation) F(opt_u64, limit) F(opt_u64, shares) F(opt_str, sharing)        \
		F(opt_str, swap_dir) F(opt_str, balloon_max) F(opt_str, stall_budget)
#define OP_register_OUT(F) F(hex64, token) F(u64, swap_size) F(u64, page_size) F(str, sharing)
#define OP_register_FDS_IN 0
#define OP_register_FDS_OUT 0

/* The daemon was restarted: a VM's client is back, on a connection that is the VM's *calls* connection from then on. */
#define OP_resume_IN(F)	 F(hex64, token)
#define OP_resume_OUT(F) F(str, vm) F(str, sharing)
#define OP_resume_FDS_IN 0
#define OP_resume_FDS_OUT 0

/* Then each lease that the client has: the message carries its memfd.  Attend comes last; leases that were not named
 * are released then.  plain: order "plain" was carried out for it. */
#define OP_resume_lease_IN(F) F(u64, lease) F(u64, address) F(opt_flag, plain)
#define OP_resume_lease_OUT(F)
#define OP_resume_lease_FDS_IN 1
#define OP_resume_lease_FDS_OUT 0

/* The library carries out "share", "home" and "private"; the reply carries the pool, read-only. */
#define OP_join_pool_IN(F)  F(u64, maps)
#define OP_join_pool_OUT(F) F(u64, pool_pages)
#define OP_join_pool_FDS_IN 0
#define OP_join_pool_FDS_OUT 1

/* A lease: the reply carries its memfd. */
#define OP_lease_IN(F) F(u64, gpa) F(u64, size)
#define OP_lease_OUT(F) F(u64, lease)
#define OP_lease_FDS_IN 0
#define OP_lease_FDS_OUT 1

/* The client mapped it at `address` and registered it; the message carries its userfaultfd. */
#define OP_activate_IN(F) F(u64, lease) F(u64, address) F(opt_flag, user_mode_only)
#define OP_activate_OUT(F)
#define OP_activate_FDS_IN 1
#define OP_activate_FDS_OUT 0

#define OP_release_IN(F) F(u64, lease)
#define OP_release_OUT(F)
#define OP_release_FDS_IN 0
#define OP_release_FDS_OUT 0

/* advice: "will_need" or "dont_need"; offset and length in bytes within the lease, page-aligned. */
#define OP_advise_IN(F) F(u64, lease) F(str, advice) F(u64, offset) F(u64, length)
#define OP_advise_OUT(F)
#define OP_advise_FDS_IN 0
#define OP_advise_FDS_OUT 0

#define OP_range_IN(F) F(u64, lease) F(u64, offset) F(u64, length)
#define OP_discard_IN(F) OP_range_IN(F)
#define OP_discard_OUT(F) F(u64, pages)
#define OP_discard_FDS_IN 0
#define OP_discard_FDS_OUT 0
#define OP_populate_IN(F) OP_range_IN(F)
#define OP_populate_OUT(F) F(u64, pages)
#define OP_populate_FDS_IN 0
#define OP_populate_FDS_OUT 0
/* call: the client's number of this pin or unpin, higher than those before; the same again is the same call, whose reply was
 * lost. */
#define OP_pin_IN(F) OP_range_IN(F) F(opt_u64, call)
#define OP_pin_OUT(F) F(u64, pages)
#define OP_pin_FDS_IN 0
#define OP_pin_FDS_OUT 0
#define OP_unpin_IN(F) OP_range_IN(F) F(opt_u64, call)
#define OP_unpin_OUT(F) F(u64, pages)
#define OP_unpin_FDS_IN 0
#define OP_unpin_FDS_OUT 0

/* The guest's balloon driver is there, for the first time or again: the balloon is empty.  max: bytes that it may hold. */
#define OP_balloon_start_IN(F)
#define OP_balloon_start_OUT(F) F(u64, max)
#define OP_balloon_start_FDS_IN 0
#define OP_balloon_start_FDS_OUT 0
/* Runs ascend, do not overlap and have at most OP_BALLOON_PAGES pages in all, so that whatever is refused fits into the reply. */
#define OP_BALLOON_PAGES 512
#define OP_balloon_inflate_IN(F) F(u64, lease) F(runs, runs)
#define OP_balloon_inflate_OUT(F) F(u64, pages) F(runs, refused)
#define OP_balloon_inflate_FDS_IN 0
#define OP_balloon_inflate_FDS_OUT 0
#define OP_balloon_deflate_IN(F) F(u64, lease) F(runs, runs)
#define OP_balloon_deflate_OUT(F) F(u64, pages)
#define OP_balloon_deflate_FDS_IN 0
#define OP_balloon_deflate_FDS_OUT 0
#define OP_balloon_poll_IN(F)
#define OP_balloon_poll_OUT(F) F(u64, target)
#define OP_balloon_poll_FDS_IN 0
#define OP_balloon_poll_FDS_OUT 0

/* Oneway: the answer to an order.  `bits`: for kinds "present", "share" and "private", a hex string, one bit a
 * page in the order of the runs, least significant bit of each byte first; for "settle" twice as many bits: for all pages
 * whether they are mapped from the pool, then, from the next bit on, whether they are clean; else empty.  `pages`: for kinds
 * "share" and "home", for how many pages from the first on it was carried out; for "plain", all of them or none. */
#define OP_done_IN(F) F(u64, order) F(opt_str, bits) F(opt_u64, pages)
#define OP_done_OUT(F)
#define OP_done_FDS_IN 0
#define OP_done_FDS_OUT 0

/* With `more` on a second connection: each reply is an order.  kind: "zap", "present", "share", "home",
 * "private", "settle", "plain" or "balloon". */
#define OP_attend_IN(F) F(hex64, token)
#define OP_attend_OUT(F) F(u64, order) F(str, kind) F(u64, lease) F(runs, runs)
#define OP_attend_FDS_IN 0
#define OP_attend_FDS_OUT 0

#define OP_status_IN(F)
#define OP_status_OUT(F) F(json, status)
#define OP_status_FDS_IN 0
#define OP_status_FDS_OUT 0
#define OP_list_vms_IN(F)
#define OP_list_vms_OUT(F) F(json, vms)
#define OP_list_vms_FDS_IN 0
#define OP_list_vms_FDS_OUT 0
#define OP_show_vm_IN(F) F(str, vm)
#define OP_show_vm_OUT(F) F(json, vm)
#define OP_show_vm_FDS_IN 0
#define OP_show_vm_FDS_OUT 0
/* Values in words; absent: as it is. */
#define OP_set_vm_IN(F)                                                                                      \
	F(str, vm)                                                                                           \
	F(opt_str, reservation) F(opt_str, limit) F(opt_str, shares) F(opt_str, balloon_max) F(opt_str, sharing) \
		F(opt_str, stall_budget)
#define OP_set_vm_OUT(F)
#define OP_set_vm_FDS_IN 0
#define OP_set_vm_FDS_OUT 0
/* rate: bytes a second, 0: as fast as it goes */
#define OP_page_in_IN(F) F(str, vm) F(opt_u64, rate) F(opt_flag, stop)
#define OP_page_in_OUT(F) F(u64, pages)
#define OP_page_in_FDS_IN 0
#define OP_page_in_FDS_OUT 0
#define OP_explain_IN(F) F(str, vm)
#define OP_explain_OUT(F) F(json, explanation)
#define OP_explain_FDS_IN 0
#define OP_explain_FDS_OUT 0
/* times: Unix, ms; step: seconds.  next 0: that was all */
#define OP_history_IN(F) \
	F(opt_str, vm) F(u64, since) F(opt_u64, until) F(opt_u64, step) F(opt_str, numbers) F(opt_flag, latencies) F(opt_u64, max_rows)
#define OP_history_OUT(F) F(u64, step) F(u64, next) F(json, rows)
#define OP_history_FDS_IN 0
#define OP_history_FDS_OUT 0
#define OP_history_vms_IN(F) F(u64, since) F(opt_u64, until)
#define OP_history_vms_OUT(F) F(json, vms)
#define OP_history_vms_FDS_IN 0
#define OP_history_vms_FDS_OUT 0
#define OP_plans_IN(F) F(str, vm) F(u64, since) F(opt_u64, until)
#define OP_plans_OUT(F) F(u64, next) F(json, plans)
#define OP_plans_FDS_IN 0
#define OP_plans_FDS_OUT 0
/* after: only events with higher numbers; last: instead, only the last so many (at most 256); level: this, or worse; next: what to
 * say as `after` the next time; more: there are more already */
#define OP_events_IN(F) F(opt_u64, after) F(opt_u64, last) F(opt_u64, since_ms) F(opt_str, vm) F(opt_str, level)
#define OP_events_OUT(F) F(json, events) F(u64, next) F(flag, more)
#define OP_events_FDS_IN 0
#define OP_events_FDS_OUT 0
#define OP_fault_times_IN(F)
#define OP_fault_times_OUT(F) F(json, vms)
#define OP_fault_times_FDS_IN 0
#define OP_fault_times_FDS_OUT 0
#define OP_remove_vm_IN(F) F(str, vm)
#define OP_remove_vm_OUT(F)
#define OP_remove_vm_FDS_IN 0
#define OP_remove_vm_FDS_OUT 0
/* The VM gets its memory as plain memory and leaves. */
#define OP_release_vm_IN(F) F(str, vm)
#define OP_release_vm_OUT(F) F(u64, pages)
#define OP_release_vm_FDS_IN 0
#define OP_release_vm_FDS_OUT 0
#define OP_stop_IN(F) F(opt_flag, force) F(opt_flag, wait)
#define OP_stop_OUT(F) F(u64, released)
#define OP_stop_FDS_IN 0
#define OP_stop_FDS_OUT 0
/* check: say only what runs now */
#define OP_upgrade_IN(F) F(opt_flag, check)
#define OP_upgrade_OUT(F) F(str, program) F(str, version) F(u64, state_format)
#define OP_upgrade_FDS_IN 0
#define OP_upgrade_FDS_OUT 0
/* An agent outside the VM moves its balloon (virtio-balloon, by QMP): size in bytes as the guest has it, and what the guest says
 * of itself, passed on as it is.  target: bytes. */
#define OP_balloon_agent_IN(F) F(str, vm) F(flag, reachable) F(u64, size) F(opt_json, claims)
#define OP_balloon_agent_OUT(F) F(u64, target)
#define OP_balloon_agent_FDS_IN 0
#define OP_balloon_agent_FDS_OUT 0
/* length 0: to the end of the VM; at most `max_runs` (0: 4096) runs come back, `next` is where to go on (0:
 * end) */
#define OP_page_map_IN(F) F(str, vm) F(opt_u64, gpa) F(opt_u64, length) F(opt_u64, max_runs) F(opt_flag, ages)
#define OP_page_map_OUT(F) F(json, runs) F(u64, next)
#define OP_page_map_FDS_IN 0
#define OP_page_map_FDS_OUT 0
/* vm "": all */
#define OP_audit_IN(F) F(opt_str, vm)
#define OP_audit_OUT(F) F(flag, ok) F(json, audit)
#define OP_audit_FDS_IN 0
#define OP_audit_FDS_OUT 0
/* What is wrong with the set-up of this host, as far as memctld sees it. */
#define OP_doctor_IN(F)
#define OP_doctor_OUT(F) F(json, checks)
#define OP_doctor_FDS_IN 0
#define OP_doctor_FDS_OUT 0
#define OP_share_groups_IN(F)
#define OP_share_groups_OUT(F) F(json, groups)
#define OP_share_groups_FDS_IN 0
#define OP_share_groups_FDS_OUT 0
/* vm "": all */
#define OP_share_top_IN(F) F(opt_str, vm)
#define OP_share_top_OUT(F) F(json, pairs)
#define OP_share_top_FDS_IN 0
#define OP_share_top_FDS_OUT 0
/* vm "": all */
#define OP_scan_vm_IN(F) F(opt_str, vm)
#define OP_scan_vm_OUT(F) F(u64, vms)
#define OP_scan_vm_FDS_IN 0
#define OP_scan_vm_FDS_OUT 0
#define OP_show_config_IN(F)
#define OP_show_config_OUT(F) F(json, settings) F(json, vms) F(json, files)
#define OP_show_config_FDS_IN 0
#define OP_show_config_FDS_OUT 0
/* A live setting; value as text, as in the configuration file.  check: only say whether it could be written there.  line: it is being
 * written there, in this line of the tune file; then it need not be live. */
#define OP_tune_IN(F) F(str, setting) F(str, value) F(opt_flag, check) F(opt_u64, line)
#define OP_tune_OUT(F) F(flag, live)
#define OP_tune_FDS_IN 0
#define OP_tune_FDS_OUT 0
#define OP_reload_IN(F)
#define OP_reload_OUT(F) F(json, reload)
#define OP_reload_FDS_IN 0
#define OP_reload_FDS_OUT 0
/* Every number that memctl shows: name, kind, unit, sentence. */
#define OP_catalogue_IN(F)
#define OP_catalogue_OUT(F) F(json, numbers)
#define OP_catalogue_FDS_IN 0
#define OP_catalogue_FDS_OUT 0
