/* Tensors of the class that are made of others of a GGUF file: what they are made of, and their bytes.
   Private to checkpoint/gguf/. */
#pragma once

#include "checkpoint/gguf/gguf_model.h"

/* What a made tensor's `source` points to; as a qb_gguf_source it says its type alone. */
typedef struct qb_gguf_pieces {
    qb_gguf_source face;
    qb_gguf_order order;
    int n;
    struct {
        const uint8_t *data;
        const qb_ggml_type *type;
        int64_t rows, cols; /* of one matrix */
    } piece[QB_GGUF_PIECES_MAX];
    int64_t matrices, rows, cols; /* as the class has them */
    const int64_t *rows_from;     /* [rows] of one matrix: rows of the pieces, each behind the one before it;
                                     NULL: the same order */
    int64_t heads, turns, width;  /* of the orders of heads */
    bool wide, log_of_negative, depthwise;
} qb_gguf_pieces;

/* Numbers of heads and experts in the metadata. */
typedef struct qb_gguf_heads {
    int64_t key_heads, value_heads, key_width, value_width; /* of the gated delta rule */
    int64_t heads;                                          /* of attention */
    int64_t experts;
} qb_gguf_heads;

/* Fills in the order of rows, or of columns; `name` heads errors. */
qb_status qb_gguf_order_pieces(qb_checkpoint *ck, qb_gguf_pieces *m, const qb_gguf_heads *s,
                               const char *name) QB_NODISCARD;
int64_t qb_gguf_row_bytes(const qb_ggml_type *type, int64_t cols);
/* For qb_tensor_state.fill, `source` is the pieces: rows as they lie, and as float32. */
qb_status qb_gguf_fill_pieces(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) QB_NODISCARD;
qb_status qb_gguf_fill_wide(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) QB_NODISCARD;
