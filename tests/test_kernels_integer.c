/* Products in whole numbers: their sums against 64-bit ones, their results against float64 sums over
   activations rounded here, their distance from float32 against what rounding allows. */
#include "tests/kernels_support.h"
#include "tests/weight_support.h"

#include "kernels/cpu/device.h"
#if defined(__x86_64__)
#include "tests/amx_emulated.h"
#include "tests/avx_vnni_evex.h"
#include "tests/tiles_emulated.h"
#endif

#include <fenv.h>

static const format formats[] = {
    {.name = "int4 g128 sym", .bits = 4, .group = 128, .symmetric = true},
    {.name = "int4 g128 asym", .bits = 4, .group = 128},
    {.name = "int4 per row", .bits = 4, .symmetric = true},
    {.name = "int4 g64 act-order", .bits = 4, .group = 64, .act_order = true},
    {.name = "int3 g128 asym", .bits = 3, .group = 128},
    {.name = "int3 g40 sym", .bits = 3, .group = 40, .symmetric = true},
    {.name = "int2 g64 asym", .bits = 2, .group = 64},
    {.name = "int2 g8 sym", .bits = 2, .group = 8, .symmetric = true},
    {.name = "int8 g128 asym", .bits = 8, .group = 128},
    {.name = "int8 per row asym", .bits = 8},
    {.name = "Q4_0", .bits = 4, .group = 32, .symmetric = true, .any_sign = true},
    {.name = "Q4_1", .bits = 4, .group = 32, .offsets = true, .any_sign = true},
    {.name = "Q5_1", .bits = 5, .group = 32, .offsets = true, .any_sign = true},
    {.name = "Q2_K", .bits = 2, .group = 16, .offsets = true, .factored = true},
    {.name = "Q3_K", .bits = 3, .group = 16, .symmetric = true, .any_sign = true, .factored = true},
    {.name = "Q4_K", .bits = 4, .group = 32, .offsets = true, .factored = true},
    {.name = "Q5_K", .bits = 5, .group = 32, .offsets = true, .factored = true},
    {.name = "int4 g32 float32 offsets", .bits = 4, .group = 32, .offsets = true, .odd_scales = true},
    {.name = "Q6_K", .bits = 6, .group = 16, .symmetric = true, .any_sign = true, .factored = true},
    {.name = "int3 g16 asym", .bits = 3, .group = 16},
    {.name = "int5 g16 act-order asym", .bits = 5, .group = 16, .act_order = true},
    {.name = "nf4 b64", .codebook = QB_CODEBOOK_NF4, .group = 64},
    {.name = "nf4 b64 dq", .codebook = QB_CODEBOOK_NF4, .group = 64, .double_quant = true},
    {.name = "fp4 b512", .codebook = QB_CODEBOOK_FP4, .group = 512},
    {.name = "IQ4_NL", .codebook = QB_CODEBOOK_IQ4_NL, .group = 32},
    {.name = "MXFP4", .codebook = QB_CODEBOOK_E2M1, .group = 32},
};
enum { FORMATS = sizeof formats / sizeof *formats };
static const qb_activations modes[] = {QB_ACTIVATIONS_I16, QB_ACTIVATIONS_I8};

/* avx512-vnni, if it is here, and what it lets run: AMX over tiles in plain C, AVX-VNNI in another encoding;
   the processor's own AMX, if it has it. */
static const qb_integer *vnni, *amx, *avx_vnni, *own_amx;
static int find_sets(void **state) {
    (void)state;
    for (int i = 0; qb_integer_at(i); i++) {
        if (!strcmp(qb_integer_at(i)->name, "avx512-vnni")) vnni = qb_integer_at(i);
        if (!strcmp(qb_integer_at(i)->name, "amx-int8")) own_amx = qb_integer_at(i);
    }
#if defined(__x86_64__)
    static qb_integer emulated;
    if (vnni) amx_int8_emulated(vnni, &emulated), amx = &emulated, avx_vnni = &avx_vnni_evex;
#endif
    return 0;
}

/* The sets that can run here: every one is tested; NULL behind the last. */
static const qb_integer *set_at(int index) {
    int n = 0;
    while (qb_integer_at(n)) n++;
    const qb_integer *const beside[] = {amx, avx_vnni, NULL};
    return index < n ? qb_integer_at(index) : index - n < 3 ? beside[index - n] : NULL;
}

