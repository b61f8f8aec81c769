#include "bench/suite/variant.h"

#include "bench/suite/keys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { KEYS_PER_ENTRY = 32, VALUES_PER_KEY = 64 };

const char *qb_option_key(const char *name, char out[48]) {
    size_t i = 0;
    for (; name[i] && i + 1 < 48; i++) out[i] = name[i] == '-' ? '_' : name[i];
    out[i] = 0;
    return out;
}

void qb_variant_label(const qb_quant_method *method, const qb_quant_config *config, char out[96]) {
    qb_str text = {0};
    if (method)
        qb_quant_label(method, config, &text);
    else
        qb_str_text(&text, "as-is");
    snprintf(out, 96, "%s", qb_str_get(&text));
    qb_str_free(&text);
}

qb_json *qb_variant_json(const qb_variant *v) {
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "method", v->method ? v->method->name : "none");
    if (v->method) qb_options_to_json(v->method->options, &v->config, j);
    return j;
}

/* ---- reading entries ---- */

static qb_status find_method(const qb_suite *s, int index, const qb_json *entry,
                             const qb_quant_method **out) {
    const char *name = NULL;
    char where[300];
    snprintf(where, sizeof where, "%s: methods[%d]", s->where, index);
    *out = NULL;
    qb_status st = qb_json_text(entry, "method", where, true, &name);
    if (st != QB_OK || !strcmp(name, "none")) return st;
    *out = qb_quant_method_find(name);
    if (*out) return QB_OK;
    const char *names[QB_NAMES_MAX] = {"none"};
    size_t n = 1;
    for (size_t i = 0; n < QB_NAMES_MAX && qb_quant_method_at(i); i++)
        names[n++] = qb_quant_method_at(i)->name;
    char hint[QB_HINT_CHARS];
    return qb_fail(QB_ERR_USAGE, "%s: unknown method '%.80s'%s", where, name,
                   qb_did_you_mean(name, names, n, hint));
}

static bool is_label(const char *text) {
    size_t n = strlen(text);
    return n > 0 && n < 64 && strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789.-_") == n;
}

/* One variant from an entry whose values are all scalars. Takes `entry`. */
static qb_status add_variant(qb_suite *s, int index, const qb_quant_method *method, qb_json *entry,
                             const qb_json *models) {
    static const char *const ours[] = {"method", "label", NULL};
    static const qb_option no_options[] = {{0}};
    char where[300];
    snprintf(where, sizeof where, "%s: methods[%d]", s->where, index);
    qb_variant v = {.method = method, .entry = entry, .models = models};
    const qb_option *rows = method ? method->options : no_options;
    const char *label = NULL;
    qb_status st;
    qb_options_defaults(rows, &v.config);
    QB_TRY(st, qb_options_from_json(rows, &v.config, entry, where, ours));
    if (v.config.calibration && !qb_dataset_find(v.config.calibration))
        QB_TRY(st, qb_suite_path(s, v.config.calibration, &v.config.calibration));
    QB_TRY(st, qb_json_text(entry, "label", where, false, &label));
    if (label && !is_label(label)) {
        st = qb_fail(QB_ERR_USAGE, "%s: \"label\" must be 1 to 63 of a-z 0-9 . - _", where);
        goto out;
    }
    if (s->n_variants == QB_VARIANTS_MAX) {
        st = qb_fail(QB_ERR_USAGE, "%s: more than %d variants of methods", s->where, QB_VARIANTS_MAX);
        goto out;
    }
    QB_TRY(st, qb_grow(&s->variants, &s->variants_capacity, s->n_variants + 1, sizeof *s->variants));
    s->variants[s->n_variants++] = v;
    return QB_OK;
out:
    qb_json_free(entry);
    return st;
}

/* The keys of an entry as wheels of an odometer: a list has as many places as items, a scalar one. */
typedef struct {
    int n;
    const qb_json *member[KEYS_PER_ENTRY];
    int64_t places[KEYS_PER_ENTRY], at[KEYS_PER_ENTRY];
} odometer;

static qb_status wheels(const qb_suite *s, int index, const qb_json *entry, odometer *o) {
    *o = (odometer){0};
    for (const qb_json *j = qb_json_first(entry); j; j = qb_json_next(j)) {
        if (o->n == KEYS_PER_ENTRY)
            return qb_fail(QB_ERR_USAGE, "%s: methods[%d] has more than %d keys", s->where, index,
                           KEYS_PER_ENTRY);
        if (!strcmp(qb_json_key(j), "models")) continue; /* a list of its own meaning */
        int64_t places = qb_json_is_array(j) ? qb_json_count(j) : 1;
        if (places < 1 || places > VALUES_PER_KEY)
            return qb_fail(QB_ERR_USAGE, "%s: methods[%d]: \"%.48s\" must list 1 to %d values", s->where,
                           index, qb_json_key(j), VALUES_PER_KEY);
        o->member[o->n] = j;
        o->places[o->n++] = places;
    }
    return QB_OK;
}

