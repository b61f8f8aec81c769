/* The weights of LLM.int8(): each row scaled by its largest magnitude onto -127 .. 127 (Dettmers et al. 2022,
   arXiv:2208.07339; bitsandbytes' int8_vectorwise_quant). The method also rounds activations to int8 at run
   time, outliers excepted; here they stay floats, so that what is measured is the weights' part. */
#include "base/memory.h"
#include "quant/affine.h"
#include "quant/output_error.h"

#include <math.h>

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

/* What bitsandbytes quantizes is the weight in float16, whatever it was: n of them, at most PIECE. */
enum { PIECE = 512 };
static void to_half(const float *w, int64_t n, float *out) {
    uint16_t half[PIECE];
    qb_f16_of_f32_many(w, n, half);
    qb_f32_of_f16_many(half, n, out);
}

/* The largest magnitude; as bits, floats without sign are in the order of their sizes, infinity last. */
static float largest_of(const float *w, int64_t n) {
    uint32_t most = 0;
    float half[PIECE];
    for (int64_t at = 0; at < n; at += PIECE) {
        int64_t length = n - at < PIECE ? n - at : PIECE;
        to_half(w + at, length, half);
        for (int64_t i = 0; i < length; i++) {
            uint32_t bits = qb_bits_of_f32(half[i]) & 0x7fffffff;
            most = bits > most ? bits : most;
        }
    }
    return qb_f32_of_bits(most);
}

/* Adding 1.5 * 2^23 leaves a number below 2^22 in the last bits, rounded to nearest even. */
static void put_codes(const float *w, int64_t n, float factor, uint8_t *codes) {
    float half[PIECE];
    for (int64_t at = 0; at < n; at += PIECE) {
        int64_t length = n - at < PIECE ? n - at : PIECE;
        to_half(w + at, length, half);
        for (int64_t i = 0; i < length; i++) {
            uint32_t bits = qb_bits_of_f32(half[i] * factor + 0x1.8p23F);
            codes[at + i] = (uint8_t)(bits - 0x4b400000U + MIDDLE);
        }
    }
}

typedef struct {
    const float *weight;
    qb_qweight *q;
} encode_run;

/* Rows [begin, end). A row of zeros keeps zeros: its reciprocal is never used. One that overflows float16 is
   left alone; check_range refuses it. The factor is 127 times the rounded reciprocal, as the library computes
   it on the CPU; its CUDA kernel divides, which moves about one code in a thousand by one step. */
static void encode_rows(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const encode_run *run = ctx;
    qb_qweight *q = run->q;
    for (int64_t r = begin; r < end; r++) {
        const float *w = run->weight + r * q->cols;
        float absmax = largest_of(w, q->cols);
        float factor = absmax > 0 ? 1.0F / absmax * (float)LARGEST : 0.0F;
        q->absmax[r] = absmax;
        q->scales[r] = absmax / (float)LARGEST;
        q->zeros[r] = MIDDLE;
        if (isfinite(absmax)) put_codes(w, q->cols, factor, q->codes + r * q->cols);
    }
}

static qb_status check_range(const qb_quant_job *job, const qb_qweight *q) {
    for (int64_t r = 0; r < q->rows; r++) {
        const float *w = job->weight + r * q->cols;
        if (isfinite(q->absmax[r])) continue;
        for (int64_t c = 0; c < q->cols; c++)
            if (!isfinite(qb_f32_of_f16(qb_f16_of_f32(w[c]))))
                return qb_fail(QB_ERR_NUMERIC,
                               "%s: row %lld, column %lld: %g overflows float16, from which int8 is rounded",
                               job->module, (long long)r, (long long)c, (double)w[c]);
    }
    return QB_OK;
}

static qb_status quantize(const qb_quant_job *job, qb_qweight *out, qb_module_report *report) {
    *out = (qb_qweight){0};
    qb_qweight shape = {0};
    qb_status st;
    QB_TRY(st, describe(job->module, job->rows, job->cols, job->source_dtype, job->config, &shape));
    QB_TRY(st, qb_weight_check_finite(job));
    QB_TRY(st, qb_qweight_alloc_affine(job->rows, job->cols, shape.bits, shape.group_size, false, out));
    QB_TRY(st, qb_alloc((size_t)job->rows, sizeof *out->absmax, &out->absmax));
    out->scale_dtype = shape.scale_dtype;
    out->symmetric = out->int8_rows = true;
    out->source_dtype = shape.source_dtype;
    encode_run run = {job->weight, out};
    qb_parallel_for(job->threads, out->rows, ROWS_AT_ONCE, encode_rows, &run);
    QB_TRY(st, check_range(job, out));
    QB_TRY(st, qb_output_error(job, out, report));
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}

static qb_status site(const qb_site_job *job) {
    return qb_site_each(job, NULL, false, quantize); /* no backend has a kernel for it */
}

static const qb_option options[] = {{0}};

extern const qb_quant_method qb_method_int8;
const qb_quant_method qb_method_int8 = {
    .name = "int8",
    .summary = "LLM.int8() weights: 8 bits, each row scaled by its absmax; activations stay floats",
    .source = "Dettmers et al. 2022, arXiv:2208.07339; bitsandbytes",
    .options = options,
    .describe = describe,
    .site = site,
};
