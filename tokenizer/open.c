/* Where tokenizers come from: a directory or file, and the two small files beside it that name special
 * tokens. */
#include "base/file.h"
#include "base/log.h"
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

qb_status qb_tokenizer_of_vocabulary(const qb_vocabulary *given, const char *name, qb_tokenizer **out) {
    qb_tokenizer *t;
    qb_vocabulary settled = *given, *v = &settled;
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

static qb_status parse_tekken(const char *text, size_t n, const char *name, qb_tokenizer **out) {
    qb_tokenizer *t;
    qb_status st = begin(out, &t);
    if (st != QB_OK) return st;
    st = qb_tokenizer_read_tekken(t, text, n, name);
    if (st == QB_OK) st = make_template(t, t->bos_by_default, false);
    return finish(st, t, out);
}

static qb_status parse_tiktoken(const char *text, size_t n, const char *name, qb_tokenizer **out) {
    qb_tokenizer *t;
    qb_status st = begin(out, &t);
    if (st != QB_OK) return st;
    st = qb_tokenizer_read_tiktoken(t, text, n, name);
    if (st == QB_OK) st = make_template(t, t->bos_by_default, false);
    return finish(st, t, out);
}

qb_status qb_tokenizer_parse_ranks(const char *text, size_t n, const char *name, qb_tokenizer **out) {
    return n && *text == '{' ? parse_tekken(text, n, name, out) : parse_tiktoken(text, n, name, out);
}

qb_status qb_tokenizer_parse_merges(const char *vocab, size_t n_vocab, const char *merges, size_t n_merges,
                                    const char *kind, bool prefix, const char *name, qb_tokenizer **out) {
    qb_tokenizer *t;
    qb_status st = begin(out, &t);
    if (st != QB_OK) return st;
    st = qb_tokenizer_read_vocab_merges(t, vocab, n_vocab, merges, n_merges, kind, prefix, name);
    if (st == QB_OK) st = make_template(t, false, false);
    return finish(st, t, out);
}

static bool has_suffix(const char *path, const char *suffix) {
    size_t n = strlen(path), k = strlen(suffix);
    return n >= k && strcmp(path + n - k, suffix) == 0;
}

/* What lies beside; without a template of its own, nothing but its keys says what is put around. */
static qb_status finish_opening(qb_tokenizer *t, const char *dir, bool has_template, bool slow) {
    qb_status st = qb_tokenizer_read_beside(t, dir, slow);
    if (st == QB_OK && !has_template) {
        t->file = t->keys;
        t->conflict = NULL;
    }
    return st;
}

qb_status qb_tokenizer_open_file(const char *path, qb_tokenizer **out) {
    *out = NULL;
    const char *base = qb_path_base(path);
    bool json = has_suffix(path, ".json"), tekken = json && !strncmp(base, "tekken", 6);
    bool tiktoken = has_suffix(path, ".tiktoken"), model = strstr(base, ".model") != NULL;
    if (!json && !model && !tiktoken)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: a tokenizer file must end in .json, .model or .tiktoken",
                       path);
    char *text = NULL, *dir = qb_path_dir(path);
    size_t n;
    qb_tokenizer *t = NULL;
    qb_status st;
    if (!dir) return qb_fail(QB_ERR_MEMORY, "out of memory");
    QB_TRY(st, qb_file_read(path, TOKENIZER_BYTES_MAX, &text, &n));
    tiktoken = tiktoken || (model && qb_is_tiktoken(text, n));
    QB_TRY(st, tekken     ? parse_tekken(text, n, path, &t)
               : json     ? qb_tokenizer_parse_json(text, n, path, &t)
               : tiktoken ? parse_tiktoken(text, n, path, &t)
                          : qb_tokenizer_parse_model((const uint8_t *)text, n, path, &t));
    QB_TRY(st, finish_opening(t, dir, json && !tekken, model && !tiktoken));
    *out = t;
    t = NULL;
out:
    qb_tokenizer_close(t);
    qb_free(text);
    qb_free(dir);
    return st;
}

