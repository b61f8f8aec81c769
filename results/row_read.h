/* The keys of a document, each named once. Private to results/. */
#pragma once

#include "results/rows.h"

const char *qb_read_word(const qb_json *object, const char *key); /* "" when absent */
double qb_read_number(const qb_json *object, const char *key);    /* NaN when absent */
const char *qb_read_text(const qb_json *object, const char *key); /* NULL when absent */

/* A metric row; arrays come from the arena. */
qb_status qb_read_row(qb_arena *arena, const qb_json *json, const qb_row_case *of, qb_row *out) QB_NODISCARD;
/* The fields of a case whose json, document and rows are set; not device, names and warnings. */
qb_status qb_read_case(qb_arena *arena, qb_row_case *c) QB_NODISCARD;
/* Share of its text that a perplexity's row covers: below 1 where windows were left out, 1 else (a remainder
   shorter than a window is nobody's). */
double qb_read_part(const qb_row *row, const qb_json *json);
