/* Hugging Face tokenizer.json, model types BPE and Unigram. "truncation" and "padding" describe one program's
   batches and not the vocabulary (transformers resets both on each call), so they are not followed. */
#include "tokenizer/parts.h"

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

static qb_status check_keys(const qb_json *model, const char *const *known, const char *type,
                            const char *name) {
    for (const qb_json *c = qb_json_first(model); c; c = qb_json_next(c)) {
        const char *const *key = known;
        while (*key && strcmp(*key, qb_json_key(c)) != 0) key++;
        if (!*key)
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: %s with \"%s\" is not supported", name, type,
                           qb_json_key(c));
    }
    return QB_OK;
}

static qb_status check_bpe(const qb_json *model, const char *name) {
    static const char *const known[] = {"type",
                                        "vocab",
                                        "merges",
                                        "dropout",
                                        "unk_token",
                                        "fuse_unk",
                                        "byte_fallback",
                                        "continuing_subword_prefix",
                                        "end_of_word_suffix",
                                        "ignore_merges",
                                        NULL};
    qb_status st;
    QB_TRY(st, check_keys(model, known, "BPE", name));
    QB_TRY(st, refuse_option(model, "dropout", name));
    QB_TRY(st, refuse_option(model, "continuing_subword_prefix", name));
    st = refuse_option(model, "end_of_word_suffix", name);
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
    bool byte_fallback = false;
    qb_status st;
    QB_TRY(st, qb_json_bool(model, "byte_fallback", name, false, &byte_fallback));
    QB_TRY(st, qb_bpe_characters(b, &t->vocab, byte_fallback));
    QB_TRY(st, qb_json_bool(model, "fuse_unk", name, false, &b->fuse_unk));
    QB_TRY(st, qb_json_bool(model, "ignore_merges", name, false, &b->ignore_merges));
    QB_TRY(st, qb_json_text(model, "unk_token", name, false, &unk));
    if (unk) b->unk = qb_vocab_find(&t->vocab, unk, strlen(unk));
    if (unk && *unk && b->unk < 0)
        st = qb_fail(QB_ERR_FORMAT, "%s: unk_token \"%.64s\" is not in the vocabulary", name, unk);
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

qb_status qb_tokenizer_add_merge(qb_tokenizer *t, const char *left, size_t n_left, const char *right,
                                 size_t n_right, int64_t rank, qb_str *joined, const char *name) {
    joined->length = 0;
    qb_str_append(joined, left, n_left);
    qb_str_append(joined, right, n_right);
    qb_status st = qb_str_status(joined);
    if (st != QB_OK) return st;
    qb_rule rule = {.left = qb_vocab_find(&t->vocab, left, n_left),
                    .right = qb_vocab_find(&t->vocab, right, n_right),
                    .result = qb_vocab_find(&t->vocab, qb_str_get(joined), joined->length),
                    .rank = (int32_t)rank};
    if (rule.left < 0 || rule.right < 0 || rule.result < 0)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: merge %lld, \"%.*s\" and \"%.*s\": the %s is not in the vocabulary", name,
                       (long long)rank, (int)(n_left < 64 ? n_left : 64), left,
                       (int)(n_right < 64 ? n_right : 64), right,
                       rule.left < 0    ? "left piece"
                       : rule.right < 0 ? "right piece"
                                        : "result");
    qb_bpe_rule_add(&t->bpe, rule);
    return QB_OK;
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
        QB_TRY(st, qb_tokenizer_add_merge(t, left, n_left, right, strlen(right), rank, &joined, name));
    }
out:
    qb_str_free(&joined);
    return st;
}

/* --- added tokens
 * ------------------------------------------------------------------------------------------------ */

