/* ggml's tensor types, and the quantized ones as neutral weights. A block is a run of 32 or 256 columns of a
   row with its scales. Source: ggml's ggml.h and ggml-quants.h; the values are those that the gguf package's
   dequantization gives, to the bit. */
#pragma once

#include "base/threads.h"
#include "kernels/qweight.h"

/* Where the values beside blocks' codes go; what a type has not may be NULL. */
typedef struct qb_block_values {
    float *scales, *offsets;
    uint8_t *inner_scales, *inner_offsets; /* qb_factors */
} qb_block_values;

typedef struct qb_ggml_type {
    const char *name;
    uint32_t id;
    int block_columns, block_bytes; /* 0 bytes: a type that left the format */
    qb_dtype dtype;                 /* of plain elements; QB_DTYPE_COUNT for blocks */
    /* blocks that are read; bits 0: this type is only listed */
    int bits, group_size;
    /* w = scale * (code - 2^(bits-1)) ... */
    bool has_offsets; /* ... or w = scale * code + offset */
    bool has_book;    /* ... or w = table[code] * scale */
    bool has_factors; /* scales and offsets are whole numbers times a float16 of the block */
    qb_codebook book;
    /* Of n blocks: codes[n * block_columns]; and of each group a scale and, if any, an offset, with
       has_factors one of either for a block, and of each group what it is times. */
    void (*codes)(const uint8_t *blocks, int64_t n, uint8_t *codes);
    void (*values)(const uint8_t *blocks, int64_t n, const qb_block_values *values);
    qb_dtype scale_dtype; /* what holds the scales exactly */
} qb_ggml_type;

const qb_ggml_type *qb_ggml_type_find(uint32_t id); /* NULL when unknown */
const qb_ggml_type *qb_ggml_type_at(size_t index);  /* NULL behind the last */
bool qb_ggml_type_is_packed(const qb_ggml_type *t); /* blocks that are read */
bool qb_ggml_type_is_blocks(const qb_ggml_type *t); /* quantized, whether read or not */
const char *qb_ggml_packed_names(char buffer[160]); /* "Q4_0, Q4_1, .." of those that are read */

/* A matrix of rows * (cols / block_columns) blocks; cols must be a multiple of the block. */
typedef struct qb_ggml_matrix {
    const qb_ggml_type *type;
    const uint8_t *blocks;
    int64_t rows, cols;
    /* The row of the blocks that holds a row of the matrix, with `ctx`; NULL: the same. */
    int64_t (*row_of)(const void *ctx, int64_t row);
    const void *ctx;
} qb_ggml_matrix;

/* All but the codes: scales and offsets, or their factors alone; zeros, all in the middle, are left out. A
   scale or offset that is NaN or infinite fails with QB_ERR_NUMERIC. threads may be NULL. Free with
   qb_qweight_free. */
qb_status qb_ggml_values(qb_threads *threads, const qb_ggml_matrix *m, qb_qweight *out) QB_NODISCARD;
/* The codes of rows first .. first + n, as a qb_code_source reads them. */
void qb_ggml_codes(const qb_ggml_matrix *m, int64_t first, int64_t n, uint8_t *codes);
/* The whole. */
qb_status qb_ggml_read(qb_threads *threads, const qb_ggml_matrix *m, qb_qweight *out) QB_NODISCARD;

/* Half of 2^(e - 127), a scale of E2M1's doubled table; NaN for 255 (OCP microscaling formats, e8m0). */
float qb_e8m0_half(uint8_t e);
