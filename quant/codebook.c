/* NF4 and FP4: blocks of the flattened weight, each scaled by its largest magnitude onto a table of 16 values
   (Dettmers et al. 2023, arXiv:2305.14314; bitsandbytes' quantize_4bit, docs/methods.md). */
#include "base/memory.h"
#include "quant/affine.h"
#include "quant/on_device.h"
#include "quant/output_error.h"

#include <inttypes.h>
#include <math.h>

enum { CODES = 16, SPAN_ELEMENTS = 65536 };

/* FP4 has two zeros: the sort is stable and keeps +0 (code 0) below -0 (code 8), as bitsandbytes' own does,
   so that tiny positive values get code 8. Both decode to 0. */
static qb_code_bounds decision_of(qb_codebook codebook) {
    const float *table = qb_codebook_table(codebook);
    qb_code_bounds d = {0};
    for (int i = 0; i < CODES; i++) {
        int at = i;
        for (; at > 0 && table[d.code[at - 1]] > table[i]; at--) d.code[at] = d.code[at - 1];
        d.code[at] = (uint8_t)i;
    }
    for (int i = 0; i + 1 < CODES; i++) d.bounds[i] = (table[d.code[i]] + table[d.code[i + 1]]) / 2.0F;
    return d;
}

typedef struct {
    const float *weight;
    const qb_grid_ops *ops;
    int64_t n;
    qb_code_bounds decision;
    qb_qweight *q;
} encode_run;

/* Blocks [begin, end). The least magnitude is clamped, so that a block of zeros gets the code of zero. A
   value stands in the place of as many bounds as it exceeds: ties go to the lower value. */
static void encode_blocks(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const encode_run *run = ctx;
    qb_qweight *q = run->q;
    for (int64_t b = begin; b < end; b++) {
        int64_t first = b * q->block_size;
        int64_t n = run->n - first < q->block_size ? run->n - first : q->block_size;
        const float *w = run->weight + first;
        float absmax = run->ops->largest(w, n);
        float inverse = 1.0F / (absmax > 1e-38F ? absmax : 1e-38F);
        q->absmax[b] = absmax;
        run->ops->encode_places(&run->decision, w, n, inverse, q->codes + first);
    }
}

/* The entry of the ascending map that is nearest to x; the lower of two equally near. */
static uint8_t nearest_entry(const float *map, float x) {
    int low = 0, high = 255;
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (map[middle] <= x)
            low = middle;
        else
            high = middle;
    }
    return (uint8_t)(fabsf(x - map[high]) < fabsf(x - map[low]) ? high : low);
}

/* Double quantization: absmax less its mean in blocks of 256 on the dynamic 8-bit map; absmax becomes what
 * that decodes to. */
static void compress_absmax(qb_qweight *q) {
    const float *map = qb_dynamic_map();
    double sum = 0;
    for (int64_t b = 0; b < q->n_blocks; b++) sum += (double)q->absmax[b];
    float offset = (float)(sum / (double)q->n_blocks);
    q->nested_offset = offset;
    for (int64_t first = 0; first < q->n_blocks; first += QB_NESTED_BLOCK) {
        int64_t end = first + QB_NESTED_BLOCK < q->n_blocks ? first + QB_NESTED_BLOCK : q->n_blocks;
        float largest = 0;
        for (int64_t b = first; b < end; b++) largest = fmaxf(largest, fabsf(q->absmax[b] - offset));
        q->nested_absmax[first / QB_NESTED_BLOCK] = largest;
        for (int64_t b = first; b < end; b++) {
            uint8_t code = nearest_entry(map, largest > 0 ? (q->absmax[b] - offset) / largest : 0.0F);
            q->absmax_codes[b] = code;
            q->absmax[b] = map[code] * largest + offset;
        }
    }
}

static qb_status describe(qb_codebook codebook, const char *module, int64_t rows, int64_t cols,
                          qb_dtype source_dtype, const qb_quant_config *config, qb_qweight *out) {
    int64_t size = config->block_size;
    if (size < 32 || size > 4096 || (size & (size - 1)) != 0)
        return qb_fail(QB_ERR_USAGE, "block size must be a power of two from 32 to 4096, found %lld",
                       (long long)size);
    if (rows < 1 || cols < 1)
        return qb_fail(QB_ERR_FORMAT, "%s: cannot quantize a weight of shape [%lld, %lld]", module,
                       (long long)rows, (long long)cols);
    qb_status st = qb_qweight_form_codebook(rows, cols, codebook, size, config->double_quant, out);
    out->source_dtype = source_dtype;
    return st;
}