static qb_status read_added_token(qb_tokenizer *t, const qb_json *j, const char *name) {
    static const char members[] = "id|content|single_word|lstrip|rstrip|normalized|special";
    const char *content = NULL;
    int64_t id = 0;
    qb_added_token flags;
    qb_status st;
    QB_TRY(st, qb_json_text(j, "content", name, true, &content));
    QB_TRY(st, qb_json_int(j, "id", name, true, 0, QB_VOCAB_IDS_MAX - 1, &id));
    QB_TRY(st, qb_reader_members(&(qb_reader){t, name}, j, members, "an added token"));
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

/* ---- the models ---- */

qb_status qb_tokenizer_read_bpe_vocab(qb_tokenizer *t, const qb_json *vocab, size_t n_added,
                                      size_t text_bytes, const char *name) {
    qb_status st = read_vocab(t, vocab, n_added, text_bytes, name);
    return st == QB_OK ? qb_bpe_characters(&t->bpe, &t->vocab, false) : st;
}

static qb_status read_bpe(qb_tokenizer *t, const qb_json *model, size_t n_added, size_t text_bytes,
                          const char *name) {
    qb_status st;
    QB_TRY(st, check_bpe(model, name));
    QB_TRY(st, read_vocab(t, qb_json_get(model, "vocab"), n_added, text_bytes, name));
    QB_TRY(st, read_characters(t, model, name));
    QB_TRY(st, read_merges(t, qb_json_get(model, "merges"), name));
    st = qb_bpe_finish(&t->bpe, qb_tokenizer_cuts_words(t));
out:
    return st;
}

/* "vocab": [[piece, log-probability], ...]; an id is a place in the list. */
static qb_status read_unigram(qb_tokenizer *t, const qb_json *model, size_t n_added, size_t text_bytes,
                              const char *name) {
    static const char *const known[] = {"type", "vocab", "unk_id", "byte_fallback", NULL};
    const qb_json *vocab = qb_json_get(model, "vocab");
    int64_t unk = -1, n = qb_json_count(vocab);
    bool byte_fallback = false;
    double *scores = NULL;
    int32_t id = 0;
    qb_status st;
    if (!qb_json_is_array(vocab) || n < 1 || n > QB_VOCAB_IDS_MAX)
        return qb_fail(QB_ERR_FORMAT, "%s: \"vocab\" must be a list of 1 to %d [piece, score]", name,
                       QB_VOCAB_IDS_MAX);
    QB_TRY(st, check_keys(model, known, "Unigram", name));
    QB_TRY(st, qb_json_int(model, "unk_id", name, false, 0, n - 1, &unk));
    QB_TRY(st, qb_json_bool(model, "byte_fallback", name, false, &byte_fallback));
    QB_TRY(st, qb_vocab_create(&t->vocab, (int32_t)n, (size_t)n + n_added, text_bytes));
    QB_TRY(st, qb_alloc((size_t)n, sizeof *scores, &scores));
    for (const qb_json *c = qb_json_first(vocab); c; c = qb_json_next(c), id++) {
        const char *text = qb_json_string(qb_json_first(c));
        const qb_json *score = text ? qb_json_next(qb_json_first(c)) : NULL;
        if (!text || !qb_json_is_number(score) || qb_json_count(c) != 2) {
            st = qb_fail(QB_ERR_FORMAT, "%s: piece %d must be [text, score]", name, id);
            goto out;
        }
        scores[id] = qb_json_number(score);
        if (!*text && id == unk) text = "<unk>";
        QB_TRY(st, qb_vocab_add(&t->vocab, name, id, text, strlen(text), QB_PIECE_NORMAL));
    }
    t->model = &qb_token_model_unigram;
    st = qb_unigram_create(&t->unigram, &t->vocab, scores, (int32_t)unk, byte_fallback, false);
    scores = NULL;
out:
    qb_free(scores);
    return st;
}

static qb_status read_model(qb_tokenizer *t, const qb_json *document, size_t text_bytes, const char *name) {
    const qb_json *model = qb_json_get(document, "model");
    size_t n_added = (size_t)qb_json_count(qb_json_get(document, "added_tokens"));
    const char *type = NULL;
    if (!qb_json_is_object(model))
        return qb_fail(QB_ERR_FORMAT, "%s: \"model\" is missing or no object", name);
    qb_status st = qb_json_text(model, "type", name, false, &type);
    if (st != QB_OK) return st;
    /* Older files name no type: what they hold tells it. */
    if (!type)
        type = qb_json_get(model, "merges")                    ? "BPE"
               : qb_json_is_array(qb_json_get(model, "vocab")) ? "Unigram"
                                                               : "BPE";
    if (!strcmp(type, "BPE")) return read_bpe(t, model, n_added, text_bytes, name);
    if (!strcmp(type, "Unigram")) return read_unigram(t, model, n_added, text_bytes, name);
    return qb_fail(QB_ERR_UNSUPPORTED,
                   "%s: tokenizer model \"%s\" is not supported (supported: BPE, Unigram)", name, type);
}

qb_status qb_tokenizer_read_json(qb_tokenizer *t, const char *text, size_t n, const char *name) {
    static const char members[] = "version|truncation|padding|added_tokens|normalizer|pre_tokenizer|"
                                  "post_processor|decoder|model";
    qb_json *document = NULL;
    qb_reader r = {t, name};
    qb_status st;
    QB_TRY(st, refuse_nul(text, n, name));
    QB_TRY(st, qb_json_parse_all(text, n, name, &document));
    QB_TRY(st, qb_reader_normalizer(&r, qb_json_get(document, "normalizer")));
    QB_TRY(st, qb_reader_pretokenizer(&r, qb_json_get(document, "pre_tokenizer")));
    QB_TRY(st, read_model(t, document, n, name));
    QB_TRY(st, read_added(t, qb_json_get(document, "added_tokens"), name));
    QB_TRY(st, qb_reader_post_processor(&r, qb_json_get(document, "post_processor")));
    QB_TRY(st, qb_reader_decoder(&r, qb_json_get(document, "decoder")));
    QB_TRY(st, qb_reader_members(&r, document, members, "the file"));
    st = qb_tokenizer_index_added(t);
out:
    qb_json_free(document);
    return st;
}
