/* Models larger than their device: blocks in host memory give the same bits, plans add up, and what does not
   fit fails with the sizes. */
#include "bench/measure/placement.h"
#include "eval/eval.h"
#include "tests/cuda_support.h"

#define DEMO QB_SOURCE_DIR "/bench/demo"

static qb_device *open_device(int64_t memory_bytes) {
    qb_device *dev;
    assert_ok(qb_backend_find("cuda")->open(&(qb_device_options){.threads = 1, .memory_bytes = memory_bytes},
                                            &dev));
    return dev;
}

static void logits_hash(int64_t host_blocks, char hex[65], qb_memory *memory) {
    qb_device *dev = open_device(0);
    qb_model *m;
    qb_measures rows = {0};
    assert_ok(qb_model_open(DEMO, &m));
    qb_model_offload(m, &(qb_offload_plan){.device_blocks = m->config.n_layers - host_blocks});
    assert_ok(qb_model_load(m, dev, 64, true));
    assert_int_equal(qb_model_host_blocks(m), host_blocks);
    assert_true((qb_model_host_bytes(m) > 0) == (host_blocks > 0));
    assert_ok(qb_determinism(m, dev, &rows));
    dev->backend->memory(dev, memory);
    snprintf(hex, 65, "%s", qb_json_string(qb_json_get(rows.rows[0].extra, "sha256")));
    qb_measures_free(&rows);
    qb_model_close(m);
    dev->backend->close(dev);
}

static void test_cuda_offload__host_blocks_give_the_same_bits(void **state) {
    (void)state;
    char all[65], some[65];
    qb_memory with_all, with_some;
    logits_hash(0, all, &with_all);
    logits_hash(3, some, &with_some);
    assert_string_equal(all, some);
    /* three blocks of four: most of the linears' bytes are gone from the device */
    assert_true(with_some.now_bytes[QB_MEMORY_WEIGHTS] < with_all.now_bytes[QB_MEMORY_WEIGHTS] * 6 / 10);
}

static void test_cuda_offload__plans_add_up(void **state) {
    (void)state;
    qb_model *m;
    qb_offload_plan p;
    assert_ok(qb_model_open(DEMO, &m));
    int64_t weights = qb_model_weight_bytes(m), block = qb_model_block_bytes(m), n = m->config.n_layers;
    int64_t ends = weights - n * block;
    assert_ok(qb_offload_plan_make(m, 4 * weights, 1000, &p));
    assert_int_equal(p.device_blocks, n);
    assert_int_equal(p.host_bytes, 0);
    assert_int_equal(p.device_bytes, weights);
    assert_ok(qb_offload_plan_make(m, ends + 1000 + block * 5 / 2, 1000, &p)); /* two blocks and a half */
    assert_int_equal(p.device_blocks, 2);
    assert_int_equal(p.host_bytes, (n - 2) * block);
    assert_int_equal(p.device_bytes + p.host_bytes, weights);
    assert_int_equal(p.bus_bytes, p.host_bytes);
    assert_ok(qb_offload_plan_make(m, ends + 1000, 1000, &p));
    assert_int_equal(p.device_blocks, 0);
    assert_fails(qb_offload_plan_make(m, ends + 999, 1000, &p), QB_ERR_MEMORY, "of device memory are free");
    qb_model_close(m);
}

static void test_cuda_offload__placement_follows_the_device(void **state) {
    (void)state;
    qb_model *m;
    qb_placement p;
    double rate;
    qb_device *probe = open_device(0);
    qb_memory held;
    probe->backend->memory(probe, &held); /* what the backend itself takes */
    assert_ok(qb_bus_rate(probe, &rate));
    assert_true(rate > 0);
    probe->backend->close(probe);
    int64_t own = 0;
    for (int k = 0; k < QB_MEMORY_COUNT; k++) own += held.now_bytes[k];
    assert_ok(qb_model_open(DEMO, &m));
    int64_t weights = qb_model_weight_bytes(m);
    qb_device *dev = open_device(own + weights * 2 / 3);
    assert_ok(qb_placement_make(m, dev, 100000, 0, true, &p));
    assert_int_equal(p.kind, QB_PLACEMENT_SPLIT);
    assert_true(p.plan.device_blocks > 0 && p.plan.device_blocks < m->config.n_layers);
    assert_ok(qb_placement_make(m, dev, 100000, 0, false, &p));
    assert_int_equal(p.kind, QB_PLACEMENT_BLOCKS);
    assert_non_null(strstr(p.reason, "--offload"));
    /* Loading all of it fails with the sizes and leaves nothing behind; the split one fits. */
    assert_fails(qb_model_load(m, dev, 64, true), QB_ERR_MEMORY, "out of device memory: asked for");
    qb_model_close(m);
    assert_ok(qb_model_open(DEMO, &m));
    assert_ok(qb_placement_make(m, dev, 100000, 0, true, &p));
    qb_model_offload(m, &p.plan);
    assert_ok(qb_model_load(m, dev, 64, true));
    qb_model_close(m);
    dev->backend->close(dev);
}

