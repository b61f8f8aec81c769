/* bench eval: perplexity of a model as it is found. */
#include "base/log.h"
#include "base/memory.h"
#include "bench/card.h"
#include "bench/command.h"
#include "bench/measure/divergence_text.h"
#include "bench/run/found.h"
#include "bench/run/plan.h"
#include "bench/session.h"
#include "eval/activations.h"
#include "eval/divergence.h"
#include "results/sink.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SCORINGS_MAX = 64 };

typedef struct {
    const char *dataset, *protocol, *data, *special_tokens;
    const char *base;
    int64_t max_windows;
    double memory_gb;
    const char *activations, *format;
    bool dry_run, card;
} eval_options;

static const qb_option rows[] = {
    {"dataset", 0, QB_OPTION_TEXT, offsetof(eval_options, dataset), NULL, 0, 0, NULL, "NAME,NAME",
     "datasets of `bench list datasets`, or your own text or JSON lines files; wikitext2 if none is named, "
     "for "
     "the model demo its own text"},
    {"protocol", 'p', QB_OPTION_TEXT, offsetof(eval_options, protocol), NULL, 0, 0, NULL, "NAME,NAME",
     "how the text is cut and scored; `bench list protocols` explains them. gptq-2048 if none is named, or "
     "gptq-N for a model of fewer positions, N of them"},
    {"max-windows", 0, QB_OPTION_INT, offsetof(eval_options, max_windows), "0", 0, 1e9, NULL, "N",
     "score at most this many windows of each text; 0 takes all. The result says what part of the text that "
     "is"},
    {"base", 'b', QB_OPTION_TEXT, offsetof(eval_options, base), NULL, 0, 0, NULL, "MODEL",
     "measure how far the model is from this one, usually itself unquantized: Kullback-Leibler divergence, "
     "agreement of the likeliest token, ratio of the perplexities"},
    {"special-tokens", 0, QB_OPTION_CHOICE, offsetof(eval_options, special_tokens), "protocol", 0, 0,
     QB_SPECIAL_TOKENS_CHOICES, "RULE", QB_SPECIAL_TOKENS_HELP},
    {"data", 'd', QB_OPTION_TEXT, offsetof(eval_options, data), NULL, 0, 0, NULL, "DIR",
     "where dataset files are looked for first"},
    {"memory-gb", 0, QB_OPTION_REAL, offsetof(eval_options, memory_gb), "0", 0, 1e6, NULL, "GB",
     "memory to use (1 GB = 1e9 bytes); 0 takes what is free. Less than the model needs runs it layer by "
     "layer"},
    {"activations", 0, QB_OPTION_CHOICE, offsetof(eval_options, activations), "f32", 0, 0,
     QB_ACTIVATIONS_CHOICES, "KIND", QB_ACTIVATIONS_HELP},
    {"card", 0, QB_OPTION_BOOL, offsetof(eval_options, card), NULL, 0, 0, NULL, NULL,
     "put the perplexities into the model card (README.md) that quantize or convert wrote beside the "
     "weights"},
    QB_FORMAT_OPTION(eval_options, format),
    {"dry-run", 'n', QB_OPTION_BOOL, offsetof(eval_options, dry_run), NULL, 0, 0, NULL, NULL,
     "check everything, print windows, peak memory and estimated time, measure nothing"},
    {0},
};

static const qb_page page = {
    .name = "eval",
    .summary = "measure the perplexity of a model",
    .synopsis = "eval MODEL [--dataset NAME,NAME] [--protocol NAME,NAME] [--data DIR] [--json]",
    .description = "Scores each dataset under each protocol and prints the perplexity with its standard "
                   "error. A perplexity is\n"
                   "comparable only with those of the same protocol, window, tokenizer and file: the result "
                   "document (--json)\n"
                   "names them all, with hashes of file and ids. Windows that exceed the model's positions "
                   "are refused.\n"
                   "\n"
                   "With --base both models read each window side by side and nothing of it is stored: the "
                   "figures bear the\n"
                   "names of llama.cpp's --kl-divergence, and are of exact logits.\n"
                   "\n"
                   "A model that is larger than memory runs layer by layer over all windows at once.",
    .examples = "bench eval demo --dataset demo --protocol gptq-256\n"
                "bench eval ./Llama-2-7b-hf --dataset wikitext2 --protocol gptq-2048 --data ./data --json\n"
                "bench eval ./llama2-7b-w4 --dataset wikitext2,./notes.txt --protocol strided-1024-512\n"
                "bench eval ./llama2-7b-w4 --base ./Llama-2-7b-hf --protocol llamacpp-512 --max-windows 40",
};

