/* Columns of text: widths are counted in characters, not bytes. */
#pragma once

#include "base/text.h"

/* Characters in valid UTF-8 text; each counts one column. */
int qb_text_columns(const char *text);

/* Appends `value` with so many digits; what is larger, up to ten millions, as a whole number and not as a
 * power of ten. */
void qb_text_figure(double value, int digits, qb_str *out);

/* Appends `text` padded with spaces to `columns`, on the left when `right` (right-aligned). Longer text is
 * kept whole. */
void qb_text_pad(const char *text, int columns, bool right, qb_str *out);
