/* What happens to a text before it is cut into symbols, as rows of data. */
#pragma once

#include "base/str.h"
#include "tokenizer/charsmap.h"
#include "tokenizer/pattern.h"
#include "tokenizer/trie.h"

#include <stdint.h>

typedef enum {
    QB_NORMALIZE_PREPEND,       /* `to` before a text that is not empty */
    QB_NORMALIZE_REPLACE,       /* every `from`, or match of `pattern`, by `to`, from left to right */
    QB_NORMALIZE_UNICODE,       /* NFC, NFD, NFKC, NFKD */
    QB_NORMALIZE_LOWERCASE,     /* Unicode's full mapping, without context */
    QB_NORMALIZE_STRIP,         /* white space off the ends */
    QB_NORMALIZE_STRIP_ACCENTS, /* marks away */
    QB_NORMALIZE_NMT,           /* controls away, odd spaces become spaces */
    QB_NORMALIZE_BERT_CLEAN,    /* controls away, white space becomes spaces */
    QB_NORMALIZE_BERT_CJK,      /* a space on either side of each ideograph */
    QB_NORMALIZE_BERT_ACCENTS,  /* NFD, then nonspacing marks away */
    QB_NORMALIZE_CHARSMAP, /* SentencePiece's map, cluster by cluster as the tokenizers library does it */
    QB_NORMALIZE_SENTENCEPIECE, /* SentencePiece's normalizer: its map, and its treatment of spaces */
} qb_normalize_kind;

typedef struct qb_normalize_step {
    qb_normalize_kind kind;
    const char *from, *to;
    size_t n_from, n_to;
    qb_pattern *pattern;      /* REPLACE; NULL: `from`. Owned by the tokenizer */
    bool compose, compatible; /* UNICODE */
    bool left, right;         /* STRIP */
    const qb_charsmap *map;   /* CHARSMAP; SENTENCEPIECE: NULL is the identity */
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
