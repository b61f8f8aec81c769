#include "bench/run/subject.h"

#include "base/log.h"
#include "base/memory.h"
#include "bench/run/identity.h"
#include "bench/run/merged.h"
#include "bench/session.h"
#include "quant/driver.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

void qb_subject_free(qb_subject *s) {
    for (size_t i = 0; i < s->n_scorings; i++) qb_scoring_free(&s->scorings[i]);
    for (size_t i = 0; i < s->n_calibrations; i++) qb_windows_free(&s->calibrations[i].windows);
    qb_free(s->scorings);
    qb_free(s->calibrations);
    qb_windows_free(&s->prompts);
    qb_model_close(s->model);
    qb_free(s->spec);
    if (s->merged) qb_merged_close(s->merged);
    qb_free(s->merged);
    *s = (qb_subject){0};
}

/* ---- perplexity texts ---- */

static void skip_scoring(qb_scoring *s, const char *dataset, const char *protocol) {
    *s = (qb_scoring){.floor = (double)NAN};
    qb_protocol p;
    snprintf(s->dataset, sizeof s->dataset, "%.63s", dataset);
    snprintf(s->protocol, sizeof s->protocol, "%s",
             qb_protocol_parse(protocol, &p) == QB_OK ? p.name : protocol);
    snprintf(s->skipped, sizeof s->skipped,
             "the weights are random (--synthetic): a perplexity of them would mean nothing");
}

static qb_status open_scorings(const qb_subject_request *r, const qb_tokenizer *t, qb_subject *s) {
    const qb_suite *suite = r->suite;
    if (!(qb_suite_needs(suite) & QB_METRIC_WINDOWS)) return QB_OK;
    size_t n = (size_t)suite->datasets.n * (size_t)suite->protocols.n;
    qb_dataset_label labels[QB_NAMES_MAX];
    qb_status st = qb_dataset_labels(suite->datasets.items, suite->datasets.n, labels);
    if (st == QB_OK) st = qb_alloc_zero(n, sizeof *s->scorings, &s->scorings);
    for (int d = 0; st == QB_OK && d < suite->datasets.n; d++)
        for (int p = 0; st == QB_OK && p < suite->protocols.n; p++) {
            const char *dataset = suite->datasets.items[d], *protocol = suite->protocols.items[p];
            qb_scoring *scoring = &s->scorings[s->n_scorings++];
            if (s->synthetic)
                skip_scoring(scoring, labels[d], protocol);
            else
                st = qb_scoring_open(&(qb_scoring_request){.dataset = dataset,
                                                           .label = labels[d],
                                                           .protocol = protocol,
                                                           .data_dir = r->data_dir,
                                                           .special_tokens = suite->config.special_tokens,
                                                           .tokenizer = t,
                                                           .model = s->model,
                                                           .max_windows = suite->config.max_windows,
                                                           .data = r->data},
                                     scoring);
        }
    return st;
}

/* ---- calibration ---- */

/* A method that has no such option reads as the tokenizer's file does. */
static const char *rule_of(const qb_quant_config *q) {
    return q->special_tokens ? q->special_tokens : qb_special_tokens_name(QB_SPECIAL_FILE);
}

static bool same_calibration(const qb_calibration_windows *c, const qb_quant_config *q) {
    return !strcmp(c->dataset, q->calibration) && c->samples == q->samples && c->seqlen == q->seqlen &&
           c->seed == q->seed && !strcmp(c->special_tokens, rule_of(q));
}

const qb_windows *qb_subject_calibration(const qb_subject *s, const qb_variant *v) {
    if (!v->method || !v->method->needs) return NULL;
    for (size_t i = 0; i < s->n_calibrations; i++)
        if (same_calibration(&s->calibrations[i], &v->config)) return &s->calibrations[i].windows;
    return NULL;
}

static qb_status check_calibration(const qb_subject *s, const qb_variant *v) {
    const qb_quant_config *q = &v->config;
    int64_t room = s->model->config.max_positions;
    if (!v->method || !v->method->needs || q->seqlen <= room) return QB_OK;
    return qb_fail(QB_ERR_USAGE,
                   "%s calibrates on windows of %" PRId64 " tokens, but %s has %" PRId64
                   " positions; try --set seqlen=%" PRId64,
                   v->label, q->seqlen, s->model->name, room, room);
}

static qb_status open_calibration(const qb_subject_request *r, const qb_tokenizer *t, const qb_variant *v,
                                  qb_subject *s) {
    const qb_quant_config *q = &v->config;
    const qb_config *c = &s->model->config;
    if (!v->method || !v->method->needs || qb_subject_calibration(s, v)) return QB_OK;
    if (!q->calibration) return qb_fail(QB_ERR_USAGE, "%s needs a calibration dataset", v->label);
    qb_status st =
        qb_grow(&s->calibrations, &s->calibrations_capacity, s->n_calibrations + 1, sizeof *s->calibrations);
    if (st != QB_OK) return st;
    qb_calibration_windows *k = &s->calibrations[s->n_calibrations];
    *k = (qb_calibration_windows){q->calibration, rule_of(q), q->samples, q->seqlen, q->seed, {0}};
    qb_data_files files = {0};
    qb_source source = {q->calibration, r->data_dir, t, QB_SPECIAL_FILE};
    if ((st = qb_special_tokens_parse(rule_of(q), &source.special)) != QB_OK) return st;
    if (s->synthetic)
        st = qb_random_windows(c->vocab, q->samples, q->seqlen,
                               (uint64_t)(q->seed + r->suite->config.synthetic_seed), &k->windows);
    else
        st = qb_dataset_calibration(&source, q->samples, q->seqlen, (uint64_t)q->seed, &k->windows, &files,
                                    NULL, NULL);
    if (st != QB_OK) return qb_fail_prefix(st, "calibration of %s", v->label);
    s->n_calibrations++;
    qb_data_files_add(r->data, q->calibration, &files);
    return QB_OK;
}

