#include "ops_dispatch.h"

void do_join_pool(struct daemon *d, struct call *call, const struct op_join_pool_in *in)
{
	refuse(call, WIRE_ERROR_BadState, "sharing is not there yet");
}
