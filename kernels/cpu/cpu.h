/* What the CPU backend shows beside its vtable: the host algebra that quant/ needs, and the OpenBLAS cure. */
#pragma once

#include "kernels/backend.h"

extern const qb_backend qb_backend_cpu;

/* Debian's OpenBLAS takes a generic (several times slower) core on CPUs newer than itself, and on some a core
   that is slower than another of its own (kernels/cpu/tuning.c). When the core in use is not the one that
   this CPU deserves, sets OPENBLAS_CORETYPE and executes the program again (once). Call first thing in main,
   also in benchmarks and test programs. Returns only when nothing had to be done, or could be. */
void qb_blas_ensure_core(char **argv);
/* The core that this CPU deserves ("SKYLAKEX") where OpenBLAS uses another; NULL where it does not. */
const char *qb_blas_better_core(void);
const char *qb_blas_core(void); /* "SkylakeX", "Haswell", ... as OpenBLAS names it */
const char *qb_cpu_simd(void);  /* "amx-bf16", "avx512", "avx2", "neon" or "generic": what kernels use;
                                   $BENCH_SIMD lowers it (tests) */
/* "amx-int8", "avx512-vnni", "avx-vnni", "neon-i8mm", "neon-dotprod", "avx2" or "generic": the products in
 * whole numbers that go with it */
const char *qb_cpu_integer(void);

/* Deterministic float32 algebra over fixed tiles: single-threaded OpenBLAS calls, spread over threads by
   tiles whose shape does not depend on the thread count. */
/* C[m, n] = alpha * op(A) op(B) + beta * C, row-major, leading dimensions in elements. */
void qb_gemm(qb_threads *threads, bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
             const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);
/* Updates of what lies behind each block of columns by a triangular u[n, n], which is read until they are
   freed: for at most `most_rows` rows at a time on each of the threads. threads may be NULL. qb_updates_free
   takes NULL. */
typedef struct qb_updates qb_updates;
qb_status qb_updates_create(qb_threads *threads, const float *u, int64_t n, int64_t block, int64_t most_rows,
                            qb_updates **out) QB_NODISCARD;
void qb_updates_free(qb_updates *q);
/* What it takes. */
int64_t qb_updates_bytes(int threads, int64_t n, int64_t block, int64_t most_rows);
/* Behind whole block b: y[rows][n - (b + 1) block] += A^T u[the block's rows][the columns behind it],
   A[block, rows]; y[0] is the first column behind it. Leading dimensions in elements. On the calling thread,
   whose worker number it is. */
void qb_updates_add(const qb_updates *q, int worker, int64_t b, const float *a, int64_t lda, int64_t rows,
                    float *y, int64_t ldy);
/* Room for sums of d H d^T: at most `most_rows` rows of all sets together, H[n, n]. threads may be NULL. Free
   with qb_quadratic_free, which takes NULL. */
typedef struct qb_quadratic qb_quadratic;
qb_status qb_quadratic_create(qb_threads *threads, int64_t n, int64_t most_rows, int sets,
                              qb_quadratic **out) QB_NODISCARD;
void qb_quadratic_free(qb_quadratic *q);
/* What it takes. */
int64_t qb_quadratic_bytes(int threads, int64_t n, int64_t most_rows, int sets);
/* What a CPU device holds beside for Hessians of n columns from T tokens at a time; 0 without tiles of
 * bfloat16. */
int64_t qb_cpu_hessian_bytes(int threads, int64_t n, int64_t T);
/* The same for products of T tokens with matrices of so many columns. */
int64_t qb_cpu_product_bytes(int threads, int64_t cols, int64_t T);
/* The same for attention of many queries over so many keys; not beside products, but in their place. */
int64_t qb_cpu_attention_bytes(int threads, int64_t keys, int64_t key_dim, int64_t value_dim);
/* The more of both. */
static inline int64_t qb_cpu_forward_bytes(int threads, int64_t cols, int64_t T, int64_t keys,
                                           int64_t key_dim, int64_t value_dim) {
    const int64_t products = qb_cpu_product_bytes(threads, cols, T);
    const int64_t attention = qb_cpu_attention_bytes(threads, keys, key_dim, value_dim);
    return products > attention ? products : attention;
}
/* out[set]: the sum over its rows of d h d^T; d[set][rows][n], h[n, n] symmetric. */
void qb_quadratic_forms(qb_quadratic *q, const float *d, int64_t rows, int sets, const float *h, double *out);
/* Room for factors of matrices of at most n rows. threads may be NULL. Free with qb_factor_free, which takes
   NULL. */
typedef struct qb_factor qb_factor;
qb_status qb_factor_create(qb_threads *threads, int64_t n, qb_factor **out) QB_NODISCARD;
void qb_factor_free(qb_factor *f);
/* What it takes. */
int64_t qb_factor_bytes(int threads, int64_t n);
/* Lower Cholesky factor of the symmetric a[n, n] (lower triangle read, L written there; the upper is left
   alone). ok = false when a pivot is not positive. */
void qb_cholesky_lower(qb_factor *f, int64_t n, float *a, int64_t lda, bool *ok);
/* Inverse of a lower triangular matrix, in place; zeros must stand above its diagonal. */
void qb_invert_lower(qb_factor *f, int64_t n, float *a, int64_t lda);
