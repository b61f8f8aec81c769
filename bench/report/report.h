/* bench report: one page of a set of results, and the same as Markdown, LaTeX and CSV. */
#pragma once

#include "plots/easel.h"
#include "plots/plots.h"
#include "results/set.h"

typedef struct qb_report_request {
    const char *dir;
    const char *title;        /* NULL: made of the models and suites */
    qb_plots_request figures; /* dir is set here */
} qb_report_request;

/* Writes DIR/report.html, .md, .tex and .csv, and DIR/figures with every plot, its data and script; without
   gnuplot the page has its figures all the same. *n_files counts. */
qb_status qb_report_write(const qb_result_set *set, const qb_report_request *request,
                          int *n_files) QB_NODISCARD;

/* Sentences in the order of their worth; from the arena. */
typedef struct qb_sentences {
    const char **items;
    size_t n, capacity; /* items: qb_free */
} qb_sentences;
/* Keeps a sentence that is not there yet. Takes the string. */
qb_status qb_sentences_add(qb_sentences *s, qb_arena *arena, qb_str *text) QB_NODISCARD;

/* The best of each size, the fastest of each device, and how sure that is. */
qb_status qb_report_headlines(const qb_rows *rows, qb_arena *arena, qb_sentences *out) QB_NODISCARD;
/* What a reader must not overlook: noise, fallbacks, what is skipped, failed or missing, substitutes of
 * texts. */
qb_status qb_report_warnings(const qb_rows *rows, qb_arena *arena, qb_sentences *out) QB_NODISCARD;
/* Sections of the page, nothing where there is no data. */
void qb_report_heat(const qb_rows *rows, qb_str *out);
void qb_report_published(const qb_rows *rows, qb_str *out);
void qb_report_facts(const qb_rows *rows, qb_str *out);
/* The page. svg: figures by name; files: whether figures/NAME.* were drawn by gnuplot. */
typedef struct qb_report_page {
    const qb_rows *rows;
    const char *title;
    const qb_sentences *headlines, *warnings;
    const qb_svg_picture *pictures;
    size_t n_pictures;
    bool has_pdf, has_files;
} qb_report_page;
qb_status qb_report_page_put(const qb_report_page *page, qb_str *out) QB_NODISCARD;
