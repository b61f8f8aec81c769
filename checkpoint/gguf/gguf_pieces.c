/* The order and the bytes of made tensors. Rows of equal types are copied as they lie, blocks too; where that
   cannot be (columns that become rows, blocks across heads, pieces of different types) the values become
   float32. */
#include "checkpoint/gguf/gguf_made.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- orders ---- */

/* Where row `row` of the class's tensor stands among the rows of the pieces. */
static int64_t row_from(const qb_gguf_pieces *m, const qb_gguf_heads *s, int64_t row) {
    int64_t keys = s->key_heads * s->key_width, turns = m->turns, wide = turns * m->width;
    switch (m->order) {
    case QB_GGUF_ALTERNATE:
        return row % 2 * m->piece[0].rows + row / 2;
    case QB_GGUF_QUERIES_KEYS:
        if (row >= m->piece[0].rows + m->piece[1].rows) return row;
        return qb_gguf_row(&(qb_gguf_source){.heads = m->heads, .head_rows = m->width}, row);
    case QB_GGUF_BY_KEY_HEAD: { /* q, k, values, z of each key head */
        int64_t head = row / (2 * s->key_width + 2 * wide), at = row % (2 * s->key_width + 2 * wide);
        if (at < s->key_width) return head * s->key_width + at;
        if (at < 2 * s->key_width) return keys + head * s->key_width + at - s->key_width;
        at -= 2 * s->key_width;
        return at < wide ? 2 * keys + head * wide + at : m->piece[0].rows + head * wide + at - wide;
    }
    case QB_GGUF_TURNS_BEHIND_KEYS:
        if (row < 2 * keys) return row;
        return 2 * keys +
               row_from(&(qb_gguf_pieces){.order = QB_GGUF_TURNS, .turns = turns, .width = m->width}, s,
                        row - 2 * keys);
    case QB_GGUF_TURNS:
    case QB_GGUF_TURNS_OF_ONE:
    case QB_GGUF_TURNS_OF_COLUMNS: {
        int64_t head = row / m->width, at = row % m->width;
        return (head % turns * s->key_heads + head / turns) * m->width + at;
    }
    default:
        return row;
    }
}

static bool is_of_heads(qb_gguf_order order) {
    return order == QB_GGUF_BY_KEY_HEAD || order >= QB_GGUF_TURNS;
}

/* Rows that the order expects of the pieces together; columns for an order of columns. */
static int64_t rows_of_order(const qb_gguf_pieces *m, const qb_gguf_heads *s) {
    int64_t values = s->value_heads * m->width, keys = s->key_heads * s->key_width;
    return m->order == QB_GGUF_BY_KEY_HEAD         ? 2 * keys + 2 * values
           : m->order == QB_GGUF_TURNS_BEHIND_KEYS ? 2 * keys + values
                                                   : values;
}

qb_status qb_gguf_order_pieces(qb_checkpoint *ck, qb_gguf_pieces *m, const qb_gguf_heads *s,
                               const char *name) {
    int64_t n = m->order == QB_GGUF_TURNS_OF_COLUMNS ? m->cols : m->rows, *list;
    if (m->order == QB_GGUF_SAME_ORDER || m->order == QB_GGUF_KEYS_AND_VALUES) return QB_OK;
    if (is_of_heads(m->order)) {
        m->turns = s->value_heads / s->key_heads;
        m->width = m->order == QB_GGUF_TURNS_OF_ONE ? 1 : s->value_width;
        if (rows_of_order(m, s) != n)
            return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: expected %" PRId64 " %s, found %" PRId64,
                           ck->gguf->file, name, rows_of_order(m, s),
                           m->order == QB_GGUF_TURNS_OF_COLUMNS ? "columns" : "rows", n);
    } else if (m->order == QB_GGUF_QUERIES_KEYS) {
        m->heads = s->heads;
        m->width = m->piece[0].rows / s->heads;
        if (m->piece[0].rows % s->heads || m->width % 2 || m->piece[1].rows % m->width)
            return qb_fail(QB_ERR_FORMAT,
                           "%s: tensor %.200s: %" PRId64 " rows are not %" PRId64
                           " heads of an even number of elements, as many as the keys' have",
                           ck->gguf->file, name, m->piece[0].rows, s->heads);
    } else if (m->n != 2 || m->piece[0].rows != m->piece[1].rows) {
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s and the one that it alternates with differ in shape",
                       ck->gguf->file, name);
    }
    qb_status st = qb_arena_alloc(&ck->arena, (size_t)n, sizeof *list, &list);
    if (st != QB_OK) return st;
    for (int64_t i = 0; i < n; i++) list[i] = row_from(m, s, i);
    m->rows_from = list;
    return QB_OK;
}

/* ---- bytes ---- */

int64_t qb_gguf_row_bytes(const qb_ggml_type *type, int64_t cols) {
    return cols / type->block_columns * type->block_bytes;
}

/* The piece that row `*row` of all stands in, and the row in it. */
static int piece_of(const qb_gguf_pieces *m, int64_t *row) {
    int p = 0;
    while (p + 1 < m->n && *row >= m->piece[p].rows) *row -= m->piece[p++].rows;
    return p;
}

