/* Opening a CUDA device, its counted memory and its transfers;
   on the shim also what cannot be had from a device. */
#include "base/log.h"
#include "tests/cuda_support.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

static void test_cuda_device__registry(void **state) {
    (void)state;
    assert_ptr_equal(qb_backend_find("cuda"), cuda);
    assert_ptr_equal(qb_backend_find("cpu"), &qb_backend_cpu);
    /* Every slot is filled but the optional ones, which stand last. */
    const void *const *slots = (const void *const *)(const void *)cuda;
    for (size_t i = 0; i < offsetof(qb_backend, decode) / sizeof *slots; i++)
        if (!slots[i]) fail_msg("slot %zu of the cuda backend is empty", i);
}

static void test_cuda_device__transfers_of_any_size(void **state) {
    (void)state;
    /* Around the size of a staging buffer, and through both more than once. */
    static const int64_t sizes[] = {0, 1, 255, (16 << 20) - 1, 16 << 20, (16 << 20) + 1, (40 << 20) + 3};
    qb_device *dev = cuda_open_device();
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int64_t n = sizes[i];
        uint8_t *from, *to, *a, *b;
        assert_ok(qb_alloc((size_t)n + 1, 1, &from));
        assert_ok(qb_alloc_zero((size_t)n + 1, 1, &to));
        for (int64_t k = 0; k < n; k++) from[k] = (uint8_t)(noise_u32() >> 24);
        assert_ok(cuda->alloc(dev, QB_MEMORY_ACTIVATIONS, n, &a));
        assert_ok(cuda->alloc(dev, QB_MEMORY_ACTIVATIONS, n, &b));
        assert_int_equal((uintptr_t)a % 64, 0);
        assert_ok(cuda->upload(dev, a, from, n));
        assert_ok(cuda->copy(dev, b, a, n));
        assert_ok(cuda->clear(dev, a, n));
        assert_ok(cuda->download(dev, to, b, n));
        assert_memory_equal(to, from, (size_t)n);
        assert_ok(cuda->download(dev, to, a, n));
        for (int64_t k = 0; k < n; k++) assert_int_equal(to[k], 0);
        cuda->free(dev, a), cuda->free(dev, b), qb_free(from), qb_free(to);
    }
    cuda_close_device(dev);
}

/* What was handed to upload is the caller's again, whatever is still queued. */
static void test_cuda_device__upload_takes_its_own_copy(void **state) {
    (void)state;
    qb_device *dev = cuda_open_device();
    float value = 1.0f, got[3], *p;
    assert_ok(cuda->alloc(dev, QB_MEMORY_ACTIVATIONS, sizeof got, &p));
    for (int i = 0; i < 3; i++, value += 1.0f) assert_ok(cuda->upload(dev, p + i, &value, sizeof value));
    assert_ok(cuda->sync(dev));
    assert_ok(cuda->download(dev, got, p, sizeof got));
    assert_true(got[0] == 1.0f && got[1] == 2.0f && got[2] == 3.0f);
    cuda->free(dev, p);
    cuda_close_device(dev);
}

/* Uploads to new memory may pass what is queued, and ops queued after them find what they brought. */
static void test_cuda_device__new_memory_is_filled_before_it_is_used(void **state) {
    (void)state;
    qb_device *dev = cuda_open_device();
    int64_t n = (33 << 20) + 12; /* more than the pinned buffers hold */
    uint8_t *from, *to, *a, *b;
    assert_ok(qb_alloc((size_t)n, 1, &from));
    assert_ok(qb_alloc((size_t)n, 1, &to));
    for (int64_t i = 0; i < n; i++) from[i] = (uint8_t)(i * 7 + i / 4096);
    assert_ok(cuda->alloc(dev, QB_MEMORY_WEIGHTS, n, &a));
    assert_ok(cuda->clear(dev, a, n));
    assert_ok(cuda->alloc(dev, QB_MEMORY_WEIGHTS, n, &b));
    assert_ok(cuda->upload_new(dev, b, from, n));
    memset(from, 0xa5, (size_t)n); /* the caller's again */
    assert_ok(cuda->copy(dev, a, b, n));
    assert_ok(cuda->download(dev, to, a, n));
    for (int64_t i = 0; i < n; i++)
        if (to[i] != (uint8_t)(i * 7 + i / 4096)) fail_msg("byte %lld is %d", (long long)i, to[i]);
    cuda->free(dev, a), cuda->free(dev, b), qb_free(from), qb_free(to);
    cuda_close_device(dev);
}

