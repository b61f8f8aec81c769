#include "model/decoder.h"

#include "base/memory.h"
#include "model/rope.h"

#include <math.h>
#include <string.h>

#define OPS(m) ((m)->dev->backend)

/* ---- activations and caches ---- */

/* Widths of the workspace arrays, one list for sizing and allocating. */
enum { WORKSPACE_ARRAYS = 8 };
static void workspace_widths(const qb_config *c, int64_t widths[WORKSPACE_ARRAYS]) {
    int64_t q = c->n_heads * c->head_dim, kv = c->n_kv_heads * c->head_dim;
    int64_t list[WORKSPACE_ARRAYS] = {c->hidden, q, kv, kv, q, c->hidden, c->family->gated ? c->ffn : 0,
                                      c->ffn};
    for (int i = 0; i < WORKSPACE_ARRAYS; i++) widths[i] = list[i];
}

int64_t qb_workspace_bytes(const qb_config *c, int64_t max_rows) {
    int64_t widths[WORKSPACE_ARRAYS], sum = 0;
    workspace_widths(c, widths);
    for (int i = 0; i < WORKSPACE_ARRAYS; i++) sum += widths[i];
    return sum * max_rows * (int64_t)sizeof(float);
}

qb_status qb_workspace_create(const qb_model *m, int64_t max_rows, qb_workspace *out) {
    *out = (qb_workspace){.max_rows = max_rows};
    int64_t widths[WORKSPACE_ARRAYS];
    workspace_widths(&m->config, widths);
    float **arrays[WORKSPACE_ARRAYS] = {&out->normed,  &out->q,   &out->k,    &out->v,
                                        &out->context, &out->out, &out->gate, &out->up};
    for (int i = 0; i < WORKSPACE_ARRAYS; i++) {
        int64_t bytes = widths[i] * max_rows * (int64_t)sizeof(float);
        qb_status st = bytes ? OPS(m)->alloc(m->dev, QB_MEMORY_ACTIVATIONS, bytes, arrays[i]) : QB_OK;
        if (st != QB_OK) {
            qb_workspace_free(m, out);
            return st;
        }
    }
    return QB_OK;
}

void qb_workspace_free(const qb_model *m, qb_workspace *ws) {
    float *arrays[WORKSPACE_ARRAYS] = {ws->normed,  ws->q,   ws->k,    ws->v,
                                       ws->context, ws->out, ws->gate, ws->up};
    for (int i = 0; i < WORKSPACE_ARRAYS; i++)
        if (arrays[i]) OPS(m)->free(m->dev, arrays[i]);
    *ws = (qb_workspace){0};
}

int64_t qb_kv_bytes(const qb_config *c, qb_dtype dtype, int64_t n_layers, int64_t n_seq, int64_t capacity) {
    return 2 * n_layers * n_seq * capacity * c->n_kv_heads * c->head_dim * (int64_t)qb_dtype_bytes(dtype);
}

qb_status qb_kv_create(const qb_model *m, qb_dtype dtype, int64_t n_layers, int64_t n_seq, int64_t capacity,
                       qb_kv *out) {
    const qb_config *c = &m->config;
    *out = (qb_kv){dtype, n_layers, n_seq, capacity, c->n_kv_heads, c->head_dim, NULL, NULL};
    int64_t half = qb_kv_bytes(c, dtype, n_layers, n_seq, capacity) / 2;
    qb_status st = OPS(m)->alloc(m->dev, QB_MEMORY_KV, half, &out->k);
    if (st == QB_OK) st = OPS(m)->alloc(m->dev, QB_MEMORY_KV, half, &out->v);
    if (st != QB_OK) qb_kv_free(m, out);
    return st;
}

void qb_kv_free(const qb_model *m, qb_kv *kv) {
    if (kv->k) OPS(m)->free(m->dev, kv->k);
    if (kv->v) OPS(m)->free(m->dev, kv->v);
    *kv = (qb_kv){0};
}

/* ---- one block ---- */

static int64_t rows_of(const qb_span *s) {
    return s->n_seq * s->n_tok;
}

/* y = linear(x) with its bias. */
static qb_status linear(qb_model *m, const qb_block *b, qb_linear which, float *y, const float *x,
                        int64_t rows) {
    qb_status st = OPS(m)->matmul(m->dev, y, x, rows, &b->w.linear[which]);
    if (st == QB_OK && b->w.bias[which])
        st = OPS(m)->add_bias(m->dev, y, b->w.bias[which], rows, b->w.linear[which].rows);
    return st;
}

qb_status qb_block_attention_in(qb_model *m, const qb_block *b, qb_workspace *ws, const float *x,
                                const qb_span *s, float **in) {
    const qb_config *c = &m->config;
    *in = ws->normed;
    return OPS(m)->norm(m->dev, c->family->norm, ws->normed, x, b->w.norm_attention, b->w.norm_attention_bias,
                        rows_of(s), c->hidden, c->norm_eps);
}

