/* A base with an adapter merged into it, as a model of a run: out of the cache, or made into it, in a process
   of its own. */
#pragma once

#include "bench/run/supply.h"

typedef struct qb_merged {
    qb_supply supply; /* holds its place in the cache while it is open */
    char base_sha256[QB_SHA256_HEX], adapter_sha256[QB_SHA256_HEX];
} qb_merged;

typedef struct qb_merged_request {
    const char *base, *adapter; /* words of the suite */
    bool cache;
    int64_t threads; /* 0: all cores */
} qb_merged_request;

/* Finds the merged checkpoint and verifies it, or makes it: out->supply.dir. What does not fit is told as by
   `bench merge`. qb_merged_close in any case. */
qb_status qb_merged_open(const qb_merged_request *request, qb_merged *out) QB_NODISCARD;
void qb_merged_close(qb_merged *m); /* takes {0} */
