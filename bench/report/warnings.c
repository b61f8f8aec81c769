#include "bench/report/report.h"
#include "results/ceilings.h"
#include "results/text.h"
#include "results/twins.h"

#include <inttypes.h>
#include <string.h>

enum { REASON_COLUMNS = 200 };

static qb_status missing(const qb_rows *rows, qb_arena *arena, qb_sentences *out) {
    qb_status st = QB_OK;
    for (int i = 0; i < rows->n_documents && st == QB_OK; i++) {
        const qb_row_document *d = &rows->documents[i];
        qb_str text = {0};
        if (!d->unmeasured) continue;
        qb_str_printf(&text, "%s: %" PRId64 " planned case%s missing, the run ended before:", d->name,
                      d->unmeasured, d->unmeasured == 1 ? " is" : "s are");
        for (int k = 0, put = 0; k < d->n_planned && put < 6; k++) {
            if (qb_rows_case(rows, d, d->planned[k])) continue;
            qb_str_text(&text, put++ ? ", " : " ");
            qb_text_clean(d->planned[k], 60, &text);
        }
        st = qb_sentences_add(out, arena, &text);
    }
    return st;
}

static const char *const status_words[] = {"ok", "skipped", "failed"};

/* Cases of one model and fate, with the first one's reason; all reasons stand below the table. */
static qb_status lost_cases(const qb_rows *rows, qb_arena *arena, qb_sentences *out) {
    qb_status st = QB_OK;
    for (int i = 0; i < rows->n_cases && st == QB_OK; i++) {
        const qb_row_case *c = &rows->cases[i];
        int n = 0, before = 0;
        qb_str names = {0}, text = {0};
        if (c->status == QB_ROW_OK) continue;
        for (int k = 0; k < rows->n_cases; k++) {
            const qb_row_case *other = &rows->cases[k];
            if (other->status != c->status || strcmp(other->model, c->model) != 0 ||
                other->document != c->document)
                continue;
            before += k < i;
            if (n++ < 8) qb_str_printf(&names, "%s%s", n > 1 ? ", " : "", other->label);
        }
        if (!before) {
            qb_text_clean(c->model, 60, &text);
            qb_str_printf(&text, ": %d case%s %s (%s%s): ", n, n == 1 ? "" : "s", status_words[c->status],
                          qb_str_get(&names), n > 8 ? ", .." : "");
            qb_text_clean(c->error, REASON_COLUMNS, &text);
        }
        text.failed |= names.failed;
        qb_str_free(&names);
        st = qb_sentences_add(out, arena, &text);
    }
    return st;
}

/* Rows of measured cases that have no value: each reason once. */
static qb_status lost_rows(const qb_rows *rows, qb_arena *arena, qb_sentences *out) {
    qb_status st = QB_OK;
    for (int i = 0; i < rows->n_rows && st == QB_OK; i++) {
        const qb_row *r = &rows->rows[i];
        qb_str text = {0};
        if (r->status == QB_ROW_OK) continue;
        qb_text_clean(r->name, 40, &text);
        qb_str_printf(&text, " %s: ", status_words[r->status]);
        qb_text_clean(r->error, REASON_COLUMNS, &text);
        st = qb_sentences_add(out, arena, &text);
    }
    return st;
}

static qb_status noise(const qb_rows *rows, qb_arena *arena, qb_sentences *out) {
    enum { SHOWN = 8 };
    qb_status st = QB_OK;
    qb_str text = {0};
    int n = 0;
    for (int i = 0; i < rows->n_rows; i++) {
        const qb_row *r = &rows->rows[i];
        if (!qb_row_is_noisy(r)) continue;
        if (n++ >= SHOWN) continue;
        qb_str_printf(&text, n == 1 ? " (%s %s %s" : ", %s %s %s", r->of->label, r->name, r->protocol);
        if (r->noise) qb_str_text(&text, ": ");
        qb_text_clean(r->noise, REASON_COLUMNS, &text);
    }
    qb_str whole = {0};
    if (n)
        qb_str_printf(&whole, "%d row%s stayed noisy and decide%s nothing%s%s)", n, n == 1 ? "" : "s",
                      n == 1 ? "s" : "", qb_str_get(&text), n > SHOWN ? ", .." : "");
    whole.failed |= text.failed;
    qb_str_free(&text);
    st = qb_sentences_add(out, arena, &whole);
    for (int i = 0; i < rows->n_devices && st == QB_OK; i++) {
        const qb_row_device *d = &rows->devices[i];
        qb_str busy = {0};
        if (d->load_average > d->cores / 2)
            qb_str_printf(&busy, "%s was busy when the run began: load average %.1f on %.0f cores",
                          d->description, d->load_average, d->cores);
        st = qb_sentences_add(out, arena, &busy);
        qb_str drift = {0}, doubt = {0};
        if (st == QB_OK) qb_ceiling_drift_of(d, &drift);
        if (st == QB_OK) st = qb_sentences_add(out, arena, &drift);
        if (st == QB_OK) qb_ceiling_doubt_put(d->description, qb_json_get(d->json, "ceilings"), &doubt);
        if (st == QB_OK) st = qb_sentences_add(out, arena, &doubt);
    }
    return st;
}

