/* Hugging Face tokenizer.json, model type BPE. "truncation" and "padding" describe one program's batches and
   not the vocabulary (transformers resets both on each call), so they are not followed. */
#include "tokenizer/parts.h"
#include "tokenizer/utf8.h"

#include <string.h>

/* cJSON ends strings at a NUL: a piece with \u0000 would silently become another one. */
static qb_status refuse_nul(const char *text, size_t n, const char *name) {
    for (const char *p = text, *end = text + n; p < end && (p = memchr(p, '\\', (size_t)(end - p))); p += 2)
        if (end - p >= 6 && !memcmp(p, "\\u0000", 6))
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: a string with \\u0000 at byte %zu is not supported", name,
                           (size_t)(p - text));
    return QB_OK;
}

static qb_status refuse_option(const qb_json *model, const char *key, const char *name) {
    const qb_json *j = qb_json_get(model, key);
    const char *text = qb_json_string(j);
    if (qb_json_is_null(j) || (text && !*text) || (qb_json_is_number(j) && qb_json_number(j) == 0))
        return QB_OK;
    return qb_fail(QB_ERR_UNSUPPORTED, "%s: BPE with \"%s\" is not supported", name, key);
}

static qb_status check_model(const qb_json *model, const char *name) {
    static const char *const known[] = {"type",
                                        "vocab",
                                        "merges",
                                        "dropout",
                                        "unk_token",
                                        "fuse_unk",
                                        "byte_fallback",
                                        "continuing_subword_prefix",
                                        "end_of_word_suffix",
                                        "ignore_merges"};
    const char *type = "BPE";
    bool ignore_merges = false;
    qb_status st;
    if (!qb_json_is_object(model))
        return qb_fail(QB_ERR_FORMAT, "%s: \"model\" is missing or no object", name);
    QB_TRY(st, qb_json_text(model, "type", name, false, &type));
    if (strcmp(type, "BPE") != 0)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: tokenizer model \"%s\" is not supported (supported: BPE)",
                       name, type);
    for (const qb_json *c = qb_json_first(model); c; c = qb_json_next(c)) {
        size_t i = 0;
        while (i < sizeof known / sizeof known[0] && strcmp(known[i], qb_json_key(c)) != 0) i++;
        if (i == sizeof known / sizeof known[0])
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: BPE with \"%s\" is not supported", name, qb_json_key(c));
    }
    QB_TRY(st, refuse_option(model, "dropout", name));
    QB_TRY(st, refuse_option(model, "continuing_subword_prefix", name));
    QB_TRY(st, refuse_option(model, "end_of_word_suffix", name));
    QB_TRY(st, qb_json_bool(model, "ignore_merges", name, false, &ignore_merges));
    if (ignore_merges)
        st = qb_fail(QB_ERR_UNSUPPORTED, "%s: BPE with \"ignore_merges\" is not supported", name);
out:
    return st;
}

static qb_status read_id(const qb_json *j, const char *key, const char *name, int32_t *id) {
    double v = qb_json_number(j);
    if (!(v >= 0 && v < QB_VOCAB_IDS_MAX) || v != (double)(int32_t)v)
        return qb_fail(QB_ERR_FORMAT, "%s: the id of \"%.64s\" must be an integer from 0 to %d", name, key,
                       QB_VOCAB_IDS_MAX - 1);
    *id = (int32_t)v;
    return QB_OK;
}

