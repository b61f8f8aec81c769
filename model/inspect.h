/* What a checkpoint is, and what is odd about it. */
#pragma once

#include "base/json.h"
#include "base/status.h"

/* The report on the directory or file `path`, never NULL unless memory runs out:
   {path, sound, error, architecture, family, parameters, layout, method, bits, group_size, symmetric,
   act_order, codebook, double_quant, bits_per_weight, tensor_bytes, tensors, files: [{name, bytes}],
   dtypes: [{name, tensors, bytes}], zero_points, modules: [{name, rows, cols, format, dtype,
   bits_per_weight, bytes}], oddities: [{where, damage, text}]}.
   Damage does not end it: what can be read is reported, `sound` is false, and each finding says where. Reads
   every tensor. Warnings of the readers become oddities. */
qb_json *qb_inspect(const char *path);
