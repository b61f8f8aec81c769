/* What the commands that compare have in common: how rows are judged, reading, writing. */
#pragma once

#include "base/option.h"
#include "results/compare.h"

extern const qb_option qb_judging_options[]; /* of a qb_compare_config */
/* n documents that outlive the rows. */
qb_status qb_judging_rows(const qb_results *documents, int n, qb_rows *out) QB_NODISCARD;
/* In a format of QB_COMPARE_FORMATS, to the file `output` or (NULL) to standard output. */
qb_status qb_judging_write(const qb_comparison *c, const char *format, const char *output) QB_NODISCARD;
