/* A set of rows as a table for people: a row a case, every unit in the header, and notes below. Sinks write
   it down. */
#pragma once

#include "results/rows.h"

enum { QB_HEADER_LINES = 3 };

typedef enum {
    QB_COLUMN_RESULT,
    QB_COLUMN_MODEL,
    QB_COLUMN_LABEL,
    QB_COLUMN_METRIC,
    QB_COLUMN_STATUS
} qb_column_kind;

typedef struct qb_table_column {
    qb_column_kind kind;
    const qb_metric *metric;             /* of QB_COLUMN_METRIC */
    const char *protocol, *dataset;      /* NULL: the metric has one value a case */
    double unit;                         /* cells for people are divided by it */
    const char *header[QB_HEADER_LINES]; /* what, of what, unit; "" for none */
    bool right;
} qb_table_column;

typedef struct qb_table_cell {
    const char *text;    /* for people; "–" where there is nothing */
    double value, error; /* in the metric's own unit, NaN where there is none */
    bool noisy, projected;
} qb_table_cell;

typedef struct qb_table {
    const qb_rows *rows;
    qb_arena arena;
    qb_table_column *columns;
    int n_columns;
    qb_table_cell *cells; /* [rows->n_cases][n_columns] */
    const char *title;    /* model, devices, time */
    const char **notes;   /* a sentence each, clean text */
    int n_notes, notes_capacity;
} qb_table;

/* The rows must outlive the table. Free in any case. */
qb_status qb_table_make(const qb_rows *rows, qb_table *out) QB_NODISCARD;
void qb_table_free(qb_table *t);
const qb_table_cell *qb_table_at(const qb_table *t, int row, int column);

/* A case's one figure of a metric, where results keep it in several places; NaN. */
double qb_case_figure(const qb_row_case *c, const char *metric);
/* Four or five significant digits, without an exponent as long as the number stays short. */
int qb_decimals_of(double value);
/* As a cell of that metric's column shows it. */
void qb_figure_put(const qb_row *row, qb_str *out);
/* Adds what stands below the table. Private to results/. */
qb_status qb_table_take_notes(qb_table *t) QB_NODISCARD;
