#include "quant/calibration.h"

#include "base/file.h"
#include "base/memory.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Enough rows for full-speed matrix products, few enough for the workspace of wide models. */
enum { BATCH_TOKENS = 2048 };

int64_t qb_usable_memory_bytes(void) {
    int64_t physical = (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE);
    char *text = NULL;
    size_t n;
    if (qb_file_read("/sys/fs/cgroup/memory.max", 64, &text, &n) == QB_OK) {
        long long limit = atoll(text); /* "max" reads as 0 */
        if (limit > 0 && limit < physical) physical = limit;
    }
    qb_free(text);
    qb_error_clear();
    return physical;
}

static int64_t context_width(const qb_config *c) {
    return c->n_heads * c->head_dim;
}

void qb_calibration_size(const qb_config *c, int64_t tokens, int64_t samples, int64_t seqlen,
                         bool true_sequential, int64_t other_bytes, qb_calibration_memory *out) {
    int64_t item = (int64_t)sizeof(float);
    *out = (qb_calibration_memory){.tokens = tokens};
    out->batch_sequences = BATCH_TOKENS / seqlen < 1 ? 1 : BATCH_TOKENS / seqlen;
    if (out->batch_sequences > samples) out->batch_sequences = samples;
    out->batch_rows = out->batch_sequences * seqlen;
    out->workspace_bytes = qb_workspace_bytes(c, out->batch_rows);
    out->kv_bytes = qb_kv_bytes(c, QB_DTYPE_F32, 1, out->batch_sequences, seqlen);
    out->stream_bytes = (tokens + (true_sequential ? 0 : out->batch_rows)) * c->hidden * item;
    if (!true_sequential) return; /* its second pass is a plain forward */
    int64_t room = qb_usable_memory_bytes() / 5 * 3 - other_bytes - out->stream_bytes - out->workspace_bytes -
                   out->kv_bytes;
    int64_t context = tokens * context_width(c) * item, mid = tokens * c->ffn * item;
    if (mid <= room) { /* saves more than the context does */
        out->mid_bytes = mid;
        room -= mid;
    }
    if (context <= room) out->context_bytes = context;
}

/* Windows of one length that follow each other share a batch. */
static qb_status make_batches(const qb_windows *w, int64_t batch_rows, qb_calibration *c) {
    qb_calibration_batch *batches = NULL;
    qb_status st = qb_alloc_zero((size_t)w->count, sizeof *batches, &batches);
    if (!batches) return st;
    size_t n = 0;
    int64_t row = 0;
    for (int64_t i = 0; i < w->count; i++) {
        int64_t length = w->windows[i].length;
        qb_calibration_batch *last = n ? &batches[n - 1] : NULL;
        if (last && last->n_tok == length && (last->n_seq + 1) * length <= batch_rows)
            last->n_seq++;
        else
            batches[n++] = (qb_calibration_batch){row, 1, length};
        row += length;
    }
    c->batches = batches;
    c->n_batches = n;
    return QB_OK;
}

static qb_span span_of(const qb_calibration *c, const qb_calibration_batch *b) {
    return (qb_span){.n_seq = b->n_seq, .n_tok = b->n_tok, .first = 0, .kv = &c->kv, .kv_layer = 0};
}

static float *stream_at(const qb_calibration *c, const qb_calibration_batch *b) {
    return c->x + b->row0 * c->m->config.hidden;
}

static qb_status embed_windows(qb_calibration *c, const qb_windows *w) {
    int32_t *ids = NULL;
    qb_status st;
    QB_TRY(st, qb_alloc((size_t)c->memory.tokens, sizeof *ids, &ids));
    int64_t row = 0;
    for (int64_t i = 0; i < w->count; i++) {
        memcpy(ids + row, w->ids + w->windows[i].offset, (size_t)w->windows[i].length * sizeof *ids);
        row += w->windows[i].length;
    }
    for (size_t i = 0; i < c->n_batches; i++) {
        qb_span s = span_of(c, &c->batches[i]);
        QB_TRY(st, qb_model_embed(c->m, stream_at(c, &c->batches[i]), ids + c->batches[i].row0, &s));
    }
out:
    qb_free(ids);
    return st;
}

static qb_status check_windows(const qb_windows *w, int64_t *tokens) {
    *tokens = 0;
    if (!w || w->count < 1) return qb_fail(QB_ERR_USAGE, "calibration needs at least one window of tokens");
    for (int64_t i = 0; i < w->count; i++) {
        const qb_window *v = &w->windows[i];
        if (v->length < 1 || v->length > w->max_length || v->offset < 0 || v->offset > w->n_ids - v->length)
            return qb_fail(QB_ERR_INTERNAL, "calibration window %lld lies outside its %lld tokens",
                           (long long)i, (long long)w->n_ids);
        *tokens += v->length;
    }
    return QB_OK;
}

