/* bench ab: two builds of the program, or two sets of options, measured by turns and set against each other
   pair by pair. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/temporary.h"
#include "bench/command.h"
#include "bench/judging.h"
#include "bench/run/child.h"
#include "bench/run/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { WORDS_MAX = 128, SETS_MAX = 32, LOG_MAX_BYTES = 1 << 24 };

typedef struct {
    const char *a, *b, *suite, *model, *data, *only, *backend, *keep, *format, *output;
    const char *set, *a_set, *b_set; /* only for --help: they may be given several times */
    int64_t pairs, samples, threads;
    bool synthetic;
} ab_options;

#define FIELD(field) offsetof(ab_options, field)
static const qb_option rows[] = {
    {"a", 0, QB_OPTION_TEXT, FIELD(a), NULL, 0, 0, NULL, "PROGRAM",
     "the old bench; this one, if none is named"},
    {"b", 0, QB_OPTION_TEXT, FIELD(b), NULL, 0, 0, NULL, "PROGRAM",
     "the new bench; this one, if none is named"},
    {"suite", 's', QB_OPTION_TEXT, FIELD(suite), NULL, 0, 0, NULL, "NAME", "a suite's name, or a file"},
    {"a-set", 0, QB_OPTION_TEXT, FIELD(a_set), NULL, 0, 0, NULL, "KEY=VALUE",
     "a setting of the old side alone; may be given several times"},
    {"b-set", 0, QB_OPTION_TEXT, FIELD(b_set), NULL, 0, 0, NULL, "KEY=VALUE", "the same of the new side"},
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
    {"synthetic", 0, QB_OPTION_BOOL, FIELD(synthetic), NULL, 0, 0, NULL, NULL,
     "random weights of the models' true shapes"},
    {"keep", 0, QB_OPTION_TEXT, FIELD(keep), NULL, 0, 0, NULL, "DIR",
     "keep all result documents and logs there: a-001.json, b-001.json, .."},
    {"format", 0, QB_OPTION_CHOICE, FIELD(format), "text", 0, 0, QB_COMPARE_FORMATS, "FORMAT",
     "how the comparison is written"},
    {"output", 'o', QB_OPTION_TEXT, FIELD(output), NULL, 0, 0, NULL, "FILE",
     "write that format there, and the text to the terminal as well"},
    {0},
};

static const qb_page page = {
    .name = "ab",
    .summary = "measure two builds or two option sets by turns, and judge pair by pair",
    .synopsis = "ab --a BENCH_OLD [--b BENCH_NEW] --suite NAME [--pairs N] [options]\n"
                "ab --suite NAME --a-set KEY=VALUE --b-set KEY=VALUE [options]",
    .description =
        "Runs the suite with both programs by turns, A B B A A B .., each time in processes of its own. What "
        "drifts\n"
        "on the machine is in both sides of a pair, so that their difference is free of it: times and speeds "
        "are\n"
        "judged by the differences of the logarithms (Wilcoxon's signed-rank test, all rows together by "
        "Holm), "
        "as\n"
        "`bench compare` judges them else. The first pair measures everything that the suite names, the "
        "others "
        "speeds\n"
        "only; quality, sizes and memory are compared as `bench compare` does. Configurations may differ: "
        "that "
        "is what\n"
        "is asked. Cases are matched by id.\n"
        "\n"
        "Each program quantizes for itself and keeps its checkpoints in the cache.",
    .examples = "bench ab --a old/bench --b build/bin/bench --suite demo\n"
                "bench ab --suite demo --a-set activations=f32 --b-set activations=i16 --pairs 16\n"
                "bench ab --a old/bench --suite demo --format junit -o ab.xml",
    .exit_status = "0   nothing got worse\n"
                   "1   a regression, or a program failed\n"
                   "2   the command line is wrong\n"
                   "3   inconclusive: more pairs are needed, the text says about how many\n"
                   "130 interrupted",
};

/* ---- settings that may be given several times ---- */

typedef struct {
    const char *values[SETS_MAX];
    size_t n;
} settings;

typedef struct {
    char **argv; /* without the words of settings; owned */
    int argc;
    settings both, of[2];
} split_words;

/* The value of argv[*i] when it is the option `name`, moving behind it; NULL: another word. */
static const char *value_of(const char *name, int argc, char **argv, int *i) {
    size_t n = strlen(name);
    if (strncmp(argv[*i], name, n) != 0) return NULL;
    if (argv[*i][n] == '=') return argv[*i] + n + 1;
    return argv[*i][n] == 0 && *i + 1 < argc ? argv[++*i] : NULL;
}

