/* A suite multiplied out: model x variant x backend, filtered by --only. */
#include "bench/suite/suite.h"

#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

void qb_model_label(const char *word, char out[QB_MODEL_LABEL_CHARS]) {
    size_t end = strlen(word);
    while (end > 1 && word[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && word[begin - 1] != '/') begin--;
    size_t n = 0;
    for (size_t i = begin; i < end && n + 1 < QB_MODEL_LABEL_CHARS; i++) {
        char c = word[i];
        bool plain =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._-", c);
        out[n++] = plain ? c : '-';
    }
    out[n] = 0;
    if (!n || !strcmp(out, ".") || !strcmp(out, "..")) memcpy(out, "model", 6);
}

void qb_suite_model_label(const qb_suite *s, int model, char out[QB_MODEL_LABEL_CHARS]) {
    const qb_suite_model *entry = &s->model_entries[model];
    char base[QB_MODEL_LABEL_CHARS], adapter[QB_MODEL_LABEL_CHARS];
    if (entry->label) {
        snprintf(out, QB_MODEL_LABEL_CHARS, "%s", entry->label);
    } else if (entry->adapter) {
        qb_model_label(entry->path, base);
        qb_model_label(entry->adapter_path, adapter);
        snprintf(out, QB_MODEL_LABEL_CHARS, "%.47s+%.47s", base, adapter);
    } else {
        qb_model_label(s->models.items[model], out);
    }
}

/* What the id of an unquantized case may say is not known before its model is open. */
static bool is_dense_type(const char *pattern) {
    return !strcmp(pattern, "f16") || !strcmp(pattern, "bf16") || !strcmp(pattern, "f32");
}

static bool matches(const char *only, const qb_case *c) {
    if (!only) return true;
    const char *method = c->variant->method ? c->variant->method->name : "none";
    for (const char *p = only; *p;) {
        char pattern[256];
        size_t n = strcspn(p, ",");
        if (n < sizeof pattern) {
            memcpy(pattern, p, n);
            pattern[n] = 0;
            if (!fnmatch(pattern, c->id, 0) || !fnmatch(pattern, c->variant->label, 0) ||
                !fnmatch(pattern, method, 0) || (!c->variant->method && is_dense_type(pattern)))
                return true;
        }
        p += n + (p[n] == ',');
    }
    return false;
}

static qb_status nothing_matches(const qb_suite *s, const char *only) {
    qb_str names = {0};
    for (size_t i = 0; i < s->n_variants && i < 20; i++)
        qb_str_printf(&names, "%s%s", i ? ", " : "", s->variants[i].label);
    qb_status st = qb_fail(QB_ERR_USAGE, "--only %s matches no case of suite %s; its methods are %s", only,
                           s->name, qb_str_get(&names));
    qb_str_free(&names);
    return st;
}

/* Two models whose directories share their base name would share their ids. */
static qb_status check_unique(const qb_cases *cases) {
    for (size_t i = 0; i < cases->count; i++)
        for (size_t k = 0; k < i; k++)
            if (!strcmp(cases->items[i].id, cases->items[k].id))
                return qb_fail(QB_ERR_USAGE,
                               "models %s and %s would both be called %s; give one a \"label\" in the suite",
                               cases->items[k].model, cases->items[i].model, cases->items[i].model_label);
    return QB_OK;
}

/* Whether the suite has the variant made of that model. */
static bool is_for(const qb_suite *s, const qb_variant *v, int model) {
    if (!v->models || s->models_given) return true;
    for (const qb_json *name = qb_json_first(v->models); name; name = qb_json_next(name))
        if (qb_suite_model_find(s, qb_json_string(name)) == model) return true;
    return false;
}

static void name_case(qb_case *c, const char *label) {
    snprintf(c->label, sizeof c->label, "%s", label);
    snprintf(c->id, sizeof c->id, "%s/%s/%s", c->model_label, c->label, c->backend);
}

void qb_case_name(qb_case *c, const char *label) {
    bool own = qb_json_string(qb_json_get(c->variant->entry, "label")) != NULL;
    if (!c->variant->method && !own) name_case(c, label);
}

qb_status qb_suite_expand(const qb_suite *s, const char *only, qb_cases *out) {
    *out = (qb_cases){0};
    size_t total = (size_t)s->models.n * s->n_variants * (size_t)s->backends.n;
    if (total > QB_CASES_MAX)
        return qb_fail(QB_ERR_USAGE, "%s: %zu cases are more than the limit of %d", s->where, total,
                       QB_CASES_MAX);
    qb_status st;
    QB_TRY(st, qb_alloc_zero(total, sizeof *out->items, &out->items));
    for (int m = 0; m < s->models.n; m++)
        for (size_t v = 0; v < s->n_variants; v++)
            for (int b = 0; b < s->backends.n; b++) {
                qb_case *c = &out->items[out->count];
                c->model = s->models.items[m];
                c->variant = &s->variants[v];
                c->backend = s->backends.items[b];
                qb_suite_model_label(s, m, c->model_label);
                name_case(c, c->variant->label);
                if (is_for(s, c->variant, m) && matches(only, c)) out->count++;
            }
    if (!out->count) {
        st = nothing_matches(s, only ? only : "");
        goto out;
    }
    st = check_unique(out);
out:
    if (st != QB_OK) {
        qb_free(out->items);
        *out = (qb_cases){0};
    }
    return st;
}
