/* The models behind one face. */
#include "tokenizer/parts.h"

static qb_status bpe_begin(const qb_tokenizer *t, qb_ids *out, size_t limit, void **run) {
    qb_bpe_run *own;
    qb_status st = qb_bpe_begin(&t->bpe, out, limit, &own);
    *run = st == QB_OK ? own : NULL;
    return st;
}
static qb_status bpe_feed(void *run, const char *text, size_t n, size_t *read) {
    return qb_bpe_feed(run, text, n, read);
}
static void bpe_end(void *run) {
    qb_bpe_end(run);
}
const qb_token_model qb_token_model_bpe = {"BPE", bpe_begin, bpe_feed, bpe_end};

static qb_status unigram_begin(const qb_tokenizer *t, qb_ids *out, size_t limit, void **run) {
    qb_unigram_run *own;
    qb_status st = qb_unigram_begin(&t->unigram, out, limit, &own);
    *run = st == QB_OK ? own : NULL;
    return st;
}
static qb_status unigram_feed(void *run, const char *text, size_t n, size_t *read) {
    return qb_unigram_feed(run, text, n, read);
}
static void unigram_end(void *run) {
    qb_unigram_end(run);
}
const qb_token_model qb_token_model_unigram = {"Unigram", unigram_begin, unigram_feed, unigram_end};
