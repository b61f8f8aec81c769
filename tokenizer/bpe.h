/* Byte-pair encoding over symbols: characters become symbols, and the adjacent pair of the lowest rank (the
   leftmost of equals) is merged until no rule fits. tokenizer.json gives the rules; for SentencePiece every
   split of every piece into two symbols is one. Which merges happen depends on the symbols alone, so words
   are cached by their symbols, and a text is cut wherever the rules prove that no merge can cross. */
#pragma once

#include "tokenizer/tokenizer.h"
#include "tokenizer/trie.h"
#include "tokenizer/vocab.h"

typedef struct qb_rule {
    int32_t left, right; /* symbols; left < 0: free slot */
    int32_t rank, result;
} qb_rule;

/* Zero-initialise. Symbols: [0, n_pieces) are ids; [n_pieces, n_joining) characters that occur inside pieces
   without being one, of which the last stands for every other unknown character; [n_joining, n_joining +
   n_pieces) pieces that were matched whole and take part in no merge. */
typedef struct qb_bpe {
    const qb_vocab *vocab;
    int32_t n_pieces, n_joining;
    bool sentencepiece; /* unknown characters: stay symbols while merging, become bytes or <unk> when emitted
                         */

    int32_t ascii[128];  /* symbol or -1 */
    uint32_t *char_keys; /* open addressing by packed character; 0: free slot */
    int32_t *char_symbols;
    uint32_t char_mask, n_chars, char_room;
    int32_t byte_ids[256]; /* -1 where missing */
    bool byte_fallback;
    int32_t unk; /* -1: unknown characters vanish, as in the reference */
    bool fuse_unk;

    qb_rule *rules; /* open addressing by (left, right) */
    uint32_t rule_mask, n_rules;
    uint8_t *joins;     /* [n_joining] bits QB_JOIN_*: how merges may attach this symbol; NULL: anything */
    bool ignore_merges; /* a unit that is a piece is that piece, whatever the rules say */
    bool has_unused;    /* some pieces must be split again after merging: no cuts, no cache */
    uint32_t *aux;      /* [n_joining - n_pieces] packed characters behind the symbols */
    qb_trie whole;      /* pieces matched whole */
} qb_bpe;

static inline uint32_t qb_rule_hash(int32_t left, int32_t right) {
    uint64_t key = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9E3779B97F4A7C15u;
    return (uint32_t)(key >> 32) ^ (uint32_t)(key >> 13);
}

enum { QB_JOIN_LEFT = 1, QB_JOIN_RIGHT = 2, QB_JOIN_SELF = 4 };
enum { QB_RULES_MAX = 1 << 24 };

/* Order: create, char_add for characters (aux ones included), reserve, rule_add, finish. */
qb_status qb_bpe_create(qb_bpe *b, const qb_vocab *vocab, size_t n_chars_max) QB_NODISCARD;
/* The symbol of one character; length <= 4. A second one for the same character is ignored. */
void qb_bpe_char_add(qb_bpe *b, const char *text, size_t length, int32_t symbol);
int32_t qb_bpe_char(const qb_bpe *b, const char *text, size_t length); /* -1: none */
/* Create, with a symbol for each piece of one character, and the byte tokens "<0x00>" .. of byte fallback. */
qb_status qb_bpe_characters(qb_bpe *b, const qb_vocab *vocab, bool byte_fallback) QB_NODISCARD;
qb_status qb_bpe_rules_reserve(qb_bpe *b, size_t n) QB_NODISCARD;
/* A pair that is there already takes the new rank and result, as in the reference's map. */
void qb_bpe_rule_add(qb_bpe *b, qb_rule rule);
/* Proves the cuts, unless `short_units` says that they are not worth it. Call once, when all is added. */
qb_status qb_bpe_finish(qb_bpe *b, bool short_units) QB_NODISCARD;
void qb_bpe_free(qb_bpe *b);

/* One encoding in progress: everything that changes, so that a qb_bpe can serve many threads. */
typedef struct qb_bpe_run qb_bpe_run;
/* limit > 0: feeding ends when out holds that many ids. */
qb_status qb_bpe_begin(const qb_bpe *b, qb_ids *out, size_t limit, qb_bpe_run **run) QB_NODISCARD;
/* Encodes text as a unit of its own: no merge reaches beyond it. *read < n: the limit ended it there. */
qb_status qb_bpe_feed(qb_bpe_run *run, const char *text, size_t n, size_t *read) QB_NODISCARD;
/* Heap insertions so far: the work beyond the linear pass. */
int64_t qb_bpe_pushes(const qb_bpe_run *run);
void qb_bpe_end(qb_bpe_run *run); /* takes NULL */
