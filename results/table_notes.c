/* What stands below a table: everything that a reader must know before comparing two of its figures. */
#include "results/ceilings.h"
#include "results/device.h"
#include "results/paired.h"
#include "results/published.h"
#include "results/table.h"
#include "results/text.h"
#include "results/twins.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { MAX_NOTES = 96, MAX_SEEN = 16 };

/* Keeps a finished sentence, unless it stands there already. Takes the string. */
static qb_status note(qb_table *t, qb_str *text) {
    qb_status st = qb_str_status(text);
    bool known = !text->length || t->n_notes == t->notes_capacity;
    for (int i = 0; i < t->n_notes && !known; i++) known = !strcmp(t->notes[i], qb_str_get(text));
    if (st == QB_OK && !known) {
        st = qb_arena_strdup(&t->arena, qb_str_get(text), &t->notes[t->n_notes]);
        if (st == QB_OK) t->n_notes++;
    }
    qb_str_free(text);
    return st;
}

/* One note a line of `text`. Takes the string. */
static qb_status note_lines(qb_table *t, qb_str *text) {
    qb_status st = qb_str_status(text);
    for (const char *p = qb_str_get(text); *p && st == QB_OK;) {
        size_t n = strcspn(p, "\n");
        qb_str line = {0};
        qb_str_append(&line, p, n);
        st = note(t, &line);
        p += n + (p[n] == '\n');
    }
    qb_str_free(text);
    return st;
}

/* Which documents stand here, when they are several. */
static qb_status documents(qb_table *t) {
    qb_status st = QB_OK;
    for (int i = 0; t->rows->n_documents > 1 && i < t->rows->n_documents && st == QB_OK; i++) {
        const qb_row_document *d = &t->rows->documents[i];
        qb_str text = {0};
        qb_str_printf(&text, "%s: %s, program ", d->name, d->created);
        qb_text_clean(d->version, 20, &text);
        if (*d->git) qb_str_text(&text, " ");
        qb_text_clean(d->git, 16, &text);
        for (int k = 0; k < t->rows->n_devices; k++)
            if (t->rows->devices[k].document == d)
                qb_str_printf(&text, ", %s", t->rows->devices[k].description);
        st = note(t, &text);
    }
    return st;
}

static qb_status unmeasured(qb_table *t) {
    qb_status st = QB_OK;
    for (int i = 0; i < t->rows->n_documents && st == QB_OK; i++) {
        const qb_row_document *d = &t->rows->documents[i];
        qb_str text = {0};
        if (t->rows->n_documents > 1) qb_str_printf(&text, "%s: ", d->name);
        if (!d->unmeasured) {
            qb_str_text(&text, "no case was measured");
            if (!qb_json_count(qb_json_get(d->results->doc, "cases")))
                st = note(t, &text);
            else
                qb_str_free(&text);
            continue;
        }
        qb_str_printf(&text, "%" PRId64 " planned case%s missing: the run ended before %s", d->unmeasured,
                      d->unmeasured == 1 ? " is" : "s are", d->unmeasured == 1 ? "it" : "them");
        st = note(t, &text);
    }
    return st;
}

/* Reasons of rows that were not measured, each once. */
static qb_status reasons(qb_table *t) {
    qb_status st = QB_OK;
    int n = t->n_notes;
    for (int i = 0; i < t->rows->n_rows && st == QB_OK && t->n_notes < n + MAX_SEEN; i++) {
        const qb_row *r = &t->rows->rows[i];
        qb_str text = {0};
        if (r->status == QB_ROW_OK) continue;
        qb_text_clean(r->name, 40, &text);
        qb_str_text(&text, r->status == QB_ROW_SKIPPED ? " skipped: " : " failed: ");
        qb_text_clean(r->error, QB_REASON_COLUMNS, &text);
        st = note(t, &text);
    }
    return st;
}

/* The least part of a column's text that rows of a document read. */
static double part_of(const qb_table *t, const qb_table_column *col, const qb_row_document *d) {
    double part = 1;
    for (int k = 0; k < t->rows->n_cases; k++) {
        const qb_row_case *c = &t->rows->cases[k];
        const qb_row *r = qb_rows_find(c, col->metric->name, col->protocol, col->dataset);
        if (r && c->document == d) part = fmin(part, r->part);
    }
    return part;
}

