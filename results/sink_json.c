/* Every row of every case, flat: {"schema":"qb.rows/1","rows":[...],"notes":[...]}. */
#include "results/sink.h"

#include <math.h>

static void put_text(qb_json *j, const char *key, const char *text) {
    qb_json_put_text(j, key, text && *text ? text : NULL);
}

static qb_json *row_json(const qb_row *r) {
    static const char *const status[] = {"ok", "skipped", "failed"};
    const qb_row_case *c = r->of;
    qb_json *j = qb_json_object(), *samples = qb_json_array();
    put_text(j, "result", c->document->name);
    put_text(j, "case", c->id);
    put_text(j, "model", c->model);
    put_text(j, "label", c->label);
    put_text(j, "series", c->series);
    put_text(j, "method", c->method);
    qb_json_put_real(j, "bits_per_weight", c->bits_per_weight);
    qb_json_put_real(j, "checkpoint_bytes", c->checkpoint_bytes);
    put_text(j, "device", c->device ? c->device->description : NULL);
    put_text(j, "projected_on", c->projected_on);
    put_text(j, "metric", r->name);
    put_text(j, "dataset", r->dataset);
    put_text(j, "protocol", r->protocol);
    put_text(j, "unit", r->unit);
    qb_json_put_text(j, "better", r->higher_is_better ? "higher" : "lower");
    put_text(j, "status", status[r->status]);
    put_text(j, "error", r->error);
    qb_json_put_real(j, "value", r->value);
    qb_json_put_real(j, "stderr", r->stderr_value);
    qb_json_put_real(j, "sd", r->sd);
    qb_json_put_int(j, "n", r->n);
    put_text(j, "sha256", r->sha256);
    put_text(j, "activations", r->activations);
    for (int i = 0; i < r->n_samples; i++) qb_json_push_real(samples, r->samples[i]);
    qb_json_put(j, "samples", samples);
    return j;
}

static qb_status write_json(const qb_table *t, qb_str *out) {
    qb_json *doc = qb_json_object(), *rows = qb_json_array(), *notes = qb_json_array();
    char *text = NULL;
    qb_json_put_text(doc, "schema", "qb.rows/1");
    qb_json_put_text(doc, "title", t->title);
    for (int i = 0; i < t->rows->n_rows; i++) qb_json_push(rows, row_json(&t->rows->rows[i]));
    for (int i = 0; i < t->n_notes; i++) qb_json_push_text(notes, t->notes[i]);
    qb_json_put(doc, "rows", rows);
    qb_json_put(doc, "notes", notes);
    qb_status st = qb_json_print(doc, true, &text);
    if (st == QB_OK) qb_str_text(out, text);
    qb_free(text);
    qb_json_free(doc);
    return st == QB_OK ? qb_str_status(out) : st;
}

const qb_sink qb_sink_json = {"json", ".json", "every row of every case, flat", write_json};