static qb_status quantize(qb_codebook codebook, const qb_quant_job *job, qb_qweight *out,
                          qb_module_report *report) {
    *out = (qb_qweight){0};
    qb_qweight shape = {0};
    qb_status st;
    QB_TRY(st, describe(codebook, job->module, job->rows, job->cols, job->source_dtype, job->config, &shape));
    if (!job->dev) QB_TRY(st, qb_weight_check_finite(job));
    QB_TRY(st, qb_qweight_alloc_codebook(job->rows, job->cols, codebook, shape.block_size, shape.double_quant,
                                         out));
    out->source_dtype = shape.source_dtype;
    encode_run run = {job->weight, qb_grid_ops_best(), job->rows * job->cols, decision_of(codebook), out};
    if (job->dev) {
        QB_TRY(st, qb_round_on_device(job, NULL, &run.decision, out, report));
    } else {
        qb_parallel_for(job->threads, out->n_blocks, SPAN_ELEMENTS / out->block_size, encode_blocks, &run);
        if (out->double_quant) compress_absmax(out);
        QB_TRY(st, qb_output_error(job, out, report));
    }
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}

static qb_status describe_nf4(const char *module, int64_t rows, int64_t cols, qb_dtype source_dtype,
                              const qb_quant_config *config, qb_qweight *out) {
    return describe(QB_CODEBOOK_NF4, module, rows, cols, source_dtype, config, out);
}
static qb_status describe_fp4(const char *module, int64_t rows, int64_t cols, qb_dtype source_dtype,
                              const qb_quant_config *config, qb_qweight *out) {
    return describe(QB_CODEBOOK_FP4, module, rows, cols, source_dtype, config, out);
}
static qb_status quantize_nf4(const qb_quant_job *job, qb_qweight *out, qb_module_report *report) {
    return quantize(QB_CODEBOOK_NF4, job, out, report);
}
static qb_status quantize_fp4(const qb_quant_job *job, qb_qweight *out, qb_module_report *report) {
    return quantize(QB_CODEBOOK_FP4, job, out, report);
}
static qb_status site_nf4(const qb_site_job *job) {
    return qb_site_each(job, NULL, qb_device_rounds(job->dev) ? QB_SITE_ON_DEVICE : QB_SITE_WIDENED,
                        quantize_nf4);
}
static qb_status site_fp4(const qb_site_job *job) {
    return qb_site_each(job, NULL, qb_device_rounds(job->dev) ? QB_SITE_ON_DEVICE : QB_SITE_WIDENED,
                        quantize_fp4);
}

static void label(const qb_quant_config *config, qb_str *out) {
    if (config->block_size != 64) qb_str_printf(out, "-b%" PRId64, config->block_size);
    if (config->double_quant) qb_str_text(out, "-dq");
}

static const qb_option options[] = {
    {"block-size", 0, QB_OPTION_INT, offsetof(qb_quant_config, block_size), "64", 32, 4096, NULL, "WEIGHTS",
     "weights that share an absmax: a power of two"},
    {"double-quant", 0, QB_OPTION_BOOL, offsetof(qb_quant_config, double_quant), "false", 0, 0, NULL, NULL,
     "store the absmax values in 8 bits, in nested blocks of 256"},
    {0},
};

extern const qb_quant_method qb_method_nf4, qb_method_fp4;
const qb_quant_method qb_method_nf4 = {
    .name = "nf4",
    .summary = "16 values at a normal distribution's quantiles, blocks scaled by absmax",
    .source = "Dettmers et al. 2023, arXiv:2305.14314; bitsandbytes",
    .options = options,
    .describe = describe_nf4,
    .site = site_nf4,
    .label = label,
};
const qb_quant_method qb_method_fp4 = {
    .name = "fp4",
    .summary = "4-bit floats of sign, two exponent bits and one mantissa bit, blocks scaled by absmax",
    .source = "bitsandbytes",
    .options = options,
    .describe = describe_fp4,
    .site = site_fp4,
    .label = label,
};
