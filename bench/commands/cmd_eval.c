/* bench eval: perplexity of a model as it is found. */
#include "base/log.h"
#include "base/memory.h"
#include "bench/card.h"
#include "bench/command.h"
#include "bench/measure/divergence_text.h"
#include "bench/run/found.h"
#include "bench/run/score_plan.h"
#include "bench/run/several.h"
#include "bench/session.h"
#include "eval/activations.h"
#include "eval/divergence.h"
#include "results/paired.h"
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
    .summary = "measure the perplexity of models",
    .synopsis = "eval MODEL... [--dataset NAME,NAME] [--protocol NAME,NAME] [--data DIR] [--json]",
    .description =
        "Scores each dataset under each protocol and prints the perplexity with its standard "
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
        "A model that is larger than memory runs layer by layer over all windows at once. Several models are "
        "measured\n"
        "one after another, each in a process of its own, into one document.",
    .examples = "bench eval ./Llama-2-7b-hf ./w4-gptq ./w4-nf4 --base ./Llama-2-7b-hf --format markdown\n"
                "bench eval demo --dataset demo --protocol gptq-256\n"
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
    qb_output(" (%s, %s, %.0f window%s%s, %.0f tokens scored", row->dataset, row->protocol, row->windows,
              row->windows > 1 ? "s" : "", row->few_windows ? ", too few for an error" : "",
              row->scored_tokens);
    if (row->part < 1) qb_output(", %.3g %% of the text", 100 * row->part);
    if (row->special_tokens_found > 0)
        qb_output(", %.0f special tokens in the text read as %s", row->special_tokens_found,
                  row->special_tokens ? row->special_tokens : "");
    if (row->activations) qb_output(", %s activations", row->activations);
    qb_output(")\n");
}

/* The cases' rows in words. */
static void print_cases(const qb_rows *measured) {
    for (int k = 0; k < measured->n_cases; k++) {
        const qb_row_case *c = &measured->cases[k];
        if (measured->n_cases > 1) qb_output("%s\n", c->id);
        for (int i = 0; i < c->n_rows; i++) {
            const qb_row *row = &c->rows[i];
            if (isnan(row->value)) continue;
            if (!strcmp(row->name, "kl_divergence")) qb_divergence_print(row);
            if (!strcmp(row->name, "perplexity")) print_perplexity(row);
        }
    }
}

/* What several models differ by, window by window, each text and protocol once. */
static void print_pairs(const qb_rows *measured, qb_str *out) {
    for (int i = 0; i < measured->n_rows; i++) {
        const qb_row *row = &measured->rows[i];
        bool seen = strcmp(row->name, "perplexity") != 0;
        for (int k = 0; k < i && !seen; k++)
            seen = !strcmp(measured->rows[k].name, row->name) &&
                   !strcmp(measured->rows[k].dataset, row->dataset) &&
                   !strcmp(measured->rows[k].protocol, row->protocol);
        if (!seen) qb_paired_notes(measured, row->dataset, row->protocol, "", out);
    }
}