qb_status qb_block_attention(qb_model *m, const qb_block *b, qb_workspace *ws, const qb_span *s, float **in) {
    const qb_config *c = &m->config;
    int64_t rows = rows_of(s);
    *in = ws->context;
    qb_status st;
    QB_TRY(st, linear(m, b, QB_LINEAR_Q, ws->q, ws->normed, rows));
    QB_TRY(st, linear(m, b, QB_LINEAR_K, ws->k, ws->normed, rows));
    QB_TRY(st, linear(m, b, QB_LINEAR_V, ws->v, ws->normed, rows));
    if (c->family->position == QB_POSITION_ROPE) {
        int64_t rot = qb_rope_width(c), end = s->first + s->n_tok;
        if (end > m->rope_capacity)
            return qb_fail(QB_ERR_INTERNAL, "position %lld lies beyond the rotary table of %lld",
                           (long long)end, (long long)m->rope_capacity);
        QB_TRY(st, OPS(m)->rope(m->dev, c->family->rope, ws->q, m->rope_table, s->n_seq, s->n_tok, s->first,
                                c->n_heads, c->head_dim, rot));
        QB_TRY(st, OPS(m)->rope(m->dev, c->family->rope, ws->k, m->rope_table, s->n_seq, s->n_tok, s->first,
                                c->n_kv_heads, c->head_dim, rot));
    }
    QB_TRY(st, OPS(m)->kv_store(m->dev, s->kv, s->kv_layer, ws->k, ws->v, s->n_seq, s->n_tok, s->first));
    qb_attention a = {.q = ws->q,
                      .out = ws->context,
                      .n_seq = s->n_seq,
                      .n_tok = s->n_tok,
                      .first = s->first,
                      .n_heads = c->n_heads,
                      .kv = s->kv,
                      .layer = s->kv_layer,
                      .scale = 1.0f / sqrtf((float)c->head_dim)};
    QB_TRY(st, OPS(m)->attention(m->dev, &a));
out:
    return st;
}

qb_status qb_block_mlp_in(qb_model *m, const qb_block *b, qb_workspace *ws, const float *x, const qb_span *s,
                          float **in) {
    const qb_config *c = &m->config;
    *in = ws->normed;
    return OPS(m)->norm(m->dev, c->family->norm, ws->normed, x, b->w.norm_mlp, b->w.norm_mlp_bias, rows_of(s),
                        c->hidden, c->norm_eps);
}

qb_status qb_block_mlp_mid(qb_model *m, const qb_block *b, qb_workspace *ws, const qb_span *s, float **in) {
    const qb_config *c = &m->config;
    int64_t rows = rows_of(s), n = rows * c->ffn;
    *in = ws->up;
    qb_status st;
    QB_TRY(st, linear(m, b, QB_LINEAR_UP, ws->up, ws->normed, rows));
    if (c->family->gated) {
        QB_TRY(st, linear(m, b, QB_LINEAR_GATE, ws->gate, ws->normed, rows));
        *in = ws->gate;
        QB_TRY(st, OPS(m)->activate(m->dev, c->activation, ws->gate, ws->gate, ws->up, n));
    } else {
        QB_TRY(st, OPS(m)->activate(m->dev, c->activation, ws->up, ws->up, NULL, n));
    }
out:
    return st;
}

qb_status qb_block_add_linear(qb_model *m, const qb_block *b, qb_linear which, qb_workspace *ws,
                              const float *in, float *x, const qb_span *s) {
    int64_t rows = rows_of(s);
    qb_status st = linear(m, b, which, ws->out, in, rows);
    return st == QB_OK ? OPS(m)->add(m->dev, x, ws->out, rows * m->config.hidden) : st;
}

qb_status qb_block_forward(qb_model *m, const qb_block *b, qb_workspace *ws, float *x, const qb_span *s) {
    if (rows_of(s) > ws->max_rows)
        return qb_fail(QB_ERR_INTERNAL, "%lld rows do not fit a workspace of %lld", (long long)rows_of(s),
                       (long long)ws->max_rows);
    float *in;
    qb_status st;
    QB_TRY(st, qb_block_attention_in(m, b, ws, x, s, &in));
    QB_TRY(st, qb_block_attention(m, b, ws, s, &in));
    QB_TRY(st, qb_block_add_linear(m, b, QB_LINEAR_O, ws, in, x, s));
    QB_TRY(st, qb_block_mlp_in(m, b, ws, x, s, &in));
    QB_TRY(st, qb_block_mlp_mid(m, b, ws, s, &in));
    QB_TRY(st, qb_block_add_linear(m, b, QB_LINEAR_DOWN, ws, in, x, s));
out:
    return st;
}