/* Texts of which only a part was read. */
static qb_status texts(qb_table *t) {
    qb_status st = QB_OK;
    for (int i = 0; i < t->n_columns * t->rows->n_documents && st == QB_OK; i++) {
        const qb_table_column *col = &t->columns[i / t->rows->n_documents];
        const qb_row_document *d = &t->rows->documents[i % t->rows->n_documents];
        qb_str text = {0};
        if (!col->metric || !(col->metric->needs & QB_METRIC_WINDOWS)) continue;
        double part = part_of(t, col, d);
        if (part >= 1) continue;
        if (t->rows->n_documents > 1) qb_str_printf(&text, "%s: ", d->name);
        qb_str_printf(&text, "%s on ", col->metric->name);
        qb_text_clean(col->dataset, 40, &text);
        qb_str_text(&text, ", ");
        qb_text_clean(col->protocol, 40, &text);
        qb_str_printf(&text, ": only the first %.2g %% of the text; not comparable with the whole",
                      100 * part);
        st = note(t, &text);
    }
    return st;
}

/* Columns where a row has too few windows for the error that the others show. */
static qb_status few_windows(qb_table *t) {
    qb_status st = QB_OK;
    for (int i = 0; i < t->n_columns && st == QB_OK; i++) {
        const qb_table_column *col = &t->columns[i];
        double least = (double)INFINITY;
        for (int k = 0; col->metric && k < t->rows->n_cases; k++) {
            const qb_row *r =
                qb_rows_find(&t->rows->cases[k], col->metric->name, col->protocol, col->dataset);
            if (r && r->few_windows) least = fmin(least, r->windows);
        }
        qb_str text = {0};
        if (!isfinite(least)) continue;
        qb_str_printf(&text, "%s on ", col->metric->name);
        qb_text_clean(col->dataset, 40, &text);
        qb_str_text(&text, ", ");
        qb_text_clean(col->protocol, 40, &text);
        qb_str_printf(&text, ": %.0f window%s too few for a standard error", least,
                      least > 1 ? "s are" : " is");
        st = note(t, &text);
    }
    return st;
}

/* What neighbours in quality differ by, window by window. */
static qb_status pairs(qb_table *t) {
    qb_status st = QB_OK;
    for (int i = 0; i < t->n_columns && st == QB_OK; i++) {
        const qb_table_column *col = &t->columns[i];
        qb_str lines = {0};
        if (!col->metric || strcmp(col->metric->name, "perplexity") != 0) continue;
        qb_paired_notes(t->rows, col->dataset, col->protocol, "", &lines);
        st = note_lines(t, &lines);
    }
    return st;
}

/* What divergences were measured from. */
static qb_status bases(qb_table *t) {
    qb_status st = QB_OK;
    int n = t->n_notes;
    for (int i = 0; i < t->rows->n_rows && st == QB_OK && t->n_notes < n + 4; i++) {
        const qb_row *r = &t->rows->rows[i];
        qb_str text = {0};
        if (r->status != QB_ROW_OK || !r->base) continue;
        qb_str_printf(&text, "%s is measured from ", r->name);
        qb_text_clean(r->base, 60, &text);
        qb_str_text(&text, ", token by token over the same windows; its error takes tokens as independent");
        st = note(t, &text);
    }
    return st;
}

/* What the sign before a figure means, and each warning that the projected cases carry once. */
static qb_status projections(qb_table *t) {
    qb_status st = QB_OK;
    for (int i = 0; i < t->rows->n_cases && st == QB_OK; i++) {
        const qb_row_case *c = &t->rows->cases[i];
        qb_str text = {0};
        if (!c->projected_on) continue;
        qb_str_text(&text, "~ projected, not measured: the device's datasheet times the share of its ceiling "
                           "that the measured row reached; quality and sizes as measured");
        st = note(t, &text);
        for (int k = 0; k < c->n_warnings && k < 8 && st == QB_OK; k++) {
            qb_str warning = {0};
            qb_str_text(&warning, "~ ");
            qb_text_clean(c->warnings[k], QB_REASON_COLUMNS, &warning);
            st = note(t, &warning);
        }
    }
    return st;
}

/* Rows that stayed noisy. */
static qb_status noise(qb_table *t) {
    const qb_row *widest = NULL;
    for (int i = 0; i < t->n_columns; i++)
        for (int k = 0; k < t->rows->n_cases; k++) {
            const qb_table_column *col = &t->columns[i];
            if (!col->metric || !qb_table_at(t, k, i)->noisy) continue;
            const qb_row *r = qb_rows_find(&t->rows->cases[k], col->metric->name, col->protocol, NULL);
            if (!widest || qb_row_spread(r) > qb_row_spread(widest)) widest = r;
        }
    qb_str text = {0};
    if (!widest) return QB_OK;
    qb_str_text(&text, "! stayed noisy: no speed to compare with");
    if (isfinite(widest->min) && isfinite(widest->max)) {
        qb_str_text(&text, " (the widest from ");
        qb_text_figure(widest->min, 4, &text);
        qb_str_text(&text, " to ");
        qb_text_figure(widest->max, 4, &text);
        qb_str_printf(&text, " %s)", widest->unit);
    }
    return note(t, &text);
}

