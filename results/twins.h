/* Rows that must be equally fast: a format alone decides the speed (docs/ARCHITECTURE.md, "Format is not
   method"), so where two cases of one format differ by more than each row's own noise, the noise is larger
   than the rows know. */
#pragma once

#include "results/rows.h"

/* One sentence a line for each speed whose cases of one format differ so: the two that lie farthest apart,
   and what the rows take their noise for. Rows that call themselves noisy are left out, as is what was not
   measured on one device in one document. */
void qb_twins_notes(const qb_rows *rows, qb_str *out);
