/* Steps that carry something from token to token against plain float64, fed whole and in pieces. */
#include "tests/cpu_support.h"

#include <math.h>

enum { SEQ = 2, TOK = 11, KEY_HEADS = 2, VALUE_HEADS = 4, KEY_DIM = 6, VALUE_DIM = 5, TAPS = 4 };
enum { KEYS = KEY_HEADS * KEY_DIM, VALUES = VALUE_HEADS * VALUE_DIM, QKV = 2 * KEYS + VALUES };
enum { CONV_STATE = QKV * (TAPS - 1), STATE = CONV_STATE + VALUE_HEADS * KEY_DIM * VALUE_DIM };

static void reference_conv(const float *x, const float *w, double *out) {
    for (int s = 0; s < SEQ; s++)
        for (int t = 0; t < TOK; t++)
            for (int i = 0; i < QKV; i++) {
                double sum = 0;
                for (int k = 0; k < TAPS; k++)
                    if (t - (TAPS - 1 - k) >= 0)
                        sum += (double)w[i * TAPS + k] * (double)x[(s * TOK + t - (TAPS - 1 - k)) * QKV + i];
                out[(s * TOK + t) * QKV + i] = sum;
            }
}

static double length(const float *x, int n) {
    double sum = 1e-6;
    for (int i = 0; i < n; i++) sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static void reference_delta(const float *qkv, const float *beta, const float *decay, const float *a_log,
                            const float *dt, double *out) {
    for (int s = 0; s < SEQ; s++)
        for (int h = 0; h < VALUE_HEADS; h++) {
            double S[KEY_DIM][VALUE_DIM] = {{0}};
            for (int t = 0; t < TOK; t++) {
                int row = s * TOK + t;
                const float *q = qkv + row * QKV + h / 2 * KEY_DIM, *k = q + KEYS;
                const float *v = qkv + row * QKV + 2 * KEYS + h * VALUE_DIM;
                double b = 1 / (1 + exp(-(double)beta[row * VALUE_HEADS + h]));
                double soft = log1p(exp((double)decay[row * VALUE_HEADS + h] + (double)dt[h]));
                double keep = exp(-exp((double)a_log[h]) * soft), ql = length(q, KEY_DIM),
                       kl = length(k, KEY_DIM);
                for (int d = 0; d < VALUE_DIM; d++) {
                    double recalled = 0, y = 0;
                    for (int i = 0; i < KEY_DIM; i++) recalled += (S[i][d] *= keep) * (double)k[i] / kl;
                    for (int i = 0; i < KEY_DIM; i++) {
                        S[i][d] += (double)k[i] / kl * b * ((double)v[d] - recalled);
                        y += S[i][d] * (double)q[i] / ql / sqrt(KEY_DIM);
                    }
                    out[(row * VALUE_HEADS + h) * VALUE_DIM + d] = y;
                }
            }
        }
}

/* Rows [s][first .. first + n) of a [SEQ][TOK][width] array, and back. */
static void take(float *to, const float *from, int64_t first, int64_t n, int64_t width) {
    for (int64_t s = 0; s < SEQ; s++)
        memcpy(to + s * n * width, from + (s * TOK + first) * width, (size_t)(n * width) * sizeof *to);
}
static void give(float *to, const float *from, int64_t first, int64_t n, int64_t width) {
    for (int64_t s = 0; s < SEQ; s++)
        memcpy(to + (s * TOK + first) * width, from + s * n * width, (size_t)(n * width) * sizeof *to);
}

static void assert_near(const float *got, const double *expected, int64_t n, const char *what) {
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - expected[i]) <= 2e-5 * fmax(1, fabs(expected[i]))))
            fail_msg("%s: element %lld is %g, expected %g", what, (long long)i, (double)got[i], expected[i]);
}

static void test_recurrent__equals_float64_whole_and_in_pieces(void **state) {
    (void)state;
    float *x = noise_new(SEQ * TOK * QKV), *w = noise_new(QKV * TAPS),
          *beta = noise_new(SEQ * TOK * VALUE_HEADS);
    float *decay = noise_new(SEQ * TOK * VALUE_HEADS), *a_log = noise_new(VALUE_HEADS),
          *dt = noise_new(VALUE_HEADS);
    static double conv[SEQ * TOK * QKV], delta[SEQ * TOK * VALUES];
    static float kept[2 * (SEQ + 1) * STATE], y[SEQ * TOK * QKV], out[SEQ * TOK * VALUES],
        piece[SEQ * TOK * QKV];
    static float b[SEQ * TOK * VALUE_HEADS], d[SEQ * TOK * VALUE_HEADS], part[SEQ * TOK * VALUES];
    const qb_conv_attr ca = {.width = QKV, .taps = TAPS, .state = 0};
    const qb_delta_attr da = {.key_heads = KEY_HEADS,
                              .value_heads = VALUE_HEADS,
                              .key_dim = KEY_DIM,
                              .value_dim = VALUE_DIM,
                              .state = CONV_STATE};
    const qb_kv kv = {.n_layers = 2, .n_seq = SEQ + 1, .capacity = TOK, .state_floats = STATE, .state = kept};
    reference_conv(x, w, conv);
    reference_delta(x, beta, decay, a_log, dt, delta);
    static const int64_t steps[] = {TOK, 1, 4};
    FOR_EACH_DEVICE(dev) {
        for (size_t i = 0; i < 3; i++) {
            memset(kept, 0xff, sizeof kept); /* NaN: position 0 begins anew */
            for (int64_t at = 0; at < TOK; at += steps[i]) {
                int64_t n = TOK - at < steps[i] ? TOK - at : steps[i];
                take(piece, x, at, n, QKV);
                assert_ok(cpu->conv(dev, &ca, piece, w, &kv, 1, SEQ, n, at));
                give(y, piece, at, n, QKV);
                take(piece, x, at, n, QKV);
                take(b, beta, at, n, VALUE_HEADS);
                take(d, decay, at, n, VALUE_HEADS);
                assert_ok(cpu->delta(dev, &da, part, piece, b, d, a_log, dt, &kv, 1, SEQ, n, at));
                give(out, part, at, n, VALUES);
            }
            assert_near(y, conv, SEQ * TOK * QKV, "conv");
            assert_near(out, delta, SEQ * TOK * VALUES, "delta");
        }
    }
    float *all[] = {x, w, beta, decay, a_log, dt};
    for (size_t i = 0; i < 6; i++) qb_free(all[i]);
}

static void test_recurrent__refuses_a_cache_without_room(void **state) {
    (void)state;
    float x[8] = {0}, w[8] = {0};
    const qb_kv none = {.n_layers = 1, .n_seq = 1};
    qb_device *dev = device_open(NULL, 1);
    assert_fails(cpu->conv(dev, &(qb_conv_attr){.width = 4, .taps = 2}, x, w, &none, 0, 1, 2, 0),
                 QB_ERR_INTERNAL, "do not fit a cache");
    dev->backend->close(dev);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recurrent__equals_float64_whole_and_in_pieces),
        cmocka_unit_test(test_recurrent__refuses_a_cache_without_room),
    };
    return cmocka_run_group_tests_name("recurrent", tests, NULL, NULL);
}
