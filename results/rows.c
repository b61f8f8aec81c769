#include "results/rows.h"

#include "base/file.h"
#include "base/statistics.h"
#include "results/device.h"
#include "results/labels.h"
#include "results/row_read.h"
#include "results/text.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static qb_status strings_of(qb_arena *arena, const qb_json *array, const char *const **out, int *n) {
    const char **words;
    qb_status st = qb_arena_alloc(arena, (size_t)qb_json_count(array), sizeof *words, &words);
    if (st != QB_OK) return st;
    *n = 0;
    for (const qb_json *v = qb_json_first(array); v; v = qb_json_next(v))
        if (qb_json_string(v)) words[(*n)++] = qb_json_string(v);
    *out = words;
    return QB_OK;
}

/* ---- documents ---- */

static bool name_taken(const qb_rows *rows, int n, const char *name) {
    for (int i = 0; i < n; i++)
        if (!strcmp(rows->documents[i].name, name)) return true;
    return false;
}

/* The file's name without .json, with its folder where two files share one, else with a number. */
static qb_status name_document(qb_rows *rows, int i) {
    qb_row_document *d = &rows->documents[i];
    const char *path = d->results->path ? d->results->path : *d->suite ? d->suite : "result";
    qb_str raw = {0}, name = {0};
    for (int folders = 0; folders < 3; folders++) {
        const char *p = path + strlen(path);
        int left = folders;
        while (p > path && (p[-1] != '/' || left-- > 0)) p--;
        qb_str_free(&raw);
        qb_str_free(&name);
        size_t length = strlen(p);
        if (length > 5 && !strcmp(p + length - 5, ".json")) length -= 5;
        qb_str_append(&raw, p, length);
        qb_text_clean(qb_str_get(&raw), 32, &name);
        if (!name_taken(rows, i, qb_str_get(&name))) break;
    }
    if (name_taken(rows, i, qb_str_get(&name))) qb_str_printf(&name, " #%d", i + 1);
    name.failed |= raw.failed;
    qb_status st = qb_str_status(&name);
    if (st == QB_OK) st = qb_arena_strdup(&rows->arena, qb_str_get(&name), &d->name);
    qb_str_free(&raw);
    qb_str_free(&name);
    return st;
}

static qb_status read_document(qb_rows *rows, int i, const qb_results *r) {
    qb_row_document *d = &rows->documents[i];
    const qb_json *context = qb_json_get(r->doc, "context"), *program = qb_json_get(context, "program");
    *d = (qb_row_document){.results = r,
                           .created = qb_read_word(context, "created"),
                           .suite = qb_read_word(context, "suite"),
                           .version = qb_read_word(program, "version"),
                           .git = qb_read_word(program, "git"),
                           .projection = !qb_json_is_null(qb_json_get(context, "projection")),
                           .unmeasured = qb_results_unmeasured(r)};
    qb_status st = strings_of(&rows->arena, qb_json_get(context, "command"), &d->command, &d->n_command);
    if (st == QB_OK)
        st = strings_of(&rows->arena, qb_json_get(context, "planned"), &d->planned, &d->n_planned);
    return st == QB_OK ? name_document(rows, i) : st;
}

static qb_status read_device(qb_rows *rows, const qb_row_document *document, const qb_json *j) {
    const qb_json *ceilings = qb_json_get(j, "ceilings");
    qb_row_device *d = &rows->devices[rows->n_devices++];
    *d = (qb_row_device){.document = document,
                         .json = j,
                         .id = qb_read_word(j, "id"),
                         .cpu = qb_read_word(j, "cpu"),
                         .gpu = qb_read_word(j, "device"),
                         .simd = qb_read_word(j, "simd"),
                         .blas = qb_read_word(j, "blas"),
                         .os = qb_read_word(j, "os"),
                         .kernel = qb_read_word(j, "kernel"),
                         .governor = qb_read_word(j, "governor"),
                         .cores = qb_read_number(j, "cores"),
                         .threads = qb_read_number(j, "threads"),
                         .memory_bytes = qb_read_number(j, "memory_bytes"),
                         .device_memory_bytes = qb_read_number(j, "device_memory_bytes"),
                         .load_average = qb_read_number(j, "load_average"),
                         .ceilings = qb_ceilings_read(ceilings, ""),
                         .ceilings_after = qb_ceilings_read(ceilings, "_after")};
    qb_str text = {0};
    qb_device_describe(j, &text);
    qb_status st = qb_str_status(&text);
    if (st == QB_OK) st = qb_arena_strdup(&rows->arena, qb_str_get(&text), &d->description);
    qb_str_free(&text);
    return st;
}