/* set NULL: the one that is chosen. */
static qb_device *whole_device(const qb_integer *set, int threads, qb_activations mode) {
    qb_device *dev = device_open(NULL, threads);
    qb_activations got;
    if (set) cpu_of(dev)->integer = set;
    assert_ok(dev->backend->set_activations(dev, mode, &got));
    assert_int_equal(got, mode);
    return dev;
}

static bool is_avx2(const qb_integer *set) {
    return !strcmp((set ? set : qb_integer_chosen())->name, "avx2");
}

/* Whether a value takes two bytes. */
static bool is_wide(const qb_qweight *q) {
    return q->coding == QB_CODING_CODEBOOK &&
           (q->codebook == QB_CODEBOOK_NF4 || q->codebook == QB_CODEBOOK_FP4);
}
/* Columns that share a scale in every row. */
static int64_t group_cols(const qb_qweight *q) {
    if (q->coding == QB_CODING_AFFINE) return q->group_size;
    int64_t a = q->cols, b = q->block_size;
    while (b) {
        int64_t rest = a % b;
        a = b, b = rest;
    }
    return a;
}
/* Codebooks whose blocks begin within eight columns lie row by row. */
static bool lies_by_row(const qb_qweight *q) {
    return q->coding == QB_CODING_CODEBOOK && group_cols(q) % 8 != 0;
}

