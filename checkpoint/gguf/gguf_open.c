/* A GGUF file opened as a checkpoint, and the layout of its quantized linears. */
#include "checkpoint/gguf/gguf_model.h"
#include "checkpoint/layouts/layout_rows.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- rows that stand for neighbouring rotary pairs ---- */

int64_t qb_gguf_row(const void *ctx, int64_t row) {
    const qb_gguf_source *s = ctx;
    if (!s->heads) return row;
    int64_t first = row / s->head_rows * s->head_rows, at = row - first, half = s->head_rows / 2;
    return first + (at < half ? 2 * at : 2 * (at - half) + 1);
}

static qb_status fill_rows(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) {
    (void)ck;
    int64_t rows = t->tensor.shape[0], row_bytes = t->tensor.bytes / rows;
    for (int64_t r = 0; r < rows; r++)
        memcpy((uint8_t *)out + r * row_bytes,
               (const uint8_t *)t->mapped + qb_gguf_row(t->source, r) * row_bytes, (size_t)row_bytes);
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

/* Heads of query or key tensors, from the metadata; 0 for other tensors. */
static qb_status interleaved_heads(const qb_gguf *g, const qb_gguf_architecture *a, const char *name,
                                   int64_t rows, int64_t *heads) {
    char key[128];
    bool q = strstr(name, ".attn_q.") != NULL, k = strstr(name, ".attn_k.") != NULL;
    *heads = 0;
    if (!a->interleaved || (!q && !k)) return QB_OK;
    snprintf(key, sizeof key, "%s.attention.head_count", a->name);
    qb_status st = qb_gguf_int(g, key, true, 1, INT32_MAX, heads);
    snprintf(key, sizeof key, "%s.attention.head_count_kv", a->name);
    if (st == QB_OK && k) st = qb_gguf_int(g, key, false, 1, INT32_MAX, heads);
    if (st == QB_OK && (rows % *heads || rows / *heads % 2))
        st = qb_fail(QB_ERR_FORMAT,
                     "%s: tensor %.200s: %" PRId64 " rows are not %" PRId64
                     " heads of an even number of elements",
                     g->file, name, rows, *heads);
    return st;
}

static qb_status add_tensor(qb_checkpoint *ck, const qb_gguf_architecture *a, const qb_gguf_tensor *from) {
    char name[QB_TENSOR_NAME_MAX];
    qb_status st = qb_gguf_tensor_name(ck->gguf, a, from->name, name);
    if (st != QB_OK || !*name) return st;
    qb_tensor_state t = {.dtype_name = from->type->name, .mapped = from->data};
    qb_gguf_source *source;
    QB_TRY(st, qb_arena_alloc(&ck->arena, 1, sizeof *source, &source));
    QB_TRY(st, qb_arena_strdup(&ck->arena, name, &t.tensor.name));
    t.tensor.n_dims = from->n_dims;
    memcpy(t.tensor.shape, from->shape, sizeof from->shape);
    t.tensor.bytes = from->bytes;
    t.tensor.dtype = qb_ggml_type_is_packed(from->type) ? QB_DTYPE_U8 : from->type->dtype;
    source->type = from->type;
    if (from->n_dims) QB_TRY(st, interleaved_heads(ck->gguf, a, from->name, from->shape[0], &source->heads));
    if (source->heads) source->head_rows = from->shape[0] / source->heads;
    if (source->heads && from->shape[0] && !qb_ggml_type_is_blocks(from->type)) t.fill = fill_rows;
    if (a->norms_include_one && strstr(from->name, "norm.weight")) {
        if (from->n_dims != 1 || from->type->dtype != QB_DTYPE_F32)
            QB_TRY(st, qb_fail(QB_ERR_UNSUPPORTED, "%s: tensor %.200s: expected a vector of F32, found %s",
                               ck->gguf->file, from->name, from->type->name));
        t.fill = fill_less_one;
    }
    t.source = source;
    st = qb_checkpoint_add_tensor(ck, &ck->shards[0], &t);
out:
    return st;
}

/* ---- what the file is quantized to ---- */

/* llama.cpp's names of mixtures; source: gguf-py's LlamaFileType. */
static const char *mixture_name(int64_t file_type) {
    static const char *const names[] = {
        [2] = "Q4_0",    [3] = "Q4_1",    [7] = "Q8_0",      [8] = "Q5_0",    [9] = "Q5_1",
        [10] = "Q2_K",   [11] = "Q3_K_S", [12] = "Q3_K_M",   [13] = "Q3_K_L", [14] = "Q4_K_S",
        [15] = "Q4_K_M", [16] = "Q5_K_S", [17] = "Q5_K_M",   [18] = "Q6_K",   [21] = "Q2_K_S",
        [25] = "IQ4_NL", [30] = "IQ4_XS", [38] = "MXFP4_MOE"};
    bool known = file_type >= 0 && file_type < (int64_t)(sizeof names / sizeof names[0]);
    return known && names[file_type] ? names[file_type] : "";
}

static int64_t count_weights(const qb_gguf *g, const qb_ggml_type *type) {
    int64_t n = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const qb_gguf_tensor *t = &g->tensors[i];
        if (t->type == type && !strncmp(t->name, "blk.", 4))
            n += t->bytes / type->block_bytes * type->block_columns;
    }
    return n;
}

