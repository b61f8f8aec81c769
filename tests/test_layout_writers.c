/* What we write of a weight that GPTQModel packed is what GPTQModel wrote, byte for byte. */
#include "checkpoint/layout.h"
#include "tests/golden_checkpoint.h"

static void assert_same_tensors(const char *golden, qb_checkpoint *ours) {
    qb_checkpoint *theirs = open_ok(golden);
    size_t compared = 0;
    for (size_t i = 0; i < qb_checkpoint_count(theirs); i++) {
        const qb_tensor *t = qb_checkpoint_at(theirs, i), *u;
        int64_t n, k;
        if (strncmp(t->name, "m.", 2) != 0) continue;
        assert_ok(qb_checkpoint_need(ours, t->name, &u));
        assert_int_equal(t->dtype, u->dtype);
        assert_int_equal(t->n_dims, u->n_dims);
        assert_memory_equal(t->shape, u->shape, sizeof t->shape);
        const void *x = bytes_of(theirs, t->name, &n), *y = bytes_of(ours, t->name, &k);
        assert_int_equal(n, k);
        if (memcmp(x, y, (size_t)n) != 0) fail_msg("%s: %s differs", golden, t->name);
        compared++;
    }
    assert_int_equal(compared, qb_checkpoint_count(ours));
    assert_true(compared >= 3);
    qb_checkpoint_close(theirs);
}

static void check_written(const char *name) {
    char *dir = scratch_make(), *out = qb_path_join(dir, "out");
    qb_checkpoint *ck = open_ok(golden_path(name));
    const qb_layout *layout = qb_layout_find(qb_checkpoint_quantization(ck)->layout);
    qb_qweight q = read_golden(name, COLS);
    qb_writer *w;
    assert_ok(qb_writer_create(out, false, 0, &w));
    assert_ok(layout->plan(w, "m", &q));
    assert_ok(qb_writer_begin(w));
    assert_ok(layout->put(w, "m", &q));
    assert_ok(qb_writer_put_json(w, "config.json", qb_checkpoint_config(ck)));
    assert_ok(qb_writer_finish(w));
    qb_checkpoint_close(ck);
    ck = open_ok(out);
    assert_same_tensors(golden_path(name), ck);
    qb_checkpoint_close(ck);
    qb_qweight_free(&q);
    qb_free(out);
    scratch_remove(dir);
}

static void test_layout_writers__equal_gptqmodel(void **state) {
    (void)state;
    static const char *const names[] = {
        "gptqmodel-sym-v1",       "gptqmodel-sym-v2",       "gptqmodel-asym-v2",     "gptqmodel-2bit-zero-v2",
        "gptqmodel-3bit-zero-v2", "gptqmodel-4bit-zero-v2", "gptqmodel-8bit-zero-v2"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) check_written(names[i]);
}

/* GPTQModel writes zero points of 0 in v1 by borrowing from the next field, which readers undo in different
   ways: we write none. A v1 file without them is written as it was. */
static void test_layout_writers__v1_with_zero_points_of_0_is_refused(void **state) {
    (void)state;
    static const char *const names[] = {"gptqmodel-2bit-zero-v1", "gptqmodel-3bit-zero-v1",
                                        "gptqmodel-4bit-zero-v1", "gptqmodel-8bit-zero-v1",
                                        "gptqmodel-asym-v1"};
    int refused = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        qb_qweight q = read_golden(names[i], COLS);
        assert_ok(qb_layout_find("gptq_v2")->check("m", &q));
        if (memchr(q.zeros, 0, (size_t)(q.rows * q.n_groups))) {
            assert_fails(qb_layout_find("gptq")->check("m", &q), QB_ERR_UNSUPPORTED, "a zero point is 0");
            refused++;
        } else {
            check_written(names[i]);
        }
        qb_qweight_free(&q);
    }
    assert_true(refused >= 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout_writers__equal_gptqmodel),
        cmocka_unit_test(test_layout_writers__v1_with_zero_points_of_0_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