static void test_cuda_device__memory_is_counted(void **state) {
    (void)state;
    qb_device *dev = cuda_open_device();
    qb_memory before, m;
    void *a, *b, *pinned;
    cuda->memory(dev, &before);
    assert_ok(cuda->alloc(dev, QB_MEMORY_KV, 1000, &a));
    assert_ok(cuda->alloc(dev, QB_MEMORY_WEIGHTS, 3 << 20, &b));
    int64_t pinned_before = cuda_of(dev)->pinned_now_bytes;
    assert_ok(qb_cuda_alloc_pinned(cuda_of(dev), 5000, &pinned));
    memset(pinned, 1, 5000); /* host memory */
    assert_int_equal(cuda_of(dev)->pinned_now_bytes, pinned_before + 5000);
    cuda->free(dev, a);
    cuda->memory(dev, &m);
    assert_int_equal(m.now_bytes[QB_MEMORY_KV], 0);
    assert_int_equal(m.peak_bytes[QB_MEMORY_KV], 1000);
    assert_int_equal(m.now_bytes[QB_MEMORY_WEIGHTS], 3 << 20);
    assert_int_equal(m.total_peak_bytes, before.total_peak_bytes + 1000 + (3 << 20));
    cuda->free(dev, b), cuda->free(dev, pinned), cuda->free(dev, NULL);
    assert_int_equal(cuda_of(dev)->pinned_now_bytes, pinned_before);
    assert_fails(cuda->alloc(dev, QB_MEMORY_KV, -1, &a), QB_ERR_MEMORY, "-1 bytes");
    assert_null(a);
    assert_fails(cuda->alloc(dev, QB_MEMORY_KV, (int64_t)1 << 50, &a), QB_ERR_MEMORY,
                 "asked for 1073741824.0 MiB");
    assert_null(a);
    assert_ok(cuda->alloc(dev, QB_MEMORY_KV, 100, &a)); /* and it goes on */
    cuda->free(dev, a);
    cuda_close_device(dev);
    cuda->close(NULL);
}

static void test_cuda_device__memory_limit(void **state) {
    (void)state;
    qb_device *dev;
    void *a, *b;
    assert_ok(cuda->open(&(qb_device_options){.threads = 1, .memory_bytes = 100 << 20}, &dev));
    int64_t left = cuda->available_bytes(dev);
    assert_true(left > 0 && left <= 100 << 20);
    assert_ok(cuda->alloc(dev, QB_MEMORY_WEIGHTS, left - 1000, &a));
    assert_int_equal(cuda->available_bytes(dev), 1000);
    assert_fails(cuda->alloc(dev, QB_MEMORY_KV, 1001, &b), QB_ERR_MEMORY, "within the limit");
    assert_ok(cuda->alloc(dev, QB_MEMORY_KV, 1000, &b));
    cuda->free(dev, a), cuda->free(dev, b);
    cuda_close_device(dev);
    assert_fails(cuda->open(&(qb_device_options){.threads = 1, .memory_bytes = 1000}, &dev), QB_ERR_MEMORY,
                 "within the limit");
    assert_null(dev);
}

