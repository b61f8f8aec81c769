/* Where tokenizers come from: a directory or file, and the two small files beside it that name special
 * tokens. */
#include "base/file.h"
#include "tokenizer/parts.h"

#include <string.h>

enum { TOKENIZER_BYTES_MAX = 256 << 20 };

static qb_status begin(qb_tokenizer **out, qb_tokenizer **t) {
    *out = NULL;
    qb_status st = qb_alloc_zero(1, sizeof **t, t);
    if (st == QB_OK) {
        (*t)->bos = (*t)->eos = -1;
        (*t)->model = &qb_token_model_bpe;
    }
    return st;
}

static qb_status finish(qb_status st, qb_tokenizer *t, qb_tokenizer **out) {
    if (st == QB_OK)
        *out = t;
    else
        qb_tokenizer_close(t);
    return st;
}

static int32_t special_named(const qb_tokenizer *t, const char *text) {
    int32_t id = text ? qb_vocab_find(&t->vocab, text, strlen(text)) : -1;
    return id >= 0 && t->vocab.pieces[id].special ? id : -1;
}

/* tokenizer.json does not say which token begins or ends a text: the template's, else the names that Llama
 * gives them. */
static void guess_ends(qb_tokenizer *t) {
    const qb_template *f = &t->file;
    t->bos = f->n_before ? f->before[0] : special_named(t, "<s>");
    t->eos = f->n_after ? f->after[f->n_after - 1] : special_named(t, "</s>");
    t->keys = t->file;
}

static bool holds(const int32_t *ids, size_t n, int32_t id) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] == id) return true;
    return false;
}

/* `ids` with `id` put on (at the front or the back) or taken off: add < 0 leaves all as it is. */
static qb_status with_end(qb_tokenizer *t, const int32_t *ids, size_t n, int32_t id, int add, bool front,
                          int32_t **out, size_t *n_out) {
    qb_status st = qb_arena_alloc(&t->arena, n + 1, sizeof **out, out);
    if (st != QB_OK) return st;
    *n_out = 0;
    bool put = add == 1 && id >= 0 && !holds(ids, n, id);
    if (put && front) (*out)[(*n_out)++] = id;
    for (size_t i = 0; i < n; i++)
        if (add != 0 || ids[i] != id) (*out)[(*n_out)++] = ids[i];
    if (put && !front) (*out)[(*n_out)++] = id;
    return QB_OK;
}

static void put_conflict(qb_str *s, const char *key, int add, size_t n_file, size_t n_keys,
                         const char *what) {
    if (n_file != n_keys)
        qb_str_printf(s, "%s%s is %s, but the tokenizer's template %s %s", s->length ? "; " : "", key,
                      add ? "true" : "false", add ? "lacks" : "has", what);
}

qb_status qb_tokenizer_set_keys(qb_tokenizer *t, int add_bos, int add_eos) {
    const qb_template *f = &t->file;
    qb_str conflict = {0};
    qb_status st;
    QB_TRY(st,
           with_end(t, f->before, f->n_before, t->bos, add_bos, true, &t->keys.before, &t->keys.n_before));
    QB_TRY(st, with_end(t, f->after, f->n_after, t->eos, add_eos, false, &t->keys.after, &t->keys.n_after));
    put_conflict(&conflict, "add_bos_token", add_bos, f->n_before, t->keys.n_before, "BOS");
    put_conflict(&conflict, "add_eos_token", add_eos, f->n_after, t->keys.n_after, "EOS");
    QB_TRY(st, qb_str_status(&conflict));
    if (conflict.length) st = qb_tokenizer_keep(t, qb_str_get(&conflict), conflict.length, &t->conflict);
out:
    qb_str_free(&conflict);
    return st;
}

qb_status qb_tokenizer_parse_json(const char *text, size_t n, const char *name, qb_tokenizer **out) {
    qb_tokenizer *t;
    qb_status st = begin(out, &t);
    if (st != QB_OK) return st;
    st = qb_tokenizer_read_json(t, text, n, name);
    if (st == QB_OK) guess_ends(t);
    return finish(st, t, out);
}

/* The template of what has none: a .model, to which transformers' Llama class puts BOS unless told otherwise,
 * and a GGUF vocabulary. */
static qb_status make_template(qb_tokenizer *t, bool add_bos, bool add_eos) {
    t->file = (qb_template){0};
    qb_status st = qb_tokenizer_set_keys(t, add_bos, add_eos);
    t->file = t->keys;
    t->conflict = NULL;
    return st;
}

