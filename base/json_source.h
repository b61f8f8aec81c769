/* What cJSON loses of a document's text: how numbers were written, keys that stand twice. Private to base/.
 */
#pragma once

#include "base/json.h"

/* Python writes and reads NaN and Infinity, which JSON does not have: *copy becomes the text with numbers of
   the same length in their places, or stays NULL when there are none. Free it with qb_free. */
qb_status qb_json_replace_constants(const char *text, size_t n, char **copy) QB_NODISCARD;
/* Keeps the source text of every number whose value prints otherwise (2.0, 1e-05, digits beyond 2^53) beside
   its value; `text` is the document as it was written. */
qb_status qb_json_keep_numbers(const char *text, size_t n, qb_json *json) QB_NODISCARD;
/* The text that was kept, NULL for other values. */
const char *qb_json_kept_number(const qb_json *json);
/* A copy that prints its kept numbers, NULL on exhaustion; *needed tells whether there are any, else the
   result is NULL too. */
qb_json *qb_json_with_kept_numbers(const qb_json *json, bool *needed);
/* Of equal keys in one object the last stays; `name` heads the warning where values differ. */
qb_status qb_json_merge_keys(qb_json *json, const char *name) QB_NODISCARD;
