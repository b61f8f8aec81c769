#include "model/model.h"

#include "base/file.h"
#include "base/memory.h"
#include "model/modules.h"
#include "model/rope.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- opening ---- */

static qb_status add_spec(qb_tensor_spec *specs, size_t *n, const char *pattern, int64_t layer,
                          const char *suffix, int64_t rows, int64_t cols) {
    char name[128];
    qb_config_layer_name(pattern, layer, suffix, name);
    qb_tensor_spec *s = &specs[(*n)++];
    if (strlen(name) >= sizeof s->name) return qb_fail(QB_ERR_INTERNAL, "tensor name %s is too long", name);
    memcpy(s->name, name, strlen(name) + 1);
    s->n_dims = cols ? 2 : 1;
    s->shape[0] = rows;
    s->shape[1] = cols;
    /* 1/sqrt(fan in) keeps activations of a random network near unit size in every block. */
    s->stddev = cols ? 1.0f / sqrtf((float)cols) : 1.0f;
    return QB_OK;
}

qb_status qb_model_tensor_specs(const qb_config *c, qb_tensor_spec *specs, size_t *n) {
    const qb_family *f = c->family;
    qb_status st;
    *n = 0;
    bool layer_norm = f->norm == QB_NORM_LAYER;
    QB_TRY(st, add_spec(specs, n, f->embed, 0, ".weight", c->vocab, c->hidden));
    if (f->embed_position)
        QB_TRY(st, add_spec(specs, n, f->embed_position, 0, ".weight", c->max_positions + f->position_offset,
                            c->hidden));
    for (int64_t layer = 0; layer < c->n_layers; layer++) {
        const char *norms[2] = {f->norm_attention, f->norm_mlp};
        for (int i = 0; i < 2; i++) {
            QB_TRY(st, add_spec(specs, n, norms[i], layer, ".weight", c->hidden, 0));
            if (layer_norm) QB_TRY(st, add_spec(specs, n, norms[i], layer, ".bias", c->hidden, 0));
        }
        for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++) {
            int64_t rows, cols;
            qb_config_linear_shape(c, l, &rows, &cols);
            if (!qb_config_has_linear(c, l)) continue;
            QB_TRY(st, add_spec(specs, n, f->linear[l], layer, ".weight", rows, cols));
            if (qb_config_linear_has_bias(c, l))
                QB_TRY(st, add_spec(specs, n, f->linear[l], layer, ".bias", rows, 0));
        }
    }
    QB_TRY(st, add_spec(specs, n, f->final_norm, 0, ".weight", c->hidden, 0));
    if (layer_norm) QB_TRY(st, add_spec(specs, n, f->final_norm, 0, ".bias", c->hidden, 0));
    if (!c->tied_head) QB_TRY(st, add_spec(specs, n, f->head, 0, ".weight", c->vocab, c->hidden));
out:
    return st;
}

static qb_status open_synthetic(const char *name, qb_model *m) {
    const qb_known_model *known = qb_known_model_find(name);
    qb_json *json = NULL;
    qb_tensor_spec *specs = NULL;
    size_t n = 0;
    qb_status st;
    if (known) {
        QB_TRY(st, qb_json_parse(known->config_json, strlen(known->config_json), known->name, &json));
    } else if (qb_path_is_dir(name)) {
        char *path = qb_path_join(name, "config.json");
        st = path ? qb_json_read(path, 1 << 20, &json) : qb_fail(QB_ERR_MEMORY, "out of memory");
        qb_free(path);
        if (st != QB_OK) goto out;
    } else {
        return qb_fail(QB_ERR_NOT_FOUND,
                       "synthetic:%s is neither a known shape (see `bench list models`) nor a directory with "
                       "a config.json",
                       name);
    }
    QB_TRY(st, qb_config_parse(json, name, &m->config));
    QB_TRY(st, qb_alloc_zero((size_t)m->config.n_layers * 18 + 8, sizeof *specs, &specs));
    QB_TRY(st, qb_model_tensor_specs(&m->config, specs, &n));
    QB_TRY(st, qb_checkpoint_synthetic(json, specs, n, 0, &m->checkpoint));
    snprintf(m->name, sizeof m->name, "%s-synthetic", known ? known->name : qb_path_base(name));
out:
    qb_free(specs);
    qb_json_free(json);
    return st;
}

/* A block that the config leaves out would be left out of every figure, and nothing would show it. */
static qb_status check_layers(const qb_model *m, const char *where) {
    const char *pattern = m->config.family->linear[QB_LINEAR_Q], *hole = strstr(pattern, "%d");
    size_t n = (size_t)(hole - pattern);
    for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
        const char *name = qb_checkpoint_at(m->checkpoint, i)->name;
        if (strncmp(name, pattern, n) != 0 || name[n] < '0' || name[n] > '9') continue;
        if (strtoll(name + n, NULL, 10) < m->config.n_layers) continue;
        return qb_fail(QB_ERR_FORMAT, "%s: num_hidden_layers is %lld, but the checkpoint holds %.200s", where,
                       (long long)m->config.n_layers, name);
    }
    return QB_OK;
}

