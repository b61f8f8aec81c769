/* bench table: a result document as text again, for terminals and reports. */
#include "base/memory.h"
#include "bench/command.h"
#include "results/results.h"

typedef struct {
    bool markdown;
} table_options;

static const qb_option rows[] = {
    {"markdown", 0, QB_OPTION_BOOL, offsetof(table_options, markdown), NULL, 0, 0, NULL, NULL,
     "write a Markdown table"},
    {0},
};

static const qb_page page = {
    .name = "table",
    .summary = "print the table of a result document",
    .synopsis = "table RESULT.json [--markdown]",
    .description = "One row a case: bits a weight, size, perplexities with their standard errors, speeds, "
                   "peak memory and\n"
                   "quantization time. Failed and skipped cases are shown with their reasons.",
    .examples = "bench table demo.json\n"
                "bench table results/baselines/demo.json --markdown",
};

static qb_status table_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    table_options options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *path = NULL;
    size_t n_words;
    bool done;
    qb_results results = {0};
    qb_str text = {0};
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 2, argc, argv, &path, 1, &n_words, &done));
    if (done) goto out;
    if (!path) return qb_command_missing(&page, "RESULT.json");
    QB_TRY(st, qb_results_open(path, &results));
    if (common.json) {
        QB_TRY(st, qb_output_json(results.doc));
    } else {
        QB_TRY(st, qb_results_table(&results, options.markdown, &text));
        qb_output("%s", qb_str_get(&text));
    }
out:
    qb_str_free(&text);
    qb_results_close(&results);
    return st;
}

const qb_command qb_command_table = {"table", "print the table of a result document", table_main};
