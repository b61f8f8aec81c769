#include "model/load.h"

#include "base/clock.h"
#include "base/log.h"
#include "checkpoint/layout.h"
#include "model/modules.h"
#include "model/oddities.h"
#include "model/rope.h"
#include "model/unit_rows.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- linears ---- */

static bool is_stacked(const qb_linear *l) {
    return l->stored == QB_STORED_STACKED_ROWS || l->stored == QB_STORED_STACKED_COLUMNS;
}

static qb_slice slice_of(const qb_model *m, const qb_linear *l) {
    bool stacked = is_stacked(l);
    return (qb_slice){.matrices = stacked ? m->topology.experts : 0,
                      .index = stacked ? l->expert : 0,
                      .transposed = l->stored == QB_STORED_COLUMNS || l->stored == QB_STORED_STACKED_COLUMNS};
}

static qb_status view_as_stored(const qb_model *m, const qb_linear *l, const char *module, qb_weight *out) {
    qb_slice slice = slice_of(m, l);
    return qb_checkpoint_linear_view(m->checkpoint, module, l->stored == QB_STORED_ROWS ? NULL : &slice,
                                     l->rows, l->cols, out);
}

/* Codes may stay in the file. */
static qb_status view_linear(const qb_model *m, const qb_linear *l, int64_t layer, qb_weight *out) {
    char module[QB_NAME_BYTES];
    qb_weight stored = {0};
    qb_linear_name(l, layer, module);
    *out = (qb_weight){0};
    if (!l->unit_rows) return view_as_stored(m, l, module, out);
    qb_status st = view_as_stored(m, l, module, &stored);
    if (st == QB_OK) st = qb_checkpoint_complete(m->checkpoint, &stored);
    if (st == QB_OK) st = qb_weight_unit_rows(&stored, out);
    qb_checkpoint_free_linear(m->checkpoint, module, &stored);
    return st == QB_OK ? st : qb_fail_prefix(st, "%s", module);
}

qb_status qb_linear_read(const qb_model *m, const qb_linear *l, int64_t layer, qb_weight *out) {
    qb_status st = view_linear(m, l, layer, out);
    if (st == QB_OK) st = qb_checkpoint_complete(m->checkpoint, out);
    if (st != QB_OK) qb_linear_unread(m, l, layer, out);
    return st;
}

void qb_linear_unread(const qb_model *m, const qb_linear *l, int64_t layer, qb_weight *w) {
    char module[QB_NAME_BYTES];
    qb_linear_name(l, layer, module);
    qb_checkpoint_free_linear(m->checkpoint, module, w);
    *w = (qb_weight){0};
}

bool qb_linear_is_there(const qb_model *m, const qb_linear *l, int64_t layer) {
    char name[QB_NAME_BYTES + 8], module[QB_NAME_BYTES];
    const qb_layout *layout = qb_layout_find(qb_checkpoint_quantization(m->checkpoint)->layout);
    qb_linear_name(l, layer, module);
    snprintf(name, sizeof name, "%s.weight", module);
    return qb_checkpoint_find(m->checkpoint, name) || (layout && layout->present(m->checkpoint, module));
}

/* Stacked experts have no suffix. The head is resolved on opening. */
static qb_status check_list(const qb_model *m, const qb_list *l, int64_t layer, int64_t skip) {
    char module[QB_NAME_BYTES], name[QB_NAME_BYTES + 8];
    const qb_tensor *t;
    for (size_t i = 0; i < l->n_linears; i++) {
        if ((int64_t)i == skip || qb_linear_is_there(m, &l->linears[i], layer)) continue;
        qb_linear_name(&l->linears[i], layer, module);
        if (qb_checkpoint_find(m->checkpoint, module)) continue;
        snprintf(name, sizeof name, "%s.weight", module);
        qb_status st = qb_checkpoint_need(m->checkpoint, name, &t);
        if (st != QB_OK) return st;
    }
    return QB_OK;
}

