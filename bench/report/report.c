#include "bench/report/report.h"

#include "base/file.h"
#include "base/log.h"
#include "plots/pictures.h"
#include "results/sink.h"
#include "results/text.h"

#include <stdio.h>
#include <string.h>

static qb_status write_text(const char *dir, const char *name, const qb_str *text, int *n_files) {
    char *path = qb_path_join(dir, name);
    qb_status st = path ? qb_str_status(text) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK) st = qb_file_write_atomic(path, qb_str_get(text), text->length);
    *n_files += st == QB_OK;
    qb_free(path);
    return st;
}

/* "SmolLM2-135M: smollm2"; several of either side by side. */
static void make_title(const qb_rows *rows, qb_str *out) {
    for (int kind = 0; kind < 2; kind++) {
        const char *seen[4];
        int n = 0, count = kind ? rows->n_documents : rows->n_cases;
        for (int i = 0; i < count && n < 4; i++) {
            const char *word = kind ? rows->documents[i].suite : rows->cases[i].of;
            bool known = !*word;
            for (int k = 0; k < n && !known; k++) known = !strcmp(seen[k], word);
            if (known) continue;
            qb_str_text(out, n ? ", " : kind && out->length ? ": " : "");
            qb_text_clean(word, 60, out);
            seen[n++] = word;
        }
    }
    if (!out->length) qb_str_text(out, "Results");
}

static void put_list(const char *title, const qb_sentences *s, qb_str *out) {
    if (!s->n) return;
    qb_str_printf(out, "\n## %s\n\n", title);
    for (size_t i = 0; i < s->n; i++) {
        qb_str_text(out, "- ");
        for (const char *p = s->items[i]; *p; p++) {
            if (strchr("|\\`*_[]<>", *p)) qb_str_text(out, "\\");
            qb_str_append(out, p, 1);
        }
        qb_str_text(out, "\n");
    }
}

static qb_status write_markdown(const qb_report_page *p, const char *dir, int *n_files) {
    qb_str out = {0};
    qb_str_printf(&out, "# %s\n", p->title);
    put_list("In short", p->headlines, &out);
    put_list("Warnings", p->warnings, &out);
    qb_str_text(&out, "\n## Results\n\n");
    qb_status st = qb_rows_print(p->rows, "markdown", &out);
    if (p->has_files && p->n_pictures) qb_str_text(&out, "\n## Figures\n\n");
    for (size_t i = 0; p->has_files && i < p->n_pictures; i++)
        qb_str_printf(&out, "![%s](figures/%s.png)\n", p->pictures[i].title, p->pictures[i].name);
    if (st == QB_OK) st = write_text(dir, "report.md", &out, n_files);
    qb_str_free(&out);
    return st;
}

static qb_status write_sink(const qb_rows *rows, const char *format, const char *dir, const char *name,
                            int *n_files) {
    qb_str out = {0};
    qb_status st = qb_rows_print(rows, format, &out);
    if (st == QB_OK) st = write_text(dir, name, &out, n_files);
    qb_str_free(&out);
    return st;
}

/* gnuplot's files where it is there; the page draws by itself. */
static qb_status draw_files(const qb_rows *rows, const qb_report_request *r, qb_report_page *page,
                            int *n_files) {
    char version[64];
    int drawn = 0;
    char *dir = qb_path_join(r->dir, "figures");
    qb_plots_request request = r->figures;
    qb_str terminals = {0};
    if (!dir) return qb_fail(QB_ERR_MEMORY, "out of memory");
    if (!qb_gnuplot_find(version)) {
        qb_warn("no figures of their own are written, only those in the page: %s", version);
        qb_free(dir);
        return QB_OK;
    }
    request.dir = dir;
    request.sources = true;
    qb_status st = qb_gnuplot_terminals(&terminals);
    if (st == QB_OK) st = qb_plots_draw(rows, &request, &drawn);
    page->has_files = drawn > 0;
    page->has_pdf = strstr(qb_str_get(&terminals), " pdfcairo ") != NULL;
    *n_files += drawn;
    qb_str_free(&terminals);
    qb_free(dir);
    return st;
}

qb_status qb_report_write(const qb_result_set *set, const qb_report_request *r, int *n_files) {
    const qb_rows *rows = &set->rows;
    qb_arena arena = {0};
    qb_sentences headlines = {0}, warnings = {0};
    qb_sheet sheet = {0};
    qb_svg_easel easel;
    qb_str title = {0}, html = {0};
    qb_report_page page = {.rows = rows, .headlines = &headlines, .warnings = &warnings};
    qb_status st;
    *n_files = 0;
    qb_svg_easel_make(&easel, &arena);
    QB_TRY(st, qb_make_dirs(r->dir));
    QB_TRY(st, qb_dir_writable(r->dir));
    if (r->title)
        qb_text_clean(r->title, 0, &title);
    else
        make_title(rows, &title);
    QB_TRY(st, qb_str_status(&title));
    page.title = qb_str_get(&title);
    QB_TRY(st, qb_report_headlines(rows, &arena, &headlines));
    QB_TRY(st, qb_report_warnings(rows, &arena, &warnings));
    QB_TRY(st, qb_sheet_make(rows, &sheet));
    QB_TRY(st, qb_pictures_draw(&sheet, &easel.easel, r->figures.only));
    page.pictures = easel.pictures;
    page.n_pictures = easel.n;
    QB_TRY(st, draw_files(rows, r, &page, n_files));
    QB_TRY(st, qb_report_page_put(&page, &html));
    QB_TRY(st, write_text(r->dir, "report.html", &html, n_files));
    QB_TRY(st, write_markdown(&page, r->dir, n_files));
    QB_TRY(st, write_sink(rows, "latex", r->dir, "report.tex", n_files));
    st = write_sink(rows, "csv", r->dir, "report.csv", n_files);
out:
    qb_str_free(&html);
    qb_str_free(&title);
    qb_sheet_free(&sheet);
    qb_free(easel.pictures);
    qb_free(headlines.items);
    qb_free(warnings.items);
    qb_arena_free(&arena);
    return st;
}