/* Workspace that was given back serves again, counts as available, and makes room for whatever needs it. */
static void test_cuda_device__kept_workspace_gives_way(void **state) {
    (void)state;
    enum { MIB = 1 << 20 };
    qb_device *dev;
    void *a, *b, *c, *all;
    assert_ok(cuda->open(&(qb_device_options){.threads = 1, .memory_bytes = 100 * MIB}, &dev));
    cuda_device *d = cuda_of(dev);
    int64_t left = cuda->available_bytes(dev);
    assert_ok(qb_cuda_borrow(d, MIB, &a));
    qb_cuda_give_back(d, a);
    assert_int_equal(cuda->available_bytes(dev), left);
    assert_ok(qb_cuda_borrow(d, MIB / 2, &b)); /* a quarter may be wasted, not half */
    assert_ptr_not_equal(a, b);
    assert_ok(qb_cuda_borrow(d, MIB - 1000, &c));
    assert_ptr_equal(a, c);
    qb_cuda_give_back(d, b), qb_cuda_give_back(d, c), qb_cuda_give_back(d, NULL);
    assert_int_equal(d->n_idle, 2);
    assert_int_equal(d->idle_bytes, MIB + MIB / 2);
    assert_ok(cuda->alloc(dev, QB_MEMORY_WEIGHTS, left, &all));
    assert_int_equal(d->n_idle, 0);
    cuda->free(dev, all);
    for (int i = 0; i < QB_CUDA_IDLE_MOST + 3; i++) { /* of sizes that never fit one another */
        assert_ok(qb_cuda_borrow(d, 100 + 150 * (int64_t)i * i, &a));
        qb_cuda_give_back(d, a);
        assert_true(d->n_idle <= QB_CUDA_IDLE_MOST && d->idle_bytes <= d->total_bytes / 16);
    }
    cuda_close_device(dev);
}

static void test_cuda_device__scratch_grows(void **state) {
    (void)state;
    qb_device *dev = cuda_open_device();
    void *a, *b, *c;
    assert_ok(qb_cuda_scratch(cuda_of(dev), 1000, &a));
    assert_ok(qb_cuda_scratch(cuda_of(dev), 10, &b));
    assert_ptr_equal(a, b);
    assert_ok(qb_cuda_scratch(cuda_of(dev), 5 << 20, &c));
    assert_int_equal(cuda_of(dev)->scratch_bytes, 5 << 20);
    assert_int_equal((uintptr_t)c % QB_CUDA_SCRATCH_ALIGNMENT, 0);
    cuda_close_device(dev);
}

static void test_cuda_device__timer_and_ceilings(void **state) {
    (void)state;
#ifdef QB_SHIM
    qb_shim_set_device(&(qb_shim_device){.memory_bytes = 48 << 20});
#endif
    qb_device *dev = cuda_open_device();
    double seconds = -1;
    qb_ceilings c, again;
    qb_memory before, after;
    assert_ok(cuda->timer_start(dev));
    assert_ok(cuda->timer_stop(dev, &seconds));
    assert_true(seconds >= 0 && seconds < 60);
    cuda->memory(dev, &before);
    assert_ok(cuda->ceilings(dev, &c));
    assert_true(c.read_bytes_per_s > 0 && isfinite(c.read_bytes_per_s));
    assert_true(c.gemm_flop_per_s > 0 && isfinite(c.gemm_flop_per_s));
    assert_ok(cuda->ceilings(dev, &again));
    assert_memory_equal(&c, &again, sizeof c); /* measured once */
    cuda->memory(dev, &after);
    assert_memory_equal(&before, &after, sizeof before);
    cuda_close_device(dev);
#ifdef QB_SHIM
    qb_shim_set_device(NULL);
#endif
}

static void test_cuda_device__index_that_does_not_exist(void **state) {
    (void)state;
    qb_device *dev;
    assert_fails(cuda->open(&(qb_device_options){.threads = 1, .index = 900}, &dev), QB_ERR_USAGE,
                 "--device 900");
    assert_null(dev);
    assert_fails(cuda->open(&(qb_device_options){.threads = 1, .index = -1}, &dev), QB_ERR_USAGE,
                 "--device -1");
}

