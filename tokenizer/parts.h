/* A tokenizer's parts. The readers (tokenizer_json.c, sentencepiece.c) fill them; encode.c and decode.c only
 * follow them. */
#pragma once

#include "base/json.h"
#include "base/memory.h"
#include "tokenizer/bpe.h"
#include "tokenizer/normalize.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/vocab.h"

/* An added token: found in the text before anything is merged. */
typedef struct qb_added_token {
    int32_t id;
    bool lstrip, rstrip; /* takes white space on that side with it */
    bool special;        /* plain text under QB_SPECIAL_TEXT */
    bool normalized;     /* searched, itself normalized, in normalized text */
    bool single_word;    /* no word character may touch it */
} qb_added_token;

/* A template that the ids of a text are put into. */
typedef struct qb_template {
    int32_t *before, *after; /* in the tokenizer's arena */
    size_t n_before, n_after;
} qb_template;

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
    qb_added_token *added; /* owned */
    size_t n_added, added_capacity;
    /* Values index `added`: matched before and after normalizing, and all of them by their raw text. */
    qb_trie added_raw, added_normalized, added_any;
    bool prefix_parts; /* SentencePiece files: the dummy prefix goes before each part between added tokens */

    qb_template file, keys; /* around the text: of the file alone, and with add_bos_token and add_eos_token */
    const char *conflict;   /* how the two differ, or NULL */

    bool has_decoder; /* without one the reference joins pieces by spaces */
    qb_decode_step *decoder;
    size_t n_decoder;
    const char *unk_surface; /* SentencePiece: what <unk> decodes to */

    int32_t bos, eos;
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
/* Added tokens (added.c). A token whose content is there already takes the new flags. `id` < 0: that of the
   vocabulary, else the next free one; an id that contradicts the vocabulary, or leaves a gap where
   `may_gap` is false, fails. */
qb_status qb_tokenizer_add_token(qb_tokenizer *t, const char *content, size_t n, int64_t id, bool may_gap,
                                 qb_added_token flags, const char *name) QB_NODISCARD;
/* special, normalized, single_word, lstrip and rstrip of a token's JSON object. */
qb_status qb_added_token_flags(const qb_json *j, const char *name, qb_added_token *out) QB_NODISCARD;
/* Makes the tries anew, once tokens were added. */
qb_status qb_tokenizer_index_added(qb_tokenizer *t) QB_NODISCARD;
/* What lies beside the tokenizer's file in `dir` (beside.c): tokenizer_config.json, special_tokens_map.json,
   added_tokens.json. `model`: the file is a tokenizer.model, which has no template and no added tokens. */
qb_status qb_tokenizer_read_beside(qb_tokenizer *t, const char *dir, bool model) QB_NODISCARD;
/* keys = file with BOS and EOS put on or taken off: -1 as the file has it, 0 without, 1 with. */
qb_status qb_tokenizer_set_keys(qb_tokenizer *t, int add_bos, int add_eos) QB_NODISCARD;
/* Copies n bytes into the tokenizer's arena. */
qb_status qb_tokenizer_keep(qb_tokenizer *t, const char *text, size_t n, const char **out) QB_NODISCARD;
