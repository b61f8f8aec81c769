/* GPTQ checkpoints: qweight [in*bits/32, out], qzeros [groups, out*bits/32], scales [groups, out], g_idx
   [in]. v1 stores zeros minus one, v2 the true ones. Formats: AutoGPTQ qlinear_cuda.py, GPTQModel
   utils/model.py; FIELD.md a3-A, B, D. */
#include "base/log.h"
#include "checkpoint/bitpack.h"
#include "checkpoint/layout_rows.h"
#include "checkpoint/state.h"

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

/* A code that does not fit would spill into its neighbours. */
static qb_status check_codes(const char *module, const char *what, const uint8_t *codes, int64_t n,
                             int bits) {
    unsigned any = 0;
    for (int64_t i = 0; i < n; i++) any |= codes[i];
    if (any >> bits == 0) return QB_OK;
    int64_t at = 0;
    while (codes[at] >> bits == 0) at++;
    return qb_fail(QB_ERR_NUMERIC, "%s: %s %d at position %" PRId64 " does not fit %d bits", module, what,
                   codes[at], at, bits);
}

static qb_status put_qweight(qb_writer *w, const char *module, const qb_qweight *q) {
    int64_t n = q->cols / 32 * q->bits * q->rows;
    uint32_t *words;
    qb_status st;
    QB_TRY(st, check_codes(module, "code", q->codes, q->rows * q->cols, q->bits));
    QB_TRY(st, qb_alloc((size_t)n, sizeof *words, &words));
    qb_bits_pack_transposed(q->codes, q->rows, q->cols, q->bits, words);
    st = qb_layout_put(w, module, "qweight", words, n * 4);
    qb_free(words);
out:
    return st;
}

/* zeros [rows, groups] lie packed along the rows: [groups, rows]. */
static qb_status put_qzeros(qb_writer *w, const char *module, const qb_qweight *q, int offset) {
    int64_t words_a_group = q->rows / 32 * q->bits;
    uint8_t *line = NULL;
    uint32_t *words = NULL;
    qb_status st;
    QB_TRY(st, check_codes(module, "zero point", q->zeros, q->rows * q->n_groups, q->bits));
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
            if ((h & 0x7fff) == 0 && s > 0)
                h = 1; /* as qb_qweight_round_scales: a step never becomes nothing */
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

static bool present(const qb_checkpoint *ck, const char *module) {
    return qb_module_tensor_find(ck, module, "qweight") != NULL;
}

/* What the config says of this module's shape, checked against the file's tensors. */
typedef struct {
    const qb_tensor *qweight, *qzeros, *scales, *g_idx; /* g_idx may be NULL */
    int64_t rows, cols, group_size, n_groups;
    int bits;
} parts;

static qb_status find_parts(const qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols,
                            parts *p) {
    const qb_quantization *how = qb_checkpoint_quantization(ck);
    int bits = how->bits;
    *p = (parts){.rows = rows, .cols = cols, .bits = bits};
    p->group_size = how->group_size < 0 || how->group_size > cols ? cols : how->group_size;
    p->n_groups = (cols + p->group_size - 1) / p->group_size;
    if (rows < 1 || cols < 1 || rows > INT32_MAX || cols > INT32_MAX || cols * bits % 32 != 0 ||
        rows * bits % 32 != 0)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: %s: [%" PRId64 ", %" PRId64 "] at %d bits does not fill whole words", ck->dir,
                       module, rows, cols, bits);
    qb_status st;
    QB_TRY(st, qb_module_tensor(ck, module, "qweight", &p->qweight));
    QB_TRY(st, qb_module_tensor(ck, module, "qzeros", &p->qzeros));
    QB_TRY(st, qb_module_tensor(ck, module, "scales", &p->scales));
    p->g_idx = qb_module_tensor_find(ck, module, "g_idx");
    QB_TRY(st, qb_tensor_expect(ck, p->qweight, QB_DTYPE_I32, 2, (int64_t[]){cols * bits / 32, rows}));
    QB_TRY(st, qb_tensor_expect(ck, p->qzeros, QB_DTYPE_I32, 2, (int64_t[]){p->n_groups, rows * bits / 32}));
    qb_dtype dtype = p->scales->dtype == QB_DTYPE_F32 || p->scales->dtype == QB_DTYPE_BF16 ? p->scales->dtype
                                                                                           : QB_DTYPE_F16;
    QB_TRY(st, qb_tensor_expect(ck, p->scales, dtype, 2, (int64_t[]){p->n_groups, rows}));
    if (p->g_idx) QB_TRY(st, qb_tensor_expect(ck, p->g_idx, QB_DTYPE_I32, 1, &cols));
out:
    return st;
}

