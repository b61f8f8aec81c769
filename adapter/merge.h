/* A base with an adapter's weights put in, as a checkpoint directory of its own. */
#pragma once

#include "adapter/parts.h"
#include "base/threads.h"
#include "quant/driver.h"

typedef struct qb_merge_report {
    int64_t lora, replaced; /* updates B A; tensors and biases taken from the adapter, tables with new rows */
    int64_t tensors;        /* of the base that changed */
    int64_t dequantized;    /* modules that were quantized in the base */
    int64_t weights,
        rounded;       /* in all that changed or was dequantized; that the written type does not hold */
    bool unties;       /* the head is a tensor of its own now */
    const char *dtype; /* torch name of what the changed tensors are written as, or "mixed" */
    int64_t tensor_bytes;
    double seconds;
} qb_merge_report;

/* Merges onto model m (opened, not loaded) and writes target->dir, which appears when it is complete.
   Quantized modules are dequantized; nf4 and fp4 to the type that bitsandbytes' kernels give the adapter in
   training (quant_state's dtype). `as`: the type of all floats; QB_DTYPE_COUNT keeps each tensor's. The sum
   of base and update, in float32, is rounded once. One tensor is held at a time (of stacked experts the
   stack). */
qb_status qb_merge_model(const qb_model *m, const qb_adapter *a, qb_dtype as, qb_threads *threads,
                         const qb_quant_target *target, qb_merge_report *out) QB_NODISCARD;