/* The type of most weights in the blocks. The mixture's name is the file's word, taken where it agrees. */
static qb_status describe(qb_checkpoint *ck) {
    const qb_gguf *g = ck->gguf;
    qb_quantization *q = &ck->quantization;
    const qb_ggml_type *most = NULL;
    int64_t most_weights = 0, file_type = -1;
    for (size_t i = 0; qb_ggml_type_at(i); i++) {
        const qb_ggml_type *type = qb_ggml_type_at(i);
        int64_t n = qb_ggml_type_is_blocks(type) && type->block_bytes ? count_weights(g, type) : 0;
        if (n > most_weights) most = type, most_weights = n;
    }
    if (!most) return QB_OK;
    qb_status st = qb_gguf_int(g, "general.file_type", false, 0, UINT32_MAX, &file_type);
    const char *name = mixture_name(file_type);
    if (strncmp(name, most->name, strlen(most->name)) != 0) name = most->name;
    snprintf(q->method, sizeof q->method, "%s", name);
    for (char *p = q->method; *p; p++) *p = (char)tolower((unsigned char)*p);
    snprintf(q->layout, sizeof q->layout, "gguf");
    q->bits = most->bits;
    q->group_size = most->group_size;
    q->symmetric = qb_ggml_type_is_packed(most) && !most->has_offsets && !most->has_book;
    return st;
}

qb_status qb_checkpoint_open_gguf(qb_checkpoint *ck, const char *path) {
    const qb_gguf_architecture *architecture = NULL;
    qb_status st;
    QB_TRY(st, qb_gguf_read_parts(ck, path));
    QB_TRY(st, qb_gguf_architecture_of(ck->gguf, &architecture));
    QB_TRY(st, qb_gguf_config(ck->gguf, architecture, &ck->config));
    for (size_t i = 0; i < ck->gguf->n_tensors; i++)
        QB_TRY(st, add_tensor(ck, architecture, &ck->gguf->tensors[i]));
    ck->quantization_source = ck->config_source = ck->shards[0].path;
    st = describe(ck);
out:
    return st;
}

int64_t qb_checkpoint_loaded_bytes(const qb_checkpoint *ck, const qb_tensor *t) {
    const qb_gguf_source *s = ck->gguf ? ck->tensors[t->index].source : NULL;
    if (!s || !qb_ggml_type_is_packed(s->type)) return t->bytes;
    const qb_ggml_type *type = s->type;
    int64_t n = t->bytes / type->block_bytes * type->block_columns;
    int64_t bits = type->bits > 4 ? 8 : type->bits == 3 ? 4 : type->bits;
    int64_t group_bytes = (int64_t)qb_dtype_bytes(type->scale_dtype) * (type->has_offsets ? 2 : 1);
    return n / 8 * bits + n / type->group_size * group_bytes;
}

/* ---- the layout ---- */

static const qb_tensor *find_packed(const qb_checkpoint *ck, const char *module) {
    const qb_tensor *t = ck->gguf ? qb_module_tensor_find(ck, module, "weight") : NULL;
    const qb_gguf_source *s = t ? ck->tensors[t->index].source : NULL;
    return s && qb_ggml_type_is_blocks(s->type) ? t : NULL;
}

static bool present(const qb_checkpoint *ck, const char *module) {
    return find_packed(ck, module) != NULL;
}

/* The rows of a part, where the file has them. */
typedef struct {
    const qb_slice *slice;
    const qb_gguf_source *source;
} part;

static int64_t part_row(const void *ctx, int64_t row) {
    const part *p = ctx;
    return p->slice->index * p->slice->tensor_rows + qb_gguf_row(p->source, qb_slice_row(p->slice, row));
}

static qb_status read_slice(qb_checkpoint *ck, const char *module, const qb_slice *slice, int64_t rows,
                            int64_t cols, qb_qweight *out) {
    const qb_tensor *t = find_packed(ck, module);
    const void *blocks = NULL;
    char found[160], expected[128];
    *out = (qb_qweight){0};
    if (!t) return qb_fail(QB_ERR_INTERNAL, "%s: %.200s is not quantized", ck->dir, module);
    part p = {slice, ck->tensors[t->index].source};
    int64_t shape[3] = {slice->matrices, slice->tensor_rows, cols};
    int n_dims = slice->matrices ? 3 : 2;
    if (t->n_dims != n_dims || memcmp(t->shape, shape + 3 - n_dims, (size_t)n_dims * sizeof *shape) != 0)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: expected %s, found %s", ck->dir, t->name,
                       qb_shape_text(n_dims, shape + 3 - n_dims, expected), qb_tensor_describe(ck, t, found));
    qb_status st = QB_OK;
    bool readable = qb_ggml_type_is_packed(p.source->type); /* reading refuses the others by name */
    if (readable) st = qb_checkpoint_acquire(ck, t, &blocks);
    if (st != QB_OK) return st;
    st = qb_ggml_read(p.source->type, blocks, rows, cols, part_row, &p, out);
    if (readable) qb_checkpoint_release(ck, t);
    return st == QB_OK ? st : qb_fail_prefix(st, "%s: tensor %.200s", ck->dir, t->name);
}

static qb_status read(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, qb_qweight *out) {
    return read_slice(ck, module, &(qb_slice){.tensor_rows = rows}, rows, cols, out);
}

const qb_layout qb_layout_gguf = {
    .name = "gguf",
    .summary = "GGUF blocks (llama.cpp): Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to Q6_K, IQ4_NL, IQ4_XS, MXFP4; "
               "read only",
    .source = "ggml's ggml-quants.h, docs/gguf.md",
    .present = present,
    .read = read,
    .read_slice = read_slice,
};
