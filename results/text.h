/* Columns of text: widths are counted in characters, not bytes. */
#pragma once

#include "base/text.h"

/* The most of a reason that a table shows: what a skipped case may say (bench/suite/suite.h), whose end says
 * what to do. */
enum { QB_REASON_COLUMNS = 240 };

/* Characters in valid UTF-8 text; each counts one column. */
int qb_text_columns(const char *text);

/* Appends `value` with so many digits; what is larger, up to ten millions, as a whole number and not as a
 * power of ten. */
void qb_text_figure(double value, int digits, qb_str *out);

/* Appends `text` padded with spaces to `columns`, on the left when `right` (right-aligned). Longer text is
 * kept whole. */
void qb_text_pad(const char *text, int columns, bool right, qb_str *out);