qb_status qb_model_check_whole(const qb_model *m) {
    const qb_topology *t = &m->topology;
    qb_status st;
    QB_TRY(st, check_list(m, &t->enter, -1, -1));
    for (int64_t l = 0; l < t->n_layers; l++) QB_TRY(st, check_list(m, &t->layers[l], l, -1));
    st = check_list(m, &t->leave, t->n_layers, t->head);
out:
    return st;
}

qb_status qb_linear_dtype(const qb_model *m, const qb_linear *l, int64_t layer, qb_dtype *out) {
    char name[QB_NAME_BYTES + 8];
    const qb_tensor *t;
    qb_linear_name(l, layer, name);
    if (!is_stacked(l) || !qb_checkpoint_find(m->checkpoint, name)) strcat(name, ".weight");
    qb_status st = qb_checkpoint_need(m->checkpoint, name, &t);
    if (st == QB_OK) *out = t->dtype;
    return st;
}

/* Loads a linear into `matrix`; a dense view stays in `source` for as long as the matrix lives. */
static qb_status load_matrix(qb_model *m, const qb_linear *l, int64_t layer, qb_place place,
                             qb_matrix *matrix, qb_weight *source) {
    char module[QB_NAME_BYTES];
    qb_status st = view_linear(m, l, layer, source);
    if (st != QB_OK) return st;
    qb_linear_name(l, layer, module);
    qb_oddities_warn(m, module, source);
    st = m->dev->backend->matrix_create(m->dev, source, place, matrix);
    if (st != QB_OK || source->packed) qb_linear_unread(m, l, layer, source);
    return st == QB_OK ? st : qb_fail_prefix(st, "%s", module);
}

/* ---- vectors ---- */

static qb_status upload_floats(qb_model *m, const float *host, int64_t n, float **out) {
    const qb_backend *be = m->dev->backend;
    int64_t bytes = n * (int64_t)sizeof(float);
    qb_status st = be->alloc(m->dev, QB_MEMORY_WEIGHTS, bytes, out);
    return st == QB_OK ? be->upload_new(m->dev, *out, host, bytes) : st;
}

/* BLOOM's slopes: powers of 2^(-8/c) for the largest power of two c of heads, then odd powers of its root.
   MPT's come out the same, with any `most` in place of 8. */
static void alibi_slopes(int64_t heads, double most, float *out) {
    int64_t c = 1;
    while (2 * c <= heads) c *= 2;
    for (int64_t i = 0; i < heads; i++)
        out[i] = i < c ? (float)exp2(-most * (double)(i + 1) / (double)c)
                       : (float)exp2(-most / 2 * (double)(2 * (i - c) + 1) / (double)c);
}

/* Frequencies from 1 down to 1 / 10000, the ends included: sines in the first half of a row, cosines in the
   second; an odd last element is 0 (transformers' modeling_xglm.py, there in float32). */
static void sinusoids(int64_t rows, int64_t width, float *out) {
    int64_t half = width / 2;
    memset(out, 0, (size_t)(rows * width) * sizeof *out);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < half; i++) {
            double angle = (double)r * pow(10000, half > 1 ? -(double)i / (double)(half - 1) : 0);
            out[r * width + i] = (float)sin(angle);
            out[r * width + half + i] = (float)cos(angle);
        }
}

static qb_status read_part(qb_model *m, const qb_vector *v, int64_t layer, int64_t part, float *to) {
    char name[QB_NAME_BYTES];
    int64_t rows = v->rows / v->parts, n = rows * (v->cols ? v->cols : 1);
    float *values;
    qb_vector_name(v, layer, part, name);
    qb_status st = qb_checkpoint_read_f32(m->checkpoint, name, rows, v->cols, &values);
    if (st != QB_OK) return st;
    st = qb_checkpoint_check_finite(m->checkpoint, qb_checkpoint_find(m->checkpoint, name));
    for (int64_t i = 0; i < n; i++) to[part * n + i] = values[i] + v->add;
    qb_free(values);
    return st;
}

