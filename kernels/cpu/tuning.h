/* What no instruction set tells. It differs by processor; but for the last two, which change the order of
   sums, it changes no bit of a result. */
#pragma once

#include "kernels/cpu/pack.h"

/* What is asked for while something else is read: so far ahead, 0 for nothing; into the second cache where
   `far`, else into the first. */
typedef struct qb_prefetch {
    int32_t bytes;
    bool far;
} qb_prefetch;

typedef struct qb_cpu_tuning {
    const char *source;               /* which row of the table this is: "amd family 25", "other" */
    int64_t packed_prefetch_bytes;    /* ahead of packed codes, for few tokens */
    qb_prefetch whole[QB_PACK_COUNT]; /* the same for products in whole numbers */
    int64_t dense_prefetch_bytes;  /* ahead of dense rows, for one token; 0: the processor's own prefetcher */
    int64_t attend_prefetch_bytes; /* ahead of one token's keys; 0: neither keys nor values are asked for */
    /* One token, where nothing is asked ahead: rows of at most so many bytes are read one after the other,
       one stream; longer ones side by side. */
    int64_t dense_singly_bytes;
    /* From so many tokens on dense rows go to SGEMM, where sixteen lanes are one register; 0: as the
       instruction set's loops say. */
    int64_t wide_gemm_tokens;
    const char *blas_core; /* OpenBLAS' fastest, as OPENBLAS_CORETYPE names it; NULL: by instruction set */
} qb_cpu_tuning;

/* That of the processor at hand, found at the first call. `bench_kernels prefetch` measures what a row of the
   table should say, and alone writes to it. */
qb_cpu_tuning *qb_cpu_tuning_here(void);
