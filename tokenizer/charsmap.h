/* SentencePiece's precompiled character map: a trie in double-array form and the texts that its entries
   become. Source: normalizer.cc of google/sentencepiece (the blob), darts.h (the array). */
#pragma once

#include "base/str.h"

#include <stdint.h>

typedef struct qb_charsmap {
    uint32_t *units; /* owned */
    size_t n_units;
    char *texts; /* owned; NUL-terminated one by one */
    size_t n_texts;
} qb_charsmap;

/* Takes the n bytes of a precompiled_charsmap; `name` heads errors. */
qb_status qb_charsmap_parse(const uint8_t *bytes, size_t n, const char *name, qb_charsmap *out) QB_NODISCARD;
void qb_charsmap_free(qb_charsmap *m);
/* Bytes of the longest entry at p, and what it becomes; 0: none. SentencePiece's rule. */
size_t qb_charsmap_longest(const qb_charsmap *m, const char *p, size_t n, const char **text, size_t *n_text);
/* The tokenizers library's rule: an extended grapheme cluster of fewer than 6 bytes, else each character,
   becomes what the shortest entry at its start becomes. */
void qb_charsmap_apply(const qb_charsmap *m, const char *text, size_t n, qb_str *out);