/* ---- the ends ---- */

static qb_status check_ids(const qb_config *c, const int32_t *ids, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= c->vocab)
            return qb_fail(
                QB_ERR_FORMAT,
                "token id %d lies outside the model's vocabulary of %lld; tokenizer and model do not match",
                ids[i], (long long)c->vocab);
    return QB_OK;
}

qb_status qb_model_embed(qb_model *m, float *x, const int32_t *ids, const qb_span *s) {
    const qb_config *c = &m->config;
    int64_t rows = rows_of(s);
    qb_status st = check_ids(c, ids, rows);
    if (st == QB_OK) st = OPS(m)->embed(m->dev, x, &m->embed, ids, rows);
    for (int64_t q = 0; st == QB_OK && m->embed_position && q < s->n_seq; q++)
        st = OPS(m)->add(m->dev, x + q * s->n_tok * c->hidden,
                         m->embed_position + (s->first + c->family->position_offset) * c->hidden,
                         s->n_tok * c->hidden);
    return st;
}

qb_status qb_model_head(qb_model *m, float *logits, const float *x, float *normed, int64_t rows) {
    const qb_config *c = &m->config;
    qb_status st = OPS(m)->norm(m->dev, c->family->norm, normed, x, m->final_norm, m->final_norm_bias, rows,
                                c->hidden, c->norm_eps);
    return st == QB_OK ? OPS(m)->matmul(m->dev, logits, normed, rows, &m->head) : st;
}

qb_status qb_model_forward(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s) {
    if (!m->resident) return qb_fail(QB_ERR_INTERNAL, "the whole-model forward needs resident weights");
    qb_status st = qb_model_embed(m, x, ids, s);
    for (int64_t l = 0; st == QB_OK && l < m->config.n_layers; l++) {
        qb_span layer = *s;
        layer.kv_layer = l;
        st = qb_block_forward(m, &m->blocks[l], ws, x, &layer);
    }
    return st;
}

/* Whether the backend's own step did it. */
static qb_status fused_step(qb_model *m, const int32_t *ids, const qb_span *s, float *logits, bool *done) {
    *done = false;
    if (s->n_tok != 1 || !OPS(m)->decode || !m->resident) return QB_OK;
    qb_status st = check_ids(&m->config, ids, s->n_seq);
    if (st != QB_OK) return st;
    st = OPS(m)->decode(m->dev, &m->decoder, s->kv, ids, s->n_seq, s->first, logits);
    *done = st == QB_OK;
    if (st != QB_ERR_UNSUPPORTED) return st;
    qb_error_clear();
    return QB_OK;
}

qb_status qb_model_next(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s,
                        float *logits) {
    int64_t d = m->config.hidden;
    bool done;
    qb_status st;
    QB_TRY(st, fused_step(m, ids, s, logits, &done));
    if (done) return QB_OK;
    QB_TRY(st, qb_model_forward(m, ws, x, ids, s));
    for (int64_t q = 0; s->n_tok > 1 && q < s->n_seq; q++) /* each lands before the rows still to be read */
        QB_TRY(st,
               OPS(m)->copy(m->dev, x + q * d, x + ((q + 1) * s->n_tok - 1) * d, d * (int64_t)sizeof(float)));
    QB_TRY(st, qb_model_head(m, logits, x, x, s->n_seq));
out:
    return st;
}

qb_status qb_model_prefill(qb_model *m, qb_workspace *ws, float *x, const int32_t *ids, const qb_span *s,
                           float *logits) {
    int64_t chunk = ws->max_rows / s->n_seq < QB_PREFILL_TOKENS ? ws->max_rows / s->n_seq : QB_PREFILL_TOKENS;
    int32_t *piece = NULL;
    qb_status st;
    if (chunk < 1) return qb_fail(QB_ERR_INTERNAL, "no room for a token of each sequence");
    QB_TRY(st, qb_alloc((size_t)(s->n_seq * chunk), sizeof *piece, &piece));
    for (int64_t at = 0; at < s->n_tok; at += chunk) {
        qb_span span = {s->n_seq, s->n_tok - at < chunk ? s->n_tok - at : chunk, s->first + at, s->kv, 0};
        for (int64_t q = 0; q < s->n_seq; q++)
            memcpy(piece + q * span.n_tok, ids + q * s->n_tok + at, (size_t)span.n_tok * sizeof *piece);
        bool last = at + span.n_tok == s->n_tok;
        QB_TRY(st, last && logits ? qb_model_next(m, ws, x, piece, &span, logits)
                                  : qb_model_forward(m, ws, x, piece, &span));
    }
out:
    qb_free(piece);
    return st;
}
