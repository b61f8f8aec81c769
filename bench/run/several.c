#include "bench/run/several.h"

#include "base/log.h"
#include "base/memory.h"
#include "bench/run/child.h"
#include "bench/session.h"

#include <stdio.h>
#include <string.h>

/* Cases are told apart by their models' names. */
static qb_status check_models(const char *const *words, size_t n, bool synthetic) {
    char *names[QB_SEVERAL_MAX] = {NULL};
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < n; i++) {
        qb_model *m = NULL;
        QB_TRY(st, qb_session_model(words[i], synthetic, &m));
        names[i] = qb_strdup(m->name);
        qb_model_close(m);
        if (!names[i]) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory"));
        for (size_t k = 0; k < i; k++)
            if (!strcmp(names[i], names[k]))
                QB_TRY(st,
                       qb_fail(QB_ERR_USAGE,
                               "%s and %s are both called %s: measure them in two calls, or in a suite that "
                               "gives them labels",
                               words[k], words[i], names[i]));
    }
out:
    for (size_t i = 0; i < n; i++) qb_free(names[i]);
    return st;
}

typedef struct {
    qb_model_measurer measure;
    void *ctx;
    const char *word;
} one;

static qb_status measure_one(void *user, qb_json **result) {
    one *o = user;
    qb_results r = {0};
    qb_status st = o->measure(o->ctx, o->word, &r);
    *result = r.doc;
    r.doc = NULL;
    qb_results_close(&r);
    return st;
}

/* Files that were read are listed once. */
static void add_data(qb_json *context, const qb_json *from) {
    qb_json *data = qb_json_take(context, "data");
    for (const qb_json *file = qb_json_first(from); file; file = qb_json_next(file)) {
        bool found = false;
        for (const qb_json *known = qb_json_first(data); known; known = qb_json_next(known))
            found |= qb_json_equal(known, file);
        if (!found) qb_json_push(data, qb_json_copy(file));
    }
    qb_json_put(context, "data", data);
}

static qb_status add_document(const qb_json *doc, qb_results *out) {
    qb_status st = QB_OK;
    if (!out->doc) {
        st = qb_results_create(NULL, qb_json_copy(qb_json_get(doc, "context")), out);
    } else {
        qb_json *context = qb_json_take(out->doc, "context"), *cases = qb_json_take(out->doc, "cases");
        add_data(context, qb_json_get(qb_json_get(doc, "context"), "data"));
        qb_json_put(out->doc, "context", context);
        qb_json_put(out->doc, "cases", cases);
    }
    for (const qb_json *c = qb_json_first(qb_json_get(doc, "cases")); st == QB_OK && c; c = qb_json_next(c))
        st = qb_results_put_case(out, qb_json_copy(c));
    return st;
}

qb_status qb_several_measure(const char *const *words, size_t n, bool synthetic, qb_model_measurer measure,
                             void *ctx, qb_results *out) {
    char *error = NULL;
    qb_status first = QB_OK, st;
    *out = (qb_results){0};
    if (n == 1) return measure(ctx, words[0], out);
    QB_TRY(st, check_models(words, n, synthetic));
    for (size_t i = 0; i < n; i++) {
        one o = {measure, ctx, words[i]};
        qb_child_end end;
        qb_info("%s (%zu of %zu)", words[i], i + 1, n);
        qb_status measured = qb_child_run(words[i], measure_one, &o, &end);
        if (measured != QB_OK && first == QB_OK) {
            first = measured;
            error = qb_strdup(qb_error_text());
        }
        if (measured != QB_OK && i + 1 < n) qb_warn("%s: %s", words[i], qb_error_text());
        st = end.result ? add_document(end.result, out) : QB_OK;
        qb_json_free(end.result);
        if (st != QB_OK || measured == QB_ERR_INTERRUPTED) break;
    }
    if (st == QB_OK && first != QB_OK) st = qb_fail(first, "%s", error ? error : qb_status_text(first));
out:
    qb_free(error);
    return st;
}