/* NULL where the matrix keeps to float32, which values of two bytes do with AVX2 and 16-bit activations. */
static float *product(const qb_integer *set, int threads, qb_activations mode, qb_qweight *q, const float *x,
                      int64_t T) {
    qb_device *dev = whole_device(set, threads, mode);
    qb_weight weight = {.rows = q->rows, .cols = q->cols, .packed = q};
    qb_matrix m;
    assert_ok(dev->backend->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
    float *y = noise_new(T * q->rows + 1), guard = y[T * q->rows];
    assert_ok(dev->backend->matmul(dev, y, x, T, &m));
    assert_true(y[T * q->rows] == guard);
    if (!(m.integer >> mode & 1)) {
        assert_true(lies_by_row(q) || (is_avx2(set) && is_wide(q) && mode == QB_ACTIVATIONS_I16));
        qb_free(y);
        y = NULL;
    }
    dev->backend->matrix_free(dev, &m);
    assert_no_memory(dev);
    dev->backend->close(dev);
    return y;
}

/* One group of at most a segment, a scale of 1 and activations that are whole numbers with the largest one at
   the limit: the result is the sum of code x activation, and nothing is rounded but that sum to float32. */
static void test_integer__sums_are_exact(void **state) {
    (void)state;
    static const int bits[] = {2, 3, 4, 5, 6, 8};
    static const int64_t widths[] = {256, 200, 43, 4};
    enum { ROWS = 37, T = 19 };
    for (int i = 0; i < 6 * 4 * 2 * 2; i++) {
        int64_t cols = widths[i / 6 % 4];
        format f = {.name = "one group", .bits = bits[i % 6], .group = 256, .symmetric = i / 24 % 2};
        qb_activations mode = modes[i / 48];
        qb_qweight *q = weight_new(&f, ROWS, cols);
        float *x = noise_new(T * cols), limit = mode == QB_ACTIVATIONS_I16 ? 32512 : 127;
        for (int64_t r = 0; r < ROWS; r++) q->scales[r] = 1;
        for (int64_t k = 0; k < T * cols; k++) x[k] = rintf(x[k] * limit);
        for (int64_t t = 0; t < T; t++) x[t * cols + t % cols] = limit;
        /* the worst that codes, zeros and activations can do together */
        for (int64_t c = 0; c < cols; c++) x[c] = limit, q->codes[c] = (uint8_t)((1 << f.bits) - 1);
        if (!f.symmetric) q->zeros[0] = 0;
        for (int s = 0; set_at(s); s++) {
            float *y = product(set_at(s), 2, mode, q, x, T);
            for (int64_t t = 0; y && t < T; t++)
                for (int64_t r = 0; r < ROWS; r++) {
                    int64_t want = 0;
                    for (int64_t c = 0; c < cols; c++)
                        want += (int64_t)x[t * cols + c] * (q->codes[r * cols + c] - q->zeros[r]);
                    if (y[t * ROWS + r] != (float)want)
                        fail_msg("%d bits, %lld columns, %s, %s: %.9g, not %lld", f.bits, (long long)cols,
                                 qb_activations_name(mode), set_at(s)->name, (double)y[t * ROWS + r],
                                 (long long)want);
                }
            qb_free(y);
        }
        qb_qweight_free(q);
        qb_free(q), qb_free(x);
    }
}

/* The same of values of two bytes, one block of them. */
static void test_integer__sums_of_wide_values_are_exact(void **state) {
    (void)state;
    enum { ROWS = 21, COLS = 256, T = 14 };
    for (int i = 0; i < 4; i++) {
        format f = {
            .name = "one block", .codebook = i % 2 ? QB_CODEBOOK_FP4 : QB_CODEBOOK_NF4, .group = COLS};
        const float *table = qb_codebook_table(f.codebook), unit = 1.0f / (i % 2 ? 30720 : 31908);
        bool eight = i / 2;
        qb_qweight *q = weight_new(&f, ROWS, COLS);
        float *x = noise_new(T * COLS), limit = eight ? 127 : 32512;
        for (int64_t r = 0; r < ROWS; r++) q->absmax[r] = 1;
        for (int64_t k = 0; k < T * COLS; k++) x[k] = rintf(x[k] * limit);
        for (int64_t t = 0; t < T; t++) x[t * COLS + t] = limit;
        uint8_t largest = i % 2 ? 3 : 15; /* 1 in both tables */
        for (int64_t c = 0; c < COLS; c++) x[c] = limit, q->codes[c] = largest;
        for (int s = 0; set_at(s); s++) {
            float *y = product(set_at(s), 2, modes[eight], q, x, T);
            for (int64_t k = 0; y && k < T * ROWS; k++) {
                int64_t sum = 0;
                for (int64_t c = 0; c < COLS; c++) {
                    int value = (int)rintf(table[q->codes[k % ROWS * COLS + c]] / unit),
                        act = (int)x[k / ROWS * COLS + c];
                    int value_low = (int8_t)value, act_low = (int8_t)act;
                    sum += eight ? value * act
                                 : (value - value_low) / 256 * act + value_low * ((act - act_low) / 256);
                }
                float want = (eight ? unit : 256 * unit) * (float)sum;
                if (y[k] != want)
                    fail_msg("%s, %s, %s: %.9g, not %.9g", qb_codebook_name(f.codebook),
                             qb_activations_name(modes[eight]), set_at(s)->name, (double)y[k], (double)want);
            }
            qb_free(y);
        }
        qb_qweight_free(q);
        qb_free(q), qb_free(x);
    }
}

/* Activations, codes, zero points and scales at their ends, each the same or in runs of 1 to 32 columns of
   either end: nothing on the way to a sum may saturate, however few bits it has. Scales of 1, or whole
   numbers as K types have them. */
enum { ENDS = 8, END_COLS = 256 };
static bool at_end(int64_t pattern, int64_t c) {
    return pattern < 2 ? pattern == 1 : c >> (pattern - 2) & 1;
}

typedef struct {
    format f;
    int scales[2], offset; /* the least and the most of a K type's whole numbers, 0: none */
} end_case;

static qb_qweight *weight_at_ends(const end_case *e, int64_t rows) {
    const format *f = &e->f;
    qb_qweight *q = weight_new(f, rows, END_COLS);
    const float *table = f->bits ? NULL : qb_codebook_table(f->codebook);
    uint8_t end[2] = {0, (uint8_t)((1u << f->bits) - 1)};
    for (uint8_t c = 0; table && c < 16; c++) {
        if (table[c] < table[end[0]]) end[0] = c;
        if (table[c] > table[end[1]]) end[1] = c;
    }
    for (int64_t i = 0; i < rows * END_COLS; i++)
        q->codes[i] = end[at_end(i / END_COLS % ENDS, i % END_COLS)];
    for (int64_t b = 0; table && b < q->n_blocks; b++) q->absmax[b] = 1;
    for (int64_t i = 0; !table && i < rows * q->n_groups; i++) {
        int64_t row = i / q->n_groups;
        const bool one = i % 4 == 3;
        q->scales[i] = 1;
        if (f->factored) q->scale_factors.inner[i] = (uint8_t)(one ? 1 : e->scales[row / ENDS % 2]);
        if (f->offsets)
            q->offset_factors.inner[i] = (uint8_t)(one ? 1 : e->offset);
        else if (!f->symmetric)
            q->zeros[i] = end[row / ENDS % 2];
    }
    for (int64_t i = 0; f->factored && i < rows * (END_COLS / 256); i++) {
        q->scale_factors.outer[i] = 1;
        if (f->offsets) q->offset_factors.outer[i] = 1;
    }
    if (f->factored) set_values_of_factors(q);
    return q;
}

/* x's sum over a row's columns, and how large its parts are, in whole numbers. */
static double sum_at_ends(const qb_qweight *q, int64_t row, const float *x, double *size) {
    double sum = 0, beside = 0;
    for (int64_t c = 0; c < END_COLS; c++) {
        const uint8_t code = q->codes[row * END_COLS + c];
        const int64_t g = q->coding == QB_CODING_AFFINE ? row * q->n_groups + c / q->group_size : 0;
        const double w = q->coding == QB_CODING_CODEBOOK ? (double)qb_codebook_table(q->codebook)[code]
                         : q->offsets                    ? (double)q->scales[g] * code
                                                         : (double)q->scales[g] * (code - q->zeros[g]);
        sum += w * (double)x[c];
        if (q->offsets) beside += (double)q->offsets[g] * (double)x[c];
    }
    *size = fabs(sum) + fabs(beside);
    return sum + beside;
}

static void test_integer__ends_do_not_saturate(void **state) {
    (void)state;
    static const end_case cases[] = {
        {.f = {.name = "int2", .bits = 2, .group = 256}},
        {.f = {.name = "int3", .bits = 3, .group = 256}},
        {.f = {.name = "int4", .bits = 4, .group = 256}},
        {.f = {.name = "int4 sym", .bits = 4, .group = 256, .symmetric = true}},
        {.f = {.name = "int5", .bits = 5, .group = 256}},
        {.f = {.name = "int8", .bits = 8, .group = 256}},
        {.f = {.name = "int8 sym", .bits = 8, .group = 256, .symmetric = true}},
        {.f = {.name = "Q2_K", .bits = 2, .group = 16, .offsets = true, .factored = true},
         .scales = {15, 15},
         .offset = 15},
        {.f = {.name = "Q3_K", .bits = 3, .group = 16, .symmetric = true, .factored = true},
         .scales = {-32, 31}},
        {.f = {.name = "Q4_K", .bits = 4, .group = 32, .offsets = true, .factored = true},
         .scales = {-128, 127},
         .offset = 255},
        {.f = {.name = "Q5_K", .bits = 5, .group = 32, .offsets = true, .factored = true},
         .scales = {-128, 127},
         .offset = 255},
        {.f = {.name = "Q6_K", .bits = 6, .group = 16, .symmetric = true, .factored = true},
         .scales = {-128, 127}},
        {.f = {.name = "IQ4_NL", .codebook = QB_CODEBOOK_IQ4_NL, .group = 32}},
        {.f = {.name = "MXFP4", .codebook = QB_CODEBOOK_E2M1, .group = 32}},
        {.f = {.name = "NF4", .codebook = QB_CODEBOOK_NF4, .group = 256}},
        {.f = {.name = "FP4", .codebook = QB_CODEBOOK_FP4, .group = 256}},
    };
    static const int64_t tokens[] = {1, 2, 4, 8, 16};
    enum { ROWS = 2 * ENDS + 16, MANY = 2 * ENDS };
    float x[MANY * END_COLS];
    for (int mode = 0; mode < 2; mode++) {
        const float limit = modes[mode] == QB_ACTIVATIONS_I16 ? 32512 : 127;
        for (int64_t i = 0; i < MANY * END_COLS; i++)
            x[i] = at_end(i / END_COLS % ENDS, i % END_COLS) ? -limit : limit;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            qb_qweight *q = weight_at_ends(&cases[i], ROWS);
            /* 16-bit activations leave the product of lower bytes out */
            const bool exact = !is_wide(q) || modes[mode] == QB_ACTIVATIONS_I8;
            for (int n = 0; exact && n < 5; n++)
                for (int64_t t0 = 0; t0 + tokens[n] <= MANY; t0 += tokens[n])
                    for (int s = 0; set_at(s); s++) {
                        const int64_t T = tokens[n];
                        float *y = product(set_at(s), 1, modes[mode], q, x + t0 * END_COLS, T);
                        for (int64_t k = 0; y && k < T * ROWS; k++) {
                            double size,
                                want = sum_at_ends(q, k % ROWS, x + (t0 + k / ROWS) * END_COLS, &size);
                            if (!(fabs((double)y[k] - want) <= 0x1p-22 * size))
                                fail_msg("%s, %s, %s, row %lld of token %lld of %lld: %.9g, not %.9g",
                                         cases[i].f.name, qb_activations_name(modes[mode]), set_at(s)->name,
                                         (long long)(k % ROWS), (long long)(t0 + k / ROWS), (long long)T,
                                         (double)y[k], want);
                        }
                        qb_free(y);
                    }
            qb_qweight_free(q);
            qb_free(q);
        }
    }
}

