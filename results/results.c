#include "results/results.h"

#include "base/file.h"
#include "base/json_memory.h"
#include "base/memory.h"
#include "results/lift.h"

#include <string.h>

enum { MAX_DOCUMENT_BYTES = 512 << 20 };

/* The value as a reader of the file will see it: numbers through their printed form, NaN as null. What is
   checked and kept in memory is then exactly what the file says. */
static qb_status as_written(const qb_json *value, const char *name, qb_json **out) {
    char *text;
    *out = NULL;
    qb_status st = qb_json_print(value, false, &text);
    if (st != QB_OK) return st;
    st = qb_json_parse_all(text, strlen(text), name, out);
    qb_free(text);
    return st;
}

qb_status qb_results_create(const char *path, qb_json *context, qb_results *out) {
    qb_status st;
    qb_json *doc = qb_json_object();
    *out = (qb_results){0};
    qb_json_put_text(doc, "schema", QB_RESULTS_SCHEMA);
    qb_json_put(doc, "context", context);
    qb_json_put(doc, "cases", qb_json_array());
    QB_TRY(st, as_written(doc, path ? path : "result document", &out->doc));
    QB_TRY(st, qb_results_validate(out->doc, path ? path : "result document"));
    if (path) {
        out->path = qb_strdup(path);
        if (!out->path) QB_TRY(st, qb_fail(QB_ERR_MEMORY, "out of memory"));
        QB_TRY(st, qb_results_write(out));
    }
out:
    qb_json_free(doc);
    if (st != QB_OK) qb_results_close(out);
    return st;
}

qb_status qb_results_parse(const char *text, size_t n, const char *name, qb_results *out) {
    *out = (qb_results){0};
    qb_status st = qb_json_parse_all(text, n, name, &out->doc);
    if (st == QB_OK) st = qb_results_lift(&out->doc, name);
    if (st == QB_OK) st = qb_results_validate(out->doc, name);
    if (st != QB_OK) qb_results_close(out);
    return st;
}

qb_status qb_results_open(const char *path, qb_results *out) {
    char *text;
    size_t n;
    *out = (qb_results){0};
    qb_status st = qb_file_read(path, MAX_DOCUMENT_BYTES, &text, &n);
    if (st != QB_OK) return st;
    st = qb_results_parse(text, n, path, out);
    qb_free(text);
    if (st != QB_OK) return st;
    out->path = qb_strdup(path);
    if (out->path) return QB_OK;
    qb_results_close(out);
    return qb_fail(QB_ERR_MEMORY, "out of memory");
}

void qb_results_close(qb_results *r) {
    if (!r) return;
    qb_free(r->path);
    qb_json_free(r->doc);
    *r = (qb_results){0};
}

qb_status qb_results_write(qb_results *r) {
    qb_status st = r->path ? qb_json_write_atomic(r->doc, r->path) : QB_OK;
    r->unwritten = st != QB_OK;
    return st;
}

const qb_json *qb_results_case(const qb_results *r, const char *id) {
    for (const qb_json *c = qb_json_first(qb_json_get(r->doc, "cases")); c; c = qb_json_next(c)) {
        const char *own = qb_json_string(qb_json_get(c, "id"));
        if (own && !strcmp(own, id)) return c;
    }
    return NULL;
}

bool qb_results_rounds(const qb_json *c, int *done, int *of) {
    const qb_json *rounds = qb_json_get(c, "rounds");
    double a = qb_json_number(qb_json_get(rounds, "done")), b = qb_json_number(qb_json_get(rounds, "of"));
    if (!(a >= 0 && b >= 1 && b < 1e6)) return false;
    *done = (int)a;
    *of = (int)b;
    return true;
}

static bool is_measured(const qb_json *c) {
    int done, of;
    const char *status = qb_json_string(qb_json_get(c, "status"));
    if (!c || !status || strcmp(status, "ok") != 0) return c != NULL;
    return !qb_results_rounds(c, &done, &of) || done >= of;
}

