/* Opening checkpoints: the files, the index, the config, the bytes of tensors. */
#include "checkpoint/checkpoint.h"
#include "tests/checkpoint_files.h"
#include "tests/support.h"

#include <math.h>
#include <pthread.h>

static qb_checkpoint *open_ok(const char *dir) {
    qb_checkpoint *ck;
    assert_ok(qb_checkpoint_open(dir, &ck));
    return ck;
}

/* Facts of the files as Python's safetensors lists them. */
static void test_checkpoint__lists_a_real_model(void **state) {
    (void)state;
    qb_checkpoint *ck = open_ok(shared_path("models/wikimini-hf"));
    int64_t hidden = 0;
    assert_ok(qb_json_int(qb_checkpoint_config(ck), "hidden_size", "config", true, 1, 1 << 20, &hidden));
    assert_int_equal(hidden, 256);
    assert_int_equal(qb_checkpoint_count(ck), 56);
    assert_false(qb_checkpoint_is_synthetic(ck));
    assert_string_equal(qb_checkpoint_quantization(ck)->method, "");
    const qb_tensor *t = qb_checkpoint_find(ck, "model.layers.5.mlp.down_proj.weight");
    assert_non_null(t);
    assert_int_equal(t->dtype, QB_DTYPE_F16);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->shape[0], 256);
    assert_int_equal(t->shape[1], 768);
    assert_int_equal(t->bytes, 256 * 768 * 2);
    assert_null(qb_checkpoint_find(ck, "model.layers.6.mlp.down_proj.weight"));
    for (size_t i = 0; i < qb_checkpoint_count(ck); i++) {
        assert_int_equal(qb_checkpoint_at(ck, i)->index, i);
        assert_ptr_equal(qb_checkpoint_find(ck, qb_checkpoint_at(ck, i)->name), qb_checkpoint_at(ck, i));
    }
    assert_fails(qb_checkpoint_need(ck, "model.layers.5.mlp.down_prj.weight", &t), QB_ERR_FORMAT,
                 "the nearest name is model.layers.5.mlp.down_proj.weight");
    qb_checkpoint_close(ck);
}

static void test_checkpoint__reads_dense_linears_and_vectors(void **state) {
    (void)state;
    qb_checkpoint *ck = open_ok(shared_path("models/wikimini-hf"));
    qb_weight w;
    assert_ok(qb_checkpoint_linear(ck, "model.layers.0.self_attn.k_proj", 128, 256, &w));
    assert_null(w.packed);
    assert_int_equal(w.dtype, QB_DTYPE_F16);
    uint16_t first;
    memcpy(&first, w.dense, 2);
    float *values;
    assert_ok(qb_checkpoint_read_f32(ck, "model.layers.0.self_attn.k_proj.weight", 128, 256, &values));
    assert_true(values[0] == qb_f32_of_f16(first));
    qb_free(values);
    qb_checkpoint_free_linear(ck, "model.layers.0.self_attn.k_proj", &w);
    assert_fails(qb_checkpoint_linear(ck, "model.layers.0.self_attn.k_proj", 256, 256, &w), QB_ERR_FORMAT,
                 "expected F16 [256, 256], found F16 [128, 256]");
    assert_fails(qb_checkpoint_linear(ck, "model.layers.0.self_attn.x_proj", 256, 256, &w), QB_ERR_FORMAT,
                 "holds no tensor model.layers.0.self_attn.x_proj.weight; the nearest name is");
    assert_ok(qb_checkpoint_read_f32(ck, "model.norm.weight", 256, 0, &values));
    qb_free(values);
    assert_fails(qb_checkpoint_read_f32(ck, "model.norm.weight", 255, 0, &values), QB_ERR_FORMAT,
                 "expected F16 [255]");
    qb_checkpoint_close(ck);
}

/* ---- synthetic ---- */

static const qb_tensor_spec specs[] = {
    {"model.embed_tokens.weight", 2, {320, 64}, 0.02f},
    {"model.norm.weight", 1, {64}, 0},
    {"model.layers.0.mlp.up_proj.weight", 2, {173, 61}, 0.05f},
};

static qb_checkpoint *synthetic(uint64_t seed) {
    qb_checkpoint *ck;
    qb_json *config = qb_json_object();
    qb_json_put_int(config, "hidden_size", 64);
    assert_ok(qb_checkpoint_synthetic(config, specs, 3, seed, &ck));
    qb_json_free(config);
    return ck;
}

