/* Which weights, and which run: the hashes that say whether two are the same. */
#pragma once

#include "datasets/datasets.h"
#include "model/model.h"
#include "quant/method.h"

/* SHA-256 of the model's weights. Remembered for directories; hashed in a process of its own, so that the
   pages it reads are not counted as memory of what follows. */
qb_status qb_identity_of(const qb_model *m, char hex[QB_SHA256_HEX]) QB_NODISCARD;

/* SHA-256 over all that decides the bytes of a quantized checkpoint: the weights, the method with its
   options, the calibration ids (NULL: none), the format (NULL: the method's own), the program's file, the
   backend and the instruction set that it computes with. */
qb_status qb_identity_of_run(const char *model_sha256, const qb_quant_method *method,
                             const qb_quant_config *config, const qb_windows *calibration, const char *format,
                             const qb_device *dev, char hex[QB_SHA256_HEX]) QB_NODISCARD;
