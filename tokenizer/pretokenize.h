/* How a text is cut into the pieces that the model encodes one by one: a list of steps, each of which cuts
   what the one before it gave, as the tokenizers library's pre_tokenizers do. */
#pragma once

#include "base/str.h"
#include "tokenizer/pattern.h"

typedef enum {
    QB_PRE_SPLIT,     /* at the matches of a pattern */
    QB_PRE_CLASS,     /* the same, each character of a class being a match */
    QB_PRE_PREFIX,    /* a space before a piece that does not begin with one */
    QB_PRE_BYTES,     /* each byte by its character in GPT-2's alphabet */
    QB_PRE_METASPACE, /* spaces by `text`, which is also put before */
} qb_pre_kind;

/* What happens to a match and its neighbours. */
typedef enum {
    QB_SPLIT_REMOVED,
    QB_SPLIT_ISOLATED,
    QB_SPLIT_MERGED_PREVIOUS,
    QB_SPLIT_MERGED_NEXT,
    QB_SPLIT_CONTIGUOUS,
} qb_split_behavior;

typedef enum { QB_PREPEND_NEVER, QB_PREPEND_FIRST, QB_PREPEND_ALWAYS } qb_prepend_scheme;

typedef struct qb_pre_step {
    qb_pre_kind kind;
    qb_pattern *pattern;          /* SPLIT; owned by the tokenizer */
    bool (*is_match)(uint32_t c); /* CLASS */
    qb_split_behavior behavior;   /* SPLIT, CLASS */
    bool invert;                  /* what lies between the matches counts as the matches */
    const char *text;             /* METASPACE */
    size_t n_text;
    qb_prepend_scheme prepend; /* METASPACE; FIRST: only at the very start of the whole text */
} qb_pre_step;

enum { QB_PRE_STEPS_MAX = 24 };

typedef qb_status (*qb_piece_fn)(void *ctx, const char *piece, size_t n);
/* Zero-initialise; free with qb_cutting_free. One thread uses it. */
typedef struct qb_cutting {
    const qb_pre_step *steps;
    size_t n_steps;
    bool legacy_prefix; /* METASPACE puts its prefix before each text, whatever that begins with */
    const bool *stop;   /* set by the receiver: no more pieces are wanted */
    qb_piece_fn piece;
    void *ctx;
    qb_str scratch[QB_PRE_STEPS_MAX];
    qb_matching matching[QB_PRE_STEPS_MAX];
    /* Of the first step that cuts: bytes of its text, and where the last piece given began. */
    size_t first_cut, read, read_of;
} qb_cutting;
/* Gives the pieces of a text in order, none of them empty; `first`: it begins the whole text. */
qb_status qb_cut(qb_cutting *c, const char *text, size_t n, bool first) QB_NODISCARD;
void qb_cutting_free(qb_cutting *c);

/* GPT-2's alphabet (bytes_to_unicode of its encoder.py): appends the characters of n bytes, and back; false
   when a character is none of the 256, after which out is as before. */
void qb_bytes_to_alphabet(const char *bytes, size_t n, qb_str *out);
bool qb_alphabet_to_bytes(const char *text, size_t n, qb_str *out);

/* GPT-2's pattern, which ByteLevel has built in. */
#define QB_GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
