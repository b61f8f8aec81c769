/* Options of single modules, and what else quantization_config says in the dialects of other writers: the
   golden module m under a config that says otherwise. */
#include "base/log.h"
#include "checkpoint/module_rules.h"
#include "tests/golden_checkpoint.h"

static char *dir;
static int make_dir(void **state) {
    (void)state;
    dir = scratch_make();
    return 0;
}
static int drop_dir(void **state) {
    (void)state;
    scratch_remove(dir);
    return 0;
}

static void write_config(const char *config) {
    char text[1024];
    snprintf(text, sizeof text, "{\"quantization_config\":{%s}}", config);
    write_text(dir, "config.json", text);
}

/* Module m of a golden directory's file under this config. */
static qb_status read_under(const char *golden, const char *config, qb_weight *w, qb_checkpoint **ck) {
    char *from = qb_path_join(golden_path(golden), "model.safetensors"),
         *to = qb_path_join(dir, "model.safetensors");
    assert_ok(qb_copy_file(from, to));
    qb_free(from);
    qb_free(to);
    write_config(config);
    qb_status st = qb_checkpoint_open(dir, ck);
    if (st == QB_OK) st = qb_checkpoint_linear(*ck, "m", ROWS, COLS, w);
    return st;
}

static void assert_reads(const char *golden, const char *config) {
    qb_checkpoint *ck = NULL;
    qb_weight w;
    assert_ok(read_under(golden, config, &w, &ck));
    assert_dequantized(ck, w.packed);
    qb_checkpoint_free_linear(ck, "m", &w);
    qb_checkpoint_close(ck);
}

static void assert_refuses(const char *golden, const char *config, qb_status status, const char *needle) {
    qb_checkpoint *ck = NULL;
    qb_weight w;
    assert_fails(read_under(golden, config, &w, &ck), status, needle);
    qb_checkpoint_close(ck);
}

#define GPTQ(rest) "\"quant_method\":\"gptq\",\"checkpoint_format\":\"gptq_v2\"," rest
#define EIGHT      "\"bits\":8,\"group_size\":64,\"sym\":true,"

static void test_module_rules__the_first_rule_that_fits_counts(void **state) {
    (void)state;
    const char *golden = "gptqmodel-asym-v2", *own = "{\"bits\":4,\"group_size\":32,\"sym\":false}";
    char config[1024];
    static const char *const fitting[] = {"+:m$", "m", "+:.*", "[a-m]", "(?:m|n)$"};
    for (size_t i = 0; i < sizeof fitting / sizeof fitting[0]; i++) {
        snprintf(config, sizeof config,
                 GPTQ(EIGHT) "\"dynamic\":{\"-:lm_head\":{},\"%s\":%s,\"+:m\":{\"bits\":2}}", fitting[i],
                 own);
        assert_reads(golden, config);
    }
    /* matched from the beginning of the name, and not at all: the config's own bits do not fit the tensors */
    snprintf(config, sizeof config, GPTQ(EIGHT) "\"dynamic\":{\"+:n\":%s,\"+:x?m.\":%s}", own, own);
    assert_refuses(golden, config, QB_ERR_FORMAT, "tensor m.qweight: expected I32 [16, 32]");
    assert_refuses(golden, GPTQ(EIGHT) "\"dynamic\":{\"+:(\":{}}", QB_ERR_FORMAT, "is no regular expression");
    assert_refuses(golden, GPTQ(EIGHT) "\"dynamic\":{\"m\":{\"bits\":5}}", QB_ERR_UNSUPPORTED,
                   "5 bits are not supported");
    assert_refuses(golden, GPTQ(EIGHT) "\"dynamic\":{\"m\":7}", QB_ERR_FORMAT, "must hold objects");
}

