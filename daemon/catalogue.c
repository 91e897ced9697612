#include "catalogue.h"

#define KIND_GAUGE   "gauge"
#define KIND_COUNTER "counter"
#define UNIT_BYTES   "bytes"
#define UNIT_COUNT   "count"
#define UNIT_PAGES   "pages"
#define UNIT_NS	     "ns"
#define UNIT_STATE   "state"
#define UNIT_PERCENT "percent"
#define UNIT_PERMILLE "permille"

#define NUMBER(name, kind, unit, sentence) { #name, KIND_##kind, UNIT_##unit, sentence },

const struct record_number catalogue_vm[] = {
#include "mem/vm_numbers.def"
};
const struct record_number catalogue_host[] = {
#include "host_numbers.def"
};
#undef NUMBER

const size_t catalogue_vm_count = sizeof catalogue_vm / sizeof *catalogue_vm;
const size_t catalogue_host_count = sizeof catalogue_host / sizeof *catalogue_host;
