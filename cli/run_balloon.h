/* The agent beside a QEMU: between its virtio-balloon, by QMP, and memctld. */
#pragma once

struct run_balloon;

/* Start its thread.  `qmp` is a connected socket that QEMU has the other end of, which may say nothing yet, or ever; taken over,
 * also on failure.  `socket`: memctld's, NULL for the library's default; both texts must live until the stop.  -errno. */
int run_balloon_start(const char *socket, const char *vm, int qmp, struct run_balloon **ret);
/* End it, within about a second.  NULL is fine. */
void run_balloon_stop(struct run_balloon *b);
