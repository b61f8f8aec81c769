#include "quant/driver.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/oddities.h"
#include "quant/calibration.h"
#include "quant/passes.h"
#include "quant/plan.h"
#include "quant/steps.h"
#include "quant/store.h"
#include "quant/stream.h"
#include "quant/target.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    qb_model *m;
    qb_device *dev;
    const qb_quant_method *method;
    const qb_quant_config *config;
    qb_target_run target;
    qb_store *store; /* where quantized linears go */
    float *weight;   /* one linear in float32, the largest fits */
    bool host_only;  /* qb_site_job.host_only */
    qb_calibration calibration;
    qb_block ahead; /* the next block, once it is loaded */
    bool has_ahead;
    qb_quant_report *report;
    qb_progress progress;
    char *stream_path; /* NULL: nothing is stored */
    int64_t stream_stored_ns;
    double stream_cost_s; /* of the last time */
} run_state;

/* ---- one site ---- */

static qb_status check_dense(const char *module, const qb_weight *from) {
    if (!from->dense)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s is already quantized: start from the original checkpoint",
                       module);
    if (from->dtype != QB_DTYPE_F32 && from->dtype != QB_DTYPE_F16 && from->dtype != QB_DTYPE_BF16)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: weights of dtype %s cannot be quantized; expected F32, F16 or BF16", module,
                       qb_dtype_name(from->dtype));
    return QB_OK;
}

/* *q becomes what a reader of the file will find, and is reported as such. */
static qb_status settle_linear(run_state *r, const qb_site_linear *l, qb_qweight *q,
                               qb_module_report *report) {
    const char *module = l->module;
    qb_status st = qb_qweight_round_scales(q);
    if (st != QB_OK) return qb_fail_prefix(st, "%s", module);
    QB_TRY(st, qb_steps_check(module, l->from, q));
    report->bits = qb_qweight_bits_per_weight(q) * (double)(q->rows * q->cols);
    qb_qweight_as_read(q);
    QB_TRY(st, qb_quant_report_add(r->report, report));
    if (report->fallback)
        qb_warn("%s: rounded to nearest instead of %s: %s", module, r->method->name, report->reason);
    qb_debug("%s: relative error %.3g in %.2f s", module, report->relative_error, report->seconds);
out:
    return st;
}

/* A site of the model, and where its results go. */
typedef struct {
    run_state *r;
    qb_block *b; /* whose linears are replaced; NULL without calibration */
    int64_t layer, n;
    qb_site_linear *linears; /* [n] */
    const qb_linear **which;
    int16_t *modules; /* index in the block */
    char (*names)[QB_NAME_BYTES];
} site;

static void site_free(site *s) {
    qb_free(s->linears);
    qb_free(s->which);
    qb_free(s->modules);
    qb_free(s->names);
}

static qb_status site_make(run_state *r, qb_block *b, int64_t layer, int64_t most, site *s) {
    *s = (site){.r = r, .b = b, .layer = layer};
    qb_status st;
    QB_TRY(st, qb_alloc((size_t)most, sizeof *s->linears, &s->linears));
    QB_TRY(st, qb_alloc((size_t)most, sizeof *s->which, &s->which));
    QB_TRY(st, qb_alloc((size_t)most, sizeof *s->modules, &s->modules));
    QB_TRY(st, qb_alloc((size_t)most, sizeof *s->names, &s->names));
out:
    return st;
}

static void add_linear(site *s, int16_t module, const qb_linear *l, const qb_weight *from) {
    qb_linear_name(l, s->layer, s->names[s->n]);
    s->which[s->n] = l;
    s->modules[s->n] = module;
    s->linears[s->n] = (qb_site_linear){s->names[s->n], from};
    s->n++;
}

/* The packed weight in the place of the one it stands for, so that what follows computes with the very
   weights that are stored. */
static qb_status replace_linear(site *s, int64_t i, qb_qweight *q) {
    run_state *r = s->r;
    qb_weight packed = {.rows = q->rows, .cols = q->cols, .packed = q},
              *source = &s->b->source[s->modules[i]];
    qb_matrix *matrix = &s->b->w.matrices[s->modules[i]];
    r->dev->backend->matrix_free(r->dev, matrix);
    *matrix = (qb_matrix){0};
    qb_status st = r->dev->backend->matrix_create(r->dev, &packed, QB_PLACE_DEVICE, matrix);
    qb_linear_unread(r->m, s->which[i], s->layer, source);
    return st;
}

/* qb_site_job.take */
static qb_status take_linear(void *ctx, int64_t i, qb_qweight *q, qb_module_report *report) {
    site *s = ctx;
    qb_status st = settle_linear(s->r, &s->linears[i], q, report);
    if (st == QB_OK && s->b) st = replace_linear(s, i, q);
    if (st == QB_OK) return qb_store_put(s->r->store, s->names[i], q);
    qb_qweight_free(q);
    return st;
}

