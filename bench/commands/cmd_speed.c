/* bench speed: prefill, decode, first token and latency of a
   model as it is found, against the machine's ceilings. */
#include "base/memory.h"
#include "bench/command.h"
#include "bench/measure/placement.h"
#include "bench/run/found.h"
#include "bench/run/plan.h"
#include "bench/run/probe.h"
#include "bench/run/several.h"
#include "bench/session.h"
#include "results/ceilings.h"
#include "results/sink.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    bool synthetic;
    bool dry_run;
    const char *format;
} speed_options;

static const qb_option rows[] = {
    QB_FORMAT_OPTION(speed_options, format),
    {"dry-run", 'n', QB_OPTION_BOOL, offsetof(speed_options, dry_run), NULL, 0, 0, NULL, NULL,
     "print what lies where and what a token takes at best, measure nothing"},
    {"synthetic", 0, QB_OPTION_BOOL, offsetof(speed_options, synthetic), NULL, 0, 0, NULL, NULL,
     "random weights of the model's true shapes"},
    {0},
};

static const qb_page page = {
    .name = "speed",
    .summary = "measure how fast models read and writes tokens",
    .synopsis = "speed MODEL... [--prefill N,N] [--decode N,N] [--repeat N] [--prompts FILE] [--json]",
    .description = "Times prefill (pp<N>: N prompt tokens at once) and decode (tg<N>: N tokens one after "
                   "another) apart, at each\n"
                   "depth and batch size, after a warm-up that does not count. Each row keeps its raw "
                   "samples; the headline is\n"
                   "their median. A row is sampled until its median is known to --precision, or --budget-s "
                   "is spent; samples that\n"
                   "other work disturbed are marked and taken again, and a row that stayed noisy says "
                   "why. Rows say how much of the machine's measured ceiling they reach: bytes read "
                   "a second for\n"
                   "decode, float operations a second for prefill. Tokenizing and loading are in none of "
                   "them; what loading\n"
                   "took is said beside.\n"
                   "\n"
                   "--prompts times whole prompts of a file, prefill and generation together; a blank line "
                   "ends a prompt.\n"
                   "--prompts default takes the prompts that come with the program.\n"
                   "\n"
                   "Several models are measured one after another, each in a process of its own, into one "
                   "document; `bench run`\n"
                   "samples them by turns, which compares better.",
    .examples = "bench speed ./llama2-7b-w4 --prefill 512 --decode 128 --repeat 5 --json\n"
                "bench speed demo --prefill 64,128 --decode 32 --prompts default\n"
                "bench speed ./w4-gptq ./w4-nf4 --format markdown\n"
                "bench speed synthetic:tinyllama-1.1b --decode 32 --depth 0,1024 --batch 1,4",
};

/* What the speed rows were computed with, where it was not float32; of prompts it may have been all the same.
 */
static void print_activations(const qb_row_case *c) {
    bool prompts = false;
    for (int i = 0; i < c->n_rows; i++)
        prompts |= !strcmp(c->rows[i].name, "prefill") && !c->rows[i].activations;
    for (int i = 0; i < c->n_rows; i++) {
        const char *activations = c->rows[i].activations;
        double rest = qb_json_number(qb_json_get(c->rows[i].json, "float32_activation_bytes"));
        char bytes[32];
        if (!activations) continue;
        qb_output("activations: %s for products with quantized weights", activations);
        if (rest > 0) qb_output("; %s of weights meet float32", qb_format_bytes(rest, bytes));
        if (prompts) qb_output("; long prompts in float32, which is faster there");
        qb_output(" (--activations f32 for float32 alone)\n");
        return;
    }
}

static void print_load(const qb_row_case *c) {
    for (int i = 0; i < c->n_rows; i++) {
        double seconds = qb_json_number(qb_json_get(c->rows[i].json, "load_seconds"));
        double rate = qb_json_number(qb_json_get(c->rows[i].json, "load_bytes_per_s"));
        char time[32];
        if (seconds > 0)
            qb_output("loading: %s, %.2f GB/s of the checkpoint\n", qb_format_seconds(seconds, time),
                      rate / 1e9);
    }
}

static void print_ceilings(const qb_row_device *d) {
    const qb_ceilings *ceilings = &d->ceilings;
    const qb_ceiling *c;
    int printed = 0;
    qb_str doubt = {0};
    for (size_t i = 0; (c = qb_ceiling_at(i)); i++)
        if (qb_ceiling_of(ceilings, c) > 0)
            qb_output("%s%s %.1f %s", printed++ ? ", " : "ceilings: ", c->name,
                      qb_ceiling_of(ceilings, c) / c->scale, c->unit);
    if (printed) qb_output("\n");
    qb_ceiling_doubt_put(d->description, qb_json_get(d->json, "ceilings"), &doubt);
    if (doubt.length) qb_output("%s\n", qb_str_get(&doubt));
    qb_str_free(&doubt);
}

