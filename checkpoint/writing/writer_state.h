/* What a writer is made of. Private to checkpoint/. */
#pragma once

#include "base/memory.h"
#include "base/str.h"
#include "checkpoint/names.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/writing/staging.h"

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

typedef struct qb_writer_journal {
    char fingerprint[QB_SHA256_HEX], plan[QB_SHA256_HEX];
    bool resume;
    bool saved;     /* there is something that another run can take up */
    qb_json *state; /* of the last save of an earlier run, or NULL */
} qb_writer_journal;

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
    struct qb_writer_journal *journal; /* NULL unless resumable; writer_resume.c */
    atomic_bool failed;                /* a put could not write */
    qb_threads *threads;               /* qb_writer_use_threads */
};

/* What a kept directory holds is taken over when it was begun with the same fingerprint and the same headers
   (`headers`, one text a shard): shards are opened, finished tensors count as put, *taken is true. Otherwise
   the directory is emptied. */
qb_status qb_writer_take_over(qb_writer *w, const qb_str *headers, bool *taken) QB_NODISCARD;
void qb_writer_journal_free(qb_writer_journal *journal); /* takes NULL */
qb_status qb_writer_write_index(const qb_writer *w) QB_NODISCARD;
/* A writer around an opened staging directory, which it takes over in any case. */
qb_status qb_writer_create_in(qb_staging *staging, int64_t shard_bytes, qb_writer **out) QB_NODISCARD;