#ifdef QB_SHIM
static void opening_fails(const qb_shim_device *as, qb_status status, const char *needle) {
    qb_device *dev;
    qb_shim_set_device(as);
    assert_fails(cuda->open(&(qb_device_options){.threads = 1}, &dev), status, needle);
    assert_null(dev);
    assert_int_equal(qb_shim_allocations(), 0);
    qb_shim_set_device(NULL);
}

static void test_cuda_device__machines_without_one(void **state) {
    (void)state;
    opening_fails(&(qb_shim_device){.driver_version = -1}, QB_ERR_UNSUPPORTED,
                  "no NVIDIA driver on this machine");
    opening_fails(&(qb_shim_device){.driver_version = 11020}, QB_ERR_UNSUPPORTED, "it serves CUDA 11.2");
    opening_fails(&(qb_shim_device){.count = -1}, QB_ERR_UNSUPPORTED, "finds no GPU");
    opening_fails(&(qb_shim_device){.major = 7}, QB_ERR_UNSUPPORTED, "compute capability 7.0; 7.5 or above");
    opening_fails(&(qb_shim_device){.memory_bytes = 1 << 20}, QB_ERR_MEMORY, "out of device memory");
    qb_device *dev;
    qb_shim_set_device(&(qb_shim_device){.major = 7, .minor = 5});
    assert_ok(cuda->open(&(qb_device_options){.threads = 1}, &dev));
    cuda_close_device(dev);
    qb_shim_set_device(NULL);
}

/* Whichever allocation fails, the sentence says so and nothing is left behind. */
static void test_cuda_device__each_allocation_may_fail(void **state) {
    (void)state;
    float x[64] = {0};
    int failures = 0;
    for (int nth = 1; nth < 100; nth++) {
        qb_device *dev;
        float *p = NULL;
        bool finite = true;
        qb_shim_fail_allocation(nth);
        qb_status st = cuda->open(&(qb_device_options){.threads = 1}, &dev);
        if (st == QB_OK) {
            st = cuda->alloc(dev, QB_MEMORY_ACTIVATIONS, sizeof x, &p);
            if (st == QB_OK) st = cuda->upload(dev, p, x, sizeof x);
            if (st == QB_OK) st = cuda->all_finite(dev, p, 64, &finite);
            cuda->free(dev, p);
            cuda_close_device(dev);
        }
        qb_shim_fail_allocation(0);
        assert_int_equal(qb_shim_allocations(), 0);
        if (st == QB_OK) {
            assert_true(nth >= 7); /* cuBLAS's workspace, results, p, two staging buffers, scratch */
            assert_int_equal(failures, nth - 1);
            return;
        }
        assert_int_equal(st, QB_ERR_MEMORY);
        assert_non_null(strstr(qb_error_text(), "out of"));
        failures++;
    }
    fail_msg("allocations never end");
}

static void expect_lost(int error, const char *words) {
    float x[4] = {0}, *p;
    bool finite;
    double seconds;
    char noticed[128];
    qb_device *dev = cuda_open_device();
    assert_ok(cuda->alloc(dev, QB_MEMORY_ACTIVATIONS, sizeof x, &p));
    qb_shim_lose_device(error);
    snprintf(noticed, sizeof noticed, "was lost, noticed in waiting for the device: %s", words);
    assert_fails(cuda->sync(dev), QB_ERR_INTERNAL, noticed);
    assert_fails(cuda->upload(dev, p, x, sizeof x), QB_ERR_INTERNAL, "was lost");
    assert_fails(cuda->add(dev, p, p, 4), QB_ERR_INTERNAL, "noticed in add");
    assert_fails(cuda->all_finite(dev, p, 4, &finite), QB_ERR_INTERNAL, "was lost");
    assert_fails(cuda->timer_start(dev), QB_ERR_INTERNAL, "was lost");
    assert_fails(cuda->timer_stop(dev, &seconds), QB_ERR_INTERNAL, "was lost");
    cuda->free(dev, p);
    cuda_close_device(dev);
    qb_shim_set_device(NULL);
}