/* Column c's segment and all columns of the segment, from the weight alone: groups in order of their columns,
   cut where their length, padded to what a step holds, passes 256. */
typedef struct {
    int64_t n;
    int32_t *of; /* [cols] */
} segments;
static segments segments_new(const format *f, const qb_qweight *q) {
    segments s = {0, NULL};
    assert_ok(qb_alloc((size_t)q->cols, sizeof *s.of, &s.of));
    /* K types: all columns that share the float32 of their scales */
    int64_t width = f->factored && q->cols % 256 == 0 ? 256 : group_cols(q);
    for (int64_t g = 0; g < (q->cols + width - 1) / width; g++) {
        int64_t in_group = 0;
        for (int64_t c = 0; c < q->cols; c++)
            if ((q->g_idx ? q->g_idx[c] : c / width) == g)
                s.of[c] = (int32_t)(s.n + in_group++ / QB_SEGMENT_COLS);
        s.n += (in_group + QB_SEGMENT_COLS - 1) / QB_SEGMENT_COLS;
    }
    return s;
}

/* x as the integers stand for it, in float64: xq[T, cols]; step[T, segments] the scales. */
static void round_here(const segments *s, qb_activations mode, const float *x, int64_t T, int64_t cols,
                       double *xq, float *step) {
    const float limit = mode == QB_ACTIVATIONS_I16 ? 32512.0f : 127.0f;
    for (int64_t t = 0; t < T; t++)
        for (int64_t g = 0; g < s->n; g++) {
            float largest = 0;
            for (int64_t c = 0; c < cols; c++)
                if (s->of[c] == g) largest = fmaxf(largest, fabsf(x[t * cols + c]));
            step[t * s->n + g] = largest / limit;
            for (int64_t c = 0; c < cols; c++)
                if (s->of[c] == g)
                    xq[t * cols + c] =
                        (double)nearbyintf(x[t * cols + c] * (limit / largest)) * (double)step[t * s->n + g];
        }
}

