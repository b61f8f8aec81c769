/* bitsandbytes 8-bit checkpoints, the weights of LLM.int8(): weight int8 [out, in], SCB float32 [out] with
   each row's largest magnitude, weight_format uint8 0 for rows. w = weight * SCB / 127. Format: bitsandbytes
   nn.Linear8bitLt; docs/formats.md. */
#include "base/memory.h"
#include "checkpoint/layouts/layout_rows.h"
#include "checkpoint/layouts/read_parts.h"
#include "checkpoint/state.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { MIDDLE = 128 }; /* the unsigned code of 0 */

/* ---- writing ---- */

static qb_status check(const char *module, const qb_qweight *q) {
    char what[48];
    if (!q->int8_rows)
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: the layout bnb8 holds the method int8's rows, not %s; use gptq_v2 or bnb4",
                       module, qb_qweight_describe(q, what));
    if (q->rows < 1 || q->cols < 1 || q->bits != 8 || q->n_groups != 1)
        return qb_fail(QB_ERR_INTERNAL,
                       "%s: int8 rows of %d bits in %" PRId64 " groups: expected 8 bits, one group", module,
                       q->bits, q->n_groups);
    return QB_OK;
}

static qb_status plan(qb_writer *w, const char *module, const qb_qweight *q) {
    qb_status st;
    QB_TRY(st, check(module, q));
    QB_TRY(st, qb_layout_plan(w, module, "weight", QB_DTYPE_I8, 2, q->rows, q->cols));
    QB_TRY(st, qb_layout_plan(w, module, "SCB", QB_DTYPE_F32, 1, q->rows, 0));
    QB_TRY(st, qb_layout_plan(w, module, "weight_format", QB_DTYPE_U8, 0, 0, 0));
out:
    return st;
}

static qb_status put(qb_writer *w, const char *module, const qb_qweight *q) {
    static const uint8_t rows_format = 0;
    int64_t n = q->rows * q->cols;
    int8_t *values = NULL;
    qb_status st;
    QB_TRY(st, check(module, q));
    for (int64_t r = 0; r < q->rows; r++)
        if (!isfinite(q->absmax[r]))
            return qb_fail(QB_ERR_NUMERIC, "%s: the largest magnitude of row %" PRId64 " is %g", module, r,
                           (double)q->absmax[r]);
    QB_TRY(st, qb_alloc((size_t)n, 1, &values));
    for (int64_t i = 0; i < n; i++) values[i] = (int8_t)(q->codes[i] - MIDDLE);
    QB_TRY(st, qb_layout_put(w, module, "weight", values, n));
    QB_TRY(st, qb_layout_put(w, module, "SCB", q->absmax, q->rows * 4));
    QB_TRY(st, qb_layout_put(w, module, "weight_format", &rows_format, 1));
out:
    qb_free(values);
    return st;
}

/* ---- reading ---- */

static bool present(const qb_checkpoint *ck, const char *module) {
    return qb_module_tensor_find(ck, module, "SCB") != NULL;
}

/* Absent in older files, whose weights lie by rows. */
static qb_status check_format(qb_checkpoint *ck, const char *module) {
    static const char *const names[] = {"row", "col32", "col_turing", "col_ampere"};
    const qb_tensor *t = qb_module_tensor_find(ck, module, "weight_format");
    const void *bytes;
    if (!t) return QB_OK;
    qb_status st;
    QB_TRY(st, qb_tensor_expect(ck, t, QB_DTYPE_U8, t->bytes == 1 ? t->n_dims : 0, t->shape));
    QB_TRY(st, qb_checkpoint_acquire(ck, t, &bytes));
    unsigned format = *(const uint8_t *)bytes;
    qb_checkpoint_release(ck, t);
    if (format != 0)
        st = qb_fail(QB_ERR_UNSUPPORTED,
                     "%s: tensor %.200s: weight format %u (%s) is not supported (supported: 0, row); save it "
                     "again with a newer bitsandbytes",
                     ck->dir, t->name, format,
                     format < sizeof names / sizeof names[0] ? names[format] : "unknown");
out:
    return st;
}

