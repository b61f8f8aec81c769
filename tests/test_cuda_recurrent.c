/* Concatenations, short convolutions and the gated delta rule on the device against the CPU backend, a prompt
   and tokens after it; and in the captured token against the plain ops, beside attention with values of a
   width of their own. */
#include "tests/cuda_lists.h"

static qb_kv state_new(qb_device *dev, int64_t n_seq, int64_t floats, const float *values) {
    qb_kv kv = {QB_DTYPE_F32, 2, n_seq, 8, 1, 1, 1, NULL, NULL, floats, NULL};
    int64_t bytes = 2 * n_seq * floats * 4;
    assert_ok(dev->backend->alloc(dev, QB_MEMORY_KV, bytes, &kv.state));
    assert_ok(dev->backend->upload(dev, kv.state, values, bytes));
    return kv;
}
static void assert_states_equal(const qb_kv *want, const qb_kv *got, double relative, const char *what) {
    int64_t n = 2 * want->n_seq * want->state_floats;
    assert_cuda_floats(on_cuda, got->state, want->state, n, relative, relative, what);
}
static void state_free(qb_device *dev, qb_kv *kv) {
    dev->backend->free(dev, kv->state);
}

static void test_cuda_recurrent__concat_equals_the_cpu(void **state) {
    (void)state;
    static const int64_t widths[][3] = {{3, 5, 0}, {1, 1, 1}, {64, 32, 128}, {7, 300, 2}};
    enum { T = 5 };
    for (int i = 0; i < 4; i++) {
        const int64_t *n = widths[i], all = T * (n[0] + n[1] + n[2]);
        float *x[3] = {NULL}, *dx[3] = {NULL}, *out = noise_new(all),
              *dout = cuda_put_floats(on_cuda, out, all);
        for (int p = 0; p < 3; p++)
            if (n[p]) x[p] = noise_new(T * n[p]), dx[p] = cuda_put_floats(on_cuda, x[p], T * n[p]);
        assert_ok(on_cpu->backend->concat(on_cpu, out, (const float *const[3]){x[0], x[1], x[2]}, n, T));
        assert_ok(cuda->concat(on_cuda, dout, (const float *const[3]){dx[0], dx[1], dx[2]}, n, T));
        assert_cuda_floats(on_cuda, dout, out, all, 0, 0, "concat");
        for (int p = 0; p < 3; p++) cuda->free(on_cuda, dx[p]), qb_free(x[p]);
        cuda->free(on_cuda, dout), qb_free(out);
    }
}

/* A prompt of 5 tokens, then 2, then single ones; at position 0 what was kept counts for nothing. */
static const int64_t spans[] = {5, 2, 1, 1};
enum { N_SPANS = 4, SPAN = 5 };

static void test_cuda_recurrent__conv_equals_the_cpu(void **state) {
    (void)state;
    static const qb_conv_attr attrs[] = {{300, 4, 3}, {7, 2, 0}, {130, 9, 11}};
    FOR_EACH_ORDER(seed) for (int i = 0; i < 3; i++) {
        const qb_conv_attr *a = &attrs[i];
        enum { SEQ = 2 };
        int64_t floats = a->state + a->width * (a->taps - 1) + 2, first = 0;
        float *kept = noise_new(2 * SEQ * floats), *w = noise_new(a->width * a->taps);
        float *dw = cuda_put_floats(on_cuda, w, a->width * a->taps);
        qb_kv kv = state_new(on_cpu, SEQ, floats, kept), dkv = state_new(on_cuda, SEQ, floats, kept);
        for (int s = 0; s < N_SPANS; first += spans[s++]) {
            int64_t n = SEQ * spans[s] * a->width;
            float *x = noise_new(n), *dx = cuda_put_floats(on_cuda, x, n);
            assert_ok(on_cpu->backend->conv(on_cpu, a, x, w, &kv, 1, SEQ, spans[s], first));
            assert_ok(cuda->conv(on_cuda, a, dx, dw, &dkv, 1, SEQ, spans[s], first));
            assert_cuda_floats(on_cuda, dx, x, n, 1e-6, 1e-6, "conv");
            assert_states_equal(&kv, &dkv, 0, "what a convolution keeps");
            cuda->free(on_cuda, dx), qb_free(x);
        }
        assert_fails(cuda->conv(on_cuda, a, dw, dw, &dkv, 1, SEQ + 1, 1, 0), QB_ERR_INTERNAL, "3 sequences");
        state_free(on_cpu, &kv), state_free(on_cuda, &dkv), cuda->free(on_cuda, dw);
        qb_free(kept), qb_free(w);
    }
}

