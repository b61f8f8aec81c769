/* What the sections of tokenizer.json share. The forms are those that the tokenizers library serializes
   (normalizers/, pre_tokenizers/, processors/, decoders/). */
#include "tokenizer/parts.h"
#include "tokenizer/utf8.h"

#include <assert.h>
#include <string.h>

/* Whether `word` is one of "a|b|c". */
static bool is_among(const char *names, const char *word) {
    size_t length = strlen(word);
    for (const char *p = names; *p; p += *p == '|') {
        size_t n = strcspn(p, "|");
        if (n == length && !memcmp(p, word, n)) return true;
        p += n;
    }
    return false;
}

qb_status qb_reader_members(const qb_reader *r, const qb_json *object, const char *known, const char *of) {
    for (const qb_json *c = qb_json_first(object); c; c = qb_json_next(c))
        if (!is_among(known, qb_json_key(c)) && !qb_json_is_null(c))
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: %.64s with \"%.64s\" is not supported: it may change ids",
                           r->name, of, qb_json_key(c));
    return QB_OK;
}

qb_status qb_reader_type(const qb_reader *r, const qb_json *object, const char *what, const char **type) {
    static const struct {
        const char *type, *members;
    } steps[] = {
#define X(type, members) {type, "type|" members},
#include "tokenizer/steps.def"
#undef X
    };
    if (!qb_json_is_object(object))
        return qb_fail(QB_ERR_FORMAT, "%s: %s must be an object or null", r->name, what);
    qb_status st = qb_json_text(object, "type", r->name, true, type);
    for (size_t i = 0; st == QB_OK && i < sizeof steps / sizeof steps[0]; i++)
        if (!strcmp(steps[i].type, *type)) return qb_reader_members(r, object, steps[i].members, *type);
    return st; /* the section refuses it by name */
}

qb_status qb_reader_text(const qb_reader *r, const qb_json *object, const char *key, bool may_be_empty,
                         const char **text, size_t *n) {
    const char *found = "";
    qb_status st = qb_json_text(object, key, r->name, true, &found);
    if (st != QB_OK) return st;
    *n = strlen(found);
    if (*n == 0 && !may_be_empty) return qb_fail(QB_ERR_FORMAT, "%s: \"%s\" is empty", r->name, key);
    return qb_tokenizer_keep(r->t, found, *n, text);
}

qb_status qb_reader_flag(const qb_reader *r, const qb_json *object, const char *key, bool *out) {
    return qb_json_bool(object, key, r->name, false, out);
}

qb_status qb_tokenizer_own(qb_tokenizer *t, qb_pattern *pattern) {
    qb_status st = qb_grow(&t->patterns, &t->patterns_capacity, t->n_patterns + 1, sizeof(qb_pattern *));
    if (st == QB_OK)
        t->patterns[t->n_patterns++] = pattern;
    else
        qb_pattern_free(pattern);
    return st;
}

qb_status qb_reader_pattern(const qb_reader *r, const qb_json *pattern, qb_pattern **out, const char **text,
                            size_t *n) {
    const char *regex = qb_json_string(qb_json_get(pattern, "Regex"));
    *out = NULL;
    *text = NULL;
    qb_status st;
    if (regex) {
        st = qb_pattern_compile(regex, strlen(regex), r->name, out);
    } else {
        st = qb_reader_text(r, pattern, "String", false, text, n);
        if (st == QB_OK) st = qb_pattern_literal(*text, *n, out);
    }
    return st == QB_OK ? qb_tokenizer_own(r->t, *out) : st;
}

qb_status qb_tokenizer_add_step(qb_tokenizer *t, qb_pre_step step, const char *name) {
    if (t->n_pre == QB_PRE_STEPS_MAX)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: more than %d pre-tokenizer steps", name, QB_PRE_STEPS_MAX);
    t->pre[t->n_pre++] = step;
    return QB_OK;
}

qb_status qb_tokenizer_add_split(qb_tokenizer *t, const char *pattern, qb_split_behavior behavior,
                                 bool invert, const char *name) {
    qb_pattern *compiled;
    qb_status st = qb_pattern_compile(pattern, strlen(pattern), name, &compiled);
    if (st == QB_OK) st = qb_tokenizer_own(t, compiled);
    if (st != QB_OK) return st;
    return qb_tokenizer_add_step(
        t, (qb_pre_step){.kind = QB_PRE_SPLIT, .pattern = compiled, .behavior = behavior, .invert = invert},
        name);
}

/* Metaspace's replacement is one character; what it prepends is said in one of two ways. */
qb_status qb_reader_metaspace(const qb_reader *r, const qb_json *object, const char **replacement, size_t *n,
                              qb_prepend_scheme *prepend, bool *split) {
    const char *scheme = NULL;
    bool prefix = true;
    *split = true;
    qb_status st;
    QB_TRY(st, qb_reader_text(r, object, "replacement", false, replacement, n));
    QB_TRY(st, qb_json_bool(object, "split", r->name, false, split));
    QB_TRY(st, qb_json_bool(object, "add_prefix_space", r->name, false, &prefix));
    QB_TRY(st, qb_json_text(object, "prepend_scheme", r->name, false, &scheme));
    assert(*replacement); /* qb_reader_text gave one */
    if (qb_utf8_length((const uint8_t *)*replacement, *n) != *n)
        return qb_fail(QB_ERR_FORMAT, "%s: Metaspace's replacement must be one character, found \"%s\"",
                       r->name, *replacement);
    if (!scheme) scheme = prefix ? "always" : "never";
    *prepend = !strcmp(scheme, "always")  ? QB_PREPEND_ALWAYS
               : !strcmp(scheme, "first") ? QB_PREPEND_FIRST
                                          : QB_PREPEND_NEVER;
    if (*prepend == QB_PREPEND_NEVER && strcmp(scheme, "never") != 0)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: Metaspace's prepend_scheme must be always, first or never, found \"%s\"", r->name,
                       scheme);
    if (!prefix && *prepend != QB_PREPEND_NEVER)
        return qb_fail(QB_ERR_FORMAT, "%s: Metaspace says add_prefix_space false and prepend_scheme %s",
                       r->name, scheme);
out:
    return st;
}

bool qb_tokenizer_cuts_words(const qb_tokenizer *t) {
    for (size_t i = 0; i < t->n_pre; i++)
        if (t->pre[i].kind == QB_PRE_SPLIT || t->pre[i].kind == QB_PRE_CLASS) return true;
    return false;
}

qb_status qb_tokenizer_decode_bytes(qb_tokenizer *t) {
    qb_status st = qb_arena_alloc(&t->arena, 1, sizeof *t->decoder, &t->decoder);
    if (st != QB_OK) return st;
    t->decoder[0].kind = QB_DECODE_BYTE_LEVEL;
    t->n_decoder = 1;
    t->has_decoder = true;
    return QB_OK;
}
