#include "tokenizer/unigram.h"

#include "base/memory.h"
#include "tokenizer/utf8.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Of a character without a piece, below the least score: both libraries' constant. */
static const double UNK_PENALTY = 10;

typedef struct node {
    double score;
    int64_t from; /* -1: not reached */
    int32_t id;
} node;

typedef struct cached {
    uint64_t hash; /* 0: free */
    uint32_t text, n_text, ids, n_ids;
} cached;

enum { CACHED_BYTES_MAX = 64, CACHE_SLOTS = 1 << 16, CACHE_WORDS_MAX = 1 << 15 };

struct qb_unigram_run {
    const qb_unigram *u;
    qb_ids *out;
    size_t limit;
    node *nodes;
    size_t nodes_capacity;
    size_t *cuts; /* ends of the pieces found, from the last */
    size_t cuts_capacity;
    cached *words; /* pieces come again and again */
    size_t n_words;
    qb_str texts;
    qb_ids ids;
};

qb_status qb_unigram_create(qb_unigram *u, const qb_vocab *vocab, double *scores, int32_t unk,
                            bool byte_fallback, bool single) {
    double least = INFINITY;
    u->vocab = vocab;
    u->scores = scores;
    u->count = vocab->count;
    u->unk = unk;
    u->byte_fallback = byte_fallback;
    u->single = single;
    memset(u->byte_ids, 0xFF, sizeof u->byte_ids);
    for (int32_t id = 0; id < vocab->count; id++) {
        const qb_piece *p = &vocab->pieces[id];
        if (p->type == QB_PIECE_NONE || !p->length) continue;
        bool normal = p->type == QB_PIECE_NORMAL;
        if (normal && scores[id] < least) least = scores[id];
        int byte = qb_piece_byte(p->text, p->length);
        if (byte >= 0 && (p->type == QB_PIECE_BYTE || normal)) u->byte_ids[byte] = id;
        /* SentencePiece cuts by normal pieces and what users defined; tokenizer.json knows no types. */
        if (normal || p->type == QB_PIECE_USER_DEFINED) {
            qb_status st = qb_trie_add(&u->trie, p->text, p->length, id);
            if (st != QB_OK) return st;
        }
    }
    u->unk_score = (isfinite(least) ? least : 0) - UNK_PENALTY;
    if (single) u->unk_score = (double)(float)u->unk_score;
    return QB_OK;
}

void qb_unigram_free(qb_unigram *u) {
    qb_free(u->scores);
    qb_trie_free(&u->trie);
    *u = (qb_unigram){0};
}

qb_status qb_unigram_begin(const qb_unigram *u, qb_ids *out, size_t limit, qb_unigram_run **run) {
    qb_status st = qb_alloc_zero(1, sizeof **run, run);
    if (st != QB_OK) return st;
    (*run)->u = u;
    (*run)->out = out;
    (*run)->limit = limit;
    if ((st = qb_alloc_zero(CACHE_SLOTS, sizeof(cached), &(*run)->words)) != QB_OK) {
        qb_unigram_end(*run);
        *run = NULL;
    }
    return st;
}

void qb_unigram_end(qb_unigram_run *run) {
    if (!run) return;
    qb_free(run->nodes);
    qb_free(run->cuts);
    qb_free(run->words);
    qb_str_free(&run->texts);
    qb_ids_free(&run->ids);
    qb_free(run);
}

static void propose(const qb_unigram *u, node *target, double sum, double score, size_t from, int32_t id) {
    /* SentencePiece sums in double and keeps the sum as float; of an unknown character it sums in float. Over
       a long text that decides ties. */
    double candidate = sum + score;
    if (u->single && id == u->unk) candidate = (double)(float)candidate;
    if (target->from >= 0 && candidate <= target->score) return;
    *target = (node){u->single ? (double)(float)candidate : candidate, (int64_t)from, id};
}

/* Fills nodes[0 .. n]: the best way to each character's end. */
static qb_status walk(qb_unigram_run *run, const char *text, size_t n) {
    const qb_unigram *u = run->u;
    qb_status st = qb_grow(&run->nodes, &run->nodes_capacity, n + 1, sizeof *run->nodes);
    if (st != QB_OK) return st;
    node *nodes = run->nodes;
    for (size_t i = 0; i <= n; i++) nodes[i] = (node){0, -1, -1};
    for (size_t at = 0, length; at < n; at += length) {
        length = qb_utf8_length((const uint8_t *)text + at, n - at);
        if (!length) length = 1;
        bool single = false;
        uint32_t step = 0;
        for (size_t i = at; i < n; i++) {
            step = qb_trie_step(&u->trie, step, (uint8_t)text[i]);
            if (!step) break;
            int32_t id = u->trie.nodes[step - 1].value;
            if (id < 0) continue;
            propose(u, &nodes[i + 1], nodes[at].score, u->scores[id], at, id);
            single = single || i + 1 - at == length;
        }
        if (single) continue;
        if (u->unk < 0)
            return qb_fail(QB_ERR_FORMAT, "the tokenizer has no piece for \"%.*s\", and no unknown token",
                           (int)length, text + at);
        propose(u, &nodes[at + length], nodes[at].score, u->unk_score, at, u->unk);
    }
    return QB_OK;
}

