#include "checkpoint/layouts/gptq_read.h"

#include "base/log.h"
#include "base/memory.h"
#include "checkpoint/layouts/bitpack.h"
#include "checkpoint/layouts/read_parts.h"
#include "checkpoint/state.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

bool qb_gptq_present(const qb_checkpoint *ck, const char *module) {
    return qb_module_tensor_find(ck, module, "qweight") != NULL;
}

/* A module's tensors, their shapes checked against the config's. */
typedef struct {
    const qb_tensor *qweight, *scales;
    const qb_tensor *qzeros; /* NULL in files from before groups, */
    const qb_tensor *zeros;  /* which hold scale * zero as floats */
    const qb_tensor *g_idx;  /* may be NULL */
    qb_scale_order scale_order;
    int64_t rows, cols, group_size, n_groups;
    int bits;
    qb_quantization how;
} parts;

static bool is_vector(const qb_tensor *t, int64_t n) {
    return t->n_dims == 2 && t->shape[0] * t->shape[1] == n && (t->shape[0] == 1 || t->shape[1] == 1);
}

/* Codes may be packed into words of 8 to 64 bits (GPTQModel's pack_dtype): the same stream, other words. */
static qb_status expect_words(const qb_checkpoint *ck, const qb_tensor *t, int64_t rows, int64_t cols,
                              bool down, int bits) {
    bool words = t->dtype == QB_DTYPE_I8 || t->dtype == QB_DTYPE_I16 || t->dtype == QB_DTYPE_I64;
    qb_dtype dtype = words ? t->dtype : QB_DTYPE_I32;
    int64_t per_word = 8 * (int64_t)qb_dtype_bytes(dtype), packed = (down ? rows : cols) * bits;
    if (packed % per_word != 0)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %.200s: %" PRId64 " codes of %d bits do not fill %s words",
                       ck->dir, t->name, down ? rows : cols, bits, qb_dtype_name(dtype));
    return qb_tensor_expect(ck, t, dtype, 2,
                            (int64_t[]){down ? packed / per_word : rows, down ? cols : packed / per_word});
}

static qb_status find_zeros(const qb_checkpoint *ck, const char *module, parts *p) {
    p->qzeros = qb_module_tensor_find(ck, module, "qzeros");
    if (p->qzeros) return expect_words(ck, p->qzeros, p->n_groups, p->rows, false, p->bits);
    p->zeros = p->n_groups == 1 ? qb_module_tensor_find(ck, module, "zeros") : NULL;
    if (!p->zeros) return qb_module_tensor(ck, module, "qzeros", &p->qzeros);
    qb_dtype dtype = p->zeros->dtype == QB_DTYPE_F16 ? QB_DTYPE_F16 : QB_DTYPE_F32;
    int64_t shape[2] = {p->rows, 1};
    if (is_vector(p->zeros, p->rows)) memcpy(shape, p->zeros->shape, sizeof shape);
    return qb_tensor_expect(ck, p->zeros, dtype, 2, shape);
}

/* Without a group_size a row is one group, as AutoGPTQ takes it; the scales show when it was not so. */
static qb_status check_missing_group_size(const qb_checkpoint *ck, const char *module, const parts *p) {
    const qb_tensor *t = p->scales;
    bool groups = t->n_dims == 2 && t->shape[0] > 1 && t->shape[1] == p->rows && p->cols % t->shape[0] == 0;
    if (!p->how.group_size_missing || p->n_groups > 1 || !groups) return QB_OK;
    return qb_fail(QB_ERR_FORMAT,
                   "%s: \"group_size\" is missing, and %s.scales shows %" PRId64 " groups of %" PRId64
                   " columns: add \"group_size\": %" PRId64,
                   ck->quantization_source, module, t->shape[0], p->cols / t->shape[0],
                   p->cols / t->shape[0]);
}