static qb_status load_vector(qb_model *m, const qb_vector *v, int64_t layer, float **out) {
    int64_t n = v->rows * (v->cols ? v->cols : 1);
    float *host;
    qb_status st = qb_alloc((size_t)n, sizeof *host, &host);
    if (st == QB_OK && v->source == QB_VECTOR_SLOPES) alibi_slopes(v->rows, (double)v->most, host);
    if (st == QB_OK && v->source == QB_VECTOR_SINUSOIDS) sinusoids(v->rows, v->cols, host);
    for (int64_t part = 0; st == QB_OK && v->source == QB_VECTOR_TENSOR && part < v->parts; part++)
        st = read_part(m, v, layer, part, host);
    if (st == QB_OK) st = upload_floats(m, host, n, out);
    qb_free(host);
    return st;
}

/* The bias of a linear; where the model has none, the file may hold zeros alone. */
static qb_status load_bias(qb_model *m, const qb_linear *l, int64_t layer, float **out) {
    char name[QB_NAME_BYTES];
    float *host;
    qb_linear_bias_name(l, layer, name);
    if (!l->bias) return qb_modules_check_no_bias(m, name, l->rows);
    qb_slice slice = slice_of(m, l);
    slice.transposed = false;
    qb_status st = qb_checkpoint_read_f32_slice(m->checkpoint, name, &slice, l->rows, &host);
    if (st != QB_OK) return st;
    st = qb_checkpoint_check_finite(m->checkpoint, qb_checkpoint_find(m->checkpoint, name));
    if (st == QB_OK) st = upload_floats(m, host, l->rows, out);
    qb_free(host);
    return st;
}

/* ---- lists ---- */

static const qb_list *list_of(const qb_model *m, int64_t layer) {
    const qb_topology *t = &m->topology;
    return layer < 0 ? &t->enter : layer < t->n_layers ? &t->layers[layer] : &t->leave;
}

static void free_list(qb_model *m, qb_block *b) {
    const qb_backend *be = m->dev->backend;
    const qb_list *l = list_of(m, b->layer);
    for (int64_t i = 0; i < b->w.n_modules; i++) {
        bool borrowed = m->head_is_embed && b->layer == m->config.n_layers && i == m->topology.head;
        if (b->w.matrices && !borrowed) be->matrix_free(m->dev, &b->w.matrices[i]);
        if (b->source && b->source[i].dense) qb_linear_unread(m, &l->linears[i], b->layer, &b->source[i]);
        if (b->w.biases) be->free(m->dev, b->w.biases[i]);
    }
    for (int64_t i = 0; b->w.vectors && i < b->w.n_vectors; i++) be->free(m->dev, b->w.vectors[i]);
    qb_free(b->w.matrices);
    qb_free(b->w.biases);
    qb_free(b->w.vectors);
    qb_free(b->source);
    *b = (qb_block){0};
}

/* skip: a linear whose matrix the caller sets; -1 for none. */
static qb_status load_list(qb_model *m, int64_t layer, int skip, qb_place place, qb_block *out) {
    const qb_list *l = list_of(m, layer);
    *out = (qb_block){.layer = layer,
                      .w = {.steps = l->steps,
                            .n_steps = (int64_t)l->n_steps,
                            .n_modules = (int64_t)l->n_linears,
                            .n_vectors = (int64_t)l->n_vectors}};
    qb_status st;
    QB_TRY(st, qb_alloc_zero(l->n_linears, sizeof *out->w.matrices, &out->w.matrices));
    QB_TRY(st, qb_alloc_zero(l->n_linears, sizeof *out->w.biases, &out->w.biases));
    QB_TRY(st, qb_alloc_zero(l->n_linears, sizeof *out->source, &out->source));
    QB_TRY(st, qb_alloc_zero(l->n_vectors, sizeof *out->w.vectors, &out->w.vectors));
    for (size_t i = 0; i < l->n_vectors; i++)
        QB_TRY(st, load_vector(m, &l->vectors[i], layer, &out->w.vectors[i]));
    for (size_t i = 0; i < l->n_linears; i++) {
        if ((int)i != skip)
            QB_TRY(st, load_matrix(m, &l->linears[i], layer, place, &out->w.matrices[i], &out->source[i]));
        QB_TRY(st, load_bias(m, &l->linears[i], layer, &out->w.biases[i]));
    }
out:
    if (st != QB_OK) free_list(m, out);
    return st;
}