/* "a/b/" and "." name a directory too: the result wants a real base name. */
static void set_name(qb_model *m, const char *dir) {
    char *real = realpath(dir, NULL);
    snprintf(m->path, sizeof m->path, "%s", real ? real : dir);
    snprintf(m->name, sizeof m->name, "%s", qb_path_base(m->path));
    free(real);
}

/* The path is where the files lie, which for a folder of the hub's cache is a snapshot. */
static qb_status adopt_names(qb_model *m) {
    const qb_family *f = m->config.family;
    char *real = realpath(qb_checkpoint_dir(m->checkpoint), NULL);
    if (real) snprintf(m->path, sizeof m->path, "%s", real);
    free(real);
    return qb_checkpoint_adopt_names(m->checkpoint, f->embed, f->norm_attention, f->head,
                                     m->config.tied_head);
}

qb_status qb_model_open(const char *spec, qb_model **out) {
    *out = NULL;
    qb_model *m;
    qb_status st = qb_alloc_zero(1, sizeof *m, &m);
    if (st != QB_OK) return st;
    if (!strncmp(spec, "synthetic:", 10)) {
        snprintf(m->path, sizeof m->path, "%s", spec);
        st = open_synthetic(spec + 10, m);
    } else {
        set_name(m, spec);
        if ((st = qb_checkpoint_open(spec, &m->checkpoint)) == QB_OK) {
            const char *where = qb_checkpoint_config_source(m->checkpoint);
            st = qb_config_parse(qb_checkpoint_config(m->checkpoint), where, &m->config);
            if (st == QB_OK) st = adopt_names(m);
            if (st == QB_OK) st = check_layers(m, where);
        }
    }
    if (st != QB_OK)
        qb_model_close(m);
    else
        *out = m;
    return st;
}

/* ---- loading ---- */

/* A 1-D tensor into device float32; optional ones may be absent. */
static qb_status load_vector(qb_model *m, const char *pattern, int64_t layer, const char *suffix, int64_t n,
                             bool needed, float **out) {
    char name[128];
    qb_config_layer_name(pattern, layer, suffix, name);
    *out = NULL;
    if (!needed) return qb_modules_check_no_bias(m, name, n);
    float *host;
    qb_status st = qb_checkpoint_read_f32(m->checkpoint, name, n, 0, &host);
    if (st != QB_OK) return st;
    const qb_backend *be = m->dev->backend;
    int64_t bytes = n * (int64_t)sizeof(float);
    st = qb_checkpoint_check_finite(m->checkpoint, qb_checkpoint_find(m->checkpoint, name));
    if (st == QB_OK) st = be->alloc(m->dev, QB_MEMORY_WEIGHTS, bytes, out);
    if (st == QB_OK) st = be->upload_new(m->dev, *out, host, bytes);
    qb_free(host);
    return st;
}

/* Loads a linear into `matrix`; a dense view stays in `source` for as long as the matrix lives. */
static qb_status load_matrix(qb_model *m, const char *module, int64_t rows, int64_t cols, qb_place place,
                             qb_matrix *matrix, qb_weight *source) {
    qb_status st = qb_checkpoint_linear(m->checkpoint, module, rows, cols, source);
    if (st != QB_OK) return st;
    st = m->dev->backend->matrix_create(m->dev, source, place, matrix);
    if (st != QB_OK || source->packed) {
        qb_checkpoint_free_linear(m->checkpoint, module, source);
        *source = (qb_weight){0};
    }
    return st == QB_OK ? st : qb_fail_prefix(st, "%s", module);
}

static void unload_matrix(qb_model *m, const char *module, qb_matrix *matrix, qb_weight *source) {
    m->dev->backend->matrix_free(m->dev, matrix);
    if (source->dense) qb_checkpoint_free_linear(m->checkpoint, module, source);
    *source = (qb_weight){0};
}

