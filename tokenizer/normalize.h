/* What happens to a text before it is cut into symbols, as rows of data. */
#pragma once

#include "base/str.h"
#include "tokenizer/trie.h"

#include <stdint.h>

typedef enum {
    QB_NORMALIZE_PREPEND,       /* `to` before a text that is not empty */
    QB_NORMALIZE_REPLACE,       /* every `from` by `to`, from left to right */
    QB_NORMALIZE_SENTENCEPIECE, /* SentencePiece's identity normalizer with its treatment of spaces */
} qb_normalize_kind;

typedef struct qb_normalize_step {
    qb_normalize_kind kind;
    const char *from, *to;
    size_t n_from, n_to;
    struct {
        bool add_dummy_prefix, remove_extra_whitespaces, escape_whitespaces, whitespace_as_suffix;
        const qb_trie *verbatim; /* user-defined pieces: taken over as they are */
    } spaces;
} qb_normalize_step;

/* Text in two buffers that the steps use in turn. Zero-initialise. */
typedef struct qb_normalized {
    qb_str buffers[2];
    const char *text; /* result: in a buffer, or the input itself when there are no steps */
    size_t length;
} qb_normalized;

qb_status qb_normalize(const qb_normalize_step *steps, size_t n_steps, const char *text, size_t n,
                       qb_normalized *out) QB_NODISCARD;
/* The same for a part of a text; `prefix`: SENTENCEPIECE's dummy prefix goes before it. */
qb_status qb_normalize_part(const qb_normalize_step *steps, size_t n_steps, const char *text, size_t n,
                            bool prefix, qb_normalized *out) QB_NODISCARD;
void qb_normalized_free(qb_normalized *t);

/* Appends text with every `from` (n_from > 0 bytes) replaced by `to`. */
void qb_replace_all(const char *text, size_t n, const char *from, size_t n_from, const char *to, size_t n_to,
                    qb_str *out);

/* U+2581, which stands for a space inside pieces. */
#define QB_SPACE_SYMBOL "\xE2\x96\x81"
enum { QB_SPACE_SYMBOL_LENGTH = 3 };
