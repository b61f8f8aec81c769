/* The tiled algebra that kernels/cpu shares beside what cpu.h shows. */
#pragma once

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

/* OpenBLAS' own threads off, once: called by everything here, and by whoever calls cblas beside it. */
void qb_blas_single_thread(void);

/* Lower triangle of c[n, n] += alpha * X X^T, X[n, k]; with trans_x, X is stored as [k, n]. The upper
 * triangle is left alone. */
void qb_gram_lower(qb_threads *threads, bool trans_x, int64_t n, int64_t k, float alpha, const float *x,
                   int64_t ldx, float *c, int64_t ldc);

/* The same by tiles of bfloat16 (gram_tiles.c): += X X^T, or -= where negative, X the n rows of a float32
   source; the room is of so many bytes, aligned to 64. threads may be NULL. */
int64_t qb_gram_tiles_bytes(int threads, int64_t n, int64_t k);
void qb_gram_by_tiles(const qb_bf16_tiles *tiles, qb_threads *threads, const qb_bf16_source *x, bool negative,
                      float *c, int64_t ldc, void *room);

/* qb_factor_create with tiles that are named, NULL: OpenBLAS alone, and the rows from which on they are used.
 */
qb_status qb_factor_create_by(const qb_bf16_tiles *tiles, int64_t least_rows, qb_threads *threads, int64_t n,
                              qb_factor **out) QB_NODISCARD;

/* qb_quadratic_create with tiles that are named; NULL: SGEMM. */
qb_status qb_quadratic_create_by(const qb_bf16_tiles *tiles, qb_threads *threads, int64_t n,
                                 int64_t most_rows, int sets, qb_quadratic **out) QB_NODISCARD;
/* qb_updates_create likewise. */
qb_status qb_updates_create_by(const qb_bf16_tiles *tiles, qb_threads *threads, const float *u, int64_t n,
                               int64_t block, int64_t most_rows, qb_updates **out) QB_NODISCARD;
