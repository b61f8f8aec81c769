/* Tensors of the class that the file holds in other pieces: experts that it stacks, parts that it took apart,
   heads that it put in another order. Source: llama.cpp's conversion/NAME.py. */
#include "checkpoint/gguf/gguf_made.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- numbers ---- */

static qb_status number(const qb_gguf *g, const qb_gguf_architecture *a, const char *below, int64_t *out) {
    char key[128];
    snprintf(key, sizeof key, "%s.%s", a->name, below);
    return qb_gguf_int(g, key, true, 1, INT32_MAX, out);
}

static qb_status read_sizes(const qb_gguf *g, const qb_gguf_architecture *a, qb_gguf_heads *out) {
    int64_t values = 0;
    qb_status st;
    *out = (qb_gguf_heads){0};
    QB_TRY(st, number(g, a, "attention.head_count", &out->heads));
    if (a->gating) QB_TRY(st, number(g, a, "expert_count", &out->experts));
    if (!a->linear_attention) goto out;
    QB_TRY(st, number(g, a, "ssm.group_count", &out->key_heads));
    QB_TRY(st, number(g, a, "ssm.time_step_rank", &out->value_heads));
    QB_TRY(st, number(g, a, "ssm.state_size", &out->key_width));
    QB_TRY(st, number(g, a, "ssm.inner_size", &values));
    out->value_width = values / out->value_heads; /* checked with the config */
out:
    return st;
}

/* ---- one tensor ---- */

/* Rows can be copied as they lie. */
static bool is_wide(const qb_gguf_pieces *m) {
    const qb_ggml_type *type = m->piece[0].type;
    return m->log_of_negative || m->order == QB_GGUF_KEYS_AND_VALUES ||
           (m->n > 1 && m->piece[1].type != type) || (m->n > 2 && m->piece[2].type != type) ||
           (m->order == QB_GGUF_TURNS_OF_COLUMNS && m->width % type->block_columns != 0);
}

static qb_status shapes_differ(const qb_gguf *g, const qb_gguf_tensor *a, const qb_gguf_tensor *b) {
    char shape[2][128];
    qb_shape_text(a->n_dims, a->shape, shape[0]);
    qb_shape_text(b->n_dims, b->shape, shape[1]);
    return qb_fail(QB_ERR_FORMAT, "%s: tensors %.200s %s and %.200s %s do not fit together", g->file, a->name,
                   shape[0], b->name, shape[1]);
}

/* A vector is a column; what is stacked has its experts, or heads, first. */
static void take_piece(qb_gguf_pieces *m, int p, const qb_gguf_tensor *t, bool stacked) {
    int first = stacked ? 1 : 0, n = t->n_dims - first;
    m->piece[p].data = t->data;
    m->piece[p].type = t->type;
    m->piece[p].rows = n > 0 ? t->shape[first] : 1;
    m->piece[p].cols = n > 1 ? t->shape[first + 1] : 1;
}

/* As many matrices as the metadata says. */
static qb_status check_stack(const qb_gguf *g, const qb_gguf_pieces *m, const qb_gguf_heads *s,
                             const qb_gguf_tensor *t) {
    bool heads = m->order == QB_GGUF_KEYS_AND_VALUES;
    int64_t expected = heads ? s->heads : s->experts;
    if (m->matrices == expected) return QB_OK;
    return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s is of %" PRId64 " %s, but the metadata says %" PRId64,
                   g->file, t->name, m->matrices, heads ? "heads" : "experts", expected);
}

static qb_status take_pieces(const qb_gguf *g, const qb_gguf_made *row, const qb_gguf_heads *s,
                             const qb_gguf_tensor *const *from, qb_gguf_pieces *m) {
    bool turned = row->order == QB_GGUF_KEYS_AND_VALUES;
    /* a bias of stacked experts has two dimensions, their weights three */
    bool stacked = from[0]->n_dims == 3 || (from[0]->n_dims == 2 && strstr(from[0]->name, "_exps.bias"));
    *m = (qb_gguf_pieces){
        .order = row->order, .log_of_negative = row->log_of_negative, .depthwise = row->depthwise};
    if (strstr(row->to, "%e") && !stacked)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: expected matrices of experts, three dimensions",
                       g->file, from[0]->name);
    m->matrices = stacked ? from[0]->shape[0] : 1;
    for (int p = 0; p < QB_GGUF_PIECES_MAX && from[p]; p++) {
        take_piece(m, p, from[p], stacked);
        m->rows += m->piece[p].rows;
        m->n = p + 1;
        bool fits = from[p]->n_dims == from[0]->n_dims && (!stacked || from[p]->shape[0] == m->matrices) &&
                    m->piece[p].cols == (p && turned ? m->piece[0].rows : m->piece[0].cols);
        if (!fits || (p && turned && !stacked)) return shapes_differ(g, from[0], from[p]);
    }
    m->cols = m->piece[0].cols;
    if (turned) {
        m->heads = m->matrices;
        m->cols = m->piece[0].rows;
        m->rows = m->heads * (m->piece[0].cols + m->piece[1].rows);
    }
    return stacked ? check_stack(g, m, s, from[0]) : QB_OK;
}

