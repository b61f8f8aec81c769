/* bitsandbytes 4-bit checkpoints: weight uint8 [(out*in+1)/2, 1] with the even element in the high nibble,
   absmax, quant_map, and quant_state as JSON bytes. Format: bitsandbytes nn.Linear4bit and
   functional.QuantState; docs/formats.md. */
#include "checkpoint/layouts/layout_rows.h"
#include "checkpoint/layouts/quant_state.h"
#include "checkpoint/layouts/read_parts.h"
#include "checkpoint/state.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static int64_t n_nested(int64_t n_blocks) {
    return (n_blocks + QB_NESTED_BLOCK - 1) / QB_NESTED_BLOCK;
}

static const char *state_suffix(qb_codebook codebook) {
    return codebook == QB_CODEBOOK_FP4 ? "weight.quant_state.bitsandbytes__fp4"
                                       : "weight.quant_state.bitsandbytes__nf4";
}

/* ---- writing ---- */

static qb_status check(const char *module, const qb_qweight *q) {
    char what[48];
    if (q->coding != QB_CODING_CODEBOOK || (q->codebook != QB_CODEBOOK_NF4 && q->codebook != QB_CODEBOOK_FP4))
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: bitsandbytes checkpoints hold nf4 and fp4, not %s; use the layout gptq_v2",
                       module, qb_qweight_describe(q, what));
    if (!qb_bnb_block_size_ok(q->block_size))
        return qb_fail(QB_ERR_UNSUPPORTED,
                       "%s: bitsandbytes knows no block size of %" PRId64
                       "; use a power of two from 32 to 4096",
                       module, q->block_size);
    if (q->rows < 1 || q->cols < 1 || q->n_blocks != (q->rows * q->cols + q->block_size - 1) / q->block_size)
        return qb_fail(QB_ERR_INTERNAL,
                       "%s: %" PRId64 " blocks of %" PRId64 " do not cover [%" PRId64 ", %" PRId64 "]",
                       module, q->n_blocks, q->block_size, q->rows, q->cols);
    return QB_OK;
}

static qb_status state_text(const qb_qweight *q, qb_str *out) {
    qb_quant_state s = {q->codebook,     q->block_size,   {q->rows, q->cols},
                        q->source_dtype, q->double_quant, q->nested_offset};
    qb_quant_state_write(&s, out);
    return qb_str_status(out);
}

/* The JSON's length depends on the digits of nested_offset. A plan is made before the weight is quantized,
   and the header is written then: room for the longest number is planned, and what it leaves is filled with
   blanks, which JSON allows behind a value. */
enum { LONGEST_REAL = 24 };

static qb_status state_room(const qb_qweight *q, int64_t *bytes) {
    qb_str text = {0};
    bool known = !q->double_quant || q->nested_absmax;
    qb_qweight shape = *q;
    if (!known) shape.nested_offset = 0; /* "0.0" */
    qb_status st = state_text(&shape, &text);
    *bytes = (int64_t)text.length + (known ? 0 : LONGEST_REAL - 3);
    qb_str_free(&text);
    return st;
}

static qb_status plan(qb_writer *w, const char *module, const qb_qweight *q) {
    int64_t room;
    qb_status st;
    QB_TRY(st, check(module, q));
    QB_TRY(st, state_room(q, &room));
    QB_TRY(st, qb_layout_plan(w, module, "weight", QB_DTYPE_U8, 2, (q->rows * q->cols + 1) / 2, 1));
    QB_TRY(st, qb_layout_plan(w, module, "weight.absmax", q->double_quant ? QB_DTYPE_U8 : QB_DTYPE_F32, 1,
                              q->n_blocks, 1));
    QB_TRY(st, qb_layout_plan(w, module, "weight.quant_map", QB_DTYPE_F32, 1, 16, 1));
    if (q->double_quant) {
        QB_TRY(st,
               qb_layout_plan(w, module, "weight.nested_absmax", QB_DTYPE_F32, 1, n_nested(q->n_blocks), 1));
        QB_TRY(st, qb_layout_plan(w, module, "weight.nested_quant_map", QB_DTYPE_F32, 1, 256, 1));
    }
    QB_TRY(st, qb_layout_plan(w, module, state_suffix(q->codebook), QB_DTYPE_U8, 1, room, 1));
out:
    return st;
}

/* bitsandbytes fills up an odd matrix with a zero. */
static uint8_t code_of_zero(qb_codebook codebook) {
    uint8_t code = 0;
    while (qb_codebook_table(codebook)[code] != 0.0f) code++;
    return code;
}