typedef struct {
    char text[512];
    const char *items[SCORINGS_MAX]; /* point into text */
    int n;
} word_list;

static qb_status split(const char *option, const char *words, word_list *out) {
    *out = (word_list){0};
    if (strlen(words) >= sizeof out->text)
        return qb_fail(QB_ERR_USAGE, "--%s is longer than %zu characters", option, sizeof out->text - 1);
    memcpy(out->text, words, strlen(words) + 1);
    for (char *save, *w = strtok_r(out->text, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
        if (out->n == SCORINGS_MAX)
            return qb_fail(QB_ERR_USAGE, "--%s names more than %d", option, SCORINGS_MAX);
        out->items[out->n++] = w;
    }
    return out->n ? QB_OK : qb_fail(QB_ERR_USAGE, "--%s needs at least one name", option);
}

/* What is measured when nobody says it. */
static void fill_defaults(const char *word, const qb_model *m, char protocol[32], eval_options *o) {
    enum { USUAL_WINDOW = 2048 };
    int64_t positions = m->config.max_positions;
    if (!o->dataset) o->dataset = strcmp(word, "demo") ? "wikitext2" : "demo";
    if (o->protocol) return;
    snprintf(protocol, 32, "gptq-%" PRId64, positions < USUAL_WINDOW ? positions : USUAL_WINDOW);
    o->protocol = protocol;
    if (positions < USUAL_WINDOW)
        qb_info("%s has %" PRId64 " positions: scored by %s", m->name, positions, protocol);
}

static qb_status open_scorings(const eval_options *o, const qb_model *m, const qb_tokenizer *t, qb_json *data,
                               qb_scoring *scorings, size_t *n) {
    word_list datasets, protocols;
    qb_dataset_label labels[SCORINGS_MAX];
    qb_status st;
    QB_TRY(st, split("dataset", o->dataset, &datasets));
    QB_TRY(st, split("protocol", o->protocol, &protocols));
    QB_TRY(st, qb_dataset_labels(datasets.items, datasets.n, labels));
    for (int d = 0; d < datasets.n; d++)
        for (int p = 0; p < protocols.n; p++) {
            if (*n == SCORINGS_MAX)
                return qb_fail(QB_ERR_USAGE, "more than %d perplexities at once", SCORINGS_MAX);
            qb_scoring_request request = {.dataset = datasets.items[d],
                                          .label = labels[d],
                                          .protocol = protocols.items[p],
                                          .data_dir = o->data,
                                          .special_tokens = o->special_tokens,
                                          .tokenizer = t,
                                          .model = m,
                                          .max_windows = o->max_windows,
                                          .data = data};
            QB_TRY(st, qb_scoring_open(&request, &scorings[*n]));
            ++*n;
        }
out:
    return st;
}

static void print_perplexity(const qb_row *row) {
    qb_output("perplexity %.4f", row->value);
    if (isfinite(row->stderr_value)) qb_output(" ± %.4f", row->stderr_value);
    qb_output(" (%s, %s, %.0f windows, %.0f tokens scored", row->dataset, row->protocol, row->windows,
              row->scored_tokens);
    if (row->part < 1) qb_output(", %.3g %% of the text", 100 * row->part);
    if (row->special_tokens_found > 0)
        qb_output(", %.0f special tokens in the text read as %s", row->special_tokens_found,
                  row->special_tokens ? row->special_tokens : "");
    if (row->activations) qb_output(", %s activations", row->activations);
    qb_output(")\n");
}

/* The document's rows in words, or its table in another form. */
static qb_status print_result(const qb_results *results, const qb_rows *measured, const char *format,
                              bool as_json) {
    qb_str text = {0};
    qb_status st = QB_OK;
    if (as_json) return qb_output_json(results->doc);
    for (int i = 0; !strcmp(format, "text") && i < measured->n_rows; i++) {
        const qb_row *row = &measured->rows[i];
        if (isnan(row->value)) continue;
        if (!strcmp(row->name, "kl_divergence")) qb_divergence_print(row);
        if (!strcmp(row->name, "perplexity")) print_perplexity(row);
    }
    if (strcmp(format, "text") != 0) st = qb_rows_print(measured, format, &text);
    qb_output_bytes(qb_str_get(&text), text.length);
    qb_str_free(&text);
    return st;
}

static qb_json *eval_config(const eval_options *o) {
    qb_json *j = qb_json_object();
    qb_json_put_int(j, "max_windows", o->max_windows);
    qb_json_put_text(j, "special_tokens", o->special_tokens);
    return j;
}

static void warn_substitutes(const qb_json *data) {
    for (const qb_json *f = qb_json_first(data); f; f = qb_json_next(f)) {
        const char *note = qb_json_string(qb_json_get(f, "note"));
        if (note) qb_warn("%s: %s", qb_json_string(qb_json_get(f, "file")), note);
    }
}

/* What a scoring takes, together with its base where there is one, and the weights that it reads. */
static qb_status make_plan(const eval_options *o, const qb_model *m, const qb_model *base,
                           const qb_scoring *s, qb_perplexity_plan *out, double *weights) {
    int64_t budget = (int64_t)(o->memory_gb * 1e9);
    *weights = (double)(qb_model_weight_bytes(m) + (base ? qb_model_weight_bytes(base) : 0));
    return base ? qb_divergence_plan_make(m, base, &s->windows, budget, out)
                : qb_perplexity_plan_make(m, &s->windows, budget, out);
}

/* One line a scoring, before anything is loaded: what it takes and how it will run. */
static qb_status describe_plan(const eval_options *o, const qb_model *m, const qb_model *base,
                               const qb_scoring *s, const qb_ceilings *ceilings, qb_str *out) {
    qb_perplexity_plan plan;
    double weights;
    char peak[32], time[32];
    qb_status st = make_plan(o, m, base, s, &plan, &weights);
    if (st != QB_OK) return st;
    qb_str_printf(out, "%s, %s: %" PRId64 " windows, ", s->windows.dataset, s->windows.protocol,
                  s->windows.count);
    if (base) qb_str_printf(out, "two models, ");
    if (plan.layer_major)
        qb_str_printf(out, "layer by layer in %" PRId64 " %s", plan.passes,
                      plan.passes == 1 ? "pass" : "passes");
    else
        qb_str_text(out, "all weights held");
    qb_str_printf(out, ", planned peak memory %s",
                  qb_format_bytes((double)(qb_resident_bytes() + plan.peak_bytes), peak));
    if (ceilings)
        qb_str_printf(out, ", about %s",
                      qb_format_seconds(qb_plan_seconds(plan.flops, weights, ceilings), time));
    return QB_OK;
}

static qb_status push_plan(const eval_options *o, const qb_model *m, const qb_model *base,
                           const qb_scoring *s, const qb_ceilings *ceilings, qb_json *all) {
    qb_perplexity_plan plan;
    double weights;
    qb_status st = make_plan(o, m, base, s, &plan, &weights);
    if (st != QB_OK) return st;
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "dataset", s->windows.dataset);
    qb_json_put_text(j, "protocol", s->windows.protocol);
    qb_json_put_int(j, "windows", s->windows.count);
    qb_json_put_bool(j, "layer_major", plan.layer_major);
    qb_json_put_int(j, "peak_bytes", qb_resident_bytes() + plan.peak_bytes);
    qb_json_put_real(j, "flop", plan.flops);
    qb_json_put_real(j, "seconds", qb_plan_seconds(plan.flops, weights, ceilings));
    qb_json_push(all, j);
    return QB_OK;
}