static qb_status read_codes(qb_checkpoint *ck, const parts *p, qb_qweight *q) {
    const void *words;
    qb_status st = qb_checkpoint_acquire(ck, p->qweight, &words);
    if (st != QB_OK) return st;
    qb_bits_unpack_transposed(words, p->rows, p->cols, p->bits, q->codes);
    qb_checkpoint_release(ck, p->qweight);
    return QB_OK;
}

/* The zeros as the file stores them, [groups, rows]. All-ones words are counted: writers that do not mask
   make one of a true zero of 0 in v1, and spoil its neighbours with it. */
static qb_status read_fields(qb_checkpoint *ck, const parts *p, uint8_t *fields, int64_t *all_ones) {
    const void *bytes;
    qb_status st = qb_checkpoint_acquire(ck, p->qzeros, &bytes);
    if (st != QB_OK) return st;
    const uint32_t *words = bytes;
    int64_t words_a_group = p->rows * p->bits / 32;
    *all_ones = 0;
    for (int64_t g = 0; g < p->n_groups; g++) {
        qb_bits_unpack(words + g * words_a_group, p->rows, p->bits, fields + g * p->rows);
        for (int64_t w = 0; w < words_a_group; w++) *all_ones += words[g * words_a_group + w] == 0xffffffffu;
    }
    qb_checkpoint_release(ck, p->qzeros);
    return QB_OK;
}

static bool all_equal(const uint8_t *fields, int64_t n, int value) {
    for (int64_t i = 0; i < n; i++)
        if (fields[i] != value) return false;
    return true;
}

/* What to add to a stored zero. The label says 1 for v1 and 0 for v2, but some writers label wrongly: a
   symmetric weight has but one zero point, 2^(bits-1), so its fields tell which convention they follow. */
static int zero_offset(qb_checkpoint *ck, const char *module, const parts *p, const uint8_t *fields,
                       bool v1) {
    int middle = 1 << (p->bits - 1);
    int64_t n = p->rows * p->n_groups;
    int found = !ck->quantization.symmetric        ? v1
                : all_equal(fields, n, middle)     ? 0
                : all_equal(fields, n, middle - 1) ? 1
                                                   : v1;
    if (found != (int)v1 && qb_checkpoint_first_warning(ck, QB_WARNING_ZERO_CONVENTION))
        qb_warn("%s: %s is labelled %s, but every zero point is stored as %d, the value of %s for symmetric "
                "weights; read as %s",
                ck->dir, module, v1 ? "gptq" : "gptq_v2", found ? middle - 1 : middle,
                found ? "gptq" : "gptq_v2", found ? "gptq" : "gptq_v2");
    return found;
}

