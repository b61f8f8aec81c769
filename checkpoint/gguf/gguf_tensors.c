/* Tensors of a GGUF file as the class has them: rows of heads put back in order, matrices turned, norms
   without the one that the converter added. */
#include "checkpoint/gguf/gguf_model.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- the order of rows ---- */

/* Neighbouring rotary pairs: row i of a half stands at 2 i, or behind it. */
static int64_t pair_row(const qb_gguf_source *s, int64_t row) {
    int64_t first = row / s->head_rows * s->head_rows, at = row - first, half = s->head_rows / 2;
    return first + (at < half ? 2 * at : 2 * (at - half) + 1);
}

/* Part p of all groups stands behind the parts before it. */
static int64_t part_row(const qb_gguf_source *s, int64_t row) {
    int64_t all = s->group_rows[0] + s->group_rows[1] + s->group_rows[2];
    int64_t group = row / all, at = row % all, start = 0;
    for (int p = 0; p < 3; p++) {
        if (at < s->group_rows[p]) return start + group * s->group_rows[p] + at;
        at -= s->group_rows[p];
        start += s->groups * s->group_rows[p];
    }
    return row;
}

int64_t qb_gguf_row(const void *ctx, int64_t row) {
    const qb_gguf_source *s = ctx;
    return s->groups ? part_row(s, row) : s->heads ? pair_row(s, row) : row;
}

static qb_status fill_rows(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) {
    (void)ck;
    int64_t rows = t->tensor.shape[0], row_bytes = t->tensor.bytes / rows;
    for (int64_t r = 0; r < rows; r++)
        memcpy((uint8_t *)out + r * row_bytes,
               (const uint8_t *)t->mapped + qb_gguf_row(t->source, r) * row_bytes, (size_t)row_bytes);
    return QB_OK;
}

/* [in, out] of the file's [out, in]. */
static qb_status fill_transposed(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) {
    (void)ck;
    int64_t rows = t->tensor.shape[0], cols = t->tensor.shape[1];
    size_t width = qb_dtype_bytes(t->tensor.dtype);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < cols; c++)
            memcpy((uint8_t *)out + (size_t)(r * cols + c) * width,
                   (const uint8_t *)t->mapped + (size_t)(c * rows + r) * width, width);
    return QB_OK;
}

/* Norm weights as the class has them, without the one that the converter added. */
static qb_status fill_less_one(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) {
    (void)ck;
    for (int64_t i = 0; i < t->tensor.shape[0]; i++) {
        float value;
        memcpy(&value, (const uint8_t *)t->mapped + i * 4, 4); /* the file need not be aligned */
        value -= 1;
        memcpy((uint8_t *)out + i * 4, &value, 4);
    }
    return QB_OK;
}

/* ---- heads, from the metadata ---- */

static qb_status read_heads(const qb_gguf *g, const qb_gguf_architecture *a, int64_t *heads, int64_t *keys) {
    char key[128];
    snprintf(key, sizeof key, "%s.attention.head_count", a->name);
    qb_status st = qb_gguf_int(g, key, true, 1, INT32_MAX, heads);
    *keys = *heads;
    snprintf(key, sizeof key, "%s.attention.head_count_kv", a->name);
    if (st == QB_OK) st = qb_gguf_int(g, key, false, 1, INT32_MAX, keys);
    return st;
}

static qb_status order_pairs(const qb_gguf *g, const qb_gguf_tensor *from, int64_t heads,
                             qb_gguf_source *out) {
    int64_t rows = from->shape[0];
    if (rows % heads || rows / heads % 2)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: tensor %.200s: %" PRId64 " rows are not %" PRId64
                       " heads of an even number of elements",
                       g->file, from->name, rows, heads);
    out->heads = heads;
    out->head_rows = rows / heads;
    return QB_OK;
}

static qb_status order_parts(const qb_gguf *g, const qb_gguf_architecture *a, const qb_gguf_tensor *from,
                             int64_t heads, int64_t keys, qb_gguf_source *out) {
    int64_t rows = from->shape[0], groups = a->qkv == QB_GGUF_QKV_BY_HEAD ? heads : keys;
    if (rows % (heads + 2 * keys) || heads % keys || (groups != keys && heads != keys))
        return qb_fail(QB_ERR_FORMAT,
                       "%s: tensor %.200s: %" PRId64 " rows are not queries of %" PRId64
                       " heads and keys and values of %" PRId64,
                       g->file, from->name, rows, heads, keys);
    int64_t width = rows / (heads + 2 * keys);
    out->groups = groups;
    out->group_rows[0] = heads / groups * width;
    out->group_rows[1] = out->group_rows[2] = width;
    return QB_OK;
}

