/* A growing string, and the nearest-name search behind "did you mean". */
#pragma once

#include "base/status.h"

#include <stdarg.h>

/* Zero-initialise. `text` is NUL-terminated whenever it is not NULL; bytes may include NUL. */
typedef struct qb_str {
    char *text;
    size_t length, capacity;
    bool failed; /* an append ran out of memory; later appends do nothing; qb_str_status tells */
} qb_str;

void qb_str_append(qb_str *s, const void *bytes, size_t n);
void qb_str_text(qb_str *s, const char *text);
void qb_str_printf(qb_str *s, const char *fmt, ...) QB_PRINTF(2, 3);
void qb_str_vprintf(qb_str *s, const char *fmt, va_list args);
qb_status qb_str_status(const qb_str *s);
const char *qb_str_get(const qb_str *s); /* never NULL */
void qb_str_free(qb_str *s);

/* Bytes of the character at `text`, which is not at its end, and whether a line may show it: UTF-8 that is no
   control (C0, DEL, C1) and neither reorders nor hides text (bidirectional controls, zero width). */
size_t qb_char_length(const char *text, bool *shown);
/* Every byte of what a line may not show becomes '?', in place. Names out of files go through it. */
void qb_clean_line(char *text);

/* The candidate nearest to `word` by edit distance, or NULL
   when none is near (more than a third of the word away). */
const char *qb_nearest(const char *word, const char *const *candidates, size_t n);
/* The end of every error about a word that is not known: "; did you mean NEAREST?", or "" when none is near.
 * Written into and returned from `buffer`. */
enum { QB_HINT_CHARS = 128 };
const char *qb_did_you_mean(const char *word, const char *const *candidates, size_t n,
                            char buffer[QB_HINT_CHARS]);
/* The same with the nearest known (NULL: none), and what stands before it, as the dashes of an option. */
const char *qb_hint(const char *prefix, const char *near, char buffer[QB_HINT_CHARS]);

/* "1.5 GB" (SI, 1 GB = 1e9), "3m 20s"; written into and returned from `buffer`. */
const char *qb_format_bytes(double bytes, char buffer[32]);
const char *qb_format_seconds(double seconds, char buffer[32]);
