/* What a measurement's products with quantized weights take activations as (qb_activations). */
#pragma once

#include "base/json.h"
#include "model/model.h"

#define QB_ACTIVATIONS_CHOICES "f32|i16|i8|fastest"
#define QB_ACTIVATIONS_HELP                                                                                  \
    "what products with quantized weights take activations as: float32, or 16-bit or 8-bit whole numbers "   \
    "with a scale a group of columns; 'fastest' is i16 where this processor is faster with it, whose "       \
    "perplexity is within 1e-5 of float32's"

typedef struct qb_activation_use {
    qb_activations mode;   /* in force; F32 also where no weight of the model has products in whole numbers */
    int64_t float32_bytes; /* of a pass over the weights that float32 activations meet all the same; -1:
                              unknown */
    double whole_share;    /* of the blocks' weights that have products in whole numbers, in this mode */
    double dense_share;    /* of the blocks' weights that are not quantized */
} qb_activation_use;

/* From now on, for a loaded model on its device; NULL is f32. QB_ERR_UNSUPPORTED where the device has float32
   alone and something else is asked for by name. */
qb_status qb_activations_use(const qb_model *m, qb_device *dev, const char *wanted,
                             qb_activation_use *out) QB_NODISCARD;
/* Into a row's extra: {"activations", "float32_activation_bytes"}; nothing for float32, which needs no
 * saying. */
void qb_activations_put(const qb_activation_use *use, qb_json *extra);