/* sum: NULL without calibration. */
static qb_status quantize_site(site *s, qb_hessian_sum *sum) {
    run_state *r = s->r;
    qb_site_job job = {.linears = s->linears,
                       .n = s->n,
                       .sum = sum,
                       .tokens = sum ? sum->rows : 0,
                       .expert = s->n > 0 && s->which[0]->expert >= 0,
                       .config = r->config,
                       .dev = r->dev,
                       .threads = r->dev->threads,
                       .scratch = r->weight,
                       .host_only = &r->host_only,
                       .take = take_linear,
                       .ctx = s};
    for (int64_t i = 0; i < s->n; i++) {
        qb_status st = check_dense(s->names[i], s->linears[i].from);
        if (st != QB_OK) return st;
    }
    return r->method->site(&job);
}

/* ---- without calibration ---- */

static qb_status quantize_alone(run_state *r, int64_t layer, int16_t module, const qb_linear *l) {
    qb_weight from = {0};
    site s;
    qb_status st;
    QB_TRY(st, site_make(r, NULL, layer, 1, &s));
    add_linear(&s, module, l, &from);
    QB_TRY(st, qb_linear_read(r->m, l, layer, &from));
    qb_oddities_warn(r->m, s.names[0], &from);
    st = quantize_site(&s, NULL);
    qb_linear_unread(r->m, l, layer, &from);
out:
    site_free(&s);
    return st;
}

/* Blocks 0 .. blocks-1 are in the store. */
static qb_status save_blocks(run_state *r, int64_t blocks) {
    return qb_store_save(r->store, qb_target_state(&r->target, blocks, r->report));
}

static qb_status quantize_by_linear(run_state *r) {
    const qb_topology *t = &r->m->topology;
    qb_status st = QB_OK;
    for (int64_t layer = r->target.blocks; layer < t->n_layers; layer++) {
        const qb_list *list = &t->layers[layer];
        for (size_t i = 0; i < list->n_linears; i++)
            if (list->linears[i].quantized)
                QB_TRY(st, quantize_alone(r, layer, (int16_t)i, &list->linears[i]));
        QB_TRY(st, save_blocks(r, layer + 1));
        qb_progress_update(&r->progress, (double)(layer + 1));
    }
out:
    return st;
}

/* ---- with calibration ---- */

/* The linears that read one input. */
static qb_status quantize_input(run_state *r, qb_block *b, const qb_walk *w, int64_t index,
                                qb_hessian_sum *sum) {
    const qb_list *list = &r->m->topology.layers[b->layer];
    const qb_site *of = &w->sites[index];
    site s;
    qb_status st;
    QB_TRY(st, site_make(r, b, b->layer, of->n, &s));
    for (int64_t i = 0; i < of->n; i++) {
        int16_t module = w->linears[of->first + i];
        add_linear(&s, module, &list->linears[module], &b->source[module]);
    }
    st = quantize_site(&s, sum);
out:
    site_free(&s);
    return st;
}

/* Loads `layer` unless it is there. Called when much is queued on the device, which then computes while the
   weights are copied. */
static qb_status load_ahead(run_state *r, int64_t layer) {
    if (r->has_ahead || layer >= r->m->config.n_layers) return QB_OK;
    qb_status st = qb_block_load(r->m, layer, &r->ahead);
    r->has_ahead = st == QB_OK;
    return st;
}

static void note_progress(run_state *r, const qb_block *b, const qb_walk *w, int64_t sites_done) {
    qb_progress_update(&r->progress,
                       (double)b->layer + (double)sites_done / (double)(w->n_sites ? w->n_sites : 1));
}

/* What the plan says, or a quarter of what is free where that is less. */
static qb_status hessian_room(const run_state *r, int64_t *out) {
    int64_t available = r->dev->backend->available_bytes(r->dev), room = qb_hessian_room_bytes(r->config);
    if (available < 0) return QB_ERR_IO;
    *out = available / 4 < room ? available / 4 : room;
    return QB_OK;
}