static qb_status split(int argc, char **argv, split_words *out) {
    static const char *const names[] = {"--set", "--a-set", "--b-set"};
    *out = (split_words){0};
    settings *lists[] = {&out->both, &out->of[0], &out->of[1]};
    qb_status st = qb_alloc((size_t)argc + 1, sizeof *out->argv, &out->argv);
    for (int i = 0; st == QB_OK && i < argc; i++) {
        const char *value = NULL;
        for (int k = 0; k < 3 && !value; k++)
            if ((value = value_of(names[k], argc, argv, &i))) {
                if (lists[k]->n == SETS_MAX)
                    return qb_fail(QB_ERR_USAGE, "%s more than %d times", names[k], SETS_MAX);
                lists[k]->values[lists[k]->n++] = value;
            }
        if (!value) out->argv[out->argc++] = argv[i];
    }
    if (st == QB_OK) out->argv[out->argc] = NULL;
    return st;
}

/* ---- one visit ---- */

typedef struct {
    const ab_options *options;
    const split_words *words;
    const char *programs[2];
    bool has_rounds[2];
    char *dir;
    qb_results *documents[2]; /* [pairs] each, the newest first pair last */
    int n[2];
} ab;

typedef struct {
    const char *words[WORDS_MAX];
    int n;
} command;

static void add(command *c, const char *word) {
    if (c->n + 1 < WORDS_MAX) c->words[c->n++] = word;
}

static void add_option(command *c, const char *name, const char *value) {
    if (!value) return;
    add(c, name);
    add(c, value);
}

static void add_settings(command *c, const settings *s) {
    for (size_t i = 0; i < s->n; i++) add_option(c, "--set", s->values[i]);
}

/* The end of what the program said, for a message. */
static void last_line(const char *log, char out[200]) {
    char *text = NULL;
    size_t n = 0;
    snprintf(out, 200, "it said nothing");
    if (qb_file_read(log, LOG_MAX_BYTES, &text, &n) == QB_OK) {
        while (n && (text[n - 1] == '\n' || text[n - 1] == '\r')) text[--n] = 0;
        const char *line = n ? strrchr(text, '\n') : NULL;
        if (n) snprintf(out, 200, "%s", line ? line + 1 : text);
    } else {
        qb_error_clear();
    }
    qb_free(text);
}

