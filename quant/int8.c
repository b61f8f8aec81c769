/* The weights of LLM.int8(): each row scaled by its largest magnitude onto -127 .. 127 (Dettmers et al. 2022,
   arXiv:2208.07339; bitsandbytes' int8_vectorwise_quant). The method also rounds activations to int8 at run
   time, outliers excepted; here they stay floats, so that what is measured is the weights' part. */
#include "base/memory.h"
#include "quant/affine.h"
#include "quant/output_error.h"

#include <math.h>
#include <stdatomic.h>

enum { LARGEST = 127, MIDDLE = 128, ROWS_AT_ONCE = 16 };

static qb_status describe(const char *module, int64_t rows, int64_t cols, qb_dtype source_dtype,
                          const qb_quant_config *config, qb_qweight *out) {
    (void)config;
    if (rows < 1 || cols < 1)
        return qb_fail(QB_ERR_FORMAT, "%s: cannot quantize a weight of shape [%lld, %lld]", module,
                       (long long)rows, (long long)cols);
    *out = (qb_qweight){
        .coding = QB_CODING_AFFINE,
        .rows = rows,
        .cols = cols,
        .bits = 8,
        .group_size = cols,
        .n_groups = 1,
        .scale_dtype = QB_DTYPE_F32,
        .symmetric = true,
        .int8_rows = true,
        .source_dtype = source_dtype,
    };
    return QB_OK;
}

/* What bitsandbytes quantizes is the weight in float16, whatever it was; half may be w. */
static void to_half(const float *w, int64_t n, float *half) {
    enum { PIECE = 512 };
    uint16_t bits[PIECE];
    for (int64_t at = 0; at < n; at += PIECE) {
        int64_t length = n - at < PIECE ? n - at : PIECE;
        qb_f16_of_f32_many(w + at, length, bits);
        qb_f32_of_f16_many(bits, length, half + at);
    }
}

/* Adding 1.5 * 2^23 leaves a number below 2^22 in the last bits, rounded to nearest even. */
static void put_codes(const float *half, int64_t n, float factor, uint8_t *codes) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = qb_bits_of_f32(half[i] * factor + 0x1.8p23F);
        codes[i] = (uint8_t)(bits - 0x4b400000U + MIDDLE);
    }
}

typedef struct {
    const qb_quant_job *job;
    const qb_grid_ops *ops;
    qb_qweight *q;
    float *scratch; /* [workers][2][cols]: a row in float32, and rounded to float16 */
    qb_row_errors errors;
    _Atomic int64_t bad; /* the first row that does not fit float16, or INT64_MAX */
} encode_run;

/* A row of zeros keeps zeros: its reciprocal is never used. The factor is 127 times the rounded reciprocal,
   as the library computes it on the CPU; its CUDA kernel divides, which moves about one code in a thousand by
   one step. */
static void encode_row(encode_run *run, const float *w, const float *half, float absmax, int64_t r) {
    qb_qweight *q = run->q;
    uint8_t *codes = q->codes + r * q->cols;
    q->absmax[r] = absmax;
    q->scales[r] = absmax / (float)LARGEST;
    q->zeros[r] = MIDDLE;
    put_codes(half, q->cols, absmax > 0 ? 1.0F / absmax * (float)LARGEST : 0.0F, codes);
    run->ops->row_error(w, codes, q->cols, q->cols, &q->scales[r], &q->zeros[r], &run->errors.error[r],
                        &run->errors.norm[r]);
}

static void encode_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    encode_run *run = ctx;
    int64_t cols = run->q->cols;
    float *w = run->scratch + 2 * worker * cols, *half = w + cols;
    bool halves = run->job->source_dtype == QB_DTYPE_F16;
    for (int64_t r = begin; r < end; r++) {
        qb_job_rows(run->job, r, 1, w);
        if (!halves) to_half(w, cols, half);
        float absmax = run->ops->largest(halves ? w : half, cols);
        if (!isfinite(absmax)) {
            qb_note_least(&run->bad, r);
            return;
        }
        encode_row(run, w, halves ? w : half, absmax, r);
    }
}

/* What in the row is not finite, or not in float16. */
static qb_status fail_row(const qb_quant_job *job, int64_t row) {
    float *w;
    qb_status st = qb_alloc((size_t)job->cols, sizeof *w, &w);
    if (st != QB_OK) return st;
    qb_job_rows(job, row, 1, w);
    int64_t c = 0;
    while (c + 1 < job->cols && isfinite(qb_f32_of_f16(qb_f16_of_f32(w[c])))) c++;
    if (isfinite(qb_grid_ops_best()->largest(w, job->cols)))
        st = qb_fail(QB_ERR_NUMERIC,
                     "%s: row %lld, column %lld: %g overflows float16, from which int8 is rounded",
                     job->module, (long long)row, (long long)c, (double)w[c]);
    else
        st = qb_weight_fail_row(job, row);
    qb_free(w);
    return st;
}

static qb_status encode(const qb_quant_job *job, qb_qweight *q, qb_module_report *report) {
    encode_run run = {.job = job, .ops = qb_grid_ops_best(), .q = q, .bad = INT64_MAX};
    size_t workers = (size_t)qb_threads_count(job->threads);
    qb_status st;
    QB_TRY(st, qb_alloc(workers * 2 * (size_t)q->cols, sizeof *run.scratch, &run.scratch));
    QB_TRY(st, qb_row_errors_create(q->rows, &run.errors));
    qb_parallel_for(job->threads, q->rows, ROWS_AT_ONCE, encode_rows, &run);
    int64_t bad = atomic_load(&run.bad);
    if (bad != INT64_MAX)
        st = fail_row(job, bad);
    else
        qb_row_errors_report(&run.errors, q->rows, report);
out:
    qb_free(run.scratch);
    qb_row_errors_free(&run.errors);
    return st;
}

static qb_status quantize(const qb_quant_job *job, qb_qweight *out, qb_module_report *report) {
    *out = (qb_qweight){0};
    qb_qweight shape = {0};
    qb_status st;
    QB_TRY(st, describe(job->module, job->rows, job->cols, job->source_dtype, job->config, &shape));
    QB_TRY(st, qb_qweight_alloc_affine(job->rows, job->cols, shape.bits, shape.group_size, false, out));
    QB_TRY(st, qb_alloc((size_t)job->rows, sizeof *out->absmax, &out->absmax));
    out->scale_dtype = shape.scale_dtype;
    out->symmetric = out->int8_rows = true;
    out->source_dtype = shape.source_dtype;
    QB_TRY(st, encode(job, out, report));
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}

static qb_status site(const qb_site_job *job) {
    return qb_site_each(job, NULL, QB_SITE_BY_ROWS, quantize); /* no backend has a kernel for it */
}

static const qb_option options[] = {{0}};

extern const qb_quant_method qb_method_int8;
const qb_quant_method qb_method_int8 = {
    .name = "int8",
    .summary = "LLM.int8() weights: 8 bits, each row scaled by its absmax; activations stay floats",
    .source = "Dettmers et al. 2022, arXiv:2208.07339; bitsandbytes",
    .by_rows = true,
    .options = options,
    .describe = describe,
    .site = site,
};
