/* The page: everything in one file, nothing from the network. */
#include "base/file.h"
#include "bench/report/report.h"
#include "results/sink.h"

#include <string.h>

static qb_status put_asset(const char *name, qb_str *out) {
    char *share = qb_share_dir(), *dir = share ? qb_path_join(share, "report") : NULL;
    char *path = dir ? qb_path_join(dir, name) : NULL, *text = NULL;
    size_t n = 0;
    qb_status st = path ? qb_file_read(path, 1 << 20, &text, &n) : qb_fail(QB_ERR_MEMORY, "out of memory");
    if (st == QB_OK)
        qb_str_append(out, text, n);
    else if (path)
        st = qb_fail_prefix(st,
                            "the page's parts that come with the program are not at hand (set BENCH_SHARE)");
    qb_free(share);
    qb_free(dir);
    qb_free(path);
    qb_free(text);
    return st;
}

static qb_status put_head(const qb_report_page *p, qb_str *out) {
    qb_status st;
    qb_str_text(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                     "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
                     "<meta name=\"color-scheme\" content=\"light dark\"/>\n<title>");
    qb_html_text(p->title, out);
    qb_str_text(out, "</title>\n<style>\n");
    QB_TRY(st, put_asset("report.css", out));
    qb_str_text(out, "</style>\n</head>\n<body>\n<header><h1>");
    qb_html_text(p->title, out);
    qb_str_text(out, "</h1>\n");
out:
    return st;
}

static void put_link(const char *id, const char *word, qb_str *out) {
    qb_str_printf(out, "<a href=\"#%s\">%s</a>\n", id, word);
}

static void put_list(const char *id, const char *title, const qb_sentences *s, qb_str *out) {
    if (!s->n) return;
    qb_str_printf(out, "<section id=\"%s\"><h2>%s</h2>\n<ul>\n", id, title);
    for (size_t i = 0; i < s->n; i++) {
        qb_str_text(out, "<li>");
        qb_html_text(s->items[i], out);
        qb_str_text(out, "</li>\n");
    }
    qb_str_text(out, "</ul></section>\n");
}

static void put_legend(const qb_svg_picture *p, qb_str *out) {
    qb_str_text(out, "<div class=\"legend\" role=\"group\" aria-label=\"Methods: press to hide or show\">\n");
    for (int i = 0; i < p->n_series; i++) {
        qb_str_printf(out,
                      "<button type=\"button\" aria-pressed=\"true\" class=\"%s\" style=\"--c:var(--h%d)\" "
                      "data-toggle=\"",
                      p->variants[i] ? "hollow" : "full", p->hues[i] % 8);
        qb_html_text(p->series[i], out);
        qb_str_text(out, "\"><span></span>");
        qb_html_text(p->series[i], out);
        qb_str_text(out, "</button>\n");
    }
    qb_str_text(out, "</div>\n");
}

static void put_files(const qb_report_page *page, const char *name, qb_str *out) {
    static const char *const suffixes[] = {"svg", "png", "pdf", "csv", "gp"};
    if (!page->has_files) return;
    qb_str_text(out, "<p class=\"files\">");
    for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++)
        if (strcmp(suffixes[i], "pdf") != 0 || page->has_pdf)
            qb_str_printf(out, "<a href=\"figures/%s.%s\">%s</a> ", name, suffixes[i], suffixes[i]);
    qb_str_text(out, "</p>\n");
}

static void put_figures(const qb_report_page *p, qb_str *out) {
    if (!p->n_pictures) return;
    qb_str_text(out, "<section id=\"figures\"><h2>Figures</h2>\n");
    for (size_t i = 0; i < p->n_pictures; i++) {
        const qb_svg_picture *picture = &p->pictures[i];
        qb_str_printf(out, "<figure id=\"figure-%s\">\n<figcaption><strong>", picture->name);
        qb_html_text(picture->title, out);
        qb_str_text(out, "</strong> ");
        qb_html_text(picture->subtitle, out);
        qb_str_text(out, "</figcaption>\n<div class=\"scroll\">\n");
        qb_str_text(out, picture->svg);
        qb_str_text(out, "</div>\n");
        put_legend(picture, out);
        put_files(p, picture->name, out);
        qb_str_text(out, "</figure>\n");
    }
    qb_str_text(out, "</section>\n");
}

static qb_status put_table(const qb_report_page *p, qb_str *out) {
    qb_str_text(out, "<section id=\"results\"><h2>Results</h2>\n"
                     "<p class=\"filter\"><label>Show rows with <input type=\"search\" id=\"filter\" "
                     "placeholder=\"gptq 4b\"/></label> <output id=\"count\"></output></p>\n<div "
                     "class=\"scroll\" tabindex=\"0\">\n");
    qb_status st = qb_rows_print(p->rows, "html", out);
    qb_str_text(out, "</div></section>\n");
    return st;
}

qb_status qb_report_page_put(const qb_report_page *p, qb_str *out) {
    qb_str heat = {0}, published = {0};
    qb_status st;
    qb_report_heat(p->rows, &heat);
    qb_report_published(p->rows, &published);
    QB_TRY(st, put_head(p, out));
    qb_str_text(out, "<nav aria-label=\"Sections\">\n");
    if (p->headlines->n) put_link("headlines", "In short", out);
    if (p->warnings->n) put_link("warnings", "Warnings", out);
    put_link("results", "Results", out);
    if (p->n_pictures) put_link("figures", "Figures", out);
    if (heat.length) put_link("layers", "Layer by layer", out);
    if (published.length) put_link("published", "Published", out);
    put_link("facts", "Where it comes from", out);
    qb_str_text(out, "</nav></header>\n<main>\n");
    put_list("headlines", "In short", p->headlines, out);
    put_list("warnings", "Warnings", p->warnings, out);
    QB_TRY(st, put_table(p, out));
    put_figures(p, out);
    qb_str_text(out, qb_str_get(&heat));
    qb_str_text(out, qb_str_get(&published));
    qb_report_facts(p->rows, out);
    qb_str_text(out, "</main>\n<div id=\"tip\" role=\"status\" hidden=\"hidden\"></div>\n<script>\n");
    QB_TRY(st, put_asset("report.js", out));
    qb_str_text(out, "</script>\n</body>\n</html>\n");
    out->failed |= heat.failed || published.failed;
    st = qb_str_status(out);
out:
    qb_str_free(&heat);
    qb_str_free(&published);
    return st;
}