qb_status qb_block_load(qb_model *m, int64_t layer, qb_block *out) {
    qb_place place =
        m->resident && layer >= m->config.n_layers - m->host_blocks ? QB_PLACE_HOST : QB_PLACE_DEVICE;
    return load_list(m, layer, -1, place, out);
}

void qb_block_free(qb_model *m, qb_block *b) {
    if (b) free_list(m, b);
}

/* ---- embedding and head ---- */

qb_status qb_head_resolve(qb_model *m) {
    qb_topology *t = &m->topology;
    const qb_linear *head = &t->leave.linears[t->head];
    bool there = qb_linear_is_there(m, head, t->n_layers);
    char embed[QB_NAME_BYTES], name[QB_NAME_BYTES];
    qb_linear_name(head, t->n_layers, name);
    if (!t->tied_head) {
        if (there) return QB_OK;
        return qb_fail(
            QB_ERR_FORMAT,
            "%s: tie_word_embeddings is false, but the checkpoint holds no %s: the head would be random",
            qb_checkpoint_dir(m->checkpoint), name);
    }
    if (!there) return QB_OK;
    snprintf(embed, sizeof embed, "%s.weight", t->embed);
    strcat(name, ".weight");
    const qb_tensor *a = qb_checkpoint_find(m->checkpoint, embed),
                    *b = qb_checkpoint_find(m->checkpoint, name);
    const void *x = NULL, *y = NULL;
    bool same = a && b && a->dtype == b->dtype && a->bytes == b->bytes && a->n_dims == 2 && b->n_dims == 2;
    if (same) {
        qb_status st = qb_checkpoint_acquire(m->checkpoint, a, &x);
        if (st != QB_OK) return st;
        if ((st = qb_checkpoint_acquire(m->checkpoint, b, &y)) == QB_OK) {
            same = !memcmp(x, y, (size_t)a->bytes);
            qb_checkpoint_release(m->checkpoint, b);
        }
        qb_checkpoint_release(m->checkpoint, a);
        if (st != QB_OK) return st;
    }
    if (same) return QB_OK;
    m->head_differs = true;
    t->tied_head = false;
    qb_warn("%s: tie_word_embeddings is true, but the checkpoint holds another head (%s), which is used",
            qb_checkpoint_dir(m->checkpoint), head->name);
    return QB_OK;
}

/* For devices that look rows up in dense tables alone: float32, and a tied head packed beside it. */
static qb_status widen_embedding(qb_model *m, const qb_weight *w, qb_matrix *head) {
    const qb_backend *be = m->dev->backend;
    qb_status st;
    QB_TRY(st, qb_alloc((size_t)w->rows * (size_t)w->cols, sizeof *m->embed_table, &m->embed_table));
    QB_TRY(st, qb_qweight_complete(w->packed, m->dev->threads));
    qb_qweight_dequantize(w->packed, m->embed_table);
    qb_weight table = {.rows = w->rows, .cols = w->cols, .dtype = QB_DTYPE_F32, .dense = m->embed_table};
    QB_TRY(st, be->matrix_create(m->dev, &table, QB_PLACE_DEVICE, &m->embed));
    if (m->topology.tied_head) st = be->matrix_create(m->dev, w, QB_PLACE_DEVICE, head);
out:
    return st;
}

/* The head of a tied table is the same matrix. */
static qb_status use_as_stored(qb_model *m, const qb_weight *w, qb_matrix *head) {
    qb_status st = m->dev->backend->matrix_create(m->dev, w, QB_PLACE_DEVICE, &m->embed);
    m->head_is_embed = m->topology.tied_head;
    if (m->topology.tied_head) *head = m->embed;
    return st;
}

