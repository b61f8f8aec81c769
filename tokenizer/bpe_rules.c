/* What qb_bpe knows before it sees text: characters, merge rules, and where no merge can cross. */
#include "tokenizer/bpe.h"

#include "base/memory.h"
#include "tokenizer/utf8.h"

#include <string.h>

qb_status qb_bpe_create(qb_bpe *b, const qb_vocab *vocab, size_t n_chars_max) {
    b->vocab = vocab;
    b->n_pieces = b->n_joining = vocab->count;
    b->unk = -1;
    memset(b->ascii, 0xFF, sizeof b->ascii);
    memset(b->byte_ids, 0xFF, sizeof b->byte_ids);
    size_t slots = 16;
    while (slots < 2 * n_chars_max) slots *= 2;
    b->char_mask = (uint32_t)slots - 1;
    b->char_room = (uint32_t)n_chars_max;
    qb_status st = qb_alloc_zero(slots, sizeof *b->char_keys, &b->char_keys);
    return st != QB_OK ? st : qb_alloc(slots, sizeof *b->char_symbols, &b->char_symbols);
}

void qb_bpe_free(qb_bpe *b) {
    if (!b) return;
    qb_free(b->char_keys);
    qb_free(b->char_symbols);
    qb_free(b->rules);
    qb_free(b->joins);
    qb_free(b->aux);
    qb_trie_free(&b->whole);
    *b = (qb_bpe){0};
}

static uint32_t char_slot(const qb_bpe *b, uint32_t key) {
    uint32_t s = (key * 0x9E3779B1u) >> 7 & b->char_mask;
    while (b->char_keys[s] && b->char_keys[s] != key) s = (s + 1) & b->char_mask;
    return s;
}

void qb_bpe_char_add(qb_bpe *b, const char *text, size_t length, int32_t symbol) {
    uint8_t first = (uint8_t)text[0];
    if (first < 0x80) {
        if (b->ascii[first] < 0) b->ascii[first] = symbol;
        return;
    }
    uint32_t key = qb_utf8_pack((const uint8_t *)text, length), s = char_slot(b, key);
    if (b->char_keys[s] || b->n_chars >= b->char_room) return;
    b->char_keys[s] = key;
    b->char_symbols[s] = symbol;
    b->n_chars++;
}

int32_t qb_bpe_char(const qb_bpe *b, const char *text, size_t length) {
    uint8_t first = (uint8_t)text[0];
    if (first < 0x80) return b->ascii[first];
    uint32_t s = char_slot(b, qb_utf8_pack((const uint8_t *)text, length));
    return b->char_keys[s] ? b->char_symbols[s] : -1;
}

qb_status qb_bpe_characters(qb_bpe *b, const qb_vocab *vocab, bool byte_fallback) {
    qb_status st = qb_bpe_create(b, vocab, (size_t)vocab->count);
    if (st != QB_OK) return st;
    b->byte_fallback = byte_fallback;
    for (int32_t id = 0; id < vocab->count; id++) {
        const qb_piece *p = &vocab->pieces[id];
        if (p->length && p->length <= 4 && qb_utf8_length((const uint8_t *)p->text, p->length) == p->length)
            qb_bpe_char_add(b, p->text, p->length, id);
    }
    for (int c = 0; byte_fallback && c < 256; c++) {
        static const char hex[] = "0123456789ABCDEF";
        const char text[] = {'<', '0', 'x', hex[c >> 4], hex[c & 15], '>'};
        b->byte_ids[c] = qb_vocab_find(vocab, text, sizeof text);
    }
    return QB_OK;
}

qb_status qb_bpe_rules_reserve(qb_bpe *b, size_t n) {
    size_t slots = 16;
    while (slots < 2 * n) slots *= 2;
    b->rule_mask = (uint32_t)slots - 1;
    qb_status st = qb_alloc(slots, sizeof *b->rules, &b->rules);
    if (st == QB_OK) memset(b->rules, 0xFF, slots * sizeof *b->rules);
    return st;
}

void qb_bpe_rule_add(qb_bpe *b, qb_rule rule) {
    uint32_t s = qb_rule_hash(rule.left, rule.right) & b->rule_mask;
    while (b->rules[s].left >= 0 && (b->rules[s].left != rule.left || b->rules[s].right != rule.right))
        s = (s + 1) & b->rule_mask;
    if (b->rules[s].left < 0) b->n_rules++;
    b->rules[s] = rule;
}

/* The characters with which a symbol's text begins and ends, as symbols; -1: no merges lead to it. */
typedef struct ends {
    int32_t first, last;
} ends;

/* Lets the rules build symbols from characters until nothing is new. False when a symbol can be built from
   different characters (a piece that is spelt like a byte token, say) or the rules nest too deep: then
   nothing is proved. */
static bool trace_ends(const qb_bpe *b, ends *e) {
    enum { PASSES_MAX = 64 };
    for (int pass = 0; pass < PASSES_MAX; pass++) {
        bool changed = false;
        for (size_t s = 0; s <= b->rule_mask; s++) {
            const qb_rule *r = &b->rules[s];
            if (r->left < 0 || e[r->left].first < 0 || e[r->right].first < 0) continue;
            ends built = {e[r->left].first, e[r->right].last}, *known = &e[r->result];
            if (known->first < 0) {
                *known = built;
                changed = true;
            } else if (known->first != built.first || known->last != built.last) {
                return false;
            }
        }
        if (!changed) return true;
    }
    return false;
}

static void start_end(ends *e, int32_t symbol) {
    if (symbol >= 0) e[symbol] = (ends){symbol, symbol};
}

qb_status qb_bpe_finish(qb_bpe *b, bool short_units) {
    if (!b->rules) {
        qb_status st = qb_bpe_rules_reserve(b, 0);
        if (st != QB_OK) return st;
    }
    if (b->has_unused || short_units) return QB_OK;
    ends *e;
    qb_status st = qb_alloc((size_t)b->n_joining, sizeof *e, &e);
    if (st != QB_OK) return st;
    memset(e, 0xFF, (size_t)b->n_joining * sizeof *e);
    for (int c = 0; c < 128; c++) start_end(e, b->ascii[c]);
    for (size_t s = 0; s <= b->char_mask; s++)
        if (b->char_keys[s]) start_end(e, b->char_symbols[s]);
    for (int c = 0; c < 256; c++) start_end(e, b->byte_ids[c]);
    start_end(e, b->unk);
    if (trace_ends(b, e)) {
        st = qb_alloc_zero((size_t)b->n_joining, 1, &b->joins);
        for (size_t s = 0; st == QB_OK && s <= b->rule_mask; s++) {
            const qb_rule *r = &b->rules[s];
            if (r->left < 0 || e[r->left].first < 0 || e[r->right].first < 0) continue;
            int32_t before = e[r->left].last, after = e[r->right].first;
            b->joins[before] |= before == after ? QB_JOIN_SELF : QB_JOIN_RIGHT;
            b->joins[after] |= before == after ? QB_JOIN_SELF : QB_JOIN_LEFT;
        }
    }
    qb_free(e);
    return st;
}
