#include "bench/turns.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/judging.h"
#include "bench/run/program.h"

#include <stdio.h>
#include <string.h>

enum { WORDS_MAX = 160, LOG_MAX_BYTES = 1 << 24 };

#define FIELD(field) offsetof(qb_turns_config, field)
const qb_option qb_turns_options[] = {
    {"suite", 's', QB_OPTION_TEXT, FIELD(suite), NULL, 0, 0, NULL, "NAME", "a suite's name, or a file"},
    {"set", 0, QB_OPTION_TEXT, FIELD(set), NULL, 0, 0, NULL, "KEY=VALUE",
     "a setting of both sides, as of bench run; may be given several times"},
    {"pairs", 0, QB_OPTION_INT, FIELD(pairs), "12", 1, 1000, NULL, "N", "times that each side is measured"},
    {"samples", 0, QB_OPTION_INT, FIELD(samples), "5", 1, 256, NULL, "N", "of each speed row, each time"},
    {"model", 'm', QB_OPTION_TEXT, FIELD(model), NULL, 0, 0, NULL, "MODEL,..",
     "models in place of the suite's"},
    {"data", 'd', QB_OPTION_TEXT, FIELD(data), NULL, 0, 0, NULL, "DIR", "folder of the dataset files"},
    {"only", 0, QB_OPTION_TEXT, FIELD(only), NULL, 0, 0, NULL, "GLOB,..",
     "cases whose id, label or method matches"},
    {"backend", 0, QB_OPTION_TEXT, FIELD(backend), NULL, 0, 0, NULL, "NAME,..",
     "backends in place of the suite's"},
    {"threads", 't', QB_OPTION_INT, FIELD(threads), "0", 0, 4096, NULL, "N", "threads; 0: all cores"},
    {"numa", 0, QB_OPTION_TEXT, FIELD(numa), NULL, 0, 0, NULL, "MODE", "as of bench run"},
    {"synthetic", 0, QB_OPTION_BOOL, FIELD(synthetic), NULL, 0, 0, NULL, NULL,
     "random weights of the models' true shapes"},
    {0},
};

/* ---- one visit ---- */

typedef struct {
    const char *words[WORDS_MAX];
    int n;
    bool full;
} command;

static void add(command *c, const char *word) {
    if (c->n + 1 < WORDS_MAX)
        c->words[c->n++] = word;
    else
        c->full = true;
}

static void add_option(command *c, const char *name, const char *value) {
    if (!value) return;
    add(c, name);
    add(c, value);
}

static void add_settings(command *c, const qb_settings *s) {
    for (size_t i = 0; s && i < s->n; i++) add_option(c, "--set", s->values[i]);
}

static qb_status run_side(qb_turns *t, int side, int pair) {
    const qb_turns_config *o = t->config;
    char number[48], threads[24], samples[32], said[QB_LAST_LINE_CHARS];
    qb_str document = {0}, log = {0};
    command c = {0};
    int code;
    qb_status st;
    qb_str_printf(&document, "%s/%s%c-%03d.json", t->dir, t->prefix, 'a' + side, pair + 1);
    qb_str_printf(&log, "%s/%s%c-%03d.log", t->dir, t->prefix, 'a' + side, pair + 1);
    QB_TRY(st, qb_str_status(&document));
    QB_TRY(st, qb_str_status(&log));
    snprintf(number, sizeof number, "%c%d", 'A' + side, pair + 1);
    snprintf(threads, sizeof threads, "%lld", (long long)o->threads);
    snprintf(samples, sizeof samples, "repeat=%lld", (long long)o->samples);
    add(&c, t->programs[side]);
    add(&c, "run");
    add_option(&c, "--suite", o->suite);
    add_option(&c, "--model", o->model);
    add_option(&c, "--data", o->data);
    add_option(&c, "--only", o->only);
    add_option(&c, "--backend", o->backend);
    if (o->threads) add_option(&c, "--threads", threads);
    add_option(&c, "--numa", o->numa);
    if (o->synthetic) add(&c, "--synthetic");
    add_option(&c, "--set", samples);
    if (t->has_rounds[side]) add_option(&c, "--set", "rounds=1");
    if (pair > 0) add_option(&c, "--set", "metrics=speed");
    add_settings(&c, t->both);
    add_settings(&c, t->own[side]);
    add_option(&c, "--output", document.text);
    if (c.full) QB_TRY(st, qb_fail(QB_ERR_USAGE, "more settings than fit %d words", WORDS_MAX));
    QB_TRY(st,
           qb_grow(&t->documents[side], &t->capacity[side], (size_t)t->n[side] + 1, sizeof **t->documents));
    QB_TRY(st, qb_program_run(c.words, log.text, &code));
    bool there = false;
    QB_TRY(st, qb_path_look(document.text, &there));
    if (!there || code > 1) { /* 1: some case failed, and the document says which */
        qb_program_last_line(log.text, said);
        st = qb_fail(code == 2 ? QB_ERR_USAGE : QB_ERR_INTERNAL, "%s (%s) ended with code %d: %s", number,
                     t->programs[side], code, said);
        goto out;
    }
    st = qb_results_open(document.text, &t->documents[side][t->n[side]]);
    if (st == QB_OK) t->n[side]++;
out:
    qb_str_free(&document);
    qb_str_free(&log);
    return st;
}

