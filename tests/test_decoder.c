/* The one decoder against a plain float64 forward written from the papers' formulas, for families that differ
   in every switch, and against itself: whole prompt, token by token, and several sequences at once. */
#include "base/rng.h"
#include "model/decoder.h"
#include "model/owners.h"
#include "tests/support.h"
#include "tests/toy_families.h"

#include <math.h>

typedef struct {
    qb_model model;
    qb_device *dev;
} fixture;

static const qb_config configs[] = {
    {.family = &rms_gated,
     .variant = TOY_GATED,
     .gated = true,
     .hidden = 48,
     .ffn = 88,
     .n_layers = 2,
     .n_heads = 6,
     .n_kv_heads = 2,
     .head_dim = 8,
     .vocab = 61,
     .max_positions = 64,
     .norm_eps = 1e-5f,
     .activation = QB_ACTIVATION_SILU,
     .n_ropes = 1,
     .ropes = {{.theta = 10000, .width = 8}},
     .embed_width = 48},
    {.family = &layer_learned,
     .variant = TOY_LEARNED,
     .hidden = 32,
     .ffn = 128,
     .n_layers = 2,
     .n_heads = 4,
     .n_kv_heads = 4,
     .head_dim = 8,
     .vocab = 50,
     .max_positions = 64,
     .norm_eps = 1e-5f,
     .activation = QB_ACTIVATION_RELU,
     .attention_bias = true,
     .output_bias = true,
     .mlp_bias = true,
     .tied_head = true,
     .embed_width = 32},
    {.family = &interleaved,
     .variant = TOY_INTERLEAVED,
     .rope_interleaved = true,
     .hidden = 40,
     .ffn = 64,
     .n_layers = 1,
     .n_heads = 2,
     .n_kv_heads = 1,
     .head_dim = 20,
     .vocab = 33,
     .max_positions = 64,
     .norm_eps = 1e-6f,
     .activation = QB_ACTIVATION_GELU_TANH,
     .attention_bias = true,
     .n_ropes = 1,
     .ropes = {{.theta = 500, .width = 8}},
     .embed_width = 40},
};
enum { N_CONFIGS = sizeof configs / sizeof configs[0], TOKENS = 13 };

static void fixture_open(fixture *f, const qb_config *c) {
    *f = (fixture){0};
    toy_open(&f->model, c, 5);
    assert_ok(qb_backend_find("cpu")->open(&(qb_device_options){.threads = 2}, &f->dev));
    assert_ok(qb_model_load(&f->model, f->dev, c->max_positions, true));
}

static void fixture_close(fixture *f) {
    /* qb_model_close frees the struct itself, which here lives on the stack: close a copy. */
    qb_model *copy;
    assert_ok(qb_alloc(1, sizeof *copy, &copy));
    *copy = f->model;
    qb_model_close(copy);
    qb_memory memory;
    f->dev->backend->memory(f->dev, &memory);
    for (int k = 0; k < QB_MEMORY_COUNT; k++)
        if (k != QB_MEMORY_WORKSPACE) assert_int_equal(memory.now_bytes[k], 0);
    f->dev->backend->close(f->dev);
}

/* ---- the float64 forward ---- */

static float *tensor(const fixture *f, const char *pattern, int64_t layer, const char *suffix, int64_t rows,
                     int64_t cols) {
    char name[QB_NAME_BYTES], full[64];
    float *data;
    snprintf(full, sizeof full, "%s%s", pattern, suffix);
    qb_vector_name(&(qb_vector){.prefix = "", .name = full}, layer, 0, name);
    assert_ok(qb_checkpoint_read_f32(f->model.checkpoint, name, rows, cols, &data));
    return data;
}

