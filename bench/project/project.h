/* Projection of measured results onto a device that is not here: the roofline of its datasheet times the
   share of the ceiling that the measured row reached. Nothing here is a measurement, and every row says so.
 */
#pragma once

#include "results/rows.h"

/* A row of devices.def. */
typedef struct qb_target {
    const char *name, *label;
    double memory_bytes, bandwidth_bytes_per_s, copy_share, fp16_flop_per_s, gemm_share, fp32_flop_per_s,
        launch_s;
    const char *source, *shares; /* of the datasheet figures, and of the two shares */
} qb_target;
const qb_target *qb_target_at(size_t index); /* NULL behind the last */
const qb_target *qb_target_find(const char *name);

typedef struct qb_project_config {
    int64_t context_tokens, sequences; /* that the keys and values must have room for */
    double overhead_bytes;             /* what the driver and its libraries take of the device */
} qb_project_config;

/* The case as it would be on the device: its id with "@NAME" behind, the same model and configuration with
   "device" added, and rows that all hold "projected": true.
   - decode: share_of_ceiling x copy rate / bytes a token, at most what products allow, and after a CPU's
     measurement plus the launches of the step's kernels; prefill and time to first token: share_of_ceiling x
     product rate / operations a token (docs/methods.md, projection);
   - device_memory_bytes: resident weights, keys and values of the configured context, overhead. Speeds of a
     model that does not fit are skipped rows with the sizes;
   - quantize_seconds of gptq: operations of both forward passes, the Hessians, factorizations and updates
     over their rates, at the share that the measured time reached of the document's ceilings;
   - quality and sizes do not depend on the device and are carried over.
   What cannot be computed is a skipped row with its reason. A case that is not ok stays so. */
qb_status qb_project_case(const qb_rows *rows, const qb_row_case *measured, const qb_target *target,
                          const qb_project_config *config, qb_json **out) QB_NODISCARD;

/* Operations that GPTQ of the listed modules takes, by kind of arithmetic; inputs shared by q, k, v and by
   gate, up have one Hessian. */
typedef struct qb_gptq_work {
    double forward, hessian, factor, update; /* floating-point operations */
} qb_gptq_work;
/* tokens: of the calibration. False when a module tells no shape. */
bool qb_gptq_work_of(const qb_row_module *modules, int n, double tokens, qb_gptq_work *out);

/* {from, from_sha256, from_created, context_tokens, devices: [{name, label, ...}]} for context.projection;
   from: name of the measured document. */
qb_json *qb_projection_json(const char *from, const char *sha256, const qb_results *measured,
                            const qb_target *const *targets, size_t n_targets,
                            const qb_project_config *config);