static const qb_row_device *device_of(const qb_rows *rows, const qb_row_case *c) {
    const char *id = qb_json_string(qb_json_get(c->json, "device"));
    for (int i = 0; id && i < rows->n_devices; i++)
        if (rows->devices[i].document == c->document && !strcmp(rows->devices[i].id, id))
            return &rows->devices[i];
    return NULL;
}

/* ---- cases ---- */

static qb_status keep(qb_arena *arena, qb_str *text, const char **out) {
    qb_status st = qb_str_status(text);
    if (st == QB_OK) st = qb_arena_strdup(arena, qb_str_get(text), out);
    qb_str_free(text);
    return st;
}

/* As the document says it ("display"), for earlier versions by guessing; a projection bears its device. */
static qb_status name_case(qb_rows *rows, qb_row_case *c) {
    const qb_json *display = qb_json_get(c->json, "display");
    const char *said[2] = {qb_json_string(qb_json_get(display, "label")),
                           qb_json_string(qb_json_get(display, "series"))};
    const char **out[2] = {&c->label, &c->series};
    qb_status st = QB_OK;
    for (int k = 0; k < 2 && st == QB_OK; k++) {
        qb_str raw = {0}, text = {0};
        if (said[k])
            qb_text_clean(said[k], 44, &raw);
        else
            qb_label_guess(c, k == 0, &raw);
        if (c->projected_on)
            qb_str_printf(&raw, "%s%s projected", *c->projected_on ? " " : "", c->projected_on);
        qb_text_clean(qb_str_get(&raw), 44, &text);
        text.failed |= raw.failed;
        qb_str_free(&raw);
        st = keep(&rows->arena, &text, out[k]);
    }
    return st;
}

static qb_status read_case(qb_rows *rows, const qb_row_document *document, const qb_json *j) {
    qb_row_case *c = &rows->cases[rows->n_cases];
    qb_row *first = &rows->rows[rows->n_rows];
    qb_status st;
    *c = (qb_row_case){.document = document, .json = j, .index = rows->n_cases, .rows = first};
    rows->n_cases++;
    for (const qb_json *m = qb_json_first(qb_json_get(j, "metrics")); m; m = qb_json_next(m)) {
        QB_TRY(st, qb_read_row(&rows->arena, m, c, &rows->rows[rows->n_rows]));
        rows->n_rows++;
        c->n_rows++;
    }
    QB_TRY(st, qb_read_case(&rows->arena, c));
    QB_TRY(st, strings_of(&rows->arena, qb_json_get(j, "warnings"), &c->warnings, &c->n_warnings));
    c->device = device_of(rows, c);
    st = name_case(rows, c);
out:
    return st;
}

static bool same_shapes(const qb_row_case *a, const qb_row_case *b) {
    return *a->architecture && !strcmp(a->architecture, b->architecture) && a->n_layers == b->n_layers &&
           a->n_params == b->n_params;
}

/* Where a document does not say what a checkpoint that came quantized goes back to: its one unquantized model
   of the same shapes. */
static void find_origins(qb_rows *rows) {
    for (int i = 0; i < rows->n_cases; i++) {
        qb_row_case *c = &rows->cases[i];
        const char *of = NULL;
        bool one = true;
        if (!c->published || c->of != c->model) continue;
        for (int k = 0; k < rows->n_cases; k++) {
            const qb_row_case *other = &rows->cases[k];
            if (other->document != c->document || !other->unquantized || !same_shapes(c, other)) continue;
            one &= !of || !strcmp(of, other->model);
            of = other->model;
        }
        if (of && one) c->of = of;
    }
}

