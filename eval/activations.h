/* What a measurement's products with quantized weights take activations as (qb_activations). */
#pragma once

#include "base/json.h"
#include "model/model.h"

#define QB_ACTIVATIONS_CHOICES "f32|i16|i8|fastest"
#define QB_ACTIVATIONS_HELP                                                                                  \
    "what products with quantized weights take activations as: float32, or 16-bit or 8-bit whole numbers "   \
    "with a scale a group of columns; 'fastest' is i16 where this processor is faster with it, whose "       \
    "perplexity is within 1e-5 of float32's (speed: for many tokens float32 where that is faster still)"

typedef struct qb_activation_use {
    qb_activations mode;   /* in force; F32 also where no weight of the model has products in whole numbers */
    int64_t float32_bytes; /* of a pass over the weights that float32 activations meet all the same; -1:
                              unknown */
    double whole_share;    /* of the blocks' weights that have products in whole numbers, in this mode */
    double dense_share;    /* of those that are not quantized, or as fast as if they were not */
    qb_activations set;    /* on the device */
    bool fastest;          /* asked for as that */
} qb_activation_use;

/* From now on, for a loaded model on its device, of which `out` says what one token meets; NULL is f32.
   alike: the fastest is the same for all numbers of tokens. QB_ERR_UNSUPPORTED where the device has float32
   alone and something else is asked for by name. */
qb_status qb_activations_use(const qb_model *m, qb_device *dev, const char *wanted, bool alike,
                             qb_activation_use *out) QB_NODISCARD;
/* The same of products with so many tokens at once: `use` after qb_activations_use, whose mode may be F32
   then. */
void qb_activations_count(const qb_model *m, int64_t tokens, qb_activation_use *use);
/* Into a row's extra: {"activations", "float32_activation_bytes"}; nothing for float32, which needs no
 * saying. */
void qb_activations_put(const qb_activation_use *use, qb_json *extra);
