/* A GGUF file opened as a checkpoint, and the layout of its quantized linears. */
#include "checkpoint/gguf/gguf_model.h"
#include "checkpoint/layouts/layout_rows.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

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
        QB_TRY(st, qb_gguf_add_tensor(ck, architecture, &ck->gguf->tensors[i]));
    QB_TRY(st, qb_gguf_add_made(ck, architecture));
    QB_TRY(st, qb_gguf_add_per_layer(ck, architecture));
    qb_gguf_warn_unread(ck->gguf, architecture);
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

/* The codes of a part of a tensor, which is held meanwhile. */
typedef struct {
    qb_code_source base;
    qb_checkpoint *ck;
    const qb_tensor *tensor;
    qb_slice slice;
    const qb_gguf_source *source;
    qb_ggml_matrix matrix;
} part;

static int64_t part_row(const void *ctx, int64_t row) {
    const part *p = ctx;
    return p->slice.index * p->slice.tensor_rows + qb_gguf_row(p->source, qb_slice_row(&p->slice, row));
}

static void part_codes(const qb_code_source *from, int64_t first, int64_t n, uint8_t *codes) {
    qb_ggml_codes(&((const part *)from)->matrix, first, n, codes);
}

static void part_free(qb_code_source *from) {
    part *p = (part *)from;
    if (p->matrix.blocks) qb_checkpoint_release(p->ck, p->tensor);
    qb_free(p);
}

static qb_status read_slice(qb_checkpoint *ck, const char *module, const qb_slice *slice, int64_t rows,
                            int64_t cols, qb_qweight *out) {
    const qb_tensor *t = find_packed(ck, module);
    char found[160], expected[128];
    part *p;
    *out = (qb_qweight){0};
    if (!t) return qb_fail(QB_ERR_INTERNAL, "%s: %.200s is not quantized", ck->dir, module);
    const qb_gguf_source *source = ck->tensors[t->index].source;
    int64_t shape[3] = {slice->matrices, slice->tensor_rows, cols};
    int n_dims = slice->matrices ? 3 : 2;
    if (t->n_dims != n_dims || memcmp(t->shape, shape + 3 - n_dims, (size_t)n_dims * sizeof *shape) != 0)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: expected %s, found %s", ck->dir, t->name,
                       qb_shape_text(n_dims, shape + 3 - n_dims, expected), qb_tensor_describe(ck, t, found));
    qb_status st = qb_alloc(1, sizeof *p, &p);
    if (st != QB_OK) return st;
    *p = (part){.base = {part_codes, part_free}, .ck = ck, .tensor = t, .slice = *slice, .source = source};
    p->matrix =
        (qb_ggml_matrix){.type = source->type, .rows = rows, .cols = cols, .row_of = part_row, .ctx = p};
    const void *blocks = NULL;
    if (qb_ggml_type_is_packed(source->type)) /* reading refuses the others by name */
        st = qb_checkpoint_acquire(ck, t, &blocks);
    p->matrix.blocks = blocks;
    if (st == QB_OK) {
        st = qb_ggml_values(ck->threads, &p->matrix, out);
        if (st != QB_OK) st = qb_fail_prefix(st, "%s: tensor %.200s", ck->dir, t->name);
    }
    if (st == QB_OK)
        out->source = &p->base;
    else
        part_free(&p->base);
    return st;
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
