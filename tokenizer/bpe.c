#include "tokenizer/bpe.h"

#include "base/memory.h"
#include "tokenizer/utf8.h"

#include <string.h>

/* A pair that may be merged. It has become stale when the symbols at `at` and behind it are no longer the
   rule's: symbols only grow, so comparing them is enough. */
typedef struct candidate {
    int32_t rank, at;
    const qb_rule *rule;
} candidate;

typedef struct cached_word {
    uint64_t hash; /* 0: free */
    uint32_t at;   /* in pool: n_key symbols, then n_value merged ones */
    uint16_t n_key, n_value;
} cached_word;

enum { CACHED_SYMBOLS_MAX = 32, CACHED_WORDS_MAX = 1 << 16 };

struct qb_bpe_run {
    const qb_bpe *bpe;
    qb_ids *out;
    size_t limit;  /* of ids in out; 0: none */
    int32_t *word; /* symbols not yet merged */
    size_t n_word, word_capacity;
    int32_t *links; /* [2 * n]: previous and next of each symbol */
    size_t links_capacity;
    candidate *heap;
    size_t n_heap, heap_capacity;
    int64_t pushes;
    cached_word *words; /* open addressing */
    size_t n_words, words_mask;
    int32_t *pool;
    size_t n_pool, pool_capacity;
    const qb_rule **made_by; /* [n_pieces], for UNUSED pieces: the rule last seen to build it */
    bool after_unknown;      /* SentencePiece: the id written last stands for unknown characters */
};

qb_status qb_ids_append(qb_ids *out, int32_t id) {
    if (out->count == out->capacity) {
        qb_status st = qb_grow(&out->ids, &out->capacity, out->count + 1, sizeof *out->ids);
        if (st != QB_OK) return st;
    }
    out->ids[out->count++] = id;
    return QB_OK;
}

void qb_ids_free(qb_ids *ids) {
    if (!ids) return;
    qb_free(ids->ids);
    *ids = (qb_ids){0};
}

/* --- merging
 * ------------------------------------------------------------------------------------------------- */

static const qb_rule *find_rule(const qb_bpe *b, int32_t left, int32_t right) {
    if (left >= b->n_joining || right >= b->n_joining) return NULL;
    for (uint32_t s = qb_rule_hash(left, right) & b->rule_mask; b->rules[s].left >= 0;
         s = (s + 1) & b->rule_mask)
        if (b->rules[s].left == left && b->rules[s].right == right) return &b->rules[s];
    return NULL;
}

static bool before(const candidate *a, const candidate *b) {
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static qb_status heap_push(qb_bpe_run *run, candidate c) {
    qb_status st = qb_grow(&run->heap, &run->heap_capacity, run->n_heap + 1, sizeof *run->heap);
    if (st != QB_OK) return st;
    size_t i = run->n_heap++;
    for (; i > 0 && before(&c, &run->heap[(i - 1) / 2]); i = (i - 1) / 2)
        run->heap[i] = run->heap[(i - 1) / 2];
    run->heap[i] = c;
    run->pushes++;
    return QB_OK;
}

static candidate heap_pop(qb_bpe_run *run) {
    candidate top = run->heap[0], last = run->heap[--run->n_heap];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < run->n_heap) {
        if (child + 1 < run->n_heap && before(&run->heap[child + 1], &run->heap[child])) child++;
        if (!before(&run->heap[child], &last)) break;
        run->heap[i] = run->heap[child];
        i = child;
    }
    run->heap[i] = last;
    return top;
}

static qb_status consider(qb_bpe_run *run, int32_t at, int32_t next) {
    const qb_rule *rule = find_rule(run->bpe, run->word[at], run->word[next]);
    if (!rule) return QB_OK;
    if (run->made_by) run->made_by[rule->result] = rule;
    return heap_push(run, (candidate){rule->rank, at, rule});
}

/* Merges run->word in place and closes the gaps. n <= INT32_MAX. */
static qb_status merge_word(qb_bpe_run *run) {
    int32_t *word = run->word, n = (int32_t)run->n_word;
    qb_status st = qb_grow(&run->links, &run->links_capacity, 2 * (size_t)n, sizeof *run->links);
    if (st != QB_OK) return st;
    int32_t *previous = run->links, *next = run->links + n;
    run->n_heap = 0;
    for (int32_t i = 0; i < n; i++) {
        previous[i] = i - 1;
        next[i] = i + 1;
        if (i > 0 && (st = consider(run, i - 1, i)) != QB_OK) return st;
    }
    while (run->n_heap) {
        candidate c = heap_pop(run);
        int32_t right = next[c.at];
        if (word[c.at] != c.rule->left || right >= n || word[right] != c.rule->right) continue;
        word[c.at] = c.rule->result;
        word[right] = -1;
        next[c.at] = next[right];
        if (next[c.at] < n) previous[next[c.at]] = c.at;
        if (previous[c.at] >= 0 && (st = consider(run, previous[c.at], c.at)) != QB_OK) return st;
        if (next[c.at] < n && (st = consider(run, c.at, next[c.at])) != QB_OK) return st;
    }
    size_t kept = 0;
    for (int32_t i = 0; i < n; i++)
        if (word[i] >= 0) word[kept++] = word[i];
    run->n_word = kept;
    return QB_OK;
}