static void check_rounded(const format *f, const qb_integer *set, qb_activations mode, int64_t rows,
                          int64_t cols, int64_t T) {
    qb_qweight *q = weight_new(f, rows, cols);
    float *w = noise_new(rows * cols), *x = noise_new(T * cols);
    for (int64_t i = 0; i < T * cols; i += 97) x[i] *= 20; /* outliers, as hidden states have them */
    qb_qweight_dequantize(q, w);
    segments s = segments_new(f, q);
    float *step = noise_new(T * s.n), *y = product(set, 2, mode, q, x, T);
    double *xq;
    assert_ok(qb_alloc((size_t)(T * cols), sizeof *xq, &xq));
    round_here(&s, mode, x, T, cols, xq, step);
    for (int64_t t = 0; y && t < T; t++)
        for (int64_t r = 0; r < rows; r++) {
            double want = 0, exact = 0, size = 1e-30, allowed = 0, wide = 0;
            for (int64_t c = 0; c < cols; c++) {
                double v = (double)w[r * cols + c];
                want += xq[t * cols + c] * v;
                exact += (double)x[t * cols + c] * v;
                size += fabs(xq[t * cols + c] * v);
                allowed += 0.5001 * (double)step[t * s.n + s.of[c]] * fabs(v);
                /* a value of two bytes is rounded too, and the product of lower bytes left out */
                if (is_wide(q))
                    wide += fabs((double)q->absmax[(r * cols + c) / q->block_size]) / 32512 *
                            (0.5001 * fabs(xq[t * cols + c]) +
                             (mode == QB_ACTIVATIONS_I16 ? 16384 * (double)step[t * s.n + s.of[c]] : 0));
            }
            double got = (double)y[t * rows + r];
            if (!(fabs(got - want) <= wide + 2e-6 * size))
                fail_msg("%s, %s, %s, [%lld, %lld]: %g, the rounded activations give %g", f->name, set->name,
                         qb_activations_name(mode), (long long)rows, (long long)cols, got, want);
            if (!(fabs(got - exact) <= allowed + wide + 2e-6 * size))
                fail_msg("%s, %s, %s: %g is farther from %g than rounding allows", f->name, set->name,
                         qb_activations_name(mode), got, exact);
        }
    qb_qweight_free(q);
    qb_free(q), qb_free(w), qb_free(x), qb_free(s.of), qb_free(step), qb_free(y), qb_free(xq);
}

