#include "quant/driver.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "quant/calibration.h"
#include "quant/plan.h"
#include "quant/steps.h"
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
    float *weight;  /* one linear in float32, the largest fits */
    bool host_only; /* qb_site_job.host_only */
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

/* Writes one quantized linear; *q becomes what a reader of the file will find. */
static qb_status store_linear(run_state *r, const qb_site_linear *l, qb_qweight *q,
                              qb_module_report *report) {
    const char *module = l->module;
    qb_status st = qb_qweight_round_scales(q);
    if (st != QB_OK) return qb_fail_prefix(st, "%s", module);
    QB_TRY(st, qb_steps_check(module, l->from, q));
    QB_TRY(st, r->target.layout->put(r->target.writer, module, q));
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
    int64_t n;
    qb_site_linear linears[QB_LINEAR_COUNT];
    qb_linear which[QB_LINEAR_COUNT];
    char names[QB_LINEAR_COUNT][128];
} site;

static void add_linear(site *s, int64_t layer, qb_linear l, const qb_weight *from) {
    qb_config_linear_name(&s->r->m->config, layer, l, s->names[s->n]);
    s->which[s->n] = l;
    s->linears[s->n] = (qb_site_linear){s->names[s->n], from};
    s->n++;
}

/* The packed weight in the place of the one it stands for, so that what follows computes with the very
   weights that are stored. */
static qb_status replace_linear(run_state *r, qb_block *b, qb_linear l, const char *module, qb_qweight *q) {
    qb_weight packed = {.rows = q->rows, .cols = q->cols, .packed = q};
    r->dev->backend->matrix_free(r->dev, &b->w.linear[l]);
    b->w.linear[l] = (qb_matrix){0};
    qb_status st = r->dev->backend->matrix_create(r->dev, &packed, QB_PLACE_DEVICE, &b->w.linear[l]);
    qb_checkpoint_free_linear(r->m->checkpoint, module, &b->source[l]);
    b->source[l] = (qb_weight){0};
    return st;
}

/* qb_site_job.take */
static qb_status take_linear(void *ctx, int64_t i, qb_qweight *q, qb_module_report *report) {
    site *s = ctx;
    qb_status st = store_linear(s->r, &s->linears[i], q, report);
    if (st == QB_OK && s->b) st = replace_linear(s->r, s->b, s->which[i], s->names[i], q);
    qb_qweight_free(q);
    return st;
}

/* sum: NULL without calibration. */
static qb_status quantize_site(site *s, qb_hessian_sum *sum) {
    run_state *r = s->r;
    qb_site_job job = {.linears = s->linears,
                       .n = s->n,
                       .sum = sum,
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

static qb_status quantize_by_linear(run_state *r) {
    const qb_config *c = &r->m->config;
    qb_checkpoint *ck = r->m->checkpoint;
    for (int64_t layer = r->target.blocks; layer < c->n_layers; layer++) {
        for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++) {
            if (!qb_config_has_linear(c, l)) continue;
            qb_weight from = {0};
            site s = {.r = r};
            int64_t rows, cols;
            qb_config_linear_shape(c, l, &rows, &cols);
            add_linear(&s, layer, l, &from);
            qb_status st = qb_checkpoint_linear(ck, s.names[0], rows, cols, &from);
            if (st == QB_OK) {
                st = quantize_site(&s, NULL);
                qb_checkpoint_free_linear(ck, s.names[0], &from);
            }
            if (st != QB_OK) return st;
        }
        qb_status st = qb_target_save(&r->target, layer + 1, r->report);
        if (st != QB_OK) return st;
        qb_progress_update(&r->progress, (double)(layer + 1));
    }
    return QB_OK;
}

/* ---- with calibration ---- */

/* The block's linears that read one input. */
static qb_status quantize_input(run_state *r, qb_block *b, qb_linear_input input, qb_hessian_sum *sum) {
    site s = {.r = r, .b = b};
    for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++)
        if (qb_config_has_linear(&r->m->config, l) && qb_linear_input_of(l) == input)
            add_linear(&s, b->layer, l, &b->source[l]);
    return quantize_site(&s, sum);
}

static int64_t input_width(const qb_config *c, qb_linear_input input) {
    int64_t rows, cols = 0;
    for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++)
        if (qb_config_has_linear(c, l) && qb_linear_input_of(l) == input)
            qb_config_linear_shape(c, l, &rows, &cols);
    return cols;
}

static void note_progress(run_state *r, const qb_block *b, int stages_done) {
    qb_progress_update(&r->progress, (double)b->layer + stages_done / (double)QB_INPUT_COUNT);
}

