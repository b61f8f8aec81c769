/* The pass over token windows: sums of what a model loses on the targets each window names, from a float32
   forward and a float64 log-softmax. One pass holds the residual stream of some windows and takes every block
   over all of them, so that each block is loaded once a pass; with resident weights a pass is one batch. Sums
   run in window order: the same bits for any thread count. */
#include "eval/score.h"

#include "base/log.h"
#include "base/memory.h"

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

static qb_status make_plan(const qb_model *m, const qb_windows *w, int64_t memory_bytes, bool layer_major,
                           qb_perplexity_plan *out) {
    const qb_config *c = &m->config;
    *out = (qb_perplexity_plan){0};
    if (w->count == 0 || w->max_length == 0) return QB_OK;
    int64_t available = memory_bytes > 0 ? 0 : available_bytes(m);
    if (available < 0) return QB_ERR_IO;
    int64_t budget = memory_bytes > 0 ? memory_bytes : available / 10 * 8;
    int64_t length = w->max_length, row_bytes = c->hidden * (int64_t)sizeof(float);
    int64_t rows = batch_rows(m, w, budget), batch = windows_in(rows, w);
    int64_t fixed = batch_bytes(&m->topology, rows, batch, length);
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
    return make_plan(m, w, memory_bytes, false, out);
}

typedef struct {
    qb_model *m;
    const qb_windows *w;
    qb_perplexity_plan plan;
    qb_workspace ws;
    qb_kv kv;
    float *x;      /* [windows_per_pass * max_length, D] */
    float *logits; /* [plan.head_rows, V] */
    double *nll;   /* [max_length] of one window */
    qb_scores *sums;
    qb_progress progress;
    double work_done;
} scorer;

/* Windows [from, to) that one call may take: equal lengths, at most a batch. */
static int64_t batch_end(const scorer *s, int64_t from, int64_t limit) {
    int64_t to = from + 1;
    while (to < limit && to - from < s->plan.windows_per_batch &&
           s->w->windows[to].length == s->w->windows[from].length)
        to++;
    return to;
}

static float *window_x(scorer *s, int64_t pass_begin, int64_t window) {
    return s->x + (window - pass_begin) * s->w->max_length * s->m->config.hidden;
}

/* Slots of x are max_length rows apart, so only windows of that length lie back to back and can share a call.
 */
static bool contiguous(const scorer *s, int64_t window) {
    return s->w->windows[window].length == s->w->max_length;
}

static qb_status embed_pass(scorer *s, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
        const qb_window *win = &s->w->windows[i];
        qb_span span = {1, win->length, 0, &s->kv, 0};
        qb_status st = qb_model_embed(s->m, &s->ws, window_x(s, begin, i), s->w->ids + win->offset, &span);
        if (st != QB_OK) return qb_fail_prefix(st, "window %lld", (long long)i);
    }
    return QB_OK;
}

static qb_status forward_pass(scorer *s, int64_t begin, int64_t end) {
    qb_status st = QB_OK;
    for (int64_t l = 0; st == QB_OK && l < s->m->config.n_layers; l++) {
        qb_block loaded = {0};
        qb_block *block = s->m->resident ? &s->m->blocks[l] : &loaded;
        if (!s->m->resident && (st = qb_block_load(s->m, l, &loaded)) != QB_OK) return st;
        if (!s->m->resident) qb_block_prefetch(s->m, l + 1);
        for (int64_t i = begin, next; st == QB_OK && i < end; i = next) {
            next = contiguous(s, i) ? batch_end(s, i, end) : i + 1;
            qb_span span = {next - i, s->w->windows[i].length, 0, &s->kv, 0};
            st = qb_block_forward(s->m, block, &s->ws, window_x(s, begin, i), &span);
            s->work_done += (double)(next - i);
            qb_progress_update(&s->progress, s->work_done);
        }
        if (!s->m->resident) qb_block_free(s->m, &loaded);
    }
    return st;
}

