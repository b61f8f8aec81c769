#include "eval/pass.h"

#include "base/memory.h"
#include "base/threads.h"
#include "kernels/cpu/cpu.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    BATCH_ROWS =
        2048, /* enough rows to spread a panel's dequantization over many tokens (qb_backend.batch_rows) */
    BATCHES_A_HEAD = 16, /* a batch's share of rows whose logits are held at once */
    BUDGET_A_BATCH = 4,  /* the part of the memory that a batch larger than BATCH_ROWS may take */
};

/* A plan may be asked for before a device is open; then it is for the host. */
static int64_t available_bytes(const qb_model *m) {
    return m->dev ? m->dev->backend->available_bytes(m->dev) : qb_available_memory_bytes();
}

/* Float operations of one forward over `rows` rows in windows of `length`: linears, causal attention, head.
 */
static double forward_flops(const qb_topology *t, double rows, double length) {
    double attention = length * (double)t->context_flops; /* 2 operations, half of the keys visible */
    return rows * (2.0 * (double)qb_topology_active_params(t) + attention +
                   2.0 * (double)(t->vocab * t->embed_width));
}

/* What `rows` rows take in windows of `length` beside the weights and the residual stream. */
static int64_t batch_bytes(const qb_topology *t, int64_t rows, int64_t batch, int64_t length) {
    return qb_workspace_bytes(t, batch * length) + qb_kv_bytes(t, QB_DTYPE_F32, 1, batch, length) +
           rows / BATCHES_A_HEAD * t->vocab * (int64_t)sizeof(float);
}

/* What the host's products and attention lay out of them. */
static int64_t laid_bytes(const qb_model *m, int64_t rows, int64_t length) {
    const qb_topology *t = &m->topology;
    if (m->dev && m->dev->backend->separate_memory) return 0;
    const int threads = m->dev ? qb_threads_count(m->dev->threads) : qb_cores_available();
    return qb_cpu_forward_bytes(threads, qb_topology_widest(t), rows, length, t->key_dim, t->value_dim);
}

static int64_t windows_in(int64_t rows, const qb_windows *w) {
    int64_t batch = rows / w->max_length > 0 ? rows / w->max_length : 1;
    return batch < w->count ? batch : w->count;
}

/* Rows of a batch: what the device likes best, or less where its memory is small. */
static int64_t batch_rows(const qb_model *m, const qb_windows *w, int64_t budget) {
    int64_t rows = m->dev && m->dev->backend->batch_rows > 0 ? m->dev->backend->batch_rows : BATCH_ROWS;
    while (rows > BATCH_ROWS &&
           batch_bytes(&m->topology, rows, windows_in(rows, w), w->max_length) > budget / BUDGET_A_BATCH)
        rows /= 2;
    return rows;
}

qb_status qb_pass_budget(const qb_model *m, int64_t memory_bytes, int64_t *out) {
    *out = memory_bytes;
    if (memory_bytes > 0) return QB_OK;
    int64_t available = available_bytes(m);
    if (available < 0) return QB_ERR_IO;
    *out = available / 10 * 8;
    return QB_OK;
}

qb_status qb_pass_plan(const qb_model *m, const qb_windows *w, int64_t memory_bytes, bool layer_major,
                       qb_perplexity_plan *out) {
    const qb_config *c = &m->config;
    int64_t budget;
    *out = (qb_perplexity_plan){0};
    if (w->count == 0 || w->max_length == 0) return QB_OK;
    qb_status st = qb_pass_budget(m, memory_bytes, &budget);
    if (st != QB_OK) return st;
    int64_t length = w->max_length, row_bytes = c->hidden * (int64_t)sizeof(float);
    int64_t rows = batch_rows(m, w, budget), batch = windows_in(rows, w);
    int64_t fixed = batch_bytes(&m->topology, rows, batch, length) + laid_bytes(m, batch * length, length);
    int64_t weights = qb_model_weight_bytes(m);
    int64_t ends = weights - c->n_layers * qb_model_block_bytes(m);
    out->layer_major = layer_major || weights + fixed + batch * length * row_bytes > budget;
    int64_t held = batch;
    if (out->layer_major) {
        int64_t room = budget - fixed - ends - qb_model_block_bytes(m);
        held = room > 0 ? room / (length * row_bytes) / batch * batch : 0;
        if (held < batch) held = batch;
        if (held > w->count) held = w->count;
    }
    out->windows_per_batch = batch;
    out->head_rows = rows / BATCHES_A_HEAD;
    out->windows_per_pass = held;
    out->passes = (w->count + held - 1) / held;
    out->peak_bytes =
        fixed + held * length * row_bytes + (out->layer_major ? ends + qb_model_block_bytes(m) : weights);
    out->flops = forward_flops(&m->topology, (double)w->count * (double)length, (double)length);
    return QB_OK;
}

qb_status qb_perplexity_plan_make(const qb_model *m, const qb_windows *w, int64_t memory_bytes,
                                  qb_perplexity_plan *out) {
    return qb_pass_plan(m, w, memory_bytes, false, out);
}

/* Windows [from, to) that one call may take: equal lengths, at most a batch. */
static int64_t batch_end(const qb_pass *p, int64_t from, int64_t limit) {
    int64_t to = from + 1;
    while (to < limit && to - from < p->plan.windows_per_batch &&
           p->w->windows[to].length == p->w->windows[from].length)
        to++;
    return to;
}

static float *window_x(const qb_pass *p, int64_t window) {
    return p->x + (window - p->begin) * p->w->max_length * p->m->config.hidden;
}

