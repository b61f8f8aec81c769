/* tokenizer.json: what surrounds merging. Whatever would change ids and is not known here is refused by name.
   The forms are those that the tokenizers library serializes (normalizers/, pre_tokenizers/, processors/,
   decoders/). */
#include "tokenizer/parts.h"
#include "tokenizer/utf8.h"

#include <assert.h>
#include <string.h>

typedef struct reader {
    qb_tokenizer *t;
    const char *name; /* of the file */
} reader;

static qb_status type_of(const reader *r, const qb_json *object, const char *what, const char **type) {
    if (!qb_json_is_object(object))
        return qb_fail(QB_ERR_FORMAT, "%s: %s must be an object or null", r->name, what);
    return qb_json_text(object, "type", r->name, true, type);
}

static qb_status keep_text(const reader *r, const qb_json *object, const char *key, bool may_be_empty,
                           const char **text, size_t *n) {
    const char *found = "";
    qb_status st = qb_json_text(object, key, r->name, true, &found);
    if (st != QB_OK) return st;
    *n = strlen(found);
    if (*n == 0 && !may_be_empty) return qb_fail(QB_ERR_FORMAT, "%s: \"%s\" is empty", r->name, key);
    return qb_tokenizer_keep(r->t, found, *n, text);
}

/* {"pattern": {"String": from}, "content": to}, in normalizers and decoders alike. */
static qb_status read_replace(const reader *r, const qb_json *object, const char **from, size_t *n_from,
                              const char **to, size_t *n_to) {
    const qb_json *pattern = qb_json_get(object, "pattern");
    if (qb_json_get(pattern, "Regex"))
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: Replace with a Regex pattern is not supported, only a String",
                       r->name);
    qb_status st = keep_text(r, pattern, "String", false, from, n_from);
    return st != QB_OK ? st : keep_text(r, object, "content", true, to, n_to);
}

/* Metaspace's replacement is one character; what it prepends is said in one of two ways. */
static qb_status read_metaspace(const reader *r, const qb_json *object, const char **replacement, size_t *n,
                                qb_prepend_scheme *prepend, bool *split) {
    const char *scheme = NULL;
    bool prefix = true;
    *split = true;
    qb_status st;
    QB_TRY(st, keep_text(r, object, "replacement", false, replacement, n));
    QB_TRY(st, qb_json_bool(object, "split", r->name, false, split));
    QB_TRY(st, qb_json_bool(object, "add_prefix_space", r->name, false, &prefix));
    QB_TRY(st, qb_json_text(object, "prepend_scheme", r->name, false, &scheme));
    assert(*replacement); /* keep_text gave one */
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

/* Steps of a Sequence or a single one. `count` only counts when steps is NULL. */
static qb_status read_normalizer(const reader *r, const qb_json *j, qb_normalize_step *steps, size_t *count) {
    if (qb_json_is_null(j)) return QB_OK;
    const char *type = "";
    qb_status st = type_of(r, j, "\"normalizer\"", &type);
    if (st != QB_OK) return st;
    if (!strcmp(type, "Sequence")) {
        const qb_json *list = qb_json_get(j, "normalizers");
        if (!qb_json_is_array(list))
            return qb_fail(QB_ERR_FORMAT, "%s: \"normalizers\" must be an array", r->name);
        for (const qb_json *c = qb_json_first(list); c && st == QB_OK; c = qb_json_next(c))
            st = read_normalizer(r, c, steps, count);
        return st;
    }
    qb_normalize_step step = {0};
    if (!strcmp(type, "Prepend")) {
        step.kind = QB_NORMALIZE_PREPEND;
        if (steps) st = keep_text(r, j, "prepend", true, &step.to, &step.n_to);
    } else if (!strcmp(type, "Replace")) {
        step.kind = QB_NORMALIZE_REPLACE;
        if (steps) st = read_replace(r, j, &step.from, &step.n_from, &step.to, &step.n_to);
    } else {
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: normalizer \"%s\" is not supported (supported: Sequence, Prepend, Replace)",
                       r->name, type);
    }
    if (steps) steps[*count] = step;
    ++*count;
    return st;
}

