/* The small files beside a tokenizer's: tokenizer_config.json, special_tokens_map.json and added_tokens.json.
   What they change is that of transformers (PreTrainedTokenizerBase._from_pretrained, versions 4.46 and
   5.24). */
#include "base/file.h"
#include "base/log.h"
#include "tokenizer/parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_BYTES_MAX = 64 << 20 };

typedef struct beside {
    qb_tokenizer *t;
    bool model; /* a tokenizer.model: no added tokens of its own, explicit ids */
    qb_json *map, *config, *added;
} beside;

/* Reads DIR/file when it exists; *out stays NULL otherwise. */
static qb_status read_beside(const char *dir, const char *file, qb_json **out) {
    *out = NULL;
    char *path = qb_path_join(dir, file);
    if (!path) return qb_fail(QB_ERR_MEMORY, "out of memory");
    bool there;
    qb_status st = qb_path_look(path, &there);
    if (st == QB_OK && there) st = qb_json_read(path, CONFIG_BYTES_MAX, out);
    qb_free(path);
    return st;
}

static const char *content_of(const qb_json *j) {
    return qb_json_string(qb_json_is_object(j) ? qb_json_get(j, "content") : j);
}

static bool is_added(const qb_tokenizer *t, int32_t id) {
    for (size_t i = 0; i < t->n_added; i++)
        if (t->added[i].id == id) return true;
    return false;
}

/* ---- which tokens begin and end a text ---- */

/* "bos_token": "<s>", or {"content": "<s>", ...}, or null. An unknown name is kept out: it cannot be an id.
 */
static void named_token(const qb_tokenizer *t, const qb_json *config, const char *key, int32_t *id) {
    const char *text = content_of(qb_json_get(config, key));
    int32_t found = text ? qb_vocab_find(&t->vocab, text, strlen(text)) : -1;
    if (found >= 0) *id = found;
}

static qb_status read_ends(beside *b) {
    /* Without a template, what the class does unless it is told. */
    int add[2] = {b->t->bos_by_default || b->model ? 1 : -1, -1};
    static const char *const keys[] = {"add_bos_token", "add_eos_token"};
    named_token(b->t, b->map, "bos_token", &b->t->bos);
    named_token(b->t, b->map, "eos_token", &b->t->eos);
    named_token(b->t, b->config, "bos_token", &b->t->bos);
    named_token(b->t, b->config, "eos_token", &b->t->eos);
    for (int i = 0; i < 2; i++) {
        if (qb_json_is_null(qb_json_get(b->config, keys[i]))) continue;
        bool value = false;
        qb_status st = qb_json_bool(b->config, keys[i], "tokenizer_config.json", true, &value);
        if (st != QB_OK) return st;
        add[i] = value;
    }
    return qb_tokenizer_set_keys(b->t, add[0], add[1]);
}

/* ---- added tokens ---- */

/* An id that the files give and transformers would not: it counts on from the vocabulary's end. */
static int64_t id_to_take(const beside *b, const char *content, int64_t id) {
    int32_t known = qb_vocab_find(&b->t->vocab, content, strlen(content));
    int64_t expected = known >= 0 ? known : b->t->vocab.count;
    if (id == expected || (known < 0 && b->model && id > expected)) return id;
    qb_warn("tokenizer_config.json gives \"%.64s\" the id %lld; the vocabulary makes it %lld, which is used",
            content, (long long)id, (long long)expected);
    return -1;
}

static qb_status add_decoded(beside *b) {
    const qb_json *list = qb_json_get(b->config, "added_tokens_decoder");
    qb_status st = QB_OK;
    for (const qb_json *c = qb_json_first(list); st == QB_OK && c; c = qb_json_next(c)) {
        const char *content = content_of(c), *key = qb_json_key(c);
        char *end;
        long long id = key ? strtoll(key, &end, 10) : -1;
        if (!content || !*content || !key || end == key || *end || id < 0 || id >= QB_VOCAB_IDS_MAX)
            return qb_fail(QB_ERR_FORMAT,
                           "tokenizer_config.json: added_tokens_decoder must give ids tokens with their "
                           "\"content\", found \"%.64s\"",
                           key ? key : "a list");
        qb_added_token flags;
        st = qb_added_token_flags(c, "tokenizer_config.json", &flags);
        if (b->model) flags.normalized = false; /* such tokenizers cut all tokens out of the raw text */
        if (st == QB_OK)
            st = qb_tokenizer_add_token(b->t, content, strlen(content), id_to_take(b, content, id), b->model,
                                        flags, "tokenizer_config.json");
    }
    return st;
}

/* {"content": id}: tokens that users added to older checkpoints. */
static qb_status add_listed(beside *b) {
    qb_status st = QB_OK;
    if (qb_json_get(b->config, "added_tokens_decoder")) return st;
    for (const qb_json *c = qb_json_first(b->added); st == QB_OK && c; c = qb_json_next(c)) {
        const char *content = qb_json_key(c);
        double id = qb_json_number(c);
        if (!content || !(id >= 0 && id < QB_VOCAB_IDS_MAX))
            return qb_fail(QB_ERR_FORMAT, "added_tokens.json must give each token its id, found \"%.64s\"",
                           content ? content : "a list");
        int32_t known = qb_vocab_find(&b->t->vocab, content, strlen(content));
        if (*content && (known < 0 || !is_added(b->t, known)))
            st = qb_tokenizer_add_token(b->t, content, strlen(content), id_to_take(b, content, (int64_t)id),
                                        b->model, (qb_added_token){0}, "added_tokens.json");
    }
    return st;
}