/* One piece of the cut; unknown ones in a row are one. */
static qb_status emit(qb_unigram_run *run, const char *text, size_t n) {
    const qb_unigram *u = run->u;
    qb_status st = QB_OK;
    int32_t id = qb_vocab_find(u->vocab, text, n);
    uint8_t type = id >= 0 ? u->vocab->pieces[id].type : QB_PIECE_NONE;
    if (id >= 0 && id < u->count && (type == QB_PIECE_NORMAL || type == QB_PIECE_USER_DEFINED))
        return qb_ids_append(run->out, id);
    bool bytes = u->byte_fallback;
    for (size_t i = 0; bytes && i < n; i++) bytes = u->byte_ids[(uint8_t)text[i]] >= 0;
    if (!bytes) return qb_ids_append(run->out, u->unk);
    for (size_t i = 0; st == QB_OK && i < n; i++) st = qb_ids_append(run->out, u->byte_ids[(uint8_t)text[i]]);
    return st;
}

static qb_status encode(qb_unigram_run *run, const char *text, size_t n) {
    size_t n_cuts = 0;
    qb_status st = walk(run, text, n);
    for (size_t end = n; st == QB_OK && end > 0;) {
        const node *last = &run->nodes[end];
        size_t from = (size_t)last->from;
        while (last->id == run->u->unk && from > 0 && run->nodes[from].id == run->u->unk)
            from = (size_t)run->nodes[from].from;
        st = qb_grow(&run->cuts, &run->cuts_capacity, n_cuts + 1, sizeof *run->cuts);
        if (st == QB_OK) run->cuts[n_cuts++] = end;
        end = from;
    }
    for (size_t begin = 0; st == QB_OK && n_cuts > 0; begin = run->cuts[n_cuts])
        n_cuts--, st = emit(run, text + begin, run->cuts[n_cuts] - begin);
    return st;
}

static cached *slot_of(qb_unigram_run *run, uint64_t hash, const char *text, size_t n) {
    size_t s = hash >> 16 & (CACHE_SLOTS - 1);
    for (; run->words[s].hash; s = (s + 1) & (CACHE_SLOTS - 1)) {
        const cached *w = &run->words[s];
        if (w->hash == hash && w->n_text == n && !memcmp(run->texts.text + w->text, text, n)) break;
    }
    return &run->words[s];
}

qb_status qb_unigram_feed(qb_unigram_run *run, const char *text, size_t n, size_t *read) {
    *read = 0;
    if (run->limit && run->out->count >= run->limit) return QB_OK;
    *read = n;
    if (n > CACHED_BYTES_MAX) return encode(run, text, n);
    uint64_t hash = n;
    for (size_t i = 0; i < n; i++) hash = (hash ^ (uint8_t)text[i]) * 0x9E3779B97F4A7C15u, hash ^= hash >> 29;
    hash |= 1;
    cached *w = slot_of(run, hash, text, n);
    qb_status st = QB_OK;
    if (w->hash) {
        for (uint32_t i = 0; st == QB_OK && i < w->n_ids; i++)
            st = qb_ids_append(run->out, run->ids.ids[w->ids + i]);
        return st;
    }
    size_t before = run->out->count;
    st = encode(run, text, n);
    if (st != QB_OK || run->n_words >= CACHE_WORDS_MAX) return st;
    size_t count = run->out->count - before;
    cached fresh = {hash, (uint32_t)run->texts.length, (uint32_t)n, (uint32_t)run->ids.count,
                    (uint32_t)count};
    qb_str_append(&run->texts, text, n);
    if ((st = qb_str_status(&run->texts)) != QB_OK) return st;
    for (size_t i = 0; st == QB_OK && i < count; i++)
        st = qb_ids_append(&run->ids, run->out->ids[before + i]);
    if (st != QB_OK) return st;
    *w = fresh;
    run->n_words++;
    return QB_OK;
}
