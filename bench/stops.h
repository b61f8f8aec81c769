/* Which ids end a generated text: every end-of-sequence id that the model's files name. */
#pragma once

#include "model/model.h"
#include "tokenizer/tokenizer.h"

enum { QB_STOPS_MAX = 64 };
typedef struct qb_stops {
    int32_t ids[QB_STOPS_MAX];
    size_t n;
} qb_stops;

/* eos_token_id (one, or a list) of config.json and generation_config.json, the tokenizer's EOS, and of a GGUF
   file tokenizer.ggml.eos, eot and eom_token_id. A file that is absent names none. */
qb_status qb_stops_read(const qb_model *m, const qb_tokenizer *t, qb_stops *out) QB_NODISCARD;
