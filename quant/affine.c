#include "quant/affine.h"

#include "base/memory.h"
#include "base/str.h"

#include <inttypes.h>
#include <math.h>
#include <stdatomic.h>

static qb_status fail_group(const char *module, int64_t cols, int64_t group) {
    static const int64_t usual[] = {1024, 512, 256, 128, 64, 32, 16, 8};
    qb_str fits = {0};
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (cols % usual[i] == 0) qb_str_printf(&fits, "%lld, ", (long long)usual[i]);
    qb_status st =
        qb_fail(QB_ERR_USAGE,
                "%s: group size %lld does not divide its %lld input columns; sizes that do: %s-1 (one group "
                "a row); or allow a short last group with --ragged-groups",
                module, (long long)group, (long long)cols, qb_str_get(&fits));
    qb_str_free(&fits);
    return st;
}

qb_status qb_affine_describe(const char *module, int64_t rows, int64_t cols, qb_dtype source_dtype,
                             const qb_quant_config *config, qb_qweight *out) {
    int64_t bits = config->bits, group = config->group_size;
    if (bits != 2 && bits != 3 && bits != 4 && bits != 8)
        return qb_fail(QB_ERR_USAGE, "bits must be 2, 3, 4 or 8, found %lld", (long long)bits);
    if (group != -1 && group < 1)
        return qb_fail(QB_ERR_USAGE, "group size must be positive, or -1 for one group a row, found %lld",
                       (long long)group);
    if (rows < 1 || cols < 1)
        return qb_fail(QB_ERR_FORMAT, "%s: cannot quantize a weight of shape [%lld, %lld]", module,
                       (long long)rows, (long long)cols);
    if (group == -1) group = cols;
    if (cols % group != 0 && !config->ragged_groups) return fail_group(module, cols, group);
    if (group > cols) group = cols; /* ragged: one short group */
    *out = (qb_qweight){
        .coding = QB_CODING_AFFINE,
        .rows = rows,
        .cols = cols,
        .bits = (int)bits,
        .group_size = group,
        .n_groups = (cols + group - 1) / group,
        .symmetric = config->symmetric,
        .source_dtype = source_dtype,
    };
    return QB_OK;
}

void qb_affine_label(const qb_quant_config *config, qb_str *out) {
    qb_str_printf(out, "-%" PRId64 "b", config->bits);
    if (config->group_size > 0)
        qb_str_printf(out, "-g%" PRId64, config->group_size);
    else
        qb_str_text(out, "-row");
    if (!config->symmetric) qb_str_text(out, "-asym");
}

void qb_affine_label_search(const qb_quant_config *config, qb_str *out) {
    if (config->mse) qb_str_text(out, "-mse");
}

qb_grid_rule qb_affine_rule(const qb_quant_config *config) {
    return (qb_grid_rule){.bits = (int)config->bits, .symmetric = config->symmetric, .mse = config->mse};
}

void qb_affine_put_grid(qb_qweight *q, int64_t row0, int64_t n_rows, int64_t group, const float *scale,
                        const float *zero) {
    for (int64_t lane = 0; lane < n_rows; lane++) {
        int64_t at = (row0 + lane) * q->n_groups + group;
        q->scales[at] = scale[lane];
        q->zeros[at] = (uint8_t)zero[lane];
    }
}

void qb_affine_put_column(qb_qweight *q, int64_t row0, int64_t n_rows, int64_t column, const uint8_t *codes) {
    uint8_t *to = q->codes + row0 * q->cols + column;
    for (int64_t lane = 0; lane < n_rows; lane++) to[lane * q->cols] = codes[lane];
}

typedef struct {
    const float *weight;
    int64_t cols;
    _Atomic int64_t bad; /* lowest index found, or INT64_MAX */
} finite_run;

static void check_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    finite_run *run = ctx;
    for (int64_t row = begin; row < end; row++) {
        const float *w = run->weight + row * run->cols;
        float sum = 0; /* x * 0 is 0 for every finite x, NaN for the others */
        for (int64_t i = 0; i < run->cols; i++) sum += w[i] * 0.0F;
        if (sum == 0.0F) continue;
        int64_t i = 0;
        while (isfinite(w[i])) i++;
        int64_t found = row * run->cols + i, best = atomic_load(&run->bad);
        while (found < best && !atomic_compare_exchange_weak(&run->bad, &best, found)) {
        }
        return;
    }
}

qb_status qb_weight_check_finite(const qb_quant_job *job) {
    finite_run run = {.weight = job->weight, .cols = job->cols, .bad = INT64_MAX};
    qb_parallel_for(job->threads, job->rows, 64, check_rows, &run);
    int64_t bad = atomic_load(&run.bad);
    if (bad == INT64_MAX) return QB_OK;
    return qb_fail(QB_ERR_NUMERIC,
                   "%s: weight[%lld, %lld] is %s: expected finite numbers; the checkpoint is damaged",
                   job->module, (long long)(bad / job->cols), (long long)(bad % job->cols),
                   isnan(job->weight[bad]) ? "NaN" : "infinite");
}

typedef struct {
    const qb_quant_job *job;
    const qb_grid_ops *ops;
    qb_grid_rule rule;
    qb_qweight *q;
    float *panels;  /* [workers][group_size][QB_LANES] */
    uint8_t *codes; /* the same shape */
} round_run;

static void round_tile(void *ctx, int64_t begin, int64_t end, int worker) {
    round_run *run = ctx;
    qb_qweight *q = run->q;
    int64_t share = q->group_size * QB_LANES, n_rows = end - begin;
    float *panel = run->panels + worker * share;
    uint8_t *codes = run->codes + worker * share;
    int maxq = (1 << q->bits) - 1;
    float scale[QB_LANES], zero[QB_LANES];
    for (int64_t g = 0; g < q->n_groups; g++) {
        int64_t first = g * q->group_size;
        int64_t n = q->cols - first < q->group_size ? q->cols - first : q->group_size;
        qb_grid_load(panel, run->job->weight + begin * q->cols + first, q->cols, n_rows, n);
        run->ops->find(&run->rule, panel, n, scale, zero);
        run->ops->encode(panel, n, scale, zero, maxq, codes);
        qb_affine_put_grid(q, begin, n_rows, g, scale, zero);
        for (int64_t k = 0; k < n; k++)
            qb_affine_put_column(q, begin, n_rows, first + k, codes + k * QB_LANES);
    }
}

qb_status qb_affine_round(const qb_quant_job *job, qb_qweight *q) {
    round_run run = {.job = job, .ops = qb_grid_ops_best(), .rule = qb_affine_rule(job->config), .q = q};
    size_t share = (size_t)q->group_size * QB_LANES, workers = (size_t)qb_threads_count(job->threads);
    qb_status st;
    QB_TRY(st, qb_alloc(workers * share, sizeof *run.panels, &run.panels));
    QB_TRY(st, qb_alloc(workers * share, 1, &run.codes));
    qb_parallel_for(job->threads, q->rows, QB_LANES, round_tile, &run);
out:
    qb_free(run.panels);
    qb_free(run.codes);
    return st;
}