static void norm(const fixture *f, const char *pattern, int64_t layer, const double *x, double *y) {
    const qb_config *c = &f->model.config;
    bool layered = c->variant != TOY_GATED;
    float *w = tensor(f, pattern, layer, ".weight", c->hidden, 0);
    float *b = layered ? tensor(f, pattern, layer, ".bias", c->hidden, 0) : NULL;
    double mean = 0, square = 0;
    for (int64_t i = 0; i < c->hidden && layered; i++) mean += x[i] / (double)c->hidden;
    for (int64_t i = 0; i < c->hidden; i++) square += (x[i] - mean) * (x[i] - mean) / (double)c->hidden;
    for (int64_t i = 0; i < c->hidden; i++)
        y[i] = (x[i] - mean) / sqrt(square + (double)c->norm_eps) * (double)w[i] + (b ? (double)b[i] : 0);
    qb_free(w);
    qb_free(b);
}

static void linear(const fixture *f, int64_t layer, const char *name, int64_t rows, int64_t cols, bool biased,
                   const double *x, double *y) {
    float *w = tensor(f, name, layer, ".weight", rows, cols);
    float *b = biased ? tensor(f, name, layer, ".bias", rows, 0) : NULL;
    for (int64_t r = 0; r < rows; r++) {
        y[r] = b ? (double)b[r] : 0;
        for (int64_t k = 0; k < cols; k++) y[r] += (double)w[r * cols + k] * x[k];
    }
    qb_free(w);
    qb_free(b);
}

static void turn(const qb_config *c, double *head, int64_t position) {
    int64_t rot = c->ropes[0].width;
    for (int64_t i = 0; i < rot / 2; i++) {
        double angle = (double)position * pow(c->ropes[0].theta, -2.0 * (double)i / (double)rot);
        int64_t a = !c->rope_interleaved ? i : 2 * i, b = !c->rope_interleaved ? i + rot / 2 : 2 * i + 1;
        double x = head[a], y = head[b];
        head[a] = x * cos(angle) - y * sin(angle);
        head[b] = y * cos(angle) + x * sin(angle);
    }
}