static qb_status print_plans(const eval_options *o, qb_model *m, qb_model *base, const qb_scoring *scorings,
                             size_t n, const qb_compute *compute, bool as_json) {
    qb_device *dev = NULL;
    qb_ceilings ceilings;
    qb_json *all = qb_json_array();
    qb_status st;
    QB_TRY(st, qb_session_device(compute, &dev));
    m->dev = dev; /* plans ask it what memory there is */
    if (base) base->dev = dev;
    QB_TRY(st, dev->backend->ceilings(dev, &ceilings));
    for (size_t i = 0; st == QB_OK && i < n; i++) {
        qb_str line = {0};
        if (as_json)
            st = push_plan(o, m, base, &scorings[i], &ceilings, all);
        else if ((st = describe_plan(o, m, base, &scorings[i], &ceilings, &line)) == QB_OK)
            qb_output("%s\n", qb_str_get(&line));
        qb_str_free(&line);
    }
    if (as_json && st == QB_OK) st = qb_output_json(all);
out:
    qb_json_free(all);
    m->dev = NULL;
    if (base) base->dev = NULL;
    qb_session_close(dev);
    return st;
}

static qb_status announce_plans(const eval_options *o, const qb_model *m, const qb_model *base,
                                const qb_scoring *scorings, size_t n) {
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < n; i++) {
        qb_str line = {0};
        if ((st = describe_plan(o, m, base, &scorings[i], NULL, &line)) == QB_OK)
            qb_info("%s", qb_str_get(&line));
        qb_str_free(&line);
    }
    return st;
}

