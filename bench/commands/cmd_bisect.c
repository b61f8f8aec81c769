/* bench bisect: which revision of the program made a row of a suite worse. */
#include "base/memory.h"
#include "bench/bisect/bisect.h"
#include "bench/command.h"
#include "bench/judging.h"
#include "bench/run/child.h"
#include "bench/work_dir.h"

#include <inttypes.h>
#include <math.h>

enum { SHORT = 12, EXIT_UNDECIDED = 3 };

typedef struct {
    qb_bisect_config config;
    const char *keep;
} bisect_options;

#define FIELD(field) offsetof(bisect_options, field)
static const qb_option rows[] = {
    {"good", 0, QB_OPTION_TEXT, FIELD(config.good), NULL, 0, 0, NULL, "REVISION",
     "a commit, branch or tag before the change"},
    {"bad", 0, QB_OPTION_TEXT, FIELD(config.bad), "HEAD", 0, 0, NULL, "REVISION", "one behind it"},
    {"build", 0, QB_OPTION_TEXT, FIELD(config.build), NULL, 0, 0, NULL, "COMMAND",
     "builds the program; run by sh at the top of a checkout, which keeps what earlier builds left"},
    {"program", 0, QB_OPTION_TEXT, FIELD(config.program), "build/bin/bench", 0, 0, NULL, "FILE",
     "what that leaves, in the checkout"},
    {"repo", 0, QB_OPTION_TEXT, FIELD(config.repo), ".", 0, 0, NULL, "DIR",
     "the Git repository; it is not changed, builds have clones of it"},
    {"metric", 0, QB_OPTION_TEXT, FIELD(config.metric), NULL, 0, 0, NULL, "NAME,..",
     "look for changes of these metrics only (`bench list metrics`)"},
    {"max-pairs", 0, QB_OPTION_INT, FIELD(config.max_pairs), "48", 1, 1000, NULL, "N",
     "a revision that --pairs do not tell is measured on, up to this many"},
    {"keep", 0, QB_OPTION_TEXT, FIELD(keep), NULL, 0, 0, NULL, "DIR",
     "keep checkouts, documents and logs there; builds of an earlier search there are gone on from"},
    {0},
};

static const qb_page page = {
    .name = "bisect",
    .summary = "find the commit that made a row of a suite worse",
    .synopsis = "bisect --good REVISION [--bad REVISION] --build COMMAND --suite NAME [options]",
    .description =
        "Builds the good and the bad revision and measures both by turns, as `bench ab` does. Rows that are "
        "worse\n"
        "at the bad one are looked for: the commits between are halved, each built, measured by turns with "
        "the good\n"
        "one's program, and bad when one of those rows is worse by the verdicts of `bench compare`. Branches "
        "and\n"
        "merges are searched too. A revision that does not build or run is skipped, and so is one whose rows "
        "stay\n"
        "inconclusive at --max-pairs; where only such ones are left all that may be it are named.\n"
        "\n"
        "The command is yours, for example 'cmake --preset release && cmake --build --preset release'; a "
        "program\n"
        "that is no bench can be searched too when it takes the words of `bench run` and `bench speed "
        "--help`.\n"
        "Submodules and large files are the command's affair. Whoever gives --build runs what every commit "
        "of "
        "the\n"
        "range holds.",
    .examples =
        "bench bisect --good v1.2 --build 'cmake --preset release && cmake --build --preset release' \\\n"
        "    --suite demo --only 'gptq-4b*' --metric decode\n"
        "bench bisect --good 1a2b3c4 --bad 5d6e7f8 --build ./build.sh --program out/bench --suite s.json "
        "--keep search --json",
    .exit_status = "0   the commit is found\n"
                   "1   the bad revision is not worse, an end does not build, or the search could not go on\n"
                   "2   the command line is wrong\n"
                   "3   inconclusive: more pairs are needed, or one of several commits that were skipped\n"
                   "130 interrupted",
};

/* ---- telling ---- */

static void print_commit(const char *head, const qb_commit *c) {
    qb_output("%s%.*s %s (%s, %s)\n", head, SHORT, c->id, c->subject, c->author, c->date);
}

static void print_rows(const qb_bisect *b) {
    for (size_t i = 0; i < b->n_rows; i++) {
        qb_str change = {0};
        if (!b->rows[i].worse) continue;
        qb_compare_put_change(b->rows[i].change_pct, &change);
        qb_output("    %s %s %s\n", b->rows[i].id, b->rows[i].metric,
                  change.length ? change.text : "missing or failed");
        qb_str_free(&change);
    }
}

static void print_text(const qb_bisect *b) {
    qb_output("%.*s good: %s\n", SHORT, b->good.id, b->good.subject);
    for (size_t i = 0; i < b->n_steps; i++) {
        const qb_bisect_step *s = &b->steps[i];
        qb_output("%.*s %s%s%s: %s\n", SHORT, s->commit.id, qb_step_words[s->kind], s->why.length ? ", " : "",
                  qb_str_get(&s->why), s->commit.subject);
    }
    if (!b->n_suspects) return;
    if (b->n_suspects == 1) {
        print_commit("\nthe first bad commit: ", b->suspects);
    } else {
        qb_output("\nthe first bad commit is one of %zu; all but the first of these were skipped:\n",
                  b->n_suspects);
        for (size_t i = 0; i < b->n_suspects; i++) print_commit("  ", &b->suspects[i]);
    }
    print_rows(b);
    qb_output("%" PRId64 " commits in the range, %zu looked at\n", b->between, b->n_steps);
}