/* What is kept between passes must leave a device with memory of its own room for the Hessians and blocks. */
static void keep_what_fits(qb_device *dev, qb_calibration_memory *memory) {
    if (!dev->backend->separate_memory) return;
    int64_t room = dev->backend->available_bytes(dev) / 2 - memory->stream_bytes - memory->workspace_bytes -
                   memory->kv_bytes;
    if (memory->mid_bytes > room) memory->mid_bytes = 0;
    room -= memory->mid_bytes;
    if (memory->context_bytes > room) memory->context_bytes = 0;
}

qb_status qb_calibration_create(qb_model *m, const qb_windows *windows, bool true_sequential,
                                int64_t other_bytes, qb_calibration *c) {
    *c = (qb_calibration){.m = m};
    const qb_backend *be = m->dev->backend;
    int64_t tokens;
    qb_status st;
    QB_TRY(st, check_windows(windows, &tokens));
    qb_calibration_size(&m->config, tokens, windows->count, windows->max_length, true_sequential, other_bytes,
                        &c->memory);
    keep_what_fits(m->dev, &c->memory);
    const qb_calibration_memory *memory = &c->memory;
    int64_t row_bytes = m->config.hidden * (int64_t)sizeof(float);
    QB_TRY(st, make_batches(windows, memory->batch_rows, c));
    QB_TRY(st, be->alloc(m->dev, QB_MEMORY_ACTIVATIONS, tokens * row_bytes, &c->x));
    if (!true_sequential)
        QB_TRY(st, be->alloc(m->dev, QB_MEMORY_ACTIVATIONS, memory->batch_rows * row_bytes, &c->copy));
    if (memory->context_bytes)
        QB_TRY(st, be->alloc(m->dev, QB_MEMORY_ACTIVATIONS, memory->context_bytes, &c->context));
    if (memory->mid_bytes) QB_TRY(st, be->alloc(m->dev, QB_MEMORY_ACTIVATIONS, memory->mid_bytes, &c->mid));
    QB_TRY(st, qb_workspace_create(m, memory->batch_rows, &c->ws));
    QB_TRY(st, qb_kv_create(m, QB_DTYPE_F32, 1, memory->batch_sequences, windows->max_length, &c->kv));
    QB_TRY(st, embed_windows(c, windows));
out:
    if (st != QB_OK) qb_calibration_free(c);
    return st;
}

void qb_calibration_free(qb_calibration *c) {
    if (!c->m) return;
    const qb_backend *be = c->m->dev->backend;
    be->free(c->m->dev, c->x);
    be->free(c->m->dev, c->copy);
    be->free(c->m->dev, c->context);
    be->free(c->m->dev, c->mid);
    qb_workspace_free(c->m, &c->ws);
    qb_kv_free(c->m, &c->kv);
    qb_free(c->batches);
    *c = (qb_calibration){0};
}

/* Copies a batch's rows of `width` into what is kept of all tokens, and points at them. */
static qb_status keep(qb_calibration *c, const qb_calibration_batch *b, float *kept, int64_t width,
                      float **in) {
    if (!kept) return QB_OK;
    float *to = kept + b->row0 * width;
    qb_status st =
        c->m->dev->backend->copy(c->m->dev, to, *in, b->n_seq * b->n_tok * width * (int64_t)sizeof(float));
    *in = to;
    return st;
}

/* The attention's output for a batch: what was kept, or computed again from the stream. */
static qb_status attention_output(qb_calibration *c, const qb_block *b, const qb_calibration_batch *batch,
                                  const qb_span *s, float **in) {
    *in = c->context ? c->context + batch->row0 * context_width(&c->m->config) : NULL;
    if (*in) return QB_OK;
    qb_status st = qb_block_attention_in(c->m, b, &c->ws, stream_at(c, batch), s, in);
    return st == QB_OK ? qb_block_attention(c->m, b, &c->ws, s, in) : st;
}

static qb_status mlp_middle(qb_calibration *c, const qb_block *b, const float *x, const qb_span *s,
                            float **in) {
    qb_status st = qb_block_mlp_in(c->m, b, &c->ws, x, s, in);
    return st == QB_OK ? qb_block_mlp_mid(c->m, b, &c->ws, s, in) : st;
}

