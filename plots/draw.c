#include "plots/plots.h"

#include "base/file.h"
#include "base/log.h"
#include "plots/pictures.h"

#include <string.h>

static const struct {
    qb_plot plot;
    qb_picture_fn draw;
} pictures[] = {
    {{"perplexity-bits", "perplexity against bits per weight, a line through each method's widths"},
     qb_picture_perplexity_bits},
    {{"perplexity-size", "perplexity against the size of the checkpoint"}, qb_picture_perplexity_size},
    {{"pareto", "the front of the best trades between size and perplexity"}, qb_picture_pareto},
    {{"decode-bits", "tokens generated a second against bits per weight"}, qb_picture_decode_bits},
    {{"prefill", "prompt tokens a second, a bar a case"}, qb_picture_prefill},
    {{"memory", "peak memory of measuring and quantizing, and the weights' share, a bar a case"},
     qb_picture_memory},
    {{"quantize-time", "seconds that quantizing took, a bar a case"}, qb_picture_quantize_time},
    {{"layer-error", "mean relative error of each layer's matrices"}, qb_picture_layer_error},
};
enum { N_PICTURES = sizeof pictures / sizeof pictures[0] };

const qb_plot *qb_plot_at(size_t index) {
    return index < N_PICTURES ? &pictures[index].plot : NULL;
}

static bool is_chosen(const char *only, const char *name) {
    if (!only) return true;
    size_t n = strlen(name);
    for (const char *p = only; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL)
        if (!strncmp(p, name, n) && (p[n] == ',' || p[n] == 0)) return true;
    return false;
}

/* Every word of the list must name a plot. */
static qb_status check_names(const char *only) {
    const char *names[N_PICTURES];
    for (size_t i = 0; i < N_PICTURES; i++) names[i] = pictures[i].plot.name;
    for (const char *p = only; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        char word[64] = {0};
        size_t n = strcspn(p, ","), i = 0;
        if (n < sizeof word) memcpy(word, p, n);
        while (i < N_PICTURES && strcmp(word, names[i]) != 0) i++;
        if (i < N_PICTURES) continue;
        char hint[QB_HINT_CHARS];
        return qb_fail(QB_ERR_USAGE, "unknown plot \"%.*s\": `bench list plots` shows them%s",
                       (int)(n < 60 ? n : 60), p, qb_did_you_mean(word, names, N_PICTURES, hint));
    }
    return QB_OK;
}

qb_status qb_plots_draw(const qb_rows *rows, const char *dir, const char *only, int *n_files) {
    qb_str terminals = {0};
    qb_sheet sheet = {0};
    qb_status st;
    *n_files = 0;
    QB_TRY(st, check_names(only));
    QB_TRY(st, qb_gnuplot_terminals(&terminals));
    if (!strstr(qb_str_get(&terminals), " pngcairo ") || !strstr(qb_str_get(&terminals), " svg "))
        QB_TRY(st, qb_fail(QB_ERR_UNSUPPORTED,
                           "this gnuplot has no svg or no pngcairo terminal: apt-get install gnuplot-nox"));
    if (!strstr(qb_str_get(&terminals), " pdfcairo "))
        qb_info("no PDF is drawn: this gnuplot has no pdfcairo terminal");
    QB_TRY(st, qb_make_dirs(dir));
    QB_TRY(st, qb_dir_writable(dir));
    QB_TRY(st, qb_sheet_make(rows, &sheet));
    for (size_t i = 0; i < N_PICTURES; i++) {
        if (!is_chosen(only, pictures[i].plot.name)) continue;
        int before = *n_files;
        const qb_picture_job job = {&sheet, qb_str_get(&terminals), dir, pictures[i].plot.name, n_files};
        QB_TRY(st, pictures[i].draw(&job));
        if (*n_files == before)
            qb_info("plot %s is not drawn: the results have no data for it", pictures[i].plot.name);
    }
out:
    qb_sheet_free(&sheet);
    qb_str_free(&terminals);
    return st;
}
