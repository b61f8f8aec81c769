/* Colours on terminals: wanted when --color says so, else on a terminal that is not TERM=dumb, unless
   NO_COLOR is set (https://no-color.org). */
#pragma once

#include "base/str.h"

typedef enum { QB_COLOUR_AUTO, QB_COLOUR_ALWAYS, QB_COLOUR_NEVER } qb_colour_when;
typedef enum { QB_BOLD, QB_RED, QB_GREEN, QB_YELLOW, QB_N_PAINTS } qb_paint;

void qb_colour_set(qb_colour_when when);
/* For what is written to this file descriptor, 1 or 2. */
bool qb_colour_wanted(int fd);
/* The sequence that begins a paint, and the one that ends any; "" when it is not wanted. */
const char *qb_colour_begin(qb_paint paint, bool wanted);
const char *qb_colour_end(bool wanted);

/* Words that are painted wherever they stand alone in a text. */
typedef struct qb_painted_word {
    const char *word; /* NULL behind the last */
    qb_paint paint;
} qb_painted_word;
/* Appends n bytes of clean text with these words painted, and with `heads` lines that begin at the margin in
 * bold. */
void qb_colour_text(const char *text, size_t n, const qb_painted_word *words, bool heads, qb_str *out);