/* Sites [first, first + n), of one stage or of the block as it was (stage < 0). done: of its sites before. */
static qb_status observe_and_quantize(run_state *r, qb_block *b, const qb_walk *w, int64_t stage,
                                      int64_t first, int64_t n, bool ahead, int64_t done) {
    qb_hessian_sum *sums = NULL;
    qb_status st;
    QB_TRY(st, qb_alloc_zero((size_t)n, sizeof *sums, &sums));
    for (int64_t i = 0; i < n; i++)
        QB_TRY(st, qb_hessian_sum_create(r->dev, w->sites[first + i].cols, &sums[i]));
    if (stage >= 0)
        QB_TRY(st, qb_calibration_observe(&r->calibration, b, w, stage, first, n, sums));
    else
        QB_TRY(st, qb_calibration_observe_apart(&r->calibration, b, w, first, n, sums));
    if (ahead) QB_TRY(st, load_ahead(r, b->layer + 1));
    for (int64_t i = 0; i < n; i++) {
        QB_TRY(st, quantize_input(r, b, w, first + i, &sums[i]));
        note_progress(r, b, w, done + i + 1);
    }
out:
    for (int64_t i = 0; sums && i < n; i++) qb_hessian_sum_free(r->dev, &sums[i]);
    qb_free(sums);
    return st;
}

static qb_status sequential_block(run_state *r, qb_block *b, const qb_walk *w) {
    int64_t room;
    qb_status st;
    QB_TRY(st, hessian_room(r, &room));
    for (size_t stage = 0; stage < w->n_stages; stage++) {
        int64_t at = w->stages[stage].first_site, end = at + w->stages[stage].n_sites;
        while (at < end) {
            int64_t n = qb_sites_that_fit(w, at, end, false, room);
            QB_TRY(st, observe_and_quantize(r, b, w, (int64_t)stage, at, n, stage == 1, at));
            at += n;
        }
    }
    if (b->layer + 1 < r->m->config.n_layers) st = qb_calibration_finish_block(&r->calibration, b, w);
out:
    return st;
}

/* From the last sites to the first, which what is quantized already does not reach. The report keeps the
   order of the sites. */
static qb_status parallel_block(run_state *r, qb_block *b, const qb_walk *w) {
    int64_t room, end = (int64_t)w->n_sites;
    size_t begin = r->report->n_modules;
    qb_status st;
    QB_TRY(st, hessian_room(r, &room));
    while (end > 0) {
        int64_t n = qb_sites_that_fit(w, 0, end, true, room);
        size_t before = r->report->n_modules;
        QB_TRY(st, observe_and_quantize(r, b, w, -1, end - n, n, true, (int64_t)w->n_sites - end));
        QB_TRY(st, qb_quant_report_move(r->report, before, begin));
        end -= n;
    }
    if (b->layer + 1 < r->m->config.n_layers) QB_TRY(st, qb_calibration_forward(&r->calibration, b));
out:
    return st;
}

static qb_status quantize_block(run_state *r, qb_block *b) {
    const qb_topology *t = &r->m->topology;
    qb_walk w;
    qb_status st = qb_walk_make(t, &t->layers[b->layer], &w);
    if (st != QB_OK) return st;
    qb_walk_store(&w, r->calibration.memory.kept_floats);
    st = r->config->true_sequential ? sequential_block(r, b, &w) : parallel_block(r, b, &w);
    qb_walk_free(&w);
    return st;
}

/* Brings the calibration tokens behind the blocks that an interrupted run finished: to the stream that was
   stored last, then through the blocks since, computing with the weights as they lie in the files. */
static qb_status replay(run_state *r, const qb_windows *windows) {
    qb_model *done = NULL;
    int64_t first = 0;
    qb_status st = QB_OK;
    if (r->stream_path)
        QB_TRY(st, qb_stream_restore(&r->calibration, r->stream_path, r->target.blocks, &first));
    if (first == r->target.blocks) goto out;
    QB_TRY(st, qb_model_open(qb_writer_path(r->target.writer), &done));
    QB_TRY(st, qb_model_load(done, r->dev, windows->max_length, false));
    for (int64_t layer = first; layer < r->target.blocks; layer++) {
        qb_block block;
        QB_TRY(st, qb_block_load(done, layer, &block));
        st = qb_calibration_forward(&r->calibration, &block);
        qb_block_free(done, &block);
        if (st != QB_OK) goto out;
        qb_progress_update(&r->progress, (double)layer + 1);
    }
out:
    qb_model_close(done);
    return st;
}

/* Stores the stream when that is due, behind what it goes with. A disk without room for it costs time after a
   kill, and no more. */
static qb_status store_stream(run_state *r, int64_t blocks) {
    int64_t begun = qb_now_ns();
    double since = (double)(begun - r->stream_stored_ns) * 1e-9;
    if (!r->stream_path || blocks == r->m->config.n_layers || since < r->target.target->stream_every_s ||
        since < 20 * r->stream_cost_s)
        return QB_OK;
    qb_status st = qb_store_drain(r->store);
    if (st != QB_OK) return st;
    if (qb_stream_save(&r->calibration, r->stream_path, blocks) != QB_OK) {
        qb_warn("the calibration stream is not stored: %s", qb_error_text());
        qb_error_clear();
    }
    r->stream_stored_ns = qb_now_ns();
    r->stream_cost_s = (double)(r->stream_stored_ns - begun) * 1e-9;
    return QB_OK;
}

