/* bench report: results as a page for people, and as files for papers. */
#include "base/log.h"
#include "base/memory.h"
#include "bench/command.h"
#include "bench/report/report.h"

typedef struct {
    const char *out, *title_text, *size, *font;
    bool title;
} report_options;

static const qb_option rows[] = {
    {"out", 'o', QB_OPTION_TEXT, offsetof(report_options, out), "report", 0, 0, NULL, "DIR",
     "folder for the report; made when it is absent"},
    {"heading", 0, QB_OPTION_TEXT, offsetof(report_options, title_text), NULL, 0, 0, NULL, "TEXT",
     "heading of the page; models and suites without"},
    QB_PLOT_STYLE_OPTIONS(report_options),
    {0},
};

static const qb_page page = {
    .name = "report",
    .summary = "write a page of results, with tables and figures for papers",
    .synopsis = "report RESULT.json... [-o DIR] [--size W,H] [--font FAMILY,SIZE] [--no-title]",
    .description = "Writes report.html, one file that needs no network: what the data say in short and how "
                   "sure that is,\n"
                   "warnings, a table that sorts and filters, figures that tell their values and hide "
                   "methods, errors layer\n"
                   "by layer, published checkpoints beside measured ones, machines, commands and hashes. "
                   "Beside it the same\n"
                   "table as Markdown, LaTeX (booktabs) and CSV, and every figure as SVG, PNG and PDF with "
                   "its data and\n"
                   "gnuplot script; --size, --font and --no-title are for those. Several results, of "
                   "machines, models or\n"
                   "commits, stand side by side.",
    .examples = "bench report 7b.json -o report\n"
                "bench report laptop.json server.json -o both\n"
                "bench report 7b.json -o paper --size 3.3in,2.5in --font Times,8 --no-title",
};

static qb_status report_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    report_options options;
    qb_common common;
    qb_option_set sets[] = {{"OPTIONS", rows, &options}, {"COMMON OPTIONS", qb_common_options, &common}};
    const char *paths[QB_SET_MAX];
    size_t n_words;
    bool done;
    int n_files = 0;
    qb_result_set set = {0};
    qb_status st;
    QB_TRY(st, qb_command_parse(&page, sets, 2, argc, argv, paths, QB_SET_MAX, &n_words, &done));
    if (done) goto out;
    if (!n_words) return qb_command_missing(&page, "RESULT.json");
    qb_report_request request = {.dir = options.out,
                                 .title = options.title_text,
                                 .figures = {.font = options.font, .untitled = !options.title}};
    if (options.size)
        QB_TRY(st, qb_plots_size(options.size, &request.figures.width, &request.figures.height));
    QB_TRY(st, qb_result_set_open(paths, n_words, &set));
    QB_TRY(st, qb_report_write(&set, &request, &n_files));
    qb_info("%d files in %s; open %s/report.html", n_files, options.out, options.out);
    if (common.json) {
        qb_json *j = qb_json_object();
        qb_json_put_text(j, "out", options.out);
        qb_json_put_int(j, "files", n_files);
        st = qb_output_json(j);
        qb_json_free(j);
    }
out:
    qb_result_set_close(&set);
    return st;
}

const qb_command qb_command_report = {"report", "write a page of results, with tables and figures for papers",
                                      report_main};
