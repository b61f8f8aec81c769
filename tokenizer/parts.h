/* A tokenizer's parts. The readers (tokenizer_json.c, sentencepiece.c) fill them; encode.c and decode.c only
 * follow them. */
#pragma once

#include "base/json.h"
#include "base/memory.h"
#include "tokenizer/bpe.h"
#include "tokenizer/normalize.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

/* An added token of tokenizer.json: found in the text before anything is merged. */
typedef struct qb_added_token {
    int32_t id;
    bool lstrip, rstrip; /* takes white space on that side with it */
    bool special;        /* plain text for qb_tokenizer_encode_plain */
} qb_added_token;

typedef enum { QB_PRETOKENIZER_NONE, QB_PRETOKENIZER_METASPACE } qb_pretokenizer_kind;
typedef enum { QB_PREPEND_NEVER, QB_PREPEND_FIRST, QB_PREPEND_ALWAYS } qb_prepend_scheme;

typedef struct qb_pretokenizer {
    qb_pretokenizer_kind kind;
    const char *replacement; /* of a space */
    size_t n_replacement;
    qb_prepend_scheme prepend; /* FIRST: only at the very start of the text */
    bool split;                /* each replacement begins a unit of its own */
} qb_pretokenizer;

typedef enum {
    QB_DECODE_REPLACE,       /* every `from` by `to` */
    QB_DECODE_BYTE_FALLBACK, /* "<0x0A>" -> its byte */
    QB_DECODE_FUSE,          /* later steps see one text */
    QB_DECODE_STRIP,         /* at most start and stop times the byte string `from` off the ends */
    QB_DECODE_METASPACE,     /* `from` -> space; none at all in the first piece when `drop_first` */
    QB_DECODE_SENTENCEPIECE, /* spaces as SentencePiece's Decode */
} qb_decode_kind;

typedef struct qb_decode_step {
    qb_decode_kind kind;
    const char *from, *to;
    size_t n_from, n_to;
    int64_t start, stop;
    bool drop_first;
} qb_decode_step;

struct qb_tokenizer {
    qb_arena arena;
    qb_vocab vocab;
    qb_bpe bpe;

    qb_normalize_step *normalizer;
    size_t n_normalizer;
    qb_pretokenizer pretokenizer;
    qb_added_token *added;
    size_t n_added;
    qb_trie added_raw, added_normalized; /* values index `added`; matched before and after normalizing */

    int32_t *before, *after; /* ids of the template around the text */
    size_t n_before, n_after;

    bool has_decoder; /* without one the reference joins pieces by spaces */
    qb_decode_step *decoder;
    size_t n_decoder;
    const char *unk_surface; /* SentencePiece: what <unk> decodes to */

    int32_t bos, eos;
    bool adds_bos;
};

/* Fill an empty tokenizer; the caller closes it on failure. */
qb_status qb_tokenizer_read_json(qb_tokenizer *t, const char *text, size_t n, const char *name) QB_NODISCARD;
qb_status qb_tokenizer_read_model(qb_tokenizer *t, const uint8_t *bytes, size_t n,
                                  const char *name) QB_NODISCARD;
qb_status qb_tokenizer_read_vocabulary(qb_tokenizer *t, const qb_vocabulary *v,
                                       const char *name) QB_NODISCARD;
/* tokenizer.json's normalizer, pre_tokenizer, post_processor and decoder (json_pipeline.c); the vocabulary is
 * read. */
qb_status qb_tokenizer_read_pipeline(qb_tokenizer *t, const qb_json *document, const char *name) QB_NODISCARD;
/* Copies n bytes into the tokenizer's arena. */
qb_status qb_tokenizer_keep(qb_tokenizer *t, const char *text, size_t n, const char **out) QB_NODISCARD;
