/* Two checkpoints of one model, compared number by number. */
#pragma once

#include "model/model.h"

/* {a, b, equal, modules_equal, modules_different, tensors_equal, tensors_different, only_a: [names], only_b:
   [names], modules: [{name, equal, a, b (formats), weights, codes_equal, scale_difference, zeros_different,
   weights_different, relative_error, max_error}], tensors: [{name, equal, a, b (dtypes and shapes),
   weights_different, relative_error, max_error}]}. Equal means that every dequantized weight and every other
   tensor is the same number, however it is stored. codes_equal counts equal codes where both use the same
   kind of grid, else null; scale_difference is the largest relative difference of the groups' scales
   (absmax), null where groups differ; relative_error is the Frobenius norm of the difference over that of a.
   Models of different shapes are QB_ERR_USAGE. One matrix of each is held at a time. */
qb_status qb_difference(const qb_model *a, const qb_model *b, qb_json **out) QB_NODISCARD;
