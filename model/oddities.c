#include "model/oddities.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/vectors.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { CHUNK = 1024 };

static bool has_few_bits(float scale) {
    return scale != 0.0f && fabsf(scale) < QB_LEAST_NORMAL_SCALE;
}

/* Adds what the first CHUNK of n scales are. */
static void count_steps(const float *scales, int64_t n, int64_t *no_step, int64_t *few_bits,
                        int64_t *negative) {
    int zero = 0, small = 0, below = 0;
    for (int i = 0; i < (n < CHUNK ? (int)n : CHUNK); i++) {
        zero += scales[i] == 0.0f;
        small += fabsf(scales[i]) < QB_LEAST_NORMAL_SCALE;
        below += scales[i] < 0.0f;
    }
    *no_step += zero;
    *few_bits += small - zero;
    *negative += below;
}

/* Products that are 0: of none but a 0, which in GGUF is all that counts (look_at_steps). */
static int64_t count_no_products(const qb_factors *f, int64_t n, int groups) {
    int64_t none = qb_count_u8(f->inner, n, 0);
    for (int64_t i = 0; i < n / groups; i++)
        for (int g = 0; g < groups && f->outer[i] == 0.0f; g++) none += f->inner[i * groups + g] != 0;
    return none;
}

static void look_at_steps(const qb_checkpoint *ck, const char *name, const qb_qweight *q, qb_oddity_fn found,
                          void *ctx) {
    int64_t n = q->rows * q->n_groups, no_step = 0, negative = 0, few_bits = 0, first = 0;
    char text[192];
    if (!q->scales) no_step = count_no_products(&q->scale_factors, n, q->factor_groups);
    for (int64_t i = 0; q->scales && i < n; i += CHUNK)
        count_steps(q->scales + i, n - i, &no_step, &few_bits, &negative);
    if (no_step) {
        snprintf(text, sizeof text, "%" PRId64 " of %" PRId64 " scales are 0: those groups are constant",
                 no_step, n);
        found(ctx, QB_ODD_NO_STEP, name, text);
    }
    if (few_bits && qb_qweight_has_half_scales(q)) {
        while (!has_few_bits(q->scales[first])) first++;
        snprintf(text, sizeof text,
                 "%" PRId64 " of %" PRId64
                 " scales lie below %g, where float16 has few bits left: the first, of row "
                 "%" PRId64 ", group %" PRId64 ", is %.3g",
                 few_bits, n, (double)QB_LEAST_NORMAL_SCALE, first / q->n_groups, first % q->n_groups,
                 (double)q->scales[first]);
        found(ctx, QB_ODD_FEW_BITS, name, text);
    }
    /* GGUF's grids are signed as they are; elsewhere a step is a size. */
    bool signed_steps = !strcmp(qb_checkpoint_quantization(ck)->layout, "gguf");
    if (negative && !signed_steps) {
        snprintf(text, sizeof text, "%" PRId64 " of %" PRId64 " scales are negative", negative, n);
        found(ctx, QB_ODD_NEGATIVE, name, text);
    }
}

static void look_at_zeros(const qb_checkpoint *ck, const char *name, const qb_qweight *q, qb_oddity_fn found,
                          void *ctx) {
    const qb_quantization *label = qb_checkpoint_quantization(ck);
    bool v1 = !strcmp(label->layout, "gptq"), v2 = !strcmp(label->layout, "gptq_v2");
    int64_t at_zero = v1 && q->zeros ? qb_count_u8(q->zeros, q->rows * q->n_groups, 0) : 0;
    char text[192];
    if (at_zero) {
        snprintf(text, sizeof text,
                 "%" PRId64
                 " zero points are 0, which zero points minus one hold only by wrapping: readers differ in "
                 "what they make of it",
                 at_zero);
        found(ctx, QB_ODD_ZERO_AT_ZERO, name, text);
    }
    if ((v1 || v2) && label->symmetric && !q->symmetric)
        found(ctx, QB_ODD_NOT_SYMMETRIC, name,
              "labelled symmetric, but has other zero points than the middle: programs that trust the label "
              "compute "
              "other weights");
}

