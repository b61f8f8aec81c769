/* The words of the synthetic language (tools/corpus/corpus.h):
   their letters, their rank orders, their Zipf weights. */
#pragma once

#include "base/memory.h"
#include "base/rng.h"
#include "tools/corpus/corpus.h"

enum { QB_CORPUS_WORD_BYTES = 16 };

typedef struct qb_lexicon_kind {
    int words, forms, orders;
    char (*spelling)[QB_CORPUS_WORD_BYTES]; /* [words][forms] */
    uint16_t *ranked;                       /* [orders][words]: the word at each rank */
    int64_t *cumulative;                    /* [words + 1]: sums of the weights of the ranks before */
    double entropy_nats;                    /* of one draw; the same for every order */
} qb_lexicon_kind;

typedef struct qb_lexicon {
    qb_lexicon_kind kinds[QB_CORPUS_KIND_COUNT];
} qb_lexicon;

/* Everything is allocated from `arena`. */
qb_status qb_lexicon_make(uint64_t seed, qb_arena *arena, qb_lexicon *out) QB_NODISCARD;
/* Draws a word by rank; *nll_nats grows by -ln of its probability. */
int qb_lexicon_draw(const qb_lexicon_kind *kind, int order, qb_pyrandom *rng, double *nll_nats);
