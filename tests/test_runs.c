/* Where the documents of a side come from. */
#include "results/runs.h"
#include "tests/compare_support.h"

static void write_document(const char *dir, const char *name, const char *from, const char *to) {
    char *path = qb_path_join(dir, name), *text = edited(from, to);
    assert_ok(qb_file_write_atomic(path, text, strlen(text)));
    qb_free(text);
    qb_free(path);
}

static void test_runs__of_a_directory_come_by_time(void **state) {
    (void)state;
    char *dir = scratch_make();
    qb_runs runs, now;
    static const char from[] = "2026-11-22T06:10:00Z";
    write_document(dir, "a.json", from, "2026-11-24T06:10:00Z");
    write_document(dir, "b.json", from, "2026-11-22T06:10:00Z");
    write_document(dir, "c.json", from, "2026-11-23T06:10:00Z");
    write_document(dir, "broken.json", "\"cases\":[", "\"cases\":{");
    write_document(dir, "notes.txt", from, from);
    assert_ok(qb_runs_open((const char *[]){dir}, 1, 2, &runs));
    assert_int_equal(runs.n, 2);
    assert_non_null(strstr(runs.documents[0].path, "c.json"));
    assert_non_null(strstr(runs.documents[1].path, "a.json"));
    /* A run is no baseline of itself. */
    char *newest = qb_path_join(dir, "a.json");
    assert_ok(qb_runs_open((const char *[]){newest}, 1, 20, &now));
    qb_runs_without(&runs, &now);
    assert_int_equal(runs.n, 1);
    qb_runs_without(&now, &now);
    assert_int_equal(now.n, 1); /* but a file is what was asked for */
    qb_runs_close(&runs);
    qb_runs_close(&now);
    qb_free(newest);
    scratch_remove(dir);
}

static void test_runs__need_a_document(void **state) {
    (void)state;
    char *dir = scratch_make();
    qb_runs runs;
    assert_fails(qb_runs_open((const char *[]){dir}, 1, 20, &runs), QB_ERR_FORMAT,
                 "holds no result document");
    qb_runs_close(&runs);
    assert_fails(qb_runs_open((const char *[]){"no-such.json"}, 1, 20, &runs), QB_ERR_NOT_FOUND,
                 "no-such.json");
    qb_runs_close(&runs);
    assert_fails(qb_runs_open((const char *[]){"baseline:none"}, 1, 20, &runs), QB_ERR_IO,
                 "no baseline \"none\"");
    qb_runs_close(&runs);
    assert_fails(qb_runs_open((const char *[]){"baseline:../x"}, 1, 20, &runs), QB_ERR_IO, "no baseline");
    qb_runs_close(&runs);
    write_document(dir, "mine.json", "30.0", "30.0");
    assert_int_equal(setenv("BENCH_BASELINES", dir, 1), 0);
    assert_ok(qb_runs_open((const char *[]){"baseline:mine"}, 1, 20, &runs));
    assert_int_equal(runs.n, 1);
    qb_runs_close(&runs);
    unsetenv("BENCH_BASELINES");
    scratch_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs__of_a_directory_come_by_time),
        cmocka_unit_test(test_runs__need_a_document),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
