/* Where tokenizers come from: a directory or file, and the two small files beside it that name special
 * tokens. */
#include "base/file.h"
#include "tokenizer/parts.h"

#include <string.h>

enum { TOKENIZER_BYTES_MAX = 256 << 20, CONFIG_BYTES_MAX = 64 << 20 };

static qb_status begin(qb_tokenizer **out, qb_tokenizer **t) {
    *out = NULL;
    qb_status st = qb_alloc_zero(1, sizeof **t, t);
    if (st == QB_OK) (*t)->bos = (*t)->eos = -1;
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
    t->bos = t->n_before ? t->before[0] : special_named(t, "<s>");
    t->eos = t->n_after ? t->after[t->n_after - 1] : special_named(t, "</s>");
    t->adds_bos = t->n_before > 0;
}

qb_status qb_tokenizer_parse_json(const char *text, size_t n, const char *name, qb_tokenizer **out) {
    qb_tokenizer *t;
    qb_status st = begin(out, &t);
    if (st != QB_OK) return st;
    st = qb_tokenizer_read_json(t, text, n, name);
    if (st == QB_OK) guess_ends(t);
    return finish(st, t, out);
}

/* The template of a .model: SentencePiece has none, transformers' Llama class puts bos before unless told
 * otherwise. */
static qb_status model_template(qb_tokenizer *t, bool add_bos, bool add_eos) {
    qb_status st = qb_arena_alloc(&t->arena, 1, sizeof *t->before, &t->before);
    if (st == QB_OK) st = qb_arena_alloc(&t->arena, 1, sizeof *t->after, &t->after);
    if (st != QB_OK) return st;
    t->n_before = add_bos && t->bos >= 0;
    t->n_after = add_eos && t->eos >= 0;
    t->before[0] = t->bos;
    t->after[0] = t->eos;
    t->adds_bos = t->n_before > 0;
    return QB_OK;
}

qb_status qb_tokenizer_parse_model(const uint8_t *bytes, size_t n, const char *name, qb_tokenizer **out) {
    qb_tokenizer *t;
    qb_status st = begin(out, &t);
    if (st != QB_OK) return st;
    st = qb_tokenizer_read_model(t, bytes, n, name);
    if (st == QB_OK) st = model_template(t, true, false);
    return finish(st, t, out);
}

qb_status qb_tokenizer_of_vocabulary(const qb_vocabulary *v, const char *name, qb_tokenizer **out) {
    qb_tokenizer *t;
    qb_status st = begin(out, &t);
    if (st != QB_OK) return st;
    st = qb_tokenizer_read_vocabulary(t, v, name);
    if (st == QB_OK) st = model_template(t, v->add_bos, v->add_eos);
    return finish(st, t, out);
}

void qb_tokenizer_close(qb_tokenizer *t) {
    if (!t) return;
    qb_vocab_free(&t->vocab);
    qb_bpe_free(&t->bpe);
    qb_trie_free(&t->added_raw);
    qb_trie_free(&t->added_normalized);
    qb_arena_free(&t->arena);
    qb_free(t);
}

/* --- the files beside it
 * --------------------------------------------------------------------------------------------- */

/* "bos_token": "<s>", or {"content": "<s>", ...}, or null. An unknown name is kept out: it cannot be an id.
 */
static void named_token(const qb_tokenizer *t, const qb_json *config, const char *key, int32_t *id) {
    const qb_json *j = qb_json_get(config, key);
    const char *text = qb_json_string(qb_json_is_object(j) ? qb_json_get(j, "content") : j);
    int32_t found = text ? qb_vocab_find(&t->vocab, text, strlen(text)) : -1;
    if (found >= 0) *id = found;
}

/* Reads DIR/file when it exists; *out stays NULL otherwise. */
static qb_status read_beside(const char *dir, const char *file, qb_json **out) {
    *out = NULL;
    char *path = qb_path_join(dir, file);
    if (!path) return qb_fail(QB_ERR_MEMORY, "out of memory");
    qb_status st = qb_path_exists(path) ? qb_json_read(path, CONFIG_BYTES_MAX, out) : QB_OK;
    qb_free(path);
    return st;
}

static qb_status read_configs(qb_tokenizer *t, const char *dir, bool model) {
    qb_json *map = NULL, *config = NULL;
    bool add_bos = true, add_eos = false;
    qb_status st;
    QB_TRY(st, read_beside(dir, "special_tokens_map.json", &map));
    QB_TRY(st, read_beside(dir, "tokenizer_config.json", &config));
    named_token(t, map, "bos_token", &t->bos);
    named_token(t, map, "eos_token", &t->eos);
    named_token(t, config, "bos_token", &t->bos);
    named_token(t, config, "eos_token", &t->eos);
    if (!model) goto out;
    if (config) {
        QB_TRY(st, qb_json_bool(config, "add_bos_token", "tokenizer_config.json", false, &add_bos));
        QB_TRY(st, qb_json_bool(config, "add_eos_token", "tokenizer_config.json", false, &add_eos));
    }
    st = model_template(t, add_bos, add_eos);
out:
    qb_json_free(map);
    qb_json_free(config);
    return st;
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
    QB_TRY(st, read_configs(t, dir, model));
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
bool qb_tokenizer_adds_bos(const qb_tokenizer *t) {
    return t->adds_bos;
}