/* The tensor's type, its shape, and what makes its bytes. */
static void set_form(const qb_gguf_pieces *m, const qb_gguf_tensor *from, bool one_matrix,
                     qb_tensor_state *t) {
    const qb_ggml_type *type = m->face.type;
    int n = 0;
    bool turned = m->order == QB_GGUF_KEYS_AND_VALUES;
    int64_t matrices = one_matrix || turned ? 1 : m->matrices;
    if (!one_matrix && !turned && m->matrices > 1) t->tensor.shape[n++] = m->matrices;
    t->tensor.shape[n++] = m->rows;
    if (m->depthwise) t->tensor.shape[n++] = 1;
    if (turned || from->n_dims - (m->matrices > 1 ? 1 : 0) > 1) t->tensor.shape[n++] = m->cols;
    t->tensor.n_dims = n;
    t->tensor.bytes = matrices * m->rows * qb_gguf_row_bytes(type, m->cols);
    t->tensor.dtype = qb_ggml_type_is_packed(type) ? QB_DTYPE_U8 : type->dtype;
    t->dtype_name = type->name;
    t->source = m;
    if (m->wide)
        t->fill = qb_gguf_fill_wide;
    else if (m->n > 1 || m->rows_from)
        t->fill = qb_gguf_fill_pieces;
    else
        t->mapped = from->data;
}

static qb_status add_one(qb_checkpoint *ck, const char *name, const qb_tensor_state *form) {
    qb_tensor_state t = *form;
    qb_status st = qb_arena_strdup(&ck->arena, name, &t.tensor.name);
    return st == QB_OK ? qb_checkpoint_add_tensor(ck, &ck->shards[0], &t) : st;
}

/* A tensor for each expert, of its matrix alone. */
static qb_status add_experts(qb_checkpoint *ck, const char *pattern, const qb_gguf_pieces *all,
                             const qb_gguf_tensor *from) {
    const char *hole = strstr(pattern, "%e");
    char name[QB_TENSOR_NAME_MAX + 24];
    int64_t n = all->matrices;
    qb_gguf_pieces *each;
    qb_status st = qb_arena_alloc(&ck->arena, (size_t)n, sizeof *each, &each);
    for (int64_t e = 0; st == QB_OK && e < n; e++) {
        qb_tensor_state t = {0};
        each[e] = *all;
        each[e].matrices = 1;
        for (int p = 0; p < all->n; p++)
            each[e].piece[p].data +=
                e * all->piece[p].rows * qb_gguf_row_bytes(all->piece[p].type, all->piece[p].cols);
        set_form(&each[e], from, true, &t);
        t.tensor.n_dims = from->n_dims - 1;
        t.tensor.shape[0] = all->rows;
        t.tensor.shape[1] = all->cols;
        if (t.mapped) t.mapped = each[e].piece[0].data;
        snprintf(name, sizeof name, "%.*s%" PRId64 "%s", (int)(hole - pattern), pattern, e, hole + 2);
        st = add_one(ck, name, &t);
    }
    return st;
}

static qb_status make(qb_checkpoint *ck, const qb_gguf_architecture *a, const qb_gguf_made *row,
                      const qb_gguf_heads *s, int64_t layer, const qb_gguf_tensor *const *from) {
    char name[QB_TENSOR_NAME_MAX];
    qb_gguf_pieces *m;
    qb_tensor_state t = {0};
    qb_status st;
    QB_TRY(st, qb_arena_alloc(&ck->arena, 1, sizeof *m, &m));
    QB_TRY(st, take_pieces(ck->gguf, row, s, from, m));
    QB_TRY(st, qb_gguf_order_pieces(ck, m, s, from[0]->name));
    m->wide = is_wide(m);
    m->face.type = m->wide ? qb_ggml_type_find(0) : m->piece[0].type;
    snprintf(name, sizeof name, "%s%" PRId64 ".%s", a->layer, layer, row->to);
    if (strstr(name, "%e")) return add_experts(ck, name, m, from[0]);
    set_form(m, from[0], false, &t);
    st = add_one(ck, name, &t);
out:
    return st;
}

/* ---- all ---- */

bool qb_gguf_is_for_made(const qb_gguf_architecture *a, const char *below) {
    for (const qb_gguf_made *row = a->made; row && row->to; row++)
        for (int p = 0; p < QB_GGUF_PIECES_MAX && row->from[p]; p++)
            if (!strcmp(row->from[p], below)) return true;
    return false;
}