/* Two codes to a byte, the even one in the high nibble. */
static void pack_nibbles(const uint8_t *codes, int64_t n, uint8_t *out) {
    for (int64_t i = 0; i < n / 2; i++) out[i] = (uint8_t)(codes[2 * i] << 4 | codes[2 * i + 1]);
}

/* n codes from code `first` on. */
static void unpack_nibbles(const uint8_t *bytes, int64_t first, int64_t n, uint8_t *codes) {
    bytes += first / 2;
    if (first % 2 && n) *codes++ = *bytes++ & 15, n--;
    for (int64_t i = 0; i < n / 2; i++) {
        codes[2 * i] = bytes[i] >> 4;
        codes[2 * i + 1] = bytes[i] & 15;
    }
    if (n % 2) codes[n - 1] = bytes[n / 2] >> 4;
}

static void nibble_codes(const qb_code_source *from, int64_t first, int64_t n, uint8_t *codes) {
    const qb_tensor_codes *c = (const qb_tensor_codes *)from;
    unpack_nibbles(c->bytes, first * c->cols, n * c->cols, codes);
}

static qb_status put_weight(qb_writer *w, const char *module, const qb_qweight *q) {
    int64_t n = q->rows * q->cols;
    uint8_t *bytes, any = 0;
    for (int64_t i = 0; i < n; i++) any |= q->codes[i];
    if (any > 15) return qb_fail(QB_ERR_NUMERIC, "%s: a code does not fit 4 bits", module);
    qb_status st = qb_alloc((size_t)(n + 1) / 2, 1, &bytes);
    if (st != QB_OK) return st;
    pack_nibbles(q->codes, n, bytes);
    if (n % 2) bytes[n / 2] = (uint8_t)(q->codes[n - 1] << 4 | code_of_zero(q->codebook));
    st = qb_layout_put(w, module, "weight", bytes, (n + 1) / 2);
    qb_free(bytes);
    return st;
}

static qb_status check_finite(const char *where, const float *values, int64_t n) {
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return qb_fail(QB_ERR_NUMERIC, "%s: value %" PRId64 " is %g", where, i, (double)values[i]);
    return QB_OK;
}

static qb_status put_absmax(qb_writer *w, const char *module, const qb_qweight *q) {
    qb_status st;
    if (!q->double_quant) {
        QB_TRY(st, check_finite(module, q->absmax, q->n_blocks));
        return qb_layout_put(w, module, "weight.absmax", q->absmax, q->n_blocks * 4);
    }
    QB_TRY(st, check_finite(module, q->nested_absmax, n_nested(q->n_blocks)));
    QB_TRY(st, check_finite(module, &q->nested_offset, 1));
    QB_TRY(st, qb_layout_put(w, module, "weight.absmax", q->absmax_codes, q->n_blocks));
    QB_TRY(st, qb_layout_put(w, module, "weight.nested_absmax", q->nested_absmax, n_nested(q->n_blocks) * 4));
    QB_TRY(st, qb_layout_put(w, module, "weight.nested_quant_map", qb_dynamic_map(), 256 * 4));
out:
    return st;
}

static qb_status put_state(qb_writer *w, const char *module, const qb_qweight *q) {
    char name[QB_TENSOR_NAME_MAX];
    qb_str text = {0};
    qb_status st;
    QB_TRY(st, qb_module_tensor_name(module, state_suffix(q->codebook), name));
    QB_TRY(st, state_text(q, &text));
    while ((int64_t)text.length < qb_writer_planned_bytes(w, name) && !text.failed) qb_str_text(&text, " ");
    QB_TRY(st, qb_str_status(&text));
    st = qb_writer_put(w, name, text.text, (int64_t)text.length);
out:
    qb_str_free(&text);
    return st;
}

static qb_status put(qb_writer *w, const char *module, const qb_qweight *q) {
    qb_status st;
    QB_TRY(st, check(module, q));
    QB_TRY(st, put_weight(w, module, q));
    QB_TRY(st, put_absmax(w, module, q));
    QB_TRY(st, qb_layout_put(w, module, "weight.quant_map", qb_codebook_table(q->codebook), 16 * 4));
    QB_TRY(st, put_state(w, module, q));
out:
    return st;
}

/* ---- reading ---- */

static const qb_tensor *find_state(const qb_checkpoint *ck, const char *module) {
    const qb_tensor *t = qb_module_tensor_find(ck, module, state_suffix(QB_CODEBOOK_NF4));
    return t ? t : qb_module_tensor_find(ck, module, state_suffix(QB_CODEBOOK_FP4));
}

