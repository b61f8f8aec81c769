/* bench history: every metric over the runs of weeks, and where it changed. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "bench/command.h"
#include "history/history.h"
#include "plots/plots.h"
#include "results/runs.h"
#include "results/sheet.h"

#include <string.h>

enum { MAX_WORDS = 1024, MAX_RUNS = 100000 };

typedef struct {
    const char *db, *out, *format;
    int64_t window;
    double level, least_change_pct;
    bool plots;
} history_options;

static const qb_option rows[] = {
    {"db", 0, QB_OPTION_TEXT, offsetof(history_options, db), "history.db", 0, 0, NULL, "FILE",
     "the history that `add` adds to; made when it is absent"},
    {"out", 'o', QB_OPTION_TEXT, offsetof(history_options, out), NULL, 0, 0, NULL, "DIR",
     "write the page and the plots there"},
    {"plots", 0, QB_OPTION_BOOL, offsetof(history_options, plots), "true", 0, 0, NULL, NULL,
     "draw a picture for each metric beside the page, where gnuplot is there"},
    {"format", 0, QB_OPTION_TEXT, offsetof(history_options, format), "text", 0, 0, QB_SINK_CHOICES, "FORMAT",
     "what changed as text, or every value as a table, a line a run and series"},
    {"window", 0, QB_OPTION_INT, offsetof(history_options, window), "50", 2, 10000, NULL, "RUNS",
     "runs that are looked at together for a change"},
    {"level", 0, QB_OPTION_REAL, offsetof(history_options, level), "0.001", 1e-12, 1, NULL, "P",
     "p value that a change must pass"},
    {"least-change-pct", 0, QB_OPTION_REAL, offsetof(history_options, least_change_pct), "0", 0, 100, NULL,
     "PCT", "smaller changes are not shown"},
    {0},
};

static const qb_page page = {
    .name = "history",
    .summary = "every metric over many runs, and where it changed",
    .synopsis = "history add RESULT.json... [--db FILE]\n"
                "history DB|DIR [-o DIR]",
    .description = "`add` puts result documents into a SQLite file; one that is there already is not added "
                   "twice. The other\n"
                   "form shows a history, or a directory of result documents as one: which rows changed "
                   "between which commits,\n"
                   "and with -o a self-contained page, index.html, and pictures. A series is a row of a case "
                   "over the runs that\n"
                   "it compares across: where the configuration, the texts, or for speeds and memory the "
                   "device differ, another\n"
                   "series begins. Change points are found by E-divisive means with the refinements of "
                   "Hunter, as Apache Otava\n"
                   "finds them; noisy rows are shown, and no change is looked for in them.",
    .examples = "bench history add nightly/*.json --db nightly.db\n"
                "bench history nightly.db -o site\n"
                "bench history nightly.db --format csv > nightly.csv\n"
                "bench history nightly/ --json",
};

static qb_status add_documents(const history_options *o, const char *const *paths, size_t n, qb_json **json) {
    qb_history *history = NULL;
    int64_t added = 0;
    qb_status st;
    QB_TRY(st, qb_history_open(o->db, true, &history));
    for (size_t i = 0; i < n; i++) {
        qb_results r = {0};
        bool is_new = false;
        st = qb_results_open(paths[i], &r);
        if (st == QB_OK) st = qb_history_add(history, &r, &is_new);
        qb_results_close(&r);
        if (st != QB_OK) break; /* earlier ones are in */
        added += is_new;
        if (!is_new) qb_info("%s is in %s already", paths[i], o->db);
    }
    if (st == QB_OK) qb_info("%lld of %zu documents added to %s", (long long)added, n, o->db);
    *json = qb_json_object();
    qb_json_put_text(*json, "db", o->db);
    qb_json_put_int(*json, "added", added);
out:
    qb_history_close(history);
    return st;
}