static void test_integer__equals_rounded_activations(void **state) {
    (void)state;
    static const int64_t shapes[][3] = {{33, 172, 1},   {70, 352, 5}, {5, 43, 2},
                                        {16, 1024, 11}, {70, 256, 1}, {37, 768, 14}};
    enum { SHAPES = sizeof shapes / sizeof *shapes };
    assert_int_equal(fegetround(), FE_TONEAREST);
    for (int i = 0; i < FORMATS; i++)
        for (int s = 0; set_at(s); s++)
            for (int k = 0; k < 2 * SHAPES; k++)
                check_rounded(&formats[i], set_at(s), modes[k % 2], shapes[k / 2][0], shapes[k / 2][1],
                              shapes[k / 2][2]);
}

/* Neither the threads nor the other tokens of a call change a bit; nor does the instruction set, but that
   plain C has no fused multiply-add for the sums over groups. */
static void test_integer__same_bits(void **state) {
    (void)state;
    enum { ROWS = 150, T = 27 };
    for (int i = 0; i < FORMATS * 2; i++) {
        const int64_t COLS = formats[i / 2].factored ? 512 : 352;
        qb_qweight *q = weight_new(&formats[i / 2], ROWS, COLS);
        float *x = noise_new(T * COLS), *first = product(NULL, 1, modes[i % 2], q, x, T);
        for (int threads = 2; first && threads <= 3; threads++) {
            float *y = product(NULL, threads, modes[i % 2], q, x, T);
            assert_memory_equal(first, y, T * ROWS * sizeof *y);
            qb_free(y);
        }
        for (int n = 1; first && n <= 8; n += n)
            for (int t = 0; t < T; t += n) {
                int now = n < T - t ? n : T - t;
                float *y = product(NULL, 2, modes[i % 2], q, x + t * COLS, now);
                assert_memory_equal(first + t * ROWS, y, (size_t)now * ROWS * sizeof *y);
                qb_free(y);
            }
        /* Vectors of all widths fuse the same multiplications and additions; plain C does not have to. */
        for (int s = 1; set_at(s); s++) {
            float *y = product(set_at(s), 2, modes[i % 2], q, x, T);
            if (first && y) assert_memory_equal(first, y, T * ROWS * sizeof *y);
            qb_free(y);
        }
        qb_free(x), qb_free(first);
        qb_qweight_free(q);
        qb_free(q);
    }
}

#if defined(__x86_64__)
/* Tiles in plain C, whose shapes need not be whole: 3 rows of 8 bytes with 2 rows of 20, sums of 3 rows of 5
   words; what is behind a tile's rows is neither read nor written. */
