/* The dialects in which checkpoints say how they are quantized. Private to checkpoint/. Each reads one object
   into `out` (cleared by the caller, which sets out->method); `where` heads errors. */
#pragma once

#include "checkpoint/checkpoint.h"

qb_status qb_quantization_read_compressed(const qb_json *json, const char *where,
                                          qb_quantization *out) QB_NODISCARD;
