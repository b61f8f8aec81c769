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

/* What all layers' walks may keep at most, and what they do keep within a limit, floats a token. */
static qb_status kept_floats(const qb_topology *t, int64_t limit, int64_t *floats) {
    qb_status st = QB_OK;
    *floats = 0;
    for (int64_t l = 0; st == QB_OK && l < t->n_layers; l++) {
        qb_walk w;
        if ((st = qb_walk_make(t, &t->layers[l], &w)) != QB_OK) break;
        qb_walk_store(&w, limit);
        int64_t n = w.buffer_floats[0] + w.buffer_floats[1];
        if (n > *floats) *floats = n;
        qb_walk_free(&w);
    }
    return st;
}

qb_status qb_calibration_size(const qb_topology *t, int64_t tokens, int64_t samples, int64_t seqlen,
                              bool true_sequential, int64_t other_bytes, qb_calibration_memory *out) {
    int64_t item = (int64_t)sizeof(float);
    *out = (qb_calibration_memory){.tokens = tokens};
    out->batch_sequences = BATCH_TOKENS / seqlen < 1 ? 1 : BATCH_TOKENS / seqlen;
    if (out->batch_sequences > samples) out->batch_sequences = samples;
    out->batch_rows = out->batch_sequences * seqlen;
    out->workspace_bytes = qb_workspace_bytes(t, out->batch_rows);
    out->kv_bytes = qb_kv_bytes(t, QB_DTYPE_F32, 1, out->batch_sequences, seqlen);
    out->stream_bytes = (tokens + out->batch_rows) * t->hidden * item;
    if (!true_sequential) return QB_OK; /* its second pass is a plain forward */
    int64_t room = qb_usable_memory_bytes() / 5 * 3 - other_bytes - out->stream_bytes - out->workspace_bytes -
                   out->kv_bytes;
    out->kept_floats = room > 0 && tokens > 0 ? room / (tokens * item) : 0;
    qb_status st = kept_floats(t, out->kept_floats, &out->kept_floats);
    out->kept_bytes = out->kept_floats * tokens * item;
    return st;
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
            batches[n++] = (qb_calibration_batch){.row0 = row, .n_seq = 1, .n_tok = length};
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
        QB_TRY(st, qb_model_embed(c->m, &c->ws, stream_at(c, &c->batches[i]), ids + c->batches[i].row0, &s));
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
static qb_status keep_what_fits(const qb_topology *t, qb_device *dev, qb_calibration_memory *memory) {
    if (!dev->backend->separate_memory) return QB_OK;
    int64_t item = (int64_t)sizeof(float);
    int64_t available = dev->backend->available_bytes(dev);
    if (available < 0) return QB_ERR_IO;
    int64_t room = available / 2 - memory->stream_bytes - memory->workspace_bytes - memory->kv_bytes;
    int64_t limit = room > 0 && memory->tokens > 0 ? room / (memory->tokens * item) : 0;
    if (limit > memory->kept_floats) limit = memory->kept_floats;
    qb_status st = kept_floats(t, limit, &memory->kept_floats);
    memory->kept_bytes = memory->kept_floats * memory->tokens * item;
    return st;
}

/* The two buffers' sizes over all layers, floats a token. */
static qb_status buffer_floats(const qb_topology *t, int64_t limit, int64_t floats[2]) {
    qb_status st = QB_OK;
    floats[0] = floats[1] = 0;
    for (int64_t l = 0; st == QB_OK && l < t->n_layers; l++) {
        qb_walk w;
        if ((st = qb_walk_make(t, &t->layers[l], &w)) != QB_OK) break;
        qb_walk_store(&w, limit);
        for (int i = 0; i < 2; i++)
            if (w.buffer_floats[i] > floats[i]) floats[i] = w.buffer_floats[i];
        qb_walk_free(&w);
    }
    return st;
}

/* A device of its own takes as many tokens at once as its backend wishes, for each batch reads and writes
   whole Hessians and makes panels of whole weights, where the activations take no more than an eighth of what
   is free. */
static qb_status widen_batches(const qb_topology *t, qb_device *dev, const qb_windows *w,
                               qb_calibration_memory *memory) {
    if (!dev->backend->separate_memory) return QB_OK;
    int64_t available = dev->backend->available_bytes(dev);
    if (available < 0) return QB_ERR_IO;
    int64_t sequences = dev->backend->batch_rows / w->max_length;
    if (sequences > w->count) sequences = w->count;
    for (; sequences > memory->batch_sequences; sequences /= 2) {
        int64_t rows = sequences * w->max_length, workspace = qb_workspace_bytes(t, rows),
                kv = qb_kv_bytes(t, QB_DTYPE_F32, 1, sequences, w->max_length);
        if (workspace + kv > available / 8) continue;
        memory->stream_bytes += (rows - memory->batch_rows) * t->hidden * (int64_t)sizeof(float);
        memory->batch_sequences = sequences;
        memory->batch_rows = rows;
        memory->workspace_bytes = workspace;
        memory->kv_bytes = kv;
        break;
    }
    return QB_OK;
}

qb_status qb_calibration_create(qb_model *m, const qb_windows *windows, bool true_sequential,
                                int64_t other_bytes, qb_calibration *c) {
    *c = (qb_calibration){.m = m, .state = -1};
    const qb_backend *be = m->dev->backend;
    int64_t tokens, floats[2] = {0};
    qb_status st;
    QB_TRY(st, check_windows(windows, &tokens));
    QB_TRY(st, qb_calibration_size(&m->topology, tokens, windows->count, windows->max_length, true_sequential,
                                   other_bytes, &c->memory));
    QB_TRY(st, widen_batches(&m->topology, m->dev, windows, &c->memory));
    QB_TRY(st, keep_what_fits(&m->topology, m->dev, &c->memory));
    const qb_calibration_memory *memory = &c->memory;
    int64_t row_bytes = m->config.hidden * (int64_t)sizeof(float);
    QB_TRY(st, make_batches(windows, memory->batch_rows, c));
    QB_TRY(st, be->alloc(m->dev, QB_MEMORY_ACTIVATIONS, tokens * row_bytes, &c->x));
    QB_TRY(st, be->alloc(m->dev, QB_MEMORY_ACTIVATIONS, memory->batch_rows * row_bytes, &c->copy));
    if (true_sequential) QB_TRY(st, buffer_floats(&m->topology, memory->kept_floats, floats));
    for (int i = 0; i < 2; i++)
        if (floats[i])
            QB_TRY(st, be->alloc(m->dev, QB_MEMORY_ACTIVATIONS, tokens * floats[i] * (int64_t)sizeof(float),
                                 &c->kept[i]));
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
    for (int i = 0; i < 2; i++) be->free(c->m->dev, c->kept[i]);
    qb_workspace_free(c->m, &c->ws);
    qb_kv_free(c->m, &c->kv);
    for (size_t i = 0; i < c->n_batches; i++) qb_routing_free(&c->batches[i].routing);
    qb_free(c->batches);
    *c = (qb_calibration){0};
}

/* ---- a batch's state between passes ---- */

static int64_t rows_of(const qb_calibration_batch *b) {
    return b->n_seq * b->n_tok;
}

/* Moves a batch's kept slots between the workspace and the stage's buffer, one slot behind the other. */
static qb_status move_kept(qb_calibration *c, const qb_calibration_batch *b, const qb_stage *s, bool store) {
    const qb_topology *t = &c->m->topology;
    const qb_backend *be = c->m->dev->backend;
    if (!s->kept_floats) return QB_OK;
    float *at = c->kept[s->buffer] + b->row0 * s->kept_floats;
    qb_status st = QB_OK;
    for (int i = 0; st == QB_OK && i < t->n_slots; i++) {
        if (!(s->kept >> i & 1)) continue;
        int64_t n = rows_of(b) * t->slots[i].width * (t->slots[i].routed ? t->top_k : 1);
        float *slot = c->ws.slots[i];
        st = be->copy(c->m->dev, store ? at : slot, store ? slot : at, n * (int64_t)sizeof(float));
        at += n;
    }
    return st;
}

static qb_status copy_routing(const qb_routing *from, qb_routing *to) {
    int64_t tokens = from->rows / from->top_k;
    memcpy(to->first, from->first, (size_t)(from->experts + 1) * sizeof *to->first);
    memcpy(to->token, from->token, (size_t)from->rows * sizeof *to->token);
    memcpy(to->weight, from->weight, (size_t)from->rows * sizeof *to->weight);
    memcpy(to->row, from->row, (size_t)(tokens * from->top_k) * sizeof *to->row);
    to->rows = from->rows;
    to->top_k = from->top_k;
    to->experts = from->experts;
    return QB_OK;
}

/* The batch as it stands in the block, in the workspace and c->copy. */
static qb_status load_state(qb_calibration *c, const qb_calibration_batch *b, const qb_walk *w) {
    qb_device *dev = c->m->dev;
    qb_status st = dev->backend->copy(dev, c->copy, stream_at(c, b),
                                      rows_of(b) * c->m->config.hidden * (int64_t)sizeof(float));
    if (st != QB_OK || c->state < 0) return st;
    const qb_stage *s = &w->stages[c->state];
    if (s->routing) st = copy_routing(&b->routing, &c->ws.routing);
    return st == QB_OK ? move_kept(c, b, s, false) : st;
}

static qb_status store_state(qb_calibration *c, qb_calibration_batch *b, const qb_stage *s) {
    const qb_topology *t = &c->m->topology;
    qb_device *dev = c->m->dev;
    qb_status st = QB_OK;
    if (s->routing && !b->routing.capacity)
        st = qb_routing_create(rows_of(b), t->top_k, t->experts, &b->routing);
    if (st == QB_OK && s->routing) st = copy_routing(&c->ws.routing, &b->routing);
    if (st == QB_OK) st = move_kept(c, b, s, true);
    return st == QB_OK ? dev->backend->copy(dev, stream_at(c, b), c->copy,
                                            rows_of(b) * c->m->config.hidden * (int64_t)sizeof(float))
                       : st;
}

/* ---- passes ---- */

/* Adds a batch's rows of one site; of an expert only those that were routed to it. */
static qb_status add_site(qb_calibration *c, const qb_calibration_batch *b, const qb_site *site,
                          qb_hessian_sum *sum) {
    const float *in = site->slot == QB_SLOT_X ? c->copy : c->ws.slots[site->slot];
    int64_t rows = rows_of(b);
    if (site->expert >= 0) {
        const int64_t *first = c->ws.routing.first + site->expert;
        in += first[0] * site->cols;
        rows = first[1] - first[0];
        if (rows == 0) { /* the mean is over all sequences, however they lie in batches */
            sum->n_samples += b->n_seq;
            return QB_OK;
        }
    }
    return qb_hessian_sum_add(c->m->dev, sum, in, rows, b->n_seq);
}

qb_status qb_calibration_observe(qb_calibration *c, const qb_block *b, const qb_walk *w, int64_t stage,
                                 int64_t first, int64_t n, qb_hessian_sum *sums) {
    const qb_stage *s = &w->stages[stage];
    bool moves = s->stored && c->state < stage;
    qb_status st = QB_OK;
    for (size_t i = 0; i < c->n_batches; i++) {
        qb_calibration_batch *batch = &c->batches[i];
        qb_span span = span_of(c, batch);
        int64_t from = c->position;
        QB_TRY(st, load_state(c, batch, w));
        if (moves) {
            QB_TRY(st, qb_steps_run(c->m, &b->w, from, s->resume, &c->ws, c->copy, &span));
            QB_TRY(st, store_state(c, batch, s));
            from = s->resume;
        }
        QB_TRY(st, qb_steps_run(c->m, &b->w, from, s->cut, &c->ws, c->copy, &span));
        for (int64_t j = 0; j < n; j++) QB_TRY(st, add_site(c, batch, &w->sites[first + j], &sums[j]));
    }
    if (moves) {
        c->state = stage;
        c->position = s->resume;
    }
out:
    return st;
}

qb_status qb_calibration_finish_block(qb_calibration *c, const qb_block *b, const qb_walk *w) {
    qb_device *dev = c->m->dev;
    qb_status st = QB_OK;
    for (size_t i = 0; i < c->n_batches; i++) {
        const qb_calibration_batch *batch = &c->batches[i];
        qb_span s = span_of(c, batch);
        QB_TRY(st, load_state(c, batch, w));
        QB_TRY(st, qb_steps_run(c->m, &b->w, c->position, b->w.n_steps, &c->ws, c->copy, &s));
        QB_TRY(st, dev->backend->copy(dev, stream_at(c, batch), c->copy,
                                      rows_of(batch) * c->m->config.hidden * (int64_t)sizeof(float)));
    }
    c->state = -1;
    c->position = 0;
out:
    return st;
}

qb_status qb_calibration_observe_apart(qb_calibration *c, const qb_block *b, const qb_walk *w, int64_t first,
                                       int64_t n, qb_hessian_sum *sums) {
    qb_status st = QB_OK;
    for (size_t i = 0; i < c->n_batches; i++) {
        const qb_calibration_batch *batch = &c->batches[i];
        qb_span span = span_of(c, batch);
        int64_t from = 0;
        QB_TRY(st, load_state(c, batch, w));
        for (size_t k = 0; k < w->n_stages && w->stages[k].first_site < first + n; k++) {
            const qb_stage *s = &w->stages[k];
            QB_TRY(st, qb_steps_run(c->m, &b->w, from, s->cut, &c->ws, c->copy, &span));
            for (int64_t j = s->first_site; j < s->first_site + s->n_sites; j++)
                if (j >= first && j < first + n)
                    QB_TRY(st, add_site(c, batch, &w->sites[j], &sums[j - first]));
            from = s->cut;
        }
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
