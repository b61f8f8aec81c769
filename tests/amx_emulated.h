/* Sets of kernels/cpu/ that need a processor with AMX, over tiles in plain C (tiles_emulated.h). */
#pragma once

#include "kernels/cpu/integer.h"
#include "kernels/cpu/simd.h"

/* As qb_amx_int8. */
void amx_int8_emulated(const qb_integer *vnni, qb_integer *out);
/* As qb_amx_bf16. */
void amx_bf16_emulated(const qb_simd *avx512, qb_simd *out);
