/* A model made ready to be timed: workspace, cache, ids for so many sequences; one prompt, or some tokens one
   after another. */
#pragma once

#include "eval/eval.h"

typedef struct qb_speed_run {
    qb_model *m;
    qb_device *dev;
    const qb_speed_config *config;
    qb_dtype kv_dtype;
    int64_t n_seq, capacity;
    qb_workspace ws;
    qb_kv kv;
    float *x, *logits;   /* [n_seq * chunk, D], [n_seq, V] */
    int32_t *ids, *next; /* [n_seq * capacity], [n_seq] */
} qb_speed_run;

/* capacity: positions of each sequence. Free also when it fails. */
qb_status qb_speed_run_create(qb_speed_run *r, qb_model *m, qb_device *dev, const qb_speed_config *config,
                              int64_t n_seq, int64_t capacity) QB_NODISCARD;
void qb_speed_run_free(qb_speed_run *r);
/* Token ids that any vocabulary holds; which ones does not matter for time. */
int32_t qb_speed_id(const qb_speed_run *r, int64_t i);
/* ids[n_tok] for one sequence, or qb_speed_id for all (NULL); the next ids land in r->next. */
qb_status qb_speed_prompt(qb_speed_run *r, const int32_t *ids, int64_t n_tok) QB_NODISCARD;
/* n tokens behind position `first`, beginning with r->next. */
qb_status qb_speed_tokens(qb_speed_run *r, int64_t first, int64_t n) QB_NODISCARD;