static qb_status add_special(beside *b, const qb_json *j) {
    const char *content = content_of(j);
    if (!content || !*content) return QB_OK; /* "": the checkpoint has no such token */
    int32_t known = qb_vocab_find(&b->t->vocab, content, strlen(content));
    if (known >= 0 && is_added(b->t, known)) {
        for (size_t i = 0; i < b->t->n_added; i++)
            if (b->t->added[i].id == known) b->t->added[i].special = true;
        b->t->vocab.pieces[known].special = true;
        return QB_OK;
    }
    qb_added_token flags = {0};
    qb_status st = qb_json_is_object(j) ? qb_added_token_flags(j, "special_tokens_map.json", &flags) : QB_OK;
    flags.special = true;
    if (b->model || !qb_json_is_object(j)) flags.normalized = false;
    return st == QB_OK ? qb_tokenizer_add_token(b->t, content, strlen(content), -1, false, flags,
                                                "special_tokens_map.json")
                       : st;
}

static const char *const named[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                    "pad_token", "cls_token", "mask_token"};
static const char *const lists[] = {"additional_special_tokens", "extra_special_tokens"};

static qb_status add_all_special(beside *b, const qb_json *file) {
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < sizeof named / sizeof named[0]; i++)
        st = add_special(b, qb_json_get(file, named[i]));
    for (size_t i = 0; st == QB_OK && i < sizeof lists / sizeof lists[0]; i++)
        for (const qb_json *c = qb_json_first(qb_json_get(file, lists[i])); st == QB_OK && c;
             c = qb_json_next(c))
            st = add_special(b, c);
    return st;
}

/* The classes for tokenizer.model know <unk>, <s> and </s> without any file; a file that says "" or null
   takes one away. */
static qb_status add_defaults(beside *b) {
    const struct {
        const char *key;
        int32_t id;
    } rows[] = {{"unk_token", b->t->bpe.unk}, {"bos_token", b->t->bos}, {"eos_token", b->t->eos}};
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < 3; i++) {
        if (rows[i].id < 0 || qb_json_get(b->config, rows[i].key) || qb_json_get(b->map, rows[i].key))
            continue;
        const qb_piece *p = &b->t->vocab.pieces[rows[i].id];
        st = qb_tokenizer_add_token(b->t, p->text, p->length, rows[i].id, false,
                                    (qb_added_token){.special = true}, "tokenizer.model");
    }
    return st;
}

/* The same for vocab.json and merges.txt, as far as the vocabulary has them. */
static qb_status add_class_tokens(beside *b) {
    qb_status st = QB_OK;
    for (const char *const *row = b->t->class_tokens; row && *row && st == QB_OK; row++) {
        char key[32];
        const char *content = strchr(*row, '=') + 1;
        size_t n = strlen(content);
        int32_t id = qb_vocab_find(&b->t->vocab, content, n);
        snprintf(key, sizeof key, "%.*s", (int)(content - 1 - *row), *row);
        if (id < 0 || qb_json_get(b->config, key) || qb_json_get(b->map, key)) continue;
        if (!strcmp(key, "bos_token")) b->t->bos = id;
        if (!strcmp(key, "eos_token")) b->t->eos = id;
        if (!is_added(b->t, id))
            st = qb_tokenizer_add_token(b->t, content, n, id, false, (qb_added_token){.special = true},
                                        "vocab.json");
    }
    return st;
}

qb_status qb_tokenizer_read_beside(qb_tokenizer *t, const char *dir, bool model) {
    beside b = {.t = t, .model = model};
    bool legacy = true;
    qb_status st;
    QB_TRY(st, read_beside(dir, "special_tokens_map.json", &b.map));
    QB_TRY(st, read_beside(dir, "tokenizer_config.json", &b.config));
    QB_TRY(st, read_beside(dir, "added_tokens.json", &b.added));
    if (model) {
        QB_TRY(st, add_defaults(&b));
        if (!qb_json_is_null(qb_json_get(b.config, "legacy")))
            QB_TRY(st, qb_json_bool(b.config, "legacy", "tokenizer_config.json", true, &legacy));
        t->prefix_parts = legacy;
    }
    QB_TRY(st,
           qb_json_bool(b.config, "split_special_tokens", "tokenizer_config.json", false, &t->split_special));
    if (t->split_special)
        qb_warn("tokenizer_config.json says split_special_tokens: special tokens in texts are read as text");
    QB_TRY(st, add_class_tokens(&b));
    QB_TRY(st, add_decoded(&b));
    QB_TRY(st, add_listed(&b));
    QB_TRY(st, add_all_special(&b, b.map));
    QB_TRY(st, add_all_special(&b, b.config));
    QB_TRY(st, qb_tokenizer_index_added(t));
    st = read_ends(&b);
out:
    qb_json_free(b.map);
    qb_json_free(b.config);
    qb_json_free(b.added);
    return st;
}