/* What the marks mean, why a share is above 100 %, what the shares are of. */
static void print_notes(const qb_row_case *c) {
    bool noisy = false;
    for (int i = 0; i < c->n_rows; i++) noisy |= qb_row_is_noisy(&c->rows[i]);
    if (noisy) qb_output("! stayed noisy: no speed to compare with\n");
    for (int i = 0; i < c->n_rows; i++)
        if (c->rows[i].noise)
            qb_output("    %s %s: %s\n", c->rows[i].name, c->rows[i].protocol, c->rows[i].noise);
    for (int i = 0; i < c->n_rows; i++)
        if (c->rows[i].share_reason)
            qb_output("%s %s above its ceiling: %s\n", c->rows[i].name, c->rows[i].protocol,
                      c->rows[i].share_reason);
    if (!c->device) return;
    print_ceilings(c->device);
    if (c->device->load_average >= 0)
        qb_output("load average %.1f on %.0f cores when it began\n", c->device->load_average,
                  c->device->cores);
}

static void print_row(const qb_row *row) {
    const char *protocol = *row->protocol ? row->protocol : "-";
    char figure[32], spread[32] = "-", part[32] = "-", known[32] = "-";
    if (isnan(row->value)) {
        if (*row->error)
            qb_output("%-22s %s: %s\n", row->name, row->status == QB_ROW_SKIPPED ? "skipped" : "failed",
                      row->error);
        return;
    }
    if (!strcmp(row->unit, "B")) /* sizes in full: they are exact */
        snprintf(figure, sizeof figure, "%.0f", row->value);
    else
        snprintf(figure, sizeof figure, row->value >= 1e4 ? "%.0f" : "%.5g", row->value);
    if (isfinite(row->sd)) snprintf(spread, sizeof spread, row->sd >= 1e3 ? "%.0f" : "%.3g", row->sd);
    if (isfinite(row->share_of_ceiling)) snprintf(part, sizeof part, "%.1f %%", 100 * row->share_of_ceiling);
    if (isfinite(row->half_width)) snprintf(known, sizeof known, "+-%.1f %%", 100 * row->half_width);
    qb_output("%-22s %-16s %14s %8s%c %10s %-6s %8" PRId64 " %8s\n", row->name, protocol, figure, known,
              qb_row_is_noisy(row) ? '!' : ' ', spread, row->unit, row->n, part);
}

static void print_case(const qb_row_case *c, bool one_of_several) {
    if (one_of_several) qb_output("%s\n", c->id);
    for (int i = 0; i < c->n_rows; i++) print_row(&c->rows[i]);
    print_activations(c);
    print_load(c);
    print_notes(c);
}

static qb_status print_result(const qb_results *results, const char *format, bool as_json) {
    qb_rows measured;
    qb_str text = {0};
    if (as_json) return qb_output_json(results->doc);
    qb_status st = qb_rows_read(&results, 1, &measured);
    if (st == QB_OK && strcmp(format, "text") != 0) {
        st = qb_rows_print(&measured, format, &text);
        qb_output_bytes(qb_str_get(&text), text.length);
    } else if (st == QB_OK) {
        qb_output("%-22s %-16s %14s %8s  %10s %-6s %8s %8s\n", "metric", "protocol", "median", "95 %", "sd",
                  "unit", "samples", "ceiling");
        for (int k = 0; k < measured.n_cases; k++) print_case(&measured.cases[k], measured.n_cases > 1);
    }
    qb_str_free(&text);
    qb_rows_free(&measured);
    return st;
}

static qb_status open_prompts(const qb_model *m, const char *file, qb_windows *out) {
    qb_tokenizer *t;
    if (!file) return QB_OK;
    qb_status st = qb_session_tokenizer(m, &t);
    if (st == QB_OK) st = qb_prompts_open(file, t, out);
    qb_tokenizer_close(t);
    return st;
}

static qb_status check_positions(const qb_model *m, const qb_speed_config *c) {
    int64_t need = qb_speed_positions(c), room = m->config.max_positions;
    if (need <= room) return QB_OK;
    return qb_fail(QB_ERR_USAGE,
                   "--prefill, --depth and --decode need %" PRId64 " positions, but %s has %" PRId64
                   "; try --prefill %" PRId64 " --decode %" PRId64,
                   need, m->name, room, room / 2, room / 4);
}

/* Where the weights would lie, the bytes that cross the bus for a token, and what that costs. */
static qb_status print_placement(const qb_model *m, qb_device *dev, const qb_speed_config *config,
                                 const qb_ceilings *ceilings, const qb_compute *compute, bool as_json,
                                 qb_json *plans) {
    qb_placement p;
    double bus = 0;
    qb_str line = {0};
    qb_status st = QB_OK;
    QB_TRY(st,
           qb_placement_make(m, dev, qb_plan_speed_bytes(m, dev->backend, config), 0, compute->offload, &p));
    if (p.kind == QB_PLACEMENT_SPLIT) QB_TRY(st, qb_bus_rate(dev, &bus));
    const double *rate = bus > 0 ? &bus : NULL;
    if (as_json) {
        qb_json *j = qb_placement_json(&p, rate, ceilings);
        if (plans) {
            qb_json_put_text(j, "model", m->name);
            qb_json_push(plans, j);
        } else {
            st = qb_output_json(j);
            qb_json_free(j);
        }
    } else {
        qb_placement_describe(&p, rate, ceilings, &line);
        qb_output("%s: %s\n", m->name, qb_str_get(&line));
    }
out:
    qb_str_free(&line);
    return st;
}

