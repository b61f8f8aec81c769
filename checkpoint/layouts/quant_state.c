#include "checkpoint/layouts/quant_state.h"

#include "base/json.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void qb_python_real(double value, qb_str *out) {
    char text[40];
    int precision = 0;
    do snprintf(text, sizeof text, "%.*e", precision, value);
    while (strtod(text, NULL) != value && ++precision < 17);
    /* "[-]d.ddde[+-]xx" */
    char digits[32];
    const char *p = text;
    size_t n = 0;
    if (*p == '-') {
        qb_str_text(out, "-");
        p++;
    }
    for (; *p && *p != 'e'; p++)
        if (*p != '.') digits[n++] = *p;
    digits[n] = 0;
    int exponent = *p ? (int)strtol(p + 1, NULL, 10) : 0;
    if (exponent < -4 || exponent >= 16) {
        qb_str_printf(out, n > 1 ? "%.1s.%se%s%02d" : "%.1s%se%s%02d", digits, digits + 1,
                      exponent < 0 ? "-" : "+", abs(exponent));
    } else if (exponent < 0) {
        qb_str_printf(out, "0.%.*s%s", -exponent - 1, "0000", digits);
    } else if ((size_t)exponent + 1 >= n) {
        qb_str_printf(out, "%s%.*s.0", digits, exponent + 1 - (int)n, "0000000000000000");
    } else {
        qb_str_printf(out, "%.*s.%s", exponent + 1, digits, digits + exponent + 1);
    }
}

void qb_quant_state_write(const qb_quant_state *s, qb_str *out) {
    qb_str_printf(out,
                  "{\"quant_type\": \"%s\", \"blocksize\": %" PRId64
                  ", \"dtype\": \"%s\", \"shape\": [%" PRId64 ", %" PRId64 "]",
                  qb_codebook_name(s->codebook), s->block_size, qb_dtype_torch_name(s->dtype), s->shape[0],
                  s->shape[1]);
    if (s->nested) {
        qb_str_printf(out, ", \"nested_blocksize\": %d, \"nested_dtype\": \"float32\", \"nested_offset\": ",
                      QB_NESTED_BLOCK);
        qb_python_real((double)s->nested_offset, out);
    }
    qb_str_text(out, "}");
}

bool qb_bnb_block_size_ok(int64_t block_size) {
    return block_size >= 32 && block_size <= 4096 && (block_size & (block_size - 1)) == 0;
}

static qb_status read_shape(const qb_json *json, const char *where, int64_t shape[2]) {
    const qb_json *j = qb_json_get(json, "shape");
    if (!qb_json_is_array(j) || qb_json_count(j) != 2)
        return qb_fail(QB_ERR_FORMAT, "%s: \"shape\" must be two sizes", where);
    int d = 0;
    for (j = qb_json_first(j); j; j = qb_json_next(j)) {
        double v = qb_json_number(j);
        if (!(v >= 1 && v <= INT32_MAX) || v != floor(v))
            return qb_fail(QB_ERR_FORMAT, "%s: \"shape\" must be two positive sizes", where);
        shape[d++] = (int64_t)v;
    }
    return QB_OK;
}

static qb_status read_nested(const qb_json *json, const char *where, qb_quant_state *out) {
    int64_t nested_block = 0;
    double offset = 0;
    const char *dtype = "float32";
    out->nested = !qb_json_is_null(qb_json_get(json, "nested_blocksize"));
    if (!out->nested) return QB_OK;
    qb_status st;
    QB_TRY(st, qb_json_int(json, "nested_blocksize", where, true, QB_NESTED_BLOCK, QB_NESTED_BLOCK,
                           &nested_block));
    QB_TRY(st, qb_json_text(json, "nested_dtype", where, false, &dtype));
    QB_TRY(st, qb_json_real(json, "nested_offset", where, true, -(double)FLT_MAX, (double)FLT_MAX, &offset));
    if (strcmp(dtype, "float32") != 0)
        return qb_fail(QB_ERR_UNSUPPORTED, "%s: nested_dtype \"%.40s\" is not supported (supported: float32)",
                       where, dtype);
    out->nested_offset = (float)offset;
out:
    return st;
}

qb_status qb_quant_state_read(const void *bytes, size_t n, const char *where, qb_quant_state *out) {
    *out = (qb_quant_state){0};
    qb_json *json = NULL;
    const char *type = NULL, *dtype = NULL;
    qb_status st;
    QB_TRY(st, qb_json_parse(bytes, n, where, &json));
    QB_TRY(st, qb_json_text(json, "quant_type", where, true, &type));
    QB_TRY(st, qb_json_text(json, "dtype", where, true, &dtype));
    QB_TRY(st, qb_json_int(json, "blocksize", where, true, 32, 4096, &out->block_size));
    QB_TRY(st, read_shape(json, where, out->shape));
    QB_TRY(st, read_nested(json, where, out));
    out->codebook = !strcmp(type, "fp4") ? QB_CODEBOOK_FP4 : QB_CODEBOOK_NF4;
    if (strcmp(type, "nf4") != 0 && strcmp(type, "fp4") != 0)
        st = qb_fail(QB_ERR_UNSUPPORTED, "%s: quant_type \"%.40s\" is not supported (supported: nf4, fp4)",
                     where, type);
    else if (!qb_bnb_block_size_ok(out->block_size))
        st =
            qb_fail(QB_ERR_FORMAT, "%s: blocksize %" PRId64 " is not a power of two", where, out->block_size);
    else if (qb_dtype_parse(dtype, &out->dtype) != QB_OK ||
             (out->dtype != QB_DTYPE_F16 && out->dtype != QB_DTYPE_BF16 && out->dtype != QB_DTYPE_F32))
        st = qb_fail(QB_ERR_FORMAT, "%s: dtype \"%.40s\" is not float16, bfloat16 or float32", where, dtype);
out:
    qb_json_free(json);
    return st;
}