static qb_status find_parts(const qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols,
                            parts *p) {
    qb_quantization how = qb_module_quantization(ck, module);
    int bits = how.bits;
    *p = (parts){.rows = rows, .cols = cols, .bits = bits, .how = how};
    p->group_size = how.group_size < 0 || how.group_size > cols ? cols : how.group_size;
    if (rows < 1 || cols < 1 || rows > INT32_MAX || cols > INT32_MAX || cols * bits % 32 != 0 ||
        rows * bits % 32 != 0)
        return qb_fail(QB_ERR_FORMAT,
                       "%s: %s: [%" PRId64 ", %" PRId64 "] at %d bits does not fill whole words", ck->dir,
                       module, rows, cols, bits);
    p->n_groups = (cols + p->group_size - 1) / p->group_size;
    qb_status st;
    QB_TRY(st, qb_module_tensor(ck, module, "qweight", &p->qweight));
    QB_TRY(st, expect_words(ck, p->qweight, cols, rows, true, bits));
    QB_TRY(st, qb_module_tensor(ck, module, "scales", &p->scales));
    QB_TRY(st, check_missing_group_size(ck, module, p));
    /* Before there were groups the scales stood in a column. */
    bool column = p->n_groups == 1 && is_vector(p->scales, rows) && p->scales->shape[0] == rows;
    p->scale_order = column ? QB_SCALES_BY_ROW : QB_SCALES_BY_GROUP;
    QB_TRY(st, find_zeros(ck, module, p));
    p->g_idx = qb_module_tensor_find(ck, module, "g_idx");
out:
    return st;
}

/* ---- codes ---- */

/* The 32-bit words of a stream that lies transposed in words of another width. */
static void regroup_words(const uint8_t *in, size_t width, int64_t n_words, int64_t rows, uint32_t *out) {
    for (int64_t w = 0; w < n_words; w++)
        for (size_t byte = 0; byte < 4; byte++) {
            size_t at = (size_t)w * 4 + byte;
            const uint8_t *from = in + (at / width * (size_t)rows) * width + at % width;
            for (int64_t r = 0; r < rows; r++) {
                uint32_t value = (uint32_t)from[(size_t)r * width] << 8 * byte;
                out[w * rows + r] = byte ? out[w * rows + r] | value : value;
            }
        }
}

static void word_codes(const qb_code_source *from, int64_t first, int64_t n, uint8_t *codes) {
    const qb_tensor_codes *c = (const qb_tensor_codes *)from;
    qb_bits_unpack_transposed(c->made ? c->made : c->bytes, c->rows, c->cols, c->bits, first, n, codes);
}

static qb_status find_codes(qb_checkpoint *ck, const parts *p, qb_qweight *q) {
    qb_tensor_codes *c;
    size_t width = qb_dtype_bytes(p->qweight->dtype);
    int64_t n_words = p->cols * p->bits / 32;
    qb_status st;
    QB_TRY(st, qb_leave_codes(ck, p->qweight, word_codes, q, &c));
    if (width == 4) return QB_OK;
    QB_TRY(st, qb_alloc((size_t)(n_words * p->rows), sizeof(uint32_t), &c->made));
    regroup_words(c->bytes, width, n_words, p->rows, c->made);
out:
    return st;
}

/* ---- zeros ---- */

/* The zeros as the file stores them, [groups, rows], after `added` is added to each word. All-ones words are
   counted: writers that do not mask make one of a true zero of 0 in v1, and spoil its neighbours with it. */
