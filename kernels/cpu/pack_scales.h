/* What stands beside packed codes: scales, zero points, offsets, absmax. */
#pragma once

#include "kernels/cpu/pack.h"

/* Fill scale_kind, scales, zeros and offsets (of an affine weight), or scales and what they are decoded by
   (of a codebook), of a weight whose columns and blocks are laid; what was allocated on an error goes with p.
 */
qb_status qb_pack_affine_scales(qb_packed *p, const qb_qweight *q, qb_threads *threads,
                                const qb_pack_memory *memory) QB_NODISCARD;
qb_status qb_pack_absmax(qb_packed *p, const qb_qweight *q, qb_threads *threads,
                         const qb_pack_memory *memory) QB_NODISCARD;
