/* What makes two measurements comparable, in one place: `bench run --resume` and `bench compare` read the
   same lists. */
#pragma once

#include "results/rows.h"

typedef enum {
    QB_COMPARE_QUALITY = 1, /* perplexities and sizes: what the model is and answers */
    QB_COMPARE_MEMORY = 2,  /* of a process or a device */
    QB_COMPARE_SPEED = 4,
    QB_COMPARE_WHOLE =
        8, /* a finished case against a planned one: the rows themselves must be the same ones */
} qb_comparison_kind;

/* Appends why figures of that kind of two cases cannot be set against each other; nothing when they can.
   Devices are not looked at. */
void qb_cases_comparable(const qb_json *a, const qb_json *b, qb_comparison_kind kind, qb_str *why);
/* Appends why figures that depend on the device cannot be compared; the devices may be NULL (unknown). */
void qb_devices_comparable(const qb_json *a, const qb_json *b, qb_str *why);
/* Appends why two rows of one name, dataset and protocol measured different things; nothing when they did
 * not. */
void qb_rows_comparable(const qb_row *a, const qb_row *b, qb_str *why);

/* All that the three functions above look at, as text: rows of equal text are of one series, over any number
   of runs. What one of two rows does not state makes the texts differ. */
void qb_row_facts(const qb_row *row, qb_str *out);

/* Which of the first three a row is. */
qb_comparison_kind qb_row_comparison(const qb_row *row);