static void test_cuda_recurrent__delta_equals_the_cpu(void **state) {
    (void)state;
    static const qb_delta_attr attrs[] = {
        {2, 4, 16, 24, 5}, {1, 1, 7, 3, 0}, {1, 2, 64, 40, 2}, {1, 1, 256, 8, 0}};
    FOR_EACH_ORDER(seed) for (int i = 0; i < 4; i++) {
        const qb_delta_attr *a = &attrs[i];
        enum { SEQ = 2 };
        int64_t width = 2 * a->key_heads * a->key_dim + a->value_heads * a->value_dim, first = 0;
        int64_t floats = a->state + a->value_heads * a->key_dim * a->value_dim + 1;
        float *kept = noise_new(2 * SEQ * floats), *heads = noise_new(2 * a->value_heads);
        float *dheads = cuda_put_floats(on_cuda, heads, 2 * a->value_heads);
        qb_kv kv = state_new(on_cpu, SEQ, floats, kept), dkv = state_new(on_cuda, SEQ, floats, kept);
        for (int s = 0; s < N_SPANS; first += spans[s++]) {
            int64_t T = SEQ * spans[s], n = T * a->value_heads * a->value_dim, n_heads = T * a->value_heads;
            float *qkv = noise_new(T * width), *gates = noise_new(2 * n_heads), *out = noise_new(n);
            for (int64_t g = 0; g < n_heads; g++) gates[g] *= g % 7 ? 4.0f : 30.0f;
            float *dqkv = cuda_put_floats(on_cuda, qkv, T * width),
                  *dgates = cuda_put_floats(on_cuda, gates, 2 * n_heads),
                  *dout = cuda_put_floats(on_cuda, out, n);
            assert_ok(on_cpu->backend->delta(on_cpu, a, out, qkv, gates + n_heads, gates, heads,
                                             heads + a->value_heads, &kv, 1, SEQ, spans[s], first));
            assert_ok(cuda->delta(on_cuda, a, dout, dqkv, dgates + n_heads, dgates, dheads,
                                  dheads + a->value_heads, &dkv, 1, SEQ, spans[s], first));
            assert_cuda_floats(on_cuda, dout, out, n, 2e-6, 1e-5, "delta");
            assert_states_equal(&kv, &dkv, 2e-6, "what a delta rule keeps");
            cuda->free(on_cuda, dqkv), cuda->free(on_cuda, dgates), cuda->free(on_cuda, dout);
            qb_free(qkv), qb_free(gates), qb_free(out);
        }
        state_free(on_cpu, &kv), state_free(on_cuda, &dkv), cuda->free(on_cuda, dheads);
        qb_free(kept), qb_free(heads);
    }
}

/* ---- in the captured token ---- */

enum { X, H, DQ, DK, DV, QKV, PAIR, BETA, DECAY, Y, O, Q, K, V, C, LOGITS, SLOTS };
enum {
    WIDTH = 64,
    KEY_HEADS = 2,
    VALUE_HEADS = 4,
    KEY_DIM = 8,
    VALUE_DIM = 16,
    TAPS = 4,
    VOCAB = 40,
    POSITIONS = 12
};
enum {
    HEADS = 4,
    KV_HEADS = 2,
    DIM = 24,
    OUT_DIM = 16,
    KEYS = KEY_HEADS * KEY_DIM,
    VALUES = VALUE_HEADS * VALUE_DIM
};
static const int64_t widths[SLOTS] = {
    WIDTH,       WIDTH,  KEYS,  KEYS,       VALUES,        2 * KEYS + VALUES, KEYS + VALUES,  VALUE_HEADS,
    VALUE_HEADS, VALUES, WIDTH, HEADS *DIM, KV_HEADS *DIM, KV_HEADS *OUT_DIM, HEADS *OUT_DIM, VOCAB};
static bool folds, bias;

static void dense(list *l, int8_t in, int8_t out) {
    add_dense(l, folds ? QB_DTYPE_F16 : QB_DTYPE_F32, widths[out], widths[in], bias, in, out);
}
static void norm(list *l, int8_t in, int8_t out) {
    qb_step *s = push(l, QB_STEP_NORM, in, -1, out);
    s->u.norm = (qb_norm_attr){QB_NORM_RMS, 1e-5f, widths[in], 1};
    s->vector = add_vector(l, widths[in], 1.0f);
}

/* What of a layer is left out of the common form. */
typedef enum { WHOLE, TWO_PARTS, NO_CONV, TWO_CONVS, TURNED } form;

