/* Unigram: the likeliest cut of a piece into the vocabulary's pieces, each with its log-probability (Kudo
   2018; the tokenizers library's models/unigram, SentencePiece's unigram_model). */
#pragma once

#include "tokenizer/tokenizer.h"
#include "tokenizer/trie.h"
#include "tokenizer/vocab.h"

/* Zero-initialise; free with qb_unigram_free. */
typedef struct qb_unigram {
    const qb_vocab *vocab;
    double *scores; /* owned, [count] */
    int32_t count;  /* ids below it are the model's own */
    double unk_score;
    int32_t unk; /* -1: a character without a piece is an error */
    bool byte_fallback;
    bool single; /* keeps sums as float, as SentencePiece; else as double, as the tokenizers library */
    int32_t byte_ids[256];
    qb_trie trie; /* value: id */
} qb_unigram;

/* The pieces of `vocab` with their scores (taken over, freed with the model, even on failure). */
qb_status qb_unigram_create(qb_unigram *u, const qb_vocab *vocab, double *scores, int32_t unk,
                            bool byte_fallback, bool single) QB_NODISCARD;
void qb_unigram_free(qb_unigram *u);

typedef struct qb_unigram_run qb_unigram_run;
qb_status qb_unigram_begin(const qb_unigram *u, qb_ids *out, size_t limit, qb_unigram_run **run) QB_NODISCARD;
/* Encodes a piece; *read < n: the limit was reached before. */
qb_status qb_unigram_feed(qb_unigram_run *run, const char *text, size_t n, size_t *read) QB_NODISCARD;
void qb_unigram_end(qb_unigram_run *run);
