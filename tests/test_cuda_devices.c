/* Several backends in one document: each case has its own device and that device's ceilings, and is resumed
   on that device only. */
#include "tests/program.h"

#include "kernels/backend.h"
#include "results/device.h"
#include "tests/cuda_support.h"

static const char suite[] = "{\"name\":\"two\",\"summary\":\"one case on two "
                            "backends\",\"models\":[\"demo\"],\"backends\":[\"cpu\",\"cuda\"],"
                            "\"metrics\":[\"speed\"],\"speed\":{\"prefill\":[16],\"decode\":[4],\"depth\":[0]"
                            ",\"batch\":[1],\"repeat\":3,"
                            "\"warmup\":0},\"methods\":[{\"method\":\"none\"}]}";

static double ceiling_of(const qb_json *device, const char *key) {
    return qb_json_number(qb_json_get(qb_json_get(device, "ceilings"), key));
}

static void test_cuda_devices__a_case_is_measured_against_its_own(void **state) {
    (void)state;
    char *file = scratch_path("two.json"), *out = scratch_path("two-result.json");
    assert_ok(qb_file_write_atomic(file, suite, strlen(suite)));
    outcome o = BENCH("run", "-s", file, "-o", out, "-q");
    assert_worked(&o);
    outcome_free(&o);
    qb_results r;
    assert_ok(qb_results_open(out, &r));
    double ceilings[2];
    int n = 0;
    for (const qb_json *c = qb_json_first(qb_json_get(r.doc, "cases")); c; c = qb_json_next(c), n++) {
        const qb_json *device = qb_case_device(&r, c), *decode = qb_results_metric(c, "decode", NULL, NULL);
        const qb_json *backend = qb_json_get(qb_json_get(c, "config"), "backend");
        assert_true(n < 2 && device);
        assert_true(qb_json_equal(qb_json_get(device, "backend"), backend));
        assert_int_equal(qb_json_is_string(qb_json_get(device, "device")), n == 1);
        ceilings[n] = ceiling_of(device, "read_bytes_per_s");
        assert_true(qb_json_number(qb_json_get(decode, "ceiling")) == ceilings[n]);
    }
    assert_int_equal(n, 2);
    assert_true(ceilings[0] != ceilings[1]);
    qb_results_close(&r);
}

/* The document of the test before, as if another GPU had measured it. */
static void test_cuda_devices__another_gpu_does_not_resume(void **state) {
    (void)state;
    char *file = scratch_path("two.json"), *out = scratch_path("two-result.json"), *text;
    size_t n;
    outcome o = BENCH("run", "-s", file, "-o", out, "--resume", "-q");
    assert_worked(&o);
    outcome_free(&o);
    assert_ok(qb_file_read(out, OUTPUT_MAX, &text, &n));
    char *name = strstr(text, "\"device\":\t\"");
    while (name && !strncmp(name + 11, "c", 1)) name = strstr(name + 1, "\"device\":\t\""); /* ids of cases */
    assert_non_null(name);
    name[11] = name[11] == 'X' ? 'Y' : 'X';
    assert_ok(qb_file_write_atomic(out, text, n));
    qb_free(text);
    assert_refused(BENCH("run", "-s", file, "-o", out, "--resume", "-q"), 2, "another device");
}

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_devices__a_case_is_measured_against_its_own),
        cmocka_unit_test(test_cuda_devices__another_gpu_does_not_resume),
    };
    return cmocka_run_group_tests(tests, program_begin, program_end);
}

int main(void) {
    return cuda_run(run);
}
