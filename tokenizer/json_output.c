/* tokenizer.json: what is put around the ids, and how ids become text. */
#include "tokenizer/parts.h"

#include <string.h>

/* --- post-processor
 * ------------------------------------------------------------------------------------------ */

/* The ids that a template's special token stands for, appended behind *n (ids == NULL: counted). */
static qb_status template_ids(const qb_reader *r, const qb_json *table, const char *token, int32_t *ids,
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
static qb_status walk_template(const qb_reader *r, const qb_json *j, int32_t *before, size_t *n_before,
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

/* "cls": ["<s>", 0] before, "sep": ["</s>", 2] behind. */
static qb_status read_fixed(const qb_reader *r, const qb_json *j) {
    qb_template *f = &r->t->file;
    const struct {
        const char *key;
        int32_t **ids;
        size_t *n;
    } ends[] = {{"cls", &f->before, &f->n_before}, {"sep", &f->after, &f->n_after}};
    for (size_t i = 0; i < 2; i++) {
        const qb_json *pair = qb_json_first(qb_json_get(j, ends[i].key));
        double id = pair ? qb_json_number(qb_json_next(pair)) : -1;
        bool inside = id >= 0 && id < r->t->vocab.count && id == (double)(int32_t)id;
        if (!inside || r->t->vocab.pieces[(int32_t)id].type == QB_PIECE_NONE)
            return qb_fail(QB_ERR_FORMAT, "%s: the post_processor's \"%s\" must be a token and its id",
                           r->name, ends[i].key);
        qb_status st = qb_arena_alloc(&r->t->arena, 1, sizeof **ends[i].ids, ends[i].ids);
        if (st != QB_OK) return st;
        (*ends[i].ids)[(*ends[i].n)++] = (int32_t)id;
    }
    return QB_OK;
}

static qb_status read_post_processor(const qb_reader *r, const qb_json *j, int *templates) {
    if (qb_json_is_null(j)) return QB_OK;
    const char *type = "";
    qb_status st = qb_reader_type(r, j, "\"post_processor\"", &type);
    if (st != QB_OK) return st;
    qb_tokenizer *t = r->t;
    if (!strcmp(type, "Sequence")) {
        const qb_json *c = qb_json_first(qb_json_get(j, "processors"));
        for (; c && st == QB_OK; c = qb_json_next(c)) st = read_post_processor(r, c, templates);
        return st;
    }
    if (!strcmp(type, "ByteLevel")) return QB_OK; /* moves offsets, never ids */
    bool fixed = !strcmp(type, "RobertaProcessing") || !strcmp(type, "BertProcessing");
    if ((!fixed && strcmp(type, "TemplateProcessing") != 0) || ++*templates > 1)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: post_processor \"%s\"%s is not supported (supported: null, ByteLevel, and one of "
                       "TemplateProcessing, RobertaProcessing and BertProcessing)",
                       r->name, type, *templates > 1 ? " after another template" : "");
    if (fixed) return read_fixed(r, j);
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

/* {"pattern": {"String": from}, "content": to}. */
static qb_status read_replace(const qb_reader *r, const qb_json *j, qb_decode_step *step) {
    const qb_json *pattern = qb_json_get(j, "pattern");
    if (qb_json_get(pattern, "Regex"))
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: the decoder Replace with a Regex pattern is not supported, only a String",
                       r->name);
    qb_status st = qb_reader_text(r, pattern, "String", false, &step->from, &step->n_from);
    return st != QB_OK ? st : qb_reader_text(r, j, "content", true, &step->to, &step->n_to);
}

static qb_status read_strip(const qb_reader *r, const qb_json *j, qb_decode_step *step) {
    qb_status st = qb_reader_text(r, j, "content", false, &step->from, &step->n_from);
    if (st == QB_OK) st = qb_json_int(j, "start", r->name, true, 0, INT32_MAX, &step->start);
    return st != QB_OK ? st : qb_json_int(j, "stop", r->name, true, 0, INT32_MAX, &step->stop);
}

static qb_status read_decoder(const qb_reader *r, const qb_json *j, qb_decode_step *steps, size_t *count) {
    const char *type = "";
    qb_status st = qb_reader_type(r, j, "\"decoder\"", &type);
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
        if (steps) st = read_replace(r, j, &step);
    } else if (!strcmp(type, "ByteFallback")) {
        step.kind = QB_DECODE_BYTE_FALLBACK;
    } else if (!strcmp(type, "Fuse")) {
        step.kind = QB_DECODE_FUSE;
    } else if (!strcmp(type, "ByteLevel")) {
        step.kind = QB_DECODE_BYTE_LEVEL;
    } else if (!strcmp(type, "BPEDecoder")) {
        step.kind = QB_DECODE_SUFFIX;
        if (steps) st = qb_reader_text(r, j, "suffix", false, &step.from, &step.n_from);
    } else if (!strcmp(type, "Strip")) {
        step.kind = QB_DECODE_STRIP;
        if (steps) st = read_strip(r, j, &step);
    } else if (!strcmp(type, "Metaspace")) {
        step.kind = QB_DECODE_METASPACE;
        qb_prepend_scheme prepend = QB_PREPEND_ALWAYS;
        bool split;
        if (steps) st = qb_reader_metaspace(r, j, &step.from, &step.n_from, &prepend, &split);
        step.drop_first = prepend != QB_PREPEND_NEVER;
    } else {
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: decoder \"%s\" is not supported (supported: Sequence, Replace, ByteFallback, "
                       "Fuse, Strip, Metaspace, ByteLevel, BPEDecoder)",
                       r->name, type);
    }
    if (steps) steps[*count] = step;
    ++*count;
    return st;
}

qb_status qb_reader_decoder(const qb_reader *r, const qb_json *j) {
    r->t->has_decoder = !qb_json_is_null(j);
    if (!r->t->has_decoder) return QB_OK;
    size_t n = 0;
    qb_status st = read_decoder(r, j, NULL, &n);
    if (st == QB_OK) st = qb_arena_alloc(&r->t->arena, n, sizeof *r->t->decoder, &r->t->decoder);
    return st != QB_OK ? st : read_decoder(r, j, r->t->decoder, &r->t->n_decoder);
}

qb_status qb_reader_post_processor(const qb_reader *r, const qb_json *j) {
    int templates = 0;
    return read_post_processor(r, j, &templates);
}