static bool present(const qb_checkpoint *ck, const char *module) {
    return find_state(ck, module) != NULL || qb_module_tensor_find(ck, module, "weight.absmax") != NULL;
}

static qb_status read_state(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols,
                            qb_quant_state *out) {
    const qb_tensor *t = find_state(ck, module);
    const void *bytes;
    qb_status st = QB_OK;
    if (!t) st = qb_module_tensor(ck, module, state_suffix(QB_CODEBOOK_NF4), &t);
    if (st == QB_OK) st = qb_tensor_expect(ck, t, QB_DTYPE_U8, 1, &t->bytes);
    if (st == QB_OK) st = qb_checkpoint_acquire(ck, t, &bytes);
    if (st != QB_OK) return st;
    char where[1024];
    snprintf(where, sizeof where, "%s: tensor %.200s", ck->dir, t->name);
    st = qb_quant_state_read(bytes, (size_t)t->bytes, where, out);
    qb_checkpoint_release(ck, t);
    if (st == QB_OK && (out->shape[0] != rows || out->shape[1] != cols))
        st = qb_fail(QB_ERR_FORMAT,
                     "%s: shape [%" PRId64 ", %" PRId64 "], expected [%" PRId64 ", %" PRId64
                     "] from the model's config",
                     where, out->shape[0], out->shape[1], rows, cols);
    return st;
}

/* quant_storage may show the bytes as another dtype ("bfloat16"), whose last element may be filled up. */
static qb_status find_weight(qb_checkpoint *ck, const char *module, qb_qweight *q) {
    const qb_tensor *t;
    qb_tensor_codes *codes;
    qb_status st;
    QB_TRY(st, qb_module_tensor(ck, module, "weight", &t));
    int64_t need = (q->rows * q->cols + 1) / 2;
    char found[160];
    if (t->dtype == QB_DTYPE_COUNT || t->bytes < need || t->bytes >= need + (int64_t)qb_dtype_bytes(t->dtype))
        return qb_fail(QB_ERR_FORMAT,
                       "%s: tensor %.200s: expected %" PRId64 " bytes of 4-bit codes, found %s", ck->dir,
                       t->name, need, qb_tensor_describe(ck, t, found));
    st = qb_leave_codes(ck, t, nibble_codes, q, &codes);
out:
    return st;
}

/* A 1-D float32 tensor of the module, finite, in new memory. */
static qb_status read_floats(qb_checkpoint *ck, const char *module, const char *suffix, int64_t n,
                             float **out) {
    const qb_tensor *t;
    char where[1024];
    qb_status st;
    QB_TRY(st, qb_module_tensor(ck, module, suffix, &t));
    QB_TRY(st, qb_tensor_expect(ck, t, QB_DTYPE_F32, 1, &n));
    QB_TRY(st, qb_checkpoint_read_f32(ck, t->name, n, 0, out));
    snprintf(where, sizeof where, "%s: tensor %.200s", ck->dir, t->name);
    st = check_finite(where, *out, n);
out:
    return st;
}

/* The file's own table must be the one that the kernels read codes by. */
static qb_status check_quant_map(qb_checkpoint *ck, const char *module, qb_codebook codebook) {
    float *map = NULL;
    const float *table = qb_codebook_table(codebook);
    qb_status st = read_floats(ck, module, "weight.quant_map", 16, &map);
    for (int i = 0; st == QB_OK && i < 16; i++)
        if (fabsf(map[i] - table[i]) > 1e-6f)
            st = qb_fail(QB_ERR_UNSUPPORTED, "%s: %s.weight.quant_map: code %d stands for %g, in %s it is %g",
                         ck->dir, module, i, (double)map[i], qb_codebook_name(codebook), (double)table[i]);
    qb_free(map);
    return st;
}