static qb_json *scalar_entry(const odometer *o) {
    qb_json *object = qb_json_object();
    for (int i = 0; i < o->n; i++) {
        const qb_json *value = o->member[i];
        if (qb_json_is_array(value)) {
            value = qb_json_first(value);
            for (int64_t k = 0; k < o->at[i]; k++) value = qb_json_next(value);
        }
        qb_json_put(object, qb_json_key(o->member[i]), qb_json_copy(value));
    }
    return object;
}

/* The first key turns slowest, so that {"method", "bits": [8, 4]} comes in the order written. */
static bool turn(odometer *o) {
    for (int i = o->n - 1; i >= 0; i--) {
        if (++o->at[i] < o->places[i]) return true;
        o->at[i] = 0;
    }
    return false;
}

/* Every name of "models" must be one of the suite's. */
static qb_status check_models(const qb_suite *s, int index, const qb_json *models) {
    if (models && (!qb_json_is_array(models) || !qb_json_count(models)))
        return qb_fail(QB_ERR_USAGE, "%s: methods[%d]: \"models\" must be a list of names that is not empty",
                       s->where, index);
    for (const qb_json *name = qb_json_first(models); name; name = qb_json_next(name))
        if (!qb_json_string(name) || qb_suite_model_find(s, qb_json_string(name)) < 0)
            return qb_fail(QB_ERR_USAGE,
                           "%s: methods[%d]: \"models\" holds '%.80s', which is no model of the suite",
                           s->where, index, qb_json_string(name) ? qb_json_string(name) : "no name");
    return QB_OK;
}

static qb_status read_entry(qb_suite *s, int index, const qb_json *entry) {
    if (!qb_json_is_object(entry))
        return qb_fail(QB_ERR_USAGE,
                       "%s: methods[%d] must be an object such as {\"method\": \"rtn\", \"bits\": 4}",
                       s->where, index);
    const qb_quant_method *method;
    odometer o;
    qb_status st = find_method(s, index, entry, &method);
    const qb_json *models = qb_json_get(entry, "models");
    if (st == QB_OK) st = check_models(s, index, models);
    if (st == QB_OK) st = wheels(s, index, entry, &o);
    if (st != QB_OK) return st;
    do {
        st = add_variant(s, index, method, scalar_entry(&o), models);
    } while (st == QB_OK && turn(&o));
    return st;
}

qb_status qb_variants_read(qb_suite *s) {
    const qb_json *methods = qb_json_get(s->doc, "methods");
    if (!qb_json_is_array(methods) || qb_json_count(methods) == 0)
        return qb_fail(QB_ERR_USAGE, "%s: \"methods\" must be a list of objects that is not empty", s->where);
    int index = 0;
    for (const qb_json *entry = qb_json_first(methods); entry; entry = qb_json_next(entry)) {
        qb_status st = read_entry(s, index++, entry);
        if (st != QB_OK) return st;
    }
    return qb_variants_relabel(s);
}

/* ---- labels ---- */

static bool same_settings(const qb_variant *a, const qb_variant *b) {
    if (a->method != b->method || !qb_json_equal(a->models, b->models)) return false;
    qb_json *ja = qb_variant_json(a), *jb = qb_variant_json(b);
    bool same = ja && jb && qb_json_equal(ja, jb);
    qb_json_free(ja);
    qb_json_free(jb);
    return same;
}

static qb_status mark_twins(qb_suite *s) {
    for (size_t i = 0; i < s->n_variants; i++) {
        qb_variant *v = &s->variants[i];
        size_t twin = 0;
        while (twin < i && strcmp(s->variants[twin].label, v->label) != 0) twin++;
        if (twin == i) continue;
        if (!same_settings(&s->variants[twin], v))
            return qb_fail(QB_ERR_USAGE,
                           "%s: two different methods would both be called '%s'; give one a \"label\"",
                           s->where, v->label);
        v->label[0] = 0;
    }
    return QB_OK;
}

qb_status qb_variants_relabel(qb_suite *s) {
    for (size_t i = 0; i < s->n_variants; i++) {
        qb_variant *v = &s->variants[i];
        const char *own = qb_json_string(qb_json_get(v->entry, "label"));
        if (own)
            snprintf(v->label, sizeof v->label, "%s", own);
        else
            qb_variant_label(v->method, &v->config, v->label);
    }
    qb_status st = mark_twins(s);
    if (st != QB_OK) return st;
    size_t kept = 0;
    for (size_t i = 0; i < s->n_variants; i++) {
        if (s->variants[i].label[0])
            s->variants[kept++] = s->variants[i];
        else
            qb_json_free(s->variants[i].entry);
    }
    s->n_variants = kept;
    return QB_OK;
}