/* Slots of x are max_length rows apart, so only windows of that length lie back to back and can share a call.
 */
static bool contiguous(const qb_pass *p, int64_t window) {
    return p->w->windows[window].length == p->w->max_length;
}

static qb_status embed_pass(qb_pass *p, int64_t end) {
    for (int64_t i = p->begin; i < end; i++) {
        const qb_window *win = &p->w->windows[i];
        qb_span span = {1, win->length, 0, &p->kv, 0};
        qb_status st = qb_model_embed(p->m, &p->ws, window_x(p, i), p->w->ids + win->offset, &span);
        if (st != QB_OK) return qb_fail_prefix(st, "window %lld", (long long)i);
    }
    return QB_OK;
}

static qb_status forward_pass(qb_pass *p, int64_t end, qb_progress *progress) {
    qb_status st = QB_OK;
    for (int64_t l = 0; st == QB_OK && l < p->m->config.n_layers; l++) {
        qb_block loaded = {0};
        qb_block *block = p->m->resident ? &p->m->blocks[l] : &loaded;
        if (!p->m->resident && (st = qb_block_load(p->m, l, &loaded)) != QB_OK) return st;
        if (!p->m->resident) qb_block_prefetch(p->m, l + 1);
        for (int64_t i = p->begin, next; st == QB_OK && i < end; i = next) {
            next = contiguous(p, i) ? batch_end(p, i, end) : i + 1;
            qb_span span = {next - i, p->w->windows[i].length, 0, &p->kv, 0};
            st = qb_block_forward(p->m, block, &p->ws, window_x(p, i), &span);
            p->blocks_done += (double)(next - i);
            qb_progress_update(progress, p->blocks_before + p->blocks_done);
        }
        if (!p->m->resident) qb_block_free(p->m, &loaded);
    }
    return st;
}

qb_status qb_pass_forward(qb_pass *p, int64_t begin, int64_t end, qb_progress *progress) {
    p->begin = begin;
    qb_status st = embed_pass(p, end);
    return st == QB_OK ? forward_pass(p, end, progress) : st;
}

int32_t qb_pass_rows(const qb_pass *p, int64_t window, int32_t at) {
    int32_t left = p->w->windows[window].score_end - at, most = (int32_t)p->plan.head_rows;
    return left < most ? left : most;
}

qb_status qb_pass_head(qb_pass *p, int64_t window, int32_t at, int32_t rows) {
    const float *x = window_x(p, window) + (int64_t)(at - 1) * p->m->config.hidden;
    return qb_model_head(p->m, &p->ws, p->logits, x, rows);
}

void qb_windows_describe(const qb_windows *w, bool layer_major, qb_measure *out) {
    snprintf(out->protocol, sizeof out->protocol, "%s", w->protocol);
    snprintf(out->dataset, sizeof out->dataset, "%s", w->dataset);
    qb_json_put_int(out->extra, "windows", w->count);
    qb_json_put_int(out->extra, "window_tokens", w->max_length);
    qb_json_put_int(out->extra, "scored_tokens", out->n);
    /* What follows the last window asked for was not tokenized, so nobody knows its tokens. */
    if (w->part > 0 && w->part < 1) {
        qb_json_put_null(out->extra, "total_tokens");
        qb_json_put_real(out->extra, "text_part", w->part);
    } else {
        qb_json_put_int(out->extra, "total_tokens", w->total_tokens);
    }
    if (w->special_tokens[0]) {
        qb_json_put_text(out->extra, "special_tokens", w->special_tokens);
        qb_json_put_int(out->extra, "special_tokens_found", w->special_found);
        qb_json_put_bool(out->extra, "bos", w->bos);
    }
    qb_json_put_text(out->extra, "data_sha256", w->sha256);
    qb_json_put_bool(out->extra, "layer_major", layer_major);
}

static qb_status allocate(qb_pass *p) {
    const qb_config *c = &p->m->config;
    const qb_backend *be = p->m->dev->backend;
    int64_t length = p->w->max_length, f = (int64_t)sizeof(float);
    qb_status st;
    QB_TRY(st, qb_workspace_create(p->m, p->plan.windows_per_batch * length, &p->ws));
    QB_TRY(st, qb_kv_create(p->m, QB_DTYPE_F32, 1, p->plan.windows_per_batch, length, &p->kv));
    QB_TRY(st, be->alloc(p->m->dev, QB_MEMORY_ACTIVATIONS, p->plan.windows_per_pass * length * c->hidden * f,
                         &p->x));
    QB_TRY(st, be->alloc(p->m->dev, QB_MEMORY_ACTIVATIONS, p->plan.head_rows * c->vocab * f, &p->logits));
out:
    return st;
}

qb_status qb_pass_open(qb_model *m, const qb_windows *w, int64_t memory_bytes, qb_pass *out) {
    *out = (qb_pass){.m = m, .w = w};
    if (w->count == 0 || qb_windows_scored(w) == 0)
        return qb_fail(QB_ERR_FORMAT, "%s has no window to score", w->dataset);
    qb_status st = qb_pass_plan(m, w, memory_bytes, !m->resident, &out->plan);
    if (st != QB_OK) return st;
    if (m->resident) out->plan.layer_major = false, out->plan.windows_per_pass = out->plan.windows_per_batch;
    return allocate(out);
}

void qb_pass_close(qb_pass *p) {
    if (!p->m) return;
    qb_workspace_free(p->m, &p->ws);
    qb_kv_free(p->m, &p->kv);
    p->m->dev->backend->free(p->m->dev, p->x);
    p->m->dev->backend->free(p->m->dev, p->logits);
    *p = (qb_pass){0};
}
