#include "results/labels.h"

#include "results/text.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

enum { MAX_LABEL_COLUMNS = 44 };

static void put_upper(const char *text, qb_str *out) {
    for (const char *p = text; *p; p++) {
        char upper = (char)toupper((unsigned char)*p);
        qb_str_append(out, &upper, 1);
    }
}

static void put_unquantized(const qb_row_case *c, qb_str *out) {
    const char *dtype = qb_json_string(qb_json_get(qb_json_get(c->json, "model"), "dtype"));
    const char *word = *c->method && strcmp(c->method, "none") != 0 ? c->method : dtype;
    if (word)
        put_upper(word, out);
    else if (c->bits_per_weight >= 1 && c->bits_per_weight <= 64)
        qb_str_printf(out, "%.0f bit", c->bits_per_weight);
    else
        qb_str_text(out, "unquantized");
}

/* Methods are known by short acronyms; a long name is a word and stays as it is. */
static void put_method(const qb_row_case *c, qb_str *out) {
    if (!*c->method)
        qb_text_clean(c->id, MAX_LABEL_COLUMNS, out);
    else if (strlen(c->method) <= 6)
        put_upper(c->method, out);
    else
        qb_text_clean(c->method, MAX_LABEL_COLUMNS, out);
}

static void put_variant(const qb_row_case *c, qb_str *out) {
    const qb_json *config = qb_json_get(c->json, "config");
    double block = qb_json_number(qb_json_get(config, "block_size"));
    static const struct {
        const char *key, *word;
    } flags[] = {
        {"double_quant", " DQ"}, {"act_order", " act"}, {"static_groups", " static"}, {"mse", " mse"}};
    if (c->group_size > 0) qb_str_printf(out, " g%.0f", c->group_size);
    if (block > 0 && block != 64) qb_str_printf(out, " b%.0f", block);
    for (size_t i = 0; i < sizeof flags / sizeof flags[0]; i++)
        if (qb_json_true(qb_json_get(config, flags[i].key))) qb_str_text(out, flags[i].word);
}

void qb_label_guess(const qb_row_case *c, bool with_bits, qb_str *out) {
    qb_str raw = {0};
    if (c->unquantized) {
        put_unquantized(c, &raw);
    } else {
        put_method(c, &raw);
        /* "NF4" says its width already. */
        if (with_bits && c->bits > 0 && !strpbrk(c->method, "0123456789"))
            qb_str_printf(&raw, " %gb", c->bits);
        put_variant(c, &raw);
    }
    qb_text_clean(qb_str_get(&raw), MAX_LABEL_COLUMNS, out);
    out->failed |= raw.failed;
    qb_str_free(&raw);
}

/* ---- twins ---- */

static void put_scalar(const qb_json *value, qb_str *out) {
    const char *text = qb_json_string(value);
    if (text)
        qb_str_text(out, text);
    else if (qb_json_is_number(value))
        qb_str_printf(out, "%g", qb_json_number(value));
    else
        qb_str_text(out, qb_json_true(value) ? "yes" : "no");
}

static bool same_scalar(const qb_json *a, const qb_json *b) {
    if (qb_json_is_null(a) || qb_json_is_null(b)) return qb_json_is_null(a) == qb_json_is_null(b);
    qb_str ta = {0}, tb = {0};
    put_scalar(a, &ta);
    put_scalar(b, &tb);
    bool same = !strcmp(qb_str_get(&ta), qb_str_get(&tb));
    qb_str_free(&ta);
    qb_str_free(&tb);
    return same;
}

static bool twins(const qb_row_case *a, const qb_row_case *b) {
    return a != b && !strcmp(a->label, b->label) && !strcmp(a->of, b->of);
}

static const qb_json *config_value(const qb_row_case *c, const char *key) {
    return qb_json_get(qb_json_get(c->json, "config"), key);
}

/* What a reader would not look for in a name. */
static bool tells_nothing(const char *key) {
    static const char *const keys[] = {"path", "source_sha256", "calibration_sha256"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (!strcmp(keys[i], key)) return true;
    return false;
}

/* Appends to the label the scalar config values in which the case differs from a twin of its document, the id
   where nothing does. */
static void tell_inside(const qb_rows *rows, const qb_row_case *c, qb_str *out) {
    bool told = false;
    const qb_json *config = qb_json_get(c->json, "config");
    for (const qb_json *v = qb_json_first(config); v; v = qb_json_next(v)) {
        if (qb_json_is_object(v) || qb_json_is_array(v) || tells_nothing(qb_json_key(v))) continue;
        bool differs = false;
        for (int j = 0; j < rows->n_cases && !differs; j++)
            differs = twins(c, &rows->cases[j]) && rows->cases[j].document == c->document &&
                      !same_scalar(v, config_value(&rows->cases[j], qb_json_key(v)));
        if (!differs) continue;
        qb_str_printf(out, " %s=", qb_json_key(v));
        put_scalar(v, out);
        told = true;
    }
    if (!told) qb_str_printf(out, " (%s)", c->id);
}

static bool has_twin(const qb_rows *rows, const qb_row_case *c, bool inside) {
    for (int j = 0; j < rows->n_cases; j++)
        if (twins(c, &rows->cases[j]) && (rows->cases[j].document == c->document) == inside) return true;
    return false;
}

static qb_status keep(qb_arena *arena, qb_str *raw, const char **out) {
    qb_str text = {0};
    qb_text_clean(qb_str_get(raw), MAX_LABEL_COLUMNS, &text);
    text.failed |= raw->failed;
    qb_status st = qb_str_status(&text);
    if (st == QB_OK) st = qb_arena_strdup(arena, qb_str_get(&text), out);
    qb_str_free(raw);
    qb_str_free(&text);
    return st;
}

qb_status qb_labels_tell_apart(qb_rows *rows) {
    const char **fresh;
    qb_status st = qb_arena_alloc(&rows->arena, (size_t)rows->n_cases, sizeof *fresh, &fresh);
    for (int i = 0; i < rows->n_cases && st == QB_OK; i++) {
        qb_row_case *c = &rows->cases[i];
        qb_str name = {0}, label = {0};
        qb_str_text(&name, c->label);
        if (has_twin(rows, c, true)) tell_inside(rows, c, &name);
        st = keep(&rows->arena, &name, &c->name);
        if (st == QB_OK) qb_str_text(&label, c->name);
        if (has_twin(rows, c, false)) qb_str_printf(&label, " (%s)", c->document->name);
        if (st == QB_OK) st = keep(&rows->arena, &label, &fresh[i]);
        qb_str_free(&label);
    }
    for (int i = 0; i < rows->n_cases && st == QB_OK; i++) rows->cases[i].label = fresh[i];
    return st;
}
