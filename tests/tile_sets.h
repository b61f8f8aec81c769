/* The loops that tests of tiles of bfloat16 set side by side: a group's setup finds them. */
#pragma once

#include "tests/amx_emulated.h"
#include "tests/support.h"

/* AVX-512's loops, if they are here, and the same with tiles in plain C; those of the processor's own, if it
   has such. */
static const qb_simd *plain, *own;
static qb_simd with_tiles;
static int find_sets(void **state) {
    (void)state;
    for (int i = 0; qb_simd_at(i); i++) {
        if (!strcmp(qb_simd_at(i)->name, "avx512")) plain = qb_simd_at(i);
        if (qb_simd_at(i)->bf16) own = qb_simd_at(i);
    }
    if (plain) amx_bf16_emulated(plain, &with_tiles);
    return 0;
}