static qb_status load_packed_embedding(qb_model *m, const qb_weight *w, qb_matrix *head) {
    const qb_matrix asked = {.rows = w->rows, .cols = w->cols, .packed = w->packed};
    qb_status st = m->dev->backend->embed(m->dev, NULL, &asked, NULL, 0);
    if (st == QB_OK) return use_as_stored(m, w, head);
    if (st != QB_ERR_UNSUPPORTED) return st;
    qb_error_clear();
    return widen_embedding(m, w, head);
}

static qb_status load_embedding(qb_model *m, qb_matrix *head) {
    const qb_topology *t = &m->topology;
    qb_weight w;
    qb_status st = qb_checkpoint_linear_view(m->checkpoint, t->embed, NULL, t->vocab, t->embed_width, &w);
    if (st != QB_OK) return st;
    if (w.packed) {
        st = load_packed_embedding(m, &w, head);
        qb_checkpoint_free_linear(m->checkpoint, t->embed, &w);
    } else {
        m->embed_source = w;
        st = use_as_stored(m, &w, head);
    }
    return st == QB_OK ? st : qb_fail_prefix(st, "%s", t->embed);
}

/* ---- the whole ---- */

static qb_status load_ropes(qb_model *m, int64_t positions) {
    const qb_config *c = &m->config;
    qb_status st = QB_OK;
    for (int64_t i = 0; st == QB_OK && i < c->n_ropes; i++) {
        const qb_rope_spec *r = &c->ropes[i];
        float *host = NULL;
        if (r->width == 0) continue;
        if (qb_rope_depends_on_length(r, positions))
            qb_warn("%s: rotary frequencies are those of a sequence of %lld tokens, beyond the %lld it was "
                    "made for",
                    m->name, (long long)positions,
                    (long long)(r->scaling == QB_ROPE_DYNAMIC ? r->max_positions : r->original_positions));
        st = qb_alloc((size_t)(positions * r->width), sizeof(float), &host);
        if (st == QB_OK) qb_rope_fill(r, positions, host);
        if (st == QB_OK) st = upload_floats(m, host, positions * r->width, &m->rope_tables[i]);
        qb_free(host);
    }
    m->rope_capacity = positions;
    return st;
}

static qb_status check_steps(const qb_model *m, const qb_backend *be, const qb_list *l, int64_t layer) {
    for (size_t i = 0; i < l->n_steps; i++) {
        qb_status st = be->check_step(&l->steps[i]);
        if (st != QB_OK)
            return qb_fail_prefix(st, "%s, layer %lld: the backend %s", m->name, (long long)layer, be->name);
    }
    return QB_OK;
}

/* A new id for every load: what a backend captured for an older one is not replayed. */
static uint64_t next_decoder_id(void) {
    static _Atomic uint64_t last;
    return ++last;
}

static qb_status describe_decoder(qb_model *m) {
    const qb_config *c = &m->config;
    const qb_topology *t = &m->topology;
    qb_status st = qb_alloc((size_t)c->n_layers, sizeof *m->block_weights, &m->block_weights);
    if (st != QB_OK) return st;
    for (int64_t l = 0; l < c->n_layers; l++) m->block_weights[l] = &m->blocks[l].w;
    m->decoder = (qb_decoder){
        .id = next_decoder_id(),
        .n_layers = c->n_layers,
        .hidden = c->hidden,
        .vocab = c->vocab,
        .n_slots = t->n_slots,
        .top_k = t->top_k,
        .n_experts = t->experts,
        .embed_slot = t->embed_slot,
        .logits_slot = t->logits_slot,
        .embed = &m->embed,
        .rope_tables = (const float *const *)m->rope_tables,
        .n_rope_tables = c->n_ropes,
        .rope_capacity = m->rope_capacity,
        .enter = &m->enter.w,
        .blocks = m->block_weights,
        .leave = &m->leave.w,
    };
    for (int i = 0; i < t->n_slots; i++) {
        m->decoder.slot_width[i] = t->slots[i].width;
        m->decoder.slot_routed[i] = t->slots[i].routed;
    }
    return QB_OK;
}

/* ---- where the device reads them ---- */