/* Loads `layer` unless it is there. Called when much is queued on the device, which then computes while the
   weights are copied. */
static qb_status load_ahead(run_state *r, int64_t layer) {
    if (r->has_ahead || layer >= r->m->config.n_layers) return QB_OK;
    qb_status st = qb_block_load(r->m, layer, &r->ahead);
    r->has_ahead = st == QB_OK;
    return st;
}

static qb_status sequential_block(run_state *r, qb_block *b) {
    const qb_config *c = &r->m->config;
    qb_status st = QB_OK;
    for (qb_linear_input input = 0; input < QB_INPUT_COUNT; input++) {
        qb_hessian_sum sum = {0};
        QB_TRY(st, qb_hessian_sum_create(r->dev, input_width(c, input), &sum));
        st = qb_calibration_observe(&r->calibration, b, input, &sum);
        if (st == QB_OK && input == QB_INPUT_OUTPUT) st = load_ahead(r, b->layer + 1);
        if (st == QB_OK) st = quantize_input(r, b, input, &sum);
        qb_hessian_sum_free(r->dev, &sum);
        if (st != QB_OK) goto out;
        note_progress(r, b, (int)input + 1);
    }
    if (b->layer + 1 < c->n_layers) st = qb_calibration_finish_block(&r->calibration, b);
out:
    return st;
}

static qb_status parallel_block(run_state *r, qb_block *b) {
    const qb_config *c = &r->m->config;
    qb_hessian_sum sums[QB_INPUT_COUNT] = {0};
    qb_status st = QB_OK;
    for (qb_linear_input i = 0; i < QB_INPUT_COUNT; i++)
        QB_TRY(st, qb_hessian_sum_create(r->dev, input_width(c, i), &sums[i]));
    QB_TRY(st, qb_calibration_observe_all(&r->calibration, b, sums));
    QB_TRY(st, load_ahead(r, b->layer + 1));
    for (qb_linear_input i = 0; i < QB_INPUT_COUNT; i++) {
        QB_TRY(st, quantize_input(r, b, i, &sums[i]));
        note_progress(r, b, (int)i + 1);
    }
    if (b->layer + 1 < c->n_layers) QB_TRY(st, qb_calibration_forward(&r->calibration, b));
out:
    for (qb_linear_input i = 0; i < QB_INPUT_COUNT; i++) qb_hessian_sum_free(r->dev, &sums[i]);
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

/* Stores the stream when that is due. A disk without room for it costs time after a kill, and no more. */
static void store_stream(run_state *r, int64_t blocks) {
    int64_t begun = qb_now_ns();
    double since = (double)(begun - r->stream_stored_ns) * 1e-9;
    if (!r->stream_path || blocks == r->m->config.n_layers || since < r->target.target->stream_every_s ||
        since < 20 * r->stream_cost_s)
        return;
    if (qb_stream_save(&r->calibration, r->stream_path, blocks) != QB_OK) {
        qb_warn("the calibration stream is not stored: %s", qb_error_text());
        qb_error_clear();
    }
    r->stream_stored_ns = qb_now_ns();
    r->stream_cost_s = (double)(r->stream_stored_ns - begun) * 1e-9;
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
        st = r->config->true_sequential ? sequential_block(r, &block) : parallel_block(r, &block);
        qb_block_free(r->m, &block);
        if (st == QB_OK) st = qb_target_save(&r->target, layer + 1, r->report);
        if (st != QB_OK) goto out;
        store_stream(r, layer + 1);
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

static int64_t largest_linear(const qb_config *c) {
    int64_t largest = 0, rows, cols;
    for (qb_linear l = 0; l < QB_LINEAR_COUNT; l++) {
        if (!qb_config_has_linear(c, l)) continue;
        qb_config_linear_shape(c, l, &rows, &cols);
        if (rows * cols > largest) largest = rows * cols;
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
    QB_TRY(st, qb_target_open(m, method, config, target, report, &r.target));
    QB_TRY(st, qb_alloc((size_t)largest_linear(&m->config), sizeof *r.weight, &r.weight));
    qb_progress_begin(&r.progress, (double)m->config.n_layers, "quantizing %s with %s", m->name,
                      method->name);
    if (method->needs)
        QB_TRY(st, quantize_by_block(&r, calibration, qb_quant_plan_other_bytes(&plan)));
    else
        QB_TRY(st, quantize_by_linear(&r));
    st = qb_target_finish(&r.target, method->needs ? calibration : NULL, report);
out:
    qb_progress_end(&r.progress);
    qb_calibration_free(&r.calibration);
    qb_target_close(&r.target, st);
    qb_free(r.weight);
    if (st != QB_OK) qb_quant_report_free(report);
    return st;
}