static void test_cuda_device__lost(void **state) {
    (void)state;
    expect_lost(0, "an illegal memory");
    /* By their numbers: the uncorrectable error of NVLink, a contained one, a leak of tensor memory, a device
       that is not a GPU, and the fault that has no name. */
    static const int others[] = {220, 226, 721, 911, 999};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) expect_lost(others[i], "");
}

static void keep_text(void *ctx, const char *text) {
    snprintf(ctx, 256, "%s", text);
}

static void test_cuda_device__float32_stays_float32(void **state) {
    (void)state;
    static const char name[] = "NVIDIA_TF32_OVERRIDE";
    static const struct {
        const char *value;
        bool said;
    } cases[] = {{"1", true}, {"", true}, {"0", false}, {NULL, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char said[256] = "";
        if (cases[i].value)
            setenv(name, cases[i].value, 1);
        else
            unsetenv(name);
        qb_log_capture(keep_text, said);
        qb_device *dev = cuda_open_device();
        qb_log_capture(NULL, NULL);
        cuda_close_device(dev);
        assert_int_equal(strstr(said, name) != NULL, cases[i].said);
        if (cases[i].value) assert_string_equal(getenv(name), "0");
    }
    assert_null(getenv(name));
}

/* Runs body in a child; the signal or exit code it ended with. */
static int ending_of(void (*body)(qb_device *dev, float *p)) {
    pid_t child = fork();
    if (child == 0) {
        (void)!freopen("/dev/null", "w", stderr);
        signal(SIGABRT, SIG_DFL);
        signal(SIGSEGV, SIG_DFL);
        qb_device *dev;
        float *p;
        if (cuda->open(&(qb_device_options){.threads = 1}, &dev) != QB_OK) _exit(0);
        if (cuda->alloc(dev, QB_MEMORY_ACTIVATIONS, 64, &p) != QB_OK) _exit(0);
        body(dev, p);
        _exit(0);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

static void read_on_host(qb_device *dev, float *p) {
    (void)dev;
    volatile float v = p[0];
    (void)v;
}
static void copy_beyond_the_end(qb_device *dev, float *p) {
    (void)!cuda->copy(dev, p, p + 8, 64);
}
static void upload_from_the_device(qb_device *dev, float *p) {
    (void)!cuda->upload(dev, p, p + 8, 4); /* the "host" side is device memory */
}
static void harmless(qb_device *dev, float *p) {
    (void)!cuda->clear(dev, p, 64);
    (void)!cuda->sync(dev);
}

static void test_cuda_device__host_cannot_touch_device_memory(void **state) {
    (void)state;
    assert_int_equal(ending_of(harmless), 0);
    assert_int_not_equal(ending_of(read_on_host), 0);
    assert_int_not_equal(ending_of(copy_beyond_the_end), 0);
    assert_int_not_equal(ending_of(upload_from_the_device), 0);
}
#endif

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuda_device__registry),
        cmocka_unit_test(test_cuda_device__transfers_of_any_size),
        cmocka_unit_test(test_cuda_device__upload_takes_its_own_copy),
        cmocka_unit_test(test_cuda_device__new_memory_is_filled_before_it_is_used),
        cmocka_unit_test(test_cuda_device__memory_is_counted),
        cmocka_unit_test(test_cuda_device__memory_limit),
        cmocka_unit_test(test_cuda_device__kept_workspace_gives_way),
        cmocka_unit_test(test_cuda_device__scratch_grows),
        cmocka_unit_test(test_cuda_device__timer_and_ceilings),
        cmocka_unit_test(test_cuda_device__index_that_does_not_exist),
#ifdef QB_SHIM
        cmocka_unit_test(test_cuda_device__machines_without_one),
        cmocka_unit_test(test_cuda_device__each_allocation_may_fail),
        cmocka_unit_test(test_cuda_device__lost),
        cmocka_unit_test(test_cuda_device__float32_stays_float32),
        cmocka_unit_test(test_cuda_device__host_cannot_touch_device_memory),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    return cuda_run(run);
}
