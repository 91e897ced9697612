#include <memctl.h>
#include <stdio.h>

int main(void)
{
	struct memctl_error e = { 0 };
	struct memctl *m = NULL;
	struct memctl_lease *l = NULL;
	struct memctl_vm vm = { .struct_size = sizeof vm, .name = "example", .size = 64 << 20 };

	if (memctl_connect(NULL, &m, &e) < 0 || memctl_register(m, &vm, &e) < 0 ||
	    memctl_lease(m, 0, 64 << 20, &l, &e) < 0) {
		fprintf(stderr, "no lease: %s\n", e.message);
		memctl_free(m);
		return 1;
	}
	memctl_helper_start(m, &e);	// answers the daemon's orders for us
	char *ram = memctl_lease_address(l);
	ram[12345] = 1;			// guest memory: faults are served by memctld
	printf("%d, %s\n", ram[12345], memctl_fault_handling_name(memctl_fault_handling(m)));
	memctl_release(l, &e);
	memctl_free(m);
	return 0;
}
