/* GGUF's K types as super-blocks (k_layout.h). */
#pragma once

#include "kernels/cpu/k_layout.h"

/* Packs q where it is of a K type: its bits, groups, factors and zeros or offsets are one's, rows are whole
   super-blocks, and codes and factors are within its range. Else p->kind is left as it is. Rows and blocks of
   p are known; what was allocated on an error goes with p. */
qb_status qb_pack_k(qb_packed *p, const qb_qweight *q, qb_threads *threads,
                    const qb_pack_memory *memory) QB_NODISCARD;