/* Device memory for a block and not for the model: perplexity goes block by block, to the same figure. */
static void test_cuda_offload__perplexity_streams_what_does_not_fit(void **state) {
    (void)state;
    enum { LENGTH = 24, WINDOWS = 2 };
    int32_t ids[LENGTH * WINDOWS];
    qb_window windows[WINDOWS] = {
        {.offset = 0, .length = LENGTH, .score_begin = 1, .score_end = LENGTH},
        {.offset = LENGTH, .length = LENGTH, .score_begin = 1, .score_end = LENGTH}};
    for (int i = 0; i < LENGTH * WINDOWS; i++) ids[i] = (i * 37 + 11) % 500;
    qb_windows w = {.windows = windows,
                    .count = WINDOWS,
                    .ids = ids,
                    .n_ids = LENGTH * WINDOWS,
                    .max_length = LENGTH,
                    .total_tokens = LENGTH * WINDOWS};
    snprintf(w.dataset, sizeof w.dataset, "test");
    snprintf(w.protocol, sizeof w.protocol, "gptq-24");
    double found[2];
    for (int resident = 0; resident < 2; resident++) {
        qb_device *dev = open_device(0);
        qb_model *m;
        qb_measure row;
        assert_ok(qb_model_open(DEMO, &m));
        assert_ok(qb_model_load(m, dev, LENGTH, resident));
        assert_ok(qb_perplexity(m, dev, &w, 0, &row));
        found[resident] = row.value;
        assert_true(qb_json_true(qb_json_get(row.extra, "layer_major")) == !resident);
        qb_measure_free(&row);
        qb_model_close(m);
        dev->backend->close(dev);
    }
    assert_true(found[0] == found[1]);
}

#ifdef QB_SHIM /* whose device has a gibibyte */
static qb_json *plan_of(const char *options) {
    char command[1024], text[4096];
    snprintf(command, sizeof command,
             "%s speed tinyllama-1.1b --synthetic --backend cuda --dry-run --json %s 2>/dev/null",
             QB_BENCH_PROGRAM, options);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t n = fread(text, 1, sizeof text, pipe);
    assert_int_equal(pclose(pipe), 0);
    qb_json *json;
    assert_ok(qb_json_parse(text, n, "dry run", &json));
    return json;
}

static void test_cuda_offload__a_dry_run_tells_bytes_and_cost(void **state) {
    (void)state;
    qb_json *j = plan_of("--offload");
    double device = qb_json_number(qb_json_get(j, "device_bytes")),
           host = qb_json_number(qb_json_get(j, "host_bytes"));
    assert_true(qb_json_true(qb_json_get(j, "fits")));
    assert_true(device > 5e8 && device < 1.08e9 && host > 1e9);
    assert_true(fabs(device + host - 2.2e9) < 2e7); /* 1.1 billion weights in 16 bits */
    assert_true(qb_json_number(qb_json_get(j, "bus_bytes_per_token")) == host);
    assert_true(qb_json_number(qb_json_get(j, "seconds_per_token")) >=
                host / qb_json_number(qb_json_get(j, "bus_bytes_per_s")));
    qb_json_free(j);
    j = plan_of("");
    assert_false(qb_json_true(qb_json_get(j, "fits")));
    assert_non_null(strstr(qb_json_string(qb_json_get(j, "reason")), "the weights take 2.20 GB"));
    qb_json_free(j);
}
#endif

static int run(void) {
    const struct CMUnitTest tests[] = {
#ifdef QB_SHIM
        cmocka_unit_test(test_cuda_offload__a_dry_run_tells_bytes_and_cost),
#endif
        cmocka_unit_test(test_cuda_offload__plans_add_up),
        cmocka_unit_test(test_cuda_offload__placement_follows_the_device),
        cmocka_unit_test(test_cuda_offload__host_blocks_give_the_same_bits),
        cmocka_unit_test(test_cuda_offload__perplexity_streams_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    return cuda_run(run);
}