/* ---- the methods against this model's shapes ---- */

static qb_status check_variant(const qb_subject *s, const qb_variant *v) {
    if (!v->method) return QB_OK;
    const qb_quantization *q = qb_checkpoint_quantization(s->model->checkpoint);
    if (q && q->method[0])
        return qb_fail(
            QB_ERR_USAGE,
            "%s is quantized already (%s, %d bits), and %s starts from unquantized weights; {\"method\": "
            "\"none\"} measures the model as it is",
            s->model->name, q->method, q->bits, v->label);
    qb_quant_plan plan;
    qb_status st = qb_quant_plan_make(s->model, v->method, &v->config, &plan);
    return st == QB_OK ? st : qb_fail_prefix(st, "%s", v->label);
}

/* A method that cannot serve this model is that case's affair: the others are measured. What is missing or
   broken in files and memory ends the run. */
static qb_status open_for_case(const qb_subject_request *r, const qb_tokenizer *t, qb_case *c,
                               qb_subject *s) {
    qb_status st = check_variant(s, c->variant);
    if (st == QB_OK && (st = check_calibration(s, c->variant)) != QB_OK && r->suite->models.n == 1)
        return st; /* an option that the one model has no room for is a mistake, and easily mended */
    if (st == QB_OK) return open_calibration(r, t, c->variant, s);
    if (st != QB_ERR_USAGE && st != QB_ERR_UNSUPPORTED) return st;
    snprintf(c->skipped, sizeof c->skipped, "%s", qb_error_text());
    return QB_OK;
}

static qb_status open_for_cases(const qb_subject_request *r, const qb_tokenizer *t, qb_subject *s) {
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < r->cases->count; i++)
        if (!strcmp(r->cases->items[i].model, s->word)) st = open_for_case(r, t, &r->cases->items[i], s);
    return st;
}

/* Speeds that the model has no positions for would fail in every case alike. */
static qb_status check_speed(const qb_suite *suite, const qb_model *m) {
    int64_t most = qb_speed_positions(&suite->speed);
    if (!qb_suite_measures(suite, "speed")) return QB_OK;
    if (most <= m->config.max_positions) return QB_OK;
    return qb_fail(QB_ERR_USAGE,
                   "the speed rows need %" PRId64 " positions, but %s has %" PRId64
                   "; try --set prefill=%" PRId64 " --set decode=%" PRId64,
                   most, m->name, m->config.max_positions, m->config.max_positions / 2,
                   m->config.max_positions / 4);
}

/* ---- opening ---- */

/* The model that the word stands for: merged first where it has an adapter, and then called by both names. */
static qb_status open_model(const qb_subject_request *r, qb_subject *s) {
    qb_status st;
    s->adapted = qb_suite_adapted(r->suite, s->word);
    if (!s->adapted) {
        QB_TRY(st, qb_session_spec(s->word, r->synthetic, &s->spec));
        s->synthetic = qb_spec_is_synthetic(s->spec);
        QB_TRY(st, qb_model_open(s->spec, &s->model));
        st = qb_model_check_whole(s->model);
        goto out;
    }
    if (r->synthetic || qb_spec_is_synthetic(s->adapted->path))
        return qb_fail(QB_ERR_USAGE,
                       "%s has an adapter, and random weights have none: leave --synthetic out, or choose "
                       "another model with --model",
                       s->word);
    char base[96], adapter[96];
    qb_merged_request request = {s->adapted->path, s->adapted->adapter_path, r->cache, r->threads};
    QB_TRY(st, qb_alloc_zero(1, sizeof *s->merged, &s->merged));
    QB_TRY(st, qb_merged_open(&request, s->merged));
    if (!(s->spec = qb_strdup(s->merged->supply.dir))) return qb_fail(QB_ERR_MEMORY, "out of memory");
    QB_TRY(st, qb_model_open(s->spec, &s->model));
    qb_model_label(s->adapted->path, base);
    qb_model_label(s->adapted->adapter_path, adapter);
    snprintf(s->model->name, sizeof s->model->name, "%s+%s", base, adapter);
out:
    return st;
}

qb_status qb_subject_open(const qb_subject_request *r, const char *word, qb_subject *out) {
    qb_tokenizer *t = NULL;
    qb_status st;
    *out = (qb_subject){.word = word};
    QB_TRY(st, open_model(r, out));
    QB_TRY(st, check_speed(r->suite, out->model));
    if (!out->synthetic) QB_TRY(st, qb_session_tokenizer(out->model, &t));
    QB_TRY(st, open_scorings(r, t, out));
    QB_TRY(st, open_for_cases(r, t, out));
    const char *prompts = r->suite->speed.prompts;
    if (prompts && !out->synthetic && qb_suite_measures(r->suite, "speed"))
        QB_TRY(st, qb_prompts_open(prompts, t, &out->prompts));
out:
    qb_tokenizer_close(t);
    if (st != QB_OK) qb_subject_free(out);
    return st;
}

/* ---- identity ---- */

qb_status qb_subject_identify(qb_subject *s) {
    if (s->merged) {
        memcpy(s->sha256, s->merged->supply.sha256, sizeof s->sha256);
        return QB_OK;
    }
    return qb_identity_of(s->model, s->sha256);
}
