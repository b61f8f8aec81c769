/* A document of one noisy case among still ones, made of any document with speeds, so that no test depends on
 * how quiet the machine of a published document was. */
#pragma once

#include "base/json.h"

#include <string.h>

/* The speeds of case `which` (from 0; -1: none) stayed noisy, half to one and a half times their value; those
   of all others were still. The members are those that a run writes. */
static inline void leave_noisy(qb_json *document, int which) {
    int i = 0;
    for (const qb_json *c = qb_json_first(qb_json_get(document, "cases")); c; c = qb_json_next(c), i++)
        for (const qb_json *m = qb_json_first(qb_json_get(c, "metrics")); m; m = qb_json_next(m)) {
            const char *name = qb_json_string(qb_json_get(m, "name"));
            double value = qb_json_number(qb_json_get(m, "value"));
            if (!name || (strcmp(name, "decode") != 0 && strcmp(name, "prefill") != 0)) continue;
            qb_json *metric = (qb_json *)(uintptr_t)m;
            qb_json_put_bool(metric, "noisy", i == which);
            qb_json_put_text(metric, "noise", i == which ? "the median is known to ± 40 % only" : NULL);
            if (i != which) continue;
            qb_json_put_real(metric, "min", value / 2);
            qb_json_put_real(metric, "max", value * 1.5);
        }
}
