/* How a table leaves the program: a sink each, in one file each. */
#pragma once

#include "results/table.h"

typedef struct qb_sink {
    const char *name, *suffix, *summary;
    qb_status (*write)(const qb_table *t, qb_str *out); /* appends */
} qb_sink;
const qb_sink *qb_sink_at(size_t index); /* NULL behind the last */
const qb_sink *qb_sink_find(const char *name);
/* The names as an option's choices. */
#define QB_SINK_CHOICES "text|markdown|csv|latex|html|json"

/* The row of an option `--format` over a field of the target's struct, wherever a table is printed. */
#define QB_FORMAT_OPTION(type, field)                                                                        \
    {                                                                                                        \
        "format", 0, QB_OPTION_CHOICE, offsetof(type, field), "text", 0, 0, QB_SINK_CHOICES, "FORMAT",       \
            "how the table is written"                                                                       \
    }

/* The whole way: rows, table, sink. */
qb_status qb_rows_print(const qb_rows *rows, const char *format, qb_str *out) QB_NODISCARD;
qb_status qb_results_print(const qb_results *r, const char *format, qb_str *out) QB_NODISCARD;

/* Text inside HTML, SVG and other XML: markup characters as entities, what lies beyond ASCII as character
   references, so that it reads the same in any encoding. */
void qb_html_text(const char *text, qb_str *out);
/* Text inside LaTeX. */
void qb_latex_text(const char *text, qb_str *out);
/* A cell or a line of Markdown: what would end it or begin markup is escaped. */
void qb_markdown_text(const char *text, qb_str *out);
/* A field of RFC 4180, quoted where it has to be. */
void qb_csv_text(const char *text, qb_str *out);
/* The shortest form that reads back as the same double; nothing for NaN. */
void qb_number_text(double value, qb_str *out);
