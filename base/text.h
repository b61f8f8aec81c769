/* Text that came from files, on its way out: it is untrusted, so characters that steer a terminal or reorder
   what stands beside them never leave the program as they are. One function a sink. */
#pragma once

#include "base/str.h"

/* For one line: appends `text` (NULL: nothing) with C0, DEL, C1, bidirectional and zero-width characters and
   invalid UTF-8 replaced by '?', newlines and tabs by spaces; cut with an ellipsis after max_columns
   characters (0: no limit). */
void qb_text_clean(const char *text, int max_columns, qb_str *out);
/* For many lines (terminals, model cards): the same, but newlines and tabs stay. */
void qb_text_clean_lines(const char *text, size_t n, qb_str *out);
/* For printed JSON: such characters as \u escapes, which mean the same; invalid UTF-8 as U+FFFD. Appends
   nothing and returns false where there are none. */
bool qb_text_escape_json(const char *json, size_t n, qb_str *out);

/* Appends `text`, whose first line begins at column `indent` (the caller put the blanks), broken at blanks so
   that lines end before `columns` where words allow, every further line indented; ends with a newline.
   `_from`: the first line begins elsewhere. */
void qb_text_wrap(const char *text, int indent, int columns, qb_str *out);
void qb_text_wrap_from(const char *text, int first, int indent, int columns, qb_str *out);