static void test_integer__emulated_tiles_have_shapes(void **state) {
    (void)state;
    const qb_tile_shapes shapes = {.palette = 1, .row_bytes = {20, 8, 20}, .rows = {3, 3, 2}};
    int8_t a[3][10];
    uint8_t b[2][32];
    int32_t sums[4][6], more[3][5];
    for (int i = 0; i < 30; i++) (&a[0][0])[i] = (int8_t)(i * 41 - 128);
    for (int i = 0; i < 64; i++) (&b[0][0])[i] = (uint8_t)(255 - i * 7);
    for (int i = 0; i < 24; i++) (&sums[0][0])[i] = INT32_MAX - i;
    TILES_BEGIN(&shapes);
    TILE_LOAD(0, sums, sizeof sums[0]);
    TILE_LOAD(1, a, sizeof a[0]);
    TILE_LOAD(2, b, sizeof b[0]);
    TILE_DOT(0, 1, 2);
    TILE_STORE(0, more, sizeof more[0]);
    TILE_DOT(0, 1, 2);
    TILE_STORE(0, sums, sizeof sums[0]);
    for (int m = 0; m < 4; m++)
        for (int n = 0; n < 6; n++) {
            int64_t product = 0;
            for (int k = 0; k < 8 && m < 3 && n < 5; k++) product += a[m][k] * b[k / 4][4 * n + k % 4];
            const uint32_t start = (uint32_t)(INT32_MAX - (6 * m + n));
            assert_int_equal((uint32_t)sums[m][n], start + 2 * (uint32_t)product);
            if (m < 3 && n < 5) assert_int_equal((uint32_t)more[m][n], start + (uint32_t)product);
        }
    TILE_ZERO(0);
    TILE_STORE(0, sums, sizeof sums[0]);
    assert_int_equal(sums[2][4], 0);
    assert_int_equal(sums[2][5], INT32_MAX - 17);
    TILES_END();
}
#endif

/* AMX's tiles against AVX-512 VNNI, which the tests above hold against sums in 64 bits: all of a pass's
   tokens, whole and broken tiles of them, panels of all blocks and of the last one. */
static void check_tiles(const qb_integer *tiles, const format *f, int64_t rows, int64_t cols, int64_t T,
                        qb_activations mode) {
    qb_qweight *q = weight_new(f, rows, cols);
    float *x = noise_new(T * cols);
    for (int64_t i = 0; i < T * cols; i += 97) x[i] *= 20;
    float *want = product(vnni, 2, mode, q, x, T), *got = product(tiles, 2, mode, q, x, T);
    for (int64_t i = 0; want && i < T * rows; i++)
        if (memcmp(want + i, got + i, sizeof *got) != 0)
            fail_msg("%s, %s, [%lld, %lld], row %lld of token %lld of %lld: %.9g by tiles, %.9g by VNNI",
                     f->name, qb_activations_name(mode), (long long)rows, (long long)cols,
                     (long long)(i % rows), (long long)(i / rows), (long long)T, (double)got[i],
                     (double)want[i]);
    qb_free(x), qb_free(want), qb_free(got);
    qb_qweight_free(q);
    qb_free(q);
}
static void check_all_tiles(const qb_integer *tiles) {
    static const int64_t many[] = {255, 256, 257};
    for (int i = 0; i < 2 * FORMATS; i++) {
        const format *f = &formats[i / 2];
        for (int64_t T = 1; T <= 40; T++)
            check_tiles(tiles, f, T % 2 ? 19 + 16 * (T % 5) : 16, T % 3 ? 352 : 256, T, modes[i % 2]);
        /* small: tiles in plain C take seconds under sanitizers */
        for (int k = 0; k < 3; k++) check_tiles(tiles, f, 35, f->factored ? 256 : 320, many[k], modes[i % 2]);
    }
}

static void test_integer__tiles_of_amx_change_no_bit(void **state) {
    (void)state;
    if (!amx) skip();
    check_all_tiles(amx);
}
static void test_integer__own_tiles_of_amx_change_no_bit(void **state) {
    (void)state;
    if (!own_amx) skip();
    check_all_tiles(own_amx);
}

/* The products that ceilings count, against sums made here: so many a round are done. */
static void check_spin(const qb_integer *tiles) {
    uint8_t codes[QB_SPIN_BYTES];
    int32_t words[QB_SPIN_WORDS];
    const int64_t rounds = QB_SPIN_STEPS;
    for (int i = 0; i < QB_SPIN_BYTES; i++) codes[i] = (uint8_t)(i * 37 & QB_SPIN_MOST);
    for (int i = 0; i < QB_SPIN_WORDS; i++) words[i] = 0x7f81fe35 - 0x01030507 * i;
    const int8_t *bytes = (const int8_t *)words;
    for (int mode = 0; mode < 2; mode++) {
        int64_t products = 0;
        uint32_t want = 0, times = (uint32_t)(mode ? rounds : 2 * rounds);
        for (int tile = 0; tile < 4; tile++) /* of 16 tokens with the same words */
            for (int row = 0; row < 16; row++) {
                uint32_t sum = 0;
                for (int k = 0; k < 64; k++, products += mode ? 16 : 8)
                    sum += (uint32_t)(bytes[64 * (tile % 2) + k] *
                                      codes[1024 * (tile / 2) + 64 * (k / 4) + 4 * row + k % 4]);
                want |= times * sum;
            }
        assert_int_equal((mode ? tiles->spin_i8 : tiles->spin_i16)(rounds, codes, words), want);
        assert_int_equal(products * times / rounds, tiles->spin_products);
    }
}
static void test_integer__tiles_of_amx_spin(void **state) {
    (void)state;
    if (!amx) skip();
    check_spin(amx);
    if (own_amx) check_spin(own_amx);
}