static bool is_constant(const qb_qweight *q, uint8_t *room, int *code) {
    for (int64_t r = 0; r < q->rows; r++) {
        const uint8_t *codes = qb_qweight_rows(q, NULL, r, 1, room);
        if (r == 0) *code = codes[0];
        for (int64_t c = 0; c < q->cols; c++)
            if (codes[c] != *code) return false;
    }
    return true;
}

static void look_at_codes(const char *name, const qb_qweight *q, qb_oddity_fn found, void *ctx) {
    uint8_t *room;
    char text[96];
    int code = 0;
    if (qb_alloc((size_t)q->cols, 1, &room) != QB_OK) { /* who wants the weight meets the same */
        qb_error_clear();
        return;
    }
    if (is_constant(q, room, &code)) {
        snprintf(text, sizeof text, "every code is %d: the weight is constant", code);
        found(ctx, QB_ODD_ONE_CODE, name, text);
    }
    qb_free(room);
}

/* A dense weight left beside GPTQ's or AWQ's codes; bitsandbytes and GGUF put the codes there. */
static void look_for_twin(const qb_checkpoint *ck, const char *name, qb_oddity_fn found, void *ctx) {
    char tensor[QB_NAME_BYTES + 16];
    snprintf(tensor, sizeof tensor, "%s.qweight", name);
    if (!qb_checkpoint_find(ck, tensor)) return;
    snprintf(tensor, sizeof tensor, "%s.weight", name);
    if (qb_checkpoint_find(ck, tensor))
        found(ctx, QB_ODD_TWIN, tensor, "is not read: the packed form beside it is");
}

void qb_oddities_of_packed(const qb_checkpoint *ck, const char *module, const qb_qweight *q,
                           qb_oddity_fn found, void *ctx) {
    if (q->coding == QB_CODING_AFFINE) {
        look_at_steps(ck, module, q, found, ctx);
        look_at_zeros(ck, module, q, found, ctx);
    }
    look_at_codes(module, q, found, ctx);
    if (qb_checkpoint_ruled_dense(ck, module))
        found(ctx, QB_ODD_RULED_DENSE, module,
              "lies packed, and a rule of the config leaves it dense: what lies there is read, which other "
              "programs may not find");
    look_for_twin(ck, module, found, ctx);
}

void qb_oddities_of_dense(const char *tensor, qb_dtype dtype, const void *bytes, int64_t n,
                          qb_oddity_fn found, void *ctx) {
    float values[CHUNK], first = 0;
    char text[96];
    int64_t width = (int64_t)qb_dtype_bytes(dtype);
    for (int64_t at = 0; at < n; at += CHUNK) {
        int64_t part = n - at < CHUNK ? n - at : CHUNK;
        if (qb_to_f32(dtype, (const uint8_t *)bytes + at * width, part, values) != QB_OK) {
            qb_error_clear();
            return;
        }
        if (at == 0) first = values[0];
        for (int64_t i = 0; i < part; i++)
            if (values[i] != first) return;
    }
    if (n < 2) return;
    snprintf(text, sizeof text, "every element is %g", (double)first);
    found(ctx, QB_ODD_CONSTANT, tensor, text);
}

static void warn_once(void *ctx, qb_oddity kind, const char *where, const char *text) {
    qb_model *m = ctx;
    if (m->oddities >> kind & 1) return;
    m->oddities |= 1u << kind;
    qb_warn("%s: %s: %s (the first of its kind; bench inspect lists all)", m->name, where, text);
}

void qb_oddities_warn(qb_model *m, const char *module, const qb_weight *w) {
    if (qb_checkpoint_is_synthetic(m->checkpoint)) return;
    if (w->packed)
        qb_oddities_of_packed(m->checkpoint, module, w->packed, warn_once, m);
    else if (w->dense)
        qb_oddities_of_dense(module, w->dtype, w->dense, w->rows * w->cols, warn_once, m);
}
