/* bench ab: two builds of the program, or two sets of options, measured by turns and set against each other
   pair by pair. */
#include "base/file.h"
#include "base/memory.h"
#include "bench/command.h"
#include "bench/judging.h"
#include "bench/run/child.h"
#include "bench/turns.h"
#include "bench/work_dir.h"

typedef struct {
    const char *a, *b, *keep, *format, *output;
    const char *a_set, *b_set; /* only for --help: they may be given several times */
} ab_options;

#define FIELD(field) offsetof(ab_options, field)
static const qb_option rows[] = {
    {"a", 0, QB_OPTION_TEXT, FIELD(a), NULL, 0, 0, NULL, "PROGRAM",
     "the old bench; this one, if none is named"},
    {"b", 0, QB_OPTION_TEXT, FIELD(b), NULL, 0, 0, NULL, "PROGRAM",
     "the new bench; this one, if none is named"},
    {"a-set", 0, QB_OPTION_TEXT, FIELD(a_set), NULL, 0, 0, NULL, "KEY=VALUE",
     "a setting of the old side alone; may be given several times"},
    {"b-set", 0, QB_OPTION_TEXT, FIELD(b_set), NULL, 0, 0, NULL, "KEY=VALUE", "the same of the new side"},
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

static qb_status show(const qb_turns *t, const qb_compare_config *config, const ab_options *o, bool json,
                      int *exit_code) {
    qb_turns_verdict v;
    qb_status st;
    QB_TRY(st, qb_turns_judge(t, config, &v));
    if (o->output) QB_TRY(st, qb_judging_write(&v.comparison, o->format, o->output));
    QB_TRY(st, qb_judging_write(&v.comparison, json ? "json" : o->output ? "text" : o->format, NULL));
    *exit_code = qb_comparison_exit_code(&v.comparison);
out:
    qb_turns_verdict_free(&v);
    return st;
}

static qb_status check(const ab_options *o, const qb_turns *t) {
    if (!t->config->suite)
        return qb_fail(QB_ERR_USAGE, "--suite is missing; `bench list suites` shows the suites");
    if (!o->a && !o->b && !t->own[0]->n && !t->own[1]->n)
        return qb_fail(QB_ERR_USAGE,
                       "both sides are the same: give --a or --b another program, or --a-set or --b-set "
                       "a setting");
    return o->output ? qb_file_replaceable(o->output) : QB_OK;
}

static qb_status ab_main(int argc, char **argv, int *exit_code) {
    static const char *const names[] = {"--set", "--a-set", "--b-set"};
    ab_options options;
    qb_turns_config turns;
    qb_compare_config config = {0};
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options},
                            {"MEASURING", qb_turns_options, &turns},
                            {"JUDGING", qb_judging_options, &config},
                            {"COMMON OPTIONS", qb_common_options, &common}};
    qb_settings both, own[2];
    qb_settings *const lists[] = {&both, &own[0], &own[1]};
    qb_turns t = {.config = &turns, .both = &both, .own = {&own[0], &own[1]}, .prefix = ""};
    qb_work_dir dir = {0};
    char **words;
    int n_given;
    size_t n_words;
    bool done;
    qb_status st;
    QB_TRY(st, qb_settings_take(names, lists, 3, argc, argv, &n_given, &words));
    QB_TRY(st, qb_command_parse(&page, sets, 4, n_given, words, NULL, 0, &n_words, &done));
    if (done) goto out;
    QB_TRY(st, check(&options, &t));
    qb_interrupt_watch();
    QB_TRY(st, qb_work_dir_open(options.keep, "bench-ab", &dir));
    t.programs[0] = options.a ? options.a : "/proc/self/exe";
    t.programs[1] = options.b ? options.b : "/proc/self/exe";
    t.dir = dir.path;
    QB_TRY(st, qb_turns_measure(&t, (int)turns.pairs));
    st = show(&t, &config, &options, common.json, exit_code);
out:
    qb_turns_close(&t);
    qb_work_dir_close(&dir);
    qb_free(words);
    for (int k = 0; k < 3; k++) qb_settings_free(lists[k]);
    return st;
}

const qb_command qb_command_ab = {
    "ab", "measure two builds or two option sets by turns, and judge pair by pair", ab_main};