int64_t qb_results_unmeasured(const qb_results *r) {
    const qb_json *planned = qb_json_get(qb_json_get(r->doc, "context"), "planned");
    int64_t n = 0;
    for (const qb_json *p = qb_json_first(planned); p; p = qb_json_next(p))
        n += !is_measured(qb_results_case(r, qb_json_string(p)));
    return n;
}

/* The document with `fresh` in place of the case that has its id, or behind the last. */
static qb_status with_case(const qb_results *r, const qb_json *fresh, qb_json **out) {
    const char *id = qb_json_string(qb_json_get(fresh, "id"));
    const qb_json *replaced = id ? qb_results_case(r, id) : NULL;
    qb_json *doc = qb_json_object(), *cases = qb_json_array();
    for (const qb_json *c = qb_json_first(qb_json_get(r->doc, "cases")); c; c = qb_json_next(c))
        qb_json_push(cases, qb_json_copy(c == replaced ? fresh : c));
    if (!replaced) qb_json_push(cases, qb_json_copy(fresh));
    qb_json_put_text(doc, "schema", QB_RESULTS_SCHEMA);
    qb_json_put(doc, "context", qb_json_copy(qb_json_get(r->doc, "context")));
    qb_json_put(doc, "cases", cases);
    *out = doc;
    /* What a builder left out for lack of memory must not pass for a document with fewer cases. */
    int64_t expected = qb_json_count(qb_json_get(r->doc, "cases")) + (replaced ? 0 : 1);
    return doc && qb_json_count(qb_json_get(doc, "cases")) == expected
               ? QB_OK
               : qb_fail(QB_ERR_MEMORY, "out of memory while a case was added to %s",
                         r->path ? r->path : "the results");
}

/* The document with the case, checked as a reader will find it. */
static qb_status make_document(const qb_results *r, const qb_json *case_object, qb_json **doc) {
    qb_json *fresh = NULL;
    const char *name = r->path ? r->path : "result document";
    qb_status st;
    *doc = NULL;
    QB_TRY(st, as_written(case_object, name, &fresh));
    QB_TRY(st, with_case(r, fresh, doc));
    st = qb_results_validate(*doc, name);
out:
    qb_json_free(fresh);
    if (st == QB_OK && !qb_json_losses()) return QB_OK;
    qb_json_free(*doc);
    *doc = NULL;
    return st != QB_OK ? st : qb_fail(QB_ERR_MEMORY, "out of memory while a case was added to %s", name);
}

qb_status qb_results_put_case(qb_results *r, qb_json *case_object) {
    qb_json *doc = NULL;
    qb_status st =
        qb_json_losses() ? qb_fail(QB_ERR_MEMORY, "out of memory while a case was recorded") : QB_OK;
    if (st != QB_OK) goto out; /* it may lack parts */
    /* A case took hours to measure: one allocation that fails does not cost it. */
    for (int tries = 0; tries < 3; tries++) {
        st = make_document(r, case_object, &doc);
        if (st != QB_ERR_MEMORY) break;
        qb_json_losses_reset(0);
    }
    if (st != QB_OK) goto out;
    qb_json_free(r->doc);
    r->doc = doc;
    for (int tries = 0; tries < 3; tries++) { /* the case is kept in memory even if the disk is full now */
        st = qb_results_write(r);
        if (st != QB_ERR_MEMORY) break;
    }
out:
    qb_json_free(case_object);
    return st;
}

static bool matches(const qb_json *metric, const char *key, const char *wanted) {
    if (!wanted) return true;
    const char *text = qb_json_string(qb_json_get(metric, key));
    return !strcmp(text ? text : "", wanted);
}

const qb_json *qb_results_metric(const qb_json *case_object, const char *name, const char *protocol,
                                 const char *dataset) {
    for (const qb_json *m = qb_json_first(qb_json_get(case_object, "metrics")); m; m = qb_json_next(m))
        if (matches(m, "name", name) && matches(m, "protocol", protocol) && matches(m, "dataset", dataset))
            return m;
    return NULL;
}
