/* Documents of an earlier schema become documents of today's. */
#pragma once

#include "base/json.h"

/* The document itself when its schema is today's (or nothing that is known: the validator says so); of
   qb.results/1 a new one in its place. QB_ERR_FORMAT when a key stands twice, which copying would hide. */
qb_status qb_results_lift(qb_json **doc, const char *name) QB_NODISCARD;