qb_status qb_rows_read(const qb_results *const *documents, int n, qb_rows *out) {
    int64_t devices = 0, cases = 0, rows = 0;
    qb_status st;
    *out = (qb_rows){0};
    for (int i = 0; i < n; i++) {
        const qb_json *all = qb_json_get(documents[i]->doc, "cases");
        devices += qb_json_count(qb_json_get(qb_json_get(documents[i]->doc, "context"), "devices"));
        cases += qb_json_count(all);
        for (const qb_json *c = qb_json_first(all); c; c = qb_json_next(c))
            rows += qb_json_count(qb_json_get(c, "metrics"));
    }
    QB_TRY(st, qb_arena_alloc(&out->arena, (size_t)n, sizeof *out->documents, &out->documents));
    QB_TRY(st, qb_arena_alloc(&out->arena, (size_t)devices, sizeof *out->devices, &out->devices));
    QB_TRY(st, qb_arena_alloc(&out->arena, (size_t)cases, sizeof *out->cases, &out->cases));
    QB_TRY(st, qb_arena_alloc(&out->arena, (size_t)rows, sizeof *out->rows, &out->rows));
    for (int i = 0; i < n; i++) {
        const qb_json *doc = documents[i]->doc;
        const qb_json *list = qb_json_get(qb_json_get(doc, "context"), "devices");
        QB_TRY(st, read_document(out, i, documents[i]));
        out->n_documents++;
        for (const qb_json *d = qb_json_first(list); d; d = qb_json_next(d))
            QB_TRY(st, read_device(out, &out->documents[i], d));
        for (const qb_json *c = qb_json_first(qb_json_get(doc, "cases")); c; c = qb_json_next(c))
            QB_TRY(st, read_case(out, &out->documents[i], c));
    }
    find_origins(out);
    st = qb_labels_tell_apart(out);
out:
    return st;
}

void qb_rows_free(qb_rows *rows) {
    qb_arena_free(&rows->arena);
    *rows = (qb_rows){0};
}

/* ---- finding ---- */

static bool is_row(const qb_row *r, const char *name, const char *protocol, const char *dataset) {
    return !strcmp(r->name, name) && (!protocol || !strcmp(r->protocol, protocol)) &&
           (!dataset || !strcmp(r->dataset, dataset));
}

const qb_row *qb_rows_find(const qb_row_case *c, const char *name, const char *protocol,
                           const char *dataset) {
    for (int i = 0; i < c->n_rows; i++)
        if (is_row(&c->rows[i], name, protocol, dataset)) return &c->rows[i];
    return NULL;
}

const qb_row *qb_rows_find_ok(const qb_row_case *c, const char *name, const char *protocol,
                              const char *dataset) {
    const qb_row *r = qb_rows_find(c, name, protocol, dataset);
    return r && r->status == QB_ROW_OK && !isnan(r->value) ? r : NULL;
}

double qb_rows_value(const qb_row_case *c, const char *name) {
    const qb_row *r = qb_rows_find_ok(c, name, NULL, NULL);
    return r ? r->value : (double)NAN;
}

const qb_row_case *qb_rows_case(const qb_rows *rows, const qb_row_document *document, const char *id) {
    for (int i = 0; i < rows->n_cases; i++)
        if (rows->cases[i].document == document && !strcmp(rows->cases[i].id, id)) return &rows->cases[i];
    return NULL;
}

double qb_row_spread(const qb_row *r) {
    double sd = isnan(r->sd) ? qb_stddev(r->samples, r->n_samples) : r->sd;
    return r->n > 1 || r->n_samples > 1 ? sd / fabs(r->value)
                                        : (double)NAN; /* a comparison with NaN is false */
}

bool qb_row_is_noisy(const qb_row *r) {
    return r->status == QB_ROW_OK && (r->noise_told ? r->noisy : qb_row_spread(r) > QB_NOISY);
}

qb_judge qb_row_judge(const qb_row *r) {
    size_t n = strlen(r->unit);
    if (r->metric) return r->metric->judge;
    if (!strcmp(r->unit, "s") || !strcmp(r->unit, "ms") || (n > 2 && !strcmp(r->unit + n - 2, "/s")))
        return QB_JUDGE_TIME;
    if (!strcmp(r->unit, "B") || !strcmp(r->unit, "bit")) return QB_JUDGE_SIZE;
    return isnan(r->value) && r->sha256 ? QB_JUDGE_HASH : QB_JUDGE_QUALITY;
}

const char *qb_rows_protocol(const qb_rows *rows, const char *name, const char *preferred) {
    const char *first = NULL;
    for (int i = 0; i < rows->n_rows; i++) {
        const qb_row *r = &rows->rows[i];
        if (strcmp(r->name, name) != 0 || r->status != QB_ROW_OK) continue;
        if (preferred && !strcmp(r->protocol, preferred)) return r->protocol;
        if (!first) first = r->protocol;
    }
    return first;
}

const char *qb_rows_headline(const qb_rows *rows, const char *name) {
    return qb_rows_protocol(rows, name, !strcmp(name, "decode") ? "tg128@d0 b1" : "pp512 b1");
}
