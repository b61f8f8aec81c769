/* GPTQ checkpoints: qweight [in*bits/32, out], qzeros [groups, out*bits/32], scales [groups, out], g_idx
   [in]. v1 stores zeros minus one, v2 the true ones. Formats: AutoGPTQ qlinear_cuda.py, GPTQModel
   utils/model.py; docs/formats.md. */
#include "base/memory.h"
#include "checkpoint/layouts/bitpack.h"
#include "checkpoint/layouts/gptq_read.h"
#include "checkpoint/layouts/layout_rows.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* ---- writing ---- */

static qb_status check_any(const char *module, const qb_qweight *q) {
    char what[48];
    if (q->coding != QB_CODING_AFFINE)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: gptq checkpoints hold affine groups, not %s; use the layout bnb4", module,
                       qb_qweight_describe(q, what));
    if (q->bits != 2 && q->bits != 3 && q->bits != 4 && q->bits != 8)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: gptq checkpoints hold 2, 3, 4 or 8 bits, not %d", module,
                       q->bits);
    if (q->rows < 1 || q->cols < 1 || q->rows % 32 != 0 || q->cols % 32 != 0)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: a gptq checkpoint cannot hold a weight of shape [%" PRId64 ", %" PRId64
                       "]: both sizes must be multiples of 32; nf4 can",
                       module, q->rows, q->cols);
    if (q->group_size < 1 || q->n_groups != (q->cols + q->group_size - 1) / q->group_size)
        return qb_fail(QB_ERR_INTERNAL,
                       "%s: %" PRId64 " groups of %" PRId64 " do not cover %" PRId64 " columns", module,
                       q->n_groups, q->group_size, q->cols);
    return QB_OK;
}

static qb_status v2_check(const char *module, const qb_qweight *q) {
    return check_any(module, q);
}

/* A true zero of 0 becomes -1 in v1: writers differ in what they store and readers in what they make of it.
 */
static qb_status v1_check(const char *module, const qb_qweight *q) {
    qb_status st = check_any(module, q);
    if (st != QB_OK || !q->zeros) return st;
    if (memchr(q->zeros, 0, (size_t)(q->rows * q->n_groups)))
        return qb_fail(
            QB_ERR_UNSUPPORTED,
            "%s: a zero point is 0, which the layout gptq (zeros minus one) cannot store; use gptq_v2",
            module);
    return QB_OK;
}

static qb_status plan_any(qb_writer *w, const char *module, const qb_qweight *q) {
    qb_status st;
    QB_TRY(st, check_any(module, q));
    QB_TRY(st, qb_layout_plan(w, module, "qweight", QB_DTYPE_I32, 2, q->cols / 32 * q->bits, q->rows));
    QB_TRY(st, qb_layout_plan(w, module, "qzeros", QB_DTYPE_I32, 2, q->n_groups, q->rows / 32 * q->bits));
    QB_TRY(st, qb_layout_plan(w, module, "scales", QB_DTYPE_F16, 2, q->n_groups, q->rows));
    QB_TRY(st, qb_layout_plan(w, module, "g_idx", QB_DTYPE_I32, 1, q->cols, 0));
out:
    return st;
}

static qb_status fail_code(const char *module, const char *what, const uint8_t *codes, int bits) {
    int64_t at = 0;
    while (codes[at] >> bits == 0) at++;
    return qb_fail(QB_ERR_NUMERIC, "%s: %s %d at position %" PRId64 " does not fit %d bits", module, what,
                   codes[at], at, bits);
}

static qb_status put_qweight(qb_writer *w, const char *module, const qb_qweight *q) {
    int64_t n = q->cols / 32 * q->bits * q->rows;
    uint32_t *words;
    qb_status st = qb_alloc((size_t)n, sizeof *words, &words);
    if (st != QB_OK) return st;
    if (qb_bits_pack_transposed(qb_writer_threads(w), q->codes, q->rows, q->cols, q->bits, words))
        st = qb_layout_put(w, module, "qweight", words, n * 4);
    else
        st = fail_code(module, "code", q->codes, q->bits);
    qb_free(words);
    return st;
}

/* zeros [rows, groups] lie packed along the rows: [groups, rows]. */
static qb_status put_qzeros(qb_writer *w, const char *module, const qb_qweight *q, int offset) {
    int64_t words_a_group = q->rows / 32 * q->bits;
    uint8_t *line = NULL;
    uint32_t *words = NULL;
    qb_status st;
    if (!qb_bits_fit(q->zeros, q->rows * q->n_groups, q->bits))
        return fail_code(module, "zero point", q->zeros, q->bits);
    QB_TRY(st, qb_alloc((size_t)q->rows, 1, &line));
    QB_TRY(st, qb_alloc((size_t)(q->n_groups * words_a_group), sizeof *words, &words));
    for (int64_t g = 0; g < q->n_groups; g++) {
        for (int64_t r = 0; r < q->rows; r++) line[r] = (uint8_t)(q->zeros[r * q->n_groups + g] - offset);
        qb_bits_pack(line, q->rows, q->bits, words + g * words_a_group);
    }
    st = qb_layout_put(w, module, "qzeros", words, q->n_groups * words_a_group * 4);
out:
    qb_free(line);
    qb_free(words);
    return st;
}

