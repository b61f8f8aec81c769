/* Added tokens: what the text may spell out, found before anything is merged. */
#include "tokenizer/parts.h"

#include <string.h>

qb_status qb_added_token_flags(const qb_json *j, const char *name, qb_added_token *f) {
    qb_status st;
    *f = (qb_added_token){0};
    QB_TRY(st, qb_json_bool(j, "special", name, false, &f->special));
    f->normalized = !f->special;
    QB_TRY(st, qb_json_bool(j, "normalized", name, false, &f->normalized));
    QB_TRY(st, qb_json_bool(j, "single_word", name, false, &f->single_word));
    QB_TRY(st, qb_json_bool(j, "lstrip", name, false, &f->lstrip));
    QB_TRY(st, qb_json_bool(j, "rstrip", name, false, &f->rstrip));
out:
    return st;
}

/* A token that the model lacks gets the next free id in the reference, whatever its file says: a file that
   says something else is ambiguous. */
static qb_status place(qb_tokenizer *t, const char *content, size_t n, int64_t id, bool may_gap,
                       const char *name, int32_t *placed) {
    int32_t known = qb_vocab_find(&t->vocab, content, n), next = t->vocab.count;
    int64_t expected = known >= 0 ? known : id >= next && may_gap ? id : next;
    if (id >= 0 && id != expected)
        return qb_fail(QB_ERR_FORMAT, "%s: added token \"%.64s\" has id %lld, but %s %lld", name, content,
                       (long long)id, known >= 0 ? "the vocabulary gives it" : "the next free id is",
                       (long long)expected);
    if (expected >= QB_VOCAB_IDS_MAX || expected > 4 * (int64_t)next + 65536)
        return qb_fail(QB_ERR_FORMAT, "%s: added token \"%.64s\" has id %lld, far above the %d pieces", name,
                       content, (long long)expected, next);
    *placed = (int32_t)expected;
    if (known >= 0) return QB_OK;
    qb_status st = qb_vocab_extend(&t->vocab, *placed + 1);
    return st != QB_OK ? st : qb_vocab_add(&t->vocab, name, *placed, content, n, QB_PIECE_ADDED);
}

qb_status qb_tokenizer_add_token(qb_tokenizer *t, const char *content, size_t n, int64_t id, bool may_gap,
                                 qb_added_token flags, const char *name) {
    if (!n) return qb_fail(QB_ERR_FORMAT, "%s: added token %lld is empty", name, (long long)id);
    qb_status st = place(t, content, n, id, may_gap, name, &flags.id);
    if (st != QB_OK) return st;
    t->vocab.pieces[flags.id].special = flags.special;
    for (size_t i = 0; i < t->n_added; i++)
        if (t->added[i].id == flags.id) {
            t->added[i] = flags;
            return QB_OK;
        }
    st = qb_grow(&t->added, &t->added_capacity, t->n_added + 1, sizeof *t->added);
    if (st == QB_OK) t->added[t->n_added++] = flags;
    return st;
}

static qb_status index_token(qb_tokenizer *t, int32_t index, qb_normalized *scratch) {
    const qb_piece *p = &t->vocab.pieces[t->added[index].id];
    qb_status st = qb_trie_add(&t->added_any, p->text, p->length, index);
    if (st != QB_OK) return st;
    if (!t->added[index].normalized) return qb_trie_add(&t->added_raw, p->text, p->length, index);
    st = qb_normalize(t->normalizer, t->n_normalizer, p->text, p->length, scratch);
    return st == QB_OK && scratch->length
               ? qb_trie_add(&t->added_normalized, scratch->text, scratch->length, index)
               : st;
}

/* The reference searches normalized tokens in normalized text, and normalizes what it searches. Special
   tokens come first where two become the same. */
qb_status qb_tokenizer_index_added(qb_tokenizer *t) {
    qb_normalized scratch = {0};
    qb_status st = QB_OK;
    qb_trie_free(&t->added_raw);
    qb_trie_free(&t->added_normalized);
    qb_trie_free(&t->added_any);
    for (int special = 1; st == QB_OK && special >= 0; special--)
        for (size_t i = 0; st == QB_OK && i < t->n_added; i++)
            if (t->added[i].special == special) st = index_token(t, (int32_t)i, &scratch);
    qb_normalized_free(&scratch);
    return st;
}