static double activate(qb_activation kind, double v) {
    switch (kind) {
    case QB_ACTIVATION_SILU:
        return v / (1 + exp(-v));
    case QB_ACTIVATION_RELU:
        return v > 0 ? v : 0;
    case QB_ACTIVATION_GELU:
        return 0.5 * v * (1 + erf(v / sqrt(2)));
    case QB_ACTIVATION_GELU_TANH:
        return 0.5 * v * (1 + tanh(sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
    default:
        break;
    }
    return 0;
}

enum { WIDTH = 160 };
static double streams[TOKENS][WIDTH], keys[TOKENS][WIDTH], values[TOKENS][WIDTH];

static void attend(const fixture *f, int64_t layer, int t) {
    const qb_config *c = &f->model.config;
    double in[WIDTH], q[WIDTH], out[WIDTH] = {0}, projected[WIDTH];
    norm(f, "l.%d.n1", layer, streams[t], in);
    linear(f, layer, "l.%d.q", c->n_heads * c->head_dim, c->hidden, c->attention_bias, in, q);
    linear(f, layer, "l.%d.k", c->n_kv_heads * c->head_dim, c->hidden, c->attention_bias, in, keys[t]);
    linear(f, layer, "l.%d.v", c->n_kv_heads * c->head_dim, c->hidden, c->attention_bias, in, values[t]);
    if (c->variant != TOY_LEARNED) {
        for (int64_t h = 0; h < c->n_heads; h++) turn(c, q + h * c->head_dim, t);
        for (int64_t h = 0; h < c->n_kv_heads; h++) turn(c, keys[t] + h * c->head_dim, t);
    }
    for (int64_t h = 0; h < c->n_heads; h++) {
        int64_t at = h / (c->n_heads / c->n_kv_heads) * c->head_dim;
        double weights[TOKENS], sum = 0;
        for (int s = 0; s <= t; s++) {
            double dot = 0;
            for (int64_t i = 0; i < c->head_dim; i++) dot += q[h * c->head_dim + i] * keys[s][at + i];
            sum += weights[s] = exp(dot / sqrt((double)c->head_dim));
        }
        for (int s = 0; s <= t; s++)
            for (int64_t i = 0; i < c->head_dim; i++)
                out[h * c->head_dim + i] += weights[s] / sum * values[s][at + i];
    }
    linear(f, layer, "l.%d.o", c->hidden, c->n_heads * c->head_dim, c->output_bias, out, projected);
    for (int64_t i = 0; i < c->hidden; i++) streams[t][i] += projected[i];
}

static void feed_forward(const fixture *f, int64_t layer, int t) {
    const qb_config *c = &f->model.config;
    double in[WIDTH], up[WIDTH], gate[WIDTH], out[WIDTH];
    norm(f, "l.%d.n2", layer, streams[t], in);
    linear(f, layer, "l.%d.u", c->ffn, c->hidden, c->mlp_bias, in, up);
    if (c->gated) linear(f, layer, "l.%d.g", c->ffn, c->hidden, c->mlp_bias, in, gate);
    for (int64_t i = 0; i < c->ffn; i++)
        up[i] = c->gated ? activate(c->activation, gate[i]) * up[i] : activate(c->activation, up[i]);
    linear(f, layer, "l.%d.d", c->hidden, c->ffn, c->mlp_bias, up, out);
    for (int64_t i = 0; i < c->hidden; i++) streams[t][i] += out[i];
}

/* logits[TOKENS][vocab] of the ids. */
static void reference_forward(const fixture *f, const int32_t *ids, double *logits) {
    const qb_config *c = &f->model.config;
    float *e = tensor(f, "e", 0, ".weight", c->vocab, c->hidden);
    float *p = c->variant == TOY_LEARNED
                   ? tensor(f, "p", 0, ".weight", c->max_positions + TOY_OFFSET, c->hidden)
                   : NULL;
    for (int t = 0; t < TOKENS; t++)
        for (int64_t i = 0; i < c->hidden; i++)
            streams[t][i] =
                (double)e[ids[t] * c->hidden + i] + (p ? (double)p[(t + TOY_OFFSET) * c->hidden + i] : 0);
    for (int64_t layer = 0; layer < c->n_layers; layer++) {
        for (int t = 0; t < TOKENS; t++) attend(f, layer, t);
        for (int t = 0; t < TOKENS; t++) feed_forward(f, layer, t);
    }
    float *head = c->tied_head ? NULL : tensor(f, "h", 0, ".weight", c->vocab, c->hidden);
    for (int t = 0; t < TOKENS; t++) {
        double in[WIDTH];
        norm(f, "n", 0, streams[t], in);
        for (int64_t v = 0; v < c->vocab; v++) {
            double dot = 0;
            for (int64_t i = 0; i < c->hidden; i++)
                dot += (double)(head ? head : e)[v * c->hidden + i] * in[i];
            logits[t * c->vocab + v] = dot;
        }
    }
    qb_free(e);
    qb_free(p);
    qb_free(head);
}

/* ---- tests ---- */

static void random_ids(const qb_config *c, uint64_t seed, int32_t ids[TOKENS]) {
    for (int t = 0; t < TOKENS; t++) ids[t] = (int32_t)(qb_noise_u64(seed, (uint64_t)t) % (uint64_t)c->vocab);
}

/* logits of n_seq sequences fed in calls of `step` tokens. */
static void model_forward(fixture *f, const int32_t *ids, int64_t n_seq, int64_t step, qb_dtype kv_dtype,
                          float *logits) {
    qb_model *m = &f->model;
    const qb_config *c = &m->config;
    qb_workspace ws;
    qb_kv kv;
    float *x, *out;
    assert_ok(qb_workspace_create(m, n_seq * step, &ws));
    assert_ok(qb_kv_create(m, kv_dtype, c->n_layers, n_seq, TOKENS, &kv));
    assert_ok(f->dev->backend->alloc(f->dev, QB_MEMORY_ACTIVATIONS, n_seq * step * c->hidden * 4, &x));
    assert_ok(f->dev->backend->alloc(f->dev, QB_MEMORY_ACTIVATIONS, n_seq * step * c->vocab * 4, &out));
    for (int64_t at = 0; at < TOKENS; at += step) {
        int64_t n = TOKENS - at < step ? TOKENS - at : step;
        int32_t part[4 * TOKENS];
        for (int64_t s = 0; s < n_seq; s++)
            memcpy(part + s * n, ids + s * TOKENS + at, (size_t)n * sizeof *part);
        qb_span span = {n_seq, n, at, &kv, 0};
        assert_ok(qb_model_forward(m, &ws, x, part, &span));
        assert_ok(qb_model_head(m, &ws, out, x, n_seq * n));
        for (int64_t s = 0; s < n_seq; s++)
            assert_ok(f->dev->backend->download(f->dev, logits + (s * TOKENS + at) * c->vocab,
                                                out + s * n * c->vocab, n * c->vocab * 4));
    }
    f->dev->backend->free(f->dev, x);
    f->dev->backend->free(f->dev, out);
    qb_kv_free(m, &kv);
    qb_workspace_free(m, &ws);
}

static double worst(const float *a, const double *b, int64_t n) {
    double largest = 0, scale = 0;
    for (int64_t i = 0; i < n; i++) {
        largest = fmax(largest, fabs((double)a[i] - b[i]));
        scale = fmax(scale, fabs(b[i]));
    }
    return largest / scale;
}

static void test_decoder__equals_float64_reference(void **state) {
    (void)state;
    for (size_t i = 0; i < N_CONFIGS; i++) {
        fixture f;
        fixture_open(&f, &configs[i]);
        int64_t n = TOKENS * configs[i].vocab;
        int32_t ids[TOKENS];
        random_ids(&configs[i], i, ids);
        double *expected = malloc((size_t)n * sizeof *expected);
        float *got = malloc((size_t)n * sizeof *got);
        reference_forward(&f, ids, expected);
        model_forward(&f, ids, 1, TOKENS, QB_DTYPE_F32, got);
        if (worst(got, expected, n) > 2e-5)
            fail_msg("family %s: %g off", configs[i].family->name, worst(got, expected, n));
        model_forward(&f, ids, 1, 1, QB_DTYPE_F32, got);
        if (worst(got, expected, n) > 2e-5) fail_msg("family %s, token by token", configs[i].family->name);
        model_forward(&f, ids, 1, 5, QB_DTYPE_F16, got);
        if (worst(got, expected, n) > 5e-3)
            fail_msg("family %s, float16 cache in pieces", configs[i].family->name);
        free(expected);
        free(got);
        fixture_close(&f);
    }
}

static void test_decoder__sequences_do_not_mix(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, &configs[0]);
    int64_t vocab = configs[0].vocab, n = TOKENS * vocab;
    int32_t ids[3 * TOKENS];
    for (uint64_t s = 0; s < 3; s++) random_ids(&configs[0], 40 + s, ids + s * TOKENS);
    float *together = malloc((size_t)(3 * n) * sizeof *together), *alone = malloc((size_t)n * sizeof *alone);
    model_forward(&f, ids, 3, 4, QB_DTYPE_F32, together);
    for (int s = 0; s < 3; s++) {
        model_forward(&f, ids + s * TOKENS, 1, 4, QB_DTYPE_F32, alone);
        for (int64_t i = 0; i < n; i++) assert_true(fabsf(alone[i] - together[s * n + i]) < 2e-5f);
    }
    free(together);
    free(alone);
    fixture_close(&f);
}

static void test_decoder__refuses_foreign_ids(void **state) {
    (void)state;
    fixture f;
    fixture_open(&f, &configs[0]);
    float x[48];
    int32_t id = 61;
    qb_span span = {1, 1, 0, NULL, 0};
    qb_workspace ws;
    assert_ok(qb_workspace_create(&f.model, 1, &ws));
    assert_fails(qb_model_embed(&f.model, &ws, x, &id, &span), QB_ERR_FORMAT,
                 "outside the model's vocabulary of 61");
    qb_workspace_free(&f.model, &ws);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decoder__equals_float64_reference),
        cmocka_unit_test(test_decoder__sequences_do_not_mix),
        cmocka_unit_test(test_decoder__refuses_foreign_ids),
    };
    return cmocka_run_group_tests_name("decoder", tests, NULL, NULL);
}