/* Row `row` of matrix `matrix`, as the pieces have it. */
static const uint8_t *row_at(const qb_gguf_pieces *m, int64_t matrix, int64_t row) {
    int64_t from = m->rows_from && m->order != QB_GGUF_TURNS_OF_COLUMNS ? m->rows_from[row] : row;
    int p = piece_of(m, &from);
    return m->piece[p].data +
           (matrix * m->piece[p].rows + from) * qb_gguf_row_bytes(m->piece[p].type, m->piece[p].cols);
}

/* Runs of one head's columns, where blocks do not cross them. */
static void copy_columns(const qb_gguf_pieces *m, const uint8_t *from, uint8_t *to) {
    int64_t run = qb_gguf_row_bytes(m->piece[0].type, m->width);
    for (int64_t c = 0; c < m->cols; c += m->width)
        memcpy(to + c / m->width * run, from + m->rows_from[c] / m->width * run, (size_t)run);
}

qb_status qb_gguf_fill_pieces(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) {
    const qb_gguf_pieces *m = t->source;
    int64_t bytes = qb_gguf_row_bytes(m->face.type, m->cols);
    (void)ck;
    for (int64_t x = 0; x < m->matrices; x++)
        for (int64_t r = 0; r < m->rows; r++) {
            uint8_t *to = (uint8_t *)out + (x * m->rows + r) * bytes;
            if (m->order == QB_GGUF_TURNS_OF_COLUMNS)
                copy_columns(m, row_at(m, x, r), to);
            else
                memcpy(to, row_at(m, x, r), (size_t)bytes);
        }
    return QB_OK;
}

/* All matrices of a piece as float32: new memory. */
static qb_status widen(qb_threads *threads, const qb_gguf_pieces *m, int p, float **out) {
    int64_t rows = m->piece[p].rows * m->matrices, cols = m->piece[p].cols;
    const qb_ggml_type *type = m->piece[p].type;
    qb_qweight q = {0};
    void *copy = NULL;
    qb_status st;
    *out = NULL;
    QB_TRY(st, qb_alloc((size_t)(rows * cols), sizeof **out, out));
    if (qb_ggml_type_is_blocks(type)) {
        const qb_ggml_matrix blocks = {.type = type, .blocks = m->piece[p].data, .rows = rows, .cols = cols};
        QB_TRY(st, qb_ggml_read(threads, &blocks, &q));
        qb_qweight_dequantize(&q, *out);
    } else { /* the file need not be aligned */
        QB_TRY(st, qb_alloc((size_t)(rows * cols), qb_dtype_bytes(type->dtype), &copy));
        memcpy(copy, m->piece[p].data, (size_t)(rows * cols) * qb_dtype_bytes(type->dtype));
        QB_TRY(st, qb_to_f32(type->dtype, copy, rows * cols, *out));
    }
out:
    qb_qweight_free(&q);
    qb_free(copy);
    if (st != QB_OK) {
        qb_free(*out);
        *out = NULL;
    }
    return st;
}

/* kv_b: of each head the columns of k_b, then the rows of v_b. */
static void put_keys_and_values(const qb_gguf_pieces *m, float *const *in, float *out) {
    int64_t keys = m->piece[0].cols, values = m->piece[1].rows, rank = m->cols;
    for (int64_t h = 0; h < m->heads; h++) {
        float *to = out + h * (keys + values) * rank;
        for (int64_t r = 0; r < keys; r++)
            for (int64_t c = 0; c < rank; c++) to[r * rank + c] = in[0][(h * rank + c) * keys + r];
        memcpy(to + keys * rank, in[1] + h * values * rank, (size_t)(values * rank) * sizeof *out);
    }
}

static void put_wide_row(const qb_gguf_pieces *m, float *const *in, int64_t matrix, int64_t row, float *out) {
    bool columns = m->order == QB_GGUF_TURNS_OF_COLUMNS;
    int64_t from = m->rows_from && !columns ? m->rows_from[row] : row;
    int p = piece_of(m, &from);
    const float *values = in[p] + (matrix * m->piece[p].rows + from) * m->cols;
    for (int64_t c = 0; c < m->cols; c++) {
        float value = values[columns ? m->rows_from[c] : c];
        out[c] = m->log_of_negative ? logf(-value) : value;
    }
}

qb_status qb_gguf_fill_wide(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) {
    const qb_gguf_pieces *m = t->source;
    float *in[QB_GGUF_PIECES_MAX] = {0};
    qb_status st = QB_OK;
    for (int p = 0; p < m->n; p++) QB_TRY(st, widen(ck->threads, m, p, &in[p]));
    if (m->order == QB_GGUF_KEYS_AND_VALUES) {
        put_keys_and_values(m, in, out);
        goto out;
    }
    for (int64_t x = 0; x < m->matrices; x++)
        for (int64_t r = 0; r < m->rows; r++)
            put_wide_row(m, in, x, r, (float *)out + (x * m->rows + r) * m->cols);
out:
    for (int p = 0; p < m->n; p++) qb_free(in[p]);
    return st == QB_OK ? st : qb_fail_prefix(st, "%s: tensor %.200s", ck->dir, t->tensor.name);
}
