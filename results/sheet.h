/* Any list of JSON objects as a plain table, in the formats of results/sink.h: for commands whose rows are no
 * cases. */
#pragma once

#include "results/sink.h"

/* Columns are the members of the objects that are no lists or objects, in the order in which they first
   appear; a member that is absent or null is an empty cell, numbers are in full. `format`: a name of
   QB_SINK_CHOICES but "text", whose form is the caller's; "json" is the array itself. Appends. */
qb_status qb_sheet_print(const qb_json *array, const char *format, qb_str *out) QB_NODISCARD;
