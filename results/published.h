/* Published perplexities beside measured ones. The figures stand in results/published.def, each with its
   source; the bands within which a measurement may lie beside them, where somebody stated any. */
#pragma once

#include "results/rows.h"

/* A line for every perplexity whose model, text, protocol and method somebody published: both figures, their
   difference, the source, and whether it lies within the band. What makes the two incomparable (a part of the
   text, a substitute file, other options) is said instead of a verdict. Appends nothing where nothing is
   known. With `outside` only those that lie outside of their band. */
void qb_published_notes(const qb_rows *rows, const char *prefix, bool outside, qb_str *out);
