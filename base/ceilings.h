/* What a device can do at best, as measured on it; speed rows quote their share of these. A row of
   ceilings.def each. */
#pragma once

#include "base/json.h"

/* 0 or NaN: the device has no such products, or they were not measured. */
typedef struct qb_ceilings {
    double read_bytes_per_s; /* streaming read with all threads, working set far beyond cache; on a GPU a
                                copy's bytes read and written */
    double gemm_flop_per_s;  /* 2 * m * n * k operations of a GEMM with all threads: float32; on a GPU float16
                                in and float32 sums */
    double dense_flop_per_s; /* where dense weights have a faster way than that GEMM: bfloat16 ones with
                                float32 activations, by tiles of bfloat16 */
    /* The same of products of codes with whole numbers, of 8 and of 16 bits, on all threads, with operands in
     * the nearest cache. */
    double int8_op_per_s, int16_op_per_s;
    /* Of the processors' time that the threads could have had during the best run of each, the least: less
     * than 1 where other work ran beside. 0 or NaN: unknown. */
    double cpu_share;
} qb_ceilings;

typedef struct qb_ceiling {
    size_t offset; /* of a double in qb_ceilings */
    const char *key, *row_key, *name, *unit;
    double scale; /* divides a value for printing in `unit` */
} qb_ceiling;
const qb_ceiling *qb_ceiling_at(size_t index); /* NULL behind the last */
double qb_ceiling_of(const qb_ceilings *c, const qb_ceiling *which);

/* "KEY" `suffix`: value for each that is above 0, and "cpu_share" `suffix`. */
void qb_ceilings_write(const qb_ceilings *c, const char *suffix, qb_json *to);
/* Those keys of an object; NaN for what is missing. */
qb_ceilings qb_ceilings_read(const qb_json *from, const char *suffix);
