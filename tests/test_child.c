/* Work in processes of its own: results, failures, crashes, memory, interruption. */
#include "tests/support.h"

#include "bench/run/child.h"

#include <signal.h>
#include <sys/wait.h>

static qb_status returns_result(void *ctx, qb_json **result) {
    *result = qb_json_object();
    qb_json_put_text(*result, "text", ctx);
    return QB_OK;
}
static qb_status fails_with_result(void *ctx, qb_json **result) {
    *result = qb_json_object();
    qb_json_put_int(*result, "rows", 3);
    return qb_fail(QB_ERR_NUMERIC, "NaN in %s", (const char *)ctx);
}
static qb_status kills_itself(void *ctx, qb_json **result) {
    (void)result;
    raise(*(int *)ctx);
    return QB_OK;
}
static qb_status exits(void *ctx, qb_json **result) {
    (void)ctx;
    (void)result;
    _exit(7);
}
static qb_status takes_memory(void *ctx, qb_json **result) {
    (void)result;
    size_t n = *(size_t *)ctx;
    volatile char *bytes = malloc(n);
    for (size_t i = 0; bytes && i < n; i += 4096) bytes[i] = 1;
    free((void *)(uintptr_t)bytes);
    return QB_OK;
}

static void test_child__its_result_comes_back(void **state) {
    (void)state;
    static char long_text[300000]; /* more than a pipe holds */
    memset(long_text, 'x', sizeof long_text - 1);
    qb_child_end end;
    assert_ok(qb_child_run("work", returns_result, long_text, &end));
    assert_string_equal(qb_json_string(qb_json_get(end.result, "text")), long_text);
    assert_true(end.seconds >= 0 && end.peak_rss_bytes > 0);
    qb_json_free(end.result);
}

static void test_child__its_failure_keeps_status_text_and_result(void **state) {
    (void)state;
    qb_child_end end;
    char module[] = "layers.3";
    assert_fails(qb_child_run("work", fails_with_result, module, &end), QB_ERR_NUMERIC, "NaN in layers.3");
    assert_true(qb_json_number(qb_json_get(end.result, "rows")) == 3);
    qb_json_free(end.result);
}

static void test_child__its_death_is_a_failure_that_says_how(void **state) {
    (void)state;
    qb_child_end end;
    int number = SIGKILL;
    assert_fails(qb_child_run("the worker", kills_itself, &number, &end), QB_ERR_INTERNAL,
                 "the worker was ended by signal 9");
    assert_non_null(strstr(qb_error_text(), "memory runs out"));
    number = SIGTERM;
    assert_fails(qb_child_run("the worker", kills_itself, &number, &end), QB_ERR_INTERNAL, "signal 15");
    assert_fails(qb_child_run("the worker", exits, NULL, &end), QB_ERR_INTERNAL, "ended with code 7");
    assert_null(end.result);
}

static void test_child__its_peak_is_its_own(void **state) {
    (void)state;
    qb_child_end small, large;
    size_t few = 1 << 20, many = 200 << 20;
    assert_ok(qb_child_run("work", takes_memory, &many, &large));
    assert_ok(qb_child_run("work", takes_memory, &few, &small));
    assert_true(large.peak_rss_bytes > (int64_t)many);
    assert_true(small.peak_rss_bytes < large.peak_rss_bytes - (int64_t)(many / 2));
}

/* Last: the flag stays set. */
static qb_status interrupts_the_parent(void *ctx, qb_json **result) {
    (void)ctx;
    (void)result;
    kill(getppid(), SIGINT);
    pause();
    return QB_OK;
}
static void test_child__an_interruption_ends_it(void **state) {
    (void)state;
    qb_child_end end;
    qb_interrupt_watch();
    assert_false(qb_interrupted());
    assert_fails(qb_child_run("work", interrupts_the_parent, NULL, &end), QB_ERR_INTERRUPTED, "interrupted");
    assert_true(qb_interrupted());
    assert_fails(qb_child_run("work", exits, NULL, &end), QB_ERR_INTERRUPTED, "interrupted");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_child__its_result_comes_back),
        cmocka_unit_test(test_child__its_failure_keeps_status_text_and_result),
        cmocka_unit_test(test_child__its_death_is_a_failure_that_says_how),
        cmocka_unit_test(test_child__its_peak_is_its_own),
        cmocka_unit_test(test_child__an_interruption_ends_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
