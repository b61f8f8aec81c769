/* bench table: result documents as text again, for terminals, papers and spreadsheets. */
#include "base/memory.h"
#include "bench/command.h"
#include "results/set.h"
#include "results/sink.h"

typedef struct {
    const char *format;
    bool markdown;
} table_options;

static const qb_option rows[] = {
    QB_FORMAT_OPTION(table_options, format),
    {"markdown", 0, QB_OPTION_BOOL, offsetof(table_options, markdown), NULL, 0, 0, NULL, NULL,
     "the same as --format markdown"},
    {0},
};

static const qb_page page = {
    .name = "table",
    .summary = "print the table of result documents",
    .synopsis = "table RESULT.json... [--format FORMAT]",
    .description = "One row a case: bits a weight, size, perplexities and divergences with their standard "
                   "errors, speeds, peak\n"
                   "memory and quantization time. Failed and skipped cases are shown with their reasons. "
                   "Several documents\n"
                   "stand in one table, each named in its rows and described below. LaTeX needs the package "
                   "booktabs; CSV\n"
                   "holds full numbers in base units; JSON every row of every case.",
    .examples = "bench table demo.json\n"
                "bench table results/baselines/demo.json --format markdown\n"
                "bench table laptop.json server.json --format csv",
};

static qb_status table_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    table_options options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *paths[QB_SET_MAX];
    size_t n_words;
    bool done;
    qb_result_set set = {0};
    qb_str text = {0};
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 2, argc, argv, paths, QB_SET_MAX, &n_words, &done));
    if (done) goto out;
    if (!n_words) return qb_command_missing(&page, "RESULT.json");
    QB_TRY(st, qb_result_set_open(paths, n_words, &set));
    const char *format = options.markdown ? "markdown" : options.format;
    if (common.json && set.n == 1) {
        QB_TRY(st, qb_output_json(set.documents[0].doc));
    } else {
        QB_TRY(st, qb_rows_print(&set.rows, common.json ? "json" : format, &text));
        qb_output_bytes(qb_str_get(&text), text.length);
    }
out:
    qb_str_free(&text);
    qb_result_set_close(&set);
    return st;
}

const qb_command qb_command_table = {"table", "print the table of result documents", table_main};