qb_status qb_block_load(qb_model *m, int64_t layer, qb_block *out) {
    const qb_config *c = &m->config;
    const qb_family *f = c->family;
    bool layer_norm = f->norm == QB_NORM_LAYER;
    qb_place place = m->resident && layer >= c->n_layers - m->host_blocks ? QB_PLACE_HOST : QB_PLACE_DEVICE;
    *out = (qb_block){.layer = layer};
    qb_status st;
    QB_TRY(st, load_vector(m, f->norm_attention, layer, ".weight", c->hidden, true, &out->w.norm_attention));
    QB_TRY(st, load_vector(m, f->norm_attention, layer, ".bias", c->hidden, layer_norm,
                           &out->w.norm_attention_bias));
    QB_TRY(st, load_vector(m, f->norm_mlp, layer, ".weight", c->hidden, true, &out->w.norm_mlp));
    QB_TRY(st, load_vector(m, f->norm_mlp, layer, ".bias", c->hidden, layer_norm, &out->w.norm_mlp_bias));
    for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++) {
        if (!qb_config_has_linear(c, l)) continue;
        int64_t rows, cols;
        char module[128];
        qb_config_linear_shape(c, l, &rows, &cols);
        qb_config_linear_name(c, layer, l, module);
        QB_TRY(st, load_matrix(m, module, rows, cols, place, &out->w.linear[l], &out->source[l]));
        QB_TRY(st, load_vector(m, f->linear[l], layer, ".bias", rows, qb_config_linear_has_bias(c, l),
                               &out->w.bias[l]));
    }
out:
    if (st != QB_OK) qb_block_free(m, out);
    return st;
}

void qb_block_free(qb_model *m, qb_block *b) {
    if (!b) return;
    const qb_backend *be = m->dev->backend;
    for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++) {
        if (!qb_config_has_linear(&m->config, l)) continue;
        char module[128];
        qb_config_linear_name(&m->config, b->layer, l, module);
        unload_matrix(m, module, &b->w.linear[l], &b->source[l]);
        be->free(m->dev, b->w.bias[l]);
    }
    be->free(m->dev, b->w.norm_attention);
    be->free(m->dev, b->w.norm_attention_bias);
    be->free(m->dev, b->w.norm_mlp);
    be->free(m->dev, b->w.norm_mlp_bias);
    *b = (qb_block){0};
}

/* Tokens look up single rows, which packed forms do not give: a quantized table is kept as float32, and a
   tied head packed beside it. */
static qb_status widen_embedding(qb_model *m, const qb_weight *w) {
    const qb_backend *be = m->dev->backend;
    qb_status st;
    QB_TRY(st, qb_alloc((size_t)w->rows * (size_t)w->cols, sizeof *m->embed_table, &m->embed_table));
    qb_qweight_dequantize(w->packed, m->embed_table);
    qb_weight table = {.rows = w->rows, .cols = w->cols, .dtype = QB_DTYPE_F32, .dense = m->embed_table};
    QB_TRY(st, be->matrix_create(m->dev, &table, QB_PLACE_DEVICE, &m->embed));
    if (m->config.tied_head) st = be->matrix_create(m->dev, w, QB_PLACE_DEVICE, &m->head);
out:
    return st;
}

static qb_status load_embedding(qb_model *m) {
    const qb_config *c = &m->config;
    const char *module = c->family->embed;
    qb_weight w;
    qb_status st = qb_checkpoint_linear(m->checkpoint, module, c->vocab, c->hidden, &w);
    if (st != QB_OK) return st;
    if (w.packed) {
        st = widen_embedding(m, &w);
        qb_checkpoint_free_linear(m->checkpoint, module, &w);
        return st == QB_OK ? st : qb_fail_prefix(st, "%s", module);
    }
    m->embed_source = w;
    st = m->dev->backend->matrix_create(m->dev, &w, QB_PLACE_DEVICE, &m->embed);
    m->head_is_embed = c->tied_head;
    if (c->tied_head) m->head = m->embed;
    return st == QB_OK ? st : qb_fail_prefix(st, "%s", module);
}

static qb_status load_rope(qb_model *m, int64_t positions) {
    const qb_config *c = &m->config;
    if (c->family->position != QB_POSITION_ROPE) return QB_OK;
    int64_t n = positions * qb_rope_width(c), bytes = n * (int64_t)sizeof(float);
    float *host = NULL;
    qb_status st;
    QB_TRY(st, qb_alloc((size_t)n, sizeof(float), &host));
    qb_rope_fill(c, positions, host);
    QB_TRY(st, m->dev->backend->alloc(m->dev, QB_MEMORY_WORKSPACE, bytes, &m->rope_table));
    QB_TRY(st, m->dev->backend->upload(m->dev, m->rope_table, host, bytes));
    m->rope_capacity = positions;
out:
    qb_free(host);
    return st;
}

static qb_status load_position_table(qb_model *m) {
    const qb_config *c = &m->config;
    if (!c->family->embed_position) return QB_OK;
    char name[128];
    qb_config_layer_name(c->family->embed_position, 0, ".weight", name);
    int64_t rows = c->max_positions + c->family->position_offset,
            bytes = rows * c->hidden * (int64_t)sizeof(float);
    float *host;
    qb_status st = qb_checkpoint_read_f32(m->checkpoint, name, rows, c->hidden, &host);
    if (st != QB_OK) return st;
    if ((st = m->dev->backend->alloc(m->dev, QB_MEMORY_WEIGHTS, bytes, &m->embed_position)) == QB_OK)
        st = m->dev->backend->upload(m->dev, m->embed_position, host, bytes);
    qb_free(host);
    return st;
}