static qb_status settle_list(qb_model *m, qb_block *b) {
    const qb_list *l = list_of(m, b->layer);
    qb_status st = QB_OK;
    for (int64_t i = 0; st == QB_OK && i < b->w.n_modules; i++) {
        bool copied = false;
        if (!b->source[i].dense) continue; /* packed, or the table */
        st = m->dev->backend->matrix_settle(m->dev, &b->w.matrices[i], &copied);
        if (copied) qb_linear_unread(m, &l->linears[i], b->layer, &b->source[i]);
    }
    return st;
}

/* A table that is no head stays: of it a token reads a row. */
static qb_status settle_head(qb_model *m) {
    const qb_topology *t = &m->topology;
    bool copied = false;
    if (!m->head_is_embed || !m->embed_source.dense) return QB_OK;
    qb_status st = m->dev->backend->matrix_settle(m->dev, &m->embed, &copied);
    if (!copied) return st;
    m->leave.w.matrices[t->head] = m->embed;
    qb_checkpoint_free_linear(m->checkpoint, t->embed, &m->embed_source);
    return st;
}

static qb_status settle_weights(qb_model *m) {
    qb_status st;
    if (!m->dev->backend->matrix_settle) return QB_OK;
    QB_TRY(st, settle_head(m));
    QB_TRY(st, settle_list(m, &m->enter));
    for (int64_t l = 0; l < m->config.n_layers; l++) QB_TRY(st, settle_list(m, &m->blocks[l]));
    st = settle_list(m, &m->leave);
out:
    return st;
}

qb_status qb_model_load(qb_model *m, qb_device *dev, int64_t positions, bool resident) {
    const qb_config *c = &m->config;
    const qb_topology *t = &m->topology;
    const int64_t begun = qb_now_ns();
    qb_matrix head = {0};
    qb_status st;
    QB_TRY(st, check_steps(m, dev->backend, &t->enter, -1));
    for (int64_t l = 0; l < c->n_layers; l++) QB_TRY(st, check_steps(m, dev->backend, &t->layers[l], l));
    QB_TRY(st, check_steps(m, dev->backend, &t->leave, c->n_layers));
    m->dev = dev;
    qb_checkpoint_use_threads(m->checkpoint, dev->threads);
    QB_TRY(st, load_embedding(m, &head));
    QB_TRY(st, load_list(m, -1, -1, QB_PLACE_DEVICE, &m->enter));
    QB_TRY(st, load_list(m, c->n_layers, t->tied_head ? t->head : -1, QB_PLACE_DEVICE, &m->leave));
    if (t->tied_head) m->leave.w.matrices[t->head] = head;
    head = (qb_matrix){0};
    QB_TRY(st, load_ropes(m, positions));
    if (resident) {
        QB_TRY(st, qb_alloc_zero((size_t)c->n_layers, sizeof *m->blocks, &m->blocks));
        m->resident = true;
        for (int64_t l = 0; l < c->n_layers; l++) QB_TRY(st, qb_block_load(m, l, &m->blocks[l]));
        QB_TRY(st, settle_weights(m));
        QB_TRY(st, describe_decoder(m));
        QB_TRY(st, dev->backend->sync(dev));
        m->load_seconds = (double)(qb_now_ns() - begun) / 1e9;
    }
out:
    if (st != QB_OK && !m->leave.w.n_modules && !m->head_is_embed) dev->backend->matrix_free(dev, &head);
    return st;
}

void qb_model_unload(qb_model *m) {
    if (!m->dev) return;
    qb_checkpoint_use_threads(m->checkpoint, NULL);
    const qb_backend *be = m->dev->backend;
    for (int64_t l = 0; m->blocks && l < m->config.n_layers; l++) qb_block_free(m, &m->blocks[l]);
    free_list(m, &m->enter);
    free_list(m, &m->leave);
    be->matrix_free(m->dev, &m->embed);
    if (m->embed_source.dense) qb_checkpoint_free_linear(m->checkpoint, m->topology.embed, &m->embed_source);
    for (int i = 0; i < QB_ROPES_MAX; i++) be->free(m->dev, m->rope_tables[i]);
    qb_free(m->embed_table);
    qb_free(m->blocks);
    qb_free(m->block_weights);
}