static qb_status read_normalizers(const reader *r, const qb_json *j) {
    size_t n = 0;
    qb_status st = read_normalizer(r, j, NULL, &n);
    if (st == QB_OK) st = qb_arena_alloc(&r->t->arena, n, sizeof *r->t->normalizer, &r->t->normalizer);
    return st != QB_OK ? st : read_normalizer(r, j, r->t->normalizer, &r->t->n_normalizer);
}

static qb_status read_pretokenizer(const reader *r, const qb_json *j) {
    if (qb_json_is_null(j)) return QB_OK;
    const char *type = "";
    qb_status st = type_of(r, j, "\"pre_tokenizer\"", &type);
    if (st != QB_OK) return st;
    if (!strcmp(type, "Sequence")) {
        const qb_json *list = qb_json_get(j, "pretokenizers");
        if (qb_json_count(list) == 1) return read_pretokenizer(r, qb_json_first(list));
        type = "Sequence of several";
    }
    if (strcmp(type, "Metaspace") != 0)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: pre_tokenizer \"%s\" is not supported (supported: null, Metaspace)", r->name,
                       type);
    qb_pretokenizer *p = &r->t->pretokenizer;
    p->kind = QB_PRETOKENIZER_METASPACE;
    return read_metaspace(r, j, &p->replacement, &p->n_replacement, &p->prepend, &p->split);
}

/* --- post-processor
 * ------------------------------------------------------------------------------------------ */

/* The ids that a template's special token stands for, appended behind *n (ids == NULL: counted). */
static qb_status template_ids(const reader *r, const qb_json *table, const char *token, int32_t *ids,
                              size_t *n) {
    const qb_json *list = qb_json_get(qb_json_get(table, token), "ids");
    if (!qb_json_is_array(list))
        return qb_fail(QB_ERR_FORMAT, "%s: the template uses \"%s\", which its special_tokens do not define",
                       r->name, token);
    for (const qb_json *c = qb_json_first(list); c; c = qb_json_next(c), ++*n) {
        double id = qb_json_number(c);
        bool inside = id >= 0 && id < r->t->vocab.count && id == (double)(int32_t)id;
        if (!inside || r->t->vocab.pieces[(int32_t)id].type == QB_PIECE_NONE)
            return qb_fail(QB_ERR_FORMAT,
                           "%s: the template's token \"%s\" has id %g, which no piece of the %d has", r->name,
                           token, id, r->t->vocab.count);
        if (ids) ids[*n] = (int32_t)id;
    }
    return QB_OK;
}

/* Walks the template; what stands before the sequence goes to before, the rest to after. */
static qb_status walk_template(const reader *r, const qb_json *j, int32_t *before, size_t *n_before,
                               int32_t *after, size_t *n_after) {
    int sequences = 0;
    *n_before = *n_after = 0;
    for (const qb_json *c = qb_json_first(qb_json_get(j, "single")); c; c = qb_json_next(c)) {
        const qb_json *special = qb_json_get(c, "SpecialToken"), *sequence = qb_json_get(c, "Sequence");
        const char *id = NULL;
        qb_status st = qb_json_text(special ? special : sequence, "id", r->name, true, &id);
        if (st == QB_OK && special)
            st = template_ids(r, qb_json_get(j, "special_tokens"), id, sequences ? after : before,
                              sequences ? n_after : n_before);
        if (st != QB_OK) return st;
        sequences += !special;
        if (!special && strcmp(id, "A") != 0) sequences = 2; /* B has no text in a single encoding */
    }
    if (sequences != 1)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: the template for single texts must hold the sequence A once",
                       r->name);
    return QB_OK;
}

static qb_status read_post_processor(const reader *r, const qb_json *j, int *templates) {
    if (qb_json_is_null(j)) return QB_OK;
    const char *type = "";
    qb_status st = type_of(r, j, "\"post_processor\"", &type);
    if (st != QB_OK) return st;
    qb_tokenizer *t = r->t;
    if (!strcmp(type, "Sequence")) {
        const qb_json *c = qb_json_first(qb_json_get(j, "processors"));
        for (; c && st == QB_OK; c = qb_json_next(c)) st = read_post_processor(r, c, templates);
        return st;
    }
    if (!strcmp(type, "ByteLevel")) return QB_OK; /* moves offsets, never ids */
    if (strcmp(type, "TemplateProcessing") != 0 || ++*templates > 1)
        return qb_fail(
            QB_ERR_UNSUPPORTED,
            "%s: post_processor \"%s\"%s is not supported (supported: null, one TemplateProcessing)", r->name,
            type, *templates > 1 ? " after another template" : "");
    qb_template *f = &t->file;
    QB_TRY(st, walk_template(r, j, NULL, &f->n_before, NULL, &f->n_after));
    QB_TRY(st, qb_arena_alloc(&t->arena, f->n_before, sizeof *f->before, &f->before));
    QB_TRY(st, qb_arena_alloc(&t->arena, f->n_after, sizeof *f->after, &f->after));
    st = walk_template(r, j, f->before, &f->n_before, f->after, &f->n_after);
out:
    return st;
}

