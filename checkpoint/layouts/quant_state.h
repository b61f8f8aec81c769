/* bitsandbytes' quant_state: the JSON that lies in a tensor beside each 4-bit weight. Private to checkpoint/.
   Format: bitsandbytes functional.QuantState.as_dict(packed=True); docs/formats.md. */
#pragma once

#include "base/str.h"
#include "kernels/qweight.h"

typedef struct qb_quant_state {
    qb_codebook codebook;
    int64_t block_size, shape[2];
    qb_dtype dtype;
    bool nested;
    float nested_offset;
} qb_quant_state;

/* Byte for byte what Python's json.dumps makes of the dictionary. */
void qb_quant_state_write(const qb_quant_state *s, qb_str *out);
/* `where` heads errors. Sizes are checked to be positive, the block size to be one that bitsandbytes knows.
 */
qb_status qb_quant_state_read(const void *bytes, size_t n, const char *where,
                              qb_quant_state *out) QB_NODISCARD;
bool qb_bnb_block_size_ok(int64_t block_size);

/* A double as Python's repr writes it: the shortest digits that read back the same. */
void qb_python_real(double value, qb_str *out);