static void test_checkpoint__synthetic_values_follow_seed_and_name(void **state) {
    (void)state;
    qb_checkpoint *a = synthetic(1), *b = synthetic(1), *c = synthetic(2);
    char hex[3][QB_SHA256_HEX];
    const void *x, *y, *z, *again;
    assert_true(qb_checkpoint_is_synthetic(a));
    assert_string_equal(qb_checkpoint_dir(a), "synthetic");
    for (size_t i = 0; i < 3; i++) {
        const qb_tensor *t = qb_checkpoint_at(a, i);
        assert_null(t->data);
        assert_ok(qb_checkpoint_acquire(a, t, &x));
        assert_ok(qb_checkpoint_acquire(a, t, &again));
        assert_ptr_equal(x, again);
        assert_ptr_equal(x, t->data);
        assert_ok(qb_checkpoint_acquire(b, qb_checkpoint_at(b, i), &y));
        assert_ok(qb_checkpoint_acquire(c, qb_checkpoint_at(c, i), &z));
        assert_memory_equal(x, y, (size_t)t->bytes);
        if (t->n_dims == 2) assert_memory_not_equal(x, z, (size_t)t->bytes);
        qb_checkpoint_release(a, t);
        assert_ptr_equal(t->data, x); /* held once more */
        qb_checkpoint_release(a, t);
        assert_null(t->data);
    }
    assert_ok(qb_checkpoint_sha256(a, hex[0]));
    assert_ok(qb_checkpoint_sha256(b, hex[1]));
    assert_ok(qb_checkpoint_sha256(c, hex[2]));
    assert_string_equal(hex[0], hex[1]);
    assert_string_not_equal(hex[0], hex[2]);
    qb_checkpoint_close(a);
    qb_checkpoint_close(b);
    qb_checkpoint_close(c);
}

/* Mean, standard deviation and fourth moment of a normal distribution, within five standard errors. */
static void test_checkpoint__synthetic_weights_are_normal(void **state) {
    (void)state;
    qb_checkpoint *ck = synthetic(3);
    float *v;
    const double n = 320 * 64;
    double mean = 0, square = 0, fourth = 0;
    assert_ok(qb_checkpoint_read_f32(ck, "model.embed_tokens.weight", 320, 64, &v));
    for (int i = 0; i < 320 * 64; i++) {
        double z = (double)v[i] / 0.02;
        mean += z / n;
        square += z * z / n;
        fourth += z * z * z * z / n;
    }
    qb_free(v);
    assert_true(fabs(mean) < 5 / sqrt(n));
    assert_true(fabs(square - 1) < 5 * sqrt(2 / n));
    assert_true(fabs(fourth - 3) < 5 * sqrt(96 / n));
    assert_ok(qb_checkpoint_read_f32(ck, "model.norm.weight", 64, 0, &v));
    for (int i = 0; i < 64; i++) assert_true(v[i] == 1.0f);
    qb_free(v);
    qb_checkpoint_close(ck);
}

static void test_checkpoint__synthetic_refuses_impossible_specs(void **state) {
    (void)state;
    static const qb_tensor_spec bad[] = {
        {"", 2, {4, 4}, 1},   {"w", 3, {4, 4, 0}, 1},      {"w", 4, {4, 4, 4}, 1},       {"w", 2, {4, 0}, 1},
        {"w", 2, {4, 4}, -1}, {"w", 2, {1ll << 62, 4}, 1}, {"w", 2, {4, 4}, (float)NAN},
    };
    qb_checkpoint *ck;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_fails(qb_checkpoint_synthetic(NULL, &bad[i], 1, 0, &ck), QB_ERR_FORMAT, "is not possible");
    qb_tensor_spec twice[2] = {specs[0], specs[0]};
    assert_fails(qb_checkpoint_synthetic(NULL, twice, 2, 0, &ck), QB_ERR_FORMAT, "listed twice");
}

/* Threads that hold and drop the same tensors at once see whole values and leave nothing held. */
typedef struct {
    qb_checkpoint *ck;
    const uint16_t *expected;
    bool wrong;
} holder;
static void *hold_and_drop(void *argument) {
    holder *h = argument;
    const qb_tensor *t = qb_checkpoint_at(h->ck, 0);
    for (int i = 0; i < 200; i++) {
        const void *bytes;
        if (qb_checkpoint_acquire(h->ck, t, &bytes) != QB_OK ||
            memcmp(bytes, h->expected, (size_t)t->bytes) != 0)
            h->wrong = true;
        qb_checkpoint_release(h->ck, t);
    }
    return NULL;
}
static void test_checkpoint__synthetic_tensors_are_shared_by_threads(void **state) {
    (void)state;
    qb_checkpoint *ck = synthetic(4), *other = synthetic(4);
    const void *expected;
    assert_ok(qb_checkpoint_acquire(other, qb_checkpoint_at(other, 0), &expected));
    holder holders[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        holders[i] = (holder){ck, expected, false};
        assert_int_equal(pthread_create(&threads[i], NULL, hold_and_drop, &holders[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_false(holders[i].wrong);
    }
    assert_null(qb_checkpoint_at(ck, 0)->data);
    qb_checkpoint_close(ck);
    qb_checkpoint_close(other);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint__lists_a_real_model),
        cmocka_unit_test(test_checkpoint__reads_dense_linears_and_vectors),
        cmocka_unit_test(test_checkpoint__synthetic_values_follow_seed_and_name),
        cmocka_unit_test(test_checkpoint__synthetic_weights_are_normal),
        cmocka_unit_test(test_checkpoint__synthetic_refuses_impossible_specs),
        cmocka_unit_test(test_checkpoint__synthetic_tensors_are_shared_by_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
