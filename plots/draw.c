#include "plots/plots.h"

#include "base/file.h"
#include "base/log.h"
#include "plots/pictures.h"

#include <math.h>
#include <stdlib.h>
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

qb_status qb_plots_size(const char *text, int *width, int *height) {
    static const struct {
        const char *name;
        double px;
    } units[] = {{"in", 72}, {"cm", 72 / 2.54}, {"mm", 72 / 25.4}, {"pt", 1}, {"px", 1}, {"", 1}};
    int *const sides[] = {width, height};
    const char *p = text;
    for (int i = 0; i < 2; i++) {
        char *end;
        double value = strtod(p, &end);
        size_t n = strcspn(end, ",x"), u = 0, n_units = sizeof units / sizeof units[0];
        while (u < n_units && (strlen(units[u].name) != n || strncmp(end, units[u].name, n) != 0)) u++;
        double px = u < n_units ? value * units[u].px : 0;
        if (end == p || !(px >= 72 && px <= 10000) || (i == 0 && !end[n]) || (i == 1 && end[n]))
            return qb_fail(
                QB_ERR_USAGE,
                "a size is width,height, each from 1in to 10000 with in, cm, mm, pt or px behind it "
                "such as 3.3in,2.5in; found '%.40s'",
                text);
        *sides[i] = (int)(px + 0.5);
        p = end + n + 1;
    }
    return QB_OK;
}

/* "Times,9" */
static qb_status read_font(const char *font, char family[64], qb_canvas *style) {
    const char *comma = font ? strrchr(font, ',') : NULL;
    char *end = NULL;
    double size = comma ? strtod(comma + 1, &end) : QB_CANVAS_FONT_PX;
    size_t n = comma ? (size_t)(comma - font) : font ? strlen(font) : 0;
    if (!font) return QB_OK;
    if (!n || n >= 64 || (comma && (*end || end == comma + 1)) || !(size >= 4 && size <= 72))
        return qb_fail(QB_ERR_USAGE,
                       "a font is a family, or family,size from 4 to 72 such as Times,9; found '%.60s'",
                       font);
    memcpy(family, font, n);
    family[n] = 0;
    style->family = family;
    if (comma) style->scale = size / QB_CANVAS_FONT_PX;
    return QB_OK;
}

/* Letters of 8 points on a paper's column of 3.3in,2.5in, up to the usual ones at 1.6 times that; never below
   5. Where nobody said how large they are. */
static double fitting_scale(int width, int height) {
    double fit = fmin(width / 387.0, height / 290.0);
    return fmin(1, fmax(5.0 / QB_CANVAS_FONT_PX, fit));
}

qb_status qb_pictures_draw(qb_sheet *sheet, qb_easel *easel, const char *only) {
    qb_status st = QB_OK;
    for (size_t i = 0; i < N_PICTURES && st == QB_OK; i++) {
        const qb_picture_job job = {sheet, easel, pictures[i].plot.name};
        if (is_chosen(only, job.name)) st = pictures[i].draw(&job);
    }
    return st;
}

qb_status qb_plots_draw(const qb_rows *rows, const qb_plots_request *request, int *n_files) {
    qb_str terminals = {0}, lacking = {0};
    qb_sheet sheet = {0};
    char family[64];
    qb_gnuplot_easel easel = {.dir = request->dir, .sources = request->sources, .n_files = n_files};
    qb_status st;
    *n_files = 0;
    qb_gnuplot_easel_make(&easel);
    easel.easel.style =
        (qb_canvas){.width = request->width, .height = request->height, .untitled = request->untitled};
    QB_TRY(st, check_names(request->only));
    QB_TRY(st, read_font(request->font, family, &easel.easel.style));
    if (request->width && !(easel.easel.style.scale > 0))
        easel.easel.style.scale = fitting_scale(request->width, request->height);
    QB_TRY(st, qb_gnuplot_terminals(&terminals));
    if (!strstr(qb_str_get(&terminals), " pngcairo ") || !strstr(qb_str_get(&terminals), " svg "))
        QB_TRY(st, qb_fail(QB_ERR_UNSUPPORTED,
                           "this gnuplot has no svg or no pngcairo terminal: apt-get install gnuplot-nox"));
    if (!strstr(qb_str_get(&terminals), " pdfcairo "))
        qb_info("no PDF is drawn: this gnuplot has no pdfcairo terminal");
    easel.terminals = qb_str_get(&terminals);
    QB_TRY(st, qb_make_dirs(request->dir));
    QB_TRY(st, qb_dir_writable(request->dir));
    QB_TRY(st, qb_sheet_make(rows, &sheet));
    for (size_t i = 0; i < N_PICTURES; i++) {
        const char *name = pictures[i].plot.name;
        int before = *n_files;
        if (!is_chosen(request->only, name)) continue;
        const qb_picture_job job = {&sheet, &easel.easel, name};
        QB_TRY(st, pictures[i].draw(&job));
        if (*n_files == before) qb_str_printf(&lacking, "%s%s", lacking.length ? ", " : "", name);
    }
    QB_TRY(st, qb_str_status(&lacking));
    if (lacking.length && request->only)
        st = qb_fail(QB_ERR_NOT_FOUND, "not drawn, since the results have no data for it: %s", lacking.text);
    else if (lacking.length && *n_files)
        qb_info("not drawn, since the results have no data for it: %s", lacking.text);
out:
    qb_sheet_free(&sheet);
    qb_str_free(&lacking);
    qb_str_free(&terminals);
    return st;
}
