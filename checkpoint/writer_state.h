/* What a writer is made of. Private to checkpoint/. */
#pragma once

#include "base/memory.h"
#include "checkpoint/names.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/staging.h"

#include <stdatomic.h>

typedef struct qb_planned {
    const char *name;
    qb_dtype dtype;
    int n_dims;
    uint32_t shard;
    int64_t shape[QB_MAX_DIMS], bytes;
    int64_t offset; /* in the shard's data */
    atomic_bool put;
} qb_planned;

typedef struct qb_out_shard {
    char name[64];
    int fd; /* -1 when closed */
    int64_t data_begin, data_bytes;
} qb_out_shard;

struct qb_writer {
    qb_arena arena;
    qb_staging staging;
    int64_t shard_bytes, total_bytes;
    qb_planned *planned;
    size_t n_planned, capacity;
    qb_names names;
    qb_out_shard *shards;
    size_t n_shards;
    bool begun;
    atomic_bool failed; /* a put could not write */
};
