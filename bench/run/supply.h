/* Where a case's quantized checkpoint comes from: verified out of the cache, or made into it, or made for
   this case alone. */
#pragma once

#include "base/lock.h"
#include "base/temporary.h"
#include "bench/run/cache.h"
#include "bench/run/runner.h"

typedef struct qb_supply {
    const char *dir;            /* of the checkpoint; points into the fields below */
    bool cached;                /* it is there, and has the hashes that it had when it was made */
    const char *report_name;    /* of the file that must be there beside the weights, or NULL */
    bool private;               /* nobody else sees it; it goes with qb_supply_close */
    qb_json *report;            /* its quantize_report.json, when cached; owned */
    char sha256[QB_SHA256_HEX]; /* of its weights, when cached or made */
    qb_cache_place place;
    qb_file_lock lock;
    qb_temporary_dir own;
    char *own_path;
} qb_supply;

/* The place in the cache for the case; it has a method. */
qb_status qb_supply_find(const qb_run *run, const qb_case *c, qb_cache_place *out) QB_NODISCARD;
/* The same for a place that the supply takes over in any case; without `cache`, one of its own. `report`: the
   name of the file that out->report is read from, or NULL. */
qb_status qb_supply_open_place(qb_cache_place *place, bool cache, const char *report,
                               qb_supply *out) QB_NODISCARD;
/* Finds what is cached and verifies it: the hash of its weights and of the files beside them, and that it
   opens. What is damaged is dropped with a warning. out->dir is what to measure (cached) or what to make
   first. */
qb_status qb_supply_open(const qb_run *run, const qb_case *c, qb_supply *out) QB_NODISCARD;
/* The checkpoint was made: hashes it, and stamps it where it is to stay. */
qb_status qb_supply_made(qb_supply *s) QB_NODISCARD;
void qb_supply_close(qb_supply *s);