static qb_status put_scales(qb_writer *w, const char *module, const qb_qweight *q) {
    uint16_t *halves;
    qb_status st = qb_alloc((size_t)(q->rows * q->n_groups), sizeof *halves, &halves);
    for (int64_t r = 0; st == QB_OK && r < q->rows; r++)
        for (int64_t g = 0; g < q->n_groups; g++) {
            float s = q->scales[r * q->n_groups + g];
            uint16_t h = qb_f16_of_f32(s);
            if ((h & 0x7c00) == 0x7c00) {
                st = qb_fail(QB_ERR_NUMERIC,
                             "%s: the scale %g of row %" PRId64 ", group %" PRId64 " is not a finite float16",
                             module, (double)s, r, g);
                break;
            }
            if (qb_f32_of_f16(h) != s) { /* rounded here, reports would be of other weights than the file's */
                st = qb_fail(QB_ERR_INTERNAL,
                             "%s: the scale %.9g of row %" PRId64 ", group %" PRId64
                             " was not rounded to float16 before it is written",
                             module, (double)s, r, g);
                break;
            }
            halves[g * q->rows + r] = h;
        }
    if (st == QB_OK) st = qb_layout_put(w, module, "scales", halves, q->rows * q->n_groups * 2);
    qb_free(halves);
    return st;
}

static qb_status put_g_idx(qb_writer *w, const char *module, const qb_qweight *q) {
    int32_t *groups;
    qb_status st = qb_alloc((size_t)q->cols, sizeof *groups, &groups);
    for (int64_t c = 0; st == QB_OK && c < q->cols; c++) {
        groups[c] = q->g_idx ? q->g_idx[c] : (int32_t)(c / q->group_size);
        if (groups[c] < 0 || groups[c] >= q->n_groups)
            st = qb_fail(QB_ERR_INTERNAL, "%s: column %" PRId64 " is in group %d of %" PRId64, module, c,
                         groups[c], q->n_groups);
    }
    if (st == QB_OK) st = qb_layout_put(w, module, "g_idx", groups, q->cols * 4);
    qb_free(groups);
    return st;
}

static qb_status put_any(qb_writer *w, const char *module, const qb_qweight *q, int offset) {
    qb_status st;
    QB_TRY(st, check_any(module, q));
    QB_TRY(st, put_qweight(w, module, q));
    QB_TRY(st, put_qzeros(w, module, q, offset));
    QB_TRY(st, put_scales(w, module, q));
    QB_TRY(st, put_g_idx(w, module, q));
out:
    return st;
}

static qb_status v2_put(qb_writer *w, const char *module, const qb_qweight *q) {
    return put_any(w, module, q, 0);
}
static qb_status v1_put(qb_writer *w, const char *module, const qb_qweight *q) {
    qb_status st = v1_check(module, q);
    return st == QB_OK ? put_any(w, module, q, 1) : st;
}

/* ---- reading ---- */

static qb_status v2_read(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, qb_qweight *out) {
    return qb_gptq_read(ck, module, rows, cols, false, out);
}
static qb_status v1_read(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, qb_qweight *out) {
    return qb_gptq_read(ck, module, rows, cols, true, out);
}

/* ---- quantization_config ---- */

static void copy_option(qb_json *to, const char *key, const qb_json *options, const char *option) {
    const qb_json *value = qb_json_get(options, option);
    if (value) qb_json_put(to, key, qb_json_copy(value));
}

/* transformers' GPTQConfig keys; what only the quantizer used goes into meta, as GPTQModel does it. */
static qb_json *config_any(const qb_qweight *q, const qb_json *options, const char *format) {
    qb_json *o = qb_json_object(), *meta = qb_json_object(), *quantizer = qb_json_array();
    const qb_json *group_size = qb_json_get(options, "group_size"),
                  *act_order = qb_json_get(options, "act_order");
    qb_json_put_text(o, "quant_method", "gptq");
    qb_json_put_int(o, "bits", q->bits);
    if (qb_json_is_number(group_size))
        copy_option(o, "group_size", options, "group_size");
    else
        qb_json_put_int(o, "group_size", q->group_size >= q->cols ? -1 : q->group_size);
    qb_json_put_bool(o, "desc_act", act_order ? qb_json_true(act_order) : q->g_idx != NULL);
    qb_json_put_bool(o, "sym", q->symmetric);
    qb_json_put_bool(o, "lm_head", false);
    copy_option(o, "damp_percent", options, "damp_percent");
    copy_option(o, "static_groups", options, "static_groups");
    copy_option(o, "true_sequential", options, "true_sequential");
    qb_json_put_text(o, "checkpoint_format", format);
    qb_json_put_text(o, "pack_dtype", "int32");
    qb_json_push_text(quantizer, "quantbench:" QB_VERSION);
    qb_json_put(meta, "quantizer", quantizer);
    static const char *const used[] = {"damp_percent", "true_sequential", "static_groups", "mse"};
    for (size_t i = 0; i < sizeof used / sizeof used[0]; i++) copy_option(meta, used[i], options, used[i]);
    qb_json_put(o, "meta", meta);
    return o;
}

static qb_json *v2_config(const qb_qweight *q, const qb_json *options) {
    return config_any(q, options, "gptq_v2");
}
static qb_json *v1_config(const qb_qweight *q, const qb_json *options) {
    return config_any(q, options, "gptq");
}

const qb_layout qb_layout_gptq_v2 = {
    .name = "gptq_v2",
    .summary = "GPTQ safetensors with true zero points (GPTQModel, vLLM, transformers)",
    .source = "GPTQModel checkpoint_format gptq_v2",
    .check = v2_check,
    .plan = plan_any,
    .put = v2_put,
    .present = qb_gptq_present,
    .read = v2_read,
    .config = v2_config,
    .quantize_config_file = "quantize_config.json",
};

const qb_layout qb_layout_gptq = {
    .name = "gptq",
    .summary = "GPTQ safetensors with zero points minus one (AutoGPTQ, most published checkpoints)",
    .source = "AutoGPTQ qlinear_cuda.py",
    .check = v1_check,
    .plan = plan_any,
    .put = v1_put,
    .present = qb_gptq_present,
    .read = v1_read,
    .config = v1_config,
    .quantize_config_file = "quantize_config.json",
};