/* What is not a number stays none; zeros and what is too small for a reciprocal give zero. */
static void test_integer__ends_of_the_range(void **state) {
    (void)state;
    enum { ROWS = 16, COLS = 128 };
    static const float ends[] = {NAN, INFINITY, -INFINITY, 0.0f, 1e-38f, 1e-42f, 3e38f};
    for (int s = 0; set_at(s); s++)
        for (size_t e = 0; e < sizeof ends / sizeof *ends; e++) {
            qb_qweight *q = weight_new(&formats[1], ROWS, COLS);
            float x[COLS] = {0};
            x[77] = ends[e];
            float *y = product(set_at(s), 1, QB_ACTIVATIONS_I16, q, x, 1);
            for (int r = 0; r < ROWS; r++)
                if (e < 3 ? !isnan(y[r]) : e < 6 ? y[r] != 0 : !isfinite(y[r]))
                    fail_msg("%s: %g gives %g", set_at(s)->name, (double)ends[e], (double)y[r]);
            qb_free(y);
            qb_qweight_free(q);
            qb_free(q);
        }
}

/* Weights without such products keep to float32 and say so. */
static void test_integer__others_keep_to_float32(void **state) {
    (void)state;
    static const format others[] = {{.name = "nf4 by row", .codebook = QB_CODEBOOK_NF4, .group = 64},
                                    {.name = "fp4 by row", .codebook = QB_CODEBOOK_FP4, .group = 32}};
    for (int i = 0; i < 2; i++) {
        int64_t cols = i ? 108 : 132;
        qb_qweight *q = weight_new(&others[i], 20, cols);
        qb_weight weight = {.rows = 20, .cols = cols, .packed = q};
        float *x = noise_new(3 * cols), *y[2];
        for (int mode = 0; mode < 2; mode++) {
            qb_device *dev = whole_device(NULL, 1, mode ? QB_ACTIVATIONS_I8 : QB_ACTIVATIONS_F32);
            qb_matrix m;
            assert_ok(dev->backend->matrix_create(dev, &weight, QB_PLACE_DEVICE, &m));
            assert_false(m.integer);
            y[mode] = noise_new(60);
            assert_ok(dev->backend->matmul(dev, y[mode], x, 3, &m));
            dev->backend->matrix_free(dev, &m);
            dev->backend->close(dev);
        }
        assert_memory_equal(y[0], y[1], 60 * sizeof(float));
        qb_weight_free(&weight);
        qb_free(x), qb_free(y[0]), qb_free(y[1]);
    }
}

int main(int argc, char **argv) {
    (void)argc;
    qb_blas_ensure_core(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integer__sums_are_exact),
        cmocka_unit_test(test_integer__sums_of_wide_values_are_exact),
        cmocka_unit_test(test_integer__ends_do_not_saturate),
        cmocka_unit_test(test_integer__equals_rounded_activations),
        cmocka_unit_test(test_integer__same_bits),
#if defined(__x86_64__)
        cmocka_unit_test(test_integer__emulated_tiles_have_shapes),
#endif
        cmocka_unit_test(test_integer__tiles_of_amx_change_no_bit),
        cmocka_unit_test(test_integer__own_tiles_of_amx_change_no_bit),
        cmocka_unit_test(test_integer__tiles_of_amx_spin),
        cmocka_unit_test(test_integer__ends_of_the_range),
        cmocka_unit_test(test_integer__others_keep_to_float32),
    };
    return cmocka_run_group_tests(tests, find_sets, NULL);
}
