/* Windows drawn at random as the GPTQ paper's code draws them (IST-DASLab/gptq 2d65066, datautils.py):
   CPython's `random` seeded with an integer, randint for the document and then for the start. */
#pragma once

#include "base/rng.h"
#include "datasets/documents.h"
#include "datasets/reading.h"

typedef struct qb_draw {
    int64_t n_samples; /* windows, at least 1 */
    int64_t seqlen;    /* tokens each */
    uint64_t seed;
} qb_draw;

typedef struct qb_drawn {
    qb_ids ids;                  /* [n_samples * seqlen], the windows one behind the other */
    int64_t *starts, *documents; /* owned, [n_samples]; document -1: drawn from one text */
    int64_t total_tokens;        /* of the whole text; of documents, those drawn */
} qb_drawn;

/* n_samples and seqlen within what memory can hold. */
qb_status qb_draw_check(const qb_draw *draw) QB_NODISCARD;
/* out must be zeroed; free it with qb_drawn_free whatever the status. `where` heads errors. */
qb_status qb_draw_text(const qb_ids *ids, const qb_draw *draw, const char *where, qb_drawn *out) QB_NODISCARD;
qb_status qb_draw_documents(const qb_documents *d, qb_reading *r, const qb_draw *draw,
                            qb_drawn *out) QB_NODISCARD;
void qb_drawn_free(qb_drawn *drawn);
