/* bench compare: what moved between a result and what was measured before, and whether it got worse. */
#include "base/file.h"
#include "base/memory.h"
#include "bench/command.h"
#include "bench/judging.h"
#include "results/compare.h"
#include "results/runs.h"

#include <string.h>

enum { WORDS_MAX = 256 };

typedef struct {
    qb_compare_config config;
    int64_t runs;
    const char *format, *output;
} compare_options;

static const qb_option rows[] = {
    {"runs", 0, QB_OPTION_INT, offsetof(compare_options, runs), "20", 1, 1000, NULL, "N",
     "at most this many of the newest runs of a side"},
    {"format", 0, QB_OPTION_CHOICE, offsetof(compare_options, format), "text", 0, 0, QB_COMPARE_FORMATS,
     "FORMAT", "how the comparison is written"},
    {"output", 'o', QB_OPTION_TEXT, offsetof(compare_options, output), NULL, 0, 0, NULL, "FILE",
     "write that format there, and the text to the terminal as well"},
    {0},
};

static const qb_page page = {
    .name = "compare",
    .summary = "tell what moved since an earlier result, as a gate",
    .synopsis = "compare OLD NEW [options]\n"
                "compare OLD.. -- NEW.. [options]\n"
                "compare baseline:NAME NEW [options]",
    .description =
        "OLD and NEW are result documents, or directories of them; several of each stand on either side of "
        "\"--\".\n"
        "The newest document says what is compared, the samples of the earlier ones join its own, and what "
        "runs\n"
        "of one side differ by is no regression.\n"
        "baseline:NAME is NAME.json or the directory NAME in $BENCH_BASELINES, ./baselines, "
        "./results/baselines\n"
        "or the program's own baselines.\n"
        "\n"
        "A perplexity regresses when it rose by more than a tolerance and the differences of its windows,\n"
        "paired, say that this is no accident; a speed when its median fell by the least effect, by more "
        "than "
        "runs\n"
        "scatter (Student's t of the runs' figures, and the ranks of their processes, which exclude a stray "
        "one); where\n"
        "the runs at hand are too few to show their scatter, --run-spread-pct is assumed, and the verdict "
        "says "
        "so;\n"
        "memory beyond a tolerance and a floor. Levels hold for all rows together (Holm). Speeds and memory "
        "compare on equal devices "
        "only,\n"
        "everything only between equal configurations, texts and windows. A row marked noisy decides "
        "nothing (docs/measuring.md).\n"
        "A case or metric that is gone, or newly fails, is a regression; a document that lacks planned cases "
        "and\n"
        "a comparison of nothing never pass.",
    .examples = "bench compare baseline:demo demo.json\n"
                "bench compare a1.json a2.json a3.json -- b1.json b2.json\n"
                "bench compare nightly/ today.json --format junit -o gate.xml\n"
                "bench compare old.json new.json --speed-effect-pct 3 --json",
    .exit_status = "0   nothing got worse\n"
                   "1   a regression, or the documents are incomplete or cannot be compared\n"
                   "2   the command line is wrong\n"
                   "3   inconclusive: more repeats are needed, the text says about how many",
};

/* OLD NEW, or several of each with "--" between them. */
typedef struct {
    const char *words[WORDS_MAX];
    size_t n_old, n;
} sides;

/* "--" behind a word parts the sides, and options may follow it; before all words it ends the options, as
   everywhere. */
static qb_status parse(qb_option_set sets[3], int argc, char **argv, sides *out, bool *done) {
    char **joined = NULL;
    int at = 1;
    qb_status st;
    while (at < argc && strcmp(argv[at], "--") != 0) at++;
    QB_TRY(st, qb_command_parse(&page, sets, 3, at, argv, out->words, WORDS_MAX, &out->n_old, done));
    if (at < argc && out->n_old && !*done) {
        QB_TRY(st, qb_alloc((size_t)argc, sizeof *joined, &joined));
        for (int i = 0, n = 0; i < argc; i++)
            if (i != at) joined[n++] = argv[i];
        st = qb_command_parse(&page, sets, 3, argc - 1, joined, out->words, WORDS_MAX, &out->n, done);
    } else if (!*done) {
        st = qb_command_parse(&page, sets, 3, argc, argv, out->words, 2, &out->n, done);
        out->n_old = out->n < 1 ? 0 : 1;
    }
    if (st == QB_OK && !*done && out->n <= out->n_old)
        st = qb_command_missing(&page, out->n_old ? "NEW" : "OLD");
out:
    qb_free(joined);
    return st;
}

static qb_status compare_main(int argc, char **argv, int *exit_code) {
    compare_options options = {0}; /* `paired` is no option */
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options},
                            {"JUDGING", qb_judging_options, &options.config},
                            {"COMMON OPTIONS", qb_common_options, &common}};
    sides words = {0};
    bool done;
    qb_runs old_runs = {0}, new_runs = {0};
    qb_rows before = {0}, after = {0};
    qb_comparison comparison = {0};
    qb_status st;
    QB_TRY(st, parse(sets, argc, argv, &words, &done));
    if (done) goto out;
    if (options.output) QB_TRY(st, qb_file_replaceable(options.output));
    QB_TRY(st, qb_runs_open(words.words, words.n_old, options.runs, &old_runs));
    QB_TRY(st, qb_runs_open(words.words + words.n_old, words.n - words.n_old, options.runs, &new_runs));
    qb_runs_without(&old_runs, &new_runs);
    if (!old_runs.n) QB_TRY(st, qb_fail(QB_ERR_FORMAT, "%s holds nothing but the new run", words.words[0]));
    QB_TRY(st, qb_judging_rows(old_runs.documents, old_runs.n, &before));
    QB_TRY(st, qb_judging_rows(new_runs.documents, new_runs.n, &after));
    QB_TRY(st, qb_compare(&before, &after, &options.config, &comparison));
    if (options.output) QB_TRY(st, qb_judging_write(&comparison, options.format, options.output));
    QB_TRY(st, qb_judging_write(&comparison,
                                common.json      ? "json"
                                : options.output ? "text"
                                                 : options.format,
                                NULL));
    *exit_code = qb_comparison_exit_code(&comparison);
out:
    qb_comparison_free(&comparison);
    qb_rows_free(&before);
    qb_rows_free(&after);
    qb_runs_close(&old_runs);
    qb_runs_close(&new_runs);
    return st;
}

const qb_command qb_command_compare = {"compare", "tell what moved since an earlier result, as a gate",
                                       compare_main};