static qb_status read_zeros(qb_checkpoint *ck, const char *module, const parts *p, bool v1, qb_qweight *q) {
    uint8_t *fields;
    int64_t all_ones, n = p->rows * p->n_groups;
    qb_status st = qb_alloc((size_t)n, 1, &fields);
    if (st == QB_OK) st = read_fields(ck, p, fields, &all_ones);
    if (st != QB_OK) goto out;
    int offset = zero_offset(ck, module, p, fields, v1), mask = (1 << p->bits) - 1,
        middle = 1 << (p->bits - 1);
    if (offset && all_ones && qb_checkpoint_first_warning(ck, QB_WARNING_CORRUPT_ZEROS))
        qb_warn("%s: %s.qzeros holds %" PRId64
                " words of ones only: a writer of layout gptq met zero points of 0 and may have "
                "spoilt their neighbours; expect a worse model than its weights deserve",
                ck->dir, module, all_ones);
    q->symmetric = true;
    for (int64_t g = 0; g < p->n_groups; g++)
        for (int64_t r = 0; r < p->rows; r++) {
            /* The stored field is the zero minus one in `bits` bits, so 2^bits - 1 stands for 0. */
            int zero = (fields[g * p->rows + r] + offset) & mask;
            q->zeros[r * p->n_groups + g] = (uint8_t)zero;
            if (zero != middle) q->symmetric = false;
        }
out:
    qb_free(fields);
    return st;
}

static qb_status read_scales(qb_checkpoint *ck, const char *module, const parts *p, qb_qweight *q) {
    float *values = NULL;
    qb_status st = qb_checkpoint_read_f32(ck, p->scales->name, p->n_groups, p->rows, &values);
    for (int64_t g = 0; st == QB_OK && g < p->n_groups; g++)
        for (int64_t r = 0; r < p->rows; r++) {
            float s = values[g * p->rows + r];
            if (!isfinite(s)) {
                st = qb_fail(QB_ERR_NUMERIC,
                             "%s: %s.scales: the scale of group %" PRId64 ", row %" PRId64 " is %g", ck->dir,
                             module, g, r, (double)s);
                break;
            }
            q->scales[r * p->n_groups + g] = s;
        }
    qb_free(values);
    return st;
}

/* g_idx is kept only where it says more than column / group_size. */
static qb_status read_g_idx(qb_checkpoint *ck, const char *module, const parts *p, qb_qweight *q) {
    const void *bytes;
    /* Older files have none; with act-order the groups follow from it alone, unless they are static. */
    if (!p->g_idx && ck->quantization.desc_act && !ck->quantization.static_groups && p->n_groups > 1)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %s.g_idx is missing, and desc_act is true in config.json",
                       ck->dir, module);
    if (!p->g_idx) return QB_OK;
    qb_status st = qb_checkpoint_acquire(ck, p->g_idx, &bytes);
    if (st != QB_OK) return st;
    const int32_t *groups = bytes;
    bool natural = true;
    for (int64_t c = 0; c < p->cols; c++) {
        if (groups[c] < 0 || groups[c] >= p->n_groups) {
            st = qb_fail(QB_ERR_FORMAT,
                         "%s: %s.g_idx: column %" PRId64 " is in group %d, outside [0, %" PRId64 ")", ck->dir,
                         module, c, groups[c], p->n_groups);
            goto out;
        }
        natural = natural && groups[c] == c / p->group_size;
    }
    if (natural) goto out;
    QB_TRY(st, qb_alloc((size_t)p->cols, sizeof *q->g_idx, &q->g_idx));
    memcpy(q->g_idx, groups, (size_t)p->cols * sizeof *q->g_idx);
out:
    qb_checkpoint_release(ck, p->g_idx);
    return st;
}

static qb_status read_any(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, bool v1,
                          qb_qweight *out) {
    parts p;
    *out = (qb_qweight){0};
    qb_status st;
    QB_TRY(st, find_parts(ck, module, rows, cols, &p));
    QB_TRY(st, qb_qweight_alloc_affine(rows, cols, p.bits, p.group_size, false, out));
    QB_TRY(st, read_codes(ck, &p, out));
    QB_TRY(st, read_zeros(ck, module, &p, v1, out));
    QB_TRY(st, read_scales(ck, module, &p, out));
    QB_TRY(st, read_g_idx(ck, module, &p, out));
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}

static qb_status v2_read(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, qb_qweight *out) {
    return read_any(ck, module, rows, cols, false, out);
}
static qb_status v1_read(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, qb_qweight *out) {
    return read_any(ck, module, rows, cols, true, out);
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
    .present = present,
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
    .present = present,
    .read = v1_read,
    .config = v1_config,
    .quantize_config_file = "quantize_config.json",
};
