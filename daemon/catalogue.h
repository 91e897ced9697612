/* Every number that memctl shows, from the two lists: mem/vm_numbers.def and host_numbers.def. */
#pragma once

#include "record/record.h"

#include <stddef.h>
#include <stdint.h>

struct host_numbers {
#define NUMBER(name, kind, unit, sentence) uint64_t name;
#include "host_numbers.def"
#undef NUMBER
};

/* In the order of the fields of struct vm_numbers and struct host_numbers. */
extern const struct record_number catalogue_vm[];
extern const size_t catalogue_vm_count;
extern const struct record_number catalogue_host[];
extern const size_t catalogue_host_count;