/* A directory is a history in memory. */
static qb_status open_word(const char *word, qb_history **out) {
    bool is_dir = false;
    qb_runs runs = {0};
    qb_status st;
    QB_TRY(st, qb_path_look_dir(word, &is_dir));
    if (!is_dir) return qb_history_open(word, false, out);
    QB_TRY(st, qb_runs_open(&word, 1, MAX_RUNS, &runs));
    QB_TRY(st, qb_history_open(NULL, true, out));
    for (int i = 0; i < runs.n; i++) {
        bool added;
        QB_TRY(st, qb_history_add(*out, &runs.documents[i], &added));
    }
out:
    qb_runs_close(&runs);
    return st;
}

static qb_status write_page(const history_options *o, const qb_history_view *view) {
    char *path = qb_path_join(o->out, "index.html"), version[64];
    qb_str text = {0};
    int n_files = 0;
    qb_status st;
    QB_TRY(st, qb_make_dirs(o->out));
    QB_TRY(st, qb_history_page(view, &text));
    QB_TRY(st, qb_file_write_atomic(path, text.text, text.length));
    if (o->plots && view->n_runs && !qb_gnuplot_find(version))
        qb_warn("no pictures are drawn beside %s: gnuplot is not installed (apt-get install gnuplot-nox)",
                path);
    else if (o->plots && view->n_runs)
        QB_TRY(st, qb_history_plots(view, o->out, &n_files));
    qb_info("%s, %d pictures", path, n_files);
out:
    qb_str_free(&text);
    qb_free(path);
    return st;
}

static qb_status print_values(const qb_history_view *view, const char *format, qb_str *text) {
    qb_json *values = NULL;
    qb_status st = qb_history_values(view, &values);
    if (st == QB_OK) st = qb_sheet_print(values, format, text);
    qb_json_free(values);
    return st;
}

static qb_status show(const history_options *o, const char *word, qb_str *text, qb_json **json) {
    const qb_change_point_config config = {
        .window = (int)o->window, .level = o->level, .least_change = o->least_change_pct / 100};
    qb_history *history = NULL;
    qb_history_view view = {0};
    qb_status st;
    QB_TRY(st, open_word(word, &history));
    QB_TRY(st, qb_history_read(history, &config, &view));
    if (!view.n_runs)
        QB_TRY(st, qb_fail(QB_ERR_FORMAT, "the history %s has no runs yet: bench history add", word));
    if (o->out) QB_TRY(st, write_page(o, &view));
    if (!strcmp(o->format, "text"))
        QB_TRY(st, qb_history_text(&view, text));
    else
        QB_TRY(st, print_values(&view, o->format, text));
    QB_TRY(st, qb_history_json(&view, json));
out:
    qb_history_view_free(&view);
    qb_history_close(history);
    return st;
}

static qb_status history_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    history_options options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *words[MAX_WORDS];
    size_t n_words;
    bool done;
    qb_str text = {0};
    qb_json *json = NULL;
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 2, argc, argv, words, MAX_WORDS, &n_words, &done));
    if (done) goto out;
    if (!n_words) return qb_command_missing(&page, "DB, DIR or add");
    bool add = !strcmp(words[0], "add");
    if (add && n_words < 2) return qb_command_missing(&page, "RESULT.json");
    if (!add && n_words > 1)
        QB_TRY(st, qb_fail(QB_ERR_USAGE,
                           "one history is shown at a time, found also %s (to add documents: bench "
                           "history add RESULT.json...)",
                           words[1]));
    QB_TRY(st, add ? add_documents(&options, words + 1, n_words - 1, &json)
                   : show(&options, words[0], &text, &json));
    if (common.json || !strcmp(options.format, "json"))
        st = qb_output_json(json);
    else
        qb_output_bytes(qb_str_get(&text), text.length);
out:
    qb_json_free(json);
    qb_str_free(&text);
    return st;
}

const qb_command qb_command_history = {"history", "every metric over many runs, and where it changed",
                                       history_main};
