/* bench compare: what moved between two result documents, and whether it got worse. */
#include "bench/command.h"
#include "results/results.h"

static const qb_option rows[] = {
    {"perplexity-tolerance-pct", 0, QB_OPTION_REAL, offsetof(qb_compare_config, perplexity_tolerance_pct),
     "0.1", 0, 100, NULL, "PCT", "relative change of a perplexity that counts as moved"},
    {"speed-effect-pct", 0, QB_OPTION_REAL, offsetof(qb_compare_config, speed_effect_pct), "5", 0, 100, NULL,
     "PCT", "least relative change of a speed's median that counts"},
    {"alpha", 0, QB_OPTION_REAL, offsetof(qb_compare_config, alpha), "0.01", 1e-12, 1, NULL, "P",
     "level of the two-sided Mann-Whitney U test that a speed's change must pass too"},
    {"memory-tolerance-pct", 0, QB_OPTION_REAL, offsetof(qb_compare_config, memory_tolerance_pct), "2", 0,
     100, NULL, "PCT", "relative change of a size or of memory that counts as moved"},
    {"memory-floor-mb", 0, QB_OPTION_REAL, offsetof(qb_compare_config, memory_floor_mb), "4", 0, 1e6, NULL,
     "MB", "least change of a process's or device's memory that counts"},
    {"force", 'f', QB_OPTION_BOOL, offsetof(qb_compare_config, force), NULL, 0, 0, NULL, NULL,
     "compare speeds and memory although the devices differ"},
    {0},
};

static const qb_page page = {
    .name = "compare",
    .summary = "tell what moved between two result documents",
    .synopsis = "compare OLD.json NEW.json [options]",
    .description =
        "Matches the cases of two documents by id and prints what moved. A perplexity moved when it changed "
        "by "
        "more\n"
        "than a tolerance; a speed when its median changed by a least effect and a Mann-Whitney U test on "
        "the "
        "samples\n"
        "says that this is no accident, unless a side stayed noisy (docs/measuring.md). Speeds and "
        "memory\n"
        "are compared on equal devices only, everything only between equal configurations, texts and "
        "windows. "
        "A case\n"
        "or metric that is gone, or newly fails, is a regression, and a document that lacks planned cases "
        "never passes.",
    .examples = "bench compare results/baselines/demo.json demo.json\n"
                "bench compare old.json new.json --speed-effect-pct 3 --json",
    .exit_status = "0   nothing got worse\n"
                   "1   a regression, or the documents are incomplete or cannot be compared\n"
                   "2   the command line is wrong",
};

static qb_status compare_main(int argc, char **argv, int *exit_code) {
    qb_compare_config config;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &config}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *paths[2] = {NULL, NULL};
    size_t n_words;
    bool done, regressed = false;
    qb_results old_results = {0}, new_results = {0};
    qb_str text = {0};
    qb_json *json = NULL;
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 2, argc, argv, paths, 2, &n_words, &done));
    if (done) goto out;
    if (n_words < 2) return qb_command_missing(&page, n_words ? "NEW.json" : "OLD.json");
    QB_TRY(st, qb_results_open(paths[0], &old_results));
    QB_TRY(st, qb_results_open(paths[1], &new_results));
    QB_TRY(st, qb_results_compare(&old_results, &new_results, &config, &text, &json, &regressed));
    if (common.json)
        st = qb_output_json(json);
    else
        qb_output_bytes(qb_str_get(&text), text.length);
    *exit_code = regressed ? 1 : 0;
out:
    qb_json_free(json);
    qb_str_free(&text);
    qb_results_close(&old_results);
    qb_results_close(&new_results);
    return st;
}

const qb_command qb_command_compare = {"compare", "tell what moved between two result documents",
                                       compare_main};
