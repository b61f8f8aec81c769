#include "bench/run/origin.h"

#include "base/log.h"
#include "bench/measure/display.h"
#include "bench/run/casework.h"
#include "bench/run/merged.h"
#include "bench/session.h"

#include <string.h>

static bool is_quantized(const qb_subject *s) {
    const qb_quantization *q = qb_checkpoint_quantization(s->model->checkpoint);
    return q && q->method[0];
}

static bool same_shapes(const qb_config *a, const qb_config *b) {
    return a->hidden == b->hidden && a->n_layers == b->n_layers && a->vocab == b->vocab &&
           !strcmp(a->architecture, b->architecture);
}

/* Whether base and subject read the same ids of every text. */
static bool same_ids(const qb_subject *a, const qb_subject *b) {
    for (size_t i = 0; i < a->n_scorings; i++)
        if (i >= b->n_scorings || strcmp(a->scorings[i].windows.sha256, b->scorings[i].windows.sha256) != 0)
            return false;
    return true;
}

static const qb_suite_model *entry_of(const qb_run *run, const qb_subject *s) {
    static const qb_suite_model none = {0};
    int i = qb_suite_model_find(&run->suite, s->word);
    return i >= 0 ? &run->suite.model_entries[i] : &none;
}

/* The model that the suite says it was made from; NULL where it is not open in this run. */
static const qb_subject *find_said(const qb_run *run, const char *base) {
    int wanted = qb_suite_model_find(&run->suite, base);
    for (size_t i = 0; wanted >= 0 && i < run->n_subjects; i++)
        if (!strcmp(run->subjects[i].word, run->suite.models.items[wanted])) return &run->subjects[i];
    return NULL;
}

/* The model that a quantized one says it was made from, or the only one that it can have been: none that an
   adapter was merged into, it was made of this one as likely. */
static const qb_subject *find_origin(const qb_run *run, const qb_subject *s, const char **why) {
    const qb_subject *found = NULL;
    const char *base = entry_of(run, s)->base;
    if (base) found = find_said(run, base);
    for (size_t i = 0; !base && i < run->n_subjects; i++) {
        const qb_subject *other = &run->subjects[i];
        if (is_quantized(other) || other->merged || !same_shapes(&s->model->config, &other->model->config))
            continue;
        if (found) {
            *why = "the suite has several unquantized models of its shapes: \"base\" says which one it was "
                   "made from";
            return NULL;
        }
        found = other;
    }
    if (!found)
        *why = base ? "the model that it was made from could not be opened"
                    : "it came quantized, and the suite has no unquantized model of its shapes to measure it "
                      "from";
    return found;
}

const qb_subject *qb_case_base(const qb_run *run, const qb_case *c, const char **why) {
    const qb_subject *s = qb_case_subject(run, c);
    *why = NULL;
    if (c->variant->method) return s;
    if (!is_quantized(s)) return NULL; /* it is itself what the others are measured from */
    const qb_subject *base = find_origin(run, s, why);
    if (base && !same_ids(s, base))
        *why = "its tokenizer makes other ids of the text than its unquantized model's: only models of one "
               "vocabulary are compared token by token";
    return *why ? NULL : base;
}

const char *qb_run_model_name(const qb_run *run, const qb_subject *s) {
    const char *label = entry_of(run, s)->label;
    return label ? label : s->model->name;
}

/* ---- models that no case of the run measures ---- */

static bool is_open(const qb_run *run, const char *word) {
    for (size_t i = 0; i < run->n_subjects; i++)
        if (!strcmp(run->subjects[i].word, word)) return true;
    return false;
}

/* What the subject can have been made from, told by opening the model's headers alone; nothing is read of one
   that cannot. */
static qb_status look(const qb_subject_request *r, const char *word, const qb_subject *s, bool *fits) {
    qb_subject other = {.word = word};
    qb_status st;
    *fits = false;
    QB_TRY(st, qb_session_spec(word, r->synthetic, &other.spec));
    QB_TRY(st, qb_model_open(other.spec, &other.model));
    *fits = !is_quantized(&other) && same_shapes(&s->model->config, &other.model->config);
out:
    qb_subject_free(&other);
    return st;
}

static void open_origin(qb_run *run, const qb_subject_request *r, const qb_subject *s, const char *word) {
    bool said = entry_of(run, s)->base != NULL, fits = said;
    qb_status st = said ? QB_OK : look(r, word, s, &fits);
    if (st == QB_OK && fits) {
        st = qb_subject_open(r, word, &run->subjects[run->n_subjects]);
        if (st == QB_OK) run->n_subjects++;
    }
    if (st != QB_OK)
        qb_warn(
            "%s, which no case of this run measures, cannot be opened, so nothing is measured from it: %s",
            word, qb_error_text());
}

void qb_run_open_origins(qb_run *run, const qb_subject_request *request) {
    const qb_suite *suite = &run->suite;
    bool tried[QB_NAMES_MAX] = {false};
    if (!qb_suite_measures(suite, "divergence")) return;
    for (size_t i = 0; i < run->cases.count; i++) {
        const qb_case *c = &run->cases.items[i];
        const qb_subject *s = qb_case_subject(run, c);
        if (c->variant->method || !is_quantized(s)) continue;
        const char *base = entry_of(run, s)->base;
        int wanted = base ? qb_suite_model_find(suite, base) : -1;
        for (int m = 0; m < suite->models.n; m++) {
            const char *word = suite->models.items[m];
            bool may = base ? m == wanted : !qb_suite_adapted(suite, word);
            if (!may || tried[m] || is_open(run, word)) continue;
            tried[m] = base != NULL; /* another one's shapes may fit */
            open_origin(run, request, s, word);
        }
    }
}

qb_json *qb_case_display(const qb_run *run, const qb_case *c) {
    const qb_subject *s = qb_case_subject(run, c), *of = NULL;
    const char *base = entry_of(run, s)->base, *why = NULL;
    bool published = !c->variant->method && is_quantized(s);
    if (published)
        of = find_origin(run, s, &why);
    else if (base)
        of = find_said(run, base);
    return qb_display_json(&(qb_display){
        .method = c->variant->method,
        .config = &c->variant->config,
        .found = s->model,
        .own = qb_json_string(qb_json_get(c->variant->entry, "label")),
        .of = qb_run_model_name(run, of ? of : s),
        .whose = of && !published ? qb_run_model_name(run, s) : NULL,
    });
}
