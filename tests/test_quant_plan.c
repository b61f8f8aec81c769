/* The plan of a run looks at every block. */
#include "quant/driver.h"
#include "tests/support.h"

static const char config_json[] =
    "{\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"hidden_size\":128,"
    "\"intermediate_size\":256,\"num_hidden_layers\":3,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"vocab_size\":320,\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
    "\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,\"torch_dtype\":\"float16\"}";

/* The synthetic model as a directory; linears of blocks named by `wide` are float32. */
static char *write_model(const char *dir, const char *name, const char *wide) {
    char spec[600], *path = qb_path_join(dir, "config.json"), *out = qb_path_join(dir, name);
    qb_model *m;
    qb_writer *w;
    assert_ok(qb_file_write_atomic(path, config_json, strlen(config_json)));
    snprintf(spec, sizeof spec, "synthetic:%s", dir);
    assert_ok(qb_model_open(spec, &m));
    assert_ok(qb_writer_create(out, true, 0, &w));
    for (int put = 0; put < 2; put++) {
        for (size_t i = 0; i < qb_checkpoint_count(m->checkpoint); i++) {
            const qb_tensor *t = qb_checkpoint_at(m->checkpoint, i);
            const void *bytes;
            float *x;
            bool as_f32 = wide && strstr(t->name, wide) && t->n_dims == 2;
            if (!put) {
                qb_dtype dtype = as_f32 ? QB_DTYPE_F32 : t->dtype;
                assert_ok(qb_writer_plan(w, t->name, dtype, t->n_dims, t->shape));
            } else if (as_f32) {
                assert_ok(qb_checkpoint_read_f32(m->checkpoint, t->name, t->shape[0], t->shape[1], &x));
                assert_ok(qb_writer_put(w, t->name, x, t->shape[0] * t->shape[1] * 4));
                qb_free(x);
            } else {
                assert_ok(qb_checkpoint_acquire(m->checkpoint, t, &bytes));
                assert_ok(qb_writer_put(w, t->name, bytes, t->bytes));
                qb_checkpoint_release(m->checkpoint, t);
            }
        }
        if (!put) assert_ok(qb_writer_begin(w));
    }
    assert_ok(qb_writer_put_json(w, "config.json", qb_checkpoint_config(m->checkpoint)));
    assert_ok(qb_writer_finish(w));
    qb_model_close(m);
    qb_free(path);
    return out;
}

static qb_status plan_of(const char *dir, const char *method, qb_quant_plan *plan) {
    const qb_quant_method *how = qb_quant_method_find(method);
    qb_quant_config c = {0};
    qb_model *m;
    qb_options_defaults(how->options, &c);
    qb_status st = qb_model_open(dir, &m);
    if (st != QB_OK) return st;
    st = qb_quant_plan_make(m, how, &c, plan);
    qb_model_close(m);
    return st;
}

/* Linears of one block in another type change what is read, not what is written. */
static void test_quant_plan__blocks_may_differ(void **state) {
    (void)state;
    static const char *const methods[] = {"rtn", "gptq", "nf4"};
    char *dir = scratch_make();
    char *alike = write_model(dir, "alike", NULL), *mixed = write_model(dir, "mixed", "layers.2");
    for (int i = 0; i < 3; i++) {
        qb_quant_plan a, b;
        assert_ok(plan_of(alike, methods[i], &a));
        assert_ok(plan_of(mixed, methods[i], &b));
        assert_int_equal(a.params, b.params);
        assert_int_equal(a.checkpoint_bytes, b.checkpoint_bytes);
        assert_true(a.bits_per_weight == b.bits_per_weight && a.flops == b.flops);
        assert_true(b.block_bytes > a.block_bytes); /* the larger block is the one that memory has to hold */
    }
    qb_free(alike);
    qb_free(mixed);
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quant_plan__blocks_may_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