/* --- decoder
 * --------------------------------------------------------------------------------------------------- */

static qb_status read_strip(const reader *r, const qb_json *j, qb_decode_step *step) {
    qb_status st = keep_text(r, j, "content", false, &step->from, &step->n_from);
    if (st == QB_OK) st = qb_json_int(j, "start", r->name, true, 0, INT32_MAX, &step->start);
    return st != QB_OK ? st : qb_json_int(j, "stop", r->name, true, 0, INT32_MAX, &step->stop);
}

static qb_status read_decoder(const reader *r, const qb_json *j, qb_decode_step *steps, size_t *count) {
    const char *type = "";
    qb_status st = type_of(r, j, "\"decoder\"", &type);
    if (st != QB_OK) return st;
    if (!strcmp(type, "Sequence")) {
        const qb_json *list = qb_json_get(j, "decoders");
        if (!qb_json_is_array(list))
            return qb_fail(QB_ERR_FORMAT, "%s: \"decoders\" must be an array", r->name);
        for (const qb_json *c = qb_json_first(list); c && st == QB_OK; c = qb_json_next(c))
            st = read_decoder(r, c, steps, count);
        return st;
    }
    qb_decode_step step = {0};
    if (!strcmp(type, "Replace")) {
        step.kind = QB_DECODE_REPLACE;
        if (steps) st = read_replace(r, j, &step.from, &step.n_from, &step.to, &step.n_to);
    } else if (!strcmp(type, "ByteFallback")) {
        step.kind = QB_DECODE_BYTE_FALLBACK;
    } else if (!strcmp(type, "Fuse")) {
        step.kind = QB_DECODE_FUSE;
    } else if (!strcmp(type, "Strip")) {
        step.kind = QB_DECODE_STRIP;
        if (steps) st = read_strip(r, j, &step);
    } else if (!strcmp(type, "Metaspace")) {
        step.kind = QB_DECODE_METASPACE;
        qb_prepend_scheme prepend = QB_PREPEND_ALWAYS;
        bool split;
        if (steps) st = read_metaspace(r, j, &step.from, &step.n_from, &prepend, &split);
        step.drop_first = prepend != QB_PREPEND_NEVER;
    } else {
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: decoder \"%s\" is not supported (supported: Sequence, Replace, ByteFallback, "
                       "Fuse, Strip, Metaspace)",
                       r->name, type);
    }
    if (steps) steps[*count] = step;
    ++*count;
    return st;
}

static qb_status read_decoders(const reader *r, const qb_json *j) {
    r->t->has_decoder = !qb_json_is_null(j);
    if (!r->t->has_decoder) return QB_OK;
    size_t n = 0;
    qb_status st = read_decoder(r, j, NULL, &n);
    if (st == QB_OK) st = qb_arena_alloc(&r->t->arena, n, sizeof *r->t->decoder, &r->t->decoder);
    return st != QB_OK ? st : read_decoder(r, j, r->t->decoder, &r->t->n_decoder);
}

qb_status qb_tokenizer_read_pipeline(qb_tokenizer *t, const qb_json *document, const char *name) {
    reader r = {t, name};
    int templates = 0;
    qb_status st;
    QB_TRY(st, read_normalizers(&r, qb_json_get(document, "normalizer")));
    QB_TRY(st, read_pretokenizer(&r, qb_json_get(document, "pre_tokenizer")));
    QB_TRY(st, read_post_processor(&r, qb_json_get(document, "post_processor"), &templates));
    QB_TRY(st, read_decoders(&r, qb_json_get(document, "decoder")));
out:
    return st;
}