/* Cases of one format, which must be equally fast, and are not. */
static qb_status twins(const qb_rows *rows, qb_arena *arena, qb_sentences *out) {
    qb_str lines = {0};
    qb_twins_notes(rows, &lines);
    qb_status st = qb_str_status(&lines);
    for (const char *p = qb_str_get(&lines); *p && st == QB_OK;) {
        size_t n = strcspn(p, "\n");
        qb_str line = {0};
        qb_str_append(&line, p, n);
        st = qb_sentences_add(out, arena, &line);
        p += n + (p[n] == '\n');
    }
    qb_str_free(&lines);
    return st;
}

static qb_status fallbacks(const qb_rows *rows, qb_arena *arena, qb_sentences *out) {
    qb_status st = QB_OK;
    for (int i = 0; i < rows->n_cases && st == QB_OK; i++) {
        const qb_row_case *c = &rows->cases[i];
        const qb_row_module *first = NULL;
        int n = 0;
        for (int k = 0; k < c->n_modules; k++) {
            if (!c->modules[k].fallback) continue;
            first = first ? first : &c->modules[k];
            n++;
        }
        qb_str text = {0};
        if (n)
            qb_str_printf(&text, "%s: %d of %d matrices fell back to %s, the first is ", c->label, n,
                          c->n_modules, first->fallback);
        qb_text_clean(first ? first->name : NULL, 80, &text);
        st = qb_sentences_add(out, arena, &text);
        for (int k = 0; k < c->n_warnings && st == QB_OK; k++) {
            qb_str warning = {0};
            qb_str_printf(&warning, "%s: ", c->label);
            qb_text_clean(c->warnings[k], REASON_COLUMNS, &warning);
            st = qb_sentences_add(out, arena, &warning);
        }
    }
    return st;
}

static qb_status parts(const qb_rows *rows, qb_arena *arena, qb_sentences *out) {
    qb_status st = QB_OK;
    for (int i = 0; i < rows->n_rows && st == QB_OK; i++) {
        const qb_row *r = &rows->rows[i];
        qb_str text = {0};
        if (!(r->part < 1)) continue;
        qb_str_printf(&text, "%s: only the first %.2g %% of %s were read under %s; no figure for the whole",
                      r->of->document->name, 100 * r->part, r->dataset, r->protocol);
        st = qb_sentences_add(out, arena, &text);
    }
    return st;
}

/* Texts that stand in for others: their figures are comparable with no published one. */
static qb_status substitutes(const qb_rows *rows, qb_arena *arena, qb_sentences *out) {
    qb_status st = QB_OK;
    for (int i = 0; i < rows->n_documents; i++) {
        const qb_json *data = qb_json_get(qb_json_get(rows->documents[i].results->doc, "context"), "data");
        for (const qb_json *f = qb_json_first(data); f && st == QB_OK; f = qb_json_next(f)) {
            const char *note = qb_json_string(qb_json_get(f, "note"));
            qb_str text = {0};
            if (!note) continue;
            qb_text_clean(qb_json_string(qb_json_get(f, "dataset")), 60, &text);
            qb_str_text(&text, ": ");
            qb_text_clean(note, REASON_COLUMNS, &text);
            st = qb_sentences_add(out, arena, &text);
        }
    }
    return st;
}

qb_status qb_report_warnings(const qb_rows *rows, qb_arena *arena, qb_sentences *out) {
    static qb_status (*const makers[])(const qb_rows *, qb_arena *, qb_sentences *) = {
        missing, lost_cases, lost_rows, noise, twins, fallbacks, parts, substitutes};
    qb_status st = QB_OK;
    for (size_t i = 0; i < sizeof makers / sizeof makers[0] && st == QB_OK; i++)
        st = makers[i](rows, arena, out);
    return st;
}