/* What a measurement of one model takes. */
typedef struct {
    const speed_options *options;
    const qb_speed_config *config;
    const qb_compute *compute;
    qb_device_facts
        facts;      /* of the device, ceilings included; the first measurement in a process takes them */
    qb_json *plans; /* of --dry-run --json with several models; NULL: printed at once */
} speed;

static qb_status open_model(const speed *s, const char *word, qb_found *found, qb_windows *prompts) {
    qb_status st;
    QB_TRY(st, qb_session_model(word, s->options->synthetic, &found->model));
    QB_TRY(st, check_positions(found->model, s->config));
    QB_TRY(st, open_prompts(found->model, s->config->prompts, prompts));
out:
    return st;
}

static qb_status plan_model(speed *s, const char *word, bool as_json) {
    qb_found found = {0};
    qb_windows prompts = {0};
    qb_status st;
    QB_TRY(st, open_model(s, word, &found, &prompts));
    QB_TRY(st, qb_session_device(s->compute, &found.dev));
    st =
        print_placement(found.model, found.dev, s->config, &s->facts.ceilings, s->compute, as_json, s->plans);
out:
    qb_windows_free(&prompts);
    qb_model_close(found.model);
    qb_session_close(found.dev);
    return st;
}

static qb_status measure_model(void *user, const char *word, qb_results *out) {
    speed *s = user;
    qb_found found = {0};
    qb_windows prompts = {0};
    qb_ceilings ceilings = s->facts.ceilings;
    qb_status st;
    QB_TRY(st, open_model(s, word, &found, &prompts));
    QB_TRY(st, qb_session_device(s->compute, &found.dev));
    found.facts = s->facts;
    s->facts = (qb_device_facts){0};
    found.config = qb_json_object();
    qb_json *config = qb_json_object();
    qb_options_to_json(qb_speed_options, s->config, config);
    qb_json_put(found.config, "speed", config);
    qb_measuring what = {.speed = s->config,
                         .prompts = prompts.count ? &prompts : NULL,
                         .ceilings = &ceilings,
                         .memory = true,
                         .determinism = true,
                         .offload = s->compute->offload};
    st = qb_found_measure(&found, &what, out);
out:
    qb_windows_free(&prompts);
    qb_json_free(found.config);
    qb_device_facts_free(&found.facts);
    qb_model_close(found.model);
    qb_session_close(found.dev);
    return st;
}

static qb_status plan_all(speed *s, const char *const *words, size_t n, bool as_json) {
    qb_status st = QB_OK;
    if (as_json && n > 1) s->plans = qb_json_array();
    for (size_t i = 0; st == QB_OK && i < n; i++) st = plan_model(s, words[i], as_json);
    if (st == QB_OK && s->plans) st = qb_output_json(s->plans);
    qb_json_free(s->plans);
    return st;
}

static qb_status speed_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    speed_options options;
    qb_speed_config config;
    qb_compute compute;
    qb_common common;
    qb_option_set sets[] = {{"SPEED OPTIONS", qb_speed_options, &config},
                            {"OPTIONS", rows, &options},
                            {"COMPUTING", qb_compute_options, &compute},
                            {"COMMON OPTIONS", qb_common_options, &common}};
    const char *words[QB_SEVERAL_MAX];
    size_t n_words;
    bool done;
    speed s = {.options = &options, .config = &config, .compute = &compute};
    qb_results results = {0};
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 4, argc, argv, words, QB_SEVERAL_MAX, &n_words, &done));
    if (done) goto out;
    if (!n_words) return qb_command_missing(&page, "MODEL");
    for (size_t i = 0; i < n_words; i++) { /* before the ceilings take their second */
        qb_found found = {0};
        qb_windows prompts = {0};
        st = open_model(&s, words[i], &found, &prompts);
        qb_windows_free(&prompts);
        qb_model_close(found.model);
        if (st != QB_OK) goto out;
    }
    QB_TRY(st, qb_device_probe(&compute, true, &s.facts));
    if (options.dry_run) {
        st = plan_all(&s, words, n_words, common.json);
        goto out;
    }
    st = qb_several_measure(words, n_words, options.synthetic, measure_model, &s, &results);
    if (results.doc) {
        qb_status shown = print_result(&results, options.format, common.json);
        if (st == QB_OK) st = shown;
    }
out:
    qb_results_close(&results);
    qb_device_facts_free(&s.facts);
    return st;
}

const qb_command qb_command_speed = {"speed", "measure how fast models read and write tokens", speed_main};