static qb_json *commit_json(const qb_commit *c) {
    qb_json *j = qb_json_object();
    qb_json_put_text(j, "commit", c->id);
    qb_json_put_text(j, "date", c->date);
    qb_json_put_text(j, "author", c->author);
    qb_json_put_text(j, "subject", c->subject);
    return j;
}

static qb_json *bisect_json(const qb_bisect *b) {
    qb_json *top = qb_json_object(), *steps = qb_json_array(), *found = qb_json_array(),
            *worse = qb_json_array();
    for (size_t i = 0; i < b->n_steps; i++) {
        const qb_bisect_step *s = &b->steps[i];
        qb_json *j = commit_json(&s->commit);
        qb_json_put_text(j, "is", qb_step_words[s->kind]);
        qb_json_put_text(j, "why", s->why.length ? s->why.text : NULL);
        qb_json_put_int(j, "pairs", s->pairs);
        qb_json_put_real(j, "seconds", s->seconds);
        qb_json_push(steps, j);
    }
    for (size_t i = 0; i < b->n_suspects; i++) qb_json_push(found, commit_json(&b->suspects[i]));
    for (size_t i = 0; i < b->n_rows; i++) {
        qb_json *j = qb_json_object();
        qb_json_put_text(j, "id", b->rows[i].id);
        qb_json_put_text(j, "metric", b->rows[i].metric);
        qb_json_put_bool(j, "worse", b->rows[i].worse);
        qb_json_put_real(j, "change_pct", b->rows[i].worse ? b->rows[i].change_pct : NAN);
        qb_json_push(worse, j);
    }
    qb_json_put_text(top, "schema", "qb.bisect/1");
    qb_json_put(top, "good", commit_json(&b->good));
    qb_json_put(top, "bad", commit_json(&b->bad));
    qb_json_put_int(top, "commits", b->between);
    if (b->n_suspects == 1)
        qb_json_put(top, "first_bad", commit_json(b->suspects));
    else
        qb_json_put_null(top, "first_bad");
    qb_json_put(top, "suspects", found);
    qb_json_put(top, "rows", worse);
    qb_json_put(top, "steps", steps);
    return top;
}

/* ---- the command ---- */

static qb_status check(const bisect_options *o) {
    if (!o->config.good) return qb_fail(QB_ERR_USAGE, "--good is missing: a revision that was not worse yet");
    if (!o->config.build)
        return qb_fail(QB_ERR_USAGE, "--build is missing: the command that builds the program in a checkout");
    if (!o->config.turns.suite)
        return qb_fail(QB_ERR_USAGE, "--suite is missing; `bench list suites` shows the suites");
    if (*o->config.program == '/')
        return qb_fail(QB_ERR_USAGE,
                       "--program %s is the same for every revision: a path in the checkout is asked",
                       o->config.program);
    return QB_OK;
}

/* What the search came to. */
static qb_status conclude(const qb_bisect *b, int *exit_code) {
    if (b->n_suspects == 1) return QB_OK;
    *exit_code = EXIT_UNDECIDED;
    if (b->n_suspects || (b->n_steps && b->steps[0].unclear)) return QB_OK;
    const qb_bisect_step *end = b->steps;
    if (end->kind == QB_STEP_GOOD)
        return qb_fail(QB_ERR_NOT_FOUND, "%.*s is not worse than %.*s: there is nothing to search for", SHORT,
                       b->bad.id, SHORT, b->good.id);
    return qb_fail(QB_ERR_INTERNAL, "the bad end %.*s: %s", SHORT, b->bad.id, qb_str_get(&end->why));
}

static qb_status bisect_main(int argc, char **argv, int *exit_code) {
    static const char *const names[] = {"--set"};
    bisect_options options = {0}; /* what a comparison is told is not all an option */
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options},
                            {"MEASURING", qb_turns_options, &options.config.turns},
                            {"JUDGING", qb_judging_options, &options.config.judging},
                            {"COMMON OPTIONS", qb_common_options, &common}};
    qb_settings both;
    qb_settings *const lists[] = {&both};
    qb_work_dir dir = {0};
    qb_bisect found = {0};
    char **words;
    int n_given;
    size_t n_words;
    bool done;
    qb_status st;
    QB_TRY(st, qb_settings_take(names, lists, 1, argc, argv, &n_given, &words));
    QB_TRY(st, qb_command_parse(&page, sets, 4, n_given, words, NULL, 0, &n_words, &done));
    if (done) goto out;
    QB_TRY(st, check(&options));
    qb_interrupt_watch();
    QB_TRY(st, qb_work_dir_open(options.keep, "bench-bisect", &dir));
    options.config.dir = dir.path;
    options.config.settings = &both;
    QB_TRY(st, qb_bisect_run(&options.config, &found));
    if (common.json) {
        qb_json *json = bisect_json(&found);
        st = qb_output_json(json);
        qb_json_free(json);
    } else {
        print_text(&found);
    }
    if (st == QB_OK) st = conclude(&found, exit_code);
out:
    qb_bisect_free(&found);
    qb_work_dir_close(&dir);
    qb_free(words);
    qb_settings_free(&both);
    return st;
}

const qb_command qb_command_bisect = {"bisect", "find the commit that made a row of a suite worse",
                                      bisect_main};