static qb_status read_vocab(qb_tokenizer *t, const qb_json *vocab, size_t n_added, size_t text_bytes,
                            const char *name) {
    if (!qb_json_is_object(vocab) || !qb_json_first(vocab))
        return qb_fail(QB_ERR_FORMAT, "%s: \"vocab\" must be an object of pieces and ids", name);
    int64_t pieces = 0;
    int32_t id = 0, highest = 0;
    qb_status st;
    for (const qb_json *c = qb_json_first(vocab); c; c = qb_json_next(c), pieces++) {
        QB_TRY(st, read_id(c, qb_json_key(c), name, &id));
        if (id > highest) highest = id;
    }
    /* Ids with gaps are allowed, but a short file must not make us allocate millions of empty pieces. */
    if (highest > 4 * pieces + 65536)
        return qb_fail(QB_ERR_FORMAT, "%s: the highest id is %d, though the vocabulary has only %lld pieces",
                       name, highest, (long long)pieces);
    QB_TRY(st, qb_vocab_create(&t->vocab, highest + 1, (size_t)pieces + n_added, text_bytes));
    for (const qb_json *c = qb_json_first(vocab); c; c = qb_json_next(c)) {
        QB_TRY(st, read_id(c, qb_json_key(c), name, &id));
        const char *text = qb_json_key(c);
        QB_TRY(st, qb_vocab_add(&t->vocab, name, id, text, strlen(text), QB_PIECE_NORMAL));
    }
out:
    return st;
}

static qb_status read_characters(qb_tokenizer *t, const qb_json *model, const char *name) {
    qb_bpe *b = &t->bpe;
    const char *unk = NULL;
    qb_status st;
    QB_TRY(st, qb_bpe_create(b, &t->vocab, (size_t)t->vocab.count));
    QB_TRY(st, qb_json_bool(model, "fuse_unk", name, false, &b->fuse_unk));
    QB_TRY(st, qb_json_bool(model, "byte_fallback", name, false, &b->byte_fallback));
    QB_TRY(st, qb_json_text(model, "unk_token", name, false, &unk));
    if (unk) b->unk = qb_vocab_find(&t->vocab, unk, strlen(unk));
    if (unk && b->unk < 0)
        return qb_fail(QB_ERR_FORMAT, "%s: unk_token \"%.64s\" is not in the vocabulary", name, unk);
    for (int32_t id = 0; id < t->vocab.count; id++) {
        const qb_piece *p = &t->vocab.pieces[id];
        if (p->length && p->length <= 4 && qb_utf8_length((const uint8_t *)p->text, p->length) == p->length)
            qb_bpe_char_add(b, p->text, p->length, id);
    }
    for (int c = 0; b->byte_fallback && c < 256; c++) {
        static const char hex[] = "0123456789ABCDEF";
        const char text[] = {'<', '0', 'x', hex[c >> 4], hex[c & 15], '>'};
        b->byte_ids[c] = qb_vocab_find(&t->vocab, text, sizeof text);
    }
out:
    return st;
}

/* "left right", or ["left", "right"] where pieces hold spaces. */
static qb_status split_merge(const qb_json *j, int64_t rank, const char *name, const char **left,
                             size_t *n_left, const char **right) {
    const char *text = qb_json_string(j);
    if (text) {
        const char *space = strchr(text, ' ');
        if (space && !strchr(space + 1, ' ')) {
            *left = text;
            *n_left = (size_t)(space - text);
            *right = space + 1;
            return QB_OK;
        }
    } else if (qb_json_is_array(j) && qb_json_count(j) == 2) {
        *left = qb_json_string(qb_json_first(j));
        *right = qb_json_string(qb_json_next(qb_json_first(j)));
        if (*left && *right) {
            *n_left = strlen(*left);
            return QB_OK;
        }
    }
    return qb_fail(QB_ERR_FORMAT, "%s: merge %lld must be two pieces, \"a b\" or [\"a\", \"b\"]", name,
                   (long long)rank);
}