static qb_status quantize_by_block(run_state *r, const qb_windows *windows, int64_t other_bytes) {
    const qb_config *c = &r->m->config;
    qb_status st = QB_OK;
    if (r->target.blocks == c->n_layers) return QB_OK;
    QB_TRY(st, qb_model_load(r->m, r->dev, windows->max_length, false));
    QB_TRY(st,
           qb_calibration_create(r->m, windows, r->config->true_sequential, other_bytes, &r->calibration));
    r->stream_path = qb_writer_beside(r->target.writer, "stream");
    r->stream_stored_ns = qb_now_ns();
    if (r->target.blocks > 0) QB_TRY(st, replay(r, windows));
    for (int64_t layer = r->target.blocks; layer < c->n_layers; layer++) {
        qb_block block;
        QB_TRY(st, load_ahead(r, layer));
        block = r->ahead;
        r->has_ahead = false;
        qb_block_prefetch(r->m, layer + 1);
        st = quantize_block(r, &block);
        qb_block_free(r->m, &block);
        if (st == QB_OK) st = save_blocks(r, layer + 1);
        if (st != QB_OK) goto out;
        QB_TRY(st, store_stream(r, layer + 1));
    }
out:
    if (r->has_ahead) qb_block_free(r->m, &r->ahead);
    r->has_ahead = false;
    qb_free(r->stream_path);
    r->stream_path = NULL;
    return st;
}

/* ---- the whole ---- */

static qb_status check_source(const qb_model *m) {
    const qb_quantization *q = qb_checkpoint_quantization(m->checkpoint);
    if (q->method[0] == 0) return QB_OK;
    return qb_fail(QB_ERR_USAGE,
                   "%s is already quantized (%s, %d bits): quantize the original 16-bit checkpoint instead",
                   qb_checkpoint_dir(m->checkpoint), q->method, q->bits);
}

static int64_t largest_linear(const qb_topology *t) {
    int64_t largest = 1;
    for (int64_t l = 0; l < t->n_layers; l++)
        for (size_t i = 0; i < t->layers[l].n_linears; i++) {
            const qb_linear *w = &t->layers[l].linears[i];
            if (w->quantized && w->rows * w->cols > largest) largest = w->rows * w->cols;
        }
    return largest;
}

qb_status qb_quantize_model(qb_model *m, qb_device *dev, const qb_quant_method *method,
                            const qb_quant_config *config, const qb_windows *calibration,
                            const qb_quant_target *target, qb_quant_report *report) {
    *report = (qb_quant_report){0};
    run_state r = {.m = m, .dev = dev, .method = method, .config = config, .report = report};
    qb_quant_plan plan;
    qb_status st;
    QB_TRY(st, check_source(m));
    if (method->needs && (!calibration || calibration->count < 1)) {
        st = qb_fail(QB_ERR_USAGE, "%s needs calibration windows, found none", method->name);
        goto out;
    }
    qb_quant_config actual = *config; /* the windows in hand, whatever was asked for */
    if (method->needs) {
        actual.samples = calibration->count;
        actual.seqlen = calibration->max_length;
    }
    QB_TRY(st, qb_quant_plan_make(m, method, &actual, &plan));
    if (plan.hessian_passes > plan.stages)
        qb_info("the Hessians of a block are held in parts: %lld passes over the calibration tokens in place "
                "of %lld",
                (long long)plan.hessian_passes, (long long)plan.stages);
    qb_checkpoint_use_threads(m->checkpoint, dev->threads);
    QB_TRY(st, qb_target_open(m, method, config, target, report, &r.target));
    QB_TRY(st, qb_store_open(r.target.writer, r.target.layout, dev, &r.store));
    QB_TRY(st, qb_alloc((size_t)largest_linear(&m->topology), sizeof *r.weight, &r.weight));
    qb_progress_begin(&r.progress, (double)m->config.n_layers, "quantizing %s with %s", m->name,
                      method->name);
    if (method->needs)
        QB_TRY(st, quantize_by_block(&r, calibration, qb_quant_plan_other_bytes(&plan)));
    else
        QB_TRY(st, quantize_by_linear(&r));
    QB_TRY(st, qb_store_drain(r.store));
    qb_store_close(r.store);
    r.store = NULL;
    st = qb_target_finish(&r.target, method->needs ? calibration : NULL, report);
out:
    qb_progress_end(&r.progress);
    qb_calibration_free(&r.calibration);
    qb_store_close(r.store);
    qb_target_close(&r.target, st);
    qb_checkpoint_use_threads(m->checkpoint, NULL);
    qb_free(r.weight);
    if (st != QB_OK) qb_quant_report_free(report);
    return st;
}
