/* The packed layout that CPU matmuls read: one layout for every instruction set.

   Rows are taken sixteen at a time, one a vector lane. The columns of a block of sixteen rows follow each
   other in steps of 64 bytes (192 for 3 bits), and a group or codebook block of columns is a whole number of
   steps:

       2 bits  16 columns a step: a 32-bit word a row, column i at bit 2 i
       3 bits  32 columns a step, three lines of 64 bytes whose 64-bit words belong to two rows. Eight columns
               of both rows are 48 bits, column i of the first at bit 3 i, of the second at bit 24 + 3 i. Line
               w holds columns 8 w on, turned left by 0, 48 and 32 bits; the 16 bits that this leaves free, at
               48, 32 and 16, hold those of columns 24 to 31, which so stand at bit 16 of the three together.
       4 bits   8 columns a step: a word a row, column i at bit 4 i
       8 bits   4 columns a step: sixteen signed bytes (code - 128) a column

   Codebook weights lie as 4 bits and have a table. Scales, zeros, offsets and absmax lie in arrays of their
   own, [block][group][lane].

   Codes of 5 and 6 bits lie as 8 bits, and 3-bit codes in groups so short that padding them to 32 columns
   would take more room lie as 4 bits: such a code is lifted so that its middle is the wider one's. GGUF's K
   types lie as super-blocks (k_layout.h), with their bits. */
#pragma once

#include "base/status.h"
#include "base/threads.h"
#include "kernels/qweight.h"

#include <stdbool.h>
#include <stdint.h>

enum { QB_BLOCK_ROWS = 16 };

typedef enum {
    QB_PACK_2,
    QB_PACK_3,
    QB_PACK_4,
    QB_PACK_CODEBOOK,
    QB_PACK_8,
    QB_PACK_K2, /* GGUF's Q2_K to Q6_K: k_layout.h */
    QB_PACK_K3,
    QB_PACK_K4,
    QB_PACK_K5,
    QB_PACK_K6,
    QB_PACK_COUNT
} qb_pack_kind;

typedef enum {
    QB_SCALES_F16,      /* float16 [block][group][16] (every scale is exact in float16) */
    QB_SCALES_F32,      /* float32 [block][group][16] */
    QB_SCALES_FACTORED, /* small whole numbers beside their codes, times a float32 of 256 columns (K types) */
    QB_SCALES_NESTED,   /* 8-bit absmax [block][group][16], decoded through dynamic map, nested absmax and
                           offset */
    QB_SCALES_FLAT,     /* a codebook whose blocks cross rows: float32 absmax by flattened block */
    QB_SCALES_FLAT_NESTED, /* the same in 8 bits */
} qb_scale_kind;

typedef struct qb_packed {
    int64_t rows, cols;
    int64_t blocks; /* ceil(rows / 16) */
    qb_pack_kind kind;
    int64_t step_cols, step_bytes;
    int64_t padded_cols; /* columns in packed order, groups padded to whole steps */
    int64_t n_groups;
    int32_t *group_end; /* [n_groups] in packed columns; not decreasing */
    int32_t *source;    /* [padded_cols] matrix column of each packed one, -1 for padding; NULL: the same */
    uint8_t *
        codes; /* [blocks][padded_cols / step_cols][step_bytes]; K types: [blocks][cols / 256] super-blocks */
    qb_scale_kind scale_kind;
    void *scales;
    uint8_t *zeros; /* [blocks][n_groups][2 * bits] bytes, lane l at bit l * bits; NULL when symmetric or
                       codebook */
    void *offsets;  /* float16 or float32 [blocks][n_groups][16], or NULL: w = scale * code + offset, with the
                       code not lifted */
    bool offsets_f16;
    int bits;        /* that a code takes here */
    int lift;        /* what was added to the weight's codes and zeros */
    float middle;    /* 2^(bits-1) of the weight's own codes: a lane's value of a code is code - middle */
    float table[16]; /* value of a code: code - 2^(bits-1) (repeated to fill), or the codebook */

    /* codebook */
    /* Values in whole numbers, v = unit * t, as unsigned bytes t + 128 where all of them are whole and small
       (`wide` false, unit 1); else t = 256 high + low, with high + 128 and low + 128. */
    bool wide;
    float unit;
    uint8_t low[16], high[16];
    const float *map; /* dynamic map, nested kinds */
    float *nested;    /* [ceil(n_blocks / 256)] */
    float nested_offset;
    int block_shift; /* log2(block_size), flat kinds */

    /* A codebook with blocks that start at columns no multiple of 8 keeps its codes as they lie in the
       flattened matrix, two a byte, and is decoded row by row. */
    bool by_row;
    int64_t bytes; /* of all arrays that a pass reads */
} qb_packed;

/* Memory comes from `alloc` (counted by the device) so that packed weights show in its figures. */
typedef struct qb_pack_memory {
    void *owner;
    qb_status (*alloc)(void *owner, int64_t bytes, void *out_pointer);
    void (*free)(void *owner, void *pointer);
} qb_pack_memory;

/* QB_ERR_FORMAT when a code, zero or group index is out of range (a weight may come from a file). What q's
   reader left out is read, and added to q where it is needed as a whole. */
qb_status qb_pack(qb_qweight *q, qb_threads *threads, const qb_pack_memory *memory,
                  qb_packed **out) QB_NODISCARD;
void qb_pack_free(qb_packed *p, const qb_pack_memory *memory); /* takes NULL */

/* Absmax of element block `index` of a codebook in by_row or flat form. */
float qb_packed_absmax(const qb_packed *p, int64_t index);
/* A row of a codebook in by_row form as float32 (packed.c). */
void qb_packed_row(const qb_packed *p, int64_t row, float *to);
