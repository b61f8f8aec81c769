/* Products as loops over room of their own, so that several of them share the loops: one for what all of them
   make of their activations, one for all their rows. */
#pragma once

#include "kernels/cpu/device.h"

typedef struct qb_cpu_loop {
    qb_loop loop;       /* n 0: nothing to do */
    int64_t unit_bytes; /* about what an item streams; small loops stay on the caller */
} qb_cpu_loop;

enum { QB_LOOPS_BEFORE = 2 };
typedef struct qb_cpu_loops {
    qb_cpu_loop before[QB_LOOPS_BEFORE]; /* of x what `multiply` reads, in any order */
    qb_cpu_loop multiply;
} qb_cpu_loops;

/* A product, or the tokens of one pass of it: T of the `whole`. */
typedef struct qb_cpu_part {
    const qb_matrix *w;
    const float *x;
    float *y;
    int64_t T, whole;
} qb_cpu_part;

/* A way to compute y[T, rows] = x[T, cols] * W^T. */
typedef struct qb_cpu_form {
    int64_t most_tokens; /* that it takes at once */
    int64_t job_bytes;
    /* Whether what the loops before it make for `a` serves `b` as well, of the same x. */
    bool (*same_room)(const qb_matrix *a, const qb_matrix *b);
    int64_t (*room_bytes)(const cpu_device *d, const qb_cpu_part *part);
    /* Fills the job, which lives until the loops are done, and the loops. */
    void (*plan)(const cpu_device *d, void *job, void *room, const qb_cpu_part *part, qb_cpu_loops *out);
} qb_cpu_form;

/* Tokens of a product from which on tiles of bfloat16 (simd.h) are used where there are such: from 16 on
   where weights are laid as they are, else where SGEMM would begin. */
static inline int64_t qb_cpu_tiles_least(qb_dtype dtype) {
    return dtype == QB_DTYPE_BF16 ? 16 : 24;
}

/* Rows of a task by tiles: many, for each task reads all that is laid of the tokens, but tasks enough for all
   threads. */
enum { QB_TILE_ROWS_MOST = 256, QB_TILE_ROWS_LEAST = 32 };
static inline int64_t qb_cpu_tile_rows(const qb_threads *threads, int64_t rows) {
    int64_t n = QB_TILE_ROWS_MOST;
    while (n > QB_TILE_ROWS_LEAST && rows < 2 * n * qb_threads_count(threads)) n /= 2;
    return n;
}

/* matmul.c: dense rows. dense_tiles.c: with many tokens. packed.c: codes in float32. packed_tiles.c: with
   many tokens, or in whole numbers. integer.c: codes in whole numbers. */
extern const qb_cpu_form qb_cpu_dense_form, qb_cpu_tiles_form, qb_cpu_packed_form, qb_cpu_packed_tiles_form,
    qb_cpu_whole_tiles_form, qb_cpu_integer_form;

/* The same of quantized rows in float32; INT64_MAX: never, where groups are no whole tiles of columns or
   codes lie by row. */
int64_t qb_cpu_packed_tiles_least(const qb_packed *p);
/* Whether many tokens are multiplied by them in whole numbers too, and from how many on (measured on an Intel
   Xeon). */
static inline int64_t qb_cpu_whole_tiles_least(bool eight) {
    return eight ? 64 : 32;
}
bool qb_cpu_packed_whole_tiles(const cpu_device *d, const qb_packed *p, bool eight);
/* Tokens from which on they are faster than products with 16-bit activations; 0: never. */
int64_t qb_cpu_packed_float32_tokens(const cpu_device *d, const qb_packed *p);
/* The loops of dense rows of this type. */
static inline qb_dense_fn qb_cpu_dense_loops(const qb_simd *simd, qb_dtype dtype) {
    return dtype == QB_DTYPE_F16    ? simd->dense_f16
           : dtype == QB_DTYPE_BF16 ? simd->dense_bf16
                                    : simd->dense_f32;
}

/* Whether activations that are laid out for `a` lie as `b` wants them. */
bool qb_packed_same_room(const qb_matrix *a, const qb_matrix *b);