static void test_module_rules__auto_round_is_gptq_or_awq_inside(void **state) {
    (void)state;
    assert_reads("gptqmodel-sym-v1",
                 "\"quant_method\":\"auto-round\",\"packing_format\":\"auto_round:auto_gptq\","
                 "\"bits\":4,\"group_size\":32,\"sym\":true");
    assert_reads("awq-asym", "\"quant_method\":\"auto-round\",\"packing_format\":\"auto_round:auto_awq\","
                             "\"bits\":4,\"group_size\":32,\"sym\":false");
    assert_reads("gptqmodel-sym-v1",
                 "\"quant_method\":\"auto-round\",\"packing_format\":\"auto_round:auto_gptq\","
                 "\"bits\":8,\"group_size\":64,\"sym\":true,\"extra_config\":{\"lm_head\":{\"bits\":16},"
                 "\"m\":{\"bits\":4,\"group_size\":32}}");
    assert_refuses("awq-asym",
                   "\"quant_method\":\"auto-round\",\"packing_format\":\"auto_round:fp8\",\"bits\":8",
                   QB_ERR_UNSUPPORTED, "packing_format \"auto_round:fp8\" is not supported");
    assert_refuses("awq-asym", "\"quant_method\":\"auto-round\",\"bits\":4", QB_ERR_FORMAT,
                   "\"packing_format\" is missing");
}

static void test_module_rules__a_missing_group_size_is_named(void **state) {
    (void)state;
    assert_refuses("gptqmodel-sym-v1", "\"quant_method\":\"gptq\",\"bits\":4,\"sym\":true", QB_ERR_FORMAT,
                   "\"group_size\" is missing, and m.scales shows 2 groups of 32 columns");
}

static int told;
static void keep_warning(void *needle, const char *line) {
    told += strstr(line, needle) != NULL;
}

/* What the tensors and the rules say differently is read as the tensors have it, and said. */
static void test_module_rules__a_dense_rule_on_a_packed_module_is_odd(void **state) {
    (void)state;
    qb_checkpoint *ck = NULL;
    qb_weight w;
    const char *own = GPTQ("\"bits\":4,\"group_size\":32,\"sym\":false,\"dynamic\":{\"-:m\":{}}");
    assert_reads("gptqmodel-asym-v2", own);
    assert_ok(read_under("gptqmodel-asym-v2", own, &w, &ck));
    assert_true(qb_checkpoint_ruled_dense(ck, "m"));
    assert_false(qb_checkpoint_ruled_dense(ck, "n"));
    qb_checkpoint_free_linear(ck, "m", &w);
    qb_checkpoint_close(ck);
}

static void test_module_rules__a_kv_cache_scheme_is_a_warning_in_every_dialect(void **state) {
    (void)state;
    static const struct {
        const char *golden, *config;
    } rows[] = {
        {"gptqmodel-asym-v2", GPTQ("\"bits\":4,\"group_size\":32,\"sym\":false")},
        {"awq-asym", "\"quant_method\":\"awq\",\"bits\":4,\"group_size\":32,\"zero_point\":true"},
        {"gptqmodel-sym-v1", "\"quant_method\":\"auto-round\",\"packing_format\":\"auto_round:auto_gptq\","
                             "\"bits\":4,\"group_size\":32,\"sym\":true"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char config[512];
        snprintf(config, sizeof config, "%s,\"kv_cache_scheme\":{\"num_bits\":8}", rows[i].config);
        told = 0;
        qb_log_capture(keep_warning, "kv_cache_scheme");
        assert_reads(rows[i].golden, config);
        qb_log_capture(NULL, NULL);
        assert_int_equal(told, 1);
    }
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, drop_dir)
    const struct CMUnitTest tests[] = {
        TEST(test_module_rules__the_first_rule_that_fits_counts),
        TEST(test_module_rules__auto_round_is_gptq_or_awq_inside),
        TEST(test_module_rules__a_missing_group_size_is_named),
        TEST(test_module_rules__a_dense_rule_on_a_packed_module_is_odd),
        TEST(test_module_rules__a_kv_cache_scheme_is_a_warning_in_every_dialect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
