/* AMX: products of tiles (tiles.h). */
#pragma once

#include "kernels/cpu/integer.h"
#include "kernels/cpu/simd.h"

/* Whether the processor multiplies tiles of 8-bit numbers and the system lets this process, with all threads
   that it starts from now on, use them: asks it to. */
bool qb_amx_has_int8(void);
bool qb_amx_has_bf16(void); /* the same of bfloat16 numbers */

/* The set `vnni`, but products of many tokens go by tiles. */
void qb_amx_int8(const qb_integer *vnni, qb_integer *out);
/* The loops `avx512` with tiles of bfloat16 (simd.h) beside them. */
void qb_amx_bf16(const qb_simd *avx512, qb_simd *out);