static qb_status json_beside(const char *dir, const char *file, qb_json **out) {
    char *path = qb_path_join(dir, file);
    if (!path) return qb_fail(QB_ERR_MEMORY, "out of memory");
    bool there;
    qb_status st = qb_path_look(path, &there);
    if (st == QB_OK && there) st = qb_json_read(path, TOKENIZER_BYTES_MAX, out);
    qb_free(path);
    return st;
}

static qb_status open_merges(const char *dir, qb_tokenizer **out) {
    char *vocab = NULL, *merges = NULL,
         *paths[2] = {qb_path_join(dir, "vocab.json"), qb_path_join(dir, "merges.txt")};
    size_t n_vocab, n_merges;
    qb_json *tokenizer = NULL, *config = NULL;
    qb_tokenizer *t = NULL;
    bool prefix = false;
    qb_status st;
    if (!paths[0] || !paths[1]) {
        st = qb_fail(QB_ERR_MEMORY, "out of memory");
        goto out;
    }
    QB_TRY(st, qb_file_read(paths[0], TOKENIZER_BYTES_MAX, &vocab, &n_vocab));
    QB_TRY(st, qb_file_read(paths[1], TOKENIZER_BYTES_MAX, &merges, &n_merges));
    QB_TRY(st, json_beside(dir, "tokenizer_config.json", &tokenizer));
    QB_TRY(st, json_beside(dir, "config.json", &config));
    const char *kind = qb_json_string(qb_json_get(tokenizer, "tokenizer_class"));
    if (!kind) kind = qb_json_string(qb_json_get(config, "model_type"));
    if (!kind) {
        kind = "gpt2";
        qb_warn("%s: neither tokenizer_config.json nor config.json says which tokenizer this is: GPT-2's is "
                "taken",
                dir);
    }
    QB_TRY(st, qb_json_bool(tokenizer, "add_prefix_space", "tokenizer_config.json", false, &prefix));
    QB_TRY(st, qb_tokenizer_parse_merges(vocab, n_vocab, merges, n_merges, kind, prefix, dir, &t));
    QB_TRY(st, finish_opening(t, dir, false, false));
    *out = t;
    t = NULL;
out:
    qb_tokenizer_close(t);
    qb_json_free(tokenizer);
    qb_json_free(config);
    qb_free(vocab);
    qb_free(merges);
    qb_free(paths[0]);
    qb_free(paths[1]);
    return st;
}

static qb_status look_in(const char *dir, const char *file, bool *there) {
    char *path = qb_path_join(dir, file);
    *there = false;
    qb_status st = path ? qb_path_look(path, there) : qb_fail(QB_ERR_MEMORY, "out of memory");
    qb_free(path);
    return st;
}

qb_status qb_tokenizer_open(const char *dir, qb_tokenizer **out) {
    static const char *const names[] = {"tokenizer.json", "tokenizer.model", "tekken.json", "qwen.tiktoken",
                                        "tiktoken.model"};
    *out = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        bool there;
        qb_status st = look_in(dir, names[i], &there);
        if (st != QB_OK) return st;
        if (!there) continue;
        char *path = qb_path_join(dir, names[i]);
        st = path ? qb_tokenizer_open_file(path, out) : qb_fail(QB_ERR_MEMORY, "out of memory");
        qb_free(path);
        return st;
    }
    bool vocab, merges = false;
    qb_status st = look_in(dir, "vocab.json", &vocab);
    if (st == QB_OK && vocab) st = look_in(dir, "merges.txt", &merges);
    if (st != QB_OK) return st;
    if (merges) return open_merges(dir, out);
    return qb_fail(
        QB_ERR_NOT_FOUND,
        "%s: found none of tokenizer.json, tokenizer.model, tekken.json, vocab.json with merges.txt%s", dir,
        vocab ? " (vocab.json is there, merges.txt is not)" : "");
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