/* --- from merged symbols to ids
 * -------------------------------------------------------------------------------- */

/* SentencePiece: the bytes of unknown characters, or one <unk> for a run of them. */
static qb_status emit_unknown(qb_bpe_run *run, int32_t symbol) {
    const qb_bpe *b = run->bpe;
    qb_status st = QB_OK;
    uint32_t packed = b->aux[symbol - b->n_pieces];
    if (!b->byte_fallback) {
        if (!run->after_unknown) st = qb_ids_append(run->out, b->unk);
        run->after_unknown = true;
        return st;
    }
    uint8_t bytes[4];
    memcpy(bytes, &packed, sizeof bytes);
    for (size_t i = 0; st == QB_OK && i < 4 && (i == 0 || bytes[i]); i++)
        st = qb_ids_append(run->out, b->byte_ids[bytes[i]]);
    return st;
}

static qb_status emit(qb_bpe_run *run, int32_t symbol) {
    const qb_bpe *b = run->bpe;
    if (symbol >= b->n_joining)
        symbol -= b->n_joining;
    else if (symbol >= b->n_pieces)
        return emit_unknown(run, symbol);
    if (run->made_by && run->made_by[symbol] && b->vocab->pieces[symbol].type == QB_PIECE_UNUSED) {
        const qb_rule *rule = run->made_by[symbol];
        qb_status st = emit(run, rule->left);
        return st != QB_OK ? st : emit(run, rule->right);
    }
    run->after_unknown = false;
    return qb_ids_append(run->out, symbol);
}

static qb_status emit_all(qb_bpe_run *run, const int32_t *symbols, size_t n) {
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < n; i++) st = emit(run, symbols[i]);
    return st;
}

/* --- words and their cache
 * ------------------------------------------------------------------------------------- */

static uint64_t hash_symbols(const int32_t *symbols, size_t n) {
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) h = (h ^ (uint32_t)symbols[i]) * 0x9E3779B97F4A7C15u, h ^= h >> 29;
    return h | 1;
}

static cached_word *find_word(qb_bpe_run *run, uint64_t hash, const int32_t *key, size_t n) {
    size_t s = hash >> 20 & run->words_mask;
    for (; run->words[s].hash; s = (s + 1) & run->words_mask) {
        cached_word *w = &run->words[s];
        if (w->hash == hash && w->n_key == n && !memcmp(run->pool + w->at, key, n * sizeof *key)) break;
    }
    return &run->words[s];
}

static qb_status grow_words(qb_bpe_run *run) {
    size_t old_slots = run->words ? run->words_mask + 1 : 0, slots = old_slots ? 4 * old_slots : 256;
    cached_word *old = run->words, *fresh;
    qb_status st = qb_alloc_zero(slots, sizeof *fresh, &fresh);
    if (st != QB_OK) return st;
    run->words = fresh;
    run->words_mask = slots - 1;
    for (size_t i = 0; i < old_slots; i++)
        if (old[i].hash) *find_word(run, old[i].hash, run->pool + old[i].at, old[i].n_key) = old[i];
    qb_free(old);
    return QB_OK;
}

static qb_status pool_add(qb_bpe_run *run, const int32_t *symbols, size_t n) {
    qb_status st = qb_grow(&run->pool, &run->pool_capacity, run->n_pool + n, sizeof *run->pool);
    if (st != QB_OK) return st;
    memcpy(run->pool + run->n_pool, symbols, n * sizeof *symbols);
    run->n_pool += n;
    return QB_OK;
}

/* Merges, writes and empties the pending word. */
static qb_status flush_word(qb_bpe_run *run) {
    size_t n = run->n_word;
    run->n_word = 0;
    if (n <= 1) return n ? emit(run, run->word[0]) : QB_OK;
    qb_status st = QB_OK;
    cached_word *slot = NULL;
    size_t at = run->n_pool;
    if (n <= CACHED_SYMBOLS_MAX && !run->bpe->has_unused) {
        if ((!run->words || (run->n_words * 2 > run->words_mask && run->n_words < CACHED_WORDS_MAX)) &&
            (st = grow_words(run)) != QB_OK)
            return st;
        uint64_t hash = hash_symbols(run->word, n);
        slot = find_word(run, hash, run->word, n);
        if (slot->hash) return emit_all(run, run->pool + slot->at + n, slot->n_value);
        if (run->n_words < CACHED_WORDS_MAX) {
            if ((st = pool_add(run, run->word, n)) != QB_OK) return st;
            *slot = (cached_word){.hash = hash, .at = (uint32_t)at, .n_key = (uint16_t)n};
            run->n_words++;
        } else {
            slot = NULL;
        }
    }
    run->n_word = n;
    if ((st = merge_word(run)) != QB_OK) return st;
    n = run->n_word;
    run->n_word = 0;
    if (slot) {
        if ((st = pool_add(run, run->word, n)) != QB_OK) return st;
        slot->n_value = (uint16_t)n;
    }
    return emit_all(run, run->word, n);
}