/* Brings a batch to the input in question and points at it. */
static qb_status reach_input(qb_calibration *c, const qb_block *b, const qb_calibration_batch *batch,
                             const qb_span *s, qb_linear_input input, float **in) {
    float *x = stream_at(c, batch);
    qb_status st = QB_OK;
    *in = NULL;
    switch (input) {
    case QB_INPUT_ATTENTION:
        return qb_block_attention_in(c->m, b, &c->ws, x, s, in);
    case QB_INPUT_OUTPUT:
        QB_TRY(st, qb_block_attention_in(c->m, b, &c->ws, x, s, in));
        QB_TRY(st, qb_block_attention(c->m, b, &c->ws, s, in));
        return keep(c, batch, c->context, context_width(&c->m->config), in);
    case QB_INPUT_MLP:
        QB_TRY(st, attention_output(c, b, batch, s, in));
        QB_TRY(st, qb_block_add_linear(c->m, b, QB_LINEAR_O, &c->ws, *in, x, s));
        return qb_block_mlp_in(c->m, b, &c->ws, x, s, in);
    case QB_INPUT_DOWN:
        QB_TRY(st, mlp_middle(c, b, x, s, in));
        return keep(c, batch, c->mid, c->m->config.ffn, in);
    case QB_INPUT_COUNT:
        break;
    }
    return qb_fail(QB_ERR_INTERNAL, "no such linear input: %d", (int)input);
out:
    return st;
}

qb_status qb_calibration_observe(qb_calibration *c, const qb_block *b, qb_linear_input input,
                                 qb_hessian_sum *sum) {
    qb_status st = QB_OK;
    for (size_t i = 0; i < c->n_batches; i++) {
        const qb_calibration_batch *batch = &c->batches[i];
        qb_span s = span_of(c, batch);
        float *in = NULL;
        QB_TRY(st, reach_input(c, b, batch, &s, input, &in));
        QB_TRY(st, qb_hessian_sum_add(c->m->dev, sum, in, s.n_seq * s.n_tok, s.n_seq));
    }
out:
    return st;
}

qb_status qb_calibration_finish_block(qb_calibration *c, const qb_block *b) {
    qb_status st = QB_OK;
    for (size_t i = 0; i < c->n_batches; i++) {
        const qb_calibration_batch *batch = &c->batches[i];
        qb_span s = span_of(c, batch);
        float *x = stream_at(c, batch), *in = c->mid ? c->mid + batch->row0 * c->m->config.ffn : NULL;
        if (!in) QB_TRY(st, mlp_middle(c, b, x, &s, &in));
        QB_TRY(st, qb_block_add_linear(c->m, b, QB_LINEAR_DOWN, &c->ws, in, x, &s));
    }
out:
    return st;
}

qb_status qb_calibration_observe_all(qb_calibration *c, const qb_block *b,
                                     qb_hessian_sum sums[QB_INPUT_COUNT]) {
    qb_device *dev = c->m->dev;
    qb_status st = QB_OK;
    for (size_t i = 0; i < c->n_batches; i++) {
        const qb_calibration_batch *batch = &c->batches[i];
        qb_span s = span_of(c, batch);
        int64_t rows = s.n_seq * s.n_tok;
        float *in, *x = c->copy;
        QB_TRY(st, dev->backend->copy(dev, x, stream_at(c, batch),
                                      rows * c->m->config.hidden * (int64_t)sizeof(float)));
        QB_TRY(st, qb_block_attention_in(c->m, b, &c->ws, x, &s, &in));
        QB_TRY(st, qb_hessian_sum_add(dev, &sums[QB_INPUT_ATTENTION], in, rows, s.n_seq));
        QB_TRY(st, qb_block_attention(c->m, b, &c->ws, &s, &in));
        QB_TRY(st, qb_hessian_sum_add(dev, &sums[QB_INPUT_OUTPUT], in, rows, s.n_seq));
        QB_TRY(st, qb_block_add_linear(c->m, b, QB_LINEAR_O, &c->ws, in, x, &s));
        QB_TRY(st, qb_block_mlp_in(c->m, b, &c->ws, x, &s, &in));
        QB_TRY(st, qb_hessian_sum_add(dev, &sums[QB_INPUT_MLP], in, rows, s.n_seq));
        QB_TRY(st, qb_block_mlp_mid(c->m, b, &c->ws, &s, &in));
        QB_TRY(st, qb_hessian_sum_add(dev, &sums[QB_INPUT_DOWN], in, rows, s.n_seq));
    }
out:
    return st;
}

qb_status qb_calibration_forward(qb_calibration *c, const qb_block *b) {
    qb_status st = QB_OK;
    for (size_t i = 0; i < c->n_batches; i++) {
        qb_span s = span_of(c, &c->batches[i]);
        QB_TRY(st, qb_block_forward(c->m, b, &c->ws, stream_at(c, &c->batches[i]), &s));
    }
out:
    return st;
}