static void delta_block(list *l, form f) {
    const int64_t conv_floats = widths[QKV] * (TAPS - 1);
    norm(l, X, H);
    dense(l, H, DQ), dense(l, H, DK), dense(l, H, DV);
    qb_step *s;
    if (f == TWO_PARTS) {
        push(l, QB_STEP_CONCAT, DK, DV, PAIR);
        push(l, QB_STEP_CONCAT, DQ, PAIR, QKV);
    } else {
        s = push(l, QB_STEP_CONCAT, DQ, DK, QKV);
        s->in3 = DV;
    }
    for (int i = 0; i < (f == NO_CONV ? 0 : f == TWO_CONVS ? 2 : 1); i++) {
        s = push(l, QB_STEP_CONV, -1, -1, QKV);
        s->u.conv = (qb_conv_attr){widths[QKV], TAPS, 1 + i * conv_floats};
        s->vector = add_vector(l, widths[QKV] * TAPS, 0.2f);
    }
    push(l, QB_STEP_ACTIVATE, QKV, -1, QKV)->u.activate = (qb_activate_attr){.kind = QB_ACTIVATION_SILU};
    dense(l, H, BETA), dense(l, H, DECAY);
    s = push(l, QB_STEP_DELTA, QKV, BETA, Y);
    s->in3 = DECAY;
    s->u.delta = (qb_delta_attr){KEY_HEADS, VALUE_HEADS, KEY_DIM, VALUE_DIM, 1 + 2 * conv_floats};
    s->vector = add_vector(l, VALUE_HEADS, 0.0f), s->vector2 = add_vector(l, VALUE_HEADS, 0.0f);
    dense(l, Y, O);
    push(l, QB_STEP_ADD, O, -1, X);
}

static void attention_block(list *l, form f) {
    norm(l, X, H);
    dense(l, H, Q), dense(l, H, K), dense(l, H, V);
    for (int i = 0; f == TURNED && i < 2; i++)
        push(l, QB_STEP_ROPE, -1, -1, i ? K : Q)->u.rope =
            (qb_rope_attr){QB_ROPE_HALF, 0, i ? KV_HEADS : HEADS, DIM, 0, 8};
    push(l, QB_STEP_CACHE, K, V, -1);
    push(l, QB_STEP_ATTEND, Q, -1, C)->u.attend =
        (qb_attend_attr){HEADS, KV_HEADS, DIM, OUT_DIM, 0.2f, 0, 0, 0, QB_ALIBI_NONE};
    dense(l, C, O);
    push(l, QB_STEP_ADD, O, -1, X);
}

static lists *model_new(form f) {
    noise_state = 17;
    lists *m = lists_new(VOCAB, POSITIONS, 8, widths, SLOTS, LOGITS);
    m->kv = (qb_kv){QB_DTYPE_F16, LIST_LAYERS, 0, POSITIONS, KV_HEADS, DIM, OUT_DIM, NULL, NULL, 0, NULL};
    m->kv.state_floats = 1 + 2 * widths[QKV] * (TAPS - 1) + VALUE_HEADS * KEY_DIM * VALUE_DIM;
    delta_block(&m->blocks[0], f);
    attention_block(&m->blocks[1], f);
    norm(&m->leave, X, H);
    dense(&m->leave, H, LOGITS);
    return m;
}

static void test_cuda_recurrent__captured_lists_equal_the_plain_ops(void **state) {
    (void)state;
    for (int i = 0; i < 5 * 4; i++) {
        folds = i & 1, bias = i & 2;
        lists *m = model_new((form)(i / 4));
        compare_lists(m, "recurrent", 2, 5, 4e-3);
        lists_free(m);
    }
}

static void test_cuda_recurrent__captured_lists_refuse_what_does_not_fit(void **state) {
    (void)state;
    for (int what = 0; what < 5; what++) {
        lists *m = model_new(WHOLE);
        list *l = &m->blocks[0];
        float *logits;
        int32_t id = 1;
        if (what == 0) m->kv.state_floats--;
        if (what == 1) m->kv.state_floats = 0;
        for (int64_t i = 0; i < l->w.n_steps; i++) {
            if (what == 2 && l->steps[i].kind == QB_STEP_DELTA) l->steps[i].u.delta.key_dim = 257;
            if (what == 3 && l->steps[i].kind == QB_STEP_CONV) l->steps[i].u.conv.taps = 65;
            if (what == 4 && l->steps[i].kind == QB_STEP_CONV)
                *push(&m->leave, QB_STEP_CONV, -1, -1, QKV) = l->steps[i];
        }
        qb_kv kv = cache_new(m, 1);
        assert_ok(cuda->alloc(on_cuda, QB_MEMORY_ACTIVATIONS, VOCAB * 4, &logits));
        assert_int_equal(cuda->decode(on_cuda, &m->d, &kv, &id, 1, 0, logits), QB_ERR_UNSUPPORTED);
        cuda->free(on_cuda, logits);
        cache_free(&kv);
        lists_free(m);
    }
}

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_recurrent__concat_equals_the_cpu),
        cmocka_unit_test(test_cuda_recurrent__conv_equals_the_cpu),
        cmocka_unit_test(test_cuda_recurrent__delta_equals_the_cpu),
        cmocka_unit_test(test_cuda_recurrent__captured_lists_equal_the_plain_ops),
        cmocka_unit_test(test_cuda_recurrent__captured_lists_refuse_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, pair_open, pair_close);
}

int main(void) {
    return cuda_run(run);
}