static qb_status run_side(ab *t, int side, int pair, bool speeds_only) {
    const ab_options *o = t->options;
    char number[48], threads[24], samples[32], said[200];
    qb_str document = {0}, log = {0};
    command c = {0};
    int code;
    qb_status st;
    qb_str_printf(&document, "%s/%c-%03d.json", t->dir, 'a' + side, pair + 1);
    qb_str_printf(&log, "%s/%c-%03d.log", t->dir, 'a' + side, pair + 1);
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
    if (o->synthetic) add(&c, "--synthetic");
    add_option(&c, "--set", samples);
    if (t->has_rounds[side]) add_option(&c, "--set", "rounds=1");
    if (speeds_only) add_option(&c, "--set", "metrics=speed");
    add_settings(&c, &t->words->both);
    add_settings(&c, &t->words->of[side]);
    add_option(&c, "--output", document.text);
    QB_TRY(st, qb_program_run(c.words, log.text, &code));
    bool there = false;
    QB_TRY(st, qb_path_look(document.text, &there));
    if (!there || code > 1) { /* 1: some case failed, and the document says which */
        last_line(log.text, said);
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
static qb_status look_for_rounds(ab *t, int side) {
    qb_str log = {0};
    char *text = NULL;
    size_t n;
    int code;
    const char *const argv[] = {t->programs[side], "speed", "--help", NULL};
    qb_status st;
    qb_str_printf(&log, "%s/%c-help.log", t->dir, 'a' + side);
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

/* A B, B A, A B ..: what changes steadily falls on both sides alike. */
static qb_status run_pairs(ab *t) {
    int pairs = (int)t->options->pairs;
    qb_status st;
    for (int k = 0; k < 2; k++) QB_TRY(st, look_for_rounds(t, k));
    for (int pair = 0; pair < pairs; pair++) {
        qb_info("pair %d of %d", pair + 1, pairs);
        for (int k = 0; k < 2; k++) QB_TRY(st, run_side(t, pair % 2 ? 1 - k : k, pair, pair > 0));
        if (pair == 0 && !(has_times(&t->documents[0][0]) && has_times(&t->documents[1][0]))) {
            qb_info("the suite measures no speed: one pair says all");
            break;
        }
    }
    /* The newest document says what is compared: the one that has everything. */
    for (int k = 0; k < 2; k++) {
        qb_results first = t->documents[k][0];
        memmove(t->documents[k], t->documents[k] + 1, (size_t)(t->n[k] - 1) * sizeof first);
        t->documents[k][t->n[k] - 1] = first;
    }
out:
    return st;
}

static qb_status judge(const ab *t, const qb_compare_config *config, bool json, int *exit_code) {
    const ab_options *o = t->options;
    qb_rows sides[2];
    qb_comparison c = {0};
    qb_compare_config paired = *config;
    qb_status st;
    memset(sides, 0, sizeof sides);
    paired.paired = true;
    for (int k = 0; k < 2; k++) QB_TRY(st, qb_judging_rows(t->documents[k], t->n[k], &sides[k]));
    QB_TRY(st, qb_compare(&sides[0], &sides[1], &paired, &c));
    if (o->output) QB_TRY(st, qb_judging_write(&c, o->format, o->output));
    QB_TRY(st, qb_judging_write(&c, json ? "json" : o->output ? "text" : o->format, NULL));
    *exit_code = qb_comparison_exit_code(&c);
out:
    qb_comparison_free(&c);
    for (int k = 0; k < 2; k++) qb_rows_free(&sides[k]);
    return st;
}

/* ---- the command ---- */

static qb_status check(const ab_options *o, const split_words *w) {
    if (!o->suite) return qb_fail(QB_ERR_USAGE, "--suite is missing; `bench list suites` shows the suites");
    if (!o->a && !o->b && !w->of[0].n && !w->of[1].n)
        return qb_fail(QB_ERR_USAGE,
                       "both sides are the same: give --a or --b another program, or --a-set or --b-set "
                       "a setting");
    return o->output ? qb_file_replaceable(o->output) : QB_OK;
}

static qb_status open_all(ab *t, qb_temporary_dir *own) {
    const ab_options *o = t->options;
    qb_status st;
    t->programs[0] = o->a ? o->a : "/proc/self/exe";
    t->programs[1] = o->b ? o->b : "/proc/self/exe";
    for (int k = 0; k < 2; k++)
        QB_TRY(st, qb_alloc_zero((size_t)o->pairs, sizeof **t->documents, &t->documents[k]));
    if (o->keep) {
        QB_TRY(st, qb_make_dirs(o->keep));
        QB_TRY(st, qb_dir_writable(o->keep));
    } else {
        const char *tmp = getenv("TMPDIR");
        char target[512];
        snprintf(target, sizeof target, "%.480s/bench-ab", tmp && *tmp ? tmp : "/tmp");
        QB_TRY(st, qb_temporary_dir_make(target, own));
    }
    t->dir = qb_strdup(o->keep ? o->keep : own->path);
    if (!t->dir) st = qb_fail(QB_ERR_MEMORY, "out of memory");
out:
    return st;
}

static qb_status ab_main(int argc, char **argv, int *exit_code) {
    ab_options options;
    qb_compare_config config;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options},
                            {"JUDGING", qb_judging_options, &config},
                            {"COMMON OPTIONS", qb_common_options, &common}};
    split_words words;
    ab t = {.options = &options, .words = &words};
    qb_temporary_dir own = {NULL, -1};
    size_t n_words;
    bool done;
    qb_status st;
    QB_TRY(st, split(argc, argv, &words));
    QB_TRY(st, qb_command_parse(&page, sets, 3, words.argc, words.argv, NULL, 0, &n_words, &done));
    if (done) goto out;
    QB_TRY(st, check(&options, &words));
    qb_interrupt_watch();
    QB_TRY(st, open_all(&t, &own));
    QB_TRY(st, run_pairs(&t));
    st = judge(&t, &config, common.json, exit_code);
out:
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < t.n[k]; i++) qb_results_close(&t.documents[k][i]);
        qb_free(t.documents[k]);
    }
    qb_free(t.dir);
    if (own.path && qb_temporary_dir_remove(&own) != QB_OK) qb_warn("%s", qb_error_text());
    qb_free(words.argv);
    return st;
}

const qb_command qb_command_ab = {
    "ab", "measure two builds or two option sets by turns, and judge pair by pair", ab_main};
