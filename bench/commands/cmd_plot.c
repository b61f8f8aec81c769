/* bench plot: the pictures of result documents. */
#include "base/log.h"
#include "base/memory.h"
#include "bench/command.h"
#include "plots/plots.h"
#include "results/set.h"

typedef struct {
    const char *out, *only, *size, *font;
    bool title, sources;
} plot_options;

static const qb_option rows[] = {
    {"out", 'o', QB_OPTION_TEXT, offsetof(plot_options, out), "plots", 0, 0, NULL, "DIR",
     "folder for the pictures; made when it is absent"},
    {"only", 0, QB_OPTION_TEXT, offsetof(plot_options, only), NULL, 0, 0, NULL, "NAME,NAME",
     "only these plots; `bench list plots` names them"},
    QB_PLOT_STYLE_OPTIONS(plot_options),
    {"sources", 0, QB_OPTION_BOOL, offsetof(plot_options, sources), NULL, 0, 0, NULL, NULL,
     "put NAME.gp and NAME.csv beside each plot: the gnuplot script that draws it, and its data"},
    {0},
};

static const qb_page page = {
    .name = "plot",
    .summary = "draw the plots of result documents",
    .synopsis = "plot RESULT.json... [--out DIR] [--only NAME,NAME]",
    .description =
        "Draws with gnuplot, each plot as SVG and PNG, and as PDF where gnuplot can: perplexity "
        "against bits\n"
        "a weight and against size with the Pareto front, decode and prefill speed, memory, "
        "quantization time,\n"
        "error by layer. A plot that the documents have no data for is left out, which is said; it is an "
        "error (exit\n"
        "code 1) where --only names it, or where nothing at all is drawn. Several documents are drawn "
        "together where\n"
        "model, text and protocol, or device, are the same.",
    .examples = "bench plot demo.json --out plots\n"
                "bench plot 7b.json --out plots --only perplexity-bits\n"
                "bench plot 7b.json --size 3.3in,2.5in --font Times,8 --no-title --sources",
};

static qb_status plot_main(int argc, char **argv, int *exit_code) {
    (void)exit_code;
    plot_options options;
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
    QB_TRY(st, qb_result_set_open(paths, n_words, &set));
    qb_plots_request request = {.dir = options.out,
                                .only = options.only,
                                .font = options.font,
                                .untitled = !options.title,
                                .sources = options.sources};
    if (options.size) QB_TRY(st, qb_plots_size(options.size, &request.width, &request.height));
    QB_TRY(st, qb_plots_draw(&set.rows, &request, &n_files));
    if (!n_files)
        QB_TRY(st, qb_fail(QB_ERR_NOT_FOUND, "nothing is drawn: the results have no data for any plot"));
    qb_info("%d files in %s", n_files, options.out);
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

const qb_command qb_command_plot = {"plot", "draw the plots of result documents", plot_main};
