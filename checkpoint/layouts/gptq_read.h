/* Reading GPTQ modules in all dialects that are about. Private to checkpoint/. Formats: docs/formats.md.
 */
#pragma once

#include "checkpoint/checkpoint.h"

bool qb_gptq_present(const qb_checkpoint *ck, const char *module);
/* v1: the checkpoint is labelled so, and zeros are stored minus one unless they show otherwise. */
qb_status qb_gptq_read(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, bool v1,
                       qb_qweight *out) QB_NODISCARD;