static void int8_codes(const qb_code_source *from, int64_t first, int64_t n, uint8_t *codes) {
    const qb_tensor_codes *c = (const qb_tensor_codes *)from;
    const uint8_t *values = (const uint8_t *)c->bytes + first * c->cols;
    const int64_t count = n * c->cols;
    for (int64_t i = 0; i < count; i++) codes[i] = values[i] ^ MIDDLE; /* signed, and MIDDLE more */
}

static qb_status read_rows(qb_checkpoint *ck, const qb_tensor *scb, qb_qweight *q) {
    qb_status st = qb_checkpoint_read_f32(ck, scb->name, q->rows, 0, &q->absmax);
    for (int64_t r = 0; st == QB_OK && r < q->rows; r++) {
        q->scales[r] = q->absmax[r] / 127.0F;
        if (!isfinite(q->absmax[r]))
            st = qb_fail(QB_ERR_NUMERIC,
                         "%s: tensor %.200s: row %" PRId64
                         " is %g: expected finite numbers; the checkpoint is damaged",
                         ck->dir, scb->name, r, (double)q->absmax[r]);
    }
    return st;
}

static qb_status read(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, qb_qweight *out) {
    const qb_tensor *weight, *scb;
    qb_tensor_codes *codes;
    *out = (qb_qweight){0};
    qb_status st;
    QB_TRY(st, qb_module_tensor(ck, module, "weight", &weight));
    QB_TRY(st, qb_module_tensor(ck, module, "SCB", &scb));
    QB_TRY(st, qb_tensor_expect(ck, weight, QB_DTYPE_I8, 2, (int64_t[]){rows, cols}));
    QB_TRY(st, qb_tensor_expect(ck, scb, QB_DTYPE_F32, 1, &rows));
    QB_TRY(st, check_format(ck, module));
    QB_TRY(st, qb_qweight_form_affine(rows, cols, 8, cols, out));
    out->int8_rows = true;
    out->symmetric = true;
    out->scale_dtype = QB_DTYPE_F32;
    QB_TRY(st, qb_qweight_alloc_values(out, false));
    QB_TRY(st, read_rows(ck, scb, out));
    st = qb_leave_codes(ck, weight, int8_codes, out, &codes);
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}

/* ---- quantization_config ---- */

/* transformers' BitsAndBytesConfig. */
static qb_json *config(const qb_qweight *q, const qb_json *method_config) {
    (void)q;
    (void)method_config;
    qb_json *o = qb_json_object();
    qb_json_put_text(o, "quant_method", "bitsandbytes");
    qb_json_put_bool(o, "_load_in_4bit", false);
    qb_json_put_bool(o, "_load_in_8bit", true);
    qb_json_put_bool(o, "load_in_4bit", false);
    qb_json_put_bool(o, "load_in_8bit", true);
    qb_json_put_decimal(o, "llm_int8_threshold", 6.0);
    qb_json_put_null(o, "llm_int8_skip_modules");
    qb_json_put_bool(o, "llm_int8_enable_fp32_cpu_offload", false);
    qb_json_put_bool(o, "llm_int8_has_fp16_weight", false);
    qb_json_put_text(o, "bnb_4bit_quant_type", "fp4"); /* the library's defaults, without meaning here */
    qb_json_put_bool(o, "bnb_4bit_use_double_quant", false);
    qb_json_put_text(o, "bnb_4bit_compute_dtype", "float32");
    qb_json_put_text(o, "bnb_4bit_quant_storage", "uint8");
    return o;
}

const qb_layout qb_layout_bnb8 = {
    .name = "bnb8",
    .summary = "bitsandbytes 8-bit safetensors (transformers load_in_8bit), rows of int8",
    .source = "bitsandbytes nn.Linear8bitLt",
    .check = check,
    .plan = plan,
    .put = put,
    .present = present,
    .read = read,
    .config = config,
    .quantize_config_file = NULL,
};
