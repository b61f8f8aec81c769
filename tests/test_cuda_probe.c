/* The devices that CUDA finds, and why it finds none. */
#include "tests/cuda_support.h"

static void test_cuda_probe__describes_the_device(void **state) {
    (void)state;
    char why[256] = "";
    qb_cuda_info info;
    assert_int_equal(qb_cuda_describe(0, &info, why, sizeof why), 0);
    assert_true(info.compute_major >= 7 && info.multiprocessors > 0 && info.name[0]);
    assert_true(info.memory_bytes > 0 && info.free_bytes > 0 && info.free_bytes <= info.memory_bytes);
    assert_int_not_equal(qb_cuda_describe(1000, &info, why, sizeof why), 0);
    assert_non_null(strstr(why, "invalid device"));
}

#ifdef QB_SHIM
static void test_cuda_probe__says_why_there_is_none(void **state) {
    (void)state;
    char why[256] = "";
    qb_shim_set_device(&(qb_shim_device){.driver_version = -1});
    assert_int_equal(qb_cuda_count(why, sizeof why), 0);
    assert_non_null(strstr(why, "no NVIDIA driver"));
    qb_shim_set_device(&(qb_shim_device){.driver_version = 11020});
    assert_int_equal(qb_cuda_count(why, sizeof why), 0);
    assert_non_null(strstr(why, "driver version is insufficient"));
    qb_shim_set_device(&(qb_shim_device){.count = -1});
    assert_int_equal(qb_cuda_count(why, sizeof why), 0);
    assert_non_null(strstr(why, "device"));
    qb_shim_set_device(NULL);
}
#endif

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_probe__describes_the_device),
#ifdef QB_SHIM
        cmocka_unit_test(test_cuda_probe__says_why_there_is_none),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    return cuda_run(run);
}
