/* Text of result documents on its way to people: a document is untrusted, so control bytes and broken UTF-8
   never reach a terminal, and widths are counted in characters, not bytes. */
#pragma once

#include "base/str.h"

/* Appends `text` (NULL: nothing) with control characters and invalid UTF-8 replaced by '?', cut with an
   ellipsis after max_columns characters (0: no limit). */
void qb_text_clean(const char *text, int max_columns, qb_str *out);

/* Characters in valid UTF-8 text; each counts one column. */
int qb_text_columns(const char *text);

/* Appends `text` padded with spaces to `columns`, on the left when `right` (right-aligned). Longer text is
 * kept whole. */
void qb_text_pad(const char *text, int columns, bool right, qb_str *out);
