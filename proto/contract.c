#include "proto/contract.h"

const char contract_text[] =
#include "contract.inc"
	;