static qb_status read_fields(qb_checkpoint *ck, const parts *p, uint32_t added, uint8_t *fields,
                             int64_t *all_ones) {
    const void *bytes;
    uint32_t *words = NULL;
    int64_t words_a_group = p->rows * p->bits / 32;
    *all_ones = 0;
    qb_status st = qb_checkpoint_acquire(ck, p->qzeros, &bytes);
    if (st != QB_OK) return st;
    QB_TRY(st, qb_alloc((size_t)words_a_group, sizeof *words, &words));
    for (int64_t g = 0; g < p->n_groups; g++) {
        memcpy(words, (const uint8_t *)bytes + g * words_a_group * 4, (size_t)words_a_group * 4);
        for (int64_t w = 0; w < words_a_group; w++) {
            *all_ones += words[w] == 0xffffffffu;
            words[w] += added;
        }
        qb_bits_unpack(words, p->rows, p->bits, fields + g * p->rows);
    }
out:
    qb_free(words);
    qb_checkpoint_release(ck, p->qzeros);
    return st;
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
    int found = !p->how.symmetric                  ? v1
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

typedef struct {
    const uint8_t *fields; /* [groups, rows] */
    uint8_t added, mask;
    qb_qweight *q;
} zeros_job;

/* The stored field is the zero minus one in `bits` bits, so 2^bits - 1 stands for 0. */
static void put_zeros(void *ctx, int64_t begin, int64_t end, int worker) {
    (void)worker;
    const zeros_job *j = ctx;
    const int64_t rows = j->q->rows, groups = j->q->n_groups;
    for (int64_t r = begin; r < end; r++)
        for (int64_t g = 0; g < groups; g++)
            j->q->zeros[r * groups + g] = (uint8_t)((j->fields[g * rows + r] + j->added) & j->mask);
}

static qb_status read_packed_zeros(qb_checkpoint *ck, const char *module, const parts *p, bool v1,
                                   qb_qweight *q) {
    uint8_t *fields;
    int64_t all_ones, n = p->rows * p->n_groups;
    qb_status st = qb_alloc((size_t)n, 1, &fields);
    if (st == QB_OK) st = read_fields(ck, p, 0, fields, &all_ones);
    if (st != QB_OK) goto out;
    int offset = zero_offset(ck, module, p, fields, v1), mask = (1 << p->bits) - 1;
    if (offset && ck->quantization.zeros_by_word && p->qzeros->dtype == QB_DTYPE_I32) {
        QB_TRY(st, read_fields(ck, p, 0xffffffffu / (uint32_t)mask, fields, &all_ones));
        all_ones = offset = 0;
    }
    if (offset && all_ones && qb_checkpoint_first_warning(ck, QB_WARNING_CORRUPT_ZEROS))
        qb_warn("%s: %s.qzeros holds %" PRId64
                " words of ones only: a writer of layout gptq met zero points of 0 and may have "
                "spoilt their neighbours; expect a worse model than its weights deserve",
                ck->dir, module, all_ones);
    zeros_job j = {.fields = fields, .added = (uint8_t)offset, .mask = (uint8_t)mask, .q = q};
    qb_parallel_for(ck->threads, p->rows, 256, put_zeros, &j);
out:
    qb_free(fields);
    return st;
}

/* Files from before groups hold scale * zero as floats; the zero point was a whole number. */
static qb_status read_float_zeros(qb_checkpoint *ck, const parts *p, qb_qweight *q) {
    float *products = NULL;
    qb_status st =
        qb_checkpoint_read_f32(ck, p->zeros->name, p->zeros->shape[0], p->zeros->shape[1], &products);
    for (int64_t r = 0; st == QB_OK && r < p->rows; r++) {
        float zero = q->scales[r] != 0.0F ? products[r] / q->scales[r] : 0.0F, whole = rintf(zero);
        if (!(fabsf(zero - whole) <= 0.01F) || whole < 0.0F || whole >= (float)(1 << p->bits))
            st = qb_fail(QB_ERR_FORMAT,
                         "%s: tensor %.200s: row %" PRId64
                         ": %g is not the scale %g times a %d-bit zero point",
                         ck->dir, p->zeros->name, r, (double)products[r], (double)q->scales[r], p->bits);
        else
            q->zeros[r] = (uint8_t)whole;
    }
    qb_free(products);
    return st;
}

/* ---- the whole ---- */

static qb_status read_order(qb_checkpoint *ck, const char *module, const parts *p, qb_qweight *q) {
    /* Older files have none; with act-order the groups follow from it alone, unless they are static. */
    if (!p->g_idx && p->how.desc_act && !p->how.static_groups && p->n_groups > 1)
        return qb_fail(QB_ERR_FORMAT, "%s: tensor %s.g_idx is missing, and desc_act is true in config.json",
                       ck->dir, module);
    return p->g_idx ? qb_read_groups(ck, p->g_idx, q) : QB_OK;
}

qb_status qb_gptq_read(qb_checkpoint *ck, const char *module, int64_t rows, int64_t cols, bool v1,
                       qb_qweight *out) {
    parts p;
    *out = (qb_qweight){0};
    qb_status st;
    QB_TRY(st, find_parts(ck, module, rows, cols, &p));
    QB_TRY(st, qb_qweight_form_affine(rows, cols, p.bits, p.group_size, out));
    QB_TRY(st, qb_qweight_alloc_values(out, false));
    QB_TRY(st, qb_read_scales(ck, p.scales, p.scale_order, out));
    QB_TRY(st, read_order(ck, module, &p, out));
    QB_TRY(st, p.qzeros ? read_packed_zeros(ck, module, &p, v1, out) : read_float_zeros(ck, &p, out));
    QB_TRY(st, find_codes(ck, &p, out));
    out->symmetric = qb_qweight_zeros_in_middle(out);
out:
    if (st != QB_OK) qb_qweight_free(out);
    return st;
}
