/* The calibration tokens' residual stream on disk, so that a run that is taken up need not forward them
   through every finished block. */
#pragma once

#include "quant/calibration.h"

/* Writes the stream as it stands behind `blocks` blocks; the file appears when it is complete. */
qb_status qb_stream_save(const qb_calibration *c, const char *path, int64_t blocks) QB_NODISCARD;
/* Brings c to a stored stream of at most `limit` blocks and sets *blocks; 0, and c untouched, when there is
   none that is whole and of this size. */
qb_status qb_stream_restore(qb_calibration *c, const char *path, int64_t limit, int64_t *blocks) QB_NODISCARD;
