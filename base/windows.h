/* Token windows: what datasets/ makes and eval/ and quant/
   consume, so that neither needs to know of datasets. */
#pragma once

#include "base/hash.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct qb_window {
    int64_t offset; /* first token in qb_windows.ids */
    int32_t length; /* tokens fed to the model, at positions 0 .. length-1 */
    int32_t score_begin,
        score_end; /* targets scored: ids[offset + i] for i in [score_begin, score_end), each predicted
                      from the tokens before it in the window; 1 <= score_begin <= score_end <= length.
                      Equal for calibration windows, which score nothing. */
} qb_window;

typedef enum {
    QB_MEAN_OF_WINDOWS, /* exp of the mean of the windows' mean NLLs (the GPTQ paper) */
    QB_MEAN_OF_TOKENS,  /* exp of the mean NLL of all scored tokens (llama.cpp, HF strided) */
} qb_mean;

typedef struct qb_windows {
    int32_t *ids; /* owned */
    int64_t n_ids;
    qb_window *windows; /* owned; may overlap in ids */
    int64_t count;
    int32_t max_length; /* longest window */
    qb_mean mean;
    char protocol[32];          /* "gptq-2048", "llamacpp-512", "strided-512-256", "calibration" */
    char dataset[64];           /* registry name, or the file's base name */
    int64_t total_tokens;       /* tokens of the whole tokenized text, before windows were cut */
    double part;                /* of the text that those tokens are: 1, or about how much of it the windows
                                   asked for; total_tokens is then of this part */
    char special_tokens[8];     /* rule for special tokens that the text spells: "file", "text", "legacy" */
    int64_t special_found;      /* how many it spells */
    bool bos;                   /* BOS stands before: the text, or for llamacpp each window */
    char sha256[QB_SHA256_HEX]; /* of ids as little-endian int32 */
} qb_windows;

static inline int64_t qb_windows_scored(const qb_windows *w) {
    int64_t n = 0;
    for (int64_t i = 0; i < w->count; i++) n += w->windows[i].score_end - w->windows[i].score_begin;
    return n;
}
void qb_windows_free(qb_windows *w); /* frees the arrays and clears */