/* A new id for every load: what a backend captured for an older one is not replayed. */
static uint64_t next_decoder_id(void) {
    static _Atomic uint64_t last;
    return ++last;
}

static qb_status describe_decoder(qb_model *m) {
    const qb_config *c = &m->config;
    const qb_family *f = c->family;
    qb_status st = qb_alloc((size_t)c->n_layers, sizeof *m->block_weights, &m->block_weights);
    if (st != QB_OK) return st;
    for (int64_t l = 0; l < c->n_layers; l++) m->block_weights[l] = &m->blocks[l].w;
    m->decoder = (qb_decoder){
        .id = next_decoder_id(),
        .n_layers = c->n_layers,
        .hidden = c->hidden,
        .ffn = c->ffn,
        .n_heads = c->n_heads,
        .n_kv_heads = c->n_kv_heads,
        .head_dim = c->head_dim,
        .vocab = c->vocab,
        .norm = f->norm,
        .norm_eps = c->norm_eps,
        .activation = c->activation,
        .gated = f->gated,
        .rope = f->rope,
        .rope_width = f->position == QB_POSITION_ROPE ? qb_rope_width(c) : 0,
        .rope_table = m->rope_table,
        .rope_capacity = m->rope_capacity,
        .embed_position = m->embed_position ? m->embed_position + f->position_offset * c->hidden : NULL,
        .final_norm = m->final_norm,
        .final_norm_bias = m->final_norm_bias,
        .embed = &m->embed,
        .head = &m->head,
        .blocks = m->block_weights,
    };
    return QB_OK;
}

qb_status qb_model_load(qb_model *m, qb_device *dev, int64_t positions, bool resident) {
    const qb_config *c = &m->config;
    const qb_family *f = c->family;
    m->dev = dev;
    qb_status st;
    QB_TRY(st, load_embedding(m));
    if (!c->tied_head)
        QB_TRY(st, load_matrix(m, f->head, c->vocab, c->hidden, QB_PLACE_DEVICE, &m->head, &m->head_source));
    QB_TRY(st, load_position_table(m));
    QB_TRY(st, load_vector(m, f->final_norm, 0, ".weight", c->hidden, true, &m->final_norm));
    QB_TRY(st, load_vector(m, f->final_norm, 0, ".bias", c->hidden, f->norm == QB_NORM_LAYER,
                           &m->final_norm_bias));
    QB_TRY(st, load_rope(m, positions));
    if (resident) {
        QB_TRY(st, qb_alloc_zero((size_t)c->n_layers, sizeof *m->blocks, &m->blocks));
        m->resident = true;
        for (int64_t l = 0; l < c->n_layers; l++) QB_TRY(st, qb_block_load(m, l, &m->blocks[l]));
        QB_TRY(st, describe_decoder(m));
    }
out:
    return st;
}

qb_status qb_model_explain(qb_model *m, qb_status st) {
    if (st != QB_ERR_NUMERIC) return st;
    char fault[512];
    qb_status found = QB_OK;
    snprintf(fault, sizeof fault, "%s", qb_error_text());
    for (size_t i = 0; found == QB_OK && i < qb_checkpoint_count(m->checkpoint); i++)
        found = qb_checkpoint_check_finite(m->checkpoint, qb_checkpoint_at(m->checkpoint, i));
    if (found == QB_ERR_NUMERIC) return qb_fail_prefix(st, "%s", fault);
    return qb_fail(st, "%s; every weight is finite, so an activation overflows", fault);
}

void qb_model_close(qb_model *m) {
    if (!m) return;
    if (m->dev) {
        const qb_backend *be = m->dev->backend;
        for (int64_t l = 0; m->blocks && l < m->config.n_layers; l++) {
            m->blocks[l].layer = l;
            qb_block_free(m, &m->blocks[l]);
        }
        if (!m->head_is_embed) unload_matrix(m, m->config.family->head, &m->head, &m->head_source);
        unload_matrix(m, m->config.family->embed, &m->embed, &m->embed_source);
        be->free(m->dev, m->embed_position);
        be->free(m->dev, m->final_norm);
        be->free(m->dev, m->final_norm_bias);
        be->free(m->dev, m->rope_table);
    }
    qb_free(m->embed_table);
    qb_free(m->blocks);
    qb_free(m->block_weights);
    qb_checkpoint_close(m->checkpoint);
    qb_free(m);
}