static const qb_gguf_tensor *find_in_layer(const qb_gguf *g, int64_t layer, const char *below) {
    char name[QB_TENSOR_NAME_MAX];
    snprintf(name, sizeof name, "blk.%" PRId64 ".%s", layer, below);
    return qb_gguf_find_tensor(g, name);
}

static qb_status add_layer(qb_checkpoint *ck, const qb_gguf_architecture *a, const qb_gguf_heads *s,
                           int64_t layer, size_t *done) {
    qb_status st = QB_OK;
    for (const qb_gguf_made *row = a->made; st == QB_OK && row->to; row++) {
        const qb_gguf_tensor *from[QB_GGUF_PIECES_MAX] = {0};
        int n = 0, there = -1, lacks = -1;
        for (; n < QB_GGUF_PIECES_MAX && row->from[n]; n++) {
            from[n] = find_in_layer(ck->gguf, layer, row->from[n]);
            *(from[n] ? &there : &lacks) = n;
        }
        if (there < 0) continue; /* a layer of another kind; what it lacks is told on loading */
        if (lacks >= 0)
            return qb_fail(QB_ERR_FORMAT, "%s: there is blk.%" PRId64 ".%s, but no %s", ck->gguf->file, layer,
                           row->from[there], row->from[lacks]);
        st = make(ck, a, row, s, layer, from);
        *done += (size_t)n;
    }
    return st;
}

/* A tensor of a layer that is not there (block_count says less) is made of by nobody. */
static size_t count_for_made(const qb_gguf *g, const qb_gguf_architecture *a, const char **last) {
    size_t n = 0;
    for (size_t i = 0; i < g->n_tensors; i++) {
        const char *name = g->tensors[i].name, *dot = strchr(name + strcspn(name, "."), '.');
        dot = dot ? strchr(dot + 1, '.') : NULL;
        if (strncmp(name, "blk.", 4) != 0 || !dot || !qb_gguf_is_for_made(a, dot + 1)) continue;
        n++;
        *last = name;
    }
    return n;
}

qb_status qb_gguf_add_made(qb_checkpoint *ck, const qb_gguf_architecture *a) {
    int64_t layers = (int64_t)qb_json_number(qb_json_get(ck->config, "num_hidden_layers"));
    size_t done = 0;
    const char *last = "";
    qb_gguf_heads s;
    if (!a->made) return QB_OK;
    qb_status st = read_sizes(ck->gguf, a, &s);
    for (int64_t l = 0; st == QB_OK && l < layers; l++) st = add_layer(ck, a, &s, l, &done);
    if (st == QB_OK && count_for_made(ck->gguf, a, &last) != done)
        st = qb_fail(QB_ERR_FORMAT, "%s: block_count is %" PRId64 ", but there are tensors as %.200s",
                     ck->gguf->file, layers, last);
    return st;
}

/* ---- metadata ---- */

/* The file need not be aligned. */
static qb_status fill_number(const qb_checkpoint *ck, const qb_tensor_state *t, void *out) {
    (void)ck;
    memcpy(out, t->mapped, sizeof(float));
    return QB_OK;
}

static qb_status per_layer_of(const qb_gguf *g, const char *key, int64_t layers, const qb_gguf_value **out) {
    const qb_gguf_value *v = *out = qb_gguf_find(g, key);
    if (v && v->kind == QB_GGUF_F32 && (!v->is_array || v->count >= layers)) return QB_OK;
    if (!v) return qb_fail(QB_ERR_FORMAT, "%s: metadata %s is missing", g->file, key);
    return qb_fail(QB_ERR_FORMAT,
                   "%s: metadata %s: expected %" PRId64 " floats of 32 bits, one a layer, found %" PRId64
                   " values%s",
                   g->file, key, layers, v->count, v->kind == QB_GGUF_F32 ? "" : " of another kind");
}

qb_status qb_gguf_add_per_layer(qb_checkpoint *ck, const qb_gguf_architecture *a) {
    int64_t layers = (int64_t)qb_json_number(qb_json_get(ck->config, "num_hidden_layers"));
    char name[QB_TENSOR_NAME_MAX];
    qb_status st = QB_OK;
    for (const qb_gguf_per_layer *row = a->per_layer; row && row->key; row++) {
        const qb_gguf_value *v;
        QB_TRY(st, per_layer_of(ck->gguf, row->key, layers, &v));
        for (int64_t l = 0; l < layers; l++) {
            qb_tensor_state t = {.dtype_name = "F32", .fill = fill_number};
            t.tensor.dtype = QB_DTYPE_F32;
            t.tensor.n_dims = row->scalar ? 0 : 1;
            t.tensor.shape[0] = 1;
            t.tensor.bytes = sizeof(float);
            t.mapped = v->bytes + (v->is_array ? l : 0) * t.tensor.bytes;
            snprintf(name, sizeof name, "%s%" PRId64 ".%s", a->layer, l, row->to);
            QB_TRY(st, add_one(ck, name, &t));
        }
    }
out:
    return st;
}
