/* How many sites a pass over the calibration tokens observes: their Hessians are held at once, [cols, cols]
   in float32 each. A mixture's block has a site or two for every expert, which together may take more than
   the model; what finds no room is observed by further passes, with the same bits. */
#pragma once

#include "quant/method.h"
#include "quant/walk.h"

/* What Hessians held at once may take: an eighth of the memory that this process may use, but for a
   config->hessian_room_bytes above 0. */
int64_t qb_hessian_room_bytes(const qb_quant_config *config);
/* Sites of [first, end) that fit `room` together, counted from its end where `last`, else from its beginning;
   at least 1. */
int64_t qb_sites_that_fit(const qb_walk *w, int64_t first, int64_t end, bool last, int64_t room);
/* Passes that observe all of a block's sites, and the bytes of the pass that holds most. */
int64_t qb_passes_of(const qb_walk *w, bool true_sequential, int64_t room, int64_t *most_bytes);
