/* Regular expressions of tokenizer.json, which are Oniguruma's in its Ruby syntax, run by PCRE2. */
#pragma once

#include "base/str.h"

#include <stdint.h>

typedef struct qb_pattern qb_pattern;

/* Compiles; differences of syntax and of classes between the engines are translated, what cannot be is
   refused by name. `name` heads errors. Free with qb_pattern_free. */
qb_status qb_pattern_compile(const char *text, size_t n, const char *name, qb_pattern **out) QB_NODISCARD;
/* The n bytes themselves. */
qb_status qb_pattern_literal(const char *text, size_t n, qb_pattern **out) QB_NODISCARD;
void qb_pattern_free(qb_pattern *p);

/* Matches in one text, from left to right. Zero-initialise. A run may be used for many patterns and texts, by
   one thread. */
typedef struct qb_matching {
    void *data, *stack, *context; /* PCRE2's */
    qb_str shadow;
} qb_matching;
void qb_matching_free(qb_matching *m);

/* Gives the text to what follows; call before the first qb_pattern_next on it. *subject is what to match on.
 */
qb_status qb_matching_begin(qb_matching *m, const char *text, size_t n, const char **subject) QB_NODISCARD;
/* A walk over the matches in subject[0, n); zero-initialise the rest. */
typedef struct qb_matches {
    const qb_pattern *pattern;
    qb_matching *matching;
    const char *subject;
    size_t n;
    size_t from, last_end;
    bool any, over;
} qb_matches;
/* The next match, [*begin, *end); *found false behind the last. A match may be empty, but not where the one
   before it ended. */
qb_status qb_matches_next(qb_matches *w, size_t *begin, size_t *end, bool *found) QB_NODISCARD;