/* Older programs sample all at once, and refuse a key that they do not know. */
static qb_status look_for_rounds(qb_turns *t, int side) {
    qb_str log = {0};
    char *text = NULL;
    size_t n;
    int code;
    const char *const argv[] = {t->programs[side], "speed", "--help", NULL};
    qb_status st;
    qb_str_printf(&log, "%s/%s%c-help.log", t->dir, t->prefix, 'a' + side);
    QB_TRY(st, qb_str_status(&log));
    QB_TRY(st, qb_program_run(argv, log.text, &code));
    QB_TRY(st, qb_file_read(log.text, LOG_MAX_BYTES, &text, &n));
    if (code != 0 || !strstr(text, "--prefill"))
        st = qb_fail(QB_ERR_USAGE, "%s is no bench: `%s speed --help` ended with code %d", t->programs[side],
                     t->programs[side], code);
    t->has_rounds[side] = strstr(text, "--rounds") != NULL;
out:
    qb_free(text);
    qb_str_free(&log);
    return st;
}

static bool has_times(const qb_results *r) {
    for (const qb_json *c = qb_json_first(qb_json_get(r->doc, "cases")); c; c = qb_json_next(c))
        for (const qb_json *m = qb_json_first(qb_json_get(c, "metrics")); m; m = qb_json_next(m)) {
            const char *name = qb_json_string(qb_json_get(m, "name"));
            const qb_metric *metric = name ? qb_metric_find(name) : NULL;
            if (metric && metric->judge == QB_JUDGE_TIME && qb_json_is_number(qb_json_get(m, "value")))
                return true;
        }
    return false;
}

/* ---- pairs ---- */

/* A B, B A, A B ..: what changes steadily falls on both sides alike. */
qb_status qb_turns_measure(qb_turns *t, int pairs) {
    qb_status st = QB_OK;
    if (!t->n[0])
        for (int k = 0; k < 2; k++) QB_TRY(st, look_for_rounds(t, k));
    for (int pair = t->n[0]; pair < pairs && !t->no_times; pair++) {
        qb_info("pair %d of %d", pair + 1, pairs);
        for (int k = 0; k < 2; k++) QB_TRY(st, run_side(t, pair % 2 ? 1 - k : k, pair));
        if (pair == 0 && !(has_times(&t->documents[0][0]) && has_times(&t->documents[1][0]))) {
            qb_info("the suite measures no speed: one pair says all");
            t->no_times = true;
        }
    }
out:
    return st;
}

void qb_turns_close(qb_turns *t) {
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < t->n[k]; i++) qb_results_close(&t->documents[k][i]);
        qb_free(t->documents[k]);
        t->documents[k] = NULL;
        t->n[k] = 0;
        t->capacity[k] = 0;
    }
}

/* The newest document says what is compared: the one that has everything goes last. */
static qb_status read_side(const qb_turns *t, int side, qb_rows *out) {
    const qb_results **documents = NULL;
    int n = t->n[side];
    qb_status st;
    QB_TRY(st, qb_alloc((size_t)n, sizeof *documents, &documents));
    for (int i = 0; i < n; i++) documents[i] = &t->documents[side][(i + 1) % n];
    st = qb_rows_read(documents, n, out);
out:
    qb_free(documents);
    return st;
}

/* "build/bin/bench kv=f32": what the side is, since its documents may be gone by the time that this is read.
 */
static void put_name(const qb_turns *t, int side, qb_str *out) {
    const char *program = t->programs[side];
    qb_str_text(out, strncmp(program, "/proc/self/", 11) ? program : "this program");
    for (size_t i = 0; t->own[side] && i < t->own[side]->n; i++)
        qb_str_printf(out, " %s", t->own[side]->values[i]);
}

qb_status qb_turns_judge(const qb_turns *t, const qb_compare_config *config, qb_turns_verdict *out) {
    qb_compare_config paired = *config;
    qb_str names[2] = {{0}, {0}};
    qb_status st;
    memset(out, 0, sizeof *out);
    paired.paired = true;
    paired.in_order = false;
    for (int k = 0; k < 2; k++) {
        QB_TRY(st, read_side(t, k, &out->sides[k]));
        put_name(t, k, &names[k]);
        paired.names[k] = qb_str_get(&names[k]);
        paired.in_order |= t->own[k] && t->own[k]->n > 0;
    }
    st = qb_compare(&out->sides[0], &out->sides[1], &paired, &out->comparison);
out:
    for (int k = 0; k < 2; k++) qb_str_free(&names[k]);
    return st;
}

void qb_turns_verdict_free(qb_turns_verdict *v) {
    qb_comparison_free(&v->comparison);
    for (int k = 0; k < 2; k++) qb_rows_free(&v->sides[k]);
}
