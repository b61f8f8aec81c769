/* tokenizer.json: what happens to a text before it is cut. */
#include "tokenizer/parts.h"

#include <string.h>

enum { STEPS_MAX = 64 };

typedef struct list {
    qb_normalize_step steps[STEPS_MAX];
    size_t n;
} list;

static int base64_value(char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

qb_status qb_base64_decode(const char *text, size_t n, uint8_t *out, size_t *n_out) {
    uint32_t bits = 0;
    int held = 0;
    *n_out = 0;
    while (n && text[n - 1] == '=') n--;
    for (size_t i = 0; i < n; i++) {
        int value = base64_value(text[i]);
        if (value < 0)
            return qb_fail(QB_ERR_FORMAT, "not base64: character %zu of \"%.*s\"", i + 1,
                           (int)(n < 40 ? n : 40), text);
        bits = bits << 6 | (uint32_t)value;
        held += 6;
        if (held < 8) continue;
        held -= 8;
        out[(*n_out)++] = (uint8_t)(bits >> held);
    }
    return QB_OK;
}

static qb_status read_charsmap(const qb_reader *r, const qb_json *j, qb_normalize_step *step) {
    const char *text = NULL;
    uint8_t *bytes = NULL;
    size_t n;
    qb_status st;
    if (r->t->charsmap.units)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: two Precompiled normalizers are not supported", r->name);
    QB_TRY(st, qb_json_text(j, "precompiled_charsmap", r->name, true, &text));
    if (!*text) return QB_OK; /* the identity */
    QB_TRY(st, qb_alloc(strlen(text), 1, &bytes));
    QB_TRY(st, qb_base64_decode(text, strlen(text), bytes, &n));
    QB_TRY(st, qb_charsmap_parse(bytes, n, r->name, &r->t->charsmap));
    step->map = &r->t->charsmap;
out:
    qb_free(bytes);
    return st;
}

static qb_status add(const qb_reader *r, list *l, qb_normalize_step step) {
    if (l->n == STEPS_MAX)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: more than %d normalizer steps", r->name, STEPS_MAX);
    l->steps[l->n++] = step;
    return QB_OK;
}

static qb_status read_replace(const qb_reader *r, const qb_json *j, list *l) {
    qb_normalize_step step = {.kind = QB_NORMALIZE_REPLACE};
    qb_status st = qb_reader_pattern(r, qb_json_get(j, "pattern"), &step.pattern, &step.from, &step.n_from);
    if (step.from) step.pattern = NULL; /* a String needs none */
    if (st == QB_OK) st = qb_reader_text(r, j, "content", true, &step.to, &step.n_to);
    return st == QB_OK ? add(r, l, step) : st;
}

static qb_status read_strip(const qb_reader *r, const qb_json *j, list *l) {
    qb_normalize_step step = {.kind = QB_NORMALIZE_STRIP, .left = true, .right = true};
    qb_status st = qb_reader_flag(r, j, "strip_left", &step.left);
    if (st == QB_OK) st = qb_reader_flag(r, j, "strip_right", &step.right);
    return st == QB_OK ? add(r, l, step) : st;
}

static qb_status read_bert(const qb_reader *r, const qb_json *j, list *l) {
    bool clean = true, chinese = true, lowercase = true, accents;
    qb_status st;
    QB_TRY(st, qb_reader_flag(r, j, "clean_text", &clean));
    QB_TRY(st, qb_reader_flag(r, j, "handle_chinese_chars", &chinese));
    QB_TRY(st, qb_reader_flag(r, j, "lowercase", &lowercase));
    accents = lowercase; /* null: as lowercase */
    QB_TRY(st, qb_reader_flag(r, j, "strip_accents", &accents));
    if (clean) QB_TRY(st, add(r, l, (qb_normalize_step){.kind = QB_NORMALIZE_BERT_CLEAN}));
    if (chinese) QB_TRY(st, add(r, l, (qb_normalize_step){.kind = QB_NORMALIZE_BERT_CJK}));
    if (accents) QB_TRY(st, add(r, l, (qb_normalize_step){.kind = QB_NORMALIZE_BERT_ACCENTS}));
    if (lowercase) QB_TRY(st, add(r, l, (qb_normalize_step){.kind = QB_NORMALIZE_LOWERCASE}));
out:
    return st;
}

/* Normalizers that have no members. */
static const struct {
    const char *name;
    qb_normalize_step step;
} plain[] = {
    {"NFC", {.kind = QB_NORMALIZE_UNICODE, .compose = true}},
    {"NFD", {.kind = QB_NORMALIZE_UNICODE}},
    {"NFKC", {.kind = QB_NORMALIZE_UNICODE, .compose = true, .compatible = true}},
    {"NFKD", {.kind = QB_NORMALIZE_UNICODE, .compatible = true}},
    {"Lowercase", {.kind = QB_NORMALIZE_LOWERCASE}},
    {"StripAccents", {.kind = QB_NORMALIZE_STRIP_ACCENTS}},
    {"Nmt", {.kind = QB_NORMALIZE_NMT}},
};

static qb_status read_one(const qb_reader *r, const qb_json *j, list *l) {
    const char *type = "";
    qb_status st = qb_reader_type(r, j, "\"normalizer\"", &type);
    if (st != QB_OK) return st;
    if (!strcmp(type, "Sequence")) {
        const qb_json *children = qb_json_get(j, "normalizers");
        if (!qb_json_is_array(children))
            return qb_fail(QB_ERR_FORMAT, "%s: \"normalizers\" must be an array", r->name);
        for (const qb_json *c = qb_json_first(children); c && st == QB_OK; c = qb_json_next(c))
            st = read_one(r, c, l);
        return st;
    }
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (!strcmp(type, plain[i].name)) return add(r, l, plain[i].step);
    qb_normalize_step step = {0};
    if (!strcmp(type, "Replace")) return read_replace(r, j, l);
    if (!strcmp(type, "Strip")) return read_strip(r, j, l);
    if (!strcmp(type, "BertNormalizer")) return read_bert(r, j, l);
    if (!strcmp(type, "Prepend")) {
        step.kind = QB_NORMALIZE_PREPEND;
        st = qb_reader_text(r, j, "prepend", false, &step.to, &step.n_to);
        return st == QB_OK ? add(r, l, step) : st;
    }
    if (!strcmp(type, "Precompiled")) {
        step.kind = QB_NORMALIZE_CHARSMAP;
        st = read_charsmap(r, j, &step);
        return st == QB_OK && step.map ? add(r, l, step) : st;
    }
    return qb_fail(
        QB_ERR_UNSUPPORTED,
        "%s: normalizer \"%s\" is not supported (supported: Sequence, Prepend, Replace, NFC, NFD, NFKC, "
        "NFKD, Lowercase, Strip, StripAccents, Nmt, BertNormalizer, Precompiled)",
        r->name, type);
}

qb_status qb_reader_normalizer(const qb_reader *r, const qb_json *section) {
    if (qb_json_is_null(section)) return QB_OK;
    qb_tokenizer *t = r->t;
    list *l;
    qb_status st;
    QB_TRY(st, qb_alloc_zero(1, sizeof *l, &l));
    QB_TRY(st, read_one(r, section, l));
    QB_TRY(st, qb_arena_alloc(&t->arena, l->n, sizeof *t->normalizer, &t->normalizer));
    if (l->n) memcpy(t->normalizer, l->steps, l->n * sizeof *l->steps);
    t->n_normalizer = l->n;
out:
    qb_free(l);
    return st;
}
