/* Asking the device what it is and what the machine can do, in a process of its own: measuring the ceilings
   takes a gigabyte and opening a device starts threads, neither of which a process that measures or forks
   should have. */
#pragma once

#include "bench/command.h"
#include "bench/measure/record.h"

/* ceilings: measure them too, which takes about a second. */
qb_status qb_device_probe(const qb_compute *compute, bool ceilings, qb_device_facts *out) QB_NODISCARD;
