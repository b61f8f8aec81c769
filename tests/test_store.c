/* What is put behind the work reaches the files in order, and what fails there is told. */
#include "base/memory.h"
#include "quant/store.h"
#include "tests/support.h"

#include <string.h>
#include <unistd.h>

/* A layout that keeps no file: it notes what came, and may be slow or fail. */
static char seen[4096];
static const char *failing;
static useconds_t delay_us;

static qb_status note(qb_writer *w, const char *module, const qb_qweight *q) {
    (void)w;
    if (delay_us) usleep(delay_us);
    if (failing && !strcmp(module, failing)) return qb_fail(QB_ERR_IO, "no room for %s", module);
    char one[64];
    snprintf(one, sizeof one, "%s=%d ", module, q->codes[q->cols - 1]);
    strncat(seen, one, sizeof seen - strlen(seen) - 1);
    return QB_OK;
}

static const qb_layout layout = {.name = "noted", .put = note};
static const qb_backend apart = {.name = "apart", .separate_memory = true}, here = {.name = "here"};

typedef struct {
    qb_writer *writer;
    qb_threads *threads;
    qb_device dev;
    qb_store *store;
    char *dir;
} setting;

static setting open_store(const qb_backend *backend) {
    setting s = {.dir = scratch_make()};
    char path[600];
    seen[0] = 0;
    failing = NULL;
    delay_us = 0;
    snprintf(path, sizeof path, "%s/out", s.dir);
    assert_ok(qb_writer_create(path, false, 0, &s.writer));
    assert_ok(qb_writer_begin(s.writer));
    assert_ok(qb_threads_create(8, &s.threads));
    s.dev = (qb_device){.backend = backend, .threads = s.threads};
    assert_ok(qb_store_open(s.writer, &layout, &s.dev, &s.store));
    return s;
}

static void close_store(setting *s) {
    qb_store_close(s->store);
    qb_writer_abort(s->writer);
    qb_threads_free(s->threads);
    scratch_remove(s->dir);
}

static qb_status put(setting *s, int i, int64_t cols) {
    qb_qweight q;
    char name[16];
    assert_ok(qb_qweight_alloc_affine(1, cols, 4, cols, false, &q));
    q.codes[cols - 1] = (uint8_t)i;
    snprintf(name, sizeof name, "m%d", i);
    qb_status st = qb_store_put(s->store, name, &q);
    assert_null(q.codes);
    return st;
}

static void test_store__keeps_the_order(void **state) {
    (void)state;
    for (int behind = 0; behind < 2; behind++) {
        setting s = open_store(behind ? &apart : &here);
        char expected[4096] = "";
        for (int i = 0; i < 200; i++) { /* more than the queue holds */
            assert_ok(put(&s, i, 32));
            snprintf(expected + strlen(expected), 32, "m%d=%d ", i, i);
            if (i % 50 == 0) assert_ok(qb_store_save(s.store, qb_json_object()));
        }
        assert_ok(qb_store_drain(s.store));
        assert_string_equal(seen, expected);
        close_store(&s);
    }
}

static void test_store__takes_what_is_larger_than_its_queue(void **state) {
    (void)state;
    setting s = open_store(&apart);
    delay_us = 1000;
    assert_ok(put(&s, 1, 200 << 20));
    assert_ok(put(&s, 2, 300 << 20)); /* waits for the first */
    assert_ok(put(&s, 3, 32));
    assert_ok(qb_store_drain(s.store));
    assert_string_equal(seen, "m1=1 m2=2 m3=3 ");
    close_store(&s);
}

/* Nothing that follows reaches the files, and every later call says why. */
static void test_store__tells_what_failed(void **state) {
    (void)state;
    for (int behind = 0; behind < 2; behind++) {
        setting s = open_store(behind ? &apart : &here);
        qb_status st;
        failing = "m1";
        assert_ok(put(&s, 0, 32));
        st = put(&s, 1, 32);
        if (behind) {
            (void)!put(&s, 2, 32); /* before or after it is known */
            assert_fails(qb_store_drain(s.store), QB_ERR_IO, "no room for m1");
            assert_fails(put(&s, 3, 32), QB_ERR_IO, "no room for m1");
            assert_fails(qb_store_save(s.store, qb_json_object()), QB_ERR_IO, "no room for m1");
        } else {
            assert_fails(st, QB_ERR_IO, "no room for m1");
        }
        assert_string_equal(seen, "m0=0 ");
        close_store(&s);
    }
}

static void test_store__drops_what_waits(void **state) {
    (void)state;
    setting s = open_store(&apart);
    delay_us = 20000;
    for (int i = 0; i < 20; i++) assert_ok(put(&s, i, 32));
    close_store(&s);
    assert_true(strlen(seen) < 20 * 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_store__keeps_the_order),
        cmocka_unit_test(test_store__takes_what_is_larger_than_its_queue),
        cmocka_unit_test(test_store__tells_what_failed),
        cmocka_unit_test(test_store__drops_what_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
