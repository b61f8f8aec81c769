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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoint__lists_a_real_model),
        cmocka_unit_test(test_checkpoint__reads_dense_linears_and_vectors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
