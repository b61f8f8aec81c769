#include "bench/run/origin.h"

#include "bench/measure/display.h"
#include "bench/run/casework.h"
#include "bench/run/merged.h"

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

/* The model that the suite says it was made from; NULL where it is in no case of this run. */
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
        *why = base ? "the model that it was made from is in no case of this run"
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