qb_status qb_tokenizer_parse_model(const uint8_t *bytes, size_t n, const char *name, qb_tokenizer **out) {
    qb_tokenizer *t;
    qb_status st = begin(out, &t);
    if (st != QB_OK) return st;
    st = qb_tokenizer_read_model(t, bytes, n, name);
    if (st == QB_OK) st = make_template(t, true, false);
    return finish(st, t, out);
}

qb_status qb_tokenizer_of_vocabulary(const qb_vocabulary *v, const char *name, qb_tokenizer **out) {
    qb_tokenizer *t;
    qb_status st = begin(out, &t);
    if (st != QB_OK) return st;
    st = qb_tokenizer_read_vocabulary(t, v, name);
    if (st == QB_OK) st = make_template(t, v->add_bos, v->add_eos);
    return finish(st, t, out);
}

void qb_tokenizer_close(qb_tokenizer *t) {
    if (!t) return;
    qb_vocab_free(&t->vocab);
    qb_bpe_free(&t->bpe);
    qb_unigram_free(&t->unigram);
    for (size_t i = 0; i < t->n_patterns; i++) qb_pattern_free(t->patterns[i]);
    qb_free(t->patterns);
    qb_charsmap_free(&t->charsmap);
    qb_trie_free(&t->added_raw);
    qb_trie_free(&t->added_normalized);
    qb_trie_free(&t->added_any);
    qb_free(t->added);
    qb_arena_free(&t->arena);
    qb_free(t);
}

static bool has_suffix(const char *path, const char *suffix) {
    size_t n = strlen(path), k = strlen(suffix);
    return n >= k && strcmp(path + n - k, suffix) == 0;
}

qb_status qb_tokenizer_open_file(const char *path, qb_tokenizer **out) {
    *out = NULL;
    bool json = has_suffix(path, ".json"), model = has_suffix(path, ".model");
    if (!json && !model)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: a tokenizer file must end in .json or .model", path);
    char *text = NULL, *dir = qb_path_dir(path);
    size_t n;
    qb_tokenizer *t = NULL;
    qb_status st;
    if (!dir) return qb_fail(QB_ERR_MEMORY, "out of memory");
    QB_TRY(st, qb_file_read(path, TOKENIZER_BYTES_MAX, &text, &n));
    QB_TRY(st, json ? qb_tokenizer_parse_json(text, n, path, &t)
                    : qb_tokenizer_parse_model((const uint8_t *)text, n, path, &t));
    QB_TRY(st, qb_tokenizer_read_beside(t, dir, model));
    if (model) { /* nothing but the keys says what is put around */
        t->file = t->keys;
        t->conflict = NULL;
    }
    *out = t;
    t = NULL;
out:
    qb_tokenizer_close(t);
    qb_free(text);
    qb_free(dir);
    return st;
}

qb_status qb_tokenizer_open(const char *dir, qb_tokenizer **out) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "vocab.json"};
    *out = NULL;
    qb_status st = QB_OK;
    for (size_t i = 0; i < 3; i++) {
        char *path = qb_path_join(dir, names[i]);
        if (!path) return qb_fail(QB_ERR_MEMORY, "out of memory");
        bool found = qb_path_exists(path);
        if (found && i < 2) st = qb_tokenizer_open_file(path, out);
        qb_free(path);
        if (found && i < 2) return st;
        if (found)
            return qb_fail(QB_ERR_UNSUPPORTED,
                           "%s: has vocab.json but no tokenizer.json: byte-level BPE (GPT-2 and the like) is "
                           "not supported",
                           dir);
    }
    return qb_fail(QB_ERR_NOT_FOUND, "%s: found neither tokenizer.json nor tokenizer.model", dir);
}

int32_t qb_tokenizer_vocab_size(const qb_tokenizer *t) {
    return t->vocab.count;
}
int32_t qb_tokenizer_bos(const qb_tokenizer *t) {
    return t->bos;
}
int32_t qb_tokenizer_eos(const qb_tokenizer *t) {
    return t->eos;
}
bool qb_tokenizer_adds_bos(const qb_tokenizer *t, qb_ends ends) {
    const qb_template *e = ends == QB_ENDS_KEYS ? &t->keys : &t->file;
    return ends != QB_ENDS_NONE && t->bos >= 0 && holds(e->before, e->n_before, t->bos);
}
const char *qb_tokenizer_conflict(const qb_tokenizer *t) {
    return t->conflict;
}
