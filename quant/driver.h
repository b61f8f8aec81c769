/* Quantizes a whole model block by block: at most two blocks of weights and the calibration activations are
 * held. */
#pragma once

#include "base/windows.h"
#include "checkpoint/layout.h"
#include "model/decoder.h"
#include "quant/method.h"

/* What a run will take, stated before it starts. */
typedef struct qb_quant_plan {
    int64_t calibration_tokens;
    int64_t activation_bytes, hessian_bytes, block_bytes, workspace_bytes, peak_bytes;
    int64_t checkpoint_bytes; /* of the result */
    double flops;             /* forwards, Hessians, factorizations, updates */
    double bits_per_weight;   /* over the blocks' linears */
    int64_t params;           /* quantized */
} qb_quant_plan;
qb_status qb_quant_plan_make(const qb_model *m, const qb_quant_method *method, const qb_quant_config *config,
                             qb_quant_plan *out) QB_NODISCARD;

typedef struct qb_quant_report {
    qb_module_report *modules; /* owned */
    size_t n_modules, capacity;
    double seconds; /* whole run, writing included */
    double params_per_second;
    int64_t peak_rss_bytes; /* of this process */
    int64_t checkpoint_bytes;
    double bits_per_weight;
} qb_quant_report;
void qb_quant_report_free(qb_quant_report *r);
qb_json *qb_quant_report_json(const qb_quant_report *r);

/* Reads model m (opened, not loaded), writes a complete checkpoint directory out_dir. calibration may be NULL
   for methods that need none. */
qb_status qb_quantize_model(qb_model *m, qb_device *dev, const qb_quant_method *method,
                            const qb_quant_config *config, const qb_windows *calibration, const char *out_dir,
                            bool replace, int64_t shard_bytes, qb_quant_report *report) QB_NODISCARD;
