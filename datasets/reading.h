/* How the texts of one dataset become ids, and what was met on the way. */
#pragma once

#include "tokenizer/tokenizer.h"

typedef struct qb_reading {
    const qb_tokenizer *tokenizer;
    qb_special_tokens special;
    qb_ends ends;
    size_t limit;  /* of ids in all; 0: the whole text */
    int64_t found; /* special tokens spelt so far */
    double part;   /* of the text that was read */
} qb_reading;

/* Appends the ids of n bytes; `name` heads errors. */
qb_status qb_reading_encode(qb_reading *r, const char *bytes, size_t n, const char *name,
                            qb_ids *out) QB_NODISCARD;