/* The document's rows in words, or its table in another form. */
static qb_status print_result(const qb_results *results, const char *format, bool as_json) {
    qb_rows measured = {0};
    qb_str text = {0};
    if (as_json) return qb_output_json(results->doc);
    qb_status st = qb_rows_read(&results, 1, &measured);
    if (st == QB_OK && !strcmp(format, "text")) {
        print_cases(&measured);
        print_pairs(&measured, &text);
        st = qb_str_status(&text);
    }
    if (st == QB_OK && strcmp(format, "text") != 0) st = qb_rows_print(&measured, format, &text);
    qb_output_bytes(qb_str_get(&text), text.length);
    qb_str_free(&text);
    qb_rows_free(&measured);
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

/* One model and what is asked of it. */
typedef struct {
    eval_options options; /* a copy: its defaults are the model's */
    char protocol[32];
    qb_found found;
    qb_model *base;
    qb_scoring *scorings;
    size_t n;
} subject;

static qb_status subject_open(const eval_options *options, const char *word, subject *s) {
    qb_tokenizer *t = NULL;
    qb_status st;
    *s = (subject){.options = *options};
    QB_TRY(st, qb_session_model(word, false, &s->found.model));
    fill_defaults(word, s->found.model, s->protocol, &s->options);
    QB_TRY(st, qb_session_tokenizer(s->found.model, &t));
    QB_TRY(st, qb_alloc_zero(SCORINGS_MAX, sizeof *s->scorings, &s->scorings));
    s->found.data = qb_json_array();
    QB_TRY(st, open_scorings(&s->options, s->found.model, t, s->found.data, s->scorings, &s->n));
    warn_substitutes(s->found.data);
    if (s->options.base) {
        QB_TRY(st, qb_session_model(s->options.base, false, &s->base));
        QB_TRY(st, check_base_ids(&s->options, s->base, s->scorings, s->n));
        s->found.base = s->base;
    }
out:
    qb_tokenizer_close(t);
    return st;
}

static void subject_close(subject *s) {
    for (size_t i = 0; i < s->n; i++) qb_scoring_free(&s->scorings[i]);
    qb_free(s->scorings);
    qb_json_free(s->found.config);
    qb_json_free(s->found.data);
    qb_model_close(s->found.model);
    qb_model_close(s->base);
    qb_session_close(s->found.dev);
}

typedef struct {
    const eval_options *options;
    const qb_compute *compute;
} eval;

/* The perplexities of a document of one case go into the card beside the weights. */
static qb_status put_card(const qb_model *m, const qb_results *results) {
    qb_rows measured;
    qb_status st = qb_rows_read(&results, 1, &measured);
    if (st == QB_OK) st = qb_card_put_perplexities(m->path, measured.cases);
    qb_rows_free(&measured);
    return st;
}

static qb_status measure_model(void *user, const char *word, qb_results *out) {
    const eval *e = user;
    subject s;
    qb_status st;
    QB_TRY(st, subject_open(e->options, word, &s));
    QB_TRY(st, qb_session_device(e->compute, &s.found.dev));
    s.found.model->dev = s.found.dev; /* plans ask it what memory there is */
    if (s.base) s.base->dev = s.found.dev;
    const qb_score_plan plan = {s.found.model, s.base, s.scorings, s.n, s.options.memory_gb};
    QB_TRY(st, qb_score_plan_announce(&plan));
    s.found.config = eval_config(&s.options);
    qb_measuring what = {.scorings = s.scorings,
                         .n_scorings = s.n,
                         .base = s.base,
                         .memory_bytes = (int64_t)(s.options.memory_gb * 1e9),
                         .activations = s.options.activations};
    st = qb_found_measure(&s.found, &what, out);
    if (st == QB_OK && s.options.card) st = put_card(s.found.model, out);
out:
    subject_close(&s);
    return st;
}

/* --dry-run: a line a scoring, or one array of all of them. */
static qb_status plan_models(const eval *e, const char *const *words, size_t n, bool as_json) {
    qb_json *all = as_json ? qb_json_array() : NULL;
    qb_status st = QB_OK;
    for (size_t i = 0; st == QB_OK && i < n; i++) {
        subject s;
        st = subject_open(e->options, words[i], &s);
        if (st == QB_OK && n > 1 && !as_json) qb_output("%s\n", s.found.model->name);
        const qb_score_plan plan = {s.found.model, s.base, s.scorings, s.n, s.options.memory_gb};
        if (st == QB_OK) st = qb_score_plan_print(&plan, e->compute, all);
        subject_close(&s);
    }
    if (st == QB_OK && as_json) st = qb_output_json(all);
    qb_json_free(all);
    return st;
}

static qb_status check(const eval_options *o) {
    if (o->card && strcmp(o->activations, "f32"))
        return qb_fail(QB_ERR_USAGE,
                       "--card puts perplexities of float32 activations into the card: leave out "
                       "--activations %s",
                       o->activations);
    if (o->base && o->card) return qb_fail(QB_ERR_USAGE, "--card takes perplexities: leave --base away");
    if (o->base && strcmp(o->activations, "f32") != 0)
        return qb_fail(QB_ERR_USAGE,
                       "--base compares models under float32 activations: leave out --activations %s",
                       o->activations);
    return QB_OK;
}

static qb_status eval_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    eval_options options;
    qb_compute compute;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options},
                            {"COMPUTING", qb_compute_options, &compute},
                            {"COMMON OPTIONS", qb_common_options, &common}};
    const char *words[QB_SEVERAL_MAX];
    size_t n_words;
    bool done;
    eval e = {&options, &compute};
    qb_results results = {0};
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 3, argc, argv, words, QB_SEVERAL_MAX, &n_words, &done));
    if (done) goto out;
    if (!n_words) return qb_command_missing(&page, "MODEL");
    QB_TRY(st, check(&options));
    if (options.dry_run) {
        st = plan_models(&e, words, n_words, common.json);
        goto out;
    }
    st = qb_several_measure(words, n_words, false, measure_model, &e, &results);
    if (results.doc) {
        qb_status shown = print_result(&results, options.format, common.json);
        if (st == QB_OK) st = shown;
    }
out:
    qb_results_close(&results);
    return st;
}

const qb_command qb_command_eval = {"eval", "measure the perplexity of models", eval_main};
