/* The same weights in another layout, without loss. */
#pragma once

#include "quant/driver.h"

typedef struct qb_conversion {
    int64_t modules; /* written in the new layout */
    int64_t weights; /* of those */
    int64_t rounded; /* weights that a 16-bit float does not hold exactly (quantized to f16 or bf16) */
    int64_t widened; /* quantized embeddings and heads that the layout cannot hold: float32 now */
    int64_t skipped; /* modules that the source left dense, and that stay so */
    int64_t tensor_bytes;
    double seconds;
} qb_conversion;

/* `to`: a layout that is written ("gptq", "gptq_v2", ..), "nf4" or "fp4", or a dense type "f32", "f16",
   "bf16". Refused with QB_ERR_UNSUPPORTED and the reason, before anything is written, where the layout cannot
   hold the very same weights: other grids, scales that are no float16, groups that differ, zero points of 0
   in gptq. Dense f16 and bf16 of quantized weights are rounded once from the float32 products, as
   transformers' dequantize gives them; f32 is exact; dense weights must fit exactly. One module is held at a
   time. */
qb_status qb_convert_model(const qb_model *m, const char *to, const qb_quant_target *target,
                           qb_conversion *out) QB_NODISCARD;
/* "gptq|gptq_v2|nf4|fp4|..": what `to` may be. Free with qb_str_free. */
void qb_convert_names(qb_str *out);