static qb_status read_merges(qb_tokenizer *t, const qb_json *merges, const char *name) {
    if (!qb_json_is_array(merges)) return qb_fail(QB_ERR_FORMAT, "%s: \"merges\" must be an array", name);
    int64_t count = qb_json_count(merges), rank = 0;
    if (count > QB_RULES_MAX)
        return qb_fail(QB_ERR_FORMAT, "%s: %lld merges are more than the %d allowed", name, (long long)count,
                       QB_RULES_MAX);
    qb_str joined = {0};
    qb_status st;
    QB_TRY(st, qb_bpe_rules_reserve(&t->bpe, (size_t)count));
    for (const qb_json *c = qb_json_first(merges); c; c = qb_json_next(c), rank++) {
        const char *left = "", *right = "";
        size_t n_left = 0;
        QB_TRY(st, split_merge(c, rank, name, &left, &n_left, &right));
        joined.length = 0;
        qb_str_append(&joined, left, n_left);
        qb_str_text(&joined, right);
        QB_TRY(st, qb_str_status(&joined));
        qb_rule rule = {.left = qb_vocab_find(&t->vocab, left, n_left),
                        .right = qb_vocab_find(&t->vocab, right, strlen(right)),
                        .result = qb_vocab_find(&t->vocab, joined.text, joined.length),
                        .rank = (int32_t)rank};
        if (rule.left < 0 || rule.right < 0 || rule.result < 0) {
            st = qb_fail(QB_ERR_FORMAT,
                         "%s: merge %lld, \"%.*s\" and \"%.64s\": the %s is not in the vocabulary", name,
                         (long long)rank, (int)(n_left < 64 ? n_left : 64), left, right,
                         rule.left < 0    ? "left piece"
                         : rule.right < 0 ? "right piece"
                                          : "result");
            goto out;
        }
        qb_bpe_rule_add(&t->bpe, rule);
    }
out:
    qb_str_free(&joined);
    return st;
}

/* --- added tokens
 * ------------------------------------------------------------------------------------------------ */

static qb_status read_added_token(qb_tokenizer *t, const qb_json *j, const char *name) {
    const char *content = NULL;
    int64_t id = 0;
    qb_added_token flags;
    qb_status st;
    QB_TRY(st, qb_json_text(j, "content", name, true, &content));
    QB_TRY(st, qb_json_int(j, "id", name, true, 0, QB_VOCAB_IDS_MAX - 1, &id));
    QB_TRY(st, qb_added_token_flags(j, name, &flags));
    st = qb_tokenizer_add_token(t, content, strlen(content), id, false, flags, name);
out:
    return st;
}

static qb_status read_added(qb_tokenizer *t, const qb_json *list, const char *name) {
    if (qb_json_is_null(list)) return QB_OK;
    if (!qb_json_is_array(list)) return qb_fail(QB_ERR_FORMAT, "%s: \"added_tokens\" must be an array", name);
    qb_status st = QB_OK;
    for (const qb_json *c = qb_json_first(list); c && st == QB_OK; c = qb_json_next(c))
        st = read_added_token(t, c, name);
    return st;
}

qb_status qb_tokenizer_keep(qb_tokenizer *t, const char *text, size_t n, const char **out) {
    char *copy;
    qb_status st = qb_arena_alloc(&t->arena, n + 1, 1, &copy);
    if (st == QB_OK) memcpy(copy, text, n);
    *out = copy;
    return st;
}

qb_status qb_tokenizer_read_json(qb_tokenizer *t, const char *text, size_t n, const char *name) {
    qb_json *document = NULL;
    qb_status st;
    QB_TRY(st, refuse_nul(text, n, name));
    QB_TRY(st, qb_json_parse(text, n, name, &document));
    const qb_json *model = qb_json_get(document, "model"), *added = qb_json_get(document, "added_tokens");
    QB_TRY(st, check_model(model, name));
    QB_TRY(st, read_vocab(t, qb_json_get(model, "vocab"), (size_t)qb_json_count(added), n, name));
    QB_TRY(st, read_characters(t, model, name));
    QB_TRY(st, read_merges(t, qb_json_get(model, "merges"), name));
    QB_TRY(st, qb_bpe_finish(&t->bpe));
    QB_TRY(st, read_added(t, added, name));
    QB_TRY(st, qb_tokenizer_read_pipeline(t, document, name));
    st = qb_tokenizer_index_added(t);
out:
    qb_json_free(document);
    return st;
}