/* --- from text to symbols
 * -------------------------------------------------------------------------------------- */

/* No rule joins a text that ends with character a to one that begins with b. */
static bool can_cut(const qb_bpe *b, int32_t left, int32_t right) {
    if (!b->joins) return false;
    if (left >= b->n_joining || right >= b->n_joining) return true;
    if (left == right) return !(b->joins[left] & QB_JOIN_SELF);
    return !(b->joins[left] & QB_JOIN_RIGHT) || !(b->joins[right] & QB_JOIN_LEFT);
}

static qb_status push_symbol(qb_bpe_run *run, int32_t symbol) {
    qb_status st;
    if (run->n_word && can_cut(run->bpe, run->word[run->n_word - 1], symbol) &&
        (st = flush_word(run)) != QB_OK)
        return st;
    if (run->n_word == run->word_capacity &&
        (st = qb_grow(&run->word, &run->word_capacity, run->n_word + 1, sizeof *run->word)) != QB_OK)
        return st;
    run->word[run->n_word++] = symbol;
    return QB_OK;
}

/* A character without a symbol. As in the reference libraries: tokenizers takes bytes only if all of them are
   known, and then without writing an <unk> that is still pending; SentencePiece decides when it writes. */
static qb_status push_unknown(qb_bpe_run *run, const uint8_t *p, size_t length, bool *pending) {
    const qb_bpe *b = run->bpe;
    qb_status st = QB_OK;
    bool bytes = b->byte_fallback;
    for (size_t i = 0; bytes && i < length; i++) bytes = b->byte_ids[p[i]] >= 0;
    if (bytes) {
        for (size_t i = 0; st == QB_OK && i < length; i++) st = push_symbol(run, b->byte_ids[p[i]]);
    } else if (b->sentencepiece) {
        st = push_symbol(run, b->n_joining - 1);
    } else if (b->unk >= 0) {
        if (*pending && !b->fuse_unk) st = push_symbol(run, b->unk);
        *pending = true;
    }
    return st;
}

qb_status qb_bpe_feed(qb_bpe_run *run, const char *text, size_t n, size_t *read) {
    const qb_bpe *b = run->bpe;
    const uint8_t *p = (const uint8_t *)text, *end = p + n;
    bool pending = false; /* an <unk> that further unknown characters may join */
    qb_status st = QB_OK;
    *read = n;
    if (n > INT32_MAX)
        return qb_fail(QB_ERR_FORMAT, "a text of %zu bytes is longer than the %d that can be encoded at once",
                       n, INT32_MAX);
    int32_t whole = b->ignore_merges ? qb_vocab_find(b->vocab, text, n) : -1;
    if (whole >= 0 && whole < b->n_pieces && !(run->limit && run->out->count >= run->limit))
        return qb_ids_append(run->out, whole);
    while (p < end) {
        if (run->limit && run->out->count >= run->limit) {
            *read = (size_t)(p - (const uint8_t *)text);
            run->n_word = 0;
            return QB_OK;
        }
        int32_t symbol = -1;
        size_t length = 0;
        if (b->whole.roots[*p]) {
            length = qb_trie_longest(&b->whole, (const char *)p, (size_t)(end - p), &symbol);
            if (length) symbol += b->n_joining;
        }
        if (!length) {
            length = qb_utf8_length(p, (size_t)(end - p));
            if (length)
                symbol = qb_bpe_char(b, (const char *)p, length);
            else
                length = 1;
        }
        if (symbol < 0) {
            QB_TRY(st, push_unknown(run, p, length, &pending));
        } else {
            if (pending) QB_TRY(st, push_symbol(run, b->unk));
            pending = false;
            QB_TRY(st, push_symbol(run, symbol));
        }
        p += length;
    }
    if (pending) QB_TRY(st, push_symbol(run, b->unk));
    st = flush_word(run);
out:
    return st;
}

qb_status qb_bpe_begin(const qb_bpe *b, qb_ids *out, size_t limit, qb_bpe_run **run) {
    qb_status st = qb_alloc_zero(1, sizeof **run, run);
    if (st != QB_OK) return st;
    (*run)->bpe = b;
    (*run)->out = out;
    (*run)->limit = limit;
    if (b->has_unused) st = qb_alloc_zero((size_t)b->n_pieces, sizeof(const qb_rule *), &(*run)->made_by);
    if (st != QB_OK) {
        qb_bpe_end(*run);
        *run = NULL;
    }
    return st;
}

int64_t qb_bpe_pushes(const qb_bpe_run *run) {
    return run->pushes;
}

void qb_bpe_end(qb_bpe_run *run) {
    if (!run) return;
    qb_free(run->word);
    qb_free(run->links);
    qb_free(run->heap);
    qb_free(run->words);
    qb_free(run->pool);
    qb_free((void *)run->made_by);
    qb_free(run);
}