static qb_status order_rows(const qb_gguf *g, const qb_gguf_architecture *a, const qb_gguf_tensor *from,
                            qb_gguf_source *out) {
    bool q = strstr(from->name, ".attn_q.") != NULL, k = strstr(from->name, ".attn_k.") != NULL;
    bool qkv = a->qkv != QB_GGUF_QKV_SAME && strstr(from->name, ".attn_qkv.") != NULL;
    int64_t heads, keys;
    if (!from->n_dims || !from->shape[0] || (!(a->interleaved && (q || k)) && !qkv)) return QB_OK;
    qb_status st = read_heads(g, a, &heads, &keys);
    if (st != QB_OK) return st;
    return qkv ? order_parts(g, a, from, heads, keys, out) : order_pairs(g, from, k ? keys : heads, out);
}

/* ---- one tensor ---- */

/* The form in which the class has it: which function makes its bytes, and their shape. */
static qb_status choose_form(const qb_gguf *g, const qb_gguf_architecture *a, const qb_gguf_tensor *from,
                             const qb_gguf_source *source, qb_tensor_state *t) {
    if (a->norms_include_one && strstr(from->name, "norm.weight")) {
        if (from->n_dims != 1 || from->type->dtype != QB_DTYPE_F32)
            return qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %.200s: expected a vector of F32, found %s",
                           g->file, from->name, from->type->name);
        t->fill = fill_less_one;
    } else if (qb_ggml_type_is_blocks(from->type)) {
        return QB_OK; /* the layout orders its rows, and has matrices as [out, in] */
    } else if (source->heads || source->groups) {
        t->fill = fill_rows;
    } else if (a->transposed && from->n_dims == 2 && !strncmp(from->name, "blk.", 4)) {
        t->tensor.shape[0] = from->shape[1];
        t->tensor.shape[1] = from->shape[0];
        t->fill = fill_transposed;
    }
    return QB_OK;
}

/* A name with %h: the rows of the file's tensor are tensors of their own. */
static qb_status add_row_by_row(qb_checkpoint *ck, const char *pattern, const qb_gguf_tensor *from,
                                qb_tensor_state t) {
    const char *hole = strstr(pattern, "%h");
    char name[QB_TENSOR_NAME_MAX + 24];
    qb_status st = QB_OK;
    if (from->n_dims != 2 || qb_ggml_type_is_blocks(from->type) || from->bytes == 0)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %.200s: expected rows of plain numbers, found %s",
                       ck->gguf->file, from->name, from->type->name);
    t.tensor.n_dims = 1;
    t.tensor.shape[0] = from->shape[1];
    t.tensor.shape[1] = 0;
    t.tensor.bytes = from->bytes / from->shape[0];
    for (int64_t i = 0; i < from->shape[0]; i++) {
        snprintf(name, sizeof name, "%.*s%" PRId64 "%s", (int)(hole - pattern), pattern, i, hole + 2);
        QB_TRY(st, qb_arena_strdup(&ck->arena, name, &t.tensor.name));
        t.mapped = from->data + i * t.tensor.bytes;
        QB_TRY(st, qb_checkpoint_add_tensor(ck, &ck->shards[0], &t));
    }
out:
    return st;
}

qb_status qb_gguf_add_tensor(qb_checkpoint *ck, const qb_gguf_architecture *a, const qb_gguf_tensor *from) {
    char name[QB_TENSOR_NAME_MAX];
    qb_status st = qb_gguf_tensor_name(ck->gguf, a, from->name, name);
    if (st != QB_OK || !*name) return st;
    qb_tensor_state t = {.dtype_name = from->type->name, .mapped = from->data};
    qb_gguf_source *source;
    QB_TRY(st, qb_arena_alloc(&ck->arena, 1, sizeof *source, &source));
    *source = (qb_gguf_source){.type = from->type};
    QB_TRY(st, qb_arena_strdup(&ck->arena, name, &t.tensor.name));
    t.tensor.n_dims = from->n_dims;
    memcpy(t.tensor.shape, from->shape, sizeof from->shape);
    t.tensor.bytes = from->bytes;
    t.tensor.dtype = qb_ggml_type_is_packed(from->type) ? QB_DTYPE_U8 : from->type->dtype;
    t.source = source;
    if (strstr(name, "%h")) return add_row_by_row(ck, name, from, t);
    QB_TRY(st, order_rows(ck->gguf, a, from, source));
    QB_TRY(st, choose_form(ck->gguf, a, from, source, &t));
    st = qb_checkpoint_add_tensor(ck, &ck->shards[0], &t);
out:
    return st;
}