static qb_status score_window(scorer *s, int64_t begin, int64_t i) {
    const qb_window *win = &s->w->windows[i];
    const qb_config *c = &s->m->config;
    const float *x = window_x(s, begin, i);
    qb_window_sums *sums = &s->sums->windows[i];
    for (int32_t at = win->score_begin; at < win->score_end;) {
        int32_t left = win->score_end - at, most = (int32_t)s->plan.head_rows,
                rows = left < most ? left : most;
        qb_status st = qb_model_head(s->m, &s->ws, s->logits, x + (int64_t)(at - 1) * c->hidden, rows);
        if (st == QB_OK)
            st = s->m->dev->backend->nll(s->m->dev, s->logits, rows, c->vocab, s->w->ids + win->offset + at,
                                         s->nll);
        if (st != QB_OK)
            return qb_fail_prefix(st, "window %lld, tokens %d to %d", (long long)i, at, at + rows - 1);
        for (int32_t r = 0; r < rows; r++) {
            sums->nll += s->nll[r];
            s->sums->nll += s->nll[r];
            s->sums->nll_squares += s->nll[r] * s->nll[r];
        }
        sums->tokens += rows;
        at += rows;
    }
    return QB_OK;
}

static qb_status allocate(scorer *s) {
    const qb_config *c = &s->m->config;
    const qb_backend *be = s->m->dev->backend;
    int64_t length = s->w->max_length, f = (int64_t)sizeof(float);
    qb_status st;
    QB_TRY(st, qb_workspace_create(s->m, s->plan.windows_per_batch * length, &s->ws));
    QB_TRY(st, qb_kv_create(s->m, QB_DTYPE_F32, 1, s->plan.windows_per_batch, length, &s->kv));
    QB_TRY(st, be->alloc(s->m->dev, QB_MEMORY_ACTIVATIONS, s->plan.windows_per_pass * length * c->hidden * f,
                         &s->x));
    QB_TRY(st, be->alloc(s->m->dev, QB_MEMORY_ACTIVATIONS, s->plan.head_rows * c->vocab * f, &s->logits));
    QB_TRY(st, qb_alloc((size_t)s->plan.head_rows, sizeof *s->nll, &s->nll));
    QB_TRY(st, qb_alloc_zero((size_t)s->w->count, sizeof *s->sums->windows, &s->sums->windows));
out:
    return st;
}

qb_status qb_score(qb_model *m, qb_device *dev, const qb_windows *w, int64_t memory_bytes, qb_scores *out) {
    scorer s = {.m = m, .w = w, .sums = out};
    qb_status st;
    *out = (qb_scores){.count = w->count};
    if (w->count == 0 || qb_windows_scored(w) == 0)
        return qb_fail(QB_ERR_FORMAT, "%s has no window to score", w->dataset);
    if ((st = make_plan(m, w, memory_bytes, !m->resident, &s.plan)) != QB_OK) return st;
    if (m->resident) s.plan.layer_major = false, s.plan.windows_per_pass = s.plan.windows_per_batch;
    out->layer_major = s.plan.layer_major;
    QB_TRY(st, allocate(&s));
    qb_progress_begin(&s.progress, (double)(w->count * m->config.n_layers), "perplexity %s %s", w->dataset,
                      w->protocol);
    for (int64_t begin = 0; begin < w->count; begin += s.plan.windows_per_pass) {
        int64_t end = begin + s.plan.windows_per_pass < w->count ? begin + s.plan.windows_per_pass : w->count;
        QB_TRY(st, embed_pass(&s, begin, end));
        QB_TRY(st, forward_pass(&s, begin, end));
        for (int64_t i = begin; i < end; i++) QB_TRY(st, score_window(&s, begin, i));
    }
    qb_progress_end(&s.progress);
out:
    st = qb_model_explain(m, st);
    qb_workspace_free(m, &s.ws);
    qb_kv_free(m, &s.kv);
    dev->backend->free(dev, s.x);
    dev->backend->free(dev, s.logits);
    qb_free(s.nll);
    if (st != QB_OK) qb_scores_free(out);
    return st;
}

void qb_scores_free(qb_scores *s) {
    qb_free(s->windows);
    *s = (qb_scores){0};
}
