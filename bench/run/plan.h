/* What a case will take, before anything is started: bytes, memory and minutes. */
#pragma once

#include "bench/run/subject.h"
#include "quant/driver.h"

typedef struct qb_case_plan {
    bool cached;                  /* the quantized checkpoint is there already */
    int64_t checkpoint_bytes;     /* of the model that is measured */
    int64_t written_bytes;        /* to disk; 0 when cached or not quantized */
    int64_t quantize_peak_bytes;  /* of the quantizing process; 0 when there is none */
    int64_t measure_peak_bytes;   /* of the measuring process */
    bool layer_major;             /* some perplexity runs layer by layer */
    double quantize_s, measure_s; /* estimated from operations, bytes and the machine's measured ceilings */
} qb_case_plan;

/* cached tells whether the store holds the quantized checkpoint. */
qb_status qb_case_plan_make(const qb_subject *s, const qb_variant *v, const qb_suite *suite, bool cached,
                            const qb_backend *backend, const qb_ceilings *ceilings,
                            qb_case_plan *out) QB_NODISCARD;

/* Bytes of caches and activations that the speed rows hold beside the weights, on that backend. */
int64_t qb_plan_speed_bytes(const qb_model *m, const qb_backend *backend, const qb_speed_config *c);

/* Seconds that a plan's operations take at the share of the GEMM ceiling that real models reach. */
double qb_plan_seconds(double flops, double bytes, const qb_ceilings *ceilings);