/* The base reads the ids that the model's tokenizer makes, so its own must make the same. */
static qb_status check_base_ids(const eval_options *o, const qb_model *base, const qb_scoring *scorings,
                                size_t n) {
    qb_tokenizer *t = NULL;
    qb_scoring *own = NULL;
    size_t n_own = 0;
    qb_status st;
    QB_TRY(st, qb_session_tokenizer(base, &t));
    QB_TRY(st, qb_alloc_zero(SCORINGS_MAX, sizeof *own, &own));
    QB_TRY(st, open_scorings(o, base, t, NULL, own, &n_own));
    for (size_t i = 0; st == QB_OK && i < n; i++)
        if (i >= n_own || strcmp(scorings[i].windows.sha256, own[i].windows.sha256) != 0)
            st = qb_fail(QB_ERR_USAGE,
                         "%s: the tokenizer of %s makes other ids of the text: only models of one vocabulary "
                         "are compared token by token",
                         scorings[i].dataset, base->name);
out:
    for (size_t i = 0; i < n_own; i++) qb_scoring_free(&own[i]);
    qb_free(own);
    qb_tokenizer_close(t);
    return st;
}

static qb_status eval_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    eval_options options;
    qb_compute compute;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options},
                            {"COMPUTING", qb_compute_options, &compute},
                            {"COMMON OPTIONS", qb_common_options, &common}};
    const char *word = NULL;
    char protocol[32];
    size_t n_words, n = 0;
    bool done;
    qb_found found = {0};
    qb_tokenizer *t = NULL;
    qb_model *base = NULL;
    qb_scoring *scorings = NULL;
    qb_results results = {0};
    qb_rows measured = {0};
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 3, argc, argv, &word, 1, &n_words, &done));
    if (done) goto out;
    if (!word) return qb_command_missing(&page, "MODEL");
    if (options.card && strcmp(options.activations, "f32"))
        return qb_fail(QB_ERR_USAGE,
                       "--card puts perplexities of float32 activations into the card: leave out "
                       "--activations %s",
                       options.activations);
    if (options.base && options.card)
        return qb_fail(QB_ERR_USAGE, "--card takes perplexities: leave --base away");
    if (options.base && strcmp(options.activations, "f32") != 0)
        return qb_fail(QB_ERR_USAGE,
                       "--base compares models under float32 activations: leave out --activations %s",
                       options.activations);
    QB_TRY(st, qb_session_model(word, false, &found.model));
    fill_defaults(word, found.model, protocol, &options);
    QB_TRY(st, qb_session_tokenizer(found.model, &t));
    QB_TRY(st, qb_alloc_zero(SCORINGS_MAX, sizeof *scorings, &scorings));
    found.data = qb_json_array();
    QB_TRY(st, open_scorings(&options, found.model, t, found.data, scorings, &n));
    warn_substitutes(found.data);
    if (options.base) {

        QB_TRY(st, qb_session_model(options.base, false, &base));
        QB_TRY(st, check_base_ids(&options, base, scorings, n));
        found.base = base;
    }
    qb_tokenizer_close(t);
    t = NULL;
    if (options.dry_run) {
        st = print_plans(&options, found.model, base, scorings, n, &compute, common.json);
        goto out;
    }
    QB_TRY(st, qb_session_device(&compute, &found.dev));
    found.model->dev = found.dev; /* plans ask it what memory there is */
    if (base) base->dev = found.dev;
    QB_TRY(st, announce_plans(&options, found.model, base, scorings, n));
    found.config = eval_config(&options);
    qb_measuring what = {.scorings = scorings,
                         .n_scorings = n,
                         .base = base,
                         .memory_bytes = (int64_t)(options.memory_gb * 1e9),
                         .activations = options.activations};
    st = qb_found_measure(&found, &what, &results);
    if (results.doc) {
        const qb_results *document = &results;
        qb_status shown = qb_rows_read(&document, 1, &measured);
        if (shown == QB_OK) shown = print_result(&results, &measured, options.format, common.json);
        if (st == QB_OK) st = shown;
    }
    if (st == QB_OK && options.card) st = qb_card_put_perplexities(found.model->path, measured.cases);
out:
    qb_rows_free(&measured);
    for (size_t i = 0; i < n; i++) qb_scoring_free(&scorings[i]);
    qb_free(scorings);
    qb_results_close(&results);
    qb_tokenizer_close(t);
    qb_json_free(found.config);
    qb_json_free(found.data);
    qb_model_close(found.model);
    qb_model_close(base);
    qb_session_close(found.dev);
    return st;
}

const qb_command qb_command_eval = {"eval", "measure the perplexity of a model", eval_main};