/* absmax = nested_quant_map[code] * nested_absmax[block / 256] + offset, each step rounded to float32. */
static qb_status read_nested_absmax(qb_checkpoint *ck, const char *module, qb_qweight *q) {
    const qb_tensor *t;
    const void *codes = NULL;
    float *map = NULL, *nested = NULL;
    qb_status st;
    QB_TRY(st, qb_module_tensor(ck, module, "weight.absmax", &t));
    QB_TRY(st, qb_tensor_expect(ck, t, QB_DTYPE_U8, 1, &q->n_blocks));
    QB_TRY(st, read_floats(ck, module, "weight.nested_quant_map", 256, &map));
    QB_TRY(st, read_floats(ck, module, "weight.nested_absmax", n_nested(q->n_blocks), &nested));
    QB_TRY(st, qb_checkpoint_acquire(ck, t, &codes));
    memcpy(q->absmax_codes, codes, (size_t)q->n_blocks);
    qb_checkpoint_release(ck, t);
    memcpy(q->nested_absmax, nested, (size_t)n_nested(q->n_blocks) * sizeof *nested);
    for (int64_t i = 0; i < q->n_blocks; i++) {
        float scaled = map[q->absmax_codes[i]] * nested[i / QB_NESTED_BLOCK];
        q->absmax[i] = scaled + q->nested_offset;
    }
    st = check_finite(t->name, q->absmax, q->n_blocks);
out:
    qb_free(map);
    qb_free(nested);
    return st;
}

static qb_status read_absmax(qb_checkpoint *ck, const char *module, qb_qweight *q) {
    if (q->double_quant) return read_nested_absmax(ck, module, q);
    float *absmax = NULL;
    qb_status st = read_floats(ck, module, "weight.absmax", q->n_blocks, &absmax);
    if (st == QB_OK) memcpy(q->absmax, absmax, (size_t)q->n_blocks * sizeof *absmax);
    qb_free(absmax);
    return st;
}

/* That the codes are there for the shape before arrays of that shape are allocated. */
static qb_status check_weight_size(const qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols) {
    const qb_tensor *t;
    qb_status st = qb_module_tensor(ck, module, "weight", &t);
    if (st != QB_OK) return st;
    char found[160];
    if (rows > INT32_MAX || cols > INT32_MAX || t->bytes < (rows * cols + 1) / 2)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: tensor %.200s: %s is too small for 4-bit codes of [%" PRId64 ", %" PRId64 "]",
                       ck->dir, t->name, qb_tensor_describe(ck, t, found), rows, cols);
    return QB_OK;
}

static qb_status read(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, qb_qweight *out) {
    qb_quant_state s;
    *out = (qb_qweight){0};
    qb_status st;
    QB_TRY(st, read_state(ck, module, rows, cols, &s));
    QB_TRY(st, check_weight_size(ck, module, rows, cols));
    QB_TRY(st, check_quant_map(ck, module, s.codebook));
    QB_TRY(st, qb_qweight_form_codebook(rows, cols, s.codebook, s.block_size, s.nested, out));
    QB_TRY(st, qb_qweight_alloc_values(out, false));
    out->source_dtype = s.dtype;
    out->nested_offset = s.nested_offset;
    QB_TRY(st, find_weight(ck, module, out));
    QB_TRY(st, read_absmax(ck, module, out));
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}

/* ---- quantization_config ---- */

/* transformers' BitsAndBytesConfig. Its block size is not a key: it lies in each quant_state. */
static qb_json *config(const qb_qweight *q, const qb_json *method_config) {
    (void)method_config;
    qb_json *o = qb_json_object();
    qb_json_put_text(o, "quant_method", "bitsandbytes");
    qb_json_put_bool(o, "_load_in_4bit", true);
    qb_json_put_bool(o, "_load_in_8bit", false);
    qb_json_put_bool(o, "load_in_4bit", true);
    qb_json_put_bool(o, "load_in_8bit", false);
    qb_json_put_text(o, "bnb_4bit_quant_type", qb_codebook_name(q->codebook));
    qb_json_put_bool(o, "bnb_4bit_use_double_quant", q->double_quant);
    qb_json_put_text(o, "bnb_4bit_compute_dtype", qb_dtype_torch_name(q->source_dtype));
    qb_json_put_text(o, "bnb_4bit_quant_storage", "uint8");
    qb_json_put_decimal(o, "llm_int8_threshold", 6.0);
    qb_json_put_null(o, "llm_int8_skip_modules");
    qb_json_put_bool(o, "llm_int8_enable_fp32_cpu_offload", false);
    qb_json_put_bool(o, "llm_int8_has_fp16_weight", false);
    return o;
}

const qb_layout qb_layout_bnb4 = {
    .name = "bnb4",
    .summary = "bitsandbytes 4-bit safetensors (transformers load_in_4bit), nf4 and fp4, double quantization",
    .source = "bitsandbytes functional.QuantState",
    .check = check,
    .plan = plan,
    .put = put,
    .present = present,
    .read = read,
    .config = config,
    .quantize_config_file = NULL,
};
