/* The NVML reader against a stand-in library whose sensors
   are known, and its way into speed and memory rows. */
#include "kernels/cuda/nvml.h"

#include "eval/eval.h"
#include "eval/watch.h"
#include "tests/support.h"

#include <math.h>
#include <time.h>

static void expect_near(double found, double expected, double tolerance) {
    if (!(fabs(found - expected) <= tolerance)) fail_msg("found %.9g, expected %.9g", found, expected);
}

static void test_nvml__reads_every_sensor(void **state) {
    (void)state;
    qb_nvml *n;
    qb_monitor a, b;
    assert_ok(qb_nvml_open(QB_FAKE_NVML, "0000:17:00.0", &n));
    qb_nvml_read(n, &a);
    qb_nvml_read(n, &b);
    expect_near(b.energy_j - a.energy_j, 2.5, 1e-9);
    assert_false(a.energy_sampled);
    expect_near(a.power_w, 100, 1e-9);
    expect_near(a.power_limit_w, 700, 1e-9);
    expect_near(a.temperature_c, 61, 1e-9);
    expect_near(a.sm_clock_hz, 1.98e9, 1);
    expect_near(a.memory_clock_hz, 3.201e9, 1);
    assert_int_equal(a.throttled, 1);
    assert_string_equal(a.throttle_reasons, "power cap, software thermal");
    assert_int_equal(a.foreign_processes, 1);
    assert_int_equal(a.process_bytes, 3 << 20);
    qb_nvml_close(n);
}

static void test_nvml__power_is_integrated_where_the_counter_is_missing(void **state) {
    (void)state;
    qb_nvml *n;
    qb_monitor a, b;
    setenv("FAKE_NVML_NO_COUNTER", "1", 1);
    assert_ok(qb_nvml_open(QB_FAKE_NVML, "0000:17:00.0", &n));
    qb_nvml_read(n, &a);
    nanosleep(&(struct timespec){0, 300000000}, NULL);
    qb_nvml_read(n, &b);
    assert_true(a.energy_sampled);
    /* 100 W over 0.3 s, by samples of 20 ms on a machine that may be busy */
    double joules = b.energy_j - a.energy_j;
    if (!(joules > 15 && joules < 60)) fail_msg("%g J in 0.3 s at 100 W", joules);
    qb_nvml_close(n);
    unsetenv("FAKE_NVML_NO_COUNTER");
}

static void test_nvml__ids_of_another_namespace_leave_our_bytes_unknown(void **state) {
    (void)state;
    qb_nvml *n;
    qb_monitor m;
    setenv("FAKE_NVML_FOREIGN", "1", 1);
    assert_ok(qb_nvml_open(QB_FAKE_NVML, "0000:17:00.0", &n));
    qb_nvml_read(n, &m);
    assert_int_equal(m.foreign_processes, 1); /* two, one of them ours */
    assert_int_equal(m.process_bytes, -1);
    qb_nvml_close(n);
    unsetenv("FAKE_NVML_FOREIGN");
}

static void test_nvml__absence_is_one_clear_line(void **state) {
    (void)state;
    qb_nvml *n;
    assert_fails(qb_nvml_open("/nonexistent/libnvidia-ml.so.1", "0000:17:00.0", &n), QB_ERR_NOT_FOUND,
                 "energy and clocks are not measured");
    assert_null(n);
    assert_fails(qb_nvml_open(QB_FAKE_NVML, "0000:99:00.0", &n), QB_ERR_NOT_FOUND, "no device 0000:99:00.0");
    assert_fails(qb_nvml_open("libm.so.6", "0000:17:00.0", &n), QB_ERR_UNSUPPORTED, "lacks a basic call");
    qb_nvml_close(NULL);
}

/* ---- the way into rows ---- */

static qb_nvml *sensors;

static qb_status fake_monitor(qb_device *dev, qb_monitor *out) {
    (void)dev;
    qb_nvml_read(sensors, out);
    return QB_OK;
}

static void test_watch__rows_get_energy_a_token_and_what_disturbed_them(void **state) {
    (void)state;
    qb_backend backend = *qb_backend_find("cpu");
    qb_device *dev;
    qb_watch watch;
    assert_ok(qb_nvml_open(QB_FAKE_NVML, "0000:17:00.0", &sensors));
    assert_ok(backend.open(&(qb_device_options){.threads = 1}, &dev));
    const qb_backend *own = dev->backend;
    qb_json *extra = qb_json_object();
    qb_watch_begin(&watch, dev); /* the cpu has no sensors */
    qb_watch_end(&watch, 10, extra);
    assert_int_equal(qb_json_count(extra), 1);
    assert_non_null(qb_json_get(extra, "load_average"));
    assert_int_equal(qb_watch_process_bytes(dev), -1);

    backend.monitor = fake_monitor;
    dev->backend = &backend;
    qb_watch_begin(&watch, dev);
    qb_watch_end(&watch, 10, extra);
    assert_true(qb_json_is_null(qb_json_get(extra, "energy_j_per_token"))); /* too short to tell */
    qb_watch_begin(&watch, dev);
    nanosleep(&(struct timespec){0, 120000000}, NULL);
    qb_watch_end(&watch, 10, extra);
    expect_near(qb_json_number(qb_json_get(extra, "energy_j_per_token")), 0.25, 1e-9);
    expect_near(qb_json_number(qb_json_get(extra, "sm_clock_hz")), 1.98e9, 1);
    assert_true(qb_json_true(qb_json_get(extra, "throttled")));
    assert_string_equal(qb_json_string(qb_json_get(extra, "throttle_reasons")),
                        "power cap, software thermal");
    assert_int_equal((int)qb_json_number(qb_json_get(extra, "foreign_processes")), 1);
    assert_int_equal(qb_watch_process_bytes(dev), 3 << 20);
    qb_json_free(extra);
    dev->backend = own;
    own->close(dev);
    qb_nvml_close(sensors);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nvml__reads_every_sensor),
        cmocka_unit_test(test_nvml__power_is_integrated_where_the_counter_is_missing),
        cmocka_unit_test(test_nvml__ids_of_another_namespace_leave_our_bytes_unknown),
        cmocka_unit_test(test_nvml__absence_is_one_clear_line),
        cmocka_unit_test(test_watch__rows_get_energy_a_token_and_what_disturbed_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