/* Cases that must be equally fast and are not. */
static qb_status twins(qb_table *t) {
    qb_str lines = {0};
    qb_twins_notes(t->rows, &lines);
    return note_lines(t, &lines);
}

/* What else went on beside the measurement. */
static qb_status load(qb_table *t) {
    bool speeds = false;
    qb_status st = QB_OK;
    for (int i = 0; i < t->n_columns; i++)
        speeds |= t->columns[i].metric && t->columns[i].metric->format == QB_FORMAT_SPEED;
    for (int i = 0; speeds && i < t->rows->n_devices && st == QB_OK; i++) {
        const qb_row_device *d = &t->rows->devices[i];
        qb_str text = {0};
        if (!(d->load_average > d->cores / 2)) continue;
        qb_str_printf(&text, "the machine was busy when the run began: load average %.1f on %.0f core%s",
                      d->load_average, d->cores, d->cores == 1 ? "" : "s");
        st = note(t, &text);
    }
    for (int i = 0; speeds && i < t->rows->n_devices && st == QB_OK; i++) {
        qb_str text = {0};
        qb_ceiling_drift_of(&t->rows->devices[i], &text);
        st = note(t, &text);
        if (st != QB_OK) continue;
        qb_ceiling_doubt_put(t->rows->devices[i].description,
                             qb_json_get(t->rows->devices[i].json, "ceilings"), &text);
        st = note(t, &text);
    }
    return st;
}

/* A speed above what the device was measured to reach: each reason once. */
static qb_status shares(qb_table *t) {
    const char *seen[8];
    int n = 0;
    qb_status st = QB_OK;
    for (int i = 0; i < t->rows->n_rows && n < 8 && st == QB_OK; i++) {
        const qb_row *r = &t->rows->rows[i];
        bool known = !r->share_reason || !*r->share_reason;
        qb_str text = {0};
        for (int k = 0; k < n && !known; k++) known = !strcmp(seen[k], r->share_reason);
        if (known) continue;
        seen[n++] = r->share_reason;
        qb_text_clean(r->name, 40, &text);
        qb_str_printf(&text, " reaches %.0f %% of the ceiling: ", 100 * r->share_of_ceiling);
        qb_text_clean(r->share_reason, QB_REASON_COLUMNS, &text);
        st = note(t, &text);
    }
    return st;
}

/* Figures that were not computed with float32 activations alone: how many of each kind. */
static qb_status activations(qb_table *t) {
    const char *seen[4];
    int n = 0, rows[4] = {0};
    qb_status st = QB_OK;
    for (int k = 0; k < t->rows->n_rows; k++) {
        const char *kind = t->rows->rows[k].activations;
        int i = 0;
        if (!kind || !*kind) continue;
        while (i < n && strcmp(seen[i], kind) != 0) i++;
        if (i == 4) continue;
        seen[i] = kind;
        rows[i]++;
        n = i == n ? n + 1 : n;
    }
    for (int i = 0; i < n && st == QB_OK; i++) {
        qb_str text = {0};
        qb_str_printf(&text, "%d speed or quality figure%s with ", rows[i], rows[i] == 1 ? "" : "s");
        qb_text_clean(seen[i], 16, &text);
        qb_str_text(&text, " activations in products with quantized weights; all others with float32");
        st = note(t, &text);
    }
    return st;
}

/* What others published of the same model, text and method. */
static qb_status published(qb_table *t) {
    qb_str lines = {0};
    qb_published_notes(t->rows, "", false, &lines);
    return note_lines(t, &lines);
}

static qb_status floors(qb_table *t) {
    for (int i = 0; i < t->rows->n_rows; i++) {
        const qb_row *r = &t->rows->rows[i];
        qb_str text = {0};
        if (isnan(r->floor)) continue;
        qb_str_printf(&text, "entropy of the text: no model can pass perplexity %.*f on ",
                      qb_decimals_of(r->floor), r->floor);
        qb_text_clean(r->dataset, 40, &text);
        return note(t, &text);
    }
    return QB_OK;
}

qb_status qb_table_take_notes(qb_table *t) {
    static qb_status (*const makers[])(qb_table *) = {
        documents, unmeasured, reasons, texts,  few_windows, pairs,     bases, projections,
        noise,     twins,      load,    shares, activations, published, floors};
    t->notes_capacity = MAX_NOTES;
    qb_status st = qb_arena_alloc(&t->arena, MAX_NOTES, sizeof *t->notes, &t->notes);
    for (size_t i = 0; i < sizeof makers / sizeof makers[0] && st == QB_OK; i++) st = makers[i](t);
    return st;
}
