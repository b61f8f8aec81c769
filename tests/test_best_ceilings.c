/* What a machine was measured to do before: kept in the cache by device, joined, never lost to a slower or a
   damaged one. */
#include "bench/measure/best_ceilings.h"

#include "base/file.h"
#include "base/json.h"
#include "tests/support.h"

static char *cache;

static int set_up(void **state) {
    (void)state;
    cache = scratch_make();
    return setenv("BENCH_CACHE", cache, 1);
}

static int tear_down(void **state) {
    (void)state;
    scratch_remove(cache);
    return unsetenv("BENCH_CACHE");
}

/* A device that reads so much; what is known of it then. */
static double best_after(const char *cpu, double read, double load) {
    qb_json *device = qb_json_object(), *ceilings = qb_json_object();
    qb_json_put_text(device, "cpu", cpu);
    qb_json_put_real(device, "load_average", load);
    qb_json_put_real(ceilings, "read_bytes_per_s", read);
    qb_json_put(device, "ceilings", ceilings);
    qb_ceilings_remember(device);
    const qb_json *now = qb_json_get(device, "ceilings");
    const qb_json *best = qb_json_get(qb_json_get(now, "best"), "read_bytes_per_s");
    assert_true(qb_json_number(qb_json_get(now, "read_bytes_per_s")) == read);
    double value = qb_json_number(qb_json_get(best, "value"));
    if (value == read) assert_true(qb_json_number(qb_json_get(best, "load_average")) == load);
    assert_int_equal(strlen(qb_json_string(qb_json_get(best, "date"))), strlen("2026-11-22T05:49:38Z"));
    qb_json_free(device);
    return value;
}

static void test_best_ceilings__are_kept_by_device(void **state) {
    (void)state;
    assert_true(best_after("one", 8e10, 0.1) == 8e10);
    assert_true(best_after("two", 1e10, 0.1) == 1e10);
    assert_true(best_after("one", 6.4e9, 12) == 8e10);
    assert_true(best_after("one", 8.1e10, 0.2) == 8.1e10);
    assert_true(best_after("two", 1e9, 0.1) == 1e10);
}

static void test_best_ceilings__begin_anew_where_nobody_can_read_them(void **state) {
    (void)state;
    static const char *const damaged[] = {"", "{\"devices\": [", "[1]", "{\"devices\": {\"x\": 3}}"};
    char *path = qb_path_join(cache, "ceilings.json");
    for (size_t i = 0; i < sizeof damaged / sizeof *damaged; i++) {
        assert_ok(qb_file_write_atomic(path, damaged[i], strlen(damaged[i])));
        assert_true(best_after("three", 5e9, 1) == 5e9);
        assert_true(best_after("three", 4e9, 1) == 5e9);
    }
    qb_free(path);
}

/* Nothing measured, nothing kept; a cache that is a file is no reason to fail. */
static void test_best_ceilings__are_no_reason_to_fail(void **state) {
    (void)state;
    qb_json *device = qb_json_object();
    qb_json_put_null(device, "ceilings");
    qb_ceilings_remember(device);
    assert_true(qb_json_is_null(qb_json_get(device, "ceilings")));
    char *file = qb_path_join(cache, "file");
    assert_ok(qb_file_write_atomic(file, "x", 1));
    assert_int_equal(setenv("BENCH_CACHE", file, 1), 0);
    qb_json *ceilings = qb_json_object();
    qb_json_put_real(ceilings, "read_bytes_per_s", 1e9);
    qb_json_put(device, "ceilings", ceilings);
    qb_ceilings_remember(device);
    assert_true(qb_json_number(qb_json_get(qb_json_get(device, "ceilings"), "read_bytes_per_s")) == 1e9);
    assert_int_equal(setenv("BENCH_CACHE", cache, 1), 0);
    qb_json_free(device);
    qb_free(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_best_ceilings__are_kept_by_device),
        cmocka_unit_test(test_best_ceilings__begin_anew_where_nobody_can_read_them),
        cmocka_unit_test(test_best_ceilings__are_no_reason_to_fail),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
